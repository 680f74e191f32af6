"""What spawners, authenticators and everybody's hooks see of the hub and of a user.

Rules of this file: plain data under JupyterHub's attribute names; no database behind it. What a
hook changes here changes nothing in the hub.

Threads: any; an object belongs to one spawner or one login.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from . import aio, urls


@dataclass(frozen=True)
class HubInfo:
    """What spawners and their hooks see of the hub."""

    #: The hub's API as servers reach it, without a final slash.
    api_url: str
    #: Everything of ours that lasts lies below this directory.
    state_dir: Path
    #: Path of the whole site, with a slash at each end.
    base_url: str = "/"
    #: ``scheme://host`` that browsers use when users have hosts of their own, else empty.
    public_host: str = ""
    #: Full public URL of the whole site if configured, else empty.
    public_url: str = ""
    admin_access: bool = False
    cookie_options: Mapping[str, Any] = field(default_factory=dict)
    cookie_host_prefix_enabled: bool = False

    @property
    def hub_prefix(self) -> str:
        """Path of the hub's own pages, ``BASEhub/``."""
        return self.base_url + "hub/"

    def public(self, path: str, host: str = "") -> str:
        """Return the full public URL of a path, or "" when ``public_url`` is not configured."""
        if not self.public_url:
            return ""
        parts = urlsplit(self.public_url)
        return (host or f"{parts.scheme}://{parts.netloc}") + path


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
        """Return the path of one server, ``BASEuser/NAME/[SERVER/]``."""
        return self.prefix + (urls.escape_name(server_name) + "/" if server_name else "")

    @aio.either
    def get_auth_state(self) -> dict[str, Any] | None:
        """Return what the authenticator stored about the user, or None. Hooks may await it."""
        return self.auth_state() if self.auth_state is not None else None
