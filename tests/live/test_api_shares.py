"""Sharing servers: given, used, taken back; codes and the page that accepts them."""

import re

import pytest

PAGES_KEYS = {"items", "_pagination"}


@pytest.fixture
def pair(world):
    """An owner with the right to share, and somebody to share with."""
    owner, guest = world.new_user("owner"), world.new_user("guest")
    world.boss.call("PUT", f"/users/{owner}/servers/lab")
    return owner, guest


def share(world, owner, server, body):
    response = world.boss.call("POST", f"/shares/{owner}/{server}", body)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("server", ["", "lab"])
def test_share_has_every_field(world, pair, server):
    owner, guest = pair
    model = share(world, owner, server, {"user": guest})
    assert model.pop("created_at").endswith("Z")
    path = f"{owner}/{server}/" if server else f"{owner}/"
    assert model == {
        "server": {
            "user": {"name": owner},
            "name": server,
            "url": f"/user/{path}",
            "full_url": None,
            "ready": False,
        },
        "scopes": [f"access:servers!server={owner}/{server}"],
        "user": {"name": guest},
        "group": None,
        "kind": "user",
    }
    listed = world.boss.call("GET", f"/shares/{owner}").json()
    assert set(listed) == PAGES_KEYS and listed["_pagination"]["total"] == 1
    assert listed["items"][0]["user"] == {"name": guest}
    assert world.boss.call("GET", f"/shares/{owner}/{server}").json()["items"] == listed["items"]
    mine = world.boss.call("GET", f"/users/{guest}/shared").json()
    assert mine["items"] == listed["items"]
    one = world.boss.call("GET", f"/users/{guest}/shared/{owner}/{server}")
    assert one.json() == listed["items"][0]


def test_share_lets_in_at_once_and_shuts_out_at_once(world, pair):
    owner, guest = pair
    caller = world.as_user(guest)
    assert caller.call("GET", "/user").json()["scopes"]
    scope = f"access:servers!server={owner}/lab"
    assert scope not in caller.call("GET", "/user").json()["scopes"]
    share(world, owner, "lab", {"user": guest})
    assert scope in caller.call("GET", "/user").json()["scopes"]
    taken = world.boss.call("PATCH", f"/shares/{owner}/lab", {"user": guest})
    assert taken.status_code == 200 and taken.json() == {}
    assert scope not in caller.call("GET", "/user").json()["scopes"]


def test_guest_enters_the_shared_server(world, pair):
    owner, guest = pair
    assert world.boss.call("POST", f"/users/{owner}/server").status_code == 201
    browser = world.hub.browser(guest)
    assert browser.follow(f"/user/{owner}/").status_code == 403
    share(world, owner, "", {"user": guest})
    page = browser.follow(f"/user/{owner}/")  # asks for consent once
    assert page.status_code == 200 and "oauth2/authorize" in page.url
    fields = {"_xsrf": re.search(r'name="_xsrf" value="([^"]+)"', page.text)[1]}
    answer = browser.post(page.url, data=fields)
    assert answer.status_code == 302
    callback = browser.follow(answer.headers["Location"])
    assert callback.status_code == 200 and callback.json()["visitor"]["name"] == guest
    assert world.boss.call("DELETE", f"/shares/{owner}/").status_code == 204
    assert browser.follow(f"/user/{owner}/").status_code == 403
    world.boss.call("DELETE", f"/users/{owner}")


def test_group_share_reaches_its_members(world, pair):
    owner, guest = pair
    group = f"friends-of-{owner}"
    world.boss.call("POST", f"/groups/{group}", {"users": [guest]})
    model = share(world, owner, "lab", {"group": group})
    assert model["kind"] == "group" and model["group"] == {"name": group} and model["user"] is None
    scope = f"access:servers!server={owner}/lab"
    assert scope in world.as_user(guest).call("GET", "/user").json()["scopes"]
    assert world.boss.call("GET", f"/users/{guest}/shared").json()["_pagination"]["total"] == 1
    assert world.boss.call("GET", f"/groups/{group}/shared").json()["_pagination"]["total"] == 1
    missing = world.boss.call("GET", f"/users/{guest}/shared/{owner}/lab")
    assert missing.status_code == 404
    assert missing.json()["message"] == f"No such share for user {guest} on {owner}/lab"
    assert world.boss.call("DELETE", f"/groups/{group}/shared/{owner}/lab").status_code == 204
    assert world.boss.call("GET", f"/groups/{group}/shared").json()["items"] == []


def test_shares_add_up_and_are_taken_one_by_one(world, pair):
    owner, guest = pair
    share(world, owner, "lab", {"user": guest})
    added = share(world, owner, "lab", {"user": guest, "scopes": ["read:servers"]})
    where = f"!server={owner}/lab"
    assert added["scopes"] == [f"access:servers{where}", f"read:servers{where}"]
    body = {"user": guest, "scopes": [f"access:servers{where}"]}
    left = world.boss.call("PATCH", f"/shares/{owner}/lab", body)
    assert left.json()["scopes"] == [f"read:servers{where}"]
    assert world.as_user(guest).call("GET", f"/users/{owner}/servers/lab").status_code == 200
    gone = world.boss.call(
        "PATCH", f"/shares/{owner}/lab", {"user": guest, "scopes": ["read:servers"]}
    )
    assert gone.json() == {}
    assert world.as_user(guest).call("GET", f"/users/{owner}/servers/lab").status_code == 404


def test_guest_can_give_a_share_up(world, pair):
    owner, guest = pair
    share(world, owner, "lab", {"user": guest})
    caller = world.as_user(guest)
    assert caller.call("GET", f"/users/{guest}/shared").json()["_pagination"]["total"] == 1
    assert caller.call("DELETE", f"/users/{guest}/shared/{owner}/lab").status_code == 204
    assert caller.call("DELETE", f"/users/{guest}/shared/{owner}/lab").status_code == 404


def test_owner_shares_only_with_the_right_to(world, pair):
    _owner, guest = pair
    ada, bob = world.as_user("ada"), world.as_user("bob")
    assert ada.call("POST", "/shares/ada/", {"user": guest}).status_code == 200
    assert ada.call("POST", "/shares/bob/", {"user": guest}).status_code == 404
    assert bob.call("POST", "/shares/bob/", {"user": guest}).status_code == 403
    more = ada.call("POST", "/shares/ada/", {"user": guest, "scopes": ["admin:servers"]})
    assert more.status_code == 403
    assert more.json()["message"].startswith("Do not have permission to grant share with scope")
    group = ada.call("POST", "/shares/ada/", {"group": "club"})
    assert group.status_code == 403
    assert group.json()["message"] == "Need scope 'read:groups:name' to share with groups by name"
    assert ada.call("DELETE", "/shares/ada/").status_code == 204


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "Specify exactly one of `user` or `group`"),
        ({"user": "bob", "group": "club"}, "Expected exactly one of `user` or `group`, not both."),
        ({"user": 3}, "Specify exactly one of `user` or `group`"),
        ({"user": "nobody-at-all"}, "No such user: nobody-at-all"),
        ({"group": "nobody-at-all"}, "No such group: nobody-at-all"),
        ({"user": "bob", "scopes": ["nope"]}, "Scope 'nope' for share does not exist"),
        ({"user": "bob", "scopes": "x"}, "scopes must be a list of texts"),
        (
            {"user": "bob", "scopes": ["read:servers!user=ada"]},
            "!user=ada not allowed on sharing read:servers!user=ada, only !server=ada/",
        ),
        ({"user": "bob", "until": 3}, "Unknown fields: until; there are user, group, scopes"),
    ],
)
def test_wrong_share_is_not_given(world, body, message):
    response = world.boss.call("POST", "/shares/ada/", body)
    assert response.status_code == 400 and response.json()["message"] == message


def test_nothing_is_shared_of_what_is_not_there(world):
    missing = world.boss.call("POST", "/shares/ada/none", {"user": "bob"})
    assert missing.status_code == 404 and missing.json()["message"] == "No such server: ada/none"
    assert world.boss.call("GET", "/shares/nobody-at-all").status_code == 404
    for method in ("POST", "PATCH", "DELETE"):
        assert world.boss.call(method, "/shares/ada", {"user": "bob"}).status_code == 405
    for receiver in ({"user": "nobody-at-all"}, {"group": "nobody-at-all"}):
        assert world.boss.call("PATCH", "/shares/ada/", receiver).json() == {}


# -- codes -----------------------------------------------------------------------------------


def test_code_is_made_shown_once_listed_and_deleted(world, pair):
    owner, _guest = pair
    path = f"/share-codes/{owner}/lab"
    made = world.boss.call("POST", path, {"expires_in": 60})
    assert made.status_code == 200
    model = made.json()
    assert set(model) == {
        "server", "scopes", "id", "created_at", "expires_at", "exchange_count",
        "last_exchanged_at", "code", "accept_url", "full_accept_url",
    }  # fmt: skip
    assert model["accept_url"] == f"/hub/accept-share?code={model['code']}"
    assert model["exchange_count"] == 0 and model["last_exchanged_at"] is None
    assert re.fullmatch(r"sc_\d+", model["id"])
    [listed] = world.boss.call("GET", path).json()["items"]
    secret = {"code", "accept_url", "full_accept_url"}
    assert listed == {key: value for key, value in model.items() if key not in secret}
    for query in ("?id=sc_99999", "?id=x", "?code=wrong"):
        assert world.boss.call("DELETE", path + query).status_code == 404
    assert world.boss.call("DELETE", f"{path}?id={model['id']}").status_code == 204
    codes = [world.boss.call("POST", path).json()["code"] for _ in range(3)]
    assert world.boss.call("DELETE", f"{path}?code={codes[0]}").status_code == 204
    assert world.boss.call("GET", f"/share-codes/{owner}").json()["_pagination"]["total"] == 2
    assert world.boss.call("DELETE", path).status_code == 204
    assert world.boss.call("GET", path).json()["items"] == []


@pytest.mark.parametrize("lifetime", [59, 365 * 86400 + 1, "60", True, 1.5])
def test_code_lives_between_a_minute_and_a_year(world, lifetime):
    response = world.boss.call("POST", "/share-codes/ada/", {"expires_in": lifetime})
    assert response.status_code == 400 and "expires_in must" in response.json()["message"]


def test_code_is_exchanged_on_its_page(world, pair):
    owner, guest = pair
    model = world.boss.call("POST", f"/share-codes/{owner}/lab", {}).json()
    accept = model["accept_url"]
    browser = world.hub.browser()
    assert "/hub/login?next=" in browser.get(accept).headers["Location"]
    browser.login(guest)
    page = browser.get(accept)
    assert page.status_code == 200
    assert owner in page.text and "Use servers" in page.text
    scope = f"access:servers!server={owner}/lab"
    caller = world.as_user(guest)
    assert scope not in caller.call("GET", "/user").json()["scopes"]
    assert browser.post(accept, data={"code": model["code"]}).status_code == 403  # no _xsrf
    done = browser.submit(accept, {"code": model["code"]})
    assert done.status_code == 303 and done.headers["Location"] == f"/user/{owner}/lab/"
    assert scope in caller.call("GET", "/user").json()["scopes"]
    [listed] = world.boss.call("GET", f"/share-codes/{owner}/lab").json()["items"]
    assert listed["exchange_count"] == 1 and listed["last_exchanged_at"]


def test_code_is_nothing_to_its_owner_and_to_the_wrong_one(world, pair):
    owner, _guest = pair
    accept = world.boss.call("POST", f"/share-codes/{owner}/lab").json()["accept_url"]
    browser = world.hub.browser(owner)
    assert browser.get(accept).status_code == 403
    assert browser.get("/hub/accept-share?code=wrong").status_code == 404
    assert browser.get("/hub/accept-share").status_code == 404
