"""Which routes the proxy should have, and bringing the proxy there.

Rules of this file: the routes are the hub's own, one of each ready server, one of each service with
a URL and those of the configuration; whatever else the proxy has of ours is taken away. Nobody
else adds or deletes routes.

Threads: any. One check runs at a time; its lock is held while the proxy is asked, and nothing else
is ever locked meanwhile.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from . import aio, clock, deadline, metrics
from .activity import Activity
from .errors import ProxyError
from .hookinfo import HubInfo, UserInfo
from .server import Server
from .servicerunner import ServiceRunner

log = logging.getLogger("minihub.hub")

ServerRoutes = dict[str, Server]


class HubRoutes:
    """The routes of one hub."""

    def __init__(
        self,
        *,
        proxy: Any,
        info: HubInfo,
        services: ServiceRunner,
        activity: Activity,
        servers: Callable[[], list[Server]],
        person: Callable[[str], UserInfo],
        hub_routespec: str = "/",
    ) -> None:
        """``servers`` gives those that are not stopped, ``person`` a user's addresses."""
        self.proxy = proxy
        self.info = info
        self.services = services
        self.activity = activity
        self.hub_routespec = hub_routespec
        self._servers = servers
        self._person = person
        self._lock = threading.Lock()

    def of_server(self, server: Server) -> str:
        """Return the name of a server's route."""
        person = self._person(server.user_name)
        return self.info.routespec(person.host, person.server_url(server.name))

    def add_server(self, server: Server, still_wanted: Callable[[], Any] | None = None) -> None:
        """Tell the proxy where a server is; ``still_wanted`` may raise to give up meanwhile."""
        data = {"user": server.user_name, "server_name": server.name}
        with metrics.timed("proxy_add_duration_seconds"):
            self._add(self.of_server(server), server.target, data, still_wanted)

    def remove_server(self, server: Server) -> None:
        """Make the proxy forget a server."""
        with metrics.timed("proxy_delete_duration_seconds"):
            self._ask(self.proxy.delete_route, self.of_server(server))

    def close_tunnels(self, server: Server) -> None:
        """Make the proxy close the WebSockets that are open to a server, which goes on."""
        self._ask(self.proxy.close_tunnels, self.of_server(server))

    def add_hub(self) -> None:
        """Send everything that is no server's to the hub."""
        self._add(self.hub_routespec, self._hub_target(), {"hub": True})

    def _add(
        self,
        spec: str,
        target: str | None,
        data: dict[str, Any],
        still_wanted: Callable[[], Any] | None = None,
    ) -> None:
        self._ask(self.proxy.add_route, spec, target, data, still_wanted=still_wanted)

    def _ask(self, method: Callable[..., Any], *args: Any, **how: Any) -> Any:
        """Call a method of the proxy's. Raises ProxyError for one that does not answer."""
        try:
            return aio.call(method, *args, timeout_s=deadline.PATIENCE_S, **how)
        except TimeoutError as error:
            told = f"{type(self.proxy).__name__}.{method.__name__} has not ended: {error}"
            raise ProxyError(told) from error

    def _hub_target(self) -> str:
        parts = urlsplit(self.info.api_url)
        return f"{parts.scheme}://{parts.netloc}"

    def check(self, *, note_activity: bool = True) -> None:
        """Make the proxy's routes what they should be, and note the activity it saw."""
        with self._lock, metrics.timed("check_routes_duration_seconds"):
            with metrics.timed("proxy_poll_duration_seconds"):
                found = self._ask(self.proxy.get_all_routes)
            # Those asked of the proxy first: what was added since then is not taken for stale.
            servers = {self.of_server(server): server for server in self._servers()}
            fixed = self._fixed()
            own = {self.hub_routespec: fixed.pop(self.hub_routespec)}
            try:
                for spec, server in servers.items():
                    self._check_server(spec, server, found.get(spec))
                self._add_missing(fixed, found)
            finally:
                # Last, but whatever became of the others: a proxy that has just begun waits for it.
                self._add_missing(own, found)
            for spec in set(found) - set(fixed) - set(own) - set(servers):
                log.warning("Deleting the stale route %s", spec)
                self._ask(self.proxy.delete_route, spec)
            if note_activity:
                self._note_activity(servers, found)

    def _fixed(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """Return ``{routespec: (target, data)}`` of the routes that come and go with the hub."""
        extra = getattr(self.proxy, "extra_routes", {})
        return {
            self.hub_routespec: (self._hub_target(), {"hub": True}),
            **{spec: (target, {"extra": True}) for spec, target in extra.items()},
            **self.services.routes(),
        }

    def _add_missing(
        self, routes: dict[str, tuple[str, dict[str, Any]]], found: dict[str, dict[str, Any]]
    ) -> None:
        for spec, (target, data) in routes.items():
            if found.get(spec, {}).get("target") != target:
                self._add(spec, target, data)

    def _check_server(self, spec: str, server: Server, route: dict[str, Any] | None) -> None:
        if not server.ready or (route is not None and route["target"] == server.target):
            return  # one that is starting or stopping sees to its route itself
        log.warning("Adding the missing route %s", spec)
        self.add_server(server)
        if not server.ready:  # it was stopped meanwhile, after its route had been taken away
            self.remove_server(server)

    def _note_activity(self, servers: ServerRoutes, found: dict[str, dict[str, Any]]) -> None:
        for spec, server in servers.items():
            seen = found.get(spec, {}).get("data", {}).get("last_activity")
            if seen and server.ready and server.row_id is not None:
                self.activity.server(server.row_id, server.user_id, clock.parse(seen))
