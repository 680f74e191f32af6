"""A server's states, and what its watchers are told."""

import threading

import pytest

from minihub.errors import SpawnError
from minihub.server import Server, State


@pytest.fixture
def server():
    return Server(1, "ada", "")


def to(server, *states):
    for state in states:
        assert server.move(state)


def test_new_server_is_stopped(server):
    assert not server.active and not server.ready and server.pending is None


def test_stopped_to_spawning_to_ready_to_stopping_to_stopped(server):
    to(server, State.SPAWNING)
    assert server.pending == "spawn" and server.active and not server.ready
    to(server, State.READY)
    assert server.pending is None and server.ready
    to(server, State.STOPPING)
    assert server.pending == "stop" and server.active
    to(server, State.STOPPED)
    assert not server.active


@pytest.mark.parametrize(
    ("path", "forbidden"),
    [
        ((), State.STOPPING),
        ((State.SPAWNING,), State.SPAWNING),
        ((State.SPAWNING, State.READY), State.SPAWNING),
        ((State.SPAWNING, State.STOPPING), State.SPAWNING),
    ],
)
def test_impossible_moves_are_refused_and_change_nothing(server, path, forbidden):
    to(server, *path)
    before = server.state
    assert not server.move(forbidden)
    assert server.state is before


def test_only_from_needs_exactly_that_state(server):
    to(server, State.SPAWNING)
    assert not server.move(State.STOPPED, only_from=State.READY)
    assert server.move(State.READY, only_from=State.SPAWNING)


def test_new_start_forgets_the_last_failure_and_its_events(server):
    to(server, State.SPAWNING)
    server.add_event({"progress": 100, "failed": True, "message": "x"})
    server.failure = SpawnError("x")
    server.cancelled.set()
    to(server, State.STOPPED, State.SPAWNING)
    assert server.failure is None and not server.cancelled.is_set()
    assert server.events_after(0, 0) == [{"progress": 0, "message": "Server requested"}]


def test_watcher_is_woken_by_an_event(server):
    to(server, State.SPAWNING)
    seen = []
    watcher = threading.Thread(target=lambda: seen.extend(server.events_after(1, 10)))
    watcher.start()
    server.add_event({"progress": 50, "message": "half"})
    watcher.join(5)
    assert seen == [{"progress": 50, "message": "half"}]


def test_watcher_is_woken_by_the_end_of_the_start(server):
    to(server, State.SPAWNING)
    done = threading.Event()
    watcher = threading.Thread(target=lambda: (server.events_after(1, 10), done.set()))
    watcher.start()
    to(server, State.READY)
    assert done.wait(5)
    watcher.join(5)


def test_wait_settled_returns_at_its_deadline(server):
    assert server.wait_settled(0)
    to(server, State.SPAWNING)
    assert not server.wait_settled(0.01)


def test_only_one_of_many_movers_wins(server):
    to(server, State.SPAWNING, State.READY)
    wins = []
    barrier = threading.Barrier(20)

    def stop():
        barrier.wait()
        if server.move(State.STOPPING, only_from=State.READY):
            wins.append(1)

    threads = [threading.Thread(target=stop) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) == 1


def test_progress_never_goes_back(server):
    to(server, State.SPAWNING)
    for progress in (70, 50, 100):
        server.add_event({"progress": progress, "message": "x"})
    server.add_event({"message": "without a number"})
    told = [event["progress"] for event in server.events_after(0, 0)]
    assert told == [0, 70, 70, 100, 100]
