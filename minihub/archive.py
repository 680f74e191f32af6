"""A backup as a file: what is in it, written, looked through, and put back.

A backup is a gzipped tar archive, 0600. Its first member, ``manifest.json``, says which minihub
wrote it and names every other member with its SHA-256, its mode, and where it belongs: a path as
the configuration had it, relative to the hub's directory or absolute.

Rules of this file: it knows files and checks, not options. Nothing is taken from an archive but
what its manifest names, and nothing is put anywhere before all of it was read and found right. What
stood in the way is kept under another name; the file itself is exchanged in one step.

Threads: the main thread.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sqlite3
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from . import clock, sqlitefiles, store
from .errors import MinihubError, SchemaError, StoreError

FORMAT = 1
MANIFEST = "manifest.json"
DATABASE = "database.sqlite"
#: No file that a backup is made of is larger, but the database may be.
MAX_BYTES = 64 * 1024 * 1024
_BLOCK = 1024 * 1024


class BadBackup(MinihubError):
    """Raised when a file is no backup, or not as it was written."""


@dataclass(frozen=True)
class Member:
    """One file of a backup."""

    name: str
    #: Where it belongs, as the configuration had it.
    path: str
    #: What it is, for people.
    what: str
    sha256: str
    size: int
    mode: int = 0o600


@dataclass(frozen=True)
class Manifest:
    """What a backup says of itself."""

    created: str
    minihub: str
    python: str
    sqlite: str
    host: str
    #: The hub's directory, against which relative paths were meant, and its state directory.
    directory: str
    state_dir: str
    with_secrets: bool
    #: Schema of the database in it; None without one.
    schema: int | None
    #: How many rows the main tables have.
    rows: dict[str, int]
    members: list[Member] = field(default_factory=list)
    format: int = FORMAT

    @property
    def total_rows(self) -> str:
        """The numbers for people: ``users: 3, groups: 1``."""
        return ", ".join(f"{name}: {count}" for name, count in self.rows.items())


#: Tables that are counted: how they are called for people.
_COUNTED = {"users": "users", "user_groups": "groups", "api_tokens": "tokens"}


def count_rows(path: Path) -> dict[str, int]:
    """Return how many users, groups and tokens are in a database of ours."""
    with sqlitefiles.looking(path) as connection:
        return {
            told: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table, told in _COUNTED.items()
        }


def schema_of(path: Path) -> int:
    """Return the schema of a database of ours.

    Raises SchemaError for any other, StoreError for a file that cannot be read.
    """
    query = "SELECT value FROM minihub_meta WHERE key = 'schema_version'"
    try:
        with sqlitefiles.looking(path) as connection:
            return int(connection.execute(query).fetchone()[0])
    except sqlite3.Error as error:
        if "no such table" not in str(error):
            raise StoreError(f"the database {path}: {sqlitefiles.explain(error, path)}") from error
        raise SchemaError(f"{path} is no database of minihub's") from error
    except (TypeError, ValueError) as error:
        raise SchemaError(f"{path} is no database of minihub's: {error}") from error


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


# -- writing and reading -------------------------------------------------------------------


def write(path: Path, manifest: Manifest, sources: dict[str, Path]) -> None:
    """Write a new archive of mode 0600; ``sources`` are the members' files by their names."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as raw:
        with tarfile.open(fileobj=raw, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
            text = json.dumps(asdict(manifest), indent=2).encode()
            archive.addfile(_entry(MANIFEST, len(text)), io.BytesIO(text))
            for member in manifest.members:
                with open(sources[member.name], "rb") as file:
                    archive.addfile(_entry(member.name, member.size), file)
        raw.flush()
        os.fsync(raw.fileno())


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = size, 0o600, int(clock.utcnow().timestamp())
    return entry


def unpack(path: Path, directory: Path) -> Manifest:
    """Read all of an archive into ``directory``, a file for each member; return the manifest.

    Everything is compared with the manifest. Raises BadBackup, SchemaError for a database of a
    newer minihub, StoreError for a damaged one.
    """
    try:
        with tarfile.open(path, "r:gz") as archive:
            members = iter(archive)
            manifest = _manifest(path, archive, next(members, None))
            wanted = {member.name: member for member in manifest.members}
            for entry in members:
                member = wanted.pop(entry.name, None)
                if member is None or not entry.isreg():
                    raise BadBackup(f"{path}: {entry.name} is not what its manifest names")
                _take(path, archive, entry, member, directory / entry.name)
    except FileNotFoundError as error:
        raise BadBackup(f"{path}: there is no such file") from error
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise BadBackup(f"{path} cannot be read: {error.strerror}") from error
        raise BadBackup(f"{path} is no backup of minihub's, or is damaged: {error}") from error
    if wanted:
        raise BadBackup(f"{path} is cut short: {', '.join(sorted(wanted))} is missing")
    if manifest.schema is not None:
        _check_database(path, manifest, directory / DATABASE)
    return manifest


def _manifest(path: Path, archive: tarfile.TarFile, entry: tarfile.TarInfo | None) -> Manifest:
    if entry is None or entry.name != MANIFEST or entry.size > MAX_BYTES:
        raise BadBackup(f"{path} is no backup of minihub's: it has no manifest")
    try:
        found: dict[str, Any] = json.loads(archive.extractfile(entry).read())  # type: ignore[union-attr]
        if found["format"] != FORMAT:
            raise BadBackup(
                f"{path} was written by a newer minihub ({found.get('minihub')}; format "
                f"{found['format']}); restore it with that one"
            )
        members = [Member(**member) for member in found.pop("members")]
        manifest = Manifest(**found, members=members)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadBackup(f"{path}: its manifest cannot be understood: {error}") from error
    for member in members:
        if not _is_plain(member.name) or not member.path or "\0" in member.path:
            raise BadBackup(f"{path}: {member.name!r} is no name of a file in a backup")
    return manifest


def _is_plain(name: str) -> bool:
    return bool(name) and "/" not in name and name not in (".", "..", MANIFEST)


def _take(
    path: Path, archive: tarfile.TarFile, entry: tarfile.TarInfo, member: Member, target: Path
) -> None:
    digest, size = hashlib.sha256(), 0
    source: BinaryIO = archive.extractfile(entry)  # type: ignore[assignment]
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with os.fdopen(os.open(target, flags, 0o600), "wb") as file:
        while block := source.read(_BLOCK):
            digest.update(block)
            size += len(block)
            file.write(block)
    if size != member.size or digest.hexdigest() != member.sha256:
        raise BadBackup(f"{path}: {member.name} ({member.what}) is not as it was written")


def _check_database(path: Path, manifest: Manifest, database: Path) -> None:
    if not database.exists():
        raise BadBackup(f"{path}: its manifest speaks of a database that is not in it")
    wrong = sqlitefiles.problems(database)
    if wrong:
        raise StoreError(f"{path}: the database in it is damaged: {wrong}")
    schema = schema_of(database)
    if schema > store.SCHEMA_VERSION:
        raise SchemaError(
            f"{path} was made by a newer minihub ({manifest.minihub}, schema {schema}; this one "
            f"knows {store.SCHEMA_VERSION}); nothing was changed. Restore it with the newer one"
        )
    if schema != manifest.schema or count_rows(database) != manifest.rows:
        raise BadBackup(f"{path}: the database in it is not the one its manifest describes")


# -- putting back --------------------------------------------------------------------------


def aside_of(target: Path, stamp: str) -> Path:
    """Return the name under which what is replaced is kept."""
    return target.with_name(f"{target.name}.before-restore-{stamp}")


def put_back(
    manifest: Manifest, unpacked: Path, directory: Path, stamp: str
) -> Iterator[tuple[Member, Path, Path | None]]:
    """Put every member in its place, one after the other; yield it, the place, what was kept.

    New files are written beside their places first, all of them, so that a full disk is met while
    nothing has changed. Raises OSError; what was not yielded is as it was.
    """
    fresh: list[tuple[Member, Path, Path]] = []
    try:
        for member in manifest.members:
            target = directory / member.path
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            new = target.with_name(f"{target.name}.restoring-{stamp}")
            fresh.append((member, target, new))
            _copy_file(unpacked / member.name, new, member.mode)
            _give_to_owner(new, target if target.exists() else target.parent)
        while fresh:
            member, target, new = fresh[0]
            kept = _keep(target, aside_of(target, stamp), is_database=member.name == DATABASE)
            os.replace(new, target)
            _sync_directory(target.parent)
            fresh.pop(0)
            yield member, target, kept
    finally:
        for _member, _target, new in fresh:
            with suppress(OSError):
                new.unlink()


def _copy_file(source: Path, target: Path, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(source, "rb") as old, os.fdopen(os.open(target, flags, 0o600), "wb") as new:
        while block := old.read(_BLOCK):
            new.write(block)
        os.fchmod(new.fileno(), mode & 0o777)
        new.flush()
        os.fsync(new.fileno())


def _give_to_owner(new: Path, like: Path) -> None:
    """Let a file that root writes belong to whoever has what it replaces."""
    if os.geteuid() == 0:
        facts = like.stat()
        os.chown(new, facts.st_uid, facts.st_gid, follow_symlinks=False)


def _keep(target: Path, aside: Path, *, is_database: bool) -> Path | None:
    """Give what stands at a place a second name; return that, None when nothing stands there.

    The logs of a database are folded into it or, when it is damaged, moved with it: the database
    that comes must never meet them.
    """
    if not os.path.lexists(target):
        return None
    if is_database:
        with suppress(sqlite3.Error), closing(sqlite3.connect(target, timeout=1)) as old:
            old.execute("PRAGMA journal_mode = DELETE")
    try:
        os.link(target, aside, follow_symlinks=False)
    except OSError:  # a file system without second names
        os.rename(target, aside)
    for end in ("-wal", "-shm", "-journal"):
        with suppress(FileNotFoundError):
            os.rename(f"{target}{end}", f"{aside}{end}")
    return aside


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def member_of(path: Path, name: str, where: str, what: str, mode: int | None = None) -> Member:
    """Describe a file that goes into a backup."""
    facts = path.stat()
    return Member(
        name=name,
        path=where,
        what=what,
        sha256=sha256_of(path),
        size=facts.st_size,
        mode=facts.st_mode & 0o777 if mode is None else mode,
    )
