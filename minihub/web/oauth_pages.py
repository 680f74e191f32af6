"""The OAuth endpoints: asking a person for their consent, and the exchange of codes for tokens.

Rules of this file: who may approve what is decided here, the protocol in :mod:`minihub.oauth`.
A person may give a client access only to what they may enter themselves. Their own server asks
nothing; others are confirmed once.

Threads: waitress's.
"""

from __future__ import annotations

import logging
from typing import Any

from .. import scopes as scope_table
from ..errors import Forbidden
from ..models import OAuthClient, Token
from ..oauth import AuthorizationRequest, OAuthRedirect
from ..texts import Text
from . import cookies, phrases, schemas
from .context import Context
from .routing import Access, Routes

log = logging.getLogger("minihub.oauth")
routes = Routes()


def _uri(ctx: Context) -> str:
    """Return the request's URI; oauthlib reads the query alone, from any origin."""
    return f"{ctx.scheme}://{ctx.host}{ctx.path_and_query}"


def _may_enter(ctx: Context, client: OAuthClient) -> bool:
    """Return whether the caller holds access to the server or service the client stands for."""
    scope, kind, name = scope_table.split(client.access)
    return bool(kind) and ctx.allows(scope, **{kind: name})


def _is_own_server(ctx: Context, client: OAuthClient) -> bool:
    return client.access.startswith(f"access:servers!server={ctx.caller.name}/")


def _needed(client: OAuthClient) -> set[str]:
    """Return what every token for this client may do: know its owner, and enter."""
    return {client.access, *scope_table.IDENTIFY}


def _grantable(ctx: Context, asked: AuthorizationRequest) -> list[str]:
    """Return what the client asks for, as far as the caller holds any of it, and what it needs.

    Never nothing, for which the protocol's library would put all that the client may ask for.
    """
    held, needed = ctx.caller.scopes, _needed(asked.client)
    granted = {
        scope
        for scope in asked.scopes
        if scope == "inherit"
        or any(held.has_any(scope_table.split(one)[0]) for one in _expanded(ctx, scope))
    }
    return sorted(granted | needed)


def _expanded(ctx: Context, scope: str) -> frozenset[str]:
    return scope_table.expand([scope], ctx.caller.name)


def _confirmed_before(ctx: Context, client: OAuthClient, scopes: list[str]) -> bool:
    """Return whether the caller holds a token of this client that covers these scopes."""
    with ctx.site.accounts.store.session():
        held = Token.select().where(Token.user == ctx.caller.user, Token.oauth_client == client)
        return any(set(scopes) <= set(token.scopes) for token in held)


@routes.add(
    "GET POST",
    "api/oauth2/authorize",
    access=Access.PAGE,
    gives={200: schemas.HTML, 302: schemas.EMPTY},
    fails=(400, 403),
)
def authorize(ctx: Context) -> Any:
    """Send a logged-in person back to a client with a code, after their consent if needed."""
    try:
        asked = ctx.site.hub.oauth.validate_authorization(_uri(ctx))
    except OAuthRedirect as error:
        return ctx.redirect(error.location)
    if not _may_enter(ctx, asked.client):
        log.warning("%s may not enter %s", ctx.caller.name, asked.client.identifier)
        raise Forbidden(
            Text(
                "You do not have permission to access %(client)s",
                client=phrases.known(asked.client.description),
            )
        )
    scopes = _grantable(ctx, asked)
    if ctx.method == "POST":
        given = {*ctx.form_lists.get("scopes", []), *_needed(asked.client)}
        return _approve(ctx, asked.client, [scope for scope in scopes if scope in given])
    if (
        _is_own_server(ctx, asked.client)
        or ctx.site.hub.services.skips_confirmation(asked.client.identifier)
        or _confirmed_before(ctx, asked.client, scopes)
    ):
        return _approve(ctx, asked.client, scopes)
    return _consent(ctx, asked.client, scopes)


def _approve(ctx: Context, client: OAuthClient, scopes: list[str]) -> Any:
    session_id = ctx.caller.session.session_id
    if not cookies.session_id(ctx.jar):
        ctx.set_session_id(session_id)
    location = ctx.site.hub.oauth.approve(
        _uri(ctx), user=ctx.caller.user, session_id=session_id, scopes=scopes
    )
    owner, _slash, server = client.access.partition("server=")[2].partition("/")
    if owner and owner != ctx.caller.name:
        ctx.audit("enter server", owner, server)
    return ctx.redirect(location)


def _consent(ctx: Context, client: OAuthClient, scopes: list[str]) -> Any:
    name = ctx.caller.name
    descriptions = [
        scope_table.describe(scope, name) for scope in scopes if scope not in _needed(client)
    ]
    return ctx.page(
        "oauth.html",
        oauth_client={
            "identifier": client.identifier,
            "description": phrases.known(client.description),
        },
        scope_descriptions=descriptions,
        allowed_scopes=scopes,
        role_names=[],
    )


@routes.add(
    "POST",
    "api/oauth2/token",
    access=Access.PUBLIC,
    xsrf=False,
    takes="ExchangeCode",
    gives={200: "OAuthToken"},
    fails=(401,),
)
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
