"""The environment of a server: how it finds the hub, and how its spawner's options reach it.

Rules of this file: the names and values are those that single-user servers read, of JupyterHub's
first generation and of today's. Nothing of the hub's own environment is looked at here.

Threads: as for the spawner.
Sources: JupyterHub 6's Spawner.get_env, and what JupyterHub 0.8 set before it.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from traitlets import TraitError


def of_hub(spawner: Any) -> dict[str, str]:
    """Return how the server finds the hub and proves itself."""
    hub, user = spawner.hub, spawner.user
    api_url = hub.api_url
    if spawner.hub_connect_url:
        api_url = spawner.hub_connect_url.rstrip("/") + urlsplit(api_url).path
    access = json.dumps(spawner.oauth_access_scopes)
    host = f"[{spawner.ip}]" if ":" in spawner.ip else spawner.ip
    env = {
        "JUPYTERHUB_API_TOKEN": spawner.api_token,
        "JPY_API_TOKEN": spawner.api_token,
        "JUPYTERHUB_CLIENT_ID": spawner.oauth_client_id,
        "JUPYTERHUB_COOKIE_HOST_PREFIX_ENABLED": str(int(hub.cookie_host_prefix_enabled)),
        "JUPYTERHUB_HOST": hub.public_host,
        "JUPYTERHUB_OAUTH_CALLBACK_URL": spawner.oauth_callback_url,
        "JUPYTERHUB_OAUTH_SCOPES": access,
        "JUPYTERHUB_OAUTH_ACCESS_SCOPES": access,
        "JUPYTERHUB_OAUTH_CLIENT_ALLOWED_SCOPES": json.dumps(spawner.allowed_scopes()),
        "JUPYTERHUB_USER": user.name,
        "JUPYTERHUB_SERVER_NAME": spawner.server_name,
        "JUPYTERHUB_API_URL": api_url,
        "JUPYTERHUB_ACTIVITY_URL": f"{api_url}/users/{user.escaped_name}/activity",
        "JUPYTERHUB_BASE_URL": hub.base_url,
        "JUPYTERHUB_SERVICE_PREFIX": spawner.server_url,
        "JUPYTERHUB_SERVICE_URL": f"http://{host}:{spawner.port}{spawner.server_url}",
        "JUPYTERHUB_PUBLIC_URL": hub.public(spawner.server_url, user.host),
        "JUPYTERHUB_PUBLIC_HUB_URL": hub.public(hub.hub_prefix),
    }
    if hub.admin_access:
        env["JUPYTERHUB_ADMIN_ACCESS"] = "1"
    if hub.cookie_options:
        env["JUPYTERHUB_COOKIE_OPTIONS"] = json.dumps(dict(hub.cookie_options))
    return env


def of_options(spawner: Any) -> dict[str, str]:
    """Return how the options of a spawner reach its server."""
    env = {}
    for name in ("mem_limit", "mem_guarantee", "cpu_limit", "cpu_guarantee"):
        if getattr(spawner, name):
            env[name.upper()] = str(getattr(spawner, name))
    if spawner.notebook_dir:
        env["JUPYTERHUB_ROOT_DIR"] = spawner.format_string(spawner.notebook_dir)
    if spawner.default_url:
        env["JUPYTERHUB_DEFAULT_URL"] = spawner.format_string(spawner.default_url)
    if spawner.debug:
        env["JUPYTERHUB_DEBUG"] = "1"
    if spawner.disable_user_config:
        env["JUPYTERHUB_DISABLE_USER_CONFIG"] = "1"
    return env


def check_template(text: str, names: Sequence[str]) -> None:
    """Raise TraitError unless the ``{names}`` in a text are some of these."""
    known = ", ".join(f"{{{name}}}" for name in names)
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(text) if field is not None]
    except ValueError as error:
        raise TraitError(f"its braces do not match ({error}); it may hold {known}") from error
    for field in fields:
        if re.split(r"[.\[]", field)[0] not in names:
            raise TraitError(f"{{{field}}} means nothing here; it may hold {known}")


def as_text(key: Any, value: Any) -> str:
    """Return a variable's value as text. Raises TraitError when key or value cannot be one."""
    if not isinstance(key, str) or not key or "=" in key or "\0" in key:
        raise TraitError(f"{key!r} is not the name of a variable")
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise TraitError(f"the value of {key} is {value!r}; give a text (in quotes) or a number")
    if "\0" in str(value):
        raise TraitError(f"the value of {key} holds a NUL")
    return str(value)
