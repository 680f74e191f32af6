"""What a check is, and what it finds.

Rules of this file: words only; nothing is looked at here. An id is for ever: people write it into
cron lines (``--skip``), programs read it.

Threads: any; the table of checks is filled by imports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .patient import Patient

#: How long one check may take where it says nothing else, in seconds.
PATIENCE_S = 20.0


class Level(Enum):
    """How a check ended, from good to bad."""

    FINE = "ok"
    #: It could not be looked at.
    UNSEEN = "skip"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Word:
    """One sentence of a check: what is so, and the commands or steps that mend it."""

    level: Level
    what: str
    mend: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check:
    """One thing to look at; ``why`` says what happens to people where it is not right."""

    id: str
    title: str
    why: str
    look: Callable[[Patient], Iterator[Word]]
    patience_s: float = PATIENCE_S


@dataclass(frozen=True)
class Finding:
    """What one check has found."""

    check: Check
    words: tuple[Word, ...]

    @property
    def level(self) -> Level:
        """The worst of it."""
        order = list(Level)
        return max((word.level for word in self.words), key=order.index, default=Level.FINE)

    def facts(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "id": self.check.id,
            "level": self.level.value,
            "title": self.check.title,
            "why": self.check.why,
            "found": [
                {"level": word.level.value, "what": word.what, "mend": list(word.mend)}
                for word in self.words
            ],
        }


#: Every check by its id, in the order in which they are made.
CHECKS: dict[str, Check] = {}

Look = Callable[["Patient"], Iterator[Word]]


def check(id: str, title: str, why: str, patience_s: float = PATIENCE_S) -> Callable[[Look], Look]:
    """Put a function that yields what it finds into the table of checks."""

    def put(look: Look) -> Look:
        assert id not in CHECKS, id
        CHECKS[id] = Check(id, title, why, look, patience_s)
        return look

    return put


def fine(what: str) -> Word:
    """Say how it is, where it is right."""
    return Word(Level.FINE, what)


def unseen(what: str, *mend: str) -> Word:
    """Say that it could not be looked at."""
    return Word(Level.UNSEEN, what, mend)


def warn(what: str, *mend: str) -> Word:
    """Say what works, but not as it should or not for long."""
    return Word(Level.WARN, what, mend)


def fail(what: str, *mend: str) -> Word:
    """Say what does not work, or must not be so."""
    return Word(Level.FAIL, what, mend)
