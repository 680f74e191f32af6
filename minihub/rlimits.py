"""Resource limits (getrlimit(2)): those the hub was started with, and those servers are to have.

The hub raises its own limit of descriptors; what it starts for others gets what it was itself
started with, as a program that one starts by hand would. More is asked for by an option, or set by
a PAM session for its user.

Rules of this file: people name a limit as /etc/security/limits.conf does (``nofile``), the system
and the launcher by its constant (``RLIMIT_NOFILE``).

Threads: any.
"""

from __future__ import annotations

import math
import os
import re
import resource
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from traitlets import TraitError

from .traits import ByteSpecification

#: Soft and hard limit.
Pair = tuple[int, int]

#: The limits that this system has, by the names people use; OFILE is NOFILE's old name.
NAMES = {
    name.partition("_")[2].lower(): name
    for name in dir(resource)
    if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"
}
#: Those that count bytes, for which ``512M`` can be said.
_IN_BYTES = {"as", "core", "data", "fsize", "memlock", "msgqueue", "rss", "stack"}
UNLIMITED = "unlimited"
#: What the kernel's own number of a limit can hold.
_MOST = 2**63 - 1

#: The number of that right, by linux/capability.h.
_CAP_SYS_RESOURCE = 24

#: What descriptors a hub without any bound takes.
_ENOUGH_DESCRIPTORS = 65536

_first: dict[str, Pair] = {}


def raise_descriptors() -> None:
    """Let this process have as many descriptors as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else max(soft, _ENOUGH_DESCRIPTORS)
    if wanted != soft:
        _first.setdefault("RLIMIT_NOFILE", (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def at_start() -> dict[str, Pair]:
    """Return the limits that this process has changed since it was started, as they were then."""
    found = {}
    for name, (soft, _hard) in _first.items():
        hard = resource.getrlimit(getattr(resource, name))[1]  # somebody may have lowered it since
        found[name] = (min((soft, hard), key=_size), hard)
    return found


def _size(limit: int) -> float:
    """Return a limit as a number that can be compared."""
    return math.inf if limit == resource.RLIM_INFINITY else limit


# -- as an option ----------------------------------------------------------------------------


def parse(given: Mapping[str, Any]) -> dict[str, Pair]:
    """Return limits as the launcher takes them. Raises TraitError naming what cannot be one."""
    found = {}
    for name, value in given.items():
        if name not in NAMES:
            raise TraitError(f'there is no limit "{name}"; there are {", ".join(sorted(NAMES))}')
        two = value if isinstance(value, (list, tuple)) else (value, value)
        if len(two) != 2:
            raise TraitError(f"{name}: give one limit, or two: [soft, hard]")
        soft, hard = (_number(name, one) for one in two)
        if _size(soft) > _size(hard):
            raise TraitError(f"{name}: the soft limit {two[0]} is above the hard one {two[1]}")
        found[NAMES[name]] = (soft, hard)
    return found


def _number(name: str, value: Any) -> int:
    if value == UNLIMITED:
        return resource.RLIM_INFINITY
    is_size = name in _IN_BYTES
    try:
        if isinstance(value, str) and not is_size and not value.isdecimal():
            raise TraitError
        if isinstance(value, float) and value % 1:
            raise TraitError
        number = ByteSpecification(allow_none=False).validate(None, value)
    except TraitError:
        size = ", a size such as 512M" if is_size else ""
        raise TraitError(
            f"{name}: {value!r} is no limit; give a number{size} or {UNLIMITED}"
        ) from None
    if number > _MOST:
        raise TraitError(f"{name}: {value!r} is more than this system can count; {UNLIMITED}?")
    return number


def missing(given: Mapping[str, Any], *, is_shared: bool) -> Iterator[str]:
    """Yield what of these limits is not held here as one might think, as sentences.

    ``is_shared`` says that all servers run as the hub's own user.
    """
    option = "LocalProcessSpawner.rlimits"
    may_raise, is_root = _may_raise(), os.geteuid() == 0
    for name, (_soft, hard) in parse(given).items():
        word = name.partition("_")[2].lower()
        most = resource.getrlimit(getattr(resource, name))[1]
        if _size(hard) > _size(most) and not may_raise:
            yield (
                f"{option}: {word} is to be {_word(hard)}, and this hub may not raise it above "
                f"{_word(most)}, which takes root with CAP_SYS_RESOURCE: no server starts"
            )
        elif word == "nofile" and _size(hard) > _most_open():
            yield (
                f"{option}: nofile is to be {_word(hard)}, and this system allows {_most_open()} "
                "(sysctl fs.nr_open): no server starts"
            )
        elif word == "nproc" and is_shared and is_root:
            yield f"{option}: nproc does not bind root, as whom all servers run"
        elif word == "nproc" and is_shared:
            yield (
                f"{option}: nproc counts all processes of one user, and every server runs as the "
                "hub's: those of the hub and of everybody are counted together"
            )


def _may_raise() -> bool:
    """Return whether this process may raise hard limits; root in a container often may not."""
    try:
        found = re.search(r"^CapEff:\s*([0-9a-f]+)$", Path("/proc/self/status").read_text(), re.M)
    except OSError:
        found = None
    if found is None:
        return os.geteuid() == 0
    return bool(int(found[1], 16) >> _CAP_SYS_RESOURCE & 1)


def _most_open() -> float:
    """Return how many descriptors the system lets anybody have, root too."""
    try:
        return int(Path("/proc/sys/fs/nr_open").read_text())
    except (OSError, ValueError):
        return math.inf


def _word(limit: int) -> str:
    return UNLIMITED if limit == resource.RLIM_INFINITY else str(limit)
