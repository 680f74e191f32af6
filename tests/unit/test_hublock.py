"""The lock of a state directory: one hub at a time, and where it is."""

import os

import pytest

from minihub import hublock
from minihub.errors import AlreadyRunning
from minihub.hublock import HubFacts

FACTS = HubFacts(7, "http://127.0.0.1:8000/", "http://127.0.0.1:8081/hub/api")


def test_running_hub_is_found_while_it_holds_the_lock(tmp_path):
    assert hublock.running(tmp_path / "absent") is None
    assert hublock.running(tmp_path) is None
    with hublock.hold(tmp_path) as lock:
        assert hublock.running(tmp_path) is None  # just starting
        hublock.write(lock, FACTS)
        assert hublock.running(tmp_path) == FACTS
    assert hublock.running(tmp_path) is None
    assert (tmp_path / "lock").read_text() == ""


def test_hub_that_was_killed_does_not_run(tmp_path):
    (tmp_path / "lock").write_text('{"pid": 7, "url": "u", "api_url": "a"}')
    assert hublock.running(tmp_path) is None
    with hublock.hold(tmp_path) as lock:
        hublock.write(lock, FACTS)
        assert hublock.running(tmp_path) == FACTS


def test_second_hub_is_told_who_is_first(tmp_path):
    with hublock.hold(tmp_path) as lock:
        with pytest.raises(AlreadyRunning, match="just starting"), hublock.hold(tmp_path):
            pass
        hublock.write(lock, FACTS)
        with pytest.raises(AlreadyRunning, match="process 7, http://127.0.0.1:8000/"):
            with hublock.hold(tmp_path):
                pass
        assert hublock.running(tmp_path) == FACTS


@pytest.mark.parametrize("text", ["", "{}", "[1]", "nonsense", '{"pid": "x"}'])
def test_lock_without_facts_is_no_hub(tmp_path, text):
    with hublock.hold(tmp_path) as lock:
        lock.write(text)
        lock.flush()
        assert hublock.running(tmp_path) is None


def test_lock_is_its_owners_alone(tmp_path):
    with hublock.hold(tmp_path):
        assert os.stat(tmp_path / "lock").st_mode & 0o777 == 0o600
