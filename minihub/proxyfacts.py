"""What is kept of a running proxy, so that a later hub finds it and goes on with it.

The file ``proxy.json`` of the state directory (0600) holds the process, the token of its REST API,
where it listens, and how it was asked to. It is there while a proxy of ours runs, whichever hub
started it.

Rules of this file: it starts and asks nothing; a file that cannot be understood is none.

Threads: any.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from .errors import ProxyError


@dataclass(frozen=True)
class ProxyFacts:
    """A proxy that was started."""

    pid: int
    create_time: float
    #: The marker in its environment (:data:`minihub.process.MARKER`).
    marker: str
    auth_token: str
    api_url: str
    public_port: int
    #: What the configuration asked for; another proxy is needed when that has changed.
    asked: list[str]


def save(path: Path, facts: ProxyFacts) -> None:
    """Write the file anew. Raises ProxyError."""
    fresh = path.with_suffix(".new")
    try:
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(facts), file)
        fresh.replace(path)
    except OSError as error:
        raise ProxyError(f"{path} cannot be written: {error.strerror}") from error


def load(path: Path) -> ProxyFacts | None:
    """Return what the file holds; None without one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        facts = ProxyFacts(**{field.name: found[field.name] for field in fields(ProxyFacts)})
    except (OSError, ValueError, KeyError, TypeError):
        return None
    fits = isinstance(facts.pid, int) and isinstance(facts.create_time, float)
    return facts if fits and isinstance(facts.asked, list) else None
