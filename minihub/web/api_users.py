"""REST API: users, and when they were active.

Rules of this file: requests are checked, :mod:`minihub.people` does it. Nobody makes an admin who
may not do everything that admins may.

Threads: waitress's.
Sources: JupyterHub 6's REST API; its older culler script, which knows no zones in dates.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from .. import clock, directory
from ..activity import MAX_AHEAD_S
from ..errors import BadRequest, Conflict, Forbidden, NotFound
from ..models import Server as ServerRow
from ..models import User
from ..scopes import ALL
from . import schemas
from .api_base import (
    UserModels,
    check_body,
    check_texts,
    find_user,
    page_bounds,
    paged,
    wants_pages,
)
from .context import Context
from .routing import SOME, Routes

routes = Routes()

_KEYS = {"name": str, "admin": bool, "groups": list, "roles": list, "auth_state": dict}
READ = (
    "read:users",
    "read:users:name",
    "read:servers",
    "read:users:groups",
    "read:users:activity",
    "read:roles:users",
)


# -- lists -----------------------------------------------------------------------------------


@routes.add(
    "GET",
    "api/users",
    scopes=("list:users",),
    on=SOME,
    query=(*schemas.PAGES, "state", "name_filter", "sort", "include_stopped_servers"),
    gives={200: "Users"},
)
def list_users(ctx: Context) -> Any:
    """List users, as pages for clients that ask for pages."""
    hub = ctx.site.hub
    offset, limit = page_bounds(ctx)
    sort = ctx.query.get("sort", "id")
    column = sort.removeprefix("-")
    if column not in directory.SORTS:
        raise BadRequest(f"sort must be 'id', 'name', or 'last_activity', not {sort[:60]!r}")
    wanted = hub.names.narrow(_wanted(ctx))
    found = directory.users(
        hub.store, wanted, sort=column, descending=sort != column, offset=offset, limit=limit
    )
    ctx.naive_dates = ctx.naive_dates or _is_old_culler(ctx)
    if ctx.naive_dates:  # such a client takes no null: who was never active is as old as created
        found = [one._replace(last_activity=one.last_activity or one.created) for one in found]
    models = UserModels(ctx).many(found)
    if not wants_pages(ctx):
        return ctx.json(models)
    return ctx.json(paged(ctx, models, offset, limit, directory.count(hub.store, wanted)))


def _wanted(ctx: Context) -> directory.Wanted:
    """Return which users are asked for and may be listed. Raises BadRequest, Forbidden."""
    names = groups = None
    held = ctx.caller.scopes.filters("list:users")
    if held is not ALL:
        if not set(held) <= {"user", "group"}:
            raise Forbidden("list:users counts for all, for users or for groups")
        names, groups = held.get("user", ()), held.get("group", ())
    state = ctx.query.get("state", "")
    if state not in ("", "active", "ready", "inactive"):
        raise BadRequest(f"Unrecognized state filter: {state[:60]!r}")
    only = without = None
    if state:
        active = ctx.site.hub.active_by_user()
        if state == "inactive":
            without = list(active)
        elif state == "active":
            only = list(active)
        else:
            only = [owner for owner, mine in active.items() if any(one.ready for one in mine)]
    part = ctx.query.get("name_filter", "")[:255]
    return directory.Wanted(only=only, without=without, names=names, groups=groups, part=part)


def _is_old_culler(ctx: Context) -> bool:
    """Return whether this is the culler script of JupyterHub 0.8, by all that it does not send.

    It compares dates with ones that have no zone and fails on others.
    """
    agent = ctx.header("User-Agent")
    bare = not ctx.header("Accept") and not ctx.query_string
    return bare and ctx.caller.token is not None and (not agent or agent.startswith("Tornado/"))


@routes.add(
    "POST",
    "api/users",
    scopes=("admin:users",),
    takes="CreateUsers",
    gives={201: "NewUsers"},
    fails=(409,),
)
def create_users(ctx: Context) -> Any:
    """Create several users at once."""
    data = ctx.json_value()
    if not isinstance(data, dict) or not data.get("usernames"):
        raise BadRequest("Must specify at least one user to create")
    names = check_texts(data.pop("usernames"), "usernames")
    check_body(data, _KEYS, "user")
    users = _create(ctx, names, data)
    if not users:
        raise Conflict(f"All {len(names)} users already exist")
    models = UserModels(ctx)
    return ctx.json([models.one(user) for user in users], 201)


def _create(ctx: Context, names: list[str], data: dict[str, Any]) -> list[User]:
    admin = data.get("admin", False)
    if admin and not may_make_admins(ctx):
        raise Forbidden("Only admins can grant admin permissions")
    _check_unsettable(ctx, data)
    groups = _groups_to_set(ctx, None, data)
    people = ctx.site.people
    users = people.create(names, admin=admin)
    for user in users:
        if groups is not None:
            people.set_groups(user, groups)
        if data.get("auth_state"):
            ctx.site.hub.auth_states.save(user.id, data["auth_state"])
    return users


def may_make_admins(ctx: Context) -> bool:
    """Return whether the caller is an admin and, with this token, may do all that admins may."""
    roles = ctx.site.hub.roles
    return ctx.caller.is_admin and not roles.missing_expanded(
        roles.admin_scopes(), ctx.caller.scopes
    )


def _check_unsettable(ctx: Context, data: dict[str, Any]) -> None:
    """Raise BadRequest for what has its place elsewhere, Forbidden for a secret of others."""
    if data.get("roles"):
        raise BadRequest("Roles are given in the configuration: JupyterHub.load_roles")
    if data.get("auth_state"):
        if not ctx.site.hub.auth_states.enabled:
            raise BadRequest("This hub keeps no auth_state")
        if not ctx.allows("admin:auth_state"):
            raise Forbidden("Only admins can change auth_state")


def _groups_to_set(ctx: Context, user: User | None, data: dict[str, Any]) -> list[str] | None:
    """Return the groups that ``data`` names, None if it names none.

    Raises BadRequest for a group that does not exist, Forbidden when the caller may not change one
    of those that would change.
    """
    if "groups" not in data:
        return None
    groups = check_texts(data["groups"], "user.groups")
    ctx.site.people.find_groups(groups)
    present = set(ctx.site.hub.roles.rights_of_user(user).groups) if user else set()
    for group in sorted(present.symmetric_difference(groups)):
        if not ctx.allows("groups", group=group):
            raise Forbidden(f"Not permitted to change the group {group[:60]}")
    return groups


# -- one user --------------------------------------------------------------------------------


@routes.add(
    "GET",
    "api/users/<name>",
    scopes=READ,
    on="user",
    query=("include_stopped_servers",),
    gives={200: "User"},
)
def get_user(ctx: Context, name: str) -> Any:
    """Describe a user."""
    user = find_user(ctx, name)
    model = UserModels(ctx).one(user)
    if "auth_state" in model:
        model["auth_state"] = ctx.site.hub.auth_states.load(user.id)
    return ctx.json(model)


@routes.add(
    "POST",
    "api/users/<name>",
    scopes=("admin:users",),
    on="user",
    takes="ChangeUser",
    gives={201: "User"},
    fails=(409,),
)
def create_user(ctx: Context, name: str) -> Any:
    """Create a user."""
    try:
        data = check_body(ctx.json_body() or {}, _KEYS, "user")
        if data.get("name", name) != name:
            raise BadRequest(f"user.name is {data['name'][:60]!r}, and {name[:60]!r} in the path")
        users = _create(ctx, [name], data)
    except BadRequest as error:
        if ctx.site.accounts.user(name) is not None:  # which goes before all else that is wrong
            raise Conflict(f"User {name} already exists") from error
        raise
    if not users:
        raise Conflict(f"User {name} already exists")
    return ctx.json(UserModels(ctx).one(users[0]), 201)


@routes.add(
    "PATCH",
    "api/users/<name>",
    scopes=("admin:users",),
    on="user",
    takes="ChangeUser",
    gives={200: "User"},
    fails=(409,),
)
def change_user(ctx: Context, name: str) -> Any:
    """Rename a user, or change whether they are an admin, or their groups."""
    user = find_user(ctx, name)
    data = check_body(ctx.json_value(), _KEYS, "user")
    people = ctx.site.people
    if not may_make_admins(ctx):
        if user.admin:
            raise Forbidden("Only admins can modify other admins")
        if data.get("admin"):
            raise Forbidden("Only admins can grant admin permissions")
    _check_unsettable(ctx, data)
    groups = _groups_to_set(ctx, user, data)
    if "name" in data and data["name"] != name:
        user = people.rename(user, data["name"])
    if "admin" in data:
        user = people.set_admin(user, data["admin"])
    if groups is not None:
        people.set_groups(user, groups)
    if data.get("auth_state"):
        ctx.site.hub.auth_states.save(user.id, data["auth_state"])
    return ctx.json(UserModels(ctx).one(user))


@routes.add(
    "DELETE",
    "api/users/<name>",
    scopes=("delete:users",),
    on="user",
    gives={204: schemas.EMPTY},
    fails=(400,),
)
def delete_user(ctx: Context, name: str) -> Any:
    """Delete a user, after stopping their servers."""
    user = find_user(ctx, name)
    if ctx.caller.user is not None and ctx.caller.user.id == user.id:
        raise BadRequest("Cannot delete yourself!")
    why = f"{ctx.caller.name} deletes {user.name}"
    ctx.site.people.delete(user, why=why, timeout_s=ctx.site.slow_stop_timeout_s)
    return ctx.reply(b"", 204)


@routes.add(
    "POST",
    "api/users/<name>/admin-access",
    scopes=("servers",),
    on="user",
    gives={200: schemas.EMPTY},
)
def admin_access(ctx: Context, name: str) -> Any:
    """Tell whether admins may enter other people's servers; nothing else is needed for it."""
    if not ctx.site.options.admin_access:
        raise Forbidden("admin access to user servers disabled")
    find_user(ctx, name)
    return ctx.reply(b"", content_type="application/json")


# -- activity --------------------------------------------------------------------------------

_SERVERS_FORM = "servers must be a dict of the form {server_name: {last_activity: timestamp}}"


def _moment(text: Any) -> datetime:
    try:
        moment = clock.parse(text if isinstance(text, str) else "")
    except (ValueError, IndexError, OverflowError) as error:
        raise BadRequest(f"Not a valid timestamp: {repr(text)[:60]}") from error
    if moment > clock.utcnow() + timedelta(seconds=MAX_AHEAD_S):
        raise BadRequest(
            f"Rejecting activity from more than an hour in the future: {clock.isoformat(moment)}"
        )
    return moment


@routes.add(
    "POST",
    "api/users/<name>/activity",
    scopes=("users:activity",),
    on="user",
    takes="Activity",
    gives={200: schemas.EMPTY},
)
def report_activity(ctx: Context, name: str) -> Any:
    """Take a report of when a user and their servers were active."""
    user = ctx.site.accounts.user(name)
    if user is None:
        raise NotFound(f"No such user: {name[:60]!r}")
    body = ctx.json_value()
    if not isinstance(body, dict):
        raise BadRequest("body must be a json dict")
    reports = body.get("servers") or {}
    if not reports and not body.get("last_activity"):
        raise BadRequest("body must contain at least one of `last_activity` or `servers`")
    if not isinstance(reports, dict):
        raise BadRequest(_SERVERS_FORM)
    with ctx.site.accounts.store.session():
        rows = ServerRow.select(ServerRow.name, ServerRow.id).where(ServerRow.user == user)
        ids = dict(rows.tuples())
    own = _moment(body["last_activity"]) if body.get("last_activity") else None
    seen: dict[int, datetime] = {}
    for server_name, report in reports.items():
        if server_name and server_name not in ids:
            raise BadRequest(f"No such server {server_name[:60]!r} for user {name}")
        if not isinstance(report, dict) or "last_activity" not in report:
            raise BadRequest(_SERVERS_FORM)
        moment = _moment(report["last_activity"])
        if server_name in ids:  # everybody has a default server, even one that never ran
            seen[ids[server_name]] = moment
        elif not body.get("last_activity"):
            own = moment
    activity = ctx.site.hub.activity
    if own is not None:
        activity.user(user.id, own, step_s=0)
    for row_id, moment in seen.items():
        activity.server(row_id, user.id, moment, step_s=0)
    return ctx.reply(b"", content_type="application/json")
