"""Names under which functions and classes of a configuration know facts of a spawner.

JupyterHub's spawners have them, so hooks and methods of existing configurations read them.

Rules of this file: views of what a spawner has under our names; no state of its own, and no
database behind any of it.

Threads: as for the spawner.
Sources: the attributes of JupyterHub 6's Spawner and of its ``server``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .readiness import reachable


class ServerView:
    """Where a spawner's server listens; ``ip`` and ``port`` may be set, before it starts."""

    proto = "http"

    def __init__(self, spawner: Any) -> None:
        self._spawner = spawner

    @property
    def ip(self) -> str:
        return self._spawner.ip

    @ip.setter
    def ip(self, ip: str) -> None:
        self._spawner.ip = ip

    @property
    def port(self) -> int:
        return self._spawner.port

    @port.setter
    def port(self, port: int) -> None:
        self._spawner.port = port

    @property
    def base_url(self) -> str:
        """The server's path, ``BASEuser/NAME/[SERVER/]``."""
        return self._spawner.server_url

    @property
    def host(self) -> str:
        """``http://address:port``, as the hub reaches it."""
        return f"{self.proto}://{reachable(self.ip)}:{self.port}"

    @property
    def url(self) -> str:
        return self.host + self.base_url


class JupyterHubNames:
    """What JupyterHub's Spawner has beside its options and methods."""

    #: The authenticator in use; None where no hub runs, as in ``minihub server list``.
    authenticator: Any = None

    @property
    def name(self) -> str:
        """The server's name, "" for the default server."""
        return self.server_name

    @property
    def server(self) -> ServerView:
        return ServerView(self)

    @property
    def proxy_spec(self) -> str:
        """The name of the server's route."""
        return self.hub.routespec(self.user.host, self.server_url)

    @property
    def public_url(self) -> str:
        return self.hub.public(self.server_url, self.user.host)

    @property
    def public_hub_url(self) -> str:
        return self.hub.public(self.hub.hub_prefix)

    @property
    def admin_access(self) -> bool:
        return self.hub.admin_access

    @property
    def cookie_options(self) -> Mapping[str, Any]:
        return self.hub.cookie_options

    @property
    def _log_name(self) -> str:
        """The server as log lines of JupyterHub's classes call it."""
        return f"{self.user.name}:{self.server_name}"
