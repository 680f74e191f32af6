"""The far side: one connection to a target.

Rules of this file: an Upstream carries one request at a time for its ``owner`` and tells it what
comes back; it frames and judges the response, the owner decides what the client gets. Whatever
goes wrong ends in exactly one ``owner.on_upstream_failed(reason)``, and the connection is gone.

Threads: everything belongs to the loop thread that opened it.
"""

from __future__ import annotations

import errno
import socket

from minihub.errors import ProtocolError
from minihub.proxy import http1
from minihub.proxy.loop import (
    BIG_READ,
    FOREVER,
    READ,
    SMALL_READ,
    WRITE,
    Stream,
    describe_error,
    tune,
)
from minihub.proxy.resolver import Address
from minihub.proxy.routes import Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minihub.proxy.pool import Pool

IDLE_SECONDS = 30.0
#: A response may come with this many interim (1xx) heads in front.
MAX_INTERIM = 32
#: Response heads up to this size are remembered, and not read again when they repeat.
MAX_REMEMBERED = 2048

_RESOLVING, _CONNECTING, _HANDSHAKE, _HEAD, _BODY, _IDLE = range(6)

Data = bytes | memoryview


class Owner:
    """What an Upstream calls back, and asks; whoever begins a request on one looks like this."""

    __slots__ = ()

    expects_no_body: bool
    strips_chunks: bool
    has_sent_request: bool
    wants_upgrade: bool

    def on_interim(self, head: http1.ResponseHead) -> None:
        """Take a 1xx head other than 101; the real one follows."""

    def on_response(self, head: http1.ResponseHead, pieces: list[Data], is_done: bool) -> None:
        """Take the final head and what came of the body with it."""

    def on_body(self, pieces: list[Data], is_done: bool) -> None:
        """Take more of the body; views are valid until this returns."""

    def on_upgrade(self, head: http1.ResponseHead, rest: bytes) -> None:
        """Take over the connection after a 101; ``rest`` came behind it."""

    def on_upstream_failed(self, reason: str) -> None:
        """Learn that there will be no (further) response."""

    def on_upstream_drained(self) -> None:
        """Learn that everything given to ``send`` is on its way."""


class Upstream(Stream):
    """One connection to a target.

    ``pending`` is what could not be sent yet; ``uses`` counts requests begun on it; ``answered``
    is whether any byte of the current response has come.
    """

    __slots__ = (
        "pool",
        "target",
        "owner",
        "uses",
        "answered",
        "limit",
        "_state",
        "_held",
        "_left",
        "_reader",
        "_head_data",
        "_head",
        "_keep",
        "_interims",
        "_appetite",
        "_addresses",
        "_send_broken",
    )

    def __init__(self, pool: Pool, target: Target) -> None:
        # There is no socket before the address is known; _attach makes it a real connection.
        self.loop = pool.loop
        self.sock = None  # type: ignore[assignment]
        self.fd = -1
        self.mask = 0
        self.deadline = FOREVER
        self.closed = False
        self.pool = pool
        self.target = target
        self.owner: Owner | None = None
        self.pending: memoryview | None = None
        self.uses = 0
        self.answered = False
        self.limit = pool.response_timeout
        self._state = _RESOLVING
        self._held = b""
        self._left = 0
        self._reader: http1.ChunkedReader | None = None
        # The last response head: a target's answers often differ in nothing, or once a second.
        self._head_data = b""
        self._head: http1.ResponseHead
        self._keep = False
        self._interims = 0
        self._appetite = SMALL_READ
        self._addresses: list[Address] = []
        self._send_broken = False

    # -- connecting ------------------------------------------------------------------------

    def connect(self) -> None:
        """Start to connect; what is sent meanwhile waits."""
        self.pool.resolver.resolve(self.loop, self.target, self._on_resolved)

    def _on_resolved(self, addresses: list[Address], reason: str) -> None:
        if self.closed:
            return
        self._addresses = addresses
        self._try_next(reason)

    def _try_next(self, reason: str) -> None:
        # RESOLVING or CONNECTING -> CONNECTING, or failed when no address is left
        while self._addresses:
            family, address = self._addresses.pop(0)
            try:
                sock = socket.socket(family, socket.SOCK_STREAM)
            except OSError as exc:
                if exc.errno in (errno.EMFILE, errno.ENFILE) and self.pool.shrink():
                    # What lies idle gives way to what is needed now.
                    self._addresses.insert(0, (family, address))
                    continue
                self._fail(describe_error(exc))
                return
            sock.setblocking(False)
            sent = -1
            try:
                try:
                    tune(sock)
                    sock.connect(address)
                except BlockingIOError:
                    pass
                # On loopback and for Unix sockets the connection is there already, mostly.
                if self.pending is not None and not self.target.is_tls:
                    sent = sock.send(self.pending)
            except OSError as exc:
                if exc.errno not in (errno.EAGAIN, errno.ENOTCONN):
                    sock.close()
                    reason = describe_error(exc)
                    continue
            self._attach(sock, sent)
            return
        self._fail(reason)

    def _attach(self, sock: socket.socket, sent: int) -> None:
        """Become the connection of ``sock``; ``sent`` of ``pending`` has gone, -1: not yet."""
        pending = self.pending
        self._state = _CONNECTING
        if sent < 0:
            # What is to be sent, and TLS, wait for the connection.
            Stream.__init__(self, self.loop, sock, WRITE)
            self.pending = pending
            self.deadline = self.loop.now + self.pool.connect_timeout
            return
        assert pending is not None
        is_all = sent == len(pending)
        Stream.__init__(self, self.loop, sock, READ if is_all else READ | WRITE)
        self._on_connected()
        if is_all:
            self.on_drained()
        else:
            self.pending = pending[sent:]

    def _on_connected(self) -> None:
        # CONNECTING or HANDSHAKE -> HEAD
        self._state = _HEAD
        self._addresses = []
        self.deadline = self.loop.now + self.limit

    def _finish_connect(self) -> None:
        error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._fail_connect(describe_error(OSError(error, "")))
            return
        if self.target.is_tls:
            # CONNECTING -> HANDSHAKE
            try:
                self.sock = self.pool.wrap_tls(self.sock, self.target)
            except OSError as exc:
                self._fail(f"TLS: {describe_error(exc)}")
                return
            self._state = _HANDSHAKE
            self._addresses = []
            self._shake_hands()
            return
        self._on_connected()
        self.want(READ | WRITE)
        self.flush()

    def _shake_hands(self) -> None:
        try:
            is_done = self.sock.handshake()
        except OSError as exc:
            self._fail(f"TLS: {describe_error(exc)}")
            return
        self.want(READ)
        if is_done:
            self._on_connected()
            self.flush()

    def _fail_connect(self, reason: str) -> None:
        """Give this address up and try the next one."""
        sock = self.release()
        self.closed = False
        sock.close()
        self._try_next(reason)

    # -- the request -----------------------------------------------------------------------

    def begin(self, owner: Owner, data: bytes) -> None:
        """Send a request head, with what is there of the body, for ``owner``."""
        self.owner = owner
        self.uses += 1
        self.answered = False
        self._interims = 0
        if self._state == _IDLE:
            # IDLE -> HEAD
            self._state = _HEAD
            self.send(data)
        else:
            self.pending = memoryview(data)
            self.connect()

    def send(self, data: Data) -> None:
        """Send more of the request; ``pending`` says whether some of it has to wait."""
        if not self._send_broken:
            self.deadline = self.loop.now + self.limit
            super().send(data)

    def on_stuck(self) -> None:
        self.deadline = self.loop.now + self.limit

    def on_drained(self) -> None:
        if self.owner is not None:
            self.owner.on_upstream_drained()

    def on_broken(self) -> None:
        # The answer may lie in our receive buffer all the same: reading will tell.
        self._send_broken = True
        self._keep = False
        self.pending = None
        self.want(self.mask & ~WRITE)
        self.on_drained()

    # -- the response ----------------------------------------------------------------------

    def pause(self) -> None:
        """Read no more until :meth:`resume`: the client is slower than the target."""
        self._appetite = SMALL_READ
        self.deadline = FOREVER
        self.want(self.mask & ~READ)

    def resume(self) -> None:
        """Read again."""
        self.deadline = self.loop.now + self.limit
        self.want(self.mask | READ)

    def on_event(self, mask: int) -> None:
        state = self._state
        if state == _CONNECTING:
            # Readable alone would be an event of the descriptor's former owner.
            if mask & ~READ:
                self._finish_connect()
            return
        if state == _HANDSHAKE:
            self._shake_hands()
            return
        if mask & WRITE:
            self.flush()
            if self.closed or mask == WRITE:
                return
        if state == _HEAD:
            self._read_head()
        elif state == _BODY:
            self._read_body()
        else:
            self._check_idle()

    def _read_head(self) -> None:
        try:
            data = self.sock.recv(SMALL_READ)
        except BlockingIOError:
            return
        except OSError as exc:
            self._fail(describe_error(exc))
            return
        if not data:
            self._fail("closed without an answer")
            return
        self.answered = True
        self.deadline = self.loop.now + self.limit
        seen = len(self._held)
        if seen:
            data = self._held + data
            self._held = b""
        try:
            self._use_head(data, seen)
        except ProtocolError as exc:
            self._fail(f"bad response: {exc}")

    def _use_head(self, data: bytes, seen: int) -> None:
        owner = self.owner
        assert owner is not None
        while True:
            end = data.find(b"\r\n\r\n", max(0, seen - 3))
            if end < 0:
                http1.check_partial_head(data, seen, self.pool.max_head_bytes)
                self._held = data
                return
            if end > self.pool.max_head_bytes:
                raise ProtocolError("head too large")
            head_data = data[: end + 2]
            if head_data == self._head_data:
                head = self._head
            else:
                head = http1.read_response_head(data, end + 2)
                if end <= MAX_REMEMBERED:
                    self._head_data = head_data
                    self._head = head
            if head.status >= 200:
                break
            if head.status == 101:
                is_ready = owner.has_sent_request and self.pending is None
                if not (owner.wants_upgrade and head.upgrade and is_ready):
                    raise ProtocolError("101 to a request that asked for no upgrade")
                owner.on_upgrade(head, data[end + 4 :])
                return
            self._interims += 1
            if self._interims > MAX_INTERIM:
                raise ProtocolError("too many interim responses")
            owner.on_interim(head)
            if self.closed or self.owner is not owner:
                return
            data = data[end + 4 :]
            seen = 0
        # HEAD -> BODY, or straight to the end
        rest = data[end + 4 :]
        self._keep = head.keep_alive or (head.is_http11 and not head.close)
        status = head.status
        self._reader = None
        pieces: list[Data]
        if owner.expects_no_body or status == 204 or status == 304:
            self._left = 0
            if rest:
                self._keep = False
            pieces = []
            is_done = True
        elif head.chunked:
            self._reader = http1.ChunkedReader(owner.strips_chunks)
            used, pieces = self._reader.feed(rest, len(rest))
            is_done = self._reader.done
            if used < len(rest):
                self._keep = False
        elif head.length >= 0:
            extra = len(rest) - head.length
            if extra > 0:
                rest = rest[: head.length]
                self._keep = False
            self._left = -extra if extra < 0 else 0
            is_done = extra >= 0
            pieces = [rest] if rest else []
        else:
            self._left = -1
            self._keep = False
            is_done = False
            pieces = [rest] if rest else []
        if is_done:
            self._finish()
        else:
            self._state = _BODY
        owner.on_response(head, pieces, is_done)

    def _read_body(self) -> None:
        owner = self.owner
        assert owner is not None
        buffer = self.loop.buffer
        try:
            count = self.sock.recv_into(buffer, self._appetite)
        except BlockingIOError:
            return
        except OSError as exc:
            self._fail(describe_error(exc))
            return
        self.deadline = self.loop.now + self.limit
        if not count:
            if self._left == -1 and self._reader is None:
                self._finish()
                owner.on_body([], True)
            else:
                self._fail("closed in the middle of its answer")
            return
        if count == self._appetite < BIG_READ:
            if self._reader is None or self._reader.is_bulk:
                self._appetite *= 2
        is_done = False
        pieces: list[Data]
        if self._reader is not None:
            try:
                used, pieces = self._reader.feed(buffer.obj, count)
            except ProtocolError as exc:
                self._fail(f"bad response: {exc}")
                return
            is_done = self._reader.done
            if used < count:
                self._keep = False
        else:
            if 0 < self._left < count:
                # More than was announced: what is too much goes no further.
                count = self._left
                self._keep = False
            pieces = [buffer[:count]]
            if self._left > 0:
                self._left -= count
                is_done = not self._left
        if is_done:
            self._finish()
        owner.on_body(pieces, is_done)

    def _finish(self) -> None:
        # HEAD or BODY -> IDLE, or closed
        owner = self.owner
        assert owner is not None
        self.owner = None
        self._reader = None
        if self._keep and self.pending is None and not self._send_broken and owner.has_sent_request:
            self._state = _IDLE
            self._appetite = SMALL_READ
            self.want(READ)
            self.deadline = self.loop.now + IDLE_SECONDS
            self.pool.put(self)
        else:
            self.close()

    def _check_idle(self) -> None:
        try:
            self.sock.recv(SMALL_READ)
        except BlockingIOError:
            return  # TLS had something to say to itself
        except OSError:
            pass
        # The target hangs up, or speaks unasked, while nobody asks it anything.
        self.pool.forget(self)
        self.close()

    def is_alive(self) -> bool:
        """Return whether an idle connection has neither ended nor been spoken on, by asking."""
        if self.target.is_tls:
            return not self.sock.has_input()
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    # -- trouble ---------------------------------------------------------------------------

    def _fail(self, reason: str) -> None:
        owner = self.owner
        self.owner = None
        self.close()
        if owner is not None:
            owner.on_upstream_failed(reason)

    def abort(self) -> None:
        """Give up the request; the owner hears nothing more."""
        self.owner = None
        self.close()

    def close(self) -> None:
        if self.sock is None:
            self.closed = True
            self.pending = None
        else:
            super().close()

    def on_timeout(self) -> None:
        if self._state == _IDLE:
            self.pool.forget(self)
            self.close()
        elif self._state == _CONNECTING and self._addresses:
            self._fail_connect("connection timed out")
        else:
            self._fail("timed out")

    def on_crash(self) -> None:
        self._fail("internal error")
