"""The hub's HTTP server: brief requests on the spot, long ones in nobody's way."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from minihub.web import server as http_server
from minihub.web.server import WILL_WAIT, HTTPServer

#: What no wait in here takes when things are as they should be.
LONG_S = 30.0


class App:
    """A WSGI application whose ways of answering are chosen by the path."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.entered = threading.Semaphore(0)
        self.threads: list[str] = []

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        self.threads.append(threading.current_thread().name)
        return getattr(self, environ["PATH_INFO"].strip("/"))(environ, start_response)

    def plain(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        body = environ["REQUEST_METHOD"].encode() + environ["wsgi.input"].read()
        start_response("200 OK", [("x-odd-name", "1"), ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def unchanged(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("304 Not Modified", [("ETag", '"1"')])
        return []

    def cookies(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
        return [b"x"]

    def large(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        body = b"0123456789" * 1_000_000
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    def slow(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        self.entered.release()
        assert self.release.wait(LONG_S)
        start_response("200 OK", [("Content-Length", "4")])
        return [b"done"]

    def waiting(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        environ[WILL_WAIT]()
        return self.slow(environ, start_response)

    def stream(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        yield b"first"
        self.entered.release()
        assert self.release.wait(LONG_S)
        yield b"last"

    def leaving(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        raise SystemExit(1)

    def failing(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        raise RuntimeError("not meant for visitors")


class Served:
    """A server that runs, and requests to it."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = self.listener.getsockname()[1]
        self.server = HTTPServer(app, self.listener)
        self.server.start()

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=LONG_S)

    def get(self, path: str, method: str = "GET") -> bytes:
        connection = self.connect()
        try:
            connection.request(method, path)
            return connection.getresponse().read()
        finally:
            connection.close()

    def raw(self, request: bytes) -> bytes:
        """Send bytes; return all that comes until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=LONG_S) as client:
            client.sendall(request)
            answer = b""
            while data := client.recv(65536):
                answer += data
            return answer

    def in_background(self, path: str, method: str = "GET") -> tuple[threading.Thread, list[bytes]]:
        """Ask in a thread; return once the application has the request, with the later answer."""
        answers: list[bytes] = []
        thread = threading.Thread(target=lambda: answers.append(self.get(path, method)))
        thread.start()
        assert self.app.entered.acquire(timeout=LONG_S)
        return thread, answers


@pytest.fixture
def served() -> Iterator[Served]:
    app = App()
    served = Served(app)
    yield served
    app.release.set()
    served.server.stop()


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG_S
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_brief_request_is_served_by_whoever_read_it(served: Served) -> None:
    assert served.get("/plain") == b"GET"
    assert served.app.threads[0].startswith("hub-http-")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_what_changes_something_goes_to_a_worker(served: Served, method: str) -> None:
    assert served.get("/plain", method) == method.encode()
    assert served.app.threads == [served.app.threads[0]]
    assert served.app.threads[0].startswith("waitress-")


def test_one_connection_serves_many_requests(served: Served) -> None:
    connection = served.connect()
    for method, body in [
        ("GET", None),
        ("POST", "abc"),
        ("HEAD", None),
        ("POST", "d" * 70_000),
    ] * 3:
        connection.request(method, "/plain", body)
        response = connection.getresponse()
        sent = (body or "").encode()
        assert response.read() == (b"" if method == "HEAD" else method.encode() + sent)
        assert response.getheader("X-Odd-Name") == "1"
        assert response.getheader("Content-Length") == str(len(method + (body or "")))
        assert response.getheader("Date")
    connection.close()


def test_requests_sent_together_are_answered_in_their_order(served: Served) -> None:
    requests = b"".join(
        f"{method} /plain HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n".encode()
        for method in ("GET", "POST", "GET", "PUT")
    )
    end = b"DELETE /plain HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    answer = served.raw(requests + end)
    bodies = [part.rpartition(b"\r\n")[2] for part in answer.split(b"HTTP/1.1 200 OK")[1:]]
    assert bodies == [b"GET", b"POST", b"GET", b"PUT", b"DELETE"]


def test_an_old_client_is_answered_and_let_go(served: Served) -> None:
    answer = served.raw(b"GET /plain HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
    assert b"Connection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\nGET")


def test_an_answer_without_a_body_has_none(served: Served) -> None:
    connection = served.connect()
    for _ in range(2):
        connection.request("GET", "/unchanged")
        response = connection.getresponse()
        assert (response.status, response.read()) == (304, b"")
    connection.close()


def test_every_cookie_is_sent(served: Served) -> None:
    connection = served.connect()
    connection.request("GET", "/cookies")
    response = connection.getresponse()
    assert response.read() == b"x"
    assert [v for n, v in response.getheaders() if n == "Set-Cookie"] == ["a=1", "b=2"]
    connection.close()


def test_a_large_answer_arrives_whole_while_its_reader_dawdles(served: Served) -> None:
    connection = served.connect()
    connection.request("GET", "/large")
    response = connection.getresponse()
    assert served.get("/plain") == b"GET"  # others do not wait for that reader
    assert response.read() == b"0123456789" * 1_000_000
    connection.request("GET", "/plain")
    assert connection.getresponse().read() == b"GET"
    connection.close()


@pytest.mark.parametrize("path", ["/slow", "/waiting"])
def test_a_long_request_is_in_nobodys_way(served: Served, path: str) -> None:
    threads = [served.in_background(path) for _ in range(5)]
    assert [served.get("/plain") for _ in range(3)] == [b"GET"] * 3
    served.app.release.set()
    for thread, answers in threads:
        thread.join(LONG_S)
        assert answers == [b"done"]


def test_a_stream_is_sent_bit_by_bit_and_is_in_nobodys_way(served: Served) -> None:
    connection = served.connect()
    connection.request("GET", "/stream")
    response = connection.getresponse()
    assert response.read(5) == b"first"
    assert served.app.entered.acquire(timeout=LONG_S)
    assert served.get("/plain") == b"GET"
    served.app.release.set()
    assert response.read() == b"last"
    connection.close()


def test_a_connection_that_was_slow_is_read_again(served: Served) -> None:
    connection = served.connect()
    connection.request("GET", "/slow")
    assert served.app.entered.acquire(timeout=LONG_S)
    assert served.get("/plain") == b"GET"  # by another leader
    served.app.release.set()
    assert connection.getresponse().read() == b"done"
    connection.request("GET", "/plain")
    assert connection.getresponse().read() == b"GET"
    connection.close()


def test_when_all_threads_are_busy_the_rest_waits(
    monkeypatch: pytest.MonkeyPatch, served: Served
) -> None:
    monkeypatch.setattr(http_server, "THREADS", 3)
    busy = [served.in_background("/slow") for _ in range(3)]
    answers: list[bytes] = []
    late = threading.Thread(target=lambda: answers.append(served.get("/plain")))
    late.start()
    served.app.release.set()
    late.join(LONG_S)
    assert answers == [b"GET"]
    for thread, found in busy:
        thread.join(LONG_S)
        assert found == [b"done"]
    assert len({name for name in served.app.threads if name.startswith("hub-http")}) <= 3


def test_code_that_ends_its_thread_ends_only_its_connection(served: Served) -> None:
    assert served.raw(b"GET /leaving HTTP/1.1\r\nHost: h\r\n\r\n") == b""
    assert served.get("/plain") == b"GET"


def test_an_error_of_the_server_itself_does_not_end_it(
    monkeypatch: pytest.MonkeyPatch, served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    lead = served.server._server.lead
    deal = lead._deal
    failed = []

    def fail_once(thing: Any, mask: int) -> None:
        if not failed:
            failed.append(thing)
            raise ValueError("once")
        deal(thing, mask)

    monkeypatch.setattr(lead, "_deal", fail_once)
    assert served.get("/plain") == b"GET"
    assert failed and "Reading connections met an error" in caplog.text


def test_without_another_thread_the_one_there_is_goes_on(
    monkeypatch: pytest.MonkeyPatch, served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    ask = threading.Thread(target=lambda: served.get("/slow"))
    ask.start()
    assert served.app.entered.acquire(timeout=LONG_S)
    assert served.get("/plain") == b"GET"
    lead = served.server._server.lead
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with lead._lock:
            lead._add_thread_locked()
    assert "No thread to relieve" in caplog.text
    assert served.get("/plain") == b"GET"
    served.app.release.set()
    ask.join(LONG_S)


def test_an_error_of_the_application_is_answered(served: Served) -> None:
    answer = served.raw(b"GET /failing HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"not meant" not in answer


def test_nonsense_is_refused(served: Served) -> None:
    assert served.raw(b"GET\r\n\r\n").startswith(b"HTTP/1.0 400 ")
    assert served.get("/plain") == b"GET"


def test_clients_that_go_away_leave_nothing_behind(served: Served) -> None:
    for _ in range(50):
        with socket.create_connection(("127.0.0.1", served.port)) as client:
            client.sendall(b"GET /plain HTTP/1.1\r\nHost: h\r\n\r\n")
    assert served.get("/plain") == b"GET"
    lead = served.server._server.lead
    wait_until(lambda: len(served.server._map) == 2)  # the listening socket and the trigger
    wait_until(lambda: len(lead._watching) == 2)


def test_beyond_the_limit_connections_wait_for_others_to_close(served: Served) -> None:
    served.server._server.adj.connection_limit = 4  # of which two are the server's own
    kept = [served.connect() for _ in range(2)]
    for connection in kept:
        connection.request("GET", "/plain")
        assert connection.getresponse().read() == b"GET"
    answers: list[bytes] = []
    late = threading.Thread(target=lambda: answers.append(served.get("/plain")))
    late.start()
    late.join(0.2)
    assert not answers
    kept[0].close()
    late.join(LONG_S)
    assert answers == [b"GET"]
    kept[1].close()


def test_the_end_lets_answers_under_way_end() -> None:
    app = App()
    served = Served(app)
    slow = [served.in_background("/slow"), served.in_background("/slow", "POST")]
    ending = threading.Thread(target=served.server.stop)
    ending.start()
    app.release.set()
    for thread, answers in slow:
        thread.join(LONG_S)
        assert answers == [b"done"]
    ending.join(LONG_S)
    assert not ending.is_alive()
    assert not [t for t in threading.enumerate() if t in served.server._server.lead._threads]
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", served.port), timeout=1)


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /plain HT", b"POST /plain HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nab"],
)
def test_those_who_never_finish_a_request_keep_nobody_out(
    served: Served, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    """However many there are: the longest unfinished make room, and who is between two stays."""
    monkeypatch.setattr(http_server, "CROWD", 20)
    served.server._server.adj.connection_limit = 40
    kept = served.connect()
    kept.request("GET", "/plain")
    assert kept.getresponse().read() == b"GET"
    unfinished = []
    try:
        for _ in range(100):
            client = socket.create_connection(("127.0.0.1", served.port), timeout=LONG_S)
            client.sendall(sent)
            unfinished.append(client)
            if len(unfinished) % 20 == 0:
                assert served.get("/plain", "POST") == b"POST"
        kept.request("GET", "/plain")
        assert kept.getresponse().read() == b"GET"
        assert unfinished[0].recv(1) == b""
        wait_until(lambda: len(served.server._server.active_channels) <= 20)
    finally:
        for client in (*unfinished, kept):
            client.close()
