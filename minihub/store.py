"""The store: sessions, transactions, the schema and its version, over whichever database.

Rules of this file: it knows schema and versions, not what the rows mean; connections are
:mod:`minihub.database`'s. Every thread that touches a model does so inside :meth:`Store.session`
(reading) or :meth:`Store.transaction` (writing), and touches no row's relations outside of them: a
server's connection is lent for the session alone. No transaction spans a network call of its own,
a wait for a process or a sleep.

Every write that may change who may do what moves :attr:`Store.generation` on; what is remembered
of rights (:class:`Cache`) counts only as long as the generation it was read in.

Threads: any. The generation is guarded by a leaf lock.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import peewee

from . import clock, database, dburl, models, sqlitefiles
from .errors import ConfigError, SchemaError, StoreError

log = logging.getLogger("minihub.store")

V = TypeVar("V")

#: Errors of the code that uses the store, not of the database.
_OF_THE_CALLER = (peewee.IntegrityError, peewee.DataError, peewee.ProgrammingError)

PROGRAM = "minihub"
SCHEMA_VERSION = 4

#: What brings a database from version N to N + 1, by N. All that are due run in one transaction.
MIGRATIONS: dict[int, Callable[[peewee.Database], None]] = {
    1: lambda db: database.make_tables(db, (models.AuditEntry, models.Announcement)),
    2: lambda db: database.make_tables(
        db, (models.ClassCode, models.Credential, models.SignupRequest)
    ),
    3: lambda db: database.make_tables(db, (models.SessionPlace,)),
}


def _place(db_url: str) -> dburl.Place:
    try:
        return dburl.parse(db_url)
    except ValueError as error:
        raise ConfigError(f"JupyterHub.db_url: {error}") from error


class Store:
    """The hub's database, from :meth:`open` to :meth:`close`."""

    def __init__(
        self,
        db_url: str = "sqlite:///jupyterhub.sqlite",
        db_kwargs: Mapping[str, Any] | None = None,
        *,
        debug: bool = False,
    ) -> None:
        """``debug`` logs every statement. Raises ConfigError, as when a driver is not installed."""
        place = _place(db_url)
        wrong = [
            f"JupyterHub.{name}: {what}" for name, what in dburl.problems(db_url, db_kwargs or {})
        ]
        if wrong:
            raise ConfigError(wrong)
        self.path = place.path
        #: The database's name in messages.
        self.shown = str(place.path or ("memory" if place.kind == dburl.SQLITE else place.shown))
        self.engine = database.connect(place, db_kwargs or {}, debug=debug)
        self.db = self.engine.db
        #: The copy of the file that was made before its schema was brought up to date.
        self.copied_to: Path | None = None
        self._lock = threading.Lock()
        #: Counts the committed writes that may have changed rights.
        self.generation = 0
        self._writing = threading.local()
        self._is_opening = False

    @classmethod
    def of(cls, options: Any) -> Store:
        """Return the store that ``options`` (a JupyterHub) describe."""
        return cls(options.db_url, options.db_kwargs, debug=options.debug_db)

    def exists(self) -> bool:
        """Return whether there may be a database already; one in memory is always new."""
        return self.path.exists() if self.path else self.engine.place.kind != dburl.SQLITE

    def open(self, *, reset: bool = False, upgrade: bool = True, dumped: bool = False) -> None:
        """Create or check the database and its schema, and bind the models to it.

        A new file has mode 0600. An older schema is brought up to date: of a file after a copy of
        it (:attr:`copied_to`), and after all of it has been tried on another copy; on PostgreSQL
        in one transaction; on MySQL, which cannot take such changes back, only when ``dumped``
        says that there is a dump. With ``reset`` everything in it is deleted first, if it is
        ours. Raises SchemaError when the database is another program's, a newer minihub's, an
        older one's without ``upgrade``, or may not be changed, StoreError when it cannot be opened
        or brought up to date; it is as it was then.
        """
        self._is_opening = True
        try:
            self.engine.prepare()
            tables = self.engine.tables()
            self._refuse_foreign(tables)
            if tables and not reset and self.path is not None:
                self._refuse_damaged(self.path)
            self.db.bind(models.TABLES)
            version = self._version() if tables and not reset else None
            if version is not None and version != SCHEMA_VERSION:
                self._before_migration(version, upgrade, dumped)
            with self.transaction():
                self._prepare_schema(reset)
            if self.copied_to is not None:
                log.warning("%s as it was before: %s", self.shown, self.copied_to)
        except (peewee.PeeweeException, sqlite3.Error) as error:
            raise StoreError(
                f"the database {self.shown} cannot be opened: {self._told(error)}"
            ) from error
        finally:
            self._is_opening = False

    def _refuse_damaged(self, path: Path) -> None:
        """Look through the file before anything is written: a later error has written already."""
        wrong = sqlitefiles.problems(path, quick=True)
        if wrong:
            raise StoreError(
                f"{self.shown} is damaged ({wrong}); it was left as it is. "
                f"{sqlitefiles.MEND_DAMAGED}"
            )

    def _told(self, error: Exception) -> str:
        """Return what an error of the database means; at the start also who is in the way."""
        return sqlitefiles.explain(error, self.path, find_holder=self._is_opening)

    def _version(self) -> int | None:
        """Return the version of the schema of a database of ours; None for one half made.

        Looking at a file changes nothing of it.
        """
        query = "SELECT value FROM minihub_meta WHERE key = 'schema_version'"
        if self.path is not None:
            with sqlitefiles.looking(self.path) as connection:
                row = connection.execute(query).fetchone()
        else:
            with self.session():
                fact = models.Meta.get_or_none(models.Meta.key == "schema_version")
                row = fact and (fact.value,)
        try:
            return int(row[0]) if row else None
        except ValueError as error:
            raise SchemaError(
                f"{self.shown} has a schema that no minihub writes ({row[0]!r}); it was not touched"
            ) from error

    def _before_migration(self, version: int, upgrade: bool, dumped: bool) -> None:
        """Refuse a newer schema; make sure that an older one can be had back."""
        if version > SCHEMA_VERSION:
            raise SchemaError(
                f"{self.shown} was written by a newer minihub (schema {version}; this one knows "
                f"{SCHEMA_VERSION}); it was not touched. Start the newer minihub"
            )
        if not upgrade:
            raise SchemaError(
                f"{self.shown} was written by an older minihub (schema {version}; this one has "
                f"{SCHEMA_VERSION}); it was not touched. Bring it up to date with minihub "
                "upgrade-db, or at the start with JupyterHub.upgrade_db"
            )
        if version not in MIGRATIONS:
            raise SchemaError(
                f"{self.shown} was written by a minihub that this one does not know (schema "
                f"{version}); it was not touched"
            )
        if self.engine.place.kind == dburl.MYSQL and not dumped:
            raise SchemaError(
                f"{self.shown} was written by an older minihub (schema {version}) and was not "
                "touched. MySQL cannot take changes of a schema back: make a dump of it first "
                f"(mysqldump --single-transaction {self.engine.place.name} > hub.sql), then run "
                "minihub.pyz upgrade-db --dumped"
            )
        if self.path is None:
            return
        self.copied_to = sqlitefiles.dated_copy(self.path)
        try:
            _rehearse(self.copied_to, version)
        except StoreError as error:
            self.copied_to.unlink()  # the file itself is as it was
            self.copied_to = None
            raise StoreError(
                f"{self.shown} cannot be brought from schema {version} to {SCHEMA_VERSION}: "
                f"{error}. It was tried on a copy; the database was not touched. "
                "The older minihub still runs with it"
            ) from error

    def _prepare_schema(self, reset: bool) -> None:
        tables = set(self.db.get_tables())
        if tables:
            facts = {row.key: row.value for row in models.Meta.select()}
            # Where a schema is not made in one transaction, the facts tell that it is complete.
            if "schema_version" in facts and not reset:
                self._bring_up_to_date(int(facts["schema_version"]))
                return
            log.warning("Deleting everything in %s", self.shown)
            self.db.drop_tables([table for table in models.TABLES if _name(table) in tables])
        self.engine.create_tables(models.TABLES)
        for key, value in (
            ("program", PROGRAM),
            ("created", clock.now_text()),
            ("schema_version", str(SCHEMA_VERSION)),
        ):
            models.Meta.create(key=key, value=value)

    def _refuse_foreign(self, tables: set[str]) -> None:
        """Raise SchemaError when there are tables and they are not ours."""
        if "alembic_version" in tables:
            raise SchemaError(
                f"{self.shown} is a JupyterHub database; it was not touched. To take over its "
                f"users, groups and tokens: minihub.pyz import-jupyterhub {self.shown}. To leave "
                "it be: start with --db=FILE naming a new file"
            )
        if tables and "minihub_meta" not in tables:
            raise SchemaError(
                f"{self.shown} belongs to another program; it was not touched. "
                "Start with --db=FILE naming a new file"
            )

    def _bring_up_to_date(self, version: int) -> None:
        if version == SCHEMA_VERSION:
            return
        log.warning("Bringing %s from schema %d to %d", self.shown, version, SCHEMA_VERSION)
        _migrate(self.db, version)
        models.Meta.update(value=str(SCHEMA_VERSION)).where(
            models.Meta.key == "schema_version"
        ).execute()

    @contextmanager
    def session(self) -> Iterator[peewee.Database]:
        """Connect this thread to the database for the block; blocks may lie in each other.

        Raises StoreError when the database cannot be opened or reached, is locked for too long,
        full, read-only or damaged.
        """
        with self._errors_told(), self.engine.connection():
            yield self.db

    @contextmanager
    def _errors_told(self) -> Iterator[None]:
        try:
            yield
        except peewee.DatabaseError as error:
            if isinstance(error, _OF_THE_CALLER):
                raise
            raise StoreError(f"the database {self.shown}: {self._told(error)}") from error
        except peewee.InterfaceError as error:
            raise StoreError(f"the database {self.shown}: {self._told(error)}") from error
        except database.NoConnection as error:
            raise StoreError(
                f"the database {self.shown}: all connections are in use; there may be more with "
                "JupyterHub.db_kwargs: pool_size"
            ) from error

    @contextmanager
    def transaction(
        self, *, touches_rights: bool = True, lasting: bool = True
    ) -> Iterator[peewee.Database]:
        """Run the block as one write: all of it or, when it raises, nothing of it.

        Takes the write lock at once, so that the block never fails half-way for another
        writer. Nested blocks join the outer one. ``touches_rights`` False promises that the block
        changes nothing of who somebody is or what they may do. What is not ``lasting`` outlives
        the hub, but perhaps not a loss of power in that moment; it costs no wait for the disk.
        """
        if self.db.in_transaction():
            self._writing.touches_rights |= touches_rights
            with self._errors_told():
                yield self.db
            return
        # Whoever waits for the others to write has no connection meanwhile.
        with self._errors_told(), self.engine.writing(), self.engine.connection():
            self._writing.touches_rights = touches_rights
            with self.engine.transaction(lasting=lasting):
                yield self.db
            # Only now: who reads the old state while this commits must not keep it as the new.
            if self._writing.touches_rights:
                with self._lock:
                    self.generation += 1

    def touch_rights(self) -> None:
        """Say, within a transaction that promised otherwise, that it changes rights after all."""
        self._writing.touches_rights = True

    def close(self) -> None:
        """Close every connection. Call when no thread uses the store any more."""
        self.engine.close()


class Cache(Generic[V]):
    """What was read of rights, for as long as no write has touched them.

    Threads: any; two may load the same value at once. Bounded: a full cache starts anew.
    """

    def __init__(self, store: Store, size: int) -> None:
        self._store = store
        self._size = size
        self._entries: dict[Hashable, tuple[int, V]] = {}

    def get(self, key: Hashable, load: Callable[[], V]) -> V:
        """Return the value of ``key``, from ``load()`` when it is not known; None is not kept."""
        generation = self._store.generation  # before the reading: a later write makes it void
        entry = self._entries.get(key)
        if entry is not None and entry[0] == generation:
            return entry[1]
        value = load()
        if value is not None:
            if len(self._entries) >= self._size:
                self._entries.clear()
            self._entries[key] = (generation, value)
        return value


def _migrate(db: peewee.Database, version: int) -> None:
    """Take every step from this version to ours, within the transaction of the caller."""
    for step in range(version, SCHEMA_VERSION):
        MIGRATIONS[step](db)


def _rehearse(path: Path, version: int) -> None:
    """Try on a copy of this copy what is due. Raises StoreError saying what goes wrong."""
    trial = path.with_name(f"{path.name}.trial")
    sqlitefiles.copy(path, trial)
    db = peewee.SqliteDatabase(str(trial), pragmas={"foreign_keys": 1})
    try:
        with db, db.atomic():
            _migrate(db, version)
        wrong = sqlitefiles.problems(trial)
        if wrong:
            raise StoreError(wrong)
    except (peewee.PeeweeException, sqlite3.Error) as error:
        raise StoreError(sqlitefiles.explain(error, trial)) from error
    finally:
        db.close()
        for end in ("", "-journal", "-wal", "-shm"):
            Path(f"{trial}{end}").unlink(missing_ok=True)


def _name(table: type[models.Table]) -> str:
    return table._meta.table_name
