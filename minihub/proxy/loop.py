"""A loop thread: readiness events in, calls of connections out; nothing here knows HTTP.

Rules of this file: sockets are non-blocking and, but for tunnels, level-triggered. A connection
stays registered for reading and changes its interest only when one side has to wait for the
other. Sockets are closed after a batch of events is through, so that a descriptor is never reused
within it. One sweep a second looks for connections past their deadline: there are no timers.

Threads: everything belongs to the loop's own thread, except ``call``, ``stop`` and reading
``now``. ``call`` is the only way into a loop from outside.
"""

from __future__ import annotations

import mmap
import os
import select
import socket
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable

from minihub import clock
from minihub.proxy import log

READ = 1  # POLLIN
WRITE = 4  # POLLOUT
#: Interest that is reported once for each change instead of as long as it lasts: EPOLLET, with
#: EPOLLRDHUP and EPOLLPRI so that an end and urgent data show; 0 where there is no epoll.
EDGES = getattr(select, "EPOLLET", 0) and select.EPOLLET | select.EPOLLRDHUP | select.EPOLLPRI
#: Bytes read at once where a head may come, and where a body streams.
SMALL_READ = 65536
BIG_READ = 1048576
#: How often deadlines are looked at, seconds.
SWEEP = 1.0

FOREVER = float("inf")


class _KqueuePoller:
    """The part of ``select.epoll`` that a loop uses, on systems with kqueue."""

    def __init__(self) -> None:
        import selectors

        self._selector = selectors.DefaultSelector()

    def register(self, fd: int, mask: int) -> None:
        self._selector.register(fd, (1 if mask & READ else 0) | (2 if mask & WRITE else 0))

    def modify(self, fd: int, mask: int) -> None:
        self._selector.modify(fd, (1 if mask & READ else 0) | (2 if mask & WRITE else 0))

    def unregister(self, fd: int) -> None:
        self._selector.unregister(fd)

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        found = self._selector.select(timeout)
        return [(key.fd, (mask & 1) | (WRITE if mask & 2 else 0)) for key, mask in found]

    def close(self) -> None:
        self._selector.close()


class Connection(ABC):
    """One descriptor in a loop; the base of everything that gets events.

    ``deadline`` is when the sweep calls :meth:`on_timeout`. ``mask`` is the interest registered
    with the poller; with 0 the descriptor is not registered at all, for a hung-up peer would be
    reported for ever.
    """

    __slots__ = ("loop", "sock", "fd", "mask", "deadline", "closed")

    def __init__(self, loop: Loop, sock: socket.socket, mask: int = READ) -> None:
        self.loop = loop
        self.sock = sock
        self.fd = sock.fileno()
        self.mask = mask
        self.deadline = FOREVER
        self.closed = False
        loop.connections[self.fd] = self
        if mask:
            loop.poller.register(self.fd, mask)

    def want(self, mask: int) -> None:
        """Be called for these events from now on."""
        before = self.mask
        if mask == before or self.closed:
            return
        self.mask = mask
        if not before:
            self.loop.poller.register(self.fd, mask)
        elif not mask:
            self.loop.poller.unregister(self.fd)
        else:
            self.loop.poller.modify(self.fd, mask)

    def release(self) -> socket.socket:
        """Leave the loop and return the open socket, for another object to take over."""
        if not self.closed:
            self.closed = True
            self.loop.forget(self)
        return self.sock

    def close(self) -> None:
        """Close the socket, after this batch of events; a second call does nothing."""
        if not self.closed:
            self.closed = True
            # With its descriptor the poller's interest goes, too: no need to say so before.
            self.loop.forget(self, is_closing=True)
            self.loop.doomed.append(self.sock)

    def close_sockets(self) -> None:
        """Close every descriptor and tell nobody."""
        self.sock.close()

    @abstractmethod
    def on_event(self, mask: int) -> None:
        """Handle readiness; ``mask`` holds READ, WRITE or the poller's error bits."""

    def on_timeout(self) -> None:
        """Handle a deadline that has passed."""
        self.close()

    def on_crash(self) -> None:
        """Clean up after a bug in a handler of this connection."""
        self.close()


class Stream(Connection):
    """A connection that is written to: what the peer does not take at once waits.

    ``pending`` is what waits, None when nothing does. It stays small because whoever produces
    the data stops when told :meth:`on_stuck`.
    """

    __slots__ = ("pending",)

    def __init__(self, loop: Loop, sock: socket.socket, mask: int = READ) -> None:
        super().__init__(loop, sock, mask)
        self.pending: memoryview | None = None

    def send(self, data: bytes | memoryview) -> None:
        """Send, or keep what cannot be sent now; views are copied, so they may be reused."""
        if self.pending is not None:
            self.pending = memoryview(bytes(self.pending) + data)
            return
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.on_broken()
            return
        if sent < len(data):
            self.hold(data, sent)

    def hold(self, data: bytes | memoryview, sent: int) -> None:
        """Keep what follows the first ``sent`` bytes until the peer takes more."""
        self.pending = memoryview(bytes(memoryview(data)[sent:]))
        self.want(self.mask | WRITE)
        self.on_stuck()

    def flush(self) -> None:
        """Send of what waits as much as goes."""
        pending = self.pending
        if pending is None:
            self.want(self.mask & ~WRITE)
            return
        try:
            sent = self.sock.send(pending)
        except BlockingIOError:
            return
        except OSError:
            self.on_broken()
            return
        if sent < len(pending):
            self.pending = pending[sent:]
            self.on_stuck()
        else:
            self.pending = None
            self.want(self.mask & ~WRITE)
            self.on_drained()

    def close(self) -> None:
        self.pending = None
        super().close()

    def on_stuck(self) -> None:
        """Learn that data waits; called again whenever some of it has gone."""

    def on_drained(self) -> None:
        """Learn that nothing waits any more."""

    def on_broken(self) -> None:
        """Learn that the peer takes no more data."""
        self.close()


class _Waker(Connection):
    """The end of a pipe that other threads write to."""

    __slots__ = ("_write_end",)

    def __init__(self, loop: Loop) -> None:
        read_end, self._write_end = socket.socketpair()
        read_end.setblocking(False)
        self._write_end.setblocking(False)
        super().__init__(loop, read_end)

    def wake(self) -> None:
        try:
            self._write_end.send(b"\0")
        except OSError:
            pass  # full: the loop is being woken already; closed: it has ended

    def on_event(self, mask: int) -> None:
        try:
            self.sock.recv(4096)
        except OSError:
            pass

    def close(self) -> None:
        super().close()
        self.loop.doomed.append(self._write_end)

    def close_sockets(self) -> None:
        self.sock.close()
        self._write_end.close()


class Loop:
    """Polls, dispatches, sweeps, and keeps what its connections share.

    ``now`` is the time of the current batch. ``buffer`` is one large buffer for bodies: valid
    until the handler that filled it returns.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._forgets_closed = hasattr(select, "epoll")
        if self._forgets_closed:
            self.poller = select.epoll()
        else:
            self.poller = _KqueuePoller()  # type: ignore[assignment]
        self.connections: dict[int, Connection] = {}
        self.doomed: list[socket.socket] = []
        self.soon: deque[Callable[[], object]] = deque()
        self.now = clock.monotonic()
        self.sweep_every = SWEEP
        # Mapped, not allocated: of memory that no body has needed nothing is used.
        self.buffer = memoryview(
            mmap.mmap(-1, BIG_READ, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        )
        self._next_sweep = self.now + SWEEP
        self._date_line = b""
        self._dated = -1.0
        self._calls: deque[Callable[[], object]] = deque()
        self._stopping = False
        self._waker = _Waker(self)
        #: Called at every sweep with nothing; for whoever shares the loop's clock.
        self.on_sweep: list[Callable[[], object]] = []

    def date_line(self) -> bytes:
        """Return the Date field of a message made in this second. RFC 9110 6.6.1"""
        if self.now - self._dated >= 1.0 or self._dated < 0:
            self._dated = self.now
            text = time.strftime("Date: %a, %d %b %Y %H:%M:%S GMT\r\n", time.gmtime())
            self._date_line = text.encode()
        return self._date_line

    def call(self, function: Callable[[], object]) -> None:
        """Run ``function`` in the loop's thread, soon. Threads: any."""
        self._calls.append(function)
        self._waker.wake()

    def stop(self) -> None:
        """End :meth:`run` after the current batch. Threads: any."""
        self.call(self._stop)

    def _stop(self) -> None:
        self._stopping = True

    def abandon(self) -> None:
        """Close every descriptor and forget them: this is a fork, and the loop is its parent's."""
        for connection in self.connections.values():
            connection.close_sockets()
        self.poller.close()

    def forget(self, connection: Connection, is_closing: bool = False) -> None:
        """Take a connection out of the loop; its socket stays open, unless ``is_closing``."""
        if self.connections.get(connection.fd) is connection:
            del self.connections[connection.fd]
        if connection.mask:
            connection.mask = 0
            if not (is_closing and self._forgets_closed):
                self.poller.unregister(connection.fd)

    def run(self) -> None:
        """Serve until :meth:`stop`, then close every connection."""
        connections = self.connections
        poller = self.poller
        while not self._stopping:
            try:
                events = poller.poll(self._patience())
            except InterruptedError:
                continue
            self.now = now = clock.monotonic()
            for fd, mask in events:
                connection = connections.get(fd)
                if connection is not None:
                    try:
                        connection.on_event(mask)
                    except Exception:
                        self._crashed(connection)
            if self.soon or self._calls:
                self._run_calls()
            if self.doomed:
                self._close_doomed()
            if now >= self._next_sweep:
                self._next_sweep = now + self.sweep_every
                self._sweep(now)
        for connection in list(connections.values()):
            connection.close()
        self._close_doomed()
        poller.close()

    def _patience(self) -> float | None:
        if self.soon or self._calls:
            return 0.0
        # Alone with its waker and listeners, an idle loop sleeps until something happens.
        return max(0.0, self._next_sweep - self.now) if self.is_watching() else None

    def sweep_within(self, seconds: float) -> None:
        """Look at deadlines in so many seconds at the latest."""
        self._next_sweep = min(self._next_sweep, self.now + seconds)

    def is_watching(self) -> bool:
        """Return whether anything is to be looked at from time to time."""
        return (
            len(self.connections) > 8
            or bool(self.on_sweep)
            or any(connection.deadline != FOREVER for connection in self.connections.values())
        )

    def _run_calls(self) -> None:
        for queue in (self._calls, self.soon):
            for _ in range(len(queue)):
                function = queue.popleft()
                try:
                    function()
                except Exception:
                    log.crash(self.name)

    def _close_doomed(self) -> None:
        for sock in self.doomed:
            try:
                sock.close()
            except OSError:
                pass  # the descriptor is gone either way
        self.doomed.clear()

    def _sweep(self, now: float) -> None:
        for connection in list(self.connections.values()):
            if connection.deadline < now:
                try:
                    connection.on_timeout()
                except Exception:
                    self._crashed(connection)
        for function in list(self.on_sweep):
            function()
        if self.soon or self._calls:
            self._run_calls()
        self._close_doomed()

    def _crashed(self, connection: Connection) -> None:
        log.crash(f"{self.name}: {type(connection).__name__}")
        try:
            connection.on_crash()
        except Exception:
            connection.close()


def tune(sock: socket.socket) -> None:
    """Set what every TCP connection of the proxy wants; other families are left alone."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def describe_error(exc: OSError) -> str:
    """Return an operating system error as ``connection refused`` reads."""
    if isinstance(exc, socket.gaierror):
        return "host name not found"
    if getattr(exc, "verify_message", ""):
        return f"certificate not accepted: {exc.verify_message}"  # type: ignore[attr-defined]
    if getattr(exc, "reason", None):
        return str(exc.reason).lower().replace("_", " ")  # type: ignore[attr-defined]
    return os.strerror(exc.errno).lower() if exc.errno else str(exc)
