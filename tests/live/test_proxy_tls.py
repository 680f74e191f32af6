"""TLS on the public side, the API and towards targets."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from proxy_tools import Client, EchoServer, ProxyProcess, eventually


def make_certificate(directory: Path, name: str) -> None:
    """Write NAME.key and NAME.pem, a certificate that vouches for itself."""
    key, cert = directory / f"{name}.key", directory / f"{name}.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        + ["-nodes", "-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", f"/CN={name}"]
        + ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True,
        capture_output=True,
    )


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("certs")
    for name in ("one", "two", "client", "target"):
        make_certificate(directory, name)
    return directory


@pytest.fixture(scope="module")
def echo() -> Iterator[EchoServer]:
    with EchoServer() as server:
        yield server


def files(certs: Path, name: str, prefix: str = "--ssl") -> list[str]:
    return [
        f"{prefix}-key",
        str(certs / f"{name}.key"),
        f"{prefix}-cert",
        str(certs / f"{name}.pem"),
    ]


def trusting(certs: Path, name: str, client: str = "") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certs / f"{name}.pem"))
    if client:
        context.load_cert_chain(certs / f"{client}.pem", certs / f"{client}.key")
    return context


def tls_client(port: int, context: ssl.SSLContext) -> Client:
    raw = socket.create_connection(("127.0.0.1", port), 10)
    return Client(port, context.wrap_socket(raw, server_hostname="localhost"))


def get(port: int, context: ssl.SSLContext, path: bytes = b"/"):  # type: ignore[no-untyped-def]
    with tls_client(port, context) as client:
        client.send(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path)
        return client.answer()


def test_public_side_speaks_tls(certs: Path, echo: EchoServer) -> None:
    with ProxyProcess(*files(certs, "one"), "--default-target", echo.url) as proxy:
        assert f"Proxying https://127.0.0.1:{proxy.port} to" in proxy.log()
        headers = dict(get(proxy.port, trusting(certs, "one")).json()["headers"])
        assert headers["X-Forwarded-Proto"] == "https"
        assert headers["X-Forwarded-Port"] == "443"
        with Client(proxy.port) as plain:
            plain.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b"200" not in plain.rest()
        with tls_client(proxy.port, trusting(certs, "one")) as client:
            body = os.urandom(2_000_000)
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body))
            client.send(body)
            assert client.answer().json()["body"].encode("latin-1") == body


def test_changed_certificate_serves_new_connections_and_keeps_old(
    certs: Path, echo: EchoServer, tmp_path: Path
) -> None:
    for suffix in ("key", "pem"):
        (tmp_path / f"live.{suffix}").write_bytes((certs / f"one.{suffix}").read_bytes())
    with ProxyProcess(*files(tmp_path, "live"), "--default-target", echo.url) as proxy:
        with tls_client(proxy.port, trusting(certs, "one")) as old:
            old.send(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")
            assert old.answer().status == 200
            (tmp_path / "live.pem").write_bytes((certs / "two.pem").read_bytes())

            def says_mismatch() -> bool:
                get(proxy.port, trusting(certs, "one"))
                return "the old certificate stays in use" in proxy.log()

            eventually(says_mismatch)
            (tmp_path / "live.key").write_bytes((certs / "two.key").read_bytes())

            def is_new() -> bool:
                try:
                    return get(proxy.port, trusting(certs, "two")).status == 200
                except ssl.SSLCertVerificationError:
                    return False

            eventually(is_new)
            old.send(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
            assert old.answer().json()["path"] == "/2"


def test_clients_must_show_a_certificate_when_asked(certs: Path, echo: EchoServer) -> None:
    with ProxyProcess(
        *files(certs, "one"),
        *("--ssl-ca", str(certs / "client.pem"), "--ssl-request-cert"),
        *("--ssl-reject-unauthorized", "--default-target", echo.url),
    ) as proxy:
        assert get(proxy.port, trusting(certs, "one", "client")).status == 200
        for stranger in ("", "two"):
            with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
                get(proxy.port, trusting(certs, "one", stranger))


def test_api_speaks_tls(certs: Path) -> None:
    with ProxyProcess(*files(certs, "one", "--api-ssl")) as proxy:
        assert f"Proxy API at https://127.0.0.1:{proxy.api_port}/" in proxy.log()
        answer = get(proxy.api_port, trusting(certs, "one"), b"/api/routes")
        assert json.loads(answer.body) == {}


def test_clients_of_the_api_must_show_a_certificate_when_asked(certs: Path) -> None:
    with ProxyProcess(
        *files(certs, "one", "--api-ssl"),
        *("--api-ssl-ca", str(certs / "client.pem"), "--api-ssl-request-cert"),
        "--api-ssl-reject-unauthorized",
    ) as proxy:
        answer = get(proxy.api_port, trusting(certs, "one", "client"), b"/api/routes")
        assert json.loads(answer.body) == {}
        for stranger in ("", "two"):
            with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
                get(proxy.api_port, trusting(certs, "one", stranger), b"/api/routes")


def test_passphrases_open_keys(certs: Path, tmp_path: Path) -> None:
    command = ["openssl", "ec", "-aes256", "-passout", "pass:sesame", "-in"]
    out = ["-out", str(tmp_path / "locked.key")]
    subprocess.run([*command, str(certs / "one.key"), *out], check=True, capture_output=True)
    shutil.copy(certs / "one.pem", tmp_path / "locked.pem")
    argv = [*files(tmp_path, "locked"), *files(tmp_path, "locked", "--api-ssl")]
    names = ("CONFIGPROXY_SSL_KEY_PASSPHRASE", "CONFIGPROXY_API_SSL_KEY_PASSPHRASE")
    with ProxyProcess(*argv, **dict.fromkeys(names, "sesame")) as proxy:
        assert get(proxy.port, trusting(certs, "one"), b"/_chp_healthz").status == 200
        assert get(proxy.api_port, trusting(certs, "one"), b"/api/routes").status == 200
    from test_proxy_api import run

    done = run("--port", "0", "--api-port", "0", *argv)
    assert done.returncode == 1
    assert "locked.key" in done.stderr and done.stderr.count("\n") == 1


def test_changed_certificate_of_ours_is_shown_to_targets(certs: Path, tmp_path: Path) -> None:
    for suffix in ("key", "pem"):
        shutil.copy(certs / f"two.{suffix}", tmp_path / f"live.{suffix}")
    with TlsEcho(certs, "target", "client") as target:
        ours = files(tmp_path, "live", "--client-ssl")
        with ProxyProcess(*ours, "--client-ssl-ca", str(certs / "target.pem")) as proxy:
            proxy.add("/", f"https://localhost:{target.port}")
            assert proxy.get("/").status == 503
            for suffix in ("key", "pem"):
                shutil.copy(certs / f"client.{suffix}", tmp_path / f"live.{suffix}")
            eventually(lambda: proxy.get("/").status == 200)


class TlsEcho:
    """A target that speaks TLS and answers with its client's certificate subject."""

    def __init__(self, certs: Path, name: str, ca: str = "") -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certs / f"{name}.pem", certs / f"{name}.key")
        if ca:
            context.load_verify_locations(certs / f"{ca}.pem")
            context.verify_mode = ssl.CERT_REQUIRED
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.port = self.sock.getsockname()[1]
        self.accepted = 0
        self._context = context
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                raw, _ = self.sock.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._serve, args=(raw,)).start()

    def _serve(self, raw: socket.socket) -> None:
        with raw:
            try:
                sock = self._context.wrap_socket(raw, server_side=True)
            except OSError:
                return
            with Client(0, sock) as client:
                try:
                    while True:
                        client.until(b"\r\n\r\n")
                        body = b"y" * 1_000_000
                        client.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
                        client.send(body)
                except (OSError, AssertionError):
                    return

    def __enter__(self) -> TlsEcho:
        return self

    def __exit__(self, *exc: object) -> None:
        self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        self._thread.join()


def test_target_is_verified_and_shown_our_certificate(certs: Path) -> None:
    ours = files(certs, "client", "--client-ssl")
    with TlsEcho(certs, "target", "client") as target:
        with ProxyProcess(*ours, "--client-ssl-ca", str(certs / "target.pem")) as proxy:
            proxy.add("/", f"https://localhost:{target.port}")
            for _ in range(3):
                assert len(proxy.get("/").body) == 1_000_000
            assert target.accepted == 1
        with ProxyProcess(*ours, "--client-ssl-ca", str(certs / "two.pem")) as proxy:
            proxy.add("/", f"https://127.0.0.1:{target.port}")
            assert proxy.get("/").status == 503
            assert "certificate not accepted" in proxy.log()


def test_insecure_accepts_any_target(certs: Path) -> None:
    with TlsEcho(certs, "two") as target:
        with ProxyProcess() as proxy:
            proxy.add("/", f"https://127.0.0.1:{target.port}")
            assert proxy.get("/").status == 503
        with ProxyProcess("--insecure") as proxy:
            proxy.add("/", f"https://127.0.0.1:{target.port}")
            assert proxy.get("/").status == 200


def test_wrong_files_are_one_line(certs: Path) -> None:
    from test_proxy_api import run

    for argv, text in (
        (files(certs, "nowhere"), "nowhere.pem: No such file or directory"),
        (["--ssl-key", "a"], "--ssl-key needs --ssl-cert"),
        (
            ["--ssl-key", str(certs / "one.key"), "--ssl-cert", str(certs / "two.pem")],
            "KEY_VALUES_MISMATCH",
        ),
    ):
        done = run("--port", "0", *argv)
        assert done.returncode == 1
        assert text in done.stderr
        assert done.stderr.count("\n") == 1
