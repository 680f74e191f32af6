"""The verbs ``service print`` and ``service install``: the hub as a service of the machine.

The unit lets servers and proxy live when the hub ends or is restarted: the service manager signals
the hub alone (``KillMode=process``, on macOS ``AbandonProcessGroup``), and the hub is told to leave
them running. The next hub goes on with them.

Rules of this file: text in, files and the service manager's own commands out. Nothing is printed
here: ``say`` shows a line.

Threads: the main thread.
Sources: systemd.service(5), systemd.exec(5), systemd.syntax(7); launchd.plist(5).
"""

from __future__ import annotations

import os
import plistlib
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import cpu, runtime
from .config import Loaded
from .errors import ConfigError, NotPermitted, UsageError
from .manage import Failed, Say

#: What a restart must not be tried after: usage, configuration, schema, not permitted.
FINAL_CODES = "2 3 5 6"
KEEP = ("--JupyterHub.cleanup_servers=false", "--JupyterHub.cleanup_proxy=false")
#: What runs when the hub has ended, in any way: systemd will start the next one in the service's
#: own control group, which may hold no process while it shares processors out to groups below it,
#: those of servers that go on running. The next hub shares out again (:mod:`minihub.cpu`). systemd
#: runs this in a group ``.control`` below; a command before the start would run where the hub
#: cannot.
MAKE_ROOM = (
    "g=$(sed -n s/^0:://p /proc/self/cgroup); "
    "echo -cpu > /sys/fs/cgroup${g%/.control}/cgroup.subtree_control"
)
#: Secrets that a unit does not hold; they may stand in the file of its environment.
_SECRETS = ("JUPYTERHUB_CRYPT_KEY", "JPY_COOKIE_SECRET", "CONFIGPROXY_AUTH_TOKEN")


@dataclass(frozen=True)
class Plan:
    """A service as it is asked for."""

    name: str
    #: Whether it is the machine's, or one of this user alone.
    system: bool
    #: The user it runs as; empty for whoever it belongs to.
    run_as: str
    directory: Path
    command: tuple[str, ...]
    path: str

    @property
    def file(self) -> Path:
        """Where its file belongs."""
        if sys.platform == "darwin":
            base = Path("/Library") if self.system else Path.home() / "Library"
            kind = "LaunchDaemons" if self.system else "LaunchAgents"
            return base / kind / f"{self.label}.plist"
        if self.system:
            return Path("/etc/systemd/system") / f"{self.name}.service"
        config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
        return Path(config) / "systemd" / "user" / f"{self.name}.service"

    @property
    def label(self) -> str:
        """What launchd calls it."""
        return f"org.minihub.{self.name}"


def plan(
    loaded: Loaded,
    options: Sequence[tuple[str, str]],
    *,
    system: bool | None = None,
    run_as: str = "",
    name: str = "",
) -> Plan:
    """Return the service for this configuration; ``options`` are those of the command line.

    Without ``system`` it is the machine's when root asks. Raises UsageError.
    """
    system = os.geteuid() == 0 if system is None else system
    name = name or "minihub"
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name) or name.startswith((".", "-")):
        raise UsageError(f'--name: "{name}" may hold letters, digits, dots, dashes and underscores')
    if run_as:
        if not system:
            raise UsageError("--run-as goes with a service of the machine: --system")
        try:
            pwd.getpwnam(run_as)
        except KeyError as error:
            raise UsageError(f"--run-as: this machine has no user {run_as}") from error
    words = [*runtime.own_command()]
    if loaded.file is not None:
        words += ["--config", str(Path(loaded.file).absolute())]
    given = [f"--{option}={text}" for option, text in options
             if option not in ("JupyterHub.config_file", "JupyterHub.answer_yes")]  # fmt: skip
    command = (*words, *given, *KEEP)
    return Plan(name, system, run_as, Path.cwd(), command, os.environ.get("PATH", os.defpath))


def text(wanted: Plan) -> str:
    """Return the service's file."""
    return _plist(wanted) if sys.platform == "darwin" else unit(wanted)


def unit(wanted: Plan) -> str:
    """Return the unit for systemd."""
    lines = [
        "# Made by minihub.pyz service. A restart ends neither servers nor proxy: the next hub",
        "# goes on with them. Secrets for the hub's environment may stand in "
        f"{runtime.ENVIRONMENT_FILE}.",
        "[Unit]",
        f"Description=minihub, a notebook hub ({_percent(str(wanted.directory))})",
        "After=network-online.target" if wanted.system else "",
        "Wants=network-online.target" if wanted.system else "",
        "",
        "[Service]",
        f"WorkingDirectory={_percent(str(wanted.directory))}",
        f"User={wanted.run_as}" if wanted.run_as else "",
        f"Environment={_word(f'PATH={wanted.path}')}",
        f"EnvironmentFile=-{_percent(str(wanted.directory / runtime.ENVIRONMENT_FILE))}",
        "Delegate=cpu",
        f"Environment={cpu.DELEGATED}=1",
        f"ExecStart={' '.join(_argument(word) for word in wanted.command)}",
        f"ExecStopPost=-/bin/sh -c {_quoted(MAKE_ROOM)}",
        "KillMode=process",
        "Restart=on-failure",
        "RestartSec=2",
        f"RestartPreventExitStatus={FINAL_CODES}",
        # One server that needs too much memory must not take the hub with it.
        "OOMPolicy=continue",
        "TasksMax=infinity",
        # The hub takes all it may have; servers begin with the first, as after a login.
        "LimitNOFILE=1024:65536",
        "",
        "[Install]",
        f"WantedBy={'multi-user.target' if wanted.system else 'default.target'}",
    ]
    # Lines left out are empty twice; those between sections stay.
    kept = [line for n, line in enumerate(lines) if line or lines[n + 1].startswith("[")]
    return "\n".join(kept) + "\n"


def _percent(value: str) -> str:
    if "\n" in value:
        raise UsageError("a path with a line break cannot stand in a unit")
    return value.replace("%", "%%")


def _word(value: str) -> str:
    """Quote a word for systemd."""
    escaped = _percent(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"' if re.search(r"[\s\"'\\;]", value) or not value else escaped


def _argument(value: str) -> str:
    """Quote a word of a command line, where a dollar sign would mean a variable."""
    return _word(value.replace("$", "$$"))


def _quoted(script: str) -> str:
    """Quote a script of the shell as one word of a command line."""
    return "'" + _percent(script.replace("$", "$$")) + "'"


def _plist(wanted: Plan) -> str:
    facts = {
        "Label": wanted.label,
        "ProgramArguments": list(wanted.command),
        "WorkingDirectory": str(wanted.directory),
        "EnvironmentVariables": {"PATH": wanted.path},
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "AbandonProcessGroup": True,
        "StandardOutPath": str(wanted.directory / "minihub.log"),
        "StandardErrorPath": str(wanted.directory / "minihub.log"),
        **({"UserName": wanted.run_as} if wanted.run_as else {}),
    }
    return plistlib.dumps(facts).decode()


# -- installing ----------------------------------------------------------------------------


def install(wanted: Plan, say: Say, *, sure: bool = False) -> int:
    """Write the service's file and tell the service manager of it; nothing is started.

    Raises NotPermitted, ConfigError; Failed when another file is in the way and not ``sure``.
    """
    file, new = wanted.file, text(wanted)
    if file.exists() and file.read_text() != new and not sure:
        raise Failed(f"{file} is there already and says something else; -y replaces it")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(f".{file.name}.new")
        fresh.write_text(new)
        fresh.chmod(0o644)
        fresh.replace(file)
    except PermissionError as error:
        raise NotPermitted(
            f"{file} may not be written by this user: run this with sudo, or as a service of this "
            "user alone: service install --user"
        ) from error
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}") from error
    say(f"Wrote {file}.")
    for variable in _SECRETS:
        if os.environ.get(variable):
            say(f"{variable} is set here, but not for the service: write it into "
                f"{wanted.directory / runtime.ENVIRONMENT_FILE} (chmod 600).")  # fmt: skip
    if sys.platform == "darwin":
        say(f"Start it, now and at every boot: launchctl load -w {file}")
        return 0
    return _tell_systemd(wanted, say)


def _tell_systemd(wanted: Plan, say: Say) -> int:
    user = [] if wanted.system else ["--user"]
    problems = _verify(wanted.file, user)
    if problems:
        raise Failed(f"systemd does not like {wanted.file}: {problems}")
    commands = [["systemctl", *user, "daemon-reload"],
                ["systemctl", *user, "enable", f"{wanted.name}.service"]]  # fmt: skip
    for command in commands:
        if not _runs(command):
            say("systemd does not run here (or not for this user). Where it does:")
            for later in commands:
                say(f"  {' '.join(later)}")
            break
    say(f"Start it: {' '.join(['systemctl', *user, 'start', wanted.name])}")
    say(f"Its log: journalctl {'--user ' if user else ''}-u {wanted.name} -f")
    if user:
        say("To run while you are not logged in: loginctl enable-linger")
    return 0


def _runs(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _verify(file: Path, user: list[str]) -> str:
    """Return what systemd says is wrong with a unit; empty without systemd."""
    program = shutil.which("systemd-analyze")
    if program is None:
        return ""
    try:
        done = subprocess.run(
            [program, *user, "verify", str(file)], capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    # It looks at units that ours needs, too.
    ours = [line for line in done.stderr.splitlines() if file.name in line]
    return "; ".join(ours)
