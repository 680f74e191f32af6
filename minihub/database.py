"""Connections to the database: one file of SQLite, or a PostgreSQL or MySQL server.

A connection is lent to a thread for a session. SQLite's stay open meanwhile, since closing the last
one of a WAL database checkpoints it and removes the log, 5 ms a request; there are as many as were
needed at once, where one for each thread would cost a quarter of a MiB for each. A server's are a
pool. Writers of this program queue up for either, so that SQLite's own rule (a write reads nothing
that another write is changing) holds for a server too.

Rules of this file: it knows connections and drivers, no table. Drivers are optional; one that is
absent is named with the line that installs it. Statements are logged without their values, which
may be what keeps accounts safe.

Threads: any. Lists of connections have a leaf lock; writers hold a lock for one transaction.
Sources: https://sqlite.org/wal.html, https://sqlite.org/lang_transaction.html; peewee's pool.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peewee

from . import clock, dburl, sqlitefiles
from .dburl import Place
from .errors import ConfigError, StoreError

log = logging.getLogger("minihub.store")
#: Every statement, with ``debug_db``; shown whatever the level of the log.
sql_log = logging.getLogger("minihub.sql")

#: What to install where no driver is there.
INSTALL = {
    dburl.POSTGRESQL: "psycopg2-binary (or psycopg)",
    dburl.MYSQL: "pymysql",
}


class NoConnection(Exception):
    """Raised when every connection of a pool is lent, and none came back in time."""


def connect(place: Place, kwargs: Mapping[str, Any], *, debug: bool = False) -> Engine:
    """Return the engine for a database; ``kwargs`` are those of ``db_kwargs``, already judged.

    Raises ConfigError when its driver is not installed.
    """
    engine: Engine
    if place.kind == dburl.SQLITE:
        engine = SqliteEngine(place, kwargs)
    else:
        engine = ServerEngine(place, kwargs)
    if debug or kwargs.get("echo"):
        sql_log.setLevel(logging.DEBUG)
        engine.db.query_hooks.append(_log_statement)
        engine.log_bounds = True
    return engine


def _log_statement(event: Any) -> None:
    took = f"{event.duration * 1000:.1f} ms"
    if event.exception is not None:
        sql_log.debug("%s (%s, %s)", event.sql, took, type(event.exception).__name__)
    else:
        sql_log.debug("%s (%s)", event.sql, took)


class Engine(ABC):
    """One database and its connections."""

    db: peewee.Database
    #: Whether the begin and end of transactions are logged, which are no statements to peewee.
    log_bounds = False

    def __init__(self, place: Place, patience_s: float = -1) -> None:
        """``patience_s``: how long a writer waits for those before it; below 0 for ever."""
        self.place = place
        self._patience_s = patience_s
        self._write_lock = threading.Lock()

    @abstractmethod
    def prepare(self) -> None:
        """Make sure that there is something to connect to. Raises StoreError."""

    def tables(self) -> set[str]:
        """Return the names of all tables, from a look that changes nothing."""
        with self.connection():
            return set(self.db.get_tables())

    @abstractmethod
    def connection(self) -> Any:
        """Return a context in which this thread is connected; contexts may lie in each other."""

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Wait until no other thread writes, and let none write within this.

        A queue, where SQLite would let writers sleep and look again.
        """
        if not self._write_lock.acquire(timeout=self._patience_s):
            raise peewee.OperationalError("database is locked")
        try:
            yield
        finally:
            self._write_lock.release()

    @contextmanager
    def transaction(self, *, lasting: bool = True) -> Iterator[None]:
        """Write within this: all of it or, when it raises, nothing.

        This thread is connected, in no transaction, and the one that is :meth:`writing`. What is
        not ``lasting`` may be lost when the machine loses its power at that moment, and no sooner.
        """
        if self.log_bounds:
            sql_log.debug("BEGIN")
        done = False
        try:
            with self._transaction(lasting):
                yield
            done = True
        finally:
            if self.log_bounds:
                sql_log.debug("COMMIT" if done else "ROLLBACK")

    @abstractmethod
    def _transaction(self, lasting: bool) -> Any:
        """Return the context of :meth:`transaction`."""

    def create_tables(self, tables: Any) -> None:
        """Create these tables."""
        make_tables(self.db, tables)

    @abstractmethod
    def close(self) -> None:
        """Close every connection. Call when no thread uses the database any more."""


def make_tables(db: peewee.Database, tables: Any) -> None:
    """Create these tables in a database that they need not be bound to."""
    if isinstance(db, peewee.MySQLDatabase):
        # Its usual collations take "ana" and "Ána" for one name.
        for table in tables:
            table._meta.table_settings = ["CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"]
    try:
        with db.bind_ctx(tables):
            db.create_tables(tables)
    finally:
        for table in tables:
            table._meta.table_settings = None


# -- SQLite --------------------------------------------------------------------------------


class SqliteEngine(Engine):
    """A file, or a database in memory that lives as long as this object is open."""

    db: peewee.SqliteDatabase
    #: The kind of network file system that the file lies on; empty for a disk of this machine.
    network = ""

    def __init__(self, place: Place, kwargs: Mapping[str, Any]) -> None:
        options = dict(kwargs.get("connect_args", {}))
        timeout_s = float(options.pop("timeout", dburl.BUSY_TIMEOUT_S))
        super().__init__(place, timeout_s)
        options |= {"autoconnect": False, "timeout": timeout_s}
        options["check_same_thread"] = False  # close() ends the connections of all threads
        pragmas = {"foreign_keys": 1, "busy_timeout": int(timeout_s * 1000)}
        self._anchor: sqlite3.Connection | None = None
        if place.path is None:
            # One database shared by all connections of this process; it lives while one is open.
            self._memory_uri = f"file:/minihub-{os.getpid()}-{id(self)}?vfs=memdb"
            self.db = peewee.SqliteDatabase(self._memory_uri, pragmas=pragmas, uri=True, **options)
        else:
            # Its shared memory would not be shared with a program on another machine.
            self.network = sqlitefiles.network_file_system(place.path)
            pragmas |= {"journal_mode": "delete" if self.network else "wal", "synchronous": "full"}
            self.db = peewee.SqliteDatabase(str(place.path), pragmas=pragmas, **options)
        #: Whether writes go to a log first, which alone makes one that is not lasting a safe one.
        self._has_log = pragmas.get("journal_mode") == "wal"
        self._lock = threading.Lock()
        self._connections: list[Any] = []
        #: Those of them that nobody uses, the one used last at the end.
        self._idle: list[Any] = []

    def prepare(self) -> None:
        if self.place.path is not None:
            _create_private(self.place.path)
            if self.network:
                log.warning(
                    "The database %s lies on a network file system (%s). It is used without a "
                    "write-ahead log, which is slower, and is only as safe as the locks of that "
                    "file system; a disk of this machine is better: JupyterHub.db_url",
                    self.place.path,
                    self.network,
                )
        elif self._anchor is None:
            self._anchor = sqlite3.connect(self._memory_uri, uri=True, check_same_thread=False)

    def tables(self) -> set[str]:
        if self.place.path is None:
            return super().tables()
        # Our own way of connecting would make the file one with a write-ahead log.
        return sqlitefiles.tables(self.place.path)

    @contextmanager
    def connection(self) -> Iterator[None]:
        if not self.db.is_closed():
            yield  # within another one
            return
        try:
            connection = self._idle.pop()
        except IndexError:
            self.db.connect()
            connection = self.db.connection()
            with self._lock:
                self._connections.append(connection)
        else:
            self.db._state.set_connection(connection)
        try:
            yield
        finally:
            self.db._state.reset()
            self._idle.append(connection)

    @contextmanager
    def _transaction(self, lasting: bool) -> Iterator[None]:
        if lasting or not self._has_log:
            with self.db.transaction("IMMEDIATE"):
                yield
            return
        connection = self.db.connection()
        connection.execute("PRAGMA synchronous = NORMAL")
        try:
            with self.db.transaction("IMMEDIATE"):
                yield
        finally:
            connection.execute("PRAGMA synchronous = FULL")

    def close(self) -> None:
        with self._lock:
            connections, self._connections = self._connections, []
            self._idle = []
        for connection in connections:
            connection.close()
        self.db.dispose()
        if self._anchor is not None:
            self._anchor.close()
            self._anchor = None


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


# -- servers -------------------------------------------------------------------------------


class ServerEngine(Engine):
    """A database on a server, behind a pool of connections."""

    def __init__(self, place: Place, kwargs: Mapping[str, Any]) -> None:
        super().__init__(place)
        options = {**place.params, **kwargs.get("connect_args", {})}
        overflow = kwargs.get("max_overflow", dburl.MAX_OVERFLOW)
        size = kwargs.get("pool_size", dburl.POOL_SIZE)
        # Both have a number that stands for no bound: 0 for the size, -1 for what is beyond it.
        most = None if size == 0 or overflow < 0 else size + overflow
        recycle_s = kwargs.get("pool_recycle", -1)
        options |= {
            "autoconnect": False,
            "max_connections": most,
            "stale_timeout": recycle_s if recycle_s > 0 else None,
            "timeout": kwargs.get("pool_timeout", dburl.POOL_TIMEOUT_S) or 0.001,
        }
        self.db = _server_database(place, options)
        if kwargs.get("pool_pre_ping"):
            self.db.rest_s = 0.0

    def prepare(self) -> None:
        # A driver raises what it likes for arguments that it does not know.
        try:
            self.db.connect()
        except (TypeError, AttributeError, peewee.ProgrammingError) as error:
            raise ConfigError(f"JupyterHub.db_kwargs: connect_args: {error}") from error
        self.db.close()

    @contextmanager
    def connection(self) -> Iterator[None]:
        if not self.db.is_closed():
            yield  # within another one
            return
        try:
            self.db.connect()
        except ValueError as error:  # MaxConnectionsExceeded is one
            raise NoConnection from error
        try:
            yield
        except (peewee.OperationalError, peewee.InterfaceError):
            # Perhaps the server has gone: then every connection has.
            if not self.db.in_transaction():
                self.db.manual_close()
                self.db.close_idle()
            raise
        finally:
            if not self.db.is_closed():
                self.db.close()

    def _transaction(self, lasting: bool) -> Any:
        return self.db.transaction()

    def close(self) -> None:
        self.db.close_all()


class _WithoutNul:
    """Mixed into PostgreSQL, whose texts cannot hold a NUL: it stands for what nothing is named."""

    def execute_sql(self, sql: str, params: Any = None) -> Any:
        if params and any(isinstance(one, str) and "\0" in one for one in params):
            params = tuple(
                one.replace("\0", "\ufffd") if isinstance(one, str) else one for one in params
            )
        return super().execute_sql(sql, params)


class _Rested:
    """Mixed into a pool: a connection that rested a while is tried before it is lent again."""

    #: Seconds that a connection may rest; 0 for none (``pool_pre_ping``).
    rest_s = 5.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._returned: dict[int, float] = {}
        super().__init__(*args, **kwargs)

    def _is_closed(self, connection: Any) -> bool:
        since = self._returned.get(id(connection), 0.0)
        return clock.monotonic() - since >= self.rest_s and super()._is_closed(connection)

    def _can_reuse(self, connection: Any) -> bool:
        self._returned[id(connection)] = clock.monotonic()
        return super()._can_reuse(connection)

    def _close_raw(self, connection: Any) -> None:
        self._returned.pop(id(connection), None)
        super()._close_raw(connection)


def _server_database(place: Place, options: dict[str, Any]) -> Any:
    """Return the pooled database of this kind. Raises ConfigError when its driver is absent."""
    from playhouse import pool

    if place.kind == dburl.POSTGRESQL:
        if peewee.psycopg2 is None and peewee.psycopg is None:
            raise _no_driver(place)
        kind = type("PostgreSQL", (_WithoutNul, _Rested, pool.PooledPostgresqlDatabase), {})
        return kind(place.name, **options)
    if peewee.mysql is None:
        raise _no_driver(place)
    kind = type("MySQL", (_Rested, pool.PooledMySQLDatabase), {})
    # A TEXT holds 64 kB there, less than a user's options may take.
    return kind(place.name, field_types={"TEXT": "LONGTEXT"}, **options)


def _no_driver(place: Place) -> ConfigError:
    package = INSTALL[place.kind]
    return ConfigError(
        f"JupyterHub.db_url: {place.shown} needs the Python package {package}, which is not "
        f"installed for this Python: python3 -m pip install {package.split()[0]}"
    )
