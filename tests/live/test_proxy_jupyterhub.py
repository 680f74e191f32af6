"""The proxy under a real JupyterHub, in the place of configurable-http-proxy."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import requests
from proxy_tools import free_port
from websockets.sync.client import connect

CONFIG = """
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_port = {hub_port}
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api_port}"
c.ConfigurableHTTPProxy.command = [{python!r}, {pyz!r}, "proxy"]
c.ConfigurableHTTPProxy.pid_file = "proxy.pid"
c.JupyterHub.authenticator_class = "dummy"
c.JupyterHub.spawner_class = "simple"
c.Authenticator.allow_all = True
c.Spawner.args = ["--allow-root"]
c.SimpleLocalProcessSpawner.home_dir_template = {home!r}
c.Spawner.start_timeout = 60
"""


def xsrf(session: requests.Session) -> str:
    return next(cookie.value for cookie in session.cookies if cookie.name == "_xsrf")


@pytest.mark.notebook
def test_login_spawn_and_a_kernel_over_websocket(lab_bin: Path, pyz: Path, tmp_path: Path) -> None:
    port, api_port, hub_port = free_port(), free_port(), free_port()
    config = tmp_path / "jupyterhub_config.py"
    config.write_text(
        CONFIG.format(
            port=port,
            api_port=api_port,
            hub_port=hub_port,
            python=sys.executable,
            pyz=str(pyz),
            home=str(tmp_path / "{username}"),
        )
    )
    log = tmp_path / "hub.log"
    with log.open("wb") as output:
        hub = subprocess.Popen(
            [lab_bin / "jupyterhub", "-f", config],
            cwd=tmp_path,
            env={"PATH": f"{lab_bin}:/usr/bin:/bin", "HOME": str(tmp_path)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        base = f"http://127.0.0.1:{port}"

        def is_up() -> bool:
            assert hub.poll() is None, log.read_text()
            try:
                return requests.get(f"{base}/hub/login", timeout=5).status_code == 200
            except requests.ConnectionError:
                return False

        eventually(is_up, log, 60)
        session = requests.Session()
        session.get(f"{base}/hub/login")
        form = {"username": "ada", "password": "x", "_xsrf": xsrf(session)}
        answer = session.post(f"{base}/hub/login", data=form)
        assert answer.status_code == 200, log.read_text()
        session.get(f"{base}/hub/spawn/ada")

        def is_in() -> bool:
            # Through the hub's OAuth pages, once the server runs.
            answer = session.get(f"{base}/user/ada/lab")
            return answer.status_code == 200 and answer.url == f"{base}/user/ada/lab"

        eventually(is_in, log, 90)
        own = next(
            cookie.value
            for cookie in session.cookies
            if cookie.name == "_xsrf" and cookie.path.startswith("/user/ada")
        )
        answer = session.post(f"{base}/user/ada/api/kernels", headers={"X-XSRFToken": own}, json={})
        assert answer.status_code == 201, answer.text
        kernel = answer.json()["id"]
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in session.cookies)
        url = f"ws://127.0.0.1:{port}/user/ada/api/kernels/{kernel}/channels"
        with connect(url, additional_headers={"Cookie": cookies}, open_timeout=30) as socket:
            header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "session": "s"}
            header |= {"username": "ada", "version": "5.3", "date": "2026-01-01T00:00:00Z"}
            content = {"code": "print(6 * 7)", "silent": False, "store_history": False}
            content |= {"user_expressions": {}, "allow_stdin": False, "stop_on_error": True}
            message = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
            socket.send(json.dumps({**message, "channel": "shell", "buffers": []}))
            while True:
                reply = json.loads(socket.recv(60))
                if reply.get("msg_type") == "stream":
                    assert reply["content"]["text"] == "42\n"
                    break
    finally:
        hub.terminate()
        hub.wait(30)
    assert "Traceback" not in log.read_text()


def eventually(check, log: Path, seconds: float) -> None:  # type: ignore[no-untyped-def]
    import time

    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.2)
