"""What was found, for people.

Rules of this file: text only; nothing is looked at.

Threads: any.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from .. import __version__
from .finding import Finding, Level, Word
from .patient import Patient

WIDTH = 96
_LABELS = {Level.FINE: "ok  ", Level.UNSEEN: "?   ", Level.WARN: "warn", Level.FAIL: "FAIL"}


def as_text(patient: Patient, findings: Sequence[Finding], *, everything: bool = False) -> str:
    """Return what is to be told; with ``everything`` also what is fine."""
    lines = [f"minihub {__version__}, {patient.directory}"]
    for finding in findings:
        if everything or finding.level is not Level.FINE:
            lines += _of_one(finding, everything)
    return "\n".join([*lines, summary(findings)])


def summary(findings: Sequence[Finding]) -> str:
    """Return all of it in one line."""
    parts = [f"{len(findings)} checks"]
    for level, one, more in (
        (Level.FAIL, "failure", "failures"),
        (Level.WARN, "warning", "warnings"),
        (Level.UNSEEN, "not looked at", "not looked at"),
    ):
        count = sum(finding.level is level for finding in findings)
        if count:
            parts.append(f"{count} {one if count == 1 else more}")
    return ", ".join([*parts, *(["all is well"] if len(parts) == 1 else [])]) + "."


def _of_one(finding: Finding, everything: bool) -> Iterator[str]:
    words: Iterable[Word] = finding.words
    if finding.level is not Level.FINE:
        words = [word for word in words if word.level is not Level.FINE]
    words = list(words) or [Word(Level.FINE, finding.check.title)]
    for word in words:
        first = f"{_LABELS[word.level]}  {finding.check.id}: "
        yield from textwrap.wrap(
            _line(word.what), WIDTH, initial_indent=first, subsequent_indent=" " * 6,
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
        if word.level in (Level.WARN, Level.FAIL):
            yield from textwrap.wrap(
                finding.check.why, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6
            )
        for number, mend in enumerate(word.mend):
            yield f"      {'Mend:' if number == 0 else '     '} {mend}"


def _line(text: str) -> str:
    return " ".join(text.split())
