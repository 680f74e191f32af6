"""The OAuth endpoints: asking a person for their consent, and the exchange of codes for tokens.

Rules of this file: who may approve what is decided here, the protocol in :mod:`minihub.oauth`.
A person may give a client access only to what they may enter themselves. Their own server asks
nothing; others are confirmed once.

Threads: waitress's.
"""

from __future__ import annotations

import logging
import re
from typing import Any

from .. import scopes as scope_table
from ..errors import Forbidden
from ..models import OAuthClient, Token
from ..oauth import AuthorizationRequest, OAuthRedirect
from ..scopes import Scopes
from . import cookies
from .context import SAFE_METHODS, Context, NeedsLogin
from .routing import Access, Routes

log = logging.getLogger("minihub.oauth")
routes = Routes()

_ACCESS_SERVER = re.compile(r"access:servers!server=([^/]+)/(.*)")
_ACCESS_SERVICE = re.compile(r"access:services!service=(.+)")


def _uri(ctx: Context) -> str:
    """Return the request's URI; oauthlib reads the query alone, from any origin."""
    return f"{ctx.scheme}://{ctx.host}{ctx.path_and_query}"


def _may_enter(ctx: Context, client: OAuthClient) -> bool:
    """Return whether the caller holds access to the server or service the client stands for."""
    for scope in client.allowed_scopes:
        if match := _ACCESS_SERVER.fullmatch(scope):
            owner, server = match[1], f"{match[1]}/{match[2]}"
            return ctx.allows("access:servers", user=owner, server=server)
        if match := _ACCESS_SERVICE.fullmatch(scope):
            return ctx.allows("access:services", service=match[1])
    return False


def _is_own_server(ctx: Context, client: OAuthClient) -> bool:
    own = f"access:servers!server={ctx.caller.name}/"
    return any(scope.startswith(own) for scope in client.allowed_scopes)


def _confirmed_before(ctx: Context, asked: AuthorizationRequest) -> bool:
    """Return whether the caller holds a token of this client that covers what it asks."""
    with ctx.site.accounts.store.session():
        held = Token.select().where(
            Token.user == ctx.caller.user, Token.oauth_client == asked.client
        )
        return any(set(asked.scopes) <= set(token.scopes) for token in held)


@routes.add("GET POST", "api/oauth2/authorize", access=Access.PUBLIC)
def authorize(ctx: Context) -> Any:
    """Send a logged-in person back to a client with a code, after their consent if needed."""
    if ctx.caller is None or ctx.caller.session is None:
        if ctx.method not in SAFE_METHODS:
            raise Forbidden("Log in first.")
        raise NeedsLogin("Log in first.")
    try:
        asked = ctx.site.hub.oauth.validate_authorization(_uri(ctx))
    except OAuthRedirect as error:
        return ctx.redirect(error.location)
    if not _may_enter(ctx, asked.client):
        log.warning("%s may not enter %s", ctx.caller.name, asked.client.identifier)
        raise Forbidden(f"You do not have permission to access {asked.client.description}")
    if ctx.method == "POST":
        given = set(ctx.form_lists.get("scopes", []))
        return _approve(ctx, [scope for scope in asked.scopes if scope in given])
    if (
        _is_own_server(ctx, asked.client)
        or ctx.site.hub.services.skips_confirmation(asked.client.identifier)
        or _confirmed_before(ctx, asked)
    ):
        return _approve(ctx, asked.scopes)
    return _consent(ctx, asked)


def _approve(ctx: Context, scopes: list[str]) -> Any:
    session_id = ctx.caller.session.session_id
    if not cookies.session_id(ctx.jar):
        ctx.set_cookie(cookies.SESSION_ID, session_id, path=ctx.site.base_url)
    location = ctx.site.hub.oauth.approve(
        _uri(ctx), user=ctx.caller.user, session_id=session_id, scopes=scopes
    )
    return ctx.redirect(location)


def _consent(ctx: Context, asked: AuthorizationRequest) -> Any:
    held: Scopes = ctx.caller.scopes
    descriptions = [
        {"scope": scope, "description": scope_table.describe(scope), "filter": ""}
        for scope in asked.scopes
    ]
    return ctx.page(
        "oauth.html",
        oauth_client={
            "identifier": asked.client.identifier,
            "description": asked.client.description,
        },
        scope_descriptions=descriptions,
        allowed_scopes=asked.scopes,
        role_names=[],
        held_scopes=sorted(held.raw),
    )


@routes.add("POST", "api/oauth2/token", access=Access.PUBLIC, xsrf=False)
def token(ctx: Context) -> Any:
    """Exchange a code for a token; the client proves itself by its secret, not by a login."""
    raw = ctx.request.body.read().decode("utf-8", "replace")
    headers = {"Content-Type": ctx.header("Content-Type")}
    authorization = ctx.header("Authorization")
    if authorization.lower().startswith("basic "):
        headers["Authorization"] = authorization
    status, out_headers, body = ctx.site.hub.oauth.exchange(_uri(ctx), "POST", raw, headers)
    response = ctx.reply(body, status, "application/json")
    for name, value in out_headers.items():
        response.set_header(name, value)
    return response
