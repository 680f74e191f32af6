"""Options about beginning and end: what outlives the hub, and what the next one finds again."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest
import requests
import yaml
from harness import (
    DEFAULTS,
    FAKE_SERVER,
    ROOT,
    START_TIMEOUT_S,
    gone,
    merge,
    python_config,
    settled,
    until,
)
from websockets.sync.client import connect

from minihub import cli, config_render
from minihub.options import COMMAND_LINE_ONLY, JupyterHub

TOKEN = "t" * 32
BASE = {"JupyterHub": {"api_tokens": {TOKEN: "root-admin"}}}
KEEP_ALL = {"JupyterHub": {"cleanup_servers": False, "cleanup_proxy": False}}


def cookies_of(browser):
    return "; ".join(f"{c.name}={c.value}" for c in browser.cookies)


def enter(hub, name):
    """Start somebody's server and enter it; returns browser and process id."""
    browser = hub.browser(name)
    browser.start_server(name)
    return browser, browser.follow(f"/user/{name}/").json()["pid"]


@pytest.fixture
def restart(start_hub):
    """Start hubs one after the other in one directory."""
    hubs = []

    def start(config=None, **kwargs):
        if hubs:
            kwargs.setdefault("directory", hubs[-1].directory)
        hubs.append(start_hub(merge(BASE, config or {}), **kwargs))
        return hubs[-1]

    yield start


# -- cleanup_servers, cleanup_proxy --------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("proxy", [True, False], ids=["proxy", "no-proxy"])
@pytest.mark.parametrize("servers", [True, False], ids=["servers", "no-servers"])
def test_cleanup_servers_and_cleanup_proxy_say_what_ends_with_the_hub(
    restart, servers, proxy, number
):
    hub = restart({"JupyterHub": {"cleanup_servers": servers, "cleanup_proxy": proxy}})
    _browser, server_pid = enter(hub, "ada")
    proxy_pid = hub.proxy()["pid"]
    assert hub.stop(number) == 0
    assert gone(server_pid) is servers
    assert gone(proxy_pid) is proxy
    assert "Traceback" not in hub.text


def test_proxy_that_has_handed_over_while_no_hub_ran_is_found(restart):
    hub = restart(KEEP_ALL)
    first = hub.proxy()["pid"]
    assert hub.stop() == 0
    os.kill(first, signal.SIGUSR2)
    until(lambda: gone(first), 20)
    hub = restart(KEEP_ALL)
    second = hub.proxy()["pid"]
    assert second != first and not gone(second)
    assert f"The proxy still runs: pid {second}" in hub.text
    assert "Traceback" not in hub.text


class Asking(threading.Thread):
    """Asks a running server again and again, and keeps the statuses."""

    def __init__(self, url, cookie):
        super().__init__()
        self.url, self.headers = url, {"Cookie": cookie}
        self.statuses = []
        self.stopping = threading.Event()
        self.start()

    def run(self):
        while not self.stopping.is_set():
            try:
                answer = requests.get(
                    self.url, headers=self.headers, timeout=10, allow_redirects=False
                )
                self.statuses.append(answer.status_code)
            except requests.RequestException as error:
                self.statuses.append(str(error))
            time.sleep(0.005)

    def stop(self):
        self.stopping.set()
        self.join()
        return self.statuses


@pytest.mark.parametrize(
    "number, options",
    [(signal.SIGINT, {}), (signal.SIGTERM, {"ThreadedProxy": {"auth_token": "given-" * 5}})],
)
def test_next_hub_carries_on_where_the_last_one_ended(restart, number, options):
    """The proxy's token is one of the state directory's, or one of the configuration's."""
    config = merge(KEEP_ALL, options)
    hub = restart(config)
    browser, server_pid = enter(hub, "ada")
    proxy_pid, routes = hub.proxy()["pid"], set(hub.routes())
    token = psutil.Process(server_pid).environ()["JUPYTERHUB_API_TOKEN"]
    url = hub.url.replace("http", "ws") + "user/ada/ws"
    with connect(
        url, additional_headers={"Cookie": cookies_of(browser)}, ping_interval=None
    ) as websocket:
        # api is answered by the server itself, without asking the hub.
        asking = Asking(hub.url + "user/ada/api", cookies_of(browser))
        assert hub.stop(number) == 0
        hub = restart(config)
        statuses = asking.stop()
        websocket.send("still here")
        assert websocket.recv(timeout=10) == "still here"
    assert len(statuses) > 5 and set(statuses) == {200}
    assert hub.proxy()["pid"] == proxy_pid and set(hub.routes()) == routes
    assert browser.follow("/user/ada/").json()["pid"] == server_pid
    assert browser.get("/hub/home").status_code == 200  # the login holds too
    assert hub.api("user", token).json()["name"] == "ada"
    browser.submit("/hub/stop/ada", {}, page="/hub/home")
    until(lambda: gone(server_pid))
    assert hub.api("user", token).status_code == 403


def test_adopted_proxy_that_ends_runs_again(restart):
    hub = restart(KEEP_ALL)
    browser, server_pid = enter(hub, "ada")
    proxy_pid = hub.proxy()["pid"]
    hub.stop()
    hub = restart(KEEP_ALL)
    assert hub.proxy()["pid"] == proxy_pid
    os.kill(proxy_pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while hub.proxy()["pid"] == proxy_pid:
        assert time.monotonic() < deadline, hub.text
        time.sleep(0.05)
    hub.wait_text("starting it again")
    assert hub.wait_ready().url and browser.follow("/user/ada/").json()["pid"] == server_pid


def test_hub_that_was_killed_loses_nothing(restart):
    hub = restart()
    browser, server_pid = enter(hub, "ada")
    proxy_pid = hub.proxy()["pid"]
    hub.kill()
    hub = restart()
    assert hub.proxy()["pid"] == proxy_pid
    assert browser.follow("/user/ada/").json()["pid"] == server_pid
    assert hub.stop() == 0
    until(lambda: gone(server_pid) and gone(proxy_pid))


def test_servers_get_a_new_proxy_when_the_old_one_was_stopped(restart):
    hub = restart({"JupyterHub": {"cleanup_servers": False}})
    browser, server_pid = enter(hub, "ada")
    hub.stop()
    hub = restart({"JupyterHub": {"cleanup_servers": False}})
    again = hub.browser("ada")
    assert again.follow("/user/ada/").json()["pid"] == server_pid


def test_server_that_ended_meanwhile_is_tidied_up(restart):
    hub = restart(KEEP_ALL)
    _browser, server_pid = enter(hub, "ada")
    hub.stop()
    os.kill(server_pid, signal.SIGKILL)
    until(lambda: gone(server_pid))
    hub = restart(KEEP_ALL)
    assert "Server ada/ has ended while the hub was away" in hub.text
    assert set(hub.routes()) == {"/"}
    assert 'id="start"' in hub.browser("ada").get("/hub/home").text


def test_proxy_of_another_configuration_is_replaced(restart):
    hub = restart(KEEP_ALL)
    before = hub.proxy()["pid"]
    hub.stop()
    hub = restart(merge(KEEP_ALL, {"ThreadedProxy": {"debug": True}}))
    assert hub.proxy()["pid"] != before
    until(lambda: gone(before))
    assert "was started with another configuration" in hub.text


@pytest.mark.parametrize("servers, proxy", [(True, False), (False, True)])
def test_shutdown_call_goes_before_the_configuration(restart, servers, proxy):
    config = {"cleanup_servers": not servers, "cleanup_proxy": not proxy}
    hub = restart({"JupyterHub": config})
    _browser, server_pid = enter(hub, "ada")
    proxy_pid = hub.proxy()["pid"]
    answer = hub.api("shutdown", TOKEN, "POST", json={"servers": servers, "proxy": proxy})
    assert answer.status_code == 202
    assert hub.process.wait(20) == 0
    assert gone(server_pid) is servers
    assert gone(proxy_pid) is proxy


SLOW_TO_SAY = """
import asyncio, os
from jupyterhub.spawner import SimpleLocalProcessSpawner
class Slow(SimpleLocalProcessSpawner):
    async def poll(self):
        while os.path.exists("hold"):
            await asyncio.sleep(0.05)
        return await super().poll()
c.JupyterHub.spawner_class = Slow
c.JupyterHub.init_spawners_timeout = 1
"""


def test_start_waits_only_so_long_for_the_servers_of_the_last_hub(start_hub, tmp_path):
    config = python_config(tmp_path / "own", SLOW_TO_SAY, merge(BASE, KEEP_ALL))
    hub = start_hub(**config)
    browser, pid = enter(hub, "ada")
    _eve, other = enter(hub, "eve")
    assert hub.stop() == 0
    (hub.directory / "hold").touch()
    os.kill(other, signal.SIGKILL)
    hub = start_hub(**config)
    metrics = requests.get(
        hub.url + "hub/metrics", headers={"Authorization": f"token {TOKEN}"}, timeout=20
    ).text
    waited_s = re.search(r"^jupyterhub_init_spawners_duration_seconds_sum (\S+)", metrics, re.M)
    assert 1 <= float(waited_s[1]) < 9  # the default is 10
    hub.wait_text("2 servers of the last hub do not say yet whether they run")
    assert hub.api("users/ada", TOKEN).json()["servers"][""]["pending"] == "check"
    refused = hub.api("users/ada/server", TOKEN, "POST")
    assert refused.status_code == 400 and "pending check" in refused.json()["message"]
    assert "looks whether this server still runs" in browser.get("/hub/home").text
    assert "looks whether this server still runs" in browser.get("/hub/spawn-pending/ada").text
    assert browser.get("/user/ada/api").status_code == 200  # its route is as it was
    (hub.directory / "hold").unlink()
    until(lambda: hub.api("users/ada", TOKEN).json()["servers"][""]["ready"])
    until(lambda: hub.api("users/eve", TOKEN).json()["servers"] == {})
    assert browser.follow("/user/ada/").json()["pid"] == pid
    assert set(hub.routes()) == {"/", "/user/ada"}


def test_spawner_that_cannot_say_does_not_keep_the_hub_from_starting(start_hub, tmp_path):
    config = python_config(tmp_path / "own", changes=merge(BASE, KEEP_ALL))
    hub = start_hub(**config)
    _browser, pid = enter(hub, "ada")
    assert hub.stop() == 0
    lines = (
        "from jupyterhub.spawner import SimpleLocalProcessSpawner\n"
        "class Broken(SimpleLocalProcessSpawner):\n"
        "    def poll(self):\n        raise RuntimeError('no idea')\n"
        "c.JupyterHub.spawner_class = Broken\n"
    )
    hub = start_hub(**python_config(tmp_path / "own", lines, merge(BASE, KEEP_ALL)))
    hub.wait_text(r"Looking whether ada/ runs failed: it counts as ended \(RuntimeError: no idea\)")
    until(lambda: gone(pid))
    assert hub.api("users/ada", TOKEN).json()["servers"] == {}


SLOW_TO_COME_BACK = """
import time
from jupyterhub.spawner import SimpleLocalProcessSpawner
class Slow(SimpleLocalProcessSpawner):
    def load_state(self, state):
        if state:
            time.sleep(1)
        super().load_state(state)
c.JupyterHub.spawner_class = Slow
"""


def test_no_request_meets_a_hub_that_does_not_know_yet_what_runs(start_hub, tmp_path):
    config = python_config(tmp_path / "own", SLOW_TO_COME_BACK, merge(BASE, KEEP_ALL))
    hub = start_hub(**config)
    _browser, pid = enter(hub, "ada")
    assert hub.stop(signal.SIGINT) == 0
    again = start_hub(wait=False, **config)
    again.url, seen = hub.url, []  # the proxy is still there, and sends on what comes

    def is_back():
        answer = again.api("users/ada", TOKEN, timeout=60)
        if answer.status_code == 200:
            seen.append(answer.json()["servers"])
        return bool(seen) and seen[-1].get("", {}).get("ready")

    until(is_back)
    assert all("" in servers for servers in seen), seen
    assert again.server_pid("ada") == pid


# -- pid_file, reset_db --------------------------------------------------------------------------


def test_pid_file_holds_the_hub_while_it_runs(start_hub):
    hub = start_hub({"JupyterHub": {"pid_file": "hub.pid"}})
    file = hub.directory / "hub.pid"
    assert file.read_text() == f"{hub.process.pid}\n"
    assert hub.stop() == 0
    assert not file.exists()


def test_pid_file_that_cannot_be_written_is_named(start_hub):
    hub = start_hub({"JupyterHub": {"pid_file": "nowhere/hub.pid"}}, wait=False)
    assert hub.process.wait(20) == 3
    assert "JupyterHub.pid_file" in hub.text and "Traceback" not in hub.text


def test_reset_db_deletes_everything_and_stops_what_ran(restart):
    hub = restart(KEEP_ALL)
    browser, server_pid = enter(hub, "ada")
    hub.stop()
    hub = restart(merge(KEEP_ALL, {"JupyterHub": {"reset_db": True}}))
    until(lambda: gone(server_pid))
    assert hub.rows("select name from users where name = 'ada'") == []
    assert browser.get("/hub/home").status_code == 302
    assert set(hub.routes()) == {"/"}


# -- config_file, generate_config, answer_yes ----------------------------------------------------


def minihub(directory, *args, answer=""):
    """Run the program to its end; returns (exit code, what it printed)."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "minihub" / "__main__.py"), *args],
        cwd=directory,
        input=answer,
        capture_output=True,
        text=True,
        timeout=START_TIMEOUT_S,
    )
    return done.returncode, done.stdout + done.stderr


OPTION = re.compile(r"^  #(\w+): (.*)$")


def test_generate_config_writes_a_file_that_the_hub_takes(start_hub, tmp_path):
    code, told = minihub(tmp_path, "--generate-config", "-f", "x.yaml")
    assert code == 0 and "x.yaml" in told
    lines = (tmp_path / "x.yaml").read_text().splitlines()
    section = lines[lines.index("JupyterHub:") : lines.index("Authenticator:")]
    options = {match[1] for line in section if (match := OPTION.match(line))}
    assert options == set(JupyterHub.class_traits(config=True))
    code, told = minihub(tmp_path, "config", "check", "x.yaml")
    assert code == 0, told
    # What is switched on there says what is in force anyway.
    (tmp_path / "y.yaml").write_text("\n".join(OPTION.sub(r"  \1: \2", line) for line in section))
    assert yaml.safe_load((tmp_path / "y.yaml").read_text())["JupyterHub"]["hub_port"] == 8081
    code, told = minihub(tmp_path, "config", "check", "y.yaml")
    assert code == 0, told


@pytest.mark.parametrize("suffix", ["yaml", "py"])
def test_hub_runs_with_every_default_written_out(start_hub, tmp_path, suffix):
    """The generated file with every option switched on changes nothing."""
    directory = tmp_path / "all"
    directory.mkdir()
    name = f"all.{suffix}"
    code, told = minihub(directory, "--generate-config", "-f", name)
    assert code == 0, told
    commented = r"^  #(\w+: .*)$" if suffix == "yaml" else r"^()#(c\.\w+\.\w+ = .*)$"
    text, count = re.subn(
        commented,
        r"  \1" if suffix == "yaml" else r"\2",
        (directory / name).read_text(),
        flags=re.M,
    )
    assert count > 140
    (directory / name).write_text(text)
    flags = ("--ip=127.0.0.1", "--port=0", "--JupyterHub.hub_port=0", "--log-level=INFO")
    flags += ("--ThreadedProxy.api_url=http://127.0.0.1:0", "--JupyterHub.spawner_class=simple")
    flags += ("--JupyterHub.authenticator_class=dummy", "--Authenticator.allow_all=true")
    server = f"--Spawner.cmd={sys.executable}", f"--Spawner.cmd={FAKE_SERVER}"
    hub = start_hub(directory=directory, defaults={}, args=("-f", name, *flags, *server))
    _browser, pid = enter(hub, "ada")
    facts = hub.proxy()
    assert len(facts["auth_token"]) > 20  # an empty one would let in everybody
    assert requests.get(facts["api_url"] + "/api/routes", timeout=5).status_code == 403
    assert hub.stop() == 0 and "Traceback" not in hub.text
    assert gone(pid)


@pytest.mark.parametrize("answer, kept", [("n\n", True), ("", True), ("y\n", False)])
def test_generate_config_asks_before_it_overwrites(tmp_path, answer, kept):
    (tmp_path / "x.yaml").write_text("mine")
    code, told = minihub(tmp_path, "--generate-config", "-f", "x.yaml", answer=answer)
    assert code == 0 and "Overwrite" in told
    assert ((tmp_path / "x.yaml").read_text() == "mine") is kept


@pytest.mark.parametrize("flag", ["-y", "--JupyterHub.answer_yes=true"])
def test_answer_yes_overwrites_without_a_question(tmp_path, flag):
    (tmp_path / "x.yaml").write_text("mine")
    code, told = minihub(tmp_path, "--generate-config", "-f", "x.yaml", flag)
    assert code == 0 and "Overwrite" not in told
    assert (tmp_path / "x.yaml").read_text() != "mine"


@pytest.mark.parametrize(
    "name, text, told",
    [
        ("absent.yaml", None, "absent.yaml: there is no such file"),
        ("broken.yaml", "JupyterHub: {port: [", "broken.yaml:1"),
        ("broken.py", "c.JupyterHub.port = \n", "broken.py:1"),
        ("raises.py", "\n1 / 0\n", "raises.py:2  ZeroDivisionError"),
        ("typed.yaml", "JupyterHub:\n  port: many\n", "typed.yaml:2:9  JupyterHub.port"),
        ("typed.py", "c.JupyterHub.port = 'many'\n", "typed.py:1  JupyterHub.port"),
        ("list.yaml", "- JupyterHub\n", "list.yaml:1"),
    ],
)
def test_config_file_that_is_wrong_is_named_with_the_place(tmp_path, name, text, told):
    if text is not None:
        (tmp_path / name).write_text(text)
    code, printed = minihub(tmp_path, "-f", name)
    assert code == 3 and told in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize("name", ["all.yaml", "all.py"])
def test_every_option_of_a_wrong_kind_is_told_at_once_with_its_place(tmp_path, name):
    lines = ["import datetime"] if name.endswith("py") else []
    for cls, traits in config_render.groups(cli._classes()):
        lines += [] if name.endswith("py") else [f"{cls.__name__}:"]
        for option in traits:
            if f"{cls.__name__}.{option}" in COMMAND_LINE_ONLY:
                continue
            wrong = f"c.{cls.__name__}.{option} = datetime.date(2020, 1, 2)"
            lines.append(wrong if name.endswith("py") else f"  {option}: 2020-01-02")
    (tmp_path / name).write_text("\n".join(lines))
    code, printed = minihub(tmp_path, "-f", name)
    assert code == 3 and "Traceback" not in printed
    section = ""
    for number, line in enumerate(lines, 1):
        section = line.rstrip(":") if line.endswith(":") else section
        if match := re.match(r"c\.(\w+\.\w+) = |  (\w+): ", line):
            full = match[1] or f"{section}.{match[2]}"
            assert re.search(rf"{name}:{number}(:\d+)?  {full}: .+", printed), full


@pytest.mark.parametrize(
    "flag, told",
    [
        ("--generate-certs", "are not encrypted"),
        ("--JupyterHub.internal_ssl=True", "are not encrypted"),
        ("--JupyterHub.internal_certs_location=x", "are not encrypted"),
        ("--JupyterHub.trusted_alt_names=x", "are not encrypted"),
        ("--JupyterHub.extra_handlers=[]", "does not run on tornado"),
    ],
)
def test_what_there_is_not_is_refused_with_the_reason(tmp_path, flag, told):
    code, printed = minihub(tmp_path, flag)
    assert code == 3 and told in printed and "Traceback" not in printed


def test_config_file_is_the_one_that_is_named(start_hub, tmp_path):
    directory = tmp_path / "here"
    directory.mkdir()
    settings = merge(DEFAULTS, {"JupyterHub": {"base_url": "/other/"}})
    (directory / "other.yaml").write_text(yaml.safe_dump(settled(settings)))
    (directory / "minihub.yaml").write_text("JupyterHub: {base_url: /wrong/}\n")
    hub = start_hub(directory=directory, defaults={}, args=("--config=other.yaml",))
    assert hub.url.endswith("/other/")


def test_jupyterhub_config_of_the_working_directory_is_found(start_hub, tmp_path):
    changes = {"JupyterHub": {"base_url": "/py/"}}
    hub = start_hub(**python_config(tmp_path / "here", changes=changes))
    assert hub.url.endswith("/py/")


def test_confirm_no_ssl_is_accepted_and_does_nothing(start_hub):
    hub = start_hub({"JupyterHub": {"confirm_no_ssl": True}}, args=("--no-ssl",))
    (line,) = [line for line in hub.text.splitlines() if "JupyterHub.confirm_no_ssl" in line]
    assert "deprecated" in line and "does nothing" in line


def test_state_dir_holds_everything_of_the_hubs_own(start_hub, tmp_path):
    directory = tmp_path / "elsewhere" / "data"
    hub = start_hub({"JupyterHub": {"state_dir": str(directory)}}, wait=False)
    until(lambda: (directory / "lock").exists() and (directory / "lock").read_text())
    hub.url = json.loads((directory / "lock").read_text())["url"]
    browser = hub.browser("ada")
    browser.start_server("ada")
    assert {path.name for path in directory.iterdir()} >= {"homes", "logs", "proxy.json"}
    assert directory.stat().st_mode & 0o777 == 0o700
    assert not hub.state_dir.exists()
    assert browser.follow("/user/ada/").json()["cwd"] == str(directory / "homes" / "ada")


def test_port_of_the_hub_stays_when_any_will_do(restart):
    hub = restart(KEEP_ALL)
    port = int((hub.state_dir / "hub-port").read_text())
    hub.stop()
    with socket.create_server(("127.0.0.1", port)):
        other = restart(KEEP_ALL)
        assert int((other.state_dir / "hub-port").read_text()) != port
