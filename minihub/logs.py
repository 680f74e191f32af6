"""The log: its format, its files, and what text from outside may do to it.

Rules of this file: handlers sit on the root logger, so that libraries' warnings arrive in the same
place; our own loggers are ``minihub`` and below. A traceback is shown on the terminal only at
DEBUG, in files always. Text that comes from a request goes through :func:`safe` before it is
logged.

Threads: :func:`setup` and :func:`teardown` from the main thread; logging itself from any.
Sources: JupyterHub's and traitlets' log fields ``highlevel``, ``color`` and ``end_color``.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import logging.handlers
import os
import sys
import threading
import warnings
from typing import Any, TextIO

from minihub.errors import ConfigError

LOGGER = "minihub"

_COLORS = {logging.DEBUG: "34", logging.INFO: "32", logging.WARNING: "33"}
_ERROR_COLOR = "31"

log = logging.getLogger(LOGGER)

#: What :func:`setup` installed, for :func:`teardown`.
_handlers: list[logging.Handler] = []
_hooks: dict[str, Any] = {}


class Formatter(logging.Formatter):
    """Formats with the extra fields ``highlevel``, ``color`` and ``end_color``.

    Without ``tracebacks`` an exception is told in one line.
    """

    def __init__(
        self, fmt: str, datefmt: str | None = None, *, colors: bool = False, tracebacks: bool = True
    ) -> None:
        super().__init__(fmt, datefmt)
        self.colors = colors
        self.tracebacks = tracebacks

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of ``record``, which other handlers find unchanged."""
        record = copy.copy(record)
        high = record.levelno >= logging.WARNING
        record.highlevel = f" {record.levelname} |" if high else ""
        record.color = record.end_color = ""
        if self.colors:
            record.color = f"\x1b[{_COLORS.get(record.levelno, _ERROR_COLOR)}m"
            record.end_color = "\x1b[0m"
        if record.exc_info and not self.tracebacks:
            error = record.exc_info[1]
            if error is not None:
                told = safe(str(error), 500)
                record.msg = f"{record.getMessage()} ({type(error).__name__}: {told})"
                record.args = None
            record.exc_info = record.exc_text = record.stack_info = None
        return super().format(record)


def check_format(log_format: str, datefmt: str) -> str:
    """Return what is wrong with a log format and date format, or an empty text."""
    record = logging.LogRecord(LOGGER, logging.WARNING, __file__, 1, "text", None, None)
    try:
        Formatter(log_format, datefmt).format(record)
    except (ValueError, TypeError) as error:
        return str(error)
    return ""


def safe(text: Any, limit: int = 200) -> str:
    """Return ``text`` on one line, without control characters, cut to ``limit`` characters."""
    text = str(text)
    cut = text[:limit]
    if not cut.isprintable():
        cut = "".join(
            c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode()
            for c in cut
        )
    return cut if len(text) <= limit else cut + "…"


def setup(options: Any, stream: TextIO | None = None) -> logging.Logger:
    """Send the log where ``options`` (a JupyterHub) says; return the logger ``minihub``.

    The log goes to ``stream`` (default: standard error), to ``extra_log_file`` and to
    ``extra_log_handlers``. What an earlier call installed is taken away first. Raises ConfigError
    when the file cannot be written.
    """
    teardown()
    stream = sys.stderr if stream is None else stream
    level = max(options.log_level, 1)
    fmt, datefmt = options.log_format, options.log_datefmt

    terminal = logging.StreamHandler(stream)
    colors = _is_terminal(stream) and not os.environ.get("NO_COLOR")
    terminal.setFormatter(Formatter(fmt, datefmt, colors=colors, tracebacks=level <= logging.DEBUG))
    handlers: list[logging.Handler] = [terminal]
    if options.extra_log_file:
        try:
            file = _PrivateFile(options.extra_log_file, encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"JupyterHub.extra_log_file: cannot write {options.extra_log_file}:"
                f" {error.strerror}"
            ) from error
        file.setFormatter(Formatter(fmt, datefmt))
        handlers.append(file)
    for handler in options.extra_log_handlers:
        if handler.formatter is None:
            handler.setFormatter(Formatter(fmt, datefmt))
        handlers.append(handler)

    root = logging.getLogger()
    root.setLevel(max(level, logging.WARNING))
    for handler in handlers:
        if type(handler).handleError is logging.Handler.handleError:
            handler.handleError = _Complaint(handler, stream)  # type: ignore[method-assign]
        if not isinstance(handler.emit, _Guarded):
            handler.emit = _Guarded(handler)  # type: ignore[method-assign]
        root.addHandler(handler)
    _handlers.extend(handlers)
    log.setLevel(level)
    # One warning per queued request would drown everything else under load.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    _install_hooks()
    return log


def teardown() -> None:
    """Undo :func:`setup`: remove its handlers and close its files. Harmless without one."""
    root = logging.getLogger()
    while _handlers:
        handler = _handlers.pop()
        root.removeHandler(handler)
        if isinstance(handler, logging.handlers.WatchedFileHandler):
            with contextlib.suppress(OSError):  # the disk is full, and that was told
                handler.close()
    if _hooks:
        warnings.showwarning = _hooks.pop("warnings")
        threading.excepthook = _hooks.pop("threads")
        sys.unraisablehook = _hooks.pop("unraisable")


class _PrivateFile(logging.handlers.WatchedFileHandler):
    """A log that its owner alone can read, where it is made here."""

    def _open(self) -> TextIO:
        def opener(path: str, flags: int) -> int:
            return os.open(path, flags, 0o600)

        return open(self.baseFilename, self.mode, encoding=self.encoding, opener=opener)


class _Guarded:
    """A handler's ``emit`` that does not fail the work that is logged, whatever it raises."""

    def __init__(self, handler: logging.Handler) -> None:
        self._handler = handler
        self._emit = handler.emit

    def __call__(self, record: logging.LogRecord) -> None:
        try:
            self._emit(record)
        except Exception:  # a handler may be anybody's
            self._handler.handleError(record)


class _Complaint:
    """Tells once, in one line, that a handler cannot write; Python's own way is a traceback."""

    def __init__(self, handler: logging.Handler, stream: TextIO) -> None:
        self._name = getattr(handler, "baseFilename", "") or type(handler).__name__
        self._stream = stream
        self._told = False

    def __call__(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if self._told or error is None:
            return
        self._told = True
        with contextlib.suppress(OSError, ValueError):
            why = safe(getattr(error, "strerror", None) or f"{type(error).__name__}: {error}")
            self._stream.write(f"The log cannot be written to {safe(self._name)}: {why}\n")
            self._stream.flush()


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


def _install_hooks() -> None:
    _hooks["warnings"] = warnings.showwarning
    _hooks["threads"] = threading.excepthook
    _hooks["unraisable"] = sys.unraisablehook
    warnings.showwarning = _log_warning
    threading.excepthook = _log_thread_death
    sys.unraisablehook = _log_unraisable


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    log.warning("%s: %s (%s:%d)", category.__name__, safe(message, 500), filename, lineno)


def _log_thread_death(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is SystemExit:
        return
    name = args.thread.name if args.thread else "unknown"
    log.error(
        "Thread %s ended by an error",
        name,
        exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
    )


def _log_unraisable(args: Any) -> None:
    log.error(
        "An error was ignored: %s",
        safe(args.err_msg or repr(args.object)),
        exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
    )
