"""What each further command line option does, seen from outside."""

from __future__ import annotations

import json
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from proxy_tools import (
    Answer,
    Client,
    EchoServer,
    ProxyProcess,
    RawServer,
    eventually,
    free_port,
    request,
)
from test_proxy_api import run
from test_proxy_tls import certs, files, trusting

__all__ = ["certs"]


@pytest.fixture(scope="module")
def echo() -> Iterator[EchoServer]:
    with EchoServer() as server:
        yield server


def header(answer: Answer, name: str) -> list[str]:
    return [value for key, value in answer.json()["headers"] if key.lower() == name]


def unix_client(path: Path) -> Client:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    return Client(0, sock)


class Redirecting:
    """A target that redirects to whatever ``location`` says, ``{port}`` being its own port."""

    def __init__(self, location: str) -> None:
        self._location = location
        self._server = RawServer(self._serve)

    def _serve(self, client: Client) -> None:
        client.until(b"\r\n\r\n")
        location = self._location.format(port=self._server.port)
        client.send(f"HTTP/1.1 302 F\r\nContent-Length: 0\r\nLocation: {location}\r\n\r\n".encode())

    def __enter__(self) -> RawServer:
        return self._server

    def __exit__(self, *exc: object) -> None:
        self._server.close()


# -- forwarding ----------------------------------------------------------------------------


def test_custom_headers_replace_the_clients(echo: EchoServer) -> None:
    with ProxyProcess(
        *("--custom-header", "X-One: 1", "--custom-header", "x-two:2"),
        *("--default-target", echo.url),
    ) as proxy:
        answer = proxy.get("/", {"X-Two": "client"})
        assert header(answer, "x-one") == ["1"]
        assert header(answer, "x-two") == ["2"]


def test_change_origin_names_the_target(echo: EchoServer) -> None:
    with ProxyProcess("--change-origin", "--default-target", echo.url) as proxy:
        assert header(proxy.get("/"), "host") == [f"127.0.0.1:{echo.port}"]


def test_prefix_and_target_path_can_be_left_out(echo: EchoServer) -> None:
    with ProxyProcess("--no-include-prefix") as proxy:
        proxy.add("/a/b", echo.url + "/base")
        assert proxy.get("/a/b/c?d").json()["path"] == "/base/c?d"
        assert proxy.get("/a/%62").json()["path"] == "/base/"
    with ProxyProcess("--no-prepend-path") as proxy:
        proxy.add("/a", echo.url + "/base")
        assert proxy.get("/a/c").json()["path"] == "/a/c"


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ((), "http://127.0.0.1:{port}/x?y"),
        (("--auto-rewrite",), "http://me:80/x?y"),
        (("--protocol-rewrite", "https"), "https://127.0.0.1:{port}/x?y"),
        (("--auto-rewrite", "--protocol-rewrite", "https"), "https://me:80/x?y"),
    ],
)
def test_redirects_to_the_target_are_rewritten_on_demand(
    argv: tuple[str, ...], expected: str
) -> None:
    with ProxyProcess(*argv) as proxy:
        for location, seen in (
            ("http://127.0.0.1:{port}/x?y", expected),
            ("/relative", "/relative"),
            ("http://other/x", "http://other/x"),
        ):
            with Redirecting(location) as server:
                proxy.add("/", server.url)
                answer = proxy.get("/", {"Host": "me:80"})
                assert answer.field("location") == seen.format(port=server.port)


def test_unix_socket_target(tmp_path: Path) -> None:
    def serve(client: Client) -> None:
        head = client.until(b"\r\n\r\n")
        body = head.split(b"\r\n")[0]
        client.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    with RawServer(serve, str(tmp_path / "s.sock")) as server, ProxyProcess() as proxy:
        proxy.add("/u", server.url)
        assert proxy.get("/u/x").body == b"GET /u/x HTTP/1.1"
        proxy.add("/u", server.url.replace("http+unix", "unix+http") + "/base")
        assert proxy.get("/u/x").body == b"GET /base/u/x HTTP/1.1"
        proxy.add("/gone", "http+unix://%2Fno%2Fsuch.sock")
        assert proxy.get("/gone").status == 503


def test_error_path_serves_files(tmp_path: Path) -> None:
    (tmp_path / "404.html").write_text("four")
    (tmp_path / "error.html").write_text("other")
    with ProxyProcess("--error-path", str(tmp_path)) as proxy:
        answer = proxy.get("/")
        assert (answer.status, answer.body) == (404, b"four")
        assert answer.field("content-type") == "text/html"
        proxy.add("/", f"http://127.0.0.1:{free_port()}")
        assert proxy.get("/").body == b"other"
        (tmp_path / "error.html").unlink()
        assert proxy.get("/").body == b"Service Unavailable"


# -- listening -----------------------------------------------------------------------------


def test_unix_sockets_for_everything(tmp_path: Path, echo: EchoServer) -> None:
    public, api, metrics = (tmp_path / name for name in ("public", "api", "metrics"))
    # A socket left behind by a process that is gone.
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(public))
    argv = ["--socket", str(public), "--api-socket", str(api), "--metrics-socket", str(metrics)]
    with ProxyProcess(*argv, "--default-target", echo.url, ports=False) as proxy:
        with unix_client(public) as client:
            client.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
            assert header(client.answer(), "x-forwarded-for") == ["127.0.0.1"]
        with unix_client(api) as client:
            client.send(b"GET /api/routes HTTP/1.1\r\nHost: a\r\n\r\n")
            assert "/" in client.answer().json()
        with unix_client(metrics) as client:
            client.send(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b"requests_web 1\n" in client.answer().body
        assert stat.S_ISSOCK(public.stat().st_mode)
        done = run(*argv)
        assert done.returncode == 1
        assert "is in use by another program" in done.stderr
        assert proxy.stop() == 2
        assert not public.exists() and not api.exists() and not metrics.exists()


def test_file_that_is_no_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("x")
    done = run("--socket", str(path), "--api-port", "0")
    assert done.returncode == 1 and path.read_text() == "x"


def test_redirect_port_sends_to_https(certs: Path, echo: EchoServer) -> None:
    port = free_port()
    with ProxyProcess(*files(certs, "one"), "--redirect-port", str(port)) as proxy:
        assert f"Added HTTP to HTTPS redirection from {port} to {proxy.port}" in proxy.log()
        answer = request(port, "GET", "/a?b=c", {"Host": "me.example:80"})
        assert answer.status == 301
        assert answer.field("location") == f"https://me.example:{proxy.port}/a?b=c"
        with Client(port) as client:
            client.send(b"GET / HTTP/1.0\r\n\r\n")
            assert client.answer().status == 400
    with ProxyProcess(*files(certs, "one"), "--redirect-port", str(port), "--redirect-to", "443"):
        answer = request(port, "GET", "/a", {"Host": "me.example"})
        assert answer.field("location") == "https://me.example/a"
    done = run("--redirect-port", str(port))
    assert done.returncode == 1
    assert "HTTPS redirection specified but certificates not provided." in done.stderr
    assert trusting(certs, "one")


def test_storage_backend_is_refused_with_a_reason() -> None:
    done = run("--storage-backend", "some-module")
    assert done.returncode == 1
    assert "some-module: storage backends are node modules" in done.stderr


# -- counting ------------------------------------------------------------------------------


def test_metrics_have_the_references_names(echo: EchoServer) -> None:
    port = free_port()
    with ProxyProcess("--metrics-ip", "127.0.0.1", "--metrics-port", str(port)) as proxy:
        assert f"Serve metrics at http://127.0.0.1:{port}/metrics" in proxy.log()
        proxy.add("/", echo.url)
        proxy.add("/b", echo.url)
        proxy.api("DELETE", "/b")
        proxy.routes()
        for status in (200, 200, 404):
            proxy.get(f"/?status={status}")
        answer = request(port, "GET", "/metrics")
        assert answer.field("content-type") == "text/plain; version=0.0.4; charset=utf-8"
        lines = answer.body.decode().splitlines()
        for line in (
            "# TYPE api_route_add counter",
            "api_route_add 2",
            "api_route_delete 1",
            "api_route_get 1",
            "find_target_for_req_count 3",
            "last_activity_updating_count 2",
            "requests_web 3",
            "requests_ws 0",
            'requests_proxy{status="200"} 2',
            'requests_proxy{status="404"} 1',
            'requests_api{status="201"} 2',
            'requests_api{status="204"} 1',
            "proxy_routes 1",
        ):
            assert line in lines, answer.body.decode()
        assert any(line.startswith("process_cpu_seconds_total") for line in lines)
        assert request(port, "GET", "/other").status == 404


def test_statsd_gets_the_changes(echo: EchoServer) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(10)
        port = statsd.getsockname()[1]
        with ProxyProcess(
            *("--statsd-host", "127.0.0.1", "--statsd-port", str(port)),
            *("--statsd-prefix", "hub.chp", "--default-target", echo.url),
        ) as proxy:
            proxy.get("/")
            proxy.add("/b", echo.url)
            seen = ""
            while not ("requests.proxy.200" in seen and "api.route.add" in seen):
                seen += statsd.recv(65536).decode() + "\n"
            assert "hub.chp.requests.web:1|c\n" in seen
            assert "hub.chp.requests.proxy.200:1|c\n" in seen
            assert "hub.chp.requests.api.201:1|c\n" in seen
            assert "hub.chp.find_target_for_req:" in seen


def test_stats_show_each_route(echo: EchoServer) -> None:
    with ProxyProcess(token="t") as proxy:
        proxy.add("/a", echo.url)
        request(proxy.port, "POST", "/a", {}, b"x" * 1000)
        proxy.get("/a?status=500")
        answer = request(proxy.api_port, "GET", "/api/stats", {"Authorization": "token t"}).json()
        route = answer["routes"]["/a"]
        assert route["requests"] == 2
        assert route["bytes_out"] > 100
        assert 0 < route["latency_s"] < 5
        assert answer["proxy"]["requests_web"] == 2
        assert request(proxy.api_port, "GET", "/api/stats").status == 403


# -- additions to the REST API -------------------------------------------------------------


def test_bulk_post_adds_many_routes_at_once(echo: EchoServer) -> None:
    with ProxyProcess() as proxy:
        routes = {f"/user/{n}": {"target": echo.url, "user": str(n)} for n in range(10000)}
        assert proxy.api("POST", "", {"routes": routes})[0] == 201
        assert len(proxy.routes()) == 10000
        assert proxy.get("/user/9999/x").status == 200
        assert proxy.routes()["/user/77"]["user"] == "77"
        bad = {"routes": {"/x": {"target": echo.url}, "/y": {"target": 1}}}
        status, body = proxy.api("POST", "", bad)
        assert (status, body) == (400, b"/y: Must specify 'target' as string")
        assert "/x" not in proxy.routes()


@pytest.mark.parametrize("threads", ["1", "2"])
def test_tunnels_of_a_route_can_be_closed(threads: str) -> None:
    def serve(client: Client) -> None:
        client.until(b"\r\n\r\n")
        client.send(b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: t\r\n\r\n")
        while client.receive():
            pass

    with RawServer(serve) as server, ProxyProcess("--threads", threads) as proxy:
        proxy.add("/a", server.url)
        proxy.add("/b", server.url)
        opened = []
        for path in (b"/a/x", b"/a/y", b"/b"):
            client = Client(proxy.port)
            client.send(
                b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: t\r\n\r\n" % path
            )
            assert client.head().status == 101
            opened.append(client)
        answer = request(proxy.api_port, "DELETE", "/api/tunnels/a")
        assert (answer.status, answer.json()) == (200, {"closed": 2})
        assert opened[0].is_closed() and opened[1].is_closed()
        opened[2].sock.settimeout(0.1)
        with pytest.raises(TimeoutError):
            opened[2].receive()
        for client in opened:
            client.close()


def test_several_loop_threads_serve_together(echo: EchoServer) -> None:
    with ProxyProcess("--threads", "3", "--default-target", echo.url) as proxy:
        failures = []

        def use() -> None:
            with Client(proxy.port) as client:
                for number in range(30):
                    client.send(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
                    if client.answer().json()["path"] != f"/{number}":
                        failures.append(number)

        threads = [threading.Thread(target=use) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        stats = request(proxy.api_port, "GET", "/api/stats").json()
        assert stats["proxy"]["requests_web"] == 240
        assert stats["routes"]["/"]["requests"] == 240
        assert eventually(lambda: json.loads(proxy.api("GET")[1]))
