"""The time, from one place, so that tests can move it.

Rules of this file: dates are aware UTC datetimes; as text they are ISO 8601 with six digits of
microseconds and a final ``Z``, the form the REST API shows and the database stores. Durations
are measured with :func:`monotonic`. Everybody else calls these functions through the module
(``clock.utcnow()``), never ``time`` or ``datetime`` directly.

Threads: any.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone

UTC = timezone.utc


def utcnow() -> datetime:
    """Return the present as an aware UTC datetime."""
    return datetime.now(UTC)


def monotonic() -> float:
    """Return seconds of a clock that never goes back."""
    return time.monotonic()


def isoformat(moment: datetime) -> str:
    """Return ``2026-11-22T20:14:07.833220Z`` for an aware datetime in any zone."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def now_text() -> str:
    """Return the present as :func:`isoformat` writes it."""
    return isoformat(utcnow())


def parse(text: str) -> datetime:
    """Return the aware UTC datetime of an ISO 8601 text; a text without a zone is taken as UTC.

    Raises ValueError when the text is no date-time.
    """
    cleaned = text.strip()
    if cleaned[-1:] in "zZ":
        cleaned = cleaned[:-1] + "+00:00"
    # Python 3.10 reads only three or six digits of a fraction.
    head, dot, tail = cleaned.partition(".")
    if dot:
        digits = len(tail) - len(tail.lstrip("0123456789"))
        fraction = (tail[:digits] + "000000")[:6]
        cleaned = f"{head}.{fraction}{tail[digits:]}"
    moment = datetime.fromisoformat(cleaned)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def after(seconds: float) -> datetime:
    """Return the moment that many seconds from now."""
    return utcnow() + timedelta(seconds=seconds)
