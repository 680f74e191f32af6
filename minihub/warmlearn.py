"""Learns which modules a start of a command imports, by a throw-away start of it.

The command runs in a copy of this process with a home directory that is thrown away and a hub that
is only a few answers, until its server answers; then it is asked which modules it has and ended.

Rules of this file: the standard library only, Python 3.8 and newer, and nothing of minihub to
import; run by the interpreter of the users' environment, as :mod:`minihub.warmparent` is. The
description is JSON in the file whose descriptor is its second argument, and the answer
replaces it there: ``{"modules": [names in the order of their import], "patterns": [[regular
expression, flags]], "path": [sys.path], "files": [of modules]}`` or ``{"problem": text}``.

Threads: in the process that plays the hub one; in the command's a second, which waits and answers.
"""

from __future__ import annotations

import json
import os
import re
import resource
import select
import signal
import socket
import sys
import threading
import time
from typing import Any

#: How large a file, such as its log, the throw-away start can make: one that fails in a loop must
#: not fill the disk.
MOST_BYTES = 64 * 2**20
#: What is asked of the server once it answers, so that what it imports late is learned too.
PAGES = ("lab", "api/contents", "api/kernelspecs", "api/sessions", "api/terminals", "api/me")


def told(names: int, ask: int) -> None:
    """In the command's process: wait to be asked, then write the names of its modules."""
    os.read(ask, 1)
    found, files = [], set()
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        if spec is not None and getattr(spec, "name", None) == name:
            found.append(name)
            if isinstance(spec.origin, str) and spec.has_location:
                files.add(os.path.abspath(spec.origin))
    answer_ = {"modules": found, "patterns": patterns(), "path": sys.path, "files": sorted(files)}
    with open(names, "wb") as pipe:
        pipe.write(json.dumps(answer_).encode())


def patterns() -> list[list[Any]]:
    """Return the regular expressions that were used lately, each with its flags."""
    found = []
    for key in list(getattr(re, "_cache", ())):
        kind, text, flags = key[:3]
        if kind is str and isinstance(text, str) and os.environ["HOME"] not in text:
            found.append([text, int(flags)])
    return found


def run_command(setup: dict[str, Any], port: int, names: int, ask: int) -> None:
    """In the copy: become the command."""
    script = setup["command"][-1]
    here = f"http://127.0.0.1:{port}"
    os.environ.clear()
    for key, value in setup["env"].items():
        os.environ[key] = value.replace("http://learn-hub", here)
    os.chdir(setup["env"]["HOME"])
    _soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    bounded = hard in (resource.RLIM_INFINITY, -1) or hard > MOST_BYTES
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_BYTES if bounded else hard, hard))
    sys.argv[:] = [script] + setup["args"]
    if not getattr(sys.flags, "safe_path", False) and not sys.flags.isolated:
        sys.path[0] = os.path.dirname(script)
    threading.Thread(target=told, args=(names, ask), daemon=True).start()
    with open(script, "rb") as file:
        code = compile(file.read(), script, "exec", dont_inherit=True)
    space = sys.modules["__main__"].__dict__
    space.update(__name__="__main__", __file__=script)
    exec(code, space)


def answer(listener: socket.socket, user: str) -> None:
    """Answer one request as a hub would."""
    connection, _address = listener.accept()
    with connection:
        connection.settimeout(5)
        head = b""
        try:
            while b"\r\n\r\n" not in head:
                piece = connection.recv(65536)
                if not piece:
                    return
                head += piece
            path = head.split()[1].partition(b"?")[0]
            body = {"version": "6.1.1"}  # type: Dict[str, Any]
            if path.endswith(b"/user") or b"/authorizations/token/" in path:  # today's, and older
                body = {"kind": "user", "name": user, "admin": False, "groups": []}
                body["scopes"] = ["access:servers!user=" + user]
            text = json.dumps(body).encode()
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nX-JupyterHub-Version: 6.1.1\r\nConnection: close\r\n"
                b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(text) + text
            )
        except OSError:
            pass


def status_of(port: int, path: str, token: str) -> int:
    """Return the status of a request to the command's server; 0 when it does not answer."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(
                f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n"
                f"Authorization: token {token}\r\n\r\n".encode()
            )
            answer_ = client.recv(65536)
            while client.recv(65536):
                pass
            return int(answer_.split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def learn(setup: dict[str, Any]) -> dict[str, Any]:
    """Start the command, wait until it answers, return what it has imported."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(16)
    names, writer = os.pipe()
    asked, asker = os.pipe()
    copy = os.fork()
    if copy == 0:
        try:
            os.close(names)
            os.close(asker)
            port = listener.getsockname()[1]
            listener.close()
            run_command(setup, port, writer, asked)
        finally:
            os._exit(1)
    os.close(writer)
    os.close(asked)

    def play_hub() -> None:
        while True:
            answer(listener, setup["env"]["JUPYTERHUB_USER"])

    threading.Thread(target=play_hub, daemon=True).start()
    deadline = time.monotonic() + setup["timeout_s"]
    prefix, token = setup["prefix"], setup["env"]["JUPYTERHUB_API_TOKEN"]
    ended, pause_s = 0, 0.05
    try:
        while not 0 < status_of(setup["port"], prefix + "api", token) < 500:
            ended, status = os.waitpid(copy, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                return {"problem": f"its throw-away start ended with exit code {code}"}
            if time.monotonic() > deadline:
                return {"problem": "its throw-away start did not answer in time"}
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.2, 1.0)  # one that answers with errors also logs them
        for page in PAGES:
            status_of(setup["port"], prefix + page, token)
        os.write(asker, b"?")
        os.close(asker)
        pieces = []  # type: List[bytes]
        while select.select([names], [], [], max(0.0, deadline - time.monotonic()))[0]:
            piece = os.read(names, 65536)
            if not piece:
                return json.loads(b"".join(pieces))
            pieces.append(piece)
        return {"problem": "its throw-away start did not tell its modules"}
    finally:
        if not ended:
            os.kill(copy, signal.SIGKILL)


def main() -> None:
    """Learn, and leave the answer in the file of the description."""
    with open(int(sys.argv[2]), "r+b", closefd=True) as file:
        file.seek(0)
        setup = json.loads(file.read())
        found = learn(setup)
        file.seek(0)
        file.truncate()
        file.write(json.dumps(found).encode())
    os._exit(0)


if __name__ == "__main__":
    main()
