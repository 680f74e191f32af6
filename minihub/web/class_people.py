"""The teacher's pages about people: who has a password, one-time codes, class lists in and out.

Rules of this file: as in :mod:`minihub.web.class_pages`. A one-time code is on the page that
answers the form that made it, and nowhere else: no link leads there again. A list is looked at
before it is carried out, and looked at again when it is.

Threads: waitress's; a list of a hundred takes some seconds.
"""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import urlencode

from peewee import fn

from .. import clock, qr
from ..auth.names import shown
from ..errors import BadRequest, NotFound
from ..models import ClassCode, Credential, Group, GroupMember, User
from ..roster import MAX_BYTES, Plan, Roster, Slip, password_state
from ..texts import Text
from ..urls import escape_name
from .admin_page import admin_path
from .class_pages import TEACHER, class_url, invitation, keeper
from .context import Context
from .routing import Access, Routes

log = logging.getLogger("minihub.class")
routes = Routes()

PAGE_SIZE = 50


def _roster(ctx: Context) -> Roster:
    keeper(ctx)
    return Roster(ctx.site.people)


# -- people ----------------------------------------------------------------------------------


@routes.add("GET", "class/people", access=Access.PAGE, scopes=TEACHER)
def people(ctx: Context) -> Any:
    """Show one page of people, by name, and what each logs in with."""
    keeper(ctx)
    search = ctx.query.get("q", "").strip()[:255]
    number = ctx.query.get("page", "1")
    page = max(1, int(number)) if number.isdecimal() and len(number) < 7 else 1
    with ctx.site.hub.store.session():
        found = User.select().where(fn.LOWER(User.name).contains(search.lower()))
        count = found.count()
        users = list(found.order_by(User.name).paginate(page, PAGE_SIZE))
        secrets = {
            row.user_id: row
            for row in Credential.select(Credential, ClassCode)
            .left_outer_join(ClassCode)
            .where(Credential.user.in_(users))
        }
        groups: dict[int, list[str]] = {}
        members = (
            GroupMember.select(GroupMember.user, Group.name)
            .join(Group)
            .where(GroupMember.user.in_(users))
            .order_by(Group.name)
        )
        for user_id, name in members.tuples():
            groups.setdefault(user_id, []).append(name)
    now = clock.now_text()

    def url(to: int) -> str:
        query = {"q": search} if search else {}
        return class_url(ctx, "people") + "?" + urlencode(query | {"page": str(to)})

    sees_admin = ctx.allows("admin-ui")
    rows = []
    for user in users:
        secret = secrets.get(user.id)
        rows.append(
            {
                "name": user.name,
                "admin": user.admin,
                "groups": groups.get(user.id, []),
                "created": user.created,
                "password": password_state(secret),
                "expires_at": secret.expires_at if secret else None,
                "expired": bool(secret and secret.expires_at and secret.expires_at <= now),
                "url": admin_path(ctx, "user", escape_name(user.name)) if sees_admin else "",
                "reset_url": class_url(ctx, f"reset/{escape_name(user.name)}"),
            }
        )
    return ctx.page(
        "class-people.html",
        users=rows,
        total_users=count,
        search=search,
        previous_url=url(page - 1) if page > 1 else "",
        next_url=url(page + 1) if page * PAGE_SIZE < count else "",
    )


def _user(ctx: Context, name: str) -> User:
    keeper(ctx)
    user = ctx.site.accounts.user(name)
    if user is None:
        raise NotFound()
    return user


@routes.add("GET", "class/reset/<name>", access=Access.PAGE, scopes=TEACHER)
def reset_form(ctx: Context, name: str) -> Any:
    """Ask whether somebody is to get a one-time code."""
    user = _user(ctx, name)
    return ctx.page(
        "class-reset.html",
        username=user.name,
        url=class_url(ctx, f"reset/{escape_name(user.name)}"),
        is_first=not keeper(ctx).book.has_password(user),
        for_oneself=user.id == ctx.caller.user.id,
        people_url=class_url(ctx, "people"),
    )


@routes.add("POST", "class/reset/<name>", access=Access.PAGE, scopes=TEACHER)
def reset(ctx: Context, name: str) -> Any:
    """Give somebody a one-time code, shown once; end their logins and tokens."""
    user = _user(ctx, name)
    roster = _roster(ctx)
    slips = roster.give_codes([user])
    log.warning("%s gave %s a one-time code", shown(ctx.caller.name), shown(user.name))
    ctx.audit("give one-time code", user.name)
    return _slips_page(ctx, slips)


def _slips_page(ctx: Context, slips: list[Slip], **namespace: Any) -> Any:
    """Return the page that shows one-time codes, each on a slip to cut out."""
    site_url, _others = invitation(ctx)
    here = site_url or ctx.origin + ctx.site.base_url
    shown_slips = []
    for slip in slips:
        asked = urlencode({"username": slip.name, "code": slip.code})
        shown_slips.append(
            {
                "name": slip.name,
                "code": slip.code,
                "groups": list(slip.groups),
                "expires_at": slip.expires_at,
                "picture": qr.picture(f"{here}hub/new-password?{asked}"),
            }
        )
    return ctx.page(
        "class-slips.html",
        slips=shown_slips,
        address=here.partition("://")[2],
        people_url=class_url(ctx, "people"),
        **namespace,
    )


# -- lists -------------------------------------------------------------------------------------


def _roster_page(ctx: Context, status: int = 200, **namespace: Any) -> Any:
    return ctx.page(
        "class-roster.html",
        status,
        url=class_url(ctx, "roster"),
        export_url=class_url(ctx, "roster.csv"),
        **namespace,
    )


@routes.add("GET", "class/roster", access=Access.PAGE, scopes=TEACHER)
def roster_form(ctx: Context) -> Any:
    """Show the form for a list."""
    keeper(ctx)
    return _roster_page(ctx)


def _sent_list(ctx: Context) -> bytes:
    """Return the list of the form: a file, or the text. Raises BadRequest."""
    upload = ctx.request.files.get("file")
    if upload is not None and upload.filename:
        return upload.file.read(MAX_BYTES + 1)
    text = ctx.form.get("list", "")
    if not text.strip():
        raise BadRequest(Text("Choose a file, or write a list."))
    return text.encode("utf-8", "replace")


@routes.add("POST", "class/roster", access=Access.PAGE, scopes=TEACHER)
def take_roster(ctx: Context) -> Any:
    """Show what a list would do, or do it when that has been seen."""
    roster = _roster(ctx)
    try:
        raw = _sent_list(ctx)
        plan = roster.plan(raw)
        if ctx.form.get("sure") and not plan.problems:
            slips = carry_out(ctx, roster, plan)
            return _slips_page(ctx, slips, imported=True, plan_counts=_counts(plan))
    except BadRequest as error:
        return _roster_page(ctx, 400, error=str(error), list_text=ctx.form.get("list", ""))
    text = raw.decode("utf-8-sig", "replace") if not plan.note else _again(raw)
    return _roster_page(
        ctx,
        400 if plan.problems else 200,
        plan=plan,
        plan_counts=_counts(plan),
        list_text=text,
    )


def carry_out(ctx: Context, roster: Roster, plan: Plan) -> list[Slip]:
    """Do what a list says and note it; return the slips of those who are new."""
    slips = roster.carry_out(plan)
    joined = len(plan.having("join"))
    log.warning(
        "%s imported a list: %d people added, %d joined groups",
        shown(ctx.caller.name),
        len(slips),
        joined,
    )
    ctx.audit("import class list", detail=f"+{len(slips)} / {len(plan.rows)}")
    for slip in slips:
        ctx.audit("add user", slip.name)
    return slips


def _again(raw: bytes) -> str:
    """Return a list that is not UTF-8 as it was read, to be sent once more."""
    return raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "cp1252", "replace")


def _counts(plan: Any) -> dict[str, int]:
    counts = {action: len(plan.having(action)) for action in ("add", "join", "keep")}
    return counts | {"problems": len(plan.problems)}


@routes.add("GET", "class/roster.csv", access=Access.PAGE, scopes=TEACHER)
def export(ctx: Context) -> Any:
    """Send everybody as CSV."""
    response = ctx.reply(_roster(ctx).export().encode("utf-8-sig"), content_type="text/csv")
    response.set_header("Content-Disposition", 'attachment; filename="class.csv"')
    response.set_header("Cache-Control", "private, no-store")
    log.info("%s exported the list of people", shown(ctx.caller.name))
    return response
