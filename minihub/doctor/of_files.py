"""Checks of files and disks: whose they are, who can read them, what room there is.

Rules of this file: as in :mod:`minihub.doctor`.

Threads: as in :mod:`minihub.doctor.patient`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from .. import backup, clock, cookiesecret, sqlitefiles
from ..durations import words
from ..errors import ConfigError
from ..limits import size
from ..local import SimpleLocalProcessSpawner
from .finding import Word, check, fail, fine, warn
from .patient import Patient

_MB = 1024**2
#: Below this the next write may fail, and below that one it will soon.
FULL_BYTES = 64 * _MB
SOON_FULL_BYTES = 512 * _MB
FULL_INODES = 50
SOON_FULL_INODES = 1000
#: More than a clock is corrected by, in seconds.
AHEAD_S = 300.0
#: Backups that come every night, and the time after which one is late.
LATE_BACKUP_S = 26 * 3600.0
#: How old a hub may become before a missing backup is told.
YOUNG_S = 14 * 86400.0


def places(patient: Patient) -> dict[Path, str]:
    """Return the directories the hub writes to, and what is written there."""
    found = {patient.state_dir: "the hub's own files"}
    if patient.database is not None:
        found.setdefault(patient.database.parent, "the database")
    log = patient.options.extra_log_file
    if log:
        found.setdefault(Path(log).absolute().parent, "the log")
    spawner = patient.spawner
    if isinstance(spawner, SimpleLocalProcessSpawner):
        found.setdefault(Path(spawner.home_dir).parent, "the homes of users")
    return found


def existing(path: Path) -> Path:
    """Return a path, or what there is of it."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


@check(
    "permission",
    "This user may look at the hub",
    "What cannot be read cannot be checked; run by another user the hub would not start.",
)
def permission(patient: Patient) -> Iterator[Word]:
    wanted = [patient.state_dir, patient.state_dir / "lock"]
    if patient.database is not None:
        wanted.append(patient.database)
    if patient.loaded.file is not None:
        wanted.append(patient.loaded.file)
    for path in wanted:
        try:
            facts = path.stat()
        except FileNotFoundError:
            continue
        except PermissionError:
            above = existing_for_all(path)
            yield _not_mine(patient, path, above.stat().st_uid)
            return
        need = os.R_OK | os.X_OK if stat.S_ISDIR(facts.st_mode) else os.R_OK
        if not os.access(path, need):
            yield _not_mine(patient, path, facts.st_uid)
            return
    yield fine(f"as {patient.name_of(os.geteuid())}")


def existing_for_all(path: Path) -> Path:
    """Return the first directory above a path that can be looked at."""
    for above in path.parents:
        try:
            above.stat()
        except OSError:
            continue
        return above
    return Path("/")


def _not_mine(patient: Patient, path: Path, uid: int) -> Word:
    whose, me = patient.name_of(uid), patient.name_of(os.geteuid())
    return fail(
        f"{path} may not be read by {me}; it belongs to {whose}",
        f"sudo -u {whose} {patient.command('doctor')}",
    )


@check(
    "state-dir",
    "The state directory can be used, by its owner alone",
    "The hub cannot start, or others read its keys, logs and the files of users.",
)
def state_dir(patient: Patient) -> Iterator[Word]:
    path = patient.state_dir
    if not path.exists():
        above = existing(path)
        if not os.access(above, os.W_OK | os.X_OK):
            yield _unwritable(patient, above, f"{path} cannot be made")
        yield fine(f"{path} is not there yet; the first start makes it")
        return
    if not path.is_dir():
        yield fail(f"{path} is no directory", f"mv {patient.shown(path)} {patient.shown(path)}.old")
        return
    facts = path.stat()
    if not os.access(path, os.W_OK | os.X_OK):
        yield _unwritable(patient, path, f"{path} cannot be written")
    mode = stat.S_IMODE(facts.st_mode)
    if mode & 0o077:
        yield warn(f"others may enter {path} (mode {mode:04o})", f"chmod 700 {patient.shown(path)}")
    yield fine(str(path))


def _unwritable(patient: Patient, path: Path, what: str) -> Word:
    """Say why something cannot be written, and what helps."""
    facts = os.statvfs(path)
    if facts.f_flag & os.ST_RDONLY:
        return fail(
            f"{what}: its file system is mounted read-only", f"mount -o remount,rw {mount_of(path)}"
        )
    whose = patient.name_of(path.stat().st_uid)
    if path.stat().st_uid != os.geteuid():
        return fail(
            f"{what}: it belongs to {whose}", f"sudo -u {whose} {patient.command('doctor')}"
        )
    return fail(f"{what}: its mode forbids it", f"chmod u+rwx {patient.shown(path)}")


def mount_of(path: Path) -> Path:
    """Return where the file system of a path is mounted."""
    path = path.resolve()
    while not path.is_mount():
        path = path.parent
    return path


@check(
    "file-owners",
    "All of the hub's files belong to one user",
    "After one start as root the hub can no longer write its own files as its usual user.",
)
def file_owners(patient: Patient) -> Iterator[Word]:
    if not patient.state_dir.is_dir():
        return
    uid = patient.state_dir.stat().st_uid
    strange = [path for path in own_files(patient) if path.lstat().st_uid != uid]
    if strange:
        names = " ".join(patient.shown(path) for path in strange)
        more = f" and {len(strange) - 1} more" if len(strange) > 1 else ""
        whose = patient.name_of(strange[0].lstat().st_uid)
        yield fail(
            f"{strange[0]}{more} belongs to {whose}, the state directory to {patient.name_of(uid)}",
            f"chown {patient.name_of(uid)}: {names}",
        )


def own_files(patient: Patient) -> list[Path]:
    """Return the files of the hub's own that are there; those of servers are not among them."""
    options = patient.options
    found = [Path(options.cookie_secret_file).absolute()] if options.cookie_secret_file else []
    database = patient.database
    if database is not None:
        found += [Path(f"{database}{end}") for end in ("", "-wal", "-shm")]
    if options.extra_log_file:
        found.append(Path(options.extra_log_file).absolute())
    if patient.state_dir.is_dir():
        found += patient.state_dir.iterdir()
        for name in ("logs", "services", backup.DIRECTORY):
            if (patient.state_dir / name).is_dir():
                found += (patient.state_dir / name).iterdir()
    return sorted({path for path in found if path.exists() and not path.is_symlink()})


@check(
    "private-files",
    "Keys, database, logs and backups can be read by nobody else",
    "Whoever reads them can log in as anybody, or knows what people do.",
)
def private_files(patient: Patient) -> Iterator[Word]:
    files = [path for path in own_files(patient) if not _is_shielded(patient, path)]
    if patient.options.ssl_key:
        files.append(Path(patient.options.ssl_key))
    of_cookies = Path(patient.options.cookie_secret_file).absolute()
    open_files = []
    for path in files:
        mode = path.stat().st_mode
        # A key may be a group's (ssl-cert); the secret that all could read has its own check.
        bits = 0o007 if path == Path(patient.options.ssl_key) else 0o077
        if path == of_cookies and mode & 0o007:
            continue
        if stat.S_ISREG(mode) and mode & bits:
            open_files.append(path)
    if open_files:
        more = f" and {len(open_files) - 1} more" if len(open_files) > 1 else ""
        mode = stat.S_IMODE(open_files[0].stat().st_mode)
        yield warn(
            f"others can read {open_files[0]}{more} (mode {mode:04o})",
            f"chmod go= {' '.join(map(patient.shown, open_files))}",
        )


def _is_shielded(patient: Patient, path: Path) -> bool:
    """Return whether a file lies behind a directory that nobody else enters."""
    return patient.state_dir in path.parents and not patient.state_dir.stat().st_mode & 0o077


@check(
    "cookie-secret",
    "The key of login cookies is sound and secret",
    "The hub does not start with a key that others know; with it they make cookies of anybody.",
)
def cookie_secret(patient: Patient) -> Iterator[Word]:
    options = patient.options
    try:
        cookiesecret.load(options.cookie_secret, options.cookie_secret_file, create=False)
    except ConfigError as error:
        # It ends with the command that mends it, where one does.
        text = str(error)
        what, mark, mend = next(
            (text.partition(f" {sign}") for sign in ("Mend it: ", "A new one ends all logins: ")
             if sign in text), (text, "", ""),
        )  # fmt: skip
        yield fail(what, *([mend] if mend else []))


@check(
    "disk",
    "There is room on the disks",
    "On a full disk nobody can start a server, save a notebook or even log in.",
)
def disk(patient: Patient) -> Iterator[Word]:
    seen, least = set(), []
    for path, what in places(patient).items():
        there = existing(path)
        mount = mount_of(there)
        if mount in seen:
            continue
        seen.add(mount)
        free = sqlitefiles.free_bytes(there)
        least.append(f"{size(free)} on {mount}")
        if free < SOON_FULL_BYTES:
            say = fail if free < FULL_BYTES else warn
            yield say(
                f"{size(free)} are free on {mount}, which holds {what} ({path})",
                f"du -axh {mount} | sort -h | tail",
            )
    yield fine(", ".join(least))


@check(
    "inodes",
    "There is room for more files",
    "The disk counts as full, though it is not: no file can be made.",
)
def inodes(patient: Patient) -> Iterator[Word]:
    for mount in {mount_of(existing(path)) for path in places(patient)}:
        facts = os.statvfs(mount)
        if not facts.f_files:  # a file system that makes them as needed
            continue
        if facts.f_favail < SOON_FULL_INODES and facts.f_favail < facts.f_files / 10:
            say = fail if facts.f_favail < FULL_INODES else warn
            yield say(
                f"{mount} can hold {facts.f_favail} more files (df -i)",
                f"du -x --inodes --max-depth=3 {mount} | sort -n | tail",
            )


@check(
    "network-disk",
    "The hub's files lie on a disk of this machine",
    "Locks of network file systems may not hold: two hubs at once, a damaged database.",
)
def network_disk(patient: Patient) -> Iterator[Word]:
    wanted = {patient.state_dir: "JupyterHub.state_dir"}
    if patient.database is not None:
        wanted[patient.database] = "JupyterHub.db_url"
    for path, option in wanted.items():
        kind = sqlitefiles.network_file_system(path)
        if kind:
            yield warn(
                f"{path} lies on a network file system ({kind}); the database is used without its "
                "write-ahead log there, which is slower",
                f"Move it to a disk of this machine, and name the new place: {option}",
            )


@check(
    "homes",
    "Homes of users can be made",
    "No server of somebody new starts.",
)
def homes(patient: Patient) -> Iterator[Word]:
    spawner = patient.spawner
    if not isinstance(spawner, SimpleLocalProcessSpawner) or not spawner.home_dir_template:
        return
    path = existing(Path(spawner.home_dir).parent)
    if not path.is_dir():
        yield fail(f"{path}, where homes are to be, is no directory")
    elif not os.access(path, os.W_OK | os.X_OK):
        yield _unwritable(patient, path, f"{path}, where homes are to be, cannot be written")


@check(
    "clock",
    "The clock is right",
    "With a wrong one logins, tokens and certificates end at once or never.",
)
def clock_is_right(patient: Patient) -> Iterator[Word]:
    now = clock.utcnow().timestamp()
    ahead = [path for path in own_files(patient) if path.stat().st_mtime > now + AHEAD_S]
    if ahead:
        late_s = max(path.stat().st_mtime for path in ahead) - now
        yield warn(
            f"{ahead[0]} was written {words(late_s)} in the future: the clock was set back, "
            "or was wrong then",
            "timedatectl set-ntp true",
            f"touch {' '.join(map(patient.shown, ahead))}",
        )


@check(
    "backup",
    "There is a backup, and the newest is not old",
    "What is lost with the disk is lost; a backup by cron that has stopped tells nobody.",
)
def backups(patient: Patient) -> Iterator[Word]:
    if patient.database is None:
        return
    made = sorted(_backups(patient.state_dir / backup.DIRECTORY), reverse=True)
    command = patient.command("backup")
    if not made:
        born = patient.rows("SELECT value FROM minihub_meta WHERE key = 'created'")
        age_s = (clock.utcnow() - clock.parse(born[0][0])).total_seconds() if born else 0.0
        if age_s > YOUNG_S:
            yield warn(
                f"there is none in {patient.state_dir / backup.DIRECTORY}, and the hub is "
                f"{words(age_s)} old (if there are others elsewhere: --skip backup)",
                command,
            )
        yield fine("none yet")
        return
    age_s = clock.utcnow().timestamp() - made[0]
    nightly = len(made) > 2 and made[0] - made[2] < 2 * LATE_BACKUP_S
    if age_s > YOUNG_S or (nightly and age_s > LATE_BACKUP_S):
        yield warn(
            f"the newest is {words(age_s)} old"
            + ("; they came every night before that" if nightly else ""),
            command,
            "crontab -l",
        )
    yield fine(f"{len(made)}, the newest {words(age_s)} old")


def _backups(directory: Path) -> Iterable[float]:
    if not directory.is_dir():
        return ()
    return (
        path.stat().st_mtime for path in directory.iterdir() if backup.NAME.fullmatch(path.name)
    )
