"""Joining: people make an account for themselves, by class code, by asking, or just so.

Rules of this file: the class code is looked at before anything else, so that without a good one
nobody learns which names there are. Whoever signs up then logs in the ordinary way, through every
rule of the authenticator. A name that is anybody's, was anybody's whose files are still here, or
that the configuration names, is not to be had.

Threads: waitress's; a password takes a tenth of a second.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from .. import readable, tokens
from ..auth.classnames import mixed_up_problem, suggested
from ..auth.classroom import APPROVE, CLOSED, CODE
from ..auth.names import shown
from ..classbook import CodeNotGood, NameTaken, TooManyWaiting
from ..errors import Forbidden, MinihubError, NotFound, TooMany
from ..logs import safe
from ..texts import Text
from .context import Context
from .landing import next_url
from .login import authenticate
from .routing import Access, Routes

log = logging.getLogger("minihub.class")
routes = Routes()


class _Refused(MinihubError):
    """Raised for a form that somebody has to fill in again; the text says what and why.

    ``field`` is the one that is wrong, and ``suggestion`` a name that would do instead.
    """

    status = 400

    def __init__(self, message: str, field: str, suggestion: str = "") -> None:
        self.field = field
        self.suggestion = suggestion
        super().__init__(message)


def _authenticator(ctx: Context) -> Any:
    """Return the authenticator that lets people join. Raises NotFound where none does."""
    authenticator = ctx.site.authenticator
    if not authenticator.keeps_passwords or authenticator.signup == CLOSED:
        raise NotFound()
    return authenticator


def join_page(ctx: Context, status: int = 200, **namespace: Any) -> Any:
    """Return the form."""
    authenticator = ctx.site.authenticator
    code = readable.read(ctx.form.get("code") or ctx.query.get("code") or "")
    response = ctx.page(
        "join.html",
        status,
        **{
            "url": ctx.site.hub_prefix + "join",
            "next": ctx.query.get("next") or ctx.form.get("next") or "",
            "code": readable.grouped(code) if code else ctx.form.get("code", "")[:64],
            "asks_code": authenticator.signup == CODE,
            "needs_approval": authenticator.signup == APPROVE,
            "username": ctx.form.get("username", "")[:255],
            "minimum_length": authenticator.minimum_password_length,
        }
        | namespace,
    )
    response.set_header("Referrer-Policy", "no-referrer")
    return response


@routes.add("GET", "join", "join/<code>", access=Access.PUBLIC)
def join_form(ctx: Context, code: str = "") -> Any:
    """Show the form; a code may stand in the path, which is short to type."""
    _authenticator(ctx)
    if ctx.caller is not None and ctx.caller.session is not None:
        return ctx.redirect(next_url(ctx, ctx.caller.user))
    if code:
        ctx.query.setdefault("code", code)
    return join_page(ctx)


@routes.add("POST", "join", access=Access.PUBLIC, xsrf=False)
def join(ctx: Context) -> Any:
    """Make an account, and log it in or let it wait for approval."""
    authenticator = _authenticator(ctx)
    try:
        ctx.check_xsrf()
        return _join(ctx, authenticator)
    except TooMany as error:
        response = join_page(ctx, error.status, error=str(error))
        for name, value in error.headers.items():
            response.set_header(name, value)
        return response
    except CodeNotGood as error:
        return join_page(ctx, error.status, error=str(error), error_field="code")
    except NameTaken as error:
        return join_page(ctx, error.status, error=str(error), **_taken(ctx, authenticator))
    except _Refused as error:
        again: dict[str, Any] = {"error": str(error), "error_field": error.field}
        if error.suggestion:
            again |= {"suggestion": error.suggestion, "username": error.suggestion}
        return join_page(ctx, error.status, **again)
    except (Forbidden, TooManyWaiting) as error:
        return join_page(ctx, error.status, error=str(error))


def _taken(ctx: Context, authenticator: Any) -> dict[str, Any]:
    """Return what the form says of a name that is somebody's: who comes back may log in with it."""
    name = authenticator.normalize_username(ctx.form.get("username", "").strip()[:256])
    asked = {"username": name}
    if after := ctx.form.get("next"):
        asked["next"] = after
    url = f"{ctx.site.login_url()}?{urlencode(asked)}"
    return {"error_field": "username", "taken": name, "taken_login_url": url}


def _join(ctx: Context, authenticator: Any) -> Any:
    code = _good_code(ctx, authenticator) if authenticator.signup == CODE else None
    name, password = _chosen(ctx, authenticator)
    book = authenticator.book
    if book.is_taken(name) or not _is_free(ctx, authenticator, name):
        raise NameTaken
    if code is None:
        ctx.site.guard.count_signup(ctx)
    hashed = authenticator.hashed(password)
    where = safe(ctx.remote_ip, 64)
    if authenticator.signup == APPROVE:
        book.ask(name, hashed, address=ctx.remote_ip, most=authenticator.max_waiting)
        log.info("%s wants to join, from %s", shown(name), where)
        ctx.site.audit.note(name, "ask to join", name, detail=where)
        return ctx.page("join-waiting.html", username=name)
    user = book.sign_up(name, hashed, code=code)
    log.info("%s joined%s, from %s", shown(name), " with a class code" if code else "", where)
    ctx.site.audit.note(name, "join class", name, detail=where)
    return authenticate(ctx, {"username": user.name, "password": password})


def _good_code(ctx: Context, authenticator: Any) -> str:
    """Return the code of the form. Raises CodeNotGood; guesses are counted."""
    code = readable.read(ctx.form.get("code", ""))
    with ctx.site.guard.code(ctx) as one:
        if not code or not authenticator.book.is_good(code):
            raise CodeNotGood
        one.right()
    return code


def _chosen(ctx: Context, authenticator: Any) -> tuple[str, str]:
    """Return the name, normalised, and the password. Raises _Refused."""
    typed = ctx.form.get("username", "").strip()
    if not typed:
        raise _Refused(Text("Choose a name."), "username")
    name = authenticator.normalize_username(typed[:256])
    if problem := authenticator.why_no_name(name) or mixed_up_problem(name):
        better = suggested(typed[:256])
        raise _Refused(
            Text("This cannot be a name: %(problem)s.", problem=problem),
            "username",
            "" if authenticator.why_no_name(better) or mixed_up_problem(better) else better,
        )
    password = ctx.form.get("password", "")
    if not tokens.same_secret(password, ctx.form.get("again", "")):
        raise _Refused(Text("The two passwords are not the same."), "password")
    if problem := authenticator.why_no_password(password, name):
        raise _Refused(problem, "password")
    return name, password


def _is_free(ctx: Context, authenticator: Any, name: str) -> bool:
    """Return whether a name that is nobody's may become somebody's who just comes along."""
    if name in {authenticator.normalize_username(one) for one in _configured(ctx)}:
        return False
    if not authenticator.may_sign_up(name):
        return False
    site = ctx.site
    spawner = site.hub.new_spawner(site.hub.person(name))
    if home := getattr(spawner, "home_dir", ""):
        return not any(Path(home).glob("*"))  # a deleted user's files, say
    return not (hasattr(spawner, "has_traces") and spawner.has_traces())


def _configured(ctx: Context) -> Iterator[str]:
    """Yield the names to which the configuration gives something."""
    options = ctx.site.options
    for role in options.load_roles:
        yield from role.get("users") or ()
    for value in options.load_groups.values():
        yield from (value.get("users") or ()) if isinstance(value, dict) else value
    yield from options.api_tokens.values()
