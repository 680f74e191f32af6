"""Who may do what: the roles there are, who holds them, and what users, services and tokens may.

Rules of this file: it combines roles, shares and tokens into :class:`~minihub.scopes.Scopes`; what
a scope means is in :mod:`minihub.scopes`, which request needs which is in the route tables. A
token never holds more than its owner holds now, and nobody gives away more than they hold. Roles
come from the configuration alone, so they change at the start of a hub only.

Threads: any; what was found out is remembered until a write touches rights.
Sources: JupyterHub 6's default roles; JupyterHub.load_roles, custom_scopes, admin_access.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from . import scopes
from .errors import ConfigError
from .models import Group, GroupMember, OAuthClient, Role, RoleMember, Service, Share, Token, User
from .models import Server as ServerRow
from .prepared import Prepared, slot
from .scopes import Scopes
from .store import Cache, Store

log = logging.getLogger("minihub.roles")

CACHE_SIZE = 4096
#: The members a role can be given in ``load_roles``.
MEMBER_KINDS = ("users", "groups", "services")

_NAME = re.compile(r"[a-z][a-z0-9\-_~.]{1,253}[a-z0-9]")
_KEYS = ("name", "description", "scopes", *MEMBER_KINDS)


@dataclass(frozen=True)
class RoleSpec:
    """One entry of ``JupyterHub.load_roles``; a kind of members that is not given is None."""

    name: str
    description: str
    scopes: tuple[str, ...]
    users: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = None
    services: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Rights:
    """What a user or service may do, and the roles held directly and the groups it follows from."""

    scopes: Scopes
    roles: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


def parse(entries: Iterable[Any], extra_user_scopes: Iterable[str] = ()) -> list[RoleSpec]:
    """Return the roles of ``JupyterHub.load_roles``, the role user with the extra scopes.

    An entry for a default role need not repeat its description and scopes. Custom scopes must be
    defined by now. Raises ConfigError with every problem.
    """
    problems: list[str] = []
    specs: list[RoleSpec] = []
    for number, entry in enumerate(entries, 1):
        name = entry.get("name") if isinstance(entry, Mapping) else None
        found = list(_problems(entry))
        if name in [spec.name for spec in specs]:
            found.append("there are two roles of this name")
        problems += [f"JupyterHub.load_roles, role {name or number}: {text}" for text in found]
        if found:
            continue
        default = scopes.DEFAULT_ROLES.get(name) or scopes.Role(name, "", ())
        members = {kind: tuple(entry[kind]) for kind in MEMBER_KINDS if entry.get(kind) is not None}
        specs.append(
            RoleSpec(
                name=name,
                description=entry.get("description") or default.description,
                scopes=tuple(default.scopes if entry.get("scopes") is None else entry["scopes"]),
                **members,
            )
        )
    for text in filter(None, map(scopes.problem, extra_user_scopes)):
        problems.append(f"JupyterHub.extra_user_scopes: {text}")
    if problems:
        raise ConfigError(problems)
    if extra_user_scopes:
        standard = scopes.DEFAULT_ROLES["user"]
        given = next((spec for spec in specs if spec.name == "user"), None)
        user = given or RoleSpec(standard.name, standard.description, standard.scopes)
        own = dict.fromkeys((*user.scopes, *sorted(extra_user_scopes)))
        extended = replace(user, scopes=tuple(own))
        specs = [*(spec for spec in specs if spec is not given), extended]
    return specs


def _problems(entry: Any) -> Iterable[str]:
    """Yield what is wrong with one entry, taken by itself."""
    if not isinstance(entry, Mapping):
        yield f"a role is a mapping with at least a name, not {entry!r}"[:200]
        return
    name = entry.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        yield (
            "name must have 3 to 255 lower-case letters, digits and -._~, begin with a letter "
            "and end with a letter or digit"
        )
    for key in entry:
        if key not in _KEYS:
            yield f"there is no key {key!r}; there are {', '.join(_KEYS)}"
    if not isinstance(entry.get("description") or "", str):
        yield "description takes a text"
    for key in ("scopes", *MEMBER_KINDS):
        value = entry.get(key)
        if value is None:
            continue
        if not isinstance(value, (list, tuple, set)) or not all(isinstance(v, str) for v in value):
            yield f"{key} takes a list of texts"
        elif key == "scopes":
            yield from filter(None, map(scopes.problem, value))
            if name == "admin" and set(value) != set(scopes.DEFAULT_ROLES["admin"].scopes):
                yield "the scopes of the role admin cannot be changed"


_GROUPS_OF = Prepared(
    lambda: (
        Group.select(Group.id, Group.name)
        .join(GroupMember)
        .where(GroupMember.user == slot("user"))
        .order_by(Group.name)
    )
)
_ROLES_OF = Prepared(
    lambda: (
        RoleMember.select(Role.name, RoleMember.user)
        .join(Role)
        .where(RoleMember.user == slot("user"))
    )
)
_SHARES_OF = Prepared(
    lambda: (
        Share.select(Share.scopes, User.name, ServerRow.name)
        .join(ServerRow)
        .join(User)
        .where(Share.user == slot("user"))
    )
)
_SERVER_OF = Prepared(
    lambda: ServerRow.select(User.name, ServerRow.name).join(User).where(ServerRow.id == slot("id"))
)


class Roles:
    """The scopes of everybody."""

    def __init__(self, store: Store, *, admin_access: bool) -> None:
        """``admin_access``: whether admins may enter other people's servers."""
        self.store = store
        self.admin_access = admin_access
        self._raw = {name: frozenset(role.scopes) for name, role in scopes.DEFAULT_ROLES.items()}
        #: Roles whose scopes nobody but the configuration changes.
        self._configured = frozenset(self._raw)
        self._users: Cache[Rights] = Cache(store, CACHE_SIZE)
        self._services: Cache[Rights] = Cache(store, CACHE_SIZE)

    # -- at start --------------------------------------------------------------------------

    def load(self, specs: Iterable[RoleSpec], *, managed: bool = False) -> None:
        """Make the roles and who holds them exactly what the configuration says.

        Users, groups and services that the roles name must exist. Whoever a list of the role
        admin names becomes an admin, and whoever it leaves out no longer is one. ``managed``: the
        authenticator says which users hold roles, and what it said stays. Raises ConfigError for a
        service that is not there, and when both say who holds roles.
        """
        specs = list(specs)
        if managed and (both := [spec.name for spec in specs if spec.users or spec.groups]):
            raise ConfigError(
                f"JupyterHub.load_roles, role {both[0]}: it names users or groups, but with"
                " Authenticator.manage_roles the authenticator decides who holds roles"
            )
        defaults = {
            role.name: RoleSpec(role.name, role.description, role.scopes)
            for role in scopes.DEFAULT_ROLES.values()
        }
        wanted = defaults | {spec.name: spec for spec in specs}
        with self.store.transaction():
            kept: list[Role] = []
            if managed:
                RoleMember.delete().where(RoleMember.user.is_null()).execute()
                kept = list(Role.select().join(RoleMember).distinct())
            else:
                RoleMember.delete().execute()
            names = [*wanted, *(role.name for role in kept)]
            Role.delete().where(Role.name.not_in(names)).execute()
            for spec in wanted.values():
                row, _created = Role.get_or_create(name=spec.name)
                row.description, row.scopes = spec.description, sorted(spec.scopes)
                row.save()
                self._set_members(row, spec)
        self._raw = {role.name: frozenset(role.scopes) for role in kept}
        self._raw |= {spec.name: frozenset(spec.scopes) for spec in wanted.values()}
        self._configured = frozenset(wanted)

    def _set_members(self, row: Role, spec: RoleSpec) -> None:
        for kind, table, column in (
            ("users", User, "user"),
            ("groups", Group, "group"),
            ("services", Service, "service"),
        ):
            names = getattr(spec, kind)
            if names is None:
                continue
            found = {one.name: one for one in table.select().where(table.name.in_(list(names)))}
            for name in names:
                if name not in found:
                    raise ConfigError(
                        f"JupyterHub.load_roles, role {spec.name}: there is no "
                        f"{column} {name}" + ("; services are declared in JupyterHub.services"
                        if column == "service" else "")
                    )  # fmt: skip
            if spec.name == "admin" and table is not Group:
                for one in table.select().where(table.admin, table.name.not_in(list(names))):
                    log.warning("The %s %s is no admin any more: load_roles", column, one.name)
                table.update(admin=table.name.in_(list(names))).execute()
            elif (spec.name, table) != ("user", User):
                for one in found.values():
                    RoleMember.create(role=row, **{column: one})

    def manage(self, user: User, entries: Iterable[Any]) -> set[str]:
        """Let a user hold exactly the roles that the authenticator gave; return their names.

        A role that is not there is made. One of the configuration keeps the scopes it has there.
        What is no role is logged and left out.
        """
        given: dict[str, Mapping[str, Any]] = {}
        for entry in entries:
            entry = {"name": entry} if isinstance(entry, str) else entry
            if found := list(_problems(entry)):
                log.error("A role that the authenticator gave %s: %s", user.name, "; ".join(found))
            else:
                given[entry["name"]] = entry
        with self.store.transaction():
            RoleMember.delete().where(RoleMember.user == user).execute()
            for name, entry in given.items():
                row, _created = Role.get_or_create(name=name)
                if name not in self._configured and entry.get("scopes") is not None:
                    row.description = entry.get("description") or row.description
                    row.scopes = sorted(entry["scopes"])
                    row.save()
                if name not in ("admin", "user"):  # these two follow from what the user is
                    RoleMember.create(role=row, user=user)
                self._raw = {**self._raw, name: frozenset(row.scopes)}
        return set(given)

    # -- roles and groups ------------------------------------------------------------------

    def raw_scopes(self, role: str) -> frozenset[str]:
        """Return the raw scopes of a role; none for a role that does not exist."""
        return self._raw.get(role, frozenset())

    def exists(self, role: str) -> bool:
        """Return whether there is a role of that name."""
        return role in self._raw

    def groups_of(self, user_name: str) -> set[str]:
        """Return the names of the groups a user is in."""
        with self.store.session():
            rows = Group.select(Group.name).join(GroupMember).join(User)
            return {row.name for row in rows.where(User.name == user_name)}

    # -- who may do what -------------------------------------------------------------------

    def of_user(self, user: User) -> Scopes:
        """Return what a user may do."""
        return self.rights_of_user(user).scopes

    def rights_of_user(self, user: User) -> Rights:
        """Return what a user may do, and why."""
        key = (user.id, user.name, user.admin)
        return self._users.get(key, lambda: self._read_user(user))

    def _read_user(self, user: User) -> Rights:
        with self.store.session():
            groups = dict(_GROUPS_OF.tuples(user=user.id))
            held = _ROLES_OF.tuples(user=user.id)
            shared = [
                (json.loads(of_share), owner, server)
                for of_share, owner, server in _SHARES_OF.tuples(user=user.id)
            ]
            if groups:
                of_groups = RoleMember.group.in_(list(groups))
                held += list(
                    RoleMember.select(Role.name, RoleMember.user)
                    .join(Role)
                    .where(of_groups)
                    .tuples()
                )
                shared += list(self._shares(Share.group.in_(list(groups))))
        direct = {name for name, owner in held if owner is not None} | {"user"}
        if user.admin:
            direct.add("admin")
        names = direct.union(name for name, _owner in held)
        expanded = set(scopes.expand(self._sum(names - {"admin"}), user.name))
        if "admin" in names:
            expanded |= self.admin_scopes(user.name)
        for names_shared, owner, server in shared:
            expanded |= scopes.expand(f"{one}!server={owner}/{server}" for one in names_shared)
        return Rights(
            Scopes(expanded, self.groups_of), tuple(sorted(direct)), tuple(groups.values())
        )

    def _shares(self, condition: Any) -> Iterable[tuple[list[str], str, str]]:
        """Yield ``(scopes, owner, server)`` of the shares under a condition."""
        rows = Share.select(Share.scopes, User.name, ServerRow.name)
        return rows.join(ServerRow).join(User).where(condition).tuples()

    def _sum(self, roles: Iterable[str]) -> set[str]:
        return set().union(*(self.raw_scopes(role) for role in roles))

    def admin_scopes(self, user: str | None = None, service: str | None = None) -> frozenset[str]:
        """Return the expanded scopes of the role admin, as ``admin_access`` leaves them."""
        everything = scopes.expand(self.raw_scopes("admin"), user, service=service)
        return everything if self.admin_access else everything - {"access:servers"}

    def of_service(self, service: Service) -> Scopes:
        """Return what a service may do: nothing but what its roles say."""
        return self.rights_of_service(service).scopes

    def rights_of_service(self, service: Service) -> Rights:
        """Return what a service may do, and why."""
        key = (service.id, service.name, service.admin)
        return self._services.get(key, lambda: self._read_service(service))

    def _read_service(self, service: Service) -> Rights:
        with self.store.session():
            rows = RoleMember.select(Role.name).join(Role).where(RoleMember.service == service)
            names = {name for (name,) in rows.tuples()}
        if service.admin:
            names.add("admin")
        held = set(scopes.expand(self._sum(names - {"admin"}), service=service.name))
        if "admin" in names:
            held |= self.admin_scopes(service=service.name)
        return Rights(Scopes(held, self.groups_of), tuple(sorted(names)))

    # -- tokens ----------------------------------------------------------------------------

    def of_token(self, token: Token) -> Scopes:
        """Return what a token may do: its own scopes as far as its owner holds them now."""
        with self.store.session():
            user, service = token.user, token.service
        owner = self.of_user(user) if user is not None else self.of_service(service)
        if "inherit" in token.scopes:
            return owner
        server, client_service = self._asker_of(token)
        own = scopes.expand(
            [*token.scopes, *scopes.IDENTIFY] if user is not None else token.scopes,
            user.name if user is not None else None,
            service=service.name if service is not None else client_service,
            server=server,
        )
        return Scopes(scopes.intersect(own, owner.raw, self.groups_of), self.groups_of)

    def _asker_of(self, token: Token) -> tuple[str | None, str | None]:
        """Return the server (``user/name``) and the service that a token was made for, if any.

        They are what the filters ``!server`` and ``!service`` in its scopes mean.
        """
        with self.store.session():
            if token.oauth_client_id is not None:
                client = OAuthClient.get_by_id(token.oauth_client_id)
                _scope, kind, name = scopes.split(client.access)
                return (name, None) if kind == "server" else (None, name or None)
            if token.server_id is None:
                return None, None
            user, name = _SERVER_OF.tuples(id=token.server_id)[0]
        return f"{user}/{name}", None

    def _meant(self, raw: Iterable[str], owner: User) -> frozenset[str]:
        """Return the expanded form of raw scopes for a token of ``owner``."""
        raw = set(raw)
        inherited = self.of_user(owner).raw if "inherit" in raw else frozenset()
        return scopes.expand(raw, owner.name) | inherited

    def missing(self, raw: Iterable[str], holder: Scopes, owner: User) -> list[str]:
        """Return which of these raw scopes, meant for a token of ``owner``, ``holder`` lacks."""
        return scopes.missing(self._meant(raw, owner), holder.raw, self.groups_of)

    def missing_expanded(self, expanded: Collection[str], holder: Scopes) -> list[str]:
        """Return which of these expanded scopes ``holder`` lacks."""
        return scopes.missing(expanded, holder.raw, self.groups_of)

    def default_token_scopes(self, holder: Scopes, owner: User) -> list[str]:
        """Return the scopes of a token for ``owner`` that ``holder`` asks for without naming any.

        Those of the role token (everything its owner may do), as far as the holder may do it too.
        """
        default = self.raw_scopes("token")
        if not self.missing(default, holder, owner):
            return sorted(default)
        return sorted(scopes.intersect(self._meant(default, owner), holder.raw, self.groups_of))
