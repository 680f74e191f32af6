"""The REST API and the command line of the proxy, as configurable-http-proxy has them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from proxy_tools import STARTER, Client, ProxyProcess, eventually, free_port, request


@pytest.fixture(scope="module")
def proxy() -> Iterator[ProxyProcess]:
    with ProxyProcess(token="secret") as process:
        yield process


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", STARTER, *argv],
        capture_output=True,
        text=True,
        timeout=20,
    )


def test_get_routes_is_a_dict_of_paths(proxy: ProxyProcess) -> None:
    proxy.add("/user/alice", "http://127.0.0.1:99", user="alice", jupyterhub=True)
    route = proxy.routes()["/user/alice"]
    assert route["target"] == "http://127.0.0.1:99"
    assert route["user"] == "alice"
    assert route["jupyterhub"] is True
    assert len(str(route["last_activity"])) == len("2026-01-01T00:00:00.000Z")
    assert proxy.api("DELETE", "/user/alice") == (204, b"")


def test_single_route_is_fetched_by_its_path(proxy: ProxyProcess) -> None:
    proxy.add("/one/", "http://127.0.0.1:99", extra=[1])
    status, body = proxy.api("GET", "/one")
    assert status == 200
    assert json.loads(body)["extra"] == [1]
    assert proxy.api("GET", "/two") == (404, b"")
    assert proxy.api("DELETE", "/one/") == (204, b"")
    assert proxy.api("DELETE", "/one") == (404, b"")


def test_post_replaces_the_data_wholly(proxy: ProxyProcess) -> None:
    proxy.add("/replaced", "http://127.0.0.1:98", old=1)
    proxy.add("/replaced", "http://127.0.0.1:99", new=2)
    route = proxy.routes()["/replaced"]
    assert "old" not in route
    assert route["new"] == 2
    proxy.api("DELETE", "/replaced")


def test_paths_are_percent_decoded(proxy: ProxyProcess) -> None:
    proxy.add("/user/%40b%20c", "http://127.0.0.1:99")
    assert "/user/@b c" in proxy.routes()
    assert proxy.api("DELETE", "/user/@b%20c") == (204, b"")


def test_root_route_is_posted_with_and_without_slash(proxy: ProxyProcess) -> None:
    for path in ("", "/"):
        proxy.add(path, "http://127.0.0.1:99")
        assert "/" in proxy.routes()
        assert proxy.api("DELETE", "/") == (204, b"")
        assert "/" not in proxy.routes()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", b"Body not valid JSON"),
        (b"{", b"Body not valid JSON"),
        (b"{}", b"Must specify 'target' as string"),
        (b'{"target": 1}', b"Must specify 'target' as string"),
        (b"[]", b"Must specify 'target' as string"),
        (b'{"target": "nonsense"}', b"Must specify 'target' as string"),
        (b'{"target": "http://a:99999"}', b"Must specify 'target' as string"),
    ],
)
def test_bad_post_is_400(proxy: ProxyProcess, body: bytes, text: bytes) -> None:
    status, answer = proxy.api("POST", "/bad", body)
    assert status == 400
    assert answer.startswith(text)
    assert "/bad" not in proxy.routes()


def test_body_is_read_before_the_token_is_looked_at(proxy: ProxyProcess) -> None:
    assert request(proxy.api_port, "POST", "/api/routes/a", body=b"").status == 400
    answer = request(proxy.api_port, "POST", "/api/routes/a", body=b'{"target": "http://a:1"}')
    assert (answer.status, answer.body) == (403, b"")


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("token secret", 200),
        ("xtoken  secret more", 200),
        ("bearer secret", 403),
        ("Token secret", 403),
        ("token secre", 403),
        ("token secretsecret", 403),
        ("", 403),
    ],
)
def test_token_is_found_anywhere_in_the_value(proxy: ProxyProcess, value: str, status: int) -> None:
    headers = {"Authorization": value}
    assert request(proxy.api_port, "GET", "/api/routes", headers).status == status


def test_large_body_of_a_stranger_is_refused_unread(proxy: ProxyProcess) -> None:
    with Client(proxy.api_port) as client:
        client.send(b"POST /api/routes HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
        assert client.answer().status == 403


def test_inactive_since_shows_only_older_routes(proxy: ProxyProcess) -> None:
    proxy.add("/quiet", "http://127.0.0.1:99")
    for name in ("inactiveSince", "inactive_since"):
        for date, is_shown in (
            ("2000-01-01T00:00:00.000Z", False),
            ("2100-01-01T00:00:00.000Z", True),
            ("2100-01-01", True),
            ("2100-01", True),
            ("2100", True),
            ("2000-12", False),
            ("2100-01-01T00:00:00", True),
        ):
            status, body = proxy.api("GET", f"?{name}={date}")
            assert status == 200
            assert ("/quiet" in json.loads(body)) is is_shown
    status, body = proxy.api("GET", "?inactiveSince=yesterday")
    assert (status, body) == (400, b"Invalid datestamp 'yesterday' must be ISO8601.")


def test_other_methods_and_paths(proxy: ProxyProcess) -> None:
    assert proxy.api("PUT", "/a", {}) == (405, b"Method not supported")
    answer = request(proxy.api_port, "GET", "/api/other")
    assert (answer.status, answer.body) == (404, b"Not Found")
    assert proxy.api("GET", "/bad%zz")[0] == 400


def test_connection_to_the_api_is_kept(proxy: ProxyProcess) -> None:
    with Client(proxy.api_port) as client:
        for _ in range(3):
            client.send(
                b"GET /api/routes HTTP/1.1\r\nHost: a\r\nAuthorization: token secret\r\n\r\n"
            )
            assert client.answer().status == 200


def test_api_without_token_is_open_and_says_so() -> None:
    with ProxyProcess() as proxy:
        assert "REST API is not authenticated." in proxy.log()
        proxy.add("/a", "http://127.0.0.1:99")


def test_host_routing_shows_the_host() -> None:
    with ProxyProcess("--host-routing") as proxy:
        proxy.add("/Example.org/a", "http://127.0.0.1:99")
        proxy.add("/", "http://127.0.0.1:98")
        routes = proxy.routes()
        assert routes["/Example.org/a"]["host"] == "Example.org"
        assert "host" not in routes["/"]


def test_default_target_is_announced_with_the_real_ports(tmp_path: Path) -> None:
    pid_file = tmp_path / "proxy.pid"
    target = "http://127.0.0.1:99"
    with ProxyProcess("--default-target", target, "--pid-file", str(pid_file)) as proxy:
        log = proxy.log()
        assert f"Route added / -> {target}" in log
        assert f"Proxying http://127.0.0.1:{proxy.port} to {target}" in log
        assert f"Proxy API at http://127.0.0.1:{proxy.api_port}/api/routes" in log
        eventually(pid_file.exists)
        assert pid_file.read_text() == str(proxy.process.pid)
        assert proxy.stop() == 2
        assert not pid_file.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_it_with_2(number: int) -> None:
    with ProxyProcess() as proxy:
        assert proxy.stop(number) == 2


def test_empty_ip_listens_on_every_address() -> None:
    with ProxyProcess(
        "--ip", "", "--port", "0", "--api-ip", "127.0.0.1", "--api-port", "0", ports=False
    ) as proxy:
        assert f"Proxying http://*:{proxy.port} to (no default)" in proxy.log()
        assert proxy.get("/_chp_healthz").json() == {"status": "OK"}


def test_taken_port_is_one_line_and_exit_1() -> None:
    with ProxyProcess() as proxy:
        for argv in (
            ("--ip", "127.0.0.1", "--port", str(proxy.port)),
            ("--ip", "127.0.0.1", "--port", "0", "--api-ip", "127.0.0.1")
            + ("--api-port", str(proxy.port)),
        ):
            done = run(*argv)
            assert done.returncode == 1
            assert done.stderr == (f"error: 127.0.0.1:{proxy.port} is in use by another program\n")


def test_help_version_and_errors() -> None:
    assert "--default-target" in run("--help").stdout
    assert run("-V").returncode == 0
    done = run("--defualt-target", "x")
    assert done.returncode == 1
    assert (
        done.stderr == "error: unknown option '--defualt-target'. Did you mean --default-target?\n"
    )
    done = run("--error-target", "http://a", "--error-path", "b")
    assert done.returncode == 1
    assert "Cannot specify both error-target and error-path. Pick one." in done.stderr


def test_it_needs_only_the_standard_library_and_little_memory() -> None:
    with ProxyProcess("--port", str(free_port())) as proxy:
        proxy.get("/_chp_healthz")
        status = Path(f"/proc/{proxy.process.pid}/status")
        if not status.exists():
            pytest.skip("needs /proc")
        rss = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
        assert int(rss.split()[1]) < 20 * 1024
