"""The database: where it is, how it is reached, what is told of it."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from databases import MariaDB, Postgres, Server
from harness import ROOT

START_FAILED = 3
SCHEMA = 5


@pytest.fixture(scope="module", params=[Postgres, MariaDB], ids=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    one = request.param()
    yield one
    one.stop()


@pytest.fixture
def hub_on(start_hub: Any, server: Server) -> Any:
    """Start hubs whose database is on the server."""

    def start(config: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        sections = {"JupyterHub": {"db_url": server.url}}
        for section, values in (config or {}).items():
            sections.setdefault(section, {}).update(values)
        return start_hub(sections, **kwargs)

    return start


def day(hub: Any, name: str) -> int:
    """Log in, start a server, use it and stop it; return its process id."""
    browser = hub.browser(name)
    browser.start_server(name)
    page = browser.follow(f"/user/{name}/").json()
    assert page["visitor"]["name"] == name
    browser.submit(f"/hub/stop/{name}", {}, page="/hub/home")
    assert browser.get("/hub/home").status_code == 200
    return page["pid"]


# -- servers -------------------------------------------------------------------------------


def test_hub_lives_on_a_database_server(hub_on, server):
    hub = hub_on()
    day(hub, "ada")
    hub.browser("Ben")
    assert not (hub.directory / "jupyterhub.sqlite").exists()
    assert "secret-word" not in hub.text
    assert hub.stop() == 0, hub.text
    assert "Traceback" not in hub.text

    again = hub_on(directory=hub.directory)
    users = again.browser("root-admin").get("/hub/admin").text
    assert "ada" in users and "ben" in users
    day(again, "ada")


def test_server_that_outlives_the_hub_is_found_again_there(hub_on):
    keep = {"JupyterHub": {"cleanup_servers": False, "cleanup_proxy": False}}
    hub = hub_on(keep)
    browser = hub.browser("eva")
    browser.start_server("eva")
    pid = browser.follow("/user/eva/").json()["pid"]
    assert hub.stop() == 0
    assert psutil.pid_exists(pid)
    again = hub_on(directory=hub.directory)
    browser = again.browser("eva")
    assert browser.follow("/user/eva/").json()["pid"] == pid
    browser.submit("/hub/stop/eva", {}, page="/hub/home")


def test_hub_carries_on_when_the_server_was_away(hub_on, server):
    hub = hub_on()
    browser = hub.browser("ada")
    form = {"_xsrf": browser.xsrf("/hub/token"), "note": "x", "expires_in": "", "scopes": ""}
    server.halt()
    for answer in (browser.get("/hub/home"), browser.post("/hub/token", data=form)):
        assert answer.status_code == 503 and "Nothing that was saved is lost" in answer.text
    server.start()
    deadline = time.monotonic() + 20
    while browser.get("/hub/home").status_code != 200:
        assert time.monotonic() < deadline, hub.text
        time.sleep(0.1)
    assert browser.post("/hub/token", data=form).status_code == 200
    assert "secret-word" not in hub.text


def test_reset_database_has_no_owner_and_the_command_line_reaches_it_too(hub_on):
    hub = hub_on({"JupyterHub": {"reset_db": True}, "Authenticator": {"admin_users": []}})
    program = [sys.executable, str(ROOT / "minihub" / "__main__.py"), "admin", "link"]
    told = subprocess.run(program, cwd=hub.directory, capture_output=True, text=True)
    assert told.returncode == 0 and "hub/login?owner=" in told.stdout, told.stderr
    assert "secret-word" not in told.stdout + told.stderr


def test_pool_size_bounds_the_connections(hub_on, server):
    hub = hub_on(
        {"JupyterHub": {"db_kwargs": {"pool_size": 1, "max_overflow": 1, "pool_timeout": 20}}}
    )
    browsers = [hub.browser(f"u{number}") for number in range(6)]
    seen = []
    threads = [
        threading.Thread(target=lambda one=one: [one.get("/hub/home") for _ in range(5)])
        for one in browsers
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        seen.append(connections(server))
    # One that was closed may still be ending there: it does not last.
    lasting = [min(seen[start : start + 5]) for start in range(max(1, len(seen) - 4))]
    assert 1 <= max(seen) and max(lasting) <= 2


def connections(server: Server) -> int:
    """Return how many connections of the hub the server has."""
    if isinstance(server, Postgres):
        # Without those that ask, this one and the last, which may be about to end.
        sql = (
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
            " AND query NOT LIKE '%pg_stat_activity%'"
        )
        return server.query(sql)[0][0]
    return len([row for row in server.query("SHOW PROCESSLIST") if row[1] == "hub"])


def test_connect_args_reach_the_driver(hub_on, server, start_hub):
    if isinstance(server, Postgres):
        hub_on({"JupyterHub": {"db_kwargs": {"connect_args": {"application_name": "the-hub"}}}})
        sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'the-hub'"
        assert server.query(sql)[0][0] >= 1
    wrong = {"db_url": server.url, "db_kwargs": {"connect_args": {"no_such_argument": 1}}}
    hub = start_hub({"JupyterHub": wrong}, wait=False)
    assert hub.process.wait(30) == START_FAILED
    assert "JupyterHub.db_kwargs" in hub.text and "no_such_argument" in hub.text
    assert "secret-word" not in hub.text and "Traceback" not in hub.text


@pytest.mark.parametrize(
    "url, modules, package",
    [
        ("postgresql://hub:secret-word@localhost/hub", ("psycopg", "psycopg2"), "psycopg2-binary"),
        ("mysql://hub:secret-word@localhost/hub", ("pymysql", "MySQLdb"), "pymysql"),
    ],
)
def test_missing_driver_is_named(start_hub, tmp_path, url, modules, package):
    absent = tmp_path / "absent"
    absent.mkdir()
    for name in modules:
        (absent / f"{name}.py").write_text("raise ImportError('not installed')\n")
    hub = start_hub({"JupyterHub": {"db_url": url}}, wait=False, env={"PYTHONPATH": str(absent)})
    assert hub.process.wait(30) == START_FAILED
    assert "JupyterHub.db_url" in hub.text
    assert f"needs the Python package {package}" in hub.text
    assert f"pip install {package}" in hub.text
    assert "secret-word" not in hub.text and "Traceback" not in hub.text


def test_unreachable_server_is_told_without_the_password(start_hub):
    url = "postgresql://hub:secret-word@127.0.0.1:1/hub"
    hub = start_hub({"JupyterHub": {"db_url": url}}, wait=False)
    assert hub.process.wait(30) == 1
    assert "the database postgresql://hub@127.0.0.1:1/hub cannot be opened" in hub.text
    assert "secret-word" not in hub.text and "Traceback" not in hub.text


# -- SQLite --------------------------------------------------------------------------------


def test_db_url_may_be_a_plain_file_name(start_hub):
    hub = start_hub({"JupyterHub": {"db_url": "people.db"}})
    hub.browser("ada")
    with contextlib.closing(sqlite3.connect(hub.directory / "people.db")) as db:
        assert ("ada",) in db.execute("select name from users").fetchall()
    assert (hub.directory / "people.db").stat().st_mode & 0o777 == 0o600


def test_no_db_keeps_everything_in_memory(start_hub):
    hub = start_hub(args=("--no-db",))
    day(hub, "ada")
    assert hub.stop() == 0
    assert not list(hub.directory.glob("*.sqlite*")) and "Traceback" not in hub.text


def test_connect_args_timeout_bounds_the_wait_for_a_locked_file(start_hub):
    kwargs = {"connect_args": {"timeout": 0.3}}
    hub = start_hub({"JupyterHub": {"db_kwargs": kwargs}})
    browser = hub.browser("ada")
    form = {"_xsrf": browser.xsrf("/hub/token"), "note": "x", "expires_in": "", "scopes": ""}
    with locked(hub.directory / "jupyterhub.sqlite"):
        began = time.monotonic()
        answer = browser.post("/hub/token", data=form)
        took = time.monotonic() - began
    assert answer.status_code == 503 and "Nothing that was saved is lost" in answer.text
    assert 0.3 <= took < 4
    assert "database is locked" in hub.text


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the write lock of an SQLite file, as another program would."""
    other = sqlite3.connect(path, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        yield
    finally:
        other.close()


@pytest.mark.parametrize(
    "kwargs, told",
    [
        ({"pool_sise": 3}, '"pool_sise" is no argument of create_engine. Did you mean "pool_size"'),
        ({"connect_args": {"uri": True}}, 'connect_args: "uri" means nothing to SQLite'),
        ({"pool_size": "many"}, "pool_size cannot be 'many'"),
    ],
)
def test_unknown_database_argument_stops_the_start(start_hub, kwargs, told):
    hub = start_hub({"JupyterHub": {"db_kwargs": kwargs}}, wait=False)
    assert hub.process.wait(30) == START_FAILED
    assert re.search(r"minihub.yaml:\d+:\d+  JupyterHub.db_kwargs: ", hub.text)
    assert told in hub.text and "nothing started" in hub.text


def test_database_argument_without_a_meaning_is_a_warning(start_hub):
    kwargs = {"pool_size": 3, "isolation_level": "SERIALIZABLE"}
    hub = start_hub({"JupyterHub": {"db_kwargs": kwargs}})
    hub.wait_text("db_kwargs: isolation_level is about SQLAlchemy")
    hub.wait_text("db_kwargs: pool_size does nothing with SQLite")


def test_unknown_database_is_refused(start_hub):
    hub = start_hub({"JupyterHub": {"db_url": "oracle://scott:tiger@db/x"}}, wait=False)
    assert hub.process.wait(30) == START_FAILED
    assert "oracle:// is no database this hub can open" in hub.text
    assert "tiger" not in hub.text


def test_database_of_jupyterhub_is_left_alone(start_hub, tmp_path):
    directory = tmp_path / "old"
    directory.mkdir()
    with contextlib.closing(sqlite3.connect(directory / "jupyterhub.sqlite")) as db:
        db.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
    before = (directory / "jupyterhub.sqlite").read_bytes()
    hub = start_hub(directory=directory, wait=False)
    assert hub.process.wait(30) == SCHEMA
    assert "is a JupyterHub database; it was not touched" in hub.text
    assert (directory / "jupyterhub.sqlite").read_bytes() == before


def test_older_database_is_left_alone_without_upgrade_db(start_hub):
    hub = start_hub()
    assert hub.stop() == 0
    file = hub.directory / "jupyterhub.sqlite"
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute("update minihub_meta set value = '0' where key = 'schema_version'")
        db.execute("pragma wal_checkpoint(truncate)")
    before = file.read_bytes()
    for allowed, told in (
        (False, r"written by an older minihub \(schema 0; .* minihub upgrade-db"),
        (True, r"by a minihub that this one does not know \(schema 0\)"),  # there never was one
    ):
        options = {"JupyterHub": {"upgrade_db": allowed}}
        hub = start_hub(options, directory=hub.directory, wait=False)
        assert hub.process.wait(30) == SCHEMA
        assert re.search(told, hub.text) and "Traceback" not in hub.text
        assert file.read_bytes() == before


def test_debug_db_logs_every_statement_and_no_value(start_hub):
    token = "a-token-that-must-not-be-seen"
    config = {"debug_db": True, "log_level": "WARNING", "api_tokens": {token: "ada"}}
    hub = start_hub({"JupyterHub": config})
    headers = {"Authorization": f"token {token}"}
    assert requests.get(hub.url + "hub/api/user", headers=headers, timeout=5).ok
    assert re.search(r'\[minihub.sql\] SELECT .* FROM "api_tokens"', hub.text)
    for statement in ('INSERT INTO "users"', "BEGIN", "COMMIT"):
        assert f"[minihub.sql] {statement}" in hub.text
    assert token not in hub.text and token[:8] not in hub.text
    assert re.search(r"\(\d+\.\d ms\)", hub.text)


def test_echo_is_another_way_to_say_debug_db(start_hub):
    hub = start_hub({"JupyterHub": {"db_kwargs": {"echo": True}, "log_level": "ERROR"}})
    assert "[minihub.sql] SELECT" in hub.text


def test_without_debug_db_no_sql_is_logged_even_at_debug(start_hub):
    hub = start_hub({"JupyterHub": {"log_level": "DEBUG"}})
    day(hub, "ada")
    assert "minihub.sql" not in hub.text and "SELECT" not in hub.text


def test_reset_db_forgets_everybody(start_hub):
    hub = start_hub()
    hub.browser("ada")
    assert hub.stop() == 0
    again = start_hub({"JupyterHub": {"reset_db": True}}, directory=hub.directory)
    assert again.rows("select name from users where name = 'ada'") == []
    assert Path(again.directory / "jupyterhub.sqlite").exists()


def test_db_url_in_a_directory_that_is_not_there_is_refused_by_its_name(start_hub, tmp_path):
    place = tmp_path / "none" / "hub.sqlite"
    hub = start_hub({"JupyterHub": {"db_url": f"sqlite:///{place}"}}, wait=False)
    assert hub.process.wait(60) == 3
    assert f"JupyterHub.db_url: there is no directory {place.parent}" in hub.text
