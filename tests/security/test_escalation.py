"""Nobody does more than they may: filters, roles, groups, services, shares, what is remembered."""

from __future__ import annotations

import pytest
from apiworld import World, config, merge
from harness import HubProcess, serving, until

#: What the group staff may do: much, and not everything.
STAFF = ["admin:users", "tokens", "shutdown"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """People in two groups, one of which may do a lot, and services of every kind."""
    roles = config()["JupyterHub"]["load_roles"]
    settings = config(
        load_groups={"club": ["ada", "bob"], "staff": ["chief"], "crew": ["chief"]},
        load_roles=[
            *roles,
            {"name": "staffing", "scopes": STAFF, "groups": ["staff"]},
            {"name": "informed", "scopes": ["read:hub"], "groups": ["crew"]},
            {"name": "captains", "scopes": ["groups!group=club"], "users": ["ada"]},
            {"name": "clerks", "scopes": ["admin:users!user=bob"], "users": ["clerk"]},
            {"name": "porters", "scopes": ["admin:services", "admin:groups"], "users": ["porter"]},
        ],
    )
    with serving(tmp_path_factory.mktemp("world"), settings) as hub:
        yield World(hub)


def refused(response) -> bool:
    """Whether an answer is a refusal, and none that tells what there is."""
    assert response.status_code < 500, response.text
    return response.status_code in (403, 404)


# -- filters -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scope",
    [
        "read:users!user=",
        "read:users!server=",
        "read:users!group=",
        "read:users!service=",
        "read:users!group",
        "read:users!",
        "read:users!=bob",
        "read:users!User=bob",
        "read:users! user=bob",
        "read:users!user =bob",
        "servers!server=bob",
        "self!user=bob",
        "inherit!user=bob",
        "!user=bob",
        "all",
        "*",
        "read:*",
        "Read:users",
        "read:users,admin:users",
        "read:users admin:users",
        "",
    ],
)
def test_scope_that_cannot_be_read_is_no_scope(world, scope):
    answer = world.boss.call("POST", "/users/root-admin/tokens", {"scopes": [scope]})
    assert answer.status_code == 400, answer.text


@pytest.mark.parametrize(
    "value", ["*", "%", "bob!user=ada", "ada,bob", "ADA", "ada ", "ada/", "", "../ada", "ad_"]
)
def test_filter_is_a_name_and_no_pattern(world, value):
    """Either it is refused, or it stands for somebody who is not there."""
    body = {"scopes": [f"read:users!user={value}", f"tokens!user={value}"]}
    answer = world.boss.call("POST", "/users/root-admin/tokens", body)
    if value and answer.status_code == 201:
        caller = world.caller(answer.json()["token"])
        assert refused(caller.call("GET", "/users/ada"))
        assert refused(caller.call("GET", "/users/ada/tokens"))
        assert refused(caller.call("POST", "/users/ada/tokens", {}))
    else:
        assert answer.status_code == 400


def test_filter_of_one_user_opens_nobody_else(world):
    ada, bob = world.new_user(), world.new_user()
    caller = world.with_scopes(
        f"admin:users!user={ada}", f"servers!user={ada}", f"tokens!user={ada}"
    )
    assert caller.call("GET", f"/users/{ada}").status_code == 200
    for method, path, body in (
        ("GET", f"/users/{bob}", None),
        ("PATCH", f"/users/{bob}", {"admin": True}),
        ("DELETE", f"/users/{bob}", None),
        ("POST", f"/users/{bob}/server", {}),
        ("DELETE", f"/users/{bob}/server", None),
        ("GET", f"/users/{bob}/server/progress", None),
        ("PUT", f"/users/{bob}/servers/two", {}),
        ("GET", f"/users/{bob}/tokens", None),
        ("POST", f"/users/{bob}/tokens", {}),
        ("POST", f"/users/{bob}/activity", {"last_activity": "2026-01-01T00:00:00Z"}),
        ("POST", "/users", {"usernames": ["made-up"]}),
        ("POST", "/users/made-up", {}),
    ):
        assert refused(caller.call(method, path, body)), (method, path)
    assert [one["name"] for one in caller.call("GET", "/users").json()] == [ada]
    # Not even by way of a new name: the filter does not move to another user.
    assert caller.call("PATCH", f"/users/{ada}", {"name": bob}).status_code == 400
    assert refused(caller.call("PATCH", f"/users/{ada}", {"admin": True}))


def test_filter_of_one_server_opens_no_other(world):
    name = world.new_user()
    for server in ("one", "two"):
        assert world.boss.call("POST", f"/users/{name}/servers/{server}").status_code == 201
    caller = world.with_scopes(f"servers!server={name}/one", f"access:servers!server={name}/one")
    assert caller.call("GET", f"/users/{name}/servers/one").json()["ready"]
    for method, path in (
        ("POST", "server"),
        ("DELETE", "server"),
        ("POST", "servers/three"),
        ("PUT", "servers/three"),
        ("DELETE", "servers/two"),
        ("GET", "servers/two"),
        ("GET", "servers/two/progress"),
        ("GET", "server/progress"),
        ("POST", "servers/one%2F..%2Ftwo"),
        ("GET", "tokens"),
        ("GET", ""),
    ):
        assert refused(caller.call(method, f"/users/{name}/{path}".rstrip("/"))), path
    page = {"Authorization": f"token {caller.token}"}
    browser = world.hub.browser()
    assert browser.get(f"/user/{name}/one/x", headers=page).status_code == 200
    assert browser.get(f"/user/{name}/two/x", headers=page).status_code == 302
    assert caller.call("DELETE", f"/users/{name}/servers/one", {"remove": True}).status_code == 204


def test_server_of_a_longer_name_is_another_one(world):
    """A name that begins with the filter's is not the filter's."""
    name = world.new_user()
    assert world.boss.call("POST", f"/users/{name}x", {}).status_code == 201
    caller = world.with_scopes(
        f"read:users!user={name}", f"servers!server={name}/one", f"servers!server={name}/"
    )
    assert refused(caller.call("GET", f"/users/{name}x"))
    assert refused(caller.call("GET", f"/users/{name[:-1]}"))
    assert refused(caller.call("POST", f"/users/{name}x/server", {}))
    assert refused(caller.call("POST", f"/users/{name}/servers/one1", {}))


def test_shorthand_of_a_token_means_its_owner(world):
    name, other = world.new_user(), world.new_user()
    caller = world.as_user(name, "read:users!user", "servers!user", "tokens!user")
    assert caller.call("GET", f"/users/{name}").status_code == 200
    assert refused(caller.call("GET", f"/users/{other}"))
    assert refused(caller.call("POST", f"/users/{other}/tokens", {}))
    # A token of nobody's server and of no service means none by these.
    for scope in ("access:servers!server", "access:services!service"):
        made = world.boss.call("POST", f"/users/{name}/tokens", {"scopes": [scope]})
        if made.status_code == 201:
            held = world.caller(made.json()["token"]).call("GET", "/user").json()["scopes"]
            assert not any(one.startswith("access:") for one in held)
        else:
            assert made.status_code == 400


# -- tokens made by tokens -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {"scopes": ["inherit"]},
        {"scopes": ["self"]},
        {"scopes": ["admin:users"]},
        {"scopes": ["tokens"]},
        {"scopes": ["servers!user"]},
        {"roles": ["admin"]},
        {"roles": ["user"]},
        {"roles": ["token"]},
        {"roles": ["staffing"]},
    ],
)
def test_narrow_token_makes_no_wider_one(world, body):
    name = world.new_user()
    narrow = world.as_user(name, "tokens!user", "read:users!user")
    answer = narrow.call("POST", f"/users/{name}/tokens", body)
    assert answer.status_code == 400, answer.text
    made = narrow.call("POST", f"/users/{name}/tokens", {})
    assert made.status_code == 201
    held = world.caller(made.json()["token"]).call("GET", "/user").json()["scopes"]
    assert not any(scope.startswith(("servers", "access", "start")) for scope in held)


def test_who_may_make_tokens_for_all_gets_no_more_than_they_hold(world):
    caller = world.as_user("chief", "tokens", "read:users")
    made = caller.call("POST", "/users/root-admin/tokens", {})
    assert made.status_code == 201
    heir = world.caller(made.json()["token"])
    assert refused(heir.call("POST", "/shutdown", {}))
    assert refused(heir.call("POST", "/users/new-one", {}))
    assert caller.call("POST", "/users/root-admin/tokens", {"roles": ["admin"]}).status_code == 400


# -- admins --------------------------------------------------------------------------------------


def test_who_may_change_users_makes_no_admins_and_touches_none(world):
    clerk, chief = world.as_user("clerk"), world.as_user("chief")
    for caller in (clerk, chief):
        for body in ({"admin": True}, {"admin": True, "name": "bobby"}):
            assert caller.call("PATCH", "/users/bob", body).status_code == 403
    assert chief.call("POST", "/users/second-admin", {"admin": True}).status_code == 403
    body = {"usernames": ["second-admin"], "admin": True}
    assert chief.call("POST", "/users", body).status_code == 403
    for body in ({"admin": False}, {"name": "taken-over"}, {"groups": []}):
        assert chief.call("PATCH", "/users/root-admin", body).status_code == 403
    # Nor by way of groups that may do more, or of roles.
    for body in ({"groups": ["staff"]}, {"groups": ["club", "staff"]}):
        assert clerk.call("PATCH", "/users/bob", body).status_code == 403
    for body in ({"roles": ["admin"]}, {"roles": ["staffing"]}):
        assert clerk.call("PATCH", "/users/bob", body).status_code == 400
    model = world.boss.call("GET", "/users/bob").json()
    assert not model["admin"] and model["groups"] == ["club"] and model["roles"] == ["user"]


def test_admins_narrow_token_makes_no_admins(world):
    """What counts is what this token may do, not who owns it."""
    caller = world.with_scopes("admin:users")
    name = world.new_user()
    assert caller.call("PATCH", f"/users/{name}", {"admin": True}).status_code == 403
    assert caller.call("PATCH", "/users/root-admin", {"admin": False}).status_code == 403


# -- groups --------------------------------------------------------------------------------------


def test_captain_of_one_group_does_not_enter_another(world):
    ada = world.as_user("ada")
    assert ada.call("POST", "/groups/club/users", {"users": ["clerk"]}).status_code == 200
    assert ada.call("DELETE", "/groups/club/users", {"users": ["clerk"]}).status_code == 200
    for method, path, body in (
        ("POST", "/groups/staff/users", {"users": ["ada"]}),
        ("DELETE", "/groups/staff/users", {"users": ["chief"]}),
        ("PUT", "/groups/staff/properties", {}),
        ("GET", "/groups/staff", None),
        ("POST", "/groups/staff", {}),
        ("POST", "/groups/new", {"users": ["ada"]}),
        ("POST", "/groups", {"groups": ["new"]}),
        ("DELETE", "/groups/club", None),
        ("DELETE", "/groups/staff", None),
    ):
        assert refused(ada.call(method, path, body)), (method, path)
    assert refused(ada.call("POST", "/shutdown", {}))


def test_rights_of_a_group_end_with_it(world):
    """Also for a token that was used, and remembered, while it had them."""
    name = world.new_user()
    member = world.as_user(name)
    assert refused(member.call("GET", "/users/chief/tokens"))
    boss = world.boss
    for end in (
        lambda: boss.call("DELETE", "/groups/staff/users", {"users": [name]}),
        lambda: boss.call("PATCH", f"/users/{name}", {"groups": []}),
    ):
        assert boss.call("POST", "/groups/staff/users", {"users": [name]}).status_code == 200
        for _ in range(3):
            assert member.call("GET", "/users/chief/tokens").status_code == 200
        assert end().status_code == 200
        assert refused(member.call("GET", "/users/chief/tokens"))


def test_group_made_anew_has_no_roles_of_the_old_one(world):
    """Roles belong to the group of the configuration, not to whoever takes its name."""
    name = world.new_user()
    porter, member = world.as_user("porter"), world.as_user(name)
    assert world.boss.call("POST", "/groups/crew/users", {"users": [name]}).status_code == 200
    assert member.call("GET", "/info").status_code == 200
    assert porter.call("DELETE", "/groups/crew").status_code == 204
    assert refused(member.call("GET", "/info"))
    assert porter.call("POST", "/groups/crew", {"users": [name]}).status_code == 201
    assert world.boss.call("GET", "/groups/crew").json()["roles"] == []
    assert refused(member.call("GET", "/info"))


# -- services ------------------------------------------------------------------------------------


def test_porter_makes_no_service_that_may_do_what_they_may_not(world):
    porter = world.as_user("porter")
    for body in (
        {"admin": True},
        {"oauth_client_allowed_scopes": ["admin:users"]},
        {"oauth_client_allowed_scopes": ["access:servers"]},
        {"oauth_client_allowed_scopes": ["inherit"], "oauth_no_confirm": True},
        {"oauth_client_id": "service-boss", "url": "http://127.0.0.1:9", "admin": True},
        {"oauth_client_id": "jupyterhub-user-ada"},
        {"api_token": "admin-service-token"},
        {"command": ["sh"]},
        {"oauth_roles": ["admin"]},
        {"url": "http://127.0.0.1:9", "name": "boss"},
    ):
        answer = porter.call("POST", "/services/trojan", body)
        assert answer.status_code in (400, 409) or refused(answer) or body.get("name"), answer.text
        if answer.status_code == 201:
            assert answer.json()["name"] == "trojan"
            assert porter.call("DELETE", "/services/trojan").status_code == 200
    for name in ("boss", "plain"):
        assert porter.call("POST", f"/services/{name}", {}).status_code == 409
        assert porter.call("DELETE", f"/services/{name}").status_code == 405


def test_service_that_is_deleted_takes_its_tokens_along(world):
    body = {"api_token": "token-of-a-short-lived-one"}
    assert world.boss.call("POST", "/services/fleeting", body).status_code == 201
    caller = world.caller(body["api_token"])
    for _ in range(2):
        assert caller.call("GET", "/user").status_code == 200
    assert world.boss.call("DELETE", "/services/fleeting").status_code == 200
    assert caller.call("GET", "/user").status_code == 403
    # Who takes the name afterwards has not its token.
    assert world.boss.call("POST", "/services/fleeting", {}).status_code == 201
    assert caller.call("GET", "/user").status_code == 403
    assert world.boss.call("DELETE", "/services/fleeting").status_code == 200


# -- shares --------------------------------------------------------------------------------------


@pytest.fixture
def shared(world):
    """A user who may share, their server's path among shares, and a guest."""
    assert world.boss.call("POST", "/users/ada/server").status_code in (201, 400)
    guest = world.new_user("guest")
    yield "/shares/ada/", guest
    world.boss.call("DELETE", "/shares/ada/")
    world.boss.call("DELETE", "/share-codes/ada/")


@pytest.mark.parametrize(
    "scopes",
    [
        ["admin:users"],
        ["shutdown"],
        ["admin:servers"],
        ["admin:server_state"],
        ["access:services"],
        ["access:servers!user=ada"],
        ["access:servers!server=bob/"],
        ["access:servers!server=ada/other"],
        ["self"],
        ["inherit"],
        ["access:servers", "admin:groups"],
        ["nonsense"],
    ],
)
def test_owner_gives_away_nothing_but_what_is_theirs_on_that_server(world, shared, scopes):
    path, guest = shared
    ada = world.as_user("ada")
    body = {"scopes": scopes}
    for answer in (
        ada.call("POST", path, {"user": guest} | body),
        ada.call("POST", "/share-codes/ada/", body),
    ):
        assert answer.status_code in (400, 403), answer.text
    assert world.boss.call("GET", f"/users/{guest}/shared").json()["items"] == []


def test_guest_has_that_server_and_no_more(world, shared):
    path, guest = shared
    assert world.boss.call("POST", path, {"user": guest}).status_code == 200
    caller = world.as_user(guest)
    assert "access:servers!server=ada/" in caller.call("GET", "/user").json()["scopes"]
    third = world.new_user()
    for method, where, body in (
        ("GET", "/users/ada", None),
        ("POST", "/users/ada/server", {}),
        ("DELETE", "/users/ada/server", None),
        ("GET", "/users/ada/tokens", None),
        ("POST", "/users/ada/tokens", {}),
        ("GET", path, None),
        ("POST", path, {"user": third}),
        ("POST", path, {"user": guest, "scopes": ["servers"]}),
        ("POST", "/share-codes/ada/", {}),
        ("GET", "/share-codes/ada/", None),
        ("DELETE", path, None),
    ):
        assert refused(caller.call(method, where, body)), (method, where)


def test_share_that_is_taken_back_ends_what_was_remembered(world, shared):
    path, guest = shared
    caller = world.as_user(guest)
    for end in (
        lambda: world.boss.call("PATCH", path, {"user": guest}),
        lambda: world.boss.call("DELETE", path),
        lambda: world.boss.call("DELETE", f"/users/{guest}/shared/ada/"),
    ):
        assert world.boss.call("POST", path, {"user": guest}).status_code == 200
        for _ in range(2):
            assert "access:servers!server=ada/" in caller.call("GET", "/user").json()["scopes"]
        assert end().status_code in (200, 204)
        assert "access:servers!server=ada/" not in caller.call("GET", "/user").json()["scopes"]


def test_code_that_is_deleted_or_guessed_opens_nothing(world, shared):
    _path, guest = shared
    made = world.boss.call("POST", "/share-codes/ada/", {}).json()
    browser = world.hub.browser(guest)

    def take(code: str):
        fields = {"_xsrf": browser.xsrf("/hub/home"), "code": code}
        return browser.post("/hub/accept-share", data=fields)

    for code in ("", made["id"], made["code"][:-1], made["code"] + "x", made["code"].swapcase()):
        assert take(code).status_code == 404
    assert world.boss.call("DELETE", "/share-codes/ada/").status_code == 204
    assert browser.get(made["accept_url"]).status_code == 404
    assert take(made["code"]).status_code == 404
    held = world.as_user(guest).call("GET", "/user").json()["scopes"]
    assert "access:servers!server=ada/" not in held


def test_code_of_a_share_is_taken_by_form_only(world, shared):
    """Looking at the page gives nothing, and no other page can press the button."""
    _path, guest = shared
    made = world.boss.call("POST", "/share-codes/ada/", {}).json()
    browser = world.hub.browser(guest)
    assert browser.get(made["accept_url"]).status_code == 200
    assert browser.post("/hub/accept-share", data={"code": made["code"]}).status_code == 403
    assert world.boss.call("GET", f"/users/{guest}/shared").json()["items"] == []


# -- what is remembered --------------------------------------------------------------------------


def test_token_that_expires_while_it_is_used_is_dead_on_time(world):
    name = world.new_user()
    made = world.boss.call("POST", f"/users/{name}/tokens", {"expires_in": 6}).json()
    caller = world.caller(made["token"])
    assert caller.call("GET", "/user").status_code == 200
    until(lambda: caller.call("GET", "/user").status_code == 403, 30)
    assert caller.call("GET", f"/users/{name}").status_code == 403
    listed = world.boss.call("GET", f"/users/{name}/tokens").json()["api_tokens"]
    assert made["id"] not in [one["id"] for one in listed]


def test_token_whose_owner_is_made_anew_stays_dead(world):
    name = world.new_user()
    caller = world.as_user(name)
    assert caller.call("GET", "/user").status_code == 200
    assert world.boss.call("DELETE", f"/users/{name}").status_code == 204
    assert caller.call("GET", "/user").status_code == 403
    assert world.boss.call("POST", f"/users/{name}").status_code == 201
    assert caller.call("GET", "/user").status_code == 403


def test_admin_who_is_none_any_more_is_none_at_once(world):
    name = world.new_user(admin=True)
    caller = world.as_user(name)
    for _ in range(2):
        assert caller.call("GET", "/users").status_code == 200
    assert world.boss.call("PATCH", f"/users/{name}", {"admin": False}).status_code == 200
    assert refused(caller.call("GET", "/users"))
    assert refused(caller.call("POST", "/shutdown", {}))


def test_new_name_takes_the_rights_along_and_leaves_none_behind(world):
    """Whoever gets a name that somebody had is not who had it."""
    first, second = world.new_user(), world.new_user()
    caller = world.as_user(first)
    assert caller.call("GET", f"/users/{first}").status_code == 200
    assert world.boss.call("PATCH", f"/users/{first}", {"name": f"{first}-new"}).status_code == 200
    assert world.boss.call("PATCH", f"/users/{second}", {"name": first}).status_code == 200
    assert refused(caller.call("GET", f"/users/{first}"))
    assert caller.call("GET", f"/users/{first}-new").status_code == 200
    assert caller.call("GET", "/user").json()["name"] == f"{first}-new"


def test_configured_group_gets_its_roles_back_at_the_next_start(tmp_path):
    """A restart is the configuration's word again; nothing of a usurper remains."""
    changes = {
        "load_groups": {"staff": ["chief"]},
        "load_roles": [{"name": "staffing", "scopes": ["shutdown"], "groups": ["staff"]}],
    }
    settings = merge(config(), {"JupyterHub": changes})
    hub = HubProcess(tmp_path / "hub", settings).wait_ready()
    world = World(hub)
    assert world.boss.call("DELETE", "/groups/staff").status_code == 204
    assert world.boss.call("POST", "/groups/staff", {"users": ["chief"]}).status_code == 201
    assert refused(world.as_user("chief").call("POST", "/shutdown", {}))
    assert hub.stop() == 0
    hub = HubProcess(tmp_path / "hub", settings).wait_ready()
    world = World(hub)
    assert world.boss.call("GET", "/groups/staff").json()["roles"] == ["staffing"]
    assert world.as_user("chief").call("POST", "/shutdown", {}).status_code == 202
    until(lambda: hub.process.poll() == 0, 30)
