"""REST API of our own: passwords and one-time codes, who waits for approval, class lists.

Rules of this file: what the teacher's pages do, for programs and the command line; nothing else. A
hub that keeps no passwords answers 404. A one-time code is in the answer that made it and nowhere
else.

Threads: waitress's; a password takes a tenth of a second.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

from ..auth.names import shown
from ..errors import BadRequest
from ..roster import Plan, Roster
from . import schemas
from .api_base import check_body, check_texts, find_user
from .class_pages import TEACHER, approve, keeper, refuse
from .class_people import carry_out
from .context import Context
from .routing import Routes

log = logging.getLogger("minihub.class")
routes = Routes()


def _body(ctx: Context, types: dict[str, type]) -> dict[str, Any]:
    return check_body(ctx.json_body() or {}, types, "body")


@routes.add(
    "POST",
    "api/users/<name>/one-time-code",
    scopes=TEACHER,
    on="user",
    gives={201: "OneTimeCode"},
)
def one_time_code(ctx: Context, name: str) -> Any:
    """Give a user a one-time code in the place of any password; end logins and tokens."""
    keeper(ctx)
    user = find_user(ctx, name)
    (slip,) = Roster(ctx.site.people).give_codes([user])
    log.warning("%s gave %s a one-time code", shown(ctx.caller.name), shown(user.name))
    return ctx.json(_slip(slip), 201)


@routes.add(
    "PUT",
    "api/users/<name>/password",
    scopes=TEACHER,
    on="user",
    takes="SetPassword",
    gives={204: schemas.EMPTY},
)
def set_password(ctx: Context, name: str) -> Any:
    """Set a user's password; end all logins."""
    authenticator = keeper(ctx)
    user = find_user(ctx, name)
    password = _body(ctx, {"password": str}).get("password", "")
    try:
        authenticator.set_password(user.name, password)
    except ValueError as error:
        raise BadRequest(str(error)) from error
    log.warning("%s set the password of %s", shown(ctx.caller.name), shown(user.name))
    return ctx.reply(b"", 204)


@routes.add("GET", "api/class/waiting", scopes=TEACHER, gives={200: "Waiting"}, fails=(404,))
def waiting(ctx: Context) -> Any:
    """List those who wait for approval, the first first."""
    rows = keeper(ctx).book.waiting()
    return ctx.json(
        [{"name": row.name, "created": row.created, "address": row.address} for row in rows]
    )


@routes.add(
    "POST",
    "api/class/waiting",
    scopes=TEACHER,
    takes="Decide",
    gives={200: "Decided"},
    fails=(404,),
)
def decide(ctx: Context) -> Any:
    """Let people in (``approve``) or turn them away (``refuse``); both are lists of names."""
    authenticator = keeper(ctx)
    body = _body(ctx, {"approve": list, "refuse": list})
    names = {
        key: [authenticator.normalize_username(name) for name in check_texts(value, key)]
        for key, value in body.items()
    }
    made = approve(ctx, names.get("approve", []))
    refused = refuse(ctx, names["refuse"]) if names.get("refuse") else 0
    return ctx.json({"approved": made, "refused": refused})


@routes.add(
    "POST",
    "api/class/roster",
    scopes=TEACHER,
    takes="TakeRoster",
    gives={200: "RosterPlan", 201: "RosterPlan", 400: "RosterRefused"},
    fails=(404,),
)
def take_roster(ctx: Context) -> Any:
    """Say what a list would do; do it unless ``dry_run`` is true or a line is wrong.

    Where a line is wrong the answer is an error that holds the plan.
    """
    keeper(ctx)
    body = _body(ctx, {"list": str, "dry_run": bool})
    roster = Roster(ctx.site.people)
    plan = roster.plan(body.get("list", "").encode("utf-8", "replace"))
    if body.get("dry_run"):
        return ctx.json(_plan(plan, []))
    if plan.problems:
        first = plan.problems[0]
        message = f"Nothing was done: line {first.line}: {first.problem}"
        if len(plan.problems) > 1:
            message += f" ({len(plan.problems)} lines are wrong)"
        return ctx.json({"status": 400, "message": message, **_plan(plan, [])}, 400)
    slips = carry_out(ctx, roster, plan)
    return ctx.json(_plan(plan, [_slip(slip) for slip in slips]), 201)


def _plan(plan: Plan, slips: list[dict[str, Any]]) -> dict[str, Any]:
    return {"rows": [asdict(row) for row in plan.rows], "note": plan.note, "slips": slips}


def _slip(slip: Any) -> dict[str, Any]:
    return {"name": slip.name, "code": slip.code, "expires_at": slip.expires_at}


@routes.add("GET", "api/class/roster", scopes=TEACHER, gives={200: "Roster"}, fails=(404,))
def export(ctx: Context) -> Any:
    """Give everybody as the text of a CSV file."""
    keeper(ctx)
    return ctx.json({"list": Roster(ctx.site.people).export()})
