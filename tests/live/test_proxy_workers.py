"""Several worker processes on one port behave as one proxy."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from proxy_tools import (
    DEADLINE,
    Client,
    EchoServer,
    ProxyProcess,
    RawServer,
    eventually,
    request,
)
from test_proxy_api import run


@pytest.fixture(scope="module")
def echo() -> Iterator[EchoServer]:
    with EchoServer() as server:
        yield server


@pytest.fixture(scope="module")
def proxy(echo: EchoServer) -> Iterator[ProxyProcess]:
    with ProxyProcess("--workers", "3", "--default-target", echo.url) as process:
        yield process


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_change_is_seen_by_every_worker_when_it_is_answered(
    proxy: ProxyProcess, echo: EchoServer
) -> None:
    with EchoServer("other") as other:
        for _ in range(10):
            proxy.add("/a", other.url)
            names = {proxy.get("/a").json()["name"] for _ in range(12)}
            assert names == {"other"}
            assert proxy.api("DELETE", "/a")[0] == 204
            names = {proxy.get("/a").json()["name"] for _ in range(12)}
            assert names == {"echo"}


def test_activity_and_counters_are_added_up(proxy: ProxyProcess, echo: EchoServer) -> None:
    proxy.add("/b", echo.url)
    before = json.loads(proxy.api("GET", "/b")[1])["last_activity"]
    for _ in range(30):
        assert proxy.get("/b?status=404").status == 404
    assert json.loads(proxy.api("GET", "/b")[1])["last_activity"] == before
    proxy.get("/b")
    eventually(lambda: json.loads(proxy.api("GET", "/b")[1])["last_activity"] > before)
    stats = request(proxy.api_port, "GET", "/api/stats").json()
    assert stats["routes"]["/b"]["requests"] == 31
    proxy.api("DELETE", "/b")


def held_by(pid: int, clients: list[Client]) -> int:
    """Return how many of the clients' connections a process has accepted."""
    sockets = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            sockets.add(os.readlink(f"/proc/{pid}/fd/{name}"))
        except FileNotFoundError:
            continue  # closed meanwhile
    ports = {client.sock.getsockname()[1] for client in clients}
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return sum(
        f"socket:[{row[9]}]" in sockets and int(row[2].partition(":")[2], 16) in ports
        for row in rows
    )


def test_work_is_shared(proxy: ProxyProcess) -> None:
    workers = children(proxy.process.pid)
    assert len(workers) == 3
    held = []
    try:
        # That one of three gets none of 120 is less likely than one in 10^20.
        for _ in range(120):
            client = Client(proxy.port)
            held.append(client)
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.answer().status == 200
        counts = [held_by(pid, held) for pid in workers]
        assert sum(counts) == 120
        assert all(counts), counts
    finally:
        for client in held:
            client.close()


def test_dead_worker_is_replaced_with_the_whole_table(
    proxy: ProxyProcess, echo: EchoServer
) -> None:
    routes = {f"/user/{n}": {"target": echo.url} for n in range(500)}
    assert proxy.api("POST", "", {"routes": routes})[0] == 201
    old = children(proxy.process.pid)
    for pid in old:
        os.kill(pid, signal.SIGKILL)

    def are_replaced() -> bool:
        living = children(proxy.process.pid)
        return len(living) == 3 and not set(living) & set(old)

    eventually(are_replaced)
    for n in range(0, 500, 25):
        assert proxy.get(f"/user/{n}/x").json()["path"] == f"/user/{n}/x"
    proxy.add("/after", echo.url)
    assert proxy.get("/after").status == 200


def test_worker_that_hangs_is_replaced(echo: EchoServer) -> None:
    with ProxyProcess("--workers", "2", "--default-target", echo.url) as proxy:
        stuck = children(proxy.process.pid)[0]
        os.kill(stuck, signal.SIGSTOP)
        proxy.add("/a", echo.url)

        def is_replaced() -> bool:
            living = children(proxy.process.pid)
            return len(living) == 2 and stuck not in living

        eventually(is_replaced)
        for _ in range(20):
            assert proxy.get("/a").status == 200


def test_workers_end_with_the_control_process(echo: EchoServer) -> None:
    with ProxyProcess("--workers", "2", "--default-target", echo.url) as proxy:
        workers = children(proxy.process.pid)
        proxy.process.kill()
        proxy.process.wait()
        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


def test_limits_are_counted_over_all_workers(echo: EchoServer) -> None:
    with ProxyProcess(
        *("--workers", "2", "--max-connections-per-ip", "5", "--default-target", echo.url)
    ) as proxy:
        held = []
        for _ in range(5):
            client = Client(proxy.port)
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.answer().status == 200
            held.append(client)
        for _ in range(6):
            with Client(proxy.port) as client:
                client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                assert client.answer().status == 503
        # A worker that dies takes its counts along.
        for pid in children(proxy.process.pid):
            os.kill(pid, signal.SIGKILL)

        def is_served() -> bool:
            try:
                return proxy.get("/").status == 200
            except (OSError, AssertionError):
                return False

        eventually(is_served)
        for client in held:
            client.close()


def test_total_limit_is_counted_over_all_workers(echo: EchoServer) -> None:
    with ProxyProcess(
        *("--workers", "2", "--max-connections", "6", "--default-target", echo.url)
    ) as proxy:
        held = [Client(proxy.port) for _ in range(6)]
        for client in held:
            client.send(b"GET / HT")

        def count() -> int:
            return request(proxy.api_port, "GET", "/api/stats").json()["proxy"]["clients"]

        eventually(lambda: count() == 6)
        # Whichever worker gets the next one, it has to wait.
        late = [Client(proxy.port) for _ in range(4)]
        for client in late:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            client.sock.settimeout(0.2)
            with pytest.raises(TimeoutError):
                client.receive()
        for client in held:
            client.close()
        for client in late:
            client.sock.settimeout(DEADLINE)
            assert client.answer().status == 200
            client.close()


def test_tunnels_of_a_route_are_closed_in_every_worker(proxy: ProxyProcess) -> None:
    def serve(client: Client) -> None:
        client.until(b"\r\n\r\n")
        client.send(b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: t\r\n\r\n")
        client.receive()

    with RawServer(serve) as server:
        proxy.add("/t", server.url)
        opened = []
        for _ in range(12):
            client = Client(proxy.port)
            client.send(b"GET /t HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: t\r\n\r\n")
            assert client.head().status == 101
            opened.append(client)
        answer = request(proxy.api_port, "DELETE", "/api/tunnels/t")
        assert answer.json() == {"closed": 12}
        for client in opened:
            assert client.is_closed()
            client.close()
        proxy.api("DELETE", "/t")


def test_unix_socket_is_shared_by_all_workers(echo: EchoServer, tmp_path: Path) -> None:
    from test_proxy_cli import unix_client

    path = tmp_path / "public"
    with ProxyProcess(
        *("--workers", "2", "--socket", str(path), "--default-target", echo.url),
        *("--api-ip", "127.0.0.1", "--api-port", "0"),
        ports=False,
    ):
        for _ in range(20):
            with unix_client(path) as client:
                client.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
                assert client.answer().json()["path"] == "/x"


def test_taken_port_is_noticed_although_workers_share_one(proxy: ProxyProcess) -> None:
    done = run("--ip", "127.0.0.1", "--port", str(proxy.port), "--workers", "2")
    assert done.returncode == 1
    assert "is in use by another program" in done.stderr


def test_many_clients_at_once(proxy: ProxyProcess) -> None:
    failures = []

    def use() -> None:
        for number in range(20):
            if proxy.get(f"/{number}").json()["path"] != f"/{number}":
                failures.append(number)

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
