"""One connection to the hub, and one answer on it, with fewer steps than waitress takes.

Rules of this file: requests are read and answers are worded as waitress does; what is left out is
work that says the same again (how a header's name is written, what second it is), and head and body
of an answer leave in one piece. Whatever is unusual is left to waitress.

Threads: a channel is read by the thread that leads the server (:mod:`minihub.web.server`); its
requests are served there or in one of waitress's workers.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any

from waitress.channel import HTTPChannel
from waitress.task import WSGITask
from waitress.utilities import build_http_date

#: Requests that change nothing, and so are over soon as a rule.
BRIEF = frozenset({"GET", "HEAD", "OPTIONS"})


@lru_cache(maxsize=256)
def _written(name: str) -> str:
    """Return a header's name as it is sent."""
    return "-".join(part.capitalize() for part in name.split("-"))


@lru_cache(maxsize=2)
def _date(second: int) -> str:
    return build_http_date(second)


class Task(WSGITask):
    """Answers one request."""

    def build_response_header(self) -> bytes:
        """Return the head of the answer, which for the usual kind is put together here."""
        length = self.content_length
        if (
            self.version != "1.1"
            or length is None
            or not self.has_body
            or "CONNECTION" in self.request.headers
        ):
            return super().build_response_header()
        headers = [(_written(name), value) for name, value in self.response_headers]
        names = {name for name, _value in headers}
        if not names.isdisjoint(("Date", "Server", "Via", "Connection")):
            return super().build_response_header()
        if "Content-Length" not in names:
            headers.append(("Content-Length", str(length)))
        headers.append(("Date", _date(int(self.start_time))))
        self.response_headers = headers
        lines = [f"HTTP/1.1 {self.status}"]
        lines += [f"{name}: {value}" for name, value in headers]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def write(self, data: bytes) -> None:
        """Send a part of the answer; its head goes with the first."""
        if self.wrote_header or not self.complete or not data:
            super().write(data)
            return
        head = self.build_response_header()
        length = self.content_length
        if self.chunked_response or length is None or len(data) > length or not self.has_body:
            # Building it again changes nothing but what is worded anew.
            self.channel.write_soon(head)
            self.wrote_header = True
            super().write(data)
            return
        self.channel.write_soon(head + data)
        self.wrote_header = True
        self.content_bytes_written += len(data)


class Channel(HTTPChannel):
    """One connection."""

    task_class = Task
    #: Whether a request is to be served as soon as it has been read, by whoever read it.
    is_due = False
    #: When the present request, or the last one, began to arrive; 0 before the first.
    _since = 0.0

    def received(self, data: bytes) -> bool:
        if self.request is None:
            self._since = time.time()
        return super().received(data)

    def claim(self) -> tuple[bool, float]:
        """Return how good a claim this has to stay open when there are too many; low goes first.

        Whoever is between two requests has a better one than who keeps the server waiting for the
        rest of a request, for the first, or for an answer to be taken; the earlier those began, the
        worse.
        """
        is_resting = self.request is None and self._since > 0 and not self.total_outbufs_len
        return is_resting, self._since or self.creation_time

    def handle_read(self) -> None:
        """Read what has come, and serve the request if that was all of it."""
        server: Any = self.server
        server.reading = self
        try:
            super().handle_read()
        finally:
            server.reading = None
        if self.is_due:
            self.is_due = False
            server.serve(self)

    def write_soon(self, data: Any) -> int:
        """Send at once what the connection takes; the rest waits as in waitress."""
        if type(data) is bytes and self.connected and not self.total_outbufs_len:
            with self.outbuf_lock:
                if self.connected and not self.total_outbufs_len:
                    try:
                        sent = self.send(data, do_close=False)
                    except OSError:
                        sent = 0  # waitress meets it again, and closes
                    if sent == len(data):
                        return sent
                    return sent + super().write_soon(data[sent:])
        return super().write_soon(data)
