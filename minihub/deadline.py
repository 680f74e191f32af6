"""What others wrote about servers, called with a limit: ``Spawner.start_timeout``.

Rules of this file: it decides nothing but that nobody waits for ever.

Threads: any.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import aio
from .errors import SpawnTimeout


def in_time(what: str, limit_s: float, fn: Callable[..., Any], *args: Any) -> Any:
    """Return what a function returns; ``what`` names it. Raises SpawnTimeout."""
    try:
        return aio.call(fn, *args, timeout_s=limit_s)
    except TimeoutError as error:
        raise SpawnTimeout(
            f"{what} did not end within {limit_s} s (Spawner.start_timeout)."
        ) from error


def start(spawner: Any) -> Any:
    """Return what ``start`` does; a server that comes after it was given up is ended again.

    Raises TimeoutError.
    """
    return aio.call(
        spawner.start,
        timeout_s=spawner.start_timeout,
        late=lambda: aio.call(spawner.stop, now=True),
    )
