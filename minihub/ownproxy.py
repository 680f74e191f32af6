"""The hub's side of the built-in proxy: what it can do beyond configurable-http-proxy.

Rules of this file: its process and its routes are :mod:`minihub.proxies`' work; here is only its
command line, where it listens, and the additions to its API.

Threads: as in :mod:`minihub.proxies`.
"""

from __future__ import annotations

import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

from traitlets import default

from . import process, runtime
from .addresses import in_url
from .errors import ProxyError
from .proxies import ConfigurableHTTPProxy
from .traits import Command


class ThreadedProxy(ConfigurableHTTPProxy):
    """The built-in proxy: the ``proxy`` verb of this program."""

    command = Command([], help="Program to use in place of the built-in one.").tag(
        config=True, example=["minihub", "proxy"]
    )

    finds_ports = True
    _PUBLIC = re.compile(r"Proxying https?://.*:(\d+) to")
    _API = re.compile(r"Proxy API at https?://.*:(\d+)/api/routes")

    @default("api_url")
    def _default_api_url(self) -> str:
        """The usual port when it is free, else any: a second hub on one machine is no mistake."""
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", 8001))
            except OSError:
                return "http://127.0.0.1:0"
        return "http://127.0.0.1:8001"

    @property
    def waits_for_routes(self) -> bool:
        """Whether the public side waits for the hub's route, the last of those there are.

        Then nobody is told, by a proxy that has just been started again, that a server that runs
        is not there.
        """
        return self.hub_is_default and not self.command

    def program(self) -> list[str]:
        return list(self.command) or runtime.self_command("proxy")

    def arguments(self) -> list[str]:
        args = super().arguments()
        # So that the hub learns of the process that this one hands over to.
        args += ["--pid-file", str(Path(self.pid_file).absolute())]
        if self.waits_for_routes:
            args.append("--wait-for-default")
        host, port, prefix = self.place.statsd
        if host and not self.command:
            args += ["--statsd-host", host, "--statsd-port", str(port)]
            args += ["--statsd-prefix", f"{prefix}.chp" if prefix else "chp"]
        return args

    def close_tunnels(self, routespec: str) -> None:
        if not self.command:  # an addition of ours to the proxy's API
            self._client.request("DELETE", self._api_path(routespec, "tunnels"))

    def find_ports(self) -> None:
        """Read the ports in use from what the proxy prints once it listens."""
        if self.public_port and urlsplit(self.api_url).port:
            return
        lines = "\n".join(process.tail(self.log_path, 50, self._log_since))
        public, api = self._PUBLIC.search(lines), self._API.search(lines)
        if public is None or api is None:
            raise ProxyError("the proxy does not listen yet")
        self.public_port = int(public[1])
        parts = urlsplit(self.api_url)
        self.api_url = f"{parts.scheme}://{in_url(parts.hostname)}:{api[1]}"
