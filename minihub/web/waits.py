"""Waiting for servers to start or stop, so that others are answered meanwhile.

Each wait holds one of the HTTP server's threads (:mod:`minihub.web.server`) for some seconds. One
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

#: How many requests may wait at once, and how many of one caller; a good deal less than threads.
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
            if not is_full:
                self._by_caller[who] += 1
        if is_full:
            return server.wait_settled(0.0)
        try:
            return server.wait_settled(timeout_s)
        finally:
            with self._lock:
                self._by_caller[who] -= 1
                if not self._by_caller[who]:
                    del self._by_caller[who]
