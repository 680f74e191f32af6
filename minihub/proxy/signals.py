"""Signals as events of a loop.

Rules of this file: the handlers do nothing; the number arrives through Python's wake-up
descriptor, and is handled like any other event.

Threads: the main thread, whose loop it must be.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterable

from minihub.proxy.loop import Connection, Loop


class Signals(Connection):
    """Calls a function with each signal that comes."""

    __slots__ = ("_handle", "_write_end")

    def __init__(self, loop: Loop, handle: Callable[[int], None], numbers: Iterable[int]) -> None:
        read_end, self._write_end = socket.socketpair()
        read_end.setblocking(False)
        self._write_end.setblocking(False)
        super().__init__(loop, read_end)
        self._handle = handle
        signal.set_wakeup_fd(self._write_end.fileno(), warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, lambda *_: None)

    def on_event(self, mask: int) -> None:
        try:
            numbers = self.sock.recv(256)
        except OSError:
            return
        for number in numbers:
            self._handle(number)

    def close_sockets(self) -> None:
        self.sock.close()
        self._write_end.close()

    def close(self) -> None:
        if not self.closed:
            signal.set_wakeup_fd(-1)
            self._write_end.close()
        super().close()
