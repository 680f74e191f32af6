"""Statements that are made once and filled each time."""

import pytest

from minihub.models import Server, User
from minihub.prepared import Prepared, slot
from minihub.store import Store

BY_NAME = Prepared(lambda: User.select().where(User.name == slot("name")))
RENAME = Prepared(lambda: User.update(name=slot("new")).where(User.name == slot("name")))
OPTIONS = Prepared(lambda: Server.select().where(Server.user == slot("user")))
NAMES = Prepared(lambda: User.select(User.name).where(User.admin == slot("admin")))


@pytest.fixture
def store(tmp_path):
    store = Store(f"{tmp_path}/hub.sqlite")
    store.open()
    with store.transaction():
        ada = User.create(name="ada", admin=True, created="2026")
        Server.create(user=ada, name="lab", user_options={"size": [1]})
    yield store
    store.close()


def test_rows_are_as_the_query_builder_returns_them(store):
    with store.session():
        found, usual = BY_NAME.row(name="ada"), User.get(User.name == "ada")
        assert found == usual and found.__data__ == usual.__data__
        assert found.admin is True and not found.is_dirty()
        (server,) = OPTIONS.rows(user=found.id)
        assert server.user_options == {"size": [1]} and server.user == found
        assert BY_NAME.row(name="ben") is None and BY_NAME.rows(name="' OR 1=1 --") == []


def test_each_filling_has_its_own_values(store):
    with store.transaction():
        assert RENAME.run(name="ada", new="ben") == 1
        assert RENAME.run(name="ada", new="cid") == 0
        assert NAMES.tuples(admin=True) == [("ben",)]


def test_another_database_has_its_own_text(store, tmp_path):
    with store.session():
        assert BY_NAME.row(name="ada") is not None
    other = Store(f"{tmp_path}/other.sqlite")
    other.open()
    with other.session():
        assert BY_NAME.row(name="ada") is None
    other.close()


def test_value_that_is_not_given_is_an_error(store):
    with store.session(), pytest.raises(KeyError):
        BY_NAME.row()
