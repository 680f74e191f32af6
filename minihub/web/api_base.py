"""What the modules of the REST API share: checking bodies, paging, and models of users.

Rules of this file: requests are checked here, :mod:`minihub.web.shapes` says what answers look
like. A list costs the same number of queries whatever its length.

Threads: waitress's; a :class:`UserModels` belongs to one request.
Sources: JupyterHub 6's REST API, its pagination and its error texts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, urlencode

from .. import clock, directory
from ..directory import ServerFacts, UserFacts
from ..errors import BadRequest, NotFound
from ..models import Server as ServerRow
from ..models import User
from ..server import Server
from ..urls import escape_name
from . import shapes
from .context import Context

PAGINATED = "application/jupyterhub-pagination+json"
#: No list is longer; a larger offset is this one.
MAX_OFFSET = 2**31


# -- bodies --------------------------------------------------------------------------------


def check_body(data: Any, types: Mapping[str, type], what: str) -> dict[str, Any]:
    """Return a body that has none but these keys, each of its type. Raises BadRequest."""
    if not isinstance(data, dict):
        raise BadRequest(f"Invalid JSON data: {data!r}"[:200])
    if not set(data) <= set(types):
        raise BadRequest(f"Invalid JSON keys: {data!r}"[:200])
    for key, value in data.items():
        if not isinstance(value, types[key]):
            raise BadRequest(f"{what}.{key} must be {types[key]}, not: {type(value)!r}")
    return data


def check_texts(value: Any, what: str) -> list[str]:
    """Return a list of texts. Raises BadRequest naming ``what`` it should have been."""
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise BadRequest(f"{what} must be a list of texts")
    return value


# -- lists ---------------------------------------------------------------------------------


def wants_pages(ctx: Context) -> bool:
    """Return whether the client asks for pages in its ``Accept`` header."""
    accepted = ctx.header("Accept")
    return bool(accepted) and PAGINATED in {one.strip().lower() for one in accepted.split(",")}


def page_bounds(ctx: Context) -> tuple[int, int]:
    """Return ``(offset, limit)`` of the list that is asked for. Raises BadRequest."""
    # A client that does not know of pages gets as much as there can be at once.
    most = ctx.site.options.api_page_max_limit
    default = ctx.site.options.api_page_default_limit if wants_pages(ctx) else most
    try:
        offset = abs(int(ctx.query.get("offset", 0)))
        limit = abs(int(ctx.query.get("limit", default)))
    except ValueError as error:
        raise BadRequest("Invalid argument type, offset and limit must be integers") from error
    return min(offset, MAX_OFFSET), max(1, min(limit, most))


def paged(ctx: Context, items: Any, offset: int, limit: int, total: int) -> dict[str, Any]:
    """Return one page, with the URL of the next under the host that was asked."""
    following = None
    if offset + limit < total:
        query = parse_qs(ctx.query_string, keep_blank_values=True)
        query |= {"offset": [str(offset + limit)], "limit": [str(limit)]}
        following = f"{ctx.scheme}://{ctx.host}{ctx.path}?{urlencode(query, doseq=True)}"
    return shapes.page_model(items, offset=offset, limit=limit, total=total, next_url=following)


# -- users and servers ---------------------------------------------------------------------


def find_user(ctx: Context, name: str) -> User:
    """Return the user of that name. Raises NotFound."""
    user = ctx.site.accounts.user(name)
    if user is None:
        raise NotFound()
    return user


class UserModels:
    """Makes models of users, as far as the caller may see them."""

    def __init__(self, ctx: Context, *, own_keys: Collection[str] = ()) -> None:
        """``own_keys`` are shown in any case."""
        self.hub = ctx.site.hub
        self.api_prefix = ctx.site.api_prefix
        self.view = ctx.caller.view
        self.own_keys = frozenset(own_keys)
        asked = ctx.query.get("include_stopped_servers", "0").lower()
        self.with_stopped = asked not in ("0", "false")

    def one(self, user: User) -> dict[str, Any]:
        """Return one user; without stopped servers this reads nothing that is not remembered."""
        hub = self.hub
        rights = hub.roles.rights_of_user(user)
        seen = hub.activity.of_user(user.id)
        facts = UserFacts(user.id, user.name, user.admin, user.created, seen)
        active = [server for server in hub.servers_of(user).values() if server.active]
        rows = self._rows([user.id]).get(user.id, ())
        return self._model(facts, list(rights.roles), list(rights.groups), active, rows)

    def many(self, found: Sequence[UserFacts]) -> list[dict[str, Any]]:
        """Return users in the order given, without those of whom nothing may be seen."""
        ids = [facts.id for facts in found]
        store = self.hub.store
        groups = directory.groups_of(store, ids)
        roles = directory.roles_of(store, ids)
        active = self.hub.active_by_user()
        rows = self._rows(ids)
        models = []
        for facts in found:
            basic = ["admin", "user"] if facts.admin else ["user"]
            more = roles.get(facts.id)
            names = sorted({*basic, *more}) if more else basic
            mine = groups.get(facts.id) or []
            running = active.get(facts.id, ())
            model = self._model(facts, names, mine, running, rows.get(facts.id, ()))
            if model:
                models.append(model)
        return models

    def _rows(self, ids: list[int]) -> dict[int, list[ServerFacts]]:
        return directory.servers_of(self.hub.store, ids) if self.with_stopped else {}

    def _model(
        self,
        facts: UserFacts,
        roles: list[str],
        groups: list[str],
        active: Sequence[Server],
        rows: Sequence[ServerFacts],
    ) -> dict[str, Any]:
        keys = self.view.keys(facts.name, groups)
        if self.own_keys:
            keys |= self.own_keys
        if not keys:
            return {}
        default = next((server for server in active if not server.name), None) if active else None
        models = {}
        if active or rows or self.with_stopped:
            models = {
                name: model
                for name, model in self._servers(facts.name, groups, active, rows)
                if self.view.shows("read:servers", facts.name, name, groups)
            }
        return shapes.user_model(
            name=facts.name,
            admin=facts.admin,
            roles=roles,
            groups=groups,
            server=self.hub.server_url(facts.name) if default and default.ready else None,
            pending=default.pending if default else None,
            created=facts.created,
            last_activity=facts.last_activity,
            servers=models,
            keys=keys,
        )

    def _servers(
        self,
        user: str,
        groups: Collection[str],
        active: Sequence[Server],
        rows: Sequence[ServerFacts],
    ) -> list[tuple[str, dict[str, Any]]]:
        running = [(server.name, self.active_server(server, groups)) for server in active]
        known = {name for name, _model in running}
        stopped = [
            (row.name, self.stopped_server(user, row, groups))
            for row in rows
            if row.name not in known
        ]
        if self.with_stopped and "" not in known and not any(row.name == "" for row in rows):
            # Everybody has a default server, even one that never ran.
            stopped.insert(0, ("", self.stopped_server(user, None, groups)))
        return running + stopped

    def active_server(self, server: Server, groups: Collection[str]) -> dict[str, Any]:
        """Return a server that is not stopped; all of it is remembered."""
        user, name, row_id = server.user_name, server.name, server.row_id
        state = None
        if self.view.shows("admin:server_state", user, name, groups):
            state = server.spawner.get_state() if server.spawner is not None else {}
        return shapes.server_model(
            user=user,
            name=name,
            display_name=server.display_name,
            last_activity=None if row_id is None else self.hub.activity.of_server(row_id),
            started=clock.isoformat(server.started) if server.started else None,
            pending=server.pending,
            ready=server.ready,
            stopped=False,
            url=self.hub.server_url(user, name),
            user_options=server.user_options,
            progress_url=self.progress_url(user, name),
            state=state,
            origin=self.hub.info.public_origin,
        )

    def stopped_server(
        self,
        user: str,
        row: ServerFacts | ServerRow | None,
        groups: Collection[str],
        name: str = "",
    ) -> dict[str, Any]:
        """Return a stopped server; ``row`` is None for one that never ran, called ``name``."""
        name = row.name if row else name
        may_see_state = self.view.shows("admin:server_state", user, name, groups)
        return shapes.server_model(
            user=user,
            name=name,
            display_name=row.display_name if row else "",
            last_activity=row.last_activity if row else None,
            started=None,
            pending=None,
            ready=False,
            stopped=True,
            url=self.hub.server_url(user, name),
            user_options=row.user_options if row else {},
            progress_url=self.progress_url(user, name),
            state=((row.state if row else None) or {}) if may_see_state else None,
            origin=self.hub.info.public_origin,
        )

    def progress_url(self, user_name: str, server_name: str) -> str:
        """Return the path of a start's progress events."""
        kind = f"servers/{escape_name(server_name)}" if server_name else "server"
        return f"{self.api_prefix}/users/{escape_name(user_name)}/{kind}/progress"
