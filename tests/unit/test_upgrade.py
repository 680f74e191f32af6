"""The schema brought up to date by hand: copied first, refused where it is not ours."""

import os
import re
import sqlite3
import stat
from contextlib import closing

import pytest

from minihub import cli, sqlitefiles, store, upgrade
from minihub.errors import SchemaError, StoreError
from minihub.models import Meta, User
from minihub.store import Store


@pytest.fixture
def path(tmp_path):
    """A database of this version with one user."""
    path = tmp_path / "hub.sqlite"
    database = Store(f"sqlite:///{path}")
    database.open()
    with database.transaction():
        User.create(name="ana", created="2026-01-01T00:00:00.000000Z")
    database.close()
    return path


def bring_up_to_date(path):
    """Return whether it changed, and the copy."""
    database = Store(f"sqlite:///{path}")
    try:
        return upgrade.bring_up_to_date(database, path)
    finally:
        database.close()


@pytest.fixture
def newer(monkeypatch):
    """A minihub whose schema is one version further and gives users a colour."""
    version = store.SCHEMA_VERSION
    step = {version: lambda db: db.execute_sql("ALTER TABLE users ADD COLUMN colour TEXT")}
    monkeypatch.setattr(store, "SCHEMA_VERSION", version + 1)
    monkeypatch.setattr(store, "MIGRATIONS", step)
    return version + 1


def columns(path):
    with closing(sqlite3.connect(path)) as database:
        return [row[1] for row in database.execute("PRAGMA table_info(users)")]


def test_version_is_read_from_the_file(path, tmp_path):
    assert upgrade.version_of(path) == store.SCHEMA_VERSION
    other = tmp_path / "other"
    other.write_text("no database at all")
    assert upgrade.version_of(other) is None
    assert upgrade.version_of(tmp_path / "absent") is None
    assert not (tmp_path / "absent").exists()


def test_version_is_read_through_a_connection_as_on_a_database_server(path, tmp_path):
    database = Store(f"sqlite:///{path}")
    assert upgrade.version_in(database) == store.SCHEMA_VERSION
    assert upgrade.bring_up_to_date(database, None) == (False, None)
    database.close()
    other = Store(f"sqlite:///{tmp_path}/other")
    assert upgrade.version_in(other) is None
    other.close()


def test_database_on_a_server_is_brought_up_to_date_without_a_copy(newer):
    database = Store("sqlite://")  # no file, as a server has none
    database.open()
    with database.transaction():
        Meta.update(value=str(newer - 1)).where(Meta.key == "schema_version").execute()
    assert upgrade.bring_up_to_date(database, None) == (True, None)
    assert upgrade.version_in(database) == newer
    database.close()


def test_nothing_to_do_does_nothing(path):
    assert bring_up_to_date(path) == (False, None)
    assert os.listdir(path.parent) == ["hub.sqlite"]


def test_older_schema_is_copied_and_brought_up_to_date(path, newer):
    changed, copy = bring_up_to_date(path)
    assert changed
    assert re.fullmatch(r"hub\.sqlite\.\d{4}-\d\d-\d\d-\d{6}", copy.name)
    assert copy.parent == path.parent
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert "colour" in columns(path) and "colour" not in columns(copy)
    assert upgrade.version_of(path) == newer
    assert upgrade.version_of(copy) == newer - 1
    assert bring_up_to_date(path) == (False, None)


def test_copy_holds_what_is_still_in_the_log(path, newer):
    """The write-ahead log of another program that has the file open is part of it."""
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("INSERT INTO users (name, admin, created) VALUES ('ben', 0, 'x')")
        writer.commit()
        copy = sqlitefiles.dated_copy(path)
    with closing(sqlite3.connect(copy)) as database:
        assert {name for (name,) in database.execute("SELECT name FROM users")} == {"ana", "ben"}


def test_step_that_fails_leaves_the_old_schema(path, newer, monkeypatch):
    monkeypatch.setattr(
        store, "MIGRATIONS", {newer - 1: lambda db: db.execute_sql("ALTER TABLE nothing")}
    )
    with pytest.raises(StoreError):
        bring_up_to_date(path)
    assert upgrade.version_of(path) == newer - 1
    assert "colour" not in columns(path)


def test_copy_does_not_replace_another(path, monkeypatch):
    first = sqlitefiles.dated_copy(path)
    monkeypatch.setattr(sqlitefiles.clock, "utcnow", lambda: _Moment(first.name.split(".")[-1]))
    with pytest.raises(StoreError, match="cannot be written: File exists"):
        sqlitefiles.dated_copy(path)


class _Moment(str):
    def __format__(self, _spec):
        return str(self)


def test_damaged_file_is_told_and_leaves_no_copy(path, tmp_path):
    path.write_bytes(path.read_bytes()[:4096] + b"\0" * 8192)
    with pytest.raises(StoreError, match="hub.sqlite"):
        sqlitefiles.dated_copy(path)
    assert os.listdir(tmp_path) == ["hub.sqlite"]


def test_newer_schema_is_refused_and_not_touched(path, monkeypatch):
    monkeypatch.setattr(store, "SCHEMA_VERSION", store.SCHEMA_VERSION - 1)
    before = path.read_bytes()
    with pytest.raises(SchemaError, match="newer minihub"):
        bring_up_to_date(path)
    assert path.read_bytes() == before


# -- the verbs --------------------------------------------------------------------------------


@pytest.fixture
def run(path, capsys, monkeypatch):
    monkeypatch.chdir(path.parent)

    def run(*arguments):
        code = cli.main([*arguments, "--db=hub.sqlite"])
        return (code, *capsys.readouterr())

    return run


def test_verb_tells_where_the_old_file_is(run, path, newer):
    code, out, err = run("upgrade-db")
    assert (code, err) == (0, "")
    assert out.startswith(f"hub.sqlite is up to date now (schema {newer}).\nAs it was before: ")
    assert os.path.exists(out.split()[-1])
    assert run("upgrade-db") == (0, f"hub.sqlite is up to date (schema {newer}).\n", "")


def test_other_verbs_change_no_schema(run, newer, path):
    code, out, err = run("user", "list")
    assert (code, out) == (5, "")
    assert "bring it up to date: minihub upgrade-db" in err
    assert upgrade.version_of(path) == newer - 1
