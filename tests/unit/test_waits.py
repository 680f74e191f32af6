"""Waits for servers hold threads: nobody may hold them all."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

from minihub.web import waits
from minihub.web.server import THREADS
from minihub.web.waits import Waits


class Stopping:
    """A server that does not stop for as long as the test wants."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self.entered = threading.Semaphore(0)

    def wait_settled(self, timeout_s: float) -> bool:
        if timeout_s:
            self.entered.release()
        return self.stopped.wait(timeout_s)


def caller(name: str, kind: str = "user") -> Any:
    return SimpleNamespace(kind=kind, name=name)


def test_one_caller_holds_some_threads_and_all_together_not_all():
    server, places = Stopping(), Waits()
    assert waits.MOST_OF_ONE < waits.MOST < THREADS
    with ThreadPoolExecutor(waits.MOST + 10) as pool:
        try:
            taken = [pool.submit(places.settled, caller("eve"), server, 30.0)
                     for _ in range(waits.MOST_OF_ONE)]  # fmt: skip
            for _ in taken:
                assert server.entered.acquire(timeout=30)
            assert not places.settled(caller("eve"), server, 30.0), "it did not wait"
            others = waits.MOST - waits.MOST_OF_ONE
            taken += [pool.submit(places.settled, caller("eve", "service"), server, 30.0)
                      for _ in range(others)]  # fmt: skip
            for _ in range(others):
                assert server.entered.acquire(timeout=30)
            assert not places.settled(caller("ada"), server, 30.0)
        finally:
            server.stopped.set()
        assert all(one.result() for one in taken)
    server.stopped.clear()
    with contextlib.ExitStack() as streams:  # which take of the same places
        for _ in range(waits.MAX_LONG):
            assert waits.long_requests.acquire(blocking=False)
            streams.callback(waits.long_requests.release)
        assert not places.settled(caller("ada"), server, 30.0)
    with ThreadPoolExecutor(1) as pool:  # the places are free again
        late = pool.submit(places.settled, caller("eve"), server, 30.0)
        assert server.entered.acquire(timeout=30)
        server.stopped.set()
        assert late.result()
