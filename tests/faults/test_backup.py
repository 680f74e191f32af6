"""Backups are made while the hub runs, come back whole, and never harm what is there."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest
from harness import ROOT, until

from minihub import archive, cli, models, sqlitefiles
from minihub import store as stores
from minihub.store import Store

PROGRAM = [sys.executable, str(ROOT / "minihub" / "__main__.py")]
TOKEN = "0123456789abcdef" * 4
PASSWORD = "the-password-of-the-owner-is-so-long"


def minihub(directory: Path, *args: str, program: list[str] | None = None) -> tuple[int, str]:
    """Run a command to its end; return (exit code, all it said)."""
    done = subprocess.run(
        [*(program or PROGRAM), *args],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    told = done.stdout.decode(errors="replace") + done.stderr.decode()
    assert "Traceback" not in told and "internal error" not in told, told
    return done.returncode, told


@pytest.fixture
def home(tmp_path):
    """The directory of a hub with users ada and ben, a configuration and a secret."""
    place = tmp_path / "home"
    place.mkdir()
    (place / "minihub.yaml").write_text(
        "JupyterHub: {authenticator_class: shared-password}\n"
        f"SharedPasswordAuthenticator: {{user_password: classroom, admin_password: {PASSWORD}}}\n"
        "Authenticator: {allow_all: true}\n"
    )
    (place / "jupyterhub_cookie_secret").write_text("c0ffee" * 10 + "beef\n")
    (place / "jupyterhub_cookie_secret").chmod(0o600)
    (place / "minihub-data").mkdir(mode=0o700)
    (place / "minihub-data" / "something").write_text("kept in the state directory")
    store = Store(str(place / "jupyterhub.sqlite"))
    store.open()
    with store.transaction():
        for name in ("ada", "ben"):
            models.User.create(
                name=name, created="2026-01-01T00:00:00.000000Z", auth_state="sealed-state"
            )
    store.close()
    return place


def users(path: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return {name for (name,) in db.execute("SELECT name FROM users")}


def snapshot(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


# -- with a running hub ------------------------------------------------------------------------


def test_backup_of_a_running_hub_brings_everything_back(start_hub, tmp_path):
    config = {"JupyterHub": {"api_tokens": {TOKEN: "root-admin"}}}
    hub = start_hub(config)
    browser = hub.browser("ada")
    own = hub.api("users/ada/tokens", TOKEN, "POST", json={}).json()["token"]
    stopping, made = threading.Event(), []

    def write():
        while not stopping.is_set():
            name = f"user{len(made)}"
            assert hub.api(f"users/{name}", TOKEN, "POST").status_code == 201
            made.append(name)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        until(lambda: len(made) > 5)
        before = len(made)
        code, told = minihub(hub.directory, "backup", str(tmp_path / "b.tar.gz"))
    finally:
        stopping.set()
        writer.join()
    assert code == 0 and "verified" in told, told
    assert (tmp_path / "b.tar.gz").stat().st_mode & 0o777 == 0o600

    # Not under a hub that runs.
    code, told = minihub(hub.directory, "restore", str(tmp_path / "b.tar.gz"))
    assert code == 4 and f"process {hub.process.pid}" in told
    assert hub.api("users/ada", TOKEN, "DELETE").status_code == 204
    assert hub.stop() == 0

    code, told = minihub(hub.directory, "restore", str(tmp_path / "b.tar.gz"))
    assert code == 0, told
    assert "ada" not in users(next(hub.directory.glob("jupyterhub.sqlite.before-restore-*")))
    hub = start_hub(config, directory=hub.directory)
    assert {"ada", *made[:before]} <= users(hub.directory / "jupyterhub.sqlite")
    assert hub.api("user", own).json()["name"] == "ada"
    browser.base = hub.url.rstrip("/")
    assert browser.get("/hub/home").status_code == 200  # even the login is as it was

    # In another place, as on another machine.
    other = tmp_path / "other"
    other.mkdir()
    code, told = minihub(other, "restore", str(tmp_path / "b.tar.gz"))
    assert code == 0 and "It was made in" in told
    moved = start_hub(directory=other, defaults={})
    assert moved.api("user", own).json()["name"] == "ada"


def test_backup_of_a_hub_in_one_file_names_that_file_for_cron(home, pyz):
    program = [sys.executable, str(pyz)]
    code, told = minihub(home, "backup", program=program)
    assert code == 0, told
    (line,) = [line for line in told.splitlines() if line.startswith("  15 3 * * * ")]
    assert f"cd {home} && " in line and str(pyz) in line and "--keep 14 --quiet" in line
    command = line.split("* * * ", 1)[1]
    for _ in range(2):
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


# -- what is in it -----------------------------------------------------------------------------


def test_backup_holds_database_configuration_and_secrets(home):
    code, told = minihub(home, "backup", "b.tar.gz")
    assert code == 0 and "users: 2" in told
    with tarfile.open(home / "b.tar.gz") as found:
        assert found.getnames() == [
            "manifest.json",
            "database.sqlite",
            "configuration.yaml",
            "cookie_secret",
            "state-something",
        ]
        manifest = json.load(found.extractfile("manifest.json"))
    assert manifest["schema"] == stores.SCHEMA_VERSION and manifest["rows"]["users"] == 2
    assert all(len(member["sha256"]) == 64 for member in manifest["members"])


def test_backup_without_secrets_holds_none(home):
    store = Store(str(home / "jupyterhub.sqlite"))
    store.open()
    with store.transaction():
        ada = models.User.get(models.User.name == "ada")
        models.Token.create(user=ada, prefix="abcd", hashed="sha512:1:aa:secret-hash", created="x")
        models.Session.create(user=ada, hashed="session-hash", created="x")
        client = models.OAuthClient.create(
            identifier="c", secret="client-secret-hash", redirect_uri="/"
        )
        models.OAuthCode.create(
            client=client, user=ada, hashed="code-hash", redirect_uri="/", expires_at="x"
        )
    store.close()
    code, told = minihub(home, "backup", "full.tar.gz")
    code, told = minihub(home, "backup", "b.tar.gz", "--without-secrets")
    assert code == 0 and "Without secrets" in told
    secrets = [
        b"secret-hash", b"session-hash", b"client-secret-hash", b"code-hash", b"sealed-state",
        PASSWORD.encode(), b"classroom", b"c0ffee",
    ]  # fmt: skip
    full, bare = (gzip.decompress((home / name).read_bytes()) for name in FILES)
    assert [one for one in secrets if one not in full] == []  # they would be found
    assert [one for one in secrets if one in bare] == []
    here = home.parent / "here"
    here.mkdir()
    assert minihub(here, "restore", str(home / "b.tar.gz"))[0] == 0
    assert users(here / "jupyterhub.sqlite") == {"ada", "ben"}
    assert not (here / "minihub.yaml").exists()


FILES = ("full.tar.gz", "b.tar.gz")


def test_backup_goes_to_standard_output(home):
    done = subprocess.run([*PROGRAM, "backup", "-"], cwd=home, capture_output=True, check=True)
    (home / "b.tar.gz").write_bytes(done.stdout)
    assert minihub(home, "restore", "b.tar.gz", "--dry-run")[0] == 0


def test_keep_deletes_the_oldest_backups_and_nothing_else(home):
    place = home / "minihub-data" / "backups"
    place.mkdir(mode=0o700)
    for day in range(1, 6):
        (place / f"minihub-backup-2026-01-0{day}-000000.tar.gz").write_text("old")
    (place / "minihub-backup-mine.tar.gz").write_text("mine")
    code, told = minihub(home, "backup", "--keep", "3", "--quiet")
    assert (code, told) == (0, "")
    names = sorted(path.name for path in place.iterdir())
    assert names[:2] == [
        "minihub-backup-2026-01-04-000000.tar.gz",
        "minihub-backup-2026-01-05-000000.tar.gz",
    ]
    assert len(names) == 4 and names[-1] == "minihub-backup-mine.tar.gz"
    for words, told_of in ((("x.tar.gz", "--keep", "3"), "--keep"), (("--keep", "0"), "--keep")):
        code, told = minihub(home, "backup", *words)
        assert code == 2 and told_of in told


def test_backup_does_not_replace_a_file(home):
    (home / "b.tar.gz").write_text("mine")
    code, told = minihub(home, "backup", "b.tar.gz")
    assert code == 2 and "exists" in told and (home / "b.tar.gz").read_text() == "mine"
    code, told = minihub(home, "backup", "absent/b.tar.gz")
    assert code == 2 and "there is no directory" in told


def test_backup_that_does_not_come_back_is_thrown_away(home, monkeypatch, capsys):
    real = archive.write

    def write_badly(path, manifest, sources):
        with open(sources["database.sqlite"], "r+b") as file:
            file.seek(5000)
            file.write(b"\xa5" * 100)
        real(path, manifest, sources)

    monkeypatch.setattr(archive, "write", write_badly)
    monkeypatch.chdir(home)
    before = snapshot(home)
    assert cli.main(["backup", "b.tar.gz"]) == 1
    assert "could not be restored and was thrown away" in capsys.readouterr().err
    assert snapshot(home) == before


def test_damaged_database_is_not_backed_up(home):
    with open(home / "jupyterhub.sqlite", "r+b") as file:
        file.seek(8192)
        file.write(b"\xa5" * 8192)
    before = snapshot(home)
    code, told = minihub(home, "backup", "b.tar.gz")
    assert code == 1 and "damaged" in told and snapshot(home) == before


@pytest.mark.root
def test_full_disk_leaves_no_half_of_a_backup(home, small_disk):
    shutil.copytree(home, small_disk / "home")
    with contextlib.suppress(OSError), open(small_disk / "ballast", "wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    code, told = minihub(small_disk / "home", "backup", str(small_disk))
    assert code == 1 and ("0 MB free" in told or "No space left" in told), told
    assert {path.name for path in small_disk.iterdir()} == {"home", "ballast"}


# -- restoring ---------------------------------------------------------------------------------


@pytest.fixture
def backup(home, tmp_path):
    """A good backup of ``home``, which has changed since."""
    assert minihub(home, "backup", str(tmp_path / "b.tar.gz"))[0] == 0
    with contextlib.closing(sqlite3.connect(home / "jupyterhub.sqlite")) as db:
        db.execute("UPDATE users SET name = 'changed' WHERE name = 'ben'")
        db.commit()
    return tmp_path / "b.tar.gz"


def test_dry_run_changes_nothing(home, backup):
    before = snapshot(home)
    code, told = minihub(home, "restore", str(backup), "--dry-run")
    assert code == 0 and "Nothing was changed" in told
    assert f"the database: {home / 'jupyterhub.sqlite'}" in told
    assert snapshot(home) == before


def test_restore_keeps_what_was_there(home, backup):
    (home / "minihub.yaml").write_text("mine\n")
    code, told = minihub(home, "restore", str(backup))
    assert code == 0, told
    assert users(home / "jupyterhub.sqlite") == {"ada", "ben"}
    (old,) = home.glob("jupyterhub.sqlite.before-restore-*")
    assert users(old) == {"ada", "changed"}
    (old,) = home.glob("minihub.yaml.before-restore-*")
    assert old.read_text() == "mine\n" and PASSWORD in (home / "minihub.yaml").read_text()
    assert (home / "jupyterhub_cookie_secret").stat().st_mode & 0o777 == 0o600
    assert not list(home.glob("*restoring*")) and not list(home.glob(".minihub-restore-*"))


def test_log_of_the_replaced_database_is_never_applied_to_the_new_one(home, backup):
    """A killed hub leaves a write-ahead log behind."""
    path = home / "jupyterhub.sqlite"
    killed = (
        "import sqlite3, os, sys; db = sqlite3.connect(sys.argv[1]);"
        "db.execute('PRAGMA journal_mode=wal'); db.execute(\"UPDATE users SET name='late'"
        " WHERE name='ada'\"); db.commit(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", killed, str(path)], check=False)
    assert Path(f"{path}-wal").stat().st_size
    assert minihub(home, "restore", str(backup))[0] == 0
    assert users(path) == {"ada", "ben"} and sqlitefiles.problems(path) == ""
    (old,) = home.glob("jupyterhub.sqlite.before-restore-*")
    assert users(old) == {"late", "changed"}


def test_damaged_database_is_replaced_and_kept(home, backup):
    path = home / "jupyterhub.sqlite"
    path.write_text("not a database")
    assert minihub(home, "restore", str(backup))[0] == 0
    assert users(path) == {"ada", "ben"}
    (old,) = home.glob("jupyterhub.sqlite.before-restore-*")
    assert old.read_text() == "not a database"


def rewritten(source: Path, target: Path, change) -> Path:
    """Write a backup anew with ``change(name, raw)`` applied to each member; None leaves it out."""
    with tarfile.open(source) as old, tarfile.open(target, "w:gz") as new:
        for entry in old:
            raw = change(entry.name, old.extractfile(entry).read())
            if raw is not None:
                entry.size = len(raw)
                new.addfile(entry, io.BytesIO(raw))
    return target


def in_manifest(**changes):
    def change(name, raw):
        return json.dumps(json.loads(raw) | changes).encode() if name == "manifest.json" else raw

    return change


def with_member(**changes):
    def change(name, raw):
        if name != "manifest.json":
            return raw
        found = json.loads(raw)
        found["members"][0] |= changes
        return json.dumps(found).encode()

    return change


BAD = {
    "changed": (lambda n, r: r[:-1] + b"x" if n == "database.sqlite" else r, 1, "not as it was"),
    "missing": (lambda n, r: None if n == "cookie_secret" else r, 1, "cookie_secret is missing"),
    "no manifest": (lambda n, r: None if n == "manifest.json" else r, 1, "no manifest"),
    "other text": (lambda n, r: b"[]" if n == "manifest.json" else r, 1, "cannot be understood"),
    "newer form": (in_manifest(format=2, minihub="9.9"), 1, "written by a newer minihub (9.9"),
    "unnamed": (in_manifest(members=[], schema=None), 1, "is not what its manifest names"),
    "way out": (with_member(name="../../x"), 1, "is no name of a file"),
    "other rows": (in_manifest(rows={"users": 9}), 1, "not the one its manifest describes"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_backup_that_is_not_right_changes_nothing(home, backup, tmp_path, kind):
    change, expected, words = BAD[kind]
    bad = rewritten(backup, tmp_path / "bad.tar.gz", change)
    before = snapshot(home)
    code, told = minihub(home, "restore", str(bad))
    assert code == expected and words in told, told
    assert snapshot(home) == before


@pytest.mark.parametrize("raw", [b"", b"no archive", None], ids=["empty", "text", "cut"])
def test_file_that_is_no_backup_is_named(home, backup, tmp_path, raw):
    bad = tmp_path / "bad.tar.gz"
    whole = backup.read_bytes()
    bad.write_bytes(whole[: len(whole) // 2] if raw is None else raw)
    before = snapshot(home)
    code, told = minihub(home, "restore", str(bad))
    assert code == 1 and str(bad) in told and snapshot(home) == before
    code, told = minihub(home, "restore", "absent.tar.gz")
    assert code == 1 and "there is no such file" in told


def test_newer_schema_is_refused_with_exit_code_5(home, backup, monkeypatch, capsys):
    monkeypatch.setattr(stores, "SCHEMA_VERSION", stores.SCHEMA_VERSION - 1)
    monkeypatch.chdir(home)
    before = snapshot(home)
    assert cli.main(["restore", str(backup)]) == 5
    assert "made by a newer minihub" in capsys.readouterr().err
    assert snapshot(home) == before


@pytest.mark.parametrize("step", range(4))
def test_restore_that_is_cut_off_leaves_each_file_old_or_new(home, backup, monkeypatch, step):
    """As by a full disk or a kill: no file is ever absent or half."""
    real, seen = os.replace, []

    def replace(source, target):
        if len(seen) == step:
            raise OSError(28, "No space left on device", str(target))
        seen.append(target)
        real(source, target)

    before = snapshot(home)
    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.chdir(home)
    assert cli.main(["restore", str(backup)]) == 1
    after = snapshot(home)
    assert set(before) <= set(after)
    assert users(home / "jupyterhub.sqlite") == ({"ada", "ben"} if step else {"ada", "changed"})
    assert not [name for name in after if "restoring" in name]


@pytest.mark.root
def test_restore_on_a_full_disk_changes_nothing(home, backup, small_disk):
    place = small_disk / "home"
    shutil.copytree(home, place)
    with contextlib.suppress(OSError), open(small_disk / "ballast", "wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    before = snapshot(place)
    code, told = minihub(place, "restore", str(backup))
    assert code == 1 and "No space left" in told
    assert snapshot(place) == before


@pytest.mark.root
def test_what_root_restores_belongs_to_who_had_it(home, backup):
    os.chown(home / "jupyterhub.sqlite", 65534, 65534)
    assert minihub(home, "restore", str(backup))[0] == 0
    assert (home / "jupyterhub.sqlite").stat().st_uid == 65534
    assert (home / "minihub.yaml").stat().st_uid == 0
