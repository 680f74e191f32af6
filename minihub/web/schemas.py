"""What bodies, answers and queries of the REST API look like, as JSON Schema.

Rules of this file: data only. It says of what :mod:`minihub.web.shapes` and the checks of the
``api_*`` modules make what kind of value; tests hold both against each other.

Threads: filled at import, read only afterwards.
Sources: OpenAPI 3.1, JSON Schema 2020-12.
"""

from __future__ import annotations

from typing import Any

from . import shapes

Schema = dict[str, Any]

#: What an answer that is not JSON declares in place of a schema: its content type.
EMPTY = ""
TEXT = "text/plain"
EVENTS = "text/event-stream"
YAML = "application/yaml"
HTML = "text/html"

_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}
_NUMBER: Schema = {"type": "integer"}
_DICT: Schema = {"type": "object"}
_TEXTS: Schema = {"type": "array", "items": _TEXT}
#: In UTC, with a ``Z`` (without for clients of JupyterHub 0.8).
_DATE: Schema = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"}


def _or_null(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


def ref(name: str) -> Schema:
    """Return the reference to a schema of :data:`SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


def _object(
    properties: dict[str, Schema], *, optional: tuple[str, ...] = (), description: str = ""
) -> Schema:
    """Return an object with these keys and no others, those that are not ``optional`` always."""
    required = [key for key in properties if key not in optional]
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    if required:
        schema["required"] = required
    return schema | ({"description": description} if description else {})


def _body(properties: dict[str, Schema], required: tuple[str, ...] = ()) -> Schema:
    optional = tuple(key for key in properties if key not in required)
    return _object(properties, optional=optional)


#: What a list of people would do, or has done.
_PLAN: dict[str, Schema] = {
    "rows": {
        "type": "array",
        "items": _object(
            {
                "line": _NUMBER,
                "name": _TEXT,
                "groups": _TEXTS,
                "action": {"enum": ["add", "join", "keep"]},
                "problem": _TEXT,
            }
        ),
    },
    "note": _TEXT,
    "slips": {"type": "array", "items": ref("OneTimeCode")},
}


def _page(item: str) -> Schema:
    following = _object({"offset": _NUMBER, "limit": _NUMBER, "url": _TEXT})
    bounds = {"offset": _NUMBER, "limit": _NUMBER, "total": _NUMBER}
    bounds["next"] = {"anyOf": [following, {"type": "null"}]}
    return _object({"items": {"type": "array", "items": ref(item)}, "_pagination": _object(bounds)})


def _list(item: str) -> Schema:
    """Return a list, or a page of it for clients that ask for pages."""
    return {"anyOf": [{"type": "array", "items": ref(item)}, _page(item)]}


def _map(item: Schema) -> Schema:
    return {"type": "object", "additionalProperties": item}


_USER = {
    "kind": {"const": "user"},
    "name": _TEXT,
    "admin": _FLAG,
    "roles": _TEXTS,
    "groups": _TEXTS,
    "server": _or_null(_TEXT),
    "pending": {"enum": [None, "spawn", "stop", "check"]},
    "created": _DATE,
    "last_activity": _or_null(_DATE),
    "auth_state": _or_null(_DICT),
    "servers": _map(ref("Server")),
    "user_info": _or_null(_DICT),
}
_SERVICE = {
    "kind": {"const": "service"},
    "name": _TEXT,
    "roles": _TEXTS,
    "admin": _FLAG,
    "url": _TEXT,
    "prefix": _TEXT,
    "command": _TEXTS,
    "pid": _NUMBER,
    "info": _DICT,
    "display": _FLAG,
}
#: What ``GET /user`` adds: the proof that was sent.
_PROOF = {"scopes": _TEXTS, "session_id": _or_null(_TEXT), "token_id": _or_null(_TEXT)}
_TOKEN = {
    "user": _TEXT,
    "service": _TEXT,
    "id": _TEXT,
    "kind": {"const": "api_token"},
    "roles": _TEXTS,
    "scopes": _TEXTS,
    "created": _DATE,
    "last_activity": _or_null(_DATE),
    "expires_at": _or_null(_DATE),
    "note": _TEXT,
    "session_id": _or_null(_TEXT),
    "oauth_client": _TEXT,
}
_NAMED = _object({"name": _TEXT})
_MAYBE_NAMED: Schema = {"anyOf": [_NAMED, {"type": "null"}]}
_SHARE = {
    "server": ref("SharedServer"),
    "scopes": _TEXTS,
    "user": _MAYBE_NAMED,
    "group": _MAYBE_NAMED,
    "kind": {"enum": ["user", "group"]},
    "created_at": _DATE,
}
_SHARE_CODE = {
    "server": ref("SharedServer"),
    "scopes": _TEXTS,
    "id": _TEXT,
    "created_at": _DATE,
    "expires_at": _DATE,
    "exchange_count": _NUMBER,
    "last_exchanged_at": _or_null(_DATE),
}
_CLASS = _object({"class": _TEXT, "version": _TEXT})

ANSWERS: dict[str, Schema] = {
    "Error": _object({"status": _NUMBER, "message": _TEXT}),
    "Version": _object({"version": _TEXT}),
    "Info": _object(
        {
            "version": _TEXT,
            "python": _TEXT,
            "sys_executable": _TEXT,
            "spawner": _CLASS,
            "authenticator": _CLASS,
        }
    ),
    "Message": _object({"message": _TEXT}),
    "Routes": {
        "description": "Routes by their routespecs, or a page of them.",
        "anyOf": [
            _map(ref("ProxyRoute")),
            _object({"items": _map(ref("ProxyRoute")), "_pagination": _DICT}),
        ],
    },
    "ProxyRoute": {
        "type": "object",
        "properties": {"routespec": _TEXT, "target": _TEXT, "data": _DICT},
        "required": ["routespec", "target", "data"],
    },
    "User": _object(_USER, optional=tuple(set(_USER) - {"kind", "name"})),
    "Users": _list("User"),
    "NewUsers": {"type": "array", "items": ref("User")},
    "Caller": {
        "description": "Who asks, and what they may do.",
        "anyOf": [
            _object({**_USER, **_PROOF}, optional=tuple(set(_USER) - shapes.OWN_KEYS)),
            _object({**_SERVICE, **_PROOF}, optional=tuple(set(_SERVICE) - {"kind", "name"})),
        ],
    },
    "Owner": {"anyOf": [ref("User"), ref("Service")]},
    "Server": _object(
        {
            "name": _TEXT,
            "display_name": _TEXT,
            "full_name": _TEXT,
            "last_activity": _or_null(_DATE),
            "started": _or_null(_DATE),
            "pending": {"enum": [None, "spawn", "stop", "check"]},
            "ready": _FLAG,
            "stopped": _FLAG,
            "url": _TEXT,
            "user_options": _DICT,
            "progress_url": _TEXT,
            "full_url": _or_null(_TEXT),
            "full_progress_url": _or_null(_TEXT),
            "state": _DICT,
        },
        optional=("state",),
        description="`state` is for those who hold `admin:server_state`.",
    ),
    "Ending": {
        **_object(
            {"due": _or_null(_DATE), "why": _TEXT, "soon": _FLAG, "keep_until": _or_null(_DATE)}
        ),
        "description": "When the server is stopped as idle, and until when it could be kept now.",
    },
    "Group": _object(
        {
            "kind": {"const": "group"},
            "name": _TEXT,
            "roles": _TEXTS,
            "users": _TEXTS,
            "properties": _DICT,
        },
        optional=("roles", "users", "properties"),
    ),
    "Groups": _list("Group"),
    "NewGroups": {"type": "array", "items": ref("Group")},
    "Service": _object(_SERVICE, optional=tuple(set(_SERVICE) - {"kind", "name"})),
    "Services": _map(ref("Service")),
    "Token": _object(_TOKEN, optional=("user", "service")),
    "NewToken": _object({**_TOKEN, "token": _TEXT}, optional=("user", "service")),
    "Tokens": _object({"api_tokens": {"type": "array", "items": ref("Token")}}),
    "SharedServer": _object(
        {
            "user": _NAMED,
            "name": _TEXT,
            "url": _TEXT,
            "full_url": _or_null(_TEXT),
            "ready": _FLAG,
        }
    ),
    "Share": _object(_SHARE),
    "Shares": _page("Share"),
    "ShareLeft": {
        "description": "What is left of the share; an empty object when nothing is.",
        "anyOf": [ref("Share"), _object({})],
    },
    "ShareCode": _object(_SHARE_CODE),
    "ShareCodes": _page("ShareCode"),
    "NewShareCode": _object(
        {**_SHARE_CODE, "code": _TEXT, "accept_url": _TEXT, "full_accept_url": _or_null(_TEXT)}
    ),
    "ProgressEvents": {
        "description": "Each event of the stream; the last one has `ready` or `failed`.",
        "type": "object",
        "properties": {
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": ref("Progress"),
            }
        },
    },
    "Progress": {
        "type": "object",
        "properties": {
            "progress": {"type": "number"},
            "message": _TEXT,
            "html_message": _TEXT,
            "ready": {"const": True},
            "failed": {"const": True},
            "url": _TEXT,
        },
        "required": ["progress"],
    },
    "OneTimeCode": _object({"name": _TEXT, "code": _TEXT, "expires_at": _DATE}),
    "Waiting": {
        "type": "array",
        "items": _object({"name": _TEXT, "created": _DATE, "address": _TEXT}),
    },
    "Decided": _object({"approved": _TEXTS, "refused": _NUMBER}),
    "RosterPlan": _object(_PLAN),
    "RosterRefused": _object(
        {"status": _NUMBER, "message": _TEXT, **_PLAN},
        optional=tuple(_PLAN),
        description="An error like every other; where lines are wrong, with the plan that says so.",
    ),
    "Roster": _object({"list": _TEXT}),
    "OAuthToken": _object(
        {"access_token": _TEXT, "token_type": _TEXT, "expires_in": _NUMBER, "scope": _TEXT}
    ),
    "OAuthError": {
        "description": "The error of a client (RFC 6749), or of a request that cannot be read.",
        "anyOf": [
            _object({"error": _TEXT, "error_description": _TEXT}, optional=("error_description",)),
            ref("Error"),
        ],
    },
}

#: What is inside the answers that are not JSON, by their type.
CONTENT: dict[str, Schema] = {
    TEXT: _TEXT,
    HTML: _TEXT,
    YAML: _DICT,
    EVENTS: ref("ProgressEvents"),
}

_SCOPES: Schema = {**_TEXTS, "description": "Raw scopes; docs/scopes.md lists them."}
_USER_CHANGE = {
    "name": _TEXT,
    "admin": _FLAG,
    "groups": _TEXTS,
    "roles": {**_TEXTS, "maxItems": 0, "description": "Only the configuration gives roles."},
    "auth_state": _DICT,
}
_SERVER_START = {"user_options": _or_null(_DICT), "display_name": _TEXT}

BODIES: dict[str, Schema] = {
    "CreateUsers": _body(
        {"usernames": {**_TEXTS, "minItems": 1}, **_USER_CHANGE}, required=("usernames",)
    ),
    "ChangeUser": _body(_USER_CHANGE),
    "Activity": {
        **_body(
            {
                "last_activity": _or_null({**_TEXT, "format": "date-time"}),
                "servers": _map(
                    _body(
                        {"last_activity": {**_TEXT, "format": "date-time"}},
                        required=("last_activity",),
                    )
                ),
            }
        ),
        "minProperties": 1,
        "additionalProperties": True,
    },
    "StartServer": {
        "description": "Or, as clients of JupyterHub 5 send it, the options alone.",
        "anyOf": [_body(_SERVER_START), _DICT],
    },
    "ChangeServer": {
        **_body({"name": _TEXT, "display_name": _TEXT, "user_options": _DICT}),
        "minProperties": 1,
    },
    "StopServer": {
        "type": "object",
        "properties": {"remove": {**_FLAG, "description": "Remove the named server as well."}},
    },
    "CreateToken": {
        "type": "object",
        "properties": {
            "note": _or_null(_TEXT),
            "expires_in": _or_null({**_NUMBER, "minimum": 1, "description": "Seconds."}),
            "scopes": _SCOPES,
            "roles": {**_TEXTS, "description": "In place of scopes: those of the roles."},
            "legacy": {**_FLAG, "description": "For a client of JupyterHub 0.8."},
            "auth": {
                **_map(_TEXT),
                "description": "The fields of the login form, for who has no token.",
            },
        },
    },
    "CreateGroups": _body(
        {"groups": {**_TEXTS, "minItems": 1}, "users": _TEXTS}, required=("groups",)
    ),
    "CreateGroup": _body({"users": _TEXTS}),
    "Members": _body({"users": _TEXTS}, required=("users",)),
    "Properties": _DICT,
    "CreateService": _body(
        {
            "admin": _FLAG,
            "url": _TEXT,
            "api_token": {**_TEXT, "minLength": 8},
            "info": _DICT,
            "display": _FLAG,
            "oauth_no_confirm": _FLAG,
            "oauth_client_id": {**_TEXT, "pattern": "^service-"},
            "oauth_redirect_uri": _TEXT,
            "oauth_client_allowed_scopes": _SCOPES,
            "legacy": _FLAG,
        }
    ),
    "ShareWith": _body({"user": _TEXT, "group": _TEXT, "scopes": _SCOPES}),
    "CreateShareCode": _body(
        {"scopes": _SCOPES, "expires_in": {**_NUMBER, "minimum": 60, "maximum": 31536000}}
    ),
    "ChangeProxy": {
        "type": "object",
        "properties": {"api_url": _TEXT, "auth_token": _TEXT},
    },
    "SetPassword": _body({"password": _TEXT}, required=("password",)),
    "Decide": _body({"approve": _TEXTS, "refuse": _TEXTS}),
    "TakeRoster": _body({"list": _TEXT, "dry_run": _FLAG}),
    "Shutdown": {"type": "object", "properties": {"proxy": _FLAG, "servers": _FLAG}},
}

#: The one body that is a form.
FORMS: dict[str, Schema] = {
    "ExchangeCode": {
        "type": "object",
        "properties": {
            "grant_type": {"const": "authorization_code"},
            "client_id": _TEXT,
            "client_secret": _TEXT,
            "code": _TEXT,
            "redirect_uri": _TEXT,
            "code_verifier": _TEXT,
        },
        "required": ["grant_type", "client_id", "client_secret", "code"],
    },
}

#: Parameters of queries, by name.
QUERIES: dict[str, Schema] = {
    "offset": {**_NUMBER, "description": "How many entries to leave out at the beginning."},
    "limit": {**_NUMBER, "description": "How many entries to give, at most."},
    "state": {"enum": ["active", "ready", "inactive"], "description": "Of the users' servers."},
    "name_filter": {**_TEXT, "description": "A part of the name, in any case."},
    "sort": {
        "enum": ["id", "-id", "name", "-name", "last_activity", "-last_activity"],
        "description": "In falling order with a minus.",
    },
    "include_stopped_servers": {
        "enum": ["0", "1"],
        "description": "Whether stopped servers are shown too.",
    },
    "code": {**_TEXT, "description": "The share code to delete."},
    "id": {**_TEXT, "description": "The id of the share code to delete."},
}
PAGES = ("offset", "limit")

SCHEMAS: dict[str, Schema] = {**ANSWERS, **BODIES, **FORMS}
