"""Users as a whole, with a hub that has no servers and an authenticator with a will of its own."""

from types import SimpleNamespace

import pytest

from minihub import models
from minihub.accounts import Accounts
from minihub.activity import Activity
from minihub.auth.simple import DummyAuthenticator
from minihub.directory import Names
from minihub.errors import BadRequest, ConfigError
from minihub.people import People, group_name_problem
from minihub.roles import parse
from minihub.spawner import UserInfo
from minihub.store import Store


class Picky(DummyAuthenticator):
    """Cannot have somebody called dora, and minds nobody's end."""

    def add_user(self, user):
        if user.name == "dora":
            raise OSError("no room for dora")
        super().add_user(user)

    def delete_user(self, user):
        raise OSError("what end?")


@pytest.fixture
def store(tmp_path):
    store = Store(f"{tmp_path}/hub.sqlite")
    store.open()
    yield store
    store.close()


@pytest.fixture
def people(store):
    hub = SimpleNamespace(
        store=store,
        accounts=Accounts(store, session_lifetime_s=10),
        authenticator=Picky(),
        activity=Activity(store),
        names=Names(store),
        info=SimpleNamespace(base_url="/"),
        servers_of=lambda user: {},
        forget_failures=lambda user_id: None,
        user_info=lambda user: UserInfo(user.name),
        person=lambda user: UserInfo(user.name),
        newcomer=lambda name, admin=False: UserInfo(name, admin=admin),
    )
    return People(hub)


def names(store):
    with store.session():
        return [
            name
            for (name,) in models.User.select(models.User.name).order_by(models.User.id).tuples()
        ]


def groups(store):
    with store.session():
        rows = models.GroupMember.select(models.Group.name, models.User.name)
        return set(rows.join_from(models.GroupMember, models.Group).join_from(
            models.GroupMember, models.User).tuples())  # fmt: skip


def test_only_new_users_are_made_and_returned(people, store):
    people.create(["Ada"])
    made = people.create(["ada", "bob", "BOB"], admin=True)
    assert [(user.name, user.admin) for user in made] == [("bob", True)]
    assert names(store) == ["ada", "bob"]
    assert not people.accounts.user("ada").admin


def test_one_who_cannot_be_had_keeps_all_from_being_made(people, store, caplog):
    with pytest.raises(BadRequest, match="Failed to create user dora: no room for dora"):
        people.create(["ada", "dora", "bob"])
    with pytest.raises(BadRequest, match="Invalid username: a/b"):
        people.create(["ada", "a/b"])
    assert names(store) == []


def test_deletion_goes_on_whatever_the_authenticator_says(people, store, caplog):
    [ada] = people.create(["ada"])
    people.delete(ada, why="test", timeout_s=0)
    assert names(store) == []
    assert "about the end of ada" in caplog.text


def test_oauth_clients_of_a_users_servers_go_with_the_name(people, store):
    ada, bob = people.create(["ada", "bob"])
    with store.transaction():
        for user in (ada, bob):
            client = models.OAuthClient.create(identifier=user.name, secret="x", redirect_uri="/")
            models.Server.create(user=user, name="", oauth_client=client)
    people.rename(ada, "anna")
    with store.session():
        assert [row.identifier for row in models.OAuthClient.select()] == ["bob"]
        assert models.Server.select().count() == 2
    people.delete(bob, why="test", timeout_s=0)
    with store.session():
        assert models.OAuthClient.select().count() == 0


def test_configured_groups_are_added_to(people, store):
    people.load_groups({"club": ["Ada", "bob"], "empty": {"users": [], "properties": {"a": 1}}})
    people.load_groups({"club": {"users": ["carl"]}})
    assert groups(store) == {("club", "ada"), ("club", "bob"), ("club", "carl")}
    with store.session():
        assert models.Group.get(name="empty").properties == {"a": 1}


def test_every_wrong_group_is_named(people):
    with pytest.raises(ConfigError) as caught:
        people.load_groups(
            {
                "a/b": [],
                "club": ["a/b"],
                "crew": {"members": []},
                "duo": {"properties": [1]},
                "team": {"users": 5},
            }
        )
    assert [problem.partition(": ")[0] for problem in caught.value.problems] == [
        f"JupyterHub.load_groups, group {name}" for name in ("a/b", "club", "crew", "duo", "team")
    ]


def test_members_of_roles_are_there_before_the_roles(people, store):
    specs = parse([{"name": "reading", "users": ["Ada"], "groups": ["crew"]}, {"name": "user"}])
    prepared = people.load_members(specs)
    assert prepared[0].users == ("ada",) and prepared[1].users is None
    assert names(store) == ["ada"] and people.find_groups(["crew"])[0].name == "crew"
    with pytest.raises(ConfigError, match="'a/b' is no valid user name"):
        people.load_members(parse([{"name": "reading", "users": ["a/b"]}]))


@pytest.mark.parametrize("name", ["", " ", "a/b", "a\nb", "x" * 256, 3, None])
def test_impossible_group_names(name):
    assert group_name_problem(name)


@pytest.mark.parametrize("name", ["club", "A b", "ü@x~", "x" * 255])
def test_possible_group_names(name):
    assert not group_name_problem(name)
