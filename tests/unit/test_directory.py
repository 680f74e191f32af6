"""Lists of users: what is found, in which order, with how many queries."""

import pytest

from minihub import directory, models
from minihub.directory import Wanted
from minihub.store import Store

CREATED = "2026-01-01T00:00:00.000000Z"


@pytest.fixture
def store(tmp_path):
    store = Store(f"{tmp_path}/hub.sqlite")
    store.open()
    yield store
    store.close()


@pytest.fixture
def people(store):
    """Users with ids far apart; a group, a role and a server for some."""
    with store.transaction():
        for number, name in ((1, "Ada"), (5, "bob"), (900, "carl_1"), (1000, "carlo1")):
            seen = CREATED if name in ("bob", "carlo1") else None
            models.User.create(
                id=number, name=name, admin=name == "Ada", created=CREATED, last_activity=seen
            )
        group = models.Group.create(name="club")
        role = models.Role.create(name="reading")
        for number in (1, 1000):
            models.GroupMember.create(group=group, user=number)
        models.RoleMember.create(role=role, user=5)
        models.RoleMember.create(role=role, group=group)
        models.Server.create(user=900, name="lab", user_options={"a": 1}, state={"pid": 1})


def found(store, wanted=Wanted(), sort="id", descending=False, offset=0, limit=10):  # noqa: B008
    rows = directory.users(
        store, wanted, sort=sort, descending=descending, offset=offset, limit=limit
    )
    return [row.name for row in rows]


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (Wanted(), ["Ada", "bob", "carl_1", "carlo1"]),
        (Wanted(only=[5, 1000]), ["bob", "carlo1"]),
        (Wanted(only=[]), []),
        (Wanted(without=[5]), ["Ada", "carl_1", "carlo1"]),
        (Wanted(without=[]), ["Ada", "bob", "carl_1", "carlo1"]),
        (Wanted(names=["bob"]), ["bob"]),
        (Wanted(groups=["club"]), ["Ada", "carlo1"]),
        (Wanted(names=["bob"], groups=["club"]), ["Ada", "bob", "carlo1"]),
        (Wanted(names=[], groups=[]), []),
        (Wanted(part="A"), ["Ada", "carl_1", "carlo1"]),
        (Wanted(part="l_1"), ["carl_1"]),
        (Wanted(part="%"), []),
        (Wanted(part="carl", only=[900], groups=["club"]), []),
    ],
)
def test_users_are_found(store, people, wanted, names):
    assert found(store, wanted) == names
    assert directory.count(store, wanted) == len(names)


@pytest.mark.parametrize(
    ("sort", "descending", "names"),
    [
        ("id", True, ["carlo1", "carl_1", "bob", "Ada"]),
        ("name", False, ["Ada", "bob", "carl_1", "carlo1"]),
        ("last_activity", False, ["Ada", "carl_1", "bob", "carlo1"]),
        ("last_activity", True, ["bob", "carlo1", "Ada", "carl_1"]),
    ],
)
def test_users_are_sorted_those_without_a_date_as_the_smallest(
    store, people, sort, descending, names
):
    assert found(store, sort=sort, descending=descending) == names
    pages = [found(store, sort=sort, descending=descending, offset=at, limit=2) for at in (0, 2, 4)]
    assert pages == [names[:2], names[2:], []]


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("A", ["Ada", "carl_1", "carlo1"]),
        ("ada", ["Ada"]),
        ("B", ["bob"]),
        ("l_1", ["carl_1"]),
        ("1", ["carl_1", "carlo1"]),
        ("carlo1", ["carlo1"]),
        ("ob\nca", []),
        ("%", []),
        ("zz", []),
    ],
)
def test_part_of_a_name_is_found_in_memory_as_in_the_database(store, people, part, names):
    narrowed = directory.Names(store).narrow(Wanted(part=part))
    assert narrowed.part == "" and found(store, narrowed) == names
    assert found(store, Wanted(part=part)) == names


def test_names_in_memory_follow_the_users(store, people, monkeypatch):
    memory = directory.Names(store)

    def search(part, **more):
        return found(store, memory.narrow(Wanted(part=part, **more)))

    assert search("carl") == ["carl_1", "carlo1"]
    assert search("carl", only=[900]) == ["carl_1"]
    with store.transaction():
        models.User.create(name="carla", created=CREATED)
    assert search("carl") == ["carl_1", "carlo1", "carla"]
    with store.transaction():
        models.User.delete().where(models.User.name == "carl_1").execute()
        models.User.update(name="dora").where(models.User.name == "carla").execute()
    memory.forget()
    assert search("carl") == ["carlo1"] and search("dora") == ["dora"]
    monkeypatch.setattr(memory, "MOST", 1)
    assert memory.narrow(Wanted(part="o")).part == "o" and search("o") == ["bob", "carlo1", "dora"]


def test_nobody_is_found_where_nobody_is(store):
    assert found(store, directory.Names(store).narrow(Wanted(part="a"))) == []


def test_what_hangs_on_users_is_found_for_them_alone(store, people):
    for ids in ([1, 5], [1, 1000], [900], []):
        assert set(directory.groups_of(store, ids)) == {1, 1000} & set(ids)
        assert set(directory.roles_of(store, ids)) == {5} & set(ids)
        assert set(directory.servers_of(store, ids)) == {900} & set(ids)
    [server] = directory.servers_of(store, [900])[900]
    assert (server.name, server.user_options, server.state) == ("lab", {"a": 1}, {"pid": 1})


def test_facts_are_plain_values(store, people):
    first = directory.users(store, Wanted(), sort="id", descending=False, offset=0, limit=1)[0]
    assert first == (1, "Ada", True, CREATED, None)


@pytest.mark.parametrize("size", [10, 200])
def test_queries_do_not_grow_with_the_list(store, queries, size):
    with store.transaction():
        group = models.Group.create(name="club")
        for number in range(size):
            user = models.User.create(name=f"u{number}", created=CREATED)
            models.GroupMember.create(group=group, user=user)
            models.Server.create(user=user, name="")
    with queries() as seen:
        rows = directory.users(store, Wanted(), sort="id", descending=False, offset=0, limit=size)
        ids = [row.id for row in rows]
        assert len(directory.groups_of(store, ids)) == size
        assert directory.roles_of(store, ids) == {}
        assert len(directory.servers_of(store, ids)) == size
    assert len(seen) == 4


def test_sorting_by_id_or_activity_uses_an_index(store):
    for sort in ("id", "name", "last_activity"):
        for descending in (False, True):
            order = directory.order_of(sort, descending)
            sql, values = models.User.select(models.User.id).order_by(*order).limit(9).sql()
            with store.session() as db:
                plan = db.execute_sql(f"EXPLAIN QUERY PLAN {sql}", values).fetchall()
            assert not any("TEMP B-TREE FOR ORDER" in str(step) for step in plan), (sort, plan)
