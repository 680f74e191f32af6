"""Servers as processes of this machine: start, readiness, faults, stop, and finding them again.

The server here is a few lines of Python that behave as ``MODE`` says; the last tests use the real
``jupyterhub-singleuser`` and real system users.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
from traitlets.config import Config

from minihub import aio, local
from minihub.errors import ExitedEarly, SpawnError, SpawnTimeout
from minihub.local import INSTALL_LINE, LocalProcessSpawner, SimpleLocalProcessSpawner
from minihub.spawner import HubInfo, Spawner, UserInfo

SERVER = """
import os, signal, socketserver, subprocess, sys, time
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit
mode = os.environ.get("MODE", "")
print("this is", mode or "a server", flush=True)
if mode == "exit":
    sys.exit("something is absent")
if mode == "stubborn":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if mode == "kernel":
    kernel = ("import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
              "open('kernel.pid', 'w').write(str(os.getpid())); time.sleep(60)")
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv(sys.executable, [sys.executable, "-c", kernel])
        os._exit(0)
    os.wait()
if mode == "mute":
    time.sleep(60)
place = urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"])
class Handler(BaseHTTPRequestHandler):
    count = 0
    def do_GET(self):
        Handler.count += 1
        status = int(mode) if mode.isdigit() else 200
        if mode == "late" and Handler.count < 3:
            status = 500
        self.send_response(status if self.path == place.path + "api" else 599)
        if status == 302:
            self.send_header("Location", place.path + "elsewhere")
        self.send_header("X-JupyterHub-Version", "6.1.1")
        self.end_headers()
    def log_message(self, *args):
        print("GET", self.path, flush=True)
class Server(socketserver.TCPServer):
    allow_reuse_address = True
if mode == "silent":
    Handler.do_GET = lambda self: time.sleep(60)
Server((place.hostname, place.port), Handler).serve_forever()
"""
SERVER_CMD = [sys.executable, "-I", "-S", "-c", SERVER]


@pytest.fixture(autouse=True)
def closed_loop():
    yield
    aio.close()


@pytest.fixture
def make(tmp_path):
    """Make spawners; their servers are killed at the end of the test."""
    made = []

    def make(cls=SimpleLocalProcessSpawner, *, mode="", name="ada", server_name="", **options):
        hub = HubInfo(api_url="http://127.0.0.1:1/hub/api", state_dir=tmp_path)
        options = {"cmd": SERVER_CMD, "http_timeout": 20, "environment": {"MODE": mode}} | options
        config = Config({cls.__name__: options})
        spawner = cls(user=UserInfo(name), server_name=server_name, hub=hub, config=config)
        made.append(spawner)
        return spawner

    yield make
    for spawner in made:
        if spawner._process is not None:
            spawner._process.stop(0, 0, 10)


def until(condition, timeout_s=10.0):
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)
    return value


def bring_up(spawner):
    url = spawner.run_start() + spawner.server_url
    return url, spawner.wait_ready(url)


def is_gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


# -- starting ------------------------------------------------------------------------------


def test_server_becomes_ready_and_stops(make, tmp_path):
    spawner = make()
    url, version = bring_up(spawner)
    assert url == f"http://127.0.0.1:{spawner.port}/user/ada/"
    assert version == "6.1.1"
    assert spawner.poll() is None
    running = psutil.Process(spawner.pid)
    assert running.cwd() == str(tmp_path / "homes" / "ada")
    assert running.environ()["JUPYTERHUB_SERVICE_URL"] == url
    assert len(spawner.tree.tree()) == 1
    spawner.stop()
    assert spawner.poll() == -signal.SIGINT
    assert is_gone(running.pid)


def test_each_start_has_a_port_of_its_own(make):
    spawner = make(mode="mute")
    spawner.run_start()
    first = spawner.port
    spawner.stop(now=True)
    spawner.clear_state()
    assert (spawner.port, spawner.pid) == (0, 0)
    spawner.run_start()
    assert spawner.port not in (0, first)


def test_configured_port_stays(make):
    spawner = make(mode="mute", port=31999)
    spawner.run_start()
    spawner.stop(now=True)
    spawner.clear_state()
    assert spawner.port == 31999


def test_server_of_a_name_has_a_log_and_a_path_of_its_own(make, tmp_path):
    spawner = make(server_name="lab 1")
    url, _version = bring_up(spawner)
    assert url.endswith("/user/ada/lab%201/")
    log = tmp_path / "logs" / "ada--lab%201.log"
    until(lambda: log.read_text() == "this is a server\nGET /user/ada/lab%201/api\n")
    assert log.stat().st_mode & 0o777 == 0o600
    assert log.parent.stat().st_mode & 0o777 == 0o700


def test_arguments_shell_and_directory_are_as_configured(make, tmp_path):
    spawner = make(
        cmd=["printf", "%s|", "a b"],
        args=["$HOME", "c'd"],
        shell_cmd=["sh", "-c"],
        popen_kwargs={"cwd": str(tmp_path), "umask": 0o027},
    )
    spawner.run_start()
    assert spawner.wait_exit(10) == 0
    assert spawner.log_tail() == ["a b|$HOME|c'd|"]
    other = make(name="bob", cmd=["sh", "-c", "pwd; umask"], popen_kwargs=spawner.popen_kwargs)
    other.run_start()
    other.wait_exit(10)
    assert other.log_tail() == [str(tmp_path), "0027"]


def test_missing_program_is_named_with_the_line_that_installs_it(make):
    spawner = make(cmd=["jupyterhub-singleuser"], environment={"PATH": "/nowhere"})
    if shutil.which("jupyterhub-singleuser", path=str(Path(sys.executable).parent)):
        pytest.skip("jupyterhub is installed beside this Python")
    with pytest.raises(
        SpawnError, match=r"jupyterhub-singleuser was not found .*/nowhere"
    ) as error:
        spawner.run_start()
    assert error.value.hint == f"Install it: {INSTALL_LINE}"
    assert INSTALL_LINE == "python3 -m pip install jupyterhub jupyterlab"
    assert spawner.poll() == 0


def test_other_missing_program_is_not_told_to_be_jupyter(make):
    with pytest.raises(SpawnError) as error:
        make(cmd=["rstudio-thing"]).run_start()
    assert error.value.hint == "Install it, or name another program in Spawner.cmd."


def test_no_program_at_all_is_told(make):
    with pytest.raises(SpawnError, match=r"Spawner\.cmd is empty"):
        make(cmd=None).run_start()


def test_program_beside_the_hubs_python_has_that_directory_on_its_path(make, tmp_path, monkeypatch):
    beside = tmp_path / "python"
    beside.mkdir()
    (beside / "own-server").write_text("#!/bin/sh\necho $PATH\n")
    (beside / "own-server").chmod(0o755)
    python = beside / "python3"
    python.symlink_to(os.path.realpath(sys.executable))
    monkeypatch.setattr(sys, "executable", str(python))
    environment = {"PATH": "/usr/bin:/bin"}
    spawner = make(cmd=["own-server"], environment=environment, sandbox="off")
    spawner.run_start()
    spawner.wait_exit(10)
    assert spawner.log_tail() == [f"{beside}:/usr/bin:/bin"]


def test_subclass_may_await_what_it_inherits(make):
    class Own(SimpleLocalProcessSpawner):
        async def start(self):
            self.args = ["extra"]
            return await super().start()

        async def stop(self, now=False):
            await super().stop(now=now)

        async def poll(self):
            return await super().poll()

    spawner = make(Own)
    bring_up(spawner)
    assert psutil.Process(spawner.pid).cmdline()[-1] == "extra"
    assert aio.call(spawner.poll) is None
    aio.call(spawner.stop)
    assert aio.call(spawner.poll) == -signal.SIGINT


# -- readiness and faults ------------------------------------------------------------------


@pytest.mark.parametrize("status", ["302", "404", "403"])
def test_any_status_below_500_is_ready_and_no_redirect_is_followed(make, status):
    spawner = make(mode=status)
    assert bring_up(spawner)[1] == "6.1.1"
    until(lambda: spawner.log_tail()[-1].startswith("GET"))
    assert spawner.log_tail()[1:] == ["GET /user/ada/api"]


def test_status_500_is_not_ready_yet(make):
    spawner = make(mode="late")
    bring_up(spawner)
    until(lambda: len(spawner.log_tail()) == 4)


def test_server_that_ends_at_once_is_seen_at_once_with_its_last_words(make, tmp_path):
    (tmp_path / "logs").mkdir(mode=0o700)
    (tmp_path / "logs" / "ada.log").write_text("from an earlier run\n")
    spawner = make(mode="exit")
    began = time.monotonic()
    with pytest.raises(ExitedEarly, match="ended before it answered: exit code 1") as error:
        bring_up(spawner)
    assert time.monotonic() - began < 5
    assert error.value.log_tail == ["this is exit", "something is absent"]
    assert error.value.exit_code_of_server == 1


def test_server_that_is_killed_while_it_starts_says_by_what(make):
    spawner = make(mode="mute")
    url = spawner.run_start()
    until(spawner.log_tail)
    os.kill(spawner.pid, signal.SIGKILL)
    with pytest.raises(ExitedEarly, match="killed by SIGKILL"):
        spawner.wait_ready(url + spawner.server_url)


@pytest.mark.parametrize(
    "mode, hint",
    [
        ("mute", "never opened its port.*raise Spawner.http_timeout"),
        ("silent", "raise Spawner.http_timeout"),
        ("503", r"answers with an error .status 503.; its log says more"),
    ],
)
def test_server_that_does_not_answer_times_out_and_names_the_setting(make, mode, hint):
    spawner = make(mode=mode, http_timeout=1)
    with pytest.raises(SpawnTimeout, match="not answer within 1 s .Spawner.http_timeout") as error:
        bring_up(spawner)
    assert re.search(hint, error.value.hint)
    assert error.value.log_tail[:1] == [f"this is {mode}"]


def test_waiting_is_given_up_when_it_is_no_longer_wanted(make):
    class Cancelled(Exception):
        pass

    spawner = make(mode="mute")
    url = spawner.run_start()
    asked = []

    def still_wanted():
        asked.append(time.monotonic())
        if len(asked) == 4:
            raise Cancelled

    spawner.still_wanted = still_wanted
    with pytest.raises(Cancelled):
        spawner.wait_ready(url + spawner.server_url)
    assert max(b - a for a, b in zip(asked, asked[1:], strict=False)) < 1


def test_address_that_is_no_http_url_is_told(make):
    with pytest.raises(SpawnError, match="address cannot be used: ftp://x/ ?api is not"):
        make().wait_ready("ftp://x/ ")


def test_spawner_that_can_only_poll_notices_the_end():
    class Remote(Spawner):
        async def poll(self):
            return 9

    spawner = Remote(user=UserInfo("ada"), hub=HubInfo(api_url="", state_dir=Path("/nowhere")))
    with pytest.raises(ExitedEarly, match="exit code 9"):
        spawner.wait_ready("http://127.0.0.1:1/")


# -- stopping ------------------------------------------------------------------------------


def test_stubborn_server_is_killed_in_the_end(make):
    spawner = make(mode="stubborn", interrupt_timeout=1, term_timeout=1)
    bring_up(spawner)
    spawner.stop()
    assert spawner.poll() == -signal.SIGKILL


def test_stop_now_leaves_out_the_interrupt(make):
    spawner = make()
    bring_up(spawner)
    spawner.stop(now=True)
    assert spawner.poll() == -signal.SIGTERM


def test_kernel_that_left_session_and_parent_is_stopped_too(make, tmp_path):
    spawner = make(mode="kernel", term_timeout=1)
    bring_up(spawner)
    file = tmp_path / "homes" / "ada" / "kernel.pid"
    kernel = int(until(lambda: file.exists() and file.read_text()))
    assert os.getsid(kernel) != os.getsid(spawner.pid)
    assert psutil.Process(kernel).ppid() != spawner.pid
    spawner.stop()
    assert is_gone(kernel) and is_gone(spawner.pid)


# -- after a restart of the hub ------------------------------------------------------------


def again(make, spawner, **options):
    """Return a spawner as the next hub makes it, with the state that this one would store."""
    other = make(**options)
    other.load_state(json.loads(json.dumps(spawner.get_state())))
    return other


def test_running_server_is_found_again(make):
    spawner = make()
    url, _version = bring_up(spawner)
    other = again(make, spawner)
    assert other.poll() is None
    assert other.pid == spawner.pid
    assert other.get_state() == spawner.get_state()
    assert other.wait_ready(url) == "6.1.1"
    assert other.log_tail()[0] == "this is a server"
    other.stop()
    assert other.poll() == 0
    assert spawner.poll() == -signal.SIGINT


def test_log_is_where_the_earlier_hub_put_it(make, tmp_path):
    spawner = make()
    bring_up(spawner)
    other = make()
    other.hub = HubInfo(api_url="", state_dir=tmp_path / "moved")
    other.load_state(spawner.get_state())
    assert other.log_path == spawner.log_path
    assert other.log_tail()
    other.clear_state()
    assert other.log_path == tmp_path / "moved" / "logs" / "ada.log"


def test_kernels_of_a_server_that_ended_meanwhile_are_stopped(make, tmp_path):
    spawner = make(mode="kernel")
    bring_up(spawner)
    file = tmp_path / "homes" / "ada" / "kernel.pid"
    kernel = int(until(lambda: file.exists() and file.read_text()))
    os.kill(spawner.pid, signal.SIGKILL)
    assert spawner.wait_exit(10) == -signal.SIGKILL
    other = again(make, spawner, term_timeout=1)
    assert other.poll() == 0
    assert not is_gone(kernel)
    other.stop(now=True)
    assert is_gone(kernel)


def test_log_of_a_running_server_is_kept_short(make, monkeypatch, tmp_path):
    monkeypatch.setattr(local, "LOG_MAX_BYTES", 10)
    spawner = make()
    bring_up(spawner)
    assert spawner.poll() is None
    assert (tmp_path / "logs" / "ada.log.1").read_text().startswith("this is a server\n")
    assert (tmp_path / "logs" / "ada.log").read_text() == ""


# -- the real thing ------------------------------------------------------------------------


class FakeHub(ThreadingHTTPServer):
    """As much of a hub as a single-user server needs to start and to let its owner in."""

    daemon_threads = True

    def __init__(self):
        self.seen = []
        super().__init__(("127.0.0.1", 0), FakeHubHandler)
        self.thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self.thread.start()

    def close(self):
        self.shutdown()
        self.thread.join()
        self.server_close()


class FakeHubHandler(BaseHTTPRequestHandler):
    def do_GET(self):
        scopes = ["access:servers!server=ada/"]
        is_whoami = self.path == "/hub/api/user"
        self.reply(
            {"name": "ada", "kind": "user", "groups": [], "scopes": scopes} if is_whoami else {}
        )

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, self.headers["Authorization"], body))
        self.reply({})

    def reply(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("X-JupyterHub-Version", "6.1.1")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.mark.notebook
def test_real_jupyterlab_starts_runs_a_kernel_and_leaves_nothing(tmp_path):
    lab = os.environ.get("MINIHUB_TEST_LAB_BIN", "")
    path = f"{lab}:{os.environ['PATH']}" if lab else os.environ["PATH"]
    if not shutil.which("jupyterhub-singleuser", path=path):
        pytest.skip("no jupyterhub-singleuser in MINIHUB_TEST_LAB_BIN or on PATH")
    hub = FakeHub()
    spawner = SimpleLocalProcessSpawner(
        user=UserInfo("ada"),
        hub=HubInfo(
            api_url=f"http://127.0.0.1:{hub.server_port}/hub/api", state_dir=tmp_path / "state"
        ),
    )
    spawner.environment = {"PATH": path}
    spawner.http_timeout = 90
    spawner.args = ["--allow-root"] if os.geteuid() == 0 else []
    spawner.api_token = secrets.token_hex(32)
    spawner.oauth_client_id = "jupyterhub-user-ada"
    spawner.oauth_access_scopes = ["access:servers!server=ada/"]
    try:
        url, version = bring_up(spawner)
        assert version == "6.1.1"
        server, authorization, activity = until(lambda: hub.seen and hub.seen[0])
        assert server == "/hub/api/users/ada/activity"
        assert authorization == f"token {spawner.api_token}"
        assert list(activity["servers"]) == [""]
        request = urllib.request.Request(
            f"{url}api/kernels",
            data=b"{}",
            headers={"Authorization": f"token {spawner.api_token}"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            assert response.status == 201
        members = until(lambda: len(found := spawner._process.tree()) >= 2 and found)
        kernel = members[-1].pid
        assert os.getsid(kernel) != os.getsid(spawner.pid)
        spawner.stop()
        assert spawner.poll() == 0, spawner.log_tail()
        assert all(is_gone(member.pid) for member in members)
    finally:
        spawner.stop(now=True)
        hub.close()


@pytest.fixture
def system_user():
    """A system user with a home and a supplementary group."""
    name = f"mhtest{secrets.token_hex(4)}"
    group = f"mhgrp{secrets.token_hex(4)}"
    subprocess.run(["groupadd", group], check=True)
    try:
        command = ["useradd", "--create-home", "--groups", group, "--shell", "/bin/bash", name]
        subprocess.run(command, check=True)
        yield pwd.getpwnam(name), grp.getgrnam(group)
    finally:
        subprocess.run(["userdel", "--remove", name], check=False, capture_output=True)
        subprocess.run(["groupdel", group], check=False, capture_output=True)


WHO = (
    'id -u; id -g; id -G; pwd; echo "$USER $HOME $SHELL"; ls /proc/self/fd | tr "\\n" " "; echo;'
    "cat /proc/self/stat; echo done; exec sleep 60"
)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="creates system users: run as root")
def test_server_of_a_root_hub_is_the_system_users(make, system_user):
    account, group = system_user
    spawner = make(LocalProcessSpawner, name=account.pw_name, cmd=["sh", "-c", WHO])
    spawner.run_start()
    lines = until(lambda: spawner.log_tail()[-1:] == ["done"] and spawner.log_tail())
    assert lines[0] == str(account.pw_uid)
    assert lines[1] == str(account.pw_gid)
    assert {int(gid) for gid in lines[2].split()} == {account.pw_gid, group.gr_gid}
    assert lines[3] == account.pw_dir
    assert lines[4] == f"{account.pw_name} {account.pw_dir} /bin/bash"
    assert lines[5].split() == ["0", "1", "2", "3"]  # the last is the directory ls reads
    running = psutil.Process(spawner.pid)
    assert running.uids() == (account.pw_uid,) * 3
    assert running.gids() == (account.pw_gid,) * 3
    assert os.getsid(spawner.pid) == spawner.pid
    assert spawner.log_path.stat().st_uid == 0
    spawner.stop()
    assert is_gone(running.pid)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="creates system users: run as root")
def test_system_user_without_a_home_starts_near_it(make, system_user, caplog):
    account, _group = system_user
    shutil.rmtree(account.pw_dir)
    spawner = make(LocalProcessSpawner, name=account.pw_name, cmd=["pwd"])
    spawner.run_start()
    spawner.wait_exit(10)
    assert spawner.log_tail() == [str(Path(account.pw_dir).parent)]
    assert f"{account.pw_dir} cannot be entered" in caplog.text


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="creates system users: run as root")
def test_program_that_the_system_user_may_not_run_is_refused_to_them(make, system_user, tmp_path):
    """The hub's own right to run it does not count."""
    account, _group = system_user
    tmp_path.chmod(0o755)
    private = tmp_path / "private-server"
    private.write_text("#!/bin/sh\nid\n")
    private.chmod(0o700)
    spawner = make(LocalProcessSpawner, name=account.pw_name, cmd=[str(private)])
    message = f"cannot be run as the user {account.pw_name}: Permission denied"
    with pytest.raises(SpawnError, match=message):
        spawner.run_start()
