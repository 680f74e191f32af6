"""REST API: the calls that only programs written for JupyterHub 0.8 make.

Rules of this file: whoever asks whose a token or a login is must have a token, and learns the name,
the groups and whether it is an admin, and whatever its own scopes show beyond that.

Threads: waitress's.
Sources: JupyterHub 0.8's REST API, as JupyterHub 6 keeps it.
"""

from __future__ import annotations

from typing import Any

from ..errors import Forbidden, NotFound
from . import cookies, shapes
from .api_base import UserModels
from .api_services import service_model
from .context import Context
from .identity import Caller
from .routing import Access, Routes

routes = Routes()

_GONE = (
    "Deprecated endpoint /hub/api/authorizations/token is removed in JupyterHub 2.0."
    " Use /hub/api/users/:user/tokens instead."
)


def _describe(ctx: Context, whom: Caller | None) -> Any:
    if ctx.caller.token is None:
        raise Forbidden("A token is needed to ask this.")
    if whom is None:
        raise NotFound("Not Found")
    if whom.user is not None:
        return ctx.json(UserModels(ctx, own_keys=shapes.OWN_KEYS).one(whom.user))
    return ctx.json(service_model(ctx, whom.service, own_keys=shapes.OWN_SERVICE_KEYS))


@routes.add("GET", "api/authorizations/token/<token>", gives={200: "Owner"}, fails=(404,))
def whose_token(ctx: Context, token: str) -> Any:
    """Describe the owner of a token."""
    return _describe(ctx, ctx.site.identity.by_token(f"token {token}"))


@routes.add("POST", "api/authorizations/token", access=Access.PUBLIC, xsrf=False, fails=(404,))
def no_more_tokens(ctx: Context) -> Any:
    """Say where tokens are made today."""
    raise NotFound(_GONE)


@routes.add(
    "GET",
    "api/authorizations/cookie/<cookie>",
    "api/authorizations/cookie/<cookie>/<value>",
    gives={200: "Owner"},
    fails=(404,),
)
def whose_login(ctx: Context, cookie: str, value: str = "") -> Any:
    """Describe whose login a cookie is; the value may also stand in the body."""
    if cookie not in (cookies.LOGIN, cookies.SERVICES):
        return _describe(ctx, None)
    value = value or ctx.request.body.read(4096).decode("utf-8", "replace")
    jar = {cookie: [value.strip('"')]}
    return _describe(ctx, ctx.site.identity.by_cookie(jar, cookie))
