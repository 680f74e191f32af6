"""A relay without a network: bytes go in at both ends, in any pieces, and are judged by h11.

Rules of this file: client, relay and target are the real code on sockets that only exist in
memory; the loop runs when told. h11 reads what the target gets and what the client gets.
"""

from __future__ import annotations

import mmap
import random
from collections import deque
from collections.abc import Callable, Iterable

import h11

from minihub.proxy.context import Context, Settings
from minihub.proxy.limits import Limits
from minihub.proxy.loop import BIG_READ, READ, WRITE, Connection
from minihub.proxy.options import parse
from minihub.proxy.relay import Relay
from minihub.proxy.resolver import Resolver
from minihub.proxy.routes import RouteTable, Target
from minihub.proxy.upstream import Upstream

TARGET = "http://127.0.0.1:1"


class FakeSocket:
    """One end of a connection: ``incoming`` is read, ``sent`` is what was written."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.incoming: deque[bytes] = deque()
        self.sent = bytearray()
        self.has_eof = False
        self.is_closed = False
        self.is_shut = False
        self.room: int | None = None

    def fileno(self) -> int:
        return self.fd

    def recv(self, size: int, flags: int = 0) -> bytes:
        if not self.incoming:
            if self.has_eof:
                return b""
            raise BlockingIOError
        data = self.incoming.popleft()
        if len(data) > size:
            self.incoming.appendleft(data[size:])
        return data[:size]

    def recv_into(self, buffer: memoryview, size: int) -> int:
        data = self.recv(size)
        buffer[: len(data)] = data
        return len(data)

    def send(self, data: bytes | memoryview) -> int:
        if self.is_shut or self.is_closed:
            raise BrokenPipeError
        count = len(data) if self.room is None else min(self.room, len(data))
        if not count:
            raise BlockingIOError
        self.sent += data[:count]
        if self.room is not None:
            self.room -= count
        return count

    def shutdown(self, how: int) -> None:
        self.is_shut = True

    def setsockopt(self, *args: object) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True


class FakePoller:
    """Knows the interest of each descriptor."""

    def __init__(self) -> None:
        self.masks: dict[int, int] = {}

    def register(self, fd: int, mask: int) -> None:
        assert fd not in self.masks
        self.masks[fd] = mask

    def modify(self, fd: int, mask: int) -> None:
        assert fd in self.masks
        self.masks[fd] = mask

    def unregister(self, fd: int) -> None:
        del self.masks[fd]


class FakeLoop:
    """A loop that runs when told."""

    def __init__(self) -> None:
        self.name = "test"
        self.now = 100.0
        self.connections: dict[int, Connection] = {}
        self.poller = FakePoller()
        self.doomed: list[FakeSocket] = []
        self.soon: deque[Callable[[], object]] = deque()
        self.buffer = memoryview(mmap.mmap(-1, BIG_READ))
        self.sweep_every = 1.0

    def sweep_within(self, seconds: float) -> None:
        pass

    def date_line(self) -> bytes:
        return b""

    def forget(self, connection: Connection, is_closing: bool = False) -> None:
        if self.connections.get(connection.fd) is connection:
            del self.connections[connection.fd]
        if connection.mask:
            connection.mask = 0
            self.poller.unregister(connection.fd)

    def step(self) -> bool:
        """Give every connection that can do something its turn; return whether any could."""
        busy = False
        for fd, connection in list(self.connections.items()):
            mask = self.poller.masks.get(fd, 0)
            sock: FakeSocket = connection.sock  # type: ignore[assignment]
            ready = 0
            if mask & READ and (sock.incoming or sock.has_eof):
                ready |= READ
            if mask & WRITE and sock.room != 0:
                ready |= WRITE
            if ready:
                busy = True
                connection.on_event(ready)
        while self.soon:
            busy = True
            self.soon.popleft()()
        while self.doomed:
            self.doomed.pop().close()
        return busy


class FakeUpstream(Upstream):
    """An upstream whose connection is there at once, as one more of the bench's targets."""

    __slots__ = ("_bench",)

    def __init__(self, bench: Bench, target: Target) -> None:
        super().__init__(bench.context.pool, target)
        self._bench = bench

    def connect(self) -> None:
        sock = FakeSocket(10 + len(self._bench.targets))
        self._bench.targets.append(sock)
        assert self.pending is not None
        sock.sent += self.pending
        self._attach(sock, len(self.pending))  # type: ignore[arg-type]


class Bench:
    """A client, a relay and one target."""

    def __init__(self, *argv: str, path: str = "/") -> None:
        self.loop = FakeLoop()
        self.table = RouteTable()
        self.table.add(path.encode(), {"target": TARGET})
        settings = Settings(parse(list(argv), {}))
        self.context = Context(
            self.loop, self.table, settings, Resolver(), Limits(0, 0, 1).share(0)
        )  # type: ignore[arg-type]
        self.targets: list[FakeSocket] = []
        self.context.pool.open = self._open  # type: ignore[method-assign]
        self.client = FakeSocket(3)
        self.relay = Relay(self.context, self.client, b"10.0.0.1", b"http")  # type: ignore[arg-type]

    def _open(self, target: Target) -> Upstream:
        return FakeUpstream(self, target)

    def run(self) -> None:
        """Run until nobody can do anything."""
        for _ in range(100_000):
            if not self.loop.step():
                return
        raise AssertionError("the relay spins")

    def feed(self, pieces: Iterable[bytes], react: Callable[[], bool] | None = None) -> None:
        """Let the client send pieces, each seen on its own; ``react`` may answer after each."""
        for piece in pieces:
            self.client.incoming.append(piece)
            self.run()
            while react is not None and react():
                self.run()

    @property
    def is_over(self) -> bool:
        """Return whether the relay has ended its side of the client's connection."""
        return self.client.is_closed or self.client.is_shut


class Player:
    """Plays the target of a Bench: reads requests with h11, answers each with ``answer``."""

    def __init__(
        self, bench: Bench, answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    ):
        self.bench = bench
        self.answer = answer
        self.requests: list[tuple[bytes, bytes, dict[bytes, bytes], bytes]] = []
        self._readers: list[h11.Connection] = []
        self._read: list[int] = []
        self._open: dict[int, tuple[h11.Request, bytes]] = {}

    def react(self) -> bool:
        """Read what has come and answer what is complete; return whether anything was."""
        before = len(self.requests)
        for index, sock in enumerate(self.bench.targets):
            if index == len(self._readers):
                self._readers.append(h11.Connection(h11.SERVER))
                self._read.append(0)
            reader = self._readers[index]
            data = bytes(sock.sent[self._read[index] :])
            if not data:
                continue
            self._read[index] += len(data)
            reader.receive_data(data)
            while True:
                event = reader.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    break
                if isinstance(event, h11.Request):
                    self._open[index] = (event, b"")
                elif isinstance(event, h11.Data):
                    request, body = self._open[index]
                    self._open[index] = (request, body + bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    request, body = self._open.pop(index)
                    self.requests.append(
                        (request.method, request.target, dict(request.headers), body)
                    )
                    sock.incoming.append(self.answer)
                    reader.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                    reader.send(h11.EndOfMessage())
                    reader.start_next_cycle()
        return len(self.requests) > before


def read_responses(data: bytes, methods: list[bytes], is_over: bool) -> list[tuple[int, bytes]]:
    """Return (status, body) of the responses in ``data``, read by h11 as a strict client."""
    found: list[tuple[int, bytes]] = []
    for method in methods:
        if not data:
            break
        reader = h11.Connection(h11.CLIENT)
        reader.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
        reader.send(h11.EndOfMessage())
        reader.receive_data(data)
        if is_over:
            reader.receive_data(b"")
        status, body = 0, b""
        while True:
            event = reader.next_event()
            assert event is not h11.NEED_DATA, data
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
        found.append((status, body))
        data = reader.trailing_data[0]
    assert not data, data
    return found


def cuts(data: bytes, seed: int) -> dict[str, list[bytes]]:
    """Return ``data`` whole, by line, by byte and at random places."""
    dice = random.Random(seed)
    places = sorted({dice.randrange(len(data) + 1) for _ in range(max(2, len(data) // 12))})
    random_pieces = [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
    return {
        "whole": [data],
        "lines": data.splitlines(keepends=True),
        "bytes": [data[index : index + 1] for index in range(len(data))],
        "random": [piece for piece in random_pieces if piece],
    }
