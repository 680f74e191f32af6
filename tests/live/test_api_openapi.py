"""The API's description of itself is true: schemathesis asks for all that it describes.

Whatever is asked, the answer has a status, a type and a shape that the description names, and is
never the hub's fault. Of the names that are made up, most are replaced by ones that exist.
"""

from __future__ import annotations

import random
import re

import pytest
import requests
import schemathesis
import yaml
from hypothesis import HealthCheck, settings
from hypothesis import seed as seeded
from markupsafe import escape
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from minihub.web import openapi, tables

DOCUMENT = openapi.document(tables.ALL, "/hub/api")
#: What exists in the hub that is asked: names of paths, all at once.
EXISTING = {
    "name": "ada",
    "server_name": "two",
    "group_name": "club",
    "service_name": "made",
    "token": "plain-service-token",
    "cookie": "jupyterhub-hub-login",
    "value": "x",
}
#: Paths on which ``ada`` stands for whom something is shared with, who is bob.
SHARED = {"owner": "ada", "shared_name": "two", "name": "bob"}
#: A body that is taken, for each operation that takes one.
GOOD = {
    "post_users": {"usernames": ["new-one"], "admin": False},
    "post_users_name": {"admin": False},
    "patch_users_name": {"groups": ["club"]},
    "post_users_name_activity": {
        "last_activity": "2026-01-01T00:00:00Z",
        "servers": {"two": {"last_activity": "2026-01-01T00:00:00Z"}},
    },
    "put_users_name_servers_server_name": {"display_name": "Three", "user_options": {"a": 1}},
    "post_users_name_server": {"user_options": {"a": 1}},
    "post_users_name_servers_at": {"a": 1},
    "post_users_name_servers_server_name": {"user_options": None, "display_name": "Two"},
    "patch_users_name_server": {"display_name": "Mine"},
    "patch_users_name_servers_at": {"user_options": {"a": 1}},
    "patch_users_name_servers_server_name": {"name": "three"},
    "delete_users_name_server": {},
    "delete_users_name_servers_at": {},
    "delete_users_name_servers_server_name": {"remove": True},
    "post_users_name_tokens": {"note": "x", "expires_in": 60, "scopes": ["read:users!user=ada"]},
    "post_groups": {"groups": ["new-group"], "users": ["ada"]},
    "post_groups_group_name": {"users": ["ada"]},
    "post_groups_group_name_users": {"users": ["bob"]},
    "delete_groups_group_name_users": {"users": ["bob"]},
    "put_groups_group_name_properties": {"colour": "blue", "more": [1, {"a": None}]},
    "post_services_service_name": {"info": {"a": 1}, "url": "http://127.0.0.1:1"},
    "post_shares_name_at": {"user": "bob"},
    "post_shares_name_server_name": {"group": "club", "scopes": ["read:servers"]},
    "patch_shares_name_at": {"user": "bob"},
    "patch_shares_name_server_name": {"group": "club", "scopes": ["read:servers"]},
    "post_share_codes_name_at": {},
    "post_share_codes_name_server_name": {"expires_in": 60, "scopes": ["access:servers"]},
}
#: Operations that say no by their nature, or need a browser or a code: other tests are for these.
NEVER_GIVEN = {
    "get_oauth2_authorize",
    "post_oauth2_authorize",
    "post_oauth2_token",
    "get_authorizations_cookie_cookie",
    "get_authorizations_cookie_cookie_value",
    "post_authorizations_token",
    "put_users_name_server",  # everybody has a default server
    "put_users_name_servers_at",
    "post_shares_name",
    "patch_shares_name",
    "delete_shares_name",
    "post_share_codes_name",
    "delete_share_codes_name",
    "post_users_name_server_ending",  # nothing is culled here
    "post_users_name_servers_server_name_ending",
    "get_users_name_servers_progress",  # of the two slashes in it schemathesis sends one
}
#: What only a hub that keeps passwords has; here each is 404, and tests of a class are for these.
CLASSROOM = {
    "post_users_name_one_time_code",
    "put_users_name_password",
    "get_class_waiting",
    "post_class_waiting",
    "post_class_roster",
    "get_class_roster",
}
#: What would end the hub or give it another proxy.
HARMFUL = {"post_shutdown", "patch_proxy"}
OPERATIONS = {
    operation["operationId"]: (method.upper(), path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
config = schemathesis.Config.from_dict({"phases": {"coverage": {"enabled": False}}})
schema = schemathesis.openapi.from_dict(DOCUMENT, config=config)


@pytest.fixture(scope="module")
def kept() -> dict[str, dict[str, str]]:
    """What the tests of this module remember of the world they share."""
    return {}


def prepare(world) -> dict[str, str]:
    """Have everything that is named above, whatever was changed meanwhile; return the names."""
    boss = world.boss
    boss.call("POST", "/users", {"usernames": ["ada", "bob"]})
    boss.call("DELETE", "/users/ada/servers/three", {"remove": True})
    boss.call("PUT", "/users/ada/servers/two", {})
    boss.call("POST", "/groups/club", {"users": ["ada", "bob"]})
    boss.call("POST", "/services/made", {})
    for server in ("", "two"):
        for receiver in ({"user": "bob"}, {"group": "club"}):
            assert boss.call("POST", f"/shares/ada/{server}", receiver).status_code == 200
    return EXISTING | {"token_id": boss.call("POST", "/users/ada/tokens", {}).json()["id"]}


def known_names(case, names: dict[str, str]) -> dict[str, str]:
    """Return the case's names of paths with ones that exist in their place."""
    names = names | (SHARED if "owner" in case.path_parameters else {})
    return {name: names[name] for name in case.path_parameters}


def ask(world, case) -> int:
    headers = {"Authorization": f"token {world.boss.token}"}
    response = case.call(base_url=world.boss.base, headers=headers, allow_redirects=False)
    case.validate_response(response, checks=CHECKS)
    return response.status_code


@schema.exclude(lambda ctx: ctx.operation.definition.raw["operationId"] in HARMFUL).parametrize()
@settings(max_examples=5, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@seeded(1)
def test_whatever_is_sent_the_answer_is_as_described(world, kept, case):
    chance = random.Random(repr(case.path_parameters))
    if case.path_parameters and chance.random() < 0.6:
        if case.method != "GET" or "names" not in kept:
            kept["names"] = prepare(world)
        case.path_parameters = known_names(case, kept["names"])
    ask(world, case)


@pytest.mark.parametrize(
    "operation_id", sorted(set(OPERATIONS) - NEVER_GIVEN - CLASSROOM - HARMFUL)
)
def test_good_request_is_taken_and_answered_as_described(world, operation_id):
    method, path, described = OPERATIONS[operation_id]
    assert ("requestBody" in described) == (operation_id in GOOD)
    case = schema[path][method].Case()
    case.path_parameters = dict.fromkeys(re.findall(r"{(\w+)}", path), "")
    names = prepare(world)
    case.path_parameters = known_names(case, names)
    if described.get("requestBody"):
        case.body, case.media_type = GOOD[operation_id], "application/json"
    if method in ("POST", "PUT") and path == "/users/{name}":
        world.boss.call("DELETE", "/users/ada")
    elif operation_id in ("post_groups_group_name", "post_services_service_name"):
        world.boss.call("DELETE", path.format(**case.path_parameters))
    elif operation_id == "put_users_name_servers_server_name":
        case.path_parameters["server_name"] = "three"
    elif operation_id.startswith("post_users_name_server") or operation_id.endswith("_progress"):
        for server in ("server", "servers/two"):
            where = path.format(**case.path_parameters).removesuffix("/progress")
            if operation_id.endswith("_progress"):
                assert world.boss.call("POST", where).status_code in (201, 400)
            else:
                world.boss.call("DELETE", f"/users/ada/{server}")
    elif operation_id.startswith("patch_users_name_server"):
        for server in ("server", "servers/two"):
            world.boss.call("DELETE", f"/users/ada/{server}")
    assert ask(world, case) < 300


def test_document_and_page_are_for_everybody(world):
    answer = world.nobody.get("/openapi.yaml")
    assert answer.headers["Content-Type"] == "application/yaml"
    assert yaml.safe_load(answer.text) == yaml.safe_load(yaml.safe_dump(DOCUMENT))
    page = requests.get(world.hub.url + "hub/api-docs", timeout=10)
    assert page.status_code == 200
    for method, path, operation in OPERATIONS.values():
        summary = f'<span lang="en">{escape(operation["summary"])}</span>'
        assert f"<code>{method} {path}</code> {summary}" in page.text
    # Nothing of the page comes from anywhere else.
    assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//""", page.text)
