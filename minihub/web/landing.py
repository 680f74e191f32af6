"""Where people go: from the root of the site, after a login, and by links that everybody shares.

Rules of this file: it answers with addresses and redirects and starts nothing. What a client named
goes through ``safe_next``; what the configuration named is trusted.

Threads: waitress's.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from .. import aio
from ..models import User
from ..urls import escape_name, escape_path, is_local_path
from .context import Context
from .handler import HandlerView
from .routing import Access, Routes

routes = Routes()


def next_url(ctx: Context, user: User) -> str:
    """Return where a person goes after logging in."""
    target = ctx.safe_next(ctx.query.get("next") or ctx.form.get("next") or "")
    if target and not is_local_path(target, ctx.site.hub_prefix + "login"):
        return target
    return default_url(ctx) or own_server_url(ctx, user)


def default_url(ctx: Context) -> str:
    """Return ``JupyterHub.default_url``, asked for if it is a function."""
    url = ctx.site.options.default_url
    return (aio.call(url, HandlerView(ctx)) or "") if callable(url) else url


def own_server_url(ctx: Context, user: User) -> str:
    """Return the way to a person's own server: the server if it runs, else its start."""
    site = ctx.site
    name = _own_server_name(ctx)
    if site.hub.server(user, name).ready:
        return site.hub.server_url(user.name, name)
    if not site.options.redirect_to_server:
        return site.hub_prefix + "home"
    return _start_url(ctx, user.name, name) if name else site.hub_prefix + "spawn"


def _own_server_name(ctx: Context) -> str:
    options = ctx.site.options
    return options.default_server_name if options.allow_named_servers else ""


def _start_url(ctx: Context, user_name: str, server_name: str) -> str:
    path = f"{ctx.site.hub_prefix}spawn/{escape_name(user_name)}"
    return f"{path}/{escape_name(server_name)}" if server_name else path


@routes.add("GET", "", access=Access.PUBLIC)
def root(ctx: Context) -> Any:
    """Send people where they are most likely to want to go."""
    if url := default_url(ctx):
        return ctx.redirect(url)
    if ctx.caller is None or ctx.caller.user is None:
        return ctx.to_login()
    return ctx.redirect(next_url(ctx, ctx.caller.user))


@routes.add("GET", "user-redirect/<rest:path>", "user-redirect/", access=Access.PAGE)
def user_redirect(ctx: Context, rest: str = "") -> Any:
    """Send a link that everybody shares to the caller's own server."""
    site, user = ctx.site, ctx.caller.user
    hook = site.options.user_redirect_hook
    if hook is not None:
        view = HandlerView(ctx)
        url = aio.call(hook, escape_path(rest), view.request, view.current_user, site.base_url)
        if url:
            return ctx.redirect(url)
    name = _own_server_name(ctx)
    query = f"?{ctx.query_string}" if ctx.query_string else ""
    target = site.hub.server_url(user.name, name) + escape_path(rest) + query
    if site.hub.server(user, name).ready:
        return ctx.redirect(target)
    return ctx.redirect(f"{_start_url(ctx, user.name, name)}?{urlencode({'next': target})}")
