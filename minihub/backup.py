"""The verbs ``backup`` and ``restore``.

A backup is made while the hub runs. Before it gets its name it is restored into a directory of its
own and compared, so that what is there under that name can be had back.

Rules of this file: what belongs into a backup, and who may be in the way of a restore; the file's
own form is :mod:`minihub.archive`'s. Nothing is printed here: ``say`` shows a line.

Threads: the main thread.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import socket
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import BinaryIO

from . import __version__, archive, clock, config_render, dburl, hublock, machine, runtime, store
from . import sqlitefiles as files
from .archive import BadBackup, Manifest, Member
from .config import Loaded
from .errors import AlreadyRunning, MinihubError, NotPermitted, UsageError
from .manage import Failed, Home, Say
from .options import JupyterHub

#: What backups are called in a directory of them; no other file there is ever deleted.
NAME = re.compile(r"minihub-backup-\d{4}-\d\d-\d\d-\d{6}(-\d+)?\.tar\.gz")
#: Files of the state directory that belong to the running hub, or that it can make anew.
VOLATILE = frozenset({"lock", "hub-id", "hub-port", "proxy.json", "proxy.new", "proxy.pid"})
#: Columns of secrets: rows that are nothing without one are deleted, others lose it.
_ROWS_OF = "hashed"
_EMPTIED = ("auth_state", "password", "secret")

DIRECTORY = "backups"


def backup(
    loaded: Loaded,
    say: Say,
    where: str,
    *,
    out: BinaryIO,
    keep: int = 0,
    with_secrets: bool = True,
    quiet: bool = False,
) -> int:
    """Write a backup to a file, into a directory, or to ``out`` when ``where`` is ``-``.

    Without ``where`` it goes to ``backups`` in the state directory. ``keep`` says how many stay in
    a directory, this one among them; 0 for all.
    """
    home = Home(loaded)
    target = _target(home, where)
    in_directory = target is not None and NAME.fullmatch(target.name) is not None
    if keep and not in_directory:
        raise UsageError("--keep goes with a directory of backups, not with a file")
    scratch_in = tempfile.gettempdir() if target is None else str(target.parent)
    with tempfile.TemporaryDirectory(prefix=".minihub-backup-", dir=scratch_in) as scratch:
        made = Path(scratch) / "backup"
        manifest, sources = _collect(loaded, home, Path(scratch), with_secrets)
        archive.write(made, manifest, sources)
        rehearsed = Path(scratch) / "rehearsal"
        rehearsed.mkdir(mode=0o700)
        _rehearse(made, manifest, rehearsed)
        size = made.stat().st_size
        if target is None:
            with open(made, "rb") as file:
                shutil.copyfileobj(file, out)
            out.flush()
        else:
            _give_name(made, target)
    if target is not None and keep:
        _forget_old(target.parent, keep, say)
    if not quiet and target is not None:
        say(f"{target}: {size / 1024:.0f} kB, {len(manifest.members)} files, verified"
            + (f" ({manifest.total_rows})" if manifest.rows else ""))  # fmt: skip
        _tell(home, target, with_secrets, say)
    elif manifest.schema is None:
        say(f"The database is not in it: {_own_means(home)}")
    return 0


def _target(home: Home, where: str) -> Path | None:
    """Return the file to write; None for standard output. Raises ConfigError, NotPermitted."""
    if where == "-":
        return None
    directory = home.state_dir / DIRECTORY
    if where and not Path(where).is_dir() and not where.endswith("/"):
        target = Path(where).absolute()
        if target.exists():
            raise UsageError(f"{target} exists; give another name, or a directory")
        directory = target.parent
    else:
        directory = Path(where).absolute() if where else directory
        name = f"minihub-backup-{clock.utcnow():%Y-%m-%d-%H%M%S}"
        target = directory / f"{name}.tar.gz"
        for number in range(2, 100):  # of the same second
            if not target.exists():
                break
            target = directory / f"{name}-{number}.tar.gz"
    try:
        if not where:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        elif not directory.is_dir():
            raise UsageError(f"there is no directory {directory} to write {target.name} to")
    except PermissionError as error:
        raise NotPermitted(f"{directory} may not be used by this user") from error
    return target


def _collect(
    loaded: Loaded, home: Home, scratch: Path, with_secrets: bool
) -> tuple[Manifest, dict[str, Path]]:
    """Return the manifest of a backup to be made, and the files it names."""
    options = home.options
    members: list[Member] = []
    sources: dict[str, Path] = {}

    def add(name: str, source: Path, where: str, what: str, mode: int | None = None) -> None:
        members.append(archive.member_of(source, name, where, what, mode))
        sources[name] = source

    database = home.database()
    schema, rows = None, {}
    if database is not None:
        schema = archive.schema_of(database)
        copy = scratch / archive.DATABASE
        files.copy(database, copy)
        if not with_secrets:
            _strip(copy)
        rows = archive.count_rows(copy)
        place = dburl.parse(options.db_url)
        add(archive.DATABASE, copy, str(place.path), "the database", 0o600)
    for name, source, where, what in _configured_files(loaded, options, home.state_dir):
        if with_secrets:
            add(name, source, where, what)
    if not with_secrets:
        shown = scratch / "configuration.yaml"
        shown.write_text(_shown(loaded, options), encoding="utf-8")
        where = f"{loaded.file or 'minihub.yaml'}.from-backup"
        add(shown.name, shown, where, "the options in force, without secrets", 0o600)
    manifest = Manifest(
        created=clock.now_text(),
        minihub=__version__,
        python=platform.python_version(),
        sqlite=sqlite3.sqlite_version,
        host=socket.gethostname(),
        directory=os.getcwd(),
        state_dir=options.state_dir,
        with_secrets=with_secrets,
        schema=schema,
        rows=rows,
        members=members,
    )
    return manifest, sources


def _configured_files(
    loaded: Loaded, options: JupyterHub, state_dir: Path
) -> Iterator[tuple[str, Path, str, str]]:
    """Yield name, file, place and meaning of what belongs into a backup with the database."""
    if loaded.file is not None:
        yield f"configuration{loaded.file.suffix}", loaded.file, str(loaded.file), "configuration"
    wanted = (
        ("cookie_secret", options.cookie_secret_file, "the secret of login cookies"),
        ("ssl_key", options.ssl_key, "the key of the certificate"),
        ("ssl_cert", options.ssl_cert, "the certificate"),
    )
    for name, where, what in wanted:
        if where and Path(where).is_file():
            yield name, Path(where), where, what
    if state_dir.is_dir():
        for path in sorted(state_dir.iterdir()):
            if path.is_file() and not path.is_symlink() and path.name not in VOLATILE:
                where = os.path.join(options.state_dir, path.name)
                yield f"state-{path.name}", path, where, "a file of the state directory"


def _shown(loaded: Loaded, options: JupyterHub) -> str:
    in_use = [JupyterHub, options.authenticator_class, options.spawner_class, options.proxy_class]
    return config_render.in_force(loaded.config, loaded.origins, in_use)


def _strip(database: Path) -> None:
    """Take every secret out of a database: tokens, logins, passwords, what authenticators keep."""
    with closing(sqlite3.connect(database, isolation_level=None)) as db:
        db.execute("PRAGMA foreign_keys = 1")
        names = [
            name
            for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            if not name.startswith("sqlite_")
        ]
        for table in names:
            columns = {row[1]: bool(row[3]) for row in db.execute(f'PRAGMA table_info("{table}")')}
            if _ROWS_OF in columns:
                db.execute(f'DELETE FROM "{table}"')
            for column in _EMPTIED:
                if column in columns:
                    empty = "''" if columns[column] else "NULL"
                    db.execute(f'UPDATE "{table}" SET "{column}" = {empty}')
        db.execute("VACUUM")  # what was deleted is not in the file any more


def _rehearse(made: Path, manifest: Manifest, directory: Path) -> None:
    """Restore a backup into a directory of its own. Raises Failed when it does not come back."""
    try:
        found = archive.unpack(made, directory)
        if found != manifest:
            raise BadBackup("its manifest is another one")
        if found.schema is not None:
            opened = store.Store(str(directory / archive.DATABASE))
            try:
                opened.open()
            finally:
                opened.close()
    except MinihubError as error:
        raise Failed(f"the backup could not be restored and was thrown away: {error}") from error


def _give_name(made: Path, target: Path) -> None:
    try:
        os.link(made, target)  # unlike a rename, never in the place of another
    except FileExistsError as error:
        raise Failed(f"{target} exists") from error
    except OSError:
        os.rename(made, target)


def _forget_old(directory: Path, keep: int, say: Say) -> None:
    old = sorted(path for path in directory.iterdir() if NAME.fullmatch(path.name))[:-keep]
    for path in old:
        try:
            path.unlink()
        except OSError as error:
            say(f"{path} is too many, but cannot be deleted: {error.strerror}")


def _own_means(home: Home) -> str:
    place = dburl.parse(home.options.db_url)
    program = "pg_dump" if place.kind == dburl.POSTGRESQL else "mysqldump --single-transaction"
    return f"{place.shown} is backed up by its server's own means, such as {program}"


def _tell(home: Home, target: Path, with_secrets: bool, say: Say) -> None:
    """Say what is not in it, and how to have one every night."""
    if home.database() is None:
        say(f"The database is not in it: {_own_means(home)}")
    say("The files of users (homes) are not in it.")
    if with_secrets:
        say("It holds secrets: whoever has it can log in as anybody. Keep it as you keep a key.")
    else:
        say("Without secrets: after a restore everybody logs in again, and tokens are made anew.")
    line = cron_line(home, target.parent)
    say(f"Every night, the last 14 (crontab -e):\n  {line}")


def cron_line(home: Home, directory: Path) -> str:
    """Return a line of a crontab that makes a backup every night."""
    command = [*runtime.own_command(), "backup", f"{directory}/", "--keep", "14", "--quiet"]
    if home.loaded.file is not None:
        command += ["--config", str(home.loaded.file)]
    return f"15 3 * * * cd {shlex.quote(os.getcwd())} && {shlex.join(command)}".replace("%", r"\%")


# -- restore -------------------------------------------------------------------------------


def restore(say: Say, name: str, *, dry_run: bool = False) -> int:
    """Put a backup back into the directory in which this runs.

    Raises AlreadyRunning while a hub uses what is to be replaced, BadBackup, SchemaError.
    """
    here = Path.cwd()
    with ExitStack() as stack:
        scratch = _scratch(stack, here)
        manifest = archive.unpack(Path(name), scratch)
        _refuse_running(stack, manifest, here)
        _describe(manifest, name, say)
        if dry_run:
            for member in manifest.members:
                target = here / member.path
                kept = f" (what is there would be kept as {archive.aside_of(target, '...').name})"
                say(f"  {member.what}: {target}{kept if target.exists() else ''}")
            say("Nothing was changed. It can be restored.")
            return 0
        stamp = f"{clock.utcnow():%Y-%m-%d-%H%M%S}"
        done = []
        try:
            for member, target, kept in archive.put_back(manifest, scratch, here, stamp):
                done.append(target)
                say(f"  {member.what}: {target}" + (f" (before: {kept.name})" if kept else ""))
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            left = f"; these are restored already: {', '.join(map(str, done))}" if done else ""
            raise Failed(
                f"{where}{error.strerror}; nothing was lost, what was there is kept{left}"
            ) from error
    if manifest.schema is None:
        say("There is no database in this backup; its server's own dump holds it.")
    if not manifest.with_secrets:
        say("There are no secrets in this backup: everybody logs in again.")
    say("Restored. Start the hub.")
    return 0


def _scratch(stack: ExitStack, here: Path) -> Path:
    try:
        made = tempfile.TemporaryDirectory(prefix=".minihub-restore-", dir=here)
    except PermissionError as error:
        raise NotPermitted(f"{here} may not be written by this user") from error
    return Path(stack.enter_context(made))


def _refuse_running(stack: ExitStack, manifest: Manifest, here: Path) -> None:
    """Keep hubs from starting meanwhile. Raises AlreadyRunning when one runs."""
    for state_dir in {here / manifest.state_dir, here / "minihub-data"}:
        if state_dir.is_dir():
            stack.enter_context(hublock.hold(state_dir))
    for member in manifest.members:
        if member.name == archive.DATABASE and (here / member.path).exists():
            holders = machine.file_holders(here / member.path)
            if holders:
                raise AlreadyRunning(
                    f"{here / member.path} is in use by {', '.join(holders)}; stop that first"
                )


def _describe(manifest: Manifest, name: str, say: Say) -> None:
    rows = f": {manifest.total_rows}" if manifest.rows else ""
    say(f"{name}: made {manifest.created[:16].replace('T', ' ')} UTC on {manifest.host}, "
        f"minihub {manifest.minihub}{rows}")  # fmt: skip
    if Path(manifest.directory) != Path.cwd():
        say(f"It was made in {manifest.directory}, and is restored in {Path.cwd()}.")


def read_keep(text: str) -> int:
    """Return how many backups to keep. Raises UsageError."""
    if not text:
        return 0
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f'--keep: "{text}" is no number of backups; 14 is one')
    return int(text)
