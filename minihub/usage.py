"""What servers use of the machine: memory and processor time of whole process trees.

Rules of this file: it reads and ends single processes, and decides nothing. All trees of one call
come from one look at the machine's processes. Memory is told as RSS, which counts shared pages for
each process that uses them, and on request as PSS, which divides them fairly and takes longer.

Threads: any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import psutil

from . import process


@dataclass(frozen=True)
class Member:
    """One process of a tree; ``is_server`` marks the one that was started."""

    pid: int
    name: str
    is_server: bool
    rss_bytes: int
    cpu_s: float
    _process: psutil.Process = field(repr=False, compare=False)

    @cached_property
    def pss_bytes(self) -> int:
        """Its memory with shared pages divided among their users; RSS where that is not known.

        Looked up when first asked for; 0 when it has ended by then.
        """
        try:
            return getattr(self._process.memory_full_info(), "pss", self.rss_bytes)
        except psutil.NoSuchProcess:
            return 0
        except psutil.Error:
            return self.rss_bytes

    def is_gone(self) -> bool:
        """Return whether it has ended, though perhaps nobody has asked for its exit code yet."""
        try:
            return not self._process.is_running() or self._process.status() == "zombie"
        except psutil.Error:
            return True

    def kill(self) -> bool:
        """End it with SIGKILL; return whether we may, and it was there."""
        try:
            self._process.kill()
        except psutil.Error:
            return False
        return True


@dataclass(frozen=True)
class Usage:
    """What a process and all that came of it use; processor time is that of the living ones."""

    members: tuple[Member, ...] = ()

    @property
    def rss_bytes(self) -> int:
        return sum(one.rss_bytes for one in self.members)

    @property
    def pss_bytes(self) -> int:
        """Looked up when first asked for, some tenths of a ms per process."""
        return sum(one.pss_bytes for one in self.members)

    @property
    def cpu_s(self) -> float:
        return sum(one.cpu_s for one in self.members)


def of(processes: Sequence[process.Process]) -> list[Usage]:
    """Return what each of these trees uses; nothing where it has ended."""
    found = []
    for one, members in zip(processes, process.find_members(processes), strict=True):
        rows = (_member(member, one.identity.pid) for member in members)
        found.append(Usage(tuple(row for row in rows if row is not None)))
    return found


def _member(one: psutil.Process, server_pid: int) -> Member | None:
    try:
        with one.oneshot():
            times = one.cpu_times()
            return Member(
                pid=one.pid,
                name=one.name(),
                is_server=one.pid == server_pid,
                rss_bytes=one.memory_info().rss,
                cpu_s=times.user + times.system,
                _process=one,
            )
    except psutil.Error:
        return None


def shares_are_known() -> bool:
    """Return whether this system tells PSS."""
    try:
        return hasattr(psutil.Process().memory_full_info(), "pss")
    except psutil.Error:
        return False
