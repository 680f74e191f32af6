"""The API's description of itself: complete, and made of what the code declares."""

from __future__ import annotations

import re

import pytest

from minihub import scopes
from minihub.web import openapi, schemas, shapes, tables
from minihub.web.routing import Access

DOCUMENT = openapi.document(tables.ALL, "/base/hub/api")
ROUTES = list(openapi.described(tables.ALL))
OPERATIONS = {
    (method.upper(), path): operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}


def test_every_route_of_the_api_is_described():
    described = {(route.method, re.sub(r"<(\w+)>", r"{\1}", route.path[3:])) for route in ROUTES}
    assert described == set(OPERATIONS)
    assert DOCUMENT["servers"] == [{"url": "/base/hub/api"}]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_route_declares_what_it_gives(route):
    assert route.gives or route.fails
    assert set(route.gives.values()) <= {schemas.EMPTY, *schemas.CONTENT, *schemas.ANSWERS}
    assert route.takes in ("", *schemas.BODIES, *schemas.FORMS)
    assert (route.method in ("POST", "PUT", "PATCH", "DELETE")) or not route.takes


def test_names_of_operations_are_unique():
    names = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(names) == len(set(names))


def test_every_reference_leads_to_a_schema_and_every_schema_is_used():
    used = set(re.findall(r"'#/components/schemas/(\w+)'", str(DOCUMENT)))
    assert used == set(schemas.SCHEMAS)


def test_every_parameter_of_a_query_is_used():
    assert {name for route in ROUTES for name in route.query} == set(schemas.QUERIES)


def test_scopes_are_those_of_the_routes():
    listed = OPERATIONS[("GET", "/users")]
    assert listed["security"] == [{"token": ["list:users"]}, {"login": []}]
    assert "`list:users`" in listed["description"]
    assert OPERATIONS[("GET", "/")]["security"] == []
    for route in ROUTES:
        assert set(route.scopes) <= set(scopes.SCOPES)
        assert "403" in openapi._responses(route) or route.access is not Access.API


def test_fields_are_those_of_the_shapes():
    """A field that is added to a shape has to be described, and none that is gone is."""
    fields = {name: set(schema.get("properties", ())) for name, schema in schemas.ANSWERS.items()}
    facts = dict.fromkeys(("name", "admin", "roles", "groups", "server", "pending", "created"), "")
    everything = shapes.user_model(
        **facts, last_activity=None, servers={"": {}}, keys=shapes.ALL_USER_KEYS
    )
    assert set(everything) == fields["User"]
    server = dict.fromkeys(
        ("user", "name", "display_name", "last_activity", "started", "pending", "ready")
        + ("stopped", "url", "user_options", "progress_url", "origin"),
        "",
    )
    assert set(shapes.server_model(**server, state={})) == fields["Server"]
    assert {key for keys in shapes._GROUP_KEYS.values() for key in keys} == fields["Group"]
    assert {key for keys in shapes._SERVICE_KEYS.values() for key in keys} == fields["Service"]


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"$ref": "#/components/schemas/User"}, "User"),
        ({"type": ["string", "null"]}, "text or null"),
        ({"enum": [None, "spawn"]}, 'null or "spawn"'),
        ({"const": "user"}, '"user"'),
        ({"type": "array", "items": {"type": "integer"}}, "[number, …]"),
        ({"type": "object"}, "{…}"),
        (
            {"type": "object", "additionalProperties": {"type": "boolean"}},
            "{name: true or false, …}",
        ),
        (schemas.ANSWERS["Error"], "{status: number, message: text}"),
        (schemas.BODIES["CreateGroup"], "{users?: [text, …]}"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "text or null"),
    ],
)
def test_schema_in_a_few_words(schema, words):
    assert openapi.shape(schema) == words
