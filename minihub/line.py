"""The line of starts that wait because as many servers run, or start, as may at once.

Rules of this file: it keeps the order and tells each its place; when there is room the first goes
on, as a start of its own. A start that waits is SPAWNING like any other, so it can be cancelled,
and it does not count as one that starts or runs. Without ``JupyterHub.queue_spawns`` nobody waits:
the limits refuse.

Threads: the hub's registry lock is held by whoever calls; nothing here is slow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from . import limits
from .server import Server


class Line:
    """Starts in the order they came."""

    def __init__(self, options: Any, submit: Callable[..., Any]) -> None:
        """``submit`` runs a start in the pool."""
        self._options = options
        self._submit = submit
        self._waiting: dict[Server, Callable[[], None]] = {}

    def must_wait(self, active: Iterable[Server]) -> bool:
        """Return whether a further start has to wait. Raises Refused where nobody waits.

        ``active`` are all servers that are not stopped, those that wait among them.
        """
        if not self._options.queue_spawns:
            limits.check_counts(list(active), self._options)
            return False
        return bool(self._waiting) or not self._has_room(active)

    def _has_room(self, active: Iterable[Server]) -> bool:
        try:
            limits.check_counts([x for x in active if x not in self._waiting], self._options)
        except limits.Refused:
            return False
        return True

    def start(self, server: Server, work: Callable[[], None], *, waits: bool) -> None:
        """Start at once, or take the last place in the line."""
        if waits:
            self._waiting[server] = work
            self._tell()
        else:
            self._submit(work)

    def leave(self, server: Server) -> bool:
        """Give up a place; return whether the server had one."""
        found = self._waiting.pop(server, None) is not None
        server.place = 0
        self._tell()
        return found

    def admit(self, active: Callable[[], Iterable[Server]]) -> None:
        """Start as many of those who wait as there is room for."""
        while self._waiting and self._has_room(active()):
            server = next(iter(self._waiting))
            work = self._waiting.pop(server)
            server.place = 0
            self._submit(work)
            self._tell()

    def _tell(self) -> None:
        for place, server in enumerate(self._waiting, 1):
            if server.place != place:
                server.take_place(place)
