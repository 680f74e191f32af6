"""The connections of one loop that wait for the next request to their target.

Rules of this file: last used, first taken, so that the rest may grow old and be closed. A
connection here is nobody's; whoever takes it begins a request on it at once.

Threads: a Pool belongs to its loop's thread.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from minihub.proxy import http1
from minihub.proxy.loop import FOREVER, Loop
from minihub.proxy.resolver import Resolver
from minihub.proxy.routes import Target
from minihub.proxy.upstream import Upstream

#: Idle connections kept for one target, and for all, in one loop.
MAX_IDLE_PER_TARGET = 256
MAX_IDLE = 1024


class Pool:
    """The idle connections of one loop, by target, last used first."""

    def __init__(
        self,
        loop: Loop,
        resolver: Resolver,
        *,
        connect_timeout: float = 10.0,
        response_timeout: float = FOREVER,
        max_head_bytes: int = http1.MAX_HEAD_BYTES,
        wrap_tls: Callable[[socket.socket, Target], socket.socket],
    ) -> None:
        """Make an empty pool; ``wrap_tls`` puts TLS on a socket and raises OSError."""
        self.loop = loop
        self.resolver = resolver
        self.connect_timeout = connect_timeout
        self.response_timeout = response_timeout
        self.max_head_bytes = max_head_bytes
        self.wrap_tls = wrap_tls
        self._idle: dict[tuple[object, ...], list[Upstream]] = {}
        self._count = 0

    def take(self, target: Target, *, is_checked: bool) -> Upstream:
        """Return a connection to ``target``: an idle one, else a new one.

        With ``is_checked`` an idle one is asked first whether it still lives, for a request
        that must not be sent twice.
        """
        idle = self._idle.get(target.key)
        while idle:
            upstream = idle.pop()
            self._count -= 1
            if not is_checked or upstream.is_alive():
                return upstream
            upstream.close()
        return self.open(target)

    def open(self, target: Target) -> Upstream:
        """Return a new connection to ``target``; it connects when a request begins on it."""
        return Upstream(self, target)

    def put(self, upstream: Upstream) -> None:
        """Keep an idle connection, unless there are too many."""
        idle = self._idle.get(upstream.target.key)
        if idle is None:
            idle = self._idle[upstream.target.key] = []
        if len(idle) >= MAX_IDLE_PER_TARGET or self._count >= MAX_IDLE:
            upstream.close()
            return
        idle.append(upstream)
        self._count += 1

    def forget(self, upstream: Upstream) -> None:
        """Drop an idle connection that has ended."""
        idle = self._idle.get(upstream.target.key, [])
        if upstream in idle:
            idle.remove(upstream)
            self._count -= 1
        if not idle:
            self._idle.pop(upstream.target.key, None)

    def shrink(self) -> bool:
        """Give back a few idle connections' descriptors now; return whether there were any."""
        found = [upstream for idle in self._idle.values() for upstream in idle][:16]
        for upstream in found:
            self.forget(upstream)
            # Not at the end of the batch: the descriptors are needed before.
            upstream.release().close()
        return bool(found)
