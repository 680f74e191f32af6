"""Who may do what: the scopes that users, services and tokens hold.

Rules of this file: it combines roles and tokens into :class:`~minihub.scopes.Scopes`; what a
scope means is in :mod:`minihub.scopes`, which request needs which is in the route tables. A
token never holds more than its owner holds now.

Threads: any; expanded roles are cached, bounded, by what they depend on.
Sources: JupyterHub 6's default roles; JupyterHub.admin_access.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from . import scopes
from .models import Group, GroupMember, Service, Token, User
from .models import Server as ServerRow
from .scopes import Scopes
from .store import Store

CACHE_SIZE = 4096


class Roles:
    """The scopes of everybody."""

    def __init__(self, store: Store, *, admin_access: bool) -> None:
        """``admin_access``: whether admins may enter other people's servers."""
        self.store = store
        self.admin_access = admin_access
        self._of_user = lru_cache(CACHE_SIZE)(self._expand_user)

    def groups_of(self, user_name: str) -> set[str]:
        """Return the names of the groups a user is in."""
        with self.store.session():
            rows = Group.select(Group.name).join(GroupMember).join(User)
            return {row.name for row in rows.where(User.name == user_name)}

    def names_of_user(self, user: User) -> list[str]:
        """Return the names of the roles a user holds."""
        return ["admin", "user"] if user.admin else ["user"]

    def _expand_user(self, name: str, admin: bool) -> Scopes:
        held = scopes.expand(scopes.DEFAULT_ROLES["user"].scopes, name)
        if admin:
            everything = scopes.expand(scopes.DEFAULT_ROLES["admin"].scopes, name)
            if not self.admin_access:
                everything -= {"access:servers"}
            held |= everything
        return Scopes(held, self.groups_of)

    def of_user(self, user: User) -> Scopes:
        """Return what a user may do."""
        return self._of_user(user.name, user.admin)

    def of_service(self, service: Service) -> Scopes:
        """Return what a service may do: everything if it is an admin, else nothing."""
        if not service.admin:
            return Scopes()
        held = scopes.expand(scopes.DEFAULT_ROLES["admin"].scopes, service=service.name)
        return Scopes(held if self.admin_access else held - {"access:servers"}, self.groups_of)

    def of_token(self, token: Token) -> Scopes:
        """Return what a token may do: its own scopes as far as its owner holds them now."""
        with self.store.session():
            user, service = token.user, token.service
        owner = self.of_user(user) if user is not None else self.of_service(service)
        if "inherit" in token.scopes:
            return owner
        own = scopes.expand(
            token.scopes,
            user.name if user is not None else None,
            service=service.name if service is not None else None,
            server=self._server_of(token),
        )
        return Scopes(scopes.intersect(own, owner.raw, self.groups_of), self.groups_of)

    def _server_of(self, token: Token) -> str | None:
        """Return the server (``user/name``) that ``!server`` means in a token's scopes."""
        if token.server_id is None and token.oauth_client_id is None:
            return None
        mine = (
            ServerRow.id == token.server_id
            if token.server_id is not None
            else ServerRow.oauth_client == token.oauth_client_id
        )
        with self.store.session():
            row = ServerRow.select(ServerRow.name, User.name).join(User).where(mine).first()
        return f"{row.user.name}/{row.name}" if row else None

    def _meant(self, raw: Iterable[str], owner: User) -> frozenset[str]:
        """Return the expanded form of raw scopes for a token of ``owner``."""
        raw = set(raw)
        inherited = self.of_user(owner).raw if "inherit" in raw else frozenset()
        return scopes.expand(raw, owner.name) | inherited

    def missing(self, raw: Iterable[str], holder: Scopes, owner: User) -> list[str]:
        """Return which of these raw scopes, meant for a token of ``owner``, ``holder`` lacks."""
        return scopes.missing(self._meant(raw, owner), holder.raw, self.groups_of)

    def default_token_scopes(self, holder: Scopes, owner: User) -> list[str]:
        """Return the scopes of a token for ``owner`` that ``holder`` asks for without naming any.

        Everything its owner may do, as far as the holder may do it too.
        """
        if not self.missing(["inherit"], holder, owner):
            return ["inherit"]
        meant = self._meant(["inherit"], owner)
        return sorted(scopes.intersect(meant, holder.raw, self.groups_of))
