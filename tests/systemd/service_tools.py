"""A hub as a service of a systemd that runs."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests
import yaml
from harness import FAKE_SERVER, ROOT, Browser, until

URL = "http://127.0.0.1:8000/"
ADMIN = {"Authorization": "token the-token-of-an-admin"}
USER = "hub"
#: The machine is emulated.
PATIENCE_S = 240.0
SETTINGS = {
    "JupyterHub": {
        "ip": "127.0.0.1",
        "port": 8000,
        "authenticator_class": "dummy",
        "spawner_class": "simple",
        "api_tokens": {"the-token-of-an-admin": "root-admin"},
    },
    "Authenticator": {"allow_all": True, "admin_users": ["root-admin"]},
    "Spawner": {
        "cmd": [sys.executable, str(FAKE_SERVER)],
        "http_timeout": 200,
        "start_timeout": 200,
        "cpu_limit": 0.3,
        "cpu_guarantee": 0.25,
        "mem_limit": "200M",
    },
    "SimpleLocalProcessSpawner": {"sandbox_read": [str(ROOT)]},
}


class Service:
    """A hub in ``directory``, as a service."""

    def __init__(self, directory: Path, kind: str) -> None:
        self.directory = directory
        self.kind = kind

    def run(self, *words: str, check: bool = True) -> str:
        """Run a command as whom the service belongs to; return what it says."""
        if self.kind == "user":
            uid = pwd.getpwnam(USER).pw_uid
            words = ("runuser", "-u", USER, "--", "env", f"XDG_RUNTIME_DIR=/run/user/{uid}",
                     "HOME=/home/hub", *words)  # fmt: skip
        done = subprocess.run(
            words, cwd=self.directory, capture_output=True, text=True, timeout=PATIENCE_S
        )
        told = done.stdout + done.stderr
        assert done.returncode == 0 or not check, told
        return told

    def systemctl(self, *words: str, check: bool = True) -> str:
        flags = ["--user"] if self.kind == "user" else []
        return self.run("systemctl", *flags, *words, check=check)

    def install(self) -> None:
        program = [sys.executable, str(self.directory / "minihub.pyz"), "service", "install", "-y"]
        whose = ["--user"] if self.kind == "user" else ["--system", "--run-as", USER]
        told = self.run(*program, *whose)
        assert "systemd does not run here" not in told and "Wrote " in told, told

    def fact(self, name: str) -> str:
        return self.systemctl("show", "--property", name, "--value", "minihub").strip()

    @property
    def group(self) -> Path:
        return Path("/sys/fs/cgroup" + self.fact("ControlGroup"))

    def wait_ready(self, than: str = "") -> None:
        """Wait until a hub answers, another one than that with the main process ``than``."""

        def ready() -> bool:
            assert self.fact("MainPID") not in ("0", than)
            return requests.get(URL + "hub/api", timeout=30).status_code == 200

        try:
            until(ready, PATIENCE_S)
        except AssertionError as error:
            flags = ["--user"] if self.kind == "user" else []
            log = self.run("journalctl", *flags, "-u", "minihub", "-n", "40", check=False)
            raise AssertionError(log) from error


@contextlib.contextmanager
def running(kind: str, settings: dict[str, Any] | None = None) -> Iterator[Service]:
    """Run a hub as a service of this ``kind`` for the block: ``system`` or ``user``."""
    directory = Path(f"/home/{USER}/the hub")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    shutil.copy(os.environ["MINIHUB_PYZ"], directory / "minihub.pyz")
    (directory / "minihub.yaml").write_text(yaml.safe_dump(settings or SETTINGS))
    subprocess.run(["chown", "-R", f"{USER}:{USER}", str(directory)], check=True)
    subprocess.run(["loginctl", "enable-linger", USER], check=True)
    uid = pwd.getpwnam(USER).pw_uid
    until(lambda: Path(f"/run/user/{uid}/bus").exists(), PATIENCE_S)
    one = Service(directory, kind)
    one.install()
    one.systemctl("start", "minihub")
    one.wait_ready()
    yield one
    group = one.group
    one.systemctl("disable", "--now", "minihub")
    with contextlib.suppress(OSError):
        (group / "cgroup.kill").write_text("1")  # what the hub left running
    Path(one.fact("FragmentPath")).unlink()
    one.systemctl("daemon-reload")
    assert one.fact("LoadState") == "not-found"


def start_server(name: str) -> tuple[Browser, int]:
    """Log in and start a server; return the browser and the server's process."""
    browser = Browser(URL)
    assert browser.login(name).status_code == 302
    browser.start_server(name, PATIENCE_S)
    return browser, browser.follow(f"/user/{name}/").json()["pid"]
