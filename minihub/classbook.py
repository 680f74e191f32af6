"""The class book: passwords the hub keeps, class codes, and people who wait for approval.

Rules of this file: rows in, rows out, hashes instead of passwords. Who becomes a user here becomes
one in the same transaction that counts the code's use, so that a code of 30 uses makes 30 users
however many try at once. A name that is taken is never touched by a sign-up. It knows no HTTP.

Threads: any; each function opens the session or transaction it needs. Nothing slow (a password is
hashed in a tenth of a second) happens inside one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from . import clock, readable
from .accounts import Accounts
from .errors import MinihubError
from .models import (
    ClassCode,
    Credential,
    Group,
    GroupMember,
    OAuthCode,
    Session,
    SignupRequest,
    Token,
    User,
)
from .texts import Text

#: A sign-up that nobody approved is forgotten after this time.
REQUEST_LIFETIME_S = 14 * 86400.0
#: What is noted of a class code that nobody asked for.
MADE_AT_START = Text("made at the start")


class CodeNotGood(MinihubError):
    """Raised for a class code that was never one, has expired, or has no use left."""

    status = 403

    def __init__(self) -> None:
        super().__init__(
            Text(
                "This class code is not good: it may be mistyped, expired, or used up. Ask "
                "whoever showed it to you."
            )
        )


class NameTaken(MinihubError):
    """Raised when somebody signs up under a name that is a user's, or waits to become one."""

    status = 409

    def __init__(self) -> None:
        super().__init__(Text("This name is taken. Choose another one."))


class TooManyWaiting(MinihubError):
    """Raised when so many wait for approval that nobody more can."""

    status = 503

    def __init__(self) -> None:
        super().__init__(
            Text("Too many people are waiting to be let in. Ask whoever runs this hub.")
        )


@dataclass(frozen=True)
class Secret:
    """The stored secret of a user: a password, or a one-time code while ``expires_at`` is set."""

    user_id: int
    hashed: str
    expires_at: str | None

    @property
    def is_code(self) -> bool:
        return self.expires_at is not None

    @property
    def has_expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= clock.now_text()


class Classbook:
    """The store's passwords, codes and waiting people."""

    def __init__(self, accounts: Accounts) -> None:
        self.accounts = accounts
        self.store = accounts.store

    # -- passwords -------------------------------------------------------------------------

    def secret_of(self, name: str) -> Secret | None:
        """Return the stored secret of the user of that (normalised) name."""
        with self.store.session():
            row = Credential.select(Credential).join(User).where(User.name == name).first()
        return Secret(row.user_id, row.hashed, row.expires_at) if row else None

    def has_password(self, user: User) -> bool:
        """Return whether a user has a password of their own, or a one-time code for setting one."""
        with self.store.session():
            return Credential.select().where(Credential.user == user).exists()

    def rehash(self, secret: Secret, hashed: str) -> None:
        """Store the same secret hashed anew, unless it has been changed meanwhile."""
        with self.store.transaction(touches_rights=False):
            Credential.update(hashed=hashed).where(
                Credential.user == secret.user_id, Credential.hashed.in_([secret.hashed])
            ).execute()

    def set_password(self, user: User, hashed: str, *, keep_session: Session | None = None) -> None:
        """Give a user a password and end all their logins but one.

        Tokens that came out of those logins end with them; tokens made by hand stay.
        """
        with self.store.transaction():
            self._put(user, hashed, None)
            ended = Session.select().where(Session.user == user)
            if keep_session is not None:
                ended = ended.where(Session.id != keep_session.id)
            ids = [row.session_id for row in ended if row.session_id]
            Token.delete().where(Token.user == user, Token.session_id.in_(ids)).execute()
            OAuthCode.delete().where(OAuthCode.user == user).execute()
            Session.delete().where(Session.id.in_([row.id for row in ended])).execute()
        self.accounts.on_logout(user.id)

    def spend_one_time_code(self, secret: Secret, hashed: str) -> bool:
        """Put a password in the place of a one-time code; False when the code is gone."""
        with self.store.transaction():
            spent = (
                Credential.update(hashed=hashed, expires_at=None, changed=clock.now_text())
                .where(
                    Credential.user == secret.user_id,
                    Credential.hashed.in_([secret.hashed]),
                    Credential.expires_at > clock.now_text(),
                )
                .execute()
            )
            return bool(spent)

    def reset(self, user: User, hashed: str, lifetime_s: float) -> str:
        """Give a user a one-time code in the place of any password; return when it expires.

        Ends every login of the user and every token but those of running servers: such a token
        lets a server ask who visits it, and nothing else.
        """
        with self.store.transaction():
            expires_at = self._put(user, hashed, lifetime_s)
            Session.delete().where(Session.user == user).execute()
            OAuthCode.delete().where(OAuthCode.user == user).execute()
            Token.delete().where(Token.user == user, Token.server.is_null()).execute()
        self.accounts.on_logout(user.id)
        assert expires_at is not None
        return expires_at

    def _put(self, user: User, hashed: str, lifetime_s: float | None) -> str | None:
        expires_at = None if lifetime_s is None else clock.isoformat(clock.after(lifetime_s))
        values = {"hashed": hashed, "changed": clock.now_text(), "expires_at": expires_at}
        if not Credential.update(**values).where(Credential.user == user).execute():
            Credential.create(user=user, **values)
        return expires_at

    # -- class codes -----------------------------------------------------------------------

    def new_code(
        self, *, uses: int, lifetime_s: float, group: str = "", note: str = "", by: str = ""
    ) -> ClassCode:
        """Make a class code; a ``group`` that is not there yet is made with it."""
        with self.store.transaction():
            row = None if not group else Group.get_or_create(name=group)[0]
            oldest = clock.isoformat(clock.after(-REQUEST_LIFETIME_S))
            ClassCode.delete().where(ClassCode.expires_at < oldest).execute()
            return ClassCode.create(
                code=readable.new_code(readable.CLASS_CODE_LENGTH),
                note=note,
                group=row,
                uses=uses,
                created=clock.now_text(),
                created_by=by,
                expires_at=clock.isoformat(clock.after(lifetime_s)),
            )

    def codes(self) -> list[ClassCode]:
        """Return the class codes that are still good, the newest first."""
        with self.store.session():
            return list(
                ClassCode.select(ClassCode, Group)
                .left_outer_join(Group)
                .where(ClassCode.expires_at > clock.now_text(), ClassCode.used < ClassCode.uses)
                .order_by(ClassCode.id.desc())
            )

    def used_up(self) -> list[ClassCode]:
        """Return the class codes that have no use left and have not expired, the newest first."""
        with self.store.session():
            return list(
                ClassCode.select(ClassCode, Group)
                .left_outer_join(Group)
                .where(ClassCode.expires_at > clock.now_text(), ClassCode.used >= ClassCode.uses)
                .order_by(ClassCode.id.desc())
            )

    def code(self, code_id: int) -> ClassCode | None:
        """Return a class code, good or not."""
        with self.store.session():
            return (
                ClassCode.select(ClassCode, Group)
                .left_outer_join(Group)
                .where(ClassCode.id == code_id)
                .first()
            )

    def is_good(self, code: str) -> bool:
        """Return whether somebody could sign up with that code now."""
        with self.store.session():
            return ClassCode.select().where(*_good(code)).exists()

    def end_code(self, code_id: int) -> ClassCode | None:
        """End a class code at once; return it, or None when there is none."""
        with self.store.transaction(touches_rights=False):
            row = ClassCode.get_or_none(ClassCode.id == code_id)
            if row is not None and row.expires_at > clock.now_text():
                row.expires_at = clock.now_text()
                row.save(only=[ClassCode.expires_at])
            return row

    def joined(self, code: ClassCode) -> list[str]:
        """Return the names of those who came with a code, in the order they came."""
        with self.store.session():
            found = (
                User.select(User.name)
                .join(Credential)
                .where(Credential.class_code == code)
                .order_by(User.id)
            )
            return [row.name for row in found]

    # -- signing up ------------------------------------------------------------------------

    def is_taken(self, name: str) -> bool:
        """Return whether a name is a user's, or that of somebody who waits for approval."""
        with self.store.session():
            return (
                User.select().where(User.name == name).exists()
                or SignupRequest.select().where(SignupRequest.name == name).exists()
            )

    def sign_up(self, name: str, hashed: str, *, code: str | None) -> User:
        """Make a user with a password, using up one use of ``code`` where one is needed.

        Raises CodeNotGood or NameTaken, having changed nothing.
        """
        with self.store.transaction():
            row = None
            if code is not None:
                used = ClassCode.update(used=ClassCode.used + 1).where(*_good(code)).execute()
                if not used:
                    raise CodeNotGood
                row = ClassCode.get(ClassCode.code == code)
            if self.is_taken(name):
                raise NameTaken
            user, _created = self.accounts.ensure_user(name)
            Credential.create(user=user, hashed=hashed, changed=clock.now_text(), class_code=row)
            if row is not None and row.group_id is not None:
                GroupMember.create(group=row.group_id, user=user)
            return user

    def ask(self, name: str, hashed: str, *, address: str, most: int) -> None:
        """Note that somebody wants to become a user. Raises NameTaken or TooManyWaiting."""
        with self.store.transaction(touches_rights=False):
            oldest = clock.isoformat(clock.after(-REQUEST_LIFETIME_S))
            SignupRequest.delete().where(SignupRequest.created < oldest).execute()
            if self.is_taken(name):
                raise NameTaken
            if SignupRequest.select().count() >= most:
                raise TooManyWaiting
            SignupRequest.create(
                name=name, hashed=hashed, created=clock.now_text(), address=address[:64]
            )

    def waiting(self) -> list[SignupRequest]:
        """Return those who wait for approval, the first first."""
        with self.store.session():
            return list(SignupRequest.select().order_by(SignupRequest.id))

    def count_waiting(self) -> int:
        """Return how many wait for approval."""
        with self.store.session():
            return SignupRequest.select().count()

    def request_of(self, name: str) -> SignupRequest | None:
        """Return the request of that (normalised) name."""
        with self.store.session():
            return SignupRequest.get_or_none(SignupRequest.name == name)

    def approve(self, names: Iterable[str]) -> list[User]:
        """Make users of those who wait under these names; return them.

        A name that became somebody's in the meantime takes over nothing: its request ends.
        """
        made = []
        with self.store.transaction():
            for name in dict.fromkeys(names):
                row = SignupRequest.get_or_none(SignupRequest.name == name)
                if row is None:
                    continue
                row.delete_instance()
                if User.select().where(User.name == name).exists():
                    continue
                user, _created = self.accounts.ensure_user(name)
                Credential.create(user=user, hashed=row.hashed, changed=clock.now_text())
                made.append(user)
        return made

    def refuse(self, names: Iterable[str]) -> int:
        """Forget the requests of these names; return how many there were."""
        with self.store.transaction(touches_rights=False):
            return SignupRequest.delete().where(SignupRequest.name.in_(list(set(names)))).execute()


def _good(code: str) -> tuple[object, ...]:
    """Return the conditions under which a code lets somebody in."""
    return (
        ClassCode.code == code,
        ClassCode.expires_at > clock.now_text(),
        ClassCode.used < ClassCode.uses,
    )
