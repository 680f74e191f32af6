"""The pool of warm parents: what it tells, renews and gives up."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace

import psutil
import pytest
from harness import FAKE_SERVER, until

from minihub import process, warm, warmpool
from minihub.warm import NotWarm, Plan

PATH = f"{os.path.dirname(sys.executable)}:/usr/bin:/bin"
OWN = tuple(
    """HOME JPY_API_TOKEN JUPYTERHUB_ACTIVITY_URL JUPYTERHUB_API_TOKEN JUPYTERHUB_API_URL
    JUPYTERHUB_CLIENT_ID JUPYTERHUB_OAUTH_ACCESS_SCOPES JUPYTERHUB_OAUTH_CALLBACK_URL
    JUPYTERHUB_SERVICE_PREFIX JUPYTERHUB_SERVICE_URL JUPYTERHUB_USER USER""".split()
)


pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def plan(tmp_path):
    file = tmp_path / "bin" / "small-server"
    file.parent.mkdir()
    file.write_text(f"#!{sys.executable}\n" + FAKE_SERVER.read_text())
    file.chmod(0o755)
    return Plan(warm.find_command(str(file), PATH), env={"PATH": PATH}, own_names=OWN)


@pytest.fixture
def pool(tmp_path):
    with warmpool.kept(tmp_path / "warm") as found:
        yield found
    assert warmpool.pool() is None and warmpool.states() == []


@pytest.fixture
def start(pool, plan, tmp_path):
    """Start a program of the plan's from the pool; it ends at once or sleeps."""
    started = []

    def run(mode="mute"):
        env = plan.env | {name: "[]" for name in OWN} | {"HOME": str(tmp_path), "FAKE_MODE": mode}
        started.append(
            pool.start_server(
                plan,
                [plan.command.script],
                env=env,
                cwd=tmp_path,
                log_path=tmp_path / "logs" / "it.log",
                launch=process.LaunchSpec(),
                timeout_s=20,
            )
        )
        return started[-1]

    yield run
    for one in started:
        one.stop(0, 0, 10)


def state():
    (one,) = warmpool.states()
    return one


def wait_warm():
    return until(lambda: state().state == "warm" and state(), 240)


def test_state_tells_what_there_is_and_what_it_saves(pool, plan, start):
    with pytest.raises(NotWarm, match="its parent is not warm yet"):
        start()
    first = state()
    assert (first.program, first.state, first.warm_starts) == (plan.command.script, "warming", 0)
    found = wait_warm()
    assert found.reason == "" and found.modules > 100 and found.since is not None
    assert found.memory_bytes > 5 * 2**20 and psutil.pid_exists(found.pid)
    assert (found.servers, found.saved_bytes) == (0, 0)
    for _ in range(3):
        start()
    found = state()
    assert (found.warm_starts, found.cold_starts, found.servers) == (3, 1, 3)
    assert 2**20 < found.saved_bytes < 3 * found.memory_bytes


def test_parent_is_renewed_every_day_without_a_cold_start(pool, start, monkeypatch):
    with pytest.raises(NotWarm):
        start()
    old = wait_warm().pid
    one = start()
    monkeypatch.setattr(warmpool, "LIFETIME_S", 0.0)
    until(lambda: state().pid not in (0, old), 240)
    monkeypatch.undo()
    other = start()
    assert psutil.Process(one.identity.pid).ppid() == old
    assert psutil.Process(other.identity.pid).ppid() == state().pid != old
    one.stop(0, 0, 10)
    assert one.poll() == -9  # the old one has told
    until(lambda: not psutil.pid_exists(old))
    assert state().cold_starts == 1


def test_servers_that_end_at_once_make_a_program_cold_until_it_changes(pool, plan, start, tmp_path):
    with pytest.raises(NotWarm):
        start()
    wait_warm()
    pool.blame(plan)
    assert state().state == "warm"
    pool.blame(plan)
    with pytest.raises(NotWarm, match="servers that it started ended before they answered"):
        start()
    assert state().state == "cold"
    script = tmp_path / "bin" / "small-server"
    script.write_text(script.read_text() + "\n")
    wait_warm()
    assert start().poll() is None


def test_unfit_module_is_left_out_with_those_that_import_it(plan, tmp_path, caplog):
    """The rest is warm; what was found out is remembered; each server imports the module itself."""
    lib = tmp_path / "lib"
    lib.mkdir()
    (lib / "copies.py").write_text("import os\nall = dict(os.environ)\n")
    (lib / "between.py").write_text("from copies import all\n")
    (lib / "outer.py").write_text("import between, fit\n")
    (lib / "fit.py").write_text("")
    (lib / "keeps.py").write_text("import os\nhome = os.path.expanduser('~/x')\n")
    (lib / "opens.py").write_text("file = open('/etc/passwd')\n")
    script = tmp_path / "bin" / "small-server"
    words = "from between import all\nimport keeps\nprint(all['HOME'], keeps.home)\n"
    head, mark, rest = script.read_text().partition("import json\n")
    script.write_text(head + words + mark + rest)
    env = plan.env | {"PYTHONPATH": str(lib)}
    names = ("fit", "outer", "keeps", "opens", "no_such_module")
    plan = replace(plan, env=env, preload=names)
    expected = ("between", "copies", "keeps", "no_such_module", "opens", "outer")
    for again in (False, True):
        caplog.clear()
        with warmpool.kept(tmp_path / "warm") as pool, caplog.at_level("INFO", "minihub.warm"):
            pool.ask_for(plan)
            assert wait_warm().left_out == expected
            log = tmp_path / "logs" / "it.log"
            one = pool.start_server(
                plan,
                [str(script)],
                env=env | {name: "[]" for name in OWN} | {"HOME": "/a", "FAKE_MODE": "exit"},
                cwd=tmp_path,
                log_path=log,
                launch=process.LaunchSpec(),
                timeout_s=20,
            )
            until(lambda one=one: one.poll() is not None)
            assert "/a /a/x" in log.read_text()
        assert ("gets warm without" in caplog.text) is not again, caplog.text


def test_throw_away_start_cannot_fill_the_disk_with_its_log(plan, tmp_path):
    script = tmp_path / "bin" / "small-server"
    script.write_text(f"#!{sys.executable}\nwhile True:\n    print('x' * 2**20, flush=True)\n")
    directory = process.private_directory(tmp_path / "warm")
    for _ in range(2):
        with pytest.raises(NotWarm, match="its throw-away start ended"):
            warm.learn(plan, directory)
        assert 2**20 < (directory / "learn.log").stat().st_size < 2**27


def test_people_who_start_cold_go_first(pool, plan, start, monkeypatch):
    monkeypatch.setattr(warmpool, "PATIENCE_S", 3.0)
    with pool.cold_start():
        began = time.monotonic()
        with pytest.raises(NotWarm):
            start()
        wait_warm()  # it is worth while to go on at last
        assert time.monotonic() - began > 3.0


def test_crowd_that_waits_for_a_parent_goes_first(pool, plan, start, monkeypatch):
    """What gets warm is held back no longer, however many start cold."""
    monkeypatch.setattr(warmpool, "PATIENCE_S", 10000.0)

    def states():
        return [one.status() for one in psutil.Process().children()]

    with pool.cold_start():
        with pytest.raises(NotWarm):
            start()
        until(lambda: psutil.STATUS_STOPPED in states(), 60)
        assert pool.soon(is_crowd=False)
        assert psutil.STATUS_STOPPED in states()
        assert pool.soon(is_crowd=True)
        wait_warm()
        until(lambda: not pool.soon(is_crowd=True), 10)  # nothing has to be waited for
        assert start().poll() is None


def test_nobody_waits_for_the_parent_of_tomorrow(pool, start, monkeypatch):
    """Servers start warm while another parent is made in the place of one there is."""
    with pytest.raises(NotWarm):
        start()
    wait_warm()
    answers = []
    real = warmpool.WarmParent.start

    def watched(*args):
        answers.append(pool.soon(is_crowd=True))
        return real(*args)

    monkeypatch.setattr(warmpool.WarmParent, "start", watched)
    monkeypatch.setattr(warmpool, "LIFETIME_S", 0.0)
    until(lambda: answers, 60)
    assert answers[0] is False


def test_too_little_free_memory_keeps_a_program_cold(pool, start, monkeypatch):
    monkeypatch.setattr(warmpool.machine, "free_memory_bytes", lambda: 2**20)
    with pytest.raises(NotWarm):
        start()
    until(lambda: state().reason == "too little memory is free")
    assert (state().state, state().pid) == ("cold", 0)


def test_leftovers_of_a_hub_that_was_killed_are_removed(tmp_path):
    for name in ("learn-abc", "minihub-stand-in-abc"):
        (tmp_path / "warm" / name / "inside").mkdir(parents=True)
    with warmpool.kept(tmp_path / "warm"):
        assert os.listdir(tmp_path / "warm") == []
        assert (tmp_path / "warm").stat().st_mode & 0o077 == 0
