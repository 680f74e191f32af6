"""Asking a server that is starting whether it answers.

Rules of this file: one request at a time, to a server that may not listen, listen and be silent,
or talk nonsense; whatever it does is an :class:`Answer`. Redirects are not followed.

Threads: any.
"""

from __future__ import annotations

import http.client
import io
import random
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from . import clock
from .texts import Text

#: The pause after a try is random up to a bound that doubles from the first to the second.
FIRST_PAUSE_S = 0.2
LAST_PAUSE_S = 5.0
#: The bounds while nobody listens yet: it costs next to nothing to ask, and somebody is waiting.
FIRST_REFUSED_PAUSE_S = 0.01
LAST_REFUSED_PAUSE_S = 0.1
_REFUSED_GROWTH = 1.25
TRY_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 2.0
LONGEST_HEAD = 2**16
#: How long at most a wait goes on without asking whether it is still wanted.
_STEP_S = 0.25


@dataclass(frozen=True)
class Answer:
    """What came back: ``status`` None when nothing did that is HTTP."""

    status: int | None = None
    #: The ``X-JupyterHub-Version`` of the answer.
    version: str | None = None
    #: Whether nobody listens at all.
    is_refused: bool = False

    @property
    def is_ready(self) -> bool:
        """Whether the server is up: any status below 500 will do."""
        return self.status is not None and self.status < 500


def ask(url: str, timeout_s: float, still_wanted: Callable[[], Any] | None = None) -> Answer:
    """Return what a server answers to ``GET url``, whose head must be there in time.

    ``still_wanted`` is called several times a second and raises to give up. Raises ValueError for
    no http:// URL.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"{url} is not of the form http://host:port/path")
    until = clock.monotonic() + timeout_s
    connection = http.client.HTTPConnection(
        parts.hostname, parts.port or 80, timeout=min(timeout_s, CONNECT_TIMEOUT_S)
    )
    try:
        connection.request("GET", parts.path, headers={"Connection": "close"})
        head = _read_head(connection.sock, until, still_wanted)
        response = http.client.HTTPResponse(_Received(head))  # type: ignore[arg-type]
        response.begin()
        return Answer(response.status, response.getheader("X-JupyterHub-Version"))
    except ConnectionRefusedError:
        return Answer(is_refused=True)
    except (OSError, http.client.HTTPException):
        return Answer()
    finally:
        connection.close()


def _read_head(sock: socket.socket, until: float, still_wanted: Callable[[], Any] | None) -> bytes:
    """Return the head of an answer, however slowly it comes. Raises TimeoutError."""
    head = b""
    while b"\r\n\r\n" not in head and len(head) < LONGEST_HEAD:
        if still_wanted is not None:
            still_wanted()
        left = until - clock.monotonic()
        if left <= 0:
            raise TimeoutError("no answer in time")
        sock.settimeout(min(left, _STEP_S))
        try:
            data = sock.recv(4096)
        except TimeoutError:
            continue
        if not data:
            break
        head += data
    return head


class _Received:
    """Bytes that were received, as http.client wants them."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


class Pauses:
    """How long to wait after each try."""

    def __init__(self) -> None:
        self._bound_s = FIRST_PAUSE_S
        self._refused_bound_s = FIRST_REFUSED_PAUSE_S

    def after(self, answer: Answer) -> float:
        """Return the next pause in seconds."""
        if answer.is_refused:
            bound = self._refused_bound_s
            self._refused_bound_s = min(bound * _REFUSED_GROWTH, LAST_REFUSED_PAUSE_S)
            return random.uniform(bound / 2, bound)
        bound = self._bound_s
        self._bound_s = min(bound * 2, LAST_PAUSE_S)
        return random.uniform(0, bound)


def reachable(ip: str) -> str:
    """Return the address, as it stands in a URL, at which one that listens on ``ip`` is reached."""
    ip = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(ip, ip)
    return f"[{ip}]" if ":" in ip else ip


def describe_exit(code: int) -> str:
    """Return an exit code in words; a negative one is that of a signal."""
    if code >= 0:
        return Text("exit code %(code)s", code=code)
    try:
        return Text("killed by %(signal)s", signal=signal.Signals(-code).name)
    except ValueError:
        return Text("killed by signal %(signal)s", signal=-code)


def exit_hint(code: int) -> str:
    """Return what helps after such an end where the log says nothing, or ""."""
    if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return Text(
            "Somebody killed it, most often the system when memory ran out. Stop servers that are "
            "not needed, or raise the limit of memory (Spawner.mem_limit)."
        )
    return ""


def silence_hint(last: Answer) -> str:
    """Return what helps when a server runs and does not answer; ``last`` was its last answer."""
    if last.is_refused:
        return Text(
            "It runs, and never opened its port. Either its program is another than a server for "
            "notebooks (Spawner.cmd), or it only needs longer: raise Spawner.http_timeout."
        )
    if last.status is not None:
        return Text(
            "It answers with an error (status %(status)s); its log says more.", status=last.status
        )
    return Text("If it only needs longer, raise Spawner.http_timeout.")
