"""The database: opening it, one connection per thread, transactions, the schema's version.

Rules of this file: it knows connections and versions, not what the rows mean. Every thread that
touches a model does so inside :meth:`Store.session` (reading) or :meth:`Store.transaction`
(writing), which give it its own connection and leave it open: closing the last WAL connection
checkpoints and removes the log, 5 ms a request. No transaction spans a network call, a wait for
a process or a sleep.

Threads: any. The list of open connections is guarded by a leaf lock.
Sources: https://sqlite.org/wal.html, https://sqlite.org/lang_transaction.html.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import peewee

from . import clock, models
from .errors import ConfigError, SchemaError, StoreError

log = logging.getLogger("minihub.store")

PROGRAM = "minihub"
SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 10.0

#: What brings a database from version N to N + 1, by N. Each runs in one transaction.
MIGRATIONS: dict[int, Callable[[peewee.Database], None]] = {}


def sqlite_path(db_url: str) -> Path | None:
    """Return the file of an SQLite ``db_url``; None for a database in memory.

    A ``db_url`` without ``://`` is a plain file name. Raises ConfigError for other databases.
    Source: ``sqlite:///relative`` and ``sqlite:////absolute`` as SQLAlchemy writes them.
    """
    scheme, found, rest = db_url.partition("://")
    if not found:
        rest, scheme = "/" + db_url, "sqlite"
    if scheme.split("+")[0] != "sqlite":
        raise ConfigError(
            f"JupyterHub.db_url: {scheme}:// is no database this hub can open; "
            "use sqlite:///FILE or sqlite:// (in memory)"
        )
    name = unquote(rest[1:].split("?")[0])
    return Path(name) if name and name != ":memory:" else None


class Store:
    """The hub's database, from :meth:`open` to :meth:`close`."""

    def __init__(
        self, db_url: str = "sqlite:///jupyterhub.sqlite", *, timeout_s: float = BUSY_TIMEOUT_S
    ) -> None:
        """``timeout_s``: how long a write waits for another program's write to end."""
        self.path = sqlite_path(db_url)
        self._memory_anchor: sqlite3.Connection | None = None
        options: dict[str, Any] = {"autoconnect": False, "timeout": timeout_s}
        options["check_same_thread"] = False  # close() ends the connections of all threads
        pragmas = {"foreign_keys": 1, "busy_timeout": int(timeout_s * 1000)}
        if self.path is None:
            # One database shared by all connections of this process; it lives while one is open.
            self._memory_uri = f"file:/minihub-{os.getpid()}-{id(self)}?vfs=memdb"
            self.db = peewee.SqliteDatabase(self._memory_uri, pragmas=pragmas, uri=True, **options)
        else:
            pragmas |= {"journal_mode": "wal", "synchronous": "full"}
            self.db = peewee.SqliteDatabase(str(self.path), pragmas=pragmas, **options)
        self._lock = threading.Lock()
        self._connections: list[Any] = []

    def open(self) -> None:
        """Create or check the file and its schema, and bind the models to it.

        A new file has mode 0600. Raises SchemaError when the database is another program's or
        a newer minihub's, StoreError when it cannot be opened; neither touches it.
        """
        where = self.path or "memory"
        try:
            if self.path is None:
                self._memory_anchor = sqlite3.connect(
                    self._memory_uri, uri=True, check_same_thread=False
                )
            else:
                _create_private(self.path)
            self.db.bind(models.TABLES)
            with self.transaction():
                self._prepare_schema()
        except (peewee.PeeweeException, sqlite3.Error) as error:
            raise StoreError(f"the database {where} cannot be opened: {error}") from error

    def _prepare_schema(self) -> None:
        tables = set(self.db.get_tables())
        if not tables:
            self.db.create_tables(models.TABLES)
            for key, value in (
                ("program", PROGRAM),
                ("schema_version", str(SCHEMA_VERSION)),
                ("created", clock.now_text()),
            ):
                models.Meta.create(key=key, value=value)
            return
        if "alembic_version" in tables:
            raise SchemaError(
                f"{self.path} is a JupyterHub database; it was not touched. "
                "Start with --db=FILE naming a new file, or move this one aside"
            )
        if "minihub_meta" not in tables:
            raise SchemaError(
                f"{self.path} belongs to another program; it was not touched. "
                "Start with --db=FILE naming a new file"
            )
        version = int(models.Meta.get_by_id("schema_version").value)
        if version > SCHEMA_VERSION:
            raise SchemaError(
                f"{self.path} was written by a newer minihub (schema {version}; this one knows "
                f"{SCHEMA_VERSION}); it was not touched. Start the newer minihub"
            )
        for step in range(version, SCHEMA_VERSION):
            log.warning("Bringing %s from schema %d to %d", self.path, step, step + 1)
            MIGRATIONS[step](self.db)
            models.Meta.update(value=str(step + 1)).where(
                models.Meta.key == "schema_version"
            ).execute()

    @contextmanager
    def session(self) -> Iterator[peewee.Database]:
        """Give this thread its connection, opened on first use and then kept.

        Raises StoreError when the database cannot be opened, is locked for too long, full,
        read-only or damaged.
        """
        if self.db.is_closed():
            try:
                self.db.connect()
            except peewee.PeeweeException as error:
                raise StoreError(
                    f"the database {self.path or 'memory'} cannot be opened: {error}"
                ) from error
            with self._lock:
                self._connections.append(self.db.connection())
        try:
            yield self.db
        except peewee.OperationalError as error:
            raise StoreError(f"the database {self.path or 'memory'}: {error}") from error

    @contextmanager
    def transaction(self) -> Iterator[peewee.Database]:
        """Run the block as one write: all of it or, when it raises, nothing of it.

        Takes the write lock at once, so that the block never fails half-way for another
        writer. Nested blocks join the outer one.
        """
        with self.session() as db:
            if db.in_transaction():
                yield db
                return
            with db.transaction("IMMEDIATE"):
                yield db

    def close_thread(self) -> None:
        """Close this thread's connection; for threads that end before the hub does."""
        if not self.db.is_closed():
            connection = self.db.connection()
            self.db.close()
            with self._lock:
                self._connections.remove(connection)

    def close(self) -> None:
        """Close every thread's connection. Call when no thread uses the store any more."""
        with self._lock:
            connections, self._connections = self._connections, []
        for connection in connections:
            connection.close()
        self.db.dispose()
        if self._memory_anchor is not None:
            self._memory_anchor.close()
            self._memory_anchor = None


def _create_private(path: Path) -> None:
    """Create the database file with mode 0600; an existing one is left as it is.

    SQLite gives its -wal and -shm files the mode of the database file.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"the database {path} cannot be opened: {error.strerror}") from error
    try:
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if mode & 0o077:
            log.warning("The database %s is readable by others; mend it: chmod 600 %s", path, path)
    finally:
        os.close(descriptor)
