"""The teacher's pages: class codes, the page for the projector, and who waits for approval.

Rules of this file: pages read the class book and change it by plain forms; all of them are for
those who may administer users. Who did what is logged.

Threads: waitress's.
"""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import urlencode, urlsplit

from .. import addresses, clock, qr, readable
from ..auth.names import shown
from ..classbook import MADE_AT_START
from ..errors import BadRequest, NotFound
from ..models import ClassCode, Group
from ..people import group_name_problem
from ..texts import Text
from .context import Context
from .routing import Access, Routes

log = logging.getLogger("minihub.class")
routes = Routes()

TEACHER = ("admin:users",)
#: How long a code can be good, in seconds, as the form offers it.
LIFETIMES = (3600, 5400, 8 * 3600, 86400, 7 * 86400, 30 * 86400)
MOST_USES = 10_000
LONGEST_NOTE = 100


def keeper(ctx: Context) -> Any:
    """Return the authenticator that keeps the class's passwords. Raises NotFound without one."""
    if not ctx.site.authenticator.keeps_passwords:
        raise NotFound()
    return ctx.site.authenticator


def class_url(ctx: Context, rest: str = "") -> str:
    """Return the path of the class page or of one below it."""
    return f"{ctx.site.hub_prefix}class" + (f"/{rest}" if rest else "")


def invitation(ctx: Context) -> tuple[str, list[str]]:
    """Return the site's URL to tell people, and the others it might be; "" when there is none.

    ``?at=`` chooses one of the others by its host.
    """
    port = ctx.site.hub.proxy.public_port
    found = addresses.invitations(ctx.site.options, port, ctx.origin)
    chosen = [url for url in found if urlsplit(url).netloc == ctx.query.get("at")]
    best = next(iter(chosen or found), "")
    return best, [url for url in found if url != best]


def join_link(site_url: str, code: str = "") -> str:
    """Return the link that opens the join form at a site, with a code in it if one is given."""
    query = "?" + urlencode({"code": readable.grouped(code)}) if code else ""
    return f"{site_url}hub/join{query}"


def code_facts(ctx: Context, row: ClassCode) -> dict[str, Any]:
    """Return a class code as the pages show it."""
    return {
        "code": readable.grouped(row.code),
        "note": MADE_AT_START if row.note == MADE_AT_START else row.note,
        "group": row.group.name if row.group_id is not None else "",
        "used": row.used,
        "uses": row.uses,
        "expires_at": row.expires_at,
        "projector_url": class_url(ctx, f"projector/{row.id}"),
        "end_url": class_url(ctx, f"codes/{row.id}/end"),
        "joined": keeper(ctx).book.joined(row),
    }


def duration(seconds: int) -> dict[str, Any]:
    """Return a time as a number of the largest unit that it is a whole number of."""
    units = (("days", 86400), ("hours", 3600), ("minutes", 60))
    unit, size = next((one for one in units if seconds % one[1] == 0), ("minutes", 60))
    return {"seconds": seconds, "number": max(1, seconds // size), "unit": unit}


def class_page(ctx: Context, status: int = 200, **namespace: Any) -> Any:
    """Return the class page."""
    authenticator = keeper(ctx)
    site_url, _others = invitation(ctx)
    with ctx.site.hub.store.session():
        groups = [row.name for row in Group.select().order_by(Group.name).limit(500)]
    lifetimes = sorted({*LIFETIMES, authenticator.code_lifetime})
    return ctx.page(
        "class.html",
        status,
        **{
            "signup": authenticator.signup,
            "codes": [code_facts(ctx, row) for row in authenticator.book.codes()],
            "used_up": [code_facts(ctx, row) for row in authenticator.book.used_up()],
            "waiting": authenticator.book.waiting(),
            "join_url": join_link(site_url) if site_url else "",
            "lifetimes": [duration(seconds) for seconds in lifetimes],
            "lifetime_s": authenticator.code_lifetime,
            "uses": authenticator.code_uses,
            "group_names": groups,
            "group": "",
            "note": "",
        }
        | namespace,
    )


@routes.add("GET", "class", access=Access.PAGE, scopes=TEACHER)
def class_overview(ctx: Context) -> Any:
    """Show codes and who waits."""
    keeper(ctx)
    return class_page(ctx)


# -- codes -----------------------------------------------------------------------------------


def _whole(text: str, least: int, most: int, what: str) -> int:
    """Return a number of a form. Raises BadRequest naming ``what`` it is."""
    if not text.strip().isdecimal() or not least <= int(text.strip()[:12]) <= most:
        raise BadRequest(
            Text(
                "%(what)s is a number from %(least)s to %(most)s.",
                what=what,
                least=least,
                most=most,
            )
        )
    return int(text)


@routes.add("POST", "class/codes", access=Access.PAGE, scopes=TEACHER)
def new_code(ctx: Context) -> Any:
    """Make a class code and show it."""
    book = keeper(ctx).book
    group = ctx.form.get("group", "").strip()
    note = ctx.form.get("note", "").strip()[:LONGEST_NOTE]
    try:
        uses = _whole(ctx.form.get("uses", ""), 1, MOST_USES, Text("How many can join"))
        lifetime_s = _whole(
            ctx.form.get("lifetime_s", ""), 60, 366 * 86400, Text("The time it is good")
        )
        if group and (problem := group_name_problem(group)):
            raise BadRequest(Text("The group: %(problem)s.", problem=problem))
    except BadRequest as error:
        return class_page(
            ctx, 400, error=str(error), group=group[:100], note=note,
            uses=ctx.form.get("uses", "")[:8],
        )  # fmt: skip
    row = book.new_code(
        uses=uses, lifetime_s=lifetime_s, group=group, note=note, by=ctx.caller.name
    )
    log.info(
        "%s made a class code for %d people%s, good until %s",
        shown(ctx.caller.name),
        uses,
        f" of the group {shown(group)}" if group else "",
        row.expires_at,
    )
    told = f"{uses} × {group}" if group else f"{uses} ×"
    ctx.audit("make class code", detail=f"{_mark(row)}, {told}, {row.expires_at}")
    return ctx.redirect(class_url(ctx), 303)


@routes.add("POST", "class/codes/<code_id:int>/end", access=Access.PAGE, scopes=TEACHER)
def end_code(ctx: Context, code_id: int) -> Any:
    """End a class code at once."""
    row = keeper(ctx).book.end_code(code_id)
    if row is None:
        raise NotFound()
    log.info("%s ended a class code that %d people used", shown(ctx.caller.name), row.used)
    ctx.audit("end class code", detail=f"{_mark(row)}, {row.used} / {row.uses}")
    return ctx.redirect(class_url(ctx), 303)


def _mark(row: ClassCode) -> str:
    """Return what stands for a code in the audit list: enough to know it, too little to use it."""
    return f"#{row.id} {row.code[:2]}…"


def _code(ctx: Context, code_id: int) -> ClassCode:
    row = keeper(ctx).book.code(code_id)
    if row is None:
        raise NotFound()
    return row


def _count(row: ClassCode) -> dict[str, Any]:
    good = row.used < row.uses and row.expires_at > clock.now_text()
    return {"used": row.used, "uses": row.uses, "good": good}


@routes.add("GET", "class/projector/<code_id:int>", access=Access.PAGE, scopes=TEACHER)
def projector(ctx: Context, code_id: int) -> Any:
    """Show a code and the way to join for a whole room to read."""
    row = _code(ctx, code_id)
    site_url, others = invitation(ctx)
    here = site_url or ctx.origin + ctx.site.base_url
    address = here.partition("://")[2] + "join"
    return ctx.page(
        "projector.html",
        code=readable.grouped(row.code),
        spoken=readable.spaced(row.code),
        picture=qr.picture(join_link(here, row.code)),
        join_address=address,
        reachable=bool(site_url),
        other_addresses=[
            {"text": urlsplit(url).netloc, "url": "?" + urlencode({"at": urlsplit(url).netloc})}
            for url in others
        ],
        group=row.group.name if row.group_id is not None else "",
        count_url=class_url(ctx, f"projector/{row.id}/count"),
        class_url=class_url(ctx),
        expires_at=row.expires_at,
        **_count(row),
    )


@routes.add("GET", "class/projector/<code_id:int>/count", access=Access.PAGE, scopes=TEACHER)
def projector_count(ctx: Context, code_id: int) -> Any:
    """Tell how many have joined with a code."""
    return ctx.json(_count(_code(ctx, code_id)))


# -- approval ----------------------------------------------------------------------------------


@routes.add("POST", "class/waiting", access=Access.PAGE, scopes=TEACHER)
def decide(ctx: Context) -> Any:
    """Let those who are marked in, or turn them away."""
    book = keeper(ctx).book
    names = ctx.form_lists.get("name", [])
    if ctx.form.get("everybody"):
        names = [row.name for row in book.waiting()]
    verdict = ctx.form.get("verdict", "")
    if verdict == "approve":
        approve(ctx, names)
    elif verdict == "refuse":
        refuse(ctx, names)
    else:
        raise BadRequest(Text("Choose whether to let people in or to turn them away."))
    return ctx.redirect(class_url(ctx), 303)


def approve(ctx: Context, names: list[str]) -> list[str]:
    """Let people in who wait; return their names."""
    made = [user.name for user in keeper(ctx).book.approve(names)]
    for name in made:
        log.info("%s let %s in", shown(ctx.caller.name), shown(name))
        ctx.audit("let into class", name)
    return made


def refuse(ctx: Context, names: list[str]) -> int:
    """Turn people away who wait; return how many there were."""
    book = keeper(ctx).book
    waiting = {row.name for row in book.waiting()}
    count = book.refuse(names)
    log.info("%s turned %d people away", shown(ctx.caller.name), count)
    for name in dict.fromkeys(names):
        if name in waiting:
            ctx.audit("turn away from class", name)
    return count
