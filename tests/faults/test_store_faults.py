"""Whatever happens to the database file ends in a clear message, and nothing is lost."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import ROOT, until

from minihub import models, sqlitefiles
from minihub import store as stores
from minihub.errors import SchemaError, StoreError
from minihub.store import Store

PROGRAM = [sys.executable, str(ROOT / "minihub" / "__main__.py")]


def fill(directory: Path) -> Path:
    """Leave no byte free; return the file that takes them all."""
    ballast = directory / "ballast"
    with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    return ballast


def write_users(path: Path, *names: str) -> None:
    """Make a database of ours with these users."""
    store = Store(str(path))
    store.open()
    with store.transaction():
        for name in names:
            models.User.create(name=name, created="2026-01-01T00:00:00.000000Z")
    store.close()


def users_of(path: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return {name for (name,) in db.execute("SELECT name FROM users")}


def make_token(browser):
    form = {"_xsrf": browser.xsrf("/hub/token"), "note": "x", "expires_in": "", "scopes": ""}
    return browser.post("/hub/token", data=form)


def start_of(directory: Path, *args: str) -> tuple[int, str]:
    """Start a hub that is not going to; return its exit code and what it said."""
    done = subprocess.run(
        [*PROGRAM, "--ip=127.0.0.1", "--port=0", "--JupyterHub.hub_port=0", *args],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    told = done.stdout + done.stderr
    assert "Traceback" not in told and "internal error" not in told, told
    return done.returncode, told


# -- a full disk -----------------------------------------------------------------------------


@pytest.mark.root
def test_full_disk_refuses_writes_says_so_and_goes_on_when_there_is_room(start_hub, small_disk):
    path = small_disk / "hub.sqlite"
    hub = start_hub({"JupyterHub": {"db_url": f"sqlite:///{path}"}})
    browser = hub.browser("ada")
    assert make_token(browser).status_code == 200
    ballast = fill(small_disk)
    until(lambda: make_token(browser).status_code == 503)
    assert "Nothing that was saved is lost" in make_token(browser).text
    assert "the disk is full (0 MB free on " in hub.text and str(small_disk) in hub.text
    assert browser.get("/hub/home").status_code == 200  # reading goes on
    browser.get("/hub/spawn/ada")  # a start fails, and says why
    until(lambda: "cannot use its database" in browser.get("/hub/spawn-pending/ada").text)
    ballast.unlink()
    assert make_token(browser).status_code == 200
    browser.start_server("ada")
    assert hub.stop() == 0 and "Traceback" not in hub.text, hub.text
    assert sqlitefiles.problems(path) == "" and {"ada", "root-admin"} <= users_of(path)


@pytest.mark.root
def test_server_that_stops_on_a_full_disk_leaves_no_row_or_token(start_hub, small_disk):
    path = small_disk / "hub.sqlite"
    hub = start_hub({"JupyterHub": {"db_url": f"sqlite:///{path}"}})
    browser = hub.browser("ada")
    browser.start_server("ada")
    secret = browser.xsrf("/hub/home")
    ballast = fill(small_disk)
    until(lambda: make_token(browser).status_code == 503)
    browser.post("/hub/stop/ada", data={"_xsrf": secret})
    hub.wait_text("Stopping ada/, its rows: ")
    until(lambda: browser.get("/hub/spawn-pending/ada").status_code != 302)
    ballast.unlink()

    def tidy():
        with contextlib.closing(sqlite3.connect(path)) as db:
            running = db.execute("SELECT 1 FROM servers WHERE target IS NOT NULL").fetchall()
            tokens = db.execute("SELECT 1 FROM api_tokens WHERE server_id IS NOT NULL").fetchall()
        return not running and not tokens

    until(tidy)
    assert hub.stop() == 0 and "Traceback" not in hub.text, hub.text


@pytest.mark.root
def test_hub_does_not_start_on_a_full_disk_and_says_so(small_disk):
    fill(small_disk)
    code, told = start_of(small_disk)
    assert code in (1, 3) and "No space left on device" in told
    code, told = start_of(small_disk.parent, f"--db=sqlite:///{small_disk}/new.sqlite")
    assert code == 1 and "the disk is full" in told


# -- read-only, locked, damaged ----------------------------------------------------------------


@pytest.mark.root
def test_file_on_a_read_only_file_system_is_named(small_disk):
    path = small_disk / "hub.sqlite"
    write_users(path, "ada")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    code, told = start_of(small_disk.parent, f"--db=sqlite:///{path}")
    assert code == 1 and f"{path} cannot be opened: Read-only file system" in told
    code, told = start_of(small_disk)
    assert code == 3 and "JupyterHub.state_dir" in told and "Read-only file system" in told


def test_program_that_holds_the_file_is_named(tmp_path):
    path = tmp_path / "hub.sqlite"
    write_users(path, "ada")
    holding = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "db.execute('BEGIN EXCLUSIVE'); print(flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", holding, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        other.stdout.readline()
        began = time.monotonic()
        code, told = start_of(tmp_path, f"--db={path}")
        assert code == 1 and "another program holds it locked (python" in told
        assert f"(process {other.pid})" in told and time.monotonic() - began < 30
    finally:
        other.communicate()
    assert users_of(path) == {"ada"}


DAMAGE = {
    "text": lambda path: path.write_text("not a database at all\n" * 500),
    "cut": lambda path: os.truncate(path, 4096 * 3 + 100),
    "pages": lambda path: overwrite(path, 4096, b"\xa5" * 4096 * 6),
    "head": lambda path: overwrite(path, 0, b"\0" * 100),
}


def overwrite(path: Path, where: int, raw: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(where)
        file.write(raw)


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_file_is_left_as_it_is_with_the_way_out(tmp_path, kind):
    path = tmp_path / "hub.sqlite"
    write_users(path, *(f"user{n}" for n in range(200)))
    DAMAGE[kind](path)
    before = path.read_bytes()
    code, told = start_of(tmp_path, f"--db={path}")
    assert code == 1 and "damaged" in told and "minihub.pyz restore FILE" in told, told
    assert path.read_bytes() == before


def test_file_that_is_damaged_while_the_hub_runs_is_reported(start_hub):
    hub = start_hub()
    browser = hub.browser("ada")
    path = hub.directory / "jupyterhub.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    overwrite(path, 4096, b"\xa5" * (path.stat().st_size - 4096))
    other = hub.browser()
    answers = [make(browser, other) for make in (lambda b, o: o.login("eve"),) for _ in range(3)]
    assert {answer.status_code for answer in answers} <= {302, 503}
    hub.wait_text("the file is damaged")
    assert "Traceback" not in hub.text, hub.text


# -- another program's, another version --------------------------------------------------------


@pytest.mark.parametrize("newer", [1, 7])
def test_newer_schema_is_left_alone_with_exit_code_5(tmp_path, newer):
    path = tmp_path / "hub.sqlite"
    write_users(path, "ada")
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(
            "UPDATE minihub_meta SET value = value + ? WHERE key = 'schema_version'", (newer,)
        )
        db.commit()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = path.read_bytes()
    code, told = start_of(tmp_path, f"--db={path}")
    assert code == 5 and "written by a newer minihub" in told
    assert path.read_bytes() == before


def test_jupyterhubs_database_is_left_alone_with_the_command_that_helps(tmp_path):
    path = tmp_path / "jupyterhub.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE alembic_version (version_num TEXT)")
        db.commit()
    before = path.read_bytes()
    code, told = start_of(tmp_path)
    assert code == 5 and "minihub.pyz import-jupyterhub jupyterhub.sqlite" in told
    assert path.read_bytes() == before


# -- migrations --------------------------------------------------------------------------------


@pytest.fixture
def older(tmp_path, monkeypatch):
    """A database of one version before; returns its path."""
    path = tmp_path / "hub.sqlite"
    write_users(path, "ada", "ben")
    version = stores.SCHEMA_VERSION
    step = {version: lambda db: db.execute_sql("ALTER TABLE users ADD COLUMN colour TEXT")}
    monkeypatch.setattr(stores, "SCHEMA_VERSION", version + 1)
    monkeypatch.setattr(stores, "MIGRATIONS", step)
    return path


def files(path: Path) -> list[str]:
    return sorted(one.name for one in path.parent.glob("hub.sqlite*"))


def test_start_brings_an_older_schema_up_to_date_and_keeps_a_sound_copy(older):
    store = Store(str(older))
    store.open()
    store.close()
    copy = store.copied_to
    assert files(older) == ["hub.sqlite", copy.name]
    assert users_of(older) == users_of(copy) == {"ada", "ben"}
    assert sqlitefiles.problems(older) == sqlitefiles.problems(copy) == ""
    assert copy.stat().st_mode & 0o777 == 0o600


def raises(db):
    db.execute_sql("DELETE FROM users")
    raise peewee_error()


def peewee_error():
    import peewee

    return peewee.OperationalError("near nonsense")


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (lambda db: db.execute_sql("ALTER TABLE absent ADD COLUMN x"), "absent"),
        (raises, "near nonsense"),
        (lambda db: db.execute_sql("UPDATE users SET name = 'same'"), "UNIQUE"),
        (lambda db: dangle(db), "points at no users"),
    ],
    ids=["statement", "half-way", "constraint", "dangling"],
)
def test_migration_that_fails_is_only_tried_on_a_copy(older, monkeypatch, step, told):
    monkeypatch.setattr(stores, "MIGRATIONS", {stores.SCHEMA_VERSION - 1: step})
    before = older.read_bytes()
    store = Store(str(older))
    with pytest.raises(StoreError, match=told) as refused:
        store.open()
    store.close()
    assert "the database was not touched" in str(refused.value)
    assert older.read_bytes() == before and files(older) == ["hub.sqlite"]


def dangle(db):
    """Leave a row that points at nobody, as a step that forgets a table would."""
    db.execute_sql("CREATE TABLE half (id INTEGER, user_id INTEGER REFERENCES users (id))")
    db.execute_sql("PRAGMA defer_foreign_keys = 1")
    db.execute_sql("INSERT INTO half VALUES (1, 999)")
    db.execute_sql("DROP TABLE half")
    db.execute_sql("CREATE TABLE half (id INTEGER, user_id INTEGER)")
    db.execute_sql("INSERT INTO half VALUES (1, 999)")
    db.execute_sql("PRAGMA writable_schema = 1")
    db.execute_sql(
        "UPDATE sqlite_master SET sql = 'CREATE TABLE half (id INTEGER,"
        " user_id INTEGER REFERENCES users (id))' WHERE name = 'half'"
    )


def test_no_room_for_the_copy_leaves_the_older_schema(older, monkeypatch):
    def no_room(path, target, **kwargs):
        raise StoreError(f"{target} cannot be written: No space left on device")

    monkeypatch.setattr(sqlitefiles, "copy", no_room)
    before = older.read_bytes()
    store = Store(str(older))
    with pytest.raises(StoreError, match="No space left"):
        store.open()
    store.close()
    assert older.read_bytes() == before and files(older) == ["hub.sqlite"]


def test_mysql_is_not_brought_up_to_date_without_a_dump(tmp_path, monkeypatch):
    """What MySQL does to tables cannot be taken back."""
    store = Store("sqlite://")
    store.open()
    with store.transaction():
        models.Meta.update(value="0").where(models.Meta.key == "schema_version").execute()
    steps = dict.fromkeys(range(stores.SCHEMA_VERSION), lambda db: None)
    monkeypatch.setattr(stores, "MIGRATIONS", steps)
    monkeypatch.setattr(
        store.engine, "place", stores.dburl.parse("mysql+pymysql://hub@localhost/hub")
    )
    with pytest.raises(SchemaError, match="mysqldump --single-transaction hub > hub.sql"):
        store.open()
    store.open(dumped=True)
    with store.session():
        assert models.Meta.get_by_id("schema_version").value == str(stores.SCHEMA_VERSION)
    store.close()


# -- a network file system ---------------------------------------------------------------------


@pytest.mark.parametrize("kind, mode", [("nfs4", "delete"), ("ext4", "wal"), ("", "wal")])
def test_network_file_system_gets_no_write_ahead_log(tmp_path, monkeypatch, caplog, kind, mode):
    from minihub import machine

    place = machine.FileSystem("/net", kind)
    monkeypatch.setattr(machine, "file_system", lambda path: place)
    path = tmp_path / "hub.sqlite"
    store = Store(str(path))
    store.open()
    with store.session() as db:
        assert db.execute_sql("PRAGMA journal_mode").fetchone()[0] == mode
        assert db.execute_sql("PRAGMA synchronous").fetchone()[0] == 2
    store.close()
    assert ("network file system (nfs4)" in caplog.text) is (kind == "nfs4")


def test_file_that_had_a_write_ahead_log_loses_it_when_it_moves_to_a_network(tmp_path, monkeypatch):
    path = tmp_path / "hub.sqlite"
    write_users(path, "ada")
    monkeypatch.setattr(sqlitefiles, "network_file_system", lambda path: "cifs")
    store = Store(str(path))
    store.open()
    with store.session() as db:
        assert db.execute_sql("PRAGMA journal_mode").fetchone()[0] == "delete"
    store.close()
    assert users_of(path) == {"ada"} and files(path) == ["hub.sqlite"]


@pytest.mark.root
def test_kind_of_file_system_is_found_by_its_mount(small_disk):
    from minihub import machine

    assert machine.file_system(small_disk / "absent" / "x") == machine.FileSystem(
        str(small_disk), "tmpfs"
    )
    assert machine.file_system(Path("/")).mount == "/"
