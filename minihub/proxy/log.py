"""Log lines on standard output, in the form configurable-http-proxy writes them.

Rules of this file: a loop thread never waits for whoever reads our output. Lines go through a
bounded queue to one writing thread; when that falls behind, lines are dropped and counted. Before
:func:`start_writer` and after :func:`stop_writer` lines are written directly.

Threads: any may log; one daemon thread writes.
"""

from __future__ import annotations

import os
import threading
from collections import deque

from minihub import clock

LEVELS = ("debug", "info", "warn", "error")
#: Lines that may wait for a slow reader of our output.
MAX_WAITING = 5000
#: Lines of one kind a second; the rest is counted.
MAX_ALIKE = 20

_threshold = 1
_waiting: deque[bytes] = deque()
_wake = threading.Event()
_writer: threading.Thread | None = None
_stopping = False
_dropped = 0
_alike: dict[str, list[float]] = {}


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


def start_writer() -> None:
    """Start the writing thread."""
    global _writer, _stopping
    _stopping = False
    _writer = threading.Thread(target=_write_lines, name="log", daemon=True)
    _writer.start()


def stop_writer(timeout: float = 1.0) -> None:
    """Write what waits, for at most ``timeout`` seconds, and end the thread."""
    global _writer, _stopping
    if _writer is None:
        return
    _stopping = True
    _wake.set()
    _writer.join(timeout)
    _writer = None


def _emit(level: int, text: str) -> None:
    global _dropped
    if level < _threshold:
        return
    stamp = clock.utcnow().astimezone().strftime("%H:%M:%S.%f")[:-3]
    # A log line is one line, whatever a peer put into it.
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    line = f"{stamp} [ConfigProxy] {LEVELS[level]}: {text}\n".encode("utf-8", "backslashreplace")
    if _writer is None:
        _write(line)
    elif len(_waiting) < MAX_WAITING:
        _waiting.append(line)
        _wake.set()
    else:
        _dropped += 1


def _write_lines() -> None:
    global _dropped
    while True:
        _wake.wait()
        _wake.clear()
        while _waiting:
            _write(_waiting.popleft())
        if _dropped:
            _write(f"[ConfigProxy] warn: {_dropped} log lines dropped\n".encode())
            _dropped = 0
        if _stopping:
            return


def _write(line: bytes) -> None:
    try:
        while line:
            line = line[os.write(1, line) :]
    except OSError:
        # Nobody reads us any more; there is nowhere to say so.
        pass
