"""Doctor's checks of files, disks and the database, each with the fault it is for."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import network_disk
import pytest
from doctor_tools import HEALTHY, NOBODY, doctor, flags, mend, run
from harness import merge
from test_doctor_config import configure
from test_store_faults import DAMAGE, fill, users_of, write_users

from minihub import backup, machine, sqlitefiles
from minihub.store import Store

DAY_S = 86400


@pytest.fixture
def tmp_path():
    """A directory that other users can enter, whatever other runs do with pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="minihub-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def stopped(start_hub):
    """The directory of a hub that ran, with its state, database and secret."""
    hub = start_hub(HEALTHY)
    assert hub.stop() == 0
    (hub.directory / "minihub.yaml").chmod(0o600)
    return hub.directory


def change(path: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(statement)
        db.commit()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def open_above(path: Path) -> None:
    """Let everybody pass through the directories of a test's run to what is below."""
    for directory in path.parents:
        if directory != Path("/") and directory.stat().st_uid == 0:
            directory.chmod(directory.stat().st_mode | 0o001)


# -- who may look ----------------------------------------------------------------------------------


@pytest.mark.root
def test_permission_that_is_not_there_is_told_with_who_has_it(stopped):
    open_above(stopped / "x")
    (stopped / "minihub.yaml").chmod(0o644)
    found = doctor(stopped, user=NOBODY)
    assert found.code == 6 and found.level("permission") == "fail"
    assert "may not be read by nobody; it belongs to root" in found.said("permission")
    assert found.mends("permission") == ["sudo -u root minihub.pyz doctor"]
    assert doctor(stopped).level("permission") == "ok"


@pytest.mark.root
def test_permission_for_the_configuration_alone_is_told(tmp_path):
    directory = configure(tmp_path / "hub")
    open_above(directory / "x")
    found = doctor(directory, user=NOBODY)
    assert found.code == 6 and "minihub.yaml may not be read" in found.said("permission")
    assert run(directory, user=NOBODY).returncode == 6


@pytest.mark.root
def test_healthy_hub_of_an_ordinary_user_has_nothing(start_hub, tmp_path):
    place = tmp_path / "hub0"
    place.mkdir()
    open_above(place / "x")
    hub = start_hub(HEALTHY, user=NOBODY, directory=place)
    (place / "minihub.yaml").chmod(0o600)
    assert doctor(hub.directory, user=NOBODY).bad() == {}
    assert doctor(hub.directory).bad() == {}  # root may look as well


# -- the state directory ---------------------------------------------------------------------------


def test_state_dir_that_others_may_enter_is_told(stopped):
    (stopped / "minihub-data").chmod(0o755)
    found = doctor(stopped)
    assert found.level("state-dir") == "warn" and "mode 0755" in found.said("state-dir")
    mend(stopped, found.mends("state-dir")[0])
    assert doctor(stopped).level("state-dir") == "ok"


def test_state_dir_that_is_a_file_is_told(tmp_path):
    directory = configure(tmp_path / "hub")
    (directory / "minihub-data").write_text("x")
    found = doctor(directory)
    assert found.level("state-dir") == "fail" and "is no directory" in found.said("state-dir")
    mend(directory, found.mends("state-dir")[0])
    assert doctor(directory).level("state-dir") == "ok"


@pytest.mark.root
def test_state_dir_of_an_ordinary_user_that_cannot_be_made_is_told(tmp_path):
    directory = configure(tmp_path / "hub")
    (directory / "minihub.yaml").chmod(0o644)
    open_above(directory / "x")
    found = doctor(directory, user=NOBODY)
    assert found.level("state-dir") == "fail" and "cannot be made" in found.said("state-dir")


@pytest.mark.root
def test_state_dir_on_a_read_only_disk_is_told(small_disk):
    directory = configure(small_disk / "hub")
    (directory / "minihub-data").mkdir(mode=0o700)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    found = doctor(directory)
    assert "mounted read-only" in found.said("state-dir") and found.level("state-dir") == "fail"
    assert "mounted read-only" in found.said("database")
    mend(directory, found.mends("state-dir")[0])
    assert doctor(directory).level("state-dir") == "ok"


@pytest.mark.root
def test_file_owners_after_a_start_as_root_are_told(stopped):
    os.chown(stopped / "minihub-data" / "hub-port", NOBODY, NOBODY)
    found = doctor(stopped)
    assert found.level("file-owners") == "fail" and "nobody" in found.said("file-owners")
    mend(stopped, found.mends("file-owners")[0])
    assert doctor(stopped).level("file-owners") == "ok"


@pytest.mark.parametrize("name", ["jupyterhub.sqlite", "key.pem", "a b.log"])
def test_private_files_that_others_can_read_are_told(tmp_path, start_hub, name):
    hub = start_hub(merge(HEALTHY, {"JupyterHub": {"extra_log_file": "a b.log"}}))
    assert hub.stop() == 0
    (hub.directory / "minihub.yaml").chmod(0o600)
    extra = []
    if name == "key.pem":
        from harness import make_certificate

        make_certificate(hub.directory, "localhost")
        extra = ["--ssl-key=key.pem", "--ssl-cert=cert.pem"]
    assert doctor(hub.directory, *extra).level("private-files") == "ok"
    (hub.directory / name).chmod(0o644)
    found = doctor(hub.directory, *extra)
    assert found.level("private-files") == "warn" and name in found.said("private-files")
    mend(hub.directory, found.mends("private-files")[0])
    assert doctor(hub.directory, *extra).level("private-files") == "ok"


def test_cookie_secret_that_others_know_is_told(stopped):
    secret = stopped / "jupyterhub_cookie_secret"
    secret.chmod(0o604)
    found = doctor(stopped)
    assert found.level("cookie-secret") == "fail" and found.level("configuration") == "ok"
    assert secret.read_text().strip() not in found.said("cookie-secret")
    mend(stopped, found.mends("cookie-secret")[0])
    assert doctor(stopped).level("cookie-secret") == "ok"
    secret.write_text("too short\n")
    found = doctor(stopped)
    assert found.level("cookie-secret") == "fail"
    mend(stopped, found.mends("cookie-secret")[0])
    assert doctor(stopped).level("cookie-secret") == "ok"


# -- room ------------------------------------------------------------------------------------------


@pytest.mark.root
def test_disk_that_is_full_is_told(small_disk):
    directory = configure(small_disk / "hub")
    ballast = fill(small_disk)
    found = doctor(directory)
    assert found.level("disk") == "fail" and f"free on {small_disk}" in found.said("disk")
    assert found.code == 1
    assert str(ballast) in mend(directory, found.mends("disk")[0])  # what takes the room


@pytest.mark.root
def test_disk_that_is_nearly_full_is_warned_of(new_disk):
    place = new_disk("size=200m")
    found = doctor(configure(place / "hub"))
    assert found.level("disk") == "warn" and found.code == 0
    subprocess.run(["mount", "-o", "remount,size=900m", str(place)], check=True)
    assert doctor(place / "hub").level("disk") == "ok"


@pytest.mark.root
def test_inodes_that_are_used_up_are_told(new_disk):
    place = new_disk("size=900m,nr_inodes=2000")
    directory = configure(place / "hub")
    assert doctor(directory).level("inodes") == "ok"
    (place / "many").mkdir()
    with contextlib.suppress(OSError):
        for number in range(2000):
            (place / "many" / str(number)).touch()
    found = doctor(directory)
    assert found.level("inodes") == "fail" and str(place) in found.said("inodes")
    assert "many" in mend(directory, found.mends("inodes")[0])
    subprocess.run(["rm", "-r", str(place / "many")], check=True)
    assert doctor(directory).level("inodes") == "ok"


@pytest.mark.root
def test_homes_that_cannot_be_made_are_told(tmp_path):
    homes = tmp_path / "homes"
    homes.mkdir()
    directory = configure(
        tmp_path / "hub", SimpleLocalProcessSpawner={"home_dir_template": f"{homes}/{{username}}"}
    )
    (directory / "minihub.yaml").chmod(0o644)
    os.chown(directory, NOBODY, NOBODY)
    open_above(directory / "x")
    found = doctor(directory, user=NOBODY)
    assert found.level("homes") == "fail" and str(homes) in found.said("homes")
    os.chown(homes, NOBODY, NOBODY)
    assert doctor(directory, user=NOBODY).level("homes") == "ok"


# -- time ------------------------------------------------------------------------------------------


def test_clock_that_was_set_back_is_told(stopped):
    later = time.time() + 2 * DAY_S
    os.utime(stopped / "jupyterhub.sqlite", (later, later))
    found = doctor(stopped)
    assert found.level("clock") == "warn" and "in the future" in found.said("clock")
    mend(stopped, found.mends("clock")[1])
    assert doctor(stopped).level("clock") == "ok"


def test_backup_that_no_longer_comes_every_night_is_told(stopped):
    place = stopped / "minihub-data" / backup.DIRECTORY
    place.mkdir(mode=0o700)
    for days in (2, 3, 4):
        old = place / f"minihub-backup-2026-01-0{days}-031500.tar.gz"
        old.touch(mode=0o600)
        then = time.time() - days * DAY_S
        os.utime(old, (then, then))
    found = doctor(stopped)
    assert found.level("backup") == "warn" and "every night" in found.said("backup")
    mend(stopped, found.mends("backup")[0])
    assert doctor(stopped).level("backup") == "ok"


def test_backup_of_an_old_hub_that_has_none_is_told(stopped):
    change(
        stopped / "jupyterhub.sqlite",
        "UPDATE minihub_meta SET value = '2026-01-01T00:00:00.000000Z' WHERE key = 'created'",
    )
    found = doctor(stopped)
    assert found.level("backup") == "warn"
    assert doctor(stopped, "--skip=backup").bad() == {}
    mend(stopped, found.mends("backup")[0])
    assert doctor(stopped).level("backup") == "ok"


def test_cron_whose_token_nobody_uses_any_more_is_told(stopped):
    mend(stopped, "minihub.pyz user add ada --admin; minihub.pyz token ada --note cron")
    assert doctor(stopped).level("cron") == "ok"
    change(
        stopped / "jupyterhub.sqlite",
        "UPDATE api_tokens SET last_activity = '2026-01-01T00:00:00.000000Z' WHERE note = 'cron'",
    )
    found = doctor(stopped)
    assert found.level("cron") == "warn" and '"cron" was last used' in found.said("cron")
    change(
        stopped / "jupyterhub.sqlite",
        "UPDATE api_tokens SET expires_at = '2026-01-01T00:00:00.000000Z' WHERE note = 'cron'",
    )
    assert "has expired" in doctor(stopped).said("cron")


# -- the database ----------------------------------------------------------------------------------


def test_database_that_another_program_locks_is_told(stopped):
    holding = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "db.execute('BEGIN EXCLUSIVE'); print(flush=True); sys.stdin.read()"
    )
    path = stopped / "jupyterhub.sqlite"
    other = subprocess.Popen(
        [sys.executable, "-c", holding, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        other.stdout.readline()
        found = doctor(stopped)
        assert found.level("database") == "fail" and found.level("database-sound") == "ok"
        assert f"(process {other.pid})" in found.said("database")
        mend(stopped, found.mends("database")[0])
        other.wait(10)
    finally:
        other.kill()
        other.communicate()
    assert doctor(stopped).level("database") == "ok"


def test_database_that_is_not_there_yet_is_no_fault(tmp_path):
    found = doctor(configure(tmp_path / "hub"))
    assert found.level("database") == "ok" and "not there yet" in found.said("database")


def test_database_in_a_directory_that_is_not_there_is_told(tmp_path):
    directory = configure(tmp_path / "hub", JupyterHub={"db_url": f"sqlite:///{tmp_path}/x/y.db"})
    found = doctor(directory)
    assert found.level("database") == "fail"
    mend(directory, found.mends("database")[0])
    assert doctor(directory).level("database") == "ok"


def test_database_in_memory_is_warned_of(tmp_path):
    directory = configure(tmp_path / "hub", JupyterHub={"db_url": "sqlite://"})
    found = doctor(directory)
    assert found.level("database") == "warn" and found.level("owner") == "ok"


def test_database_on_a_server_that_does_not_answer_is_told_without_its_password(tmp_path):
    pytest.importorskip("pymysql")
    url = "mysql+pymysql://hub:Kx7-secret@127.0.0.1:1/hub"
    directory = configure(tmp_path / "hub", JupyterHub={"db_url": url})
    done = run(directory, "--all")
    assert done.returncode == 1 and "FAIL  database: " in done.stdout
    assert "Kx7-secret" not in done.stdout


@pytest.mark.parametrize("kind", DAMAGE)
def test_database_sound_finds_every_damage(tmp_path, kind):
    directory = configure(tmp_path / "hub")
    path = directory / "jupyterhub.sqlite"
    write_users(path, *(f"user{n}" for n in range(200)))
    saved = path.read_bytes()
    DAMAGE[kind](path)
    damaged = path.read_bytes()
    found = doctor(directory)
    assert found.level("database-sound") == "fail" and found.code == 1, found["database-sound"]
    assert path.read_bytes() == damaged
    assert found.mends("database-sound") == ["minihub.pyz restore FILE"]
    path.write_bytes(saved)
    assert doctor(directory).level("database-sound") == "ok"


def test_database_sound_names_the_newest_backup_which_brings_it_back(stopped):
    mend(stopped, "minihub.pyz user add ada; minihub.pyz backup")
    path = stopped / "jupyterhub.sqlite"
    path.write_text("not a database at all\n" * 500)
    found = doctor(stopped)
    (command,) = found.mends("database-sound")
    assert "minihub-backup-" in command
    mend(stopped, command)
    assert doctor(stopped).level("database-sound") == "ok" and "ada" in users_of(path)


@pytest.mark.parametrize("step, level, told", [(1, "fail", "newer minihub"), (-1, "warn", "older")])
def test_database_schema_of_another_version_is_told(tmp_path, step, level, told):
    directory = configure(tmp_path / "hub")
    path = directory / "jupyterhub.sqlite"
    write_users(path, "ada")
    change(path, f"UPDATE minihub_meta SET value = value + {step} WHERE key = 'schema_version'")
    if step < 0:
        for table in ("class_codes", "credentials", "signup_requests"):
            change(path, f"DROP TABLE {table}")
    found = doctor(directory)
    assert found.level("database-schema") == level and told in found.said("database-schema")
    if step < 0:
        assert doctor(directory, "--JupyterHub.upgrade_db=false").code == 1
        mend(directory, found.mends("database-schema")[0])
        assert doctor(directory).level("database-schema") == "ok"


def test_database_schema_of_jupyterhub_is_told_with_the_command_that_takes_it_over(tmp_path):
    directory = configure(tmp_path / "hub")
    change(directory / "jupyterhub.sqlite", "CREATE TABLE alembic_version (version_num TEXT)")
    found = doctor(directory)
    assert found.level("database-schema") == "fail"
    assert found.mends("database-schema") == ["minihub.pyz import-jupyterhub jupyterhub.sqlite"]


def test_database_schema_of_another_program_is_told(tmp_path):
    directory = configure(tmp_path / "hub")
    change(directory / "jupyterhub.sqlite", "CREATE TABLE cats (name TEXT)")
    found = doctor(directory)
    assert "another program" in found.said("database-schema")
    words = flags(found.mends("database-schema")[0])
    assert doctor(directory, *words).level("database-schema") == "ok"


def test_half_made_database_is_no_crash(tmp_path):
    directory = configure(tmp_path / "hub")
    (directory / "jupyterhub.sqlite").touch()
    assert doctor(directory).level("database-schema") == "ok"
    Store(str(directory / "jupyterhub.sqlite")).close()


# -- a disk of another machine ---------------------------------------------------------------------


@pytest.mark.root
def test_network_disk_is_found_by_its_real_mount(tmp_path):
    place = tmp_path / "net"
    place.mkdir()
    directory = configure(
        tmp_path / "hub",
        JupyterHub={"db_url": f"sqlite:///{place}/hub.sqlite", "state_dir": f"{place}/state"},
    )
    try:
        with network_disk.mounted(place):
            assert sqlitefiles.network_file_system(place / "hub.sqlite") == network_disk.KIND
            assert machine.file_system(place / "a" / "b").mount == str(place)
            found = doctor(directory)
    except OSError as error:
        pytest.skip(f"no file system of one's own can be mounted here: {error}")
    assert found.level("network-disk") == "warn"
    told = found.said("network-disk")
    assert f"{place}/hub.sqlite lies on a network file system (fuse.sshfs)" in told
    assert f"{place}/state lies on" in told
    assert doctor(directory).level("network-disk") == "ok"  # the same place, unmounted
