"""How many servers there may be, and how much memory each may count on.

Rules of this file: it counts and refuses, and starts or ends nothing. The numbers are exact: the
hub asks while it holds its registry.

Threads: any. The promises of memory are guarded by a leaf lock.
Sources: JupyterHub 6, the text of its refusals and the time to try again.
"""

from __future__ import annotations

import logging
import math
import os
import random
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from . import cpu, machine, metrics, rlimits, usage
from .errors import BadRequest, SpawnError, TooMany
from .local import LocalProcessSpawner
from .server import Server, State
from .texts import Number, Text

log = logging.getLogger("minihub.limits")

#: When to try again after a refusal that only the end of somebody's server can lift.
FULL_RETRY_S = 120


#: Why a start was refused, by its name in the metrics.
_WHY = {
    "throttled": "are starting (JupyterHub.concurrent_spawn_limit)",
    "too-many-users": "are active (JupyterHub.active_server_limit)",
}


class TooLittleMemory(SpawnError):
    """Raised when a server's guarantee of memory cannot be given now."""

    status = 429

    def __init__(self, wanted: int, free: int) -> None:
        self.headers = {"Retry-After": str(FULL_RETRY_S)}
        super().__init__(
            Text(
                "This machine has too little memory left for another server: %(wanted)s are "
                "needed and %(free)s are free. Try again in a few minutes.",
                wanted=size(wanted),
                free=size(max(free, 0)),
            )
        )


def size(count: int) -> Text:
    """Return a number of bytes for people, such as ``1.5 GB`` (powers of 1024)."""
    for power, unit in ((3, "GB"), (2, "MB"), (1, "kB")):
        if count >= 1024**power:
            number = count / 1024**power
            rounded = Number(f"{number:.0f}" if number >= 100 else f"{number:.3g}")
            return Text("%(number)s %(unit)s", number=rounded, unit=unit)
    return Text("%(count)s bytes", count=count)


# -- numbers of servers --------------------------------------------------------------------


class Refused(TooMany):
    """Raised when no further server may start; ``reason`` as the metrics name it."""

    def __init__(self, message: str, *, reason: str, count: int, retry_after_s: int) -> None:
        self.reason = reason
        self.count = count
        super().__init__(message, retry_after_s=retry_after_s)


def check_counts(active: Collection[Server], options: Any) -> None:
    """Raise Refused when no further server may start.

    ``active`` are all servers that are not stopped: a stopping one counts as active, and one
    that is starting also for the number that may start at once.
    """
    limit = options.concurrent_spawn_limit
    starting = sum(server.state is State.SPAWNING for server in active)
    if limit and starting >= limit:
        retry_s = int(random.uniform(*options.spawn_throttle_retry_range))
        raise Refused(
            Text(
                "Too many users trying to log in right now. Try again in %(time)s.",
                time=_roughly(retry_s),
            ),
            reason="throttled",
            count=starting,
            retry_after_s=retry_s,
        )
    limit = options.active_server_limit
    if limit and len(active) >= limit:
        raise Refused(
            Text("Active user limit exceeded. Try again in a few minutes."),
            reason="too-many-users",
            count=len(active),
            retry_after_s=FULL_RETRY_S,
        )


@dataclass(frozen=True)
class NamedRoom:
    """Whether a user may have one more named server (``named_server_limit_per_user``).

    ``names`` are those the database knew a moment ago; what began to start since then is asked of
    the registry, by whoever holds it.
    """

    user_name: str
    limit: int
    names: frozenset[str]

    def check(self, name: str, active: Iterable[str] = ()) -> None:
        """Raise BadRequest when ``name`` would be one too many, beside the ``active`` servers."""
        taken = (self.names | set(active)) - {""}
        if name not in taken and 0 < self.limit <= len(taken):
            raise BadRequest(
                Text(
                    "User %(name)s already has the maximum of %(limit)s named servers.  One "
                    "must be deleted before a new server can be created",
                    name=self.user_name,
                    limit=self.limit,
                )
            )


@contextmanager
def noted() -> Iterator[None]:
    """Log and count a refusal within the block, when its locks have been released."""
    try:
        yield
    except Refused as refusal:
        log.warning("%d servers %s: a start was refused", refusal.count, _WHY[refusal.reason])
        metrics.observe(
            "server_spawn_duration_seconds", 0.0, status="failure", reason=refusal.reason
        )
        raise


def _roughly(seconds: int) -> str:
    """Return a time for people: tens of seconds, or from a minute and a half on minutes."""
    if seconds <= 90:
        tens = math.ceil(seconds / 10) * 10
        return Text("%(count)s seconds", count=tens) if seconds > 0 else Text("a moment")
    return Text("%(count)s minutes", count=round(seconds / 60))


class Failures:
    """Starts that failed in a row (``Spawner.consecutive_failure_limit``)."""

    def __init__(self, give_up: Callable[[], None]) -> None:
        self._give_up = give_up
        self._lock = threading.Lock()
        self._count = 0

    def note_success(self) -> None:
        self._count = 0

    def note_failure(self, limit: int) -> None:
        """Count a failed start; at ``limit`` (0 for none) the hub gives up, once."""
        with self._lock:
            self._count += 1
            count = self._count
        if not limit:
            return
        if count == limit:
            log.critical("%d starts failed in a row: the hub ends", count)
            self._give_up()
        elif 1 < count < limit:
            log.warning("%d starts failed in a row; after %d the hub ends", count, limit)


class UsualTime:
    """How long starts take here, from the latest ones that went well."""

    def __init__(self) -> None:
        self._latest: deque[float] = deque(maxlen=50)

    def note(self, took_s: float) -> None:
        self._latest.append(took_s)

    @property
    def seconds(self) -> float | None:
        """The middle one of the latest; None before the first."""
        latest = sorted(self._latest)
        return latest[len(latest) // 2] if latest else None


# -- promised memory -----------------------------------------------------------------------


class Promises:
    """The memory that servers were promised (``Spawner.mem_guarantee``) and do not use yet."""

    def __init__(
        self,
        servers: Callable[[], Iterable[Server]],
        free: Callable[[], int] = machine.free_memory_bytes,
    ) -> None:
        """``servers`` returns the active servers."""
        self._servers = servers
        self._free = free
        self._lock = threading.Lock()
        self._given: dict[Server, int] = {}

    def give(self, server: Server, wanted: int | None) -> None:
        """Promise memory to a server that is starting. Raises TooLittleMemory.

        What others were promised and do not use counts as taken.
        """
        if not wanted:
            return
        others = [one for one in self._servers() if one is not server]
        used = _used(others)
        free = self._free()
        with self._lock:
            active = {*others, server}
            self._given = {one: given for one, given in self._given.items() if one in active}
            for one in others:
                free -= max(0, self._promised(one) - used.get(one, 0))
            if free < wanted:
                raise TooLittleMemory(wanted, free)
            self._given[server] = wanted

    def _promised(self, server: Server) -> int:
        given = self._given.get(server)
        if given is None and server.ready:  # found running by this hub
            given = server.spawner.mem_guarantee
        return given or 0


def _used(servers: Iterable[Server]) -> dict[Server, int]:
    """Return what these servers use, where that can be seen."""
    trees = {server: tree for server in servers if (tree := tree_of(server)) is not None}
    found = usage.of(list(trees.values()))
    return {server: use.rss_bytes for server, use in zip(trees, found, strict=True)}


def is_here(spawner: Any) -> bool:
    """Return whether a spawner's server runs on this machine, as processes of ours."""
    return isinstance(spawner, LocalProcessSpawner)


def tree_of(server: Server) -> Any:
    """Return the process of a server of this machine; None without one."""
    return server.spawner.tree if is_here(server.spawner) else None


# -- what this machine cannot hold ---------------------------------------------------------


def missing(spawner: Any) -> Iterator[str]:
    """Yield what of the limits and guarantees of ``spawner`` is not held here, as sentences."""
    names = ("mem_limit", "mem_guarantee", "cpu_limit", "cpu_guarantee")
    given = [name for name in names if getattr(spawner, name)]
    if is_here(spawner):
        shared = not spawner.changes_user or os.geteuid() != 0
        yield from rlimits.missing(spawner.rlimits, is_shared=shared)
    if not given:
        return
    if not is_here(spawner):
        options = ", ".join(f"Spawner.{name}" for name in given)
        yield f"{options}: only told to the server; {type(spawner).__name__} has to hold it"
        return
    if spawner.mem_limit and not usage.shares_are_known():
        yield (
            "Spawner.mem_limit: this system does not tell how memory is shared, so what several "
            "processes of a server share counts for each of them"
        )
    yield from cpu.missing(spawner.cpu_limit, spawner.cpu_guarantee)
