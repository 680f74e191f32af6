"""The loop threads of one process: listening, serving, counting, ending.

Rules of this file: the control thread talks to the data path through a fleet only. What has to
be waited for is answered by a callback in the control thread, for another fleet (``workers``)
asks other processes. Counters of a loop are read here, never written.

Threads: the control thread, except what runs inside ``loop.call`` and the accept functions.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable

from minihub.proxy.context import Context, Settings
from minihub.proxy.limits import Limits
from minihub.proxy.listener import Listener
from minihub.proxy.loop import Loop
from minihub.proxy.relay import Relay, close_idle, evict_idle, refuse_client
from minihub.proxy.resolver import Resolver
from minihub.proxy.routes import Route, RouteTable
from minihub.proxy.tunnel import close_tunnels

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minihub.proxy.tls import Certificates

Tally = dict[str, float]
#: Counters that go down again: they end with their process.
GAUGES = ("clients", "tunnels")
#: How often a fleet that is to end looks whether it may.
CHECK_SECONDS = 0.02


class DataPath(ABC):
    """What the REST API and the metrics may ask, wherever requests are served."""

    @abstractmethod
    def publish(self, added: list[Route], removed: list[bytes], done: Callable[[], None]) -> None:
        """Call ``done`` when everybody who serves goes by the changed table."""

    @abstractmethod
    def refresh(self, done: Callable[[], None]) -> None:
        """Call ``done`` when the table's activity and counters are those of this moment."""

    @abstractmethod
    def tally(self) -> Tally:
        """Return the sums of all counters by name, as of the last refresh."""

    @abstractmethod
    def close_tunnels(self, path: bytes, done: Callable[[int], None]) -> None:
        """Close the open tunnels of a route and call ``done`` with their number."""


class Fleet(DataPath):
    """Those who serve in this process and its workers."""

    @abstractmethod
    def start(
        self, sockets: list[socket.socket], others: list[socket.socket], ready: Callable[[], None]
    ) -> None:
        """Serve clients of the listening ``sockets``; call ``ready`` when that has begun.

        ``others`` are open here and of no use to those who serve.
        """

    @abstractmethod
    def retire(self, done: Callable[[], None]) -> None:
        """Accept nobody any more, closing the listening sockets.

        Requests in flight are answered and tunnels stay as long as they like; ``done`` is called
        when the last client and tunnel has left.
        """

    @abstractmethod
    def drain(self, done: Callable[[], None]) -> None:
        """Retire, and close tunnels and idle clients at once."""

    @abstractmethod
    def stop(self) -> None:
        """Cut what is open and wait for the end."""


class Threads(Fleet):
    """Loop threads that share the control thread's route table."""

    def __init__(
        self,
        control: Loop,
        table: RouteTable,
        settings: Settings,
        limits: Limits,
        *,
        first_share: int = 0,
        count: int,
        room: int,
        certificates: Certificates | None,
    ) -> None:
        """Make ``count`` loops with room for ``room`` clients together.

        ``first_share`` is the place of the first loop among all processes' loops.
        """
        self.control = control
        self.table = table
        self._room = max(1, room // count)
        self._certificates = certificates
        self._resolver = Resolver()
        self._threads: list[threading.Thread] = []
        self._listeners: list[Listener] = []
        self.contexts = [
            Context(
                Loop(f"loop-{index}"),
                table,
                settings,
                self._resolver,
                limits.share(first_share + index),
            )
            for index in range(count)
        ]

    def start(
        self, sockets: list[socket.socket], others: list[socket.socket], ready: Callable[[], None]
    ) -> None:
        for context in self.contexts:
            for sock in sockets:
                self._listen(context, sock)
            thread = threading.Thread(target=context.loop.run, name=context.loop.name)
            thread.start()
            self._threads.append(thread)
        ready()

    def stop(self) -> None:
        for context in self.contexts:
            context.loop.stop()
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        self._resolver.stop()

    def _listen(self, context: Context, listening: socket.socket) -> None:
        waits = context.settings.options.wait_for_default

        def has_room() -> bool:
            nonlocal waits
            if waits:
                waits = self.table.get(b"/") is None
            if waits:
                return False  # they wait in the backlog
            if context.connections < self._room and not context.share.is_full():
                return True
            context.stats.fault("no room for clients")
            return evict_idle(context)

        def accept(sock: socket.socket, address: bytes) -> None:
            if not context.share.enter(address):
                context.stats.fault("too many from one address")
                refuse_client(sock)
                return
            context.stats.accepted += 1
            if self._certificates is None:
                Relay(context, sock, address, b"http")
                return
            try:
                wrapped = self._certificates.wrap(sock)
            except OSError:
                # The peer has gone already.
                context.share.leave(address)
                sock.close()
                return
            Relay(context, wrapped, address, b"https")  # type: ignore[arg-type]

        self._listeners.append(Listener(context.loop, listening, accept, has_room))

    # -- the table -------------------------------------------------------------------------

    def publish(self, added: list[Route], removed: list[bytes], done: Callable[[], None]) -> None:
        done()  # the loops read the table itself

    def refresh(self, done: Callable[[], None]) -> None:
        done()

    def tally(self) -> Tally:
        return add_up([context.stats.tally() for context in self.contexts])

    def close_tunnels(self, path: bytes, done: Callable[[int], None]) -> None:
        self._on_each(
            lambda context: close_tunnels(context, path), lambda counts: done(sum(counts))
        )

    def _on_each(
        self, function: Callable[[Context], int], done: Callable[[list[int]], None]
    ) -> None:
        """Run ``function`` in every loop and call ``done`` with what it returned."""
        results: list[int] = []

        def gather(result: int) -> None:
            results.append(result)
            if len(results) == len(self.contexts):
                done(results)

        for context in self.contexts:

            def call(context: Context = context) -> None:
                result = function(context)
                self.control.call(lambda: gather(result))

            context.loop.call(call)

    # -- the end ---------------------------------------------------------------------------

    def retire(self, done: Callable[[], None]) -> None:
        def leave(context: Context) -> int:
            context.is_draining = True
            for listener in self._listeners:
                if listener.loop is context.loop:
                    listener.close()
            return 0

        def left(_: list[int]) -> None:
            # No loop polls them any more; who connects now is refused by the system.
            for listener in self._listeners:
                listener.sock.close()
            self._when_empty(done)

        self._on_each(leave, left)

    def drain(self, done: Callable[[], None]) -> None:

        def leave(context: Context) -> int:
            close_tunnels(context, None)
            close_idle(context)
            return 0

        self.retire(done)
        self._on_each(leave, lambda _: None)

    def _when_empty(self, done: Callable[[], None]) -> None:
        def look() -> None:
            if any(context.connections for context in self.contexts):
                self.control.sweep_within(CHECK_SECONDS)
            else:
                self.control.on_sweep.remove(look)
                done()

        self.control.on_sweep.append(look)
        self.control.sweep_within(0)


def add_up(tallies: list[Tally]) -> Tally:
    """Return the sums of several tallies."""
    total: Tally = {}
    for tally in tallies:
        for name, value in tally.items():
            total[name] = total.get(name, 0) + value
    return total


def lasting(tally: Tally) -> Tally:
    """Return what of a tally remains when its process has ended."""
    return {name: value for name, value in tally.items() if name not in GAUGES}


def usage(route: Route) -> dict[str, float]:
    """Return what all loops together saw on a route; seconds, bytes and counts."""
    total: dict[str, float] = dict.fromkeys(
        ("requests", "tunnels", "errors", "bytes_in", "bytes_out", "latency_s", "slowest_s"), 0
    )
    for counters in list(route.counters.values()):
        total["requests"] += counters.requests
        total["tunnels"] += counters.tunnels
        total["errors"] += counters.errors
        total["bytes_in"] += counters.bytes_in
        total["bytes_out"] += counters.bytes_out
        total["latency_s"] += counters.latency
        total["slowest_s"] = max(total["slowest_s"], counters.slowest)
    return total


def default_threads() -> int:
    """Return how many loop threads are of use: one, or the cores where Python has no GIL."""
    is_locked = getattr(sys, "_is_gil_enabled", lambda: True)()
    if is_locked:
        return 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
