"""Addresses of targets; names are looked up without making a loop wait.

Rules of this file: an address that is written out is used as it is. A name is asked for in a
thread of its own, started with the first name, and the answer is kept for a few seconds.

Threads: ``resolve`` belongs to loop threads and guards the cache with the one lock; callbacks
run in the loop that asked.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable

from minihub import clock
from minihub.proxy.loop import Loop, describe_error
from minihub.proxy.routes import Target

Address = tuple[int, object]
Callback = Callable[[list[Address], str], None]

CACHE_SECONDS = 10.0


class Resolver:
    """Turns targets into addresses to connect to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cache: dict[tuple[str, int], tuple[float, list[Address]]] = {}
        self._waiting: deque[tuple[Loop, str, int, Callback]] = deque()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._stopping = False

    def resolve(self, loop: Loop, target: Target, callback: Callback) -> None:
        """Call ``callback(addresses, reason)``, now or later; ``reason`` is why there are none."""
        if target.unix:
            callback([(socket.AF_UNIX, target.unix)], "")
            return
        host, port = target.host, target.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            socket.inet_pton(family, host)
        except OSError:
            pass
        else:
            callback([(family, (host, port))], "")
            return
        with self._lock:
            known = self._cache.get((host, port))
            if known is None or known[0] < loop.now:
                self._waiting.append((loop, host, port, callback))
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="resolver", daemon=True)
                    self._thread.start()
                self._wake.set()
                return
        callback(list(known[1]), "")

    def stop(self) -> None:
        """End the thread; it may be inside a slow look-up, which nobody waits for."""
        self._stopping = True
        self._wake.set()

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait()
            self._wake.clear()
            while self._waiting:
                loop, host, port, callback = self._waiting.popleft()
                addresses, reason = self._look_up(host, port)

                def answer(
                    callback: Callback = callback,
                    addresses: list[Address] = addresses,
                    reason: str = reason,
                ) -> None:
                    callback(list(addresses), reason)

                loop.call(answer)

    def _look_up(self, host: str, port: int) -> tuple[list[Address], str]:
        now = clock.monotonic()
        with self._lock:
            known = self._cache.get((host, port))
            if known is not None and known[0] >= now:
                return known[1], ""
        try:
            # Bytes keep Python from loading its IDNA tables for a plain name.
            found = socket.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM)
        except OSError as exc:
            return [], describe_error(exc)
        addresses: list[Address] = [(int(entry[0]), entry[4]) for entry in found]
        with self._lock:
            self._cache = {key: value for key, value in self._cache.items() if value[0] >= now}
            self._cache[host, port] = (now + CACHE_SECONDS, addresses)
        return addresses, ""
