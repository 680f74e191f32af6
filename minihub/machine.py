"""What the machine says of itself: who holds a port or file, addresses, memory, file systems.

Rules of this file: it asks psutil and the kernel; it changes nothing.

Threads: any.
"""

from __future__ import annotations

import ipaddress
import os
import pwd
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_TCP_LISTEN = "0A"


def port_holder(port: int) -> str:
    """Return who listens on a TCP port, as ``NAME (process PID)``; empty when it cannot be seen.

    Without root the processes of others cannot be seen; Linux tells whose the socket is.
    """
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status != psutil.CONN_LISTEN or connection.laddr.port != port:
                continue
            if connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    except (psutil.Error, OSError):
        pass
    uid = _listening_uid(port)
    if uid is None:
        return ""
    try:
        return f"a program of the user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"a program of the user with id {uid}"


def _listening_uid(port: int) -> int | None:
    """Return the uid of a socket that listens on a TCP port (proc(5), /proc/net/tcp)."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            _, _, local_port = fields[1].rpartition(":")
            if fields[3] == _TCP_LISTEN and int(local_port, 16) == port:
                return int(fields[7])
    return None


def environment(pid: int) -> dict[str, str]:
    """Return the environment that a process was started with; empty when it cannot be seen."""
    try:
        return psutil.Process(pid).environ()
    except (psutil.Error, OSError):
        return {}


#: Names of interfaces that lead to virtual machines and containers on this machine only.
_INNER = (
    "br-",
    "cni",
    "docker",
    "flannel",
    "lxc",
    "lxd",
    "podman",
    "veth",
    "virbr",
    "vmnet",
    "vbox",
)
#: An address of nobody (RFC 5737): the way to it is the way to everybody.
_ANYWHERE = ("192.0.2.1", 9)


def lan_addresses() -> list[str]:
    """Return this machine's IPv4 addresses that other machines may reach, the likeliest first.

    That is the one towards the rest of the network; those of networks inside this machine come
    last.
    """
    ranks: dict[str, int] = {}
    for name, addresses in psutil.net_if_addrs().items():
        for address in addresses:
            if address.family == socket.AF_INET:
                parsed = ipaddress.ip_address(address.address)
                if not parsed.is_loopback and not parsed.is_link_local:
                    ranks[str(parsed)] = 2 if name.startswith(_INNER) else 1
    outward = _outward_address()
    if outward in ranks:
        ranks[outward] = 0
    return sorted(ranks, key=lambda one: (ranks[one], ipaddress.ip_address(one)))


def _outward_address() -> str:
    """Return the address that this machine shows to others; "" without a network. Sends nothing."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(_ANYWHERE)
            return probe.getsockname()[0]
    except OSError:
        return ""


def free_memory_bytes() -> int:
    """Return how much memory new programs can use without taking it from others.

    That of the machine, or of the control group the hub runs in if that has less.
    """
    free = psutil.virtual_memory().available
    for used, most, inactive in _memory_groups():
        try:
            limit = most.read_text().strip()
            if limit != "max":
                cached = _inactive_file(inactive)
                left = int(limit) - int(used.read_text()) + cached
                free = min(free, max(0, left))
        except (OSError, ValueError):
            continue
    return free


def _memory_groups() -> Iterator[tuple[Path, Path, Path]]:
    """Yield the files with use, limit and details of our control group and those above it."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _number, kinds, path = line.split(":", 2)
        if kinds == "":
            base, used, most = Path("/sys/fs/cgroup"), "memory.current", "memory.max"
        elif "memory" in kinds.split(","):
            base = Path("/sys/fs/cgroup/memory")
            used, most = "memory.usage_in_bytes", "memory.limit_in_bytes"
        else:
            continue
        group = base / path.strip("/")
        while True:
            yield group / used, group / most, group / "memory.stat"
            if group == base:
                break
            group = group.parent


def _inactive_file(details: Path) -> int:
    """Return how much of a group's memory is file cache that the kernel gives back first."""
    found = 0
    for line in details.read_text().splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):  # the total comes later
            found = int(value)
    return found


@dataclass(frozen=True)
class FileSystem:
    """Where a file lies: the mount point, and the kind (ext4, nfs4 ...); both may be empty."""

    mount: str = ""
    kind: str = ""


def file_system(path: Path) -> FileSystem:
    """Return the file system on which a file lies, or would lie."""
    place = Path(os.path.realpath(path))
    found = FileSystem()
    try:
        mounts = psutil.disk_partitions(all=True)
    except (psutil.Error, OSError):
        return found
    for one in mounts:
        if place.is_relative_to(one.mountpoint) and len(one.mountpoint) >= len(found.mount):
            found = FileSystem(one.mountpoint, one.fstype)  # of two at one place the later counts
    return found


def file_holders(path: Path) -> list[str]:
    """Return who else has a file open, as ``NAME (process PID)``; those that can be seen."""
    wanted = os.path.realpath(path)
    found = []
    for one in psutil.process_iter():
        try:
            if one.pid != os.getpid() and any(file.path == wanted for file in one.open_files()):
                found.append(f"{one.name()} (process {one.pid})")
        except (psutil.Error, OSError):
            continue
    return found


def totals(place: str) -> dict[str, Any]:
    """Return how much of the machine there is and is in use; the disk is that of ``place``.

    The share of the processors is that since the last call.
    """
    memory = psutil.virtual_memory()
    disk = psutil.disk_usage(place)
    return {
        "cpu_count": psutil.cpu_count() or 1,
        "cpu_share": psutil.cpu_percent() / 100,
        "memory_total": memory.total,
        "memory_used": memory.total - memory.available,
        "disk_total": disk.total,
        "disk_used": disk.used,
    }


# -- single processes ----------------------------------------------------------------------


@dataclass(frozen=True)
class ProcessFacts:
    """A process as it is at the moment; what cannot be seen is empty or 0."""

    pid: int
    parent: int
    name: str
    user: str
    #: As psutil has it: running, sleeping, stopped, zombie ...
    status: str
    #: Seconds since the epoch.
    create_time: float
    command: tuple[str, ...]
    rss_bytes: int
    cpu_s: float
    threads: int
    descriptors: int


def process_facts(pid: int) -> ProcessFacts | None:
    """Return what can be seen of a process; None when there is none with that id."""
    try:
        one = psutil.Process(pid)
        parent, name, status, since = one.ppid(), one.name(), one.status(), one.create_time()
    except psutil.Error:
        return None
    times = _seen(one.cpu_times)
    memory = _seen(one.memory_info)
    return ProcessFacts(
        pid=pid,
        parent=parent,
        name=name,
        user=_seen(one.username) or "",
        status=status,
        create_time=since,
        command=tuple(_seen(one.cmdline) or ()),
        rss_bytes=memory.rss if memory else 0,
        cpu_s=times.user + times.system if times else 0.0,
        threads=_seen(one.num_threads) or 0,
        descriptors=_seen(one.num_fds) or 0,
    )


def descriptor_limit(pid: int) -> int:
    """Return how many files a process may have open; 0 when that cannot be seen."""
    limits = _seen(lambda: psutil.Process(pid).rlimit(psutil.RLIMIT_NOFILE))
    return limits[0] if limits else 0


def _seen(ask: Any) -> Any:
    """Return what is asked for, None where the system does not tell."""
    try:
        return ask()
    except (psutil.Error, OSError, AttributeError):
        return None
