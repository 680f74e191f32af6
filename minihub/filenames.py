"""Names of users and servers as names of files.

Rules of this file: two names never become the same; nothing on the disk is looked at.

Threads: any; pure functions.
"""

from __future__ import annotations

import hashlib
import re

_UNSAFE = re.compile(r"[^a-z0-9_.@-]|^[.-]|(?<=-)-|-$")
_LONGEST_NAME = 100


def file_name(name: str) -> str:
    """Return a user's or server's name as a file name of its own.

    Lower-case letters, digits and ``_ . @ -`` stay; everything else becomes ``%XX``, also capital
    letters (some file systems do not tell them apart) and a dash or dot where it would have a
    meaning: ``--`` is never part of a result, so it can separate two. A long name is cut
    and its digest added after ``%%``, which is nowhere else. Different names never give the same.
    """
    quoted = _UNSAFE.sub(lambda found: "".join(f"%{b:02X}" for b in _bytes(found[0])), name)
    if len(quoted) <= _LONGEST_NAME:
        return quoted
    digest = hashlib.sha256(_bytes(name)).hexdigest()[:40]
    return f"{quoted[: _LONGEST_NAME - 42]}%%{digest}"


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
