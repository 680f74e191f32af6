"""Tokens, on a page and through the REST API.

Rules of this file: a token's secret is shown once, in the answer to its creation. Nobody gives a
token more than they hold themselves.

Threads: waitress's.
"""

from __future__ import annotations

from typing import Any

from peewee import JOIN

from .. import scopes as scope_table
from ..errors import BadRequest, NotFound, RequestError
from ..models import OAuthClient, Token, User
from . import shapes
from .context import Context
from .routing import Access, Routes

routes = Routes()

MAX_NOTE = 1000


def _owner(ctx: Context, name: str, scope: str) -> User:
    user = ctx.site.accounts.user(name)
    if user is None or not ctx.allows(scope, user=name):
        raise NotFound()
    return user


def _tokens(ctx: Context, user: User) -> list[tuple[Token, OAuthClient | None]]:
    """Return the user's live tokens, newest first, each with the OAuth client it was made for."""
    with ctx.site.accounts.store.session():
        rows = (
            Token.select(Token, User, OAuthClient)
            .join_from(Token, User)
            .join_from(Token, OAuthClient, JOIN.LEFT_OUTER)
            .where(Token.user == user, ctx.site.accounts.live())
            .order_by(Token.id.desc())
        )
        return [(row, row.oauth_client if row.oauth_client_id else None) for row in rows]


def _find(ctx: Context, user: User, token_id: str) -> tuple[Token, OAuthClient | None]:
    for row, client in _tokens(ctx, user):
        if f"a{row.id}" == token_id:
            return row, client
    raise NotFound(f"{user.name} has no token {token_id[:20]!r}")


def _model(row: Token, client: OAuthClient | None) -> dict[str, Any]:
    return shapes.token_model(row, oauth_client=client.description if client else "")


def create_token(
    ctx: Context, user: User, *, note: str, scopes: list[str] | None, expires_in_s: int | None
) -> tuple[Token, str]:
    """Make a token for ``user``; returns the row and the secret.

    Raises BadRequest when a scope does not exist or the caller does not hold it.
    """
    if expires_in_s is not None and not 0 < expires_in_s < 3650 * 86400:
        raise BadRequest("expires_in must be a number of seconds, at most ten years")
    roles = ctx.site.identity.roles
    if scopes:
        unknown = scope_table.unknown(scopes)
        if unknown:
            raise BadRequest(scope_table.problem(unknown[0]))
        missing = roles.missing(scopes, ctx.caller.scopes, user)
        if missing:
            raise BadRequest(f"Not permitted to give the scopes {', '.join(missing)[:200]}")
    else:
        scopes = roles.default_token_scopes(ctx.caller.scopes, user)
    return ctx.site.accounts.issue_token(
        user_id=user.id,
        note=note[:MAX_NOTE],
        scopes=scopes,
        expires_in_s=expires_in_s,
    )


def revoke_token(ctx: Context, user: User, token_id: str) -> None:
    """Revoke a token; for an OAuth login every token of that client and user.

    Raises NotFound when the user has no such token.
    """
    row, client = _find(ctx, user, token_id)
    same = (Token.oauth_client == client) if client else (Token.id == row.id)
    with ctx.site.accounts.store.transaction():
        Token.delete().where(Token.user == user, same).execute()


# -- REST ------------------------------------------------------------------------------------


@routes.add("GET", "api/users/<name>/tokens", scopes=("read:tokens",))
def list_tokens(ctx: Context, name: str) -> Any:
    """List a user's tokens."""
    user = _owner(ctx, name, "read:tokens")
    return ctx.json({"api_tokens": [_model(*pair) for pair in _tokens(ctx, user)]})


@routes.add("POST", "api/users/<name>/tokens", scopes=("tokens",))
def new_token(ctx: Context, name: str) -> Any:
    """Make a token; the answer is the only place that shows it."""
    user = _owner(ctx, name, "tokens")
    body = ctx.json_body() or {}
    note, scopes, expires_in = body.get("note"), body.get("scopes"), body.get("expires_in")
    if note is not None and not isinstance(note, str):
        raise BadRequest("note must be a text")
    if scopes is not None and not (
        isinstance(scopes, list) and all(isinstance(scope, str) for scope in scopes)
    ):
        raise BadRequest("scopes must be a list of texts")
    if expires_in is not None and (isinstance(expires_in, bool) or not isinstance(expires_in, int)):
        raise BadRequest("expires_in must be a whole number of seconds")
    row, secret = create_token(
        ctx,
        user,
        note=note or f"Requested via api by {ctx.caller.kind} {ctx.caller.name}",
        scopes=scopes,
        expires_in_s=expires_in,
    )
    row.user = user
    return ctx.json(_model(row, None) | {"token": secret}, 201)


@routes.add("GET", "api/users/<name>/tokens/<token_id>", scopes=("read:tokens",))
def one_token(ctx: Context, name: str, token_id: str) -> Any:
    """Describe one token."""
    return ctx.json(_model(*_find(ctx, _owner(ctx, name, "read:tokens"), token_id)))


@routes.add("DELETE", "api/users/<name>/tokens/<token_id>", scopes=("tokens",))
def delete_token(ctx: Context, name: str, token_id: str) -> Any:
    """Revoke one token."""
    revoke_token(ctx, _owner(ctx, name, "tokens"), token_id)
    return ctx.reply(b"", 204)


# -- the page --------------------------------------------------------------------------------


def _page(ctx: Context, status: int = 200, **namespace: Any) -> Any:
    mine, clients = [], {}
    for row, client in _tokens(ctx, ctx.caller.user):
        facts = _model(row, client)
        facts["revoke_url"] = f"{ctx.site.hub_prefix}token/{facts['id']}/revoke"
        if client is None:
            mine.append(facts)
        else:
            facts["description"] = client.description
            clients.setdefault(client.id, facts)
    return ctx.page(
        "token.html", status, tokens=mine, oauth_clients=list(clients.values()), **namespace
    )


@routes.add("GET", "token", access=Access.PAGE)
def token_page(ctx: Context) -> Any:
    """Show the caller's tokens."""
    return _page(ctx)


@routes.add("POST", "token", access=Access.PAGE)
def token_form(ctx: Context) -> Any:
    """Make a token from the page's form and show it once."""
    seconds = ctx.form.get("expires_in", "")
    try:
        _row, secret = create_token(
            ctx,
            ctx.caller.user,
            note=ctx.form.get("note", ""),
            scopes=ctx.form.get("scopes", "").split(),
            expires_in_s=int(seconds) if seconds else None,
        )
    except ValueError:
        return _page(ctx, 400, token_error="The time must be a number of seconds.")
    except RequestError as error:
        return _page(ctx, error.status, token_error=error.message)
    return _page(ctx, new_token=secret)


@routes.add("POST", "token/<token_id>/revoke", access=Access.PAGE)
def revoke_form(ctx: Context, token_id: str) -> Any:
    """Revoke a token from the page."""
    revoke_token(ctx, ctx.caller.user, token_id)
    return ctx.redirect(ctx.site.hub_prefix + "token", 303)
