"""A hub's admin in the tests: verbs of the command line, and the REST API with an own token."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable

import requests
from harness import ROOT, HubProcess

PROGRAM = [sys.executable, "-I", str(ROOT / "minihub" / "__main__.py")]


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 15.0) -> None:
    """Wait until ``condition()`` is true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.05)


class Admin:
    """A hub with the token of its admin."""

    def __init__(self, hub: HubProcess) -> None:
        self.hub = hub
        self.api = hub.url + "hub/api"
        self.token = self.new_token()

    def new_token(self, *flags):
        done = self.run("token", "root-admin", *flags)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def run(self, *arguments, **kwargs):
        """Run a verb in the hub's directory."""
        return subprocess.run(
            [*PROGRAM, *arguments],
            cwd=self.hub.directory,
            capture_output=True,
            text=True,
            **kwargs,
        )

    def call(self, method, path, **kwargs):
        headers = {"Authorization": f"token {self.token}"}
        return requests.request(method, self.api + path, headers=headers, timeout=30, **kwargs)

    def start(self, user, server=""):
        self.call("POST", f"/users/{user}")
        path = f"servers/{server}" if server else "server"
        assert self.call("POST", f"/users/{user}/{path}").status_code in (201, 202)
        wait_until(lambda: self.servers(user).get(server, {}).get("ready"), f"{user} {server}")

    def servers(self, user):
        answer = self.call("GET", f"/users/{user}")
        return answer.json()["servers"] if answer.status_code == 200 else {}

    def cull(self, *flags, token="", url="", **kwargs):
        """Run the verb; standard library only, as it promises."""
        environ = {"JUPYTERHUB_API_URL": url or self.api}
        environ["JUPYTERHUB_API_TOKEN"] = token or self.token
        program = [sys.executable, "-I", "-S", str(ROOT / "minihub" / "__main__.py")]
        return subprocess.run(
            [*program, "cull", *flags], env=environ, capture_output=True, text=True, **kwargs
        )

    def cull_until(self, condition, *flags):
        """Run the verb again and again until it has done ``condition``; return all its lines."""
        done = []

        def once():
            one = self.cull("--json", *flags)
            assert one.returncode == 0, one.stderr
            done.extend(json.loads(line) for line in one.stdout.splitlines())
            return condition()

        wait_until(once, f"cull {flags}", 20)
        return done
