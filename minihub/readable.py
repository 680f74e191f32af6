"""Codes that people read off a wall or a slip, say aloud and type: made, read back, shown.

Rules of this file: pure functions over one alphabet. It has no two signs that look alike (0 and O,
1 and I and l, 2 and Z, 5 and S, 8 and B) and no vowel, so that no code is a word. What people type
may be in any case and width, with spaces or dashes where they like.

Threads: any.
"""

from __future__ import annotations

import re
import secrets
import unicodedata

#: 25 signs: a code of 8 has 37 bits, one of 9 has 41.
ALPHABET = "23456789CDFGHJKMNPQRTVWXY"
#: Signs of a class code, shown in groups of four, and of a one-time code, in groups of three.
CLASS_CODE_LENGTH = 8
ONE_TIME_CODE_LENGTH = 9
#: No text that is longer can be meant as a code.
LONGEST_TYPED = 64

_SEPARATORS = re.compile(r"[\s\-_.·‐-―−]+")


def new_code(length: int) -> str:
    """Return a fresh random code of that many signs, without separators."""
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def read(typed: str) -> str:
    """Return what somebody typed as a code without separators; "" when it cannot be one."""
    if len(typed) > LONGEST_TYPED:
        return ""
    code = _SEPARATORS.sub("", unicodedata.normalize("NFKC", typed)).upper()
    return code if code and all(sign in ALPHABET for sign in code) else ""


def grouped(code: str) -> str:
    """Return a code as it is shown: ``K7MX-4PRT``, and ``K7M-4XP-2RT`` where threes divide it."""
    size = 3 if len(code) % 3 == 0 else 4
    return "-".join(code[start : start + size] for start in range(0, len(code), size))


def spaced(code: str) -> str:
    """Return a code sign by sign, for programs that read a page aloud."""
    return " ".join(code)
