"""The prepared launcher: one that is there already, and becomes a server in a copy of itself.

Starting an interpreter costs more than many a launcher's whole work. So the first start of a
server also starts one launcher that waits, and every later one asks it for a copy of itself, which
then does what :mod:`minihub.launcher` does. The copy is a child of the hub's (CLONE_PARENT in
clone(2)), as if the hub had started it: the hub reaps it, and it outlives the prepared one.

Rules of this file: it hands out process ids, and knows nothing of descriptions. Where there can be
none (other systems, other processors), or one fails, the answer is None: the caller starts a
launcher of its own then, which is slower and does the same.

Threads: any; a lock is held for one question and its answer.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from . import runtime

log = logging.getLogger("minihub.process")

#: How long the prepared launcher may take to copy itself.
ANSWER_TIMEOUT_S = 5.0
#: What a launcher's own interpreter may need of our environment; the command gets none of it.
_INTERPRETER_ENV = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "LC_CTYPE")
#: Kernels in which a copy's parent, exit signal and numbers of calls are what is relied on.
_MACHINES = ("x86_64", "aarch64")


class Launchpad:
    """One prepared launcher, from its first use to :meth:`close`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._is_closed = not _is_possible()

    def fork(self, conversation: int, output: int) -> int | None:
        """Return the id of a new process that is a launcher: it reads its description from the
        descriptor ``conversation`` and writes to ``output``; None where there is none prepared.

        The first call, which finds none, has one started.
        """
        with self._lock:
            if self._is_closed:
                return None
            if self._socket is None:
                self._begin()
                return None  # it needs as long to get ready as a launcher of one's own
            try:
                socket.send_fds(self._socket, [b"+"], [conversation, output])
                answer = self._socket.recv(64)
                if answer and int(answer) > 0:
                    return int(answer)
                raise OSError(-int(answer or b"0"), "it has ended" if not answer else "no process")
            except (OSError, ValueError) as error:
                log.warning("The prepared launcher fails (%s); it is made anew", error)
                self._end()
                return None

    def _begin(self) -> None:
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:
            return
        with theirs:
            try:
                self._process = subprocess.Popen(
                    runtime.script_command("minihub.launcher", "--serve", str(theirs.fileno())),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env=interpreter_environment(),
                    cwd="/",
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            except OSError as error:
                log.warning("No launcher can be prepared: %s", error.strerror)
                ours.close()
                return
        ours.settimeout(ANSWER_TIMEOUT_S)
        self._socket = ours

    def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()  # it ends by that
            self._socket = None
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(1)
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._process = None

    def close(self) -> None:
        """End the prepared launcher; there is none from now on."""
        with self._lock:
            self._is_closed = True
            self._end()


def _is_possible() -> bool:
    return sys.platform == "linux" and os.uname().machine in _MACHINES


_launchpad: Launchpad | None = None


@contextmanager
def kept() -> Iterator[None]:
    """Keep a prepared launcher, from the first start on, for the block: the life of a hub."""
    global _launchpad
    _launchpad = Launchpad()
    try:
        yield
    finally:
        ended, _launchpad = _launchpad, None
        ended.close()


def fork(conversation: int, output: int) -> int | None:
    """Return as :meth:`Launchpad.fork` does; None where no launcher is kept."""
    pad = _launchpad
    return None if pad is None else pad.fork(conversation, output)


def interpreter_environment() -> dict[str, str]:
    """Return what of our environment a launcher gets."""
    return {name: os.environ[name] for name in _INTERPRETER_ENV if name in os.environ}
