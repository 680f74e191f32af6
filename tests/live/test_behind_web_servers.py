"""The examples of docs/behind-a-web-server.md, run with the real web servers before a hub."""

from __future__ import annotations

import base64
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT, HubProcess, free_port, make_certificate, until

DOC = ROOT / "docs" / "behind-a-web-server.md"
HOST = "localhost"


def example(kind: str) -> str:
    """Return the example of that kind as the page shows it."""
    match = re.search(rf"<!-- {kind} -->\n```\w+\n(.*?)```", DOC.read_text(), re.DOTALL)
    assert match, kind
    return match[1]


def replaced(text: str, changes: dict[str, str]) -> str:
    """Return an example with each of these pieces, which must stand in it, replaced."""
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


@pytest.fixture
def certificate(tmp_path):
    return make_certificate(tmp_path, HOST)


@pytest.fixture
def hub(tmp_path):
    """A hub that is told it is reached through a web server, and that server's port."""
    port, own = free_port(), free_port()
    settings = {
        "port": own,
        "public_url": f"https://{HOST}:{port}/",
        "trusted_downstream_ips": ["127.0.0.1"],
    }
    hub = HubProcess(tmp_path / "hub", {"JupyterHub": settings})
    hub.wait_ready(url=f"http://127.0.0.1:{own}/")
    hub.front = port
    yield hub
    assert hub.stop() == 0, hub.text
    assert "Traceback" not in hub.text, hub.text


@pytest.fixture
def run(tmp_path):
    """Start a web server; it ends with the test."""
    running = []

    def start(command: list[str], port: int, **env: str) -> None:
        with open(tmp_path / "web-server.log", "wb") as log:
            running.append(
                subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **env})
            )

        def listens() -> bool:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return True

        until(listens)

    yield start
    for process in running:
        process.terminate()
        process.wait(10)


def walk(hub: HubProcess, cert: Path) -> None:
    """Log in, start a server, open its WebSocket and log out, all through the web server."""
    url = f"https://{HOST}:{hub.front}"
    browser = hub.browser()
    browser.base, browser.verify = url, str(cert)
    assert browser.login("ana").status_code == 302
    cookies = {cookie.name: cookie for cookie in browser.cookies}
    assert cookies["jupyterhub-hub-login"].secure
    browser.start_server("ana")
    page = browser.follow("/user/ana/")
    assert '"name": "ana"' in page.text
    assert '"base_url": "/hub/"' in browser.get("/hub/home").text
    hub.wait_text(r"ana logged in from 127\.0\.0\.1")

    context = ssl.create_default_context(cafile=str(cert))
    with (
        socket.create_connection(("127.0.0.1", hub.front), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname=HOST) as upgraded,
    ):
        key = base64.b64encode(os.urandom(16)).decode()
        sent = "; ".join(f"{cookie.name}={cookie.value}" for cookie in browser.cookies)
        upgraded.sendall(
            f"GET /user/ana/ws HTTP/1.1\r\nHost: {HOST}:{hub.front}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
            f"Cookie: {sent}\r\n\r\n".encode()
        )
        answer = upgraded.recv(4096).decode("latin-1")
    assert " 101 " in answer.split("\r\n")[0], answer
    browser.submit("/hub/stop/ana", {}, "/hub/home")


@pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed")
def test_example_for_nginx_works(hub, tmp_path, certificate, run):
    key, cert = certificate
    server = replaced(
        example("nginx"),
        {
            "listen 443 ssl;": f"listen 127.0.0.1:{hub.front} ssl;",
            "hub.example.org;": f"{HOST};",
            "/etc/letsencrypt/live/hub.example.org/fullchain.pem": str(cert),
            "/etc/letsencrypt/live/hub.example.org/privkey.pem": str(key),
            "http://127.0.0.1:8000": hub.url.rstrip("/"),
        },
    )
    places = "".join(
        f"{kind}_temp_path {tmp_path}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = tmp_path / "nginx.conf"
    config.write_text(
        f"daemon off; pid {tmp_path}/nginx.pid; error_log {tmp_path}/error.log; worker_processes 1;"
        f"events {{}}\nhttp {{ access_log off; {places}\n{server}\n}}\n"
    )
    tmp_path.chmod(0o755)
    run(["nginx", "-c", str(config), "-e", str(tmp_path / "error.log")], hub.front)
    walk(hub, cert)


@pytest.mark.skipif(not shutil.which("caddy"), reason="Caddy is not installed")
def test_example_for_caddy_works(hub, tmp_path, certificate, run):
    key, cert = certificate
    site = replaced(
        example("caddy"),
        {
            "hub.example.org {": f"https://{HOST}:{hub.front} {{\n    tls {cert} {key}",
            "127.0.0.1:8000": hub.url.split("//")[1].rstrip("/"),
        },
    )
    config = tmp_path / "Caddyfile"
    config.write_text("{\n    admin off\n    auto_https disable_redirects\n}\n" + site)
    home = str(tmp_path / "caddy")
    run(
        ["caddy", "run", "--config", str(config), "--adapter", "caddyfile"],
        hub.front,
        HOME=home,
        XDG_DATA_HOME=home,
        XDG_CONFIG_HOME=home,
    )
    walk(hub, cert)


def test_minihubs_side_of_the_examples_is_sound(tmp_path):
    """The YAML of the page is a configuration, with the options it names."""
    block = re.search(r"```yaml\n(.*?)```", DOC.read_text(), re.DOTALL)[1]
    (tmp_path / "minihub.yaml").write_text(block)
    done = subprocess.run(
        [sys.executable, str(ROOT / "minihub" / "__main__.py"), "config", "check"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
