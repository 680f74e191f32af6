"""Tokens, on a page and through the REST API.

Rules of this file: a token's secret is shown once, in the answer to its creation. Nobody gives a
token more than they hold themselves, or more than its owner holds.

Threads: waitress's.
Sources: JupyterHub 6's REST API.
"""

from __future__ import annotations

import logging
from typing import Any

from peewee import JOIN

from .. import scopes as scope_table
from ..errors import AuthError, BadRequest, Forbidden, MinihubError, NotFound, RequestError, TooMany
from ..logs import safe
from ..models import OAuthClient, Token, User
from ..texts import Text
from . import phrases, schemas, shapes
from .api_base import check_texts
from .context import Context
from .handler import HandlerView
from .identity import Caller
from .routing import Access, Routes

log = logging.getLogger("minihub.web")
routes = Routes()

MAX_NOTE = 1000
MAX_LIFETIME_S = 3650 * 86400
#: How many tokens a user may have besides those of logins: lists of them are made in one piece.
MOST_TOKENS = 1000


# -- tokens ----------------------------------------------------------------------------------


def _owner(ctx: Context, name: str) -> User:
    user = ctx.site.accounts.user(name)
    if user is None:
        raise NotFound(f"No such user: {name[:100]}")
    return user


def _tokens(
    ctx: Context, user: User, token_id: int | None = None
) -> list[tuple[Token, OAuthClient | None]]:
    """Return the user's live tokens, newest first, each with the OAuth client it was made for."""
    with ctx.site.accounts.store.session():
        rows = (
            Token.select(Token, User, OAuthClient)
            .join_from(Token, User)
            .join_from(Token, OAuthClient, JOIN.LEFT_OUTER)
            .where(Token.user == user, ctx.site.accounts.live())
            .order_by(Token.id.desc())
        )
        if token_id is not None:
            rows = rows.where(Token.id == token_id)
        return [(row, row.oauth_client if row.oauth_client_id else None) for row in rows]


def _find(ctx: Context, user: User, token_id: str) -> tuple[Token, OAuthClient | None]:
    digits = token_id[1:]
    if token_id[:1] == "a" and digits.isascii() and digits.isdecimal() and len(digits) < 19:
        for found in _tokens(ctx, user, int(digits)):
            return found
    raise NotFound(f"No such token {token_id[:20]} for user {user.name}")


def _model(ctx: Context, row: Token, client: OAuthClient | None) -> dict[str, Any]:
    """Return a token as the API shows it: with everything it may do now."""
    scopes = sorted(ctx.site.hub.roles.of_token(row).raw)
    return shapes.token_model(row, scopes=scopes, oauth_client=client.description if client else "")


def create_token(
    ctx: Context,
    user: User,
    *,
    note: str,
    scopes: list[str] | None,
    expires_in_s: int | None,
    caller: Caller | None = None,
    legacy: bool = False,
) -> tuple[Token, str]:
    """Make a token for ``user``; returns the row and the secret.

    ``caller`` asks for it, ctx's unless given. Without ``scopes`` it may do what its owner may, as
    far as the caller may. Raises BadRequest when a scope does not exist, or the owner or the
    caller does not hold it.
    """
    if expires_in_s is not None and not 0 < expires_in_s <= MAX_LIFETIME_S:
        raise BadRequest(
            Text(
                "expires_in must be a positive integer up to %(most)s or null, not %(value)s",
                most=MAX_LIFETIME_S,
                value=str(expires_in_s)[:40],
            )
        )
    longest = ctx.site.options.token_expires_in_max_seconds
    if longest:
        expires_in_s = longest if expires_in_s is None else expires_in_s
        if expires_in_s > longest:
            raise BadRequest(
                Text(
                    "token expires_in: %(seconds)s must not exceed %(most)s",
                    seconds=expires_in_s,
                    most=longest,
                )
            )
    caller = caller or ctx.caller
    roles = ctx.site.hub.roles
    if scopes is None:
        scopes = roles.default_token_scopes(caller.scopes, user)
    else:
        _check_scopes(ctx, user, scopes, caller)
    _check_number(ctx, user)
    return ctx.site.accounts.issue_token(
        user_id=user.id,
        note=note[:MAX_NOTE],
        scopes=sorted(set(scopes)),
        expires_in_s=expires_in_s,
        legacy=legacy,
    )


def _check_number(ctx: Context, user: User) -> None:
    accounts = ctx.site.accounts
    mine = (Token.user == user) & Token.oauth_client.is_null() & accounts.live()
    with accounts.store.session():
        count = Token.select().where(mine).count()
    if count >= MOST_TOKENS:
        raise BadRequest(
            Text(
                "%(name)s has %(count)s tokens. Revoke some that are not used any more.",
                name=user.name,
                count=count,
            )
        )


def _check_scopes(ctx: Context, user: User, scopes: list[str], caller: Caller) -> None:
    for scope in scopes:
        if problem := scope_table.problem(scope):
            raise BadRequest(problem)
    roles = ctx.site.hub.roles
    owner_lacks = roles.missing(scopes, roles.of_user(user), user)
    if owner_lacks:
        raise BadRequest(
            Text(
                "Not assigning requested scopes %(scopes)s not held by User %(name)s",
                scopes=",".join(owner_lacks)[:300],
                name=user.name,
            )
        )
    caller_lacks = roles.missing(scopes, caller.scopes, user)
    if caller_lacks:
        raise BadRequest(
            Text("Not permitted to give the scopes %(scopes)s", scopes=",".join(caller_lacks)[:300])
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


@routes.add(
    "GET", "api/users/<name>/tokens", scopes=("read:tokens",), on="user", gives={200: "Tokens"}
)
def list_tokens(ctx: Context, name: str) -> Any:
    """List a user's tokens."""
    user = _owner(ctx, name)
    return ctx.json({"api_tokens": [_model(ctx, *pair) for pair in _tokens(ctx, user)]})


@routes.add(
    "POST",
    "api/users/<name>/tokens",
    access=Access.PUBLIC,
    xsrf=False,
    takes="CreateToken",
    gives={201: "NewToken"},
    fails=(403,),
)
def new_token(ctx: Context, name: str) -> Any:
    """Make a token; the answer is the only place that shows it.

    Who has neither token nor login may prove who they are in the body (``auth``), as on the login
    page.
    """
    body = ctx.json_value() or {}
    if not isinstance(body, dict):
        raise BadRequest("Body must be a JSON dict or empty")
    caller = ctx.caller
    if caller is None:
        caller = _by_password(ctx, body.get("auth"))
    elif caller.token is None:
        ctx.check_post_of_login()
    user = ctx.site.accounts.user(name)
    if user is None or not caller.scopes.allows("tokens", user=name):
        raise Forbidden(
            f"{caller.kind.title()} {name[:100]} not found or no permissions to generate tokens"
        )
    note = body.get("note") or ""
    if not isinstance(note, str):
        raise BadRequest("note must be a text")
    if not note:
        same = caller.user is not None and caller.user.id == user.id
        note = "Requested via api" + ("" if same else f" by {caller.kind} {caller.name}")
    expires_in = body.get("expires_in")
    if expires_in is not None and (isinstance(expires_in, bool) or not isinstance(expires_in, int)):
        raise BadRequest(f"token expires_in must be null or integer, not {expires_in!r}"[:200])
    legacy = body.get("legacy", False)
    if not isinstance(legacy, bool):
        raise BadRequest("legacy must be true or false")
    row, secret = create_token(
        ctx,
        user,
        note=note,
        scopes=_wanted_scopes(ctx, body),
        expires_in_s=expires_in,
        caller=caller,
        legacy=legacy,
    )
    return ctx.json(_model(ctx, row, None) | {"token": secret}, 201)


def _wanted_scopes(ctx: Context, body: dict[str, Any]) -> list[str] | None:
    """Return the scopes that a body asks for, by themselves or as roles; None for neither."""
    for key in ("roles", "scopes"):
        if body.get(key) is not None:
            check_texts(body[key], f"token {key}")
    if body.get("scopes") is not None:
        if body.get("roles") is not None:
            raise BadRequest("Can only assign one of scopes or roles when creating tokens.")
        return body["scopes"]
    if body.get("roles") is None:
        return None
    scopes: set[str] = set()
    for role in body["roles"]:
        if not ctx.site.hub.roles.exists(role):
            raise BadRequest(f"No such role: {role[:100]}")
        scopes |= ctx.site.hub.roles.raw_scopes(role)
    return sorted(scopes)


def _by_password(ctx: Context, data: Any) -> Caller:
    """Return the user whom the authenticator recognises. Raises Forbidden for anybody else."""
    refused = Forbidden("Missing or invalid credentials.")
    if not isinstance(data, dict) or not all(isinstance(value, str) for value in data.values()):
        raise refused
    try:
        with ctx.site.guard.password(ctx, data.get("username", "")) as one:
            result = ctx.site.authenticator.log_in(HandlerView(ctx), dict(data))
            one.right()
    except TooMany:
        raise
    except (AuthError, MinihubError) as error:
        log.warning("Token for %s: %s", safe(data.get("username", "")), error)
        raise refused from error
    except Exception as error:  # an authenticator may be anybody's, and made for forms
        log.error("Token for %s: %s", safe(data.get("username", "")), error)
        raise refused from error
    user = ctx.site.accounts.user(result.name)
    if user is None:
        raise refused
    return ctx.site.identity.of_user(user)


@routes.add(
    "GET",
    "api/users/<name>/tokens/<token_id>",
    scopes=("read:tokens",),
    on="user",
    gives={200: "Token"},
)
def one_token(ctx: Context, name: str, token_id: str) -> Any:
    """Describe one token."""
    return ctx.json(_model(ctx, *_find(ctx, _owner(ctx, name), token_id)))


@routes.add(
    "DELETE",
    "api/users/<name>/tokens/<token_id>",
    scopes=("tokens",),
    on="user",
    gives={204: schemas.EMPTY},
)
def delete_token(ctx: Context, name: str, token_id: str) -> Any:
    """Revoke one token."""
    revoke_token(ctx, _owner(ctx, name), token_id)
    return ctx.reply(b"", 204)


# -- the page --------------------------------------------------------------------------------


def _page(ctx: Context, status: int = 200, **namespace: Any) -> Any:
    mine, clients = [], {}
    for row, client in _tokens(ctx, ctx.caller.user):
        description = client.description if client else ""
        facts = shapes.token_model(row, scopes=row.scopes, oauth_client=description)
        facts["in_words"] = [
            scope_table.describe(scope, ctx.caller.name) for scope in facts["scopes"]
        ]
        facts["note"] = phrases.known(facts["note"] or "")
        facts["revoke_url"] = f"{ctx.site.hub_prefix}token/{facts['id']}/revoke"
        if client is None:
            mine.append(facts)
        else:
            facts["description"] = phrases.known(client.description)
            clients.setdefault(client.id, facts)
    return ctx.page(
        "token.html",
        status,
        tokens=mine,
        oauth_clients=list(clients.values()),
        token_expires_in_max_seconds=ctx.site.options.token_expires_in_max_seconds,
        **namespace,
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
            scopes=ctx.form.get("scopes", "").split() or None,
            expires_in_s=int(seconds) if seconds else None,
        )
    except ValueError:
        return _page(ctx, 400, token_error=Text("The time must be a number of seconds."))
    except RequestError as error:
        return _page(ctx, error.status, token_error=error.message)
    return _page(ctx, new_token=secret)


@routes.add("POST", "token/<token_id>/revoke", access=Access.PAGE)
def revoke_form(ctx: Context, token_id: str) -> Any:
    """Revoke a token from the page."""
    revoke_token(ctx, ctx.caller.user, token_id)
    return ctx.redirect(ctx.site.hub_prefix + "token", 303)
