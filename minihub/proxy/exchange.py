"""One request on its way: where it goes, what comes back, and what is said when nothing does.

Rules of this file: it joins a client's connection (``relay``) and a target's (``upstream``) and
knows no socket. A problem before the response head is out ends in an answer of our own, later
in a closed connection, so that nobody takes half a response for a whole one.

Threads: everything belongs to the loop thread of the connection.
"""

from __future__ import annotations

import socket
import struct

from minihub.errors import ProtocolError
from minihub.proxy import forwarding, http1, log, pages
from minihub.proxy.routes import Counters, Route, Target
from minihub.proxy.tunnel import start_tunnel
from minihub.proxy.upstream import Data, Owner, Upstream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minihub.proxy.relay import Relay

HEALTH_PATH = b"/_chp_healthz"
#: Methods whose request may be sent once more when a kept connection turns out dead.
_REPEATABLE = frozenset((b"GET", b"HEAD", b"OPTIONS"))
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_TEXT = b"text/plain; charset=utf-8"


class Exchange(Owner):
    """A request and its response.

    ``page_status`` is set while the error target is asked for a page, and is the status the
    client will see; ``reframes`` is whether the response gets chunks it did not have.
    """

    __slots__ = (
        "relay",
        "context",
        "method",
        "target",
        "fields",
        "is_http11",
        "expects_no_body",
        "strips_chunks",
        "wants_upgrade",
        "upstream",
        "route",
        "counters",
        "status",
        "started",
        "head_sent",
        "reframes",
        "page_status",
        "_replay",
    )

    def __init__(
        self,
        relay: Relay,
        method: bytes,
        target: bytes,
        fields: http1.RequestFields,
        is_http11: bool,
    ) -> None:
        self.relay = relay
        self.context = relay.context
        self.method = method
        self.target = target
        self.fields = fields
        self.is_http11 = is_http11
        self.expects_no_body = method == b"HEAD"
        self.strips_chunks = not is_http11
        self.wants_upgrade = is_http11 and fields.upgrade != b""
        self.upstream: Upstream | None = None
        self.route: Route | None = None
        self.counters: Counters | None = None
        self.status = 0
        self.started = relay.loop.now
        self.head_sent = False
        self.reframes = False
        self.page_status = 0
        self._replay: bytes | None = None

    # -- the request -----------------------------------------------------------------------

    def begin(self) -> None:
        """Route the request and send it on. Raises ProtocolError for an ambiguous path."""
        context = self.context
        settings = context.settings
        if self.target == HEALTH_PATH and self.method in (b"GET", b"HEAD"):
            self._answer(200, b"application/json", b'{"status":"OK"}')
            return
        if self.wants_upgrade:
            context.stats.requests_ws += 1
        else:
            context.stats.requests_web += 1
        route = context.find_route(self.target, self.fields.host)
        if route is None:
            self._fail(404, "")
            return
        self.route = route
        self.counters = route.counters_of(context.loop.name)
        target = route.target
        if settings.is_debug:
            self._log_route(target)
        path = forwarding.request_path(settings, self.target, route)
        lines = self.relay.lines
        if settings.change_origin or self.fields.host is None:
            lines = http1.without_fields(lines[:-2], {b"host"})
            lines = b"Host: %b\r\n%b\r\n" % (target.host_field, lines)
        head = b"".join((self.method, b" ", path, b" HTTP/1.1\r\n", lines))
        is_repeatable = self.method in _REPEATABLE and not self.relay.has_body
        self._replay = head if is_repeatable else None
        body = self.relay.take_body()
        if body:
            self._note_sent(len(body))
        upstream = context.pool.take(target, is_checked=not is_repeatable)
        self.upstream = upstream
        upstream.begin(self, head + body)
        if upstream.pending is not None:
            self.relay.pause()

    def send_body(self, pieces: list[Data], count: int) -> None:
        """Send more of the body, which came as ``count`` bytes."""
        upstream = self.upstream
        if upstream is None or self.route is None:
            return
        self._note_sent(count)
        for piece in forwarding.joined(pieces, count):
            upstream.send(piece)
        if upstream.pending is not None:
            self.relay.pause()

    def _note_sent(self, count: int) -> None:
        """Count data of the client's, which is activity whatever becomes of it."""
        assert self.route is not None and self.counters is not None
        self.route.active = self.context.loop.now
        self.context.stats.activities += 1
        self.counters.bytes_in += count

    def on_upstream_drained(self) -> None:
        self.relay.resume()

    @property
    def has_sent_request(self) -> bool:
        """Return whether the target has been given the whole request."""
        return not self.relay.has_body

    def pause(self) -> None:
        """Read no more from the target."""
        if self.upstream is not None:
            self.upstream.pause()

    def resume(self) -> None:
        """Read on."""
        if self.upstream is not None:
            self.upstream.resume()

    def abort(self) -> None:
        """Give the request up: the client has gone."""
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.abort()

    # -- the response ----------------------------------------------------------------------

    def on_interim(self, head: http1.ResponseHead) -> None:
        if self.is_http11 and not self.page_status:
            self.relay.send(b"HTTP/1.1 %d %b\r\n%b\r\n" % (head.status, head.reason, head.forward))

    def on_response(self, head: http1.ResponseHead, pieces: list[Data], is_done: bool) -> None:
        relay = self.relay
        if is_done:
            self.upstream = None
        if self.page_status:
            self.status = status = self.page_status
            lines = http1.field_lines(head.forward, (b"content-type", b"content-encoding"))
            if head.length >= 0:
                lines += b"Content-Length: %d\r\n" % head.length
            out = b"HTTP/1.1 %d %b\r\n%b" % (status, pages.reason(status), lines)
            out += relay.loop.date_line()
        else:
            self.status = status = head.status
            statuses = self.context.stats.statuses
            statuses[status] = statuses.get(status, 0) + 1
            if self.context.settings.rewrites_location:
                lines = forwarding.rewrite_location(
                    self.context.settings, head, self.route, self.fields
                )
                out = b"HTTP/1.1 %d %b\r\n%b" % (status, head.reason, lines)
            else:
                out = head.start
            if not head.has_date:
                out += relay.loop.date_line()
        if head.length < 0 and not (self.expects_no_body or status == 204 or status == 304):
            if self.is_http11:
                out += b"Transfer-Encoding: chunked\r\n"
                self.reframes = not head.chunked
            else:
                relay.keep = False
        if self.wants_upgrade or self.context.is_draining or (is_done and relay.has_body):
            # Bytes behind a refused handshake, or of a body nobody wanted, are no request.
            relay.keep = False
        if not relay.keep:
            out += b"Connection: close\r\n\r\n"
        elif self.is_http11:
            out += b"\r\n"
        else:
            out += b"Connection: keep-alive\r\n\r\n"
        self.head_sent = True
        if pieces:
            if self.reframes:
                pieces = forwarding.as_chunks(pieces)
            out += pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if is_done:
            if self.reframes:
                out += b"0\r\n\r\n"
            self._account(len(out), True)
            relay.exchange = None
            relay.send(out)
            if not relay.closed:
                relay.finish()
        else:
            self._account(len(out), False)
            relay.send(out)

    def on_body(self, pieces: list[Data], is_done: bool) -> None:
        relay = self.relay
        if is_done:
            self.upstream = None
            relay.exchange = None
        if self.reframes:
            pieces = forwarding.as_chunks(pieces)
            if is_done:
                pieces.append(b"0\r\n\r\n")
        size = sum(map(len, pieces))
        pieces = forwarding.joined(pieces, size)
        self._account(size, is_done)
        for piece in pieces:
            relay.send(piece)
            if relay.closed:
                return
        if is_done:
            relay.finish()
        elif relay.pending is None:
            relay.touch()

    def _account(self, size: int, is_done: bool) -> None:
        route = self.route
        counters = self.counters
        if route is None or counters is None:
            return
        now = self.context.loop.now
        counters.bytes_out += size
        if self.status < 300:
            route.active = now
            self.context.stats.activities += 1
        if is_done:
            counters.requests += 1
            taken = now - self.started
            counters.latency += taken
            if taken > counters.slowest:
                counters.slowest = taken

    def on_upgrade(self, head: http1.ResponseHead, rest: bytes) -> None:
        upstream = self.upstream
        assert upstream is not None and self.route is not None and self.counters is not None
        relay = self.relay
        answer = b"HTTP/1.1 101 %b\r\nConnection: Upgrade\r\nUpgrade: %b\r\n%b\r\n" % (
            head.reason or b"Switching Protocols",
            head.upgrade,
            head.forward,
        )
        to_client = bytes(relay.pending or b"") + answer + rest
        to_target = relay.take_input()
        self.counters.requests += 1
        self.counters.tunnels += 1
        self.upstream = None
        start_tunnel(
            self.context,
            self.route,
            relay.address,
            relay.release(),
            upstream.release(),
            to_client=to_client,
            to_target=to_target,
        )

    # -- trouble ---------------------------------------------------------------------------

    def on_upstream_failed(self, reason: str) -> None:
        upstream, self.upstream = self.upstream, None
        assert upstream is not None
        stats = self.context.stats
        if self.head_sent:
            stats.fault("target broke off")
            self._log_failure(self.status, reason)
            self._break_off()
        elif upstream.uses > 1 and not upstream.answered and self._replay is not None:
            # The kept connection had ended; a new one is asked, once.
            stats.fault("kept connection had ended")
            fresh = self.context.pool.open(upstream.target)
            self.upstream = fresh
            fresh.begin(self, self._replay)
        elif self.page_status:
            log.repeated("error page", f"Failed to get custom error page: {reason}")
            self._answer_page(self.page_status)
        else:
            stats.fault("target failed")
            self._fail(503, f"{upstream.target.text}: {reason}")

    def _break_off(self) -> None:
        """End a response that cannot be completed so that nobody can take it for whole."""
        relay = self.relay
        if not self.is_http11:
            # Only the end of the connection ends such a body, so it must not look orderly.
            try:
                relay.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            except OSError:
                pass  # the client has gone before us
        relay.close()

    def _log_route(self, target: Target) -> None:
        kind = "WS" if self.wants_upgrade else "WEB"
        log.debug(f"PROXY {kind} {self._shown_path()} to {target.text}")

    def _shown_path(self) -> str:
        # Queries carry tokens, which are nobody's business who reads logs.
        return self.target.partition(b"?")[0].decode("latin-1")

    def _log_failure(self, status: int, reason: str) -> None:
        method = self.method.decode("latin-1")
        log.repeated(str(status), f"{status} {method} {self._shown_path()} {reason}")

    def on_crash(self) -> None:
        """Answer after a bug of ours."""
        self.abort()
        if self.head_sent:
            self._break_off()
        else:
            self._answer_page(500)

    def refuse(self, exc: ProtocolError) -> None:
        """Answer a request that breaks the protocol; the connection closes."""
        self.abort()
        if log.is_debug():
            log.debug(f"{exc.status} {self.relay.address.decode()}: {exc}")
        if self.head_sent:
            self._break_off()
        else:
            self._answer(exc.status, _TEXT, f"{exc}\n".encode())

    def _fail(self, status: int, reason: str) -> None:
        """Answer with an error page: the error target's, the error path's, or a plain one."""
        self._log_failure(status, reason)
        self.context.stats.status(status)
        if self.counters is not None:
            self.counters.errors += 1
            self.counters.requests += 1
        self.route = None
        relay = self.relay
        target = self.context.settings.error_target
        if self.wants_upgrade:
            relay.keep = False
            self._answer(status, b"", b"")
        elif target is None:
            self._answer_page(status)
        else:
            self.page_status = status
            # What is left of the body has nowhere to go.
            relay.pause()
            self._replay = pages.error_request(target, status, self.target, self.expects_no_body)
            upstream = self.context.pool.take(target, is_checked=False)
            self.upstream = upstream
            upstream.begin(self, self._replay)

    def _answer_page(self, status: int) -> None:
        content_type, body = pages.error_page(self.context.settings.error_path, status)
        self._answer(status, content_type, body)

    def _answer(self, status: int, content_type: bytes, body: bytes) -> None:
        """Answer by ourselves."""
        relay = self.relay
        if relay.has_body or self.context.is_draining:
            relay.keep = False
        lines = b"Content-Length: %d\r\n%b" % (len(body), relay.loop.date_line())
        if content_type:
            lines = b"Content-Type: %b\r\n%b" % (content_type, lines)
        if not relay.keep:
            lines += b"Connection: close\r\n"
        elif not self.is_http11:
            lines += b"Connection: keep-alive\r\n"
        self.head_sent = True
        if self.expects_no_body:
            body = b""
        relay.exchange = None
        relay.send(b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (status, pages.reason(status), lines, body))
        if not relay.closed:
            relay.finish()
