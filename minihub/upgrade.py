"""Bringing the database's schema up to date by hand, with a verified copy of the old one.

Rules of this file: the old file is copied, and the copy checked, before anything is changed. What
the schema is and how it changes is :mod:`minihub.store`'s.

Threads: the main thread, while no hub runs.
Sources: https://sqlite.org/backup.html.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from . import clock, store
from .errors import StoreError
from .models import Meta
from .store import Store


def version_of(path: Path) -> int | None:
    """Return the version of the schema in an existing file; None when it is not a minihub's."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as database:
            facts = dict(database.execute("SELECT key, value FROM minihub_meta"))
            return int(facts["schema_version"])
    except (sqlite3.Error, KeyError, ValueError):
        return None


def copy_database(path: Path) -> Path:
    """Copy an SQLite file to ``<file>.YYYY-MM-DD-HHMMSS`` (UTC) beside it; return the copy.

    The copy holds everything committed, has mode 0600 and was found sound. Raises StoreError, and
    leaves no copy, when that fails.
    """
    copy = path.with_name(f"{path.name}.{clock.utcnow():%Y-%m-%d-%H%M%S}")
    try:
        os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreError(f"{copy} cannot be written: {error.strerror}") from error
    try:
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
            found = target.execute("PRAGMA integrity_check").fetchone()[0]
        if found != "ok":
            raise StoreError(f"{path} is damaged ({found}); it was not touched")
    except (sqlite3.Error, StoreError) as error:
        with suppress(OSError):
            copy.unlink()
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{path} cannot be copied to {copy}: {error}") from error
    return copy


def version_in(database: Store) -> int | None:
    """Return the version of the schema on a database server; None when it is not a minihub's.

    Raises StoreError when the server cannot be reached.
    """
    with database.session() as db:
        if not db.table_exists(Meta._meta.table_name):
            return None
        with db.bind_ctx([Meta]):
            row = Meta.get_or_none(Meta.key == "schema_version")
            return int(row.value) if row else None


def bring_up_to_date(database: Store, path: Path | None) -> tuple[bool, Path | None]:
    """Bring an existing database's schema up to date; return whether it changed, and the copy.

    Of a database on a server (``path`` is None) no copy is made: its server has means of its own.
    Raises SchemaError for one that belongs to another program or to a newer minihub, without
    touching it.
    """
    version = version_in(database) if path is None else version_of(path)
    if version == store.SCHEMA_VERSION:
        return False, None
    is_older = version is not None and version < store.SCHEMA_VERSION
    copy = copy_database(path) if path is not None and is_older else None
    database.open()  # what is not ours, or newer, is refused here
    return is_older, copy
