"""Every step of the schema, from databases as they were written then.

``schemas/schema-N.sql`` is the dump of a file that the program of that schema made, with something
in most tables. A step that is released is never changed again, and neither are these.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from databases import MariaDB, Postgres, Server
from harness import ROOT

from minihub import models, sqlitefiles
from minihub import store as stores
from minihub.accounts import Accounts
from minihub.errors import SchemaError
from minihub.store import Store

SCHEMAS = Path(__file__).with_name("schemas")
PROGRAM = [sys.executable, str(ROOT / "minihub" / "__main__.py")]
#: What each schema brought with it.
BROUGHT = {
    2: (models.AuditEntry, models.Announcement),
    3: (models.ClassCode, models.Credential, models.SignupRequest),
    4: (models.SessionPlace,),
}
SECRET = "abcdef0123456789" * 4


def old_file(directory: Path, version: int) -> Path:
    path = directory / "jupyterhub.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript((SCHEMAS / f"schema-{version}.sql").read_text())
        db.execute("PRAGMA journal_mode = WAL")
    path.chmod(0o600)
    return path


def shape(path: Path) -> set[tuple[str, str, str]]:
    """Return all tables and indexes as they are declared."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        rows = db.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        return {(kind, name, re.sub(r"\s+", " ", sql)) for kind, name, sql in rows}


def content(path: Path) -> dict[str, list[tuple]]:
    """Return every row of every table but the facts of the database itself."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        names = [
            name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")
        ]
        return {
            name: sorted(db.execute(f"SELECT * FROM {name}").fetchall(), key=repr)
            for name in names
            if name != "minihub_meta"
        }


def test_there_is_a_dump_of_every_older_schema():
    versions = {int(path.stem.rpartition("-")[2]) for path in SCHEMAS.glob("schema-*.sql")}
    assert versions == set(stores.MIGRATIONS) == set(range(1, stores.SCHEMA_VERSION))
    assert {step + 1 for step in stores.MIGRATIONS} == set(BROUGHT)


@pytest.mark.parametrize("version", sorted(stores.MIGRATIONS))
def test_old_file_becomes_what_a_new_one_is_and_loses_nothing(tmp_path, version):
    path = old_file(tmp_path, version)
    before = content(path)
    assert any(len(rows) for rows in before.values())
    store = Store(str(path))
    store.open()
    accounts = Accounts(store, session_lifetime_s=0)
    assert accounts.user("ada").admin and not accounts.user("ben").admin
    token = accounts.find_token(SECRET)
    assert token is not None and token.note == "mine"
    with store.transaction():  # the new tables can be used
        for table in BROUGHT[stores.SCHEMA_VERSION]:
            assert list(table.select()) == []
        models.Announcement.create(text="x", created="2026-01-01", created_by="ada")
        models.Announcement.delete().where(models.Announcement.text == "x").execute()
    store.close()
    fresh = tmp_path / "fresh.sqlite"
    new = Store(str(fresh))
    new.open()
    new.close()
    assert shape(path) == shape(fresh)
    after = content(path)
    assert {name: rows for name, rows in after.items() if name in before} == before
    assert all(rows == [] for name, rows in after.items() if name not in before)
    assert sqlitefiles.problems(path) == ""
    kept = store.copied_to
    assert kept is not None and content(kept) == before and sqlitefiles.problems(kept) == ""
    with contextlib.closing(sqlite3.connect(kept)) as db:
        ((old,),) = db.execute("SELECT value FROM minihub_meta WHERE key = 'schema_version'")
    assert old == str(version)


@pytest.mark.parametrize("version", sorted(stores.MIGRATIONS))
def test_hub_starts_on_an_old_file(tmp_path, start_hub, version):
    directory = tmp_path / "hub0"
    directory.mkdir()
    path = old_file(directory, version)
    hub = start_hub(directory=directory)
    assert f"from schema {version} to {stores.SCHEMA_VERSION}" in hub.text
    assert {name for (name,) in hub.rows("SELECT name FROM users")} >= {"ada", "ben"}
    hub.browser("ben").start_server("ben")
    assert hub.stop() == 0 and "Traceback" not in hub.text, hub.text
    assert sqlitefiles.problems(path) == ""


@pytest.mark.parametrize("version", sorted(stores.MIGRATIONS))
def test_old_file_waits_for_the_command_where_that_is_configured(tmp_path, version):
    path = old_file(tmp_path, version)
    before = content(path)
    words = ["--JupyterHub.upgrade_db=false", "--ip=127.0.0.1", "--port=0"]

    def run(*args):
        return subprocess.run(
            [*PROGRAM, *args], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )

    refused = run(*words, "--JupyterHub.hub_port=0")
    assert refused.returncode == 5 and "minihub upgrade-db" in refused.stderr
    assert content(path) == before
    done = run("upgrade-db")
    assert done.returncode == 0 and "is up to date now" in done.stdout, done.stderr
    assert set(content(path)) - set(before) == {
        table._meta.table_name
        for later in range(version + 1, stores.SCHEMA_VERSION + 1)
        for table in BROUGHT[later]
    }


# -- servers -------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[Postgres, MariaDB], ids=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    one = request.param()
    yield one
    one.stop()


def make_old(server: Server, version: int) -> None:
    """Make a database of an older schema on a server: that of today, without what came later."""
    store = Store(server.url)
    store.open(reset=True)
    with store.transaction():
        ada = models.User.create(name="ada", admin=True, created="2026-01-01T00:00:00.000000Z")
        models.Group.create(name="physics", properties={"room": 7})
        models.Session.create(user=ada, hashed="f" * 64, created="2026-01-01T00:00:00.000000Z")
        models.Meta.update(value=str(version)).where(models.Meta.key == "schema_version").execute()
    with store.session() as db:
        for later in range(version + 1, stores.SCHEMA_VERSION + 1):
            for table in reversed(BROUGHT[later]):
                if table is models.ClassCode:
                    continue  # credentials point at it
                db.drop_tables([table])
        if version < 3:
            db.drop_tables([models.ClassCode])
    store.close()


def tables(server: Server) -> set[str]:
    store = Store(server.url)
    try:
        return store.engine.tables()
    finally:
        store.close()


@pytest.mark.parametrize("version", sorted(stores.MIGRATIONS))
def test_old_database_on_a_server_is_brought_up_to_date(server, version):
    make_old(server, version)
    new = {
        table._meta.table_name
        for later in range(version + 1, stores.SCHEMA_VERSION + 1)
        for table in BROUGHT[later]
    }
    assert not new & tables(server)
    is_mysql = isinstance(server, MariaDB)
    if is_mysql:  # it cannot take such changes back
        store = Store(server.url)
        with pytest.raises(SchemaError, match="upgrade-db --dumped"):
            store.open()
        store.close()
        assert not new & tables(server)
    store = Store(server.url)
    store.open(dumped=is_mysql)
    with store.session():
        assert [row.name for row in models.User.select()] == ["ada"]
        assert models.Group.get().properties == {"room": 7}
        assert models.Session.select().count() == 1
        assert models.Meta.get_by_id("schema_version").value == str(stores.SCHEMA_VERSION)
    with store.transaction():
        ada = models.User.get()
        models.Credential.create(user=ada, hashed="x", changed="2026-01-01T00:00:00.000000Z")
    with store.transaction():
        models.User.delete().execute()  # what points at somebody goes with them
        assert models.Credential.select().count() == 0
    store.close()
    assert new <= tables(server)


def test_step_that_fails_on_postgresql_changes_nothing(server, monkeypatch):
    if isinstance(server, MariaDB):
        pytest.skip("MariaDB cannot take changes of a schema back, and asks for a dump instead")
    make_old(server, 1)
    before = tables(server)

    def fails(db):
        db.execute_sql("CREATE TABLE half_done (id INTEGER)")
        db.execute_sql("ALTER TABLE absent ADD COLUMN x INTEGER")

    monkeypatch.setattr(stores, "MIGRATIONS", stores.MIGRATIONS | {2: fails})
    store = Store(server.url)
    with pytest.raises(stores.StoreError):
        store.open()
    store.close()
    assert tables(server) == before
    monkeypatch.undo()
    store = Store(server.url)
    store.open()
    store.close()
    assert "class_codes" in tables(server)
