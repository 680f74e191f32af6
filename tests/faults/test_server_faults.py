"""Servers that misbehave end in a reason on the page: no process, no row, no route is left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import psutil
import pytest
import requests
from fault_tools import LONG, SETTINGS, marked, nothing_left
from harness import gone, python_config, until


def script(text: str) -> dict:
    """Return a configuration whose servers are this program."""
    head = "import os, signal, subprocess, sys, time\n"
    command = [sys.executable, "-c", head + text]
    return {**SETTINGS, "Spawner": {**SETTINGS["Spawner"], "cmd": command}}


#: Programs, and what the page says of each.
FAULTS = {
    "never listens": ("time.sleep(600)", "did not answer within"),
    "exits at once": ("print('I give up'); sys.exit(7)", "exit code 7"),
    "is killed": ("os.kill(os.getpid(), 9)", "SIGKILL"),
    "ignores signals": (
        "[signal.signal(n, signal.SIG_IGN) for n in (2, 15)]\ntime.sleep(600)",
        "did not answer within",
    ),
    "forks away": (
        "subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    os.setsid()\n"
        "    if os.fork(): os._exit(0)\n"
        "    [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]\n"
        "    time.sleep(600)\n"
        "time.sleep(600)",
        "did not answer within",
    ),
    "leaves a child and exits": (
        "subprocess.Popen(['sleep', '600'], start_new_session=True)\nsys.exit(3)",
        "exit code 3",
    ),
    "talks nonsense": (
        "import socket\nfrom urllib.parse import urlsplit\n"
        "port = urlsplit(os.environ['JUPYTERHUB_SERVICE_URL']).port\n"
        "s = socket.create_server(('127.0.0.1', port))\n"
        "while True: c, _ = s.accept(); c.sendall(b'\\x00\\xff' * 99); c.close()",
        "did not answer within",
    ),
    "accepts and is silent": (
        "import socket\nfrom urllib.parse import urlsplit\n"
        "port = urlsplit(os.environ['JUPYTERHUB_SERVICE_URL']).port\n"
        "s = socket.create_server(('127.0.0.1', port)); kept = []\n"
        "while True: kept.append(s.accept())",
        "did not answer within",
    ),
    "trickles its answer": (
        "import socket\nfrom urllib.parse import urlsplit\n"
        "port = urlsplit(os.environ['JUPYTERHUB_SERVICE_URL']).port\n"
        "s = socket.create_server(('127.0.0.1', port)); c, _ = s.accept()\n"
        "c.sendall(b'HTTP/1.1 200 OK\\r\\nX: ')\n"
        "while True: c.sendall(b'x'); time.sleep(0.2)",
        "did not answer within",
    ),
    "fills its log": (
        "end = time.time() + 30\nwhile time.time() < end: os.write(1, b'x' * 99 + b'\\n')",
        "did not answer within",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_start_that_goes_wrong_says_why_and_leaves_nothing(start_hub, fault):
    program, told = FAULTS[fault]
    hub = start_hub(script(program))
    browser = hub.browser("ada")
    browser.get("/hub/spawn/ada")
    page = until(lambda: (p := browser.get("/hub/spawn-pending/ada").text) and told in p and p, 30)
    assert "Traceback" not in page
    until(lambda: nothing_left(hub), 20)
    logs = hub.state_dir / "logs" / "ada.log"
    assert logs.stat().st_mode & 0o777 == 0o600
    # The next start is as good as the first.
    assert browser.get("/hub/home").status_code == 200
    assert hub.stop() == 0 and "Traceback" not in hub.text, hub.text
    assert "Stopping ada/, its" not in hub.text, hub.text


EATER = """
import os, time
pid = os.fork()
if pid:
    os.waitpid(pid, 0)  # the largest goes first: a child, as a kernel is
eaten = []
while True:
    eaten.append(os.urandom(2**20))
    time.sleep(0.005)
"""


def test_server_that_eats_memory_at_its_start_is_ended_with_the_reason(start_hub):
    """It and its children, one by one; the hub and the others go on."""
    config = script(EATER)
    config["Spawner"] |= {"mem_limit": "80M", "start_timeout": 60, "http_timeout": 60}
    hub = start_hub(config)
    browser = hub.browser("ada")
    browser.get("/hub/spawn/ada")
    page = until(
        lambda: (p := browser.get("/hub/spawn-pending/ada").text) and "did not start" in p and p, 60
    )
    assert "killed by SIGKILL" in page and "may use 80" in page, page
    assert "Somebody killed it" not in page  # the hub knows who did
    until(lambda: nothing_left(hub), 20)
    assert hub.text.count("(Spawner.mem_limit): ended") == 2, hub.text
    assert hub.stop() == 0 and "Traceback" not in hub.text, hub.text


def test_running_server_that_eats_memory_is_ended_with_the_reason(start_hub):
    hub = start_hub({**SETTINGS, "Spawner": {**SETTINGS["Spawner"], "mem_limit": "150M"}})
    ada, bob = hub.browser("ada"), hub.browser("bob")
    for name, browser in (("ada", ada), ("bob", bob)):
        browser.start_server(name)
    requests.get(f"{hub.url}user/ada/eat?mb=400&by=server", timeout=30)
    until(lambda: nothing_left_but(hub, "bob"), 30)
    home = ada.get("/hub/home").text
    assert "may use 150" in home, home
    assert bob.follow("/user/bob/").status_code == 200
    assert hub.stop() == 0 and "Traceback" not in hub.text, hub.text


def nothing_left_but(hub, name: str) -> bool:
    """Return whether one user's server is the only one there is anything of."""
    rows = hub.rows("SELECT users.name FROM servers JOIN users ON user_id = users.id"
                    " WHERE target IS NOT NULL")  # fmt: skip
    return rows == [(name,)] and len(marked(hub)) == 1 and set(hub.routes()) == {
        "/", f"/user/{name}"}  # fmt: skip


@pytest.mark.parametrize("mode", ["", "stubborn"])
def test_cancelled_start_leaves_nothing(start_hub, mode):
    hub = start_hub({**SETTINGS, "Spawner": {
        "start_timeout": 60, "http_timeout": 60,
        "cmd": [sys.executable, "-c", "import signal, time\n"
                + ("[signal.signal(n, signal.SIG_IGN) for n in (2, 15)]\n" if mode else "")
                + "time.sleep(600)"]}})  # fmt: skip
    browser = hub.browser("ada")
    browser.get("/hub/spawn/ada")
    until(lambda: marked(hub))
    browser.submit("/hub/stop/ada", {}, page="/hub/home")
    until(lambda: nothing_left(hub), 20)


#: Answers that it is ready, and then does something else.
READY = """
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import urlsplit

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

def serve(count):
    for _ in range(count):
        server.handle_request()

server = HTTPServer(("127.0.0.1", urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"]).port), Handler)
serve(1)
"""
#: What servers do that ran well for a while.
RUNNING = {
    "closes its port": "server.server_close()\ntime.sleep(600)",
    "ignores signals": "[signal.signal(n, signal.SIG_IGN) for n in (2, 15)]\nserve(10**6)",
    "forks away": "pid = os.fork()\n"
    "if not pid:\n"
    "    os.setsid()\n"
    "    if os.fork(): os._exit(0)\n"
    "    [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]\n"
    "    time.sleep(600)\n"
    "subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
    "serve(10**6)",
    "fills its log": "[os.write(1, b'x' * 1023 + b'\\n') for _ in range(25 * 1024)]\nserve(10**6)",
}


@pytest.mark.parametrize("fault", RUNNING)
def test_running_server_that_goes_wrong_can_be_stopped_and_leaves_nothing(start_hub, fault):
    config = script(READY + RUNNING[fault])
    config["Spawner"]["poll_interval"] = 1
    hub = start_hub(config)
    browser = hub.browser("ada")
    browser.start_server("ada")
    if fault == "closes its port":
        page = browser.get("/user/ada/lab")
        assert page.status_code == 503 and "Your server appears to be down" in page.text
        assert 'id="stop"' in browser.get("/hub/home").text, "it runs, and its page says so"
    if fault == "fills its log":
        logs = [hub.state_dir / "logs" / name for name in ("ada.log", "ada.log.1")]
        until(lambda: logs[1].exists() and logs[1].stat().st_size > 10 * 2**20, 30)
        until(lambda: logs[0].stat().st_size < 10 * 2**20, 30)
    if fault == "forks away":
        until(lambda: len(marked(hub)) == 3)
    browser.submit("/hub/stop/ada", {}, page="/hub/home")
    until(lambda: nothing_left(hub), 30)
    assert "Traceback" not in hub.text, hub.text


def test_running_server_that_is_halted_can_be_stopped(start_hub):
    hub = start_hub(SETTINGS)
    browser = hub.browser("ada")
    browser.start_server("ada")
    pid = browser.follow("/user/ada/").json()["pid"]
    os.kill(pid, signal.SIGSTOP)  # it answers nothing, and no SIGINT or SIGTERM either
    browser.submit("/hub/stop/ada", {}, page="/hub/home")
    until(lambda: nothing_left(hub), 20)
    assert gone(pid)


def test_server_killed_while_it_runs_is_noticed(start_hub):
    hub = start_hub({**SETTINGS, "Spawner": {"poll_interval": 1}})
    browser = hub.browser("ada")
    browser.start_server("ada")
    hub.server_process("ada").kill()
    until(lambda: nothing_left(hub), 20)
    assert browser.get("/hub/home").status_code == 200


def test_server_that_floods_the_activity_api_harms_nobody(start_hub):
    """500 reports as fast as one can send them."""
    hub = start_hub(SETTINGS)
    browser = hub.browser("ada")
    browser.start_server("ada")
    token = hub.server_process("ada").environ()["JUPYTERHUB_API_TOKEN"]
    slowest = 0.0
    body = {"servers": {"": {"last_activity": "2026-01-01T00:00:00.000000Z"}}}
    for number in range(500):
        answer = hub.api("users/ada/activity", token, "POST", json=body)
        assert answer.status_code in (200, 429)
        if number % 50 == 0:
            began = time.monotonic()
            assert browser.get("/hub/home").status_code == 200
            slowest = max(slowest, time.monotonic() - began)
    assert slowest < 5
    # Nobody reports for another.
    assert hub.api("users/root-admin/activity", token, "POST", json=body).status_code in (403, 404)
    wild = {"servers": {"": {"last_activity": "9999-12-31T23:59:59Z"}}}
    assert hub.api("users/ada/activity", token, "POST", json=wild).status_code < 500
    big = {"servers": {str(n): {"last_activity": "x"} for n in range(10000)}}
    assert 400 <= hub.api("users/ada/activity", token, "POST", json=big).status_code < 500
    assert "Traceback" not in hub.text


def test_cancel_of_a_server_that_takes_a_request_and_is_silent(start_hub):
    program = FAULTS["accepts and is silent"][0]
    command = [sys.executable, "-c", "import os\n" + program]
    hub = start_hub({**LONG, "Spawner": {**LONG["Spawner"], "cmd": command}})
    browser = hub.browser("ada")
    browser.get("/hub/spawn/ada")
    until(lambda: marked(hub))
    time.sleep(1)
    began = time.monotonic()
    browser.submit("/hub/stop/ada", {}, page="/hub/home")
    until(lambda: nothing_left(hub), 20)
    assert time.monotonic() - began < 15


# -- what a killed hub leaves ------------------------------------------------------------------

LATE = """
import os, time
from jupyterhub.spawner import SimpleLocalProcessSpawner

class Mine(SimpleLocalProcessSpawner):
    def get_state(self):
        if self._process is not None and not os.path.exists("was-killed"):
            open("was-killed", "w").close()
            os.kill(os.getpid(), 9)  # the process runs, and no row knows of it
        return super().get_state()

if not os.path.exists("was-killed"):
    c.Spawner.cmd = ["sleep", "600"]  # unlike a server it does not end without its hub
    c.Spawner.args = []
c.JupyterHub.spawner_class = Mine
c.JupyterHub.cleanup_servers = False
c.JupyterHub.cleanup_proxy = False
"""


def test_server_that_no_row_knows_is_ended_by_the_next_hub(start_hub, tmp_path):
    hub = start_hub(**python_config(tmp_path / "here", LATE))
    hub.browser("ada").get("/hub/spawn/ada")
    assert hub.process.wait(20) == -signal.SIGKILL
    (orphan,) = marked(hub)
    secret = orphan.environ()["JUPYTERHUB_API_TOKEN"]
    again = start_hub(directory=hub.directory, defaults={})
    again.wait_text(f"Ending a server that a killed hub left without a note: pid {orphan.pid}")
    until(lambda: nothing_left(again))
    assert gone(orphan.pid) and again.api("user", secret).status_code == 403
    browser = again.browser("ada")
    browser.start_server("ada")  # and the next one is known
    assert len(marked(again)) == 1
    again.stop()
    third = start_hub(directory=hub.directory, defaults={})
    assert "without a note" not in third.text[len(again.text) :]
    assert len(marked(third)) == 1
    for one in marked(third):
        one.kill()


def test_proxy_that_no_note_knows_is_ended_by_the_next_hub(start_hub):
    keep = {"JupyterHub": {"cleanup_servers": False, "cleanup_proxy": False}}
    hub = start_hub(keep)
    pid = hub.proxy()["pid"]
    hub.kill()
    (hub.state_dir / "proxy.json").unlink()  # as if it had been killed just before it was written
    again = start_hub(keep, directory=hub.directory)
    again.wait_text("Ending a proxy that a killed hub left without a note")
    assert gone(pid) and again.proxy()["pid"] != pid


def test_copy_of_the_directory_ends_nothing_of_the_first_hub(start_hub, tmp_path):
    hub = start_hub()
    browser = hub.browser("ada")
    browser.start_server("ada")
    shutil.copytree(hub.directory, tmp_path / "copy", ignore=shutil.ignore_patterns("lock"))
    (tmp_path / "copy" / "minihub-data" / "proxy.json").unlink()
    for name in ("jupyterhub.sqlite", "jupyterhub.sqlite-wal", "jupyterhub.sqlite-shm"):
        (tmp_path / "copy" / name).unlink(missing_ok=True)
    start_hub(directory=tmp_path / "copy")
    assert browser.follow("/user/ada/").json()["visitor"]["name"] == "ada"
    assert len(marked(hub)) == 1


@pytest.mark.parametrize("whose", ["server", "proxy"])
def test_stranger_with_an_old_process_id_is_never_signalled(start_hub, whose):
    """After a reboot the ids of servers and proxy are other programs'."""
    keep = {"JupyterHub": {"cleanup_servers": False, "cleanup_proxy": False}}
    hub = start_hub(keep)
    browser = hub.browser("ada")
    browser.start_server("ada")
    server, proxy = hub.server_process("ada"), psutil.Process(hub.proxy()["pid"])
    hub.kill()
    server.kill()
    proxy.kill()
    until(lambda: gone(server.pid) and gone(proxy.pid))
    time.sleep(1.5)  # creation times are compared to the second
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        if whose == "server":
            with sqlite3.connect(hub.directory / "jupyterhub.sqlite") as db:
                ((state,),) = db.execute("SELECT state FROM servers").fetchall()
                state = json.loads(state) | {"pid": stranger.pid}
                db.execute("UPDATE servers SET state = ?", (json.dumps(state),))
            db.close()
        else:
            note = hub.state_dir / "proxy.json"
            note.write_text(json.dumps(json.loads(note.read_text()) | {"pid": stranger.pid}))
        again = start_hub(keep, directory=hub.directory)
        assert "Server ada/ has ended while the hub was away" in again.text
        assert stranger.poll() is None
        until(lambda: nothing_left(again))
        assert again.stop() == 0 and stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
