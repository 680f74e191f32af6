"""Unmodified programs of the ecosystem, of today and of JupyterHub 0.8, against a real hub."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
from pathlib import Path

import pytest
import requests
from admin_tools import wait_until
from harness import free_port, until
from notebook_tools import Notebook, run
from websockets.exceptions import InvalidStatus

pytestmark = pytest.mark.notebook
SERVICE = Path(__file__).resolve().parents[1] / "hubauth_service.py"
OLD_CULLER = SERVICE.with_name("culler_of_2017.py")
SECRET = "secret-of-the-service"
BOSS = {"name": "boss", "api_token": SECRET, "admin": True}


# -- jupyterhub-singleuser of JupyterHub 0.8.0 -----------------------------------------------


def test_server_of_jupyterhub_0_8_from_login_to_logout(start_hub, old_bin):
    """Login, start, OAuth, a page and a kernel; nobody else gets in; stop."""
    arguments = ["--allow-root"] if os.getuid() == 0 else []
    spawner = {"cmd": [str(old_bin / "jupyterhub-singleuser")], "args": arguments}
    hub = start_hub({"Spawner": {**spawner, "start_timeout": 100, "http_timeout": 100}})
    ada, eve = hub.browser("ada"), hub.browser("eve")
    ada.start_server("ada", timeout_s=100)

    response = ada.get("/user/ada/tree")
    assert response.status_code == 302
    assert "/hub/api/oauth2/authorize?" in response.headers["Location"]
    page = ada.follow("/user/ada/tree")
    assert page.status_code == 200 and 'data-notebook-path=""' in page.text
    assert ada.get("/user/ada/api/status").json()["kernels"] == 0

    notebook = Notebook(ada, "ada")
    kernel = notebook.new_kernel().json()["id"]
    with notebook.channels(kernel) as socket:
        assert run(socket, "6*7") == "42"
        assert run(socket, "import os; os.environ['JUPYTERHUB_USER']") == "'ada'"
    assert [one["id"] for one in notebook.kernels().json()] == [kernel]

    assert eve.follow("/user/ada/tree").status_code == 403
    assert Notebook(eve, "ada").new_kernel().status_code == 403
    with pytest.raises(InvalidStatus):
        Notebook(eve, "ada").channels(kernel)
    assert hub.browser().get("/user/ada/tree").status_code == 302
    thief = hub.browser()
    thief.cookies.set("jupyterhub-user-ada", "made-up", path="/user/ada/")
    assert thief.get("/user/ada/tree").status_code == 302

    # It asks the hub whose token a visitor has in the way of its time.
    hub.wait_text(r"200 GET /hub/api/authorizations/token/…")
    token = ada.get("/hub/api/users/ada/tokens").json()["api_tokens"]
    assert any(one["oauth_client"] != "JupyterHub" for one in token)

    away = ada.get("/user/ada/logout")
    assert away.status_code == 302 and away.headers["Location"].endswith("/hub/logout")
    assert ada.follow("/user/ada/logout").status_code == 200
    assert ada.get("/hub/home").status_code == 302
    assert hub.stop() == 0, hub.text
    assert "Traceback" not in hub.text, hub.text


# -- services written with jupyterhub.services.auth ------------------------------------------


def start_service(start_hub, lab_bin, kind: str):
    """Return a hub with a managed service that uses HubOAuth or HubAuth."""
    service = {
        "name": "theirs",
        "url": f"http://127.0.0.1:{free_port()}",
        "command": [str(lab_bin / "python"), str(SERVICE), kind],
        "oauth_no_confirm": True,
    }
    role = {"name": "visitors", "users": ["ada"], "scopes": ["access:services!service=theirs"]}
    hub = start_hub({"JupyterHub": {"services": [service], "load_roles": [role]}})
    status = {"oauth": 302, "token": 403}[kind]
    url = hub.url + "services/theirs/"
    until(lambda: requests.get(url, timeout=5, allow_redirects=False).status_code == status, 60)
    return hub


def test_service_with_huboauth_lets_in_who_may(start_hub, lab_bin):
    served = start_service(start_hub, lab_bin, "oauth")
    ada, eve = served.browser("ada"), served.browser("eve")
    user = ada.follow("/services/theirs/").json()
    assert (user["kind"], user["name"], user["admin"]) == ("user", "ada", False)
    assert "access:services!service=theirs" in user["scopes"]
    assert user["session_id"] and user["groups"] == []
    assert eve.follow("/services/theirs/").status_code == 403
    away = served.browser().get("/services/theirs/")
    assert away.status_code == 302 and "/hub/api/oauth2/authorize?" in away.headers["Location"]


def test_service_with_hubauth_knows_whose_a_token_is(start_hub, lab_bin):
    served = start_service(start_hub, lab_bin, "token")
    url = served.url + "services/theirs/"

    def ask(token: str) -> requests.Response:
        headers = {"Authorization": f"token {token}"}
        return requests.get(url, headers=headers, timeout=20)

    tokens = {
        name: served.api(
            f"users/{name}/tokens", "", "POST", json={"auth": {"username": name, "password": "pw"}}
        ).json()["token"]
        for name in ("ada", "eve")
        if served.browser(name)
    }
    model = ask(tokens["ada"]).json()
    assert (model["kind"], model["name"]) == ("user", "ada")
    assert ask(tokens["eve"]).status_code == 403
    assert ask("made-up").status_code == 403


# -- the cullers of JupyterHub ---------------------------------------------------------------


def test_jupyterhub_idle_culler_as_a_managed_service(start_hub, lab_bin):
    command = [str(lab_bin / "jupyterhub-idle-culler"), "--timeout=2", "--cull-every=1"]
    scopes = ["list:users", "read:users:activity", "read:servers", "delete:servers"]
    hub = start_hub(
        {
            "JupyterHub": {
                "services": [
                    {"name": "idle", "command": command},
                    BOSS,
                ],
                "load_roles": [{"name": "culling", "services": ["idle"], "scopes": scopes}],
            }
        }
    )
    assert hub.api("users/ana", SECRET, "POST").status_code == 201
    assert hub.api("users/ana/server", SECRET, "POST").status_code == 201
    wait_until(lambda: not hub.api("users/ana", SECRET).json()["servers"], "culled", 40)
    hub.wait_text("Stopping server ana/: idle asked through the API")


@pytest.fixture
def start_with_two(start_hub):
    """Return a function that starts a hub where two servers run, one long unused."""

    def start(*services: dict, legacy: bool = False):
        boss = BOSS | {"legacy": legacy}
        # What the proxy saw is not asked for, or a start of the hub would count as activity.
        settings = {"services": [boss], "last_activity_interval": 0, "cleanup_servers": False}
        hub = start_hub({"JupyterHub": settings})
        for name in ("idle", "busy"):
            assert hub.api(f"users/{name}", SECRET, "POST").status_code == 201
            assert hub.api(f"users/{name}/server", SECRET, "POST").status_code in (201, 202)
            wait_until(lambda name=name: hub.api(f"users/{name}", SECRET).json()["server"], name)
        assert hub.stop() == 0
        with contextlib.closing(sqlite3.connect(hub.directory / "jupyterhub.sqlite")) as db, db:
            old = "2017-10-03T09:07:25.123456Z"
            mine = "(select id from users where name = 'idle')"
            db.execute(f"update users set last_activity = ? where id = {mine}", (old,))
            db.execute(f"update servers set last_activity = ? where user_id = {mine}", (old,))
        settings |= {"services": [boss, *services], "cleanup_servers": True}
        return start_hub({"JupyterHub": settings}, directory=hub.directory)

    return start


def test_culler_of_jupyterhub_0_8_as_a_managed_service(start_with_two, old_bin):
    """Nothing in the configuration says that it is an old one."""
    command = [str(old_bin / "python"), str(OLD_CULLER), "--timeout=3600", "--cull_every=1"]
    hub = start_with_two({"name": "cull-idle", "admin": True, "command": command})
    hub.wait_text("Stopping server idle/: cull-idle asked through the API", 60)
    wait_until(lambda: not hub.api("users/idle", SECRET).json()["server"], "culled", 60)
    # More passes go by, over the one who is active as well.
    words = hub.state_dir / "logs" / "service-cull-idle.log"
    passes = words.read_text().count("pass over")
    wait_until(lambda: words.read_text().count("pass over") > passes + 2, "passes", 60)
    assert "Traceback" not in words.read_text(), words.read_text()
    busy = hub.api("users/busy", SECRET).json()
    assert busy["server"] == "/user/busy/" and busy["last_activity"].endswith("Z")
    assert hub.server_pid("busy") and "Traceback" not in hub.text, hub.text


@pytest.mark.parametrize("legacy", [False, True])
def test_culler_of_jupyterhub_0_8_run_by_hand(start_with_two, old_bin, legacy):
    """It reaches the hub from outside, and deletes users too."""
    hub = start_with_two(legacy=legacy)
    env = {"JUPYTERHUB_API_URL": hub.url + "hub/api", "JUPYTERHUB_API_TOKEN": SECRET}
    command = [str(old_bin / "python"), str(OLD_CULLER), "--once", "--timeout=3600"]
    done = subprocess.run(
        [*command, "--cull_users"], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == ["stopped idle 204", "deleted idle 204", "pass over 3"]
    assert hub.api("users/idle", SECRET).status_code == 404
    assert hub.server_pid("busy") and hub.server_pid("idle") is None
