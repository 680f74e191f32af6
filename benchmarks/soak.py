#!/usr/bin/env python3
"""Does the proxy give back what it took? WebSockets to nowhere, dropped tunnels, gigabytes.

Usage: python3 benchmarks/soak.py [--cycles N] [--quick] [--save]

Two cycles of: WebSockets to an upstream that is not there, tunnels opened, used and dropped in
three ways, big bodies down and up. After each the proxy must have as many descriptors and threads
as before the first, and no more memory than a small allowance, which a leak would outgrow.

Exit code: 0 when it gave everything back, 1 when not.

Threads: the main thread.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import struct
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import common
from common import Failed, Program
from figures import machine
from peers import TOKEN

MIB = 2**20
#: What allocators may keep after the first cycle, and after each later one.
FIRST_ALLOWANCE_MIB = 6.0
LATER_ALLOWANCE_MIB = 1.0
#: Connections that idle in a pool or linger are closed within this time.
SETTLE_S = 90.0
AT_ONCE = 200

HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
#: A text message "hello" and a close, both masked with zeros, and the echo of the first.
HELLO = b"\x81\x85\0\0\0\0hello"
GOODBYE = b"\x88\x80\0\0\0\0"
ECHO = b"\x82\x05hello"


@dataclass(frozen=True)
class State:
    """What the proxy holds."""

    descriptors: int
    threads: int
    rss_mib: float

    def __str__(self) -> str:
        return f"{self.descriptors} descriptors, {self.threads} threads, {self.rss_mib:.1f} MiB"


class Soak:
    """The proxy under test and what is done to it."""

    def __init__(self, work: Path, arguments: argparse.Namespace) -> None:
        cores = common.cores()
        self.load = Program([common.build_load(), "serve"], work / "load.log", on=cores)
        upstream_port = int(self.load.wait_text(r"port (\d+)")[1])
        with socket.socket() as dead:
            dead.bind(("127.0.0.1", 0))
            dead_port = dead.getsockname()[1]
        argv = [arguments.python, "-I", "-S", arguments.minihub, "proxy"]
        argv += ["--ip", "127.0.0.1", "--port", "0", "--api-ip", "127.0.0.1", "--api-port", "0"]
        argv += ["--default-target", f"http://127.0.0.1:{upstream_port}"]
        environment = {"CONFIGPROXY_AUTH_TOKEN": TOKEN}
        self.proxy = Program(argv, work / "proxy.log", on=cores, env=environment)
        self.port = int(self.proxy.wait_text(r"Proxying https?://.*:(\d+) to")[1])
        api_port = int(self.proxy.wait_text(r"Proxy API at https?://.*:(\d+)/")[1])
        body = json.dumps({"target": f"http://127.0.0.1:{dead_port}"})
        answer = common.exchange(
            api_port,
            f"POST /api/routes/dead HTTP/1.1\r\nHost: proxy\r\nConnection: close\r\n"
            f"Authorization: token {TOKEN}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode(),
        )
        if answer[9:12] != b"201":
            raise Failed(f"the proxy answered {answer[:60]!r} to a new route")

    def stop(self) -> None:
        self.proxy.stop()
        self.load.stop()

    def state(self) -> State:
        """Return what the proxy, with all its processes, holds now."""
        self.proxy.check()
        pids = self.proxy.pids()
        return State(
            sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids),
            sum(len(os.listdir(f"/proc/{pid}/task")) for pid in pids),
            self.proxy.rss_mib(pids),
        )

    def settle(self, wanted: State | None = None) -> State:
        """Wait until descriptors and threads are those of ``wanted``, or stay as they are."""
        deadline = time.monotonic() + SETTLE_S
        while True:
            state = self.state()
            if time.monotonic() > deadline:
                return state
            if wanted is not None and (state.descriptors, state.threads) == (
                wanted.descriptors,
                wanted.threads,
            ):
                return state
            if wanted is None and state.descriptors <= self.idle_descriptors():
                return state
            time.sleep(0.2)

    def idle_descriptors(self) -> int:
        """Return how many descriptors are no connection: files, listeners, pollers."""
        pid = self.proxy.process.pid
        established = set()
        for name in ("tcp", "tcp6"):
            for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
                words = line.split()
                if words[3] != "0A":  # anything but LISTEN
                    established.add(words[9])
        count = 0
        for number in os.listdir(f"/proc/{pid}/fd"):
            try:
                place = os.readlink(f"/proc/{pid}/fd/{number}")
            except OSError:
                continue
            count += not (place.startswith("socket:[") and place[8:-1] in established)
        return count

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    # -- what is done ----------------------------------------------------------------------

    def dead_sockets(self, count: int) -> None:
        """Ask for WebSockets of an upstream that is not there; each must get 503 and an end."""
        while count > 0:
            batch = [self.connect() for _ in range(min(AT_ONCE, count))]
            for client in batch:
                client.sendall(HANDSHAKE.format(path="/dead/socket").encode())
            for client in batch:
                with client:
                    answer = b""
                    while data := client.recv(4096):
                        answer += data
                    if not answer.startswith(b"HTTP/1.1 503 "):
                        raise Failed(f"a WebSocket to nowhere was answered {answer[:60]!r}")
            count -= len(batch)

    def tunnels(self, count: int) -> State:
        """Open that many tunnels at once, use each, drop them; return what they took."""
        clients = []
        for _ in range(count):
            client = self.connect()
            client.sendall(HANDSHAKE.format(path="/socket").encode() + HELLO)
            clients.append(client)
        for client in clients:
            answer = b""
            while not answer.endswith(ECHO):
                data = client.recv(4096)
                if not data:
                    raise Failed(f"a tunnel ended with {answer[:60]!r}")
                answer += data
        state = self.state()
        for index, client in enumerate(clients):
            if index % 3 == 0:  # the other side ends it
                client.sendall(GOODBYE)
                if client.recv(4096):
                    raise Failed("a tunnel lived on after its upstream had closed it")
            elif index % 3 == 1:  # a reset
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        return state

    def download(self, size: int) -> State:
        """Get a body of ``size`` bytes; return what the proxy held near its end."""
        buffer = memoryview(bytearray(MIB))
        with self.connect() as client:
            client.sendall(f"GET /bytes/{size} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(4096)
            seen = len(head.partition(b"\r\n\r\n")[2])
            state = None
            while seen < size:
                count = client.recv_into(buffer)
                if not count:
                    raise Failed(f"a body of {size} bytes ended after {seen}")
                seen += count
                if state is None and seen > size * 0.9:
                    state = self.state()
        assert state is not None
        return state

    def upload(self, size: int) -> State:
        """Post a body of ``size`` bytes; return what the proxy held near its end."""
        block = bytes(MIB)
        state = None
        with self.connect() as client:
            client.sendall(
                f"POST /sink HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {size}\r\n\r\n".encode()
            )
            for sent in range(0, size, MIB):
                client.sendall(block[: min(MIB, size - sent)])
                if state is None and sent > size * 0.9:
                    state = self.state()
            answer = client.recv(4096)
            if not answer.startswith(b"HTTP/1.1 200 "):
                raise Failed(f"an upload was answered {answer[:60]!r}")
        return state or self.state()


def cycle(soak: Soak, *, dead: int, tunnels: int, size: int) -> dict[str, State]:
    """Do everything once; return what the proxy held at its peaks."""
    soak.dead_sockets(dead)
    return {
        f"with {tunnels:,} tunnels open": soak.tunnels(tunnels),
        f"near the end of {size // MIB:,} MiB down": soak.download(size),
        f"near the end of {size // MIB:,} MiB up": soak.upload(size),
    }


def judge(before: State, after: State, allowance_mib: float) -> list[str]:
    """Return what was not given back."""
    problems = []
    if after.descriptors != before.descriptors:
        problems.append(f"descriptors: {before.descriptors} -> {after.descriptors}")
    if after.threads != before.threads:
        problems.append(f"threads: {before.threads} -> {after.threads}")
    if after.rss_mib > before.rss_mib + allowance_mib:
        problems.append(f"memory: {before.rss_mib:.1f} -> {after.rss_mib:.1f} MiB")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cycles", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--save", action="store_true", help="keep the results in results/")
    parser.add_argument("--python", default=sys.executable, help="the Python of the proxy")
    parser.add_argument(
        "--minihub",
        type=Path,
        default=common.ROOT / "minihub" / "__main__.py",
        help="minihub.pyz, or the __main__.py of a checkout",
    )
    arguments = parser.parse_args()
    common.need("cc", "taskset")
    common.raise_descriptor_limit()
    part = 10 if arguments.quick else 1
    amounts = {"dead": 5000 // part, "tunnels": 2000 // part, "size": 2**30 // part // MIB * MIB}
    work = Path(tempfile.mkdtemp(prefix="minihub-soak-"))
    problems: list[str] = []
    states: list[tuple[str, State]] = []

    def note(what: str, state: State) -> None:
        states.append((what, state))
        print(f"{what:<34} {state}", flush=True)

    soak = None
    try:
        soak = Soak(work, arguments)
        note("started", soak.settle())
        # One of everything first: what is loaded or allocated once is no leak.
        cycle(soak, dead=10, tunnels=10, size=16 * MIB)
        before = began = soak.settle()
        note("warm", before)
        for number in range(1, arguments.cycles + 1):
            for what, state in cycle(soak, **amounts).items():
                note(f"  {what}", state)
            after = soak.settle(began)
            note(f"after cycle {number}", after)
            allowance = FIRST_ALLOWANCE_MIB if number == 1 else LATER_ALLOWANCE_MIB
            found = judge(before, after, allowance)
            problems += [f"cycle {number}: {text}" for text in found]
            before = State(began.descriptors, began.threads, after.rss_mib)
        if "Traceback" in soak.proxy.text:
            problems.append("the proxy's log holds a traceback")
    except (Failed, OSError) as error:
        problems.append(str(error))
    finally:
        if soak is not None:
            soak.stop()
        shutil.rmtree(work, ignore_errors=True)
    for line in problems:
        print(f"NOT GIVEN BACK: {line}")
    if not problems:
        print("Everything was given back.")
    result = {
        "settings": machine() | amounts | {"cycles": arguments.cycles},
        "states": [{"when": what.strip()} | asdict(state) for what, state in states],
        "problems": problems,
    }
    places = [common.CACHE / "soak.json"]
    if arguments.save:
        places.append(common.RESULTS / f"soak-{result['settings']['date']}.json")
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
