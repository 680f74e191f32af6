"""One client connection: requests in, responses out, in order, one at a time.

Rules of this file: it is a state machine over whole heads and streamed bodies. What the client
sent is judged by ``http1`` before a byte of it is forwarded. Neither side is read faster than
the other can take: at most one read's worth of a body is held. Where a request goes and what
comes back is its Exchange's business.

Threads: everything belongs to the loop thread that accepted the connection.
"""

from __future__ import annotations

import mmap
import socket

from minihub.errors import ProtocolError
from minihub.proxy import forwarding, http1
from minihub.proxy.context import Context
from minihub.proxy.exchange import Exchange
from minihub.proxy.loop import BIG_READ, FOREVER, READ, SMALL_READ, WRITE, Stream
from minihub.proxy.upstream import Data

# What is expected of the client: a head, (more of) a body, nothing before we have answered,
# or nothing but the end.
_IDLE, _BODY, _WAIT, _LINGER = range(4)

#: Bytes of pipelined requests that may wait for their turn.
MAX_PIPELINED = 65536
#: How long a client may go on sending after its last response.
LINGER_SECONDS = 5.0
#: How long a response may take to a client that has closed its sending side.
HALF_CLOSED_SECONDS = 30.0

#: Idle clients that give way at once when there is no room for a new one.
EVICTED_AT_ONCE = 16


class Relay(Stream):
    """A client's connection.

    ``exchange`` is the request being served, None between requests. ``keep`` is whether the
    connection outlives it.
    """

    __slots__ = (
        "context",
        "address",
        "scheme",
        "exchange",
        "keep",
        "lines",
        "_state",
        "_inbuf",
        "_seen",
        "_block",
        "_fields",
        "_left",
        "_reader",
        "_is_half_closed",
        "_closes_when_sent",
        "_is_clean",
        "_appetite",
    )

    def __init__(
        self, context: Context, sock: socket.socket, address: bytes, scheme: bytes
    ) -> None:
        """Take over an accepted, non-blocking socket.

        ``address`` is the client's as X-Forwarded-For shows it, ``scheme`` what the client
        speaks: http or https.
        """
        super().__init__(context.loop, sock)
        self.context = context
        self.address = address
        self.scheme = scheme
        self.exchange: Exchange | None = None
        self.keep = True
        self.lines = b""
        self.deadline = self.loop.now + context.settings.header_timeout
        self._state = _IDLE
        self._inbuf = b""
        self._seen = 0
        self._block: bytes | None = None
        self._fields: http1.RequestFields | None = None
        self._left = 0
        self._reader: http1.ChunkedReader | None = None
        self._is_half_closed = False
        self._closes_when_sent = False
        self._is_clean = False
        self._appetite = SMALL_READ
        context.stats.clients += 1

    # -- events ----------------------------------------------------------------------------

    def on_event(self, mask: int) -> None:
        if mask & WRITE and self.pending is not None:
            self.flush()
            if self.closed or mask == WRITE:
                return
        if self._state == _BODY:
            self._read_body()
            return
        try:
            data = self.sock.recv(SMALL_READ)
        except BlockingIOError:
            return
        except OSError:
            self._lose_client()
            return
        if not data:
            self._on_eof()
        elif self._state == _IDLE:
            self._read_head(data)
        elif self._state == _WAIT:
            # A pipelined request; also what comes behind a WebSocket handshake.
            self._inbuf += data
            if len(self._inbuf) > MAX_PIPELINED:
                self.want(self.mask & ~READ)
        # LINGER: thrown away

    def _on_eof(self) -> None:
        self._is_half_closed = True
        exchange = self.exchange
        # The client may have closed one direction only, and wait for its answers.
        if exchange is not None:
            is_due = self._state == _WAIT and not exchange.wants_upgrade
        else:
            is_due = self._closes_when_sent and self.pending is not None
        if is_due:
            self.want(self.mask & ~READ)
            self.deadline = self.loop.now + HALF_CLOSED_SECONDS
        elif self._state == _IDLE and (self._inbuf or self.pending is not None):
            self.want(self.mask & ~READ)
            if self.pending is None:
                self._await_request()
        else:
            self._lose_client()

    @property
    def is_idle(self) -> bool:
        """Return whether the client is between two requests and nothing of the next has come."""
        return self._fields is not None and self.is_silent

    @property
    def is_silent(self) -> bool:
        """Return whether nothing has come of a request, be it the first."""
        return self._state == _IDLE and not self._inbuf and self.pending is None

    def _lose_client(self) -> None:
        if self.exchange is not None or self.pending is not None:
            self.context.stats.fault("client gone")
        self.close()

    def close(self) -> None:
        if self.closed:
            return
        self._leave()
        self.context.share.leave(self.address)
        super().close()

    def release(self) -> socket.socket:
        self._leave()
        return super().release()

    def _leave(self) -> None:
        self.context.stats.clients -= 1
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.abort()

    def on_timeout(self) -> None:
        stats = self.context.stats
        if self._state == _BODY or (self._state == _IDLE and self._inbuf):
            stats.fault("client slow")
            self._refuse(ProtocolError("timed out waiting for the request", 408))
            return
        if self._state == _WAIT:
            stats.fault("client slow" if self.pending is not None else "request timed out")
        self.close()

    def on_crash(self) -> None:
        exchange, self.exchange = self.exchange, None
        self.keep = False
        if exchange is None:
            self.close()
        else:
            exchange.on_crash()

    # -- sending to the client -------------------------------------------------------------

    def on_stuck(self) -> None:
        self.deadline = self.loop.now + self.context.settings.body_timeout
        if self.exchange is not None:
            self.exchange.pause()

    def on_drained(self) -> None:
        if self._closes_when_sent:
            self._end()
        elif self._state == _IDLE:
            if not self._is_half_closed:
                self.want(self.mask | READ)
            self._await_request()
        else:
            self.touch()
            if self.exchange is not None:
                self.exchange.resume()

    def on_broken(self) -> None:
        self._lose_client()

    def touch(self) -> None:
        """Start the time anew that the client may be silent in this state."""
        settings = self.context.settings
        if self._is_half_closed:
            limit = HALF_CLOSED_SECONDS
        elif self._state == _BODY:
            limit = min(settings.body_timeout, settings.timeout)
        else:
            limit = settings.timeout
        self.deadline = self.loop.now + limit

    # -- the request -----------------------------------------------------------------------

    def _read_head(self, data: bytes) -> None:
        if self._inbuf:
            data = self._inbuf + data
        elif self.pending is None:
            # From the first byte of a head on the clock of the header timeout runs.
            self.deadline = self.loop.now + self.context.settings.header_timeout
        self._inbuf = data
        if self.pending is None:
            self._start_request()
        elif len(data) > MAX_PIPELINED:
            # A client that sends on but takes no answer is not read any more.
            self.want(self.mask & ~READ)

    def _start_request(self) -> None:
        """Read a head from the input, if it is all there, and act on it."""
        data = self._inbuf
        try:
            end = data.find(b"\r\n\r\n", max(0, self._seen - 3))
            limit = self.context.settings.max_head_bytes
            if end < 0:
                http1.check_partial_head(data, self._seen, limit)
                self._seen = len(data)
                if self._is_half_closed:
                    self.close()
                return
            self._seen = 0
            if end > limit:
                raise ProtocolError("head too large", 431)
            line = http1.REQUEST_LINE.match(data)
            max_line = self.context.settings.max_line_bytes
            if line is None or line.end() > max_line:
                if data[:2] == b"\r\n" and data[2:4] != b"\r\n":
                    # One empty line may stand before a request. RFC 9112 2.2
                    self._inbuf = data[2:]
                    self._start_request()
                    return
                raise http1.bad_request_line(data, max_line)
            method, target, minor = line.groups()
            block = data[line.end() : end + 2]
            if block != self._block:
                self._use_block(block)
            fields = self._fields
            assert fields is not None
            self._inbuf = data[end + 4 :]
            is_http11 = minor == b"1"
            if is_http11:
                if fields.host is None:
                    raise ProtocolError("no Host")
                self.keep = not fields.close
            else:
                if fields.chunked:
                    raise ProtocolError("Transfer-Encoding in HTTP/1.0")
                self.keep = fields.keep_alive and not fields.close
            if target[:1] != b"/":
                target = http1.split_target(target, fields.host)
        except ProtocolError as exc:
            self._refuse(exc)
            return
        self._left = max(fields.length, 0)
        if fields.chunked:
            self._reader = http1.ChunkedReader()
            self._state = _BODY
        else:
            self._reader = None
            self._state = _BODY if self._left else _WAIT
        self.touch()
        exchange = Exchange(self, method, target, fields, is_http11)
        self.exchange = exchange
        try:
            exchange.begin()
        except ProtocolError as exc:
            self._refuse(exc)

    def _use_block(self, block: bytes) -> None:
        """Read a field block and remember it: most requests of a client share theirs."""
        self._block = None
        fields = http1.read_request_fields(block, self.context.settings.max_line_bytes)
        self._fields = fields
        self._block = block
        self.lines = forwarding.request_lines(
            self.context.settings, fields, self.address, self.scheme
        )

    @property
    def has_body(self) -> bool:
        """Return whether more of the request's body is to come."""
        return self._state == _BODY

    def take_body(self) -> bytes:
        """Return what is there of the body already. Raises ProtocolError."""
        if self._state != _BODY or not self._inbuf:
            return b""
        data, self._inbuf = self._inbuf, b""
        return b"".join(self._split_body(data, len(data)))

    def _split_body(self, data: bytes | mmap.mmap, end: int) -> list[Data]:
        """Return what of ``data[:end]`` belongs to the body; the rest goes to the input.

        BODY -> WAIT at its end. Raises ProtocolError.
        """
        if self._reader is not None:
            used, pieces = self._reader.feed(data, end)
            is_done = self._reader.done
        else:
            used = min(end, self._left)
            pieces = [memoryview(data)[:used]]
            self._left -= used
            is_done = not self._left
        if is_done:
            self._state = _WAIT
            self._inbuf = bytes(memoryview(data)[used:end])
        return pieces

    def _read_body(self) -> None:
        buffer = self.loop.buffer
        size = self._appetite
        try:
            count = self.sock.recv_into(buffer, size)
        except BlockingIOError:
            return
        except OSError:
            self._lose_client()
            return
        if not count:
            self._on_eof()
            return
        if count == size < BIG_READ and (self._reader is None or self._reader.is_bulk):
            self._appetite *= 2
        try:
            pieces = self._split_body(buffer.obj, count)
        except ProtocolError as exc:
            self._refuse(exc)
            return
        self.touch()
        if self.exchange is not None:
            self.exchange.send_body(pieces, count)

    def pause(self) -> None:
        """Read no more of the body: the target is slower, and its own deadline watches it."""
        self._appetite = SMALL_READ
        if self._state == _BODY:
            self.want(self.mask & ~READ)
            self.deadline = FOREVER

    def resume(self) -> None:
        """Read on."""
        if self._state == _BODY:
            self.want(self.mask | READ)
            self.touch()

    # -- the response ----------------------------------------------------------------------

    def finish(self) -> None:
        """Go on after a response has been sent, or queued. WAIT -> IDLE, or LINGER"""
        self.exchange = None
        if self._state == _BODY or not self.keep:
            # -> LINGER: whatever still comes is thrown away.
            self._is_clean = self._state == _WAIT and not self._inbuf
            self._state = _LINGER
            self._inbuf = b""
            self._closes_when_sent = True
            if self.pending is None:
                self._end()
            return
        self._state = _IDLE
        if not self._is_half_closed:
            self.want(self.mask | READ)
        if self.pending is None:
            self._await_request()

    def _await_request(self) -> None:
        """Wait for the next request, or take one that has come already."""
        if self._inbuf:
            self.deadline = self.loop.now + self.context.settings.header_timeout
            self.loop.soon.append(self._resume_input)
        elif self._is_half_closed or self.context.is_draining:
            self.close()
        else:
            self.deadline = self.loop.now + self.context.settings.keep_alive_timeout

    def _resume_input(self) -> None:
        if not self.closed and self._state == _IDLE and self.pending is None:
            self._start_request()

    def _end(self) -> None:
        """Close after the last response, in a way that lets the client read it."""
        if self._is_clean or self._is_half_closed:
            self.close()
            return
        # Closing with unread input would reset the connection under the response's feet.
        self._closes_when_sent = False
        self.deadline = self.loop.now + LINGER_SECONDS
        self.want(READ)
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()

    def take_input(self) -> bytes:
        """Return what came behind a request that became a tunnel."""
        data, self._inbuf = self._inbuf, b""
        return data

    def _refuse(self, exc: ProtocolError) -> None:
        """Answer a request that breaks the protocol, and close."""
        self.context.stats.fault("bad request")
        self.keep = False
        if self._state == _IDLE:
            # Nothing of what follows is taken for a request.
            self._state = _BODY
            self._left = 0
            self._reader = None
        exchange, self.exchange = self.exchange, None
        if exchange is None:
            exchange = Exchange(self, b"GET", b"/", http1.RequestFields(), True)
        exchange.refuse(exc)


def evict_idle(context: Context) -> bool:
    """Close clients that are between requests, to make room; return whether there were any."""
    idle = [
        connection
        for connection in context.loop.connections.values()
        if isinstance(connection, Relay) and connection.is_idle
    ]
    # Those whose time runs out first have been idle longest.
    idle.sort(key=lambda relay: relay.deadline)
    for relay in idle[:EVICTED_AT_ONCE]:
        relay.close()
    return bool(idle)


def close_idle(context: Context) -> None:
    """Close all clients of whose next request nothing has come."""
    for connection in list(context.loop.connections.values()):
        if isinstance(connection, Relay) and connection.is_silent:
            connection.close()


def refuse_client(sock: socket.socket) -> None:
    """Tell an accepted client that there is no room for it, as far as that goes, and close."""
    try:
        sock.send(
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # it has gone already
    sock.close()
