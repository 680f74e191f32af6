"""Values that no option can have, whatever its type.

A NUL character ends a path or an argument early, half a character cannot be written anywhere, what
is not a finite number compares with nothing, a value that contains itself has no end, and a time of
more than a hundred years overflows whatever counts it.

Rules of this file: it looks at plain values and at what stands in lists and mappings, never inside
objects of other kinds.

Threads: any.
"""

from __future__ import annotations

import math
from typing import Any

from traitlets import TraitType

from minihub.config_values import unit

MAX_DEPTH = 100
CENTURY = {"seconds": 36525 * 86400, "days": 36525}


def problem(trait: TraitType, value: Any) -> str:
    """Return what keeps every option, or one of the kind of ``trait``, from having this value.

    An empty text if nothing does. The value itself is not in it.
    """
    wrong = _inside(value, ())
    if wrong:
        return wrong
    most = CENTURY.get(unit(trait))
    parts = value if isinstance(value, (list, tuple)) else [value]
    if most and any(isinstance(part, (int, float)) and part > most for part in parts):
        return f"more than a hundred years; at most {most} {unit(trait)}"
    return ""


def _inside(value: Any, above: tuple[int, ...]) -> str:
    """Return what is wrong with a value or something in it; ``above`` are its containers."""
    if isinstance(value, str):
        if "\0" in value:
            return "a text with a NUL character in it"
        if not value.isascii() and any("\ud800" <= sign <= "\udfff" for sign in value):
            return "a text that is not Unicode: half of a surrogate pair is in it"
        return ""
    if isinstance(value, float):
        return "" if math.isfinite(value) else "anything but a finite number"
    if isinstance(value, dict):
        inner: Any = (part for pair in value.items() for part in pair)
    elif isinstance(value, (list, tuple, set, frozenset)):
        inner = value
    else:
        return ""
    if id(value) in above:
        return "a value that contains itself"
    if len(above) == MAX_DEPTH:
        return f"a value more than {MAX_DEPTH} levels deep"
    return next((wrong for part in inner if (wrong := _inside(part, (*above, id(value))))), "")
