"""The hub as a service of a systemd that runs: in a machine that is thrown away (scripts/vm.py).

The service is the machine's, run as a user, or that user's own. Limits are measured from outside,
in the kernel's files.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import yaml
from harness import FAKE_SERVER, ROOT, Browser, gone, until
from websockets.sync.client import connect

pytestmark = pytest.mark.skipif(
    "MINIHUB_TEST_SYSTEMD" not in os.environ, reason="needs a machine of its own: scripts/vm.py"
)

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


@pytest.fixture(params=["system", "user"])
def service(request) -> Iterator[Service]:
    directory = Path(f"/home/{USER}/the hub")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    shutil.copy(os.environ["MINIHUB_PYZ"], directory / "minihub.pyz")
    (directory / "minihub.yaml").write_text(yaml.safe_dump(SETTINGS))
    subprocess.run(["chown", "-R", f"{USER}:{USER}", str(directory)], check=True)
    subprocess.run(["loginctl", "enable-linger", USER], check=True)
    uid = pwd.getpwnam(USER).pw_uid
    until(lambda: Path(f"/run/user/{uid}/bus").exists(), PATIENCE_S)
    one = Service(directory, request.param)
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


def used_s(group: Path) -> float:
    """Return how much processor time all in a group has used, as the kernel counts it."""
    return int(re.search(r"usage_usec (\d+)", (group / "cpu.stat").read_text())[1]) / 1e6


def assert_limits(group: Path) -> None:
    until(lambda: (group / "cpu.max").read_text().split() == ["30000", "100000"], PATIENCE_S)
    assert (group / "cpu.weight").read_text().strip() == "25"


def assert_held(browser: Browser, group: Path) -> None:
    """Let a server compute and see from outside that it gets no more than it may."""
    began, before = time.monotonic(), used_s(group)
    assert browser.get("/user/ada/burn?seconds=8", timeout=PATIENCE_S).status_code == 200
    share = (used_s(group) - before) / (time.monotonic() - began)
    assert 0.1 < share < 0.36, share


def test_limits_hold_and_no_restart_ends_anything(service):
    browser, pid = start_server("ada")
    group = service.group / "server-ada"
    assert str(pid) in (group / "cgroup.procs").read_text().split()
    assert_limits(group)
    assert_held(browser, group)
    cookie = "; ".join(f"{c.name}={c.value}" for c in browser.cookies)
    url = URL.replace("http", "ws") + "user/ada/ws"
    headers = {"Cookie": cookie}
    with connect(url, additional_headers=headers, ping_interval=None, open_timeout=60) as socket:
        for how in (["restart"], ["kill", "--kill-whom=main", "--signal=KILL"], ["stop"]):
            cell: list[requests.Response] = []
            computing = threading.Thread(
                target=lambda into=cell: into.append(
                    browser.get("/user/ada/burn?seconds=25", timeout=PATIENCE_S)
                )
            )
            computing.start()
            former = service.fact("MainPID")
            service.systemctl(*how, "minihub")
            if how == ["stop"]:
                assert service.fact("ActiveState") == "inactive"
                service.systemctl("start", "minihub")
            service.wait_ready(than=former)
            computing.join(PATIENCE_S)
            assert cell and cell[0].status_code == 200, how
            socket.send("still here")
            assert socket.recv(timeout=60) == "still here"
            assert browser.follow("/user/ada/").json()["pid"] == pid
            assert_limits(group)
    assert_held(browser, group)
    browser.submit("/hub/stop/ada", {}, page="/hub/home")
    until(lambda: gone(pid) and not group.exists(), PATIENCE_S)
    start_server("ada")  # and once more, in a new group
    assert_limits(group)


def test_memory_limit_of_a_service_is_told(service):
    browser, pid = start_server("ada")
    child = int(browser.get("/user/ada/eat?mb=230&by=child", timeout=PATIENCE_S).text)
    until(lambda: gone(child), PATIENCE_S)
    until(lambda: "was ended" in browser.get("/hub/home").text, PATIENCE_S)
    assert not gone(pid)


def test_service_made_without_delegation_is_mended_by_another_install(service):
    """A proxy and servers that started in the service's own group make room in it."""
    file = Path(service.fact("FragmentPath"))
    now = file.read_text()
    former = service.fact("MainPID")
    service.systemctl("stop", "minihub")
    (service.group / "cgroup.kill").write_text("1")
    ours = re.compile("^(Delegate|ExecStopPost|Environment=MINIHUB).*\n", re.MULTILINE)
    assert len(ours.findall(now)) == 3
    file.write_text(ours.sub("", now))
    service.systemctl("daemon-reload")
    service.systemctl("start", "minihub")
    service.wait_ready(than=former)
    _browser, pid = start_server("ada")
    assert not (service.group / "server-ada").exists()
    service.install()
    former = service.fact("MainPID")
    service.systemctl("restart", "minihub")
    service.wait_ready(than=former)
    group = service.group / "server-ada"
    until(group.exists, PATIENCE_S)
    assert_limits(group)
    until(lambda: str(pid) in (group / "cgroup.procs").read_text().split(), PATIENCE_S)


def test_timer_of_the_page_about_culling_stops_idle_servers(service):
    if service.kind == "user":
        pytest.skip("the page's timer is one of the machine")
    page = (ROOT / "docs/cron.md").read_text()
    blocks = re.findall(r"`(/etc/systemd/system/\S+)`:\n\n```ini\n(.*?)```", page, re.DOTALL)
    assert [Path(name).suffix for name, _ in blocks] == [".service", ".timer"]
    shown = re.search(r"^python3 minihub.pyz (token ada .*) > cull.token$", page, re.MULTILINE)[1]
    words = shown.replace("token ada", "token root-admin").split()
    token = service.directory / "cull.token"
    program = [sys.executable, str(service.directory / "minihub.pyz")]
    token.write_text(service.run("runuser", "-u", USER, "--", *program, *words))
    shutil.chown(token, USER, USER)
    token.chmod(0o600)
    for name, text in blocks:
        text = text.replace("/srv/hub/", f"{service.directory}/".replace(" ", "\\x20"))
        Path(name).write_text(text.replace("--timeout 1h", "--timeout 1s"))
    _browser, pid = start_server("ada")
    service.systemctl("daemon-reload")
    service.systemctl("enable", "--now", "minihub-cull.timer")
    assert "minihub-cull.timer" in service.systemctl("list-timers", "--no-pager")
    until(lambda: not service.systemctl("start", "minihub-cull.service") and gone(pid), PATIENCE_S)
    told = service.run("journalctl", "-u", "minihub-cull", "-o", "cat", "--no-pager")
    assert "ada" in told, told
    service.systemctl("disable", "--now", "minihub-cull.timer")
    for name, _text in blocks:
        Path(name).unlink()
