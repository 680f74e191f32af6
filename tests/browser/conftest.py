"""Chromium, and hubs of the built file that an ordinary user of this machine runs."""

from __future__ import annotations

import json
import os
import pwd
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[1])]

from harness import HubProcess  # noqa: E402
from people import DESK, FLAGS, TIMEOUT_MS, Person  # noqa: E402
from playwright.sync_api import Browser, sync_playwright  # noqa: E402

#: Every port is any that is free, since more than one hub runs here.
FREE_PORTS = (
    "--ip=127.0.0.1",
    "--port=0",
    "--JupyterHub.hub_port=0",
    "--ThreadedProxy.api_url=http://127.0.0.1:0",
)


@dataclass(frozen=True)
class Account:
    """A user of this machine; ``uid`` None is whoever runs the tests."""

    name: str
    uid: int | None
    home: Path


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The browser; every person has a context of their own in it."""
    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    program = next(filter(None, found), None)
    assert program, "the browser tests need Chromium (Debian: apt install chromium)"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def new_person(chromium: Browser) -> Iterator[Callable[..., Person]]:
    """Seat people at browsers; at the end nothing may have gone wrong on anybody's pages."""
    people: list[Person] = []
    contexts = []

    def seat(hub: HubProcess, *, at: str = "127.0.0.1", **options: Any) -> Person:
        """``at``: the name of the machine by which this person's browser knows the hub."""
        context = chromium.new_context(viewport=DESK, locale="en-GB", **options)
        context.set_default_timeout(TIMEOUT_MS)
        contexts.append(context)
        url = hub.url.replace("127.0.0.1", at)
        people.append(Person(context, url, scripts=options.get("java_script_enabled", True)))
        return people[-1]

    yield seat
    problems = [problem for person in people for problem in person.problems]
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture(scope="module")
def public_dir() -> Iterator[Path]:
    """A temporary directory that every user can enter, unlike pytest's."""
    path = Path(tempfile.mkdtemp(prefix="minihub-browser-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def account(public_dir: Path) -> Iterator[Account]:
    """An ordinary user: one made for these tests by root, else whoever runs them."""
    if os.getuid():
        home = public_dir / "home"
        home.mkdir()
        yield Account(pwd.getpwuid(os.getuid()).pw_name, None, home)
        return
    name = f"mh-{secrets.token_hex(4)}"
    subprocess.run(["useradd", "--create-home", "--user-group", name], check=True)
    entry = pwd.getpwnam(name)
    yield Account(name, entry.pw_uid, Path(entry.pw_dir))
    subprocess.run(["userdel", "--force", "--remove", name], check=True, capture_output=True)


@pytest.fixture(scope="module")
def program(pyz: Path, lab_bin: Path, public_dir: Path) -> list[str]:
    """The command that runs the built file, with a Python that has no package of ours."""
    python = (lab_bin / "python").resolve()
    return [str(python), str(shutil.copy(pyz, public_dir / "minihub.pyz"))]


@pytest.fixture
def start_hub(
    account: Account, program: list[str], lab_bin: Path
) -> Iterator[Callable[..., HubProcess]]:
    """Start hubs of the built file as the ordinary user, in directories that are empty.

    Without a configuration everything but the ports is the default, so the one server is that of
    whoever runs the hub; where that is a person's own account it keeps out of their home.
    """
    hubs: list[HubProcess] = []
    env = {
        "HOME": str(account.home),
        "LOGNAME": account.name,
        "PATH": f"{lab_bin}:{os.defpath}",
        "TMPDIR": str(account.home),
        "USER": account.name,
        "XDG_CACHE_HOME": str(account.home / ".cache"),
    }
    own_account = [
        f"--Spawner.notebook_dir={account.home}",
        "--Spawner.environment=" + json.dumps({"HOME": str(account.home)}),
    ]

    def start(config: dict[str, Any] | None = None) -> HubProcess:
        args = list(FREE_PORTS)
        if config is None and account.uid is None:
            args += own_account
        hub = HubProcess(
            account.home / f"hub-{secrets.token_hex(4)}",
            config,
            command=program,
            args=tuple(args),
            env=env,
            user=account.uid,
            defaults={},
        )
        hubs.append(hub)
        return hub.wait_ready()

    yield start
    for hub in hubs:
        if hub.process.poll() is None:
            hub.stop()
