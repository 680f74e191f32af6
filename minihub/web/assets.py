"""Static files, the logo, health, and the pages that the proxy shows for its errors.

Rules of this file: it answers anybody and changes nothing.

Threads: waitress's.
"""

from __future__ import annotations

import logging
from typing import Any

from .. import metrics
from ..errors import NotFound
from ..logs import safe
from ..texts import Text
from . import schemas
from .context import Context
from .rendering import StaticFile
from .routing import Access, Routes

log = logging.getLogger("minihub.web")
routes = Routes()

#: What the proxy's errors mean to the person who meets them.
_PROXY_ERRORS = {
    404: Text("There is nothing at this address."),
    503: Text("Your server appears to be down. Try restarting it from the hub."),
}


def _file(ctx: Context, file: StaticFile | None) -> Any:
    if file is None:
        raise NotFound(Text("There is no such file."))
    response = ctx.reply(file.body, content_type=file.content_type)
    response.set_header("ETag", file.etag)
    fresh = "max-age=31536000, immutable" if "v" in ctx.query else "no-cache"
    response.set_header("Cache-Control", fresh)
    if file.etag in ctx.header("If-None-Match"):
        response.status = 304
        response.body = b""
    return response


@routes.add("GET", "static/<path:path>", access=Access.PUBLIC)
def static(ctx: Context, path: str) -> Any:
    """Serve one of our files or the administrator's."""
    return _file(ctx, ctx.site.renderer.static(path))


@routes.add("GET", "favicon.ico", access=Access.PUBLIC)
def favicon(ctx: Context) -> Any:
    """Serve the icon to browsers that look for it where sites of old had it."""
    return _file(ctx, ctx.site.renderer.static("favicon.ico"))


@routes.add("GET", "logo", access=Access.PUBLIC)
def logo(ctx: Context) -> Any:
    """Serve the logo."""
    return _file(ctx, ctx.site.renderer.logo())


@routes.add(
    "GET", "health", "api/health", access=Access.PUBLIC, head=True, gives={200: schemas.TEXT}
)
def health(ctx: Context) -> Any:
    """Say that the hub is up."""
    return ctx.reply(b"")


@routes.add("GET", "error/<code:int>", access=Access.PUBLIC)
def proxy_error(ctx: Context, code: int) -> Any:
    """Show the page of an error that the proxy met; the proxy keeps its own status."""
    status = code if 400 <= code < 600 else 500
    response = ctx.site.error_page(ctx, status, _PROXY_ERRORS.get(status, ""))
    response.status = 200
    return response


@routes.add("POST", "security/csp-report", access=Access.PUBLIC, xsrf=False)
def csp_report(ctx: Context) -> Any:
    """Log what a browser refused to load on one of our pages."""
    metrics.count("csp_report")
    metrics.increment("csp_reports")
    raw = ctx.request.body.read(2000).decode("utf-8", "replace")
    log.warning("Content security violation: %s", safe(raw, 500))
    return ctx.reply(b"")
