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
import importlib.resources
import json
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from . import clock, process, warmparent
from .errors import SpawnError

log = logging.getLogger("minihub.warm")

#: The code that runs in the users' interpreter, by name of the module.
SOURCES = ("warmparent", "warmchild", "warmstale", "warmlearn", "launcher")
#: Runs one of them from the description, so that no directory of ours is on its path.
BOOTSTRAP = (
    "import json,sys;exec(json.load(open(int(sys.argv[2]),closefd=False))['sources'][sys.argv[3]])"
)
#: How long a throw-away start, and getting warm, may take.
LEARN_TIMEOUT_S = 120.0
WARM_TIMEOUT_S = 120.0
#: How often all that was imported is looked at again.
LOOK_AGAIN_S = 1.0
#: How long in all it waits, while it gets warm, for people's servers that start meanwhile. After
#: that it goes on: servers that still wait will gain by it.
PATIENCE_S = 10.0
_STEP_S = 0.5
#: How long a parent may take to fork.
FORK_TIMEOUT_S = 5.0
#: How long after a copy's end its exit code may take to arrive.
EXIT_CODE_S = 1.0
_MESSAGE_BYTES = 65536

#: Programs that are known to do the same from a warm parent as when they are executed.
KNOWN_PROGRAMS = ("jupyterhub-singleuser", "jupyter-labhub")

#: Variables that the interpreter or the C library reads before any module does.
_EARLY = re.compile(
    r"PYTHON|LD_|LC_|LANG|TZ|MALLOC_|GLIBC_|OMP_|OPENBLAS_|MKL_|OPENSSL_|SETUPTOOLS_|COVERAGE_"
)


class NotWarm(Exception):
    """Raised when a start cannot be warm; says why in a few words."""


# -- what is warmed ------------------------------------------------------------------------


@dataclass(frozen=True)
class Command:
    """A Python program as the kernel would execute it: interpreter, its flags, its file."""

    interpreter: str
    flags: tuple[str, ...]
    script: str

    @property
    def argv(self) -> list[str]:
        return [self.interpreter, *self.flags, self.script]


_SHELL_LINE = re.compile(r"""'''exec' ("[^"]+"|[^ "]+)((?: -\S+)*) "\$0" "\$@"$""")


def find_command(program: str, path: str) -> Command:
    """Return the command that ``program`` means on this PATH. Raises NotWarm."""
    script = shutil.which(program, path=path)
    if script is None or not os.path.isabs(script):
        raise NotWarm(f"{program} is no file with an absolute path")
    try:
        with open(script, "rb") as file:
            first, second = (file.readline(4096).rstrip() for _ in range(2))
    except OSError as error:
        raise NotWarm(f"{script} cannot be read: {error.strerror}") from error
    if not first.startswith(b"#!"):
        raise NotWarm(f"{script} is no Python program")
    words = os.fsdecode(first[2:]).split()
    shell = _SHELL_LINE.match(os.fsdecode(second))
    if words == ["/bin/sh"] and shell:  # how pip writes a path that is too long for the kernel
        words = [shell[1].strip('"'), *shell[2].split()]
    elif words[:1] == ["/usr/bin/env"] and len(words) == 2:
        words = [shutil.which(words[1], path=path) or ""]
    if not words or not re.match(r"python[\d.]*$|pypy[\d.]*$", os.path.basename(words[0])):
        raise NotWarm(f"{script} is no Python program")
    if len(words) > 2 or any(word[:1] != "-" for word in words[1:]):
        raise NotWarm(f"the first line of {script} is unusual")
    return Command(words[0], tuple(words[1:]), script)


@dataclass(frozen=True)
class Plan:
    """What a parent is made of. Nothing in it is any user's."""

    command: Command
    #: Arguments of the command that are everybody's, for the throw-away start.
    args: tuple[str, ...] = ()
    #: Variables that are the same for everybody.
    env: Mapping[str, str] = field(default_factory=dict)
    #: Names of variables that each server has a value of its own of.
    own_names: tuple[str, ...] = ()
    #: Modules to import besides those that a start imports.
    preload: tuple[str, ...] = ()
    #: Most memory the parent may use, in bytes.
    mem_limit: int | None = None


def stand_in(name: str, token: str) -> str:
    """Return a value that cannot be mistaken, in the form that values of this variable have."""
    low = name.lower().replace("_", "-")
    if name == "HOME":
        return f"/{token}/home"
    if name in ("SHELL", "TMPDIR"):
        return f"/{token}/{low}"
    if name.endswith("_PREFIX") or name == "JUPYTERHUB_BASE_URL":
        return f"/{token}/{low}/"
    if name.endswith(("_URL", "_HOST")):
        return f"http://{token}.invalid:1/{low}"
    if name.endswith(("_SCOPES", "_OPTIONS")):
        return json.dumps([f"{token}-{low}"])
    return f"{token}-{low}"


def signature(command: Command) -> list[Any]:
    """Return what changes when the interpreter or the program is replaced."""
    home = os.path.dirname(os.path.dirname(command.interpreter))
    found: list[Any] = list(command.argv)
    for path in (command.script, command.interpreter, os.path.join(home, "pyvenv.cfg")):
        try:
            facts = os.stat(path)
            found.append([path, facts.st_ino, facts.st_size, facts.st_mtime_ns])
        except OSError:
            found.append([path])
    return found


# -- running our code in the users' interpreter --------------------------------------------


def _sources() -> dict[str, str]:
    ours = importlib.resources.files("minihub")
    return {name: ours.joinpath(f"{name}.py").read_text("utf-8") for name in SOURCES}


def _run(
    plan: Plan, module: str, setup: dict[str, Any], control: int, output: BinaryIO, cwd: Path
) -> tuple[subprocess.Popen[bytes], BinaryIO]:
    """Start one of our modules; return the process and the file of its description."""
    place = tempfile.TemporaryFile()
    place.write(json.dumps(setup | {"sources": _sources()}).encode())
    place.flush()
    place.seek(0)
    command = plan.command
    words = [*command.argv[:-1], "-c", BOOTSTRAP, str(control), str(place.fileno()), module]
    try:
        popen = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(setup["env"]),
            cwd=cwd,
            pass_fds=(control, place.fileno()),
            start_new_session=True,
        )
    except OSError as error:
        place.close()
        raise NotWarm(f"{command.interpreter} cannot be run: {error.strerror}") from error
    return popen, place


def _read(place: BinaryIO) -> dict[str, Any]:
    """Return what the process left in the file of its description. Raises NotWarm."""
    place.seek(0)
    try:
        found = json.loads(place.read())
    except ValueError:
        found = {}
    finally:
        place.close()
    if "sources" in found or not found:
        raise NotWarm("it ended at once")
    return found


def learn(plan: Plan, directory: Path) -> list[str]:
    """Return the modules that a start of the command imports, by a throw-away start.

    Raises NotWarm. It runs with the least priority and leaves nothing behind.
    """
    with tempfile.TemporaryDirectory(prefix="learn-", dir=directory) as home, socket.socket() as s:
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
            "log": str(directory / "learn.log"),
            "prefix": prefix,
            "port": port,
            "timeout_s": LEARN_TIMEOUT_S,
        }
        with process.open_log(directory / "learn.log") as output:
            output.truncate(0)
            popen, place = _run(plan, "warmlearn", setup, output.fileno(), output, Path(home))
        try:
            popen.wait(LEARN_TIMEOUT_S + 10)
        except subprocess.TimeoutExpired as error:
            popen.kill()
            popen.wait()
            place.close()
            raise NotWarm("its throw-away start hangs") from error
        found = _read(place)
    if "modules" not in found:
        raise NotWarm(f"{found.get('problem')}; see {directory / 'learn.log'}")
    return found["modules"]


# -- a parent ------------------------------------------------------------------------------


class WarmParent:
    """A process that forks servers, from :meth:`start` until :meth:`stop`."""

    def __init__(self, plan: Plan, modules: Sequence[str], directory: Path) -> None:
        """``directory`` is private to the hub; the parent's log and directory lie there."""
        self.plan = plan
        self.modules = list(modules)
        self.directory = directory
        self.token = f"minihub-stand-in-{secrets.token_hex(8)}"
        self.cwd = directory / self.token
        self.env = dict(plan.env) | {name: stand_in(name, self.token) for name in plan.own_names}
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
        self._paused_since = 0.0
        self._patience = True
        self._fresh = True

    # -- getting warm ----------------------------------------------------------------------

    def start(self) -> None:
        """Start it and wait until it is warm. Raises NotWarm; nothing is left then."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control = ours
        process.private_directory(self.cwd)
        setup = {
            "command": self.plan.command.argv,
            "env": self.env,
            "token": self.token,
            "modules": self.modules,
            "extra": list(self.plan.preload),
        }
        path = self.directory / "parent.log"
        process.rotate(path, 10 * 1024**2)
        with theirs, process.open_log(path) as output:
            self._popen, place = _run(
                self.plan, "warmparent", setup, theirs.fileno(), output, self.cwd
            )
        name = f"warm-parent-{self._popen.pid}"
        self._listener = threading.Thread(target=self._listen, name=name, daemon=True)
        self._listener.start()
        try:
            ready = self._wait_warm()
            if ready is None and not self._gone:
                raise NotWarm("it did not get warm in time")
            self.report = _read(place)
            if not ready:
                problems = self.report.get("problems") or ["its files have changed meanwhile"]
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
        """Wait until it says whether it is fit; None when it does not."""
        deadline = clock.monotonic() + WARM_TIMEOUT_S
        with self._changed:
            while self._ready is None and not self._gone and clock.monotonic() < deadline:
                self._changed.wait(_STEP_S)
                if self._paused_since and clock.monotonic() - self._paused_since > PATIENCE_S:
                    self._patience = False
                    self._signal(signal.SIGCONT)
            return self._ready

    def pause(self) -> None:
        """Leave the processors to others while it gets warm, for :data:`PATIENCE_S` at most."""
        with self._lock:
            if self._ready is None and self._patience and not self._paused_since:
                self._paused_since = clock.monotonic()
                self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Go on after :meth:`pause`."""
        with self._lock:
            if self._paused_since:
                self._paused_since = 0.0
                self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self._popen is not None and not self._gone:
            self._popen.send_signal(number)

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
    ) -> process.Process:
        """Start a server as :func:`process.start` does. Raises NotWarm; none is left then."""
        marker = process.new_marker()
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
                    answers = process.converse(ours, description, timeout_s)
                except BaseException:
                    copy.stop(0, 0, 5)
                    raise
        except (OSError, SpawnError) as error:  # a TimeoutError is an OSError
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
        self.go_on()
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
