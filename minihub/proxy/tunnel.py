"""A connection that has become a tunnel: bytes both ways until both sides are done.

Rules of this file: it knows two sockets and nothing of HTTP. What one side sends is offered to
the other at once; what does not fit is held, and the sender is not read until it has gone. When
a side ends, the other is told so and may finish, for a while. Plain sockets are edge-triggered,
which costs the kernel less for each message: a read that fills its buffer, or comes with anything
but plain readiness, asks the poller again.

Threads: a tunnel belongs to the loop thread that made it.
"""

from __future__ import annotations

import socket

from minihub.proxy.context import Context
from minihub.proxy.loop import BIG_READ, EDGES, FOREVER, READ, SMALL_READ, WRITE, Stream
from minihub.proxy.routes import Route

#: How long the second direction of a half-closed tunnel may be silent.
HALF_CLOSED_SECONDS = 30.0


class TunnelEnd(Stream):
    """One socket of a tunnel.

    ``has_ended`` is whether its peer has sent all it will; ``address`` is the client's, None at
    the target's end.
    """

    __slots__ = (
        "context",
        "route",
        "peer",
        "has_ended",
        "address",
        "_appetite",
        "_limit",
        "_counters",
        "_stats",
        "_edges",
        "_recv_into",
        "_send",
    )

    peer: TunnelEnd

    def __init__(
        self, context: Context, route: Route, sock: socket.socket, address: bytes | None
    ) -> None:
        super().__init__(context.loop, sock, 0)
        self.context = context
        self.route = route
        self.address = address
        self.has_ended = False
        self._appetite = SMALL_READ
        self._limit = context.settings.tunnel_timeout
        self._counters = route.counters_of(context.loop.name)
        self._stats = context.stats
        # TLS holds data back where an edge would not show it.
        self._edges = EDGES if isinstance(sock, socket.socket) else 0
        # Looked up once, not for each message.
        self._recv_into = sock.recv_into
        self._send = sock.send
        self.want(READ)

    def want(self, mask: int) -> None:
        """Be called for these events from now on; what is ready already counts as one."""
        before = self.mask
        if mask == before or self.closed:
            return
        self.mask = mask
        if not before:
            self.loop.poller.register(self.fd, mask | self._edges)
        elif not mask:
            self.loop.poller.unregister(self.fd)
        else:
            self.loop.poller.modify(self.fd, mask | self._edges)

    def on_event(self, mask: int) -> None:
        if mask & WRITE and self.pending is not None:
            self.flush()
            if self.closed or mask == WRITE:
                return
        peer = self.peer
        loop = self.loop
        buffer = loop.buffer
        appetite = self._appetite
        try:
            count = self._recv_into(buffer, appetite)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not count:
            self._on_eof()
            return
        data = buffer[:count]
        self.route.active = now = loop.now
        self._stats.activities += 1
        if self._limit is not FOREVER:
            self.deadline = peer.deadline = now + self._limit
        if self.address is not None:
            self._counters.bytes_in += count
        else:
            self._counters.bytes_out += count
        if count == appetite < BIG_READ:
            self._appetite *= 2
        if peer.pending is None:
            try:
                sent = peer._send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                peer.on_broken()
                return
            if sent < count:
                peer.hold(data, sent)
        else:
            peer.send(data)
        if (count == appetite or mask != READ) and self._edges and not self.closed and self.mask:
            # There may be more, or the end, which no further edge would tell of.
            loop.poller.modify(self.fd, self.mask | self._edges)

    def on_stuck(self) -> None:
        self.peer.want(self.peer.mask & ~READ)
        self.peer._appetite = SMALL_READ

    def on_drained(self) -> None:
        if self.peer.has_ended:
            self._shut()
        else:
            self.peer.want(self.peer.mask | READ)

    def _on_eof(self) -> None:
        self.has_ended = True
        self.want(self.mask & ~READ)
        if self.peer.pending is None:
            self.peer._shut()
        if not self.closed:
            self._limit = self.peer._limit = HALF_CLOSED_SECONDS
            self.deadline = self.peer.deadline = self.loop.now + HALF_CLOSED_SECONDS

    def _shut(self) -> None:
        """Tell this side that nothing more comes; close both when neither sends any more."""
        if self.has_ended and self.peer.pending is None and self.pending is None:
            self.close()
            return
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()

    def close(self) -> None:
        """Close both sides."""
        if self.closed:
            return
        super().close()
        if self.address is not None:
            self.context.stats.tunnels -= 1
            self.context.share.leave(self.address)
        self.peer.close()
        # Two that know each other would wait for the garbage collector.
        del self.peer


def start_tunnel(
    context: Context,
    route: Route,
    address: bytes,
    client: socket.socket,
    target: socket.socket,
    *,
    to_client: bytes,
    to_target: bytes,
) -> None:
    """Join two sockets that no object of the loop holds any more; ``address`` is the client's.

    ``to_client`` and ``to_target`` are sent before anything that is read from now on.
    """
    near = TunnelEnd(context, route, client, address)
    far = TunnelEnd(context, route, target, None)
    near.peer, far.peer = far, near
    context.stats.tunnels += 1
    limit = context.settings.tunnel_timeout
    near.deadline = far.deadline = context.loop.now + limit if limit != FOREVER else FOREVER
    if to_client:
        near.send(to_client)
    if to_target and not far.closed:
        far.send(to_target)


def close_tunnels(context: Context, path: bytes | None) -> int:
    """Close the tunnels that were opened on the route of this path, or all; return how many."""
    found = [
        connection
        for connection in context.loop.connections.values()
        if isinstance(connection, TunnelEnd)
        and connection.address is not None
        and path in (None, connection.route.path)
    ]
    for end in found:
        end.close()
    return len(found)
