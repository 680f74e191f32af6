"""Processes are known again, waited for, and ended with all that came of them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import psutil
import pytest

from minihub import launchpad, process, processtable, runtime, startwords
from minihub.errors import ProcessStillAlive, SpawnError, SpawnTimeout
from minihub.process import Identity

ENV = {"PATH": "/usr/bin:/bin"}
#: A descendant that left its session and its parent, and ignores what can be ignored.
ESCAPED = 'trap "" INT TERM; while :; do sleep 0.1; done'


@pytest.fixture(params=["own", "prepared"])
def start(request, tmp_path):
    """Start commands, by a launcher of their own or by a copy of the prepared one.

    Whatever is left of them at the end is killed.
    """
    started = []

    def run(*argv, **kwargs):
        given = {"env": ENV, "cwd": None, "log_path": tmp_path / "logs" / "it.log"} | kwargs
        one = process.start(argv, **given)
        started.append(one)
        return one

    with launchpad.kept() if request.param == "prepared" else contextlib.nullcontext():
        if request.param == "prepared":
            run("true", log_path=tmp_path / "first.log").wait(10)  # has the launcher prepared
        yield run
        for one in started:
            one.stop(0, 0, 10)


def shell(start, script, **kwargs):
    return start("sh", "-c", script, **kwargs)


def until(condition, timeout_s=10.0):
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)
    return value


def pid_in(path: Path) -> int:
    return int(until(lambda: path.exists() and path.read_text().strip()))


# -- starting ------------------------------------------------------------------------------


def test_start_returns_once_the_command_runs_with_its_identity(start, tmp_path):
    one = start("sleep", "60", cwd=tmp_path)
    found = psutil.Process(one.identity.pid)
    assert found.name() == "sleep"
    assert found.create_time() == one.identity.create_time
    assert found.cwd() == str(tmp_path)
    assert found.environ() == ENV | {process.MARKER: one.marker}
    assert os.getsid(found.pid) == found.pid


def test_output_goes_to_a_private_log_in_a_private_directory(start, tmp_path):
    log = tmp_path / "logs" / "it.log"
    shell(start, "echo one; echo two >&2; cat").wait(10)
    shell(start, "echo three").wait(10)
    assert log.read_text() == "one\ntwo\nthree\n"
    assert log.stat().st_mode & 0o777 == 0o600
    assert log.parent.stat().st_mode & 0o777 == 0o700


def test_each_process_has_a_marker_of_its_own(start):
    assert start("true").marker != start("true").marker


def test_missing_program_is_its_own_error_and_leaves_nothing(start):
    before = psutil.Process().children()
    with pytest.raises(
        startwords.CommandNotFound, match=r"no-such-program .*PATH \(/usr/bin:/bin\)"
    ):
        start("no-such-program")
    assert psutil.Process().children() == before


def test_missing_path_is_its_own_error(start):
    with pytest.raises(startwords.CommandNotFound, match=r"/no/such/thing was not found\.$"):
        start("/no/such/thing")


@pytest.mark.parametrize(
    ("argv", "kwargs", "message"),
    [
        (["/etc/passwd"], {}, "The program /etc/passwd cannot be run: Permission denied."),
        (["true"], {"cwd": "/no-dir"}, "The directory /no-dir cannot be entered: No such file"),
        (
            ["true"],
            {"launch": process.LaunchSpec(rlimits={"RLIMIT_NONSENSE": (1, 1)})},
            "The limit RLIMIT_NONSENSE cannot be set",
        ),
        (["true", "a\0b"], {}, "The program .*/true cannot be run: embedded null byte"),
        (["true"], {"log_path": "/proc/no/log"}, "The directory /proc/no cannot be made"),
    ],
)
def test_failed_start_says_what_stood_in_the_way(start, argv, kwargs, message):
    with pytest.raises(SpawnError, match=message):
        start(*argv, **kwargs)


@pytest.mark.parametrize("start", ["own"], indirect=True)
def test_launcher_that_does_not_answer_is_killed(start, monkeypatch, tmp_path):
    pid_file = tmp_path / "pid"
    command = ["sh", "-c", f"echo $$ > {pid_file}; exec sleep 60"]
    monkeypatch.setattr(runtime, "script_command", lambda *_: command)
    with pytest.raises(SpawnTimeout, match=r"true was not started within 0\.5 s"):
        start("true", timeout_s=0.5)
    assert not psutil.pid_exists(pid_in(pid_file))


@pytest.mark.parametrize("start", ["own"], indirect=True)
def test_launcher_that_dies_is_an_error(start, monkeypatch):
    monkeypatch.setattr(runtime, "script_command", lambda *_: ["false"])
    with pytest.raises(SpawnError, match="The launcher failed"):
        start("true")


@pytest.mark.parametrize("start", ["own"], indirect=True)
def test_interpreter_that_is_gone_is_an_error(start, monkeypatch):
    monkeypatch.setattr(runtime, "script_command", lambda *_: ["/no/such/python"])
    with pytest.raises(SpawnError, match="No process can be started: No such file"):
        start("true")


def test_directory_that_cannot_be_entered_is_told_in_the_log(start, caplog, tmp_path):
    gone = tmp_path / "gone"
    start("true", cwd=gone, launch=process.LaunchSpec(cwd_fallback=True)).wait(10)
    assert f"{gone} cannot be entered; started in {tmp_path}" in caplog.text


# -- waiting -------------------------------------------------------------------------------


def test_exit_code_is_the_process_own(start):
    assert shell(start, "exit 3").wait(10) == 3


def test_exit_code_of_a_killed_process_is_negative(start):
    one = start("sleep", "60")
    assert one.poll() is None
    os.kill(one.identity.pid, signal.SIGKILL)
    assert one.wait(10) == -signal.SIGKILL
    assert one.poll() == -signal.SIGKILL


def test_wait_returns_none_when_time_is_up(start):
    assert start("sleep", "60").wait(0.05) is None


@pytest.mark.parametrize("has_pidfd", [True, False])
@pytest.mark.parametrize("is_child", [True, False])
def test_end_is_seen_at_once(start, monkeypatch, has_pidfd, is_child):
    """Also of an adopted process, whose parent does not reap it."""
    if not has_pidfd:
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    one = start("sleep", "60")
    watched = one if is_child else process.adopt(one.identity)
    seen = []
    watcher = threading.Thread(target=lambda: seen.append((watched.wait(20), time.monotonic())))
    watcher.start()
    os.kill(one.identity.pid, signal.SIGTERM)
    killed = time.monotonic()
    watcher.join(20)
    code, when = seen[0]
    assert code == (-signal.SIGTERM if is_child else 0)
    assert when - killed < 0.5


def test_ended_child_is_no_zombie_after_poll(start):
    one = start("true")
    assert one.wait(10) == 0
    assert not psutil.pid_exists(one.identity.pid)


# -- knowing again -------------------------------------------------------------------------


def test_adopted_process_is_the_one_with_the_same_creation_time(start):
    one = start("sleep", "60")
    again = process.adopt(Identity(one.identity.pid, one.identity.create_time))
    assert again.poll() is None
    assert process.alive(one.identity)
    again.stop(1, 1, 5)
    assert one.wait(5) == -signal.SIGINT
    assert again.poll() == 0
    assert not process.alive(one.identity)


def test_stranger_with_the_same_id_is_neither_alive_nor_signalled(start):
    stranger = start("sleep", "60")
    remembered = Identity(stranger.identity.pid, stranger.identity.create_time - 60)
    one = process.adopt(remembered, "marker-of-another")
    assert one.poll() == 0
    assert one.tree() == []
    one.stop(1, 1, 1)
    assert stranger.poll() is None


def test_process_is_known_by_its_marker_when_the_clock_was_corrected(start):
    one = start("sleep", "60")
    moved = Identity(one.identity.pid, one.identity.create_time - 3600)
    assert process.alive(moved, one.marker)
    assert not process.alive(moved)


def test_process_that_never_was_is_not_alive():
    assert not process.alive(Identity(2**22 + 5, 1.0))


# -- ending --------------------------------------------------------------------------------


def test_stop_begins_with_an_interrupt(start, tmp_path):
    one = shell(start, "trap 'echo interrupted; exit 0' INT; echo up; while :; do sleep 0.05; done")
    until(lambda: process.tail(tmp_path / "logs" / "it.log", 1))
    one.stop(10, 0, 1)
    assert one.poll() == 0
    assert process.tail(tmp_path / "logs" / "it.log", 1) == ["interrupted"]


def test_interrupt_reaches_the_program_behind_a_wrapper(start, tmp_path):
    """A shell that waits for the real server would keep the signal for itself."""
    inner = "trap 'echo inner; exit 0' INT; echo up; while :; do sleep 0.05; done"
    one = shell(start, f'sh -c "{inner}"; exit 5')
    until(lambda: process.tail(tmp_path / "logs" / "it.log", 1))
    one.stop(10, 0, 1)
    assert process.tail(tmp_path / "logs" / "it.log", 1) == ["inner"]


def test_stop_goes_on_to_terminate_and_then_to_kill(start, tmp_path):
    one = shell(start, "trap 'echo INT' INT; trap 'echo TERM' TERM; echo up; while :; do :; done")
    until(lambda: process.tail(tmp_path / "logs" / "it.log", 1))
    one.stop(0.2, 0.2, 5)
    assert one.poll() == -signal.SIGKILL
    assert process.tail(tmp_path / "logs" / "it.log", 3) == ["up", "INT", "TERM"]


def test_stop_without_interrupt_begins_with_terminate(start):
    one = start("sleep", "60")
    one.stop(0, 5, 5)
    assert one.poll() == -signal.SIGTERM


def test_stop_ends_the_whole_tree(start, tmp_path):
    """Also the descendant that called setsid, forked twice and ignores SIGTERM."""
    pids = tmp_path / "escaped"
    one = shell(
        start,
        f"(setsid sh -c 'echo $$ > {pids}; {ESCAPED}' &); sleep 60 & sleep 60",
    )
    escaped = psutil.Process(pid_in(pids))
    until(lambda: len(one.tree()) >= 4)
    assert escaped.ppid() != one.identity.pid
    members = [identity.pid for identity in one.tree()]
    assert escaped.pid in members
    one.stop(0.5, 0.2, 5)
    assert one.tree() == []
    assert not escaped.is_running() or escaped.status() == psutil.STATUS_ZOMBIE


def test_stop_of_an_ended_process_still_finds_what_it_left(start, tmp_path):
    pids = tmp_path / "left"
    one = shell(start, f"setsid sh -c 'echo $$ > {pids}; exec sleep 60' & sleep 0.1; exit 0")
    left = psutil.Process(pid_in(pids))
    assert one.wait(10) == 0
    process.adopt(one.identity, one.marker).stop(0, 5, 5)
    assert not left.is_running() or left.status() == psutil.STATUS_ZOMBIE


def test_descendant_without_the_marker_is_ended_too(start, tmp_path):
    pids = tmp_path / "bare"
    one = shell(start, f"env -i setsid sh -c 'echo $$ > {pids}; sleep 60; :' & wait")
    bare = psutil.Process(pid_in(pids))
    assert process.MARKER not in bare.environ()
    one.stop(0, 5, 5)
    assert not bare.is_running() or bare.status() == psutil.STATUS_ZOMBIE


def test_one_that_survives_is_named(start, tmp_path):
    one = shell(start, "trap '' TERM; echo up; while :; do sleep 0.05; done")
    until(lambda: process.tail(tmp_path / "logs" / "it.log", 1))
    with pytest.raises(ProcessStillAlive, match=rf"sh \(pid {one.identity.pid}\)"):
        one.stop(0, 0.1, 0)


def test_process_that_may_not_be_signalled_is_left_alone(start, monkeypatch, caplog):
    """A program run with sudo belongs to somebody else by then."""
    one = shell(start, "sleep 60 & sleep 60 & wait")
    until(lambda: len(one.tree()) == 3)
    sudo = one.tree()[1]
    send = psutil.Process.send_signal

    def refuse(self, number):
        if self.pid == sudo.pid:
            raise psutil.AccessDenied(self.pid)
        send(self, number)

    monkeypatch.setattr(psutil.Process, "send_signal", refuse)
    one.stop(0, 5, 5)
    assert [identity.pid for identity in one.tree()] == [sudo.pid]
    assert f"(pid {sudo.pid}): left alone" in caplog.text
    monkeypatch.undo()


def test_stops_at_the_same_time_share_looks_at_the_process_table(start, monkeypatch):
    ones = [start("sleep", "60") for _ in range(12)]
    looks = []
    table = processtable._table
    real = table._look

    def look():
        looks.append(1)
        time.sleep(0.05)  # as long as a machine full of servers takes
        return real()

    monkeypatch.setattr(table, "_look", look)
    threads = [threading.Thread(target=one.stop, args=(5, 5, 5)) for one in ones]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert all(one.poll() is not None for one in ones)
    assert len(looks) < 3 * len(ones) / 2


# -- logs ----------------------------------------------------------------------------------


def test_rotate_moves_a_large_log_aside_and_keeps_its_writer(start, tmp_path):
    log = tmp_path / "logs" / "it.log"
    one = shell(
        start, "echo early; while [ ! -e go ]; do sleep 0.01; done; echo late", cwd=tmp_path
    )
    until(lambda: process.tail(log, 1))
    assert process.rotate(log, max_bytes=5)
    assert (log.parent / "it.log.1").read_text() == "early\n"
    assert (log.parent / "it.log.1").stat().st_mode & 0o777 == 0o600
    (tmp_path / "go").touch()
    one.wait(10)
    assert log.read_bytes() == b"late\n"


def test_rotate_leaves_a_small_log_and_a_missing_one(tmp_path):
    log = tmp_path / "small.log"
    log.write_text("12345")
    assert not process.rotate(log, max_bytes=5)
    assert not process.rotate(tmp_path / "none.log", max_bytes=5)
    assert log.read_text() == "12345"


def test_rotate_cuts_a_log_that_cannot_be_kept(tmp_path, caplog):
    log = tmp_path / "big.log"
    log.write_text("123456")
    (tmp_path / "big.log.1").mkdir()
    assert process.rotate(log, max_bytes=5)
    assert log.read_text() == ""
    assert "cannot be kept" in caplog.text


def test_rotate_copies_no_more_than_a_log_can_sensibly_have(tmp_path):
    """Who writes a log can make it as long as a file system takes, without filling it."""
    log = tmp_path / "huge.log"
    with log.open("wb") as file:
        file.truncate(1024**4)
        file.seek(0, os.SEEK_END)
        file.write(b"the end\n")
    assert process.rotate(log, max_bytes=1000)
    kept = (tmp_path / "huge.log.1").read_bytes()
    assert kept.endswith(b"the end\n") and len(kept) <= 4000
    assert log.read_text() == ""


def test_tail_gives_the_last_lines_as_plain_text(tmp_path):
    log = tmp_path / "a.log"
    log.write_bytes(b"one\r\n\x1b[31mtwo\x1b[0m\xff\n\nthree\x07\n" + b"x" * 900)
    assert process.tail(log, 3) == ["two�", "three", "x" * 500]
    assert process.tail(log, 99)[0] == "one"
    assert process.tail(tmp_path / "none.log", 3) == []


def test_tail_begins_where_it_is_told(tmp_path):
    log = tmp_path / "a.log"
    log.write_text("an earlier run\n")
    since = log.stat().st_size
    assert process.tail(log, 5, since) == []
    with log.open("a") as file:
        file.write("this run\n")
    assert process.tail(log, 5, since) == ["this run"]
    log.write_text("new\n")  # rotated meanwhile
    assert process.tail(log, 5, since) == ["new"]


def test_tail_of_a_huge_log_reads_only_its_end(tmp_path):
    log = tmp_path / "huge.log"
    with log.open("wb") as file:
        file.truncate(5 * 1024**3)
        file.seek(0, os.SEEK_END)
        file.write(b"\nthe end\n")
    assert process.tail(log, 1) == ["the end"]


def test_nothing_of_popen_is_left_to_complain(start):
    """Popen's destructor warns about a child it believes running, and would reap it."""
    one = start("sleep", "60")
    assert not subprocess._active
    assert one.poll() is None
