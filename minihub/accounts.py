"""Who is who: users, their sessions and tokens, and the link that makes the first owner.

Rules of this file: rows in, rows out, with secrets only ever stored hashed. It decides who
somebody is, never what they may do (:mod:`minihub.roles`), and knows no HTTP.

Threads: any; each function opens the session or transaction it needs.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from . import clock, tokens
from .models import OAuthCode, OwnerLink, Session, SessionPlace, Token, User
from .prepared import Prepared, slot, slots
from .store import Store

OWNER_LINK_LIFETIME_S = 1800
#: Activity of a token is written at most this often.
TOKEN_ACTIVITY_STEP_S = 60


def fingerprint(secret: str) -> str:
    """Return the SHA-256 under which a secret of 256 random bits is stored and found."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


@dataclass(frozen=True)
class Login:
    """A valid login: the user's row and the browser's session id."""

    user: User
    session: Session


USER_BY_NAME = Prepared(lambda: User.select().where(User.name == slot("name")))
USER_BY_ID = Prepared(lambda: User.select().where(User.id == slot("id")))
_ADD_USER = Prepared(lambda: User.insert(slots("name", "admin", "created")))
_TOKEN = Prepared(lambda: Token.select().where(Token.id == slot("id")))
_TOKENS_BY_PREFIX = Prepared(lambda: Token.select().where(Token.prefix == slot("prefix")))
_TOUCH_TOKEN = Prepared(lambda: Token.update(slots("last_activity")).where(Token.id == slot("id")))
_ADD_TOKEN = Prepared(
    lambda: Token.insert(
        slots("user", "service", "server", "oauth_client", "prefix", "hashed", "note", "scopes")
        | slots("legacy", "session_id", "created", "expires_at")
    )
)
_ADD_SESSION = Prepared(lambda: Session.insert(slots("user", "hashed", "session_id", "created")))
_ADD_PLACE = Prepared(
    lambda: SessionPlace.insert(slots("session", "browser", "system", "address", "last_used"))
)
_DELETE_OLD_SESSIONS = Prepared(lambda: Session.delete().where(Session.created < slot("oldest")))
_DELETE_EXPIRED = Prepared(lambda: Token.delete().where(Token.expires_at <= slot("now")))


class Accounts:
    """The store's users, sessions and tokens."""

    #: Called with the user's id, from any thread, after logins have ended.
    on_logout: Callable[[int], None] = staticmethod(lambda user_id: None)

    def __init__(self, store: Store, *, session_lifetime_s: float) -> None:
        self.store = store
        self.session_lifetime_s = session_lifetime_s

    # -- users -----------------------------------------------------------------------------

    def user(self, name: str) -> User | None:
        """Return the user of that (normalised) name."""
        with self.store.session():
            return USER_BY_NAME.row(name=name)

    def ensure_user(self, name: str, *, admin: bool | None = None) -> tuple[User, bool]:
        """Return ``(user, created)``; with ``admin`` given the flag is set to it."""
        user = self.user(name)
        if user is not None and admin in (None, user.admin):
            return user, False
        # Somebody who is new or stays as they are changes nothing of what is known of others.
        with self.store.transaction(touches_rights=False):
            user = USER_BY_NAME.row(name=name)
            created = user is None
            was_admin = user is not None and user.admin
            if user is None:
                _ADD_USER.run(name=name, admin=bool(admin), created=clock.now_text())
                user = USER_BY_NAME.row(name=name)
            elif admin is not None and user.admin != admin:
                user.admin = admin
                user.save(only=[User.admin])
            if user.admin != was_admin:
                self.store.touch_rights()
            if user.admin and not was_admin:
                OwnerLink.delete().execute()  # the link dies with the first admin
            return user, created

    def users(self) -> list[User]:
        """Return all users by name."""
        with self.store.session():
            return list(User.select().order_by(User.name))

    def delete_user(self, user: User) -> None:
        """Delete a user with all logins, tokens and servers' rows."""
        with self.store.transaction():
            User.delete().where(User.id == user.id).execute()

    def lock_out(self, name: str) -> None:
        """End every login of a user and revoke every token but those of running servers.

        Such a token lets a server ask who visits it, and nothing else. The user stays.
        """
        with self.store.transaction():
            user = User.get_or_none(User.name == name)
            if user is not None:
                Session.delete().where(Session.user == user).execute()
                OAuthCode.delete().where(OAuthCode.user == user).execute()
                Token.delete().where(Token.user == user, Token.server.is_null()).execute()
        if user is not None:
            self.on_logout(user.id)

    def end_sessions(self, user: User) -> None:
        """End every login of a user; revoke every token, and code for one, that came out of it."""
        with self.store.transaction():
            # As one statement: there may be more logins than it could name one by one.
            mine = Session.select(Session.session_id).where(
                Session.user == user, Session.session_id != ""
            )
            Token.delete().where(Token.user == user, Token.session_id.in_(mine)).execute()
            Session.delete().where(Session.user == user).execute()
            OAuthCode.delete().where(OAuthCode.user == user).execute()
        self.on_logout(user.id)

    def has_users(self) -> bool:
        """Return whether anybody is in the user table."""
        with self.store.session():
            return User.select().exists()

    def is_admin(self, name: str) -> bool:
        """Return whether the database knows ``name`` as an admin."""
        user = self.user(name)
        return user is not None and user.admin

    # -- sessions --------------------------------------------------------------------------

    def start_session(
        self, user: User, session_id: str, *, browser: str = "", system: str = "", address: str = ""
    ) -> str:
        """Record a login and return the key for its cookie.

        ``browser`` and ``system`` are names, for the list of one's logins, as is the address.
        """
        key = tokens.new_token()
        with self.store.transaction(touches_rights=False):  # what it deletes has expired
            oldest = clock.isoformat(clock.after(-self.session_lifetime_s))
            _DELETE_OLD_SESSIONS.run(oldest=oldest)
            now = clock.now_text()
            row_id = _ADD_SESSION.insert(
                user=user.id, hashed=fingerprint(key), session_id=session_id, created=now
            )
            _ADD_PLACE.run(
                session=row_id,
                browser=browser[:40],
                system=system[:40],
                address=address[:64],
                last_used=now,
            )
        return key

    def login(self, key: str) -> Login | None:
        """Return the login whose cookie key is ``key``; None when it ended or is too old."""
        with self.store.session():
            session = (
                Session.select(Session, User)
                .join(User)
                .where(Session.hashed == fingerprint(key))
                .first()
            )
        if session is None:
            return None
        if clock.parse(session.created) < clock.after(-self.session_lifetime_s):
            return None
        return Login(session.user, session)

    def sessions_of(self, user: User, most: int) -> list[Session]:
        """Return the logins of a user that still count, the newest first, ``most`` at most."""
        oldest = clock.isoformat(clock.after(-self.session_lifetime_s))
        mine = (Session.user == user) & (Session.created >= oldest)
        with self.store.session():
            return list(Session.select().where(mine).order_by(Session.id.desc()).limit(most))

    def places_of(self, sessions: Iterable[Session]) -> dict[int, SessionPlace]:
        """Return where these logins are used, by their id; older ones may have no place."""
        ids = [row.id for row in sessions]
        with self.store.session():
            found = SessionPlace.select().where(SessionPlace.session.in_(ids))
            return {row.session_id: row for row in found}

    def touch_session(self, session: Session, address: str) -> None:
        """Note that a login was used, and from where; the caller takes care of steps."""
        values = {"last_used": clock.now_text(), "address": address[:64]}
        with self.store.transaction(touches_rights=False):
            mine = SessionPlace.session == session.id
            if SessionPlace.update(**values).where(mine).execute():
                return
            if Session.select().where(Session.id == session.id).exists():
                SessionPlace.create(session=session.id, **values)

    def end_session(self, session: Session) -> None:
        """End one login and revoke every token, and every code for one, that came out of it."""
        with self.store.transaction():
            Session.delete().where(Session.id == session.id).execute()
            if session.session_id:
                for table in (Token, OAuthCode):
                    mine = (table.user == session.user_id) & (
                        table.session_id == session.session_id
                    )
                    table.delete().where(mine).execute()
        self.on_logout(session.user_id)

    # -- tokens ----------------------------------------------------------------------------

    def issue_token(
        self,
        *,
        user_id: int | None = None,
        service_id: int | None = None,
        server_id: int | None = None,
        oauth_client_id: int | None = None,
        note: str = "",
        scopes: list[str] | None = None,
        session_id: str = "",
        expires_in_s: float | None = None,
        plain: str | None = None,
        rounds: int = tokens.GENERATED_ROUNDS,
        legacy: bool = False,
    ) -> tuple[Token, str]:
        """Store a new token of exactly one owner and return ``(row, plain text)``.

        ``scopes`` default to ``["inherit"]``: everything its owner may do. ``expires_in_s``
        None means that it does not expire. ``plain`` registers a token made elsewhere, and
        ``rounds`` stretches it.
        """
        secret = plain or tokens.new_token()
        with self.store.transaction(touches_rights=False):  # what it deletes has expired
            _DELETE_EXPIRED.run(now=clock.now_text())
            values = {
                "user": user_id,
                "service": service_id,
                "server": server_id,
                "oauth_client": oauth_client_id,
                "prefix": secret[: tokens.PREFIX_LENGTH],
                "hashed": tokens.hash_token(secret, rounds=rounds),
                "note": note,
                "scopes": Token.scopes.db_value(["inherit"] if scopes is None else scopes),
                "legacy": legacy,
                "session_id": session_id,
                "created": clock.now_text(),
                "expires_at": None
                if expires_in_s is None
                else clock.isoformat(clock.after(expires_in_s)),
            }
            row = _TOKEN.row(id=_ADD_TOKEN.insert(**values))
        return row, secret

    def find_token(self, plain: str) -> Token | None:
        """Return the live token whose plain text this is; expired ones are no tokens."""
        if len(plain) > 1024 or not plain.isascii():
            return None
        with self.store.session():
            candidates = _TOKENS_BY_PREFIX.rows(prefix=plain[: tokens.PREFIX_LENGTH])
            for row in candidates:
                if tokens.check_token(plain, row.hashed):
                    if row.expires_at and row.expires_at <= clock.now_text():
                        return None
                    if row.user_id is not None:
                        row.user = USER_BY_ID.row(id=row.user_id)
                    return row
        return None

    def live(self) -> Any:
        """Return the condition that a token has not expired."""
        return Token.expires_at.is_null() | (Token.expires_at > clock.now_text())

    def touch_token(self, row: Token) -> None:
        """Note that a token was used, in coarse steps."""
        limit = clock.isoformat(clock.after(-TOKEN_ACTIVITY_STEP_S))
        if row.last_activity is None or row.last_activity < limit:
            row.last_activity = clock.now_text()
            with self.store.transaction(touches_rights=False, lasting=False):
                _TOUCH_TOKEN.run(last_activity=row.last_activity, id=row.id)

    # -- the first owner -------------------------------------------------------------------

    def has_admin(self) -> bool:
        """Return whether anybody is an admin."""
        with self.store.session():
            return User.select().where(User.admin).exists()

    def new_owner_link(self, uid: int) -> str:
        """Return a fresh one-time code that makes an admin.

        ``uid`` is the operating system's user who asked for it. Earlier codes end.
        """
        code = secrets.token_urlsafe(24)
        with self.store.transaction():
            OwnerLink.delete().execute()
            expires = clock.isoformat(clock.after(OWNER_LINK_LIFETIME_S))
            OwnerLink.create(hashed=fingerprint(code), expires_at=expires, uid=uid)
        return code

    def owner_link(self, code: str) -> OwnerLink | None:
        """Return the link of that code while it is good, without spending it."""
        with self.store.session():
            return OwnerLink.get_or_none(
                OwnerLink.hashed == fingerprint(code), OwnerLink.expires_at > clock.now_text()
            )

    def spend_owner_link(self, code: str, name: str) -> User | None:
        """Make ``name`` an admin and end the link; None when the link is not good."""
        with self.store.transaction():
            spent = (
                OwnerLink.delete()
                .where(
                    OwnerLink.hashed == fingerprint(code),
                    OwnerLink.expires_at > clock.now_text(),
                )
                .execute()
            )
            if not spent:
                return None
            return self.ensure_user(name, admin=True)[0]
