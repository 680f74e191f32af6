"""What the hub tells of itself in numbers: to statsd as it happens, to Prometheus when asked."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from websockets.sync.client import connect

ADMIN = {"Authorization": "token the-token-of-an-admin"}
TOKENS = {"the-token-of-an-admin": "root-admin", "the-token-of-a-student": "sam"}


class Statsd:
    """A statsd that remembers what it was sent: ``(name, value, kind)``."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.rows: list[tuple[str, float, str]] = []
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while data := self._socket.recv(65536):
            for line in data.decode().splitlines():
                name, _, rest = line.partition(":")
                value, kind = rest.split("|")[:2]
                self.rows.append((name, float(value), kind))

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join(10)
        self._socket.close()

    def names(self) -> set[str]:
        return {name for name, _value, _kind in list(self.rows)}

    def wait(self, *names: str, timeout_s: float = 20.0) -> None:
        """Wait until each of these was told."""
        deadline = time.monotonic() + timeout_s
        while not set(names) <= self.names():
            assert time.monotonic() < deadline, sorted(set(names) - self.names())
            time.sleep(0.02)

    def kind(self, name: str) -> set[str]:
        return {kind for one, _value, kind in self.rows if one == name}

    def last(self, name: str) -> float:
        return [value for one, value, _kind in self.rows if one == name][-1]


@pytest.fixture
def statsd() -> Iterator[Statsd]:
    one = Statsd()
    yield one
    one.close()


def scrape(hub: Any, **kwargs: Any) -> dict[str, float]:
    """Return the rows of the hub's metrics by name and labels."""
    kwargs.setdefault("headers", ADMIN)
    answer = requests.get(hub.url + "hub/metrics", timeout=20, **kwargs)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    rows = {}
    for line in answer.text.splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            rows[name] = float(value)
    return rows


# -- statsd --------------------------------------------------------------------------------


def test_statsd_hears_a_day_at_the_hub(start_hub, statsd):
    hub = start_hub(
        {
            "JupyterHub": {
                "statsd_host": "127.0.0.1",
                "statsd_port": statsd.port,
                "statsd_prefix": "school.hub",
                "last_activity_interval": 1,
            },
            "DummyAuthenticator": {"password": "pw"},
        }
    )
    name = "school.hub.{}".format
    browser = hub.browser("ada")
    assert hub.browser().login("ada", "wrong").status_code == 403
    statsd.wait(
        *map(name, ("login.request", "login.success", "login.failure")),
        *map(name, ("login.authenticate.success", "login.authenticate.failure")),
    )
    browser.start_server("ada")
    statsd.wait(name("spawner.success"))
    browser.follow("/user/ada/")
    url = hub.url.replace("http", "ws") + "user/ada/ws"
    cookie = "; ".join(f"{one.name}={one.value}" for one in browser.cookies)
    with connect(url, additional_headers={"Cookie": cookie}) as websocket:
        websocket.send("hello")
        assert websocket.recv(timeout=10) == "hello"
    statsd.wait(name("users.running"), name("users.active"))
    deadline = time.monotonic() + 10
    while statsd.last(name("users.running")) != 1 or statsd.last(name("users.active")) != 1:
        assert time.monotonic() < deadline, statsd.rows
        time.sleep(0.05)
    browser.get("/hub/user/ada/")
    hub.browser().get("/hub/user/ada/lab")
    hub.browser("eve").get("/hub/user/ada/")
    statsd.wait(*map(name, ("redirects.user_after_login", "redirects.user_to_login")))
    statsd.wait(name("redirects.user_to_user"))
    requests.post(hub.url + "hub/security/csp-report", data=b"{}", timeout=5)
    browser.submit("/hub/stop/ada", {}, page="/hub/home")
    statsd.wait(name("spawner.stop"), name("csp_report"))
    browser.get("/hub/logout")
    statsd.wait(name("logout"))
    # The proxy sends its own, below the hub's.
    of_proxy = (
        *("requests.web", "requests.ws", "requests.proxy.200", "requests.api.201"),
        *("api.route.add", "api.route.get", "api.route.delete"),
        *("find_target_for_req", "last_activity_updating"),
    )
    statsd.wait(*(name(f"chp.{one}") for one in of_proxy), timeout_s=30)

    assert all(one.startswith("school.hub.") for one in statsd.names())
    for counter in ("login.request", "logout", "redirects.user_to_login", "csp_report"):
        assert statsd.kind(name(counter)) == {"c"}
    for timer in ("login.authenticate.success", "spawner.success", "spawner.stop"):
        assert statsd.kind(name(timer)) == {"ms"}
    for gauge in ("users.running", "users.active"):
        assert statsd.kind(name(gauge)) == {"g"}
    assert 10 < statsd.last(name("spawner.success")) < 60_000


@pytest.mark.parametrize(
    "changes, counter",
    [
        ({"environment": {"FAKE_MODE": "mute"}, "http_timeout": 1}, "http_timeout"),
        ({"environment": {"FAKE_MODE": "exit"}}, "http_error"),
        ({"cmd": ["/no/such/program"]}, "error"),
    ],
)
def test_statsd_tells_failed_starts_apart(start_hub, statsd, changes, counter):
    place = {"statsd_host": "127.0.0.1", "statsd_port": statsd.port}
    hub = start_hub({"JupyterHub": place, "Spawner": changes})
    browser = hub.browser("ada")
    browser.get("/hub/spawn/ada")
    browser.get("/hub/user/ada/")
    statsd.wait(f"jupyterhub.spawner.failure.{counter}", "jupyterhub.spawner.failure")
    failures = {one for one in statsd.names() if one.startswith("jupyterhub.spawner.failure.")}
    assert failures == {f"jupyterhub.spawner.failure.{counter}"}
    if counter == "http_timeout":
        statsd.wait("jupyterhub.redirects.user_spawn_pending")


def test_slow_program_counts_as_a_timeout_of_the_start(start_hub, statsd, tmp_path):
    slow = tmp_path / "config.py"
    slow.write_text(
        "import asyncio, json\n"
        "from jupyterhub.spawner import SimpleLocalProcessSpawner\n"
        "class Slow(SimpleLocalProcessSpawner):\n"
        "    async def start(self):\n"
        "        await asyncio.sleep(60)\n"
        "c.JupyterHub.spawner_class = Slow\n"
        "c.JupyterHub.authenticator_class = 'dummy'\n"
        "c.Authenticator.allow_all = True\n"
        "c.Spawner.start_timeout = 1\n"
        f"c.JupyterHub.statsd_host = '127.0.0.1'\nc.JupyterHub.statsd_port = {statsd.port}\n"
        "c.JupyterHub.ip = '127.0.0.1'\nc.JupyterHub.port = 0\nc.JupyterHub.hub_port = 0\n"
        "c.ThreadedProxy.api_url = 'http://127.0.0.1:0'\n"
    )
    hub = start_hub(args=("-f", str(slow)), defaults={})
    hub.browser("ada").get("/hub/spawn/ada")
    statsd.wait("jupyterhub.spawner.failure.timeout")


@pytest.mark.parametrize("host", ["no-such-host.invalid", "127.0.0.1"])
def test_dead_statsd_host_costs_nothing(start_hub, host):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        port = udp.getsockname()[1]  # nobody listens there in a moment
    began = time.monotonic()
    hub = start_hub({"JupyterHub": {"statsd_host": host, "statsd_port": port}})
    assert time.monotonic() - began < 15
    browser = hub.browser("ada")
    browser.start_server("ada")
    assert browser.follow("/user/ada/").status_code == 200
    if host != "127.0.0.1":
        hub.wait_text("JupyterHub.statsd_host: no-such-host.invalid cannot be found")
    assert hub.stop() == 0 and "Traceback" not in hub.text


def test_wrong_prefix_is_refused(start_hub):
    hub = start_hub({"JupyterHub": {"statsd_prefix": "a:b"}}, wait=False)
    assert hub.process.wait(20) == 3
    assert "JupyterHub.statsd_prefix" in hub.text and "none of the signs" in hub.text


# -- Prometheus ----------------------------------------------------------------------------


def test_prometheus_reads_a_day_at_the_hub(start_hub):
    hub = start_hub({"JupyterHub": {"api_tokens": TOKENS, "active_server_limit": 1}})
    browser = hub.browser("ada")
    browser.start_server("ada")
    assert hub.browser("ben").get("/hub/spawn/ben").status_code == 429
    requests.post(hub.url + "hub/security/csp-report", data=b"{}", timeout=5)
    rows = scrape(hub)
    count = "jupyterhub_{}_count{}".format
    assert rows["jupyterhub_running_servers"] == 1
    assert rows["jupyterhub_total_users"] == 4  # ada, ben and those of the configuration
    assert rows['jupyterhub_active_users{period="24h"}'] >= 1
    assert {'jupyterhub_active_users{period="7d"}', 'jupyterhub_active_users{period="30d"}'} < set(
        rows
    )
    assert rows[count("server_spawn_duration_seconds", '{reason="",status="success"}')] == 1
    refused = '{reason="too-many-users",status="failure"}'
    assert rows[count("server_spawn_duration_seconds", refused)] == 1
    assert rows[count("proxy_add_duration_seconds", '{status="success"}')] >= 1
    assert rows[count("server_poll_duration_seconds", '{status="running"}')] >= 0
    for name in ("hub_startup", "init_spawners", "check_routes", "proxy_poll"):
        assert rows[count(f"{name}_duration_seconds", "")] >= 1
    assert rows[count("login_duration_seconds", '{status="success"}')] == 2
    assert rows["jupyterhub_csp_reports_total"] == 1
    labels = '{code="429",handler="minihub.web.pages.spawn",method="GET"}'
    assert rows[count("request_duration_seconds", labels)] == 1
    assert rows["process_resident_memory_bytes"] > 10_000_000
    bounds = {one.split('le="')[1].split('"')[0] for one in rows
              if one.startswith("jupyterhub_server_spawn_duration_seconds_bucket")}  # fmt: skip
    wanted = "0.5 1.0 2.5 5.0 10.0 15.0 30.0 60.0 120.0 180.0 300.0 600.0 +Inf"
    assert bounds == set(wanted.split())

    browser.submit("/hub/stop/ada", {}, page="/hub/home")
    browser.get("/hub/logout")
    rows = scrape(hub)
    assert rows["jupyterhub_running_servers"] == 0
    assert rows[count("server_stop_seconds", '{status="success"}')] == 1
    assert rows[count("proxy_delete_duration_seconds", '{status="success"}')] >= 1
    assert rows[count("logout_duration_seconds", "")] == 1
    deadline = time.monotonic() + 10
    while scrape(hub)[count("event_loop_interval_seconds", "")] < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_metrics_are_for_those_who_may_read_them(start_hub):
    hub = start_hub({"JupyterHub": {"api_tokens": TOKENS}})
    for path in ("hub/metrics", "hub/api/metrics"):
        url = hub.url + path
        assert requests.get(url, timeout=5).status_code == 403
        student = {"Authorization": "token the-token-of-a-student"}
        refused = requests.get(url, headers=student, timeout=5)
        assert refused.status_code == 403 and "read:metrics" in refused.text
        assert requests.get(url, headers=ADMIN, timeout=5).status_code == 200


def test_authenticate_prometheus_false_shows_metrics_to_everybody(start_hub):
    hub = start_hub({"JupyterHub": {"authenticate_prometheus": False}})
    assert "jupyterhub_running_servers" in scrape(hub, headers={})


def test_environment_names_prefix_and_buckets(start_hub):
    env = {
        "JUPYTERHUB_METRICS_PREFIX": "lab",
        "JUPYTERHUB_SERVER_SPAWN_DURATION_SECONDS_BUCKETS": "1,20",
    }
    hub = start_hub({"JupyterHub": {"authenticate_prometheus": False}}, env=env)
    rows = scrape(hub, headers={})
    assert not any(one.startswith("jupyterhub_") for one in rows)
    spawn = [one for one in rows if one.startswith("lab_server_spawn_duration_seconds_bucket")]
    assert {one.split('le="')[1].split('"')[0] for one in spawn} == {"1.0", "20.0", "+Inf"}
    wrong = start_hub(env={"JUPYTERHUB_SERVER_STOP_DURATION_SECONDS_BUCKETS": "soon"}, wait=False)
    assert wrong.process.wait(20) == 3
    assert "JUPYTERHUB_SERVER_STOP_DURATION_SECONDS_BUCKETS" in wrong.text


def test_active_user_window_decides_who_is_active(start_hub, statsd):
    config = {
        "statsd_host": "127.0.0.1",
        "statsd_port": statsd.port,
        "last_activity_interval": 1,
        "active_user_window": 1,
    }
    hub = start_hub({"JupyterHub": config})
    browser = hub.browser("ada")
    browser.start_server("ada")
    gauges = ("jupyterhub.users.running", "jupyterhub.users.active")
    statsd.wait(*gauges)
    deadline = time.monotonic() + 15
    while [statsd.last(one) for one in gauges] != [1, 0]:  # she has been idle for a second
        assert time.monotonic() < deadline, statsd.rows
        time.sleep(0.05)
