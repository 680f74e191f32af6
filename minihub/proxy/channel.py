"""Messages between the processes of one proxy, over a socket pair.

Rules of this file: a message is a JSON object behind its length in four bytes. Who asks puts an
``id`` in; who answers sends it back. A process that breaks the form is treated as dead.

Threads: a channel belongs to its loop's thread.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable

from minihub.proxy.loop import FOREVER, SMALL_READ, WRITE, Loop, Stream

Message = dict[str, object]

#: A table of a million routes fits.
MAX_MESSAGE_BYTES = 1 << 30
#: How long a process may think about an answer.
ANSWER_SECONDS = 5.0


class Channel(Stream):
    """One end of a conversation between processes."""

    __slots__ = ("_on_message", "_on_end", "_inbuf", "_next_id", "_waiting")

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        on_message: Callable[[Message], None],
        on_end: Callable[[], None],
    ) -> None:
        """Talk over ``sock``; ``on_message`` gets what is no answer, ``on_end`` the end."""
        sock.setblocking(False)
        super().__init__(loop, sock)
        self._on_message = on_message
        self._on_end = on_end
        self._inbuf = bytearray()
        self._next_id = 0
        self._waiting: dict[int, Callable[[Message | None], None]] = {}

    def tell(self, message: Message) -> None:
        """Send a message."""
        if not self.closed:
            data = json.dumps(message, separators=(",", ":")).encode()
            self.send(len(data).to_bytes(4, "big") + data)

    def ask(self, message: Message, done: Callable[[Message | None], None]) -> None:
        """Send a message and call ``done`` with its answer, or None when the peer has ended."""
        if self.closed:
            done(None)
            return
        self._next_id += 1
        # Whoever does not answer in time is as good as dead.
        self.deadline = self.loop.now + ANSWER_SECONDS
        self._waiting[self._next_id] = done
        self.tell({**message, "id": self._next_id})

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
            data = b""
        if not data:
            self.close()
            return
        self._inbuf += data
        while len(self._inbuf) >= 4 and not self.closed:
            end = 4 + int.from_bytes(self._inbuf[:4], "big")
            if end > MAX_MESSAGE_BYTES:
                self.close()
                return
            if len(self._inbuf) < end:
                return
            message = json.loads(bytes(self._inbuf[4:end]))
            del self._inbuf[:end]
            number = message.get("answer")
            if number is None:
                self._on_message(message)
            elif number in self._waiting:
                done = self._waiting.pop(number)
                if not self._waiting:
                    self.deadline = FOREVER
                done(message)

    def close(self) -> None:
        if self.closed:
            return
        try:
            # The peer learns of it now; the descriptor is closed behind this batch of events.
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended first
        super().close()
        # First the end, then the answers: whoever gets None may count on the peer being gone.
        self._on_end()
        waiting, self._waiting = self._waiting, {}
        for done in waiting.values():
            done(None)
