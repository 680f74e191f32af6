"""Turns: so many servers start at once, in a fair order, and everybody is told."""

import threading
import time

import pytest

from minihub.burst import Turns, processors


class Crowd:
    """People whose starts take turns; each start goes on until it is told to end."""

    def __init__(self, turns):
        self.turns = turns
        self.started = []
        self.told = {}
        self.threads = []
        self.ends = {}

    def press_start(self, name, user="", wanted=lambda: None):
        self.ends[name] = threading.Event()
        self.told[name] = []

        def start():
            try:
                with self.turns.taken(user or name, wanted, self.told[name].append):
                    self.started.append(name)
                    self.ends[name].wait(20)
            except InterruptedError:
                self.told[name].append("cancelled")

        before = sum(self.turns.counts())
        thread = threading.Thread(target=start)
        self.threads.append(thread)
        thread.start()
        self.until(lambda: sum(self.turns.counts()) > before or self.started.count(name))

    def until(self, check):
        deadline = time.monotonic() + 10
        while not check():
            assert time.monotonic() < deadline, (self.started, self.told)
            time.sleep(0.005)

    def end(self, name):
        self.ends[name].set()


@pytest.fixture
def crowd():
    crowds = []

    def gather(*args):
        crowds.append(Crowd(Turns(*args)))
        return crowds[-1]

    yield gather
    for one in crowds:
        for end in one.ends.values():
            end.set()
        for thread in one.threads:
            thread.join(20)
        assert one.turns.counts() == (0, 0)


def test_so_many_start_at_once_and_the_others_in_the_order_they_came(crowd):
    people = crowd(2)
    for name in ("ada", "ben", "cid", "dan"):
        people.press_start(name)
    people.until(lambda: people.told["cid"] and people.told["dan"])
    assert people.started == ["ada", "ben"] and people.turns.counts() == (2, 2)
    assert people.told == {"ada": [], "ben": [], "cid": [1], "dan": [2]}
    people.end("ben")
    people.until(lambda: len(people.started) == 3)
    people.until(lambda: people.told["dan"] == [2, 1])
    people.end("ada")
    people.until(lambda: len(people.started) == 4)
    assert people.started == ["ada", "ben", "cid", "dan"]


def test_one_persons_many_servers_do_not_keep_others_waiting(crowd):
    people = crowd(2)
    for number in range(4):
        people.press_start(f"ada-{number}", user="ada")
    people.press_start("ben")
    people.until(lambda: people.told["ben"])
    assert people.told["ben"] == [1]  # before ada's third and fourth
    people.end("ada-0")
    people.until(lambda: "ben" in people.started)
    assert people.started == ["ada-0", "ada-1", "ben"]


def test_start_that_takes_very_long_keeps_nobody_waiting(crowd):
    people = crowd(1, 0.3)
    people.press_start("ada")
    people.press_start("ben")
    people.until(lambda: people.started == ["ada", "ben"])


def test_start_that_is_cancelled_leaves_the_line(crowd):
    people = crowd(1)
    cancelled = threading.Event()

    def wanted():
        if cancelled.is_set():
            raise InterruptedError

    people.press_start("ada")
    people.press_start("ben", wanted=wanted)
    people.press_start("cid")
    people.until(lambda: people.told["cid"] == [2])
    cancelled.set()
    people.until(lambda: people.told["ben"] == [1, "cancelled"])
    people.until(lambda: people.told["cid"] == [2, 1])
    people.end("ada")
    people.until(lambda: people.started == ["ada", "cid"])


def test_failed_start_gives_its_turn_back():
    turns = Turns(1)
    with pytest.raises(RuntimeError), turns.taken("ada", lambda: None, print):
        raise RuntimeError
    assert turns.counts() == (0, 0)


def test_processors_decide_how_many_unless_told():
    assert Turns().at_once == 2 * processors() >= 2
    assert Turns(7).at_once == 7
