"""The hub's metrics in Prometheus's text format.

Rules of this file: it shows numbers, and no names of people.

Threads: waitress's.
"""

from __future__ import annotations

from typing import Any

from .. import census, metrics
from ..errors import Forbidden
from ..texts import Text
from . import schemas
from .context import Context
from .routing import Access, Routes

routes = Routes()

SCOPE = "read:metrics"


@routes.add(
    "GET", "metrics", "api/metrics", access=Access.PUBLIC, gives={200: schemas.TEXT}, fails=(403,)
)
def show(ctx: Context) -> Any:
    """Show all metrics, to those who may read them unless everybody may."""
    site = ctx.site
    if site.options.authenticate_prometheus and not ctx.allows(SCOPE):
        raise Forbidden(Text("Access to metrics requires scope '%(scope)s'", scope=SCOPE))
    hub = site.hub
    body, content_type = metrics.exposition(lambda: census.gauges(hub.active_servers(), hub.store))
    return ctx.reply(body, content_type=content_type)
