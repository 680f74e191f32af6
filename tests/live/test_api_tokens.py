"""The REST API of tokens: made, shown, limited, revoked."""

import contextlib
import sqlite3

import pytest
from admin_tools import wait_until

TOKEN_KEYS = {
    "user", "id", "kind", "roles", "scopes", "created", "last_activity", "expires_at", "note",
    "session_id", "oauth_client",
}  # fmt: skip


def make(caller, user, body=None):
    response = caller.call("POST", f"/users/{user}/tokens", body)
    assert response.status_code == 201, response.text
    return response.json()


def test_new_token_is_shown_once(world):
    name = world.new_user()
    mine = world.as_user(name)
    made = make(mine, name, {"note": "my script", "expires_in": 3600})
    assert set(made) == TOKEN_KEYS | {"token"}
    assert made["user"] == name and made["kind"] == "api_token" and made["note"] == "my script"
    assert made["id"].startswith("a") and made["roles"] == []
    assert made["created"] < made["expires_at"] and made["last_activity"] is None
    assert made["oauth_client"] == "JupyterHub" and made["session_id"] is None
    assert f"servers!user={name}" in made["scopes"]
    listed = mine.call("GET", f"/users/{name}/tokens").json()["api_tokens"]
    assert {key: made[key] for key in TOKEN_KEYS} in listed
    assert not any("token" in token for token in listed)
    one = mine.call("GET", f"/users/{name}/tokens/{made['id']}").json()
    assert one == {key: made[key] for key in TOKEN_KEYS}


def test_token_made_by_somebody_else_says_so(world):
    name = world.new_user()
    assert make(world.boss, name)["note"] == "Requested via api by service boss"
    assert make(world.as_user(name), name)["note"] == "Requested via api"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], None),
        ([1], "Body must be a JSON dict or empty"),
        ({"scopes": "x"}, "token scopes must be a list of texts"),
        ({"roles": [1]}, "token roles must be a list of texts"),
        (
            {"roles": ["user"], "scopes": ["self"]},
            "Can only assign one of scopes or roles when creating tokens.",
        ),
        ({"roles": ["nope"]}, "No such role: nope"),
        ({"scopes": ["nope"]}, 'there is no scope "nope"'),
        ({"scopes": ["read:hub"]}, "Not assigning requested scopes read:hub not held by User bob"),
        ({"roles": ["culling"]}, None),
        ({"expires_in": "x"}, "token expires_in must be null or integer, not 'x'"),
        ({"expires_in": True}, "token expires_in must be null or integer, not True"),
        ({"expires_in": 0}, None),
        ({"expires_in": -5}, None),
        ({"expires_in": 10**30}, None),
        ({"note": 3}, "note must be a text"),
        ({"legacy": "yes"}, "legacy must be true or false"),
    ],
)
def test_wrong_token_is_not_made(world, body, message):
    response = world.boss.call("POST", "/users/bob/tokens", body)
    if body == []:
        assert response.status_code == 201  # as no body at all
        return
    assert response.status_code == 400
    assert message is None or response.json()["message"] == message


def test_roles_stand_for_their_scopes(world):
    made = make(world.boss, "ada", {"roles": ["sharing"]})
    assert "shares!user=ada" in made["scopes"] and "servers!user=ada" not in made["scopes"]


def test_every_token_of_a_user_says_who_that_is(world):
    made = make(world.boss, "ada", {"scopes": []})
    assert made["scopes"] == ["read:users:groups!user=ada", "read:users:name!user=ada"]
    bare = world.caller(made["token"])
    assert bare.call("GET", "/user").json()["name"] == "ada"
    shown = {"kind", "name", "admin", "groups", "user_info"}
    assert set(bare.call("GET", "/users/ada").json()) == shown
    assert bare.call("GET", "/users/bob").status_code == 404
    assert bare.call("GET", "/users/ada/tokens").status_code == 403


def test_nobody_gives_more_than_they_hold(world):
    holder = world.with_scopes("tokens", "read:users:name")
    given = make(holder, "root-admin")["scopes"]
    assert "read:users:name" in given and "tokens" in given
    assert not {"admin:users", "shutdown", "servers"} & set(given)
    response = holder.call("POST", "/users/root-admin/tokens", {"scopes": ["shutdown"]})
    assert response.status_code == 400
    assert response.json()["message"] == "Not permitted to give the scopes shutdown"


def test_token_for_somebody_else_needs_the_right(world):
    for caller, kind in (
        (world.as_user("bob"), "User"),
        (world.caller("plain-service-token"), "Service"),
    ):
        for user in ("ada", "nobody-at-all"):
            response = caller.call("POST", f"/users/{user}/tokens")
            assert response.status_code == 403
            assert response.json()["message"] == (
                f"{kind} {user} not found or no permissions to generate tokens"
            )


# -- proving who one is in the body ----------------------------------------------------------


def test_password_in_the_body_makes_a_token_of_ones_own(world):
    body = {"auth": {"username": "bob", "password": "any"}, "note": "by password"}
    made = make(world.nobody, "bob", body)
    assert world.caller(made["token"]).call("GET", "/user").json()["name"] == "bob"
    other = world.nobody.call("POST", "/users/ada/tokens", body)
    assert other.status_code == 403


@pytest.mark.parametrize(
    "auth",
    [
        None,
        "bob",
        {},
        {"username": "bob"},
        {"username": ["bob"]},
        {"username": "never-seen", "password": "x"},
        {"username": "a/b", "password": "x"},
        {"password": "x"},
    ],
)
def test_wrong_proof_is_forbidden(world, auth):
    path = "/users/never-seen/tokens"
    assert world.nobody.call("POST", path, {"auth": auth}).status_code == 403
    assert world.boss.call("GET", "/users/never-seen").status_code == 404


# -- the end of a token ----------------------------------------------------------------------


def test_revoked_token_is_dead_at_once(world):
    name = world.new_user()
    made = make(world.boss, name)
    caller = world.caller(made["token"])
    for _ in range(3):
        assert caller.call("GET", "/user").status_code == 200
    assert world.boss.call("DELETE", f"/users/{name}/tokens/{made['id']}").status_code == 204
    assert caller.call("GET", "/user").status_code == 403
    gone = world.boss.call("DELETE", f"/users/{name}/tokens/{made['id']}")
    assert gone.status_code == 404
    assert gone.json()["message"] == f"No such token {made['id']} for user {name}"


def test_token_can_revoke_itself(world):
    name = world.new_user()
    made = make(world.boss, name)
    caller = world.caller(made["token"])
    assert caller.call("DELETE", f"/users/{name}/tokens/{made['id']}").status_code == 204
    assert caller.call("GET", "/user").status_code == 403


def test_expired_token_is_dead_and_not_listed(world):
    name = world.new_user()
    made = make(world.boss, name, {"expires_in": 1})
    caller = world.caller(made["token"])
    assert caller.call("GET", "/user").status_code == 200
    wait_until(lambda: caller.call("GET", "/user").status_code == 403, "the token expires")
    listed = world.boss.call("GET", f"/users/{name}/tokens").json()["api_tokens"]
    assert made["id"] not in [token["id"] for token in listed]
    assert world.boss.call("GET", f"/users/{name}/tokens/{made['id']}").status_code == 404


@pytest.mark.parametrize("token_id", ["b1", "a", "ax", "a-1", "a999999999999999999999", "1", "a²"])
def test_no_such_token(world, token_id):
    for method in ("GET", "DELETE"):
        assert world.boss.call(method, f"/users/bob/tokens/{token_id}").status_code == 404


def test_one_users_token_is_not_anothers(world):
    made = make(world.boss, "ada")
    assert world.boss.call("DELETE", f"/users/bob/tokens/{made['id']}").status_code == 404
    assert world.caller(made["token"]).call("GET", "/user").status_code == 200


# -- forms of the header ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("token {}", 200),
        ("Bearer {}", 200),
        ("TOKEN   {}", 200),
        ("bearer {} ", 200),
        ("{}", 403),
        ("Basic {}", 403),
        ("token {} x", 403),
        ("token{}", 403),
        ("token", 403),
    ],
)
def test_forms_of_the_authorization_header(world, header, status):
    secret = world.as_user("bob").token
    headers = {"Authorization": header.format(secret)}
    assert world.nobody.get("/user", headers=headers).status_code == status


def test_token_in_the_query_is_none(world):
    secret = world.as_user("bob").token
    assert world.nobody.call("GET", f"/user?token={secret}").status_code == 403


def test_nobody_has_tokens_without_number(world):
    """A list of them is made in one piece, which would keep everybody waiting."""
    name = world.new_user()
    mine = world.as_user(name)
    made = make(mine, name)
    rows = (
        "INSERT INTO api_tokens"
        " (user_id, prefix, hashed, note, scopes, session_id, created, legacy)"
        " WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)"
        " SELECT users.id, 'none', 'sha512:1:0:0', '', '[]', '', ?, 0 FROM n JOIN users"
        " WHERE users.name = ?"
    )
    place = world.hub.directory / "jupyterhub.sqlite"
    with contextlib.closing(sqlite3.connect(place, timeout=30)) as db, db:
        db.execute(rows, (made["created"], name))
    for caller in (mine, world.boss):
        answer = caller.call("POST", f"/users/{name}/tokens")
        assert answer.status_code == 400
        assert "Revoke some" in answer.json()["message"]
    other = world.new_user()
    make(world.boss, other)
    with contextlib.closing(sqlite3.connect(place, timeout=30)) as db, db:
        db.execute("DELETE FROM api_tokens WHERE prefix = 'none'")
    make(mine, name)
