"""Names that people choose for themselves: normalised, and only those that can never be mixed up.

Rules of this file: pure functions. Two names that are both accepted and not the same never lead to
the same home, URL or row, on any file system or database; tests prove it for whatever Unicode has.

Threads: any.
Sources: Unicode Standard Annex 15 (NFKC); Unicode Standard 3.13 (caseless matching); the names that
Windows reserves.
"""

from __future__ import annotations

import unicodedata

from minihub.auth.names import name_problem
from minihub.texts import Text

#: A name has at most so many characters.
LONGEST = 48

#: Signs a name may hold besides letters, the marks that belong to them, and digits.
SIGNS = frozenset("._-@")

#: Scripts whose letters look like each other's; a name has letters of one of them at most.
_ALIKE = frozenset(["LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "COPTIC", "CHEROKEE"])

#: Windows takes these, also with an ending, for devices.
_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$"]
    + [f"{port}{number}" for port in ("com", "lpt") for number in "0123456789"]
)


def normalized(name: str) -> str:
    """Return the one spelling of a name: NFKC, case folded, without space around it.

    Applying it again changes nothing.
    """
    folded = name
    for _ in range(4):  # folding may leave something to compose, and composing to fold
        again = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", folded).casefold())
        again = again.strip()
        if again == folded:
            break
        folded = again
    return folded


def chosen_name_problem(name: str) -> str:
    """Return why a normalised name cannot be somebody's, as the end of a sentence; "" if it can."""
    if problem := name_problem(name):
        return problem
    if name != normalized(name):
        return Text("it has no settled spelling")
    if len(name) > LONGEST:
        return Text("it is longer than %(count)s characters", count=LONGEST)
    if any(character.isspace() for character in name):
        return Text("it contains a space")
    for character in name:
        if character not in SIGNS and unicodedata.category(character)[0] not in "LMN":
            return Text(
                'it contains "%(character)s"; letters, digits and . _ - @ may be in it',
                character=character,
            )
    if unicodedata.category(name[0])[0] not in "LN" and name[0] != "_":
        return Text("it does not begin with a letter or a digit")
    if name.endswith(".") or ".." in name:
        return Text("it ends with a dot or has two in a row")
    if name.partition(".")[0] in _DEVICES:
        return Text("Windows keeps that name for itself")
    return ""


def mixed_up_problem(name: str) -> str:
    """Return why a normalised name can be taken for another's, as the end of a sentence.

    For names that people choose themselves: a Latin name with one Cyrillic letter in it looks on
    every list as the same name without. "" for all others.
    """
    scripts = {unicodedata.name(character, "").partition(" ")[0] for character in name}
    if len(scripts & _ALIKE) > 1:
        return Text("it mixes letters of scripts that look alike; write it in one alphabet")
    return ""


def suggested(typed: str) -> str:
    """Return a name close to what somebody typed, with dots for its spaces; it may be none still.

    Normalised, without the signs that no name can hold.
    """
    dotted = ".".join(normalized(typed).split())
    kept = "".join(
        character
        for character in dotted
        if character in SIGNS or unicodedata.category(character)[0] in "LMN"
    )
    while ".." in kept:
        kept = kept.replace("..", ".")
    return kept.strip(".-@")[:LONGEST].rstrip(".")
