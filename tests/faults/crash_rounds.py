"""A hub that is killed at random moments while it is written to, again and again.

Each round: a hub starts on the database that the last round left, several clients add users,
groups and tokens and delete some, and the hub is killed with SIGKILL at a random moment. Then the
file must be sound, everything that a client was told is done must be there, and nothing may be half
done.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import requests
from harness import HubProcess, gone, until

from minihub import sqlitefiles

TOKEN = "t" * 32
CONFIG: dict[str, Any] = {
    "JupyterHub": {
        "api_tokens": {TOKEN: "root-admin"},
        "cleanup_servers": False,
        "cleanup_proxy": False,
        "log_level": "WARNING",
    }
}
WRITERS = 4


class Truth:
    """What clients were told, for one run of rounds."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.made: set[str] = set()
        self.deleted: set[str] = set()
        #: Asked for, and perhaps done.
        self.unsure: set[str] = set()
        self.tokens: dict[str, str] = {}
        self.number = 0

    def next_name(self) -> str:
        with self.lock:
            self.number += 1
            return f"user{self.number}"


def write(hub: HubProcess, truth: Truth, stopping: threading.Event, seed: int) -> None:
    """Write through the hub until it is gone."""
    chance = random.Random(seed)
    session = requests.Session()
    session.headers["Authorization"] = f"token {TOKEN}"
    base = hub.url + "hub/api/"
    while not stopping.is_set():
        name = truth.next_name()
        with truth.lock:
            truth.unsure.add(name)
        try:
            answer = session.post(f"{base}users/{name}", timeout=10)
            if answer.status_code != 201:
                return  # the proxy says that the hub is gone
            with truth.lock:
                truth.made.add(name)
                truth.unsure.discard(name)
            group = {"users": [name]}
            session.post(f"{base}groups/of-{name}", timeout=10)
            session.post(f"{base}groups/of-{name}/users", json=group, timeout=10)
            answer = session.post(f"{base}users/{name}/tokens", json={}, timeout=10)
            if answer.status_code == 201:
                truth.tokens[name] = answer.json()["token"]
            if chance.random() < 0.3:
                with truth.lock:
                    truth.unsure.add(name)
                    truth.made.discard(name)
                answer = session.delete(f"{base}users/{name}", timeout=10)
                if answer.status_code == 204:
                    with truth.lock:
                        truth.deleted.add(name)
                        truth.unsure.discard(name)
        except requests.RequestException:
            return


def check(path: Path, truth: Truth) -> None:
    """Compare the database with what clients were told."""
    assert sqlitefiles.problems(path) == ""
    with contextlib.closing(sqlite3.connect(path)) as db:
        users = {name for (name,) in db.execute("SELECT name FROM users")}
        with_token = {
            name
            for (name,) in db.execute(
                "SELECT users.name FROM api_tokens JOIN users ON user_id = users.id"
            )
        }
        alone = db.execute(
            "SELECT count(*) FROM api_tokens WHERE user_id IS NULL AND service_id IS NULL"
        ).fetchone()[0]
    assert truth.made <= users, truth.made - users
    assert not truth.deleted & users, truth.deleted & users
    assert users <= truth.made | truth.unsure | {"root-admin"}
    assert set(truth.tokens) & truth.made <= with_token
    assert alone == 0


def rounds(count: int, directory: Path, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Do that many rounds; return what happened. Raises AssertionError."""
    chance = random.Random(seed)
    truth = Truth()
    began = time.monotonic()
    hub = None
    slowest = 0.0
    for number in range(count):
        started = time.monotonic()
        hub = HubProcess(directory, CONFIG).wait_ready(60)
        slowest = max(slowest, time.monotonic() - started)
        stopping = threading.Event()
        writers = [
            threading.Thread(target=write, args=(hub, truth, stopping, chance.random()))
            for _ in range(WRITERS)
        ]
        for writer in writers:
            writer.start()
        enough = truth.number + WRITERS
        while truth.number < enough and time.monotonic() - started < 60:
            time.sleep(0.01)
        time.sleep(chance.uniform(0.02, 0.6))
        hub.kill()
        stopping.set()
        for writer in writers:
            writer.join(30)
        check(directory / "jupyterhub.sqlite", truth)
        if (number + 1) % 20 == 0:
            say(f"{number + 1} rounds, {len(truth.made)} users")
    assert hub is not None
    hub = HubProcess(directory, CONFIG).wait_ready(60)
    with_token = sorted(set(truth.tokens) & truth.made)
    for name in chance.sample(with_token, min(20, len(with_token))):
        assert hub.api("user", truth.tokens[name]).json()["name"] == name
    proxy = hub.proxy()["pid"]
    assert hub.stop() == 0
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(proxy).kill()
    until(lambda: gone(proxy))
    return {
        "rounds": count,
        "seed": seed,
        "users written": truth.number,
        "deleted": len(truth.deleted),
        "seconds": round(time.monotonic() - began, 1),
        "slowest start in seconds": round(slowest, 2),
    }
