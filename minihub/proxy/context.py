"""What all connections of one loop thread share: settings, table, pool and counters.

Rules of this file: settings are final when the loop starts. Times are seconds here; options
give milliseconds.

Threads: a Context belongs to one loop thread. Other threads may read its counters.
"""

from __future__ import annotations

import socket

from minihub import clock
from minihub.errors import ProxyError
from minihub.proxy import sides
from minihub.proxy.limits import Share
from minihub.proxy.loop import FOREVER, SWEEP, Loop
from minihub.proxy.options import Options
from minihub.proxy.pool import Pool
from minihub.proxy.resolver import Resolver
from minihub.proxy.routes import Route, RouteTable, Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minihub.proxy.tls import Certificates


class Stats:
    """Counters of one loop thread; only that thread writes them.

    ``statuses`` counts answers to proxied requests by status, our own errors included;
    ``faults`` counts expected trouble by name (client gone, upstream refused, ...).
    """

    def __init__(self) -> None:
        self.requests_web = 0
        self.requests_ws = 0
        self.statuses: dict[int, int] = {}
        self.faults: dict[str, int] = {}
        self.lookups = 0
        self.lookup_seconds = 0.0
        self.activities = 0
        self.accepted = 0
        self.clients = 0
        self.tunnels = 0

    def tally(self) -> dict[str, float]:
        """Return everything as one flat dict of sums."""
        tally: dict[str, float] = {
            "requests_web": self.requests_web,
            "requests_ws": self.requests_ws,
            "lookups": self.lookups,
            "lookup_seconds": self.lookup_seconds,
            "activities": self.activities,
            "accepted": self.accepted,
            "clients": self.clients,
            "tunnels": self.tunnels,
        }
        # Copies: the loop's thread may add a key meanwhile.
        for status, count in self.statuses.copy().items():
            tally[f"status {status}"] = count
        for name, count in self.faults.copy().items():
            tally[f"fault {name}"] = count
        return tally

    def fault(self, name: str) -> None:
        """Count one expected fault."""
        self.faults[name] = self.faults.get(name, 0) + 1

    def status(self, status: int) -> None:
        """Count one answer."""
        self.statuses[status] = self.statuses.get(status, 0) + 1


class Settings:
    """The options as the data path uses them."""

    def __init__(self, options: Options) -> None:
        self.options = options
        #: Whether anybody reads how long look-ups take.
        self.is_measured = bool(options.metrics_port or options.metrics_socket)
        self.is_measured |= bool(options.statsd_host)
        #: Whether every request is logged.
        self.is_debug = options.log_level == "debug"
        self.host_routing = options.host_routing
        self.x_forward = options.x_forward
        self.change_origin = options.change_origin
        self.include_prefix = options.include_prefix
        self.prepend_path = options.prepend_path
        self.custom_headers = [
            (name.lower().encode("latin-1"), f"{name}: {value}\r\n".encode("latin-1", "replace"))
            for name, value in options.custom_headers
        ]
        self.error_target = Target(options.error_target) if options.error_target else None
        self.error_path = options.error_path
        self.auto_rewrite = options.auto_rewrite
        self.protocol_rewrite = options.protocol_rewrite
        self.rewrites_location = options.auto_rewrite or bool(options.protocol_rewrite)
        self.timeout = options.timeout / 1000 or FOREVER
        self.proxy_timeout = options.proxy_timeout / 1000 or FOREVER
        self.keep_alive_timeout = options.keep_alive_timeout / 1000
        self.header_timeout = options.header_timeout / 1000 or FOREVER
        self.body_timeout = options.body_timeout / 1000 or FOREVER
        self.tunnel_timeout = options.tunnel_timeout / 1000 or FOREVER
        self.connect_timeout = options.connect_timeout / 1000 or FOREVER
        self.max_head_bytes = options.max_head_bytes
        self.max_line_bytes = options.max_line_bytes
        shortest = min(
            self.timeout,
            self.proxy_timeout,
            self.keep_alive_timeout or FOREVER,
            self.header_timeout,
            self.body_timeout,
            self.tunnel_timeout,
            self.connect_timeout,
        )
        #: How often deadlines are looked at: short timeouts are kept to a fifth of their length.
        self.sweep_every = max(0.01, min(SWEEP, shortest / 5))
        # Made before the loops run where the command line speaks of it, else when needed.
        self._client_tls: Certificates | None = None
        if options.client_ssl_cert or options.client_ssl_ca or options.client_ssl_key:
            self._client_tls = sides.client_certificates(options)

    def wrap_tls(self, sock: socket.socket, target: Target) -> socket.socket:
        """Return ``sock`` with TLS towards ``target`` on it. Raises OSError."""
        if self._client_tls is None:
            try:
                self._client_tls = sides.client_certificates(self.options)
            except ProxyError as exc:
                raise OSError(str(exc)) from exc
        return self._client_tls.wrap(sock, target.host)  # type: ignore[return-value]


class Context:
    """One loop thread's share of the proxy."""

    def __init__(
        self,
        loop: Loop,
        table: RouteTable,
        settings: Settings,
        resolver: Resolver,
        share: Share,
    ) -> None:
        self.loop = loop
        loop.sweep_every = settings.sweep_every
        loop.sweep_within(settings.sweep_every)
        self.share = share
        self.table = table
        self.settings = settings
        self.stats = Stats()
        self.is_draining = False
        self.pool = Pool(
            loop,
            resolver,
            connect_timeout=settings.connect_timeout,
            response_timeout=settings.proxy_timeout,
            max_head_bytes=settings.max_head_bytes,
            wrap_tls=settings.wrap_tls,
        )

    @property
    def connections(self) -> int:
        """Return how many clients this loop has."""
        return self.stats.clients + self.stats.tunnels

    def find_route(self, target: bytes, host: bytes | None) -> Route | None:
        """Return the route of a request target. Raises ProtocolError for an ambiguous path."""
        if not self.settings.host_routing:
            host = None
        elif host is None:
            host = b""
        if not self.settings.is_measured:
            return self.table.snapshot.match(target, host)
        start = clock.monotonic()
        try:
            return self.table.snapshot.match(target, host)
        finally:
            self.stats.lookups += 1
            self.stats.lookup_seconds += clock.monotonic() - start
