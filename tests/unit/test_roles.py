"""Roles, shares and tokens, and what they come to."""

import pytest

from minihub import models, roles, scopes
from minihub.accounts import Accounts
from minihub.errors import ConfigError
from minihub.oauth import OAuthProvider
from minihub.roles import Roles
from minihub.store import Store


@pytest.fixture
def store(tmp_path):
    store = Store(f"{tmp_path}/hub.sqlite")
    store.open()
    with store.session():  # for what the tests read themselves
        yield store
    store.close()


@pytest.fixture
def accounts(store):
    return Accounts(store, session_lifetime_s=1000)


@pytest.fixture
def held(store):
    return Roles(store, admin_access=True)


@pytest.fixture
def ada(accounts):
    return accounts.ensure_user("ada")[0]


@pytest.fixture
def custom():
    scopes.define_custom({"custom:grades": {"description": "Read grades"}})
    yield
    scopes.forget_custom()


def load(held, *entries):
    held.load(roles.parse(entries))


def make_group(store, name, *users):
    with store.transaction():
        group = models.Group.create(name=name)
        for user in users:
            models.GroupMember.create(group=group, user=user)
    return group


def make_service(store, name, admin=False):
    with store.transaction():
        return models.Service.create(name=name, admin=admin)


# -- defaults --------------------------------------------------------------------------------


def test_every_user_holds_self(held, ada):
    assert held.of_user(ada).allows("servers", user="ada")
    assert not held.of_user(ada).has_any("admin:users")
    assert held.rights_of_user(ada).roles == ("user",)


def test_admin_holds_everything(held, accounts):
    root = accounts.ensure_user("root", admin=True)[0]
    assert held.of_user(root).allows("admin:users")
    assert held.of_user(root).allows("access:servers", server="ada/")
    assert held.rights_of_user(root).roles == ("admin", "user")


def test_admin_does_not_enter_others_servers_without_admin_access(store, accounts):
    held = Roles(store, admin_access=False)
    root = accounts.ensure_user("root", admin=True)[0]
    assert not held.of_user(root).allows("access:servers", server="ada/")
    assert held.of_user(root).allows("access:servers", server="root/")
    assert held.of_user(root).allows("delete:servers", server="ada/")


def test_service_holds_nothing_unless_it_is_an_admin(held, store):
    assert not held.of_service(make_service(store, "plain")).raw
    assert held.of_service(make_service(store, "boss", admin=True)).allows("admin:users")


# -- load_roles ------------------------------------------------------------------------------


def test_role_reaches_users_groups_and_services(held, store, accounts, ada):
    bob = accounts.ensure_user("bob")[0]
    make_group(store, "club", bob)
    service = make_service(store, "grader")
    entry = {"name": "reading", "scopes": ["read:users"]}
    load(held, entry | {"users": ["ada"], "groups": ["club"], "services": ["grader"]})
    for scopes_held in (held.of_user(ada), held.of_user(bob), held.of_service(service)):
        assert scopes_held.allows("read:users", user="carl")
    assert held.rights_of_user(ada).roles == ("reading", "user")
    assert held.rights_of_user(bob).roles == ("user",)
    assert held.rights_of_user(bob).groups == ("club",)
    assert held.rights_of_service(service).roles == ("reading",)


def test_lists_are_the_whole_truth_at_each_start(held, accounts, ada):
    bob = accounts.ensure_user("bob")[0]
    load(held, {"name": "reading", "scopes": ["read:hub"], "users": ["ada"]})
    assert held.of_user(ada).allows("read:hub")
    load(held, {"name": "reading", "scopes": ["read:hub"], "users": ["bob"]})
    assert not held.of_user(ada).allows("read:hub")
    assert held.of_user(bob).allows("read:hub")
    load(held)
    assert not held.of_user(bob).allows("read:hub")
    assert {role.name for role in models.Role.select()} == set(scopes.DEFAULT_ROLES)


def test_default_role_can_be_given_other_scopes(held, ada):
    load(held, {"name": "user", "scopes": ["self", "read:hub"]})
    assert held.of_user(ada).allows("read:hub") and held.of_user(ada).allows("servers", user="ada")
    load(held, {"name": "user", "scopes": []})
    assert not held.of_user(ada).raw


def test_admins_listed_in_a_role_are_the_admins(held, accounts, ada):
    accounts.ensure_user("root", admin=True)
    load(held, {"name": "admin", "users": ["ada"]})
    assert accounts.user("ada").admin and not accounts.user("root").admin
    load(held, {"name": "admin", "description": "The staff"})
    assert accounts.user("ada").admin


def test_group_can_hold_the_role_admin(store, accounts, ada):
    held = Roles(store, admin_access=False)
    make_group(store, "staff", ada)
    load(held, {"name": "admin", "groups": ["staff"]})
    assert held.of_user(ada).allows("admin:users")
    assert not held.of_user(ada).allows("access:servers", server="bob/")


def test_shorthand_filters_mean_who_holds_the_role(held, store, ada):
    service = make_service(store, "grader")
    entry = {"name": "own", "scopes": ["tokens!user", "read:services!service"]}
    load(held, entry | {"users": ["ada"], "services": ["grader"]})
    assert held.of_user(ada).allows("tokens", user="ada")
    assert held.of_service(service).raw == {
        "read:services!service=grader",
        "read:services:name!service=grader",
    }


def test_custom_scope_can_be_given(held, ada, custom):
    load(held, {"name": "grading", "scopes": ["custom:grades"], "users": ["ada"]})
    assert held.of_user(ada).allows("custom:grades")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("reading", "a role is a mapping"),
        ({"scopes": []}, "name must have"),
        ({"name": "Reading"}, "name must have"),
        ({"name": "reading", "scope": []}, "there is no key 'scope'"),
        ({"name": "reading", "scopes": "self"}, "scopes takes a list of texts"),
        ({"name": "reading", "scopes": ["read:user"]}, 'there is no scope "read:user"'),
        ({"name": "reading", "users": {"ada": 1}}, "users takes a list of texts"),
        ({"name": "reading", "description": 3}, "description takes a text"),
        ({"name": "admin", "scopes": ["self"]}, "role admin cannot be changed"),
    ],
)
def test_wrong_role_is_named(entry, words):
    with pytest.raises(ConfigError) as caught:
        roles.parse([entry])
    assert words in str(caught.value) and "JupyterHub.load_roles, role" in str(caught.value)


def test_all_problems_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        roles.parse([{"name": "twice"}, {"name": "twice"}, {"name": "X"}, {"name": "abc", "x": 1}])
    assert len(caught.value.problems) == 3


def test_unknown_service_is_an_error_that_changes_nothing(held, ada):
    load(held, {"name": "reading", "scopes": ["read:hub"], "users": ["ada"]})
    with pytest.raises(ConfigError, match="there is no service gone; services are declared in"):
        load(held, {"name": "reading", "scopes": ["read:hub"], "services": ["gone"]})
    assert held.of_user(ada).allows("read:hub")


# -- tokens ----------------------------------------------------------------------------------


def test_token_is_never_more_than_its_owner(held, accounts, ada):
    row, _secret = accounts.issue_token(user_id=ada.id, scopes=["admin:users", "read:users!user"])
    assert held.of_token(row).allows("read:users", user="ada")
    assert not held.of_token(row).has_any("admin:users")


def test_token_loses_what_its_owner_loses(held, accounts):
    root = accounts.ensure_user("root", admin=True)[0]
    row, _secret = accounts.issue_token(user_id=root.id, scopes=["list:users"])
    assert held.of_token(row).allows("list:users")
    accounts.ensure_user("root", admin=False)
    fresh = models.Token.get_by_id(row.id)
    assert not held.of_token(fresh).has_any("list:users")


def test_servers_token_is_for_that_server_alone(held, store, accounts, ada):
    with store.transaction():
        server = models.Server.create(user=ada, name="two")
    row, _secret = accounts.issue_token(
        user_id=ada.id, server_id=server.id, scopes=sorted(held.raw_scopes("server"))
    )
    mine = held.of_token(row)
    assert mine.allows("access:servers", server="ada/two")
    assert not mine.allows("access:servers", server="ada/")
    assert mine.allows("users:activity", user="ada")
    assert not mine.has_any("servers")


@pytest.mark.parametrize("kind", ["server", "service"])
def test_shorthand_in_an_oauth_token_means_the_client(held, store, accounts, kind):
    root = accounts.ensure_user("root", admin=True)[0]
    name = {"server": "root/two", "service": "grader"}[kind]
    client = OAuthProvider(accounts, token_lifetime_s=60).register_client(
        "client", secret="s", redirect_uri="/x", access=f"access:{kind}s!{kind}={name}",
        description="",
    )  # fmt: skip
    row, _secret = accounts.issue_token(
        user_id=root.id, oauth_client_id=client.id, scopes=[f"access:{kind}s!{kind}"]
    )
    identify = scopes.expand(scopes.IDENTIFY, "root")
    assert held.of_token(row).raw == {f"access:{kind}s!{kind}={name}", *identify}


def test_default_scopes_of_a_token_are_as_far_as_its_maker_holds_them(held, accounts, ada):
    root = accounts.ensure_user("root", admin=True)[0]
    everything, some = held.of_user(root), scopes.Scopes({"tokens", "read:users"})
    assert held.default_token_scopes(everything, ada) == ["inherit"]
    narrow = held.default_token_scopes(some, ada)
    assert "read:users!user=ada" in narrow and "tokens!user=ada" in narrow
    assert not any(scope.startswith("access:servers") for scope in narrow)


# -- shares ----------------------------------------------------------------------------------


def test_share_gives_that_one_server(held, store, accounts, ada):
    bob, carl = accounts.ensure_user("bob")[0], accounts.ensure_user("carl")[0]
    group = make_group(store, "club", carl)
    with store.transaction():
        server = models.Server.create(user=ada, name="two")
        for receiver in ({"user": bob}, {"group": group}):
            models.Share.create(server=server, scopes=["access:servers"], created="x", **receiver)
    for user in (bob, carl):
        assert held.of_user(user).allows("access:servers", server="ada/two")
        assert not held.of_user(user).allows("access:servers", server="ada/")
        assert not held.of_user(user).allows("delete:servers", server="ada/two")


def test_share_follows_its_owners_new_name(held, store, accounts, ada):
    bob = accounts.ensure_user("bob")[0]
    with store.transaction():
        server = models.Server.create(user=ada, name="")
        models.Share.create(server=server, user=bob, scopes=["access:servers"], created="x")
    assert held.of_user(bob).allows("access:servers", server="ada/")
    with store.transaction():
        models.User.update(name="anna").where(models.User.id == ada.id).execute()
    assert held.of_user(bob).allows("access:servers", server="anna/")
    assert not held.of_user(bob).allows("access:servers", server="ada/")


# -- remembering -----------------------------------------------------------------------------


def test_second_look_asks_no_database(held, ada, queries):
    held.of_user(ada)
    with queries() as seen:
        held.of_user(ada)
    assert seen == []


@pytest.mark.parametrize("write", ["group", "role", "share"])
def test_any_change_of_rights_shows_at_once(held, store, accounts, ada, write):
    load(held, {"name": "reading", "scopes": ["read:hub"], "groups": []})
    group = make_group(store, "club")
    bob = accounts.ensure_user("bob")[0]
    with store.transaction():
        server = models.Server.create(user=bob, name="")
    before = held.of_user(ada).raw
    with store.transaction():
        if write == "group":
            models.GroupMember.create(group=group, user=ada)
        elif write == "role":
            models.RoleMember.create(role=models.Role.get(name="reading"), user=ada)
        else:
            models.Share.create(server=server, user=ada, scopes=["access:servers"], created="x")
    after = held.rights_of_user(ada)
    assert after.scopes.raw != before or after.groups == ("club",)
