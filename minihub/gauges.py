"""What servers use of the machine now and used over the last hour, for the pages that show it.

Rules of this file: it reads and decides nothing. All servers are looked at together; a look costs
at most a twentieth of one processor, however many servers there are, and looks are rare while
nobody watches. A server's use is that of its whole process tree; processors are counted in whole
ones (1.5 is one and a half).

Threads: one of its own; :meth:`Gauges.of` and the like may be called by any. What a look found is
replaced whole.
"""

from __future__ import annotations

import logging
import threading
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from . import clock, machine, usage, warmpool
from .limits import tree_of
from .server import Server

log = logging.getLogger("minihub.gauges")

#: How often it looks while somebody watches, and while nobody does.
WATCHED_S = 3.0
UNWATCHED_S = 30.0
#: How long somebody who has looked counts as watching.
WATCH_LASTS_S = 60.0
#: The hour: how many points there are, and how far apart.
POINTS = 60
POINT_S = 60.0
REST = 20


@dataclass
class Reading:
    """One server: memory in bytes (RSS), processors in use, number of processes."""

    rss_bytes: int = 0
    cpus: float = 0.0
    processes: int = 0
    _cpu_s: float = 0.0
    _at: float = 0.0
    #: The hour, oldest first: the most memory and the mean of processors in each minute.
    memory: array[float] = field(default_factory=lambda: array("f"))
    load: array[float] = field(default_factory=lambda: array("f"))
    _point_began: float = 0.0
    _point_cpu_s: float = 0.0

    def take(self, use: usage.Usage, now: float) -> None:
        """Note what a look found."""
        cpu_s, rss = use.cpu_s, use.rss_bytes
        passed = now - self._at
        if self._at and passed > 0:
            # Of processes that ended meanwhile the time is gone; it is never less than nothing.
            self.cpus = max(0.0, cpu_s - self._cpu_s) / passed
        self.rss_bytes, self.processes = rss, len(use.members)
        self._cpu_s, self._at = cpu_s, now
        if not self.memory or now - self._point_began >= POINT_S:
            for points in (self.memory, self.load):
                del points[: max(0, len(points) - POINTS + 1)]
                points.append(0.0)
            self._point_began, self._point_cpu_s = now, cpu_s
        self.memory[-1] = max(self.memory[-1], rss)
        spent = now - self._point_began
        self.load[-1] = max(0.0, cpu_s - self._point_cpu_s) / spent if spent > 1 else self.cpus


@dataclass(frozen=True)
class Machine:
    """The whole machine: shares from 0 to 1, sizes in bytes."""

    cpu_count: int
    cpu_share: float
    memory_total: int
    memory_used: int
    disk_total: int
    disk_used: int


class Gauges:
    """Looks at all servers of this machine until :meth:`stop`."""

    def __init__(self, servers: Callable[[], Iterable[Server]], place: str) -> None:
        """``servers`` returns the active ones; ``place`` lies on the disk that is looked at."""
        self._servers = servers
        self._place = place
        self._readings: dict[Server, Reading] = {}
        self._machine: Machine | None = None
        self._warm: warmpool.Summary | None = None
        self._watched_until = 0.0
        self._wanted = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hub-gauges", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._wanted.set()
        self._thread.join(5)

    def watch(self) -> None:
        """Look more often for a while: somebody is watching."""
        asleep = clock.monotonic() > self._watched_until
        self._watched_until = clock.monotonic() + WATCH_LASTS_S
        if asleep:
            self._wanted.set()

    def of(self, server: Server) -> Reading | None:
        """Return what the last look found of a server; None before it, or where nobody can."""
        return self._readings.get(server)

    def machine(self) -> Machine | None:
        """Return what the last look found of the machine; None before it."""
        return self._machine

    def warm(self) -> warmpool.Summary | None:
        """Return what the last look while somebody watched found of warm starts; None before."""
        return self._warm

    def _run(self) -> None:
        while not self._stopping.is_set():
            began = clock.monotonic()
            self._wanted.clear()
            try:
                self.look()
            except Exception:  # the next look may go well
                log.exception("Looking at what servers use failed")
            took = clock.monotonic() - began
            watched = clock.monotonic() < self._watched_until
            pause = max(WATCHED_S if watched else UNWATCHED_S, took * REST)
            self._wanted.wait(pause)

    def look(self) -> None:
        """Look at every server and at the machine once."""
        trees = {one: tree for one in self._servers() if (tree := tree_of(one)) is not None}
        known = self._readings
        fresh = {server: known.get(server) or Reading() for server in trees}
        now = clock.monotonic()
        for server, use in zip(trees, usage.of(list(trees.values())), strict=True):
            fresh[server].take(use, now)
        self._readings = fresh
        self._machine = Machine(**machine.totals(self._place))
        if clock.monotonic() < self._watched_until:
            self._warm = warmpool.summary()
