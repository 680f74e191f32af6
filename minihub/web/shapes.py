"""Rows as the REST API shows them.

Rules of this file: the only place that knows the API's field names. Functions take rows and facts
and return JSON-ready values; they query nothing. Dates come and go as text.

Threads: any; pure functions.
Sources: JupyterHub 6's REST API; JupyterHub 0.8's dates.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ..models import Service, Share, ShareCode, Token
from ..scopes import ALL, Scopes, split

#: Which keys of a user a scope shows.
_USER_KEYS = {
    "read:users": frozenset({
        "kind", "name", "admin", "roles", "groups", "server", "pending", "created",
        "last_activity", "user_info",
    }),
    "read:users:name": frozenset({"kind", "name", "admin", "user_info"}),
    "read:users:groups": frozenset({"kind", "name", "groups"}),
    "read:users:activity": frozenset({"kind", "name", "last_activity"}),
    "read:servers": frozenset({"kind", "name", "servers"}),
    "read:roles:users": frozenset({"kind", "name", "roles", "admin"}),
    "admin:auth_state": frozenset({"kind", "name", "auth_state"}),
}  # fmt: skip
ALL_USER_KEYS = frozenset().union(*_USER_KEYS.values())
#: What everybody may know of themselves.
OWN_KEYS = _USER_KEYS["read:users:name"] | _USER_KEYS["read:users:groups"]

_GROUP_KEYS = {
    "read:groups": frozenset({"kind", "name", "properties", "users"}),
    "read:groups:name": frozenset({"kind", "name"}),
    "read:roles:groups": frozenset({"kind", "name", "roles"}),
}
_SERVICE_KEYS = {
    "read:services": frozenset({
        "kind", "name", "admin", "url", "prefix", "command", "pid", "info", "display",
    }),
    "read:services:name": frozenset({"kind", "name", "admin"}),
    "read:roles:services": frozenset({"kind", "name", "roles", "admin"}),
}  # fmt: skip
#: What every service may know of itself.
OWN_SERVICE_KEYS = _SERVICE_KEYS["read:services:name"]

#: The keys whose values are dates, at any depth.
_DATES = frozenset(
    {"created", "last_activity", "started", "expires_at", "created_at", "last_exchanged_at"}
)


# -- users and servers ---------------------------------------------------------------------


class UserView:
    """Which keys of which users some scopes show. Any thread may ask."""

    def __init__(self, scopes: Scopes) -> None:
        self._scopes = scopes
        self._remembered: tuple[str, tuple[str, ...], frozenset[str]] | None = None
        whole: frozenset[str] = frozenset()
        self._narrow: list[tuple[str, frozenset[str]]] = []
        for scope, keys in _USER_KEYS.items():
            held = scopes.filters(scope)
            if held is ALL:
                whole |= keys
            elif held:
                self._narrow.append((scope, keys))
        self._whole = whole

    def keys(self, name: str, groups: Collection[str]) -> frozenset[str]:
        """Return the keys shown of the user ``name``, who is in ``groups``."""
        if not self._narrow:
            return self._whole
        last, asked = self._remembered, (name, tuple(groups))
        if last is not None and last[:2] == asked:  # whoever asks again asks of themselves
            return last[2]
        keys = self._whole
        for scope, more in self._narrow:
            if self._scopes.allows(scope, user=name, user_groups=groups):
                keys |= more
        self._remembered = (*asked, keys)
        return keys

    def shows(self, scope: str, user: str, server: str, groups: Collection[str]) -> bool:
        """Return whether ``scope`` is held for one server of ``user``."""
        return self._scopes.allows(scope, server=f"{user}/{server}", user_groups=groups)


def user_model(
    *,
    name: str,
    admin: bool,
    roles: list[str],
    groups: list[str],
    server: str | None,
    pending: str | None,
    created: str,
    last_activity: str | None,
    servers: dict[str, Any],
    keys: Collection[str],
) -> dict[str, Any]:
    """Return those ``keys`` of a user; ``servers`` also when there are any to show."""
    model = {
        "kind": "user",
        "name": name,
        "admin": admin,
        "roles": roles,
        "groups": groups,
        "server": server,
        "pending": pending,
        "created": created,
        "last_activity": last_activity,
        "auth_state": None,
        "servers": servers,
        "user_info": None,
    }
    if len(keys) == len(model):
        return model
    return {key: model[key] for key in model if key in keys or (key == "servers" and servers)}


def full_url(url: str, origin: str) -> str | None:
    """Return a URL with its host, None where that is not known."""
    if "://" in url:
        return url
    return origin + url if origin else None


def server_model(
    *,
    user: str,
    name: str,
    display_name: str,
    last_activity: str | None,
    started: str | None,
    pending: str | None,
    ready: bool,
    stopped: bool,
    url: str,
    user_options: Any,
    progress_url: str,
    state: Mapping[str, Any] | None,
    origin: str,
) -> dict[str, Any]:
    """Return a server; ``state`` None leaves that key out.

    ``origin`` is ``scheme://host`` at which people reach the site, "" where nobody said it.
    """
    model = {
        "name": name,
        "display_name": display_name or name,
        "full_name": f"{user}/{name}",
        "last_activity": last_activity,
        "started": started,
        "pending": pending,
        "ready": ready,
        "stopped": stopped,
        "url": url,
        "user_options": user_options,
        "progress_url": progress_url,
        "full_url": full_url(url, origin),
        "full_progress_url": full_url(progress_url, origin),
    }
    if state is not None:
        model["state"] = dict(state)
    return model


# -- groups and services -------------------------------------------------------------------


def group_keys(scopes: Scopes, name: str) -> frozenset[str]:
    """Return the keys that some scopes show of a group."""
    return _keys(_GROUP_KEYS, scopes, group=name)


def group_model(
    name: str,
    *,
    roles: list[str],
    users: list[str],
    properties: Mapping[str, Any],
    keys: Collection[str],
) -> dict[str, Any]:
    """Return those ``keys`` of a group."""
    model = {
        "kind": "group",
        "name": name,
        "roles": roles,
        "users": users,
        "properties": properties,
    }
    return {key: value for key, value in model.items() if key in keys}


def service_keys(scopes: Scopes, name: str) -> frozenset[str]:
    """Return the keys that some scopes show of a service."""
    return _keys(_SERVICE_KEYS, scopes, service=name)


def service_model(
    row: Service,
    *,
    roles: Iterable[str],
    prefix: str,
    command: Iterable[str],
    pid: int,
    keys: Collection[str],
) -> dict[str, Any]:
    """Return those ``keys`` of a service."""
    model = {
        "kind": "service",
        "name": row.name,
        "roles": list(roles),
        "admin": row.admin,
        "url": row.url,
        "prefix": prefix,
        "command": list(command),
        "pid": pid,
        "info": row.info,
        "display": row.display,
    }
    return {key: value for key, value in model.items() if key in keys}


def _keys(table: Mapping[str, frozenset[str]], scopes: Scopes, **resource: str) -> frozenset[str]:
    shown = (keys for scope, keys in table.items() if scopes.allows(scope, **resource))
    return frozenset().union(*shown)


# -- tokens --------------------------------------------------------------------------------


def token_model(token: Token, *, scopes: Iterable[str], oauth_client: str = "") -> dict[str, Any]:
    """Return a token without its secret. ``scopes`` is what to show as such."""
    owner = "user" if token.user_id is not None else "service"
    return {
        owner: getattr(token, owner).name,
        "id": f"a{token.id}",
        "kind": "api_token",
        "roles": [],
        "scopes": list(scopes),
        "created": token.created,
        "last_activity": token.last_activity,
        "expires_at": token.expires_at,
        "note": token.note,
        "session_id": token.session_id or None,
        "oauth_client": oauth_client or "JupyterHub",
    }


# -- shares --------------------------------------------------------------------------------


def shared_server(*, owner: str, name: str, url: str, ready: bool, origin: str) -> dict[str, Any]:
    """Return what a share tells of its server."""
    full = full_url(url, origin)
    return {"user": {"name": owner}, "name": name, "url": url, "full_url": full, "ready": ready}


def share_scopes(scopes: Iterable[str], owner: str, server: str) -> list[str]:
    """Return the scopes of a share as they are held: each for that one server."""
    return sorted(f"{split(scope)[0]}!server={owner}/{server}" for scope in scopes)


def share_model(
    share: Share, *, server: dict[str, Any], scopes: list[str], user: str | None, group: str | None
) -> dict[str, Any]:
    """Return a share with the user or the group that has it."""
    return {
        "server": server,
        "scopes": scopes,
        "user": None if user is None else {"name": user},
        "group": None if group is None else {"name": group},
        "kind": "group" if user is None else "user",
        "created_at": share.created,
    }


def share_code_model(
    code: ShareCode, *, server: dict[str, Any], scopes: list[str]
) -> dict[str, Any]:
    """Return a share code without the code itself."""
    return {
        "server": server,
        "scopes": scopes,
        "id": f"sc_{code.id}",
        "created_at": code.created,
        "expires_at": code.expires_at,
        "exchange_count": code.exchange_count,
        "last_exchanged_at": code.last_exchanged_at,
    }


# -- lists and generations -----------------------------------------------------------------


def page_model(
    items: Any, *, offset: int, limit: int, total: int, next_url: str | None
) -> dict[str, Any]:
    """Return one page of a list; ``next_url`` is None on the last one."""
    following = {"offset": offset + limit, "limit": limit, "url": next_url}
    return {
        "items": items,
        "_pagination": {
            "offset": offset,
            "limit": limit,
            "total": total,
            "next": following if next_url else None,
        },
    }


def without_zone(data: Any) -> Any:
    """Return ``data`` with its dates as JupyterHub 0.8 wrote them: in UTC, without a zone."""
    if isinstance(data, list):
        return [without_zone(one) for one in data]
    if not isinstance(data, dict):
        return data
    return {
        key: value.removesuffix("Z")
        if key in _DATES and isinstance(value, str)
        else without_zone(value)
        for key, value in data.items()
    }
