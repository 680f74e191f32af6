"""The REST API's description of itself: an OpenAPI document, and the same as a page.

Rules of this file: everything comes from the table of routes, the table of scopes and
:mod:`minihub.web.schemas`, so that it cannot say anything else than what is done. A route that
does not declare what it gives cannot be described, and a test finds it.

Threads: the document is made once, at the first request for it; any thread.
Sources: OpenAPI 3.1.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any

import yaml

from .. import JUPYTERHUB_VERSION
from .. import scopes as scope_table
from . import cookies, schemas
from .context import Context
from .routing import RESOURCES, Access, Route, Routes

routes = Routes()

ROOT = "api/"
_PARAMETER = re.compile(r"<(\w+)(?::[^>]*)?>")
_PARAMETERS = {
    "name": "The user's name.",
    "server_name": "The server's name; the default server has none.",
    "group_name": "The group's name.",
    "service_name": "The service's name.",
    "token_id": "The token's id, as lists show it.",
    "token": "The token to look up.",
    "owner": "The name of the user whose server it is.",
    "shared_name": "The name of the server that is shared.",
    "cookie": "The name of the cookie.",
    "value": "The value of the cookie.",
}
#: Answers that say when to ask again.
_LATER = (429, 503)


def described(tables: Iterable[Routes]) -> Iterator[Route]:
    """Yield the routes of the API, each path once."""
    for table in tables:
        for route in table:
            if route.path.startswith(ROOT):
                yield route


def document(tables: Iterable[Routes], api_prefix: str) -> dict[str, Any]:
    """Return the OpenAPI document; ``api_prefix`` is the API's path without a slash at its end."""
    paths: dict[str, dict[str, Any]] = {}
    for route in described(tables):
        path = "/" + _PARAMETER.sub(r"{\1}", route.path.removeprefix(ROOT))
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, path)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "The hub's REST API",
            "version": JUPYTERHUB_VERSION,
            "description": (
                "Speaks the REST API of this JupyterHub release. A token may do what its scopes "
                "say, as far as its owner may. What the caller may not know of is answered as what "
                "does not exist."
            ),
        },
        "servers": [{"url": api_prefix}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": schemas.SCHEMAS,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Or `Authorization: token SECRET`.",
                },
                "login": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": cookies.LOGIN,
                    "description": "With the page's secret, except for a browser's own reading.",
                },
            },
        },
    }


def _operation(route: Route, path: str) -> dict[str, Any]:
    summary, _, more = (route.handler.__doc__ or "").strip().replace("``", "`").partition("\n")
    words = [" ".join(part.split()) for part in (more, _needs(route)) if part.strip()]
    described = {
        "operationId": _operation_id(route, path),
        "tags": [_tag(route)],
        "summary": summary.rstrip("."),
        "description": "\n\n".join(words),
        "parameters": _parameters(route),
        "requestBody": _request_body(route),
        "responses": _responses(route),
        "security": _security(route),
    }
    return {key: value for key, value in described.items() if value or key == "security"}


def _operation_id(route: Route, path: str) -> str:
    parts = re.findall(r"\w+", path)
    ending = "_at" if path.endswith("/") and len(path) > 1 else ""
    return "_".join([route.method.lower(), *parts]) + ending


def _tag(route: Route) -> str:
    module = route.handler.__module__.rpartition(".")[2]
    return module.removeprefix("api_").partition("_")[0]


def _needs(route: Route) -> str:
    if not route.scopes:
        return ""
    where = {
        "": "",
        "some": ", for whatever is to be listed",
    }.get(route.on, f", for this {route.on}")
    return f"Needs one of the scopes {', '.join(f'`{scope}`' for scope in route.scopes)}{where}."


def _security(route: Route) -> list[dict[str, list[str]]]:
    if route.access is Access.PUBLIC:
        return []
    if route.access is Access.PAGE:
        return [{"login": []}]
    tokens = [{"token": [scope]} for scope in route.scopes] or [{"token": []}]
    return [*tokens, {"login": []}]


def _parameters(route: Route) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": _PARAMETERS[name],
            "schema": {"type": "string", "minLength": 1},
        }
        for name in _PARAMETER.findall(route.path)
    ]
    for name in route.query:
        schema = dict(schemas.QUERIES[name])
        words = schema.pop("description")
        found.append({"name": name, "in": "query", "description": words, "schema": schema})
    return found


def _request_body(route: Route) -> dict[str, Any] | None:
    if not route.takes:
        return None
    kind = "application/x-www-form-urlencoded"
    kind = kind if route.takes in schemas.FORMS else "application/json"
    schema = schemas.SCHEMAS[route.takes]
    required = "required" in schema or schema.get("minProperties", 0) > 0
    return {"required": required, "content": {kind: {"schema": schemas.ref(route.takes)}}}


def _responses(route: Route) -> dict[str, Any]:
    answers = {status: _answer(status, name) for status, name in sorted(route.gives.items())}
    for status in sorted(_errors(route) - set(answers)):
        answers[status] = _error(route, status)
    return {str(status): answer for status, answer in answers.items()}


def _errors(route: Route) -> set[int]:
    """Return the statuses of errors that a route may answer with."""
    errors = set(route.fails)
    if route.access is Access.API:
        errors.add(403)
    if route.on in RESOURCES or "<" in route.path:
        errors.add(404)
    if route.takes or route.query:
        errors.add(400)
    if route.takes:
        errors.add(413)
    return errors


def _answer(status: int, name: str) -> dict[str, Any]:
    phrase = HTTPStatus(status).phrase
    if not name:
        return {"description": phrase}
    if "/" in name:
        return {"description": phrase, "content": {name: {"schema": schemas.CONTENT[name]}}}
    return {"description": phrase, "content": {"application/json": {"schema": schemas.ref(name)}}}


def _error(route: Route, status: int) -> dict[str, Any]:
    name = "OAuthError" if route.takes in schemas.FORMS else "Error"
    answer = _answer(status, schemas.HTML if route.access is Access.PAGE else name)
    if status in _LATER:
        answer["headers"] = {
            "Retry-After": {
                "description": "Seconds after which to ask again, where that is known.",
                "schema": {"type": "integer"},
            }
        }
    return answer


# -- the routes ------------------------------------------------------------------------------


@routes.add("GET", "api/openapi.yaml", access=Access.PUBLIC, gives={200: schemas.YAML})
def openapi_yaml(ctx: Context) -> Any:
    """Describe this API, as an OpenAPI document."""
    site = ctx.site
    if site.openapi is None:
        whole = document(site.tables, site.api_prefix)
        site.openapi = yaml.dump(whole, Dumper=_Plain, sort_keys=False, width=100).encode()
    response = ctx.reply(site.openapi, content_type=schemas.YAML)
    response.set_header("Access-Control-Allow-Origin", "*")
    return response


class _Plain(yaml.SafeDumper):
    """Writes what occurs twice twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


@routes.add("GET", "api-docs", access=Access.PUBLIC)
def page(ctx: Context) -> Any:
    """Show the description of the API to people."""
    whole = document(ctx.site.tables, ctx.site.api_prefix)
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, methods in whole["paths"].items():
        for method, operation in methods.items():
            groups.setdefault(operation["tags"][0], []).append(_shown(method, path, operation))
    shapes = [
        {"name": name, "words": schema.get("description", ""), "shape": shape(schema)}
        for name, schema in schemas.SCHEMAS.items()
    ]
    scopes = [
        {"name": name, "words": row.description, "includes": row.includes}
        for name, row in scope_table.SCOPES.items()
    ]
    api = {
        "url": ctx.site.api_prefix,
        "version": JUPYTERHUB_VERSION,
        "groups": groups,
        "shapes": shapes,
        "scopes": scopes,
    }
    return ctx.page("api.html", api=api)


def _shown(method: str, path: str, operation: dict[str, Any]) -> dict[str, Any]:
    """Return an operation as the page shows it."""
    body = operation.get("requestBody", {}).get("content", {})
    return {
        "id": operation["operationId"],
        "call": f"{method.upper()} {path}",
        "summary": operation["summary"],
        "description": operation.get("description", ""),
        "parameters": [
            {**one, "shape": shape(one["schema"])} for one in operation.get("parameters", ())
        ],
        "bodies": [(kind, shape(inner["schema"])) for kind, inner in body.items()],
        "answers": [
            (status, answer["description"], [
                shape(inner["schema"]) if kind == "application/json" else kind
                for kind, inner in answer.get("content", {}).items()
            ])
            for status, answer in operation["responses"].items()
        ],
    }  # fmt: skip


def shape(schema: dict[str, Any]) -> str:
    """Return a schema in a few words, such as ``{name: text, admin?: true or false}``."""
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(shape(one) for one in schema["anyOf"]))
    if "const" in schema:
        return f'"{schema["const"]}"'
    if "enum" in schema:
        return " or ".join("null" if one is None else f'"{one}"' for one in schema["enum"])
    kinds = schema.get("type", "object")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return " or ".join(_kind(kind, schema) for kind in kinds)


def _kind(kind: str, schema: dict[str, Any]) -> str:
    if kind == "array":
        return f"[{shape(schema['items'])}, …]"
    if kind != "object":
        names = {"string": "text", "integer": "number", "boolean": "true or false"}
        return names.get(kind, kind)
    properties = schema.get("properties")
    if properties is None:
        inner = schema.get("additionalProperties")
        if inner is False:
            return "{}"
        return f"{{name: {shape(inner)}, …}}" if isinstance(inner, dict) else "{…}"
    required = schema.get("required", ())
    parts = [
        f"{name}{'' if name in required else '?'}: {shape(one)}" for name, one in properties.items()
    ]
    return "{" + ", ".join(parts) + "}"
