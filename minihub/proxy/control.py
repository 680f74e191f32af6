"""The REST API: ``/api/routes`` as configurable-http-proxy has it, and two resources more.

Rules of this file: it changes the route table and closes tunnels, nothing else. Order of checks,
status codes and texts are the reference's; a POST's body is read before the token is looked at.

Additions: ``POST /api/routes`` with ``{"routes": {path: {"target": ..., ...}, ...}}`` adds many
routes in one step, all or none. ``DELETE /api/tunnels/<path>`` closes the tunnels opened on a
route, ``{"closed": n}``. ``GET /api/stats`` shows what was counted, for each route and in all.

Threads: the control thread only.

Sources: configurable-http-proxy 5.x REST API.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime

from minihub import clock
from minihub.errors import ProtocolError
from minihub.proxy import log
from minihub.proxy.answer import Answer, Reply, Request
from minihub.proxy.fleet import DataPath, usage
from minihub.proxy.routes import RouteTable, clean_path, percent_decode

_JSON = b"application/json"
#: Dates that ISO 8601 may leave incomplete: ``2026`` and ``2026-05``.
_YEAR_OR_MONTH = re.compile(r"[0-9]{4}(-[0-9]{2})?")
_TOKEN = re.compile(r"token\s+(\S+)")


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
#: Added routes that are named in the log, of one request.
MAX_LOGGED = 10

Method = Callable[[Request, bytes, Reply], None]


class Api:
    """Answers requests to ``/api/routes``.

    ``counts`` counts answers by status, ``changes`` the three kinds of successful calls.
    """

    def __init__(self, table: RouteTable, data_path: DataPath, auth_token: str) -> None:
        self.table = table
        self.data_path = data_path
        self._auth_token = auth_token
        self.counts: dict[int, int] = {}
        self.changes = {"get": 0, "add": 0, "delete": 0}
        self._resources: dict[bytes, dict[str, Method]] = {
            b"/api/routes": {"GET": self._get, "POST": self._post, "DELETE": self._delete},
            b"/api/tunnels": {"DELETE": self._delete_tunnels},
            b"/api/stats": {"GET": self._get_stats},
        }

    def dump_counts(self) -> dict[str, object]:
        """Return the counters for the process that takes over."""
        return {"statuses": list(self.counts.items()), "changes": self.changes}

    def load_counts(self, dumped: object) -> None:
        """Go on with the counters of the process before this one."""
        assert isinstance(dumped, dict)
        self.counts = {int(status): int(count) for status, count in dumped["statuses"]}
        self.changes.update(dumped["changes"])

    def may_send_large(self, request: Request) -> bool:
        """Return whether this request may send a large body: strangers may not."""
        return self._is_authorized(request)

    def handle(self, request: Request, reply: Reply) -> None:
        """Answer one request."""

        def logged(answer: Answer) -> None:
            status = answer.status
            self.counts[status] = self.counts.get(status, 0) + 1
            line = log.info if status < 400 else log.warn if status < 500 else log.error
            line(f"{status} {request.method} {request.path.decode('latin-1')} ")
            reply(answer)

        # /api/<resource>[/<path>]
        prefix = b"/".join(request.path.split(b"/", 3)[:3])
        methods = self._resources.get(prefix)
        if methods is None:
            logged(Answer(404, b"Not Found"))
            return
        try:
            path = percent_decode(request.path[len(prefix) :])
            path.decode()
            if b"\0" in path:
                raise ProtocolError("NUL in the path")
        except (ProtocolError, UnicodeDecodeError) as exc:
            logged(Answer(400, f"Bad path: {exc}".encode()))
            return
        method = methods.get(request.method)
        if method is None:
            logged(Answer(405, b"Method not supported"))
        else:
            method(request, path, logged)

    def _is_authorized(self, request: Request) -> bool:
        if not self._auth_token:
            return True
        match = _TOKEN.search(request.authorization)
        return match is not None and _is_same(match.group(1), self._auth_token)

    # -- reading ---------------------------------------------------------------------------

    def _get(self, request: Request, path: bytes, reply: Reply) -> None:
        if self._is_authorized(request):
            self.data_path.refresh(lambda: reply(self._show_routes(request, path)))
        else:
            reply(Answer(403))

    def _show_routes(self, request: Request, path: bytes) -> Answer:
        if path not in (b"", b"/"):
            route = self.table.get(path)
            if route is None:
                return Answer(404)
            return Answer(200, _dump(self.table.describe(route)), _JSON)
        since = None
        query = _parse_query(request.query)
        wanted = query.get("inactiveSince") or query.get("inactive_since")
        if wanted:
            try:
                since = _parse_date(wanted)
            except ValueError:
                text = f"Invalid datestamp '{wanted}' must be ISO8601."
                return Answer(400, text.encode())
        shown = {}
        for route in self.table.snapshot:
            if since is None or self.table.moment(route.active) < since:
                shown[route.path.decode()] = self.table.describe(route)
        self.changes["get"] += 1
        return Answer(200, _dump(shown), _JSON)

    def _get_stats(self, request: Request, path: bytes, reply: Reply) -> None:
        def show() -> None:
            routes = {route.path.decode(): usage(route) for route in self.table.snapshot}
            reply(Answer(200, _dump({"routes": routes, "proxy": self.data_path.tally()}), _JSON))

        if self._is_authorized(request):
            self.data_path.refresh(show)
        else:
            reply(Answer(403))

    # -- changing --------------------------------------------------------------------------

    def _post(self, request: Request, path: bytes, reply: Reply) -> None:
        try:
            data = _DECODER.decode(request.body.decode())
        except (ValueError, RecursionError) as exc:
            reply(Answer(400, f"Body not valid JSON: {exc}".encode()))
            return
        if not self._is_authorized(request):
            reply(Answer(403))
            return
        try:
            added = self.table.add_many(_read_entries(path, data))
        except ValueError as exc:
            reply(Answer(400, str(exc).encode()))
            return
        for route in added[:MAX_LOGGED]:
            log.info(f"Route added {route.path.decode()} -> {route.target.text}")
        if len(added) > MAX_LOGGED:
            log.info(f"... and {len(added) - MAX_LOGGED} more routes added")
        self.changes["add"] += 1
        self.data_path.publish(added, [], lambda: reply(Answer(201)))

    def _delete(self, request: Request, path: bytes, reply: Reply) -> None:
        if not self._is_authorized(request):
            reply(Answer(403))
            return
        route = self.table.remove(path or b"/")
        self.changes["delete"] += 1
        if route is None:
            reply(Answer(404))
            return
        log.info(f"Removing route {clean_path(path).decode()}")
        self.data_path.publish([], [route.path], lambda: reply(Answer(204)))

    def _delete_tunnels(self, request: Request, path: bytes, reply: Reply) -> None:
        if not self._is_authorized(request):
            reply(Answer(403))
            return
        path = clean_path(path or b"/")

        def done(count: int) -> None:
            log.info(f"Closed {count} tunnels of {path.decode()}")
            reply(Answer(200, _dump({"closed": count}), _JSON))

        self.data_path.close_tunnels(path, done)


def _read_entries(path: bytes, data: object) -> list[tuple[bytes, dict[str, object]]]:
    """Return the routes that a POST adds: one, or with ``routes`` at the root many at once.

    Raises ValueError.
    """
    if isinstance(data, dict) and "target" not in data and path in (b"", b"/"):
        routes = data.get("routes")
        if isinstance(routes, dict):
            for name, entry in routes.items():
                if not isinstance(entry, dict) or not isinstance(entry.get("target"), str):
                    raise ValueError(f"{name}: Must specify 'target' as string")
            return [(name.encode("utf-8", "surrogatepass"), routes[name]) for name in routes]
    if not isinstance(data, dict) or not isinstance(data.get("target"), str):
        raise ValueError("Must specify 'target' as string")
    return [(path or b"/", data)]


def _dump(data: object) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()


def _is_same(one: str, other: str) -> bool:
    """Compare without telling by the time taken where the first difference lies."""
    a, b = one.encode("utf-8", "replace"), other.encode("utf-8", "replace")
    difference = len(a) ^ len(b)
    for index in range(len(a)):
        difference |= a[index] ^ b[index % len(b)]
    return difference == 0


def _parse_query(query: bytes) -> dict[str, str]:
    from urllib.parse import parse_qsl

    return dict(parse_qsl(query.decode("latin-1")))


def _parse_date(text: str) -> datetime:
    if _YEAR_OR_MONTH.fullmatch(text.strip()):
        text = f"{text.strip()}-01-01"[:10]
    # A "+" of an offset arrives as a space where the client did not escape it.
    return clock.parse(text.strip().replace(" ", "+") if "T" in text else text)
