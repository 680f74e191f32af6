"""Bringing the database's schema up to date by hand.

Rules of this file: what the schema is, how it changes and how the old one is kept is
:mod:`minihub.store`'s.

Threads: the main thread, while no hub runs.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from . import sqlitefiles, store
from .models import Meta
from .store import Store


def version_of(path: Path) -> int | None:
    """Return the version of the schema in an existing file; None when it is not a minihub's."""
    try:
        with sqlitefiles.looking(path) as database:
            facts = dict(database.execute("SELECT key, value FROM minihub_meta"))
            return int(facts["schema_version"])
    except (sqlite3.Error, KeyError, ValueError):
        return None


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


def bring_up_to_date(
    database: Store, path: Path | None, *, dumped: bool = False
) -> tuple[bool, Path | None]:
    """Bring an existing database's schema up to date; return whether it changed, and the copy.

    Of a database on a server (``path`` is None) no copy is made: its server has means of its own,
    and for MySQL ``dumped`` must say that they were used. Raises SchemaError for one that belongs
    to another program or to a newer minihub, without touching it.
    """
    version = version_in(database) if path is None else version_of(path)
    if version == store.SCHEMA_VERSION:
        return False, None
    is_older = version is not None and version < store.SCHEMA_VERSION
    database.open(dumped=dumped)  # what is not ours, or newer, is refused here
    return is_older, database.copied_to
