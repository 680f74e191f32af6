"""Processes that a killed hub started and had no time to write down.

Every process of a hub's bears a marker in its environment that begins with the name of its state
directory: a number drawn once, together with the directory's path. One that is in no row and in no
note belongs to nobody, and holds a port or memory: it is ended when the next hub starts.

Rules of this file: only bearers of this directory's own name are touched. A copy of the directory
has another path, so that a hub on trial ends nothing of the first one's.

Threads: the main thread, at the start of the hub.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
from collections.abc import Collection
from pathlib import Path

from . import process, proxyfacts
from .errors import ConfigError, MinihubError

log = logging.getLogger("minihub.hub")

NAME = "hub-id"
#: What the markers of proxies begin with, after the directory's name.
PROXY = "p-"
SERVICE = "v-"
SERVER = "s-"
STOP_LADDER_S = (0, 2, 5)


def owner(state_dir: Path, kind: str) -> str:
    """Return what the markers of this state directory's processes of a kind begin with.

    Raises ConfigError when the directory cannot be written.
    """
    file = state_dir / NAME
    try:
        number = file.read_text().strip() if file.exists() else ""
        if not number:
            number = secrets.token_hex(8)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            with os.fdopen(os.open(file, flags, 0o600), "w") as new:
                new.write(f"{number}\n")
    except OSError as error:
        raise ConfigError(
            f"JupyterHub.state_dir: {file} cannot be written: {error.strerror}"
        ) from error
    place = hashlib.sha256(f"{number} {state_dir.absolute()}".encode()).hexdigest()[:16]
    return f"{place}-{kind}"


def new_marker(state_dir: Path, kind: str) -> str:
    """Return the marker of a new process. Raises ConfigError."""
    return owner(state_dir, kind) + process.new_marker()


def end(state_dir: Path, kind: str, known: Collection[str], what: str) -> int:
    """End every process of a kind whose marker is not known; return how many there were."""
    count = 0
    for marker, found in process.find_marked(owner(state_dir, kind)).items():
        if marker in known:
            continue
        count += 1
        log.warning(
            "Ending %s that a killed hub left without a note: pid %d", what, found.identity.pid
        )
        try:
            found.stop(*STOP_LADDER_S)
        except MinihubError as error:
            log.error("%s", error)
    return count


def end_proxies(state_dir: Path) -> None:
    """End the proxies that are not the one noted."""
    facts = proxyfacts.load(state_dir / "proxy.json")
    end(state_dir, PROXY, {facts.marker} if facts else (), "a proxy")


def end_services(state_dir: Path) -> None:
    """End the services that are not noted."""
    known = set()
    for note in (state_dir / "services").glob("*.json"):
        try:
            known.add(json.loads(note.read_text())["marker"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    end(state_dir, SERVICE, known, "a service")
