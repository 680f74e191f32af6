"""The watchdog's judgement, over usages that are made up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from minihub import usage, watchdog
from minihub.server import Server, State

MB = 1024**2


class Member:
    """A process that can only be ended."""

    def __init__(self, name: str, mb: int, *, is_server: bool = False, shared: int = 0) -> None:
        self.name, self.pid, self.is_server = name, hash(name) % 1000, is_server
        self.rss_bytes, self.pss_bytes = (mb + shared) * MB, mb * MB
        self.killed = False
        self.may_be_killed = True

    def kill(self) -> bool:
        self.killed = self.may_be_killed
        return self.killed

    def is_gone(self) -> bool:
        return self.killed


def use(*members: Member) -> Any:
    return SimpleNamespace(
        members=[one for one in members if not one.killed],
        rss_bytes=sum(one.rss_bytes for one in members if not one.killed),
        pss_bytes=sum(one.pss_bytes for one in members if not one.killed),
    )


@pytest.fixture
def world(monkeypatch):
    """One server with a limit of 100 MB, and what its processes use."""
    server = Server(1, "ada", "")
    server.move(State.SPAWNING)
    server.move(State.READY)
    server.spawner = SimpleNamespace(mem_limit=100 * MB)
    ended: list[Server] = []
    dog = watchdog.MemoryWatchdog(lambda: [server], ended.append)
    state = SimpleNamespace(server=server, ended=ended, dog=dog, members=[])
    monkeypatch.setattr(watchdog, "tree_of", lambda _server: object())
    monkeypatch.setattr(usage, "of", lambda trees: [use(*state.members)])
    return state


def test_below_the_limit_nothing_happens(world, caplog):
    world.members = [Member("server", 40, is_server=True), Member("kernel", 30)]
    assert world.dog.look() is False
    assert world.server.notice is None and caplog.records == []


def test_warning_is_given_once_and_taken_back(world, caplog):
    world.members = [Member("server", 40, is_server=True), Member("kernel", 45)]
    assert [world.dog.look() for _ in range(3)] == [False] * 3
    assert len(caplog.records) == 1
    assert "uses 85 MB of the 100 MB" in world.server.notice.text
    assert world.server.notice.is_warning
    world.members = [Member("server", 40, is_server=True), Member("kernel", 35)]
    world.dog.look()
    assert world.server.notice is not None  # only a little less
    world.members = [Member("server", 40, is_server=True)]
    world.dog.look()
    assert world.server.notice is None


def test_largest_process_is_ended_and_the_server_last(world, caplog):
    world.members = [
        Member("server", 60, is_server=True), Member("small", 10), Member("large", 50),
    ]  # fmt: skip
    assert world.dog.look() is True
    assert [one.name for one in world.members if one.killed] == ["large"]
    assert "its largest program was ended (large, which used 50 MB)" in world.server.notice.text
    assert world.ended == []
    assert world.dog.look() is False

    world.members[0].pss_bytes = world.members[0].rss_bytes = 120 * MB
    assert world.dog.look() is True
    assert [one.name for one in world.members if one.killed] == ["small", "large"]
    assert world.dog.look() is True
    assert all(one.killed for one in world.members)
    assert "so it was ended (server" in world.server.notice.text
    assert world.ended == [world.server]
    assert "ended the server itself" in caplog.text


def test_process_that_may_not_be_ended_is_passed_over_and_told_once(world, caplog):
    large = Member("large", 80)
    large.may_be_killed = False
    world.members = [Member("server", 30, is_server=True), large]
    assert world.dog.look() is True
    assert world.members[0].killed and not large.killed
    large.pss_bytes = large.rss_bytes = 150 * MB
    caplog.clear()
    assert [world.dog.look() for _ in range(3)] == [False] * 3
    assert len(caplog.records) == 1 and "no process of it may be ended" in caplog.text


def test_shared_pages_count_once(world):
    world.members = [Member("server", 40, is_server=True, shared=50), Member("k", 30, shared=50)]
    assert world.dog.look() is False
    assert world.server.notice is None


def test_exact_look_is_taken_only_when_it_matters(world, monkeypatch):
    class Cheap:
        rss_bytes = 60 * MB
        members = ()

        @property
        def pss_bytes(self) -> int:
            raise AssertionError("not needed")

    monkeypatch.setattr(usage, "of", lambda trees: [Cheap()])
    assert world.dog.look() is False


def test_servers_without_a_limit_are_not_looked_at(world, monkeypatch):
    world.server.spawner.mem_limit = None
    monkeypatch.setattr(usage, "of", lambda trees: pytest.fail("looked"))
    assert world.dog.look() is False


def test_notice_lasts_until_the_next_start(world):
    world.server.note("something happened")
    world.server.drop_warning()
    assert world.server.notice is not None
    world.server.move(State.STOPPING)
    world.server.move(State.STOPPED)
    assert world.server.notice is not None
    world.server.move(State.SPAWNING)
    assert world.server.notice is None
