"""SQLite files as files: copied while in use, looked at, and what their errors mean.

Rules of this file: it knows no table of ours but the one fact of the schema's version. Nothing it
does changes the file it is asked about; a copy that is not sound does not stay.

Threads: any.
Sources: https://sqlite.org/backup.html, https://sqlite.org/rescode.html, https://sqlite.org/wal.html.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from . import clock, machine
from .errors import StoreError

#: How long another program may hold the file before it counts as locked.
BUSY_TIMEOUT_S = 5.0
#: File systems of other machines, on which the shared memory of a write-ahead log is not shared.
NETWORK_FILE_SYSTEMS = frozenset(
    """
    9p afs afpfs beegfs ceph cifs coda drvfs fuse.ceph fuse.gcsfuse fuse.glusterfs fuse.rclone
    fuse.s3fs fuse.sshfs glusterfs gpfs lustre ncpfs nfs nfs4 ocfs2 orangefs pvfs2 smb2 smb3 smbfs
    vboxsf webdav
    """.split()
)


def network_file_system(path: Path) -> str:
    """Return the kind of network file system that a file lies on; empty for one of this machine."""
    kind = machine.file_system(path).kind
    return kind if kind in NETWORK_FILE_SYSTEMS else ""


@contextmanager
def looking(path: Path, *, foreign: bool = False) -> Iterator[sqlite3.Connection]:
    """Give a connection that reads an existing file and changes nothing of what is in it.

    The last reader of a file of ours folds its write-ahead log into it, as any program that ends
    would; of a file that may be ``foreign`` not a byte changes, but an empty log may stay.
    """
    can_write = os.access(path, os.W_OK) and os.access(path.absolute().parent, os.W_OK)
    mode = "ro" if foreign or not can_write else "rw"
    url = f"{path.absolute().as_uri()}?mode={mode}"
    with closing(sqlite3.connect(url, uri=True, timeout=BUSY_TIMEOUT_S)) as connection:
        connection.execute("PRAGMA query_only = 1")
        yield connection


def tables(path: Path) -> set[str]:
    """Return the names of a file's tables, whoever wrote it. Raises sqlite3.Error."""
    with looking(path, foreign=True) as connection:
        rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {name for (name,) in rows}


def problems(
    path: Path, *, foreign: bool = False, references: bool = True, quick: bool = False
) -> str:
    """Return what is wrong with a file, on one line; empty when it is sound.

    Every page and every index is looked at and, with ``references``, every reference between
    tables; with ``quick`` neither indexes nor references. ``foreign`` as for :func:`looking`.
    """
    pragma = "quick_check" if quick else "integrity_check"
    try:
        with looking(path, foreign=foreign) as connection:
            found = [text for (text,) in connection.execute(f"PRAGMA {pragma}(5)")]
            if found != ["ok"]:
                return "; ".join(" ".join(text.split()) for text in found)
            if quick or not references:
                return ""
            loose = connection.execute("PRAGMA foreign_key_check").fetchone()
            return "" if loose is None else f"{loose[0]}, row {loose[1]}, points at no {loose[2]}"
    except sqlite3.Error as error:
        return str(error)


def copy(path: Path, target: Path, *, foreign: bool = False) -> None:
    """Copy a file, which others may be writing to, to a new one of mode 0600.

    ``foreign`` as for :func:`looking`.
    The copy holds everything committed, is on the disk and was found sound. Raises StoreError, and
    leaves no copy, when that fails.
    """
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreError(f"{target} cannot be written: {error.strerror}") from error
    try:
        with looking(path, foreign=foreign) as source, closing(sqlite3.connect(target)) as into:
            source.backup(into)
            # One file that stands alone: without a log beside it.
            into.execute("PRAGMA journal_mode = DELETE")
        wrong = problems(target)
        if wrong:
            raise StoreError(f"{path} is damaged ({wrong}); it was not touched. {MEND_DAMAGED}")
        _reach_disk(target)
    except (sqlite3.Error, OSError, StoreError) as error:
        for name in (target, *(Path(f"{target}{end}") for end in ("-journal", "-wal", "-shm"))):
            with suppress(OSError):
                name.unlink()
        if isinstance(error, StoreError):
            raise
        raise StoreError(
            f"{path} cannot be copied to {target}: {explain(error, target)}"
        ) from error


def dated_copy(path: Path) -> Path:
    """Copy a file to ``<file>.YYYY-MM-DD-HHMMSS`` (UTC) beside it, as :func:`copy`; return that."""
    target = path.with_name(f"{path.name}.{clock.utcnow():%Y-%m-%d-%H%M%S}")
    copy(path, target)
    return target


def _reach_disk(path: Path) -> None:
    for name, flags in ((path, os.O_RDWR), (path.parent, os.O_RDONLY)):
        descriptor = os.open(name, flags | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def free_bytes(path: Path) -> int:
    """Return how much the file system of a file can still take from this user."""
    there = path if path.exists() else path.parent
    return shutil.disk_usage(there).free


# -- errors in words -------------------------------------------------------------------------

MEND_DAMAGED = "Bring back a backup: minihub.pyz restore FILE"

#: Signs in what SQLite says, and what that means to whoever runs the hub.
_MEANINGS = (
    (
        ("disk is full",),
        "the disk is full ({free} free on {directory}); nothing that was saved before is lost. "
        "Free some space there",
    ),
    (
        ("readonly database", "read-only"),
        "the file may not be written. Look at the owner and mode of {path} and of its directory, "
        "and whether the file system is mounted read-only",
    ),
    (
        ("is locked",),
        "another program holds it locked{holder} ({said}); end that one, or wait for it",
    ),
    (
        ("malformed", "not a database", "disk image"),
        "the file is damaged ({said}); it was left as it is. " + MEND_DAMAGED,
    ),
    (
        ("unable to open",),
        "the file or its directory {directory} cannot be opened ({said})",
    ),
    (
        ("disk I/O error",),
        "the disk reports an error ({said}; {free} free on {directory}). Look at the system's log",
    ),
)


def explain(error: BaseException, path: Path | None, *, find_holder: bool = False) -> str:
    """Return what an error of SQLite means and what to do, in one line.

    ``find_holder`` also looks for the program that holds a locked file, which takes a moment.
    """
    while "cannot rollback" in str(error) and error.__context__ is not None:
        error = error.__context__  # SQLite had rolled back by itself; this is why
    said = " ".join(str(error).split())
    if path is None:
        return said
    for signs, meaning in _MEANINGS:
        if any(sign in said for sign in signs):
            holder = ""
            if "{holder}" in meaning and find_holder:
                names = machine.file_holders(path)
                holder = f" ({', '.join(names)})" if names else ""
            directory = path.absolute().parent
            return meaning.format(
                path=path, directory=directory, free=_free_text(path), said=said, holder=holder
            )
    return said


def _free_text(path: Path) -> str:
    try:
        return f"{free_bytes(path) / 1024**2:.0f} MB"
    except OSError:
        return "nothing"
