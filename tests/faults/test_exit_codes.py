"""The exit codes of README.md, each from a real command; no traceback with any."""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT

from minihub.store import Store

PROGRAM = [sys.executable, str(ROOT / "minihub" / "__main__.py")]
LOCAL = ("--ip=127.0.0.1", "--port=0", "--JupyterHub.hub_port=0")
NOBODY = 65534


def minihub(directory: Path, *args: str, user: int | None = None) -> tuple[int, str]:
    identity = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    done = subprocess.run(
        [*PROGRAM, *args],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        **identity,
    )
    told = done.stdout + done.stderr
    assert "Traceback" not in told and "internal error" not in told, told
    return done.returncode, told


def test_0_when_it_is_done(tmp_path):
    assert minihub(tmp_path, "--version")[0] == 0
    assert minihub(tmp_path, "config", "check")[0] == 0


def test_1_when_it_failed(tmp_path):
    code, told = minihub(tmp_path, "restore", "absent.tar.gz")
    assert code == 1 and "absent.tar.gz" in told


def test_2_for_a_wrong_command_line(tmp_path):
    code, told = minihub(tmp_path, "bakcup")
    assert code == 2 and 'Did you mean "backup"' in told
    assert minihub(tmp_path, "--prot=1")[0] == 2


def test_3_for_a_wrong_configuration_and_nothing_is_started(tmp_path):
    (tmp_path / "minihub.yaml").write_text("JupyterHub: {prot: 1}\n")
    code, told = minihub(tmp_path)
    assert code == 3 and "minihub.yaml:1" in told and "nothing started" in told
    assert not (tmp_path / "minihub-data").exists()


def test_4_when_a_hub_runs_here_and_it_says_which(start_hub):
    hub = start_hub()
    code, told = minihub(hub.directory, *LOCAL)
    assert code == 4 and f"process {hub.process.pid}, {hub.url}" in told
    assert hub.api("", "x").status_code == 200  # the first one is not disturbed


@pytest.mark.parametrize("option", ["port", "hub_port"])
def test_4_when_a_port_is_taken_and_it_says_by_whom(tmp_path, option):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = {"port": 0, "hub_port": 0, option: port}
        words = [f"--JupyterHub.{name}={number}" for name, number in ports.items()]
        code, told = minihub(tmp_path, "--ip=127.0.0.1", *words)
    assert code == 4 and f"JupyterHub.{option}: port {port}" in told
    assert f"(process {os.getpid()})" in told


def test_5_for_a_database_of_another_version(tmp_path):
    path = tmp_path / "jupyterhub.sqlite"
    store = Store(str(path))
    store.open()
    store.close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE minihub_meta SET value = 999 WHERE key = 'schema_version'")
        db.commit()
    code, told = minihub(tmp_path, *LOCAL)
    assert code == 5 and "newer minihub" in told


@pytest.mark.root
def test_6_when_it_is_not_permitted(tmp_path):
    place = tmp_path / "of-root"
    place.mkdir()
    store = Store(str(place / "jupyterhub.sqlite"))
    store.open()
    store.close()
    for directory in (place, *place.parents):
        if directory != Path("/") and directory.stat().st_uid == 0:
            directory.chmod(directory.stat().st_mode | 0o001)
    code, told = minihub(place, "user", "list", user=NOBODY)
    assert code == 6 and "may not be used by this user" in told, told
