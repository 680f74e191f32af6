"""What the end of a login ends: pages and tokens at once, open WebSockets within seconds."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import requests
from harness import HubProcess
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

ADMIN = {"Authorization": "token the-token-of-an-admin"}


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    config = {"JupyterHub": {"api_tokens": {"the-token-of-an-admin": "root-admin"}}}
    hub = HubProcess(tmp_path_factory.mktemp("hub"), config).wait_ready()
    yield hub
    assert hub.stop() == 0, hub.text


@pytest.fixture
def open_socket():
    """Return a function that starts a browser's server and opens a WebSocket to it."""
    with ExitStack() as stack:

        def open_socket(hub, browser, name):
            browser.start_server(name)
            assert browser.follow(f"/user/{name}/").status_code == 200
            cookies = "; ".join(f"{one.name}={one.value}" for one in browser.cookies)
            url = hub.url.replace("http", "ws") + f"user/{name}/ws"
            headers = {"Cookie": cookies}
            socket = stack.enter_context(
                connect(url, additional_headers=headers, ping_interval=None)
            )
            socket.send("open")
            assert socket.recv(timeout=10) == "open"
            return socket

        yield open_socket


@pytest.fixture
def enter(hub, open_socket):
    """Return a function that gives a browser, and a WebSocket through the proxy to its server."""

    def enter(name):
        browser = hub.browser(name)
        return browser, open_socket(hub, browser, name)

    return enter


def assert_closes(socket):
    with pytest.raises(ConnectionClosed):
        socket.recv(timeout=5)


def test_logout_closes_what_is_open_and_leaves_the_server(hub, enter):
    browser, socket = enter("ada")
    pid = hub.server_process("ada").pid
    cookie = browser.cookies["jupyterhub-hub-login"]
    browser.get("/hub/logout")
    assert_closes(socket)
    stolen = hub.browser()
    stolen.cookies.set("jupyterhub-hub-login", cookie, path="/hub/")
    assert stolen.get("/hub/home").status_code == 302
    assert hub.server_process("ada").pid == pid
    assert "/user/ada" in hub.routes()


def test_demotion_ends_logins_and_closes_what_is_open(hub, enter):
    assert requests.post(
        f"{hub.url}hub/api/users/boss", json={"admin": True}, headers=ADMIN, timeout=20
    ).ok
    browser, socket = enter("boss")
    answer = requests.patch(
        f"{hub.url}hub/api/users/boss", json={"admin": False}, headers=ADMIN, timeout=20
    )
    assert answer.status_code == 200
    assert_closes(socket)
    assert browser.get("/hub/home").status_code == 302


def test_deletion_closes_what_is_open_and_takes_the_route(hub, enter):
    browser, socket = enter("eve")
    assert (
        requests.delete(f"{hub.url}hub/api/users/eve", headers=ADMIN, timeout=60).status_code == 204
    )
    assert_closes(socket)
    assert browser.get("/hub/home").status_code == 302
    assert "/user/eve" not in hub.routes()


def test_new_password_ends_logins_and_closes_what_is_open(start_hub, open_socket):
    hub = start_hub(
        {
            "JupyterHub": {
                "authenticator_class": "classroom",
                "api_tokens": {"the-token-of-an-admin": "office"},
            },
            "Authenticator": {"admin_users": ["office"]},
            "ClassroomAuthenticator": {"signup": "open"},
        }
    )
    for name, method, path in (("ada", "POST", "one-time-code"), ("bob", "PUT", "password")):
        browser = hub.browser()
        secret = {"username": name, "password": "kind of blue", "again": "kind of blue"}
        assert browser.submit("/hub/join", secret).status_code == 302
        socket = open_socket(hub, browser, name)
        url = f"{hub.url}hub/api/users/{name}/{path}"
        body = {"password": "sketches of spain"} if method == "PUT" else None
        assert requests.request(method, url, json=body, headers=ADMIN, timeout=20).ok
        assert_closes(socket)
        assert browser.get("/hub/home").status_code == 302


def test_others_stay(enter):
    _ada, first = enter("ann")
    bob, second = enter("bob")
    bob.get("/hub/logout")
    assert_closes(second)
    first.send("still")
    assert first.recv(timeout=10) == "still"
    first.close()
