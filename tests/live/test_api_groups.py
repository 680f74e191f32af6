"""The REST API of groups and of services."""

import pytest
from apiworld import ADMIN, Caller, config

PAGES = {"Accept": "application/jupyterhub-pagination+json"}
SERVICE_KEYS = {
    "kind", "name", "roles", "admin", "url", "prefix", "command", "pid", "info", "display",
}  # fmt: skip


def test_configured_groups_are_there(world):
    club = world.boss.call("GET", "/groups/club").json()
    assert club | {"users": []} == {
        "kind": "group", "name": "club", "roles": [], "users": [], "properties": {},
    }  # fmt: skip
    assert {"ada", "bob"} <= set(club["users"])
    assert world.boss.call("GET", "/groups/empty").json()["properties"] == {"colour": "blue"}


def test_group_from_its_making_to_its_end(world):
    user = world.new_user()
    made = world.boss.call("POST", "/groups/crew", {"users": [user, user.upper()]})
    assert made.status_code == 201 and made.json()["users"] == [user]
    again = world.boss.call("POST", "/groups/crew")
    assert again.status_code == 409 and again.json()["message"] == "Group crew already exists"
    added = world.boss.call("POST", "/groups/crew/users", {"users": ["bob", user]})
    assert added.status_code == 200 and set(added.json()["users"]) == {user, "bob"}
    assert world.boss.call("GET", "/users/bob").json()["groups"] == ["club", "crew"]
    taken = world.boss.call("DELETE", "/groups/crew/users", {"users": ["bob"]})
    assert taken.status_code == 200 and taken.json()["users"] == [user]
    changed = world.boss.call("PUT", "/groups/crew/properties", {"a": {"b": [1, None]}})
    assert changed.json()["properties"] == {"a": {"b": [1, None]}}
    assert world.boss.call("DELETE", "/groups/crew").status_code == 204
    gone = world.boss.call("DELETE", "/groups/crew")
    assert gone.status_code == 404 and gone.json()["message"] == "No such group: crew"
    assert world.boss.call("GET", f"/users/{user}").json()["groups"] == []


def test_several_groups_at_once(world):
    made = world.boss.call("POST", "/groups", {"groups": ["g1", "g2"], "users": ["bob"]})
    assert made.status_code == 201
    assert [(group["name"], group["users"]) for group in made.json()] == [
        ("g1", ["bob"]), ("g2", ["bob"]),
    ]  # fmt: skip
    clash = world.boss.call("POST", "/groups", {"groups": ["g3", "g2"]})
    assert clash.status_code == 409 and clash.json()["message"] == "Group g2 already exists"
    assert world.boss.call("GET", "/groups/g3").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "message"),
    [
        ("POST", "/groups", None, "Must specify at least one group to create"),
        ("POST", "/groups", {"groups": []}, "Must specify at least one group to create"),
        ("POST", "/groups", {"groups": [1]}, "groups must be a list of texts"),
        ("POST", "/groups", {"groups": "x"}, "groups must be a list of texts"),
        ("POST", "/groups/new", {"users": ["nobody-at-all"]}, "No such user: nobody-at-all"),
        (
            "POST",
            "/groups/new",
            {"users": "ada"},
            "group.users must be <class 'list'>, not: <class 'str'>",
        ),
        ("POST", "/groups/new", {"users": [1]}, "group.users must be a list of texts"),
        ("POST", "/groups/new", {"colour": "red"}, "Invalid JSON keys: {'colour': 'red'}"),
        ("POST", "/groups/new", [], "Invalid JSON data: []"),
        ("POST", "/groups/club/users", {}, "Must specify users to add"),
        ("POST", "/groups/club/users", None, "Invalid JSON data: None"),
        ("DELETE", "/groups/club/users", {}, "Must specify users to delete"),
        ("PUT", "/groups/club/properties", [1], "Must specify properties"),
        ("PUT", "/groups/club/properties", None, "Must specify properties"),
    ],
)
def test_wrong_body_is_named(world, method, path, body, message):
    response = world.boss.call(method, path, body)
    assert response.status_code == 400 and response.json() == {"status": 400, "message": message}


@pytest.mark.parametrize("name", ["%20", "a%01b", "x" * 256, "a%E2%80%8Bb"])
def test_impossible_group_name_is_refused(world, name):
    response = world.boss.call("POST", f"/groups/{name}")
    assert response.status_code == 400
    assert response.json()["message"].startswith("Invalid group name")


def test_groups_are_listed_in_pages(world):
    page = world.boss.get("/groups?limit=1", headers=PAGES).json()
    assert [group["name"] for group in page["items"]] == ["club"]
    assert page["_pagination"]["total"] >= 2 and page["_pagination"]["next"]["offset"] == 1
    everything = world.boss.call("GET", "/groups").json()
    assert [group["name"] for group in everything][:2] == ["club", "empty"]
    assert world.boss.call("GET", "/groups?offset=1&limit=1").json() == everything[1:2]


def test_group_shows_what_the_scope_shows(world):
    for scope, keys in (
        ("read:groups", {"kind", "name", "users", "properties"}),
        ("read:groups:name", {"kind", "name"}),
        ("read:roles:groups", {"kind", "name", "roles"}),
    ):
        assert set(world.with_scopes(scope).call("GET", "/groups/club").json()) == keys
    listed = world.with_scopes("list:groups!group=empty").call("GET", "/groups").json()
    assert listed == [{"kind": "group", "name": "empty"}]
    tutor = world.caller("tutor-service-token")
    assert tutor.call("GET", "/groups/club").status_code == 200
    assert tutor.call("GET", "/groups/empty").status_code == 404


def test_new_member_has_the_groups_rights_at_once(world):
    name = world.new_user()
    tutor = world.caller("tutor-service-token")
    assert tutor.call("GET", f"/users/{name}").status_code == 404
    world.boss.call("POST", "/groups/club/users", {"users": [name]})
    assert tutor.call("GET", f"/users/{name}").status_code == 200
    assert tutor.call("POST", f"/users/{name}/server", [1]).status_code == 400
    world.boss.call("DELETE", "/groups/club/users", {"users": [name]})
    assert tutor.call("GET", f"/users/{name}").status_code == 404


# -- services --------------------------------------------------------------------------------


def test_services_are_a_dict(world):
    services = world.boss.call("GET", "/services").json()
    assert {"boss", "plain", "culler", "tutor"} <= set(services)
    assert services["boss"] == {
        "kind": "service", "name": "boss", "roles": ["admin"], "admin": True, "url": "",
        "prefix": "", "command": [], "pid": 0, "info": {}, "display": True,
    }  # fmt: skip
    assert services["culler"]["roles"] == ["culling"] and not services["culler"]["admin"]
    missing = world.boss.call("GET", "/services/none")
    assert missing.status_code == 404 and missing.json()["message"] == "No such service: none"


def test_service_shows_what_the_scope_shows(world):
    for scope, keys in (
        ("read:services", SERVICE_KEYS - {"roles"}),
        ("read:services:name", {"kind", "name", "admin"}),
        ("read:roles:services", {"kind", "name", "roles", "admin"}),
    ):
        assert set(world.with_scopes(scope).call("GET", "/services/plain").json()) == keys
    listed = world.with_scopes("list:services!service=plain").call("GET", "/services").json()
    assert listed == {"plain": {"kind": "service", "name": "plain", "admin": False}}


def test_service_from_its_making_to_its_end(world):
    body = {
        "url": "http://127.0.0.1:9",
        "api_token": "a-token-of-its-own",
        "info": {"about": "nothing"},
        "oauth_client_allowed_scopes": ["read:users:groups"],
        "oauth_no_confirm": True,
    }
    made = world.boss.call("POST", "/services/newer", body)
    assert made.status_code == 201
    assert set(made.json()) == SERVICE_KEYS
    assert made.json()["prefix"] == "/services/newer/" and made.json()["info"] == body["info"]
    caller = world.caller("a-token-of-its-own")
    me = caller.call("GET", "/user").json()
    assert me["kind"] == "service" and me["name"] == "newer" and me["scopes"] == []
    route = world.boss.call("GET", "/proxy").json()["/services/newer/"]
    assert route["target"] == "http://127.0.0.1:9" and route["data"]["service"] == "newer"
    again = world.boss.call("POST", "/services/newer", {})
    assert again.status_code == 409 and again.json()["message"] == "Service newer already exists"
    assert world.boss.call("DELETE", "/services/newer").status_code == 200
    assert caller.call("GET", "/user").status_code == 403
    assert "/services/newer/" not in world.boss.call("GET", "/proxy").json()
    gone = world.boss.call("DELETE", "/services/newer")
    assert gone.status_code == 404 and gone.json()["message"] == "Service newer does not exist"


def test_configured_service_is_not_deleted(world):
    response = world.boss.call("DELETE", "/services/plain")
    assert response.status_code == 405
    assert response.json()["message"] == "Service plain is not modifiable at runtime"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (None, "Invalid service data"),
        ([], "Invalid service data"),
        ({"command": ["x"]}, "Can not create managed service wrong at runtime"),
        ({"foo": 1}, "Invalid JSON keys"),
        ({"url": 3}, "service.url must be <class 'str'>, not: <class 'int'>"),
        ({"url": "ftp://x"}, "url takes an http:// or https:// URL"),
        ({"api_token": "short"}, "api_token needs at least 8 characters"),
        ({"api_token": "admin-service-token"}, "one API token is given for two owners"),
        ({"oauth_client_id": "x"}, "oauth_client_id must begin with service-"),
        ({"oauth_client_allowed_scopes": ["nope"]}, 'there is no scope "nope"'),
        ({"oauth_client_allowed_scopes": [3]}, "a scope is a text"),
    ],
)
def test_wrong_service_is_not_made(world, body, words):
    response = world.boss.call("POST", "/services/wrong", body)
    assert response.status_code == 400 and words in response.json()["message"], response.text
    assert world.boss.call("GET", "/services/wrong").status_code == 404


@pytest.mark.parametrize(
    "uri",
    [
        "javascript:alert(1)",
        "JavaScript://x/%0aalert(1)",
        "data:text/html,x",
        "ftp://example.org/",
        "app.example:/callback",
        "//evil.example/x",
        "/\\evil.example",
        "\\/evil.example",
        "http://",
        "http:///x",
        "https://ada@example.org/",
        "https://example.org/#part",
        "https://example.org/\r\nX: y",
        "/a b",
        " https://example.org/",
        "https://exämple.org/",
        "callback",
    ],
)
def test_codes_are_sent_to_paths_and_web_addresses_only(world, uri):
    response = world.boss.call("POST", "/services/wrong", {"oauth_redirect_uri": uri})
    assert response.status_code == 400, response.text
    assert "oauth_redirect_uri takes a path, or an http:// or" in response.json()["message"]
    assert world.boss.call("GET", "/services/wrong").status_code == 404


@pytest.mark.parametrize(
    "uri", ["/services/x/cb", "https://example.org/cb?a=b", "http://[::1]:8/cb", ""]
)
def test_good_redirect_uri_is_taken(world, uri):
    response = world.boss.call("POST", "/services/redirected", {"oauth_redirect_uri": uri})
    assert response.status_code == 201, response.text
    assert world.boss.call("DELETE", "/services/redirected").status_code == 200


def test_nobody_makes_a_service_that_may_do_more(world):
    maker = world.with_scopes("admin:services")
    for body in (
        {"admin": True},
        {"oauth_client_allowed_scopes": ["shutdown"]},
        # Visitors who are not asked would give it all they may do themselves.
        {"oauth_client_allowed_scopes": ["inherit"], "oauth_no_confirm": True},
        {"oauth_client_allowed_scopes": ["self"], "oauth_no_confirm": True},
        {"oauth_client_allowed_scopes": ["tokens!user"], "oauth_no_confirm": True},
    ):
        response = maker.call("POST", "/services/mighty", body)
        assert response.status_code == 400
        assert "Not assigning requested scopes" in response.json()["message"]
    meek = {"oauth_no_confirm": True, "oauth_redirect_uri": "/services/meek/cb"}
    assert maker.call("POST", "/services/meek", meek).status_code == 201
    assert maker.call("DELETE", "/services/meek").status_code == 200


def test_service_made_here_survives_a_restart(start_hub):
    hub = start_hub(config())
    body = {"url": "http://127.0.0.1:9", "api_token": "a-token-that-stays"}
    assert Caller(hub, ADMIN).call("POST", "/services/lasting", body).status_code == 201
    assert hub.stop() == 0
    hub = start_hub(config(), directory=hub.directory)
    assert Caller(hub, "a-token-that-stays").call("GET", "/user").json()["name"] == "lasting"
    boss = Caller(hub, ADMIN)
    assert boss.call("GET", "/services/lasting").json()["prefix"] == "/services/lasting/"
    assert "/services/lasting/" in boss.call("GET", "/proxy").json()
    assert boss.call("DELETE", "/services/lasting").status_code == 200
