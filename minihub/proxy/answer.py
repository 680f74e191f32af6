"""A small HTTP server on a loop, for what the proxy answers itself: whole requests, whole answers.

Rules of this file: it serves the REST API, metrics and redirects, whose requests are small; a
body over the limit is refused. Requests of one connection are answered in order.

Threads: a connection belongs to its loop's thread. ``reply`` is called there, at once or later.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from minihub.errors import ProtocolError
from minihub.proxy import http1, pages
from minihub.proxy.loop import FOREVER, READ, SMALL_READ, WRITE, Loop, Stream

MAX_BODY_BYTES = 64 * 1024 * 1024
HEADER_SECONDS = 60.0
IDLE_SECONDS = 75.0
#: How long a client may take to close after its last answer.
LINGER_SECONDS = 2.0
#: Bytes of further requests that may wait for their turn.
MAX_PIPELINED = 65536


class Request:
    """A whole request: method, raw path, query (both bytes), Host, Authorization and body."""

    __slots__ = ("method", "path", "query", "host", "authorization", "body")

    def __init__(
        self, method: str, target: bytes, host: bytes, authorization: str, body: bytes
    ) -> None:
        self.method = method
        self.path, _, self.query = target.partition(b"?")
        self.host = host
        self.authorization = authorization
        self.body = body


class Answer:
    """What a handler replies."""

    __slots__ = ("status", "body", "content_type", "fields")

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        content_type: bytes = b"text/plain; charset=utf-8",
        fields: bytes = b"",
    ) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.fields = fields


Reply = Callable[[Answer], None]
Handler = Callable[[Request, Reply], None]


class AnswerConnection(Stream):
    """One connection to the handler."""

    __slots__ = (
        "_handler",
        "_allows_body",
        "_inbuf",
        "_seen",
        "_body",
        "_left",
        "_reader",
        "_request",
        "_keep",
        "_is_head",
        "_is_busy",
        "_has_ended",
    )

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        handler: Handler,
        allows_body: Callable[[Request], bool],
    ) -> None:
        """Serve ``handler``; ``allows_body`` says whether a request may send a large body."""
        super().__init__(loop, sock)
        self._handler = handler
        self._allows_body = allows_body
        self._inbuf = b""
        self._seen = 0
        self._body = bytearray()
        self._left = 0
        self._reader: http1.ChunkedReader | None = None
        self._request: Request | None = None
        self._keep = True
        self._is_head = False
        self._is_busy = False
        self._has_ended = False
        self.deadline = loop.now + HEADER_SECONDS

    def on_event(self, mask: int) -> None:
        if mask & WRITE and self.pending is not None:
            self.flush()
            if self.closed or mask == WRITE:
                return
        try:
            data = self.sock.recv(SMALL_READ)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not data:
            self.close()
            return
        if self._has_ended:
            return  # the client has its last answer; what it still sends is dropped
        if not self._inbuf and not self._is_busy:
            self.deadline = self.loop.now + HEADER_SECONDS
        self._inbuf += data
        if self._is_busy:
            if len(self._inbuf) > MAX_PIPELINED:
                self.want(self.mask & ~READ)
            return
        self._advance()

    def _advance(self) -> None:
        try:
            while self._inbuf and not (self._is_busy or self._has_ended or self.closed):
                if self._request is None and not self._read_head():
                    return
                if self._request is not None and not self._read_body():
                    return
        except ProtocolError as exc:
            self._keep = False
            self._is_busy = True
            self._reply(Answer(exc.status, f"{exc}\n".encode()))

    def _read_head(self) -> bool:
        data = self._inbuf
        end = data.find(b"\r\n\r\n", max(0, self._seen - 3))
        if end < 0:
            http1.check_partial_head(data, self._seen)
            self._seen = len(data)
            return False
        self._seen = 0
        line = http1.REQUEST_LINE.match(data)
        if line is None:
            raise http1.bad_request_line(data)
        method, target, minor = line.groups()
        block = data[line.end() : end + 2]
        fields = http1.read_request_fields(block)
        if minor == b"1" and fields.host is None:
            raise ProtocolError("no Host")
        if minor == b"0" and fields.chunked:
            raise ProtocolError("Transfer-Encoding in HTTP/1.0")
        self._keep = not fields.close and (minor == b"1" or fields.keep_alive)
        self._inbuf = data[end + 4 :]
        self._is_head = method == b"HEAD"
        target = http1.split_target(target, fields.host)
        authorization = http1.field_value(block, b"authorization").decode("latin-1")
        request = Request(method.decode(), target, fields.host or b"", authorization, b"")
        self._left = max(fields.length, 0)
        self._reader = http1.ChunkedReader(strip=True) if fields.chunked else None
        if (self._left > SMALL_READ or fields.chunked) and not self._allows_body(request):
            raise ProtocolError("not authorized", 403)
        if self._left > MAX_BODY_BYTES:
            raise ProtocolError("body too large", 413)
        self._request = request
        self._body.clear()
        if fields.expects:
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self._left and self._reader is None:
            self._dispatch()
        return self._request is not None

    def _read_body(self) -> bool:
        data = self._inbuf
        if self._reader is not None:
            used, pieces = self._reader.feed(data, len(data))
            for piece in pieces:
                self._body += piece
            if len(self._body) > MAX_BODY_BYTES:
                raise ProtocolError("body too large", 413)
            is_done = self._reader.done
        else:
            used = min(len(data), self._left)
            self._body += data[:used]
            self._left -= used
            is_done = not self._left
        self._inbuf = data[used:]
        if is_done:
            self._dispatch()
        return is_done

    def _dispatch(self) -> None:
        request = self._request
        assert request is not None
        request.body = bytes(self._body)
        self._body.clear()
        self._request = None
        self._is_busy = True
        self.deadline = FOREVER
        self._handler(request, self._reply)

    def _reply(self, answer: Answer) -> None:
        if self.closed or not self._is_busy:
            return
        self._is_busy = False
        self.want(self.mask | READ)
        head = b"HTTP/1.1 %d %b\r\n" % (answer.status, pages.reason(answer.status))
        body = answer.body
        if body:
            head += b"Content-Type: %b\r\n" % answer.content_type
        if answer.status != 204:
            head += b"Content-Length: %d\r\n" % len(body)
        head += answer.fields
        head += self.loop.date_line()
        head += b"Connection: %b\r\n\r\n" % (b"keep-alive" if self._keep else b"close")
        self.deadline = self.loop.now + IDLE_SECONDS
        self.send(head if self._is_head else head + body)
        if self.closed:
            return
        if not self._keep:
            if self.pending is None:
                self._end()
        elif self._inbuf:
            self.loop.soon.append(self._advance)

    def on_stuck(self) -> None:
        # No further request is read before this answer is out.
        self.want(WRITE)

    def on_drained(self) -> None:
        self.want(READ)
        if not self._keep and not self._is_busy:
            self._end()

    def _end(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        self._has_ended = True
        self.want(READ)
        self.deadline = self.loop.now + LINGER_SECONDS

    def finish(self) -> None:
        """Serve no further request: close at once, or behind the answer that is due."""
        if self._has_ended or self._is_busy or self.pending is not None:
            self._keep = False
            self._inbuf = b""
        else:
            self.close()

    def on_crash(self) -> None:
        self._keep = False
        self._is_busy = True
        self._reply(Answer(500, b"internal error\n"))
