#!/usr/bin/env python3
"""A class at work: does the hub serve it without an error, and does it stay as small as it was?

Usage: python3 benchmarks/soak_class.py [--seconds N] [--quick] [--save]

Forty people with six WebSockets each, echoing, through the proxy; REST requests all the while; ten
starts and stops of other people's servers a minute. At the end the hub and its proxy must have as
many descriptors and threads as at the beginning, and no more memory than a small allowance, and
nothing may have gone wrong. Then fifty servers start at once, and two hundred people log in within
ten seconds, one after the other as people do. ``GET /hub/api`` is asked twenty times a second
throughout, straight at the hub; of its answers the 99th percentile must come within 100 ms.

All on all cores: hub, proxy, servers, and this program with what it asks. ``--quick`` is a minute,
with a fifth of everything.

Exit code: 0 when every promise is kept, 1 when not.

Threads: one for REST requests, one that asks the API, one that starts and stops, one for the
WebSockets of everybody, and some for a moment.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import re
import selectors
import shutil
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import common
from common import HERE, Failed
from figures import machine
from hubs import SERVICE_TOKEN, Hub, build_minihub
from soak import State, judge

SOCKETS_EACH = 6
STARTS_A_MINUTE = 10
P99_LIMIT_MS = 100.0
LOGIN_LIMIT_S = 10.0
ASK_STEP_S = 0.05
#: Each socket sends so often.
SEND_STEP_S = 1.0
#: How long an echo may take.
ECHO_LIMIT_S = 10.0
#: What allocators may keep of ten minutes' work.
ALLOWANCE_MIB = 8.0
SETTLE_S = 60.0
MASK = b"\x11\x22\x33\x44"
HANDSHAKE = (
    "GET /user/{name}/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\n"
    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class ClassHub(Hub):
    """minihub with servers that echo."""

    def _settings(self, server: list[str]) -> dict[str, dict[str, Any]]:
        settings = super()._settings([*server[:-1], str(HERE / "echo_server.py")])
        settings["JupyterHub"]["last_activity_interval"] = 30
        return settings

    def state(self, which: str) -> State:
        """Return what the ``hub`` or its ``proxy`` holds now."""
        pid = self.program.process.pid
        if which == "proxy":
            facts = json.loads((self.work / "minihub-data" / "proxy.json").read_text())
            pid = facts["pid"]
        pids = common.tree(pid) if which == "proxy" else [pid]
        return State(
            sum(len(os.listdir(f"/proc/{one}/fd")) for one in pids),
            sum(len(os.listdir(f"/proc/{one}/task")) for one in pids),
            self.program.rss_mib(pids),
        )

    def settled(self, which: str, wanted: State | None = None) -> State:
        """Return what it holds when connections that linger are closed."""
        deadline = time.monotonic() + SETTLE_S
        last, since = self.state(which), time.monotonic()
        while time.monotonic() < deadline:
            now = self.state(which)
            if wanted is not None:
                if (now.descriptors, now.threads) == (wanted.descriptors, wanted.threads):
                    return now
            elif (now.descriptors, now.threads) != (last.descriptors, last.threads):
                last, since = now, time.monotonic()
            elif time.monotonic() - since > SETTLE_S / 4:
                return now
            time.sleep(0.5)
        return self.state(which)


class Sockets:
    """Everybody's WebSockets, in one thread: each sends a text now and then and gets it back."""

    def __init__(self, hub: ClassHub, names: list[str], problems: list[str]) -> None:
        self._problems = problems
        self._stopping = threading.Event()
        self._ready = selectors.DefaultSelector()
        self._waiting: dict[socket.socket, tuple[bytes, float]] = {}
        self._seen: dict[socket.socket, bytes] = {}
        self.echoes = 0
        self.slowest_s = 0.0
        self.all: list[socket.socket] = []
        for name in names:
            for _ in range(SOCKETS_EACH):
                client = socket.create_connection(("127.0.0.1", hub.public_port), timeout=30)
                client.sendall(HANDSHAKE.format(name=name).encode())
                head = b""
                while b"\r\n\r\n" not in head:
                    data = client.recv(4096)
                    if not data:
                        raise Failed(f"a WebSocket ended with {head[:60]!r}")
                    head += data
                if not head.startswith(b"HTTP/1.1 101 "):
                    raise Failed(f"a WebSocket was answered {head[:60]!r}")
                self._ready.register(client, selectors.EVENT_READ)
                self._seen[client] = b""
                self.all.append(client)
        self._thread = threading.Thread(target=self._run, name="sockets")
        self._thread.start()

    def _run(self) -> None:
        noise = random.Random(1)
        due = {client: time.monotonic() + noise.uniform(0, SEND_STEP_S) for client in self.all}
        while not self._stopping.is_set():
            for key, _events in self._ready.select(0.05):
                self._receive(key.fileobj)
            now = time.monotonic()
            for client, when in list(due.items()):
                if client not in self._seen:
                    del due[client]
                elif client in self._waiting:
                    if now - self._waiting[client][1] > ECHO_LIMIT_S:
                        self._lose(client, f"an echo did not come within {ECHO_LIMIT_S:g} s")
                elif when <= now:
                    self._send(client, noise.randbytes(noise.randrange(1, 2000)))
                    due[client] = now + SEND_STEP_S * noise.uniform(0.5, 1.5)

    def _send(self, client: socket.socket, body: bytes) -> None:
        size = len(body)
        head = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
        key = int.from_bytes(MASK * (size // 4 + 1), "big")
        padded = body + bytes(len(MASK) * (size // 4 + 1) - size)
        masked = (int.from_bytes(padded, "big") ^ key).to_bytes(len(padded), "big")[:size]
        try:
            client.sendall(b"\x82" + bytes([head[0] | 128]) + head[1:] + MASK + masked)
        except OSError as error:
            self._lose(client, str(error))
            return
        self._waiting[client] = (b"\x82" + head + body, time.monotonic())

    def _receive(self, client: socket.socket) -> None:
        try:
            data = client.recv(65536)
        except OSError as error:
            return self._lose(client, str(error))
        if not data:
            return self._lose(client, "a WebSocket was closed")
        self._seen[client] += data
        wanted, began = self._waiting.get(client, (b"", 0.0))
        if len(self._seen[client]) >= len(wanted):
            if self._seen[client] != wanted:
                return self._lose(client, "an echo was not what was sent")
            self._seen[client] = b""
            del self._waiting[client]
            self.echoes += 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        return None

    def _lose(self, client: socket.socket, why: str) -> None:
        self._problems.append(why)
        self._ready.unregister(client)
        self._seen.pop(client)
        self._waiting.pop(client, None)

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()
        for client in self.all:
            client.close()
        self._ready.close()


class Repeated:
    """Something that a thread does again and again until :meth:`stop`; errors are problems."""

    def __init__(self, work: Callable[[], None], step_s: float, problems: list[str]) -> None:
        self._work = work
        self._step_s = step_s
        self._problems = problems
        self._stopping = threading.Event()
        self.count = 0
        self._thread = threading.Thread(target=self._run, name="repeated")
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.wait(self._step_s):
            try:
                self._work()
                self.count += 1
            except (Failed, OSError, http.client.HTTPException, ValueError) as error:
                self._problems.append(f"{type(error).__name__}: {error}")

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()


class Answers(Repeated):
    """How long ``GET /hub/api`` takes, straight at the hub."""

    def __init__(self, hub: ClassHub, problems: list[str]) -> None:
        self._hub = hub
        self._times_ms: list[float] = []
        super().__init__(self._ask, ASK_STEP_S, problems)

    def _ask(self) -> None:
        began = time.perf_counter()
        request = "GET /hub/api HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n"
        answer = common.exchange(self._hub.hub_port, request.encode())
        self._times_ms.append((time.perf_counter() - began) * 1000)
        if answer[9:12] != b"200":
            raise Failed(f"GET /hub/api was answered {answer[:60]!r}")

    def begin(self) -> None:
        """Forget the times so far."""
        self._times_ms = []

    def p99_ms(self) -> float:
        """Return the 99th percentile since ``begin``."""
        return statistics.quantiles(self._times_ms, n=100)[98]


def public(hub: ClassHub, method: str, path: str, headers: dict[str, str], body: str = "") -> Any:
    """Make a request through the proxy; return (status, headers, text)."""
    connection = http.client.HTTPConnection("127.0.0.1", hub.public_port, timeout=60)
    try:
        connection.request(method, path, body or None, headers)
        response = connection.getresponse()
        return response.status, response.headers, response.read().decode()
    finally:
        connection.close()


def rest(hub: ClassHub, names: list[str]) -> Callable[[], None]:
    """Return what makes one request of many kinds, through the proxy."""
    noise = random.Random(2)
    headers = {"Authorization": f"token {SERVICE_TOKEN}", "Content-Type": "application/json"}

    def ask() -> None:
        name = noise.choice(names)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        method, path, body = noise.choice(
            [
                ("GET", "users", ""),
                ("GET", f"users/{name}", ""),
                ("GET", "info", ""),
                ("GET", "users?state=active&limit=20", ""),
                ("POST", f"users/{name}/activity", json.dumps({"last_activity": now})),
                ("GET", f"users/{name}/tokens", ""),
            ]
        )
        status, _headers, text = public(hub, method, f"/hub/api/{path}", headers, body)
        if status != 200:
            raise Failed(f"{method} {path} was answered {status}: {text[:200]}")

    return ask


def start_and_stop(hub: ClassHub, names: list[str]) -> Callable[[], None]:
    """Return what starts one server and stops it again, a different one each time."""
    turn = iter(range(10**9))

    def once() -> None:
        name = names[next(turn) % len(names)]
        hub.start_server(name)
        hub.stop_server(name)

    return once


def log_in(hub: ClassHub, name: str) -> None:
    """Log somebody in as a browser does: the page, then the form. Raises Failed."""
    _status, headers, text = public(hub, "GET", "/hub/login", {})
    cookies = "; ".join(one.partition(";")[0] for one in headers.get_all("Set-Cookie", []))
    secret = re.search(r'name="_xsrf" value="([^"]+)"', text)
    if not secret:
        raise Failed("the login page has no form")
    form = urlencode({"username": name, "password": "x", "_xsrf": secret[1]})
    sent = {"Cookie": cookies, "Content-Type": "application/x-www-form-urlencoded"}
    status, _headers, text = public(hub, "POST", "/hub/login", sent, form)
    if status != 302:
        raise Failed(f"a login was answered {status}: {text[:200]}")


class Report:
    """What was found, printed as it comes."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self.states: list[dict[str, Any]] = []
        self.problems: list[str] = []

    def note(self, what: str, value: Any, bound: float | None = None) -> None:
        """Keep a figure; one above its bound is a problem."""
        self.facts[what] = round(value, 3) if isinstance(value, float) else value
        shown = f"{value:.1f}" if isinstance(value, float) else f"{value:,}"
        print(f"{what:<44} {shown:>10}" + (f"   (at most {bound:g})" if bound else ""), flush=True)
        if bound is not None and value > bound:
            self.problems.append(f"{what}: {shown}, at most {bound:g}")

    def state(self, when: str, which: str, state: State) -> None:
        self.states.append({"when": when, "which": which} | asdict(state))
        print(f"{when:<12} {which:<6} {state}", flush=True)


def soak(hub: ClassHub, amounts: dict[str, int], report: Report) -> None:
    """Do everything there is to do."""
    names = [f"pupil-{n}" for n in range(amounts["users"])]
    others = [f"guest-{n}" for n in range(10)]
    many = [f"many-{n}" for n in range(amounts["at once"])]
    logins = [f"login-{n}" for n in range(amounts["logins"])]
    hub.add_users([*names, *others, *many, *logins])
    hub.each(names, hub.start_server)
    sockets = Sockets(hub, names, report.problems)
    answers = Answers(hub, report.problems)
    try:
        # What is opened once by each thread, or loaded at its first use, is no leak.
        use_every_thread(hub)
        work_for(hub, names, others, min(30, amounts["seconds"] / 2), report)
        before = {which: hub.settled(which) for which in ("hub", "proxy")}
        for which, state in before.items():
            report.state("before", which, state)
        answers.begin()
        echoes = sockets.echoes
        counts = work_for(hub, names, others, amounts["seconds"], report)
        report.note("seconds of work", amounts["seconds"])
        report.note("WebSockets", len(sockets.all))
        report.note("echoes", sockets.echoes - echoes)
        report.note("slowest echo [s]", sockets.slowest_s, ECHO_LIMIT_S)
        report.note("REST requests", counts[0])
        report.note("starts and stops", counts[1])
        report.note("GET /hub/api at work, p99 [ms]", answers.p99_ms(), P99_LIMIT_MS)
        for which, state in before.items():
            after = hub.settled(which, state)
            report.state("after", which, after)
            found = judge(state, after, ALLOWANCE_MIB)
            report.problems += [f"the {which}'s {text}" for text in found]

        answers.begin()
        took = hub.each(many, hub.start_server)
        report.note(f"{len(many)} servers at once [s]", took)
        report.note("GET /hub/api at many starts, p99 [ms]", answers.p99_ms(), P99_LIMIT_MS)
        hub.each(many, hub.stop_server)

        answers.begin()
        began = time.monotonic()
        pause_s = LOGIN_LIMIT_S * 0.9 / len(logins)

        def log_in_on_time(number: int) -> None:
            time.sleep(max(0.0, began + number * pause_s - time.monotonic()))
            log_in(hub, logins[number])

        with ThreadPoolExecutor(20) as pool:
            list(pool.map(log_in_on_time, range(len(logins))))
        report.note(f"{len(logins)} logins [s]", time.monotonic() - began, LOGIN_LIMIT_S)
        report.note("GET /hub/api at many logins, p99 [ms]", answers.p99_ms(), P99_LIMIT_MS)
    finally:
        answers.stop()
        sockets.close()
    hub.each(names, hub.stop_server)
    if "Traceback" in hub.program.text or " ERROR " in hub.program.text:
        report.problems.append(f"the hub's log tells of errors:\n{hub.program.text[-2000:]}")


def use_every_thread(hub: ClassHub) -> None:
    """Have every thread of the hub's look at all of the database, whose pages it then keeps."""
    for path in ("/users", "/users", "/users?state=active", "/users/pupil-1/tokens") * 3:
        hub.each([path] * 160, lambda one: hub.must(200, "GET", one))


def work_for(
    hub: ClassHub, names: list[str], others: list[str], seconds: float, report: Report
) -> tuple[int, int]:
    """Ask, start and stop for so long; return how many requests and starts there were."""
    requests = Repeated(rest(hub, names), 0.05, report.problems)
    starts = Repeated(start_and_stop(hub, others), 60 / STARTS_A_MINUTE, report.problems)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not report.problems:
        time.sleep(0.2)
    requests.stop()
    starts.stop()
    return requests.count, starts.count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=600, help="how long the class works")
    parser.add_argument("--quick", action="store_true", help="a minute, a fifth of everything")
    parser.add_argument("--save", action="store_true", help="keep the results in results/")
    parser.add_argument("--python", default=sys.executable, help="the Python of the hub")
    parser.add_argument("--minihub", type=Path, help="minihub.pyz; this checkout's unless given")
    arguments = parser.parse_args()
    common.need("taskset")
    common.raise_descriptor_limit()
    amounts = {"users": 40, "at once": 50, "logins": 200, "seconds": arguments.seconds}
    if arguments.quick:
        amounts = {key: value // 5 for key, value in amounts.items()} | {"seconds": 20}
    work = Path(tempfile.mkdtemp(prefix="minihub-soak-"))
    report = Report()
    hub = None
    try:
        minihub = (arguments.minihub or build_minihub()).absolute()
        hub = ClassHub(work, arguments.python, minihub, None)
        hub.start(common.cores())
        soak(hub, amounts, report)
    except (Failed, OSError) as error:
        report.problems.append(str(error))
    finally:
        if hub is not None:
            hub.stop()
        shutil.rmtree(work, ignore_errors=True)
    for line in report.problems[:20]:
        print(f"NOT KEPT: {line}")
    if not report.problems:
        print("Every promise is kept.")
    result = {
        "settings": machine() | amounts,
        "facts": report.facts,
        "states": report.states,
        "problems": report.problems,
    }
    places = [common.CACHE / "soak_class.json"]
    if arguments.save:
        places.append(common.RESULTS / f"soak_class-{result['settings']['date']}.json")
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
