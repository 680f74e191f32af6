"""Options about the proxy: which one it is, where its API is, and what is done when it fails."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
import requests
from harness import ABSENT, ROOT, HubProcess, free_port, serving, until
from websockets.sync.client import connect

BUILT_IN = [sys.executable, str(ROOT / "minihub" / "__main__.py"), "proxy"]
NODE = {"JupyterHub": {"proxy_class": "configurable-http-proxy"}}
ANY_API = {"api_url": "http://127.0.0.1:0"}


def proxy_api(url, token, path="/api/routes", method="GET"):
    """Call a proxy's API; returns the response."""
    headers = {"Authorization": f"token {token}"}
    return requests.request(method, url + path, headers=headers, timeout=5)


def level_of(command):
    """Return the log level that a proxy was started with."""
    return command[command.index("--log-level") + 1]


def enter(hub, name):
    """Start somebody's server and enter it through the proxy; returns the browser."""
    browser = hub.browser(name)
    browser.start_server(name)
    assert browser.follow(f"/user/{name}/").json()["visitor"]["name"] == name
    return browser


# -- proxy_class ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def node_hub(tmp_path_factory, chp):
    """A hub with the real configurable-http-proxy."""
    options = {"command": [str(chp)], "debug": True, **ANY_API}
    hub = HubProcess(
        tmp_path_factory.mktemp("node"), NODE | {"ConfigurableHTTPProxy": options}
    ).wait_ready()
    yield hub
    assert hub.stop() == 0, hub.text
    assert "Traceback" not in hub.text


def test_proxy_class_can_be_the_node_program(node_hub):
    commands = " ".join(psutil.Process(node_hub.proxy()["pid"]).cmdline())
    assert "configurable-http-proxy" in commands and "--log-level debug" in commands
    browser = enter(node_hub, "ada")
    cookie = "; ".join(f"{c.name}={c.value}" for c in browser.cookies)
    url = node_hub.url.replace("http", "ws") + "user/ada/ws"
    with connect(url, additional_headers={"Cookie": cookie}) as socket:
        socket.send("hello")
        assert socket.recv(timeout=10) == "hello"
    assert requests.get(node_hub.url + "hub/nothing", timeout=5).status_code == 404


def test_node_program_that_is_killed_runs_again_with_all_routes(node_hub):
    browser = enter(node_hub, "bob")
    before = node_hub.proxy()["pid"]
    os.kill(before, signal.SIGKILL)
    until(lambda: node_hub.proxy()["pid"] != before)
    until(lambda: browser.follow("/user/bob/").status_code == 200)


def test_absent_node_program_is_named_with_what_installs_it(start_hub):
    config = NODE | {"ConfigurableHTTPProxy": {"command": "no-such-proxy", **ANY_API}}
    hub = start_hub(config, wait=False)
    assert hub.process.wait(20) == 3
    assert "'no-such-proxy' was not found" in hub.text
    assert "npm install -g configurable-http-proxy" in hub.text and "Traceback" not in hub.text


OWN_PROXY = """
import json
from jupyterhub.proxy import ConfigurableHTTPProxy

class NotingProxy(ConfigurableHTTPProxy):
    async def add_route(self, routespec, target, data):
        with open("added.txt", "a") as file:
            print(routespec, file=file)
        await super().add_route(routespec, target, data)
"""


def test_proxy_class_by_dotted_name_with_coroutines(start_hub, tmp_path):
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "ourproxy.py").write_text(OWN_PROXY)
    options = {"command": BUILT_IN, **ANY_API}
    hub = start_hub(
        {"JupyterHub": {"proxy_class": "ourproxy.NotingProxy"}, "ConfigurableHTTPProxy": options},
        env={"PYTHONPATH": str(tmp_path / "packages")},
    )
    enter(hub, "ada")
    assert psutil.Process(hub.proxy()["pid"]).cmdline()[:3] == BUILT_IN
    assert (hub.directory / "added.txt").read_text().splitlines() == ["/", "/user/ada/"]


def test_proxy_class_that_is_none_is_refused(start_hub):
    hub = start_hub({"JupyterHub": {"proxy_class": "pathlib.Path"}}, wait=False)
    assert hub.process.wait(20) == 3
    assert "pathlib.Path is not derived from minihub's Proxy" in hub.text


# -- what is done when it fails ------------------------------------------------------------------


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """A hub that asks its proxy every second."""
    config = {"JupyterHub": {"proxy_check_interval": 1}}
    with serving(tmp_path_factory.mktemp("checked"), config) as hub:
        yield hub


def test_proxy_that_lost_routes_gets_them_again(checked):
    browser = enter(checked, "ada")
    facts = checked.proxy()
    for route in ("/user/ada", "/"):
        deleted = proxy_api(facts["api_url"], facts["auth_token"], "/api/routes" + route, "DELETE")
        assert deleted.status_code == 204
    until(lambda: {"/", "/user/ada"} <= set(checked.routes()), 5)
    assert browser.follow("/user/ada/").status_code == 200
    assert checked.proxy()["pid"] == facts["pid"]


def test_route_that_nobody_wants_is_taken_away(checked):
    facts = checked.proxy()
    body = {"target": "http://127.0.0.1:9", "jupyterhub": True}
    requests.post(
        facts["api_url"] + "/api/routes/user/ghost",
        json=body,
        headers={"Authorization": f"token {facts['auth_token']}"},
        timeout=5,
    ).raise_for_status()
    until(lambda: "/user/ghost" not in checked.routes(), 5)


def test_proxy_that_hangs_is_replaced(checked):
    browser = enter(checked, "carla")
    before = checked.proxy()["pid"]
    os.kill(before, signal.SIGSTOP)
    until(lambda: checked.proxy()["pid"] != before, 25)
    until(lambda: browser.follow("/user/carla/").status_code == 200)
    assert not psutil.pid_exists(before)
    assert "runs but does not answer" in checked.text


def test_end_of_the_proxy_is_seen_at_once(start_hub):
    hub = start_hub({"JupyterHub": {"proxy_check_interval": 3600}})
    browser = enter(hub, "ada")
    began = time.monotonic()
    os.kill(hub.proxy()["pid"], signal.SIGKILL)
    until(lambda: browser.get("/user/ada/").status_code == 200)
    assert time.monotonic() - began < 5


def test_proxy_that_hands_over_is_followed(start_hub):
    """SIGUSR2 is how the proxy is upgraded: the hub goes on with the new process."""
    hub = start_hub({"JupyterHub": {"proxy_check_interval": 1}})
    browser = enter(hub, "ada")
    first = hub.proxy()["pid"]
    cookie = "; ".join(f"{c.name}={c.value}" for c in browser.cookies)
    url = hub.url.replace("http", "ws") + "user/ada/ws"
    with connect(url, additional_headers={"Cookie": cookie}) as socket:
        os.kill(first, signal.SIGUSR2)
        until(lambda: hub.proxy()["pid"] != first, 20)
        second = hub.proxy()["pid"]
        assert browser.follow("/user/ada/").status_code == 200
        assert psutil.pid_exists(first)  # for the open WebSocket
        socket.send("still here")
        assert socket.recv()
    until(lambda: not psutil.pid_exists(first), 20)
    # Once more without a tunnel, so that the old process ends at once.
    os.kill(second, signal.SIGUSR2)
    until(lambda: hub.proxy()["pid"] != second, 20)
    third = hub.proxy()["pid"]
    assert "starting it again" not in hub.text
    # A hub that was away meanwhile finds the newest process, too.
    assert hub.text.count("has handed over to pid") == 2
    assert hub.stop() == 0, hub.text
    until(lambda: not psutil.pid_exists(third))


# -- deprecated options --------------------------------------------------------------------------


def test_deprecated_options_work_and_name_their_successors(start_hub):
    port = free_port("127.0.0.7")
    old = {
        "proxy_cmd": BUILT_IN,
        "proxy_auth_token": "t" * 32,
        "proxy_api_ip": "127.0.0.7",
        "proxy_api_port": port,
        "debug_proxy": True,
    }
    hub = start_hub({"JupyterHub": old, "ThreadedProxy": {"api_url": ABSENT}})
    assert proxy_api(f"http://127.0.0.7:{port}", "t" * 32).status_code == 200
    assert proxy_api(f"http://127.0.0.7:{port}", "wrong").status_code == 403
    command = psutil.Process(hub.proxy()["pid"]).cmdline()
    assert command[:3] == BUILT_IN and level_of(command) == "debug"
    for name, successor in (
        ("proxy_cmd", "command"),
        ("proxy_auth_token", "auth_token"),
        ("proxy_api_ip", "api_url"),
        ("proxy_api_port", "api_url"),
        ("debug_proxy", "debug"),
    ):
        lines = [line for line in hub.text.splitlines() if f"JupyterHub.{name} " in line]
        assert len(lines) == 1 and "deprecated" in lines[0]
        assert f"ConfigurableHTTPProxy.{successor}" in lines[0]


def test_proxy_api_ip_alone_takes_the_port_after_the_public_one(start_hub):
    port = free_port()
    config = {"port": port, "proxy_api_ip": "127.0.0.8"}
    hub = start_hub({"JupyterHub": config, "ThreadedProxy": {"api_url": ABSENT}})
    assert hub.proxy()["api_url"] == f"http://127.0.0.8:{port + 1}"


def test_successor_that_is_given_wins(start_hub):
    config = {"JupyterHub": {"proxy_auth_token": "old" * 8}, "ThreadedProxy": {}}
    config["ThreadedProxy"] = {"auth_token": "new" * 8}
    hub = start_hub(config)
    assert hub.proxy()["auth_token"] == "new" * 8


# -- the options of the classes ------------------------------------------------------------------


def test_proxys_own_options(start_hub):
    api = free_port()
    options = {
        "api_url": f"http://127.0.0.1:{api}",
        "auth_token": "s" * 32,
        "command": BUILT_IN,
        "debug": True,
        "pid_file": "the-proxy.pid",
        "command_umask": 0o027,
        "check_running_interval": 1,
    }
    hub = start_hub({"JupyterHub": {"proxy_check_interval": 3600}, "ThreadedProxy": options})
    answer = proxy_api(f"http://127.0.0.1:{api}", "s" * 32)
    assert answer.status_code == 200 and "/" in answer.json()
    pid = hub.proxy()["pid"]
    assert int((hub.directory / "the-proxy.pid").read_text()) == pid
    command = psutil.Process(pid).cmdline()
    assert command[:3] == BUILT_IN and level_of(command) == "debug"
    assert "Umask:\t0027" in Path(f"/proc/{pid}/status").read_text()
    requests.delete(  # asked every second, whatever proxy_check_interval is
        f"http://127.0.0.1:{api}/api/routes/",
        headers={"Authorization": "token " + "s" * 32},
        timeout=5,
    )
    until(lambda: "/" in hub.routes(), 5)
    hub.stop()
    assert not (hub.directory / "the-proxy.pid").exists()


@pytest.mark.parametrize("url", ["127.0.0.1:8001", "http://127.0.0.1", "http://a b:1", "x"])
def test_api_url_that_is_no_place_is_refused(start_hub, url):
    hub = start_hub({"ThreadedProxy": {"api_url": url}}, wait=False)
    assert hub.process.wait(20) == 3
    assert "ThreadedProxy.api_url: " in hub.text and "is a URL with a port" in hub.text


@pytest.mark.parametrize("options, level", [({"log_level": "warn"}, "warn"), ({}, "info")])
def test_log_level_of_the_proxy(start_hub, options, level):
    hub = start_hub({"ConfigurableHTTPProxy": options})
    assert level_of(psutil.Process(hub.proxy()["pid"]).cmdline()) == level
    log = (hub.state_dir / "logs" / "proxy.log").read_text()
    assert ("Route added" in log) is (level == "info")


def test_auth_token_comes_from_the_environment(start_hub):
    hub = start_hub(env={"CONFIGPROXY_AUTH_TOKEN": "e" * 40})
    assert hub.proxy()["auth_token"] == "e" * 40


@pytest.fixture
def stranger(tmp_path):
    """A proxy that somebody else runs; returns its ports and process."""
    public, api = free_port(), free_port()
    ports = ["--ip", "127.0.0.1", "--port", str(public), "--api-port", str(api)]
    process = subprocess.Popen(
        [*BUILT_IN, *ports],
        env=os.environ | {"CONFIGPROXY_AUTH_TOKEN": "x" * 32},
        stdout=subprocess.DEVNULL,
    )
    until(lambda: proxy_api(f"http://127.0.0.1:{api}", "x" * 32).status_code == 200)
    yield public, api, process
    process.terminate()
    process.wait(10)


def test_should_start_false_uses_a_proxy_that_runs_elsewhere(start_hub, stranger):
    public, api, process = stranger
    options = {
        "should_start": False,
        "auth_token": "x" * 32,
        "api_url": f"http://127.0.0.1:{api}",
    }
    hub = start_hub({"JupyterHub": {"port": public}, "ThreadedProxy": options})
    enter(hub, "ada")
    assert not (hub.state_dir / "proxy.json").exists()
    assert hub.stop() == 0
    assert process.poll() is None  # it is not ours to stop


PLAIN_PROXY = """
import json
import urllib.request
from jupyterhub.proxy import Proxy

class Remote(Proxy):
    should_start = False

    def call(self, method, path, body=None):
        request = urllib.request.Request(
            "http://127.0.0.1:{api}/api/routes" + path.rstrip("/"),
            json.dumps(body).encode() if body else None,
            {{"Authorization": "token {token}"}},
            method=method,
        )
        with urllib.request.urlopen(request) as answer:
            return json.loads(answer.read() or "null")

    async def add_route(self, routespec, target, data):
        self.call("POST", routespec, {{**data, "target": target}})

    def delete_route(self, routespec):
        self.call("DELETE", routespec)

    async def get_all_routes(self):
        return {{
            path.rstrip("/") + "/": {{"target": facts.pop("target"), "data": facts}}
            for path, facts in self.call("GET", "/").items()
        }}
"""


def test_proxy_class_may_be_all_ones_own(start_hub, stranger, tmp_path):
    public, api, _process = stranger
    (tmp_path / "packages").mkdir()
    text = PLAIN_PROXY.format(api=api, token="x" * 32)
    (tmp_path / "packages" / "ourproxy.py").write_text(text)
    hub = start_hub(
        {"JupyterHub": {"port": public, "proxy_class": "ourproxy.Remote"}},
        env={"PYTHONPATH": str(tmp_path / "packages")},
    )
    browser = enter(hub, "ada")
    browser.submit("/hub/stop/ada", {}, page="/hub/home")
    routes = proxy_api(f"http://127.0.0.1:{api}", "x" * 32).json()
    assert set(routes) == {"/"}


def test_should_start_false_needs_the_token(start_hub):
    hub = start_hub({"ThreadedProxy": {"should_start": False}}, wait=False)
    assert hub.process.wait(20) == 3
    assert "ThreadedProxy.auth_token" in hub.text and "Traceback" not in hub.text


def test_extra_routes_and_hub_routespec_share_the_site(start_hub):
    port = free_port()
    config = {
        "JupyterHub": {"port": port, "hub_routespec": "/hub/"},
        "Proxy": {"extra_routes": {"/docs/": f"http://127.0.0.1:{port}"}},
    }
    hub = start_hub(config, ready={"url": f"http://127.0.0.1:{port}/"})
    until(lambda: set(hub.routes()) == {"/hub", "/docs"})
    routes = hub.routes()
    assert routes["/docs"]["extra"] and routes["/docs"]["target"] == f"http://127.0.0.1:{port}"
    assert requests.get(hub.url, timeout=5).status_code == 404


class CountingApi(ThreadingHTTPServer):
    """The API of a proxy that forwards nothing; it knows how many asked at the same time."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), CountingHandler)
        self.routes, self.now, self.most = {}, 0, 0
        self.changed = threading.Condition()
        threading.Thread(target=self.serve_forever, args=(0.05,)).start()

    def __exit__(self, *args):
        self.shutdown()
        super().__exit__(*args)


class CountingHandler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        with server.changed:
            server.now += 1
            server.most = max(server.most, server.now)
            server.changed.notify_all()
            # As long as it takes for another to come, or to be sure that none does.
            server.changed.wait_for(lambda: server.now > 1, 0.1)
            server.now -= 1
        path = self.path.removeprefix("/api/routes")
        size = int(self.headers.get("Content-Length") or 0)
        if self.command == "POST":
            server.routes[path] = json.loads(self.rfile.read(size))
        answer = json.dumps(server.routes).encode() if self.command == "GET" else b""
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_DELETE = do_GET


@pytest.mark.parametrize("concurrency", [1, 10])
def test_concurrency_bounds_the_requests_to_the_proxy(start_hub, concurrency):
    with CountingApi() as api:
        hub_port = free_port()
        options = {
            "should_start": False,
            "auth_token": "x" * 32,
            "api_url": f"http://127.0.0.1:{api.server_address[1]}",
            "concurrency": concurrency,
        }
        tokens = {"api_tokens": {"t" * 32: "root-admin"}, "hub_port": hub_port}
        hub = start_hub(
            {"JupyterHub": tokens, "ThreadedProxy": options},
            ready={"url": f"http://127.0.0.1:{hub_port}/"},
        )
        names = [f"u{number}" for number in range(6)]
        hub.api("users", "t" * 32, "POST", json={"usernames": names})
        with ThreadPoolExecutor(6) as pool:
            starts = [f"users/{name}/server" for name in names]
            answers = pool.map(lambda path: hub.api(path, "t" * 32, "POST"), starts)
            assert {answer.status_code for answer in answers} <= {201, 202}
        until(lambda: len(api.routes) == 7)
        assert (api.most == 1) is (concurrency == 1)
        hub.stop()


def test_token_of_the_proxy_is_kept_for_its_owner_alone(start_hub):
    hub = start_hub()
    assert (hub.state_dir / "proxy.json").stat().st_mode & 0o777 == 0o600
    assert Path(hub.state_dir).stat().st_mode & 0o777 == 0o700
    hub.stop()
    assert not (hub.state_dir / "proxy.json").exists()
