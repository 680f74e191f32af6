"""Roles and custom scopes of the configuration, on a real hub."""

from apiworld import ADMIN, Caller, World, config

GRADES = {
    "custom:grades": {
        "description": "Everything about grades",
        "subscopes": ["custom:grades:read"],
    },
    "custom:grades:read": {"description": "Read grades"},
}


#: What every token of ada's says of her.
WHO = {"read:users:groups!user=ada", "read:users:name!user=ada"}


def scopes_of(caller):
    return set(caller.call("GET", "/user").json()["scopes"])


def test_load_roles_are_the_whole_truth_at_each_start(start_hub):
    roles = [
        {"name": "reading", "scopes": ["read:hub"], "users": ["ada"], "groups": ["crew"]},
        {"name": "listing", "scopes": ["list:users"], "services": ["plain"]},
        {"name": "user", "scopes": ["self", "read:metrics"]},
    ]
    hub = start_hub(config(load_roles=roles, load_groups={"crew": ["bob"]}))
    world = World(hub)
    plain = world.caller("plain-service-token")
    ada, bob = world.as_user("ada"), world.as_user("bob")
    assert ada.call("GET", "/info").status_code == bob.call("GET", "/info").status_code == 200
    assert plain.call("GET", "/users").status_code == 200
    assert "read:metrics" in scopes_of(ada)
    assert world.boss.call("GET", "/users/ada").json()["roles"] == ["reading", "user"]
    assert world.boss.call("GET", "/groups/crew").json()["roles"] == ["reading"]
    assert world.boss.call("GET", "/services/plain").json()["roles"] == ["listing"]
    assert hub.stop() == 0
    roles = [{"name": "reading", "scopes": ["read:hub"], "users": ["new-one"]}]
    again = World(start_hub(config(load_roles=roles, load_groups={}), directory=hub.directory))
    assert again.caller(ada.token).call("GET", "/info").status_code == 403
    assert "read:metrics" not in scopes_of(again.caller(ada.token))
    assert again.as_user("new-one").call("GET", "/info").status_code == 200
    assert again.caller("plain-service-token").call("GET", "/users").status_code == 403


def test_custom_scopes_are_held_and_shown_like_others(start_hub):
    roles = [{"name": "grading", "scopes": ["custom:grades"], "users": ["ada"]}]
    world = World(start_hub(config(custom_scopes=GRADES, load_roles=roles)))
    proof = {"auth": {"username": "ada", "password": "any"}}
    made = world.nobody.call("POST", "/users/ada/tokens", proof).json()
    ada = world.caller(made["token"])
    assert {"custom:grades", "custom:grades:read"} <= scopes_of(ada)
    body = {"scopes": ["custom:grades:read"]}
    narrow = world.caller(ada.call("POST", "/users/ada/tokens", body).json()["token"])
    assert scopes_of(narrow) - WHO == {"custom:grades:read"}
    assert "custom:grades" not in scopes_of(world.as_user("ada"))  # its maker does not hold it
    response = world.boss.call("POST", "/users/bob/tokens", {"scopes": ["custom:grades"]})
    assert response.status_code == 400


def test_wrong_roles_are_all_told_and_nothing_starts(start_hub):
    roles = [{"name": "X"}, {"name": "reading", "scopes": ["read:user"], "who": []}]
    hub = start_hub(config(load_roles=roles), wait=False)
    assert hub.process.wait(20) == 3
    for words in ("role X: name must have", 'there is no scope "read:user"', "no key 'who'"):
        assert words in hub.text
    assert "Traceback" not in hub.text
    undeclared = config(load_roles=[{"name": "reading", "services": ["gone"]}])
    second = start_hub(undeclared, wait=False)
    assert second.process.wait(20) == 3
    assert "there is no service gone; services are declared in" in second.text


def test_admins_of_a_role_are_the_admins(start_hub):
    roles = [{"name": "admin", "users": ["root-admin", "ada"]}]
    boss = Caller(start_hub(config(load_roles=roles)), ADMIN)
    assert boss.call("GET", "/users/ada").json()["admin"]
    assert not boss.call("GET", "/users/bob").json()["admin"]
