"""REST API: services, those of the configuration and those made here.

Rules of this file: requests are checked; :mod:`minihub.servicerunner` holds the services. What the
configuration declares is not changed here, and what the hub would have to run is not made here.

Threads: waitress's.
Sources: JupyterHub 6's REST API.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from .. import scopes as scope_table
from ..errors import BadRequest, ConfigError, Conflict, NotFound, ProxyError, RequestError
from ..models import Service
from ..scopes import ALL
from . import schemas, shapes
from .api_base import check_body
from .context import Context
from .routing import SOME, Routes

log = logging.getLogger("minihub.web")
routes = Routes()

_KEYS = {
    "name": str,
    "admin": bool,
    "url": str,
    "oauth_client_allowed_scopes": list,
    "api_token": str,
    "info": dict,
    "display": bool,
    "oauth_no_confirm": bool,
    "command": list,
    "cwd": str,
    "environment": dict,
    "user": str,
    "oauth_client_id": str,
    "oauth_redirect_uri": str,
    "legacy": bool,
}


class NotModifiable(RequestError):
    """Raised when a service of the configuration is to be deleted."""

    status = 405


def service_model(ctx: Context, row: Service, *, own_keys: Collection[str] = ()) -> dict[str, Any]:
    """Return a service as far as the caller may see it; ``own_keys`` in any case."""
    hub = ctx.site.hub
    spec = hub.services.specs.get(row.name)
    runner = hub.services.runners.get(row.name)
    return shapes.service_model(
        row,
        roles=hub.roles.rights_of_service(row).roles,
        prefix=spec.prefix(hub.info.base_url) if spec and spec.url else "",
        command=spec.command if spec else (),
        pid=runner.pid if runner else 0,
        keys=shapes.service_keys(ctx.caller.scopes, row.name) | frozenset(own_keys),
    )


def _find(ctx: Context, name: str) -> Service | None:
    with ctx.site.accounts.store.session():
        return Service.get_or_none(Service.name == name)


@routes.add("GET", "api/services", scopes=("list:services",), on=SOME, gives={200: "Services"})
def list_services(ctx: Context) -> Any:
    """List services, by name."""
    held = ctx.caller.scopes.filters("list:services")
    with ctx.site.accounts.store.session():
        rows = list(Service.select().order_by(Service.id))
    return ctx.json(
        {
            row.name: service_model(ctx, row)
            for row in rows
            if held is ALL or row.name in held.get("service", ())
        }
    )


@routes.add(
    "GET",
    "api/services/<service_name>",
    scopes=("read:services", "read:services:name", "read:roles:services"),
    on="service",
    gives={200: "Service"},
)
def get_service(ctx: Context, service_name: str) -> Any:
    """Describe a service."""
    row = _find(ctx, service_name)
    if row is None:
        raise NotFound(f"No such service: {service_name[:100]}")
    return ctx.json(service_model(ctx, row))


@routes.add(
    "POST",
    "api/services/<service_name>",
    scopes=("admin:services",),
    on="service",
    takes="CreateService",
    gives={201: "Service"},
    fails=(409,),
)
def create_service(ctx: Context, service_name: str) -> Any:
    """Make an external service: a name with a token, a URL or an OAuth client."""
    data = ctx.json_value()
    if _find(ctx, service_name) is not None:
        raise Conflict(f"Service {service_name} already exists")
    if not isinstance(data, dict):
        raise BadRequest("Invalid service data")
    data["name"] = service_name
    check_body(data, _KEYS, "service")
    if data.get("command"):
        raise BadRequest(f"Can not create managed service {service_name} at runtime")
    _check_scopes(ctx, data)
    hub = ctx.site.hub
    try:
        row = hub.services.add(data)
    except ConfigError as error:
        raise BadRequest(f"Failed to create service {service_name}: {error}") from error
    _tell_proxy(ctx)
    return ctx.json(service_model(ctx, row), 201)


def _check_scopes(ctx: Context, data: dict[str, Any]) -> None:
    """Raise BadRequest when the service could do more than the caller may."""
    roles = ctx.site.hub.roles
    wanted = set(roles.admin_scopes(service=data["name"])) if data.get("admin") else set()
    for scope in data.get("oauth_client_allowed_scopes", ()):
        if problem := scope_table.problem(scope):
            raise BadRequest(problem)
        # A visitor's own scopes, narrowed to the visitor, are the visitor's to give.
        wanted |= scope_table.expand([scope], service=data["name"])
    if data.get("oauth_no_confirm") and data.get("oauth_client_allowed_scopes"):
        # Nobody is asked, so whoever follows a link would give away what they may do.
        wanted |= roles.admin_scopes()
    missing = roles.missing_expanded(wanted, ctx.caller.scopes)
    if missing:
        raise BadRequest(
            f"Not assigning requested scopes {','.join(missing)[:200]} not held by "
            f"{ctx.caller.kind} {ctx.caller.name}"
        )


@routes.add(
    "DELETE",
    "api/services/<service_name>",
    scopes=("admin:services",),
    on="service",
    gives={200: schemas.EMPTY},
    fails=(405,),
)
def delete_service(ctx: Context, service_name: str) -> Any:
    """Delete a service that was made here."""
    row = _find(ctx, service_name)
    if row is None:
        raise NotFound(f"Service {service_name[:100]} does not exist")
    if row.from_config:
        raise NotModifiable(f"Service {service_name} is not modifiable at runtime")
    ctx.site.hub.services.remove(row)
    _tell_proxy(ctx)
    return ctx.reply(b"", content_type="application/json")


def _tell_proxy(ctx: Context) -> None:
    """Bring the proxy's routes in line; an unreachable proxy learns of them when it is back."""
    try:
        ctx.site.hub.check_routes()
    except ProxyError as error:
        log.error("%s", error)
