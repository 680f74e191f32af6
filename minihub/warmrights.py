"""The rights of a warm parent whose copies become other users: what it has of root's, and when.

Three processes use this, one after the other. As a script, ``python -I -S warmrights.py keep UID
COMMAND…`` gives up root for a user id that nobody has, keeps of all rights those to change user and
groups (CAP_SETUID, CAP_SETGID), and executes the command; with ``none`` it keeps no right at all.
The command, a parent, first puts its two rights away (:func:`put_away`): permitted, but not in
effect, and handed on to no program it executes. A copy of it takes them up (:func:`become_user`),
becomes its user, gives up every right for good, and tries in vain to get back, before any code of
a user's runs.

Rules of this file: the standard library only, Python 3.8 and newer, nothing of minihub (see
:mod:`minihub.warmchild`). Neither the bounding set nor ``no_new_privs`` is touched on the way to a
server: programs of users keep what the system gives them.

Threads: one.
Sources: capabilities(7) on changes of user ids; capset(2); prctl(2), PR_SET_KEEPCAPS,
PR_CAP_AMBIENT, PR_SET_DUMPABLE; execve(2) on RLIMIT_NPROC.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from typing import Any

CAP_SETGID = 6
CAP_SETUID = 7
#: The rights to become any user.
CHANGE_USER = 1 << CAP_SETGID | 1 << CAP_SETUID

_VERSION = 0x20080522
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def prctl(*words: int) -> int:
    """Call prctl(2). Raises OSError."""
    padded = (*words, 0, 0, 0, 0)[:5]
    return _check(_libc.prctl(*map(ctypes.c_ulong, padded)))


def rights() -> tuple[int, int, int]:
    """Return the rights of this process: effective, permitted, inheritable."""
    data = ctypes.create_string_buffer(24)
    _check(_libc.capget(struct.pack("Ii", _VERSION, 0), data))
    one = struct.unpack("6I", data.raw)
    return tuple(one[i] | one[i + 3] << 32 for i in range(3))  # type: ignore[return-value]


def set_rights(effective: int, permitted: int, inheritable: int) -> None:
    """Set the rights of this process. Raises OSError."""
    words = [effective, permitted, inheritable]
    low, high = [one & 0xFFFFFFFF for one in words], [one >> 32 for one in words]
    _check(_libc.capset(struct.pack("Ii", _VERSION, 0), struct.pack("6I", *low, *high)))


# -- from root to nobody's id --------------------------------------------------------------


def descend(uid: int, keep: bool) -> None:
    """Give up root for a user and group id, and all rights but, with ``keep``, to change user.

    What is kept is kept by the program that this process executes. Raises OSError.
    """
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    if keep:
        prctl(PR_SET_KEEPCAPS, 1)
    os.setresuid(uid, uid, uid)
    if keep:
        set_rights(CHANGE_USER, CHANGE_USER, CHANGE_USER)
        for one in (CAP_SETGID, CAP_SETUID):
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, one)
    else:
        set_rights(0, 0, 0)
        prctl(PR_SET_NO_NEW_PRIVS, 1)


# -- in the parent -------------------------------------------------------------------------


def put_away() -> None:
    """Keep the rights to change user out of effect, and this process closed to all but root.

    Raises OSError when it is not what :func:`descend` has made of it.
    """
    uids, gids = os.getresuid(), os.getresgid()
    if 0 in (*uids, *gids) or len({*uids, *gids}) != 1 or os.getgroups():
        raise PermissionError(errno.EPERM, "it runs with other ids than it should")
    if rights()[1] != CHANGE_USER:
        raise PermissionError(errno.EPERM, "it has other rights than it should")
    set_rights(0, CHANGE_USER, 0)
    prctl(PR_SET_DUMPABLE, 0)
    if rights() != (0, CHANGE_USER, 0) or prctl(PR_GET_DUMPABLE):
        raise PermissionError(errno.EPERM, "it cannot put its rights away")


# -- in a copy -----------------------------------------------------------------------------


def become_user(spec: dict[str, Any]) -> None:
    """Become the user of the description, for good; as the launcher's step of that name does.

    Raises OSError; ends this process at once when it finds a right that it should not have.
    """
    uid, gid, was = spec["uid"], spec["gid"], os.getuid()
    if not spec["user"] or uid <= 0 or gid < 0 or uid == was:
        raise PermissionError(errno.EPERM, "no copy becomes this user")
    if spec["no_new_privs"] or spec["sandbox"]:
        prctl(PR_SET_NO_NEW_PRIVS, 1)
    set_rights(CHANGE_USER, CHANGE_USER, 0)
    os.setgroups(spec["groups"])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    set_rights(0, 0, 0)
    if not _is_bound(uid, gid, was):
        os._exit(126)
    # An execution makes a process its user's own again, for debuggers and in /proc.
    prctl(PR_SET_DUMPABLE, 1)
    _refuse_one_too_many()


def _is_bound(uid: int, gid: int, was: int) -> bool:
    """Return whether this process is its user and there is no way back."""
    for attempt, argument in (
        (os.setuid, 0),
        (os.setuid, was),
        (os.setgid, 0 if gid else was),
        (os.setgid, was),
        (os.setgroups, [0]),
    ):
        try:
            attempt(argument)
            return False
        except PermissionError:
            pass
    try:
        set_rights(CHANGE_USER, CHANGE_USER, 0)
        return False
    except PermissionError:
        pass
    return (
        rights() == (0, 0, 0)
        and os.getresuid() == (uid, uid, uid)
        and os.getresgid() == (gid, gid, gid)
    )


def _refuse_one_too_many() -> None:
    """Fail where an execution would, for a user who has as many processes as the limit allows."""
    try:
        os.execve("/proc/self/no-such-file", ["-"], {})
    except OSError as error:
        if error.errno == errno.EAGAIN:
            raise


def main(argv: list[str]) -> None:
    """Descend and execute a command, with the very environment that this process was given."""
    with open("/proc/self/environ", "rb") as file:
        pieces = [one.partition(b"=") for one in file.read().split(b"\0") if one]
    descend(int(argv[1]), argv[0] == "keep")
    os.execve(argv[2], argv[2:], {name: value for name, _sign, value in pieces})


if __name__ == "__main__":
    main(sys.argv[1:])
