"""What the proxy forwards and where: routing, headers, bodies, errors, activity."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

import pytest
from proxy_tools import (
    Client,
    EchoServer,
    ProxyProcess,
    RawServer,
    eventually,
    free_port,
    request,
)


@pytest.fixture(scope="module")
def echo() -> Iterator[EchoServer]:
    with EchoServer() as server:
        yield server


@pytest.fixture(scope="module")
def proxy(echo: EchoServer) -> Iterator[ProxyProcess]:
    with ProxyProcess("--default-target", echo.url) as process:
        yield process


def headers_of(data: dict, name: str) -> list[str]:  # type: ignore[type-arg]
    return [value for key, value in data["headers"] if key.lower() == name]


# -- routing -------------------------------------------------------------------------------


def test_longest_prefix_of_whole_components_wins(proxy: ProxyProcess) -> None:
    with EchoServer("alice") as alice, EchoServer("bob") as bob:
        proxy.add("/user/alice", alice.url)
        proxy.add("/user/alice/bob", bob.url)
        for path, name in {
            "/user/alice": "alice",
            "/user/alice/": "alice",
            "/user/alice/x?y=/z": "alice",
            "/user/alice?q": "alice",
            "/user/alicenot": "echo",
            "/user/alice/bob": "bob",
            "/user/alice/bob/c": "bob",
            "/user/%61lice/": "alice",
            "/user": "echo",
            "/": "echo",
        }.items():
            data = proxy.get(path).json()
            assert (path, data["name"], data["path"]) == (path, name, path)
        proxy.api("DELETE", "/user/alice")
        assert proxy.get("/user/alice/").json()["name"] == "echo"
        assert proxy.get("/user/alice/bob/").json()["name"] == "bob"
        proxy.api("DELETE", "/user/alice/bob")


def test_at_sign_and_its_escape_are_the_same(proxy: ProxyProcess) -> None:
    with EchoServer("mail") as server:
        proxy.add("/user/a%40b", server.url)
        assert proxy.get("/user/a@b/").json()["name"] == "mail"
        assert proxy.get("/user/a%40b/").json()["path"] == "/user/a%40b/"
        proxy.api("DELETE", "/user/a@b")


def test_path_of_the_target_stands_in_front(proxy: ProxyProcess, echo: EchoServer) -> None:
    proxy.add("/under", echo.url + "/base/")
    assert proxy.get("/under/x?y").json()["path"] == "/base/under/x?y"
    proxy.api("DELETE", "/under")


def test_no_route_is_404() -> None:
    with ProxyProcess() as proxy:
        answer = proxy.get("/nothing")
        assert answer.status == 404
        assert answer.field("content-type") == "text/html; charset=utf-8"


def test_health_check_is_answered_by_the_proxy(proxy: ProxyProcess, echo: EchoServer) -> None:
    answer = proxy.get("/_chp_healthz")
    assert (answer.status, answer.json()) == (200, {"status": "OK"})
    assert proxy.get("/_chp_healthz?x").json()["name"] == "echo"


def test_host_routing() -> None:
    with ProxyProcess("--host-routing") as proxy, EchoServer("a") as a, EchoServer("root") as root:
        proxy.add("/", root.url)
        proxy.add("/a.example/x", a.url)
        for host, path, name in (
            ("a.example", "/x/y", "a"),
            ("A.Example:8000", "/x", "a"),
            ("a.example", "/y", "root"),
            ("b.example", "/x", "root"),
        ):
            data = proxy.get(path, {"Host": host}).json()
            assert (host, path, data["name"]) == (host, path, name)
            assert data["path"] == path


@pytest.mark.parametrize(
    "path",
    [
        "/user/../hub",
        "/user/%2e%2E/hub",
        "/user/./x",
        "/user%2falice/x",
        "/user\\alice",
        "/user%5Calice",
        "/a%00",
        "/user/alice/x/../../../hub",
        "/user/alice/..%2f..%2fhub",
        "/a/%zz",
        "/a/%",
    ],
)
def test_ambiguous_path_is_400(proxy: ProxyProcess, echo: EchoServer, path: str) -> None:
    proxy.add("/user/alice", echo.url)
    before = echo.requests
    assert proxy.get(path).status == 400
    assert echo.requests == before


@pytest.mark.parametrize(
    "path",
    ["/user/alice/a%2Fb", "/user/alice/x/../y", "/user/alice/a\\b", "/user/alice/.well-known"],
)
def test_what_the_target_alone_decides_passes(
    proxy: ProxyProcess, echo: EchoServer, path: str
) -> None:
    proxy.add("/user/alice", echo.url)
    assert proxy.get(path).json()["path"] == path


# -- headers -------------------------------------------------------------------------------


def test_forwarded_fields_are_set(proxy: ProxyProcess) -> None:
    data = proxy.get("/").json()
    assert headers_of(data, "x-forwarded-for") == ["127.0.0.1"]
    assert headers_of(data, "x-forwarded-proto") == ["http"]
    assert headers_of(data, "x-forwarded-port") == [str(proxy.port)]
    assert headers_of(data, "x-forwarded-host") == [f"127.0.0.1:{proxy.port}"]
    assert headers_of(data, "host") == [f"127.0.0.1:{proxy.port}"]


def test_forwarded_fields_are_appended_to(proxy: ProxyProcess) -> None:
    data = proxy.get(
        "/",
        {
            "X-Forwarded-For": "1.2.3.4, 5.6.7.8",
            "X-Forwarded-Proto": "https",
            "X-Forwarded-Port": "443",
            "X-Forwarded-Host": "outside",
            "X_Forwarded_For": "9.9.9.9",
            "Host": "inside",
        },
    ).json()
    assert headers_of(data, "x-forwarded-for") == ["1.2.3.4, 5.6.7.8,127.0.0.1"]
    assert headers_of(data, "x-forwarded-proto") == ["https,http"]
    assert headers_of(data, "x-forwarded-port") == ["443,80"]
    assert headers_of(data, "x-forwarded-host") == ["outside"]
    assert headers_of(data, "x_forwarded_for") == []


def test_no_x_forward_adds_nothing(echo: EchoServer) -> None:
    with ProxyProcess("--no-x-forward", "--default-target", echo.url) as proxy:
        data = proxy.get("/", {"X-Forwarded-For": "1.2.3.4"}).json()
        assert headers_of(data, "x-forwarded-for") == ["1.2.3.4"]
        assert headers_of(data, "x-forwarded-proto") == []


def test_fields_of_the_hop_do_not_pass(proxy: ProxyProcess) -> None:
    data = proxy.get(
        "/",
        {
            "Connection": "keep-alive, X-Mine, Authorization, Cookie, Host, X-Forwarded-For",
            "Keep-Alive": "timeout=5",
            "Proxy-Connection": "keep-alive",
            "Proxy-Authorization": "Basic x",
            "Proxy": "http://evil",
            "TE": "trailers",
            "Upgrade": "h2c",
            "HTTP2-Settings": "x",
            "X-Mine": "1",
            "Authorization": "token x",
            "Cookie": "a=b",
            "X-Kept": "2",
        },
    ).json()
    names = {key.lower() for key, _ in data["headers"]}
    assert names == {
        "host",
        "authorization",
        "cookie",
        "x-kept",
        "x-forwarded-for",
        "x-forwarded-port",
        "x-forwarded-proto",
        "x-forwarded-host",
    }


def test_every_response_has_one_date(proxy: ProxyProcess, echo: EchoServer) -> None:
    """RFC 9110 6.6.1: who forwards a response without a Date gives it one."""

    def serve(client: Client) -> None:
        client.until(b"\r\n\r\n")
        client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with RawServer(serve) as server, ProxyProcess() as bare:
        bare.add("/undated", server.url)
        bare.add("/dated", echo.url)
        for path in ("/undated", "/dated", "/nothing", "/_chp_healthz", "/a/%"):
            date = bare.get(path).field("date")
            assert date is not None
            age = datetime.now(timezone.utc) - parsedate_to_datetime(date)
            assert abs(age.total_seconds()) < 60, path
        assert request(bare.api_port, "GET", "/api/routes").field("date") is not None


def test_response_fields_of_the_hop_do_not_pass(proxy: ProxyProcess) -> None:
    def serve(client: Client) -> None:
        client.until(b"\r\n\r\n")
        client.send(
            b"HTTP/1.1 200 Fine\r\nConnection: keep-alive, X-Mine\r\nKeep-Alive: 5\r\n"
            b"X-Mine: 1\r\nProxy-Authenticate: x\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n"
            b"Upgrade: h2c\r\nContent-Length: 2\r\n\r\nok"
        )

    with RawServer(serve) as server:
        proxy.add("/hop", server.url)
        answer = proxy.get("/hop")
        assert answer.reason == "Fine"
        assert answer.fields == [
            ("Set-Cookie", "a=1"),
            ("Set-Cookie", "b=2"),
            ("Content-Length", "2"),
            ("Date", answer.field("date")),
        ]
        proxy.api("DELETE", "/hop")


# -- bodies --------------------------------------------------------------------------------


def test_post_body_arrives(proxy: ProxyProcess) -> None:
    body = b"\x00\xff" * 300_000
    answer = request(proxy.port, "POST", "/x", {}, body)
    assert answer.json()["body"].encode("latin-1") == body


def test_chunked_request_arrives(proxy: ProxyProcess) -> None:
    with Client(proxy.port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send(b"5\r\nhello\r\n6;ext=1\r\n world\r\n")
        client.send(b"0\r\nX-Trailer: 1\r\n\r\n")
        data = client.answer().json()
        assert data["body"] == "hello world"
        assert headers_of(data, "content-length") == []


def test_pipelined_requests_are_answered_in_order(proxy: ProxyProcess) -> None:
    with Client(proxy.port) as client:
        client.send(
            b"".join(
                b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" % number
                for number in range(20)
            )
        )
        for number in range(20):
            assert client.answer().json()["path"] == f"/{number}"


def test_pipelined_requests_survive_a_half_close(proxy: ProxyProcess) -> None:
    with Client(proxy.port) as client:
        client.send(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
        client.sock.shutdown(1)
        assert client.answer().json()["path"] == "/1"
        assert client.answer().json()["path"] == "/2"
        assert client.is_closed()


def test_head_204_and_304_have_no_body(proxy: ProxyProcess) -> None:
    with Client(proxy.port) as client:
        client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert int(client.answer("HEAD").field("content-length") or 0) > 0
        for status in (204, 304):
            client.send(b"GET /?status=%d HTTP/1.1\r\nHost: a\r\n\r\n" % status)
            assert client.answer().status == status
        client.send(b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = client.answer()
        assert answer.json()["path"] == "/last"
        assert answer.field("connection") == "close"
        assert client.is_closed()


def test_http_1_0_client_is_served(proxy: ProxyProcess) -> None:
    with Client(proxy.port) as client:
        client.send(b"GET /old HTTP/1.0\r\n\r\n")
        answer = client.answer()
        assert answer.json()["path"] == "/old"
        assert answer.field("connection") == "close"
        assert client.is_closed()
    with Client(proxy.port) as client:
        for _ in range(2):
            client.send(b"GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert client.answer().field("connection") == "keep-alive"


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_chunked_response_with_trailers(proxy: ProxyProcess, version: bytes) -> None:
    def serve(client: Client) -> None:
        client.until(b"\r\n\r\n")
        client.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in (b"5;x\r\nhel", b"lo\r", b"\n1\r\n!\r\n0\r\nX-Sum: 1\r\n", b"Host: e\r\n\r\n"):
            client.send(piece)
        client.receive()

    with RawServer(serve) as server:
        proxy.add("/chunked", server.url)
        with Client(proxy.port) as client:
            client.send(b"GET /chunked HTTP/" + version + b"\r\nHost: a\r\n\r\n")
            answer = client.answer()
            assert answer.body == b"hello!"
            names = [name for name, _ in answer.fields]
            if version == b"1.1":
                assert names == ["Date", "Transfer-Encoding", "trailer X-Sum"]
            else:
                assert names == ["Date", "Connection"]
                assert client.is_closed()
        proxy.api("DELETE", "/chunked")


def test_response_that_ends_with_its_connection_is_framed(proxy: ProxyProcess) -> None:
    def serve(client: Client) -> None:
        client.until(b"\r\n\r\n")
        client.send(b"HTTP/1.0 200 OK\r\n\r\nhello")

    with RawServer(serve) as server:
        proxy.add("/bare", server.url)
        with Client(proxy.port) as client:
            for _ in range(2):
                client.send(b"GET /bare HTTP/1.1\r\nHost: a\r\n\r\n")
                answer = client.answer()
                assert answer.body == b"hello"
                assert answer.field("transfer-encoding") == "chunked"
        proxy.api("DELETE", "/bare")


def test_events_are_not_buffered(proxy: ProxyProcess) -> None:
    def serve(client: Client) -> None:
        client.until(b"\r\n\r\n")
        client.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        while client.receive():
            pass

    class Streams:
        served: Client | None = None

    streams = Streams()

    def keep(client: Client) -> None:
        streams.served = client
        serve(client)

    with RawServer(keep) as server:
        proxy.add("/events", server.url)
        with Client(proxy.port) as client:
            client.send(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.head().status == 200
            for number in range(3):
                assert streams.served is not None
                streams.served.send(b"data: %d\n\n" % number)
                assert client.until(b"\n\n\r\n").endswith(b"data: %d\n\n\r\n" % number)
        proxy.api("DELETE", "/events")


def test_continue_is_passed_on(proxy: ProxyProcess) -> None:
    def serve(client: Client) -> None:
        head = client.until(b"\r\n\r\n")
        assert b"Expect: 100-continue" in head
        client.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert client.exactly(3) == b"abc"
        client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with RawServer(serve) as server:
        proxy.add("/expect", server.url)
        with Client(proxy.port) as client:
            client.send(
                b"POST /expect HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
                b"Content-Length: 3\r\n\r\n"
            )
            assert client.head().status == 100
            client.send(b"abc")
            assert client.answer().status == 200
        proxy.api("DELETE", "/expect")


def test_connections_to_the_target_are_kept(proxy: ProxyProcess) -> None:
    with EchoServer() as server:
        proxy.add("/kept", server.url)
        peers = {proxy.get("/kept").json()["peer"] for _ in range(10)}
        assert len(peers) == 1
        proxy.api("DELETE", "/kept")


# -- errors --------------------------------------------------------------------------------


def test_target_that_refuses_is_503(proxy: ProxyProcess) -> None:
    proxy.add("/gone", f"http://127.0.0.1:{free_port()}")
    assert proxy.get("/gone").status == 503
    assert "connection refused" in proxy.log()
    proxy.api("DELETE", "/gone")


def test_error_target_renders_errors() -> None:
    with EchoServer("errors") as errors:
        with ProxyProcess("--error-target", errors.url + "/hub/error") as proxy:
            answer = proxy.get("/a/b?c=d&e")
            assert answer.status == 404
            assert answer.json()["path"] == "/hub/error/404?url=%2Fa%2Fb%3Fc%3Dd%26e"
            assert answer.json()["method"] == "GET"
            assert {name for name, _ in answer.fields} == {"Content-Type", "Content-Length", "Date"}
            proxy.add("/gone", f"http://127.0.0.1:{free_port()}")
            answer = request(proxy.port, "POST", "/gone", {}, b"x" * 10)
            assert answer.status == 503
            assert answer.json()["path"] == "/hub/error/503?url=%2Fgone"
            with Client(proxy.port) as client:
                client.send(b"HEAD /nothing HTTP/1.1\r\nHost: a\r\n\r\n")
                assert client.answer("HEAD").status == 404
                client.send(b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n")
                assert client.answer().status == 404


def test_error_target_that_fails_leaves_a_page() -> None:
    with ProxyProcess("--error-target", f"http://127.0.0.1:{free_port()}") as proxy:
        answer = proxy.get("/a")
        assert answer.status == 404
        assert b"Not Found" in answer.body


# -- activity ------------------------------------------------------------------------------


def activity(proxy: ProxyProcess, path: str) -> object:
    status, body = proxy.api("GET", path)
    assert status == 200
    return json.loads(body)["last_activity"]


def test_success_is_activity_and_an_error_is_not(proxy: ProxyProcess, echo: EchoServer) -> None:
    proxy.add("/busy", echo.url)
    before = activity(proxy, "/busy")
    for status in (302, 404, 500):
        assert proxy.get(f"/busy?status={status}").status == status
        assert activity(proxy, "/busy") == before
    proxy.get("/busy")
    assert eventually(lambda: str(activity(proxy, "/busy")) > str(before))
    proxy.api("DELETE", "/busy")


@pytest.mark.parametrize("split", [False, True])
def test_data_of_the_client_is_activity_whatever_is_answered(
    proxy: ProxyProcess, echo: EchoServer, split: bool
) -> None:
    """A body counts as in the reference, be it in one packet with its head or not."""
    proxy.add("/sent", echo.url)
    before = str(activity(proxy, "/sent"))
    head = b"POST /sent?status=404 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"
    posts = 0
    with Client(proxy.port) as client:

        def post() -> bool:
            nonlocal posts
            for piece in (head, b"abc") if split else (head + b"abc",):
                client.send(piece)
            assert client.answer().status == 404
            posts += 1
            return str(activity(proxy, "/sent")) > before

        eventually(post)
    stats = request(proxy.api_port, "GET", "/api/stats").json()
    assert stats["routes"]["/sent"]["bytes_in"] == 3 * posts
    proxy.api("DELETE", "/sent")


def test_debug_log_names_each_request_without_its_query(echo: EchoServer) -> None:
    with ProxyProcess("--log-level", "debug", "--default-target", echo.url) as proxy:
        proxy.get("/a/b?token=secret")
        assert f"debug: PROXY WEB /a/b to {echo.url}" in proxy.log()
        assert "secret" not in proxy.log()
