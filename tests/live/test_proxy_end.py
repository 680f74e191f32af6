"""The end of a proxy process: drain on signals, hand-over to a new process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
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
    request,
)

UPGRADE = b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: t\r\n\r\n"


class SlowServer:
    """A target that answers when told, and echoes in tunnels."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.asked = threading.Semaphore(0)
        self.server = RawServer(self._serve)
        self.url = self.server.url

    def _serve(self, client: Client) -> None:
        head = client.until(b"\r\n\r\n")
        if b"Upgrade: t" in head:
            client.send(b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: t\r\n\r\n")
            while data := client.receive():
                client.send(data)
            return
        self.asked.release()
        self.go.wait(10)
        client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow")

    def __enter__(self) -> SlowServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.go.set()
        self.server.close()


@pytest.fixture
def slow() -> Iterator[SlowServer]:
    with SlowServer() as server:
        yield server


def tunnel(port: int, path: bytes = b"/") -> Client:
    client = Client(port)
    client.send(UPGRADE % path)
    assert client.head().status == 101
    return client


def is_refused(port: int) -> bool:
    try:
        Client(port).close()
    except ConnectionError:
        return True
    return False


WORKERS = pytest.mark.parametrize("argv", [(), ("--workers", "2")], ids=["threads", "workers"])


@WORKERS
def test_sigterm_answers_what_is_in_flight_and_closes_the_rest(
    slow: SlowServer, argv: tuple[str, ...]
) -> None:
    with ProxyProcess(*argv, "--default-target", slow.url) as proxy:
        waiting, idle, tunneled = Client(proxy.port), Client(proxy.port), tunnel(proxy.port)
        waiting.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert slow.asked.acquire(timeout=10)
        proxy.process.send_signal(signal.SIGTERM)
        assert tunneled.is_closed()
        assert idle.is_closed()
        eventually(lambda: is_refused(proxy.port))
        slow.go.set()
        answer = waiting.answer()
        assert (answer.status, answer.body) == (200, b"slow")
        assert answer.field("connection") == "close"
        assert proxy.process.wait(5) == 2
        for client in (waiting, idle, tunneled):
            client.close()


@WORKERS
def test_drain_is_bounded(slow: SlowServer, argv: tuple[str, ...]) -> None:
    with ProxyProcess(*argv, "--drain-timeout", "200", "--default-target", slow.url) as proxy:
        with Client(proxy.port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert slow.asked.acquire(timeout=10)
            assert proxy.stop() == 2
            assert client.is_closed()


def test_second_signal_ends_at_once(slow: SlowServer) -> None:
    with ProxyProcess("--default-target", slow.url) as proxy, Client(proxy.port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert slow.asked.acquire(timeout=10)
        proxy.process.send_signal(signal.SIGINT)
        eventually(lambda: "Interrupted" in proxy.log())
        assert proxy.stop() == 2


# -- hand-over -----------------------------------------------------------------------------


def hand_over(proxy: ProxyProcess, pid_file: Path) -> int:
    """Make the proxy hand over and return the new process's id."""
    before = pid_file.read_text()
    os.kill(int(before), signal.SIGUSR2)
    eventually(lambda: pid_file.read_text() not in ("", before), proxy.log())
    new = int(pid_file.read_text())
    eventually(lambda: f"Process {new} serves" in proxy.log())
    return new


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def end(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: not is_running(pid))


@WORKERS
def test_hand_over_loses_no_request_and_cuts_no_tunnel(
    slow: SlowServer, argv: tuple[str, ...], tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    with EchoServer() as echo:
        with ProxyProcess(
            *argv, "--default-target", slow.url, "--pid-file", str(pid_file), token="secret"
        ) as proxy:
            eventually(pid_file.exists)
            proxy.add("/echo", echo.url, user="me")
            tunneled = tunnel(proxy.port)
            waiting = Client(proxy.port)
            waiting.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert slow.asked.acquire(timeout=10)
            requests_before = stats(proxy)["proxy"]["requests_web"]

            failures: list[object] = []
            finished = threading.Event()
            counted = [0]

            def use() -> None:
                while not finished.is_set():
                    try:
                        answer = request(proxy.port, "GET", "/echo")
                        if answer.status != 200:
                            failures.append(answer.status)
                    except (OSError, AssertionError) as exc:
                        failures.append(exc)
                    counted[0] += 1

            user = threading.Thread(target=use)
            user.start()
            try:
                new = hand_over(proxy, pid_file)
                seen = counted[0]
                eventually(lambda: counted[0] > seen + 20)
            finally:
                finished.set()
                user.join()
            assert not failures
            assert new != proxy.process.pid
            # The table, its data and the counters have come along.
            assert proxy.routes()["/echo"]["user"] == "me"
            assert stats(proxy)["proxy"]["requests_web"] == requests_before + counted[0]
            # The old process still serves its tunnel and counts for the new one.
            before = str(proxy.routes()["/"]["last_activity"])
            tunneled.send(b"still here")
            assert tunneled.exactly(10) == b"still here"
            eventually(lambda: str(proxy.routes()["/"]["last_activity"]) > before)
            assert stats(proxy)["proxy"]["tunnels"] == 1
            slow.go.set()
            assert waiting.answer().body == b"slow"
            waiting.close()
            assert is_running(proxy.process.pid)
            tunneled.close()
            assert proxy.process.wait(10) == 0
            eventually(lambda: stats(proxy)["proxy"]["tunnels"] == 0)
            assert pid_file.read_text() == str(new)
            assert proxy.routes()["/echo"]["user"] == "me"
            end(new)
            assert not pid_file.exists()


def stats(proxy: ProxyProcess) -> dict:  # type: ignore[type-arg]
    headers = {"Authorization": "token secret"}
    return request(proxy.api_port, "GET", "/api/stats", headers).json()


def test_hand_over_twice_and_close_an_old_tunnel(slow: SlowServer, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with ProxyProcess(
        "--default-target", slow.url, "--pid-file", str(pid_file), token="secret"
    ) as proxy:
        eventually(pid_file.exists)
        tunneled = tunnel(proxy.port)
        second = hand_over(proxy, pid_file)
        third = hand_over(proxy, pid_file)
        assert len({proxy.process.pid, second, third}) == 3
        assert stats(proxy)["proxy"]["tunnels"] == 1
        answer = request(
            proxy.api_port, "DELETE", "/api/tunnels/", {"Authorization": "token secret"}
        )
        assert answer.json() == {"closed": 1}
        assert tunneled.is_closed()
        tunneled.close()
        assert proxy.process.wait(10) == 0
        eventually(lambda: not is_running(second))
        end(third)


def test_terminating_the_new_process_ends_the_old_one(slow: SlowServer, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with ProxyProcess("--default-target", slow.url, "--pid-file", str(pid_file)) as proxy:
        eventually(pid_file.exists)
        tunneled = tunnel(proxy.port)
        new = hand_over(proxy, pid_file)
        end(new)
        assert tunneled.is_closed()
        tunneled.close()
        assert proxy.process.wait(10) == 0


def test_new_process_that_fails_leaves_the_old_one_in_charge(
    slow: SlowServer, tmp_path: Path
) -> None:
    pages = tmp_path / "cert.pem"
    pid_file = tmp_path / "pid"
    from test_proxy_tls import files, make_certificate, tls_client, trusting

    make_certificate(tmp_path, "cert")
    with ProxyProcess(
        *files(tmp_path, "cert"), "--pid-file", str(pid_file), "--default-target", slow.url
    ) as proxy:
        eventually(pid_file.exists)
        context = trusting(tmp_path, "cert")
        pages.rename(tmp_path / "gone")
        os.kill(proxy.process.pid, signal.SIGUSR2)
        eventually(lambda: "did not become ready; going on" in proxy.log())
        (tmp_path / "gone").rename(pages)
        assert pid_file.read_text() == str(proxy.process.pid)
        proxy.add("/later", slow.url)
        assert "/later" in proxy.routes()
        slow.go.set()
        with tls_client(proxy.port, context) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.answer().body == b"slow"
        assert proxy.stop() == 2


def test_upgraded_file_takes_over(slow: SlowServer, tmp_path: Path, pyz: Path) -> None:
    """The built file is replaced under the running proxy: first by rubbish, then by a new one."""
    file, pid_file = tmp_path / "minihub.pyz", tmp_path / "pid"

    def replace(content: bytes) -> None:
        fresh = tmp_path / "fresh"
        fresh.write_bytes(content)
        fresh.rename(file)

    replace(pyz.read_bytes())
    port, api_port = free_port(), free_port()
    argv = ["--ip", "127.0.0.1", "--port", str(port), "--api-ip", "127.0.0.1"]
    argv += ["--api-port", str(api_port), "--pid-file", str(pid_file)]
    log = tmp_path / "log"
    with open(log, "wb") as out:
        old = subprocess.Popen(
            [sys.executable, str(file), "proxy", *argv, "--default-target", slow.url],
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        eventually(lambda: pid_file.exists() and "Proxy API at" in log.read_text())
        tunneled = tunnel(port)
        replace(b"rubbish" * 1000)
        old.send_signal(signal.SIGUSR2)
        eventually(lambda: "did not become ready; going on" in log.read_text())
        # What is loaded late, as TLS is, comes of the file that was started.
        answer = request(port, "GET", "/_chp_healthz")
        assert answer.status == 200
        body = b'{"target": "https://127.0.0.1:1"}'
        assert request(api_port, "POST", "/api/routes/tls", {}, body).status == 201
        assert request(port, "GET", "/tls").status == 503
        replace(pyz.read_bytes())
        old.send_signal(signal.SIGUSR2)
        eventually(lambda: pid_file.read_text() not in ("", str(old.pid)), log.read_text())
        new = int(pid_file.read_text())
        eventually(lambda: f"Process {new} serves" in log.read_text())
        assert request(port, "GET", "/tls").status == 503
        tunneled.send(b"still here")
        assert tunneled.exactly(10) == b"still here"
        tunneled.close()
        assert old.wait(10) == 0
        assert "[ConfigProxy] error: loop" not in log.read_text()
        end(new)
    finally:
        if old.poll() is None:
            old.kill()
            old.wait()


def test_unix_sockets_follow_a_hand_over(slow: SlowServer, tmp_path: Path) -> None:
    from test_proxy_cli import unix_client

    slow.go.set()
    pid_file, public, api = tmp_path / "pid", tmp_path / "public", tmp_path / "api"
    with ProxyProcess(
        *("--socket", str(public), "--api-socket", str(api), "--pid-file", str(pid_file)),
        *("--default-target", slow.url),
        ports=False,
    ) as proxy:
        eventually(pid_file.exists)
        new = hand_over(proxy, pid_file)
        assert proxy.process.wait(10) == 0
        with unix_client(public) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.answer().body == b"slow"
        with unix_client(api) as client:
            client.send(b"GET /api/routes HTTP/1.1\r\nHost: a\r\n\r\n")
            assert "/" in client.answer().json()
        end(new)
        assert not public.exists() and not api.exists()
