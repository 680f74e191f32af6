"""For tests of warm starts as root: system users, an environment of root's alone, its parents."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import ROOT
from warm_tools import MODULES, started

from minihub import process, warmguard, warmroot, warmstart
from minihub.warm import Learned, WarmParent, find_command
from minihub.warmplan import Plan

sys.path.insert(0, str(ROOT / "scripts"))

import environments  # noqa: E402

AS_ROOT = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes system users: run as root"),
    pytest.mark.skipif(sys.platform != "linux", reason="starts are warm on Linux alone"),
]
#: What is the same for all servers.
COMMON = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TZ": "Asia/Tokyo"}
OWN = tuple(sorted({*warmstart.OWN_NAMES, "JUPYTERHUB_API_TOKEN"}))


@contextlib.contextmanager
def place_of_roots() -> Iterator[Path]:
    """Lend a directory that root alone can change, with all above it; not in /tmp, therefore."""
    directory = Path(tempfile.mkdtemp(dir="/opt", prefix="minihub-test-"))
    directory.chmod(0o755)
    try:
        assert warmroot.is_roots(str(directory))
        yield directory
    finally:
        shutil.rmtree(directory)


@contextlib.contextmanager
def accounts(*names: str) -> Iterator[dict[str, pwd.struct_passwd]]:
    """Make system users, each with a home of their own and one further group."""
    run = f"w{secrets.token_hex(3)}"
    try:
        for name in names:
            command = ["useradd", "--create-home", "--key", "HOME_MODE=0700", run + name]
            more = ["--groups", "games", "--shell", "/bin/sh"]
            subprocess.run([*command, *more], check=True)
        yield {name: pwd.getpwnam(run + name) for name in names}
    finally:
        for name in names:
            subprocess.run(["userdel", "--remove", run + name], check=False, capture_output=True)


def new_environment(directory: Path) -> Path:
    """Make an environment of Python's, without packages; return its interpreter."""
    subprocess.run(
        [environments.public_python(), "-m", "venv", "--without-pip", directory], check=True
    )
    python = directory / "bin" / "python"
    with contextlib.suppress(warmguard.NotRoots):
        warmguard.vet_interpreter(str(python), str(python), {})
        return python
    pytest.skip(f"others than root can change {os.path.realpath(python)}")


def packages_of(python: Path) -> Path:
    (found,) = python.parent.parent.glob("lib/python3*/site-packages")
    return found


def install(file: Path, source: str | Path, python: Path, flags: str = "") -> Path:
    """Install a Python program that everybody can run."""
    text = source.read_text() if isinstance(source, Path) else source
    file.write_text(f"#!{python}{flags}\n{text}")
    file.chmod(0o755)
    return file


class Bench:
    """Starts programs cold, or from guarded parents, as system users."""

    def __init__(self, directory: Path) -> None:
        """``directory`` is private: that of a hub."""
        self.directory = process.private_directory(directory)
        self.parents: list[WarmParent] = []
        self.started: list[process.Process] = []

    def plan(self, script: Path, *, env: dict[str, str] | None = None, **more: object) -> Plan:
        env = COMMON | (env or {})
        command = find_command(str(script), env["PATH"])
        return Plan(command, env=env, own_names=OWN, is_guarded=True, **more)

    def parent(
        self,
        script: Path,
        modules: tuple[str, ...] = MODULES,
        env: dict[str, str] | None = None,
        **more: object,
    ) -> WarmParent:
        """Return a parent that is warm. Raises NotWarm."""
        self.parents.append(
            WarmParent(self.plan(script, env=env, **more), Learned(modules), self.directory)
        )
        self.parents[-1].start()
        return self.parents[-1]

    def start(
        self,
        script: Path,
        account: pwd.struct_passwd,
        *args: str,
        parent: WarmParent | None = None,
        env: dict[str, str] | None = None,
        **launch: object,
    ) -> process.Process:
        """Start a program as a user, as :class:`LocalProcessSpawner` does."""
        own = {"HOME": account.pw_dir, "USER": account.pw_name, "SHELL": account.pw_shell}
        own["JUPYTERHUB_API_TOKEN"] = f"secret-of-{account.pw_name}"
        given = {
            "env": COMMON | own | (env or {}),
            "cwd": account.pw_dir,
            "log_path": self.directory / "logs" / f"{account.pw_name}.log",
            "launch": process.LaunchSpec(
                user=account.pw_name,
                uid=account.pw_uid,
                gid=account.pw_gid,
                cwd_fallback=True,
                **launch,
            ),
            "timeout_s": 30,
        }
        one = started([str(script), *args], parent, **given)
        self.started.append(one)
        return one

    def facts(self, script: Path, account: pwd.struct_passwd, **given: object) -> dict:
        """Start a program that writes JSON into the file it is told; return that."""
        answer = Path(account.pw_dir, "answer.json")
        answer.unlink(missing_ok=True)
        one = self.start(script, account, str(answer), **given)
        log = self.directory / "logs" / f"{account.pw_name}.log"
        assert one.wait(60) == 0, log.read_text()
        return json.loads(answer.read_text())

    def log(self) -> str:
        """Return what parents have written."""
        return (self.directory / "parent.log").read_text()

    def stop(self) -> None:
        for one in self.started:
            one.stop(0, 0, 10)
        for parent in self.parents:
            parent.stop()
