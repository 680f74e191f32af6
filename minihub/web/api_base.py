"""REST API: what the hub is, who the caller is, and reports of activity.

Rules of this file: requests are checked, the hub is asked, :mod:`minihub.web.shapes` answers.

Threads: waitress's.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from .. import JUPYTERHUB_VERSION, clock
from ..activity import MAX_AHEAD_S
from ..errors import BadRequest, NotFound
from ..models import Server as ServerRow
from ..models import User
from ..urls import escape_name
from . import shapes
from .context import Context
from .routing import Access, Routes

routes = Routes()


@routes.add("GET", "api", "api/", access=Access.PUBLIC)
def version(ctx: Context) -> Any:
    """Say which JupyterHub release's API this is; every client asks at its start."""
    response = ctx.json({"version": JUPYTERHUB_VERSION})
    response.set_header("Access-Control-Allow-Origin", "*")
    return response


def server_models(ctx: Context, user: User, names: set[str]) -> dict[str, Any]:
    """Return the user's servers of those names as the API shows them."""
    hub = ctx.site.hub
    with hub.store.session():
        rows = {row.name: row for row in ServerRow.select().where(ServerRow.user == user)}
    models = {}
    for name in sorted(names):
        models[name] = shapes.server_model(
            hub.server(user, name),
            rows.get(name),
            url=hub.server_url(user.name, name),
            progress_url=progress_url(ctx, user.name, name),
        )
    return models


def progress_url(ctx: Context, user_name: str, server_name: str) -> str:
    """Return the path of a start's progress events."""
    kind = f"servers/{escape_name(server_name)}" if server_name else "server"
    return f"{ctx.site.api_prefix}/users/{escape_name(user_name)}/{kind}/progress"


def full_user_model(ctx: Context, user: User) -> dict[str, Any]:
    """Return the user with every key."""
    hub = ctx.site.hub
    active = {name for name, server in hub.servers_of(user).items() if server.active}
    return shapes.user_model(
        user,
        roles=ctx.site.identity.roles.names_of_user(user),
        groups=sorted(ctx.site.identity.roles.groups_of(user.name)),
        servers=server_models(ctx, user, active),
        server_url=hub.server_url(user.name),
    )


@routes.add("GET", "api/user")
def whoami(ctx: Context) -> Any:
    """Describe the caller, within the caller's own scopes."""
    caller = ctx.caller
    if caller.user is not None:
        model = shapes.visible_user(full_user_model(ctx, caller.user), caller.scopes)
        model |= {"kind": "user", "name": caller.name}
        model.setdefault("groups", sorted(ctx.site.identity.roles.groups_of(caller.name)))
    else:
        model = shapes.service_model(caller.service)
    model["scopes"] = sorted(caller.scopes.raw)
    model["session_id"] = caller.session_id or None
    model["token_id"] = f"a{caller.token.id}" if caller.token else None
    return ctx.json(model)


def _moment(text: Any, what: str) -> Any:
    if not isinstance(text, str):
        raise BadRequest(f"{what} must be an ISO 8601 text")
    try:
        moment = clock.parse(text)
    except (ValueError, IndexError) as error:
        raise BadRequest(f"{what} is no ISO 8601 date: {text[:60]!r}") from error
    if moment > clock.utcnow() + timedelta(seconds=MAX_AHEAD_S):
        raise BadRequest(f"{what} is in the future: {text[:60]!r}")
    return moment


@routes.add("POST", "api/users/<name>/activity", scopes=("users:activity",))
def activity(ctx: Context, name: str) -> Any:
    """Take a server's own report of when it and its user were active."""
    user = ctx.site.accounts.user(name)
    if user is None or not ctx.allows("users:activity", user=name):
        raise NotFound()
    body = ctx.json_body() or {}
    reports = body.get("servers") or {}
    if not isinstance(reports, dict):
        raise BadRequest("servers must be an object")
    user_seen = _moment(body["last_activity"], "last_activity") if "last_activity" in body else None
    seen = {}
    with ctx.site.accounts.store.session():
        rows = {row.name: row for row in ServerRow.select().where(ServerRow.user == user)}
    for server_name, report in reports.items():
        if server_name not in rows:
            raise BadRequest(f"User {name} has no server {server_name[:60]!r}")
        if not isinstance(report, dict) or "last_activity" not in report:
            raise BadRequest(f"servers.{server_name[:60]} needs last_activity")
        seen[server_name] = _moment(report["last_activity"], f"servers.{server_name[:60]}")
    if user_seen is not None:
        ctx.site.hub.activity.user(user.id, user_seen)
    for server_name, moment in seen.items():
        ctx.site.hub.activity.server(rows[server_name].id, user.id, moment)
    return ctx.reply(b"")
