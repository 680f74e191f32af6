"""The REST API as clients see it, for tests: one hub with people, groups and services, and tokens.

Each caller keeps its connection. Nothing here knows how the hub answers.
"""

from __future__ import annotations

import itertools
from typing import Any

import requests
from harness import HubProcess, merge

ADMIN = "admin-service-token"
PLAIN = "plain-service-token"

#: A hub on which admins may do everything, with named servers and every kind of caller.
CONFIG: dict[str, Any] = {
    "JupyterHub": {
        "admin_access": True,
        "allow_named_servers": True,
        "named_server_limit_per_user": 3,
        "trust_user_provided_tokens": True,
        "load_groups": {
            "club": ["ada", "bob"],
            "empty": {"users": [], "properties": {"colour": "blue"}},
        },
        "services": [
            {"name": "boss", "api_token": ADMIN, "admin": True},
            {"name": "plain", "api_token": PLAIN},
            {"name": "culler", "api_token": "culler-service-token"},
            {"name": "tutor", "api_token": "tutor-service-token"},
            {"name": "old", "api_token": "old-service-token", "admin": True, "legacy": True},
        ],
        "load_roles": [
            {
                "name": "culling",
                "scopes": ["list:users", "read:users:activity", "read:servers", "delete:servers"],
                "services": ["culler"],
            },
            {
                "name": "tutoring",
                "scopes": [
                    "list:users!group=club",
                    "read:users!group=club",
                    "read:groups!group=club",
                    "servers!group=club",
                ],
                "services": ["tutor"],
            },
            {"name": "sharing", "scopes": ["shares!user", "read:users:name"], "users": ["ada"]},
        ],
    },
    "Authenticator": {"allow_all": True, "admin_users": ["root-admin"]},
}


class Caller(requests.Session):
    """Somebody with a token, or without one, calling the API by paths below ``/hub/api``."""

    def __init__(self, hub: HubProcess, token: str = "") -> None:
        super().__init__()
        self.trust_env = False
        self.base = hub.url + "hub/api"
        self.token = token
        if token:
            self.headers["Authorization"] = f"token {token}"

    def request(self, method: str, url: str, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        kwargs.setdefault("timeout", 30)
        kwargs["allow_redirects"] = False
        return super().request(method, self.base + url, **kwargs)

    def call(self, method: str, path: str, body: Any = None) -> requests.Response:
        """Send a JSON body, or none."""
        return self.request(method, path, json=body)


class World:
    """A hub, and callers of every kind."""

    def __init__(self, hub: HubProcess) -> None:
        self.hub = hub
        self.boss = Caller(hub, ADMIN)
        self.nobody = Caller(hub)
        self._numbers = itertools.count(1)
        self._kept: dict[tuple[str, tuple[str, ...] | None], Caller] = {}

    def caller(self, token: str) -> Caller:
        return Caller(self.hub, token)

    def new_user(self, prefix: str = "u", **fields: Any) -> str:
        """Make a user of a name that nobody had before."""
        name = f"{prefix}{next(self._numbers)}"
        response = self.boss.call("POST", f"/users/{name}", fields)
        assert response.status_code == 201, response.text
        return name

    def as_user(self, name: str, *scopes: str) -> Caller:
        """Return a user by a token with these scopes, or with all the user has."""
        key = (name, scopes or None)
        if key not in self._kept:
            body = {"scopes": list(scopes)} if scopes else {}
            response = self.boss.call("POST", f"/users/{name}/tokens", body)
            assert response.status_code == 201, response.text
            self._kept[key] = self.caller(response.json()["token"])
        return self._kept[key]

    def with_scopes(self, *scopes: str) -> Caller:
        """Return an admin by a token with these scopes only."""
        return self.as_user("root-admin", *scopes)


def config(**changes: Any) -> dict[str, Any]:
    """Return CONFIG with ``changes`` to the section JupyterHub."""
    return merge(CONFIG, {"JupyterHub": changes})
