"""One person's way to a server of Jupyter's, of today or of old: its REST API and its kernels."""

from __future__ import annotations

import json
import time
import uuid

import requests
from websockets.sync.client import ClientConnection, connect


class Notebook:
    """One person's way to a server of Jupyter's: its REST API and its kernels."""

    def __init__(self, browser, name: str) -> None:
        self.browser = browser
        self.prefix = f"/user/{name}/"

    def _api(self, method: str, path: str, **kwargs) -> requests.Response:
        # What JupyterLab does: the cookie of the server, repeated in a header. Older servers set
        # it for all paths.
        secrets = {c.path: c.value for c in self.browser.cookies if c.name == "_xsrf"}
        secret = secrets.get(self.prefix) or secrets.get("/", "")
        headers = {"X-XSRFToken": secret}
        return self.browser.request(method, f"{self.prefix}api/{path}", headers=headers, **kwargs)

    def new_kernel(self) -> requests.Response:
        return self._api("POST", "kernels", json={"name": "python3"})

    def kernels(self) -> requests.Response:
        return self._api("GET", "kernels")

    def wait_status(self, status: int, timeout_s: float = 10.0) -> None:
        """Wait until the list of kernels is answered with ``status``."""
        deadline = time.monotonic() + timeout_s
        while self.kernels().status_code != status:
            assert time.monotonic() < deadline, f"{self.kernels()}, not {status}, for {timeout_s} s"
            time.sleep(0.05)

    def channels(self, kernel: str) -> ClientConnection:
        """Open the WebSocket of a kernel."""
        cookie = "; ".join(
            f"{c.name}={c.value}" for c in self.browser.cookies if self.prefix.startswith(c.path)
        )
        base = self.browser.base.replace("http", "ws", 1)
        headers = {"Cookie": cookie, "Origin": self.browser.base}
        return connect(
            f"{base}{self.prefix}api/kernels/{kernel}/channels", additional_headers=headers
        )


def run(socket: ClientConnection, code: str) -> str:
    """Run code in a kernel and return the text of its result."""
    message_id = uuid.uuid4().hex
    request = {
        "channel": "shell",
        "header": {
            "msg_id": message_id,
            "msg_type": "execute_request",
            "session": uuid.uuid4().hex,
            "username": "",
            "version": "5.3",
        },
        "parent_header": {},
        "metadata": {},
        "content": {"code": code, "silent": False},
    }
    socket.send(json.dumps(request))
    while True:
        reply = json.loads(socket.recv(timeout=30))
        if reply["parent_header"].get("msg_id") != message_id:
            continue
        if reply["header"]["msg_type"] == "execute_result":
            return reply["content"]["data"]["text/plain"]
        assert reply["header"]["msg_type"] != "error", reply["content"]
