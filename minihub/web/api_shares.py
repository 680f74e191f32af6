"""REST API and page: sharing servers with users and groups, directly or by a code.

Rules of this file: nobody shares more than they may do themselves, and nothing but scopes on that
one server. A code is shown once and stored hashed.

Threads: waitress's.
Sources: JupyterHub 6's REST API.
"""

from __future__ import annotations

import re
import secrets
from typing import Any
from urllib.parse import urlencode

from peewee import JOIN

from .. import clock
from .. import scopes as scope_table
from ..accounts import fingerprint
from ..errors import BadRequest, Forbidden, MethodNotAllowed, NotFound
from ..models import Group, GroupMember, Share, ShareCode, User
from ..models import Server as ServerRow
from ..serverrows import find_row
from ..texts import Text
from . import schemas, shapes
from .api_base import check_texts, page_bounds, paged
from .api_groups import find_group
from .context import Context
from .routing import Access, Routes

routes = Routes()

DEFAULT_CODE_LIFETIME_S = 86400
MIN_CODE_LIFETIME_S = 60
MAX_CODE_LIFETIME_S = 365 * 86400
_CODE_ID = re.compile(r"sc_(\d{1,18})")


# -- finding ---------------------------------------------------------------------------------


def _owner(ctx: Context, name: str) -> User:
    user = ctx.site.accounts.user(name)
    if user is None:
        raise NotFound(f"No such user: {name[:100]}")
    return user


def _server(ctx: Context, name: str, server_name: str) -> ServerRow:
    """Return the row of a server; everybody has a default server, started or not."""
    user = ctx.site.accounts.user(name)
    with ctx.site.accounts.store.session():
        row = user and find_row(user.id, server_name)
    if user is not None and row is None and not server_name:
        with ctx.site.accounts.store.transaction():
            row, _created = ServerRow.get_or_create(user=user, name="")
    if not row:
        raise NotFound(f"No such server: {name[:100]}/{server_name[:100]}")
    row.user = user
    return row


def _server_model(ctx: Context, row: ServerRow) -> dict[str, Any]:
    owner: User = row.user
    return shapes.shared_server(
        owner=owner.name,
        name=row.name,
        url=ctx.site.hub.server_url(owner.name, row.name),
        ready=ctx.site.hub.server(owner, row.name).ready,
        origin=ctx.site.hub.info.public_origin,
    )


def _share_model(ctx: Context, share: Share) -> dict[str, Any]:
    row = share.server
    return shapes.share_model(
        share,
        server=_server_model(ctx, row),
        scopes=shapes.share_scopes(share.scopes, row.user.name, row.name),
        user=share.user.name if share.user_id is not None else None,
        group=share.group.name if share.group_id is not None else None,
    )


def _code_model(ctx: Context, code: ShareCode) -> dict[str, Any]:
    row = code.server
    scopes = shapes.share_scopes(code.scopes, row.user.name, row.name)
    return shapes.share_code_model(code, server=_server_model(ctx, row), scopes=scopes)


_Owner = User.alias()


def _shares(condition: Any) -> Any:
    """Return the shares under a condition, each with its server, owner and receiver."""
    return (
        Share.select(Share, ServerRow, _Owner, User, Group)
        .join_from(Share, ServerRow)
        .join_from(ServerRow, _Owner, on=(ServerRow.user == _Owner.id), attr="user")
        .join_from(Share, User, JOIN.LEFT_OUTER, on=(Share.user == User.id), attr="user")
        .join_from(Share, Group, JOIN.LEFT_OUTER)
        .where(condition)
        .order_by(Share.id)
    )


def _codes(condition: Any) -> Any:
    live = ShareCode.expires_at > clock.now_text()
    return (
        ShareCode.select(ShareCode, ServerRow, User)
        .join_from(ShareCode, ServerRow)
        .join_from(ServerRow, User)
        .where(condition, live)
        .order_by(ShareCode.id)
    )


def _page(ctx: Context, query: Any, model: Any) -> Any:
    offset, limit = page_bounds(ctx)
    with ctx.site.accounts.store.session():
        total = query.count()
        rows = list(query.offset(offset).limit(limit))
    items = [model(ctx, row) for row in rows]
    return ctx.json(paged(ctx, items, offset, limit, total))


# -- what is asked for -----------------------------------------------------------------------


def _fields(ctx: Context, *known: str) -> dict[str, Any]:
    body = ctx.json_body() or {}
    unknown = sorted(set(body) - set(known))
    if unknown:
        raise BadRequest(
            f"Unknown fields: {', '.join(unknown)[:100]}; there are {', '.join(known)}"
        )
    return body


def _scopes(body: dict[str, Any], row: ServerRow) -> list[str]:
    """Return the names of scopes that a body asks for, without the filter they will have.

    Raises BadRequest for one that is none, or that is narrowed to something else.
    """
    asked = body.get("scopes")
    if not asked:
        return ["access:servers"]
    only = f"server={row.user.name}/{row.name}"
    names = []
    for scope in check_texts(asked, "scopes"):
        name, _, narrowed = scope.partition("!")
        if name not in scope_table.SCOPES:
            raise BadRequest(f"Scope {scope[:100]!r} for share does not exist")
        if narrowed and narrowed != only:
            raise BadRequest(
                f"!{narrowed[:100]} not allowed on sharing {scope[:100]}, only !{only}"
            )
        names.append(name)
    return sorted(set(names))


def _check_may_give(ctx: Context, names: list[str], row: ServerRow) -> None:
    """Raise Forbidden unless the caller holds everything that the scopes include."""
    full = f"{row.user.name}/{row.name}"
    given = scope_table.expand(f"{name}!server={full}" for name in names)
    missing = ctx.site.hub.roles.missing_expanded(given, ctx.caller.scopes)
    if missing or not given:
        scope = missing[0] if missing else f"{names[0]}!server={full}"
        raise Forbidden(f"Do not have permission to grant share with scope {scope}")


def _receiver(body: dict[str, Any]) -> tuple[str, str]:
    """Return ``("user" or "group", name)``. Raises BadRequest unless it is exactly one."""
    user, group = body.get("user"), body.get("group")
    if user and group:
        raise BadRequest("Expected exactly one of `user` or `group`, not both.")
    name = user or group
    if not name or not isinstance(name, str):
        raise BadRequest("Specify exactly one of `user` or `group`")
    return ("user" if user else "group"), name


def _find_receiver(kind: str, name: str) -> User | Group | None:
    table = User if kind == "user" else Group
    return table.get_or_none(table.name == name)


def grant(row: ServerRow, receiver: User | Group, names: list[str]) -> int:
    """Add scopes to what the receiver has on a server; return the share's id. In a transaction."""
    column = "user" if isinstance(receiver, User) else "group"
    share, _created = Share.get_or_create(
        server=row, **{column: receiver}, defaults={"created": clock.now_text(), "scopes": []}
    )
    share.scopes = sorted({*share.scopes, *names})
    share.save()
    return share.id


# -- shares of a server ----------------------------------------------------------------------

SHARES = ("api/shares/<name>/", "api/shares/<name>/<server_name>")


@routes.add(
    "GET",
    "api/shares/<name>",
    scopes=("read:shares",),
    on="user",
    query=schemas.PAGES,
    gives={200: "Shares"},
)
def list_shares_of_owner(ctx: Context, name: str) -> Any:
    """List everything that a user shares."""
    owner = _owner(ctx, name)
    return _page(ctx, _shares(ServerRow.user == owner), _share_model)


@routes.add(
    "GET", *SHARES, scopes=("read:shares",), on="server", query=schemas.PAGES, gives={200: "Shares"}
)
def list_shares(ctx: Context, name: str, server_name: str = "") -> Any:
    """List with whom a server is shared."""
    row = _server(ctx, name, server_name)
    return _page(ctx, _shares(Share.server == row), _share_model)


@routes.add("POST PATCH DELETE", "api/shares/<name>", scopes=("shares",), on="user", fails=(405,))
def no_server_named(ctx: Context, name: str) -> Any:
    """Refuse to change all shares of a user at once."""
    raise MethodNotAllowed("Method Not Allowed", headers={"Allow": "GET"})


@routes.add(
    "POST", *SHARES, scopes=("shares",), on="server", takes="ShareWith", gives={200: "Share"}
)
def share(ctx: Context, name: str, server_name: str = "") -> Any:
    """Share a server with a user or a group."""
    body = _fields(ctx, "user", "group", "scopes")
    kind, receiver_name = _receiver(body)
    row = _server(ctx, name, server_name)
    names = _scopes(body, row)
    _check_may_give(ctx, names, row)
    scope = "read:users:name" if kind == "user" else "read:groups:name"
    if not ctx.allows(scope, **{kind: receiver_name}):
        raise Forbidden(f"Need scope '{scope}' to share with {kind}s by name")
    with ctx.site.accounts.store.transaction():
        receiver = _find_receiver(kind, receiver_name)
        if receiver is None:
            raise BadRequest(f"No such {kind}: {receiver_name[:100]}")
        share_id = grant(row, receiver, names)
        made = _shares(Share.id == share_id).get()
    return ctx.json(_share_model(ctx, made))


@routes.add(
    "PATCH", *SHARES, scopes=("shares",), on="server", takes="ShareWith", gives={200: "ShareLeft"}
)
def unshare(ctx: Context, name: str, server_name: str = "") -> Any:
    """Take scopes, or all of them, from a user or group; answers with what is left."""
    body = _fields(ctx, "user", "group", "scopes")
    kind, receiver_name = _receiver(body)
    row = _server(ctx, name, server_name)
    taken = _scopes(body, row) if body.get("scopes") else None
    with ctx.site.accounts.store.transaction():
        receiver = _find_receiver(kind, receiver_name)
        mine = (Share.server == row) & (getattr(Share, kind) == receiver)
        left = None if receiver is None else _shares(mine).first()
        if left is not None:
            left.scopes = [] if taken is None else [s for s in left.scopes if s not in taken]
            if left.scopes:
                left.save(only=[Share.scopes])
            else:
                left.delete_instance()
                left = None
    return ctx.json(_share_model(ctx, left) if left else {})


@routes.add("DELETE", *SHARES, scopes=("shares",), on="server", gives={204: schemas.EMPTY})
def unshare_all(ctx: Context, name: str, server_name: str = "") -> Any:
    """Share a server with nobody any more."""
    row = _server(ctx, name, server_name)
    with ctx.site.accounts.store.transaction():
        Share.delete().where(Share.server == row).execute()
    return ctx.reply(b"", 204)


# -- what is shared with somebody ------------------------------------------------------------


@routes.add(
    "GET",
    "api/users/<name>/shared",
    scopes=("read:users:shares",),
    on="user",
    query=schemas.PAGES,
    gives={200: "Shares"},
)
def shared_with_user(ctx: Context, name: str) -> Any:
    """List what is shared with a user, also through groups."""
    user = _owner(ctx, name)
    groups = GroupMember.select(GroupMember.group).where(GroupMember.user == user)
    return _page(ctx, _shares((Share.user == user) | Share.group.in_(groups)), _share_model)


@routes.add(
    "GET",
    "api/groups/<group_name>/shared",
    scopes=("read:groups:shares",),
    on="group",
    query=schemas.PAGES,
    gives={200: "Shares"},
)
def shared_with_group(ctx: Context, group_name: str) -> Any:
    """List what is shared with a group."""
    group = find_group(ctx, group_name)
    return _page(ctx, _shares(Share.group == group), _share_model)


def _one_share(ctx: Context, kind: str, name: str, owner: str, server: str) -> Share:
    with ctx.site.accounts.store.session():
        receiver = _find_receiver(kind, name)
        mine = (_Owner.name == owner) & (ServerRow.name == server)
        mine &= getattr(Share, kind) == receiver
        found = None if receiver is None else _shares(mine).first()
    if found is None:
        raise NotFound(f"No such share for {kind} {name[:100]} on {owner[:100]}/{server[:100]}")
    return found


_PAIR = ("<owner>/", "<owner>/<shared_name>")
_USER_SHARE = tuple(f"api/users/<name>/shared/{pair}" for pair in _PAIR)
_GROUP_SHARE = tuple(f"api/groups/<group_name>/shared/{pair}" for pair in _PAIR)


@routes.add("GET", *_USER_SHARE, scopes=("read:users:shares",), on="user", gives={200: "Share"})
def user_share(ctx: Context, name: str, owner: str, shared_name: str = "") -> Any:
    """Describe what a user has on one server."""
    return ctx.json(_share_model(ctx, _one_share(ctx, "user", name, owner, shared_name)))


@routes.add("DELETE", *_USER_SHARE, scopes=("users:shares",), on="user", gives={204: schemas.EMPTY})
def leave_user_share(ctx: Context, name: str, owner: str, shared_name: str = "") -> Any:
    """Give up what a user has on one server."""
    return _give_up(ctx, _one_share(ctx, "user", name, owner, shared_name))


@routes.add("GET", *_GROUP_SHARE, scopes=("read:groups:shares",), on="group", gives={200: "Share"})
def group_share(ctx: Context, group_name: str, owner: str, shared_name: str = "") -> Any:
    """Describe what a group has on one server."""
    return ctx.json(_share_model(ctx, _one_share(ctx, "group", group_name, owner, shared_name)))


@routes.add(
    "DELETE", *_GROUP_SHARE, scopes=("groups:shares",), on="group", gives={204: schemas.EMPTY}
)
def leave_group_share(ctx: Context, group_name: str, owner: str, shared_name: str = "") -> Any:
    """Give up what a group has on one server."""
    return _give_up(ctx, _one_share(ctx, "group", group_name, owner, shared_name))


def _give_up(ctx: Context, share: Share) -> Any:
    with ctx.site.accounts.store.transaction():
        Share.delete().where(Share.id == share.id).execute()
    return ctx.reply(b"", 204)


# -- codes -----------------------------------------------------------------------------------

CODES = ("api/share-codes/<name>/", "api/share-codes/<name>/<server_name>")


@routes.add(
    "GET",
    "api/share-codes/<name>",
    scopes=("read:shares",),
    on="user",
    query=schemas.PAGES,
    gives={200: "ShareCodes"},
)
def list_codes_of_owner(ctx: Context, name: str) -> Any:
    """List all share codes of a user's servers."""
    owner = _owner(ctx, name)
    return _page(ctx, _codes(ServerRow.user == owner), _code_model)


@routes.add(
    "GET",
    *CODES,
    scopes=("read:shares",),
    on="server",
    query=schemas.PAGES,
    gives={200: "ShareCodes"},
)
def list_codes(ctx: Context, name: str, server_name: str = "") -> Any:
    """List the share codes of a server; never the codes themselves."""
    row = _server(ctx, name, server_name)
    return _page(ctx, _codes(ShareCode.server == row), _code_model)


@routes.add("POST DELETE", "api/share-codes/<name>", scopes=("shares",), on="user", fails=(405,))
def no_server_named_for_codes(ctx: Context, name: str) -> Any:
    """Refuse to change all share codes of a user at once."""
    raise MethodNotAllowed("Method Not Allowed", headers={"Allow": "GET"})


@routes.add(
    "POST",
    *CODES,
    scopes=("shares",),
    on="server",
    takes="CreateShareCode",
    gives={200: "NewShareCode"},
)
def make_code(ctx: Context, name: str, server_name: str = "") -> Any:
    """Make a share code; the answer is the only place that shows it."""
    body = _fields(ctx, "scopes", "expires_in")
    lifetime = body.get("expires_in", DEFAULT_CODE_LIFETIME_S)
    if isinstance(lifetime, bool) or not isinstance(lifetime, int):
        raise BadRequest("expires_in must be a whole number of seconds")
    if not MIN_CODE_LIFETIME_S <= lifetime <= MAX_CODE_LIFETIME_S:
        raise BadRequest(
            f"expires_in must lie between {MIN_CODE_LIFETIME_S} and {MAX_CODE_LIFETIME_S} seconds"
        )
    row = _server(ctx, name, server_name)
    names = _scopes(body, row)
    _check_may_give(ctx, names, row)
    code = secrets.token_urlsafe(32)
    with ctx.site.accounts.store.transaction():
        ShareCode.delete().where(ShareCode.expires_at <= clock.now_text()).execute()
        made = ShareCode.create(
            server=row,
            hashed=fingerprint(code),
            scopes=names,
            created=clock.now_text(),
            expires_at=clock.isoformat(clock.after(lifetime)),
        )
    accept_url = f"{ctx.site.hub_prefix}accept-share?{urlencode({'code': code})}"
    full = shapes.full_url(accept_url, ctx.site.hub.info.public_origin)
    shown = {"code": code, "accept_url": accept_url, "full_accept_url": full}
    return ctx.json(_code_model(ctx, made) | shown)


@routes.add(
    "DELETE",
    *CODES,
    scopes=("shares",),
    on="server",
    query=("code", "id"),
    gives={204: schemas.EMPTY},
)
def delete_codes(ctx: Context, name: str, server_name: str = "") -> Any:
    """Delete one share code, named by itself or by its id, or all of a server's."""
    row = _server(ctx, name, server_name)
    mine = ShareCode.server == row
    code, code_id = ctx.query.get("code"), ctx.query.get("id")
    missing = ""
    if code:
        mine &= ShareCode.hashed == fingerprint(code)
        missing = "No matching code found"
    elif code_id:
        match = _CODE_ID.fullmatch(code_id)
        mine &= ShareCode.id == (int(match[1]) if match else -1)
        missing = f"No code found matching id={code_id[:40]}"
    with ctx.site.accounts.store.transaction():
        deleted = ShareCode.delete().where(mine).execute()
    if missing and not deleted:
        raise NotFound(missing)
    return ctx.reply(b"", 204)


# -- accepting a code ------------------------------------------------------------------------


def _find_code(ctx: Context, text: str) -> ShareCode:
    with ctx.site.accounts.store.session():
        code = _codes(ShareCode.hashed == fingerprint(text)).first()
    if code is None:
        raise NotFound(Text("Share not found or expired"))
    if code.server.user_id == ctx.caller.user.id:
        raise Forbidden(Text("You can't share with yourself!"))
    return code


@routes.add("GET", "accept-share", access=Access.PAGE)
def accept_page(ctx: Context) -> Any:
    """Show what a share code gives, and a button that takes it."""
    text = ctx.query.get("code", "")
    code = _find_code(ctx, text)
    row = code.server
    owner = row.user
    scopes = shapes.share_scopes(code.scopes, owner.name, row.name)
    described = [scope_table.describe(scope) for scope in scopes]
    ready = ctx.site.hub.server(owner, row.name).ready
    return ctx.page(
        "accept-share.html",
        code=text,
        owner=ctx.site.page_user(owner),
        spawner={"name": row.name, "display_name": row.display_name or row.name, "ready": ready},
        spawner_ready=ready,
        spawner_url=ctx.site.hub.server_url(owner.name, row.name),
        scope_descriptions=described,
        next_url=_after_accepting(ctx, row),
    )


@routes.add("POST", "accept-share", access=Access.PAGE)
def accept(ctx: Context) -> Any:
    """Exchange a share code for the share, and go to the server."""
    code = _find_code(ctx, ctx.form.get("code") or ctx.query.get("code", ""))
    with ctx.site.accounts.store.transaction():
        grant(code.server, ctx.caller.user, code.scopes)
        ShareCode.update(
            exchange_count=ShareCode.exchange_count + 1, last_exchanged_at=clock.now_text()
        ).where(ShareCode.id == code.id).execute()
    return ctx.redirect(_after_accepting(ctx, code.server), 303)


def _after_accepting(ctx: Context, row: ServerRow) -> str:
    target = ctx.safe_next(ctx.query.get("next") or ctx.form.get("next") or "")
    return target or ctx.site.hub.server_url(row.user.name, row.name)
