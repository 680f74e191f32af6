"""Log lines on standard output, in the form configurable-http-proxy writes them.

Rules of this file: nobody waits for whoever reads our output. A line is written at once where
that cannot block; else it goes through a bounded queue to a writing thread, made when it is first
needed. When that falls behind, or there may be no thread, lines are dropped and counted.

Threads: any may log; one lock keeps lines apart, and is held for a write that does not block.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque

from minihub import clock

LEVELS = ("debug", "info", "warn", "error")
#: Lines that may wait for a slow reader of our output.
MAX_WAITING = 5000
#: Lines of one kind a second; the rest is counted.
MAX_ALIKE = 20

#: What a pipe that is ready takes without blocking (PIPE_BUF).
ATOMIC_BYTES = 4096

_threshold = 1
_lock = threading.Lock()
_waiting: deque[bytes] = deque()
_wake = threading.Event()
_writer: threading.Thread | None = None
_may_thread = False
_stopping = False
_dropped = 0
_alike: dict[str, list[float]] = {}
_second = (-1, "")
_poller = select.poll()
_poller.register(1, select.POLLOUT)


def set_level(level: str) -> None:
    """Show lines of this level (one of LEVELS) and above."""
    global _threshold
    _threshold = LEVELS.index(level)


def is_debug() -> bool:
    """Return whether debug lines are shown, so that nobody builds them in vain."""
    return _threshold == 0


def debug(text: str) -> None:
    """Log what only a developer wants."""
    _emit(0, text)


def info(text: str) -> None:
    """Log what happened."""
    _emit(1, text)


def warn(text: str) -> None:
    """Log what somebody should know."""
    _emit(2, text)


def error(text: str) -> None:
    """Log what went wrong."""
    _emit(3, text)


def repeated(kind: str, text: str) -> None:
    """Log an error that may come in floods: at most MAX_ALIKE lines of a kind in a second."""
    now = clock.monotonic()
    state = _alike.get(kind)
    if state is None or now - state[0] >= 1.0:
        if state is not None and state[1] > MAX_ALIKE:
            _emit(3, f"{int(state[1] - MAX_ALIKE)} similar lines suppressed ({kind})")
        state = _alike[kind] = [now, 0.0]
    state[1] += 1
    if state[1] <= MAX_ALIKE:
        _emit(3, text)


def crash(where: str) -> None:
    """Log the exception being handled, with its trace: a bug of ours, never a peer's fault."""
    import traceback

    for line in traceback.format_exc().splitlines():
        repeated("crash", f"{where}: {line}")


def allow_thread() -> None:
    """Let lines that would block be written by a thread; not in a process that forks."""
    global _may_thread
    _may_thread = True


def finish(timeout: float = 1.0) -> None:
    """Write what waits, for at most ``timeout`` seconds, and end the thread."""
    global _writer, _stopping
    if _writer is not None:
        _stopping = True
        _wake.set()
        _writer.join(timeout)
        _writer = None


def _emit(level: int, text: str) -> None:
    if level < _threshold:
        return
    if not text.isprintable():
        # A log line is one line, whatever a peer put into it.
        text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    line = f"{_time()} [ConfigProxy] {LEVELS[level]}: {text}\n".encode("utf-8", "backslashreplace")
    with _lock:
        if not _waiting and len(line) <= ATOMIC_BYTES and _is_ready():
            if _dropped:
                line = _report_dropped() + line
            _write(line)
        else:
            _queue(line)


def _time() -> str:
    global _second
    now = clock.utcnow()
    second = int(now.timestamp())
    if second != _second[0]:
        _second = (second, now.astimezone().strftime("%H:%M:%S"))
    return f"{_second[1]}.{now.microsecond // 1000:03}"


def _is_ready() -> bool:
    return bool(_poller.poll(0))


def _queue(line: bytes) -> None:
    global _writer, _dropped
    if not _may_thread or len(_waiting) >= MAX_WAITING:
        _dropped += 1
        return
    _waiting.append(line)
    if _writer is None:
        _writer = threading.Thread(target=_write_lines, name="log", daemon=True)
        _writer.start()
    _wake.set()


def _write_lines() -> None:
    while not (_stopping and not _waiting):
        _wake.wait()
        _wake.clear()
        while _waiting:
            # It stays in the queue until it is out, so that nobody overtakes it.
            _write(_waiting[0])
            _waiting.popleft()
        if _dropped:
            _write(_report_dropped())


def _report_dropped() -> bytes:
    global _dropped
    count, _dropped = _dropped, 0
    return f"{_time()} [ConfigProxy] warn: {count} log lines dropped\n".encode()


def _write(line: bytes) -> None:
    try:
        while line:
            line = line[os.write(1, line) :]
    except OSError:
        # Nobody reads us any more; there is nowhere to say so.
        pass
