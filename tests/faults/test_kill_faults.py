"""kill -9 of the hub, of the proxy, of both, in the middle of a cell of a real JupyterLab."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
import uuid

import crash_rounds
import psutil
import pytest
from harness import gone, until
from websockets.sync.client import connect

KEEP = {"JupyterHub": {"cleanup_servers": False, "cleanup_proxy": False}}


def lab_settings(lab_bin):
    arguments = ["--allow-root"] if os.getuid() == 0 else []
    command = {"cmd": [str(lab_bin / "jupyterhub-singleuser")], "args": arguments}
    return KEEP | {"Spawner": command}


class Cell:
    """A kernel of ada's, and a cell that runs in it until a file appears."""

    def __init__(self, hub) -> None:
        self.hub = hub
        self._open = contextlib.ExitStack()
        self.browser = hub.browser("ada")
        self.browser.start_server("ada", timeout_s=90)
        assert self.browser.follow("/user/ada/lab").status_code == 200
        xsrf = next(
            c.value for c in self.browser.cookies if c.name == "_xsrf" and c.path == "/user/ada/"
        )
        made = self.browser.request(
            "POST",
            "/user/ada/api/kernels",
            json={"name": "python3"},
            headers={"X-XSRFToken": xsrf},
        )
        self.kernel = made.json()["id"]
        self.go = hub.directory / "minihub-data" / "homes" / "ada" / "go"
        self.socket = self.open()
        self.run("before = 41")

    def open(self):
        cookie = "; ".join(f"{c.name}={c.value}" for c in self.browser.cookies)
        base = self.browser.base.replace("http", "ws", 1)
        return self._open.enter_context(
            connect(
                f"{base}/user/ada/api/kernels/{self.kernel}/channels?session_id=lab",
                additional_headers={"Cookie": cookie, "Origin": self.browser.base},
            )
        )

    def send(self, code: str) -> str:
        message = uuid.uuid4().hex
        head = {"msg_id": message, "msg_type": "execute_request", "session": uuid.uuid4().hex}
        request = {
            "channel": "shell",
            "header": {**head, "username": "", "version": "5.3"},
            "parent_header": {},
            "metadata": {},
            "content": {"code": code, "silent": False},
        }
        self.socket.send(json.dumps(request))
        return message

    def result(self, message: str, timeout_s: float = 60.0) -> str:
        """Wait for the end of a cell; return its result."""
        found, deadline = "", time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            reply = json.loads(self.socket.recv(timeout=timeout_s))
            if reply["parent_header"].get("msg_id") != message:
                continue
            assert reply["header"]["msg_type"] != "error", reply["content"]
            if reply["header"]["msg_type"] == "execute_result":
                found = reply["content"]["data"]["text/plain"]
            if reply["header"]["msg_type"] == "execute_reply":
                return found
        raise AssertionError("the cell did not end")

    def run(self, code: str) -> str:
        return self.result(self.send(code))

    def begin(self) -> str:
        """Start a cell that waits; return its message when it runs."""
        message = self.send(
            "import os, time, pathlib\n"
            "pathlib.Path.home().joinpath('runs').write_text('x')\n"
            "while not pathlib.Path.home().joinpath('go').exists(): time.sleep(0.05)\n"
            "before + 1"
        )
        until(lambda: self.go.with_name("runs").exists(), 30)
        return message

    def facts(self):
        """Return all by which the server is the same one."""
        one = self.hub.server_process("ada")
        log = self.hub.state_dir / "logs" / "ada.log"
        return (
            one.pid,
            one.create_time(),
            one.environ()["JUPYTERHUB_API_TOKEN"],
            log.stat().st_ino,
        )


@pytest.mark.notebook
@pytest.mark.timeout(240)
def test_cell_survives_the_hub(start_hub, lab_bin):
    """The same process, token and log; no WebSocket dropped; routes there before the port opens."""
    settings = lab_settings(lab_bin)
    cell = Cell(start_hub(settings))
    before, routes = cell.facts(), set(cell.hub.routes())
    assert "/user/ada" in routes
    message = cell.begin()
    for number in (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM):
        cell.hub.process.send_signal(number)
        cell.hub.process.wait(30)
        assert set(cell.hub.routes()) == routes  # the proxy goes on
        cell.hub = start_hub(settings, directory=cell.hub.directory)
        assert set(cell.hub.routes()) == routes
        assert cell.facts() == before
    assert cell.hub.api("user", before[2]).json()["name"] == "ada"
    cell.go.touch()
    assert cell.result(message) == "42"  # by the WebSocket that was open all the time
    assert cell.run("before") == "41"
    cell.socket.close()
    cell.browser.submit("/hub/stop/ada", {}, page="/hub/home")
    until(lambda: gone(before[0]), 30)
    assert cell.hub.api("user", before[2]).status_code == 403


@pytest.mark.notebook
@pytest.mark.timeout(240)
def test_cell_survives_the_proxy_and_both(start_hub, lab_bin):
    settings = lab_settings(lab_bin)
    cell = Cell(start_hub(settings))
    before, routes = cell.facts(), set(cell.hub.routes())
    message = cell.begin()

    # The proxy alone: back within five seconds, with all routes.
    old = cell.hub.proxy()["pid"]
    os.kill(old, signal.SIGKILL)
    began = time.monotonic()
    until(lambda: cell.hub.proxy()["pid"] != old and set(cell.hub.routes()) == routes)
    assert time.monotonic() - began < 5
    assert cell.facts() == before
    cell.socket = cell.open()  # its tunnel ended with it; the kernel keeps what the cell says
    until(lambda: cell.browser.get("/user/ada/api/status").status_code == 200)

    # Both at once.
    os.kill(cell.hub.proxy()["pid"], signal.SIGKILL)
    cell.hub.kill()
    cell.hub = start_hub(settings, directory=cell.hub.directory)
    cell.browser.base = cell.hub.url.rstrip("/")
    assert set(cell.hub.routes()) == routes and cell.facts() == before
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
