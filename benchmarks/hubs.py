"""The hubs that are compared, set up alike: the same people, the same servers, the same database.

Rules of this file: both run with the dummy authenticator, servers as plain processes, SQLite,
log level WARN and a service that may do everything. JupyterHub runs with its own proxy,
configurable-http-proxy; minihub with its own.

Threads: :meth:`Hub.each` uses a thread for each of its calls.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from common import CACHE, HERE, ROOT, Failed, Program, exchange, free_port, install_chp

MINIHUB = "minihub"
JUPYTERHUB = "jupyterhub"
UNBURDENED = "jupyterhub, grammar blocked"
SERVICE_TOKEN = "benchmark-service-token-0123456789"
AGENT = "benchmark"
#: The package that builds a grammar whenever jsonschema is imported.
GRAMMAR = "rfc3987_syntax"
TRIVIAL_SERVER = HERE / "trivial_server.py"
START_TIMEOUT_S = 60.0


def build_minihub() -> Path:
    """Build minihub.pyz from this checkout and return it."""
    target = CACHE / "minihub.pyz"
    CACHE.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(ROOT / "build_zipapp.py"), "-o", str(target)]
    if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
        sys.exit("minihub.pyz could not be built")
    return target


def lab_bin() -> Path:
    """Return the directory that holds JupyterHub, made if need be.

    ``MINIHUB_TEST_LAB_BIN`` in the environment names one that is there.
    """
    given = os.environ.get("MINIHUB_TEST_LAB_BIN")
    if given:
        return Path(given)
    sys.path.append(str(ROOT / "scripts"))
    import environments

    return environments.ensure_lab()


class Hub:
    """A hub with its proxy, in a directory of its own."""

    def __init__(self, work: Path, python: str, minihub: Path, lab: Path | None) -> None:
        """``lab`` holds JupyterHub; without it this is minihub."""
        self.work = work
        self.is_minihub = lab is None
        work.mkdir(parents=True, exist_ok=True)
        self.public_port, self.hub_port, self.proxy_port = (free_port() for _ in range(3))
        server = [python, "-I", "-S", str(TRIVIAL_SERVER)]
        self.env: dict[str, str] = {}
        if lab is None:
            self.command = [python, "-I", str(minihub)]
            self.env["MINIHUB_CACHE"] = str(CACHE / "unpacked")
            config = self._settings(server)
            config["ThreadedProxy"] = {"api_url": f"http://127.0.0.1:{self.proxy_port}"}
            (work / "minihub.yaml").write_text(json.dumps(config))  # JSON is YAML
        else:
            self.command = [str(lab / "jupyterhub"), "-f", "jupyterhub_config.py"]
            config = self._settings(server)
            config["ConfigurableHTTPProxy"] = {
                "api_url": f"http://127.0.0.1:{self.proxy_port}",
                "command": [str(install_chp())],
            }
            lines = ["c = get_config()"]
            for section, values in config.items():
                lines += [f"c.{section}.{key} = {value!r}" for key, value in values.items()]
            (work / "jupyterhub_config.py").write_text("\n".join(lines) + "\n")
        self.program: Program | None = None
        self.token = ""

    def _settings(self, server: list[str]) -> dict[str, dict[str, Any]]:
        return {
            "JupyterHub": {
                "ip": "127.0.0.1",
                "port": self.public_port,
                "hub_port": self.hub_port,
                "authenticator_class": "dummy",
                "spawner_class": "simple",
                "log_level": 30,
                "services": [{"name": "bench", "admin": True, "api_token": SERVICE_TOKEN}],
            },
            "Authenticator": {"allow_all": True},
            "Spawner": {"cmd": server},
            "SimpleLocalProcessSpawner": {
                "home_dir_template": str(self.work / "homes" / "{username}")
            },
        }

    def start(self, on: Iterable[int], *, block_grammar: bool = False) -> float:
        """Start it; return the seconds until its API answered through the proxy."""
        env = dict(self.env)
        if block_grammar:
            blocked = self.work / "blocked"
            blocked.mkdir(exist_ok=True)
            (blocked / f"{GRAMMAR}.py").write_text("raise ImportError('blocked')\n")
            env["PYTHONPATH"] = str(blocked)
        (self.work / "homes").mkdir(exist_ok=True)
        began = time.monotonic()
        self.program = Program(self.command, self.work / "hub.log", on=on, env=env, cwd=self.work)
        path = "/hub/api"
        ready = self.program.wait_answer(self.public_port, path, START_TIMEOUT_S, status=b"200")
        return ready - began

    def stop(self) -> None:
        if self.program is not None:
            self.program.stop()
            self.program = None

    @property
    def url(self) -> str:
        """Where the hub itself answers, without the proxy."""
        return f"http://127.0.0.1:{self.hub_port}"

    def rss_mib(self) -> float:
        """Return the resident memory of the hub and its proxy, without the servers."""
        pids = []
        for pid in self.program.pids():
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                continue
            if str(TRIVIAL_SERVER).encode() not in words:
                pids.append(pid)
        return self.program.rss_mib(pids)

    # -- the API ---------------------------------------------------------------------------

    def call(
        self, method: str, path: str, body: Any = None, *, token: str = SERVICE_TOKEN
    ) -> tuple[int, Any]:
        """Make one API request straight at the hub; return status and decoded answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.hub_port, timeout=180)
        payload = None if body is None else json.dumps(body)
        headers = {"Authorization": f"token {token}", "Content-Type": "application/json"}
        try:
            connection.request(method, "/hub/api" + path, payload, headers)
            response = connection.getresponse()
            raw = response.read()
        finally:
            connection.close()
        return response.status, json.loads(raw) if raw else None

    def must(self, wanted: int, method: str, path: str, body: Any = None) -> Any:
        """Make one API request; return the answer. Raises Failed for another status."""
        status, answer = self.call(method, path, body)
        if status != wanted:
            raise Failed(f"{method} {path} was answered {status}: {str(answer)[:200]}")
        return answer

    def add_users(self, names: list[str]) -> None:
        """Create users, a few hundred at once. Raises Failed."""
        for start in range(0, len(names), 500):
            self.must(201, "POST", "/users", {"usernames": names[start : start + 500]})

    def new_token(self, name: str) -> str:
        """Return a new token of a user. Raises Failed."""
        return self.must(201, "POST", f"/users/{quote(name)}/tokens", {})["token"]

    def form(self) -> dict[str, str]:
        """Return the cookie and the secret with which a browser logs in. Raises Failed."""
        answer = exchange(
            self.hub_port,
            f"GET /hub/login HTTP/1.1\r\nHost: 127.0.0.1:{self.hub_port}\r\n"
            f"User-Agent: {AGENT}\r\nConnection: close\r\n\r\n".encode(),
        ).decode("utf-8", "replace")
        head = answer.partition("\r\n\r\n")[0]
        cookies = re.findall(r"(?im)^set-cookie: ([^=;\s]+)=([^;\r]*)", head)
        secret = dict(cookies).get("_xsrf")
        if not secret:
            raise Failed(f"the login page sets no cookie _xsrf: {head[:300]}")
        return {
            "cookie": "; ".join(f"{name}={value}" for name, value in cookies),
            "secret": secret,
        }

    def login_script(self, place: Path, name: str) -> Path:
        """Write a wrk script that logs in people; ``name`` is a Lua expression. Raises Failed."""
        form = self.form()
        body = urlencode({"password": "x", "_xsrf": form["secret"]})
        place.write_text(
            "local n = 0\n"
            "local headers = {\n"
            f'  ["Host"] = "127.0.0.1:{self.hub_port}",\n'
            f'  ["User-Agent"] = "{AGENT}",\n'
            f'  ["Cookie"] = "{form["cookie"]}",\n'
            '  ["Content-Type"] = "application/x-www-form-urlencoded",\n'
            "}\n"
            "request = function()\n"
            "  n = n + 1\n"
            f'  local body = "{body}&username=" .. {name}\n'
            '  return wrk.format("POST", "/hub/login", headers, body)\n'
            "end\n"
            # wrk takes a redirect for a success, and the form shown again (403) for a failure
        )
        return place

    # -- servers ---------------------------------------------------------------------------

    def each(self, names: list[str], function: Callable[[str], None]) -> float:
        """Call a function for all names at once; return the seconds until the last one is done."""
        with ThreadPoolExecutor(len(names)) as pool:
            began = time.monotonic()
            for result in [pool.submit(function, name) for name in names]:
                result.result()
            return time.monotonic() - began

    def start_server(self, name: str) -> None:
        """Start a user's server and wait until it is ready. Raises Failed."""
        status, answer = self.call("POST", f"/users/{name}/server")
        if status not in (201, 202):
            raise Failed(f"a start was answered {status}: {str(answer)[:200]}")
        self._wait(name, lambda server: bool(server and server["ready"]), status == 202)

    def stop_server(self, name: str) -> None:
        """Stop a user's server and wait until it is stopped. Raises Failed."""
        status, answer = self.call("DELETE", f"/users/{name}/server")
        if status not in (202, 204):
            raise Failed(f"a stop was answered {status}: {str(answer)[:200]}")
        self._wait(name, lambda server: not server, status == 202)

    def _wait(self, name: str, is_done: Callable[[Any], bool], is_pending: bool) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while is_pending:
            model = self.must(200, "GET", f"/users/{name}")
            is_pending = not is_done(model["servers"].get(""))
            if time.monotonic() > deadline:
                raise Failed(f"the server of {name} is not done after {START_TIMEOUT_S:g} s")
            time.sleep(0.02)


def code_directory(minihub: Path) -> Path:
    """Return where minihub and what it needs can be imported from, once it has run."""
    if minihub.name == "__main__.py":
        return minihub.resolve().parents[1]
    copies = list((CACHE / "unpacked").glob("*/unpacked.manifest"))
    if not copies:
        raise Failed("minihub.pyz has unpacked itself nowhere")
    return max(copies, key=lambda path: path.stat().st_mtime).parent
