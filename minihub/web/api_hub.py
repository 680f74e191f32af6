"""REST API: what the hub is and who the caller is; its proxy; its end.

Rules of this file: requests are checked, the hub is asked, :mod:`minihub.web.shapes` answers.

Threads: waitress's.
Sources: JupyterHub 6's REST API.
"""

from __future__ import annotations

import sys
from typing import Any

from .. import JUPYTERHUB_VERSION, aio
from ..errors import BadRequest, ProxyError, RequestError
from . import schemas, shapes
from .api_base import UserModels, page_bounds, paged, wants_pages
from .api_services import service_model
from .context import Context
from .routing import Access, Routes

routes = Routes()


class ProxyUnreachable(RequestError):
    """Raised when the proxy does not answer the hub."""

    status = 503


@routes.add("GET", "api", "api/", access=Access.PUBLIC, xsrf=False, gives={200: "Version"})
def version(ctx: Context) -> Any:
    """Say which JupyterHub release's API this is; every client asks at its start."""
    response = ctx.json({"version": JUPYTERHUB_VERSION})
    response.set_header("Access-Control-Allow-Origin", "*")
    return response


@routes.add("GET", "api/user", query=("include_stopped_servers",), gives={200: "Caller"})
def whoami(ctx: Context) -> Any:
    """Describe the caller, within the caller's own scopes."""
    caller = ctx.caller
    if caller.user is not None:
        model = UserModels(ctx, own_keys=shapes.OWN_KEYS).one(caller.user)
    else:
        model = service_model(ctx, caller.service, own_keys=shapes.OWN_SERVICE_KEYS)
    token = caller.token
    model["token_id"] = f"a{token.id}" if token else None
    model["session_id"] = (token.session_id or None) if token else None
    model["scopes"] = caller.scope_names
    return ctx.json(model)


def _class_facts(instance_of: type) -> dict[str, str]:
    package = sys.modules.get(instance_of.__module__.partition(".")[0])
    return {
        "class": f"{instance_of.__module__}.{instance_of.__name__}",
        "version": str(getattr(package, "__version__", "unknown")),
    }


@routes.add("GET", "api/info", scopes=("read:hub",), gives={200: "Info"})
def info(ctx: Context) -> Any:
    """Say what the hub runs on and with."""
    return ctx.json(
        {
            "version": JUPYTERHUB_VERSION,
            "python": sys.version,
            "sys_executable": sys.executable,
            "spawner": _class_facts(ctx.site.hub.spawner_class),
            "authenticator": _class_facts(type(ctx.site.authenticator)),
        }
    )


# -- the proxy -------------------------------------------------------------------------------


@routes.add(
    "GET", "api/proxy", scopes=("proxy",), query=schemas.PAGES, gives={200: "Routes"}, fails=(503,)
)
def get_routes(ctx: Context) -> Any:
    """Return the proxy's routes, by routespec."""
    offset, limit = page_bounds(ctx)
    ctx.will_wait()
    try:
        found = aio.call(ctx.site.hub.proxy.get_all_routes)
    except ProxyError as error:
        raise ProxyUnreachable(str(error)) from error
    page = {spec: found[spec] for spec in sorted(found)[offset : offset + limit]}
    return ctx.json(paged(ctx, page, offset, limit, len(found)) if wants_pages(ctx) else page)


def _check_routes(ctx: Context) -> Any:
    try:
        ctx.site.hub.check_routes()
    except ProxyError as error:
        raise ProxyUnreachable(str(error)) from error
    return ctx.reply(b"", content_type="application/json")


@routes.add("POST", "api/proxy", scopes=("proxy",), gives={200: schemas.EMPTY}, fails=(503,))
def check_routes(ctx: Context) -> Any:
    """Make the proxy's routes what they should be, now."""
    return _check_routes(ctx)


@routes.add(
    "PATCH",
    "api/proxy",
    scopes=("proxy",),
    takes="ChangeProxy",
    gives={200: schemas.EMPTY},
    fails=(503,),
)
def change_proxy(ctx: Context) -> Any:
    """Name another proxy, which takes over from now on."""
    try:
        model = ctx.json_value()
    except BadRequest as error:
        raise BadRequest("Request body must be JSON dict") from error
    if model is None:
        raise BadRequest("need JSON body")
    if not isinstance(model, dict):
        raise BadRequest("Request body must be JSON dict")
    proxy = ctx.site.hub.proxy
    present = {key: getattr(proxy, key, "") for key in ("api_url", "auth_token")}
    wanted = {key: model.get(key, value) for key, value in present.items()}
    if not all(isinstance(value, str) and value for value in wanted.values()):
        raise BadRequest("api_url and auth_token must be texts")
    try:
        proxy.use_other(**wanted)
        return _check_routes(ctx)
    except ValueError as error:
        raise BadRequest(str(error)) from error
    except ProxyUnreachable:
        proxy.use_other(**present)
        raise


# -- the end ---------------------------------------------------------------------------------


@routes.add("POST", "api/shutdown", scopes=("shutdown",), takes="Shutdown", gives={202: "Message"})
def shutdown(ctx: Context) -> Any:
    """Stop the hub; the body may say otherwise about its servers and its proxy."""
    data = ctx.json_body() or {}
    for key in ("proxy", "servers"):
        if key in data and not isinstance(data[key], bool):
            raise BadRequest(f"{key} must be true or false, got {data[key]!r}"[:200])
    ctx.site.shutdown(proxy=data.get("proxy"), servers=data.get("servers"))
    return ctx.json({"message": "Shutting down Hub"}, 202)
