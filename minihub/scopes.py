"""What may be done: the table of scopes, what includes what, and sums with filtered scopes.

A scope is a name (``read:users``) or a name with a filter that narrows it to some resources
(``read:users!user=alice``). *Raw* scopes are as people write them in roles and tokens, with
``self`` and the shorthands ``!user``, ``!server`` and ``!service``; *expanded* scopes have those
resolved and everything included spelt out.

Rules of this file: the tables are data, checked when they are loaded. Functions are pure; group
membership, where a filter asks for it, comes through a function that the caller gives. What
cannot be understood grants nothing. Who holds which role is decided elsewhere.

Threads: any. Custom scopes are defined once at start, before the first request.

Sources: names, inclusions and default roles are those of JupyterHub 6.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import ConfigError
from .texts import Text


@dataclass(frozen=True)
class Scope:
    """One row of the table: what the scope allows, and the scopes it includes."""

    description: str
    includes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # Pages say it in the reader's language; scripts/messages.py knows this class.
        object.__setattr__(self, "description", Text.whole(self.description))


@dataclass(frozen=True)
class Role:
    """A named set of raw scopes."""

    name: str
    description: str
    scopes: tuple[str, ...]


class All(enum.Enum):
    """The answer of :meth:`Scopes.filters` for a scope that no filter narrows."""

    ALL = "all"


ALL = All.ALL

#: Every scope, from the most to the least, resource by resource.
SCOPES: dict[str, Scope] = {
    "admin-ui": Scope("Open the admin page; what can be done there needs further scopes."),
    "admin:users": Scope(
        "Create, change and delete users, and read what their login left behind. Whoever holds "
        "this can become anybody.",
        ("admin:auth_state", "users", "read:roles:users", "delete:users"),
    ),
    "admin:auth_state": Scope("Read what an authenticator stored about users."),
    "users": Scope(
        "Read and change users, but not their servers and tokens.",
        ("read:users", "list:users", "users:activity"),
    ),
    "delete:users": Scope("Delete users."),
    "list:users": Scope("List users, with their names at least.", ("read:users:name",)),
    "read:users": Scope(
        "Read users: name, groups, activity, and where their server is.",
        ("read:users:name", "read:users:groups", "read:users:activity"),
    ),
    "read:users:name": Scope("Read the names of users."),
    "read:users:groups": Scope("Read which groups users are in."),
    "read:users:activity": Scope("Read when users were last active."),
    "users:activity": Scope("Report that users are active.", ("read:users:activity",)),
    "read:roles": Scope(
        "Read who holds which role.",
        ("read:roles:users", "read:roles:services", "read:roles:groups"),
    ),
    "read:roles:users": Scope("Read the roles of users."),
    "read:roles:services": Scope("Read the roles of services."),
    "read:roles:groups": Scope("Read the roles of groups."),
    "admin:servers": Scope(
        "Start, stop, create and delete servers, and read their internal state.",
        ("admin:server_state", "servers"),
    ),
    "admin:server_state": Scope("Read the internal state of servers."),
    "servers": Scope(
        "Start and stop servers.", ("read:servers", "start:servers", "delete:servers")
    ),
    "read:servers": Scope("Read servers and their users' names.", ("read:users:name",)),
    "start:servers": Scope("Start servers and change their options."),
    "delete:servers": Scope("Stop and delete servers."),
    "access:servers": Scope("Use servers, in the browser and through their API."),
    "tokens": Scope("Create, read and revoke tokens of users.", ("read:tokens",)),
    "read:tokens": Scope("Read which tokens users have; never the tokens themselves."),
    "admin:groups": Scope(
        "Create, change and delete groups.", ("groups", "read:roles:groups", "delete:groups")
    ),
    "groups": Scope(
        "Read groups and change who is in them, which may change what those users can do.",
        ("read:groups", "list:groups"),
    ),
    "delete:groups": Scope("Delete groups."),
    "list:groups": Scope("List groups, with their names at least.", ("read:groups:name",)),
    "read:groups": Scope("Read groups and who is in them.", ("read:groups:name",)),
    "read:groups:name": Scope("Read the names of groups."),
    "admin:services": Scope(
        "Create, change and delete services that are not in the configuration.",
        ("list:services", "read:services", "read:roles:services"),
    ),
    "list:services": Scope("List services, with their names at least.", ("read:services:name",)),
    "read:services": Scope("Read services.", ("read:services:name",)),
    "read:services:name": Scope("Read the names of services."),
    "access:services": Scope("Use services, in the browser and through their API."),
    "shares": Scope(
        "Share servers with other users, and use them.",
        ("access:servers", "read:shares", "users:shares", "groups:shares"),
    ),
    "read:shares": Scope("Read with whom servers are shared."),
    "users:shares": Scope("Read and give up what was shared with users.", ("read:users:shares",)),
    "read:users:shares": Scope("Read what was shared with users."),
    "groups:shares": Scope(
        "Read and give up what was shared with groups.", ("read:groups:shares",)
    ),
    "read:groups:shares": Scope("Read what was shared with groups."),
    "proxy": Scope("Read the proxy's routes, check them, and name another proxy."),
    "shutdown": Scope("Stop the hub."),
    "read:hub": Scope("Read details about the hub: versions and classes in use."),
    "read:metrics": Scope("Read the hub's metrics."),
}

#: Names that stand for other scopes; only in raw scopes.
METASCOPES = {
    "self": Text("Everything a user may do with what is their own."),
    "inherit": Text("Everything the token's owner may do."),
}

#: What ``self`` stands for, each with the filter ``!user=NAME``.
SELF = (
    "read:users",
    "users:shares",
    "read:shares",
    "users:activity",
    "servers",
    "tokens",
    "access:servers",
)

#: What every token of a user shows of them, and every client learns of who logs in.
IDENTIFY = ("read:users:name!user", "read:users:groups!user")

#: The roles every hub has: of users, of admins, of a server's token, of any other token.
DEFAULT_ROLES: dict[str, Role] = {
    role.name: role
    for role in (
        Role("user", "What every user may do", ("self",)),
        Role(
            "admin",
            "What admins may do: everything",
            (
                "admin-ui",
                "admin:users",
                "admin:servers",
                "admin:services",
                "tokens",
                "admin:groups",
                "list:services",
                "read:services",
                "read:hub",
                "proxy",
                "shutdown",
                "access:services",
                "access:servers",
                "read:roles",
                "read:metrics",
                "shares",
            ),
        ),
        Role(
            "server",
            "What a server may do for its user: report activity, let the user in",
            ("users:activity!user", "access:servers!server"),
        ),
        Role("token", "What a token may do: everything its owner may", ("inherit",)),
    )
}

FILTERS = ("user", "server", "group", "service")
_SHORTHANDS = ("user", "server", "service")
_CUSTOM_NAME = re.compile(r"custom:[a-z0-9][a-z0-9_\-*:]*[a-z0-9_*]")

GroupsOf = Callable[[str], Collection[str]]
Filters = Mapping[str, frozenset[str]]


# -- the table -----------------------------------------------------------------------------


def included(table: Mapping[str, Scope]) -> dict[str, frozenset[str]]:
    """Return each scope's name with the names of all scopes it includes, itself among them.

    Raises ValueError naming an included scope that does not exist, or one that includes itself.
    """
    done: dict[str, frozenset[str]] = {}

    def collect(name: str, above: tuple[str, ...]) -> frozenset[str]:
        if name in above:
            raise ValueError(f"scope {name} includes itself: {' > '.join((*above, name))}")
        if name not in table:
            raise ValueError(f"scope {above[-1]} includes {name}, which does not exist")
        if name not in done:
            below = (collect(child, (*above, name)) for child in table[name].includes)
            done[name] = frozenset({name}).union(*below)
        return done[name]

    for name in table:
        collect(name, ())
    return done


_included = included(SCOPES)


def define_custom(definitions: Mapping[str, Any]) -> None:
    """Add the scopes of ``JupyterHub.custom_scopes``: name → ``{description, subscopes}``.

    Raises ConfigError with every problem, having added nothing.
    """
    problems = []
    added: dict[str, Scope] = {}
    for name, definition in definitions.items():
        where = f'JupyterHub.custom_scopes: "{name}"'
        if not isinstance(name, str) or not _CUSTOM_NAME.fullmatch(name):
            problems.append(
                f"{where}: a custom scope is named custom: and then lower-case letters, digits "
                "and -_:*, beginning with a letter or digit and not ending with - or :"
            )
            continue
        if not isinstance(definition, Mapping) or not isinstance(
            definition.get("description"), str
        ):
            problems.append(f"{where}: a description is needed, shown to users who grant the scope")
            continue
        subscopes = definition.get("subscopes") or []
        if not isinstance(subscopes, (list, tuple)):
            problems.append(f"{where}: subscopes must be a list of custom scopes")
            continue
        for child in subscopes:
            if child not in definitions:
                problems.append(f'{where}: subscope "{child}" is not a custom scope defined here')
        for key in sorted(set(definition) - {"description", "subscopes"}, key=str):
            problems.append(f'{where}: unknown key "{key}"; there are description and subscopes')
        added[name] = Scope(definition["description"], tuple(subscopes))
    if not problems:
        try:
            closure = included({**SCOPES, **added})
        except ValueError as error:
            problems.append(f"JupyterHub.custom_scopes: {error}")
    if problems:
        raise ConfigError(problems)
    SCOPES.update(added)
    _included.update(closure)


def forget_custom() -> None:
    """Remove every custom scope; a hub that starts again in one process begins with none."""
    for name in [name for name in SCOPES if name.startswith("custom:")]:
        del SCOPES[name], _included[name]


# -- one scope -----------------------------------------------------------------------------


def split(scope: str) -> tuple[str, str, str]:
    """Return ``(name, filter, value)`` of a scope; the last two are empty where there are none."""
    name, _, narrowed = scope.partition("!")
    kind, _, value = narrowed.partition("=")
    return name, kind, value


def problem(scope: object) -> str:
    """Return what is wrong with a raw scope, in one sentence; "" if nothing is."""
    if not isinstance(scope, str):
        return Text("a scope is a text, not %(kind)s", kind=type(scope).__name__)
    name, kind, value = split(scope)
    if name in METASCOPES:
        return Text("%(scope)s takes no filter", scope=name) if "!" in scope else ""
    if name not in SCOPES:
        return Text('there is no scope "%(scope)s"', scope=name[:100])
    if "!" not in scope:
        return ""
    if kind not in FILTERS:
        return Text(
            '"%(scope)s": a filter begins with !user, !server, !group or !service',
            scope=scope[:100],
        )
    if not value and ("=" in scope or kind not in _SHORTHANDS):
        return Text('"%(scope)s": the filter names nothing', scope=scope[:100])
    if kind == "server" and value and "/" not in value:
        return Text(
            '"%(scope)s": a server is named USER/SERVER (USER/ for the default one)',
            scope=scope[:100],
        )
    return ""


def unknown(scopes: Iterable[str]) -> list[str]:
    """Return those raw scopes that are not scopes at all."""
    return [scope for scope in scopes if problem(scope)]


_WHO_ASKS = {
    "user": Text("the user that asks"),
    "server": Text("the server that asks"),
    "service": Text("the service that asks"),
}


def describe(scope: str, user: str | None = None) -> dict[str, str]:
    """Return in words what a raw or expanded scope allows, to ``user`` if that is given.

    ``description`` is a sentence, ``filter`` what it is narrowed to or "", ``scope`` the scope: as
    JupyterHub's pages have them. An unknown scope is described by its name.
    """
    name, kind, value = split(scope)
    row = SCOPES.get(name)
    text = METASCOPES.get(name) or (row.description if row else scope)
    return {"scope": scope, "description": text, "filter": _narrowed(kind, value, user)}


def _narrowed(kind: str, value: str, user: str | None) -> str:
    if not kind:
        return ""
    if kind == "user" and value in ("", user):
        return Text("what is yours")
    if not value:
        return _WHO_ASKS.get(kind, kind)
    if kind == "server":
        owner, _, server = value.partition("/")
        if server:
            return Text("server %(server)s of %(owner)s", server=server, owner=owner)
        return Text("the server of %(owner)s", owner=owner)
    if kind == "group":
        return Text("group %(name)s and its users", name=value)
    if kind == "user":
        return Text("user %(name)s", name=value)
    return Text("service %(name)s", name=value)


# -- sets of scopes ------------------------------------------------------------------------


def expand(
    raw: Iterable[str],
    owner: str | None = None,
    *,
    service: str | None = None,
    server: str | None = None,
) -> frozenset[str]:
    """Return the expanded form of raw scopes.

    ``owner`` is the user whom ``self`` and ``!user`` mean, ``service`` the service that
    ``!service`` and ``server`` the server (``user/name``) that ``!server`` means. What they would
    have to resolve but do not is left out, as is every scope that :func:`problem` objects to.
    ``inherit`` is left out too: it means its owner's scopes, which the caller knows.
    """
    meant = {"user": owner, "service": service, "server": server}
    expanded = set()
    for scope in raw:
        if problem(scope):
            continue
        name, kind, value = split(scope)
        if name == "self":
            names = [inner for outer in SELF for inner in _included[outer]] if owner else []
            expanded.update(f"{inner}!user={owner}" for inner in names)
            continue
        if kind:
            value = value or meant[kind] or ""
            if not value:
                continue
        for inner in _included.get(name, ()):
            # The right to read one server says nothing about its user.
            if not kind:
                expanded.add(inner)
            elif kind != "server" or not inner.startswith("read:users"):
                expanded.add(f"{inner}!{kind}={value}")
    return _reduced(expanded)


class Scopes:
    """Expanded scopes in a form that answers questions. Immutable; any thread.

    ``groups_of`` returns the names of a user's groups; it is called only where a ``!group``
    filter has to be compared with a user, and without it such a filter matches groups alone.
    """

    __slots__ = ("_groups_of", "_held", "raw")

    def __init__(self, expanded: Iterable[str] = (), groups_of: GroupsOf | None = None) -> None:
        self.raw = _reduced(expanded)
        self._held = _parse(self.raw)
        self._groups_of = groups_of

    def __repr__(self) -> str:
        return f"Scopes({sorted(self.raw)})"

    def has_any(self, scope: str) -> bool:
        """Return whether the scope is held for anything at all."""
        return scope in self._held

    def filters(self, scope: str) -> All | Filters:
        """Return what a scope is held for: ALL, or names by kind (user, server, group, service).

        A scope that is not held gives an empty mapping. For lists: who holds ``list:users`` for
        group ``g`` sees the users of that group.
        """
        return self._held.get(scope, {})

    def allows(
        self,
        scope: str,
        *,
        user: str | None = None,
        server: str | None = None,
        group: str | None = None,
        service: str | None = None,
        user_groups: Collection[str] | None = None,
    ) -> bool:
        """Return whether the scope is held for one resource, or for all where none is given.

        ``server`` is ``user/name`` and may come with its ``user``; whoever may do something for a
        user may do it for each of the user's servers. ``user_groups`` are the groups of the user
        or of the server's user, if the caller knows them.

        Raises ValueError when asked about two resources at once.
        """
        if server is not None:
            owner = server.partition("/")[0]
            if user not in (None, owner):
                raise ValueError(f"server {server} is not one of user {user}")
            user = owner
        if sum(name is not None for name in (user, group, service)) > 1:
            raise ValueError("a scope is checked for one resource at a time")
        held = self._held.get(scope)
        if held is None or held is ALL:
            return held is ALL
        if server is not None and server in held.get("server", ()):
            return True
        if user is not None:
            return user in held.get("user", ()) or self._in_group(
                user, held.get("group"), user_groups
            )
        if group is not None:
            return group in held.get("group", ())
        return service is not None and service in held.get("service", ())

    def _in_group(
        self, user: str, groups: Collection[str] | None, user_groups: Collection[str] | None
    ) -> bool:
        if not groups:
            return False
        if user_groups is None:
            user_groups = self._groups_of(user) if self._groups_of else ()
        return not groups.isdisjoint(user_groups)


def intersect(
    one: Iterable[str], other: Iterable[str], groups_of: GroupsOf | None = None
) -> frozenset[str]:
    """Return the expanded scopes for what both expanded sets allow.

    ``groups_of`` as for :class:`Scopes`. What only the members of two different groups have in
    common cannot be written as scopes and is left out.
    """
    first, second = Scopes(one, groups_of), Scopes(other, groups_of)
    common = set()
    for candidates, holder in ((first, second), (second, first)):
        common.update(scope for scope in candidates.raw if _holds(holder, scope))
    return _reduced(common)


def missing(
    requested: Iterable[str], held: Iterable[str], groups_of: GroupsOf | None = None
) -> list[str]:
    """Return, sorted, those expanded scopes that go beyond the expanded scopes ``held``."""
    holder = Scopes(held, groups_of)
    return sorted(scope for scope in requested if not _holds(holder, scope))


def _holds(holder: Scopes, scope: str) -> bool:
    """Return whether everything that one expanded scope allows is allowed by ``holder``."""
    name, kind, value = split(scope)
    return holder.allows(name, **({kind: value} if kind in FILTERS else {}))


def _parse(expanded: Iterable[str]) -> dict[str, All | dict[str, frozenset[str]]]:
    """Return what each scope is held for; narrowed scopes without a value hold nothing."""
    held: dict[str, Any] = {}
    for scope in expanded:
        name, kind, value = split(scope)
        if "!" not in scope:
            held[name] = ALL
        elif kind in FILTERS and value and held.get(name) is not ALL:
            held.setdefault(name, {}).setdefault(kind, set()).add(value)
    return {
        name: what if what is ALL else {kind: frozenset(names) for kind, names in what.items()}
        for name, what in held.items()
    }


def _reduced(expanded: Iterable[str]) -> frozenset[str]:
    """Return the scopes without narrowed forms of scopes that are there unnarrowed."""
    scopes = frozenset(expanded)
    whole = {scope for scope in scopes if "!" not in scope}
    return frozenset(s for s in scopes if s in whole or s.partition("!")[0] not in whole)


# -- documentation -------------------------------------------------------------------------


def markdown() -> str:
    """Return ``docs/scopes.md``: every built-in scope, the filters and the default roles."""
    lines = [
        "# Scopes",
        "",
        "<!-- Generated from minihub/scopes.py. -->",
        "",
        "A scope is the right to do one kind of thing. Roles are sets of scopes; users, groups and",
        "services hold roles, and a token has scopes of its own, never more than its owner's.",
        "",
        "| scope | allows | includes |",
        "| --- | --- | --- |",
    ]
    for name, row in SCOPES.items():
        if not name.startswith("custom:"):
            includes = ", ".join(f"`{child}`" for child in row.includes)
            lines.append(f"| `{name}` | {row.description} | {includes} |")
    lines += [
        "",
        "## In roles and tokens only",
        "",
        "| name | stands for |",
        "| --- | --- |",
        *(f"| `{name}` | {text} |" for name, text in METASCOPES.items()),
        "",
        "`self` is " + ", ".join(f"`{name}`" for name in SELF) + ", each for the user alone.",
        "",
        "## Filters",
        "",
        "A filter narrows a scope to some resources: `read:users!user=alice`.",
        "",
        "| filter | narrows to |",
        "| --- | --- |",
        "| `!user=NAME` | one user and that user's servers |",
        "| `!server=NAME/SERVER` | one server; `NAME/` is the user's default server |",
        "| `!group=NAME` | one group and the users in it |",
        "| `!service=NAME` | one service |",
        "| `!user` | the user who holds the role or owns the token |",
        "| `!server` | the server that the token was made for |",
        "| `!service` | the service that holds the role or that the token was made for |",
        "",
        "## Default roles",
        "",
        "| role | for | scopes |",
        "| --- | --- | --- |",
    ]
    for role in DEFAULT_ROLES.values():
        scopes = ", ".join(f"`{scope}`" for scope in role.scopes)
        lines.append(f"| `{role.name}` | {role.description}. | {scopes} |")
    lines += [
        "",
        "## Custom scopes",
        "",
        "`JupyterHub.custom_scopes` adds scopes for other programs to check. Their names begin",
        "with `custom:`, and they can include custom scopes only.",
        "",
    ]
    return "\n".join(lines)
