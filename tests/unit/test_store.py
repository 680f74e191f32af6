"""The database file: made private, checked, never taken from another program."""

import contextlib
import os
import sqlite3
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from minihub import models
from minihub.errors import ConfigError, SchemaError, StoreError
from minihub.store import SCHEMA_VERSION, Cache, Store


@pytest.fixture
def store(tmp_path):
    store = Store(f"sqlite:///{tmp_path}/hub.sqlite", {"connect_args": {"timeout": 0.2}})
    store.open()
    yield store
    store.close()


def add_user(name):
    return models.User.create(name=name, created="2026-01-01T00:00:00.000000Z")


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///jupyterhub.sqlite", "jupyterhub.sqlite"),
        ("sqlite:////srv/hub.sqlite", "/srv/hub.sqlite"),
        ("hub.sqlite", "hub.sqlite"),
        ("/srv/hub.sqlite", "/srv/hub.sqlite"),
        ("sqlite://", None),
        ("sqlite:///:memory:", None),
    ],
)
def test_db_url_names_a_file(url, path):
    found = Store(url).path
    assert (str(found) if found else None) == path


def test_unknown_database_is_a_configuration_error():
    with pytest.raises(ConfigError, match="JupyterHub.db_url: oracle"):
        Store("oracle://x")


def test_new_file_is_private_under_any_umask(tmp_path):
    old = os.umask(0)
    try:
        store = Store(f"{tmp_path}/open.sqlite")
        store.open()
        with store.transaction():
            add_user("ada")
        modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("open.sqlite*")}
    finally:
        os.umask(old)
    store.close()
    assert modes == {0o600}


def test_reopened_file_keeps_its_rows(store):
    with store.transaction():
        add_user("ada")
    store.close()
    again = Store(str(store.path))
    again.open()
    with again.session():
        assert [user.name for user in models.User.select()] == ["ada"]
    again.close()


def test_sqlite_runs_in_wal_mode_with_foreign_keys(store):
    with store.session() as db:
        assert db.execute_sql("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert db.execute_sql("PRAGMA foreign_keys").fetchone()[0] == 1


def test_deleting_a_user_deletes_what_hangs_on_it(store):
    with store.transaction():
        user = add_user("ada")
        models.Server.create(user=user, name="")
        user.delete_instance()
        assert models.Server.select().count() == 0


def test_failed_transaction_leaves_nothing(store):
    with pytest.raises(RuntimeError), store.transaction():
        add_user("ada")
        raise RuntimeError
    with store.session():
        assert models.User.select().count() == 0


def test_nested_transaction_joins_the_outer_one(store):
    with pytest.raises(RuntimeError), store.transaction():
        with store.transaction():
            add_user("ada")
        raise RuntimeError
    with store.session():
        assert models.User.select().count() == 0


def test_threads_share_the_connections_that_nobody_uses(store):
    def connection():
        with store.session() as db, store.session():
            return db.connection()

    def elsewhere():
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(connection).result()

    assert connection() is elsewhere()
    with store.session() as db:
        used = db.connection()
        other = elsewhere()
        assert other is not used
    assert elsewhere() is used  # the one used last
    store.close()
    for one in (used, other):
        with pytest.raises(sqlite3.ProgrammingError):
            one.execute("SELECT 1")


@pytest.mark.parametrize("where", ["file", "memory"])
def test_writers_in_many_threads_lose_nothing(where, tmp_path):
    store = Store(f"{tmp_path}/many.sqlite" if where == "file" else "sqlite://")
    store.open()
    failures = []

    def work(number):
        try:
            for index in range(10):
                with store.transaction():
                    add_user(f"u{number}-{index}")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with store.session():
        assert models.User.select().count() == 80
    store.close()


def test_jupyterhubs_own_database_is_refused_untouched(tmp_path):
    path = tmp_path / "jupyterhub.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE alembic_version (version_num TEXT)")
        db.execute("CREATE TABLE users (id INTEGER, name TEXT)")
    db.close()
    before = path.read_bytes()
    store = Store(str(path))
    with pytest.raises(SchemaError, match="is a JupyterHub database; it was not touched"):
        store.open()
    store.close()
    with sqlite3.connect(path) as db:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    db.close()
    assert tables == {"alembic_version", "users"}
    assert path.read_bytes()[100:] == before[100:]


def test_foreign_database_is_refused(tmp_path):
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE something (x)")
    db.close()
    store = Store(str(path))
    with pytest.raises(SchemaError, match="belongs to another program"):
        store.open()
    store.close()


def test_newer_schema_is_refused(store):
    with store.transaction():
        models.Meta.update(value=str(SCHEMA_VERSION + 1)).where(
            models.Meta.key == "schema_version"
        ).execute()
    store.close()
    with pytest.raises(SchemaError, match="written by a newer minihub"):
        store.open()


def test_file_that_is_no_database_is_a_clear_error(tmp_path):
    path = tmp_path / "text.sqlite"
    path.write_text("this is not a database, " * 100)
    store = Store(str(path))
    with pytest.raises(StoreError, match="text.sqlite cannot be opened"):
        store.open()
    store.close()


def test_directory_that_is_missing_is_a_clear_error(tmp_path):
    store = Store(f"{tmp_path}/absent/hub.sqlite")
    with pytest.raises(StoreError, match="absent/hub.sqlite cannot be opened"):
        store.open()


def test_lock_of_another_program_ends_in_an_error_not_in_a_hang(store):
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"), store.transaction():
        add_user("ada")
    other.execute("ROLLBACK")
    other.close()


# -- remembering -----------------------------------------------------------------------------


def test_write_moves_the_generation_on_unless_it_touches_no_rights(store):
    start = store.generation
    with store.transaction(touches_rights=False):
        add_user("ada")
    assert store.generation == start
    with store.transaction():
        add_user("bob")
        assert store.generation == start  # nobody else sees bob yet
    assert store.generation == start + 1
    with pytest.raises(RuntimeError), store.transaction():
        raise RuntimeError
    assert store.generation == start + 1


def test_inner_write_speaks_for_the_outer_one(store):
    start = store.generation
    with store.transaction(touches_rights=False), store.transaction():
        add_user("ada")
    assert store.generation == start + 1
    with store.transaction(), store.transaction(touches_rights=False):
        add_user("bob")
    assert store.generation == start + 2


def test_cache_keeps_what_it_read_until_a_write(store):
    cache, reads = Cache(store, 10), []

    def read():
        reads.append(1)
        return len(reads)

    assert [cache.get("a", read) for _ in range(3)] == [1, 1, 1]
    with store.transaction():
        add_user("ada")
    assert [cache.get("a", read) for _ in range(3)] == [2, 2, 2]
    assert [cache.get("b", lambda: None) for _ in range(2)] == [None, None]


def test_cache_does_not_keep_what_a_write_overtook(store):
    cache = Cache(store, 10)

    def read_while_somebody_writes():
        with store.transaction():
            add_user("ada")
        return "read before"

    assert cache.get("a", read_while_somebody_writes) == "read before"
    assert cache.get("a", lambda: "read after") == "read after"


def test_cache_is_bounded(store):
    cache = Cache(store, 3)
    for number in range(10):
        assert cache.get(number, lambda number=number: number + 1) == number + 1
        assert len(cache._entries) <= 3


def test_reset_deletes_everything_and_makes_it_anew(tmp_path):
    store = Store(f"{tmp_path}/hub.sqlite")
    store.open()
    with store.transaction():
        models.User.create(name="ada", created="x")
    store.close()
    again = Store(f"{tmp_path}/hub.sqlite")
    again.open(reset=True)
    with again.session():
        assert models.User.select().count() == 0
        assert models.Meta.get_by_id("schema_version").value == str(SCHEMA_VERSION)
    again.close()


@pytest.mark.parametrize("table", ["alembic_version", "somebody_elses"])
def test_reset_does_not_touch_what_is_not_ours(tmp_path, table):
    path = tmp_path / "other.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"CREATE TABLE {table} (x)")
        db.commit()
    before = path.read_bytes()
    store = Store(str(path))
    with pytest.raises(SchemaError):
        store.open(reset=True)
    store.close()
    assert path.read_bytes() == before


def test_schema_that_was_left_half_made_is_made_again(tmp_path):
    """Where tables are not made in one transaction, a hub may be killed between them."""
    store = Store(f"{tmp_path}/hub.sqlite")
    store.open()
    with store.transaction():
        models.Meta.delete().where(models.Meta.key == "schema_version").execute()
        store.db.drop_tables([models.ShareCode])
    store.close()
    again = Store(f"{tmp_path}/hub.sqlite")
    again.open()
    with again.session():
        assert models.ShareCode.select().count() == 0
    again.close()


def test_wrong_arguments_are_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match="JupyterHub.db_kwargs.*nonsense"):
        Store(f"{tmp_path}/hub.sqlite", {"nonsense": 1})
