"""The proxies that are compared, each as its users start it, and what is behind them.

Rules of this file: every proxy sends ``/`` to the plain upstream (nginx) and ``/load/`` to the
other one (load.c). minihub and configurable-http-proxy run their defaults, nginx the
configurations kept beside this file.

Threads: the main thread.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from common import HERE, ROOT, Failed, Program, build_load, free_port, install_chp, need

TOKEN = "benchmark-token"
BIG_BYTES = 64 * 2**20

MINIHUB = "minihub"
CHP = "chp"
NGINX = "nginx"
NGINX_TUNED = "nginx tuned"


class Upstreams:
    """nginx with fixed bodies, and load.c for WebSockets and uploads."""

    def __init__(self, work: Path, on: Iterable[int]) -> None:
        need("nginx")
        self.plain_port = free_port()
        with open(work / "big", "wb") as big:
            big.write(os.urandom(2**20) * (BIG_BYTES // 2**20))
        values = {"DIR": work, "PORT": self.plain_port}
        self.plain = _start_nginx(work, "upstream", HERE / "nginx-upstream.conf", values, on)
        self.plain.wait_answer(self.plain_port)
        self.load = Program([build_load(), "serve"], work / "load-serve.log", on=on)
        self.load_port = int(self.load.wait_text(r"port (\d+)")[1])

    @property
    def programs(self) -> list[Program]:
        return [self.plain, self.load]

    def stop(self) -> None:
        for program in self.programs:
            program.stop()


def _start_nginx(
    work: Path, kind: str, template: Path, values: dict[str, Any], on: Iterable[int]
) -> Program:
    text = template.read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    config = work / f"{kind}.conf"
    config.write_text(text)
    return Program(["nginx", "-p", work, "-e", "stderr", "-c", config], work / f"{kind}.log", on=on)


class Proxy:
    """A proxy under test. ``api_port`` is 0 where there is no REST API for routes."""

    def __init__(self, name: str, program: Program, port: int, api_port: int = 0) -> None:
        self.name = name
        self.program = program
        self.port = port
        self.api_port = api_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def api(self, method: str, path: str, body: Any = None) -> int:
        """Call the REST API; return the status."""
        connection = http.client.HTTPConnection("127.0.0.1", self.api_port, timeout=60)
        payload = None if body is None else json.dumps(body)
        connection.request(method, path, payload, {"Authorization": f"token {TOKEN}"})
        response = connection.getresponse()
        response.read()
        connection.close()
        return response.status

    def add_route(self, path: str, target_port: int) -> None:
        """Send what begins with ``path`` to that port. Raises Failed."""
        target = {"target": f"http://127.0.0.1:{target_port}"}
        status = self.api("POST", f"/api/routes{path}", target)
        if status != 201:
            raise Failed(f"{self.name} answered {status} to a new route")

    def stop(self) -> None:
        self.program.stop()


class Proxies:
    """Starts proxies in front of the same upstreams."""

    def __init__(
        self,
        work: Path,
        upstreams: Upstreams,
        on: Iterable[int],
        *,
        python: str = sys.executable,
        minihub: Path = ROOT / "minihub" / "__main__.py",
    ) -> None:
        """``minihub`` is the built file, or the checkout's ``__main__.py``."""
        self.work = work
        self.upstreams = upstreams
        self.on = list(on)
        self.minihub_command = [python, "-I", "-S", str(minihub), "proxy"]
        self._count = 0

    def start(self, name: str, *, on: Iterable[int] | None = None, args: Iterable[str] = ()) -> Any:
        """Start the proxy of that name, with both routes, and wait until it answers."""
        proxy = self.launch(name, on=on, args=args)
        try:
            proxy.program.wait_answer(proxy.port)
            if proxy.api_port:
                proxy.add_route("/load", self.upstreams.load_port)
        except BaseException:
            proxy.stop()
            raise
        return proxy

    def launch(
        self, name: str, *, on: Iterable[int] | None = None, args: Iterable[str] = ()
    ) -> Proxy:
        """Start the proxy of that name with ``/`` as its only route; do not wait for it."""
        cores = self.on if on is None else list(on)
        port = free_port()
        self._count += 1
        log = self.work / f"proxy-{self._count}.log"
        if name in (NGINX, NGINX_TUNED):
            kind = "nginx-tuned" if name == NGINX_TUNED else "nginx-default"
            template = self.work / f"{kind}-{self._count}.template"
            text = (HERE / "nginx-proxy.conf").read_text()
            if name == NGINX_TUNED:
                text = text.replace("#tuned#", "")
            template.write_text(text)
            values = {
                "DIR": self.work,
                "KIND": kind,
                "PORT": port,
                "PLAIN": self.upstreams.plain_port,
                "LOAD": self.upstreams.load_port,
            }
            return Proxy(name, _start_nginx(self.work, kind, template, values, cores), port)
        command = self.minihub_command if name == MINIHUB else [str(install_chp())]
        api_port = free_port()
        argv = [*command, "--ip", "127.0.0.1", "--port", str(port)]
        argv += ["--api-ip", "127.0.0.1", "--api-port", str(api_port)]
        argv += ["--default-target", f"http://127.0.0.1:{self.upstreams.plain_port}", *args]
        program = Program(argv, log, on=cores, env={"CONFIGPROXY_AUTH_TOKEN": TOKEN})
        return Proxy(name, program, port, api_port)

    def has_option(self, option: str) -> bool:
        """Return whether minihub's proxy knows a command line option."""
        log = self.work / "help.log"
        program = Program([*self.minihub_command, "--help"], log, on=self.on)
        program.process.wait(30)
        return re.search(rf"^ +{re.escape(option)}\b", program.text, re.MULTILINE) is not None
