"""Where the database is and how to connect to it: ``db_url`` and ``db_kwargs``, read and judged.

Rules of this file: it knows the notations of SQLAlchemy and opens nothing. A password stands in
:attr:`Place.params` alone; :attr:`Place.shown` is for messages and has none.

Threads: any; pure functions.
Sources: SQLAlchemy's database URLs and the arguments of its ``create_engine``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

SQLITE = "sqlite"
POSTGRESQL = "postgresql"
MYSQL = "mysql"

#: Schemes, without the driver after a plus sign.
_KINDS = {
    "sqlite": SQLITE,
    "postgresql": POSTGRESQL,
    "postgres": POSTGRESQL,
    "mysql": MYSQL,
    "mariadb": MYSQL,
}
#: Drivers that a URL may name. What they are called in Python follows from what is installed.
_DRIVERS = {
    SQLITE: ("", "pysqlite"),
    POSTGRESQL: ("", "psycopg", "psycopg2", "psycopg2cffi", "asyncpg", "pg8000"),
    MYSQL: ("", "pymysql", "mysqldb", "mysqlconnector", "mariadbconnector", "asyncmy"),
}

#: Arguments of create_engine that work here, and what they take.
KWARGS: dict[str, tuple[type, ...]] = {
    "connect_args": (dict,),
    "echo": (bool, str),
    "max_overflow": (int,),
    "pool_pre_ping": (bool,),
    "pool_recycle": (int,),
    "pool_size": (int,),
    "pool_timeout": (int, float),
}
#: Those that are about SQLAlchemy itself: accepted with a warning.
MEANINGLESS = frozenset(
    """
    convert_unicode creator echo_pool enable_from_linting encoding execution_options future
    hide_parameters implicit_returning insertmanyvalues_page_size isolation_level
    json_deserializer json_serializer label_length logging_name max_identifier_length module
    paramstyle plugins pool pool_class pool_logging_name pool_reset_on_return pool_use_lifo
    poolclass query_cache_size skip_autocommit_rollback strategy use_insertmanyvalues
    """.split()
)
#: What ``connect_args`` takes for SQLite; for others it goes to the driver as it is.
SQLITE_CONNECT_ARGS: dict[str, tuple[type, ...]] = {
    "timeout": (int, float),
    "check_same_thread": (bool,),
    "cached_statements": (int,),
}

#: SQLAlchemy's defaults.
POOL_SIZE = 5
MAX_OVERFLOW = 10
POOL_TIMEOUT_S = 30.0
BUSY_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Place:
    """A database as its URL describes it."""

    kind: str
    #: The URL without a password.
    shown: str
    #: The file of an SQLite database; None in memory, and for others.
    path: Path | None = None
    #: The database's name, where a server has several.
    name: str = ""
    #: What the driver is given to connect: host, port, user, password, and what the query says.
    params: Mapping[str, Any] = field(default_factory=dict, repr=False)


def parse(url: str) -> Place:
    """Return what ``url`` means; one without ``://`` is the name of an SQLite file.

    Raises ValueError saying what is wrong with it.
    """
    if "://" not in url:
        url = f"sqlite:///{url}"
    scheme, _, rest = url.partition("://")
    kind, _, driver = scheme.lower().partition("+")
    if kind not in _KINDS or driver not in _DRIVERS[_KINDS[kind]]:
        raise ValueError(
            f"{scheme}:// is no database this hub can open; use sqlite:///FILE, sqlite:// (in "
            "memory), postgresql://USER:PASSWORD@HOST/NAME or mysql://USER:PASSWORD@HOST/NAME"
        )
    kind = _KINDS[kind]
    if kind == SQLITE:
        return _sqlite(rest)
    return _server(kind, scheme, url)


def _sqlite(rest: str) -> Place:
    host, slash, name = rest.partition("/")
    if host or (rest and not slash):
        raise ValueError("sqlite:// is followed by /FILE, and by //FILE for an absolute path")
    name = unquote(name.split("?")[0])
    if not name or name == ":memory:":
        return Place(SQLITE, "sqlite://")
    return Place(SQLITE, f"sqlite:///{name}", Path(name))


def _server(kind: str, scheme: str, url: str) -> Place:
    try:
        parts = urlsplit("x" + url[len(scheme) :])
        port = parts.port
        # RFC 3986 knows no brackets in a user's name; they are percent-encoded there.
        user, password = parts.username, parts.password
    except ValueError as error:
        raise ValueError(f"not a URL: {error}") from error
    name = unquote(parts.path.lstrip("/"))
    if not name:
        raise ValueError("the name of the database is missing after the host: …://HOST/NAME")
    params: dict[str, Any] = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.hostname:
        params["host"] = unquote(parts.hostname)
    if port:
        params["port"] = port
    if user:
        params["user"] = unquote(user)
    if password is not None:
        params["password"] = unquote(password)
    if kind == MYSQL and "port" in params:
        params["port"] = int(params["port"])
    at = f"{user}@" if user else ""
    host = parts.netloc.rpartition("@")[2]
    return Place(kind, f"{kind}://{at}{host}/{name}", None, name, params)


def problems(url: str, kwargs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield ``(option, what is wrong with it)`` for ``db_url`` and ``db_kwargs``."""
    try:
        place = parse(url)
    except ValueError as error:
        yield "db_url", str(error)
        return
    for key, value in kwargs.items():
        if key in MEANINGLESS:
            continue
        expected = KWARGS.get(key)
        if expected is None:
            near = difflib.get_close_matches(key, KWARGS, 1)
            hint = f'. Did you mean "{near[0]}"?' if near else f"; known are {', '.join(KWARGS)}"
            yield "db_kwargs", f'"{key}" is no argument of create_engine{hint}'
        elif not _fits(value, expected):
            yield "db_kwargs", f"{key} cannot be {value!r}"
    if place.kind == SQLITE and isinstance(kwargs.get("connect_args"), Mapping):
        for key, value in kwargs["connect_args"].items():
            if key not in SQLITE_CONNECT_ARGS:
                known = ", ".join(SQLITE_CONNECT_ARGS)
                yield "db_kwargs", f'connect_args: "{key}" means nothing to SQLite; known: {known}'
            elif not _fits(value, SQLITE_CONNECT_ARGS[key]):
                yield "db_kwargs", f"connect_args: {key} cannot be {value!r}"


def _fits(value: Any, expected: tuple[type, ...]) -> bool:
    if isinstance(value, bool) and bool not in expected:
        return False
    return isinstance(value, expected)


def remarks(url: str, kwargs: Mapping[str, Any]) -> Iterator[str]:
    """Yield what of ``db_kwargs`` is accepted and has no effect; nothing for a wrong ``url``."""
    try:
        kind = parse(url).kind
    except ValueError:
        return
    for key in sorted(set(kwargs) & MEANINGLESS):
        yield f"{key} is about SQLAlchemy, which this hub does not use; it does nothing"
    if kind == SQLITE:
        pool = sorted(key for key in kwargs if key.startswith("pool_") or key == "max_overflow")
        for key in pool:
            if key not in MEANINGLESS:
                yield f"{key} does nothing with SQLite, which opens connections as they are needed"
