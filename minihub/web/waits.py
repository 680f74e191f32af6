"""Waiting for servers to start or stop, so that others are answered meanwhile.

Each wait holds one of the HTTP server's threads (:mod:`minihub.web.server`) for some seconds, as a
stream of events does for longer: both take a place of those that the server has for them. One
person who asks again and again for the stop of a server that does not stop could hold them all, and
nobody else could log in meanwhile. Who finds no place here gets the answer of who waited in vain.

Rules of this file: it counts; what is waited for belongs to the hub.

Threads: any; a lock is held for counting only.
"""

from __future__ import annotations

import threading
from collections import Counter

from ..server import Server
from .identity import Caller

#: Streams and waits at once, each with a thread; the server has this many threads and a reserve.
MAX_LONG = 100
long_requests = threading.BoundedSemaphore(MAX_LONG)
#: How many requests may wait at once, and how many of one caller.
MOST = 80
MOST_OF_ONE = 50


class Waits:
    """The waits of one site."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_caller: Counter[tuple[str, str]] = Counter()

    def settled(self, caller: Caller, server: Server, timeout_s: float) -> bool:
        """Return whether the server's state has settled, after a wait of at most ``timeout_s``."""
        who = (caller.kind, caller.name)
        with self._lock:
            is_full = self._by_caller.total() >= MOST or self._by_caller[who] >= MOST_OF_ONE
            has_place = not is_full and long_requests.acquire(blocking=False)
            if has_place:
                self._by_caller[who] += 1
        if not has_place:
            return server.wait_settled(0.0)
        try:
            return server.wait_settled(timeout_s)
        finally:
            long_requests.release()
            with self._lock:
                self._by_caller[who] -= 1
                if not self._by_caller[who]:
                    del self._by_caller[who]
