"""What one process of a proxy tells another of its routes: the table, activity and counters.

Rules of this file: a report holds absolute numbers and replaces the sender's last one, so losing
one loses nothing. Readings of the monotonic clock are the same in all processes of a machine.

Threads: the control thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from minihub.proxy.channel import Message
from minihub.proxy.fleet import Tally, usage
from minihub.proxy.routes import Route, RouteTable

_FIELDS = ("requests", "tunnels", "errors", "bytes_in", "bytes_out", "latency_s", "slowest_s")


class Reporter:
    """Makes reports of what has changed since the last one."""

    def __init__(self, table: RouteTable, tally: Callable[[], Tally]) -> None:
        self._table = table
        self._tally = tally
        self._last_tally: Tally = {}
        self._sent: dict[bytes, tuple[float, float, float]] = {}

    def make(self) -> Message:
        """Return a report; it is empty when nothing has changed."""
        report: Message = {}
        tally = self._tally()
        if tally != self._last_tally:
            self._last_tally = tally
            report["tally"] = tally
        active: dict[str, float] = {}
        used: dict[str, list[float]] = {}
        sent: dict[bytes, tuple[float, float, float]] = {}
        for route in self._table.snapshot:
            if not route.counters:
                continue  # nothing has happened on it here
            total = usage(route)
            state = (route.active, total["requests"], total["bytes_in"] + total["bytes_out"])
            sent[route.path] = state
            if state != self._sent.get(route.path):
                path = route.path.decode()
                active[path] = route.active
                used[path] = [total[name] for name in _FIELDS]
        self._sent = sent
        if active:
            report["active"] = active
            report["usage"] = used
        return report


def merge(table: RouteTable, source: str, report: Message) -> None:
    """Bring the routes up to date by a report; ``source`` names its sender."""
    active = report.get("active") or {}
    used = report.get("usage") or {}
    assert isinstance(active, dict) and isinstance(used, dict)
    for path, moment in active.items():
        route = table.get(path.encode())
        # A route that was posted anew begins anew.
        if route is not None and moment > route.active:
            route.active = moment
    for path, values in used.items():
        route = table.get(path.encode())
        if route is not None:
            counters = route.counters_of(source)
            counters.requests, counters.tunnels, counters.errors = map(int, values[:3])
            counters.bytes_in, counters.bytes_out = map(int, values[3:5])
            counters.latency, counters.slowest = values[5:]


def dump_routes(routes: Iterable[Route]) -> list[object]:
    """Return routes as they go into a message."""
    return [[route.path.decode(), route.target.text, route.data, route.active] for route in routes]


def load_routes(table: RouteTable, entries: object) -> None:
    """Add routes that came in a message, with their activity."""
    assert isinstance(entries, list)
    added = table.add_many(
        (path.encode(), {**data, "target": target}) for path, target, data, _ in entries
    )
    for route, entry in zip(added, entries, strict=True):
        route.active = entry[3]
