"""The class's own authenticator: accounts of the hub itself, made by codes, approval or a teacher.

Rules of this file: it says what a name and a password may be and checks them; rows are
:mod:`minihub.classbook`'s. A login that fails takes the same time and gets the same text whether
there is such a user or not. What a password is hashed with is stored beside it, and renewed at a
login. Nobody becomes an admin by any code.

Threads: as in :mod:`minihub.auth.base`. Passwords are hashed outside every lock and transaction,
but only a few at once, since each takes 16 MiB and a processor.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from traitlets import Bool, CaselessStrEnum, Int, default

from minihub import aio, readable, tokens
from minihub.auth.base import Authenticator
from minihub.auth.classnames import chosen_name_problem, normalized
from minihub.auth.names import shown
from minihub.auth.results import InvalidUser
from minihub.errors import AuthError
from minihub.texts import Text

if TYPE_CHECKING:
    from minihub.accounts import Accounts
    from minihub.classbook import Classbook, Secret
    from minihub.models import User

CLOSED, CODE, APPROVE, OPEN = "closed", "code", "approve", "open"

#: Passwords are hashed by so many threads at once.
_HASHERS = threading.BoundedSemaphore(min(4, max(2, os.cpu_count() or 2)))

#: The password that this thread hashed last, until it checks one.
_just_hashed = threading.local()

#: What people type when they are told to think of a password: tried first by everybody.
_WORST = frozenset(
    "password passwort contraseña contrasena 12345678 123456789 1234567890 87654321 11111111"
    " 00000000 88888888 12341234 11223344 abcdefgh abcd1234 a1b2c3d4 qwertyui qwertyuiop qwertzui"
    " qwertzuiop asdfghjk asdfghjkl 1q2w3e4r 1qaz2wsx password1 passwort1 iloveyou sunshine"
    " princess football baseball fussball hallo123 hello123 schule123 school123 geheim123 jupyter1"
    " jupyterhub notebook minihub1 minihub123 letmein1 welcome1 changeme superman computer".split()
)


class MustSetPassword(AuthError):
    """Raised when name and one-time code are right: a password of one's own comes first."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(Text("Choose a password of your own first."))


class CodeExpired(AuthError):
    """Raised for the right one-time code when it is too old."""

    def __init__(self) -> None:
        super().__init__(Text("Your one-time code has expired. Ask your teacher for a new one."))


class StillWaiting(AuthError):
    """Raised for the right password of somebody whom nobody has approved yet."""

    def __init__(self) -> None:
        super().__init__(
            Text(
                "Your name and password are right, but somebody has yet to let you in. Ask your "
                "teacher, and try again then."
            )
        )


class ClassroomAuthenticator(Authenticator):
    """Keeps names and passwords of its own; people join by code, by approval, or from a list."""

    signup = CaselessStrEnum(
        (CLOSED, CODE, APPROVE, OPEN),
        default_value=CODE,
        help="How people get an account by themselves. closed: not at all; code: with a class code "
        "that an admin shows them; approve: they ask, and an admin lets them in; open: anybody who "
        "reaches the hub. Nobody becomes an admin this way.",
    ).tag(config=True, example="approve")
    minimum_password_length = Int(
        8, min=4, max=128, help="Characters a password has at least."
    ).tag(config=True, unit="characters")
    code_lifetime = Int(
        8 * 3600,
        min=60,
        max=366 * 86400,
        help="Seconds for which a class code is good where nobody says otherwise.",
    ).tag(config=True, unit="seconds")
    code_uses = Int(
        40,
        min=1,
        max=10_000,
        help="How many people can join with one class code where nobody says otherwise.",
    ).tag(config=True, unit="people")
    code_at_start = Bool(
        False,
        help="Make a class code when the hub starts, unless one is still good, and show it with "
        "the join link and a QR code on the start screen.",
    ).tag(config=True)
    one_time_code_lifetime = Int(
        7 * 86400,
        min=60,
        max=366 * 86400,
        help="Seconds for which a one-time code is good, which an admin gives to somebody who has "
        "no password or forgot it.",
    ).tag(config=True, unit="seconds")
    max_waiting = Int(
        200,
        min=1,
        max=10_000,
        help="How many people can wait for approval; further ones are told to ask.",
    ).tag(config=True, unit="people")

    #: That the hub keeps this authenticator's passwords: pages for setting them are there.
    keeps_passwords = True

    #: The rows behind all this; set by the hub.
    book: Classbook

    def use_accounts(self, accounts: Accounts) -> None:
        """Take the hub's users."""
        from minihub.classbook import Classbook  # who only reads options needs no database

        super().use_accounts(accounts)
        self.book = Classbook(accounts)

    @default("allow_all")
    def _default_allow_all(self) -> bool:
        # A password that the hub gave out is the permission; a list narrows it.
        return not self.allowed_users

    # -- names -------------------------------------------------------------------------------

    def normalize_username(self, username: str) -> str:
        """Return the one spelling of a name (NFKC, case folded), then mapped."""
        name = normalized(username)
        return self.username_map.get(name, name)

    def validate_username(self, username: str) -> bool:
        """Return whether a normalised name may be a user's."""
        return not chosen_name_problem(username) and super().validate_username(username)

    def why_no_name(self, username: str) -> str:
        """Return why a normalised name cannot be a user's, as the end of a sentence; "" if it can.

        The name is not looked up.
        """
        if problem := chosen_name_problem(username):
            return problem
        if not self.validate_username(username):
            return Text("names look otherwise on this hub")
        return ""

    def add_user(self, user: Any) -> None:
        """Make sure that there can be such a user. Raises InvalidUser."""
        if problem := self.why_no_name(user.name):
            raise InvalidUser(
                Text(
                    "%(name)s cannot be a user name: %(problem)s",
                    name=shown(user.name),
                    problem=problem,
                )
            )

    def may_sign_up(self, name: str) -> bool:
        """Return whether the rules would let somebody of that name in who is not there yet."""
        if not self._step(self.check_blocked_users, name, None):
            return False
        if name in self.names_in("admin_users"):
            return False
        return self.allow_all or name in self.names_in("allowed_users")

    # -- passwords ---------------------------------------------------------------------------

    def why_no_password(self, password: str, name: str = "") -> str:
        """Return what is wrong with a password that somebody chose, as a sentence; "" if nothing.

        ``name`` is the normalised name of who chose it.
        """
        if len(password) < self.minimum_password_length:
            return Text(
                "A password has at least %(count)s characters.",
                count=self.minimum_password_length,
            )
        if len(password.encode("utf-8", "replace")) > tokens.MAX_PASSWORD_BYTES:
            return Text(
                "A password has at most %(count)s bytes.",
                count=tokens.MAX_PASSWORD_BYTES,
            )
        plain = normalized(password)
        if plain in _WORST or len(set(plain)) < 3:
            return Text(
                "This password is among the first that everybody tries. Choose another one."
            )
        if name and plain.replace(name, "").strip("0123456789!?.-_") == "":
            return Text("A password is more than your name. Choose another one.")
        return ""

    def hashed(self, password: str) -> str:
        """Return the stored form of a password or one-time code; takes a tenth of a second.

        The same thread may check the same password against it once without that cost: who has
        just made an account is logged in at once.
        """
        with _HASHERS:
            hashed = tokens.hash_password(password)
        _just_hashed.pair = (password, hashed)
        return hashed

    def is_right(self, typed: str, secret: Secret) -> bool:
        """Return whether what somebody typed is that stored password, or one-time code."""
        return self._matches(readable.read(typed) if secret.is_code else typed, secret.hashed)

    def _matches(self, password: str, hashed: str) -> bool:
        known, _just_hashed.pair = getattr(_just_hashed, "pair", None), None
        if known is not None and all(map(tokens.same_secret, known, (password, hashed))):
            return True
        with _HASHERS:
            return tokens.check_password(password, hashed)

    @aio.either
    def authenticate(self, handler: Any, data: Any) -> str | None:
        """Return the user if the password is right.

        Raises MustSetPassword for the right one-time code, CodeExpired for one that was right, and
        StillWaiting for the right password of somebody who is not approved.
        """
        data = data or {}
        typed_name, password = data.get("username") or "", data.get("password") or ""
        if len(password.encode("utf-8", "replace")) > tokens.MAX_PASSWORD_BYTES:
            return None
        name = self.normalize_username(typed_name)
        secret = self.book.secret_of(name)
        if secret is None:
            waiting = self.book.request_of(name)
            hashed = waiting.hashed if waiting else tokens.impossible_password()
            if self._matches(password, hashed):
                raise StillWaiting
            return None
        if not self.is_right(password, secret):
            return None
        if secret.is_code:
            raise CodeExpired if secret.has_expired else MustSetPassword(name)
        if tokens.is_outdated(secret.hashed):
            self.book.rehash(secret, self.hashed(password))
        return typed_name

    def set_password(self, name: str, password: str) -> None:
        """Give a user a password and end all their logins. Raises ValueError saying what is wrong.

        For the command line; the name is one of a user.
        """
        name = self.normalize_username(name)
        user = self.book.accounts.user(name)
        if user is None:
            raise ValueError(f"there is no user {name}")
        if problem := self.why_no_password(password, name):
            raise ValueError(problem)
        self.book.set_password(user, self.hashed(password))

    def one_time_code(self, user: User) -> tuple[str, str]:
        """Give a user a one-time code in the place of any password; end their logins and tokens.

        Returns the code, which nobody can find out again, and when it expires.
        """
        code = readable.new_code(readable.ONE_TIME_CODE_LENGTH)
        expires_at = self.book.reset(user, self.hashed(code), self.one_time_code_lifetime)
        return code, expires_at

    def spend_one_time_code(self, name: str, code: str, password: str) -> bool:
        """Put a password in the place of a one-time code; False when the code is not that one.

        Raises CodeExpired.
        """
        secret = self.book.secret_of(self.normalize_username(name))
        if secret is None or not secret.is_code:
            self._matches(readable.read(code), tokens.impossible_password())
            return False
        if not self.is_right(code, secret):
            return False
        if secret.has_expired:
            raise CodeExpired
        return self.book.spend_one_time_code(secret, self.hashed(password))
