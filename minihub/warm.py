"""One warm parent, seen from the hub: getting it warm, starting servers with it, watching it.

A warm parent (:mod:`minihub.warmparent`) is a process of the users' own interpreter that has
imported what their servers import and forks one for each start. Whether a start may use it is
judged here: the command is the one it was made for, nothing it imported has changed on disk, and
every variable that was read meanwhile has the value the server is to have.

Rules of this file: it decides nothing about when there is a parent (:mod:`minihub.warmpool`). No
value of any user reaches a parent, only stand-ins; what a server becomes travels on a socket that
only its own copy reads. Every failure is :class:`NotWarm`, with the reason: the caller starts cold.

Threads: any. One thread for each parent hears what it says; a lock guards what is known of its
copies, for dictionary work only.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from . import clock, process, warmparent, warmroot, warmrun
from .errors import SpawnError
from .warmplan import Learned, NotWarm, Plan, find_command, signature, stand_in

log = logging.getLogger("minihub.warm")

#: How long a throw-away start, and getting warm, may take.
LEARN_TIMEOUT_S = 120.0
WARM_TIMEOUT_S = 120.0
#: How often all that was imported is looked at again.
LOOK_AGAIN_S = 1.0
#: How long in all it waits, while it gets warm, for people's servers that start meanwhile. After
#: that, and whenever a crowd waits, it goes on: who still waits will gain by it.
PATIENCE_S = 30.0
_STEP_S = 0.5
#: How long a parent may take to fork.
FORK_TIMEOUT_S = 5.0
#: How long after a copy's end its exit code may take to arrive.
EXIT_CODE_S = 1.0
_MESSAGE_BYTES = 65536

#: Variables that the interpreter or the C library reads before any module does.
_EARLY = re.compile(
    r"PYTHON|LD_|LC_|LANG|TZ|MALLOC_|GLIBC_|OMP_|OPENBLAS_|MKL_|OPENSSL_|SETUPTOOLS_|COVERAGE_"
)


# -- getting warm, with regard for others --------------------------------------------------


class Preparation:
    """Learning and getting warm: held back while people's servers start, and given up on demand.

    Any thread may call it; the lock guards who is held back, and is a leaf.
    """

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._lock = threading.Lock()
        self._left_s = patience_s
        self._held_since: float | None = None
        self._popen: subprocess.Popen[bytes] | None = None
        self._given_up = False
        self._is_urgent = False

    @contextlib.contextmanager
    def of(self, popen: subprocess.Popen[bytes]) -> Iterator[None]:
        """Let this process, the first of its group, be the one that works."""
        with self._lock:
            self._popen = popen
            if self._held_since is not None:
                self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            with self._lock:
                self._signal(signal.SIGCONT)
                self._popen = None

    def hold(self) -> None:
        """Leave the processors to others, unless there has been enough of that or it is urgent."""
        with self._lock:
            if self._held_since is None and self._left_s > 0 and not self._is_urgent:
                self._held_since = clock.monotonic()
                self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Go on after :meth:`hold`."""
        with self._lock:
            if self._held_since is not None:
                self._left_s -= clock.monotonic() - self._held_since
                self._held_since = None
                self._signal(signal.SIGCONT)

    def hurry(self) -> None:
        """Be held back no longer; it goes on within a moment. Takes no lock."""
        self._is_urgent = True

    def give_up(self) -> None:
        """Let whoever waits for it end it."""
        self._given_up = True

    def check(self) -> None:
        """Go on when it is urgent, or held back for long enough; to be called now and then.

        Raises NotWarm.
        """
        if self._given_up:
            raise NotWarm("it is no longer wanted")
        since = self._held_since
        if since is not None and (self._is_urgent or clock.monotonic() - since > self._left_s):
            self.go_on()

    def _signal(self, number: int) -> None:
        if self._popen is not None and self._popen.returncode is None:
            with contextlib.suppress(OSError):
                os.killpg(self._popen.pid, number)


def learn(plan: Plan, directory: Path, preparation: Preparation | None = None) -> Learned:
    """Return what a start of the command imports, by a throw-away start.

    Raises NotWarm. It leaves nothing behind.
    """
    preparation = preparation or Preparation()
    with _learners_home(plan, directory) as (home, uid), socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
        s.close()
        name, prefix = "learn", "/user/learn/"
        values = {
            "HOME": home,
            "USER": name,
            "SHELL": "/bin/sh",
            "JUPYTERHUB_API_TOKEN": secrets.token_hex(16),
            "JUPYTERHUB_USER": name,
            "JUPYTERHUB_SERVER_NAME": "",
            "JUPYTERHUB_CLIENT_ID": "jupyterhub-user-learn",
            "JUPYTERHUB_HOST": "",
            "JUPYTERHUB_BASE_URL": "/",
            "JUPYTERHUB_SERVICE_PREFIX": prefix,
            "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{port}{prefix}",
            "JUPYTERHUB_API_URL": "http://learn-hub/hub/api",
            "JUPYTERHUB_ACTIVITY_URL": f"http://learn-hub/hub/api/users/{name}/activity",
            "JUPYTERHUB_OAUTH_CALLBACK_URL": f"{prefix}oauth_callback",
            "JUPYTERHUB_OAUTH_ACCESS_SCOPES": json.dumps([f"access:servers!user={name}"]),
        }
        setup = {
            "command": plan.command.argv,
            "args": list(plan.args),
            "env": {**plan.env, **values},
            "prefix": prefix,
            "port": port,
            "timeout_s": LEARN_TIMEOUT_S,
        }
        with process.open_log(directory / "learn.log") as output:
            output.truncate(0)
            popen, place = warmrun.run(
                plan, "warmlearn", setup, output.fileno(), output, Path(home), uid
            )
        try:
            with preparation.of(popen):
                _wait(popen, LEARN_TIMEOUT_S + 10, preparation)
        except BaseException:
            place.close()
            raise
        finally:
            with contextlib.suppress(OSError):
                os.killpg(popen.pid, signal.SIGKILL)
            popen.wait()
        found = warmrun.read(place)
    if "modules" not in found:
        raise NotWarm(f"{found.get('problem')}; see {directory / 'learn.log'}")
    if plan.is_guarded:
        return Learned(warmroot.names(found["modules"]))
    return Learned(**{one.name: found[one.name] for one in fields(Learned) if one.name in found})


@contextlib.contextmanager
def _learners_home(plan: Plan, directory: Path) -> Iterator[tuple[str, int | None]]:
    """Lend a home for a throw-away start, and tell the id that it runs as; None for the hub's."""
    if plan.is_guarded:
        uid = warmroot.free_id()
        with warmroot.learners_home(directory, uid) as home:
            yield home, uid
    else:
        with tempfile.TemporaryDirectory(prefix="learn-", dir=directory) as home:
            yield home, None


def _wait(popen: subprocess.Popen[bytes], timeout_s: float, preparation: Preparation) -> None:
    """Wait for the end of a process. Raises NotWarm."""
    deadline = clock.monotonic() + timeout_s
    while clock.monotonic() < deadline:
        with contextlib.suppress(subprocess.TimeoutExpired):
            popen.wait(_STEP_S)
            return
        preparation.check()
    raise NotWarm("its throw-away start hangs")


# -- a parent ------------------------------------------------------------------------------


class WarmParent:
    """A process that forks servers, from :meth:`start` until :meth:`stop`."""

    def __init__(
        self,
        plan: Plan,
        learned: Learned,
        directory: Path,
    ) -> None:
        """``directory`` is private to the hub; the parent's log and directory lie there."""
        self.plan = plan
        self.learned = learned
        self.directory = directory
        self.token = f"minihub-stand-in-{secrets.token_hex(8)}"
        self.cwd = directory / self.token
        self.env = dict(plan.env) | {name: stand_in(name, self.token) for name in plan.own_names}
        #: The id it runs as; None for the hub's.
        self.uid: int | None = None
        self.report: dict[str, Any] = {}
        self.signature = signature(plan.command)
        self.ready_since = 0.0
        #: Servers started with it.
        self.count = 0
        self._popen: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._listener: threading.Thread | None = None
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._forked: dict[int, dict[str, Any]] = {}
        self._codes: dict[int, int] = {}
        self._running: dict[int, int] = {}
        self._next = 0
        self._ready: bool | None = None
        self._gone = False
        self._looked = 0.0
        self._fresh = True

    # -- getting warm ----------------------------------------------------------------------

    def start(self, preparation: Preparation | None = None) -> None:
        """Start it and wait until it is warm. Raises NotWarm; nothing is left then."""
        self._preparation = preparation or Preparation()
        if self.plan.is_guarded:
            warmroot.check(self.plan)
            self.uid = warmroot.free_id()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control, learned = ours, self.learned
        process.private_directory(self.cwd)
        setup = {
            "command": self.plan.command.argv,
            "env": self.env,
            "token": self.token,
            "modules": [name for name in learned.modules if name not in learned.left_out],
            "extra": [name for name in self.plan.preload if name not in learned.left_out],
            "patterns": learned.patterns,
            "guarded": self.plan.is_guarded,
        }
        path = self.directory / "parent.log"
        process.rotate(path, 10 * 1024**2)
        with theirs, process.open_log(path) as output:
            self._popen, place = warmrun.run(
                self.plan, "warmparent", setup, theirs.fileno(), output, self.cwd, self.uid
            )
        name = f"warm-parent-{self._popen.pid}"
        self._listener = threading.Thread(target=self._listen, name=name, daemon=True)
        self._listener.start()
        try:
            with self._preparation.of(self._popen):
                ready = self._wait_warm()
            if ready is None and not self._gone:
                raise NotWarm("it did not get warm in time")
            self.report = warmrun.read(place)
            if not ready:
                problems = self.report.get("problems") or ["its files have changed meanwhile"]
                path = self.report.get("not_roots", {}).get(problems[0])
                if path is not None:
                    raise warmroot.not_roots(path, problems[0])
                raise NotWarm("; ".join(problems[:3]))
            self._check_memory()
        except BaseException:
            place.close()
            self.stop()
            raise
        self.report["files"] = {
            path: stamp for path, stamp in self.report["files"].items() if os.path.isabs(path)
        }
        self.ready_since = clock.monotonic()

    def _wait_warm(self) -> bool | None:
        """Wait until it says whether it is fit; None when it does not. Raises NotWarm."""
        deadline = clock.monotonic() + WARM_TIMEOUT_S
        with self._changed:
            while self._ready is None and not self._gone and clock.monotonic() < deadline:
                self._changed.wait(_STEP_S)
                self._preparation.check()
            return self._ready

    def _check_memory(self) -> None:
        limit, used = self.plan.mem_limit, self.memory_bytes()
        if limit and used > limit:
            raise NotWarm(
                f"it uses {used // 2**20} MB, more than LocalProcessSpawner.warm_mem_limit"
            )

    def _listen(self) -> None:
        """Hear what the parent says until it ends."""
        control = self._control
        assert control is not None
        while True:
            try:
                data = control.recv(_MESSAGE_BYTES)
            except OSError:
                data = b""
            message = json.loads(data) if data else None
            with self._changed:
                if message is None:
                    self._gone = True
                elif "ready" in message:
                    self._ready = message["ready"]
                elif "exit" in message:
                    self._codes[message["exit"]] = message["code"]
                    self._running.pop(message["exit"], None)
                elif "start" in message:
                    self._forked[message["start"]] = message
                self._changed.notify_all()
            if message is None:
                break
        popen = self._popen
        with contextlib.suppress(subprocess.TimeoutExpired):
            popen.wait(5)  # type: ignore[union-attr]
        control.close()

    # -- what is known of it ---------------------------------------------------------------

    @property
    def pid(self) -> int:
        return self._popen.pid if self._popen else 0

    def is_alive(self) -> bool:
        return self._popen is not None and not self._gone

    def memory_bytes(self) -> int:
        """Return the resident memory of the parent itself."""
        return rss_bytes(self.pid)

    def running(self) -> list[int]:
        """Return the process ids of its servers that run."""
        with self._lock:
            return list(self._running.values())

    def is_fresh(self) -> bool:
        """Return whether nothing it has imported has changed; looked at once a second at most."""
        now = clock.monotonic()
        if self._fresh and now - self._looked >= LOOK_AGAIN_S:
            self._fresh = self.signature == signature(self.plan.command) and all(
                warmparent.stamp(path) == stamp for path, stamp in self.report["files"].items()
            )
            self._looked = clock.monotonic()
        return self._fresh

    def judge(self, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """Raise NotWarm when a server with this command and environment cannot be its copy."""
        if find_command(argv[0], env.get("PATH", os.defpath)) != self.plan.command:
            raise NotWarm(f"{argv[0]} is another program than the one that is kept warm")
        reads = self.report["reads"]
        strict = bool(self.report["startup"])
        for name in sorted(env.keys() | self.env.keys()):
            early = _EARLY.match(name) or (strict and name not in self.plan.own_names)
            if (early or name in reads) and env.get(name) != self.env.get(name):
                readers = reads.get(name) or ["Python"]
                raise NotWarm(f"{readers[0]} has read another value of {name}")
            if name in self.plan.env and env.get(name) != self.env[name]:
                # Another's value must not even lie in the memory that a copy begins with.
                raise NotWarm(f"its {name} is not what the configuration says for everybody")
        for element in env.get("PYTHONPATH", "").split(os.pathsep):
            if "PYTHONPATH" in env and not os.path.isabs(element):
                raise NotWarm("PYTHONPATH has an element that is no absolute path")
        home = env.get("HOME", "")
        if self.report["user_site"] and "PYTHONNOUSERSITE" not in env:
            base = env.get("PYTHONUSERBASE") or os.path.join(home, ".local")
            site = os.path.join(base, "lib", f"python{self.report['version']}", "site-packages")
            if os.path.isdir(site):
                raise NotWarm(f"there are packages of the user's own in {site}")

    # -- starting servers ------------------------------------------------------------------

    def start_server(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str | os.PathLike[str] | None,
        log_path: str | os.PathLike[str],
        launch: process.LaunchSpec,
        timeout_s: float,
        marker: str = "",
    ) -> process.Process:
        """Start a server as :func:`process.start` does. Raises NotWarm; none is left then."""
        marker = marker or process.new_marker()
        description = process.describe(argv, env=env, cwd=cwd, launch=launch, marker=marker)
        process.private_directory(Path(log_path).parent)
        with self._lock:
            self._next += 1
            number = self._next
        try:
            ours, theirs = socket.socketpair()
            with ours:
                with theirs, process.open_log(log_path) as output:
                    pid = self._fork(number, theirs.fileno(), output.fileno())
                copy = ForkedProcess(self, number, pid, marker)
                self._tell(seen=number)
                try:
                    if self.plan.is_guarded:
                        description = warmroot.bind(pid, launch, description)
                    answers = process.converse(ours, description, timeout_s)
                except BaseException:
                    copy.stop(0, 0, 5)
                    raise
        except (OSError, SpawnError, ValueError) as error:  # a TimeoutError is an OSError
            raise NotWarm(str(error) or "it did not answer") from error
        last = answers[-1] if answers else {"text": "its copy ended at once"}
        if "cwd" not in last:
            copy.wait(FORK_TIMEOUT_S)
            raise NotWarm(last["text"])
        process.tell_directory(argv[0], cwd, last["cwd"])
        self.count += 1
        return copy

    def _fork(self, number: int, conn: int, output: int) -> int:
        """Let the parent fork; return the copy's process id. Raises OSError."""
        assert self._control is not None
        if self._gone:
            raise OSError("the parent has ended")
        message = json.dumps({"start": number}).encode()
        socket.send_fds(self._control, [message], [conn, output])
        with self._changed:
            self._changed.wait_for(lambda: number in self._forked or self._gone, FORK_TIMEOUT_S)
            said = self._forked.pop(number, None)
            if said is None:
                self._tell(seen=number)  # should it fork after all, the copy ends and is reaped
                raise OSError("the parent has ended" if self._gone else "the parent does not fork")
            if "pid" not in said:
                raise OSError(f"the parent cannot fork: {said['error']}")
            self._running[number] = said["pid"]
        return said["pid"]

    def exit_code(self, number: int) -> int:
        """Return the exit code of a copy that has ended; 0 when the parent can no longer tell."""
        with self._changed:
            self._changed.wait_for(lambda: number in self._codes or self._gone, EXIT_CODE_S)
            self._running.pop(number, None)
            return self._codes.pop(number, 0)

    def _tell(self, **facts: Any) -> None:
        with contextlib.suppress(OSError, AttributeError):
            self._control.send(json.dumps(facts).encode())  # type: ignore[union-attr]

    # -- its end ---------------------------------------------------------------------------

    def retire(self) -> None:
        """Let it end when its last server has; until then it tells their exit codes."""
        self._tell(retire=True)

    def stop(self) -> None:
        """End it. Its servers stay."""
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.shutdown(socket.SHUT_RDWR)
        if self._popen is not None:
            try:
                self._popen.wait(2)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait()
        if self._listener is not None:
            self._listener.join(10)
        elif self._control is not None:
            self._control.close()
        with contextlib.suppress(OSError):
            self.cwd.rmdir()


class ForkedProcess(process.Process):
    """A server that a parent forked: its exit code is the parent's to tell."""

    def __init__(self, parent: WarmParent, number: int, pid: int, marker: str) -> None:
        self._parent = parent
        self._number = number
        super().__init__(process.identity_of(pid), marker, is_child=False)

    def _look(self) -> int | None:
        return None if super()._look() is None else self._parent.exit_code(self._number)


def rss_bytes(pid: int) -> int:
    """Return the resident memory of a process; 0 when it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def shared_bytes(pid: int, *, own: bool = False) -> int:
    """Return how much of a process's own kind of memory it has in common with others.

    With ``own``: its fair part of all of it. 0 where this system does not tell.
    """
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            fields = dict(line.split(":", 1) for line in file if ":" in line)
        anonymous, fair = (int(fields[name].split()[0]) for name in ("Anonymous", "Pss_Anon"))
    except (OSError, KeyError, ValueError):
        return 0
    return (fair if own else anonymous - fair) * 1024


def is_possible() -> bool:
    """Return whether this system can fork a process that has imported things."""
    return sys.platform == "linux" and os.path.isdir("/proc/self/task")
