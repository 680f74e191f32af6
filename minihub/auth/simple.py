"""Authenticators that need nothing from the machine: dummy, null and shared passwords.

Rules of this file: as in :mod:`minihub.auth.base`.

Threads: as there.
"""

from __future__ import annotations

from typing import Any

from traitlets import Dict, List, TraitError, Unicode, default, validate

from minihub import aio
from minihub.auth.base import Authenticator
from minihub.auth.results import LoginUnavailable
from minihub.texts import Text
from minihub.tokens import same_secret


class DummyAuthenticator(Authenticator):
    """Lets in everybody under any name, with one password or with none; for trying things out."""

    password = Unicode(
        help="The password everybody uses; empty accepts any. SharedPasswordAuthenticator does "
        "this properly."
    ).tag(config=True, example="a-password")

    @default("allow_all")
    def _default_allow_all(self) -> bool:
        return not self.allowed_users

    @aio.either
    def authenticate(self, handler: Any, data: Any) -> str | None:
        """Return the name given, if the password is the right one."""
        name, password = _name_and_password(data)
        if self.password and not same_secret(password, self.password):
            return None
        return name or None

    def check_allow_config(self) -> list[str]:
        """Add that this is no protection at all."""
        return [
            *super().check_allow_config(),
            "DummyAuthenticator lets anybody in as anybody"
            + (" who knows its one password" if self.password else ", without a password")
            + ". Use it for trials on a machine of your own only.",
        ]


class NullAuthenticator(Authenticator):
    """Lets nobody in: for hubs that are used with API tokens only."""

    @default("auto_login")
    def _default_auto_login(self) -> bool:
        return True

    @aio.either
    def authenticate(self, handler: Any, data: Any) -> None:
        """Refuse everybody. Raises LoginUnavailable."""
        raise LoginUnavailable(
            Text("This hub has no login: it is used with API tokens."), status=403
        )

    def check_allow_config(self) -> list[str]:
        """Return nothing: that nobody may log in is the point."""
        return []


class SharedPasswordAuthenticator(Authenticator):
    """One password for all users and another, long one for all admins; for short events."""

    MIN_USER_PASSWORD = 8
    MIN_ADMIN_PASSWORD = 32

    user_password = Unicode(
        None,
        allow_none=True,
        help="Password for everybody who is not an admin, 8 characters or more. Who knows it can "
        "log in as any of them. Without it only admins can log in.",
    ).tag(config=True, example="a-password")
    admin_password = Unicode(
        None,
        allow_none=True,
        help="Password for admins, 32 characters or more and not the user password. Without it "
        "admins cannot log in by password.",
    ).tag(config=True, example="a-password-of-32-characters-or-more")
    password_groups = Dict(
        value_trait=List(Unicode()),
        key_trait=Unicode(),
        help="Further passwords for users, each with the groups its users are put into; needs "
        "manage_groups.",
    ).tag(config=True, example={"another-password": ["physics"]})

    @aio.either
    def authenticate(self, handler: Any, data: Any) -> dict[str, Any] | None:
        """Return the user if the password is right for that kind of user."""
        name, password = _name_and_password(data)
        if not name:
            return None
        user = self.normalize_username(name)
        # Every password is compared with every attempt: the time does not tell which matched.
        groups: list[str] | None = None
        for key, its_groups in self.password_groups.items():
            if same_secret(password, key):
                groups = list(its_groups)
        if _is_right(password, self.user_password):
            groups = []
        admin_given = _is_right(password, self.admin_password)
        # An admin made on the admin page is protected like one named in the configuration.
        if user in self.names_in("admin_users") or self.is_hub_admin(user):
            return {"name": name, "admin": True, "groups": []} if admin_given else None
        return None if groups is None else {"name": name, "admin": False, "groups": groups}

    def check_allow_config(self) -> list[str]:
        """Add what the passwords and the admin users leave impossible."""
        warnings = super().check_allow_config()
        if not self.user_password and not self.admin_password and not self.password_groups:
            warnings.append(
                "Nobody can log in: neither SharedPasswordAuthenticator.user_password nor "
                "admin_password is set."
            )
        elif not self.user_password and not self.password_groups:
            warnings.append(
                "Only admins can log in: SharedPasswordAuthenticator.user_password is not set."
            )
        if self.admin_users and not self.admin_password:
            warnings.append(
                "Admins cannot log in: SharedPasswordAuthenticator.admin_users is set, but "
                "admin_password is not."
            )
        return warnings

    @validate("user_password", "admin_password")
    def _check_password(self, proposal: Any) -> str | None:
        name, password = proposal.trait.name, proposal.value
        if not password:
            return None
        minimum = self.MIN_ADMIN_PASSWORD if name == "admin_password" else self.MIN_USER_PASSWORD
        if len(password) < minimum:
            raise TraitError(
                f"SharedPasswordAuthenticator.{name} must have {minimum} characters or more, "
                f"not {len(password)}"
            )
        other = "user_password" if name == "admin_password" else "admin_password"
        if password == getattr(self, other):
            raise TraitError(f"SharedPasswordAuthenticator.{name} and {other} must differ")
        return password

    @validate("password_groups")
    def _check_password_groups(self, proposal: Any) -> dict[str, list[str]]:
        if proposal.value and not self.manage_groups:
            raise TraitError(
                "SharedPasswordAuthenticator.password_groups needs "
                "SharedPasswordAuthenticator.manage_groups to be true"
            )
        for password in proposal.value:
            if len(password) < self.MIN_USER_PASSWORD:
                raise TraitError(
                    "a password in SharedPasswordAuthenticator.password_groups must have "
                    f"{self.MIN_USER_PASSWORD} characters or more, not {len(password)}"
                )
            if password in (self.user_password, self.admin_password):
                raise TraitError(
                    "a password in SharedPasswordAuthenticator.password_groups is also "
                    "user_password or admin_password"
                )
        return proposal.value


def _is_right(password: str, expected: str | None) -> bool:
    return expected is not None and same_secret(password, expected)


def _name_and_password(data: Any) -> tuple[str, str]:
    """Return the form's name and password; "" for what is missing."""
    data = data or {}
    return data.get("username") or "", data.get("password") or ""
