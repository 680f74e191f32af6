"""Names that are not the hub's, under which a stranger's page could pose as it."""

from __future__ import annotations

import socket

import pytest
import requests

from minihub.web import hosts
from minihub.web.hosts import Hosts


def status(hub, name, path="hub/login"):
    return requests.get(hub.url + path, headers={"Host": name}, timeout=20).status_code


def test_allowed_hosts_are_the_only_names(start_hub):
    hub = start_hub(
        {"JupyterHub": {"allowed_hosts": ["class.example.org", ".schools.example.org"]}}
    )
    for name in ("class.example.org", "CLASS.example.org:8000", "a.schools.example.org"):
        assert status(hub, name) == 200, name
    for name in ("localhost", "127.0.0.1:9", "[::1]:9"):
        assert status(hub, name) == 200, name
    for name in (
        "evil.example",
        "class.example.org.evil.example",
        "evil-class.example.org",
        "schools.example.org",
        "192.168.0.1",
        "class.example.org@evil.example",
    ):
        for path in ("hub/login", "hub/api", "hub/api/users", "hub/static/css/minihub.css", "any"):
            assert status(hub, name, path) == 400, (name, path)
    page = requests.get(hub.url + "hub/login", headers={"Host": "evil.example"}, timeout=20)
    assert "JupyterHub.allowed_hosts" in page.text
    browser = hub.browser("ada")
    browser.start_server("ada")  # its server asks the hub by an address of its own
    assert browser.follow("/user/ada/").status_code == 200


def test_without_a_list_every_name_is_taken(hub):
    assert status(hub, "whatever.example") == 200


def test_this_machine_follows_the_network(monkeypatch):
    now, addresses = [100.0], ["192.168.1.7"]
    monkeypatch.setattr(hosts.clock, "monotonic", lambda: now[0])
    monkeypatch.setattr(hosts.machine, "lan_addresses", lambda: list(addresses))
    known = Hosts(["this-machine"], [])
    host = socket.gethostname().lower()
    for name in ("192.168.1.7:8000", host, f"{host.partition('.')[0]}.local", "localhost"):
        assert known.knows(name), name
    assert not known.knows("192.168.1.8") and not known.knows("this-machine.example")
    addresses[:] = ["10.0.0.3"]
    now[0] += 11
    assert known.knows("10.0.0.3") and not known.knows("192.168.1.7")


@pytest.mark.parametrize("name", ["http://x", "a b", "host:80", "*.example.org", ""])
def test_what_is_no_name_is_a_mistake(start_hub, name):
    hub = start_hub({"JupyterHub": {"allowed_hosts": [name]}}, wait=False)
    assert hub.process.wait(30) == 3
    assert "allowed_hosts" in hub.text and "is no host" in hub.text
