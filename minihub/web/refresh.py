"""Asking the authenticator again about people who are logged in.

Rules of this file: it decides when to ask and takes over the answer; what the answer is, is
:meth:`minihub.auth.base.Authenticator.refresh_user`'s. An authenticator without such a method is
never asked.

Threads: waitress's. While one of them asks about somebody, others go on with what was known.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from .. import clock
from ..auth.base import Authenticator
from ..auth.results import AuthResult
from ..models import Group, GroupMember, User
from .handler import HandlerView

if TYPE_CHECKING:
    from .context import Context

log = logging.getLogger("minihub.login")


class Refresher:
    """When each user was asked about last."""

    def __init__(self, hub: Any) -> None:
        self.hub = hub
        self.authenticator: Authenticator = hub.authenticator
        method = type(self.authenticator).refresh_user
        self._is_asked = method is not Authenticator.refresh_user
        self._asked: dict[int, float] = {}

    def note_login(self, user: User) -> None:
        """Note that everything about a user is fresh."""
        self._asked[user.id] = clock.monotonic()

    def is_current(self, ctx: Context, user: User, *, now: bool = False) -> bool:
        """Return whether a user's login still holds, asking when it is time, or ``now``."""
        if not self._is_asked:
            return True
        age = self.authenticator.auth_refresh_age
        last = self._asked.get(user.id)
        if not now and (not age or (last is not None and clock.monotonic() - last < age)):
            return True
        self.note_login(user)
        person = self.hub.user_info(user)
        try:
            answer = self.authenticator.get_refreshed_user(person, HandlerView(ctx))
        except Exception:  # an authenticator may be anybody's
            log.exception("Asking again about %s", user.name)
            answer = False
        if isinstance(answer, AuthResult):
            take_over(self.hub, user, answer)
            if answer.auth_state is not None:
                self.hub.auth_states.save(user.id, answer.auth_state)
        elif not answer:
            log.warning("%s must log in again", user.name)
            self._asked[user.id] = float("-inf")
            return False
        return True


def take_over(hub: Any, user: User, result: AuthResult) -> None:
    """Store which groups and roles an authenticator gives a user, and whether they are an admin."""
    if result.groups is not None:
        with hub.store.transaction():
            GroupMember.delete().where(GroupMember.user == user).execute()
            for name in sorted(set(result.groups)):
                group, _created = Group.get_or_create(name=name)
                GroupMember.create(group=group, user=user)
    admin = result.admin
    if result.roles is not None:
        if "admin" in hub.roles.manage(user, result.roles) and admin is None:
            admin = True
    if admin is not None and admin != user.admin:
        hub.accounts.ensure_user(user.name, admin=admin)
