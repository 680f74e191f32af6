"""The verbs for tokens, users, servers and the database: with a running hub and without one."""

from __future__ import annotations

import getpass
import io
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from admin_tools import PROGRAM, Admin
from harness import DEFAULTS, HubProcess

from minihub import cli

NOBODY = 65534


@pytest.fixture(scope="module")
def admin(hub):
    return Admin(hub)


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """The directory of a hub that has run and ended."""
    hub = HubProcess(tmp_path_factory.mktemp("ended")).wait_ready()
    assert hub.stop() == 0
    return hub.directory


@pytest.fixture
def rested(ended, tmp_path):
    """A copy of that directory for each test."""
    return SimpleNamespace(directory=Path(shutil.copytree(ended, tmp_path / "rested")))


def run(hub, *arguments, input=""):
    """Run a verb in the hub's directory, as a process would but in this one."""
    out, err, before, stdin = io.StringIO(), io.StringIO(), os.getcwd(), sys.stdin
    os.chdir(hub.directory)
    sys.stdin = io.StringIO(input)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = cli.main(arguments)
    finally:
        sys.stdin = stdin
        os.chdir(before)
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())


def run_process(hub, *arguments, **kwargs):
    """Run a verb in the hub's directory as a process."""
    done = subprocess.run(
        [*PROGRAM, *arguments], cwd=hub.directory, capture_output=True, text=True, **kwargs
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done


def outcome(done):
    return done.returncode, done.stdout, done.stderr


def services(hub):
    with sqlite3.connect(hub.directory / "jupyterhub.sqlite") as database:
        names = [name for (name,) in database.execute("SELECT name FROM services")]
    database.close()
    return names


def whoami(hub, token):
    headers = {"Authorization": f"token {token}"}
    return requests.get(hub.url + "hub/api/user", headers=headers, timeout=10)


# -- token ------------------------------------------------------------------------------------


def test_token_is_printed_alone_and_works(hub):
    done = run_process(hub, "token", "root-admin")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"[0-9a-f]{64}\n", done.stdout)
    assert whoami(hub, done.stdout.strip()).json()["name"] == "root-admin"


def test_token_may_expire_be_noted_and_narrowed(hub, admin):
    done = run(hub, "token", "root-admin", "--expires-in=1h", "--note", "for cron",
               "--scopes=list:users, read:servers")  # fmt: skip
    model = whoami(hub, done.stdout.strip()).json()
    assert "read:servers" in model["scopes"] and "admin:users" not in model["scopes"]
    tokens = admin.call("GET", "/users/root-admin/tokens").json()["api_tokens"]
    [row] = [one for one in tokens if one["note"] == "for cron"]
    assert row["expires_at"] is not None
    assert admin.call("GET", "/users").status_code == 200


def test_token_is_for_the_user_of_ones_own_name_by_default(hub, admin):
    me = getpass.getuser()
    done = run(hub, "token")
    hint = "It is your own name; for others: token USER"
    assert outcome(done) == (1, "", f"minihub: No such user: {me}\n{hint}\n")
    admin.call("POST", f"/users/{me}")
    assert whoami(hub, run(hub, "token").stdout.strip()).json()["name"] == me


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nobody-of-this-name"], 1, "No such user: nobody-of-this-name"),
        (["a", "b"], 1, "one user at most"),
        (["root-admin", "--scopes=list:user"], 2, 'there is no scope "list:user"'),
        (["root-admin", "--expires-in=soon"], 2, "'soon' is no duration"),
        (["root-admin", "--expires-in=0"], 2, "of no use"),
        (["root-admin", "--expire-in=1"], 2, 'Did you mean "--expires-in"?'),
    ],
)
def test_wrong_token_is_told(hub, arguments, code, said):
    done = run(hub, "token", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr


def test_token_is_made_without_a_hub_and_works_when_it_runs(rested, start_hub):
    token = run(rested, "token", "root-admin").stdout.strip()
    hub = start_hub(directory=rested.directory)
    assert whoami(hub, token).json()["name"] == "root-admin"


# -- admin link --------------------------------------------------------------------------------

LINK = re.compile(r"http://[^/]+(?P<path>/hub/login\?owner=\S+)\n")


@pytest.fixture
def somebody():
    name = f"mh{os.getpid()}"
    subprocess.run(["useradd", "--no-create-home", "--shell", "/bin/sh", name], check=True)
    yield name
    subprocess.run(["userdel", name], check=True)


@pytest.mark.root
def test_admin_link_leads_to_the_running_hub_and_makes_an_admin_on_any_hub(start_hub, somebody):
    hub = start_hub({"JupyterHub": {"spawner_class": "localprocess"}})
    done = run_process(hub, "admin", "link", env=os.environ | {"SUDO_USER": ""})
    assert done.returncode == 0 and done.stdout.startswith(hub.url)  # a port nobody configured
    path = LINK.match(done.stdout)["path"]
    browser = hub.browser()
    page = browser.get(path).text
    assert "Make this hub yours" in page and "A new hub" not in page
    for unfit, why in (("root", "cannot be root"), ("daemon", "nobody logs in with it")):
        answer = browser.submit(path, {"username": unfit})
        assert answer.status_code == 400 and why in answer.text
    answer = browser.submit(path, {"username": somebody})
    assert (answer.status_code, answer.headers["Location"]) == (302, "/hub/home")
    assert browser.get("/hub/admin").status_code == 200
    assert hub.browser().get(path).status_code == 403  # once


@pytest.mark.root
def test_owner_of_a_hub_without_system_users_chooses_a_name(hub):
    path = LINK.match(run(hub, "admin", "link").stdout)["path"]
    browser = hub.browser()
    assert "on this computer" not in browser.get(path).text
    answer = browser.submit(path, {"username": "a/b"})
    assert answer.status_code == 400 and "it contains a slash" in answer.text
    answer = browser.submit(path, {"username": "Miss-Liu"})
    assert (answer.status_code, answer.headers["Location"]) == (302, "/hub/home")
    assert "miss-liu" in browser.get("/hub/admin").text


def test_admin_link_without_a_hub_says_that_it_must_run(rested):
    done = run(rested, "admin", "link")
    assert done.returncode == 0 and LINK.match(done.stdout)
    assert done.stdout.endswith("The hub is not running: start it to use the link.\n")


def test_start_names_the_way_to_an_owner_while_there_is_none(start_hub):
    people = {"Authenticator": {"admin_users": [], "allowed_users": ["ana"]}}
    hub = start_hub(people)
    hub.wait_text("no owner yet; a link that makes you one: minihub.pyz admin link")
    assert "owner=" not in hub.text
    assert run(hub, "user", "add", "--admin", "ben").returncode == 0
    hub.stop()
    hub = start_hub(people, directory=hub.directory)
    assert hub.text.count("no owner yet") == 1


# -- users ------------------------------------------------------------------------------------


def test_users_are_added_listed_and_removed_over_the_hub(hub, admin):
    assert outcome(run(hub, "user", "add", "Ana", "ben", "ana")) == (
        0, "Added ana.\nAdded ben.\n", "",
    )  # fmt: skip
    assert outcome(run(hub, "user", "add", "ana", "cyd")) == (
        1, "ana is a user already.\nAdded cyd.\n", "",
    )  # fmt: skip
    assert run(hub, "user", "add", "ana").stdout == "ana is a user already.\n"
    assert run(hub, "user", "add", "--admin", "boss").returncode == 0
    assert admin.call("GET", "/users/boss").json()["admin"]
    admin.start("ana")
    rows = {row["name"]: row for row in json.loads(run(hub, "user", "list", "--json").stdout)}
    assert rows["ana"]["servers"] == [""] and not rows["ana"]["admin"] and rows["boss"]["admin"]
    table = run(hub, "user", "list").stdout.splitlines()
    assert table[0].split() == (
        ["USER", "ADMIN", "CREATED", "(UTC)", "LAST", "ACTIVITY", "(UTC)", "SERVERS"]
    )
    assert any(re.fullmatch(r"ana +\d{4}-.* +\(default\)", line) for line in table)
    assert any(re.fullmatch(r"boss +yes +\d{4}-.* +-", line) for line in table)
    assert outcome(run(hub, "user", "rm", "ana", "nobody", "ben", "no/body")) == (
        1,
        "Removed ana.\nRemoved ben.\n",
        "minihub: No such user: nobody\nNo such user: no/body\n",
    )
    assert admin.call("GET", "/users/ana").status_code == 404
    assert outcome(run(hub, "user", "rm", "ana")) == (1, "", "minihub: No such user: ana\n")
    # A user name is a path's part: it must not lead to another one.
    assert run(hub, "user", "rm", "cyd/server").stderr == "minihub: No such user: cyd/server\n"


def test_name_that_cannot_be_is_told(hub, rested):
    for one in (hub, rested):
        done = run(one, "user", "add", "good", "not/good")
        assert done.returncode == 1 and "not/good" in done.stderr
        assert "good" not in run(one, "user", "list").stdout
    done = run(hub, "server", "start", "root-admin", "a/b")
    assert outcome(done) == (1, "", "minihub: No such server: root-admin/a/b\n")


def test_command_leaves_nothing_behind_in_the_hub(hub):
    run(hub, "user", "list")
    run(hub, "server", "stop", "nobody")
    assert not [name for name in services(hub) if name.startswith("command-line-")]


def test_users_without_a_hub(rested):
    assert outcome(run(rested, "user", "add", "Ana", "root-admin")) == (
        1, "Added ana.\nroot-admin is a user already.\n", "",
    )  # fmt: skip
    names = [row["name"] for row in json.loads(run(rested, "user", "list", "--json").stdout)]
    assert names == ["ana", "root-admin"]
    assert outcome(run(rested, "user", "rm", "nobody", "ana")) == (
        1, "Removed ana.\n", "minihub: No such user: nobody\n",
    )  # fmt: skip
    assert outcome(run(rested, "user", "rm", "ana")) == (1, "", "minihub: No such user: ana\n")


def test_password_where_none_is_kept_is_told(hub):
    done = run(hub, "user", "passwd", "root-admin", input="secret\n")
    assert outcome(done) == (
        1, "",
        "minihub: DummyAuthenticator keeps no passwords of its own, so there is none to set here\n",
    )  # fmt: skip


KEEPER = """
from minihub.auth.simple import DummyAuthenticator

class Keeper(DummyAuthenticator):
    def set_password(self, name, password):
        if len(password) < 4:
            raise ValueError("a password has four characters at least")
        with open("passwords", "a") as file:
            file.write(f"{name} {password}")

c = get_config()
c.JupyterHub.authenticator_class = Keeper
"""


def test_password_is_handed_to_an_authenticator_that_keeps_it(rested):
    (rested.directory / "keeper.py").write_text(KEEPER)

    def passwd(name, text):
        return run(rested, "user", "passwd", name, "--config=keeper.py", input=text)

    assert outcome(passwd("root-admin", "hush\n")) == (0, "root-admin has a new password.\n", "")
    assert (rested.directory / "passwords").read_text() == "root-admin hush"
    assert passwd("nobody", "hush\n").stderr == "minihub: No such user: nobody\n"
    done = passwd("root-admin", "x\n")
    assert (done.returncode, done.stderr) == (
        1,
        "minihub: a password has four characters at least\n",
    )


# -- servers ----------------------------------------------------------------------------------


def test_server_is_started_listed_read_and_stopped(hub, admin):
    run(hub, "user", "add", "eva")
    done = run(hub, "server", "start", "eva")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"eva is ready at {hub.url}user/eva/"
    done = run(hub, "server", "start", "eva")
    assert done.returncode == 1 and "already running" in done.stderr
    [row] = [
        r for r in json.loads(run(hub, "server", "list", "--json").stdout) if r["user"] == "eva"
    ]
    assert (row["server"], row["status"], row["url"]) == ("", "ready", "/user/eva/")
    table = run(hub, "server", "list").stdout
    assert re.search(r"^eva +\(default\) +ready +\d{4}-", table, re.MULTILINE)
    assert "fake server starting" in run(hub, "server", "logs", "eva").stdout
    assert outcome(run(hub, "server", "stop", "eva")) == (0, "eva has stopped.\n", "")
    assert admin.servers("eva") == {}
    assert outcome(run(hub, "server", "stop", "eva")) == (1, "", "minihub: eva does not run\n")
    assert "fake server starting" in run(hub, "server", "logs", "eva").stdout


def test_named_server(start_hub):
    hub = start_hub({"JupyterHub": {"allow_named_servers": True}})
    done = run(hub, "server", "start", "root-admin", "second")
    place = f"{hub.url}user/root-admin/second/"
    assert done.stdout.splitlines()[-1] == f"root-admin/second is ready at {place}"
    assert "fake server" in run(hub, "server", "logs", "root-admin", "second").stdout
    done = run(hub, "server", "stop", "root-admin")
    assert outcome(done) == (1, "", "minihub: root-admin does not run\n")
    done = run(hub, "server", "stop", "root-admin", "second")
    assert outcome(done) == (0, "root-admin/second has stopped.\n", "")


def test_start_that_fails_says_what_to_do(start_hub):
    hub = start_hub({"Spawner": {"cmd": ["no-such-program"]}})
    done = run(hub, "server", "start", "root-admin")
    assert done.returncode == 1 and "no-such-program was not found" in done.stderr
    assert "Install it, or name another program in Spawner.cmd." in done.stderr


def test_start_that_fails_ends_with_1_and_its_reason(start_hub):
    hub = start_hub({"Spawner": {"environment": {"FAKE_MODE": "exit"}}})
    done = run(hub, "server", "start", "root-admin")
    assert done.returncode == 1 and "ended" in done.stderr


def test_slow_start_is_followed_to_its_end(start_hub):
    hub = start_hub({"JupyterHub": {"tornado_settings": {"slow_spawn_timeout": 0}}})
    done = run(hub, "server", "start", "root-admin")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "Server requested" and lines[-1].startswith("root-admin is ready at")


def test_who_is_unknown_is_told(hub, rested):
    for one in (hub, rested):
        for verb in ("stop", "logs"):
            done = run(one, "server", verb, "nobody")
            assert outcome(done) == (1, "", "minihub: No such user: nobody\n")
        done = run(one, "server", "logs", "root-admin")
        assert outcome(done) == (1, "", "minihub: root-admin has never been started\n")
    assert run(hub, "server", "start", "nobody").stderr == "minihub: No such user: nobody\n"
    done = run(rested, "server", "start", "root-admin")
    place = rested.directory / "minihub-data"
    told = f"no hub is running with its state in {place}, and only a hub can start servers"
    assert outcome(done) == (1, "", f"minihub: {told}\n")


def test_log_is_followed_until_ctrl_c(hub, admin):
    admin.start("writer")
    command = [*PROGRAM, "server", "logs", "writer", "-f"]
    log = hub.directory / "minihub-data" / "logs" / "writer.log"
    follower = subprocess.Popen(
        command,
        cwd=hub.directory,
        stdout=subprocess.PIPE,
        text=True,
        # What runs in the background of a shell ignores it, and so does what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert "fake server" in follower.stdout.readline()
        with open(log, "a") as file:
            file.write("\x1b[31mone\x07 more\n")
        assert follower.stdout.readline() == "one more\n"
        log.rename(log.with_suffix(".old"))
        log.write_text("anew\n")
        assert follower.stdout.readline() == "anew\n"
        follower.send_signal(signal.SIGINT)
        assert follower.wait(10) == 0
    finally:
        follower.kill()
        follower.communicate()


def test_server_left_running_is_found_and_stopped_without_a_hub(start_hub):
    hub = start_hub({"JupyterHub": {"cleanup_servers": False}})
    admin = Admin(hub)
    admin.start("stays")
    assert hub.stop() == 0
    [row] = json.loads(run(hub, "server", "list", "--json").stdout)
    assert (row["user"], row["server"], row["status"]) == ("stays", "", "left running")
    rows = {row["name"]: row for row in json.loads(run(hub, "user", "list", "--json").stdout)}
    assert rows["stays"]["servers"] == [""] and rows["root-admin"]["servers"] == []
    done = run(hub, "user", "rm", "stays")
    assert done.returncode == 1 and "server stop stays\n" in done.stderr
    assert outcome(run(hub, "server", "stop", "stays")) == (0, "stays has stopped.\n", "")
    assert json.loads(run(hub, "server", "list", "--json").stdout) == []
    assert run(hub, "server", "stop", "stays").stderr == "minihub: stays does not run\n"
    again = Admin(start_hub(directory=hub.directory))
    assert again.servers("stays") == {}
    assert run(hub, "user", "rm", "stays").returncode == 0


# -- the database -----------------------------------------------------------------------------


def test_upgrade_db_with_nothing_to_do_says_so_and_copies_nothing(rested):
    before = set(os.listdir(rested.directory))
    done = run(rested, "upgrade-db")
    path = rested.directory / "jupyterhub.sqlite"
    assert done.returncode == 0
    assert done.stdout.startswith(f"{path} is up to date (schema ") or done.stdout.startswith(
        "jupyterhub.sqlite is up to date (schema "
    )
    assert set(os.listdir(rested.directory)) == before


def test_upgrade_db_under_a_running_hub_is_refused(hub):
    done = run(hub, "upgrade-db")
    assert (done.returncode, done.stdout) == (4, "")
    assert f"process {hub.process.pid}" in done.stderr


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        (["CREATE TABLE alembic_version (x)"], "is a JupyterHub database; it was not touched"),
        (["CREATE TABLE songs (x)"], "belongs to another program"),
        (
            [
                "CREATE TABLE minihub_meta (key PRIMARY KEY, value)",
                "INSERT INTO minihub_meta VALUES ('schema_version', '999')",
            ],
            "was written by a newer minihub",
        ),
    ],
)
def test_database_that_is_not_ours_ends_with_5_and_is_not_touched(tmp_path, tables, said):
    path = tmp_path / "jupyterhub.sqlite"
    with sqlite3.connect(path) as database:
        for statement in tables:
            database.execute(statement)
    database.close()
    path.chmod(0o600)
    for verb in (["upgrade-db"], ["token", "ana"], ["user", "list"]):
        done = run(SimpleNamespace(directory=tmp_path), *verb)
        assert (done.returncode, done.stdout) == (5, "")
        assert said in done.stderr
    with sqlite3.connect(path) as database:
        names = database.execute("SELECT count(*) FROM sqlite_master WHERE type='table'")
        assert names.fetchone() == (1,)
    database.close()


@pytest.mark.parametrize(
    "verb", ["token ana", "user list", "user add ana", "server list", "upgrade-db"]
)
def test_no_database_ends_with_3_and_creates_none(tmp_path, verb):
    done = run(SimpleNamespace(directory=tmp_path), *verb.split())
    assert (done.returncode, done.stdout) == (3, "")
    assert f"minihub: there is no database at {tmp_path}/jupyterhub.sqlite" in done.stderr
    assert "run this in the directory it was started in" in done.stderr
    assert os.listdir(tmp_path) == []


def test_database_in_memory_is_out_of_reach(tmp_path):
    done = run(SimpleNamespace(directory=tmp_path), "token", "ana", "--no-db")
    assert done.returncode == 1 and "in memory" in done.stderr


@pytest.mark.root
@pytest.mark.parametrize("verb", ["admin link", "token root-admin", "user list",
                                  "user rm ana", "server list", "server logs root-admin",
                                  "upgrade-db"])  # fmt: skip
@pytest.mark.parametrize("running", [True, False], ids=["running", "without a hub"])
def test_whoever_may_not_read_the_database_ends_with_6(open_hubs, running, verb):
    hub = open_hubs[running]
    as_nobody = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    done = run_process(hub, *verb.split(), env={"HOME": "/nonexistent"}, **as_nobody)
    assert (done.returncode, done.stdout) == (6, "")
    assert "may not be" in done.stderr and "as the user who runs the hub" in done.stderr


@pytest.fixture(scope="module")
def open_hubs():
    """A hub that runs and one that has ended, in directories that anybody may enter."""
    if os.getuid() != 0:
        pytest.skip("needs to run as root")
    base = Path(tempfile.mkdtemp(prefix="minihub-test-"))
    base.chmod(0o755)
    hubs = {}
    for running in (True, False):
        directory = base / str(running)
        hubs[running] = HubProcess(directory, defaults=DEFAULTS).wait_ready()
        directory.chmod(0o755)
    hubs[False].stop()
    yield hubs
    hubs[True].stop()
    shutil.rmtree(base)


def test_what_a_killed_command_left_behind_is_tidied_up(hub):
    with sqlite3.connect(hub.directory / "jupyterhub.sqlite") as database:
        columns = "name, admin, url, info, display, from_config, spec, legacy"
        database.execute(
            f"INSERT INTO services ({columns}) VALUES ('command-line-1-x', 1, '', '{{}}', 0, 1, "
            "'{}', 0)"
        )
    database.close()
    run(hub, "user", "list")
    assert "command-line-1-x" not in services(hub)
