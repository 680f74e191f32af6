"""A cell of a real JupyterLab that computes until it is told to end, over one WebSocket."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from pathlib import Path

from harness import Browser, until
from websockets.sync.client import connect


class Cell:
    """A kernel of somebody's, in the server they have just started."""

    def __init__(
        self, browser: Browser, name: str, home: Path, *, patience_s: float = 90.0
    ) -> None:
        """``home`` is where the server's programs have their home."""
        self.browser = browser
        self._base = f"/user/{name}"
        self._patience_s = patience_s
        self._open = contextlib.ExitStack()
        self.go = home / "go"
        browser.start_server(name, timeout_s=patience_s)
        assert browser.follow(f"{self._base}/lab").status_code == 200
        mine = (c for c in browser.cookies if c.name == "_xsrf" and c.path == f"{self._base}/")
        made = browser.post(
            f"{self._base}/api/kernels",
            json={"name": "python3"},
            headers={"X-XSRFToken": next(mine).value},
            timeout=patience_s,
        )
        self.kernel = made.json()["id"]
        self.socket = self.open()
        self.run("before = 41")

    def open(self):
        """Return a WebSocket to the kernel."""
        cookie = "; ".join(f"{c.name}={c.value}" for c in self.browser.cookies)
        base = self.browser.base.replace("http", "ws", 1)
        return self._open.enter_context(
            connect(
                f"{base}{self._base}/api/kernels/{self.kernel}/channels?session_id=lab",
                additional_headers={"Cookie": cookie, "Origin": self.browser.base},
                open_timeout=self._patience_s,
                ping_interval=None,
            )
        )

    def send(self, code: str) -> str:
        """Have the kernel run some code; return the message that tells of it."""
        message = uuid.uuid4().hex
        head = {"msg_id": message, "msg_type": "execute_request", "session": uuid.uuid4().hex}
        request = {
            "channel": "shell",
            "header": {**head, "username": "", "version": "5.3"},
            "parent_header": {},
            "metadata": {},
            "content": {"code": code, "silent": False},
        }
        self.socket.send(json.dumps(request))
        return message

    def result(self, message: str) -> str:
        """Wait for the end of a cell; return its result."""
        found, deadline = "", time.monotonic() + self._patience_s
        while time.monotonic() < deadline:
            reply = json.loads(self.socket.recv(timeout=self._patience_s))
            if reply["parent_header"].get("msg_id") != message:
                continue
            assert reply["header"]["msg_type"] != "error", reply["content"]
            if reply["header"]["msg_type"] == "execute_result":
                found = reply["content"]["data"]["text/plain"]
            # The channel of results says when they are all there; the reply takes another.
            if reply["content"].get("execution_state") == "idle":
                return found
        raise AssertionError("the cell did not end")

    def run(self, code: str) -> str:
        return self.result(self.send(code))

    def begin(self) -> str:
        """Start a cell that goes on until ``go`` is there; return its message when it runs."""
        message = self.send(
            "import os, time, pathlib\n"
            "pathlib.Path.home().joinpath('runs').write_text('x')\n"
            "while not pathlib.Path.home().joinpath('go').exists(): time.sleep(0.05)\n"
            "before + 1"
        )
        until(lambda: self.go.with_name("runs").exists(), self._patience_s)
        return message
