"""Handing over to a new process: an upgrade without a lost request or a cut tunnel.

Rules of this file: the new process is the same command line. It inherits the listening sockets,
gets the whole route table, and says when it serves; only then does the old one stop accepting.
If that does not come about in time the new process is ended and the old one goes on. The old
process stays until its last tunnel has ended, and reports what it counts to the new one.

Threads: the control thread.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable

from minihub.errors import ProxyError
from minihub.proxy import log
from minihub.proxy.channel import Channel, Message
from minihub.proxy.fleet import DataPath, Tally, add_up, lasting
from minihub.proxy.loop import FOREVER, Loop, describe_error
from minihub.proxy.report import load_routes, merge
from minihub.proxy.routes import Route, RouteTable

#: Where the new process finds the descriptors it inherits.
ENVIRONMENT = "MINIHUB_PROXY_HANDOVER"
#: How long the new process may take until it serves.
READY_SECONDS = 10.0

SocketGroups = dict[str, list[socket.socket]]


class Inheritance:
    """What a new process gets from the old one: sockets, and a channel with the table."""

    def __init__(self, groups: SocketGroups, sock: socket.socket) -> None:
        self.groups = groups
        self.sock = sock
        self.table = self._read_table()

    def _read_table(self) -> Message:
        """Wait for the old process's table. Raises ProxyError."""
        self.sock.settimeout(READY_SECONDS)
        try:
            self.sock.sendall(_frame({"op": "hello"}))
            size = int.from_bytes(self._read(4), "big")
            return json.loads(self._read(size))
        except (OSError, ValueError) as exc:
            raise ProxyError(f"the old process did not hand over: {exc}") from exc

    def _read(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            piece = self.sock.recv(count - len(data))
            if not piece:
                raise OSError("it has ended")
            data += piece
        return bytes(data)


def _frame(message: Message) -> bytes:
    data = json.dumps(message).encode()
    return len(data).to_bytes(4, "big") + data


def is_successor() -> bool:
    """Return whether an old process has started this one to hand over to it."""
    return ENVIRONMENT in os.environ


def take_over() -> Inheritance:
    """Return what this process inherits. Raises ProxyError."""
    text = os.environ.pop(ENVIRONMENT)
    try:
        facts = json.loads(text)
        groups = {
            name: [socket.socket(fileno=number) for number in numbers]
            for name, numbers in facts["sockets"].items()
        }
        channel = socket.socket(fileno=facts["channel"])
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ProxyError(f"{ENVIRONMENT} is only set by a proxy that hands over: {exc}") from exc
    for group in groups.values():
        for sock in group:
            sock.setblocking(False)
            os.set_inheritable(sock.fileno(), False)
    os.set_inheritable(channel.fileno(), False)
    return Inheritance(groups, channel)


class Lineage(DataPath):
    """Those who serve: this process, and the one before it while that still has tunnels."""

    def __init__(self, table: RouteTable, fleet: DataPath) -> None:
        self._table = table
        self._fleet = fleet
        self._predecessor: Channel | None = None
        self._inherited: Tally = {}
        self._on_alone: Callable[[], None] = lambda: None

    @property
    def has_predecessor(self) -> bool:
        """Return whether the process before this one still serves tunnels."""
        return self._predecessor is not None

    def inherit(self, loop: Loop, inheritance: Inheritance, on_alone: Callable[[], None]) -> None:
        """Take the table over; ``on_alone`` is called when the old process has ended."""
        # What is handed over is the truth, also of the default target.
        self._table.clear()
        load_routes(self._table, inheritance.table["routes"])
        self._take_report(inheritance.table)
        self._on_alone = on_alone
        self._predecessor = Channel(loop, inheritance.sock, self._on_message, self._on_end)

    def tell(self, message: Message) -> None:
        """Send a message to the old process, if there is one."""
        if self._predecessor is not None:
            self._predecessor.tell(message)

    def _on_message(self, message: Message) -> None:
        if message.get("op") == "report":
            self._take_report(message)

    def _take_report(self, report: Message) -> None:
        tally = report.get("tally")
        if isinstance(tally, dict):
            self._inherited = tally
        merge(self._table, "predecessor", report)

    def _on_end(self) -> None:
        self._predecessor = None
        self._inherited = lasting(self._inherited)
        log.info("The process before this one has ended")
        self._on_alone()

    def publish(self, added: list[Route], removed: list[bytes], done: Callable[[], None]) -> None:
        # The old process accepts no requests any more: its table does not matter.
        self._fleet.publish(added, removed, done)

    def refresh(self, done: Callable[[], None]) -> None:
        def merged(answer: Message | None) -> None:
            if answer is not None:
                self._take_report(answer)
            self._fleet.refresh(done)

        if self._predecessor is None:
            self._fleet.refresh(done)
        else:
            self._predecessor.ask({"op": "report"}, merged)

    def tally(self) -> Tally:
        return add_up([self._inherited, self._fleet.tally()])

    def close_tunnels(self, path: bytes, done: Callable[[int], None]) -> None:
        def closed(answer: Message | None) -> None:
            before = int(str(answer["closed"])) if answer is not None else 0
            self._fleet.close_tunnels(path, lambda count: done(before + count))

        if self._predecessor is None:
            self._fleet.close_tunnels(path, done)
        else:
            self._predecessor.ask({"op": "tunnels", "path": path.decode()}, closed)


class Successor:
    """The new process as the old one knows it.

    ``freeze`` is called when the table is about to go over, and must return it; ``done`` with
    True when the new process serves, with False when it does not and never will.
    """

    def __init__(
        self,
        loop: Loop,
        groups: SocketGroups,
        freeze: Callable[[], Message],
        done: Callable[[bool], None],
        on_message: Callable[[Message], None],
    ) -> None:
        """Start the new process. Raises ProxyError."""
        import subprocess

        self._freeze = freeze
        self._done = done
        self._on_request = on_message
        self.is_serving = False
        ours, theirs = socket.socketpair()
        numbers = {name: [sock.fileno() for sock in group] for name, group in groups.items()}
        facts = {"channel": theirs.fileno(), "sockets": numbers}
        inherited = [theirs.fileno(), *(number for group in numbers.values() for number in group)]
        try:
            # The interpreter may have been called by a name that depends on PATH.
            self._process = subprocess.Popen(
                [sys.executable, *sys.orig_argv[1:]],
                env={**os.environ, ENVIRONMENT: json.dumps(facts)},
                pass_fds=inherited,
                start_new_session=True,
            )
        except OSError as exc:
            ours.close()
            raise ProxyError(f"cannot start a new process: {describe_error(exc)}") from exc
        finally:
            theirs.close()
        self.pid = self._process.pid
        self.channel = Channel(loop, ours, self._on_message, self._on_end)
        self.channel.deadline = loop.now + READY_SECONDS

    def _on_message(self, message: Message) -> None:
        op = message.get("op")
        if op == "hello":
            self.channel.tell(self._freeze())
        elif op == "ready" and not self.is_serving:
            self.is_serving = True
            self.channel.deadline = FOREVER
            self._done(True)
        elif self.is_serving:
            self._on_request(message)

    def _on_end(self) -> None:
        if self.is_serving:
            return
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        log.error(f"the new process (pid {self.pid}) did not become ready; going on")
        self._done(False)
