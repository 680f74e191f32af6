"""A person's day with an unmodified jupyterhub-singleuser and JupyterLab, in plain HTTP."""

from __future__ import annotations

import json
import os
import time
import uuid

import pytest
import requests
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

pytestmark = pytest.mark.notebook


class Notebook:
    """One person's way to a server of Jupyter's: its REST API and its kernels."""

    def __init__(self, browser, name: str) -> None:
        self.browser = browser
        self.prefix = f"/user/{name}/"

    def _api(self, method: str, path: str, **kwargs) -> requests.Response:
        # What JupyterLab does: the cookie of the server, repeated in a header.
        secret = next(
            (c.value for c in self.browser.cookies if c.name == "_xsrf" and c.path == self.prefix),
            "",
        )
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


def test_cell_runs_in_a_real_notebook_server(start_hub, lab_bin):
    """Login, start, OAuth, a kernel, 6*7; nobody else gets in; stop; logout revokes."""
    arguments = ["--HubOAuth.cache_max_age=1"]  # a logout is felt within a second
    if os.getuid() == 0:
        arguments.append("--allow-root")
    command = {"cmd": [str(lab_bin / "jupyterhub-singleuser")], "args": arguments}
    hub = start_hub({"Spawner": command})
    ada, eve = hub.browser("ada"), hub.browser("eve")
    ada.start_server("ada", timeout_s=60)

    # The way in: the server sends its visitor through the hub's login and back.
    response = ada.get("/user/ada/lab")
    assert response.status_code == 302
    assert "/hub/api/oauth2/authorize?" in response.headers["Location"]
    response = ada.follow("/user/ada/lab")
    assert response.status_code == 200 and "jupyter-config-data" in response.text
    version = ada.get("/user/ada/api/me").json()
    assert version["identity"]["username"] == "ada"

    notebook = Notebook(ada, "ada")
    kernel = notebook.new_kernel().json()["id"]
    with notebook.channels(kernel) as socket:
        assert run(socket, "6*7") == "42"
        assert run(socket, "import os; os.environ['JUPYTERHUB_USER']") == "'ada'"

    # Somebody else: not the page, not the API, not the kernel.
    assert eve.follow("/user/ada/lab").status_code == 403
    stranger = Notebook(eve, "ada")
    assert stranger.kernels().status_code == 403
    assert stranger.new_kernel().status_code == 403
    with pytest.raises(InvalidStatus) as refused:
        stranger.channels(kernel)
    assert refused.value.response.status_code == 403

    # The cookie that the server gave out ends with the login it came from.
    thief = hub.browser()
    for cookie in ada.cookies:
        if cookie.path == "/user/ada/":
            thief.cookies.set_cookie(cookie)
    stolen = Notebook(thief, "ada")
    assert stolen.kernels().status_code == 200
    assert ada.get("/hub/logout").status_code == 302
    stolen.wait_status(403)
    assert notebook.kernels().status_code == 403

    ada.login("ada")
    assert ada.submit("/hub/stop/ada", {}, page="/hub/home").status_code == 303
    assert ada.follow("/user/ada/api/kernels").status_code == 424
    assert hub.stop() == 0, hub.text
    assert "Traceback" not in hub.text, hub.text
