"""Services: programs that use the hub under a name of their own, as the configuration lists them.

Rules of this file: it reads and judges the entries of ``JupyterHub.services`` and says what a
managed service finds in its environment. It starts nothing and stores nothing; that is
:mod:`minihub.servicerunner`'s work.

Threads: any; a :class:`ServiceSpec` never changes.
Sources: JupyterHub's service entries.
"""

from __future__ import annotations

import json
import os
import pwd
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from . import process, rlimits
from .errors import ConfigError
from .hookinfo import HubInfo
from .urls import is_host

#: What a service inherits of the hub's own environment.
ENV_KEEP = (
    "PATH",
    "PYTHONPATH",
    "CONDA_ROOT",
    "CONDA_DEFAULT_ENV",
    "VIRTUAL_ENV",
    "LANG",
    "LC_ALL",
)
MIN_TOKEN_LENGTH = 8
DEFAULT_TIMEOUT_S = 30
_PLAIN_URL = re.compile(r"[^\x00-\x20\x7f#\\<>\"]*")
_NAME = re.compile(r"(?!\.{1,2}\Z)[^/\x00-\x1f]{1,255}")


@dataclass(frozen=True)
class ServiceSpec:
    """One entry of ``JupyterHub.services``; fields are its keys."""

    name: str
    admin: bool = False
    url: str = ""
    api_token: str = ""
    command: tuple[str, ...] = ()
    cwd: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)
    user: str = ""
    oauth_client_id: str = ""
    oauth_redirect_uri: str = ""
    oauth_no_confirm: bool = False
    oauth_client_allowed_scopes: tuple[str, ...] = ()
    #: Names of roles whose scopes count as allowed ones; the older way.
    oauth_roles: tuple[str, ...] = ()
    info: Mapping[str, Any] = field(default_factory=dict)
    display: bool = True
    timeout: float = DEFAULT_TIMEOUT_S
    #: Written for JupyterHub 0.8: its requests are answered as that release did.
    legacy: bool = False

    @property
    def managed(self) -> bool:
        """Whether the hub runs the service itself."""
        return bool(self.command)

    @property
    def client_id(self) -> str:
        return self.oauth_client_id or f"service-{self.name}"

    @property
    def uses_oauth(self) -> bool:
        return bool(self.url or self.oauth_client_id or self.oauth_redirect_uri)

    @property
    def target(self) -> str:
        """``scheme://host:port`` behind the proxy; the URL's path is not part of it."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    def prefix(self, base_url: str) -> str:
        """Return where the service is reached, ``BASEservices/NAME/``."""
        return f"{base_url}services/{quote(self.name, safe='@~')}/"

    def href(self, hub: HubInfo) -> str:
        """Return :meth:`prefix` with the service's own host in front if there is one."""
        return hub.host_of("service", self.name) + self.prefix(hub.base_url)

    def routespec(self, hub: HubInfo) -> str:
        """Return the name of the service's route."""
        return hub.routespec(hub.host_of("service", self.name), self.prefix(hub.base_url))

    def redirect_uri(self, hub: HubInfo) -> str:
        return self.oauth_redirect_uri or self.href(hub) + "oauth_callback"

    def launch_spec(self) -> process.LaunchSpec:
        """Return as whom a managed service runs."""
        given = rlimits.at_start()
        if not self.user:
            return process.LaunchSpec(rlimits=given)
        account = pwd.getpwnam(self.user)
        return process.LaunchSpec(
            user=self.user, uid=account.pw_uid, gid=account.pw_gid, rlimits=given
        )

    def env(self, hub: HubInfo, api_token: str) -> dict[str, str]:
        """Return the whole environment of a managed service."""
        env = {name: os.environ[name] for name in ENV_KEEP if name in os.environ}
        if self.user:
            account = pwd.getpwnam(self.user)
            env |= {"USER": self.user, "HOME": account.pw_dir, "SHELL": account.pw_shell}
        elif "HOME" in os.environ:
            env["HOME"] = os.environ["HOME"]
        access = json.dumps(["access:services", f"access:services!service={self.name}"])
        prefix = self.prefix(hub.base_url)
        env |= {
            "JUPYTERHUB_SERVICE_NAME": self.name,
            "JUPYTERHUB_API_TOKEN": api_token,
            "JPY_API_TOKEN": api_token,
            "JUPYTERHUB_CLIENT_ID": self.client_id,
            "JUPYTERHUB_COOKIE_HOST_PREFIX_ENABLED": str(int(hub.cookie_host_prefix_enabled)),
            "JUPYTERHUB_HOST": hub.public_host,
            "JUPYTERHUB_OAUTH_CALLBACK_URL": self.redirect_uri(hub),
            "JUPYTERHUB_OAUTH_SCOPES": access,
            "JUPYTERHUB_OAUTH_ACCESS_SCOPES": access,
            "JUPYTERHUB_OAUTH_CLIENT_ALLOWED_SCOPES": json.dumps(
                list(self.oauth_client_allowed_scopes)
            ),
            "JUPYTERHUB_API_URL": hub.local_api_url or hub.api_url,
            "JUPYTERHUB_ACTIVITY_URL": "",
            "JUPYTERHUB_BASE_URL": hub.base_url,
            "JUPYTERHUB_USER": self.user,
            "JUPYTERHUB_SERVER_NAME": "",
            "JUPYTERHUB_PUBLIC_HUB_URL": hub.public(hub.hub_prefix),
        }
        if self.url:
            env |= {
                "JUPYTERHUB_SERVICE_URL": self.url,
                "JUPYTERHUB_SERVICE_PREFIX": prefix,
                "JUPYTERHUB_PUBLIC_URL": hub.public(prefix, hub.host_of("service", self.name)),
            }
        return env | {name: str(value) for name, value in self.environment.items()}


def _is_texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)


def _is_url(url: str) -> bool:
    """Return whether ``url`` is one that the proxy can send requests to."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return False
    return (
        parts.scheme in ("http", "https")
        and is_host(host)
        and port != 0
        and "@" not in parts.netloc
    )


def _is_redirect(value: Any) -> bool:
    """Return whether codes may be sent there: a path of this origin, or an http(s) URL.

    Without fragment (RFC 6749, section 3.1.2), and without what browsers read in ways of their own.
    """
    if not isinstance(value, str) or not value.isascii() or not _PLAIN_URL.fullmatch(value):
        return False
    if value.startswith("/"):
        return not value.startswith("//")
    return not value or _is_url(value)


def _is_environment(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str)
        and name
        and "=" not in name
        and isinstance(one, (str, int, float))
        and not isinstance(one, bool)
        for name, one in value.items()
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0


#: What each key takes, in words and as a test.
_KEYS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "name": ("a text without slash", lambda v: isinstance(v, str) and bool(_NAME.fullmatch(v))),
    "admin": ("true or false", lambda v: isinstance(v, bool)),
    "url": ("an http:// or https:// URL", lambda v: isinstance(v, str)),
    "api_token": ("a text", lambda v: isinstance(v, str)),
    "command": ("a list of texts, or a text", lambda v: isinstance(v, str) or _is_texts(v)),
    "cwd": ("a directory", lambda v: isinstance(v, (str, os.PathLike))),
    "environment": ("names, without =, and for each a text or a number", _is_environment),
    "user": ("a system user's name", lambda v: isinstance(v, str)),
    "oauth_client_id": ("a text", lambda v: isinstance(v, str)),
    "oauth_redirect_uri": ("a path, or an http:// or https:// URL, without fragment", _is_redirect),
    "oauth_no_confirm": ("true or false", lambda v: isinstance(v, bool)),
    "oauth_client_allowed_scopes": ("a list of scopes", _is_texts),
    "oauth_roles": ("a list of roles", _is_texts),
    "info": ("names and values", lambda v: isinstance(v, Mapping)),
    "display": ("true or false", lambda v: isinstance(v, bool)),
    "timeout": ("a number of seconds", _is_number),
    "legacy": ("true or false", lambda v: isinstance(v, bool)),
}


def parse(entries: list[Any]) -> list[ServiceSpec]:
    """Return the services of ``JupyterHub.services``. Raises ConfigError with every problem."""
    problems: list[str] = []
    specs: list[ServiceSpec] = []
    for number, entry in enumerate(entries, 1):
        found = _problems(entry)
        if found:
            label = entry.get("name") if isinstance(entry, Mapping) else None
            where = f"JupyterHub.services, entry {label or number}"
            problems += [f"{where}: {text}" for text in found]
            continue
        values = {key: value for key, value in entry.items() if value is not None}
        command = values.get("command") or ()
        values["command"] = (command,) if isinstance(command, str) else tuple(command)
        for key in ("oauth_client_allowed_scopes", "oauth_roles"):
            values[key] = tuple(values.get(key, ()))
        values["cwd"] = os.fspath(values.get("cwd", ""))
        specs.append(ServiceSpec(**values))
    names = [spec.name for spec in specs]
    for name in sorted({name for name in names if names.count(name) > 1}):
        problems.append(f"JupyterHub.services: there are two services named {name}")
    if problems:
        raise ConfigError(problems)
    return specs


def _problems(entry: Any) -> list[str]:
    """Return what is wrong with one entry."""
    if not isinstance(entry, Mapping):
        return [f"a service is a mapping with at least a name, not {entry!r}"[:200]]
    found = []
    if "name" not in entry:
        found.append("a service needs a name")
    for key, value in entry.items():
        if key not in _KEYS:
            found.append(f"there is no key {key!r}; there are {', '.join(_KEYS)}")
        elif value is not None and not _KEYS[key][1](value):
            found.append(f"{key} takes {_KEYS[key][0]}")
    if found:
        return found
    url, token = entry.get("url") or "", entry.get("api_token") or ""
    if url and not _is_url(url):
        found.append(f"url takes an http:// or https:// URL, not {url!r}")
    if token and len(token) < MIN_TOKEN_LENGTH:
        found.append(f"api_token needs at least {MIN_TOKEN_LENGTH} characters")
    client_id = entry.get("oauth_client_id") or ""
    if client_id and not client_id.startswith("service-"):
        found.append("oauth_client_id must begin with service-")
    if entry.get("user"):
        try:
            pwd.getpwnam(entry["user"])
        except KeyError:
            found.append(f"this machine has no user {entry['user']}")
    return found
