"""The operating system's users and groups, as authenticators ask about them.

Rules of this file: look-ups only; nothing unknown raises. ``pwd`` and ``grp`` are the only
sources, so that whatever the system is told to use (files, LDAP, SSSD) is used.

Threads: any. A look-up may go to the network and block.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
from collections.abc import Iterable

#: Programs that stand for no shell.
NO_SHELLS = ("nologin", "false", "sync")


def system_user(name: str) -> pwd.struct_passwd | None:
    """Return the system user of that name, or None."""
    try:
        return pwd.getpwnam(name)
    except (KeyError, ValueError):  # ValueError: a NUL, or text that cannot be encoded
        return None


def name_of_uid(uid: int) -> str:
    """Return the name of the system user with that id, or ""."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def group_ids(names: Iterable[str]) -> tuple[set[int], str]:
    """Return the ids of the groups that exist, and the names of the others in one text."""
    ids, missing = set(), []
    for name in sorted(names):
        try:
            ids.add(grp.getgrnam(name).gr_gid)
        except (KeyError, ValueError):
            missing.append(f'"{name}"')
    return ids, ", ".join(missing)


def group_ids_of(name: str) -> set[int]:
    """Return the ids of all groups of a system user, its primary one included."""
    user = system_user(name)
    return set() if user is None else set(os.getgrouplist(user.pw_name, user.pw_gid))


def own_name() -> str:
    """Return the name of the user that this program runs as; its number where it has none."""
    return name_of_uid(os.geteuid()) or str(os.geteuid())


def own_shell() -> str:
    """Return the login shell of that user; another one where that would let nobody in."""
    try:
        shell = pwd.getpwuid(os.geteuid()).pw_shell
    except KeyError:
        shell = ""
    if not shell or os.path.basename(shell) in NO_SHELLS:
        return shutil.which("bash") or "/bin/sh"
    return shell
