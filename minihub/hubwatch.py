"""What the hub does again and again: looking at servers, at the proxy's routes, at activity.

Rules of this file: it decides when, the hub decides what. Whatever may take long for one server is
handed to the hub's pool; what fails is logged and done again the next time.

Threads: one for each kind of work, from :meth:`HubWatch.start` to :meth:`HubWatch.stop`.
"""

from __future__ import annotations

import logging
import math
import random
import threading
from collections.abc import Callable

from . import census, clock
from .hub import Hub
from .server import Server

log = logging.getLogger("minihub.hub")

WATCH_STEP_S = 1.0
#: How soon it does so again when a server is due before.
LEAST_STEP_S = 0.05
#: How often rows are tried again that could not be written.
CLEAN_AGAIN_S = 5.0


class HubWatch:
    """The recurring work of one hub."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads."""
        hub, options = self._hub, self._hub.options
        routes_s = getattr(hub.proxy, "check_running_interval", options.proxy_check_interval)
        for name, work in (
            ("hub-watch", self._watch),
            ("hub-routes", lambda: self._every(routes_s, self._check_routes)),
            ("hub-activity", lambda: self._every(options.last_activity_interval, self._collect)),
            ("hub-rows", lambda: self._every(CLEAN_AGAIN_S, hub.clean_again)),
        ):
            thread = threading.Thread(target=work, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """End the threads."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(5)

    def _watch(self) -> None:
        """Poll each ready server every ``Spawner.poll_interval`` seconds, and move the line on."""
        due: dict[Server, float] = {}
        pause = WATCH_STEP_S
        while not self._stopping.wait(pause):
            self._hub.admit()
            now = clock.monotonic()
            ready = [server for server in self._hub.active_servers() if server.ready]
            due = {server: due[server] for server in ready if server in due}
            for server in ready:
                spawner = server.spawner
                jitter = random.uniform(-spawner.poll_jitter, spawner.poll_jitter)
                interval = spawner.poll_interval * (1 + jitter)
                if interval > 0 and due.setdefault(server, now + interval) <= now:
                    due[server] = now + interval
                    self._hub.poll_soon(server)
            soonest = min(due.values(), default=math.inf) - clock.monotonic()
            pause = min(WATCH_STEP_S, max(LEAST_STEP_S, soonest))

    def _check_routes(self) -> None:
        """Look whether the proxy has lost routes."""
        self._hub.check_routes(note_activity=False)

    def _collect(self) -> None:
        """Fold the proxy's activity into the database, and count users and servers."""
        hub = self._hub
        hub.check_routes()
        census.send(hub.active_servers(), hub.activity, hub.options.active_user_window)

    def _every(self, interval_s: float, work: Callable[[], None]) -> None:
        """Do something again and again; never for an interval of 0."""
        while interval_s > 0 and not self._stopping.wait(interval_s):
            try:
                work()
            except Exception as error:
                log.error("%s: %s", threading.current_thread().name, error)
