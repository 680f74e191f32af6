"""REST API: groups, who is in them, and their properties.

Rules of this file: requests are checked, :mod:`minihub.people` does it.

Threads: waitress's.
Sources: JupyterHub 6's REST API.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..errors import BadRequest, Conflict, Forbidden, NotFound
from ..models import Group, GroupMember, Role, RoleMember, User
from ..scopes import ALL
from . import schemas, shapes
from .api_base import check_body, check_texts, page_bounds, paged, wants_pages
from .context import Context
from .routing import SOME, Routes

routes = Routes()

_KEYS = {"name": str, "users": list, "roles": list}


def find_group(ctx: Context, name: str) -> Group:
    """Return the group of that name. Raises NotFound."""
    with ctx.site.accounts.store.session():
        group = Group.get_or_none(Group.name == name)
    if group is None:
        raise NotFound(f"No such group: {name[:100]}")
    return group


def _names(rows: Iterable[tuple[int, str]]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for group_id, name in rows:
        found.setdefault(group_id, []).append(name)
    return found


def _models(ctx: Context, groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Return groups as far as the caller may see them, in three queries at most."""
    ids = [group.id for group in groups]
    with ctx.site.accounts.store.session():
        members = GroupMember.select(GroupMember.group, User.name).join(User).order_by(User.id)
        users = _names(members.where(GroupMember.group.in_(ids)).tuples())
        held = RoleMember.select(RoleMember.group, Role.name).join(Role).order_by(Role.name)
        roles = _names(held.where(RoleMember.group.in_(ids)).tuples())
    return [
        shapes.group_model(
            group.name,
            roles=roles.get(group.id, []),
            users=users.get(group.id, []),
            properties=group.properties,
            keys=shapes.group_keys(ctx.caller.scopes, group.name),
        )
        for group in groups
    ]


def _answer(ctx: Context, name: str, status: int = 200) -> Any:
    return ctx.json(_models(ctx, [find_group(ctx, name)])[0], status)


# -- all groups ------------------------------------------------------------------------------


@routes.add(
    "GET",
    "api/groups",
    scopes=("list:groups",),
    on=SOME,
    query=schemas.PAGES,
    gives={200: "Groups"},
)
def list_groups(ctx: Context) -> Any:
    """List groups, as pages for clients that ask for pages."""
    offset, limit = page_bounds(ctx)
    with ctx.site.accounts.store.session():
        found = Group.select().order_by(Group.id)
        held = ctx.caller.scopes.filters("list:groups")
        if held is not ALL:
            if set(held) != {"group"}:
                raise Forbidden("list:groups counts for all or for groups")
            found = found.where(Group.name.in_(list(held["group"])))
        groups = list(found.offset(offset).limit(limit))
        total = found.count() if wants_pages(ctx) else 0
    models = _models(ctx, groups)
    return ctx.json(paged(ctx, models, offset, limit, total) if wants_pages(ctx) else models)


@routes.add(
    "POST",
    "api/groups",
    scopes=("admin:groups",),
    takes="CreateGroups",
    gives={201: "NewGroups"},
    fails=(409,),
)
def create_groups(ctx: Context) -> Any:
    """Create several groups at once, all with the same users."""
    data = ctx.json_value()
    if not isinstance(data, dict) or not data.get("groups"):
        raise BadRequest("Must specify at least one group to create")
    names = list(dict.fromkeys(check_texts(data.pop("groups"), "groups")))
    _create(ctx, names, data)
    with ctx.site.accounts.store.session():
        made = {group.name: group for group in Group.select().where(Group.name.in_(names))}
    return ctx.json(_models(ctx, [made[name] for name in names if name in made]), 201)


def _create(ctx: Context, names: list[str], data: Any) -> None:
    try:
        body = check_body(data, _KEYS, "group")
        if body.get("roles"):
            raise BadRequest("Roles are given in the configuration: JupyterHub.load_roles")
        users = ctx.site.people.find_users(check_texts(body.get("users", []), "group.users"))
    except BadRequest:
        _check_new(ctx, names)  # which goes before all else that is wrong
        raise
    with ctx.site.accounts.store.transaction():
        _check_new(ctx, names)
        ctx.site.people.create_groups(names, users)


def _check_new(ctx: Context, names: list[str]) -> None:
    """Raise Conflict when there is a group of one of these names already."""
    with ctx.site.accounts.store.session():
        for name in names:
            if Group.get_or_none(Group.name == name) is not None:
                raise Conflict(f"Group {name} already exists")


# -- one group -------------------------------------------------------------------------------


@routes.add(
    "GET",
    "api/groups/<group_name>",
    scopes=("read:groups", "read:groups:name", "read:roles:groups"),
    on="group",
    gives={200: "Group"},
)
def get_group(ctx: Context, group_name: str) -> Any:
    """Describe a group."""
    return _answer(ctx, group_name)


@routes.add(
    "POST",
    "api/groups/<group_name>",
    scopes=("admin:groups",),
    on="group",
    takes="CreateGroup",
    gives={201: "Group"},
    fails=(409,),
)
def create_group(ctx: Context, group_name: str) -> Any:
    """Create a group."""
    data = ctx.json_value()
    _create(ctx, [group_name], {} if data is None else data)
    return _answer(ctx, group_name, 201)


@routes.add(
    "DELETE",
    "api/groups/<group_name>",
    scopes=("delete:groups",),
    on="group",
    gives={204: schemas.EMPTY},
)
def delete_group(ctx: Context, group_name: str) -> Any:
    """Delete a group; its users stay."""
    group = find_group(ctx, group_name)
    with ctx.site.accounts.store.transaction():
        Group.delete().where(Group.id == group.id).execute()
    return ctx.reply(b"", 204)


# -- its users and properties ----------------------------------------------------------------


def _members(ctx: Context, verb: str) -> list[User]:
    body = check_body(ctx.json_value(), _KEYS, "group")
    if "users" not in body:
        raise BadRequest(f"Must specify users to {verb}")
    return ctx.site.people.find_users(check_texts(body["users"], "group.users"))


@routes.add(
    "POST",
    "api/groups/<group_name>/users",
    scopes=("groups",),
    on="group",
    takes="Members",
    gives={200: "Group"},
)
def add_members(ctx: Context, group_name: str) -> Any:
    """Put users into a group."""
    group = find_group(ctx, group_name)
    users = _members(ctx, "add")
    with ctx.site.accounts.store.transaction():
        for user in users:
            GroupMember.get_or_create(group=group, user=user)
    return _answer(ctx, group_name)


@routes.add(
    "DELETE",
    "api/groups/<group_name>/users",
    scopes=("groups",),
    on="group",
    takes="Members",
    gives={200: "Group"},
)
def remove_members(ctx: Context, group_name: str) -> Any:
    """Take users out of a group; the body names them."""
    group = find_group(ctx, group_name)
    users = _members(ctx, "delete")
    with ctx.site.accounts.store.transaction():
        mine = (GroupMember.group == group) & GroupMember.user.in_(users)
        GroupMember.delete().where(mine).execute()
    return _answer(ctx, group_name)


@routes.add(
    "PUT",
    "api/groups/<group_name>/properties",
    scopes=("groups",),
    on="group",
    takes="Properties",
    gives={200: "Group"},
)
def set_properties(ctx: Context, group_name: str) -> Any:
    """Replace a group's properties."""
    group = find_group(ctx, group_name)
    data = ctx.json_value()
    if not isinstance(data, dict):
        raise BadRequest("Must specify properties")
    with ctx.site.accounts.store.transaction():
        Group.update(properties=data).where(Group.id == group.id).execute()
    return _answer(ctx, group_name)
