"""Processes: starting one, knowing it again, waiting for its end, ending all that came of it.

A process is known by its id together with the time it was created: an id alone may be a
stranger's after a reboot or a wrap. Every process started here also carries a random marker in
its environment, which its descendants inherit; so those that left its session and its parent
(kernels do) are still found, also after a restart of the hub.

Rules of this file: processes are psutil's. Nothing is signalled but the process, its descendants
and bearers of its marker, and psutil compares the creation time before each signal. The
descendants are looked up before the first signal, since an orphan forgets its parent. Foreign
exceptions leave as SpawnError.

Threads: any. Each process has a lock, held to reap it and note its exit code, never while
waiting.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import secrets
import select
import signal
import socket
import subprocess
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from . import clock, launchpad, processtable, runtime, startwords
from .errors import ProcessStillAlive, SpawnTimeout
from .processtable import MARKER, Look

log = logging.getLogger("minihub.process")

#: Two readings of one process's creation time differ by the rounding of the boot time.
SAME_TIME_S = 1.0
LAUNCH_TIMEOUT_S = 30.0
_TAIL_BYTES = 64 * 1024
_TAIL_LINE_CHARS = 500
#: How many times its bound a log may have grown to be kept whole when it is moved aside.
_MOST_KEPT = 4
#: Terminal colours and other escape sequences, and control characters but the tab.
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")
#: Steps between looks at processes that nobody can wait for.
_FIRST_PAUSE_S = 0.01
_LAST_PAUSE_S = 0.1


@dataclass(frozen=True)
class Identity:
    """What a process is known by: its id, and when it was created (seconds since the epoch)."""

    pid: int
    create_time: float


@dataclass(frozen=True)
class LaunchSpec:
    """What a process becomes before its command is executed."""

    #: System user to become; empty to stay who we are. ``uid`` and ``gid`` go with it.
    user: str = ""
    uid: int = -1
    gid: int = -1
    #: Take the nearest usable parent when the directory cannot be entered.
    cwd_fallback: bool = False
    umask: int | None = None
    nice: int = 0
    #: ``{"RLIMIT_NOFILE": (soft, hard)}``
    rlimits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    no_new_privs: bool = False
    #: Processors it may run on, by number; empty for those the hub may.
    cpus: tuple[int, ...] = ()
    #: Control group to join: its directory; empty to stay in the hub's.
    cgroup: str = ""
    #: What Landlock takes away, by :func:`minihub.landlock.description`; None for nothing.
    sandbox: Mapping[str, Any] | None = None


# -- starting ------------------------------------------------------------------------------


def start(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str | os.PathLike[str] | None,
    log_path: str | os.PathLike[str],
    launch: LaunchSpec | None = None,
    timeout_s: float = LAUNCH_TIMEOUT_S,
    marker: str = "",
) -> Process:
    """Start a command in a session of its own; return it when its program has been executed.

    ``env`` is its whole environment, but for the marker, a new one unless given. Standard input is
    empty; output is appended to ``log_path`` (0600; its directory is made, 0700). ``cwd`` None is
    the root. A name without a slash is looked for on the PATH in ``env``, with the rights of the
    user it will run as. Raises CommandNotFound, SpawnTimeout after ``timeout_s``, or SpawnError
    naming what stood in the way; no process is left then.
    """
    launch = launch or LaunchSpec()
    marker = marker or new_marker()
    description = describe(argv, env=env, cwd=cwd, launch=launch, marker=marker)
    private_directory(Path(log_path).parent)
    with open_log(log_path) as output:
        ours, pid = _launch(output, marker)
    with ours:
        process = Process(identity_of(pid), marker, is_child=True)
        try:
            answers = converse(ours, description, timeout_s)
        except BaseException as error:
            os.kill(pid, signal.SIGKILL)
            process.wait(1)
            if isinstance(error, TimeoutError):
                raise SpawnTimeout(startwords.silent(argv[0], timeout_s)) from error
            raise
    last = answers[-1] if answers else {"step": "start", "path": "", "text": "it ended at once"}
    if "step" in last:
        process.wait()
        raise startwords.launch_error(last, launch.user, env)
    tell_directory(argv[0], cwd, last["cwd"])
    return process


def new_marker() -> str:
    """Return what marks one process and all that comes of it."""
    return secrets.token_hex(16)


def describe(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str | os.PathLike[str] | None,
    launch: LaunchSpec,
    marker: str,
) -> bytes:
    """Return what a process is to become, as :mod:`minihub.launcher` reads it."""
    spec = vars(launch) | {
        "user": _as_text(launch.user),
        "argv": [_as_text(word) for word in argv],
        "env": {_as_text(k): _as_text(v) for k, v in {**env, MARKER: marker}.items()},
        "cwd": _as_text(cwd or "/"),
        "cgroup": _as_text(launch.cgroup),
    }
    return json.dumps(spec).encode()


def tell_directory(program: str, wanted: str | os.PathLike[str] | None, got: str) -> None:
    """Log that a process runs in another directory than the one wanted, if it does."""
    if got != _as_text(wanted or "/"):
        log.warning("%s: %s cannot be entered; started in %s", program, wanted, got)


def _launch(output: BinaryIO, marker: str) -> tuple[socket.socket, int]:
    """Start a launcher; return the socket to talk with it, and its process id."""
    for is_prepared in (True, False):
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            raise startwords.no_process(error) from error
        pid = None
        try:
            if is_prepared:
                pid = launchpad.fork(theirs.fileno(), output.fileno())
            else:
                pid = _run_launcher(theirs.fileno(), output, marker)
        finally:
            theirs.close()
            if pid is None:  # whatever came of the attempt has nobody to talk to
                ours.close()
        if pid is not None:
            break
    return ours, pid


def _run_launcher(descriptor: int, output: BinaryIO, marker: str) -> int:
    """Start a launcher; return its process id."""
    try:
        popen = subprocess.Popen(
            runtime.script_command("minihub.launcher", str(descriptor)),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=launchpad.interpreter_environment() | {MARKER: marker},
            cwd="/",
            pass_fds=(descriptor,),
            start_new_session=True,
        )
    except OSError as error:
        raise startwords.no_process(error) from error
    # From here on the waiting is ours alone; an unset code would make Popen's destructor do it.
    popen.returncode = 0
    return popen.pid


def converse(ours: socket.socket, description: bytes, timeout_s: float) -> list[dict[str, Any]]:
    """Send the description; return the launcher's answers. Raises TimeoutError."""
    deadline = clock.monotonic() + timeout_s
    ours.settimeout(timeout_s)
    received = b""
    try:
        ours.sendall(description)
        ours.shutdown(socket.SHUT_WR)
        while piece := ours.recv(65536):
            received += piece
            ours.settimeout(max(deadline - clock.monotonic(), 0.001))
    except ConnectionError:
        pass  # it died; what it said before is all there is
    return [json.loads(line) for line in received.splitlines()]


def _as_text(value: str | os.PathLike[str]) -> str:
    """Return a text for the launcher: the Latin-1 reading of its bytes."""
    return os.fsencode(value).decode("latin-1")


# -- finding again -------------------------------------------------------------------------


def adopt(identity: Identity, marker: str = "") -> Process:
    """Return the process that an earlier hub started; one that has ended when it is not there.

    The one with that id is it when its creation time is the same, or when it bears the marker
    (a corrected system clock moves all creation times).
    """
    return Process(identity, marker, is_child=False)


def identity_of(pid: int) -> Identity:
    """Return what a process that runs, or that nobody has reaped, is known by; else never alive."""
    try:
        return _identity(psutil.Process(pid))
    except psutil.Error:
        return Identity(pid, 0.0)


def alive(identity: Identity, marker: str = "") -> bool:
    """Return whether the process with this identity runs."""
    return adopt(identity, marker).poll() is None


# -- a process -----------------------------------------------------------------------------


class Process:
    """One process that we started, or found again, with all that came of it."""

    def __init__(self, identity: Identity, marker: str, *, is_child: bool) -> None:
        self.identity = identity
        self.marker = marker
        self._is_child = is_child
        self._lock = threading.Lock()
        self._exit_code: int | None = None
        # Opened before the process is looked at: if that is the right one, so is this.
        self._pidfd = self._open_pidfd()
        self._ps = self._recognise()

    def _recognise(self) -> psutil.Process | None:
        try:
            one = psutil.Process(self.identity.pid)
            if abs(one.create_time() - self.identity.create_time) <= SAME_TIME_S:
                return one
            return one if self.marker and one.environ().get(MARKER) == self.marker else None
        except psutil.Error:
            return None

    def _open_pidfd(self) -> int | None:
        # It is closed with this object, not at the exit: another thread may be polling it.
        try:
            descriptor = os.pidfd_open(self.identity.pid)
        except (AttributeError, OSError):  # not Linux, an old kernel, or no such process
            return None
        weakref.finalize(self, os.close, descriptor)
        return descriptor

    # -- its end ---------------------------------------------------------------------------

    def poll(self) -> int | None:
        """Return None while the process runs, then its exit code.

        The code is negative for a signal, and 0 where it cannot be known: another process's
        child. A process of ours is reaped by this call.
        """
        with self._lock:
            if self._exit_code is None:
                self._exit_code = self._reap() if self._is_child else self._look()
            return self._exit_code

    def _reap(self) -> int | None:
        try:
            pid, status = os.waitpid(self.identity.pid, os.WNOHANG)
        except ChildProcessError:
            return 0
        return os.waitstatus_to_exitcode(status) if pid else None

    def _look(self) -> int | None:
        if self._ps is None:
            return 0
        if self._pidfd is not None:
            return 0 if _is_readable(self._pidfd, 0) else None
        return None if _is_living(self._ps) else 0

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait for the end; return as :meth:`poll` does, at once when it comes.

        ``timeout_s`` None waits for ever.
        """
        deadline = math.inf if timeout_s is None else clock.monotonic() + timeout_s
        while True:
            code = self.poll()
            left = deadline - clock.monotonic()
            if code is not None or left <= 0:
                return code
            if self._pidfd is not None:
                _is_readable(self._pidfd, min(left, 3600.0))
            else:
                time.sleep(min(left, _FIRST_PAUSE_S))

    def stop(self, interrupt_s: float, term_s: float, kill_s: float) -> None:
        """End the process and all that came of it; nothing of it is left when this returns.

        First SIGINT to its process group, as Ctrl-C would, and up to ``interrupt_s`` for the
        process to clean up and end; then SIGTERM to whatever lives, and up to ``term_s``; then
        SIGKILL and up to ``kill_s``. A step of 0 s is left out. When the process has ended
        already, its remains are looked for all the same. What we have no right to signal is
        somebody else's by now (sudo) and is left alone. Raises ProcessStillAlive.
        """
        known: set[psutil.Process] = set()
        refused: set[psutil.Process] = set()
        living = self._find(known)
        if interrupt_s > 0 and self.poll() is None:
            group = self.identity.pid
            _signal((one for one in living if _group_of(one.pid) == group), signal.SIGINT)
            self.wait(interrupt_s)
            living = self._find(known)
        for number, patience_s in ((signal.SIGTERM, term_s), (signal.SIGKILL, kill_s)):
            deadline = clock.monotonic() + patience_s
            signalled: set[psutil.Process] = set()
            # Again and again: some are born while others end.
            while living and clock.monotonic() < deadline:
                refused |= _signal(living - signalled, number)
                signalled |= living
                self._wait_gone(living - refused, deadline)
                living = self._find(known) - refused
        for one in refused:
            log.warning("No right to signal %s (pid %d): left alone", _name(one), one.pid)
        if living:
            names = ", ".join(f"{_name(one)} (pid {one.pid})" for one in living)
            raise ProcessStillAlive(startwords.unstoppable(names))

    def _wait_gone(self, living: set[psutil.Process], deadline: float) -> None:
        pause = _FIRST_PAUSE_S
        while any(self._is_running(one) for one in living):
            left = deadline - clock.monotonic()
            if left <= 0:
                return
            time.sleep(min(pause, left))
            pause = min(pause * 2, _LAST_PAUSE_S)

    def _is_running(self, one: psutil.Process) -> bool:
        return self.poll() is None if one == self._ps else _is_living(one)

    # -- its descendants -------------------------------------------------------------------

    def tree(self) -> list[Identity]:
        """Return the living members: the process, its descendants, the bearers of its marker."""
        found = self._find(set())
        return sorted((_identity(one) for one in found), key=lambda one: one.create_time)

    def _find(self, known: set[psutil.Process], look: Look | None = None) -> set[psutil.Process]:
        """Add all members to ``known``; return those that live."""
        look = processtable.look() if look is None else look
        todo = deque(look.bearers.get(self.marker, ()) if self.marker else ())
        for one in (*known, self._ps):
            if one is not None and look.by_pid.get(one.pid) == one:
                todo.append(one)
        living: set[psutil.Process] = set()
        while todo:
            one = todo.popleft()
            if one in living or one.pid == os.getpid():
                continue
            living.add(one)
            todo.extend(look.children.get(one.pid, ()))
        known |= living
        return {one for one in living if self._is_running(one)}


def find_marked(owner: str) -> dict[str, Process]:
    """Return the oldest living process for each marker that begins with ``owner``."""
    found = {}
    for marker, bearers in processtable.look().bearers.items():
        living = [identity_of(one.pid) for one in bearers if marker.startswith(owner)]
        if living:
            found[marker] = adopt(min(living, key=lambda one: one.create_time), marker)
    return found


def find_members(processes: Iterable[Process]) -> list[set[psutil.Process]]:
    """Return the living members of each of these, by one look at all processes."""
    look = processtable.look()
    return [one._find(set(), look) for one in processes]


def _is_readable(descriptor: int, timeout_s: float) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(math.ceil(timeout_s * 1000)))


def _is_living(one: psutil.Process) -> bool:
    """Return whether a process runs; a zombie that its parent leaves lying does not."""
    try:
        return one.is_running() and one.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


def _signal(processes: Iterable[psutil.Process], number: int) -> set[psutil.Process]:
    """Signal these processes; return those that we may not signal."""
    refused = set()
    for one in processes:
        try:
            one.send_signal(number)
        except psutil.NoSuchProcess:
            pass
        except psutil.AccessDenied:
            refused.add(one)
    return refused


def _group_of(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except OSError:
        return -1


def _name(one: psutil.Process) -> str:
    try:
        return one.name()
    except psutil.Error:
        return "a process"


def _identity(one: psutil.Process) -> Identity:
    return Identity(one.pid, one.create_time())


# -- directories and logs ------------------------------------------------------------------


def private_directory(path: Path) -> Path:
    """Make a directory, 0700, if it is not there; return it. Raises SpawnError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise startwords.no_directory(path, error) from error
    return path


def open_log(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a log, 0600, to append to. Raises SpawnError."""
    # Unbuffered: nothing is written here but by the process, through its own copy.
    try:
        return open(path, "ab", buffering=0, opener=_private)
    except OSError as error:
        raise startwords.no_log(path, error) from error


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def rotate(path: str | os.PathLike[str], max_bytes: int) -> bool:
    """Move a log that has grown past ``max_bytes`` to ``PATH.1`` and empty it; return whether.

    The content is copied and the file cut, because a running process keeps its descriptor; since
    it appends, it goes on at the new beginning. Lines written between copying and cutting are
    lost. Of a log that has grown far beyond, or that its writer has made long without filling it,
    the end is kept: a few times ``max_bytes``. A log that cannot be copied (a full disk) is cut all
    the same.
    """
    try:
        size = os.path.getsize(path)
        if size <= max_bytes:
            return False
        try:
            old = f"{os.fspath(path)}.1"
            with open(path, "rb") as source, open(old, "wb", opener=_private) as target:
                left = min(size, max_bytes * _MOST_KEPT)
                source.seek(size - left)
                while left > 0 and (block := source.read(min(left, _TAIL_BYTES))):
                    left -= target.write(block)
        except OSError as error:
            log.warning("The log %s cannot be kept: %s", path, error.strerror)
        os.truncate(path, 0)
    except FileNotFoundError:
        return False
    except OSError as error:
        log.warning("The log %s cannot be rotated: %s", path, error.strerror)
        return False
    return True


def tail(path: str | os.PathLike[str], lines: int, since: int = 0) -> list[str]:
    """Return up to the last ``lines`` lines of a log, without terminal escapes.

    ``since`` is where to begin (bytes), such as the size of the log before a start. Very long
    lines are cut. A log that cannot be read has no lines.
    """
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            begin = since if since <= size else 0
            file.seek(max(begin, size - _TAIL_BYTES))
            text = file.read(_TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return []
    found = [_CONTROL.sub("", line)[:_TAIL_LINE_CHARS] for line in text.split("\n")]
    return [line for line in found if line.strip()][-lines:]
