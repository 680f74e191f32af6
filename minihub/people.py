"""Users as a whole: made, renamed, deleted, put into groups, with everything that hangs on them.

Rules of this file: store, authenticator and the user's servers move together here, as in
:mod:`minihub.hub` for one server. Who may ask for it is decided above.

Threads: any; a deletion waits for servers to stop.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from . import aio, clock
from .errors import BadRequest, ConfigError, MinihubError
from .hub import Hub
from .logs import safe
from .models import Group, GroupMember, User
from .models import Server as ServerRow
from .roles import RoleSpec
from .server import State
from .serverrows import delete_clients
from .spawner import UserInfo
from .texts import Text

log = logging.getLogger("minihub.people")

MAX_GROUP_NAME = 255


class People:
    """All users of a hub."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.store = hub.store
        self.accounts = hub.accounts
        self.authenticator = hub.authenticator

    # -- users -----------------------------------------------------------------------------

    def create(self, names: Iterable[str], *, admin: bool = False) -> list[User]:
        """Create those users who do not exist yet and return them.

        Raises BadRequest, having created nobody, when a name is no user name or the
        authenticator cannot have somebody.
        """
        wanted = dict.fromkeys(self.authenticator.normalize_username(name) for name in names)
        invalid = [name for name in wanted if not self.authenticator.validate_username(name)]
        if invalid:
            names = ", ".join(invalid)[:500]
            if len(invalid) == 1:
                raise BadRequest(Text("Invalid username: %(name)s", name=names))
            raise BadRequest(Text("Invalid usernames: %(names)s", names=names))
        fresh = [name for name in wanted if self.accounts.user(name) is None]
        for name in fresh:
            person = UserInfo(name, admin=admin, base_url=self.hub.info.base_url)
            try:
                aio.call(self.authenticator.add_user, person)
            except Exception as error:  # an authenticator may be anybody's
                if not isinstance(error, MinihubError):
                    log.exception("The authenticator cannot have the user %s", safe(name))
                raise BadRequest(
                    Text("Failed to create user %(name)s: %(error)s", name=name, error=str(error))
                ) from error
        with self.store.transaction(touches_rights=False):  # an admin's makes that known
            made = [self.accounts.ensure_user(name, admin=admin or None) for name in fresh]
        return [user for user, created in made if created]

    def set_admin(self, user: User, admin: bool) -> User:
        """Make somebody an admin, or no longer one; return the new row.

        Who is no longer one has to log in again, so that no page or tunnel of an admin stays open.
        """
        if user.admin and not admin:
            self.accounts.end_sessions(user)
        return self.accounts.ensure_user(user.name, admin=admin)[0]

    def rename(self, user: User, name: str) -> User:
        """Give a user another name and return the new row.

        Raises BadRequest when the name is taken or no user name, or while a server runs: it would
        go on under the old one.
        """
        name = self.authenticator.normalize_username(name)
        if not self.authenticator.validate_username(name):
            raise BadRequest(Text("Invalid username: %(name)s", name=safe(name)))
        if any(server.active for server in self.hub.servers_of(user).values()):
            raise BadRequest(
                Text("%(name)s has a running server. Stop it before renaming.", name=user.name)
            )
        with self.store.transaction():
            taken = User.get_or_none(User.name == name)
            if taken is not None and taken.id != user.id:
                raise BadRequest(
                    Text("User %(name)s already exists, username must be unique", name=name)
                )
            delete_clients(ServerRow.user == user.id)  # they are named after the user
            User.update(name=name).where(User.id == user.id).execute()
            renamed = User.get_by_id(user.id)
        self.hub.forget_failures(user.id)
        self.hub.names.forget()
        log.info("%s is now called %s", user.name, name)
        return renamed

    def delete(self, user: User, *, why: str, timeout_s: float) -> None:
        """Stop the user's servers, then delete the user with everything that is theirs.

        Raises BadRequest when a server is stopping already, or has not stopped within the time.
        """
        servers = [one for one in self.hub.servers_of(user).values() if one.active]
        if any(server.state is State.STOPPING for server in servers):
            raise BadRequest(_stopping(user))
        deadline = clock.monotonic() + timeout_s
        for server in servers:
            self.hub.stop_server(server, why=why)
        for server in servers:
            if not server.wait_settled(max(0.0, deadline - clock.monotonic())) or server.active:
                raise BadRequest(_stopping(user))
        person = self.hub.user_info(user)
        try:
            aio.call(self.authenticator.delete_user, person)
        except Exception:  # an authenticator may be anybody's
            log.exception("The authenticator, about the end of %s", user.name)
        with self.store.transaction():
            delete_clients(ServerRow.user == user.id)
            self.accounts.delete_user(user)
        self.hub.forget_failures(user.id)
        self.hub.names.forget()
        self.hub.activity.forget()
        log.info("User %s deleted: %s", user.name, why)

    # -- groups ----------------------------------------------------------------------------

    def find_users(self, names: Iterable[str]) -> list[User]:
        """Return the users of those names. Raises BadRequest naming one who does not exist."""
        wanted = dict.fromkeys(self.authenticator.normalize_username(name) for name in names)
        with self.store.session():
            found = {one.name: one for one in User.select().where(User.name.in_(list(wanted)))}
        for name in wanted:
            if name not in found:
                raise BadRequest(Text("No such user: %(name)s", name=name[:100]))
        return list(found.values())

    def create_groups(self, names: Collection[str], users: Iterable[User]) -> None:
        """Create groups, each with those users. Raises BadRequest for a name that cannot be."""
        for name in names:
            if problem := group_name_problem(name):
                raise BadRequest(
                    Text(
                        "Invalid group name %(name)s: %(problem)s",
                        name=repr(name[:60]),
                        problem=problem,
                    )
                )
        with self.store.transaction():
            for name in names:
                group = Group.create(name=name)
                for user in users:
                    GroupMember.create(group=group, user=user)

    def find_groups(self, names: Iterable[str]) -> list[Group]:
        """Return the groups of those names. Raises BadRequest naming one that does not exist."""
        wanted = list(dict.fromkeys(names))
        with self.store.session():
            found = {one.name: one for one in Group.select().where(Group.name.in_(wanted))}
        for name in wanted:
            if name not in found:
                raise BadRequest(Text("No such group: %(name)s", name=name[:100]))
        return list(found.values())

    def all_groups(self) -> list[Group]:
        """Return all groups by name."""
        with self.store.session():
            return list(Group.select().order_by(Group.name))

    def ensure_group(self, name: str) -> None:
        """Create a group unless it is there. Raises BadRequest for a name that cannot be."""
        with self.store.session():
            exists = Group.select().where(Group.name == name).exists()
        if not exists:
            self.create_groups([name], ())

    def set_groups(self, user: User, names: Iterable[str]) -> None:
        """Make the user a member of exactly these groups. Raises BadRequest for an unknown one."""
        with self.store.transaction():
            groups = self.find_groups(names)
            GroupMember.delete().where(GroupMember.user == user).execute()
            for group in groups:
                GroupMember.create(group=group, user=user)

    def load_groups(self, option: Mapping[str, Any]) -> None:
        """Add the groups and members of ``JupyterHub.load_groups``; nothing is taken away.

        A value is a list of users, or ``{users: […], properties: {…}}``, whose properties replace
        those the group has. Raises ConfigError with every problem.
        """
        problems = []
        for name, value in option.items():
            where = f"JupyterHub.load_groups, group {name}"
            entry = value if isinstance(value, Mapping) else {"users": value}
            users, properties = entry.get("users") or (), entry.get("properties")
            if set(entry) - {"users", "properties"}:
                problems.append(f"{where}: the keys are users and properties")
            elif not _is_texts(users):
                problems.append(f"{where}: users takes a list of names")
            elif not isinstance(properties, (Mapping, type(None))):
                problems.append(f"{where}: properties takes names and values")
            else:
                problems += [f"{where}: {text}" for text in self._load_group(name, users)]
                if properties is not None:
                    with self.store.transaction():
                        changed = Group.update(properties=dict(properties))
                        changed.where(Group.name == name).execute()
        if problems:
            raise ConfigError(problems)

    def load_token_owners(self, option: Mapping[str, str]) -> dict[str, User]:
        """Return ``JupyterHub.api_tokens`` with the users, creating who is not there yet.

        Raises ConfigError with every problem.
        """
        names = {
            token: self.authenticator.normalize_username(name) for token, name in option.items()
        }
        problems = [
            f"JupyterHub.api_tokens: {name!r} is no valid user name"
            for name in names.values()
            if not self.authenticator.validate_username(name)
        ]
        if problems:
            raise ConfigError(problems)
        return {token: self.accounts.ensure_user(name)[0] for token, name in names.items()}

    def load_members(self, specs: Iterable[RoleSpec]) -> list[RoleSpec]:
        """Create the users and groups whom roles name and who are not there yet.

        Returns the roles with their users' names normalised. Raises ConfigError.
        """
        prepared, problems = [], []
        for spec in specs:
            where = f"JupyterHub.load_roles, role {spec.name}"
            names = [self.authenticator.normalize_username(name) for name in spec.users or ()]
            for name in names:
                if self.authenticator.validate_username(name):
                    self.accounts.ensure_user(name)
                else:
                    problems.append(f"{where}: {name!r} is no valid user name")
            for name in spec.groups or ():
                problems += [f"{where}: {text}" for text in self._load_group(name, ())]
            users = None if spec.users is None else tuple(names)
            prepared.append(replace(spec, users=users))
        if problems:
            raise ConfigError(problems)
        return prepared

    def _load_group(self, name: str, users: Iterable[str]) -> list[str]:
        """Add a group and its members; returns what is wrong with them."""
        if problem := group_name_problem(name):
            return [problem]
        names = [self.authenticator.normalize_username(user) for user in users]
        bad = [user for user in names if not self.authenticator.validate_username(user)]
        if bad:
            return [f"{user!r} is no valid user name" for user in bad]
        with self.store.transaction():
            group, _created = Group.get_or_create(name=name)
            for user in names:
                row, _created = self.accounts.ensure_user(user)
                GroupMember.get_or_create(group=group, user=row)
        return []


def _is_texts(value: Any) -> bool:
    return isinstance(value, (list, tuple, set, frozenset)) and all(
        isinstance(one, str) for one in value
    )


def group_name_problem(name: Any) -> str:
    """Return why ``name`` cannot be a group's, or an empty text."""
    if not isinstance(name, str) or not name.strip():
        return Text("a group's name is a text that is not empty")
    if len(name) > MAX_GROUP_NAME:
        return Text("a group's name has at most %(count)s characters", count=MAX_GROUP_NAME)
    if "/" in name or not name.isprintable():
        return Text("a group's name has no slash and no invisible character")
    return ""


def _stopping(user: User) -> str:
    return Text("%(name)s's server is in the process of stopping, please wait.", name=user.name)
