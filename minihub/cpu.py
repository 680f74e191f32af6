"""Processor time for servers: limits and guarantees, as far as this machine holds them.

Where a part of the control group tree is delegated to the hub (version 2, as systemd does with
``Delegate=``), each server gets a group of its own: ``cpu.max`` holds a limit exactly and
``cpu.weight`` a guarantee. Anywhere else a limit means that a server runs on so many processors,
rounded up, with a worse priority for the part that was rounded; a guarantee means a better
priority. What is missing then is told by :func:`missing`.

Rules of this file: it decides where a server runs and writes into the groups that are ours. A
group with groups below it may hold no process itself, so the hub moves into one beside those of
the servers; where systemd says that the whole group is ours, so do the processes it finds there.

Threads: any. How many servers run on which processor is guarded by a leaf lock.
Sources: Linux kernel, Control Group v2; systemd, Control Group APIs and Delegation.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

log = logging.getLogger("minihub.cpu")

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")

#: Length of the period in which a limit holds, in µs.
PERIOD_US = 100_000
#: Weight of a group that is guaranteed one processor; others have the least.
WEIGHT = 100
#: Whether a systemd manages this machine.
SYSTEMD = Path("/run/systemd/system")
#: What the unit of ``service install`` has in the hub's environment.
DELEGATED = "MINIHUB_DELEGATED"
#: The group of the hub itself, its proxy and its services.
HUB_GROUP = "minihub"
#: How much nicer a server with the smallest share of a processor is.
NICEST = 10
#: How much less nice a server with a guarantee is.
FAVOUR = 5


@dataclass(frozen=True)
class Share:
    """How a server is to be started so that it gets its share."""

    cgroup: str = ""
    cpus: tuple[int, ...] = ()
    nice: int = 0


class Groups:
    """The control groups of servers, below the one that is delegated to us."""

    def __init__(self, own: Path) -> None:
        self.own = own

    def _group(self, name: str) -> Path:
        return self.own / f"server-{name}"

    def make(self, name: str, limit: float | None, guarantee: float | None) -> str:
        """Return the directory of a server's group, with its limits set."""
        group = self._group(name)
        group.mkdir(exist_ok=True)
        most = "max" if not limit else str(max(1000, round(limit * PERIOD_US)))
        (group / "cpu.max").write_text(f"{most} {PERIOD_US}")
        weight = min(10_000, max(1, round((guarantee or 0) * WEIGHT)))
        (group / "cpu.weight").write_text(str(weight))
        return str(group)

    def keep(
        self, name: str, pids: Iterable[int], limit: float | None, guarantee: float | None
    ) -> None:
        """Hold the limits of a server that runs, in its group or wherever it was started."""
        group = Path(self.make(name, limit, guarantee))
        for pid in pids:
            with suppress(OSError):  # it has ended
                _move(pid, group)

    def remove(self, name: str) -> None:
        """Remove a server's group when nothing runs in it any more."""
        try:
            self._group(name).rmdir()
        except OSError:
            pass  # still in use, or never made: the next start finds it


class NotDelegated(Exception):
    """Raised when no control group can be used; says why, and what to do if there is something."""


def delegated(
    cgroups: Path = CGROUPS, own_cgroup: Path = OWN_CGROUP, pid: int | None = None
) -> Groups:
    """Return the groups that may be made below ours, the hub's own process moved beside them.

    Raises NotDelegated.
    """
    own = _own_group(cgroups, own_cgroup)
    if own is None:
        raise NotDelegated("This system does not manage processors by control groups, version 2.")
    mark = _mark(own)
    if mark is None and _mark(own.parent):  # put into a group below by DelegateSubgroup=
        own, mark = own.parent, True
    if not (_seems_ours() if mark is None else mark) or not os.access(
        own / "cgroup.procs", os.W_OK
    ):
        raise NotDelegated(
            "For an exact share run the hub as a service of systemd (minihub.pyz service install)."
        )
    try:
        if "cpu" not in (own / "cgroup.controllers").read_text().split():
            raise NotDelegated(
                "The processors are not in the hub's control group; a service needs Delegate=cpu,"
                " and one of a user that user@.service has it, too."
            )
        if "cpu" not in (own / "cgroup.subtree_control").read_text().split():
            _make_room(own, pid or os.getpid(), everybody=bool(mark) or DELEGATED in os.environ)
    except OSError as error:
        raise NotDelegated(f"The control group {own} cannot be used: {error.strerror}.") from error
    return Groups(own)


def _make_room(own: Path, pid: int, *, everybody: bool) -> None:
    """Empty our group, so that it may have groups with shares below it, and let it have them.

    Only the hub itself moves unless ``everybody`` there is of the hub. Raises NotDelegated when
    others are left; everything is as before then.
    """
    leaf = own / HUB_GROUP
    leaf.mkdir(exist_ok=True)
    moved = [pid]
    _move(pid, leaf)
    for _ in range(10):
        try:
            (own / "cgroup.subtree_control").write_text("+cpu")
            return
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
        found = [int(word) for word in (own / "cgroup.procs").read_text().split()]
        if not everybody:
            break
        for one in found:  # such as what an earlier hub started before it had groups
            with suppress(OSError):  # it has ended
                _move(one, leaf)
                moved.append(one)
    for one in moved:
        with suppress(OSError):
            _move(one, own)
    with suppress(OSError):
        leaf.rmdir()
    raise NotDelegated("Programs that are not the hub's run in its control group.")


def _move(pid: int, group: Path) -> None:
    (group / "cgroup.procs").write_text(str(pid))


def _own_group(cgroups: Path, own_cgroup: Path) -> Path | None:
    try:
        lines = own_cgroup.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("0::/"):
            own = cgroups / line.removeprefix("0::/")
            # The root of the whole tree is nobody's to hand on; it alone has no type.
            return own if (own / "cgroup.type").exists() else None
    return None


def _mark(group: Path) -> bool | None:
    """Return whether systemd delegates a group; None where it says nothing of it."""
    for name in ("user.delegate", "trusted.delegate"):
        try:
            return os.getxattr(group, name) == b"1"
        except OSError:
            continue
    return None


def _seems_ours() -> bool:
    """Return whether a group that systemd says nothing of can be meant for us.

    A container's own tree begins with a group that no systemd manages. Where one does, a unit
    that delegates and clears up after the hub says so itself: systemd before 251 leaves no mark
    that others than root can read. Any other unit could not start its hub again in a group that
    was shared out.
    """
    return os.environ.get(DELEGATED) == "1" or not SYSTEMD.exists()


class Processors:
    """Which server runs on which processors, where there are no control groups."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: dict[str, tuple[int, ...]] = {}

    def take(self, name: str, limit: float | None) -> tuple[int, ...]:
        """Return the processors for a server, those with the fewest servers; () for all."""
        usable = sorted(_usable())
        count = math.ceil(limit) if limit else 0
        if not usable or not 0 < count < len(usable):
            self.release(name)
            return ()
        with self._lock:
            self._taken.pop(name, None)
            load = dict.fromkeys(usable, 0)
            for cpus in self._taken.values():
                for cpu in cpus:
                    load[cpu] = load.get(cpu, 0) + 1
            chosen = tuple(sorted(sorted(usable, key=lambda cpu: (load[cpu], cpu))[:count]))
            self._taken[name] = chosen
        return chosen

    def note(self, name: str, pid: int) -> None:
        """Remember where a server runs that an earlier hub started."""
        try:
            cpus = os.sched_getaffinity(pid)
        except (AttributeError, OSError):
            return
        if cpus < _usable():
            with self._lock:
                self._taken[name] = tuple(sorted(cpus))

    def release(self, name: str) -> None:
        """Forget a server that has ended."""
        with self._lock:
            self._taken.pop(name, None)


_groups: Groups | None = None
_why_not = ""
_processors = Processors()


def setup() -> None:
    """Find out, once at the start of a hub, what there is to hold shares of processors with."""
    global _groups, _why_not
    try:
        _groups = delegated()
    except NotDelegated as error:
        _groups, _why_not = None, str(error)


def share(name: str, limit: float | None, guarantee: float | None) -> Share:
    """Return how the server ``name`` (a file name, unique) gets at most and at least so much.

    Both are numbers of processors, such as 0.5; None or 0 for no limit, no guarantee. Where there
    are groups, each server gets one: beside those with a guarantee, others must weigh little.
    """
    if _groups is not None:
        try:
            return Share(cgroup=_groups.make(name, limit, guarantee))
        except OSError as error:
            log.error("The control group of %s cannot be made: %s", name, error)
    if not limit and not guarantee:
        return Share()
    nice = niceness(limit)
    if guarantee and may_favour():
        nice -= FAVOUR
    return Share(cpus=_processors.take(name, limit), nice=nice)


def keep(name: str, process: Any, limit: float | None, guarantee: float | None) -> None:
    """Go on holding the share of a server that an earlier hub started, ``process`` with its tree.

    A start of the hub's service takes the controller from the groups of servers (servicefile.py).
    """
    if process.poll() is not None:
        return
    if _groups is None:
        _processors.note(name, process.identity.pid)
        return
    try:
        _groups.keep(name, (one.pid for one in process.tree()), limit, guarantee)
    except OSError as error:
        log.error("The control group of %s cannot be made: %s", name, error)


def release(name: str) -> None:
    """Forget a server that has ended."""
    _processors.release(name)
    if _groups is not None:
        _groups.remove(name)


def niceness(limit: float | None) -> int:
    """Return how much nicer a server is for the part of a processor that its limit leaves out."""
    if not limit:
        return 0
    return round((1 - limit / math.ceil(limit)) * NICEST)


def missing(limit: float | None, guarantee: float | None) -> Iterator[str]:
    """Yield what this machine cannot hold of a limit and a guarantee, each as a sentence."""
    if _groups is not None:
        return
    usable = len(_usable())
    if limit and not usable:
        yield f"Spawner.cpu_limit: this system cannot limit processors. {_why_not}"
    elif limit and not float(limit).is_integer() and limit < usable:
        yield (
            f"Spawner.cpu_limit: servers run on {math.ceil(limit)} of {usable} processors with a "
            f"lower priority; {limit:g} cannot be held exactly. {_why_not}"
        )
    if guarantee and not may_favour():
        yield (
            "Spawner.cpu_guarantee: the hub may not give servers a better priority, so nothing is "
            f"guaranteed. {_why_not}"
        )


def may_favour() -> bool:
    """Return whether processes may be given a better priority than the hub's own."""
    if os.geteuid() == 0:
        return True
    try:
        import resource

        soft, _hard = resource.getrlimit(resource.RLIMIT_NICE)
    except (AttributeError, ValueError):
        return False
    return soft == resource.RLIM_INFINITY or soft >= 20 - (os.nice(0) - FAVOUR)


def _usable() -> set[int]:
    """Return the numbers of the processors the hub may use; nothing where that cannot be set."""
    try:
        return os.sched_getaffinity(0)
    except AttributeError:
        return set()
