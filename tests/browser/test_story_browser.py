"""The main thing with everything real: the built file, a browser, an unmodified JupyterLab."""

import ipaddress
import re
import signal

import psutil
import pytest
from people import LAB_TIMEOUT_MS
from playwright.sync_api import expect

pytestmark = [
    pytest.mark.browser,
    pytest.mark.notebook,
    pytest.mark.timeout(300),
]

CLASS = {
    "JupyterHub": {"authenticator_class": "shared-password", "spawner_class": "simple"},
    "SharedPasswordAuthenticator": {"user_password": "a long password", "allow_all": True},
}


def servers_of(hub) -> list[psutil.Process]:
    """Return the running processes that are somebody's server."""
    family = psutil.Process(hub.process.pid).children(recursive=True)
    return [child for child in family if "jupyterhub-singleuser" in " ".join(child.cmdline())]


def far_connections() -> list[str]:
    """Return what the hub, its servers and the browser are connected to beyond this machine."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            connections = child.net_connections("inet")
        except psutil.Error:  # it is gone, or Chromium has locked it up
            continue
        for connection in connections:
            if connection.raddr and not ipaddress.ip_address(connection.raddr.ip).is_loopback:
                found.append(f"{child.name()}: {connection.raddr}")
    return found


def test_owner_of_a_new_hub_runs_a_cell(start_hub, new_person, account):
    hub = start_hub()
    link = hub.wait_text(r"open +(http://127\.0\.0\.1:\d+/hub/login\?owner=\S+)")[1]
    owner = new_person(hub)
    for _ in range(2):  # looking at the link does not spend it
        owner.open(link)
    owner.sees(f"You will be logged in as {account.name}")
    owner.look("story-1-owner")
    owner.page.get_by_role("button", name="Become the owner").click()
    owner.wait_path("/hub/home")
    owner.sees(f"Hello, {account.name}")
    owner.look("story-2-home")
    owner.page.get_by_role("link", name="Start my server").click()
    owner.wait_path(f"/hub/spawn-pending/{account.name}")
    owner.look("story-3-pending", "light")

    owner.wait_path(f"/user/{account.name}/lab", timeout_ms=LAB_TIMEOUT_MS)
    owner.run_cell("6*7", "42")
    owner.look("story-4-notebook", "light")
    assert far_connections() == []

    owner.open("/hub/home")
    owner.sees("Running")
    assert servers_of(hub)
    owner.look("story-5-running")
    owner.page.get_by_role("button", name="Stop my server").click()
    owner.sees("Your files are kept.")
    expect(owner.page.get_by_role("link", name="Start my server")).to_be_visible()
    assert servers_of(hub) == []
    owner.look("story-6-stopped")
    owner.open(f"/user/{account.name}/lab", status=424)
    owner.look("story-7-not-running")

    owner.page.get_by_role("link", name="Log out").click()
    owner.wait_path("/hub/login")
    owner.look("story-8-login")
    owner.open(f"/user/{account.name}/lab")
    owner.wait_path("/hub/login")
    owner.open(link, status=403)
    owner.look("story-9-link-was-used")

    family = psutil.Process(hub.process.pid).children(recursive=True)
    assert hub.stop(signal.SIGINT) == 0, hub.text
    assert psutil.wait_procs(family, timeout=5)[1] == []
    assert not re.search(r"Traceback|\[[EC] ", hub.text), hub.text


def test_second_person_cannot_reach_the_first_ones_server(start_hub, new_person):
    hub = start_hub(CLASS)
    ada, eve, stranger = (new_person(hub) for _ in range(3))
    for person, name in ((ada, "ada"), (eve, "eve")):
        person.open("/hub/home")
        person.log_in(name, "a long password")
        person.sees(f"Hello, {name}")
    ada.page.click("#start")
    ada.wait_path("/user/ada/lab", timeout_ms=LAB_TIMEOUT_MS)
    ada.run_cell("6*7", "42")

    eve.open("/user/ada/lab", status=403)
    eve.look("class-1-not-yours")
    for path in ("/hub/spawn/ada", "/hub/spawn-pending/ada", "/hub/user/ada/lab"):
        eve.open(path, status=404)
    eve.look("class-2-nothing-here")
    kernels = eve.page.request.get(hub.url + "user/ada/api/kernels")
    assert kernels.status == 403, kernels.text()
    (kernel,) = ada.page.request.get(hub.url + "user/ada/api/kernels").json()
    socket = hub.url.replace("http", "ws") + f"user/ada/api/kernels/{kernel['id']}/channels"
    opened = """url => new Promise(resolve => {
        const socket = new WebSocket(url);
        socket.onopen = () => resolve(true);
        socket.onerror = () => resolve(false);
    })"""
    assert ada.page.evaluate(opened, socket) is True
    assert eve.page.evaluate(opened, socket) is False
    stranger.open("/user/ada/lab")
    stranger.wait_path("/hub/login")
    assert stranger.page.evaluate(opened, socket) is False

    expect(ada.page.locator(".jp-Notebook .jp-OutputArea-output").first).to_have_text("42")
    assert far_connections() == []
    assert hub.stop() == 0, hub.text
    assert not re.search(r"Traceback|\[[EC] ", hub.text), hub.text


def test_class_starts_warm_and_its_day_is_the_same(start_hub, new_person):
    """Login, JupyterLab from a process that has imported it, a cell, a terminal, stop, logout.

    Two people at once, each with what is theirs in cells and terminals.
    """
    hub = start_hub(CLASS | {"JupyterHub": CLASS["JupyterHub"] | {"log_level": "INFO"}})
    hub.wait_text("jupyterhub-singleuser is warm", 120)
    people = {name: new_person(hub) for name in ("ada", "eve")}
    for name, person in people.items():
        person.open("/hub/home")
        person.log_in(name, "a long password")
        person.page.click("#start")
        person.wait_path(f"/user/{name}/lab", timeout_ms=LAB_TIMEOUT_MS)
        assert re.search(rf"Server {name}: pid \d+, warm", hub.text), hub.text
        person.run_cell("6*7", "42")
    assert len(servers_of(hub)) >= 2
    for name, person in people.items():
        told = person.run_terminal(name, 'echo "$USER $JUPYTERHUB_USER $(basename "$HOME")"')
        assert told == f"{name} {name} {name}"
        person.open("/hub/home")
        person.page.get_by_role("button", name="Stop my server").click()
        person.sees("Your files are kept.")
        person.page.get_by_role("link", name="Log out").click()
        person.wait_path("/hub/login")
    assert servers_of(hub) == []
    assert hub.stop() == 0, hub.text
    assert not re.search(r"Traceback|\[[EC] ", hub.text), hub.text
