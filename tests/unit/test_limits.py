"""Counting servers, and promising memory no more than there is."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from minihub import limits, metrics
from minihub.errors import TooMany
from minihub.server import Server, State

MB = 1024**2


def server(name: str, state: State = State.READY, guarantee: int | None = None) -> Server:
    one = Server(1, name, "")
    if state is not State.STOPPED:
        one.move(State.SPAWNING)
    if state in (State.READY, State.STOPPING):
        one.move(State.READY)
    if state is State.STOPPING:
        one.move(State.STOPPING)
    one.spawner = SimpleNamespace(mem_guarantee=guarantee)
    return one


def options(**changes):
    given = {
        "concurrent_spawn_limit": 0,
        "active_server_limit": 0,
        "spawn_throttle_retry_range": (30, 60),
    }
    return SimpleNamespace(**(given | changes))


# -- counting ------------------------------------------------------------------------------


def test_starting_and_stopping_servers_are_active():
    active = [server("a", State.SPAWNING), server("b", State.STOPPING), server("c")]
    limits.check_counts(active, options(active_server_limit=4))
    with pytest.raises(TooMany, match="Active user limit exceeded") as found:
        limits.check_counts(active, options(active_server_limit=3))
    assert found.value.headers["Retry-After"] == str(limits.FULL_RETRY_S)


def test_only_starting_servers_count_for_the_concurrent_limit():
    active = [server("a", State.SPAWNING), server("b", State.STOPPING), server("c")]
    limits.check_counts(active, options(concurrent_spawn_limit=2))
    with pytest.raises(TooMany) as found:
        limits.check_counts(active, options(concurrent_spawn_limit=1))
    assert 30 <= int(found.value.headers["Retry-After"]) <= 60
    assert "Too many users trying to log in right now. Try again in" in str(found.value)


@pytest.mark.parametrize(
    "seconds, told",
    [(0, "a moment"), (1, "10 seconds"), (30, "30 seconds"), (31, "40 seconds"),
     (90, "90 seconds"), (91, "2 minutes"), (300, "5 minutes")],
)  # fmt: skip
def test_time_to_try_again_is_told_roughly(seconds, told):
    with pytest.raises(TooMany, match=f"Try again in {told}\\."):
        limits.check_counts(
            [server("a", State.SPAWNING)],
            options(concurrent_spawn_limit=1, spawn_throttle_retry_range=(seconds, seconds)),
        )


def test_zero_is_no_limit():
    limits.check_counts([server(str(n), State.SPAWNING) for n in range(500)], options())


def test_refusals_are_counted_by_reason():
    metrics.setup(environ={})
    for one in ({"concurrent_spawn_limit": 1}, {"active_server_limit": 1}):
        with pytest.raises(TooMany), limits.noted():
            limits.check_counts([server("a", State.SPAWNING)], options(**one))
    rows = metrics.HISTOGRAMS["server_spawn_duration_seconds"].rows
    for reason in ("throttled", "too-many-users"):
        assert sum(rows["failure", reason][0]) == 1


@pytest.mark.parametrize(
    "count, shown",
    [(5, "5 bytes"), (1024, "1 kB"), (1.5 * MB, "1.5 MB"), (200 * MB, "200 MB"),
     (1536 * MB, "1.5 GB"), (123.456 * 1024 * MB, "123 GB")],
)  # fmt: skip
def test_sizes_are_told_for_people(count, shown):
    assert limits.size(int(count)) == shown


# -- failures in a row ---------------------------------------------------------------------


def test_failures_in_a_row_give_up_once():
    given_up = []
    failures = limits.Failures(lambda: given_up.append(1))
    failures.note_failure(2)
    failures.note_success()
    failures.note_failure(2)
    assert given_up == []
    for _ in range(3):
        failures.note_failure(2)
    assert given_up == [1]
    for _ in range(10):
        failures.note_failure(0)
    assert given_up == [1]


# -- promises ------------------------------------------------------------------------------


def promises(active: list[Server], free: int) -> limits.Promises:
    return limits.Promises(lambda: active, lambda: free)


def test_no_more_is_promised_than_is_free():
    ada, ben, cay = (server(name, State.SPAWNING) for name in ("ada", "ben", "cay"))
    book = promises([ada, ben, cay], 1000 * MB)
    book.give(ada, 600 * MB)
    with pytest.raises(limits.TooLittleMemory) as found:
        book.give(ben, 500 * MB)
    assert found.value.status == 429 and "Retry-After" in found.value.headers
    assert "500 MB are needed and 400 MB are free" in found.value.reason
    book.give(cay, 400 * MB)
    book.give(ben, None)
    book.give(ben, 0)


def test_promise_ends_with_its_server():
    ada, ben = server("ada", State.SPAWNING), server("ben", State.SPAWNING)
    active = [ada, ben]
    book = promises(active, 1000 * MB)
    book.give(ada, 900 * MB)
    active.remove(ada)
    book.give(ben, 900 * MB)


def test_running_servers_found_at_the_start_keep_their_promise():
    old, new = server("old", State.READY, 800 * MB), server("new", State.SPAWNING)
    with pytest.raises(limits.TooLittleMemory):
        promises([old, new], 1000 * MB).give(new, 300 * MB)


def test_promises_are_exact_under_simultaneous_starts():
    many = [server(str(n), State.SPAWNING) for n in range(30)]
    book = promises(many, 1000 * MB)
    gate = threading.Barrier(len(many))
    given = []

    def ask(one: Server) -> None:
        gate.wait()
        try:
            book.give(one, 150 * MB)
            given.append(one)
        except limits.TooLittleMemory:
            pass

    threads = [threading.Thread(target=ask, args=(one,)) for one in many]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(given) == 6


def test_custom_spawners_are_told_to_hold_their_own_limits():
    spawner = SimpleNamespace(mem_limit=1, mem_guarantee=None, cpu_limit=2.0, cpu_guarantee=None)
    (told,) = limits.missing(spawner)
    assert "Spawner.mem_limit, Spawner.cpu_limit" in told and "SimpleNamespace" in told
    spawner = SimpleNamespace(mem_limit=0, mem_guarantee=None, cpu_limit=None, cpu_guarantee=None)
    assert list(limits.missing(spawner)) == []
