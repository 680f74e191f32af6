"""Who is asking: a token or a login cookie, and whether a form is our own.

Rules of this file: it turns headers and cookies into a :class:`Caller` and checks the XSRF
secret. What the caller may do is in its ``scopes``; which route demands which is in the route
table. A wrong token falls back to the cookie, as JupyterHub does.

Threads: any; one :class:`Identity` serves all requests.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import Any

from .. import signing, tokens
from ..accounts import Accounts
from ..models import Service, Session, Token, User
from ..roles import Roles
from ..scopes import Scopes
from . import cookies

_AUTHORIZATION = re.compile(r"(?:token|bearer)\s+(\S+)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Caller:
    """Somebody who proved who they are: a user or a service, by a login or by a token."""

    user: User | None
    service: Service | None
    scopes: Scopes
    token: Token | None = None
    session: Session | None = None

    @property
    def kind(self) -> str:
        return "user" if self.user is not None else "service"

    @property
    def name(self) -> str:
        owner = self.user if self.user is not None else self.service
        return owner.name

    @property
    def session_id(self) -> str:
        bearer = self.session or self.token
        return bearer.session_id


class Identity:
    """Recognises callers and forms."""

    def __init__(
        self, accounts: Accounts, roles: Roles, *, secret: bytes, cookie_max_age_days: float
    ) -> None:
        self.accounts = accounts
        self.roles = roles
        self.secret = secret
        self.cookie_max_age_days = cookie_max_age_days

    def by_token(self, authorization: str | None) -> Caller | None:
        """Return whom the ``Authorization`` header proves, if anybody."""
        match = _AUTHORIZATION.fullmatch(authorization or "")
        if not match:
            return None
        token = self.accounts.find_token(match[1])
        if token is None:
            return None
        self.accounts.touch_token(token)
        with self.accounts.store.session():
            user, service = token.user, token.service
        return Caller(user, service, self.roles.of_token(token), token=token)

    def by_cookie(self, jar: dict[str, list[str]]) -> Caller | None:
        """Return whom a validly signed login cookie proves, if anybody."""
        for value in jar.get(cookies.LOGIN, ()):
            key = signing.unsign(
                self.secret, cookies.LOGIN, value, max_age_days=self.cookie_max_age_days
            )
            login = self.accounts.login(key) if key else None
            if login is not None:
                scopes = self.roles.of_user(login.user)
                return Caller(login.user, None, scopes, session=login.session)
        return None

    def sign_login(self, key: str) -> str:
        """Return the login cookie's value for a session's key."""
        return signing.sign(self.secret, cookies.LOGIN, key)

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
