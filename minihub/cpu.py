"""Processor time for servers: limits and guarantees, as far as this machine holds them.

Where a part of the control group tree is delegated to the hub (version 2, as systemd does with
``Delegate=yes``), each server gets a group of its own: ``cpu.max`` holds a limit exactly and
``cpu.weight`` a guarantee. Anywhere else a limit means that a server runs on so many processors,
rounded up, with a worse priority for the part that was rounded; a guarantee means a better
priority. What is missing then is told by :func:`missing`.

Rules of this file: it decides where a server runs and writes into the groups that are ours. It
moves no process but the hub's own, once, since a group with groups below it may hold none itself.

Threads: any. How many servers run on which processor is guarded by a leaf lock.
Sources: Linux kernel, Control Group v2; systemd, Control Group APIs and Delegation.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger("minihub.cpu")

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")

#: Length of the period in which a limit holds, in µs.
PERIOD_US = 100_000
#: Weight of a group that is guaranteed one processor; others have the least.
WEIGHT = 100
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

    def remove(self, name: str) -> None:
        """Remove a server's group when nothing runs in it any more."""
        try:
            self._group(name).rmdir()
        except OSError:
            pass  # still in use, or never made: the next start finds it


def delegated(
    cgroups: Path = CGROUPS, own_cgroup: Path = OWN_CGROUP, pid: int | None = None
) -> Groups | None:
    """Return the groups that may be made below ours; None where they may not.

    The hub's own process moves to a group of its own beside them.
    """
    own = _own_group(cgroups, own_cgroup)
    if own is None or not _is_ours(own):
        return None
    leaf = own / "minihub"
    try:
        if "cpu" not in (own / "cgroup.controllers").read_text().split():
            return None
        if "cpu" in (own / "cgroup.subtree_control").read_text().split():
            return Groups(own)
        leaf.mkdir(exist_ok=True)
        (leaf / "cgroup.procs").write_text(str(pid or os.getpid()))
        try:
            (own / "cgroup.subtree_control").write_text("+cpu")
        except OSError:  # somebody else's processes are there as well
            (own / "cgroup.procs").write_text(str(pid or os.getpid()))
            leaf.rmdir()
            return None
    except OSError as error:
        log.info("The control group %s cannot be used: %s", own, error)
        return None
    return Groups(own)


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


def _is_ours(group: Path) -> bool:
    """Return whether whoever manages the tree leaves this part of it to us.

    systemd marks what it delegates. A container's own tree begins with a group that no systemd
    manages. A user's own session belongs to the user, though not to this program: that nothing
    else runs in it is found out when its processes are to be moved.
    """
    if not os.access(group / "cgroup.procs", os.W_OK):
        return False
    for name in ("user.delegate", "trusted.delegate"):
        try:
            return os.getxattr(group, name) == b"1"
        except OSError:
            continue
    return os.geteuid() != 0 or not Path("/run/systemd/system").exists()


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

    def release(self, name: str) -> None:
        """Forget a server that has ended."""
        with self._lock:
            self._taken.pop(name, None)


_groups: Groups | None = None
_processors = Processors()


def setup() -> None:
    """Find out, once at the start of a hub that limits processors, what there is to do it with."""
    global _groups
    _groups = delegated()


def share(name: str, limit: float | None, guarantee: float | None) -> Share:
    """Return how the server ``name`` (a file name, unique) gets at most and at least so much.

    Both are numbers of processors, such as 0.5; None or 0 for no limit, no guarantee.
    """
    if not limit and not guarantee:
        return Share()
    if _groups is not None:
        try:
            return Share(cgroup=_groups.make(name, limit, guarantee))
        except OSError as error:
            log.error("The control group of %s cannot be made: %s", name, error)
    nice = niceness(limit)
    if guarantee and may_favour():
        nice -= FAVOUR
    return Share(cpus=_processors.take(name, limit), nice=nice)


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
    advice = "For an exact share run the hub as a systemd service with Delegate=yes."
    usable = len(_usable())
    if limit and not usable:
        yield f"Spawner.cpu_limit: this system cannot limit processors. {advice}"
    elif limit and not float(limit).is_integer() and limit < usable:
        yield (
            f"Spawner.cpu_limit: servers run on {math.ceil(limit)} of {usable} processors with a "
            f"lower priority; {limit:g} cannot be held exactly. {advice}"
        )
    if guarantee and not may_favour():
        yield (
            "Spawner.cpu_guarantee: the hub may not give servers a better priority, so nothing is "
            f"guaranteed. {advice}"
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
