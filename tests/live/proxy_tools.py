"""What the live tests of the proxy share: a proxy process, raw clients, upstreams.

Rules of this file: every port is 0 and reported back; nothing sleeps for time, ``eventually``
polls with a deadline.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STARTER = (
    f"import sys; sys.path.insert(0, {str(ROOT)!r}); "
    "from minihub.proxy.main import main; sys.exit(main(sys.argv[1:]))"
)
#: Long, for machines that are busy with other things: nothing waits so long unless it fails.
DEADLINE = 60.0


def eventually(check: Callable[[], object], what: str = "") -> object:
    """Return the first true result of ``check``; fail when there is none in time."""
    end = time.monotonic() + DEADLINE
    while True:
        result = check()
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError(f"never happened: {what or check}")
        time.sleep(0.01)


class ProxyProcess:
    """A real proxy process on free ports of 127.0.0.1."""

    def __init__(self, *argv: str, token: str = "", ports: bool = True, **environ: str) -> None:
        self.token = token
        fixed = ["--ip", "127.0.0.1", "--port", "0", "--api-ip", "127.0.0.1", "--api-port", "0"]
        env = {key: value for key, value in os.environ.items() if "CONFIGPROXY" not in key}
        env.update(environ)
        if token:
            env["CONFIGPROXY_AUTH_TOKEN"] = token
        self.out = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", STARTER, *(fixed if ports else []), *argv],
            stdout=self.out,
            stderr=subprocess.STDOUT,
            env=env,
        )
        try:
            eventually(
                lambda: "Proxy API at" in self.log() or self.process.poll() is not None,
                "the proxy starts",
            )
            if self.process.poll() is not None:
                raise AssertionError(self.log())
        except BaseException:
            self.close()
            raise
        public = re.search(r"Proxying https?://.*:(\d+) to", self.log())
        api = re.search(r"Proxy API at https?://.*:(\d+)/api/routes", self.log())
        self.port = int(public.group(1)) if public else 0
        self.api_port = int(api.group(1)) if api else 0

    def log(self) -> str:
        """Return everything the process has written."""
        return os.pread(self.out.fileno(), 1 << 24, 0).decode()

    def api(self, method: str, path: str = "", data: object = None) -> tuple[int, bytes]:
        """Call ``/api/routes<path>``; ``data`` is sent as JSON unless it is bytes."""
        headers = {"Authorization": f"token {self.token}"} if self.token else {}
        if data is not None and not isinstance(data, bytes):
            data = json.dumps(data).encode()
        answer = request(self.api_port, method, "/api/routes" + path, headers, data or b"")
        return answer.status, answer.body

    def add(self, path: str, target: str, **data: object) -> None:
        """Add a route."""
        status, body = self.api("POST", path, {"target": target, **data})
        assert status == 201, body

    def routes(self) -> dict[str, dict[str, object]]:
        """Return the route table as the API shows it."""
        status, body = self.api("GET")
        assert status == 200
        return json.loads(body)

    def get(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        """GET through the public port."""
        return request(self.port, "GET", path, headers or {})

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE)

    def close(self) -> None:
        """End the process, whatever state it is in."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.out.close()

    def __enter__(self) -> ProxyProcess:
        return self

    def __exit__(self, *exc: object) -> None:
        log = self.log()
        self.close()
        assert "Traceback" not in log, log


class Answer:
    """A response read off a socket: status, fields by lower-case name, body, raw head."""

    def __init__(self, status: int, reason: str, fields: list[tuple[str, str]], body: bytes):
        self.status = status
        self.reason = reason
        self.fields = fields
        self.body = body

    def field(self, name: str) -> str | None:
        """Return the only value of a field, or None."""
        values = [value for key, value in self.fields if key.lower() == name.lower()]
        assert len(values) < 2, values
        return values[0] if values else None

    def json(self) -> dict:  # type: ignore[type-arg]
        """Return the body as JSON."""
        return json.loads(self.body)


class Client:
    """A raw client connection with a reader that trusts nothing."""

    def __init__(self, port: int, address: str | socket.socket = "127.0.0.1") -> None:
        if isinstance(address, socket.socket):
            self.sock = address
        else:
            self.sock = socket.create_connection((address, port), DEADLINE)
        self.sock.settimeout(DEADLINE)
        self.buffer = b""

    def send(self, data: bytes) -> None:
        """Send everything."""
        self.sock.sendall(data)

    def receive(self) -> bytes:
        """Return what comes next; empty at the end of the connection."""
        if self.buffer:
            data, self.buffer = self.buffer, b""
            return data
        return self.sock.recv(65536)

    def until(self, mark: bytes) -> bytes:
        """Return everything up to and with ``mark``."""
        while mark not in self.buffer:
            data = self.sock.recv(65536)
            assert data, f"closed before {mark!r}: {self.buffer!r}"
            self.buffer += data
        head, _, self.buffer = self.buffer.partition(mark)
        return head + mark

    def exactly(self, count: int) -> bytes:
        """Return ``count`` bytes."""
        while len(self.buffer) < count:
            data = self.sock.recv(65536)
            assert data, f"closed with {len(self.buffer)} of {count} bytes"
            self.buffer += data
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def rest(self) -> bytes:
        """Return everything until the end of the connection."""
        while True:
            try:
                data = self.sock.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                data, self.buffer = self.buffer, b""
                return data
            self.buffer += data

    def head(self) -> Answer:
        """Read a response head."""
        lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")[:-2]
        version, status, reason = (lines[0] + " ").split(" ", 2)
        assert version == "HTTP/1.1", lines[0]
        fields = []
        for line in lines[1:]:
            name, _, value = line.partition(":")
            fields.append((name, value.strip()))
        return Answer(int(status), reason.strip(), fields, b"")

    def answer(self, method: str = "GET") -> Answer:
        """Read a whole response."""
        answer = self.head()
        if method == "HEAD" or answer.status in (204, 304) or answer.status < 200:
            return answer
        if answer.field("transfer-encoding") == "chunked":
            while True:
                size = int(self.until(b"\r\n").strip(), 16)
                if not size:
                    break
                answer.body += self.exactly(size)
                assert self.exactly(2) == b"\r\n"
            while (line := self.until(b"\r\n")) != b"\r\n":
                name, _, value = line.decode().strip().partition(":")
                answer.fields.append((f"trailer {name}", value.strip()))
        elif answer.field("content-length") is not None:
            answer.body = self.exactly(int(answer.field("content-length") or 0))
        else:
            answer.body = self.rest()
        return answer

    def is_closed(self) -> bool:
        """Return whether the other side closes without sending anything more."""
        return self.rest() == b""

    def close(self) -> None:
        """Close the connection."""
        self.sock.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def request(
    port: int,
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
    body: bytes = b"",
) -> Answer:
    """Send one request on a connection of its own and return the response."""
    lines = [f"{method} {path} HTTP/1.1"]
    headers = {"Host": f"127.0.0.1:{port}", **(headers or {})}
    if body or method in ("POST", "PUT"):
        headers.setdefault("Content-Length", str(len(body)))
    lines += [f"{name}: {value}" for name, value in headers.items()]
    with Client(port) as client:
        client.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
        return client.answer(method)


class EchoServer:
    """An upstream that answers with what it got, as JSON.

    ``?status=N`` sets the status. ``name`` tells several of them apart; ``requests`` counts.
    """

    def __init__(self, name: str = "echo") -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1

            def handle_any(self) -> None:
                outer.requests += 1
                length = int(self.headers.get("Content-Length") or 0)
                if self.headers.get("Transfer-Encoding") == "chunked":
                    body = b""
                    while size := int(self.rfile.readline(), 16):
                        body += self.rfile.read(size)
                        self.rfile.readline()
                    while self.rfile.readline() != b"\r\n":
                        pass
                else:
                    body = self.rfile.read(length)
                match = re.search(r"[?&]status=(\d+)", self.path)
                status = int(match.group(1)) if match else 200
                data = json.dumps(
                    {
                        "name": name,
                        "method": self.command,
                        "path": self.path,
                        "headers": [list(item) for item in self.headers.items()],
                        "body": body.decode("latin-1"),
                        "peer": self.client_address[1] if self.client_address else 0,
                    }
                ).encode()
                self.send_response(status)
                if status in (204, 304):
                    data = b""
                else:
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(data)))
                if 300 < status < 304:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = do_OPTIONS = handle_any

            def log_message(self, *args: object) -> None:
                pass

        self.requests = 0
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()

    def __enter__(self) -> EchoServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class RawServer:
    """An upstream whose every connection is handed to a function as a Client."""

    def __init__(self, serve: Callable[[Client], None], path: str = "") -> None:
        self._serve = serve
        self.accepted = 0
        self.failures: list[BaseException] = []
        if path:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.bind(path)
            self.port = 0
            self.url = "http+unix://" + path.replace("/", "%2F")
        else:
            self.sock = socket.socket()
            self.sock.bind(("127.0.0.1", 0))
            self.port = self.sock.getsockname()[1]
            self.url = f"http://127.0.0.1:{self.port}"
        self.sock.listen(1024)
        self._threads: list[threading.Thread] = []
        self._clients: list[Client] = []
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.sock.accept()
            except OSError:
                return
            self.accepted += 1
            client = Client(0, sock)
            self._clients.append(client)
            thread = threading.Thread(target=self._run, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _run(self, client: Client) -> None:
        try:
            self._serve(client)
        except OSError:
            pass
        except BaseException as exc:
            self.failures.append(exc)
        finally:
            client.close()

    def close(self) -> None:
        """Stop serving and cut what is open."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()
        self._thread.join()
        for client in self._clients:
            try:
                client.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join(DEADLINE)

    def __enter__(self) -> RawServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
        assert not self.failures, self.failures


def reset(sock: socket.socket) -> None:
    """Close a connection with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]
