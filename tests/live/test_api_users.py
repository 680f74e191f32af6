"""The REST API of users: made, listed, renamed, deleted; what of them is shown to whom."""

import pytest
import requests

PAGES = {"Accept": "application/jupyterhub-pagination+json"}
USER_KEYS = {
    "kind", "name", "admin", "roles", "groups", "server", "pending", "created", "last_activity",
    "auth_state", "servers", "user_info",
}  # fmt: skip
SERVER_KEYS = {
    "name", "display_name", "full_name", "last_activity", "started", "pending", "ready", "stopped",
    "url", "user_options", "progress_url", "full_url", "full_progress_url", "state",
}  # fmt: skip


def names(response):
    assert response.status_code == 200, response.text
    return [user["name"] for user in response.json()]


# -- making ----------------------------------------------------------------------------------


def test_new_user_has_every_field(world):
    response = world.boss.call("POST", "/users/newcomer")
    assert response.status_code == 201
    model = response.json()
    assert set(model) == USER_KEYS
    assert model | {"created": ""} == {
        "kind": "user", "name": "newcomer", "admin": False, "roles": ["user"], "groups": [],
        "server": None, "pending": None, "created": "", "last_activity": None,
        "auth_state": None, "servers": {}, "user_info": None,
    }  # fmt: skip
    assert model["created"].endswith("Z") and len(model["created"]) == 27
    again = world.boss.call("POST", "/users/newcomer")
    assert again.status_code == 409
    assert again.json() == {"status": 409, "message": "User newcomer already exists"}


def test_many_users_at_once(world):
    body = {"usernames": ["Many1", "many2", "many2", "ada"]}
    response = world.boss.call("POST", "/users", body)
    assert response.status_code == 201
    assert [user["name"] for user in response.json()] == ["many1", "many2"]
    again = world.boss.call("POST", "/users", body)
    assert again.status_code == 409 and again.json()["message"] == "All 4 users already exist"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (None, "Must specify at least one user to create"),
        ([], "Must specify at least one user to create"),
        ({}, "Must specify at least one user to create"),
        ({"usernames": []}, "Must specify at least one user to create"),
        ({"usernames": "abc"}, "usernames must be a list of texts"),
        ({"usernames": [1]}, "usernames must be a list of texts"),
        ({"usernames": ["x"], "foo": 1}, "Invalid JSON keys: {'foo': 1}"),
        (
            {"usernames": ["x"], "admin": "yes"},
            "user.admin must be <class 'bool'>, not: <class 'str'>",
        ),
        ({"usernames": ["a/b"]}, "Invalid username: a/b"),
        ({"usernames": ["a/b", "ok", ".."]}, "Invalid usernames: a/b, .."),
        ({"usernames": ["x"], "groups": ["nowhere"]}, "No such group: nowhere"),
        ({"usernames": ["x"], "auth_state": {"a": 1}}, "This hub keeps no auth_state"),
    ],
)
def test_wrong_bodies_make_nobody(world, body, message):
    response = world.boss.call("POST", "/users", body)
    assert response.status_code == 400
    assert response.json() == {"status": 400, "message": message}
    for name in ("ok", "x"):
        assert world.boss.call("GET", f"/users/{name}").status_code == 404


def test_groups_of_a_new_user(world):
    name = world.new_user(groups=["club"])
    assert world.boss.call("GET", f"/users/{name}").json()["groups"] == ["club"]


def test_names_in_paths_are_decoded_once(world):
    response = world.boss.call("POST", "/users/z%C3%BCrich%2520%40x")
    assert response.status_code == 201
    assert response.json()["name"] == "zürich%20@x"
    assert world.boss.call("GET", "/users/z%C3%BCrich%2520@x").status_code == 200


# -- admins ----------------------------------------------------------------------------------


def test_only_admins_make_admins(world):
    manager = world.new_user("manager")
    caller = world.as_user(manager)
    assert caller.call("POST", "/users", {"usernames": ["x"], "admin": True}).status_code == 403
    narrow = world.with_scopes("admin:users")
    for method, path, body in (
        ("POST", "/users", {"usernames": ["x"], "admin": True}),
        ("POST", "/users/x", {"admin": True}),
        ("PATCH", f"/users/{manager}", {"admin": True}),
    ):
        response = narrow.call(method, path, body)
        assert response.status_code == 403, path
        assert response.json()["message"] == "Only admins can grant admin permissions"
    promoted = world.boss.call("PATCH", f"/users/{manager}", {"admin": True})
    assert promoted.status_code == 200 and promoted.json()["roles"] == ["admin", "user"]
    touched = narrow.call("PATCH", f"/users/{manager}", {"admin": False})
    assert touched.json()["message"] == "Only admins can modify other admins"
    assert world.boss.call("PATCH", f"/users/{manager}", {"admin": False}).json()["admin"] is False


def test_demotion_counts_at_once(world):
    name = world.new_user("was-admin", admin=True)
    caller = world.as_user(name)
    assert caller.call("GET", "/users").status_code == 200
    world.boss.call("PATCH", f"/users/{name}", {"admin": False})
    assert caller.call("GET", "/users").status_code == 403


# -- changing --------------------------------------------------------------------------------


def test_rename_keeps_everything_but_the_name(world):
    old = world.new_user("before", groups=["club"])
    world.boss.call("PUT", f"/users/{old}/servers/lab", {"user_options": {"a": 1}})
    caller = world.as_user(old)
    response = world.boss.call("PATCH", f"/users/{old}", {"name": "After-It"})
    assert response.status_code == 200
    assert response.json()["name"] == "after-it" and response.json()["groups"] == ["club"]
    assert world.boss.call("GET", f"/users/{old}").status_code == 404
    me = caller.call("GET", "/user?include_stopped_servers=1").json()
    assert me["name"] == "after-it" and set(me["servers"]) == {"", "lab"}
    assert caller.call("GET", "/users/after-it").status_code == 200


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"name": "ada"}, "User ada already exists, username must be unique"),
        ({"name": "a/b"}, "Invalid username: a/b"),
        ({"name": ""}, "Invalid username: "),
        ({"name": 3}, "user.name must be <class 'str'>, not: <class 'int'>"),
        ({"nick": "x"}, "Invalid JSON keys: {'nick': 'x'}"),
        ([], "Invalid JSON data: []"),
        (None, "Invalid JSON data: None"),
        ({"groups": ["nowhere"]}, "No such group: nowhere"),
        ({"groups": [1]}, "user.groups must be a list of texts"),
        (
            {"roles": ["admin"]},
            "Roles are given in the configuration: JupyterHub.load_roles",
        ),
        ({"auth_state": {"a": 1}}, "This hub keeps no auth_state"),
    ],
)
def test_wrong_change_changes_nothing(world, body, message):
    response = world.boss.call("PATCH", "/users/bob", body)
    assert response.status_code == 400
    assert response.json() == {"status": 400, "message": message}


def test_groups_are_changed_by_those_who_may_change_them(world):
    name = world.new_user()
    refused = world.with_scopes("admin:users").call("PATCH", f"/users/{name}", {"groups": ["club"]})
    assert refused.status_code == 403
    changed = world.boss.call("PATCH", f"/users/{name}", {"groups": ["empty", "club"]})
    assert changed.json()["groups"] == ["club", "empty"]
    assert world.boss.call("PATCH", f"/users/{name}", {"groups": []}).json()["groups"] == []


# -- deleting --------------------------------------------------------------------------------


def test_deleted_user_is_gone_with_token_and_server(world):
    name = world.new_user()
    caller = world.as_user(name)
    assert world.boss.call("POST", f"/users/{name}/server").status_code == 201
    assert f"/user/{name}/" in world.boss.call("GET", "/proxy").json()
    assert world.boss.call("DELETE", f"/users/{name}").status_code == 204
    assert world.boss.call("GET", f"/users/{name}").status_code == 404
    assert caller.call("GET", "/user").status_code == 403
    assert f"/user/{name}/" not in world.boss.call("GET", "/proxy").json()
    assert world.boss.call("POST", f"/users/{name}").json()["last_activity"] is None


def test_nobody_deletes_themselves(world):
    response = world.with_scopes("delete:users").call("DELETE", "/users/root-admin")
    assert response.status_code == 400
    assert response.json()["message"] == "Cannot delete yourself!"


def test_running_server_prevents_a_rename(world):
    name = world.new_user()
    world.boss.call("POST", f"/users/{name}/server")
    response = world.boss.call("PATCH", f"/users/{name}", {"name": f"{name}-x"})
    assert response.status_code == 400 and "Stop it before renaming" in response.json()["message"]
    assert world.boss.call("DELETE", f"/users/{name}/server").status_code == 204
    assert world.boss.call("PATCH", f"/users/{name}", {"name": f"{name}-x"}).status_code == 200


# -- lists -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def listed(world):
    """Users of whom some have servers: running, stopped, never started."""
    for name in ("list-run", "list-stop", "list-none"):
        assert world.boss.call("POST", f"/users/{name}").status_code == 201
    assert world.boss.call("POST", "/users/list-run/server").status_code == 201
    assert world.boss.call("PUT", "/users/list-stop/servers/lab").status_code == 201
    return "name_filter=LIST-"


def test_list_without_paging_is_a_list(world, listed):
    response = world.boss.call("GET", f"/users?{listed}")
    assert names(response) == ["list-run", "list-stop", "list-none"]
    running, stopped, _never = response.json()
    assert set(running) == USER_KEYS and set(running["servers"][""]) == SERVER_KEYS
    assert running["server"] == "/user/list-run/" and running["pending"] is None
    server = running["servers"][""]
    assert server["ready"] and not server["stopped"] and server["full_name"] == "list-run/"
    assert server["url"] == "/user/list-run/" and server["started"].endswith("Z")
    assert server["progress_url"] == "/hub/api/users/list-run/server/progress"
    assert running["last_activity"][:19] >= running["created"][:19] and server["last_activity"]
    assert stopped["servers"] == {} and stopped["server"] is None


def test_stopped_servers_are_shown_when_asked_for(world, listed):
    everything = {"", "lab"}  # a default server has everybody, also one that never ran
    for query, expected in (("1", everything), ("yes", everything), ("0", set()), ("False", set())):
        response = world.boss.call("GET", f"/users?{listed}&include_stopped_servers={query}")
        assert set(response.json()[1]["servers"]) == expected, query
    model = world.boss.call("GET", "/users/list-stop?include_stopped_servers").json()
    for one in model["servers"].values():
        assert set(one) == SERVER_KEYS and one["stopped"]
    partly = world.with_scopes("read:users", "read:servers!server=list-stop/lab")
    model = partly.call("GET", "/users/list-stop?include_stopped_servers=1").json()
    assert set(model["servers"]) == {"lab"}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("state=ready", ["list-run"]),
        ("state=active", ["list-run"]),
        ("state=inactive", ["list-stop", "list-none"]),
        ("sort=name", ["list-none", "list-run", "list-stop"]),
        ("sort=-name", ["list-stop", "list-run", "list-none"]),
        ("sort=-id", ["list-none", "list-stop", "list-run"]),
        ("sort=-last_activity&limit=1", ["list-run"]),
        ("sort=last_activity&limit=2", ["list-stop", "list-none"]),
        ("limit=1", ["list-run"]),
        ("limit=1&offset=2", ["list-none"]),
        ("limit=0", ["list-run"]),
        ("limit=-2", ["list-run", "list-stop"]),
        ("offset=999999999999999999999", []),
    ],
)
def test_filters_order_and_bounds(world, listed, query, expected):
    assert names(world.boss.call("GET", f"/users?{listed}&{query}")) == expected


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("state=asleep", "Unrecognized state filter: 'asleep'"),
        ("sort=age", "sort must be 'id', 'name', or 'last_activity', not 'age'"),
        ("limit=x", "Invalid argument type, offset and limit must be integers"),
        ("offset=1.5", "Invalid argument type, offset and limit must be integers"),
    ],
)
def test_wrong_query_is_named(world, query, message):
    response = world.boss.call("GET", f"/users?{query}")
    assert response.status_code == 400 and response.json()["message"] == message


def test_pages_lead_to_the_end(world, listed):
    seen, url = [], f"/users?{listed}&limit=2"
    response = world.boss.get(url, headers=PAGES)
    assert response.headers["Content-Type"] == "application/json"
    first = response.json()["_pagination"]
    assert {key: first[key] for key in ("offset", "limit", "total")} == {
        "offset": 0, "limit": 2, "total": 3,
    }  # fmt: skip
    assert first["next"]["offset"] == 2 and first["next"]["limit"] == 2
    assert first["next"]["url"].startswith(world.hub.url + "hub/api/users?")
    while True:
        page = response.json()
        seen += [user["name"] for user in page["items"]]
        if page["_pagination"]["next"] is None:
            break
        url = page["_pagination"]["next"]["url"]
        headers = PAGES | {"Authorization": world.boss.headers["Authorization"]}
        response = requests.get(url, headers=headers, timeout=10)
    assert seen == ["list-run", "list-stop", "list-none"]


@pytest.mark.parametrize(
    ("accept", "paged"),
    [
        ("application/jupyterhub-pagination+json", True),
        ("text/html, Application/JupyterHub-Pagination+JSON ", True),
        ("application/json", False),
        ("*/*", False),
    ],
)
def test_paging_is_asked_for_in_the_accept_header(world, accept, paged):
    model = world.boss.get("/users", headers={"Accept": accept}).json()
    assert isinstance(model, dict) == paged
    assert not paged or model["_pagination"]["limit"] == 50


# -- who sees what ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "keys"),
    [
        ("read:users:name", {"kind", "name", "admin", "user_info"}),
        ("read:users:groups", {"kind", "name", "groups"}),
        ("read:users:activity", {"kind", "name", "last_activity"}),
        ("read:roles:users", {"kind", "name", "roles", "admin"}),
        ("read:servers", {"kind", "name", "servers", "admin", "user_info"}),
        ("read:users", USER_KEYS - {"auth_state", "servers"}),
        ("admin:users", USER_KEYS - {"servers"}),
    ],
)
def test_scope_shows_its_keys(world, scope, keys):
    assert set(world.with_scopes(scope).call("GET", "/users/ada").json()) == keys


def test_state_of_a_server_is_for_those_who_may_see_it(world, listed):
    shown = world.boss.call("GET", "/users/list-run").json()["servers"][""]
    assert shown["state"]["pid"] > 0
    hidden = world.with_scopes("read:servers").call("GET", "/users/list-run").json()["servers"][""]
    assert set(hidden) == SERVER_KEYS - {"state"}


def test_one_servers_reader_sees_that_server_alone(world, listed):
    reader = world.with_scopes("read:servers!server=list-run/", "read:users:name!user=list-run")
    assert set(reader.call("GET", "/users/list-run").json()["servers"]) == {""}
    other = world.with_scopes("read:servers!server=list-run/x", "read:users:name!user=list-run")
    assert "servers" not in other.call("GET", "/users/list-run").json()


def test_list_is_cut_to_the_groups_and_users_of_the_scope(world):
    tutor = world.caller("tutor-service-token")
    listed = tutor.call("GET", "/users").json()
    assert {"ada", "bob"} <= {user["name"] for user in listed}
    assert all("club" in user["groups"] for user in listed)
    assert set(tutor.call("GET", "/users").json()[0]) >= {"groups", "last_activity", "servers"}
    assert tutor.call("GET", "/users/ada").status_code == 200
    assert tutor.call("GET", "/users/root-admin").status_code == 404
    narrow = world.with_scopes("list:users!user=bob", "list:users!group=empty")
    assert names(narrow.call("GET", "/users")) == ["bob"]
    assert names(narrow.call("GET", "/users?name_filter=ada")) == []


def test_what_may_not_be_seen_is_as_what_is_not_there(world):
    narrow = world.with_scopes("read:users!user=ada")
    hidden, absent = (narrow.call("GET", f"/users/{name}") for name in ("bob", "nobody-at-all"))
    assert hidden.status_code == absent.status_code == 404
    assert hidden.json() == absent.json()


# -- activity --------------------------------------------------------------------------------


def test_activity_moves_forward_only(world):
    name = world.new_user()
    world.boss.call("PUT", f"/users/{name}/servers/lab")
    when = "2026-01-02T03:04:05.000000Z"
    for later, shown in ((when, when), ("2026-01-01T00:00:00+00:00", when)):
        body = {"servers": {"lab": {"last_activity": later}}, "last_activity": later}
        response = world.boss.call("POST", f"/users/{name}/activity", body)
        assert response.status_code == 200 and response.content == b""
        model = world.boss.call("GET", f"/users/{name}?include_stopped_servers=1").json()
        assert model["last_activity"] == model["servers"]["lab"]["last_activity"] == shown


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (None, "body must be a json dict"),
        ({}, "body must contain at least one of `last_activity` or `servers`"),
        ({"last_activity": "soon"}, "Not a valid timestamp: 'soon'"),
        ({"last_activity": 3}, "Not a valid timestamp: 3"),
        (
            {"last_activity": "2999-01-01T00:00:00Z"},
            "Rejecting activity from more than an hour in the future: 2999-01-01T00:00:00.000000Z",
        ),
        ({"servers": {"x": {}}}, "No such server 'x' for user ada"),
        (
            {"servers": [1]},
            "servers must be a dict of the form {server_name: {last_activity: timestamp}}",
        ),
    ],
)
def test_wrong_activity_is_named(world, body, message):
    response = world.boss.call("POST", "/users/ada/activity", body)
    assert response.status_code == 400 and response.json()["message"] == message


def test_activity_of_a_server_that_never_ran_is_its_users(world):
    name, when = world.new_user(), "2026-01-02T03:04:05.000000Z"
    body = {"servers": {"": {"last_activity": when}}}
    assert world.boss.call("POST", f"/users/{name}/activity", body).status_code == 200
    assert world.boss.call("GET", f"/users/{name}").json()["last_activity"] == when


def test_using_a_token_is_activity_of_its_user(world):
    name = world.new_user()
    caller = world.as_user(name)
    assert world.boss.call("GET", f"/users/{name}").json()["last_activity"] is None
    caller.call("GET", "/user")
    assert world.boss.call("GET", f"/users/{name}").json()["last_activity"] is not None


# -- HTTP ------------------------------------------------------------------------------------


def test_unchanged_answer_is_not_sent_again(world):
    first = world.boss.call("GET", "/users/bob")
    again = world.boss.get("/users/bob", headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304 and again.content == b""
    assert world.boss.get("/users/bob", headers={"If-None-Match": "*"}).status_code == 304
    other = world.boss.get("/users/bob", headers={"If-None-Match": '"other"'})
    assert other.status_code == 200 and other.headers["ETag"] == first.headers["ETag"]


def test_methods_and_slashes(world):
    head = world.boss.head("/users")
    assert head.status_code == 405 and head.headers["Allow"] == "GET"
    options = world.nobody.options("/users/anybody")
    assert options.status_code == 200 and options.content == b""
    assert "authorization" in options.headers["Access-Control-Allow-Headers"]
    wrong = world.boss.call("PUT", "/users")
    assert wrong.status_code == 405
    assert wrong.json() == {"status": 405, "message": "Method Not Allowed"}
    assert {*wrong.headers["Allow"].split(", ")} == {"GET", "POST"}
    for path in ("/users/", "/users/ada/", "/user/", "/nothing", "/users/ada/nothing"):
        missing = world.boss.call("GET", path)
        assert missing.status_code == 404, path
        assert missing.json() == {"status": 404, "message": "Not Found"}
    assert world.nobody.call("DELETE", "/nothing").status_code == 404


def test_every_answer_tells_the_version_and_forbids_everything_else(world):
    for response in (world.nobody.call("GET", ""), world.nobody.call("GET", "/user")):
        assert response.headers["X-JupyterHub-Version"] == "6.1.1"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
    assert world.nobody.call("GET", "").headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Origin" not in world.nobody.call("GET", "/user").headers
