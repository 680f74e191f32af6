"""Turns: so many servers start at once, in a fair order, and everybody is told."""

import threading
import time

import pytest

from minihub import burst
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

    def gather(*args, **kwargs):
        crowds.append(Crowd(Turns(*args, **kwargs)))
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


# -- when starts will soon take far less ------------------------------------------------------


class Soon:
    """What makes starts take less, and will be there when it is told so."""

    def __init__(self):
        self.comes = True
        self.crowds = []

    def __call__(self, is_crowd):
        self.crowds.append(is_crowd)
        return self.comes


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(burst, "processors", lambda: 1)
    return Soon()


def test_crowd_waits_for_what_makes_starts_quick(crowd, soon, monkeypatch):
    """One for each processor starts without it, one after the other; then as many as ever."""
    monkeypatch.setattr(burst, "GATHER_S", 600.0)
    people = crowd(soon=soon)
    for name in ("ada", "ben", "cid", "dan"):
        people.press_start(name)
    assert people.started == ["ada"] and True not in soon.crowds
    people.press_start("eve")
    people.until(lambda: people.told["eve"] == [4])
    assert people.started == ["ada"] and soon.crowds[-1]
    people.end("ada")
    people.until(lambda: people.started == ["ada", "ben"])
    people.until(
        lambda: people.told["eve"] == [4, 3]
    )  # it stays a crowd until it has what it wants
    assert people.turns.counts() == (1, 3) and soon.crowds[-1]
    soon.comes = False
    people.until(lambda: people.started == ["ada", "ben", "cid"])
    people.end("ben")
    people.until(lambda: people.started == ["ada", "ben", "cid", "dan"])


def test_few_do_not_wait_for_it_longer_than_it_takes_to_see_that_they_are_few(crowd, soon):
    people = crowd(soon=soon)
    for name in ("ada", "ben", "cid"):
        people.press_start(name)
    people.until(lambda: people.started == ["ada", "ben"])
    people.until(lambda: people.told["cid"] == [1])
    assert True not in soon.crowds


def test_line_is_put_in_order_only_when_there_may_be_room(crowd, soon, monkeypatch):
    """Whoever waits looks several times a second: hundreds of them must not sort hundreds each."""
    people = crowd(soon=soon)
    for number in range(8):
        people.press_start(str(number))
    sorted_ = []
    monkeypatch.setattr(burst, "_order", lambda *args: sorted_.append(args) or list(args[0]))
    looked = len(soon.crowds)
    people.until(lambda: len(soon.crowds) > looked + 10)
    assert sorted_ == []
