"""A proxy that starts again tells nobody that a running server is not there."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import contextmanager

import pytest
import requests
from harness import until
from proxy_tools import EchoServer, ProxyProcess

KEEP = {"JupyterHub": {"cleanup_servers": False, "cleanup_proxy": False}}
NAMES = [f"user-{number}" for number in range(6)]


@pytest.mark.parametrize("workers", ["0", "2"])
def test_wait_for_default_takes_nobody_before_there_is_a_default_route(workers):
    with EchoServer() as echo, ProxyProcess("--wait-for-default", "--workers", workers) as proxy:
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as client:
            client.sendall(b"GET /user/ada HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            client.settimeout(1)
            with pytest.raises(TimeoutError):
                client.recv(100)
            proxy.add("/user/ada", echo.url)
            with pytest.raises(TimeoutError):
                client.recv(100)
            proxy.add("/", "http://127.0.0.1:9")
            client.settimeout(60)
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")


@contextmanager
def visitors(url: str):
    """Yield what people who ask for their servers all the time are answered, by name."""
    seen: list[tuple[str, object]] = []
    ending = threading.Event()

    def ask(name: str) -> None:
        while not ending.is_set():
            try:
                answer = requests.get(f"{url}user/{name}/api", timeout=60, allow_redirects=False)
                seen.append((name, answer.status_code))
            except requests.RequestException:
                seen.append((name, "no answer"))
            time.sleep(0.01)

    threads = [threading.Thread(target=ask, args=(name,)) for name in NAMES]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        ending.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("killed", ["proxy", "both"])
def test_routes_are_back_before_the_port_answers(start_hub, killed):
    """Somebody may find nobody there for a moment, but never a page of another place."""
    hub = start_hub(KEEP)
    for name in NAMES:
        hub.browser(name).start_server(name)
    proxy = hub.proxy()["pid"]
    port = hub.url.rstrip("/").rpartition(":")[2]
    with visitors(hub.url) as seen:
        until(lambda: {name for name, _ in seen} == set(NAMES))
        os.kill(proxy, signal.SIGKILL)
        if killed == "both":
            hub.kill()
            hub = start_hub(
                {"JupyterHub": {**KEEP["JupyterHub"], "port": int(port)}}, directory=hub.directory
            )
        until(lambda: hub.proxy()["pid"] != proxy)
        before = len(seen)
        until(lambda: {name for name, what in seen[before:] if what == 200} == set(NAMES), 60)
    assert {what for _name, what in seen} <= {200, "no answer"}, set(seen)
