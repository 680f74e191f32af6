"""Warm parents of a hub that root runs: who they run as, and what the hub does for their copies.

Such a parent must not be root, and its copies must become users. It runs as a user id of its own
that no account has, with the right to change user and no other (:mod:`minihub.warmrights`), and it
imports nothing but what root alone can change (:mod:`minihub.warmguard`). What else of a start
takes root's rights, the hub does from outside, to a copy that it knows by the process id.

Rules of this file: it decides nothing about when there is a parent. What learns, and may run
anybody's code, has another id than the parent and no right at all; nothing of it is left running.

Threads: any; nothing is shared.
Sources: systemd's table of user ids, which gives these to nobody.
"""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import re
import resource
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import clock, process, runtime, warmguard
from .warmplan import NotWarm, Plan

#: Ids for parents and for what learns, between those of accounts and those that systemd lends.
#: ``nobody`` is not among them: other programs run as that too.
IDS = range(60578, 61184)
#: Where the home of what learns is noted, should the hub be killed meanwhile.
NOTE = "learn-home"
_HOME_PREFIX = "minihub-learn-"
_END_S = 5.0
#: How many modules a start may import.
MOST_NAMES = 20_000
_NAME = re.compile(r"(?!\d)\w+(\.\w+)*\Z")


class NotRoots(NotWarm):
    """Raised when root is not the only one who can change what a parent would import.

    ``path`` is what somebody else can change.
    """

    def __init__(self, path: str, text: str) -> None:
        super().__init__(text)
        self.path = path


def is_needed(changes_user: bool) -> bool:
    """Return whether servers become other users than the hub, so that parents are guarded."""
    return changes_user and os.geteuid() == 0


def check(plan: Plan) -> None:
    """Look at what the interpreter runs before its guard is in place. Raises NotWarm."""
    command = plan.command
    if any(re.match(r"-\w*[SX]", flag) for flag in command.flags):
        raise NotWarm(f"the first line of {command.script} is unusual")
    try:
        warmguard.vet_interpreter(command.interpreter, command.script, dict(plan.env))
    except warmguard.NotRoots as error:
        raise not_roots(error.filename, str(error)) from error
    except ValueError as error:
        raise NotWarm(str(error)) from error
    except OSError as error:
        raise NotWarm(f"{error.filename} cannot be read: {error.strerror}") from error
    for path in (command.interpreter, command.script):
        for one in (path, os.path.realpath(path)):
            _check_open(one)


def _check_open(path: str) -> None:
    """Raise NotWarm when not everybody can run a program."""
    while True:
        mode = os.stat(path).st_mode
        wanted = stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IXOTH | stat.S_IROTH
        if mode & wanted != wanted:
            raise NotWarm(f"{path} is not open to everybody, and so not to what imports it")
        if path == "/":
            return
        path = os.path.dirname(path)


def not_roots(path: str, text: str) -> NotRoots:
    """Return the reason that names what is not root's, with names for numbers."""
    text = re.sub(r"the user with the number (\d+)", _user, text)
    text = re.sub(r"the group with the number (\d+)", _group, text)
    return NotRoots(path, f"{text}; a hub that root runs imports only what root alone can change")


def _user(match: re.Match[str]) -> str:
    try:
        return f"the user {pwd.getpwuid(int(match[1])).pw_name}"
    except KeyError:
        return match[0]


def _group(match: re.Match[str]) -> str:
    try:
        return f"the group {grp.getgrgid(int(match[1])).gr_name}"
    except KeyError:
        return match[0]


def is_roots(path: str) -> bool:
    """Return whether root alone can change what is there now."""
    try:
        warmguard.Vetting().vet(path)
    except OSError:
        return False
    return True


# -- who they run as -----------------------------------------------------------------------


def free_id() -> int:
    """Return a user id that no account, group or process has. Raises NotWarm."""
    used = {one for _pid, ids in _running() for one in ids}
    for number in IDS:
        if number in used:
            continue
        try:
            pwd.getpwuid(number)
        except KeyError:
            try:
                grp.getgrgid(number)
            except KeyError:
                return number
    raise NotWarm(f"no user id from {IDS[0]} to {IDS[-1]} is free")


def _running() -> Iterator[tuple[int, set[int]]]:
    """Yield each process that has not ended, with its user ids."""
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            text = Path("/proc", name, "status").read_text()
        except OSError:  # it has ended meanwhile
            continue
        ids, state = re.search(r"^Uid:(.*)", text, re.M), re.search(r"^State:\s*(\w)", text, re.M)
        if ids and state and state[1] not in "ZX":
            yield int(name), {int(one) for one in ids[1].split()}


def descent(uid: int, *, keep: bool) -> list[str]:
    """Return the words before a command that run it as this id.

    With ``keep`` it gets the right to change user.
    """
    return runtime.script_command("minihub.warmrights", "keep" if keep else "none", str(uid))


@contextlib.contextmanager
def learners_home(directory: Path, uid: int) -> Iterator[str]:
    """Lend a home to what learns as this id; at the end nothing of it runs, and the home is gone.

    ``directory`` is the hub's own, into which nobody else can look.
    """
    remove_leftover(directory)
    home = tempfile.mkdtemp(prefix=_HOME_PREFIX)
    (directory / NOTE).write_text(home)
    os.chown(home, uid, uid)
    try:
        yield home
    finally:
        try:
            end_all(uid)
        finally:
            remove_leftover(directory)


def remove_leftover(directory: Path) -> None:
    """Remove the home that an earlier hub has lent."""
    with contextlib.suppress(OSError):
        home = (directory / NOTE).read_text()
        if os.path.basename(home).startswith(_HOME_PREFIX):
            shutil.rmtree(home, ignore_errors=True)
        (directory / NOTE).unlink()


def end_all(uid: int) -> None:
    """End every process of an id that is ours alone. Raises NotWarm when they do not end."""
    deadline = clock.monotonic() + _END_S
    while uid in IDS:
        found = [pid for pid, ids in _running() if uid in ids]
        if not found:
            return
        if clock.monotonic() > deadline:
            raise NotWarm(f"what its throw-away start left running does not end: {len(found)} left")
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def names(told: Any) -> list[str]:
    """Return the names of modules that a throw-away start told, which may have run any code.

    Raises NotWarm when they are none.
    """
    if not isinstance(told, list) or len(told) > MOST_NAMES:
        raise NotWarm("its throw-away start told no names")
    return [one for one in told if isinstance(one, str) and _NAME.match(one)]


# -- what the hub does for a copy ----------------------------------------------------------


def bind(pid: int, launch: process.LaunchSpec, description: bytes) -> bytes:
    """Give a copy the control group, the priority and the limits that take root's rights.

    Returns its description: the launcher's, without that, and with the groups of its user. Raises
    OSError or ValueError.
    """
    spec = json.loads(description) | {"cgroup": "", "nice": 0}
    spec["groups"] = os.getgrouplist(launch.user, launch.gid)
    if launch.cgroup:
        Path(launch.cgroup, "cgroup.procs").write_text(str(pid))
    if launch.nice:
        own = os.getpriority(os.PRIO_PROCESS, pid)
        os.setpriority(os.PRIO_PROCESS, pid, own + launch.nice)
    for name, limits in launch.rlimits.items():
        # A root without this right (in a container, say) cannot raise any; the copy can lower its.
        with contextlib.suppress(PermissionError):
            resource.prlimit(pid, getattr(resource, name), limits)
            del spec["rlimits"][name]
    return json.dumps(spec).encode()
