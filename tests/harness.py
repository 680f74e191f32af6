"""A real hub as a process, and a browser's worth of HTTP, for tests.

A hub started here runs with ports of its own choosing in a directory of its own. Its servers are
``fake_singleuser.py`` unless a test says otherwise.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import requests
import yaml

ROOT = Path(__file__).resolve().parents[1]
FAKE_SERVER = Path(__file__).with_name("fake_singleuser.py")
START_TIMEOUT_S = 30.0


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes`` laid over it, section by section."""
    result = {section: dict(values) for section, values in base.items()}
    for section, values in changes.items():
        result.setdefault(section, {}).update(values)
    return result


#: What every test hub is told unless the test says otherwise.
DEFAULTS: dict[str, Any] = {
    "JupyterHub": {
        "ip": "127.0.0.1",
        "port": 0,
        "hub_port": 0,
        "authenticator_class": "dummy",
        "spawner_class": "simple",
        "log_level": "INFO",
    },
    "ThreadedProxy": {"api_url": "http://127.0.0.1:0"},
    "Authenticator": {"allow_all": True, "admin_users": ["root-admin"]},
    "Spawner": {"cmd": [sys.executable, str(FAKE_SERVER)], "http_timeout": 20},
    "LocalProcessSpawner": {"interrupt_timeout": 1, "term_timeout": 1, "kill_timeout": 5},
}


class HubProcess:
    """A hub that runs in ``directory`` until :meth:`stop`."""

    def __init__(
        self,
        directory: Path,
        config: dict[str, Any] | None = None,
        *,
        command: list[str] | None = None,
        args: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
        user: int | None = None,
        defaults: dict[str, Any] | None = None,
    ) -> None:
        """``user`` is a uid to run as (when root); ``config`` goes over ``defaults``.

        With nothing configured (``defaults={}``) no configuration file is written.
        """
        self.directory = directory
        directory.mkdir(exist_ok=True)
        settings = merge(DEFAULTS if defaults is None else defaults, config or {})
        if settings:
            (directory / "minihub.yaml").write_text(yaml.safe_dump(settings))
        self.log = directory.with_suffix(".log")
        program = command or [sys.executable, str(ROOT / "minihub" / "__main__.py")]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MINIHUB_")}
        identity = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        if user is not None:
            for path in (directory, *directory.iterdir()):
                os.chown(path, user, user)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*program, *args],
                cwd=directory,
                env=environment | (env or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                **identity,
            )
        self.url = ""

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> HubProcess:
        """Wait until the hub answers through its public port."""
        deadline = time.monotonic() + timeout_s
        facts = self.directory / "minihub-data" / "lock"
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the hub ended with {self.process.returncode}\n{self.text}")
            try:
                self.url = json.loads(facts.read_text())["url"]
                if requests.get(self.url + "hub/api", timeout=5).status_code == 200:
                    return self
            except (OSError, ValueError, requests.RequestException):
                pass
            time.sleep(0.02)
        self.kill()
        raise AssertionError(f"the hub was not ready within {timeout_s} s\n{self.text}")

    @property
    def text(self) -> str:
        """Everything the hub has printed and logged."""
        return self.log.read_text(errors="replace")

    def wait_text(self, pattern: str, timeout_s: float = 10.0) -> re.Match[str]:
        """Wait until the hub has printed something that matches."""
        deadline = time.monotonic() + timeout_s
        while True:
            match = re.search(pattern, self.text)
            if match:
                return match
            if time.monotonic() > deadline:
                raise AssertionError(f"{pattern!r} was not printed:\n{self.text}")
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 30.0) -> int:
        """Ask the hub to stop; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the hub did not stop:\n{self.text}") from None

    def kill(self) -> None:
        """End the hub without asking."""
        self.process.kill()
        self.process.wait()

    def browser(self, name: str = "", password: str = "pw") -> Browser:
        """Return a browser, logged in as ``name`` if one is given."""
        browser = Browser(self.url)
        if name:
            response = browser.login(name, password)
            assert response.status_code == 302, response.text
        return browser


class Browser(requests.Session):
    """A session that keeps cookies, knows the hub's forms and does not follow redirects."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.base = url.rstrip("/")
        self.trust_env = False

    def request(self, method: str, url: str, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        kwargs["allow_redirects"] = False
        kwargs.setdefault("timeout", 30)
        if url.startswith("/"):
            url = self.base + url
        return super().request(method, url, **kwargs)

    def xsrf(self, page: str = "/hub/login") -> str:
        """Return the secret that a page's forms and scripts send."""
        text = self.get(page).text
        match = re.search(r'"xsrf_token": "([^"]+)"', text)
        assert match, text
        return match[1]

    def submit(self, path: str, fields: dict[str, Any], page: str = "") -> requests.Response:
        """Fill in a page's form and send it."""
        return self.post(path, data={"_xsrf": self.xsrf(page or path), **fields})

    def login(self, name: str, password: str = "pw", target: str = "") -> requests.Response:
        path = "/hub/login" + (f"?next={target}" if target else "")
        return self.submit(path, {"username": name, "password": password})

    def follow(self, path: str, limit: int = 12) -> requests.Response:
        """Get a page and go on through its redirects, as a browser does."""
        response = self.get(path)
        while response.status_code in (301, 302, 303) and limit:
            response = self.get(requests.compat.urljoin(response.url, response.headers["Location"]))
            limit -= 1
        return response

    def start_server(self, name: str, timeout_s: float = 20.0) -> None:
        """Start the user's server from its page and wait until it runs."""
        self.get(f"/hub/spawn/{name}")
        self.wait_server(name, timeout_s)

    def wait_server(self, name: str, timeout_s: float = 20.0) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            response = self.get(f"/hub/spawn-pending/{name}")
            if response.status_code == 302:
                return
            assert time.monotonic() < deadline, response.text
            time.sleep(0.05)
