"""Landlock: what the Linux kernel can take away from a process that asks for it, and how to ask.

Rules of this file: the standard library only; nothing is applied here. :func:`description` says in
plain numbers what the launcher then does in the server's own process, before the server's code.

Threads: any; pure functions, but for the question to the kernel.
Sources: the kernel's userspace-api/landlock page; landlock(7).
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

_CREATE_RULESET = 444
_ONLY_THE_VERSION = 1

_EXECUTE = 1 << 0
_WRITE_FILE = 1 << 1
_READ_FILE = 1 << 2
_READ_DIR = 1 << 3
_REMOVE_AND_MAKE = sum(1 << bit for bit in range(4, 13))
_MAKE_DEVICES = 1 << 6 | 1 << 11
_REFER = 1 << 13
_TRUNCATE = 1 << 14
_IOCTL_DEV = 1 << 15
_CONNECT_UNIX = 1 << 16
#: The rights that a rule on a single file can give.
FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV | _CONNECT_UNIX

READ = _EXECUTE | _READ_FILE | _READ_DIR
WRITE = (
    READ | _WRITE_FILE | (_REMOVE_AND_MAKE & ~_MAKE_DEVICES) | _REFER | _TRUNCATE | _CONNECT_UNIX
)
DEVICES = _READ_FILE | _READ_DIR | _WRITE_FILE | _TRUNCATE | _IOCTL_DEV

#: The first version of the kernel's interface that knows a right, by right.
_SINCE = {_REFER: 2, _TRUNCATE: 3, _IOCTL_DEV: 5, _CONNECT_UNIX: 9}
_ALL_RIGHTS = (1 << 17) - 1
#: Signals, and sockets of the abstract name space, go to processes of the same sandbox alone.
_SCOPES = 1 << 0 | 1 << 1
SCOPES_SINCE = 6
#: Sockets that lie in directories can be held back as files are.
SOCKETS_SINCE = _SINCE[_CONNECT_UNIX]


@dataclass(frozen=True)
class Rule:
    """What may be done at a path and below it: READ, WRITE or DEVICES."""

    path: str
    rights: int


@cache
def abi() -> int:
    """Return the version of the kernel's Landlock; 0 where there is none."""
    if not sys.platform.startswith("linux"):
        return 0
    version = ctypes.CDLL(None).syscall(
        _CREATE_RULESET, None, ctypes.c_size_t(0), _ONLY_THE_VERSION
    )
    return max(version, 0)


def description(rules: Iterable[Rule], version: int) -> dict[str, Any]:
    """Return for the launcher what a process gives up; everything that no rule allows.

    ``handled``: the rights in question; ``scoped``: what stays within the sandbox; ``size``: the
    bytes of the kernel's structure that this version has; ``rules``: ``[path, rights]``, paths as
    the Latin-1 reading of their bytes.
    """
    handled = _ALL_RIGHTS & ~sum(right for right, since in _SINCE.items() if version < since)
    return {
        "handled": handled,
        "scoped": _SCOPES if version >= SCOPES_SINCE else 0,
        "size": 24 if version >= SCOPES_SINCE else 8,
        "file_rights": FILE_RIGHTS,
        "rules": [
            [rule.path.encode("utf-8", "surrogateescape").decode("latin-1"), rule.rights & handled]
            for rule in rules
        ],
    }
