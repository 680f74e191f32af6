"""Passwords that the hub keeps: one's own changed, and one-time codes turned into one.

Rules of this file: a password is set by whoever is logged in and knows the old one, or has none
yet, or by whoever has a one-time code. Wrong ones count against guessing as wrong logins do. A new
password ends every other login of that user.

Threads: waitress's; a password takes a tenth of a second.
"""

from __future__ import annotations

import logging
from typing import Any

from .. import tokens
from ..auth.classroom import CodeExpired
from ..auth.names import shown
from ..errors import Forbidden, NotFound, TooMany
from ..logs import safe
from ..texts import Text
from .context import Context
from .guard import TooManyAttempts
from .login import authenticate, new_password_page
from .routing import Access, Routes

log = logging.getLogger("minihub.class")
routes = Routes()

_WRONG_CODE = Text(
    "Name and one-time code do not belong together. Look again, or ask your teacher for a new one."
)


def _keeper(ctx: Context) -> Any:
    """Return the authenticator that keeps passwords. Raises NotFound where none does."""
    if not ctx.site.authenticator.keeps_passwords:
        raise NotFound()
    return ctx.site.authenticator


def _with_headers(response: Any, error: TooMany) -> Any:
    for name, value in error.headers.items():
        response.set_header(name, value)
    return response


# -- with a one-time code --------------------------------------------------------------------


@routes.add("GET", "new-password", access=Access.PUBLIC)
def new_password_form(ctx: Context) -> Any:
    """Show the form for a one-time code; a printed slip's link fills it in."""
    _keeper(ctx)
    username, code = (ctx.query.get(key, "")[:255] for key in ("username", "code"))
    return new_password_page(ctx, username=username, code=code)


@routes.add("POST", "new-password", access=Access.PUBLIC, xsrf=False)
def new_password(ctx: Context) -> Any:
    """Set a password with a one-time code, and log in with it."""
    keeper = _keeper(ctx)
    username = ".".join(ctx.form.get("username", "")[:255].split())
    code, password = ctx.form.get("code", "")[:64], ctx.form.get("password", "")

    def again(status: int, error: str, field: str = "") -> Any:
        return new_password_page(
            ctx, status, username=username, code=code, error=error, error_field=field
        )

    try:
        ctx.check_xsrf()
    except Forbidden as error:
        return again(403, error.message)
    name = keeper.normalize_username(username)
    if not tokens.same_secret(password, ctx.form.get("again", "")):
        return again(400, Text("The two passwords are not the same."), "password")
    if problem := keeper.why_no_password(password, name):
        return again(400, problem, "password")
    try:
        with ctx.site.guard.password(ctx, name) as one:
            done = keeper.spend_one_time_code(name, code, password)
            if done:
                one.right()
    except TooManyAttempts as error:
        return _with_headers(again(error.status, str(error)), error)
    except CodeExpired as error:
        return again(error.status, str(error), "code")
    where = safe(ctx.remote_ip, 64)
    if not done:
        log.warning("Wrong one-time code for %s from %s", shown(name), where)
        return again(403, _WRONG_CODE, "code")
    log.info("%s set a password with a one-time code, from %s", shown(name), where)
    ctx.site.audit.note(name, "own password by code", name, detail=where)
    return authenticate(ctx, {"username": name, "password": password})


# -- one's own ---------------------------------------------------------------------------------


def _own_page(ctx: Context, status: int = 200, **namespace: Any) -> Any:
    keeper = ctx.site.authenticator
    return ctx.page(
        "password.html",
        status,
        url=ctx.site.hub_prefix + "password",
        is_first=not keeper.book.has_password(ctx.caller.user),
        minimum_length=keeper.minimum_password_length,
        **namespace,
    )


@routes.add("GET", "password", access=Access.PAGE)
def own_password_form(ctx: Context) -> Any:
    """Show the form for one's own password."""
    _keeper(ctx)
    return _own_page(ctx, changed="changed" in ctx.query)


@routes.add("POST", "password", access=Access.PAGE)
def own_password(ctx: Context) -> Any:
    """Change one's own password, or set the first."""
    keeper, user = _keeper(ctx), ctx.caller.user
    password = ctx.form.get("password", "")
    secret = keeper.book.secret_of(user.name)
    if secret is not None:
        try:
            with ctx.site.guard.password(ctx, user.name) as one:
                right = keeper.is_right(ctx.form.get("current", ""), secret)
                if right:
                    one.right()
        except TooManyAttempts as error:
            return _with_headers(_own_page(ctx, error.status, error=str(error)), error)
        if not right:
            log.warning(
                "%s gave a wrong password when changing it, from %s",
                shown(user.name),
                safe(ctx.remote_ip, 64),
            )
            problem = Text("Your present password is another one.")
            return _own_page(ctx, 403, error=problem, error_field="current")
    if not tokens.same_secret(password, ctx.form.get("again", "")):
        problem = Text("The two passwords are not the same.")
        return _own_page(ctx, 400, error=problem, error_field="password")
    if problem := keeper.why_no_password(password, user.name):
        return _own_page(ctx, 400, error=problem, error_field="password")
    keeper.book.set_password(user, keeper.hashed(password), keep_session=ctx.caller.session)
    log.info("%s changed the password, from %s", shown(user.name), safe(ctx.remote_ip, 64))
    if secret is None:
        ctx.site.guard.remember_device(ctx, user.name)
        if ctx.allows("admin:users"):
            return ctx.redirect(ctx.site.hub_prefix + "class", 303)
    return ctx.redirect(ctx.site.hub_prefix + "password?changed", 303)
