"""Peers that hang up, break off, stall or come in crowds."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from proxy_tools import (
    Client,
    EchoServer,
    ProxyProcess,
    RawServer,
    eventually,
    free_port,
    reset,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module")
def proxy() -> Iterator[ProxyProcess]:
    with ProxyProcess("--default-target", f"http://127.0.0.1:{free_port()}") as process:
        yield process


def descriptors(proxy: ProxyProcess) -> int:
    return len(os.listdir(f"/proc/{proxy.process.pid}/fd"))


def ask(client: Client, data: bytes = GET):  # type: ignore[no-untyped-def]
    client.send(data)
    return client.answer()


# -- targets -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_target_that_leaves_without_an_answer_is_503(
    proxy: ProxyProcess, how: str, method: bytes
) -> None:
    def serve(client: Client) -> None:
        client.until(b"\r\n\r\n")
        if how == "reset":
            reset(client.sock)

    with RawServer(serve) as server:
        proxy.add("/x", server.url)
        with Client(proxy.port) as client:
            data = b"%b /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n" % method
            for _ in range(2):
                assert ask(client, data).status == 503
        # A fresh connection that fails is no reason to ask again.
        assert server.accepted == 2


@pytest.mark.parametrize("how", ["close", "reset"])
def test_target_that_leaves_in_the_middle_ends_the_client(proxy: ProxyProcess, how: str) -> None:
    def serve(client: Client) -> None:
        client.until(b"\r\n\r\n")
        client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        if how == "reset":
            reset(client.sock)

    with RawServer(serve) as server:
        proxy.add("/x", server.url)
        with Client(proxy.port) as client:
            client.send(GET)
            # A reset may overtake the data; the client is never left waiting.
            assert client.rest().endswith((b"half", b" /x\n", b"</html>\n"))


def test_kept_connection_that_died_is_not_noticed_by_the_client(proxy: ProxyProcess) -> None:
    """The target hangs up after each answer without having said so."""

    def serve(client: Client) -> None:
        client.until(b"\r\n\r\n")
        client.send(OK)

    with RawServer(serve) as server:
        proxy.add("/x", server.url)
        with Client(proxy.port) as client:
            for _ in range(50):
                assert ask(client).status == 200
                data = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
                assert ask(client, data).status in (200, 503)


def test_early_answer_reaches_a_client_that_still_sends(proxy: ProxyProcess) -> None:
    """The target refuses an upload by its head alone and hangs up."""

    def serve(client: Client) -> None:
        client.until(b"\r\n\r\n")
        client.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")

    with RawServer(serve) as server:
        proxy.add("/x", server.url)
        with Client(proxy.port) as client:
            client.send(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
            try:
                for _ in range(100):
                    client.send(b"x" * 100_000)
            except ConnectionError:
                pass
            assert client.answer().status == 413


def test_target_names_are_looked_up_and_missing_ones_are_503(proxy: ProxyProcess) -> None:
    with EchoServer() as echo:
        proxy.add("/x", f"http://localhost:{echo.port}")
        assert proxy.get("/x").status == 200
    proxy.add("/x", "http://no-such-host.invalid:80")
    assert proxy.get("/x").status == 503


def test_silent_target_is_503_after_the_proxy_timeout() -> None:
    def serve(client: Client) -> None:
        client.until(b"\r\n\r\n")
        client.receive()

    with RawServer(serve) as server:
        with ProxyProcess("--proxy-timeout", "100", "--default-target", server.url) as proxy:
            start = time.monotonic()
            assert proxy.get("/").status == 503
            assert time.monotonic() - start < 2


# -- clients -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "reset"])
def test_client_that_leaves_frees_the_target(proxy: ProxyProcess, how: str) -> None:
    ended = []

    def serve(client: Client) -> None:
        client.until(b"\r\n\r\n")
        ended.append(client.rest())

    with RawServer(serve) as server:
        proxy.add("/x", server.url)
        client = Client(proxy.port)
        client.send(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
        eventually(lambda: server.accepted)
        if how == "reset":
            reset(client.sock)
        else:
            client.close()
        eventually(lambda: ended)


def test_client_that_leaves_during_a_download_frees_the_target(proxy: ProxyProcess) -> None:
    ended = []

    def serve(client: Client) -> None:
        client.until(b"\r\n\r\n")
        client.send(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                client.send(b"x" * 100_000)
        except OSError:
            ended.append(True)

    with RawServer(serve) as server:
        proxy.add("/x", server.url)
        with Client(proxy.port) as client:
            client.send(GET)
            client.receive()
        eventually(lambda: ended)


def test_head_must_arrive_in_time() -> None:
    with ProxyProcess("--header-timeout", "100") as proxy:
        with Client(proxy.port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost")
            assert client.answer().status == 408
            assert client.is_closed()
        with Client(proxy.port) as client:
            assert client.is_closed()


def test_header_time_is_not_extended_by_more_bytes() -> None:
    with ProxyProcess("--header-timeout", "300") as proxy, Client(proxy.port) as client:
        start = time.monotonic()
        with pytest.raises((ConnectionError, TimeoutError)):
            client.sock.settimeout(0.02)
            while time.monotonic() - start < 5:
                client.send(b"x")
                try:
                    if client.sock.recv(1000):
                        raise ConnectionError
                except TimeoutError:
                    pass
            raise AssertionError("still open")


def test_body_timeout_counts_silence_only() -> None:
    with EchoServer() as echo:
        with ProxyProcess("--body-timeout", "200", "--default-target", echo.url) as proxy:
            head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n"
            with Client(proxy.port) as client:
                client.send(head)
                for _ in range(20):
                    client.send(b"x")
                    threading.Event().wait(0.03)
                assert client.answer().status == 200
            with Client(proxy.port) as client:
                client.send(head + b"x")
                assert client.answer().status == 408
                assert client.is_closed()


def test_idle_client_is_closed_after_the_keep_alive_timeout() -> None:
    with EchoServer() as echo:
        with ProxyProcess("--keep-alive-timeout", "100", "--default-target", echo.url) as proxy:
            with Client(proxy.port) as client:
                assert ask(client).status == 200
                assert client.is_closed()


def test_client_timeout_drops_a_request_without_an_answer() -> None:
    def serve(client: Client) -> None:
        client.until(b"\r\n\r\n")
        client.receive()

    with RawServer(serve) as server:
        with ProxyProcess("--timeout", "100", "--default-target", server.url) as proxy:
            with Client(proxy.port) as client:
                client.send(GET)
                assert client.is_closed()


def test_idle_tunnel_is_closed_after_its_timeout() -> None:
    def serve(client: Client) -> None:
        client.until(b"\r\n\r\n")
        client.send(b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: t\r\n\r\n")
        client.receive()

    with RawServer(serve) as server:
        with ProxyProcess("--tunnel-timeout", "100", "--default-target", server.url) as proxy:
            with Client(proxy.port) as client:
                client.send(
                    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: t\r\n\r\n"
                )
                assert client.head().status == 101
                assert client.is_closed()


# -- crowds --------------------------------------------------------------------------------


def test_slow_clients_do_not_slow_a_normal_one(proxy: ProxyProcess) -> None:
    with EchoServer() as echo:
        proxy.add("/x", echo.url)
        slow = [Client(proxy.port) for _ in range(300)]
        for number, client in enumerate(slow):
            client.send(
                (b"GET /x HTT", b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx")[
                    number % 2
                ]
            )
        start = time.monotonic()
        with Client(proxy.port) as client:
            for _ in range(50):
                assert ask(client).status == 200
        assert time.monotonic() - start < 2
        for client in slow:
            client.close()


def test_nothing_is_leaked(proxy: ProxyProcess) -> None:
    def serve(client: Client) -> None:
        client.until(b"\r\n\r\n")
        client.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")

    with RawServer(serve) as server:
        proxy.add("/x", server.url)
        assert proxy.get("/x").status == 200
        before = descriptors(proxy)
        clients = [Client(proxy.port) for _ in range(100)]
        for number, client in enumerate(clients):
            client.send([GET, GET[:9], GET * 3, b"nonsense\r\n\r\n"][number % 4])
        for client in clients[:50]:
            reset(client.sock)
        for client in clients[50:]:
            client.close()
        eventually(lambda: descriptors(proxy) <= before)


def test_total_limit_makes_clients_wait_and_idle_ones_give_way() -> None:
    with EchoServer() as echo:
        with ProxyProcess(
            *("--max-connections", "4", "--default-target", echo.url),
            *("--keep-alive-timeout", "100000"),
        ) as proxy:
            half = [Client(proxy.port) for _ in range(4)]
            for client in half:
                client.send(GET[:9])
            late = Client(proxy.port)
            late.send(GET)
            late.sock.settimeout(0.3)
            with pytest.raises(TimeoutError):
                late.receive()
            half[0].close()
            late.sock.settimeout(10)
            assert late.answer().status == 200
            # Now one of the four is between requests: it gives way.
            later = Client(proxy.port)
            assert ask(later).status == 200
            assert late.is_closed()
            for client in (*half, late, later):
                client.close()


def test_limit_per_address_refuses() -> None:
    with EchoServer() as echo:
        with ProxyProcess("--max-connections-per-ip", "2", "--default-target", echo.url) as proxy:
            first, second = Client(proxy.port), Client(proxy.port)
            assert ask(first).status == ask(second).status == 200
            with Client(proxy.port) as third:
                assert third.answer().status == 503
                assert third.is_closed()
            first.close()

            def is_served() -> bool:
                with Client(proxy.port) as client:
                    return ask(client).status == 200

            eventually(is_served)
            second.close()


def test_without_descriptors_accepting_pauses_and_goes_on() -> None:
    with EchoServer() as echo, ProxyProcess("--default-target", echo.url) as proxy:
        pid = proxy.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        # Below what the proxy has worked out for itself at its start.
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (descriptors(proxy) + 20, before[1]))
        crowd = [Client(proxy.port) for _ in range(60)]
        for client in crowd:
            client.send(GET[:9])
        eventually(lambda: "not accepting for now" in proxy.log())
        start = os.times()
        threading.Event().wait(0.5)
        used = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        threading.Event().wait(0.5)
        later = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        assert int(later[11]) + int(later[12]) - int(used[11]) - int(used[12]) <= 10, start
        for client in crowd:
            client.close()
        with Client(proxy.port) as client:
            assert ask(client).status == 200


def test_output_that_nobody_reads_does_not_stop_the_proxy() -> None:
    """More errors than fit into a pipe, with the pipe left unread."""
    from proxy_tools import STARTER

    port, api_port = free_port(), free_port()
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", STARTER, "--ip", "127.0.0.1", "--port", str(port)]
        + ["--api-ip", "127.0.0.1", "--api-port", str(api_port), "--log-level", "debug"],
        stdout=subprocess.PIPE,
    )
    try:

        def is_up() -> bool:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                return False
            return True

        eventually(is_up)
        with Client(port) as client:
            data = b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * 8000)
            for _ in range(60):
                assert ask(client, data).status == 404
    finally:
        process.terminate()
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(10) == 2
