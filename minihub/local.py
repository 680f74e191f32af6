"""Spawners of this machine: each server is a process, with a log file of its own.

:class:`LocalProcessSpawner` runs a server as the system user of the same name, which takes a hub
that runs as root; any other hub can only start servers of its own user.
:class:`SimpleLocalProcessSpawner` needs no system users: all servers run as the hub's own user,
each with a home directory of its own. Where Linux has Landlock, a sandbox keeps them from each
other's files; elsewhere that keeps work apart, not people.

Rules of this file: names of users and servers become file names by :func:`file_name` alone, which
never makes the same name of two. What a process is and how it ends is :mod:`minihub.process`.

Threads: as for all spawners; the ports given out lately are shared and have a lock, a leaf.
Sources: JupyterHub 6's LocalProcessSpawner, whose option names and meanings these are.
"""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from traitlets import Dict, Int, List, TraitError, Unicode, default, validate

from . import (
    aio,
    confinement,
    cpu,
    landlock,
    orphans,
    process,
    rlimits,
    startwords,
    warmpool,
    warmstart,
)
from .auth.osusers import own_name, own_shell, system_user
from .errors import ExitedEarly, SpawnError
from .filenames import file_name
from .ports import free_port
from .spawner import LOG_TAIL_LINES, Spawner
from .texts import Text
from .traits import AutoOnOff, ByteSpecification, Command

#: What installs the default server program.
INSTALL_LINE = startwords.INSTALL_LINE
#: The server programs that this line installs.
INSTALLED_PROGRAMS = ("jupyterhub-singleuser", "jupyter-labhub", "jupyter-lab")

#: A log that has grown past this is moved aside; one older part is kept.
LOG_MAX_BYTES = 10 * 1024**2

#: What is held while a server runs, also by a later hub, whatever hooks made of it.
_HELD = ("mem_limit", "mem_guarantee", "cpu_limit", "cpu_guarantee")

NO_SANDBOX = Text(
    "SimpleLocalProcessSpawner.sandbox is on, and this system has no Landlock (Linux 5.13 or newer "
    "has); auto lets servers run without a sandbox"
)

#: What Popen takes that has a meaning here.
_POPEN_KEYS = ("cwd", "umask")


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
    ).tag(config=True, example={"cwd": "/srv/work"})
    shell_cmd = Command(
        [],
        help="A shell, such as [bash, -l, -c], that is given the server's command line as its "
        "last argument; empty to start the server directly.",
    ).tag(config=True, example=["bash", "-l", "-c"])

    rlimits = Dict(
        help="Resource limits of each server, by the names of /etc/security/limits.conf, such as "
        "{nproc: 500, core: 0, nofile: [1024, 4096]}: one limit, or soft and hard. Those not named "
        "are the ones that the hub was started with, and where PAMAuthenticator.open_sessions is "
        "on, those of the user's session. nproc counts all processes of one user."
    ).tag(config=True, example={"nproc": 500, "core": 0})

    warm = AutoOnOff(
        help="Whether servers start from a process that has imported what they import, in a "
        "fraction of the time and memory. auto: where that is known to make no difference "
        "(jupyterhub-singleuser and jupyter-labhub on Linux); on: any Python program, and the log "
        "warns when it cannot be; off: never. In any doubt a server starts cold, and as system "
        "users unless root alone can change the programs and packages.",
    ).tag(config=True)
    warm_preload = List(
        Unicode(),
        help="Modules that such a process imports besides those that a start imports, such as "
        "those of an extension. One that starts threads, opens files or reads what differs between "
        "users is left out.",
    ).tag(config=True, example=["numpy"])
    warm_mem_limit = ByteSpecification(
        512 * 1024**2,
        help="Most memory such a process may use, in bytes or such as 1G; when it needs more, "
        "servers start cold.",
    ).tag(config=True)

    #: Whether a server runs as another user than the hub when the hub is root.
    changes_user = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._process: process.Process | None = None
        #: How the server is to start again, cold, should its warm start end at once.
        self._cold: tuple[Any, ...] | None = None
        #: Where the log of a server is that an earlier hub started, perhaps elsewhere.
        self._found_log: Path | None = None
        self._log_since = 0
        self._port_is_ours = False
        #: Limits that the system has set for this user's session.
        self.session_limits: Mapping[str, rlimits.Pair] = {}

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

    @validate("rlimits")
    def _known_limits(self, proposal: Any) -> dict[str, Any]:
        rlimits.parse(proposal["value"])
        return proposal["value"]

    # -- who and where ---------------------------------------------------------------------

    @property
    def account(self) -> pwd.struct_passwd:
        """The system user the server runs as. Raises SpawnError when there is none."""
        try:
            return pwd.getpwnam(self.user.name)
        except (KeyError, ValueError) as error:
            raise SpawnError(
                Text("This machine has no user %(name)s.", name=self.user.name),
                hint=startwords.ADD_USER,
            ) from error

    def home(self) -> str:
        """Return the directory in which the server starts."""
        return self.account.pw_dir

    def has_traces(self) -> bool:
        """Return whether this machine has a user of that name."""
        return system_user(self.user.name) is not None

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
                Text(
                    "The hub runs as the user %(own)s and cannot start a server as the user "
                    "%(other)s.",
                    own=own_name(),
                    other=account.pw_name,
                ),
                hint=startwords.RUN_AS_ROOT,
            )
        return process.LaunchSpec(cwd_fallback=True, **self._bounds())

    def confine(
        self, launch: process.LaunchSpec, argv: list[str], env: dict[str, str]
    ) -> process.LaunchSpec:
        """Return ``launch`` with what keeps this command from other people's files.

        The system does that where each server has a user of its own.
        """
        return launch

    def _bounds(self) -> dict[str, Any]:
        """Return what a server is bound to, whoever it runs as."""
        share = cpu.share(self._file_name, self.cpu_limit, self.cpu_guarantee)
        given = rlimits.at_start() | self.session_limits | rlimits.parse(self.rlimits)
        return asdict(share) | {"umask": self.popen_kwargs.get("umask"), "rlimits": given}

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
            for sign, hint in self.hints():
                if sign in line:
                    return hint
        return ""

    def hints(self) -> Iterable[tuple[str, str]]:
        """Return what servers say before they end, and what helps, the surest signs first."""
        return startwords.HINTS

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
        self._refuse_late()
        if not self.cmd:
            raise startwords.misconfigured(Text("Spawner.cmd is empty"))
        launch = self.launch_spec()
        if self.port == 0:
            self.port = free_port(self.ip)
            self._port_is_ours = True
        env = self.get_env()
        argv = [*self.cmd, *self.get_args()]
        env["PATH"] = self.path_of(env.get("PATH") or os.defpath)
        home = self.home()  # made even if the server starts elsewhere
        launch = self.confine(launch, argv, env)
        if self.shell_cmd:
            argv = [*self.shell_cmd, shlex.join(argv)]
        process.rotate(self.log_path, LOG_MAX_BYTES)
        self._log_since = self.log_path.stat().st_size if self.log_path.exists() else 0
        given = {
            "env": env,
            "cwd": self.popen_kwargs.get("cwd") or home,
            "log_path": self.log_path,
            "launch": launch,
            "timeout_s": self.start_timeout,
            "marker": orphans.new_marker(self.hub.state_dir, orphans.SERVER),
        }
        found = warmstart.start(self, argv, **given)
        if found is not None:
            self._process, plan = found
            self._cold = (argv, given, plan)
        else:
            self._start_cold(argv, given)
        self._refuse_late()
        how = "cold" if found is None else "warm"
        self.log.info("Server %s%s: pid %d, %s", self.user.name, self._slash_name, self.pid, how)
        return self.ip, self.port

    def _refuse_late(self) -> None:
        """End what this run has started after the hub gave it up. Raises SpawnError then.

        The hub says so first and stops the process it finds then, so that one of both sees it.
        """
        if self.is_over:
            if self._process is not None:
                self._process.stop(0, self.term_timeout, self.kill_timeout)
            raise SpawnError(Text("The start was given up."))

    def _start_cold(self, argv: list[str], given: dict[str, Any]) -> None:
        self._cold = None
        try:
            self._process = process.start(argv, **given)
        except startwords.CommandNotFound as error:
            error.hint = how_to_install(argv[0])
            raise

    def path_of(self, path: str) -> str:
        """Return the server's PATH: ``path``, and the hub's Python's if that alone has ``cmd``."""
        return _path_with(self.cmd[0], path)

    def wait_ready(self, *args: Any, **kwargs: Any) -> str | None:
        """Wait as all spawners do; a warm start that ends before it answers is made again, cold."""
        if self._cold is not None:
            try:
                return super().wait_ready(*args, **kwargs)
            except ExitedEarly as error:
                self._start_again(error)
        with warmpool.cold_start():
            return super().wait_ready(*args, **kwargs)

    def _start_again(self, error: ExitedEarly) -> None:
        """Start the server cold that ended when it was started warm. Raises SpawnError."""
        argv, given, plan = self._cold
        name = f"{self.user.name}{self._slash_name}"
        self.log.warning("Server %s, started warm, ended; it starts cold: %s", name, error.reason)
        self._process.stop(0, self.term_timeout, self.kill_timeout)
        pool = warmpool.pool()
        if pool is not None:
            pool.blame(plan)
        self._start_cold(argv, given | {"marker": self._process.marker})

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
            cpu.keep(self._file_name, self._process, self.cpu_limit, self.cpu_guarantee)

    def clear_state(self) -> None:
        """Forget the process that has ended, and the port chosen for it."""
        super().clear_state()
        self._process = self._found_log = self._cold = None
        if self._port_is_ours:
            self.port = 0
            self._port_is_ours = False


class SimpleLocalProcessSpawner(LocalProcessSpawner):
    """Runs every server as the hub's own user, each in a home directory of its own."""

    changes_user = False

    home_dir_template = Unicode(
        help="Home directory of each user, made at the first start; {username} is replaced by the "
        "name, quoted where needed. Empty: homes/{username} in JupyterHub.state_dir."
    ).tag(config=True, example="/srv/homes/{username}")

    sandbox = AutoOnOff(
        help="Whether Landlock (Linux 5.13 and newer) keeps servers from the files of the hub and "
        "of each other. auto: where the system has it; on: no server starts without it; off: "
        "never.",
    ).tag(config=True)
    sandbox_read = List(
        Unicode(),
        help="Further files and directories that servers in the sandbox may read, such as course "
        "material. They may read the system, the programs they are started with and their kernels.",
    ).tag(config=True, example=["/srv/course"])
    sandbox_write = List(
        Unicode(),
        help="Further directories in which servers in the sandbox may read and write, such as a "
        "place for shared work. They may in their own home and their own TMPDIR.",
    ).tag(config=True, example=["/srv/shared"])

    @validate("sandbox_read", "sandbox_write")
    def _only_absolute_paths(self, proposal: Any) -> list[str]:
        for path in proposal["value"]:
            if not os.path.isabs(path):
                raise TraitError(f"{path!r} is no absolute path")
        return proposal["value"]

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
        """Return ``env`` with USER, HOME and SHELL added; the shell is the hub's own user's.

        TMPDIR too in a sandbox, which cannot write to a directory that all share.
        """
        own = {"USER": self.user.name, "HOME": self.home_dir, "SHELL": own_shell()}
        return env | own | ({"TMPDIR": str(self._tmp_dir)} if self.is_confined else {})

    # -- the sandbox -----------------------------------------------------------------------

    @property
    def is_confined(self) -> bool:
        """Whether servers are kept from the hub's files and from each other's."""
        return self.sandbox != "off" and landlock.abi() > 0

    @property
    def can_start(self) -> bool:
        """Whether servers can be kept apart as they must be."""
        return self.sandbox != "on" or self.is_confined

    @property
    def _tmp_dir(self) -> Path:
        return self.hub.state_dir / "tmp" / self._file_name

    def hidden(self) -> confinement.Hidden:
        """Return what no server may see but its own home."""
        template = self.home_dir_template.partition("{")[0]
        return confinement.Hidden(
            files=(os.path.realpath(self.hub.state_dir), *self.hub.own_files),
            homes=os.path.realpath(os.path.dirname(template)) if template else "",
        )

    def confine(
        self, launch: process.LaunchSpec, argv: list[str], env: dict[str, str]
    ) -> process.LaunchSpec:
        """Return ``launch`` with a sandbox for this command, unless there is to be none.

        Raises SpawnError where there must be one and the system has none.
        """
        if not self.can_start:
            raise startwords.misconfigured(NO_SANDBOX)
        if not self.is_confined:
            return launch
        shutil.rmtree(self._tmp_dir, ignore_errors=True)
        process.private_directory(self._tmp_dir.parent)
        process.private_directory(self._tmp_dir)
        work = [self.format_string(self.notebook_dir), self.popen_kwargs.get("cwd", "")]
        rules = confinement.rules(
            argv=[*argv, *self.shell_cmd],
            env=env,
            own=[self.home_dir, str(self._tmp_dir)],
            read=self.sandbox_read,
            write=[*self.sandbox_write, *work, env["TMPDIR"]],
            hidden=self.hidden(),
        )
        confined = landlock.description(rules, landlock.abi())
        return replace(launch, sandbox=confined, no_new_privs=True)

    def hints(self) -> Iterable[tuple[str, str]]:
        """Return the usual ones, and that of a sandbox too small."""
        narrow = Text(
            "The sandbox may be too small: SimpleLocalProcessSpawner.sandbox_read adds to it."
        )
        return (*super().hints(), *([("Permission denied", narrow)] if self.is_confined else []))

    def sandbox_warnings(self) -> Iterator[str]:
        """Yield what the sandbox does not hold here, as sentences."""
        if not self.is_confined:
            return
        yield from confinement.gaps(self.hidden())
        yield from self.wide_paths()

    def wide_paths(self) -> Iterator[str]:
        """Yield which paths that servers may use hold what none may see, as sentences."""
        for option in ("sandbox_read", "sandbox_write"):
            for path in getattr(self, option):
                if self.hidden().lies_in(os.path.realpath(path)):
                    yield (
                        f"SimpleLocalProcessSpawner.{option}: {path} contains files of the hub or "
                        "homes, which every server can then read"
                    )


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
        return Text("Install it: %(line)s", line=INSTALL_LINE)
    return startwords.one_text(command) or Text(
        "Install it, or name another program in Spawner.cmd."
    )
