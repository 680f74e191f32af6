"""Counters for prometheus and statsd, under configurable-http-proxy's names.

Rules of this file: it reads sums and writes text; the data path knows nothing of it. statsd gets
the differences once a second, in one datagram where they fit.

Threads: the control thread.

Sources: configurable-http-proxy 5.x ``lib/metrics.js`` (names), 3.x (statsd names).
"""

from __future__ import annotations

import os
import socket
import time

from minihub.errors import ProxyError
from minihub.proxy import log
from minihub.proxy.answer import Answer, Reply, Request
from minihub.proxy.control import Api
from minihub.proxy.fleet import DataPath, Tally
from minihub.proxy.loop import describe_error
from minihub.proxy.options import Options

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
MAX_DATAGRAM = 1400


class Metrics:
    """Answers ``GET /metrics``."""

    def __init__(self, api: Api, data_path: DataPath) -> None:
        self._api = api
        self._data_path = data_path
        self._started = time.time()

    def handle(self, request: Request, reply: Reply) -> None:
        """Answer one request."""
        if request.path != b"/metrics":
            reply(Answer(404, b"Not Found"))
        elif request.method not in ("GET", "HEAD"):
            reply(Answer(405, b"Method not supported"))
        else:
            self._data_path.refresh(lambda: reply(Answer(200, self.render(), CONTENT_TYPE)))

    def render(self) -> bytes:
        """Return all metrics in prometheus' text format."""
        tally = self._data_path.tally()
        lines: list[str] = []

        def add(name: str, kind: str, text: str, samples: list[tuple[str, float]]) -> None:
            lines.append(f"# HELP {name} {text}")
            lines.append(f"# TYPE {name} {kind}")
            lines.extend(f"{name}{suffix} {value:.12g}" for suffix, value in samples)

        changes = self._api.changes
        for what in ("get", "add", "delete"):
            name = f"api_route_{what}"
            add(name, "counter", f"Count of API route {what} requests", [("", changes[what])])
        add(
            "find_target_for_req",
            "summary",
            "Summary of find target requests",
            [("_sum", tally.get("lookup_seconds", 0)), ("_count", tally.get("lookups", 0))],
        )
        # An update is one store: it takes no time worth a clock.
        add(
            "last_activity_updating",
            "summary",
            "Summary of last activity updating requests",
            [("_sum", 0), ("_count", tally.get("activities", 0))],
        )
        for what, text in (("ws", "websocket"), ("web", "web")):
            name = f"requests_{what}"
            add(name, "counter", f"Count of {text} requests", [("", tally.get(name, 0))])
        add("requests_proxy", "counter", "Count of proxy requests", _labelled(tally, "status"))
        api = {f"status {status}": count for status, count in self._api.counts.items()}
        add("requests_api", "counter", "Count of API requests", _labelled(api, "status"))
        add("proxy_faults", "counter", "Expected faults of peers", _labelled(tally, "fault"))
        add("proxy_clients", "gauge", "Open client connections", [("", tally.get("clients", 0))])
        add("proxy_tunnels", "gauge", "Open tunnels", [("", tally.get("tunnels", 0))])
        routes = len(self._api.table.snapshot)
        add("proxy_routes", "gauge", "Routes in the table", [("", routes)])
        usage = os.times()
        add(
            "process_cpu_seconds_total",
            "counter",
            "Processor time of the control process",
            [("", usage.user + usage.system)],
        )
        add(
            "process_start_time_seconds",
            "gauge",
            "When the process started, seconds since the epoch",
            [("", self._started)],
        )
        memory = _resident_bytes()
        if memory:
            text = "Resident memory of the control process"
            add("process_resident_memory_bytes", "gauge", text, [("", memory)])
        return ("\n".join(lines) + "\n").encode()


def _labelled(tally: dict[str, float], label: str) -> list[tuple[str, float]]:
    start = label + " "
    return [
        (f'{{{label}="{name.removeprefix(start)}"}}', value)
        for name, value in sorted(tally.items())
        if name.startswith(start)
    ]


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0  # not Linux


class Statsd:
    """Sends what has changed since the last time to a statsd."""

    def __init__(self, api: Api, data_path: DataPath, options: Options) -> None:
        """Look the host up. Raises ProxyError when there is none."""
        self._api = api
        self._data_path = data_path
        self._prefix = options.statsd_prefix
        host, port = options.statsd_host, options.statsd_port
        self._before: Tally = {}
        try:
            family, kind, _, _, self._address = socket.getaddrinfo(
                host.encode("ascii", "replace"), port, type=socket.SOCK_DGRAM
            )[0]
        except OSError as exc:
            raise ProxyError(f"--statsd-host {host}: {describe_error(exc)}") from exc
        self._sock = socket.socket(family, kind)
        self._sock.setblocking(False)

    def tick(self) -> None:
        """Send the changes."""
        self._data_path.refresh(self._send)

    def _send(self) -> None:
        tally = self._data_path.tally()
        now: Tally = {
            "requests.web": tally.get("requests_web", 0),
            "requests.ws": tally.get("requests_ws", 0),
            "find_target_for_req": tally.get("lookups", 0),
            "find_target_for_req ms": 1000 * tally.get("lookup_seconds", 0),
            "last_activity_updating": tally.get("activities", 0),
        }
        for name, value in tally.items():
            if name.startswith("status "):
                now[f"requests.proxy.{name[7:]}"] = value
        for status, count in self._api.counts.items():
            now[f"requests.api.{status}"] = count
        for what, count in self._api.changes.items():
            now[f"api.route.{what}"] = count
        changes = {name: value - self._before.get(name, 0) for name, value in now.items()}
        self._before = now
        lines = []
        spent = changes.pop("find_target_for_req ms")
        found = changes.pop("find_target_for_req")
        if found > 0:
            # One value for all look-ups since the last time, weighted by their number.
            mean = spent / found
            lines.append(f"{self._prefix}.find_target_for_req:{mean:.6f}|ms|@{1 / found:.9f}")
        noted = changes.pop("last_activity_updating")
        if noted > 0:  # no time worth a clock, as in render()
            lines.append(f"{self._prefix}.last_activity_updating:0|ms|@{1 / noted:.9f}")
        lines += [f"{self._prefix}.{name}:{int(n)}|c" for name, n in changes.items() if n > 0]
        datagram = ""
        for line in lines:
            if len(datagram) + len(line) >= MAX_DATAGRAM:
                self._send_datagram(datagram)
                datagram = ""
            datagram += line + "\n"
        if datagram:
            self._send_datagram(datagram)

    def _send_datagram(self, text: str) -> None:
        try:
            self._sock.sendto(text.rstrip("\n").encode(), self._address)
        except OSError as exc:
            log.repeated("statsd", f"statsd: {describe_error(exc)}")

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()
