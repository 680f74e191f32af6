"""Upgrades: WebSocket and raw tunnels through the proxy."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
from collections.abc import Iterator

import pytest
from proxy_tools import Client, EchoServer, ProxyProcess, RawServer, eventually, free_port
from websockets.sync.client import connect
from websockets.sync.server import serve

HANDSHAKE = (
    b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: test\r\n"
    b"Sec-WebSocket-Key: x\r\n\r\n"
)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n"


@pytest.fixture(scope="module")
def proxy() -> Iterator[ProxyProcess]:
    with ProxyProcess() as process:
        yield process


def echo_raw(client: Client) -> None:
    """Switch protocols, then send back whatever comes, until the end."""
    head = client.until(b"\r\n\r\n")
    assert b"Connection: Upgrade\r\nUpgrade: test\r\n" in head
    client.send(SWITCH)
    while data := client.receive():
        client.send(data)


def open_tunnel(proxy: ProxyProcess, path: bytes, behind: bytes = b"") -> Client:
    client = Client(proxy.port)
    client.send(HANDSHAKE % path + behind)
    assert client.head().status == 101
    return client


def test_websocket_messages_pass_both_ways(proxy: ProxyProcess) -> None:
    def handler(socket) -> None:  # type: ignore[no-untyped-def]
        for message in socket:
            socket.send(message)

    with serve(handler, "127.0.0.1", 0, max_size=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        port = server.socket.getsockname()[1]
        proxy.add("/ws", f"http://127.0.0.1:{port}")
        url = f"ws://127.0.0.1:{proxy.port}/ws"
        with connect(url, max_size=None, compression=None) as client:
            client.send("hello")
            assert client.recv() == "hello"
            big = os.urandom(3_000_000)
            client.send(big)
            assert client.recv() == big
        server.shutdown()
        thread.join()
        proxy.api("DELETE", "/ws")


def test_bytes_behind_the_handshake_are_not_lost(proxy: ProxyProcess) -> None:
    with RawServer(echo_raw) as server:
        proxy.add("/raw", server.url)
        with open_tunnel(proxy, b"/raw", b"at once") as client:
            assert client.exactly(7) == b"at once"
        proxy.api("DELETE", "/raw")


def test_bytes_behind_the_101_are_not_lost(proxy: ProxyProcess) -> None:
    def serve_raw(client: Client) -> None:
        client.until(b"\r\n\r\n")
        client.send(SWITCH + b"hello")
        client.receive()

    with RawServer(serve_raw) as server:
        proxy.add("/raw", server.url)
        with open_tunnel(proxy, b"/raw") as client:
            assert client.exactly(5) == b"hello"
        proxy.api("DELETE", "/raw")


def test_half_close_passes_and_the_other_direction_goes_on(proxy: ProxyProcess) -> None:
    def serve_raw(client: Client) -> None:
        client.until(b"\r\n\r\n")
        client.send(SWITCH)
        assert client.rest() == b"question"
        client.send(b"answer")

    with RawServer(serve_raw) as server:
        proxy.add("/raw", server.url)
        with open_tunnel(proxy, b"/raw", b"question") as client:
            client.sock.shutdown(1)
            assert client.rest() == b"answer"
        proxy.api("DELETE", "/raw")


def test_end_of_the_client_ends_the_target(proxy: ProxyProcess) -> None:
    ended: list[bytes] = []

    def serve_raw(client: Client) -> None:
        client.until(b"\r\n\r\n")
        client.send(SWITCH)
        ended.append(client.rest())

    with RawServer(serve_raw) as server:
        proxy.add("/raw", server.url)
        open_tunnel(proxy, b"/raw").close()
        eventually(lambda: ended)
        proxy.api("DELETE", "/raw")


def test_slow_reader_does_not_make_the_proxy_hold_its_data(proxy: ProxyProcess) -> None:
    total = 50_000_000

    def serve_raw(client: Client) -> None:
        client.until(b"\r\n\r\n")
        client.send(SWITCH)
        client.send(b"x" * total)

    with RawServer(serve_raw) as server:
        proxy.add("/raw", server.url)
        with open_tunnel(proxy, b"/raw") as client:
            received = 0
            while received < total:
                received += len(client.receive())
            assert client.is_closed()
        proxy.api("DELETE", "/raw")
    status = f"/proc/{proxy.process.pid}/status"
    if os.path.exists(status):
        with open(status) as file:
            peak = next(line for line in file if line.startswith("VmHWM"))
        assert int(peak.split()[1]) < 40 * 1024


def test_end_right_behind_data_is_noticed(proxy: ProxyProcess) -> None:
    """Both come in one event of an edge-triggered socket, over and over, from either side."""

    def serve_raw(client: Client) -> None:
        client.until(b"\r\n\r\n")
        client.send(SWITCH)
        assert client.exactly(4) == b"ping"
        client.send(b"pong")

    with RawServer(serve_raw) as server:
        proxy.add("/raw", server.url)
        for _ in range(50):
            with open_tunnel(proxy, b"/raw") as client:
                client.send(b"ping")
                assert client.rest() == b"pong"
        proxy.api("DELETE", "/raw")
    received: list[bytes] = []

    def take(client: Client) -> None:
        client.until(b"\r\n\r\n")
        client.send(SWITCH)
        received.append(client.rest())

    with RawServer(take) as server:
        proxy.add("/raw", server.url)
        for number in range(50):
            client = open_tunnel(proxy, b"/raw")
            client.send(b"ping")
            client.close()
            eventually(lambda number=number: len(received) == number + 1)  # type: ignore[misc]
        assert received == [b"ping"] * 50
        proxy.api("DELETE", "/raw")


def test_urgent_data_does_not_hold_up_what_follows(proxy: ProxyProcess) -> None:
    """A read stops at urgent data although more is there."""
    with RawServer(echo_raw) as server:
        proxy.add("/raw", server.url)
        with open_tunnel(proxy, b"/raw") as client:
            for _ in range(20):
                client.send(b"before")
                client.sock.send(b"!", socket.MSG_OOB)
                client.send(b"behind")
                seen = b""
                while not seen.endswith(b"behind"):
                    seen += client.receive()
                assert seen.startswith(b"before")
        proxy.api("DELETE", "/raw")


def test_tunnel_that_is_full_both_ways_loses_nothing(proxy: ProxyProcess) -> None:
    """Far more than one read or one socket's buffer, while the other side sends as much."""
    size = 20_000_000

    def serve_raw(client: Client) -> None:
        client.until(b"\r\n\r\n")
        client.send(SWITCH)
        echo_all(client)

    def echo_all(client: Client) -> None:
        while data := client.receive():
            client.send(data)

    with RawServer(serve_raw) as server:
        proxy.add("/raw", server.url)
        data = os.urandom(1_000_000) * (size // 1_000_000)
        with open_tunnel(proxy, b"/raw") as client:
            sender = threading.Thread(target=client.send, args=(data,))
            sender.start()
            digest = hashlib.sha256()
            left = size
            while left:
                piece = client.receive()
                assert piece
                digest.update(piece)
                left -= len(piece)
            sender.join()
            assert digest.digest() == hashlib.sha256(data).digest()
        proxy.api("DELETE", "/raw")


def test_refused_upgrade_is_an_ordinary_response(proxy: ProxyProcess) -> None:
    with EchoServer() as echo:
        proxy.add("/plain", echo.url)
        with Client(proxy.port) as client:
            client.send(HANDSHAKE % b"/plain?status=403" + b"frames")
            answer = client.answer()
            assert answer.status == 403
            assert answer.field("connection") == "close"
            names = [key.lower() for key, _ in answer.json()["headers"]]
            assert names.count("upgrade") == 1
            assert client.is_closed()
        proxy.api("DELETE", "/plain")


def test_upgrade_without_connection_upgrade_is_no_upgrade(proxy: ProxyProcess) -> None:
    with EchoServer() as echo:
        proxy.add("/plain", echo.url)
        with Client(proxy.port) as client:
            client.send(b"GET /plain HTTP/1.1\r\nHost: a\r\nUpgrade: test\r\n\r\n")
            names = [key.lower() for key, _ in client.answer().json()["headers"]]
            assert "upgrade" not in names
        proxy.api("DELETE", "/plain")


def test_switch_that_nobody_asked_for_is_503(proxy: ProxyProcess) -> None:
    def serve_raw(client: Client) -> None:
        client.until(b"\r\n\r\n")
        client.send(SWITCH)
        client.receive()

    with RawServer(serve_raw) as server:
        proxy.add("/raw", server.url)
        assert proxy.get("/raw").status == 503
        proxy.api("DELETE", "/raw")


def test_upgrade_errors_are_bare(proxy: ProxyProcess) -> None:
    proxy.add("/gone", f"http://127.0.0.1:{free_port()}")
    for path, status in ((b"/nothing", 404), (b"/gone", 503)):
        with Client(proxy.port) as client:
            client.send(HANDSHAKE % path)
            answer = client.answer()
            assert (answer.status, answer.field("content-length")) == (status, "0")
            assert client.is_closed()
    proxy.api("DELETE", "/gone")


def test_data_in_a_tunnel_is_activity(proxy: ProxyProcess) -> None:
    def activity() -> str:
        return json.loads(proxy.api("GET", "/raw")[1])["last_activity"]

    with RawServer(echo_raw) as server:
        proxy.add("/raw", server.url)
        with open_tunnel(proxy, b"/raw") as client:
            before = activity()
            client.send(b"x")
            client.exactly(1)
            assert eventually(lambda: activity() > before)
        proxy.api("DELETE", "/raw")
