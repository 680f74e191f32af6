"""Who may call what: every route of the REST API with right, wrong and missing credentials."""

from typing import Any, NamedTuple

import pytest

from minihub import scopes
from minihub.scopes import SCOPES, included
from minihub.web import tables
from minihub.web.routing import Access

INCLUDED = included({name: row for name, row in SCOPES.items() if not name.startswith("custom:")})
IDENTIFY = {scope.partition("!")[0] for scope in scopes.IDENTIFY}
READ_USER = (
    "read:users read:users:name read:servers read:users:groups read:users:activity read:roles:users"
)
READ_GROUP = "read:groups read:groups:name read:roles:groups"
READ_SERVICE = "read:services read:services:name read:roles:services"


class Row(NamedTuple):
    """What the contract says of one route.

    ``scopes``: any one of them suffices. ``on``: what they may be narrowed to; "" for nothing,
    "some" for lists. ``status``: the answer to somebody who may. ``own``: whether people may do
    it with what is theirs.
    """

    method: str
    path: str
    scopes: str
    on: str
    status: int
    own: bool = False
    body: Any = None


ROWS = [
    # -- the hub ---------------------------------------------------------------------------
    Row("GET", "api/info", "read:hub", "", 200),
    Row("GET", "api/proxy", "proxy", "", 200),
    Row("POST", "api/proxy", "proxy", "", 200),
    Row("PATCH", "api/proxy", "proxy", "", 400, body={"api_url": "nonsense"}),
    Row("POST", "api/shutdown", "shutdown", "", 400, body={"servers": "perhaps"}),
    # -- users -----------------------------------------------------------------------------
    Row("GET", "api/users", "list:users", "some", 200),
    Row("POST", "api/users", "admin:users", "", 409, body={"usernames": ["root-admin"]}),
    Row("GET", "api/users/<name>", READ_USER, "user", 200, own=True),
    Row("POST", "api/users/<name>", "admin:users", "user", 409),
    Row("PATCH", "api/users/<name>", "admin:users", "user", 200, body={"admin": False}),
    Row("DELETE", "api/users/<name>", "delete:users", "user", 204),
    Row("POST", "api/users/<name>/admin-access", "servers", "user", 200, own=True),
    Row(
        "POST",
        "api/users/<name>/activity",
        "users:activity",
        "user",
        200,
        own=True,
        body={"last_activity": "2026-01-01T00:00:00Z"},
    ),
    # -- servers ---------------------------------------------------------------------------
    *(
        Row(method, f"api/users/<name>/{path}", scope, "server", status, own=True, body=body)
        for path, named in (("server", False), ("servers/", False), ("servers/<server_name>", True))
        for method, scope, status, body in (
            ("GET", "read:servers", 200, None),
            ("PUT", "start:servers", 409, None),
            ("POST", "start:servers", 400, {"user_options": 3}),
            ("PATCH", "start:servers", 200, {"user_options": {"size": 3}}),
            ("DELETE", "delete:servers", 204, {"remove": named}),
        )
    ),
    *(
        Row("GET", f"api/users/<name>/{path}/progress", "read:servers", "server", 400, own=True)
        for path in ("server", "servers/", "servers/<server_name>")
    ),
    *(
        Row(method, f"api/users/<name>/{path}/ending", "access:servers", "server", status, own=True)
        for method, status in (("GET", 200), ("POST", 409))
        for path in ("server", "servers/<server_name>")
    ),
    # -- tokens ----------------------------------------------------------------------------
    Row("GET", "api/users/<name>/tokens", "read:tokens", "user", 200, own=True),
    Row("GET", "api/users/<name>/tokens/<token_id>", "read:tokens", "user", 200, own=True),
    Row("DELETE", "api/users/<name>/tokens/<token_id>", "tokens", "user", 204, own=True),
    # -- groups ----------------------------------------------------------------------------
    Row("GET", "api/groups", "list:groups", "some", 200),
    Row("POST", "api/groups", "admin:groups", "", 409, body={"groups": ["club"]}),
    Row("GET", "api/groups/<group_name>", READ_GROUP, "group", 200),
    Row("POST", "api/groups/<group_name>", "admin:groups", "group", 409),
    Row("DELETE", "api/groups/<group_name>", "delete:groups", "group", 204),
    Row("POST", "api/groups/<group_name>/users", "groups", "group", 200, body={"users": ["ada"]}),
    Row("DELETE", "api/groups/<group_name>/users", "groups", "group", 200, body={"users": ["ada"]}),
    Row("PUT", "api/groups/<group_name>/properties", "groups", "group", 200, body={"a": [1]}),
    # -- services --------------------------------------------------------------------------
    Row("GET", "api/services", "list:services", "some", 200),
    Row("GET", "api/services/<service_name>", READ_SERVICE, "service", 200),
    Row("POST", "api/services/<service_name>", "admin:services", "service", 409, body={}),
    Row("DELETE", "api/services/<service_name>", "admin:services", "service", 200),
    # -- shares ----------------------------------------------------------------------------
    Row("GET", "api/shares/<name>", "read:shares", "user", 200, own=True),
    Row("POST", "api/shares/<name>", "shares", "user", 405),
    Row("PATCH", "api/shares/<name>", "shares", "user", 405),
    Row("DELETE", "api/shares/<name>", "shares", "user", 405),
    *(
        Row(method, f"api/shares/<name>/{path}", scope, "server", status, own=own, body=body)
        for path in ("", "<server_name>")
        for method, scope, status, own, body in (
            ("GET", "read:shares", 200, True, None),
            ("POST", "shares", 400, False, {"user": "bob", "group": "club"}),
            ("PATCH", "shares", 200, False, {"user": "bob"}),
            ("DELETE", "shares", 204, False, None),
        )
    ),
    Row("GET", "api/share-codes/<name>", "read:shares", "user", 200, own=True),
    Row("POST", "api/share-codes/<name>", "shares", "user", 405),
    Row("DELETE", "api/share-codes/<name>", "shares", "user", 405),
    *(
        Row(method, f"api/share-codes/<name>/{path}", scope, "server", status, own=own, body=body)
        for path in ("", "<server_name>")
        for method, scope, status, own, body in (
            ("GET", "read:shares", 200, True, None),
            ("POST", "shares", 400, False, {"expires_in": 1}),
            ("DELETE", "shares", 204, False, None),
        )
    ),
    Row("GET", "api/users/<name>/shared", "read:users:shares", "user", 200, own=True),
    Row("GET", "api/groups/<group_name>/shared", "read:groups:shares", "group", 200),
    # -- a class: 404 on a hub that keeps no passwords ------------------------------------------
    Row("POST", "api/users/<name>/one-time-code", "admin:users", "user", 404),
    Row("PUT", "api/users/<name>/password", "admin:users", "user", 404, body={"password": "x"}),
    Row("GET", "api/class/waiting", "admin:users", "", 404),
    Row("POST", "api/class/waiting", "admin:users", "", 404, body={}),
    Row("POST", "api/class/roster", "admin:users", "", 404, body={"list": ""}),
    Row("GET", "api/class/roster", "admin:users", "", 404),
    *(
        Row(method, f"api/{kind}/shared/<owner>/{path}", scope, on, 404, own=on == "user")
        for kind, on in (("users/<name>", "user"), ("groups/<group_name>", "group"))
        for path in ("", "<shared_name>")
        for method, scope in (("GET", f"read:{on}s:shares"), ("DELETE", f"{on}s:shares"))
    ),
]

#: Routes of the API that need a token and no particular scope.
ANY_TOKEN = {
    ("GET", "api/user"),
    ("GET", "api/authorizations/token/<token>"),
    ("GET", "api/authorizations/cookie/<cookie>"),
    ("GET", "api/authorizations/cookie/<cookie>/<value>"),
}


def everything_but(needed: list[str]) -> list[str]:
    """Return all scopes that include none of these."""
    return sorted(name for name in INCLUDED if not INCLUDED[name].intersection(needed))


@pytest.fixture
def things(world):
    """Something of every kind, made for one test."""
    user = world.new_user("thing")
    group, service = f"group-of-{user}", f"service-of-{user}"
    assert world.boss.call("PUT", f"/users/{user}/servers/two").status_code == 201
    assert world.boss.call("POST", f"/groups/{group}", {"users": [user]}).status_code == 201
    assert world.boss.call("POST", f"/services/{service}", {}).status_code == 201
    token = world.boss.call("POST", f"/users/{user}/tokens", {"note": "x"}).json()["id"]
    return {
        "name": user,
        "server_name": "two",
        "group_name": group,
        "service_name": service,
        "token_id": token,
        "owner": "bob",
        "shared_name": "none",
    }


def call(caller, row: Row, things: dict[str, str]):
    path = row.path.removeprefix("api")
    for key, value in things.items():
        path = path.replace(f"<{key}>", value)
    return caller.call(row.method, path, row.body)


def narrowed(scope: str, on: str, things: dict[str, str]) -> str:
    value = {
        "user": things["name"],
        "server": f"{things['name']}/{things['server_name']}",
        "group": things["group_name"],
        "service": things["service_name"],
    }[on]
    return f"{scope}!{on}={value}"


def test_every_route_of_the_api_is_in_the_table():
    declared = {
        (route.method, route.path)
        for table in tables.ALL
        for route in table
        if route.access is Access.API
    }
    assert declared == {(row.method, row.path) for row in ROWS} | ANY_TOKEN


def test_public_routes_of_the_api_are_these():
    public = {
        (route.method, route.path)
        for table in tables.ALL
        for route in table
        if route.access is Access.PUBLIC and f"{route.path}/".startswith("api/")
    }
    assert public == {
        ("GET", "api"),
        ("GET", "api/"),
        ("GET", "api/health"),
        ("GET", "api/metrics"),
        ("GET", "api/openapi.yaml"),
        ("POST", "api/oauth2/token"),
        ("POST", "api/authorizations/token"),
        ("POST", "api/users/<name>/tokens"),
    }


@pytest.mark.parametrize("route", sorted(ANY_TOKEN), ids=" ".join)
def test_route_for_any_token_is_for_nobody_without_one(world, route):
    method, path = route
    path = path.removeprefix("api").replace("<token>", "plain-service-token")
    path = path.replace("<cookie>", "jupyterhub-hub-login").replace("<value>", "x")
    for caller in (world.nobody, world.caller("wrong-token")):
        response = caller.call(method, path)
        assert response.status_code == 403
        assert response.json() == {"status": 403, "message": "Missing or invalid credentials."}
    expected = 404 if "cookie" in path else 200
    narrow = world.with_scopes("read:users:name!user=root-admin")
    assert narrow.call(method, path).status_code == expected
    browser = world.hub.browser("bob")
    by_login = browser.request(method, "/hub/api" + path)
    assert by_login.status_code == (200 if path == "/user" else 403)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.method} {row.path}")
def test_route_is_for_those_who_hold_its_scopes(world, things, row):
    needed = row.scopes.split()
    anonymous = call(world.nobody, row, things)
    assert anonymous.status_code == 403
    assert anonymous.json() == {"status": 403, "message": "Missing or invalid credentials."}
    assert call(world.caller("wrong-token"), row, things).status_code == 403

    without = call(world.with_scopes(*everything_but(needed)), row, things)
    if IDENTIFY.intersection(needed):  # every token holds these for its owner
        assert without.status_code == 404
    else:
        assert without.status_code == 403
        assert without.json()["message"] == (
            f"Action is not authorized with current scopes; requires any of [{', '.join(needed)}]"
        )
    assert call(world.as_user("bob"), row, things).status_code in (403, 404)

    if row.on in ("user", "server"):
        elsewhere = world.with_scopes(*(f"{scope}!user=ada" for scope in needed))
        refused = call(elsewhere, row, things)
        assert refused.status_code == 404
        assert refused.json()["message"] == "No access to resources or resources not found"
    elif row.on in ("group", "service"):
        other = {"group": "club", "service": "plain"}[row.on]
        elsewhere = world.with_scopes(*(f"{scope}!{row.on}={other}" for scope in needed))
        assert call(elsewhere, row, things).status_code == 404
    elif row.on == "":
        elsewhere = world.with_scopes(*(f"{scope}!user=ada" for scope in needed))
        assert call(elsewhere, row, things).status_code == 403

    self_status = call(world.as_user(things["name"]), row, things).status_code
    repeatable = row.method in ("GET", "PUT", "PATCH") or row.status >= 400
    if row.own:
        assert self_status == row.status
    elif row.on in ("user", "server", "group", "service", ""):
        assert self_status in (403, 404)
    if row.own and not repeatable and row.status == 204 and "<token_id>" in row.path:
        return  # deleted by its owner
    for scope in needed[:-1]:
        assert call(world.with_scopes(scope), row, things).status_code == row.status, scope
    last = narrowed(needed[-1], row.on, things) if row.on not in ("", "some") else needed[-1]
    if row.on == "server" and "<server_name>" not in row.path:
        last = f"{needed[-1]}!server={things['name']}/"
    if row.own and row.status == 204 and "<server_name>" in row.path and row.body:
        assert world.boss.call("PUT", f"/users/{things['name']}/servers/two").status_code == 201
    assert call(world.with_scopes(last), row, things).status_code == row.status
