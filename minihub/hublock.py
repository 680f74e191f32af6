"""The lock of a state directory: one hub at a time, and where the running one is.

The file ``lock`` is locked by the hub that uses the directory and holds, once that hub is up, JSON
with ``pid``, ``url`` (where people reach it) and ``api_url`` (its REST API, not by way of the
proxy). It stays when a hub is killed; only the lock says that one is running.

Rules of this file: it starts nothing and asks no hub.

Threads: any.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from .errors import AlreadyRunning, ConfigError, NotPermitted


@dataclass(frozen=True)
class HubFacts:
    """A running hub."""

    pid: int
    url: str
    api_url: str


@contextmanager
def hold(state_dir: Path) -> Iterator[TextIO]:
    """Hold this state directory's lock.

    Raises AlreadyRunning saying who holds it, NotPermitted when the directory is somebody else's,
    ConfigError when it cannot be written at all.
    """
    try:
        descriptor = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except PermissionError as error:
        raise _not_permitted(state_dir) from error
    except OSError as error:
        raise ConfigError(
            f"JupyterHub.state_dir: {state_dir}/lock cannot be written: {error.strerror}"
        ) from error
    with os.fdopen(descriptor, "r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            facts = _read(lock)
            who = f"process {facts.pid}, {facts.url}" if facts else "it is just starting"
            raise AlreadyRunning(f"a hub is running already with {state_dir}: {who}") from error
        lock.truncate(0)
        yield lock
        lock.truncate(0)


def write(lock: TextIO, facts: HubFacts) -> None:
    """Write into the lock that is held what others need to find the hub."""
    lock.seek(0)
    lock.write(json.dumps(asdict(facts)))
    lock.flush()


def running(state_dir: Path) -> HubFacts | None:
    """Return the hub that runs with this state directory; None when there is none.

    One that is just starting or stopping counts as none. Raises NotPermitted when the directory is
    not the caller's to read.
    """
    try:
        with open(state_dir / "lock", encoding="utf-8") as lock:
            facts = _read(lock)
            if facts is None or not _is_locked(lock):
                return None
            return facts
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise _not_permitted(state_dir) from error


def is_held(state_dir: Path) -> bool:
    """Return whether a hub has this state directory, also one that starts or stops just now.

    Raises NotPermitted when the directory is not the caller's to read.
    """
    try:
        with open(state_dir / "lock", encoding="utf-8") as lock:
            return _is_locked(lock)
    except FileNotFoundError:
        return False
    except PermissionError as error:
        raise _not_permitted(state_dir) from error


def killed(state_dir: Path) -> HubFacts | None:
    """Return the last hub of this state directory where it did not end in order, and none runs."""
    try:
        with open(state_dir / "lock", encoding="utf-8") as lock:
            return None if _is_locked(lock) else _read(lock)
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise _not_permitted(state_dir) from error


def _not_permitted(state_dir: Path) -> NotPermitted:
    return NotPermitted(
        f"{state_dir} may not be used by this user; run this as the user who runs the hub"
    )


def _is_locked(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    fcntl.flock(lock, fcntl.LOCK_UN)
    return False


def _read(lock: TextIO) -> HubFacts | None:
    try:
        facts = json.loads(lock.read())
        return HubFacts(int(facts["pid"]), str(facts["url"]), str(facts["api_url"]))
    except (ValueError, KeyError, TypeError):
        return None
