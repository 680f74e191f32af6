"""What process trees use, seen from one look at the machine."""

from __future__ import annotations

import sys
import time

import pytest

from minihub import process, processtable, usage

ENV = {"PATH": "/usr/bin:/bin"}
HOLD = 'x = b"x" * 30_000_000; print(len(x), flush=True); import time; time.sleep(60)'


@pytest.fixture
def start(tmp_path):
    """Start a shell's commands; the log is complete when it has printed a line."""
    started = []

    def run(script):
        log = tmp_path / f"{len(started)}.log"
        one = process.start(("sh", "-c", script), env=ENV, cwd=None, log_path=log)
        started.append(one)
        deadline = time.monotonic() + 20
        while not process.tail(log, 1):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return one

    yield run
    for one in started:
        one.stop(0, 0, 10)


def test_usage_is_that_of_the_whole_tree(start):
    one = start(f"{sys.executable} -c '{HOLD}' & sleep 60")
    (use,) = usage.of([one])
    assert len(use.members) == 3
    assert [member.is_server for member in use.members].count(True) == 1
    assert use.rss_bytes > 30_000_000
    assert 30_000_000 < use.pss_bytes <= use.rss_bytes
    assert use.cpu_s >= 0


def test_several_trees_come_from_one_look(start, monkeypatch):
    ones = [start("echo up; sleep 60") for _ in range(3)]
    looks = []
    real = processtable._table._look
    monkeypatch.setattr(processtable._table, "_look", lambda: looks.append(1) or real())
    uses = usage.of(ones)
    assert [len(use.members) for use in uses] == [2, 2, 2]
    assert looks == [1]


def test_ended_tree_uses_nothing(start):
    one = start("echo up; exit 0")
    one.wait(10)
    assert usage.of([one]) == [usage.Usage()]
    assert usage.Usage().pss_bytes == 0


def test_member_can_be_ended_alone(start):
    one = start(f"{sys.executable} -c '{HOLD}'; echo over; sleep 60")
    (use,) = usage.of([one])
    largest = max(use.members, key=lambda member: member.rss_bytes)
    assert not largest.is_server
    assert largest.kill()
    assert one.poll() is None
    deadline = time.monotonic() + 10
    while not largest.is_gone():
        assert time.monotonic() < deadline
        time.sleep(0.01)
