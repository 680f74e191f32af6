"""The prepared launcher: copies of it are children of ours, and its end stops nothing."""

import os
import subprocess
import sys
import threading
import time

import psutil
import pytest

from minihub import launchpad, process

pytestmark = pytest.mark.skipif(not launchpad._is_possible(), reason="needs clone(2) of Linux")


#: A hub that has a launcher prepared, names it, and is killed.
KILLED = """
import os, sys
from minihub import launchpad, process
with launchpad.kept():
    process.start(["true"], env={"PATH": "/bin"}, cwd=None, log_path=sys.argv[1]).wait(9)
    print(launchpad._launchpad._process.pid, flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def run(tmp_path):
    def start(*argv):
        return process.start(
            argv, env={"PATH": "/usr/bin:/bin"}, cwd=None, log_path=tmp_path / "it.log"
        )

    return start


@pytest.fixture
def prepared(run):
    """The process of the prepared launcher, which is there and has been used."""
    with launchpad.kept():
        assert prepared_ones() == []  # none as long as nothing is started
        for _ in range(2):
            run("true").wait(10)
        (one,) = prepared_ones()
        yield one
    assert prepared_ones() == []


def prepared_ones():
    return [one for one in psutil.Process().children() if "--serve" in one.cmdline()]


def test_copy_is_a_child_of_ours_whose_end_is_told(prepared, run):
    one = run("sh", "-c", "exit 7")
    assert one.wait(10) == 7
    assert prepared.is_running() and prepared_ones() == [prepared]


def test_copy_has_no_descriptor_but_the_three(prepared, run, tmp_path):
    run(sys.executable, "-c", "import os; print(os.listdir('/proc/self/fd'))").wait(10)
    found = (tmp_path / "it.log").read_text()
    assert found.strip() == "['0', '1', '2', '3']"  # and that of the directory


def test_many_at_once_each_get_their_own(prepared, run):
    codes = {}

    def start(number):
        codes[number] = run("sh", "-c", f"exit {number}").wait(20)

    threads = [threading.Thread(target=start, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert codes == {number: number for number in range(20)}


def test_servers_outlive_it_and_the_next_start_has_another_one_made(prepared, run, caplog):
    one = run("sleep", "60")
    prepared.kill()
    prepared.wait(10)
    assert one.poll() is None
    again = run("sleep", "60")
    assert "The prepared launcher fails" in caplog.text
    for each in (one, again):
        each.stop(0, 0, 10)
    run("true").wait(10)
    assert len(prepared_ones()) == 1


def test_it_ends_with_the_hub(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path / "it.log")]
    done = subprocess.run(command, capture_output=True, text=True)
    pid = int(done.stdout)
    deadline = time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_one_that_is_stopped_and_does_not_answer_is_left(prepared, run, monkeypatch):
    monkeypatch.setattr(launchpad, "ANSWER_TIMEOUT_S", 0.2)
    launchpad._launchpad._socket.settimeout(0.2)
    os.kill(prepared.pid, 19)
    assert run("sh", "-c", "exit 3").wait(10) == 3
    assert not prepared.is_running()
