#!/usr/bin/env python3
"""A small stand-in for a single-user server: environment in, OAuth with the hub, a page out.

It does what the contract asks of a server, with the standard library only, so that it is up in a
fraction of a second: reads its place from the environment, answers ``PREFIXapi``, sends visitors
through the hub's login, reports activity once, echoes over a WebSocket. It can be a service as
well. ``FAKE_MODE`` in the environment makes it misbehave: ``exit`` (ends at once), ``mute`` (never
listens), ``stubborn`` (ignores SIGINT and SIGTERM). ``FAKE_KERNELS`` is what it says of its
kernels, as JSON.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import signal
import socketserver
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, urlencode, urlsplit

ENV = os.environ
PREFIX = ENV["JUPYTERHUB_SERVICE_PREFIX"]
API = ENV["JUPYTERHUB_API_URL"]
CLIENT = ENV["JUPYTERHUB_CLIENT_ID"]
CALLBACK = ENV["JUPYTERHUB_OAUTH_CALLBACK_URL"]
ACCESS = set(json.loads(ENV["JUPYTERHUB_OAUTH_ACCESS_SCOPES"]))
COOKIE = "fake-" + hashlib.sha256(CLIENT.encode()).hexdigest()[:8]
MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def hub(path: str, token: str, form: dict[str, str] | None = None, data: object = None):
    """Call the hub's API; return (status, JSON or None)."""
    headers = {"Authorization": f"token {token}"}
    body = None
    if form is not None:
        body = urlencode(form).encode()
    elif data is not None:
        body = json.dumps(data).encode()
        headers["Content-Type"] = "application/json"
    request = urllib.request.Request(API + path, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            raw = response.read()
            return response.status, json.loads(raw) if raw else None
    except urllib.error.HTTPError as error:
        return error.code, None


EATEN = []


def eat(mb: list[str], by: list[str]) -> int:
    """Let the server itself or a child of its own take memory; return that one's process id.

    A child ends when the server does. By ``family`` four processes share what was taken.
    """
    size = int(mb[0]) * 1024**2
    if by == ["server"]:
        EATEN.append(os.urandom(1024) * (size // 1024))
        return os.getpid()
    program = (
        f"import os, sys; x = os.urandom(1024) * ({size} // 1024);"
        + ("[os.fork() for _ in range(2)];" if by == ["family"] else "")
        + "print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    EATEN.append(child)
    return child.pid


def burn(seconds: list[str]) -> str:
    """Keep a processor busy for so long."""
    end = time.monotonic() + float(seconds[0])
    while time.monotonic() < end:
        pass
    return "done"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        self.send_header("X-JupyterHub-Version", "6.1.1")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def visitor(self) -> dict | None:
        """Return the hub's model of whoever asks, if they may enter."""
        cookies = SimpleCookie(self.headers.get("Cookie", ""))
        token = cookies[COOKIE].value if COOKIE in cookies else ""
        kind, _, bearer = self.headers.get("Authorization", "").partition(" ")
        token = bearer if kind.lower() in ("token", "bearer") else token
        if not token:
            return None
        status, model = hub("/user", token)
        return model if status == 200 and ACCESS & set(model["scopes"]) else None

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == PREFIX + "api":
            return self.answer(200, b"{}")
        if url.path == PREFIX + "eat":
            return self.answer(200, str(eat(**parse_qs(url.query))).encode())
        if url.path == PREFIX + "run":
            done = subprocess.run(parse_qs(url.query)["command"], shell=True, capture_output=True)
            return self.answer(200, done.stdout + done.stderr)
        if url.path == PREFIX + "burn":
            return self.answer(200, burn(**parse_qs(url.query)).encode())
        if url.path == PREFIX + "oauth_callback":
            return self.callback(parse_qs(url.query))
        model = self.visitor()
        if model is None:
            state = secrets.token_urlsafe(8)
            query = urlencode(
                {
                    "client_id": CLIENT,
                    "redirect_uri": CALLBACK,
                    "response_type": "code",
                    "state": state,
                }
            )
            place = f"{ENV.get('JUPYTERHUB_HOST', '')}{urlsplit(API).path}/oauth2/authorize?{query}"
            cookie = f"{COOKIE}-state={state}.{quote(self.path, safe='')}; Path={PREFIX}"
            return self.answer(302, Location=place, Set_Cookie=cookie)
        if url.path == PREFIX + "api/kernels" and "FAKE_KERNELS" in ENV:
            return self.answer(200, ENV["FAKE_KERNELS"].encode(), Content_Type="application/json")
        if self.headers.get("Upgrade", "").lower() == "websocket":
            return self.websocket()
        page = {
            "visitor": model,
            "path": self.path,
            "headers": dict(self.headers),
            "env": dict(ENV),
            "cwd": os.getcwd(),
            "uid": os.getuid(),
            "pid": os.getpid(),
        }
        return self.answer(200, json.dumps(page).encode(), Content_Type="application/json")

    do_POST = do_GET

    def callback(self, query: dict[str, list[str]]) -> None:
        cookies = SimpleCookie(self.headers.get("Cookie", ""))
        state, _, place = cookies[f"{COOKIE}-state"].value.partition(".")
        if query.get("state") != [state]:
            return self.answer(403, b"wrong state")
        form = {
            "client_id": CLIENT,
            "client_secret": ENV["JUPYTERHUB_API_TOKEN"],
            "grant_type": "authorization_code",
            "code": query["code"][0],
            "redirect_uri": CALLBACK,
        }
        status, answer = hub("/oauth2/token", ENV["JUPYTERHUB_API_TOKEN"], form)
        if status != 200:
            return self.answer(500, b"no token")
        cookie = f"{COOKIE}={answer['access_token']}; Path={PREFIX}; HttpOnly"
        return self.answer(302, Location=urllib.request.unquote(place), Set_Cookie=cookie)

    def websocket(self) -> None:
        """Echo frames until the other side closes."""
        key = self.headers["Sec-WebSocket-Key"].encode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        digest = base64.b64encode(hashlib.sha1(key + MAGIC).digest()).decode()
        self.send_header("Sec-WebSocket-Accept", digest)
        self.end_headers()
        while True:
            head = self.rfile.read(2)
            if len(head) < 2 or head[0] & 15 == 8:
                break
            size = head[1] & 127
            if size == 126:
                size = struct.unpack(">H", self.rfile.read(2))[0]
            mask = self.rfile.read(4)
            raw = self.rfile.read(size)
            text = bytes(byte ^ mask[i % 4] for i, byte in enumerate(raw))
            length = bytes([len(text)]) if len(text) < 126 else b"\x7e" + struct.pack(">H", size)
            self.wfile.write(bytes([head[0]]) + length + text)
        self.close_connection = True


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):
            socketserver.BaseServer.handle_error(self, request, client_address)


def main() -> None:
    mode = ENV.get("FAKE_MODE", "")
    print("fake server starting, mode", mode or "normal", flush=True)
    if mode == "exit":
        print("ModuleNotFoundError: No module named 'notebook'", flush=True)
        sys.exit(3)
    if mode == "stubborn":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if mode == "mute":
        while True:
            time.sleep(3600)
    place = urlsplit(ENV["JUPYTERHUB_SERVICE_URL"])
    server = Server((place.hostname, place.port), Handler)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if not ENV["JUPYTERHUB_ACTIVITY_URL"]:  # a service reports none
        return server.serve_forever()
    report = {"servers": {ENV["JUPYTERHUB_SERVER_NAME"]: {"last_activity": now}}}
    urllib.request.urlopen(API, timeout=10).close()
    request = urllib.request.Request(
        ENV["JUPYTERHUB_ACTIVITY_URL"],
        json.dumps(report | {"last_activity": now}).encode(),
        {"Authorization": f"token {ENV['JUPYTERHUB_API_TOKEN']}"},
    )
    urllib.request.urlopen(request, timeout=10).close()
    server.serve_forever()


if __name__ == "__main__":
    main()
