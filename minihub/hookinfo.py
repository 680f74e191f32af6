"""What spawners, authenticators and everybody's hooks see of the hub and of a user.

Rules of this file: plain data under JupyterHub's attribute names; no database behind it. What a
hook changes here changes nothing in the hub.

Threads: any; an object belongs to one spawner or one login.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from . import aio, subdomains, urls
from .errors import MinihubError

_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")


@dataclass(frozen=True)
class HubInfo:
    """What spawners and their hooks see of the hub."""

    #: The hub's API as servers reach it, without a final slash.
    api_url: str
    #: Everything of ours that lasts lies below this directory.
    state_dir: Path
    #: Files of the hub outside :attr:`state_dir` that no server may read: database, secrets, logs.
    own_files: tuple[str, ...] = ()
    #: Path of the whole site, with a slash at each end.
    base_url: str = "/"
    #: ``scheme://host`` that browsers use when users have hosts of their own, else empty.
    public_host: str = ""
    #: Full public URL of the whole site where that is known, else empty.
    public_url: str = ""
    admin_access: bool = False
    cookie_options: Mapping[str, Any] = field(default_factory=dict)
    cookie_host_prefix_enabled: bool = False
    #: The API as programs on the hub's own machine reach it best, where it listens everywhere.
    local_api_url: str = ""
    #: Names the hosts of users and services below :attr:`public_host`.
    subdomain_hook: subdomains.Hook = subdomains.idna

    @property
    def domain(self) -> str:
        """Host name of the hub when users have hosts of their own, else empty."""
        return urlsplit(self.public_host).hostname or ""

    def host_of(self, kind: str, name: str) -> str:
        """Return ``scheme://host[:port]`` of a ``user`` or ``service``; empty without such hosts.

        Raises MinihubError when the hook in the configuration gives no host name.
        """
        if not self.public_host:
            return ""
        parts = urlsplit(self.public_host)
        try:
            host = self.subdomain_hook(name, self.domain, kind)
        except Exception as error:  # it may be a function of the configuration
            why = f"{type(error).__name__}: {error}"
            raise MinihubError(f"JupyterHub.subdomain_hook: failed for {name!r}: {why}") from error
        if not isinstance(host, str) or not _HOST_NAME.fullmatch(host):
            raise MinihubError(f"JupyterHub.subdomain_hook: no host name for {name!r}: {host!r}")
        return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")

    def routespec(self, host: str, path: str) -> str:
        """Return a path as routes are named: with the host in front where there are hosts."""
        return (urlsplit(host).hostname or self.domain) + path if self.public_host else path

    @property
    def hub_prefix(self) -> str:
        """Path of the hub's own pages, ``BASEhub/``."""
        return self.base_url + "hub/"

    @cached_property
    def public_origin(self) -> str:
        """``scheme://host[:port]`` at which people reach the site where that is known, else ""."""
        parts = urlsplit(self.public_url)
        return f"{parts.scheme}://{parts.netloc}" if self.public_url else ""

    def public(self, path: str, host: str = "") -> str:
        """Return the full public URL of a path, or "" when that is not configured."""
        return (host or self.public_origin) + path if self.public_url else ""


@dataclass(frozen=True)
class GroupInfo:
    """A group as hooks see it."""

    name: str


@dataclass
class UserInfo:
    """A user as spawners, authenticators and hooks see one.

    ``groups`` may be given as names and holds objects with a ``name``. ``base_url`` is the site's
    path. ``auth_state`` is called to answer :meth:`get_auth_state`.
    """

    name: str
    id: int = 0
    admin: bool = False
    groups: list[Any] = field(default_factory=list)
    base_url: str = "/"
    host: str = ""
    domain: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    spawners: dict[str, Any] = field(default_factory=dict, repr=False)
    auth_state: Callable[[], dict[str, Any] | None] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.groups = [GroupInfo(one) if isinstance(one, str) else one for one in self.groups]

    @property
    def escaped_name(self) -> str:
        """The name as it stands in URLs."""
        return urls.escape_name(self.name)

    @property
    def prefix(self) -> str:
        """Path of the user's servers, ``BASEuser/NAME/``."""
        return f"{self.base_url}user/{self.escaped_name}/"

    @property
    def url(self) -> str:
        """Where the user's servers are: the path, with the user's own host if there is one."""
        return self.host + self.prefix

    def server_url(self, server_name: str = "") -> str:
        """Return the path of one server, ``BASEuser/NAME/[SERVER/]``, without the host."""
        return self.prefix + (urls.escape_name(server_name) + "/" if server_name else "")

    @property
    def spawner(self) -> Any:
        """The spawner of the default server, where there is one."""
        return self.spawners.get("")

    @property
    def server(self) -> Any:
        """Where the default server listens, as its spawner knows it; None without a spawner."""
        return self.spawner and self.spawner.server

    @aio.either
    def get_auth_state(self) -> dict[str, Any] | None:
        """Return what the authenticator stored about the user, or None. Hooks may await it."""
        return self.auth_state() if self.auth_state is not None else None
