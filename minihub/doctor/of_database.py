"""Checks of the database: can it be used, is it sound, is it ours and of this version.

Rules of this file: as in :mod:`minihub.doctor`. The write lock is taken for a moment and nothing is
written.

Threads: as in :mod:`minihub.doctor.patient`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from .. import clock, dburl, machine, sqlitefiles, upgrade
from .. import store as stores
from ..durations import words
from ..errors import MinihubError
from ..store import Store
from .finding import Word, check, fail, fine, warn
from .patient import Patient

#: How long a lock may be held by somebody at work.
LOCK_PATIENCE_S = 3.0
#: A job of cron that was not seen for so long has stopped.
LATE_CRON_S = 86400.0


@check(
    "database",
    "The database can be used",
    "The hub cannot start, nobody can log in, and no server starts.",
)
def usable(patient: Patient) -> Iterator[Word]:
    path = patient.database
    if path is not None:
        yield from _usable_file(patient, path)
    elif patient.place.kind == dburl.SQLITE:
        yield warn("it is in memory: everything is forgotten when the hub ends")
    else:
        try:
            patient.rows("SELECT 1")
            yield fine(patient.place.shown)
        except MinihubError as error:
            yield fail(str(error))


def _usable_file(patient: Patient, path: Path) -> Iterator[Word]:
    from .of_files import existing, mount_of

    there = existing(path)
    facts = os.statvfs(there)
    whose = patient.name_of(there.stat().st_uid)
    as_owner = f"sudo -u {whose} {patient.command('doctor')}"
    if facts.f_flag & os.ST_RDONLY:
        yield fail(
            f"{path} cannot be written: its file system is mounted read-only",
            f"mount -o remount,rw {mount_of(there)}",
        )
        return
    if not path.exists():
        if not path.parent.is_dir():
            yield fail(f"there is no directory {path.parent}", f"mkdir -p {path.parent}")
        elif not os.access(path.parent, os.W_OK | os.X_OK):
            yield fail(f"{path} cannot be made in its directory", as_owner)
        yield fine(f"{path} is not there yet; the first start makes it")
        return
    for place in (path, path.parent):
        if not os.access(place, os.R_OK | os.W_OK):
            mine = place.stat().st_uid == os.geteuid()
            mend = f"chmod u+rwX {patient.shown(place)}" if mine else as_owner
            yield fail(f"{place} cannot be written", mend)
            return
    said = _lock_problem(path)
    if said:
        own = patient.hub.pid if patient.hub else 0
        others = [name for name in machine.file_holders(path) if f"(process {own})" not in name]
        holders = others or machine.file_holders(path)
        pids = [name.rpartition("(process ")[2].rstrip(")") for name in holders]
        yield fail(
            f"{path} is locked by {', '.join(holders) or 'a program that cannot be seen'}",
            *([f"kill {' '.join(pids)}"] if others else []),
        )
    yield fine(f"{path}, {path.stat().st_size / 1024:.0f} kB")


def _lock_problem(path: Path) -> str:
    """Return what SQLite says when nobody can write; what else is wrong has its own check."""
    try:
        with closing(
            sqlite3.connect(path, timeout=LOCK_PATIENCE_S, isolation_level=None)
        ) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        return str(error) if "locked" in str(error) else ""
    return ""


@check(
    "database-sound",
    "The database is not damaged",
    "What is damaged gets worse with every write; people and tokens are lost.",
    patience_s=300.0,
)
def sound(patient: Patient) -> Iterator[Word]:
    path = patient.database
    if path is None or not path.exists() or not path.stat().st_size:
        return
    wrong = sqlitefiles.problems(path)
    if wrong and "locked" not in wrong:
        newest = _newest_backup(patient)
        yield fail(f"{path} is damaged: {wrong}", patient.command("restore", newest or "FILE"))


def _newest_backup(patient: Patient) -> str:
    from .. import backup

    directory = patient.state_dir / backup.DIRECTORY
    made = [one for one in directory.glob("*") if backup.NAME.fullmatch(one.name)]
    return patient.shown(max(made, key=lambda one: one.name)) if made else ""


@check(
    "database-schema",
    "The database is this minihub's, and of this version",
    "The hub refuses one of another program or of a newer minihub, and does not start.",
)
def schema(patient: Patient) -> Iterator[Word]:
    path = patient.database
    shown = str(path or patient.place.shown)
    if path is not None:
        if not path.exists() or not path.stat().st_size:
            return
        try:
            tables = sqlitefiles.tables(path)
        except sqlite3.Error:
            return  # damaged or locked, which has its own check
        if "alembic_version" in tables:
            yield fail(
                f"{shown} is JupyterHub's",
                patient.command("import-jupyterhub", patient.shown(path)),
            )
            return
        if tables and "minihub_meta" not in tables:
            yield fail(
                f"{shown} belongs to another program", patient.command("--db=minihub.sqlite")
            )
            return
        version = upgrade.version_of(path)
    elif patient.place.kind == dburl.SQLITE:
        return
    else:
        store = Store.of(patient.options)
        try:
            version = upgrade.version_in(store)
        except MinihubError:
            return  # not to be reached, which has its own check
        finally:
            store.close()
    ours = stores.SCHEMA_VERSION
    if version is not None and version > ours:
        yield fail(
            f"{shown} was written by a newer minihub (schema {version}; this one knows {ours})",
            "Start the newer minihub.pyz",
        )
    elif version is not None and version < ours:
        say = warn if patient.options.upgrade_db else fail
        yield say(
            f"{shown} was written by an older minihub (schema {version}; this one has {ours})",
            patient.command("upgrade-db"),
        )
    yield fine(f"schema {version}")


@check(
    "cron",
    "What cron runs was seen in the last 24 hours",
    "Idle servers stay for ever when the job that stops them has died.",
)
def cron(patient: Patient) -> Iterator[Word]:
    """Jobs as docs/cron.md sets them up: with a token noted as cron's."""
    rows = patient.rows(
        "SELECT note, last_activity, created, expires_at FROM api_tokens WHERE note LIKE '%cron%'"
    )
    latest: dict[str, tuple[float, bool]] = {}
    for note, used, created, expires_at in rows:
        age_s = _age_s(used or created)
        expired = bool(expires_at) and _age_s(expires_at) > 0
        if note not in latest or age_s < latest[note][0]:
            latest[note] = (age_s, expired)
    for note, (age_s, expired) in latest.items():
        if expired:
            yield warn(
                f'the token "{note}" has expired',
                patient.command("token", "--note", note) + "  # and put it where cron looks",
            )
        elif age_s > LATE_CRON_S:
            yield warn(f'the token "{note}" was last used {words(age_s)} ago', "crontab -l")


def _age_s(moment: str) -> float:
    return (clock.utcnow() - clock.parse(moment)).total_seconds()
