"""The hub as a service of a systemd that runs: in a machine that is thrown away (scripts/vm.py).

The service is the machine's, run as a user, or that user's own. Limits are measured from outside,
in the kernel's files.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from harness import ROOT, Browser, gone, until
from service_tools import PATIENCE_S, URL, USER, Service, running, start_server
from websockets.sync.client import connect

pytestmark = pytest.mark.skipif(
    "MINIHUB_TEST_SYSTEMD" not in os.environ, reason="needs a machine of its own: scripts/vm.py"
)


@pytest.fixture(params=["system", "user"])
def service(request) -> Iterator[Service]:
    with running(request.param) as one:
        yield one


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
