"""kill -9 of the hub, of the proxy, of both, in the middle of a cell of a real JupyterLab."""

from __future__ import annotations

import os
import random
import shlex
import signal
import subprocess
import sys
import time

import crash_rounds
import psutil
import pytest
from cell_tools import Cell
from harness import DEFAULTS, ROOT, HubProcess, gone, merge, until

KEEP = {"JupyterHub": {"cleanup_servers": False, "cleanup_proxy": False}}


def lab_settings(lab_bin):
    arguments = ["--allow-root"] if os.getuid() == 0 else []
    command = {"cmd": [str(lab_bin / "jupyterhub-singleuser")], "args": arguments}
    return KEEP | {"Spawner": command}


def cell_of(hub) -> Cell:
    """Return a cell of ada's."""
    return Cell(hub.browser("ada"), "ada", hub.state_dir / "homes" / "ada")


def facts(hub):
    """Return all by which ada's server is the same one."""
    one = hub.server_process("ada")
    log = hub.state_dir / "logs" / "ada.log"
    return one.pid, one.create_time(), one.environ()["JUPYTERHUB_API_TOKEN"], log.stat().st_ino


@pytest.mark.notebook
@pytest.mark.timeout(240)
def test_cell_survives_the_hub(start_hub, lab_bin):
    """The same process, token and log; no WebSocket dropped; routes there before the port opens."""
    settings = lab_settings(lab_bin)
    hub = start_hub(settings)
    cell = cell_of(hub)
    before, routes = facts(hub), set(hub.routes())
    assert "/user/ada" in routes
    message = cell.begin()
    for number in (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM):
        hub.process.send_signal(number)
        hub.process.wait(30)
        assert set(hub.routes()) == routes  # the proxy goes on
        hub = start_hub(settings, directory=hub.directory)
        assert set(hub.routes()) == routes
        assert facts(hub) == before
    assert hub.api("user", before[2]).json()["name"] == "ada"
    cell.go.touch()
    assert cell.result(message) == "42"  # by the WebSocket that was open all the time
    assert cell.run("before") == "41"
    cell.socket.close()
    cell.browser.submit("/hub/stop/ada", {}, page="/hub/home")
    until(lambda: gone(before[0]), 30)
    assert hub.api("user", before[2]).status_code == 403


@pytest.mark.notebook
@pytest.mark.timeout(240)
def test_cell_survives_a_restart_of_the_service(start_hub, lab_bin, tmp_path):
    """The signals of systemd, to the main process alone, and its command; KEEP comes with that.

    The same with a systemd that runs: tests/systemd/test_cell.py.
    """
    place = tmp_path / "the service"
    HubProcess.write_settings(place, merge(DEFAULTS, {"Spawner": lab_settings(lab_bin)["Spawner"]}))
    words = [sys.executable, str(ROOT / "minihub" / "__main__.py"), "service", "print", "--system"]
    unit = subprocess.run(words, cwd=place, capture_output=True, text=True, check=True).stdout
    assert "\nKillMode=process\n" in unit
    (line,) = (line for line in unit.splitlines() if line.startswith("ExecStart="))
    command = [
        word.replace("%%", "%").replace("$$", "$")
        for word in shlex.split(line.removeprefix("ExecStart="))
    ]
    how = {"directory": place, "command": command, "defaults": {}}
    hub = start_hub(**how)
    cell = cell_of(hub)
    before, routes = facts(hub), set(hub.routes())
    message = cell.begin()
    for _restart in range(3):
        former = hub.process.pid
        assert hub.stop(signal.SIGTERM) == 0
        assert not gone(before[0]) and set(hub.routes()) == routes
        hub = start_hub(**how)
        assert hub.process.pid != former and set(hub.routes()) == routes
        assert facts(hub) == before
    cell.go.touch()
    assert cell.result(message) == "42"
    assert cell.run("before") == "41"
    cell.socket.close()


@pytest.mark.notebook
@pytest.mark.timeout(240)
def test_cell_survives_the_proxy_and_both(start_hub, lab_bin):
    settings = lab_settings(lab_bin)
    hub = start_hub(settings)
    cell = cell_of(hub)
    before, routes = facts(hub), set(hub.routes())
    message = cell.begin()

    # The proxy alone: back within five seconds, with all routes.
    old = hub.proxy()["pid"]
    os.kill(old, signal.SIGKILL)
    began = time.monotonic()
    until(lambda: hub.proxy()["pid"] != old and set(hub.routes()) == routes)
    assert time.monotonic() - began < 5
    assert facts(hub) == before
    cell.socket = cell.open()  # its tunnel ended with it; the kernel keeps what the cell says
    until(lambda: cell.browser.get("/user/ada/api/status").status_code == 200)

    # Both at once.
    os.kill(hub.proxy()["pid"], signal.SIGKILL)
    hub.kill()
    hub = start_hub(settings, directory=hub.directory)
    cell.browser.base = hub.url.rstrip("/")
    assert set(hub.routes()) == routes and facts(hub) == before
    cell.socket = cell.open()
    cell.go.touch()
    assert cell.result(message) == "42"
    assert cell.run("before") == "41"
    kernels = psutil.Process(before[0]).children(recursive=True)
    assert any("ipykernel" in " ".join(one.cmdline()) for one in kernels)
    cell.socket.close()


@pytest.mark.timeout(240)
def test_killed_hub_never_loses_or_half_writes_anything(tmp_path):
    """The short form of benchmarks/crashes.py, which does 200 rounds."""
    seed = random.randrange(10**6)
    print("seed", seed)
    facts = crash_rounds.rounds(8, tmp_path / "hub", seed, print)
    assert facts["users written"] >= 8 * crash_rounds.WRITERS, facts
