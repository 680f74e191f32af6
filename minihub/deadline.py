"""What others wrote about servers, called with a limit: ``Spawner.start_timeout``.

Nor does anybody wait for it whose start was cancelled.

Rules of this file: it decides nothing but that nobody waits for ever.

Threads: any.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import aio
from .errors import SpawnTimeout
from .texts import Text

#: How long somebody else's proxy may take to do what it is asked.
PATIENCE_S = 60.0


def in_time(what: str, spawner: Any, fn: Callable[..., Any], *args: Any) -> Any:
    """Return what a function returns; ``what`` names it.

    Raises SpawnTimeout, and what the spawner's ``still_wanted`` raises.
    """
    try:
        return bounded(spawner, fn, *args)
    except TimeoutError as error:
        raise SpawnTimeout(
            Text(
                "%(what)s did not end within %(time)s s (Spawner.start_timeout).",
                what=what,
                time=spawner.start_timeout,
            )
        ) from error


def start(spawner: Any) -> Any:
    """Return what ``start`` does; a server that comes after it was given up is ended again.

    Raises TimeoutError, and what the spawner's ``still_wanted`` raises.
    """
    return bounded(spawner, spawner.start, late=lambda: aio.call(spawner.stop, now=True))


def bounded(
    spawner: Any, fn: Callable[..., Any], *args: Any, late: Callable[[], Any] | None = None
) -> Any:
    """Return what a function returns, as :func:`minihub.aio.call` does, with a spawner's limits."""
    wanted = None if spawner.is_over else spawner.still_wanted
    limit_s = spawner.start_timeout
    return aio.call(fn, *args, timeout_s=limit_s, late=late, still_wanted=wanted)
