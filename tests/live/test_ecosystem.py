"""Unmodified programs of the ecosystem, of today and of JupyterHub 0.8, against a real hub."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import requests
from admin_tools import wait_until
from harness import free_port, until

pytestmark = pytest.mark.notebook
SERVICE = Path(__file__).resolve().parents[1] / "hubauth_service.py"
SECRET = "secret-of-the-service"


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

    assert eve.follow("/user/ada/tree").status_code == 403
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


# -- the culler of JupyterHub ----------------------------------------------------------------


def test_jupyterhub_idle_culler_as_a_managed_service(start_hub, lab_bin):
    command = [str(lab_bin / "jupyterhub-idle-culler"), "--timeout=2", "--cull-every=1"]
    scopes = ["list:users", "read:users:activity", "read:servers", "delete:servers"]
    hub = start_hub(
        {
            "JupyterHub": {
                "services": [
                    {"name": "idle", "command": command},
                    {"name": "boss", "api_token": SECRET, "admin": True},
                ],
                "load_roles": [{"name": "culling", "services": ["idle"], "scopes": scopes}],
            }
        }
    )
    assert hub.api("users/ana", SECRET, "POST").status_code == 201
    assert hub.api("users/ana/server", SECRET, "POST").status_code == 201
    wait_until(lambda: not hub.api("users/ana", SECRET).json()["servers"], "culled", 40)
    hub.wait_text("Stopping server ana/: idle asked through the API")
