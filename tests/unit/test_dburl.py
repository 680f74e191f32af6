"""Database URLs and arguments in SQLAlchemy's notation."""

from __future__ import annotations

from pathlib import Path

import pytest

from minihub import dburl


@pytest.mark.parametrize(
    "url, path",
    [
        ("hub.db", "hub.db"),
        ("dir/a b.db", "dir/a b.db"),
        ("sqlite:///jupyterhub.sqlite", "jupyterhub.sqlite"),
        ("sqlite:////srv/hub.sqlite", "/srv/hub.sqlite"),
        ("sqlite:///a%20b.db?check_same_thread=false", "a b.db"),
        ("sqlite+pysqlite:///x.db", "x.db"),
        ("sqlite://", None),
        ("sqlite:///", None),
        ("sqlite:///:memory:", None),
    ],
)
def test_files_of_sqlite(url, path):
    place = dburl.parse(url)
    assert place.kind == "sqlite"
    assert place.path == (Path(path) if path else None)


@pytest.mark.parametrize(
    "url, kind, name, params, shown",
    [
        (
            "postgresql://hub:p%40ss@db.example.org:5433/people?sslmode=require",
            "postgresql",
            "people",
            {"host": "db.example.org", "port": 5433, "user": "hub", "password": "p@ss",
             "sslmode": "require"},
            "postgresql://hub@db.example.org:5433/people",
        ),
        (
            "postgres+psycopg2:///people?host=/run/postgresql",
            "postgresql",
            "people",
            {"host": "/run/postgresql"},
            "postgresql:///people",
        ),
        (
            "mysql+pymysql://hub@localhost/people?unix_socket=/run/my.sock",
            "mysql",
            "people",
            {"host": "localhost", "user": "hub", "unix_socket": "/run/my.sock"},
            "mysql://hub@localhost/people",
        ),
        ("mariadb://h:3307/p", "mysql", "p", {"host": "h", "port": 3307}, "mysql://h:3307/p"),
    ],
)  # fmt: skip
def test_servers(url, kind, name, params, shown):
    place = dburl.parse(url)
    assert (place.kind, place.name, dict(place.params), place.shown) == (kind, name, params, shown)
    assert "p@ss" not in repr(place) and "p%40ss" not in repr(place)


@pytest.mark.parametrize(
    "url, told",
    [
        ("oracle://x/y", "oracle:// is no database this hub can open"),
        ("postgresql+nodriver://x/y", "is no database this hub can open"),
        ("sqlite://file.db", "followed by /FILE"),
        ("mysql://host", "name of the database is missing"),
        ("postgresql://host/", "name of the database is missing"),
        ("postgresql://host:99999/x", "not a URL"),
    ],
)
def test_wrong_urls_are_refused_in_words(url, told):
    with pytest.raises(ValueError, match=told):
        dburl.parse(url)


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"connect_args": {"timeout": 5, "check_same_thread": False}, "echo": True},
        {"pool_size": 0, "max_overflow": -1, "pool_recycle": 300, "pool_timeout": 1.5},
        {"poolclass": object(), "isolation_level": "SERIALIZABLE", "pool_pre_ping": True},
    ],
)
def test_known_arguments_are_taken(kwargs):
    assert list(dburl.problems("x.db", kwargs)) == []


@pytest.mark.parametrize(
    "kwargs, told",
    [
        ({"pool_sise": 1}, 'Did you mean "pool_size"'),
        ({"zzz": 1}, '"zzz" is no argument of create_engine; known are'),
        ({"pool_size": True}, "pool_size cannot be True"),
        ({"pool_size": "3"}, "pool_size cannot be '3'"),
        ({"connect_args": [1]}, "connect_args cannot be"),
        ({"connect_args": {"host": "x"}}, '"host" means nothing to SQLite'),
        ({"connect_args": {"timeout": "x"}}, "timeout cannot be 'x'"),
    ],
)
def test_wrong_arguments_are_named(kwargs, told):
    ((option, what),) = dburl.problems("x.db", kwargs)
    assert option == "db_kwargs" and told in what


def test_driver_arguments_of_servers_are_the_drivers_business():
    kwargs = {"connect_args": {"application_name": "hub"}}
    assert list(dburl.problems("postgresql://h/x", kwargs)) == []


def test_arguments_without_effect_are_remarked():
    kwargs = {"poolclass": object(), "pool_size": 3}
    assert len(list(dburl.remarks("x.db", kwargs))) == 2
    assert len(list(dburl.remarks("postgresql://h/x", kwargs))) == 1
    assert list(dburl.remarks("oracle://x", kwargs)) == []
