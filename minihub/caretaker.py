"""What an admin asks for that takes its time: starting a server anew, and the files of who goes.

Rules of this file: it works in the background and notes in the audit list how it ended. Only homes
that the hub made itself (:class:`~minihub.local.SimpleLocalProcessSpawner`) are ever touched; those
of system users belong to the system. A home is moved aside first, so that nobody who gets the name
later finds it. What is in it was made by somebody who may have meant harm.

Threads: any may ask; two of its own do the work.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import stat
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import clock
from .audit import Audit
from .errors import BadRequest, MinihubError
from .hub import Hub
from .local import SimpleLocalProcessSpawner, file_name
from .models import User
from .process import private_directory
from .server import Server, State
from .texts import Text

log = logging.getLogger("minihub.caretaker")

#: What may become of the files of a user who is deleted.
KEEP, ARCHIVE, DELETE = "keep", "archive", "delete"
CHOICES = (KEEP, ARCHIVE, DELETE)
#: How long a restart waits for the stop, beyond the server's own ladder.
GRACE_S = 15.0
_BLOCK = 1024 * 1024
#: A file may be so much longer than what it takes on the disk: reading holes takes for ever.
_MOST_HOLE = 1024**3


class Caretaker:
    """Does the slow work for the pages, until :meth:`stop`."""

    def __init__(self, hub: Hub, audit: Audit) -> None:
        self._hub = hub
        self._audit = audit
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="caretaker")
        self._is_ending = threading.Event()

    def stop(self) -> None:
        """End when the work under way is done; an archive is given up, its files are left aside.

        What has not begun is dropped.
        """
        self._is_ending.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    # -- servers ---------------------------------------------------------------------------

    def restart(self, user: User, server: Server, *, by: str) -> None:
        """Stop a server and start it again with the options it had.

        Raises BadRequest unless it runs.
        """
        if server.state is not State.READY:
            raise BadRequest(Text("%(server)s is not running.", server=server.full_name))
        self._hub.stop_server(server, why=f"{by} restarts it")
        self._pool.submit(self._start_again, user, server)

    def _start_again(self, user: User, server: Server) -> None:
        ladder = getattr(server.spawner, "stop_timeout_s", 60.0)
        try:
            if not server.wait_settled(ladder + GRACE_S) or server.active:
                log.error("Server %s was to be restarted and did not stop", server.full_name)
                return
            self._hub.start_server(user, server.name)
        except MinihubError as error:
            log.error("Server %s was not started again: %s", server.full_name, error)

    # -- files -----------------------------------------------------------------------------

    def home_of(self, user: User) -> Path | None:
        """Return the user's home if the hub made it and it is there."""
        spawner = self._hub.new_spawner(self._hub.user_info(user))
        if not isinstance(spawner, SimpleLocalProcessSpawner):
            return None
        home = Path(spawner.home_dir)
        return home if home.is_dir() and not home.is_symlink() else None

    def clear_home(self, name: str, home: Path | None, choice: str, *, by: str) -> None:
        """Let the files of a deleted user go as ``choice`` says; keep leaves them where they are.

        Raises BadRequest when they cannot be moved aside.
        """
        if choice == KEEP or home is None:
            return
        stamp = clock.utcnow().strftime("%Y%m%d-%H%M%S")
        aside = home.with_name(f".{home.name}.{stamp}")
        try:
            os.rename(home, aside)
        except OSError as error:
            raise BadRequest(
                Text(
                    "The files of %(name)s cannot be moved: %(why)s.",
                    name=name,
                    why=error.strerror,
                )
            ) from error
        target = None
        if choice == ARCHIVE:
            archives = private_directory(self._hub.info.state_dir / "archives")
            target = archives / f"{file_name(name)}-{stamp}.zip"
        self._pool.submit(self._clear, name, aside, target, by)

    def _clear(self, name: str, aside: Path, target: Path | None, by: str) -> None:
        try:
            if target is not None:
                archive(aside, target, root=file_name(name), given_up=self._is_ending.is_set)
                log.info("The files of %s are kept in %s", name, target)
                self._audit.note(by, "files archived", user=name, detail=str(target))
            shutil.rmtree(aside)
            if target is None:
                log.info("The files of %s are deleted", name)
                self._audit.note(by, "files deleted", user=name)
        except Exception as error:  # such as a path too deep to be walked
            log.error("The files of %s are left in %s: %s", name, aside, error)
            why = error.strerror if isinstance(error, OSError) else str(error)
            self._audit.note(by, "files left", user=name, detail=f"{aside}: {why}")


def archive(
    directory: Path, target: Path, *, root: str, given_up: Callable[[], bool] = lambda: False
) -> None:
    """Write a directory into a new zip that only its owner can read, below ``root`` in it.

    Links are kept out, and so is what is no file; the file has its name when it is complete. Bytes
    of a name that are no text are written as escapes. Raises OSError; also when ``given_up`` says
    so, and for a file that is nearly all hole.
    """
    scratch = target.with_name(f".{target.name}.part")
    try:
        with (
            open(scratch, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as raw,
            zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as packed,
        ):
            for folder, _folders, files in os.walk(directory):
                inside = Path(root, os.path.relpath(folder, directory))
                packed.write(folder, f"{_as_text(inside)}/")
                for file in sorted(files):
                    _add(packed, os.path.join(folder, file), _as_text(inside / file), given_up)
        os.replace(scratch, target)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def _as_text(path: Path) -> str:
    """Return a path as a zip can hold it: whatever bytes a file's name has."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _add(packed: zipfile.ZipFile, path: str, name: str, given_up: Callable[[], bool]) -> None:
    """Add a file to a zip, unless it is a link or no file. Raises OSError."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        return
    # It may become a pipe before it is opened: that must not wait for somebody who writes.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(path, flags), "rb") as source:
        info = os.fstat(source.fileno())
        if not stat.S_ISREG(info.st_mode):
            return
        if info.st_size > info.st_blocks * 512 + _MOST_HOLE:
            raise OSError(errno.EFBIG, "it takes far less on the disk than it is long", path)
        opened = f"/dev/fd/{source.fileno()}"
        entry = zipfile.ZipInfo.from_file(opened, name, strict_timestamps=False)
        entry.compress_type = zipfile.ZIP_DEFLATED
        with packed.open(entry, "w", force_zip64=info.st_size >= 2**31) as target:
            while block := source.read(_BLOCK):
                if given_up():
                    raise OSError(errno.EINTR, "the hub ended meanwhile", path)
                target.write(block)
