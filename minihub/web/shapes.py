"""Rows as the REST API shows them.

Rules of this file: the only place that knows the API's field names. Functions take rows and
facts and return JSON-ready values; they check no rights and query nothing.

Threads: any; pure functions.
Sources: JupyterHub 6's REST API.
"""

from __future__ import annotations

from typing import Any

from .. import clock
from ..models import Server as ServerRow
from ..models import Service, Token, User
from ..scopes import Scopes
from ..server import Server


def server_model(
    server: Server, row: ServerRow | None, *, url: str, progress_url: str
) -> dict[str, Any]:
    """Return a server; ``row`` is None for one that was never started."""
    return {
        "name": server.name,
        "display_name": (row.display_name if row else "") or server.name,
        "full_name": server.full_name,
        "last_activity": row.last_activity if row else None,
        "started": clock.isoformat(server.started) if server.started else None,
        "pending": server.pending,
        "ready": server.ready,
        "stopped": not server.active,
        "url": url,
        "user_options": row.user_options if row else {},
        "progress_url": progress_url,
        "full_url": None,
        "full_progress_url": None,
    }


def user_model(
    user: User, *, roles: list[str], groups: list[str], servers: dict[str, Any], server_url: str
) -> dict[str, Any]:
    """Return a user with everything; the caller keeps the keys its scopes allow."""
    default = servers.get("")
    return {
        "kind": "user",
        "name": user.name,
        "admin": user.admin,
        "roles": roles,
        "groups": groups,
        "server": server_url if default and default["ready"] else None,
        "pending": default["pending"] if default else None,
        "created": user.created,
        "last_activity": user.last_activity,
        "auth_state": None,
        "servers": servers,
        "user_info": None,
    }


#: Which keys of a user a scope shows.
_USER_KEYS = {
    "read:users": {
        "kind", "name", "admin", "roles", "groups", "server", "pending", "created",
        "last_activity", "user_info",
    },
    "read:users:name": {"kind", "name", "admin", "user_info"},
    "read:users:groups": {"kind", "name", "groups"},
    "read:users:activity": {"kind", "name", "last_activity"},
    "read:servers": {"kind", "name", "servers"},
    "read:roles:users": {"kind", "name", "roles", "admin"},
    "admin:auth_state": {"kind", "name", "auth_state"},
}  # fmt: skip


def visible_user(model: dict[str, Any], scopes: Scopes) -> dict[str, Any]:
    """Return the keys of a full user model that these scopes show; none shows nothing."""
    name = model["name"]
    shown: set[str] = set()
    for scope, keys in _USER_KEYS.items():
        if scopes.allows(scope, user=name):
            shown |= keys
    return {key: value for key, value in model.items() if key in shown}


def service_model(service: Service) -> dict[str, Any]:
    """Return a service as it sees itself."""
    return {"kind": "service", "name": service.name, "admin": service.admin}


def token_model(token: Token, *, oauth_client: str = "") -> dict[str, Any]:
    """Return a token without its secret."""
    owner = "user" if token.user_id is not None else "service"
    return {
        owner: getattr(token, owner).name,
        "id": f"a{token.id}",
        "kind": "api_token",
        "roles": [],
        "scopes": token.scopes,
        "created": token.created,
        "last_activity": token.last_activity,
        "expires_at": token.expires_at,
        "note": token.note,
        "session_id": token.session_id or None,
        "oauth_client": oauth_client or "JupyterHub",
    }
