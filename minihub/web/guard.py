"""Against guessing: how often passwords and codes may be wrong, by name, by address and altogether.

Rules of this file: whatever checks a password or a code that somebody typed enters here first and
gives its attempt back when it was right; the options say how many may be wrong. The address is the
one that :mod:`minihub.web.forwarded` believes. A browser that has logged in under a name before is
told by a cookie of its own, and counted apart: others who guess at that name, even behind the same
address, do not lock its owner out.

Threads: any.
Sources: OWASP's "device cookies".
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .. import clock, signing, throttle, tokens
from ..auth.classnames import normalized
from ..auth.names import shown
from ..errors import MinihubError, TooMany
from ..logs import safe
from ..texts import Text
from . import cookies

if TYPE_CHECKING:
    from .context import Context

log = logging.getLogger("minihub.guard")

#: A wrong password is answered no sooner: what checks a known name's takes less on most machines.
LEAST_S = 0.5
#: A browser is remembered for so long after its last login under a name.
DEVICE_DAYS = 180
#: How many names a browser is remembered for; the oldest goes first.
DEVICE_NAMES = 4
#: Accounts that people make for themselves without a code: from one address, and altogether.
SIGNUPS_PER_ADDRESS = 100
SIGNUPS_OVERALL = 500
SIGNUP_WINDOW_S = 3600.0


class TooManyAttempts(TooMany):
    """Raised when a password or a code was wrong too often; says when to try again."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(
            Text(
                "Too many wrong attempts. Wait %(time)s, then try again.",
                time=throttle.in_words(wait_s),
            ),
            retry_after_s=throttle.seconds(wait_s),
        )


class Guard:
    """The throttles of one site."""

    def __init__(self, authenticator: Any, secret: bytes) -> None:
        self._normalize = authenticator.normalize_username
        self._secret = secret
        per_address = authenticator.login_failures_per_address
        overall = authenticator.login_failures_overall
        window_s = float(authenticator.login_failure_window)
        self._logins = throttle.Throttle(
            {
                "client": authenticator.login_failures_per_client,
                "name": authenticator.login_failures_per_name,
                "address": per_address,
            },
            overall=overall,
            window_s=window_s,
        )
        self._devices = throttle.Throttle(
            {"device": authenticator.login_failures_per_client}, overall=overall, window_s=window_s
        )
        self._codes = throttle.Throttle(
            {"address": per_address}, overall=overall, window_s=window_s
        )
        self._signups = throttle.Throttle(
            {"address": SIGNUPS_PER_ADDRESS}, overall=SIGNUPS_OVERALL, window_s=SIGNUP_WINDOW_S
        )

    @contextmanager
    def password(self, ctx: Context, name: str) -> Iterator[Try]:
        """Let a check of a password under ``name`` run; it counts unless it ends as right.

        Then it also takes LEAST_S, so that no authenticator tells by the clock which names there
        are. Raises TooManyAttempts before the block.
        """
        began = clock.monotonic()
        key, address = self._key(name), ctx.remote_ip
        device = self._device(ctx, key)
        if device:
            place, names = self._devices, {"device": device}
        else:
            place = self._logins
            names = {"client": f"{address}\0{key}", "name": key, "address": address}
        with self._enter(place, names, f"login as {shown(name)} from {safe(address, 64)}") as one:
            try:
                yield one
            finally:
                if not one.was_right:
                    time.sleep(max(0.0, LEAST_S - (clock.monotonic() - began)))

    @contextmanager
    def code(self, ctx: Context) -> Iterator[Try]:
        """Let a check of a class code run; it counts unless it ends as right."""
        address = ctx.remote_ip
        what = f"class code from {safe(address, 64)}"
        with self._enter(self._codes, {"address": address}, what) as one:
            yield one

    def count_signup(self, ctx: Context) -> None:
        """Count an account made without a code. Raises TooManyAttempts."""
        wait = self._signups.enter(address=ctx.remote_ip)
        if not isinstance(wait, throttle.Attempt):
            log.warning("Too many sign-ups: the last from %s", safe(ctx.remote_ip, 64))
            raise TooMany(
                Text(
                    "Too many new accounts. Wait %(time)s, then try again.",
                    time=throttle.in_words(wait),
                ),
                retry_after_s=throttle.seconds(wait),
            )

    @contextmanager
    def _enter(self, place: throttle.Throttle, names: dict[str, str], what: str) -> Iterator[Try]:
        entered = place.enter(**names)
        if not isinstance(entered, throttle.Attempt):
            log.warning("Too many attempts: %s refused", what)
            raise TooManyAttempts(entered)
        one = Try()
        try:
            yield one
        except MinihubError:
            raise
        except Exception:
            one.right()  # what broke was not the attempt
            raise
        finally:
            if one.was_right:
                place.give_back(entered)

    def _key(self, name: str) -> str:
        """Return a name as it counts, whether there is such a user or not."""
        try:
            return self._normalize(name[:256])
        except Exception:  # an authenticator may be anybody's
            return normalized(name[:256])

    # -- browsers --------------------------------------------------------------------------

    def remember_device(self, ctx: Context, name: str) -> None:
        """Let this browser be known as one that logged in under ``name``."""
        key = self._key(name)
        mine = tokens.new_token()[:16]
        known = [part for part in self._known(ctx) if part[0] != _mark(key)]
        parts = [(_mark(key), mine), *known][:DEVICE_NAMES]
        value = signing.sign(self._secret, cookies.DEVICE, ".".join(map("-".join, parts)))
        ctx.set_cookie(
            cookies.DEVICE, value, path=ctx.site.hub_prefix, max_age_s=DEVICE_DAYS * 86400
        )

    def _device(self, ctx: Context, key: str) -> str:
        """Return what stands for this browser under a name; "" when it is not known for it."""
        mark = _mark(key)
        return next((f"{one}-{mine}" for one, mine in self._known(ctx) if one == mark), "")

    def _known(self, ctx: Context) -> list[tuple[str, str]]:
        for value in ctx.jar.get(cookies.DEVICE, ()):
            plain = signing.unsign(self._secret, cookies.DEVICE, value, max_age_days=DEVICE_DAYS)
            if plain:
                pairs = (part.partition("-") for part in plain.split("."))
                return [(mark, mine) for mark, dash, mine in pairs if dash][:DEVICE_NAMES]
        return []


class Try:
    """One attempt inside its block."""

    was_right = False

    def right(self) -> None:
        """Say that it was right, or that it was not somebody's guess."""
        self.was_right = True


def _mark(key: str) -> str:
    """Return what stands for a name in a cookie."""
    return tokens.hash_token(key, salt="device").rpartition(":")[2][:24]
