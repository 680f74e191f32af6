"""JupyterHub's own database is taken over: people stay who they are, tokens keep working."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT

from minihub import models, sqlitefiles, tokens
from minihub.store import Store

PROGRAM = [sys.executable, str(ROOT / "minihub" / "__main__.py")]

#: What JupyterHub's own code makes of its database; prints the tokens.
MADE_BY_JUPYTERHUB = """
import json, sys
from datetime import timedelta
from jupyterhub import orm, roles

db = orm.new_session_factory("sqlite:///" + sys.argv[1])()
for role in roles.get_default_roles():
    roles.create_role(db, role)
db.add(orm.OAuthClient(identifier="jupyterhub", secret="", redirect_uri=""))
ada = orm.User(name="ada", admin=True)
ben = orm.User(name="ben")
zoe = orm.User(name="zo\\u00eb w")
ben.encrypted_auth_state = b"gAAAAAB-sealed"
club = orm.Group(name="club", properties={"room": 7})
club.users.append(ben)
robot = orm.Service(name="robot", admin=True)
db.add_all([ada, ben, zoe, club, robot])
db.commit()
for one in (ada, ben, zoe, robot):
    roles.assign_default_roles(db, entity=one)
roles.create_role(db, {"name": "teacher", "scopes": ["list:users"]})
roles.grant_role(db, entity=ben, rolename="teacher")
db.add(orm.Spawner(name="lab", display_name="My lab", user=ben, user_options={"size": 2}))
db.add(orm.Spawner(name="Big Data", user=ben))
db.add(orm.Spawner(name="", user=ada, server=orm.Server(port=1234), state={"pid": 1}))
db.commit()
print(json.dumps({
    "all": ada.new_api_token(note="all"),
    "few": ben.new_api_token(note="few", scopes=["read:users:name!user"]),
    "old": ben.new_api_token(note="old", expires_in=1),
    "long": ben.new_api_token(note="long", expires_in=10**6),
    "chosen": ada.new_api_token(token="a-password-like-token", generated=False),
    "service": robot.new_api_token(),
    "server": ben.new_api_token(note="Server at /user/ben/"),
    "login": ben.new_api_token(session_id="s1"),
}))
db.commit()
"""


@pytest.fixture
def made(tmp_path, lab_bin):
    """A database of the installed JupyterHub; returns (path, tokens)."""
    path = tmp_path / "hub" / "jupyterhub.sqlite"
    path.parent.mkdir()
    done = subprocess.run(
        [str(lab_bin / "python"), "-c", MADE_BY_JUPYTERHUB, str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return path, json.loads(done.stdout.splitlines()[-1])


def minihub(directory: Path, *args: str) -> tuple[int, str]:
    done = subprocess.run(
        [*PROGRAM, *args], cwd=directory, capture_output=True, text=True, timeout=60, check=False
    )
    told = done.stdout + done.stderr
    assert "Traceback" not in told and "internal error" not in told, told
    return done.returncode, told


def query(path: Path, sql: str) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute(sql).fetchall()


@pytest.mark.notebook
def test_jupyterhubs_database_becomes_ours_in_its_place(made, start_hub):
    path, secrets = made
    before = path.read_bytes()
    code, told = minihub(path.parent, "import-jupyterhub", path.name)
    assert code == 0, told
    assert "3 users (1 admins), 1 groups, 6 tokens, 2 named servers" in told
    assert "1 named servers have names that no new one may have" in told
    assert "1 servers still belong to JupyterHub" in told and "1 roles given" in told
    (kept,) = path.parent.glob("jupyterhub.sqlite.jupyterhub-*")
    assert str(kept) in told and kept.read_bytes() == before
    assert sqlitefiles.problems(path) == "" and path.stat().st_mode & 0o777 == 0o600
    assert query(path, "SELECT name, admin FROM users ORDER BY name") == [
        ("ada", 1), ("ben", 0), ("zo\u00eb w", 0),
    ]  # fmt: skip
    assert query(path, "SELECT auth_state FROM users WHERE name = 'ben'") == [("gAAAAAB-sealed",)]
    assert query(path, "SELECT display_name, user_options FROM servers") == [
        ("My lab", '{"size":2}'),
        ("", "{}"),
    ]

    hub = start_hub(
        {"JupyterHub": {"services": [{"name": "robot"}]}, "Authenticator": {"admin_users": []}},
        directory=path.parent,
    )
    assert hub.api("user", secrets["all"]).json()["admin"] is True
    assert hub.api("user", secrets["chosen"]).json()["name"] == "ada"
    assert hub.api("users", secrets["all"]).status_code == 200
    few = hub.api("user", secrets["few"]).json()
    assert few["name"] == "ben" and few["scopes"] == [
        "read:users:groups!user=ben",
        "read:users:name!user=ben",
    ]
    assert hub.api("users", secrets["few"]).status_code == 403
    assert hub.api("user", secrets["long"]).json()["name"] == "ben"
    assert hub.api("user", secrets["service"]).json()["name"] == "robot"
    for gone in ("old", "server", "login"):
        assert hub.api("user", secrets[gone]).status_code == 403
    group = hub.api("groups/club", secrets["all"]).json()
    assert group["users"] == ["ben"] and group["properties"] == {"room": 7}


@pytest.mark.notebook
def test_other_name_leaves_jupyterhubs_file_as_it_is(made):
    path, _secrets = made
    before = path.read_bytes()
    code, told = minihub(path.parent, "import-jupyterhub", path.name, "--db=new.sqlite")
    assert code == 0 and "stays as it is" in told
    assert path.read_bytes() == before
    assert query(path.parent / "new.sqlite", "SELECT count(*) FROM users") == [(3,)]
    # Twice would be a second truth.
    code, told = minihub(path.parent, "import-jupyterhub", path.name, "--db=new.sqlite")
    assert code == 1 and "has users already" in told


@pytest.mark.notebook
def test_database_that_jupyterhub_holds_open_is_refused(made, lab_bin):
    path, _secrets = made
    holding = (
        "import sys, sqlite3; db = sqlite3.connect(sys.argv[1]); db.execute('SELECT 1 FROM users');"
        "print(flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [str(lab_bin / "python"), "-c", holding, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        other.stdout.readline()
        code, told = minihub(path.parent, "import-jupyterhub", path.name)
    finally:
        other.communicate()
    assert code == 4 and f"(process {other.pid})" in told


# -- an old one --------------------------------------------------------------------------------

SCHEMA_OF_0_8 = """
CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL);
INSERT INTO alembic_version VALUES ('3ec6993fe20c');
CREATE TABLE servers (id INTEGER PRIMARY KEY, proto VARCHAR(15), ip VARCHAR(255), port INTEGER,
  base_url VARCHAR(255), cookie_name VARCHAR(255));
CREATE TABLE groups (id INTEGER PRIMARY KEY, name VARCHAR(1023) UNIQUE);
CREATE TABLE users (id INTEGER PRIMARY KEY, name VARCHAR(1023), admin BOOLEAN,
  last_activity DATETIME, cookie_id VARCHAR(1023) NOT NULL, state BLOB, encrypted_auth_state BLOB);
CREATE TABLE user_group_map (user_id INTEGER NOT NULL, group_id INTEGER NOT NULL);
CREATE TABLE spawners (id INTEGER PRIMARY KEY, user_id INTEGER, server_id INTEGER, state BLOB,
  name VARCHAR(512), last_activity DATETIME);
CREATE TABLE services (id INTEGER PRIMARY KEY, name VARCHAR(1023) UNIQUE, admin BOOLEAN,
  _server_id INTEGER, pid INTEGER);
CREATE TABLE api_tokens (user_id INTEGER, service_id INTEGER, id INTEGER PRIMARY KEY,
  hashed VARCHAR(1023), prefix VARCHAR(1023));
INSERT INTO users VALUES (1, 'ada', 1, '2018-03-04 05:06:07.000008', 'c1', '{}', NULL);
INSERT INTO users VALUES (2, 'ben', 0, NULL, 'c2', '{}', NULL);
INSERT INTO groups VALUES (1, 'club');
INSERT INTO user_group_map VALUES (2, 1), (99, 1);
INSERT INTO spawners VALUES (1, 1, NULL, '{}', '', NULL);
INSERT INTO services VALUES (1, 'robot', 1, NULL, NULL);
"""


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "hub" / "jupyterhub.sqlite"
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(SCHEMA_OF_0_8)
        for number, (user, service) in enumerate([(1, None), (None, 1), (77, None)]):
            secret = f"{number}" * 32
            hashed = tokens.hash_token(secret, rounds=16384)
            db.execute(
                "INSERT INTO api_tokens VALUES (?, ?, ?, ?, ?)",
                (user, service, number + 1, hashed, secret[:4]),
            )
        db.commit()
    return path


def test_database_of_the_0_8_era_is_taken_over(old, start_hub):
    code, told = minihub(old.parent, "import-jupyterhub", str(old))
    assert code == 0 and "2 users (1 admins), 1 groups, 2 tokens" in told, told
    hub = start_hub({"Authenticator": {"admin_users": []}}, directory=old.parent)
    ada = hub.api("user", "0" * 32).json()
    assert ada["name"] == "ada" and ada["admin"] is True
    assert ada["last_activity"] >= "2018-03-04"
    assert hub.api("user", "2" * 32).status_code == 403


# -- what is not one ---------------------------------------------------------------------------


def ours(path):
    store = Store(str(path))
    store.open()
    with store.transaction():
        models.User.create(name="ada", created="x")
    store.close()


def other(path):
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE something (x)")
        db.commit()


@pytest.mark.parametrize(
    ("make", "expected", "words"),
    [
        (ours, 5, "is minihub's own database"),
        (other, 5, "is not a database of JupyterHub's"),
        (lambda path: path.write_text("text " * 999), 1, "damaged"),
        (lambda path: None, 1, "there is no such file"),
    ],
    ids=["ours", "other", "text", "absent"],
)
def test_file_that_is_not_jupyterhubs_is_named(tmp_path, make, expected, words):
    make(tmp_path / "x.sqlite")
    code, told = minihub(tmp_path, "import-jupyterhub", "x.sqlite")
    assert code == expected and words in told and "x.sqlite" in told, told
    assert not (tmp_path / "jupyterhub.sqlite").exists()
    assert not list(tmp_path.glob("*importing*"))


def test_row_that_cannot_be_taken_leaves_everything_as_it_was(old):
    with contextlib.closing(sqlite3.connect(old)) as db:
        db.execute("INSERT INTO users VALUES (3, 'ada', 0, NULL, 'c3', '{}', NULL)")
        db.commit()
    before = old.read_bytes()
    code, told = minihub(old.parent, "import-jupyterhub", str(old))
    assert code == 1 and "cannot be taken over" in told
    assert old.read_bytes() == before
    assert {path.name for path in old.parent.iterdir()} <= {"jupyterhub.sqlite"}
