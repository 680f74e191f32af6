"""Shares of processors: control groups where they are delegated, processors and niceness elsewhere.

The control groups here are directories that look like them.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minihub import cpu, process


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.setattr(cpu, "_groups", None)
    monkeypatch.setattr(cpu, "_processors", cpu.Processors())
    monkeypatch.setattr(cpu, "SYSTEMD", Path("/nonexistent"))
    monkeypatch.delenv(cpu.DELEGATED, raising=False)


@pytest.fixture
def tree(tmp_path):
    """Return the top of a control group tree, our group in it, and the file that names ours."""
    own = tmp_path / "cgroup" / "system.slice" / "hub.service"
    own.mkdir(parents=True)
    for name, text in (
        ("cgroup.type", "domain"),
        ("cgroup.procs", ""),
        ("cgroup.controllers", "cpuset cpu io memory pids\n"),
        ("cgroup.subtree_control", ""),
    ):
        (own / name).write_text(text)
    named = tmp_path / "self"
    named.write_text("1:name=systemd:/other\n0::/system.slice/hub.service\n")
    return tmp_path / "cgroup", own, named


def delegated(
    tree, monkeypatch, mark: bytes | None = b"1", marked: Path | None = None
) -> cpu.Groups | None:
    """Return the groups of a hub in ``tree``; None where there are none."""
    if mark is not None:
        monkeypatch.setattr(cpu, "SYSTEMD", Path("/"))

    def getxattr(path: object, name: str) -> bytes:
        if mark is None or name != "trusted.delegate" or path != (marked or tree[1]):
            raise OSError
        return mark

    monkeypatch.setattr(cpu.os, "getxattr", getxattr, raising=False)
    # A process of ours lists itself where it was moved to; a plain file would be made.
    top, _own, named = tree
    try:
        return cpu.delegated(top, named, pid=123)
    except cpu.NotDelegated as error:
        monkeypatch.setattr(cpu, "_why_not", str(error))
        return None


# -- control groups ------------------------------------------------------------------------


def test_delegated_group_gets_groups_below_and_the_hub_moves(tree, monkeypatch):
    _top, own, _named = tree
    groups = delegated(tree, monkeypatch)
    assert groups is not None
    assert (own / "cgroup.subtree_control").read_text() == "+cpu"
    assert (own / "minihub" / "cgroup.procs").read_text() == "123"


def test_group_that_was_prepared_before_is_used_as_it_is(tree, monkeypatch):
    _top, own, _named = tree
    (own / "cgroup.subtree_control").write_text("cpu\n")
    assert delegated(tree, monkeypatch) is not None
    assert not (own / "minihub").exists()


def test_group_without_the_controller_is_not_used(tree, monkeypatch):
    (tree[1] / "cgroup.controllers").write_text("memory pids\n")
    assert delegated(tree, monkeypatch) is None
    monkeypatch.setattr(cpu, "_usable", lambda: {0, 1, 2, 3})
    (told,) = cpu.missing(0.5, None)
    assert "Delegate=cpu" in told


def test_group_that_systemd_keeps_for_itself_is_not_used(tree, monkeypatch):
    assert delegated(tree, monkeypatch, mark=b"0") is None
    assert not (tree[1] / "minihub").exists()


def test_group_with_strangers_in_it_is_left_as_it_was(tree, monkeypatch):
    _top, own, _named = tree
    real = Path.write_text

    def write_text(path: Path, text: str, *args: object) -> int:
        if path.name == "cgroup.subtree_control":
            raise OSError(16, "Device or resource busy")
        if path.parent.name == "minihub":
            return len(text)  # the kernel takes the process; no file comes of it
        return real(path, text, *args)

    monkeypatch.setattr(Path, "write_text", write_text)
    assert delegated(tree, monkeypatch, mark=None) is None
    assert (own / "cgroup.procs").read_text() == "123"
    assert not (own / "minihub").exists()


def test_all_that_is_in_a_delegated_group_makes_room(tree, monkeypatch):
    """A proxy of a hub that ran when nothing was delegated is in the hub's own group."""
    _top, own, _named = tree
    (own / "cgroup.procs").write_text("7\n123\n")
    real, inside = Path.write_text, {7: own, 123: own}

    def write_text(path: Path, text: str, *args: object) -> int:
        if path.name == "cgroup.procs":
            inside[int(text)] = path.parent
            there = [str(pid) for pid, group in inside.items() if group == own]
            return real(own / "cgroup.procs", "\n".join(there), *args)
        if path.name == "cgroup.subtree_control" and own in inside.values():
            raise OSError(16, "Device or resource busy")
        return real(path, text, *args)

    monkeypatch.setattr(Path, "write_text", write_text)
    assert delegated(tree, monkeypatch) is not None
    assert set(inside.values()) == {own / "minihub"}
    assert (own / "cgroup.subtree_control").read_text() == "+cpu"


def test_unit_that_systemd_does_not_mark_is_used_if_it_says_so(tree, monkeypatch):
    """systemd before 251 marks delegated groups so that only root can read it."""
    monkeypatch.setattr(cpu, "SYSTEMD", Path("/"))
    assert delegated(tree, monkeypatch, mark=None) is None
    assert not (tree[1] / "minihub").exists()
    monkeypatch.setenv(cpu.DELEGATED, "1")
    assert delegated(tree, monkeypatch, mark=None) is not None


def test_hub_that_systemd_puts_into_a_group_below_finds_the_one_above(tree, monkeypatch):
    _top, own, named = tree
    (own / "minihub").mkdir()
    for name in ("cgroup.type", "cgroup.procs"):
        (own / "minihub" / name).write_text("")
    named.write_text("0::/system.slice/hub.service/minihub\n")
    groups = delegated(tree, monkeypatch, marked=own)
    assert groups is not None and groups.own == own


@pytest.mark.parametrize("named", ["", "3:cpu:/x\n", "0::/elsewhere\n"])
def test_process_without_a_group_of_version_2_has_none(tree, monkeypatch, named):
    tree[2].write_text(named)
    assert delegated(tree, monkeypatch) is None


def test_groups_of_servers_hold_limit_and_guarantee(tree, monkeypatch):
    monkeypatch.setattr(cpu, "_groups", delegated(tree, monkeypatch))
    share = cpu.share("ada", 0.5, 0.25)
    group = Path(share.cgroup)
    assert (share.cpus, share.nice) == ((), 0)
    assert group.name == "server-ada" and group.parent == tree[1]
    assert (group / "cpu.max").read_text() == "50000 100000"
    assert (group / "cpu.weight").read_text() == "25"
    assert list(cpu.missing(0.5, 0.25)) == []
    other = Path(cpu.share("ben", None, None).cgroup)  # weighs little beside the others
    assert (other / "cpu.weight").read_text() == "1"

    share = cpu.share("ada", None, 3)
    assert (group / "cpu.max").read_text() == "max 100000"
    assert (group / "cpu.weight").read_text() == "300"
    for file in group.iterdir():
        file.unlink()  # the kernel's files go with the group
    cpu.release("ada")
    assert not group.exists()
    cpu.release("ada")


class Found:
    """A server that an earlier hub started."""

    def __init__(self, pid: int, code: int | None = None) -> None:
        self.identity = process.Identity(pid, 0.0)
        self.code = code

    def poll(self) -> int | None:
        return self.code

    def tree(self) -> list[process.Identity]:
        return [self.identity]


def test_share_of_a_server_that_was_found_again_is_held_again(tree, monkeypatch):
    monkeypatch.setattr(cpu, "_groups", delegated(tree, monkeypatch))
    cpu.keep("ada", Found(77), 0.5, 0.25)
    group = tree[1] / "server-ada"
    assert (group / "cpu.max").read_text() == "50000 100000"
    assert (group / "cpu.weight").read_text() == "25"
    assert (group / "cgroup.procs").read_text() == "77"
    cpu.keep("ben", Found(78, code=0), 0.5, 0.25)  # it has ended
    assert not (tree[1] / "server-ben").exists()


def test_group_that_cannot_be_made_falls_back(tree, monkeypatch, caplog):
    monkeypatch.setattr(cpu, "_groups", cpu.Groups(tree[1] / "gone"))
    assert cpu.share("ada", 0.5, None).cgroup == ""
    assert "The control group of ada cannot be made" in caplog.text


# -- processors and niceness ---------------------------------------------------------------


@pytest.fixture
def four(monkeypatch):
    monkeypatch.setattr(cpu, "_usable", lambda: {0, 1, 2, 3})


@pytest.mark.parametrize(
    "limit, count, nice",
    [(0.1, 1, 9), (0.5, 1, 5), (1, 1, 0), (1.5, 2, 2), (2, 2, 0), (4, 0, 0), (9.5, 0, 1)],
)
def test_limit_is_rounded_up_and_the_rest_is_niceness(four, limit, count, nice):
    share = cpu.share("ada", limit, None)
    assert (len(share.cpus), share.nice) == (count, nice)


def test_servers_spread_over_the_processors(four):
    taken = [cpu.share(f"u{n}", 1, None).cpus for n in range(8)]
    assert sorted(taken) == sorted([(0,), (1,), (2,), (3,)] * 2)
    cpu.release("u2")
    assert cpu.share("new", 1, None).cpus == taken[2]


def test_server_that_was_found_again_counts_where_it_runs(four, monkeypatch):
    monkeypatch.setattr(cpu.os, "sched_getaffinity", lambda _pid: {0}, raising=False)
    cpu.keep("ada", Found(77), 1, None)
    assert cpu.share("ben", 1, None).cpus == (1,)


def test_same_server_again_does_not_count_twice(four):
    for _ in range(3):
        assert cpu.share("ada", 3, None).cpus == (0, 1, 2)


def test_without_limit_and_guarantee_nothing_is_changed():
    assert cpu.share("ada", None, 0) == cpu.Share()


def test_guarantee_favours_where_that_is_allowed(monkeypatch):
    monkeypatch.setattr(cpu, "may_favour", lambda: True)
    assert cpu.share("ada", None, 1).nice == -cpu.FAVOUR
    assert list(cpu.missing(None, 1)) == []
    monkeypatch.setattr(cpu, "may_favour", lambda: False)
    assert cpu.share("ada", None, 1).nice == 0
    (told,) = cpu.missing(None, 1)
    assert "nothing is guaranteed" in told


def test_what_cannot_be_held_is_told(monkeypatch, four):
    monkeypatch.setattr(cpu, "_why_not", "Do this.")
    (told,) = cpu.missing(0.5, None)
    assert "servers run on 1 of 4 processors" in told and told.endswith("Do this.")
    assert list(cpu.missing(2, None)) == []
    assert list(cpu.missing(7.5, None)) == []  # more than there is
    monkeypatch.setattr(cpu, "_usable", set)
    (told,) = cpu.missing(2, None)
    assert "this system cannot limit processors" in told


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may")
def test_root_may_favour():
    assert cpu.may_favour()
