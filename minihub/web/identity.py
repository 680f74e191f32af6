"""Who is asking: a token or a login cookie, and whether a form is our own.

Rules of this file: it turns headers and cookies into a :class:`Caller` and checks the XSRF
secret. What the caller may do is in its ``scopes``; which route demands which is in the route
table. A wrong token falls back to the cookie, as JupyterHub does. A caller seen before costs no
query: it is remembered, under a hash of its proof, until a write touches rights or it expires.

Threads: any; one :class:`Identity` serves all requests. A :class:`Caller` may be shared by several
requests at once, and nobody changes its rows.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from .. import clock, signing, tokens
from ..accounts import TOKEN_ACTIVITY_STEP_S, Accounts, fingerprint
from ..activity import Activity
from ..models import Service, Session, Token, User
from ..roles import Roles
from ..scopes import Scopes
from ..store import Cache
from . import cookies, shapes

_AUTHORIZATION = re.compile(r"(?:token|bearer)\s+(\S+)\s*", re.IGNORECASE)
#: How many callers are remembered.
CACHE_SIZE = 8192


@dataclass(frozen=True)
class Caller:
    """Somebody who proved who they are: a user or a service, by a login or by a token."""

    user: User | None
    service: Service | None
    scopes: Scopes
    token: Token | None = None
    session: Session | None = None
    #: Names of the roles held directly, and of the groups.
    roles: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        return "user" if self.user is not None else "service"

    @property
    def name(self) -> str:
        owner = self.user if self.user is not None else self.service
        return owner.name

    @cached_property
    def view(self) -> shapes.UserView:
        """What the caller sees of users."""
        return shapes.UserView(self.scopes)

    @cached_property
    def scope_names(self) -> list[str]:
        """The expanded scopes, sorted."""
        return sorted(self.scopes.raw)

    @property
    def is_admin(self) -> bool:
        """Whether the user or service is an admin, whatever this token may do."""
        owner = self.user if self.user is not None else self.service
        return owner.admin

    @property
    def is_legacy(self) -> bool:
        """Whether answers are for a client of JupyterHub 0.8: dates without a zone."""
        return (self.token is not None and self.token.legacy) or (
            self.service is not None and self.service.legacy
        )


@dataclass
class _Known:
    """A caller who proved who they are, for how long, and when to note its activity next."""

    caller: Caller
    until: datetime | None
    note_at: float = 0.0


class Identity:
    """Recognises callers and forms."""

    def __init__(
        self,
        accounts: Accounts,
        roles: Roles,
        activity: Activity,
        *,
        secret: bytes,
        cookie_max_age_days: float,
    ) -> None:
        self.accounts = accounts
        self.roles = roles
        self.activity = activity
        self.secret = secret
        self.cookie_max_age_days = cookie_max_age_days
        self._callers: Cache[_Known] = Cache(accounts.store, CACHE_SIZE)

    def by_token(self, authorization: str | None) -> Caller | None:
        """Return whom the ``Authorization`` header proves, if anybody."""
        match = _AUTHORIZATION.fullmatch(authorization or "")
        if not match:
            return None
        plain = match[1]
        return self._caller(fingerprint(plain), lambda: self._read_token(plain))

    def by_cookie(
        self, jar: dict[str, list[str]], name: str = cookies.LOGIN, *, address: str = ""
    ) -> Caller | None:
        """Return whom a validly signed login cookie proves, if anybody.

        Of several, which another program of the same host or a sibling of it must have set, that
        of this browser's session counts. ``address`` is where the browser is, noted with the
        login; without one nothing is noted of the login itself.
        """
        found = []
        for value in jar.get(name, ()):
            caller = self._caller((name, fingerprint(value)), self._reader(name, value), address)
            if caller is not None:
                found.append(caller)
        if len(found) > 1:
            ids = jar.get(cookies.SESSION_ID, ())
            mine = [one for one in found if one.session and one.session.session_id in ids]
            found = mine or found
        return found[0] if found else None

    def of_user(self, user: User) -> Caller:
        """Return the user as a caller who proved it in a way that leaves no trace."""
        rights = self.roles.rights_of_user(user)
        return Caller(user, None, rights.scopes, roles=rights.roles, groups=rights.groups)

    def _caller(
        self, key: Any, read: Callable[[], _Known | None], address: str = ""
    ) -> Caller | None:
        known = self._callers.get(key, read)
        if known is None or (known.until is not None and known.until <= clock.utcnow()):
            return None
        now = clock.monotonic()
        if now >= known.note_at:
            known.note_at = now + TOKEN_ACTIVITY_STEP_S
            self._note(known.caller, address)
        return known.caller

    def _note(self, caller: Caller, address: str) -> None:
        """Note that the caller is active; a server's own requests do not make its user active."""
        if caller.token is not None:
            self.accounts.touch_token(caller.token)
        if caller.session is not None and address:
            self.accounts.touch_session(caller.session, address)
        if caller.user is not None and (caller.token is None or caller.token.server_id is None):
            self.activity.user(caller.user.id, clock.utcnow())

    def _read_token(self, plain: str) -> _Known | None:
        token = self.accounts.find_token(plain)
        if token is None:
            return None
        with self.accounts.store.session():
            user, service = token.user, token.service
        rights = (
            self.roles.rights_of_user(user)
            if user is not None
            else self.roles.rights_of_service(service)
        )
        caller = Caller(
            user,
            service,
            self.roles.of_token(token),
            token=token,
            roles=rights.roles,
            groups=rights.groups,
        )
        return _Known(caller, clock.parse(token.expires_at) if token.expires_at else None)

    def _reader(self, name: str, value: str) -> Callable[[], _Known | None]:
        def read() -> _Known | None:
            key = signing.unsign(self.secret, name, value, max_age_days=self.cookie_max_age_days)
            login = self.accounts.login(key) if key else None
            if login is None:
                return None
            rights = self.roles.rights_of_user(login.user)
            caller = Caller(
                login.user,
                None,
                rights.scopes,
                session=login.session,
                roles=rights.roles,
                groups=rights.groups,
            )
            lifetime = timedelta(seconds=self.accounts.session_lifetime_s)
            return _Known(caller, clock.parse(login.session.created) + lifetime)

        return read

    def sign_login(self, key: str, name: str = cookies.LOGIN) -> str:
        """Return the value of a login cookie for a session's key, good under that name alone."""
        return signing.sign(self.secret, name, key)

    # -- forms -----------------------------------------------------------------------------

    def _binding(self, caller: Caller | None, jar: dict[str, list[str]], agent: str) -> str:
        """Return what an XSRF secret is bound to: this login, or this anonymous browser."""
        if caller is not None and caller.session is not None:
            return f"login:{caller.session.hashed}"
        digest = hashlib.sha256(agent.encode("utf-8", "replace")).hexdigest()[:32]
        return f"anonymous:{cookies.session_id(jar)}:{digest}"

    def valid_xsrf(self, caller: Caller | None, jar: dict[str, list[str]], agent: str) -> str:
        """Return the browser's XSRF secret if we signed it for this login, else an empty text."""
        expected = self._binding(caller, jar, agent)
        for value in jar.get(cookies.XSRF, ()):
            try:
                signed = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).decode("ascii")
            except ValueError:
                continue
            bound = signing.unsign(
                self.secret, cookies.XSRF, signed, max_age_days=self.cookie_max_age_days
            )
            if bound is not None and tokens.same_secret(bound, expected):
                return value
        return ""

    def new_xsrf(self, caller: Caller | None, jar: dict[str, list[str]], agent: str) -> str:
        """Return a fresh XSRF secret for this login or browser."""
        signed = signing.sign(self.secret, cookies.XSRF, self._binding(caller, jar, agent))
        return base64.urlsafe_b64encode(signed.encode()).decode().rstrip("=")


def wants_json(headers: Any) -> bool:
    """Return whether a request prefers JSON to HTML by its ``Accept`` header."""
    accept = headers.get("Accept", "")
    return "application/json" in accept and "text/html" not in accept
