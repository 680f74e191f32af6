"""The programs of docs/examples, run as whoever reads of them would run them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from harness import ROOT

SECRET = "secret-of-the-boss"
BOSS = {"name": "boss", "api_token": SECRET, "admin": True}
EXAMPLES = ROOT / "docs" / "examples"


def run(program: str, token: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / program), *arguments],
        env=os.environ | {"JUPYTERHUB_API_TOKEN": token},
        capture_output=True,
        text=True,
        timeout=240,
    )


def start_with_ada(start_hub, **changes):
    """Return a hub, and a token that a user has made."""
    changes["JupyterHub"] = {"services": [BOSS], **changes.get("JupyterHub", {})}
    hub = start_hub(changes)
    assert hub.api("users/ada", SECRET, "POST").status_code == 201
    proof = {"auth": {"username": "ada", "password": "pw"}, "scopes": ["self"]}
    return hub, hub.api("users/ada/tokens", "", "POST", json=proof).json()


def assert_one_server_works(hub, token: str) -> None:
    for _ in range(2):  # what is stopped can be started again
        done = run("one_server.py", token, "ada", hub.url)
        assert done.returncode == 0, done.stdout + done.stderr
        lines = done.stdout.splitlines()
        place = hub.url + "user/ada/"
        assert any(line.startswith("100%  Server ready at") for line in lines)
        assert lines[-3] == f"ready at {place}" and lines[-2].startswith("its status: {")
        assert lines[-1] == "stopped"
        assert hub.api("users/ada", SECRET).json()["servers"] == {}


def test_one_server_is_started_watched_used_and_stopped(start_hub):
    hub, made = start_with_ada(start_hub)
    assert_one_server_works(hub, made["token"])


@pytest.mark.notebook
def test_one_server_is_a_real_one(start_hub, lab_bin):
    command = {"cmd": [str(lab_bin / "jupyterhub-singleuser")], "http_timeout": 100}
    if os.getuid() == 0:
        command["args"] = ["--allow-root"]
    hub, made = start_with_ada(start_hub, Spawner=command)
    assert_one_server_works(hub, made["token"])


def test_failure_of_a_start_is_told(start_hub):
    hub, made = start_with_ada(start_hub, Spawner={"environment": {"FAKE_MODE": "exit"}})
    done = run("one_server.py", made["token"], "ada", hub.url)
    assert done.returncode == 1 and "500 Server Error" in done.stderr


def test_named_servers_are_started_listed_used_and_removed(start_hub):
    hub, made = start_with_ada(start_hub, JupyterHub={"allow_named_servers": True})
    done = run("named_servers.py", made["token"], "ada", "lab", "two-b", "--hub", hub.url)
    assert done.returncode == 0, done.stdout + done.stderr
    first, second, last = done.stdout.splitlines()
    assert first.startswith("lab started 20") and first.endswith(f"{hub.url}user/ada/lab/")
    assert second.endswith(f"{hub.url}user/ada/two-b/") and last == "removed lab two-b"
    everything = hub.api("users/ada?include_stopped_servers=1", SECRET).json()["servers"]
    assert set(everything) <= {""}
    done = run("named_servers.py", made["token"], "ada", "No Name", "--hub", hub.url)
    assert done.returncode == 1 and "Invalid server name" in done.stderr


def test_token_of_somebody_else_starts_nothing(start_hub):
    hub, made = start_with_ada(start_hub)
    assert hub.api("users/bob", SECRET, "POST").status_code == 201
    done = run("one_server.py", made["token"], "bob", hub.url)
    assert done.returncode == 1 and "404 Client Error" in done.stderr
