"""Durations as people write them (``90``, ``10m``, ``1h30m``, ``1d``) and as they read them.

Rules of this file: pure functions; a duration is a whole number of seconds.

Threads: any.
"""

from __future__ import annotations

import re

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_PARTS = re.compile(r"([0-9]{1,9})([smhd])")
_WHOLE = re.compile(r"([0-9]{1,9}[smhd])+")


def parse(value: object) -> int:
    """Return the seconds of a number of seconds or a text such as ``90``, ``10m`` or ``1h30m``.

    Raises ValueError, saying what would be right, for anything else and for what is below zero.
    """
    if isinstance(value, str):
        text = value.strip().lower()
        if text.isascii() and text.isdigit() and len(text) <= 9:
            return int(text)
        if _WHOLE.fullmatch(text):
            return sum(int(number) * _UNITS[unit] for number, unit in _PARTS.findall(text))
    elif isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError(f"{value!r} is no duration; give seconds, or for instance 10m, 2h, 1h30m, 1d")


def words(seconds: float) -> str:
    """Return a duration in its two largest units: ``45 s``, ``2 min``, ``1 h 30 min``, ``3 d``."""
    left = max(0, int(seconds))
    if left < 60:
        return f"{left} s"
    if left < 3600:
        first, second, names = left // 60, left % 60, ("min", "s")
    elif left < 86400:
        first, second, names = left // 3600, left % 3600 // 60, ("h", "min")
    else:
        first, second, names = left // 86400, left % 86400 // 3600, ("d", "h")
    return f"{first} {names[0]}" + (f" {second} {names[1]}" if second else "")
