"""Attempts are counted in sliding windows: guessing ends, nobody is locked out for good."""

import pytest

from minihub import clock, throttle
from minihub.throttle import Attempt, Throttle

WINDOW_S = 300.0


@pytest.fixture
def at(monkeypatch):
    """Move the clock: ``at(seconds)`` sets it."""
    now = [1000.0]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])

    def move(seconds):
        now[0] = 1000.0 + seconds

    return move


def logins(**limits):
    limits = {"client": 10, "name": 20, "address": 200, **limits}
    return Throttle(limits, overall=1000, window_s=WINDOW_S)


def attempt(throttle, name, address):
    return throttle.enter(client=f"{address}\0{name}", name=name, address=address)


def test_thirty_behind_one_address_failing_once_each_lock_nobody(at):
    door = logins()
    for number in range(30):
        assert isinstance(attempt(door, f"student{number}", "10.0.0.1"), Attempt)
    for number in range(30):
        assert isinstance(attempt(door, f"student{number}", "10.0.0.1"), Attempt)


def test_guesses_at_one_name_from_one_address_are_refused_after_ten(at):
    door = logins()
    for _ in range(10):
        assert isinstance(attempt(door, "ada", "10.0.0.1"), Attempt)
    assert attempt(door, "ada", "10.0.0.1") == WINDOW_S
    assert isinstance(attempt(door, "ada", "10.0.0.2"), Attempt)  # somebody elsewhere
    assert isinstance(attempt(door, "ben", "10.0.0.1"), Attempt)  # a neighbour


def test_guesses_at_one_name_from_everywhere_are_refused_after_twenty(at):
    door = logins()
    for number in range(20):
        assert isinstance(attempt(door, "ada", f"10.0.0.{number}"), Attempt)
    assert attempt(door, "ada", "10.9.9.9") == WINDOW_S
    assert isinstance(attempt(door, "ben", "10.9.9.9"), Attempt)


def test_one_address_alone_does_not_use_up_the_room_of_all_others(at):
    door = logins()
    entered = [attempt(door, f"name{number}", "10.6.6.6") for number in range(1500)]
    assert sum(isinstance(one, Attempt) for one in entered) == 200
    assert isinstance(attempt(door, "ada", "10.0.0.1"), Attempt)


def test_everybody_together_has_a_limit_too(at):
    door = logins()
    entered = [attempt(door, f"name{n}", f"10.0.{n // 250}.{n % 250}") for n in range(1200)]
    assert sum(isinstance(one, Attempt) for one in entered) == 1000


def test_window_slides(at):
    door = logins(name=3, client=0)
    for second in (0, 100, 200):
        at(second)
        assert isinstance(attempt(door, "ada", "a"), Attempt)
    at(250)
    assert attempt(door, "ada", "a") == 50.0
    at(300)
    assert isinstance(attempt(door, "ada", "a"), Attempt)
    assert attempt(door, "ada", "a") == 100.0


def test_refused_attempts_do_not_prolong_the_wait(at):
    door = logins()
    for _ in range(10):
        attempt(door, "ada", "a")
    for second in range(0, 299, 5):
        at(second)
        assert attempt(door, "ada", "a") == WINDOW_S - second
    at(300)
    assert isinstance(attempt(door, "ada", "a"), Attempt)


def test_attempts_count_from_their_beginning_and_are_given_back_when_right(at):
    door = logins()
    first = [attempt(door, "ada", "a") for _ in range(10)]
    assert attempt(door, "ada", "a") == WINDOW_S
    door.give_back(first[0])
    assert isinstance(attempt(door, "ada", "a"), Attempt)
    for one in first[1:]:
        door.give_back(one)
    assert len(door) == 4  # client, name, address, all: the one attempt that was wrong


def test_limit_of_nothing_is_no_limit(at):
    door = Throttle({"client": 0, "name": 0, "address": 0}, overall=0, window_s=WINDOW_S)
    assert all(isinstance(attempt(door, "ada", "a"), Attempt) for _ in range(5000))


def test_memory_is_bounded_by_the_limit_for_all(at):
    door = logins()
    for second in range(0, 3000, 3):
        at(second)
        for number in range(40):
            attempt(door, f"{'long name' * 1000}{second}-{number}", f"10.{second}.{number}")
    assert len(door) <= 4 * 1000 + 1
    at(10_000)
    attempt(door, "ada", "a")
    assert len(door) == 4  # what has left the window is gone


def test_forgetting_a_name_lets_it_in_again(at):
    door = logins()
    for number in range(20):
        attempt(door, "ada", f"10.0.0.{number}")
    door.forget(name="ada")
    assert isinstance(attempt(door, "ada", "10.0.0.99"), Attempt)


@pytest.mark.parametrize(
    ("wait_s", "seconds", "words"),
    [
        (0.1, 1, "1 second"),
        (39.2, 40, "40 seconds"),
        (90, 90, "2 minutes"),
        (300, 300, "5 minutes"),
    ],
)
def test_waits_are_told_in_words(wait_s, seconds, words):
    assert throttle.seconds(wait_s) == seconds
    assert throttle.in_words(wait_s) == words
