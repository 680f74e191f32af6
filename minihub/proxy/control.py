"""The REST API for routes, as configurable-http-proxy has it.

Rules of this file: it changes the route table and nothing else. Order of checks, status codes
and texts are the reference's; a POST's body is read before the token is looked at.

Threads: the control thread only.

Sources: configurable-http-proxy 5.x REST API.
"""

from __future__ import annotations

import json
import re
from datetime import datetime

from minihub import clock
from minihub.errors import ProtocolError
from minihub.proxy import log
from minihub.proxy.answer import Answer, Reply, Request
from minihub.proxy.routes import Route, RouteTable, clean_path, percent_decode

_JSON = b"application/json"
_TOKEN = re.compile(r"token\s+(\S+)")
_PREFIX = b"/api/routes"


class Api:
    """Answers requests to ``/api/routes``.

    ``counts`` counts answers by status, ``changes`` the three kinds of successful calls.
    """

    def __init__(self, table: RouteTable, auth_token: str) -> None:
        self.table = table
        self._auth_token = auth_token
        self.counts: dict[int, int] = {}
        self.changes = {"get": 0, "add": 0, "delete": 0}

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

        path = request.path
        if path != _PREFIX and not path.startswith(_PREFIX + b"/"):
            logged(Answer(404, b"Not Found"))
            return
        try:
            path = percent_decode(path[len(_PREFIX) :])
            path.decode()
            if b"\0" in path:
                raise ProtocolError("NUL in the path")
        except (ProtocolError, UnicodeDecodeError) as exc:
            logged(Answer(400, f"Bad path: {exc}".encode()))
            return
        if request.method == "GET":
            logged(self._get(request, path))
        elif request.method == "POST":
            self._post(request, path, logged)
        elif request.method == "DELETE":
            self._delete(request, path, logged)
        else:
            logged(Answer(405, b"Method not supported"))

    def _is_authorized(self, request: Request) -> bool:
        if not self._auth_token:
            return True
        match = _TOKEN.search(request.authorization)
        return match is not None and _is_same(match.group(1), self._auth_token)

    # -- reading ---------------------------------------------------------------------------

    def _get(self, request: Request, path: bytes) -> Answer:
        if not self._is_authorized(request):
            return Answer(403)
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
        for route in self.table.snapshot.routes.values():
            if since is None or self.table.moment(route.active) < since:
                shown[route.path.decode()] = self.table.describe(route)
        self.changes["get"] += 1
        return Answer(200, _dump(shown), _JSON)

    # -- changing --------------------------------------------------------------------------

    def _post(self, request: Request, path: bytes, reply: Reply) -> None:
        try:
            data = json.loads(request.body or b"", parse_constant=_no_constant)
        except (ValueError, RecursionError) as exc:
            reply(Answer(400, f"Body not valid JSON: {exc}".encode()))
            return
        if not self._is_authorized(request):
            reply(Answer(403))
            return
        if not isinstance(data, dict) or not isinstance(data.get("target"), str):
            reply(Answer(400, b"Must specify 'target' as string"))
            return
        try:
            added = self.table.add_many([(path or b"/", data)])
        except ValueError as exc:
            reply(Answer(400, f"Must specify 'target' as string: {exc}".encode()))
            return
        self._log_added(added)
        self.changes["add"] += 1
        reply(Answer(201))

    def _log_added(self, added: list[Route]) -> None:
        for route in added:
            log.info(f"Route added {route.path.decode()} -> {route.target.text}")

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
        reply(Answer(204))


def _dump(data: object) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


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
    # A "+" of an offset arrives as a space where the client did not escape it.
    return clock.parse(text.strip().replace(" ", "+") if "T" in text else text)
