"""A real hub as a process, and a browser's worth of HTTP, for tests.

A hub started here runs with ports of its own choosing in a directory of its own. Its servers are
``fake_singleuser.py`` unless a test says otherwise.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import yaml

ROOT = Path(__file__).resolve().parents[1]
FAKE_SERVER = Path(__file__).with_name("fake_singleuser.py")
START_TIMEOUT_S = 30.0


#: A value that takes an option of DEFAULTS away when a configuration is written.
ABSENT = object()


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes`` laid over it, section by section."""
    result = {section: dict(values) for section, values in base.items()}
    for section, values in changes.items():
        result.setdefault(section, {}).update(values)
    return result


def settled(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings without what is ABSENT."""
    return {
        section: {name: value for name, value in values.items() if value is not ABSENT}
        for section, values in settings.items()
    }


def python_config(
    directory: Path, lines: str = "", changes: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Write DEFAULTS with ``changes``, and then ``lines``, as a ``jupyterhub_config.py``.

    Returns the arguments for a hub that uses it.
    """
    directory.mkdir(exist_ok=True)
    settings = [
        f"c.{section}.{name} = {value!r}"
        for section, values in settled(merge(DEFAULTS, changes or {})).items()
        for name, value in values.items()
    ]
    (directory / "jupyterhub_config.py").write_text("\n".join(settings) + "\n" + lines)
    return {"directory": directory, "defaults": {}}


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


def free_port(ip: str = "127.0.0.1") -> int:
    """Return a port that nobody uses at the moment, below those of outgoing connections."""
    while True:
        port = random.randrange(10000, 20000)
        with socket.socket() as probe:
            try:
                probe.bind((ip, port))
            except OSError:
                continue
            return port


def make_certificate(directory: Path, *names: str) -> tuple[Path, Path]:
    """Write a key and a certificate for these hosts or addresses that vouches for itself."""
    key, cert = directory / "key.pem", directory / "cert.pem"
    kinds = ("IP" if name.replace(".", "").isdecimal() else "DNS" for name in names)
    alternative = ",".join(f"{kind}:{name}" for kind, name in zip(kinds, names, strict=True))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        + ["-nodes", "-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=hub"]
        + ["-addext", f"subjectAltName={alternative}"],
        check=True,
        capture_output=True,
    )
    return key, cert


def resolve_to_loopback(patch: pytest.MonkeyPatch, domain: str) -> None:
    """Let this process find ``domain`` and all names below it at 127.0.0.1."""
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        mine = isinstance(host, str) and (host == domain or host.endswith("." + domain))
        return real("127.0.0.1" if mine else host, *args, **kwargs)

    patch.setattr(socket, "getaddrinfo", getaddrinfo)


def until(check: Callable[[], Any], timeout_s: float = 15.0) -> Any:
    """Wait until ``check`` returns something true, and return that; what it raises is a no."""
    deadline = time.monotonic() + timeout_s
    while True:
        problem: Any = "it stayed false"
        try:
            if found := check():
                return found
        except (requests.RequestException, psutil.Error, OSError, AssertionError) as error:
            problem = error
        assert time.monotonic() < deadline, problem
        time.sleep(0.05)


def gone(pid: int) -> bool:
    """Return whether a process has ended; one that nobody reaps counts as ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


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
        pass_fds: tuple[int, ...] = (),
    ) -> None:
        """``user`` is a uid to run as (when root); ``config`` goes over ``defaults``.

        With nothing configured (``defaults={}``) no configuration file is written.
        """
        self.directory = directory
        self.write_settings(
            directory, merge(DEFAULTS if defaults is None else defaults, config or {})
        )
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
                pass_fds=pass_fds,
                **identity,
            )
        self.url = ""
        self.verify: bool | str = True

    @staticmethod
    def write_settings(directory: Path, settings: dict[str, Any]) -> None:
        """Write a configuration file, if there is anything to write, where a hub is to run."""
        directory.mkdir(exist_ok=True)
        if settled(settings):
            (directory / "minihub.yaml").write_text(yaml.safe_dump(settled(settings)))

    def wait_ready(
        self, timeout_s: float = START_TIMEOUT_S, *, url: str = "", verify: bool | str = True
    ) -> HubProcess:
        """Wait until the hub answers through its public port and has said all of its start.

        ``url`` is the one to use where the hub's own cannot be reached, ``verify`` the file of
        its certificate.
        """
        self.verify = verify
        deadline = time.monotonic() + timeout_s
        facts = self.directory / "minihub-data" / "lock"
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the hub ended with {self.process.returncode}\n{self.text}")
            try:
                self.url = url or json.loads(facts.read_text())["url"]
                answer = requests.get(self.url + "hub/api", timeout=5, verify=verify)
                if answer.status_code == 200 and "\nStop with Ctrl-C." in self.text:
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

    # -- looking inside --------------------------------------------------------------------

    @property
    def state_dir(self) -> Path:
        return self.directory / "minihub-data"

    def proxy(self) -> dict[str, Any]:
        """Return what the hub keeps of its proxy: ``pid``, ``api_url``, ``auth_token`` ..."""
        return json.loads((self.state_dir / "proxy.json").read_text())

    def routes(self) -> dict[str, dict[str, Any]]:
        """Return the proxy's routes by their paths, the host first where there are hosts."""
        facts = self.proxy()
        answer = requests.get(
            facts["api_url"] + "/api/routes",
            headers={"Authorization": f"token {facts['auth_token']}"},
            timeout=5,
        )
        answer.raise_for_status()
        return answer.json()

    def api(self, path: str, token: str, method: str = "GET", **kwargs: Any) -> requests.Response:
        """Call the hub's API with a token."""
        headers = {"Authorization": f"token {token}"}
        url = f"{self.url}hub/api/{path}"
        kwargs.setdefault("timeout", 20)
        return requests.request(method, url, headers=headers, verify=self.verify, **kwargs)

    def default_route(self) -> str:
        """Return where the proxy sends what is no server's."""
        return self.routes()["/"]["target"]

    def rows(self, query: str, *values: Any) -> list[Any]:
        """Return what a query of the hub's database finds."""
        with contextlib.closing(sqlite3.connect(self.directory / "jupyterhub.sqlite")) as db:
            return db.execute(query, values).fetchall()

    def server_process(self, name: str) -> psutil.Process:
        """Return the process of a user's default server."""
        query = "select state from servers join users on user_id = users.id where users.name = ?"
        return psutil.Process(json.loads(self.rows(query, name)[0][0])["pid"])

    def server_pid(self, name: str) -> int | None:
        """Return the process id of a user's default server; None while it has none."""
        query = "select state from servers join users on user_id = users.id where users.name = ?"
        rows = self.rows(query, name)
        return json.loads(rows[0][0] or "{}").get("pid") if rows else None

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

    def sweep(self) -> None:
        """End what a hub that was killed, or left on purpose, has left running."""
        pids = []
        if (self.state_dir / "proxy.json").exists():
            pids.append(self.proxy()["pid"])
        if (self.directory / "jupyterhub.sqlite").exists():
            with contextlib.suppress(sqlite3.Error):  # it may be another program's
                states = self.rows("select state from servers")
                pids += [json.loads(state).get("pid") for (state,) in states]
        for note in (self.state_dir / "services").glob("*.json"):
            pids.append(json.loads(note.read_text())["pid"])
        for pid in filter(None, pids):
            with contextlib.suppress(psutil.Error):
                one = psutil.Process(pid)
                if "MINIHUB_SERVER_ID" in one.environ():
                    one.kill()

    def browser(self, name: str = "", password: str = "pw") -> Browser:
        """Return a browser, logged in as ``name`` if one is given."""
        browser = Browser(self.url)
        browser.verify = self.verify
        if name:
            response = browser.login(name, password)
            assert response.status_code == 302, response.text
        return browser


@contextlib.contextmanager
def serving(
    directory: Path, config: dict[str, Any] | None = None, **given: Any
) -> Iterator[HubProcess]:
    """Run a hub that several tests share; it must end well, without a traceback in its log."""
    hub = HubProcess(directory, config, **given).wait_ready()
    yield hub
    assert hub.stop() == 0, hub.text
    assert "Traceback" not in hub.text, hub.text


def starting(tmp_path: Path) -> Iterator[Callable[..., HubProcess]]:
    """Yield a function that starts hubs with any configuration; then end all that it started."""
    hubs: list[HubProcess] = []

    def start(
        config: dict[str, Any] | None = None,
        *,
        wait: bool = True,
        ready: dict[str, Any] | None = None,
        **kw: Any,
    ) -> HubProcess:
        directory = kw.pop("directory", tmp_path / f"hub{len(hubs)}")
        hub = HubProcess(directory, config, **kw)
        hubs.append(hub)
        return hub.wait_ready(**(ready or {})) if wait else hub

    try:
        yield start
    finally:
        for hub in hubs:
            if hub.process.poll() is None:
                hub.stop()
            hub.sweep()


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

    def start_server(self, name: str, timeout_s: float = 60.0) -> None:
        """Start the user's server from its page and wait until it runs."""
        self.get(f"/hub/spawn/{name}")
        self.wait_server(name, timeout_s)

    def wait_server(self, name: str, timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            response = self.get(f"/hub/spawn-pending/{name}")
            if response.status_code == 302:
                return
            assert time.monotonic() < deadline, response.text
            time.sleep(0.05)


def run_altered(change: str, *args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run minihub in a directory after some code that changes it, for what cannot be provoked."""
    code = f"import sys; from minihub import cli\n{change}\nsys.exit(cli.main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
