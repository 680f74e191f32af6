"""Spawners of this machine: each server is a process, with a log file of its own.

:class:`LocalProcessSpawner` runs a server as the system user of the same name, which takes a hub
that runs as root; any other hub can only start servers of its own user.
:class:`SimpleLocalProcessSpawner` needs no system users: all servers run as the hub's own user,
each with a home directory of its own. That keeps work apart, not people.

Rules of this file: names of users and servers become file names by :func:`file_name` alone, which
never makes the same name of two. What a process is and how it ends is :mod:`minihub.process`.

Threads: as for all spawners; the ports given out lately are shared and have a lock, a leaf.
Sources: JupyterHub 6's LocalProcessSpawner, whose option names and meanings these are.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import random
import re
import shlex
import shutil
import socket
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from traitlets import Dict, Int, TraitError, Unicode, default, validate

from . import aio, clock, cpu, process
from .errors import SpawnError
from .spawner import LOG_TAIL_LINES, Spawner
from .traits import Command

#: What installs the default server program.
INSTALL_LINE = "python3 -m pip install jupyterhub jupyterlab"
#: The server programs that this line installs.
INSTALLED_PROGRAMS = ("jupyterhub-singleuser", "jupyter-labhub", "jupyter-lab")

#: A log that has grown past this is moved aside; one older part is kept.
LOG_MAX_BYTES = 10 * 1024**2

#: What a server says before it ends, and what helps.
_HINTS = (
    (
        "--allow-root",
        "The hub runs as root, so this server would too, and Jupyter refuses that. Run the hub as "
        'another user, or add "--allow-root" to Spawner.args.',
    ),
    ("No module named", f"Something that the server needs is not installed: {INSTALL_LINE}"),
    ("already in use", "Another program took the port just now. Start the server again."),
    ("command not found", f"The server's program was not found. Install it: {INSTALL_LINE}"),
)

#: What is held while a server runs, also by a later hub, whatever hooks made of it.
_HELD = ("mem_limit", "mem_guarantee")

_NO_SHELLS = ("nologin", "false")
#: What Popen takes that has a meaning here.
_POPEN_KEYS = ("cwd", "umask")

#: Ports are taken from below those that Linux and macOS give to outgoing connections: one of
#: the proxy's could else take the port before the server has opened it.
_PORTS = range(20000, 32768)
_PORT_TRIES = 100
#: How long a port that was given out is not given out again.
_PORT_REST_S = 120.0

_UNSAFE = re.compile(r"[^a-z0-9_.@-]|^[.-]|(?<=-)-|-$")
_LONGEST_NAME = 100


class LocalProcessSpawner(Spawner):
    """Runs each server as the system user of the same name (the hub must run as root)."""

    interrupt_timeout = Int(
        30, min=0, help="Seconds a server has to end after SIGINT, before SIGTERM."
    ).tag(config=True)
    term_timeout = Int(
        30, min=0, help="Seconds a server has to end after SIGTERM, before SIGKILL."
    ).tag(config=True)
    kill_timeout = Int(
        5, min=1, help="Seconds after SIGKILL before a server counts as one that cannot be stopped."
    ).tag(config=True)
    popen_kwargs = Dict(
        help="How the process is started: cwd is the directory it starts in (default: the home), "
        "umask its file mode mask."
    ).tag(config=True)
    shell_cmd = Command(
        [],
        help="A shell, such as [bash, -l, -c], that is given the server's command line as its "
        "last argument; empty to start the server directly.",
    ).tag(config=True)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._process: process.Process | None = None
        #: Where the log of a server is that an earlier hub started, perhaps elsewhere.
        self._found_log: Path | None = None
        self._log_since = 0
        self._port_is_ours = False

    @default("env_keep")
    def _default_env_keep(self) -> list[str]:
        return [
            "JUPYTERHUB_SINGLEUSER_APP",
            "PATH",
            "PYTHONPATH",
            "CONDA_ROOT",
            "CONDA_DEFAULT_ENV",
            "VIRTUAL_ENV",
            "LANG",
            "LC_ALL",
        ]

    @validate("popen_kwargs")
    def _known_popen_kwargs(self, proposal: Any) -> dict[str, Any]:
        value = proposal["value"]
        for key in value:
            if key not in _POPEN_KEYS:
                raise TraitError(
                    f'"{key}" has no meaning here; there are {" and ".join(_POPEN_KEYS)}'
                )
        if not isinstance(value.get("cwd", ""), (str, os.PathLike)):
            raise TraitError("cwd must be a text")
        umask = value.get("umask", 0)
        if isinstance(umask, bool) or not isinstance(umask, int) or not 0 <= umask <= 0o777:
            raise TraitError("umask must be a number from 0 to 0o777")
        return value

    # -- who and where ---------------------------------------------------------------------

    @property
    def account(self) -> pwd.struct_passwd:
        """The system user the server runs as. Raises SpawnError when there is none."""
        try:
            return pwd.getpwnam(self.user.name)
        except (KeyError, ValueError) as error:
            raise SpawnError(
                f"This machine has no user {self.user.name}.",
                hint="Add the user to the system, or let all servers run as the hub's own user "
                "(SimpleLocalProcessSpawner), JupyterHub.spawner_class: simple.",
            ) from error

    def home(self) -> str:
        """Return the directory in which the server starts."""
        return self.account.pw_dir

    def launch_spec(self) -> process.LaunchSpec:
        """Return as whom and how the process starts. Raises SpawnError when that is impossible."""
        account, own = self.account, os.geteuid()
        if own == 0:
            return process.LaunchSpec(
                user=account.pw_name,
                uid=account.pw_uid,
                gid=account.pw_gid,
                cwd_fallback=True,
                **self._bounds(),
            )
        if account.pw_uid != own:
            raise SpawnError(
                f"The hub runs as the user {_own_name()} and cannot start a server as the user "
                f"{account.pw_name}.",
                hint="Run the hub as root, or let all servers run as the hub's own user "
                "(SimpleLocalProcessSpawner), JupyterHub.spawner_class: simple.",
            )
        return process.LaunchSpec(cwd_fallback=True, **self._bounds())

    def _bounds(self) -> dict[str, Any]:
        """Return what a server is bound to, whoever it runs as."""
        share = cpu.share(self._file_name, self.cpu_limit, self.cpu_guarantee)
        return asdict(share) | {"umask": self.popen_kwargs.get("umask")}

    def user_env(self, env: dict[str, str]) -> dict[str, str]:
        """Return ``env`` with USER, HOME and SHELL of the account added."""
        account = self.account
        return env | {
            "USER": account.pw_name,
            "HOME": account.pw_dir,
            "SHELL": account.pw_shell or "/bin/sh",
        }

    @property
    def log_path(self) -> Path:
        """The file that gets all the server writes."""
        if self._found_log is not None:
            return self._found_log
        return self.hub.state_dir / "logs" / f"{self._file_name}.log"

    @property
    def _file_name(self) -> str:
        """The server's name as a file name of its own."""
        name = file_name(self.user.name)
        return f"{name}--{file_name(self.server_name)}" if self.server_name else name

    def log_tail(self) -> list[str]:
        """Return the last lines the server wrote since its start."""
        return process.tail(self.log_path, LOG_TAIL_LINES, self._log_since)

    def exit_hint(self, log_tail: list[str]) -> str:
        """Return what to do about a server that ended at its start with these last lines, or ""."""
        for line in reversed(log_tail):
            for sign, hint in _HINTS:
                if sign in line:
                    return hint
        return ""

    # -- its life --------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The server's process id; 0 without a server."""
        return self._process.identity.pid if self._process else 0

    @aio.either
    def start(self) -> tuple[str, int]:
        """Start the process; return (ip, port).

        Raises SpawnError that says what is absent or forbidden, with a hint what to do.
        """
        if not self.cmd:
            raise SpawnError("The hub is configured wrongly: Spawner.cmd is empty.")
        launch = self.launch_spec()
        if self.port == 0:
            self.port = free_port(self.ip)
            self._port_is_ours = True
        env = self.get_env()
        argv = [*self.cmd, *self.get_args()]
        if self.shell_cmd:
            argv = [*self.shell_cmd, shlex.join(argv)]
        env["PATH"] = _path_with(self.cmd[0], env.get("PATH") or os.defpath)
        home = self.home()  # made even if the server starts elsewhere
        process.rotate(self.log_path, LOG_MAX_BYTES)
        self._log_since = self.log_path.stat().st_size if self.log_path.exists() else 0
        try:
            self._process = process.start(
                argv,
                env=env,
                cwd=self.popen_kwargs.get("cwd") or home,
                log_path=self.log_path,
                launch=launch,
                timeout_s=self.start_timeout,
            )
        except process.CommandNotFound as error:
            error.hint = how_to_install(argv[0])
            raise
        self.log.info("Server %s%s: pid %d", self.user.name, self._slash_name, self.pid)
        return self.ip, self.port

    @property
    def stop_timeout_s(self) -> float:
        """How long :meth:`stop` may take."""
        return self.interrupt_timeout + self.term_timeout + self.kill_timeout

    @aio.either
    def stop(self, now: bool = False) -> None:
        """End the server and all that came of it; ``now`` begins with SIGTERM.

        Also to be called when the server has ended by itself: it may have left kernels. Raises
        ProcessStillAlive.
        """
        if self._process is not None:
            interrupt_s = 0 if now else self.interrupt_timeout
            self._process.stop(interrupt_s, self.term_timeout, self.kill_timeout)
        cpu.release(self._file_name)

    @aio.either
    def poll(self) -> int | None:
        """Return None while the server runs, then its exit code (0 when unknown)."""
        if self._process is None:
            return 0
        process.rotate(self.log_path, LOG_MAX_BYTES)
        return self._process.poll()

    def wait_exit(self, timeout_s: float) -> int | None:
        """Wait up to ``timeout_s`` for the server's end; returns at once when it comes."""
        return 0 if self._process is None else self._process.wait(timeout_s)

    @property
    def tree(self) -> process.Process | None:
        """The server's process, with all that came of it; None without one."""
        return self._process

    def get_state(self) -> dict[str, Any]:
        """Return the process by id, creation time and marker, its log, and what it may use."""
        state = super().get_state()
        if self._process is not None:
            identity = self._process.identity
            state |= {name: getattr(self, name) for name in _HELD if getattr(self, name)}
            state |= {
                "pid": identity.pid,
                "create_time": identity.create_time,
                "marker": self._process.marker,
                "log": str(self.log_path),
            }
        return state

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Find the process again; one that has ended meanwhile is known as such."""
        super().load_state(state)
        if state.get("pid"):
            identity = process.Identity(state["pid"], state.get("create_time", 0.0))
            self._process = process.adopt(identity, state.get("marker", ""))
            self._found_log = Path(state["log"]) if state.get("log") else None
            for name in _HELD:
                if name in state:
                    setattr(self, name, state[name])

    def clear_state(self) -> None:
        """Forget the process that has ended, and the port chosen for it."""
        super().clear_state()
        self._process = self._found_log = None
        if self._port_is_ours:
            self.port = 0
            self._port_is_ours = False


class SimpleLocalProcessSpawner(LocalProcessSpawner):
    """Runs every server as the hub's own user, each in a home directory of its own."""

    home_dir_template = Unicode(
        help="Home directory of each user, made at the first start; {username} is replaced by the "
        "name, quoted where needed. Empty: homes/{username} in JupyterHub.state_dir."
    ).tag(config=True)

    @validate("home_dir_template")
    def _only_username(self, proposal: Any) -> str:
        try:
            proposal["value"].format(username="x")
        except (AttributeError, IndexError, KeyError, ValueError) as error:
            raise TraitError("it may hold {username} and no other braces") from error
        return proposal["value"]

    @property
    def home_dir(self) -> str:
        """The user's home directory."""
        template = self.home_dir_template or str(self.hub.state_dir / "homes" / "{username}")
        return os.path.abspath(template.format(username=file_name(self.user.name)))

    def home(self) -> str:
        """Return the user's home directory, made if it is not there."""
        directory = Path(self.home_dir)
        if directory.parent == self.hub.state_dir / "homes":
            process.private_directory(directory.parent)
        return str(process.private_directory(directory))

    def launch_spec(self) -> process.LaunchSpec:
        """Return how the process starts."""
        return process.LaunchSpec(**self._bounds())

    def user_env(self, env: dict[str, str]) -> dict[str, str]:
        """Return ``env`` with USER, HOME and SHELL added; the shell is the hub's own user's."""
        return env | {"USER": self.user.name, "HOME": self.home_dir, "SHELL": _own_shell()}


# -- the server program ----------------------------------------------------------------------


def find_command(command: str, path: str | None = None) -> str | None:
    """Return the file that ``command`` means to a server, or None when there is none.

    A name is looked for on ``path`` (the hub's own PATH when None), then beside the hub's Python.
    """
    return shutil.which(command, path=path) or shutil.which(command, path=_beside_python())


def _beside_python() -> str:
    return str(Path(sys.executable).parent) if sys.executable else ""


def _path_with(command: str, path: str) -> str:
    """Return ``path``, with the directory of the hub's Python first if only it has ``command``."""
    beside = _beside_python()
    if shutil.which(command, path=path) or not shutil.which(command, path=beside):
        return path
    return f"{beside}:{path}"


def how_to_install(command: str) -> str:
    if os.path.basename(command) in INSTALLED_PROGRAMS:
        return f"Install it: {INSTALL_LINE}"
    return "Install it, or name another program in Spawner.cmd."


def _own_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _own_shell() -> str:
    try:
        shell = pwd.getpwuid(os.geteuid()).pw_shell
    except KeyError:
        shell = ""
    if not shell or os.path.basename(shell) in _NO_SHELLS:
        return shutil.which("bash") or "/bin/sh"
    return shell


# -- names and ports -------------------------------------------------------------------------


def file_name(name: str) -> str:
    """Return a user's or server's name as a file name of its own.

    Lower-case letters, digits and ``_ . @ -`` stay; everything else becomes ``%XX``, also capital
    letters (some file systems do not tell them apart) and a dash or dot where it would have a
    meaning: ``--`` is never part of a result, so it can separate two. A long name is cut
    and its digest added after ``%%``, which is nowhere else. Different names never give the same.
    """
    quoted = _UNSAFE.sub(lambda found: "".join(f"%{b:02X}" for b in _bytes(found[0])), name)
    if len(quoted) <= _LONGEST_NAME:
        return quoted
    digest = hashlib.sha256(_bytes(name)).hexdigest()[:40]
    return f"{quoted[: _LONGEST_NAME - 42]}%%{digest}"


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


_ports_lock = threading.Lock()
_ports_given: dict[int, float] = {}


def free_port(ip: str) -> int:
    """Return a port on which nobody listens at ``ip`` now, and that was not given out lately.

    Somebody else may still take it before the server does. Raises SpawnError.
    """
    now = clock.monotonic()
    with _ports_lock:
        for port in [port for port, since in _ports_given.items() if now - since > _PORT_REST_S]:
            del _ports_given[port]
        for _ in range(_PORT_TRIES):
            port = random.choice(_PORTS)
            if port not in _ports_given and _is_free(ip, port):
                _ports_given[port] = now
                return port
    raise SpawnError(f"No free port was found at {ip or 'any address'}.")


def _is_free(ip: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((ip, port))
        except OSError:
            return False
    return True
