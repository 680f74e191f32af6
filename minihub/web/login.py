"""Logging in and out, and the one-time link that makes an owner.

Rules of this file: it starts and ends sessions. Who may log in is the authenticator's decision;
what a form must prove is :mod:`minihub.web.context`'s.

Threads: waitress's; an authenticator may take its time in one.
"""

from __future__ import annotations

import logging
import os
import uuid
from typing import Any
from urllib.parse import urlencode

from .. import aio, metrics
from ..auth.classroom import CLOSED, CodeExpired, MustSetPassword, StillWaiting
from ..auth.osusers import NO_SHELLS, name_of_uid, system_user
from ..auth.results import AuthResult, InvalidUser, LoginUnavailable, NotAllowed
from ..errors import AuthError, Forbidden
from ..logs import safe
from ..models import User
from ..texts import Text
from . import browsers, cookies
from .context import Context
from .guard import TooManyAttempts
from .handler import HandlerView
from .landing import next_url
from .refresh import take_over
from .routing import Access, Routes

log = logging.getLogger("minihub.login")
routes = Routes()

#: What a login may end with although nobody guessed wrong.
_NOT_WRONG = (NotAllowed, LoginUnavailable, MustSetPassword, CodeExpired, StillWaiting)
#: Programs that stand for "nobody logs in here" in the table of users (nologin(8), false(1)).


def start_session(ctx: Context, user: User) -> None:
    """Log ``user`` in on this browser."""
    site = ctx.site
    session_id = uuid.uuid4().hex
    browser, system = browsers.recognise(ctx.header("User-Agent"))
    key = site.accounts.start_session(
        user, session_id, browser=browser, system=system, address=ctx.remote_ip
    )
    lifetime = int(site.identity.cookie_max_age_days * 86400)
    ctx.set_cookie(
        cookies.LOGIN, site.identity.sign_login(key), path=site.hub_prefix, max_age_s=lifetime
    )
    ctx.set_session_id(session_id)
    if site.hub.services.any_legacy():
        value = site.identity.sign_login(key, cookies.SERVICES)
        path = site.base_url + "services"
        ctx.set_cookie(cookies.SERVICES, value, path=path, max_age_s=lifetime)
    ctx.clear_cookie(cookies.XSRF, site.hub_prefix)  # the next page makes one for this login


def join_url(ctx: Context) -> str:
    """Return where people make accounts for themselves; "" where they cannot."""
    authenticator = ctx.site.authenticator
    if not authenticator.keeps_passwords or authenticator.signup == CLOSED:
        return ""
    asked = {"next": ctx.query["next"]} if ctx.query.get("next") else {}
    return ctx.site.hub_prefix + "join" + ("?" + urlencode(asked) if asked else "")


def new_password_page(
    ctx: Context,
    status: int = 200,
    *,
    username: str = "",
    code: str = "",
    error: str = "",
    error_field: str = "",
) -> Any:
    """Return the form that takes a one-time code and the password that comes in its place."""
    response = ctx.page(
        "new-password.html",
        status,
        url=ctx.site.hub_prefix + "new-password",
        username=username,
        code=code,
        error=error,
        error_field=error_field,
        minimum_length=ctx.site.authenticator.minimum_password_length,
    )
    response.set_header("Referrer-Policy", "no-referrer")
    return response


def login_page(ctx: Context, status: int = 200, **namespace: Any) -> Any:
    """Return the login form."""
    site = ctx.site
    asked = {"next": ctx.query["next"]} if ctx.query.get("next") else {}
    action = site.hub_prefix + "login" + ("?" + urlencode(asked) if asked else "")
    values = {
        "next": ctx.query.get("next", ""),
        "username": ctx.query.get("username", ""),
        "custom_html": aio.call(site.authenticator.get_custom_html, site.hub_prefix),
        "authenticator_login_url": action,
        "join_url": join_url(ctx),
    }
    return ctx.page("login.html", status, **(values | namespace))


@routes.add("GET", "login", access=Access.PUBLIC)
def login_form(ctx: Context) -> Any:
    """Show the login form, or go on when there is nothing to ask."""
    metrics.count("login.request")
    if "owner" in ctx.query:
        return owner_page(ctx, ctx.query["owner"])
    if ctx.caller is not None and ctx.caller.session is not None:
        return ctx.redirect(next_url(ctx, ctx.caller.user))
    if _asks_nothing(ctx):
        if ctx.site.login_url() != ctx.site.hub_prefix + "login":
            return ctx.to_login()
        return authenticate(ctx, None)
    return login_page(ctx)


def _asks_nothing(ctx: Context) -> bool:
    """Return whether a login begins without the page for it."""
    authenticator = ctx.site.authenticator
    if authenticator.auto_login or not authenticator.auto_login_oauth2_authorize:
        return authenticator.auto_login
    target = ctx.safe_next(ctx.query.get("next", "")) or ""
    return target.partition("?")[0] == ctx.site.hub_prefix + "api/oauth2/authorize"


@routes.add("POST", "login", access=Access.PUBLIC, xsrf=False)
def login(ctx: Context) -> Any:
    """Check a name and a password; also spends the owner's link."""
    try:
        ctx.check_xsrf()
    except Forbidden as error:
        return login_page(ctx, 403, login_error=error.message)
    if "owner" in ctx.query:
        return become_owner(ctx, ctx.query["owner"])
    data = {key: value for key, value in ctx.form.items() if key not in ("_xsrf", "next")}
    data["username"] = data.get("username", "").strip()
    if ctx.site.authenticator.keeps_passwords:
        # No name there has a space; who joined as Ada Lovelace got a dot for it.
        data["username"] = ".".join(data["username"].split())
    data.setdefault("password", "")
    return authenticate(ctx, data)


def authenticate(ctx: Context, data: dict[str, str] | None) -> Any:
    """Log in whom the authenticator recognises; answers with the form when it does not.

    ``data`` are the form's fields, None where the authenticator asks for none.
    """
    site = ctx.site
    handler = HandlerView(ctx)
    name = (data or {}).get("username", "")
    try:
        with metrics.login():
            result = _checked(ctx, handler, data)
            user = _known_user(ctx, result.name, result.admin)
    except TooManyAttempts as error:
        response = login_page(ctx, error.status, username=name, login_error=str(error))
        for header, value in error.headers.items():
            response.set_header(header, value)
        return response
    except MustSetPassword as error:
        return new_password_page(ctx, username=error.name, code=(data or {})["password"])
    except NotAllowed as error:
        values = {"login_error": str(error), "not_allowed": error.unlisted}
        return login_page(ctx, 403, username=name, **values)
    except (AuthError, InvalidUser) as error:
        message = handler.custom_login_error or str(error)
        return login_page(ctx, error.status, username=name, login_error=message)
    take_over(site.hub, user, result)
    site.hub.auth_states.save(user.id, result.auth_state)
    site.refresher.note_login(user)
    start_session(ctx, user)
    if data is not None:
        site.guard.remember_device(ctx, name)
    log.info("%s logged in from %s", user.name, safe(ctx.remote_ip))
    return ctx.redirect(next_url(ctx, user))


def _checked(ctx: Context, handler: HandlerView, data: dict[str, str] | None) -> AuthResult:
    """Return whom the authenticator recognises; wrong passwords count against guessing."""
    check = ctx.site.authenticator.log_in
    if data is None:
        return check(handler, data)
    with ctx.site.guard.password(ctx, data.get("username", "")) as one:
        try:
            result = check(handler, data)
        except _NOT_WRONG:
            one.right()
            raise
        one.right()
    return result


def _known_user(ctx: Context, name: str, admin: bool | None) -> User:
    """Return the user of that name; a new one is first made known to the authenticator.

    Raises InvalidUser when the authenticator cannot have a user of that name.
    """
    site = ctx.site
    if site.accounts.user(name) is None:
        newcomer = site.hub.person(name, admin=bool(admin))
        aio.call(site.authenticator.add_user, newcomer)
    return site.accounts.ensure_user(name, admin=admin)[0]


@routes.add("GET", "logout", access=Access.PUBLIC)
def logout(ctx: Context) -> Any:
    """End this login and everything that came out of it; ask first where another site led here."""
    if ctx.caller is not None and ctx.led_by_others():
        return ctx.page("logout.html", ask=True)
    metrics.count("logout")
    with metrics.timed("logout_duration_seconds"):
        return _log_out(ctx)


def _log_out(ctx: Context) -> Any:
    site = ctx.site
    if ctx.caller is not None and ctx.caller.session is not None:
        site.accounts.end_session(ctx.caller.session)
        log.info("%s logged out", ctx.caller.name)
        if site.options.shutdown_on_logout:
            for server in site.hub.servers_of(ctx.caller.user).values():
                site.hub.stop_server(server, why=f"{ctx.caller.name} logged out")
    ctx.clear_cookie(cookies.LOGIN, site.hub_prefix)
    ctx.clear_cookie(cookies.XSRF, site.hub_prefix)
    ctx.clear_session_id()
    if site.hub.services.any_legacy():
        ctx.clear_cookie(cookies.SERVICES, site.base_url + "services")
    if site.authenticator.auto_login:
        ctx.caller = None
        return ctx.page("logout.html")
    return ctx.redirect(site.login_url())


# -- the first owner -----------------------------------------------------------------------


def owner_page(ctx: Context, code: str, status: int = 200, error: str = "") -> Any:
    """Show the page whose button spends the owner's link; looking at it spends nothing."""
    link = ctx.site.accounts.owner_link(code)
    if link is None:
        return ctx.site.error_page(
            ctx,
            403,
            Text(
                "This link is no longer good: it was used, it is older than 30 minutes, or the hub "
                "has an owner already."
            ),
            hint=Text("For a new one, run: minihub.pyz admin link"),
        )
    response = ctx.page(
        "owner.html",
        status,
        url=f"{ctx.site.hub_prefix}login?{urlencode({'owner': code})}",
        username="" if link.uid == 0 else name_of_uid(link.uid) or f"user-{link.uid}",
        ask_username=link.uid == 0,
        needs_account=_needs_account(ctx),
        new_hub=not ctx.site.accounts.has_admin(),
        error=error,
    )
    response.set_header("Referrer-Policy", "no-referrer")
    return response


def become_owner(ctx: Context, code: str) -> Any:
    """Spend the owner's link: make its user an admin and log them in."""
    site = ctx.site
    link = site.accounts.owner_link(code)
    if link is None:
        return owner_page(ctx, code)
    if link.uid == 0:
        name = ctx.form.get("username", "").strip()
        problem = _unfit_owner(name) if _needs_account(ctx) else ""
        if problem:
            return owner_page(ctx, code, 400, problem)
    else:
        name = name_of_uid(link.uid) or f"user-{link.uid}"
    name = site.authenticator.normalize_username(name)
    try:
        aio.call(site.authenticator.add_user, site.hub.person(name, admin=True))
    except InvalidUser as error:
        return owner_page(ctx, code, 400, str(error))
    user = site.accounts.spend_owner_link(code, name)
    if user is None:
        return owner_page(ctx, code)
    start_session(ctx, user)
    log.warning("%s became the owner of this hub, from %s", user.name, safe(ctx.remote_ip))
    if site.authenticator.keeps_passwords and not site.authenticator.book.has_password(user):
        return ctx.redirect(site.hub_prefix + "password")  # or there is no way back in
    return ctx.redirect(site.hub_prefix + "home")


def _needs_account(ctx: Context) -> bool:
    """Return whether users of this hub are users of the machine, for their logins or servers."""
    spawner = ctx.site.hub.spawner_class
    return ctx.site.authenticator.has_system_users or getattr(spawner, "changes_user", False)


def _unfit_owner(name: str) -> str:
    """Return why ``name`` cannot own a hub whose users are the machine's, or an empty text."""
    entry = system_user(name)
    if entry is None:
        return Text("This machine has no user of that name. Make one first, or name another.")
    if entry.pw_uid == 0:
        return Text("The owner cannot be root. Name an ordinary user of this machine.")
    if os.path.basename(entry.pw_shell) in NO_SHELLS:
        return Text(
            "That is an account of the system, nobody logs in with it. Name an ordinary user."
        )
    return ""
