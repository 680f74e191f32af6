"""Lists of users, with their groups, roles and servers, in a fixed number of queries.

Rules of this file: questions to the store only; who may see what is the caller's business. Rows are
plain tuples of text and numbers, dates among them, since lists are long and often asked for.

Threads: any; :class:`Names` replaces what it knows as a whole.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, NamedTuple

from peewee import Expression, fn

from .models import Group, GroupMember, Role, RoleMember, Server, User
from .store import Store

#: By what users can be sorted.
SORTS = {"id": User.id, "name": User.name, "last_activity": User.last_activity}


#: Changes when somebody is made or deleted; the same SQL everywhere, and no row is read for it.
_VERSION = "SELECT (SELECT COUNT(*) FROM users), (SELECT MAX(id) FROM users)"


class UserFacts(NamedTuple):
    """One row of the users table."""

    id: int
    name: str
    admin: bool
    created: str
    last_activity: str | None


class ServerFacts(NamedTuple):
    """One row of the servers table, running or not."""

    user_id: int
    name: str
    display_name: str
    last_activity: str | None
    started: str | None
    user_options: dict[str, Any]
    state: dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """Which users are asked for; None asks for nothing in particular."""

    #: Ids to choose from, or to leave out.
    only: Collection[int] | None = None
    without: Collection[int] | None = None
    #: Names of users, and of groups whose members are meant as well.
    names: Collection[str] | None = None
    groups: Collection[str] | None = None
    #: Text that is part of the name, in any case.
    part: str = ""


class Names:
    """All users' names as one text, which shows in microseconds who has a part in their name.

    It is read again when there are more or fewer users than before; :meth:`forget` makes it so.
    """

    #: Where more match, the database finds a page of them sooner.
    MOST = 500

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: tuple[Any, str, list[int], list[int]] = ((), "", [], [])

    def forget(self) -> None:
        """Read the names again; for when somebody was renamed, or went and left an id behind."""
        self._known = ((), "", [], [])

    def narrow(self, wanted: Wanted) -> Wanted:
        """Return ``wanted`` with ids in place of a rare part of the name."""
        ids = self._find(wanted.part.lower()) if wanted.part else None
        if ids is None:
            return wanted
        if wanted.only is not None:
            chosen = set(wanted.only)
            ids = [one for one in ids if one in chosen]
        return replace(wanted, part="", only=ids)

    def _find(self, part: str) -> list[int] | None:
        """Return the ids of users with ``part`` in their name, None for more than MOST."""
        if "\n" in part:
            return []
        text, starts, ids = self._read()
        found: list[int] = []
        at = text.find(part)
        while at >= 0:
            if len(found) == self.MOST:
                return None
            line = bisect_right(starts, at) - 1
            found.append(ids[line])
            at = text.find(part, starts[line + 1]) if line + 1 < len(starts) else -1
        return found

    def _read(self) -> tuple[str, list[int], list[int]]:
        with self._store.session() as db:
            version = tuple(db.execute_sql(_VERSION).fetchone())
            known, text, starts, ids = self._known
            if known != version:
                rows = list(User.select(User.id, User.name).tuples())
                ids = [user_id for user_id, _name in rows]
                names = [name.lower() for _id, name in rows]
                starts = list(accumulate((len(name) + 1 for name in names[:-1]), initial=0))
                text = "\n".join(names)
                self._known = (version, text, starts, ids)
        return text, starts, ids


def users(
    store: Store, wanted: Wanted, *, sort: str, descending: bool, offset: int, limit: int
) -> list[UserFacts]:
    """Return one page of users; those without a value for ``sort`` count as the smallest."""
    rows = User.select(User.id, User.name, User.admin, User.created, User.last_activity)
    page = _where(rows, wanted).order_by(*order_of(sort, descending)).offset(offset).limit(limit)
    with store.session() as db:
        # Each row through the query builder would cost more than the query.
        found = db.execute_sql(*page.sql()).fetchall()
    return [
        UserFacts(user_id, name, bool(admin), created, seen)
        for user_id, name, admin, created, seen in found
    ]


def order_of(sort: str, descending: bool) -> list[Any]:
    """Return how a list is sorted, users of the same value by their ids."""
    column = SORTS[sort]
    order = column.desc(nulls="LAST") if descending else column.asc(nulls="FIRST")
    return [order] if sort in ("id", "name") else [order, User.id]


def count(store: Store, wanted: Wanted) -> int:
    """Return how many users there are of those asked for."""
    with store.session():
        return _where(User.select(), wanted).count()


def _where(query: Any, wanted: Wanted) -> Any:
    if wanted.only is not None:
        query = query.where(User.id.in_(list(wanted.only)))
    if wanted.without:
        query = query.where(User.id.not_in(list(wanted.without)))
    if wanted.names is not None or wanted.groups is not None:
        members = GroupMember.select(GroupMember.user).join(Group)
        members = members.where(Group.name.in_(list(wanted.groups or ())))
        query = query.where(User.name.in_(list(wanted.names or ())) | User.id.in_(members))
    if wanted.part:
        # Databases differ in whether their own search tells capitals apart.
        query = query.where(fn.LOWER(User.name).contains(wanted.part.lower()))
    return query


def _of(column: Any, ids: Collection[int]) -> Expression:
    """Return the condition that ``column`` is one of ``ids``, or lies just between them.

    A range costs the database and us less than a list. Whatever else lies in it is left unused,
    so it must not hold much more than was asked for.
    """
    first, last = min(ids), max(ids)
    if last - first < 4 * len(ids):
        return column.between(first, last)
    return column.in_(list(ids))


def groups_of(store: Store, ids: Collection[int]) -> dict[int, list[str]]:
    """Return the names of groups of each of these users who is in any."""
    rows = GroupMember.select(GroupMember.user, Group.name).join(Group).order_by(Group.name)
    return _collect(store, rows, GroupMember.user, ids)


def roles_of(store: Store, ids: Collection[int]) -> dict[int, list[str]]:
    """Return the names of roles of each user who holds any beyond user and admin."""
    rows = RoleMember.select(RoleMember.user, Role.name).join(Role).order_by(Role.name)
    return _collect(store, rows, RoleMember.user, ids)


def _collect(store: Store, rows: Any, owner: Any, ids: Collection[int]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    if ids:
        with store.session():
            for user_id, name in rows.where(_of(owner, ids)).tuples():
                found.setdefault(user_id, []).append(name)
    return found


def servers_of(store: Store, ids: Collection[int]) -> dict[int, list[ServerFacts]]:
    """Return the servers, running or not, of each of these users who has any."""
    found: dict[int, list[ServerFacts]] = {}
    rows = Server.select(
        Server.user,
        Server.name,
        Server.display_name,
        Server.last_activity,
        Server.started,
        Server.user_options,
        Server.state,
    ).order_by(Server.name)
    if ids:
        with store.session():
            for row in rows.where(_of(Server.user, ids)).tuples():
                found.setdefault(row[0], []).append(ServerFacts(*row))
    return found
