"""Addresses of targets; names are looked up without making a loop wait.

Rules of this file: an address that is written out is used as it is. Names are asked for in a
few threads, started when they are needed, and answers are kept for a few seconds.

Threads: ``resolve`` is for loop threads; callbacks run in the loop that asked.
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
MAX_THREADS = 4


class Resolver:
    """Turns targets into addresses to connect to."""

    def __init__(self) -> None:
        # Guards the cache and the number of threads that wait for work.
        self._lock = threading.Lock()
        self._cache: dict[tuple[str, int], tuple[float, list[Address]]] = {}
        self._waiting: deque[tuple[Loop, str, int, Callback]] = deque()
        self._work = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []
        self._idle = 0
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
                if not self._idle and len(self._threads) < MAX_THREADS:
                    # One slow name server shall not hold up every other name.
                    name = f"resolver-{len(self._threads)}"
                    thread = threading.Thread(target=self._run, name=name, daemon=True)
                    self._threads.append(thread)
                    thread.start()
                self._work.release()
                return
        callback(list(known[1]), "")

    def stop(self) -> None:
        """End the threads; one may be inside a slow look-up, which nobody waits for."""
        self._stopping = True
        for _ in self._threads:
            self._work.release()

    def _run(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            self._work.acquire()
            with self._lock:
                self._idle -= 1
            if self._stopping:
                return
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
