"""The languages of the pages: catalogues as gettext writes them, and which one a reader gets.

Rules of this file: English stands in templates and code; every other language is one file
``locale/LANGUAGE.po`` of this package, read when it is first asked for. No build step: the files
are read as they are. ``scripts/messages.py`` keeps them current, tests keep them complete.

Threads: any; a catalogue is read once and never changes.
Sources: the PO format of GNU gettext; ``Accept-Language`` of RFC 9110, section 12.5.4.
"""

from __future__ import annotations

import ast
import gettext
from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files
from typing import Any

from ..texts import Number, Text

#: The languages there are, each by its own name, in the order they are shown.
LANGUAGES = {"en": "English", "de": "Deutsch", "es": "Español"}
#: What stands between whole and part of a number, where it is not a point.
DECIMAL_MARKS = {"de": ",", "es": ","}
#: Languages whose file is there.
TRANSLATED = tuple(code for code in LANGUAGES if code != "en")


class Catalogue:
    """One language's texts; what it does not have stays English."""

    def __init__(
        self,
        language: str,
        texts: dict[str, list[str]] | None = None,
        plural: Callable[[int], int] | None = None,
    ) -> None:
        """``texts``: the forms of each message; ``plural`` says which form a number takes."""
        self.language = language
        self.texts = texts or {}
        self._plural = plural or (lambda number: int(number != 1))

    def gettext(self, message: str) -> str:
        forms = self.texts.get(message)
        return forms[0] if forms and forms[0] else message

    def ngettext(self, singular: str, plural: str, number: int) -> str:
        forms = self.texts.get(singular)
        form = self._plural(number)
        if forms and form < len(forms) and forms[form]:
            return forms[form]
        return singular if number == 1 else plural

    def tell(self, value: Any) -> Any:
        """Return a :class:`~minihub.texts.Text` in this language; anything else as it is."""
        if not isinstance(value, Text):
            return value
        if isinstance(value, Number):
            return value.values["number"].replace(".", DECIMAL_MARKS.get(self.language, "."))
        return self.gettext(value.msgid) % {
            name: self.tell(part) for name, part in value.values.items()
        }


ENGLISH = Catalogue("en")


@cache
def catalogue(language: str) -> Catalogue:
    """Return the catalogue of one of :data:`LANGUAGES`; English for any other."""
    if language not in TRANSLATED:
        return ENGLISH
    source = files("minihub.web").joinpath("locale").joinpath(f"{language}.po")
    return read(language, source.read_text(encoding="utf-8"))


def read(language: str, text: str) -> Catalogue:
    """Return the catalogue that a PO file's text describes; fuzzy entries count as absent."""
    texts: dict[str, list[str]] = {}
    plural = None
    for entry in entries(text):
        if not entry["msgid"]:
            plural = _plural_rule(entry["msgstr"][0])
        elif "fuzzy" not in entry["flags"]:
            texts[entry["msgid"]] = entry["msgstr"]
    return Catalogue(language, texts, plural)


def entries(text: str) -> Iterator[dict[str, Any]]:
    """Yield each entry of a PO file: msgid, msgid_plural, msgstr (a list), flags."""
    entry: dict[str, Any] = {}
    target: list[Any] = []  # the dict or list and the key where the next text goes on

    def begin(flags: str = "") -> None:
        entry.clear()
        entry.update(msgid="", msgid_plural="", msgstr=[], flags=flags)

    begin()
    for line in [*text.splitlines(), ""]:
        if line.startswith("#,"):
            entry["flags"] += line[2:]
            continue
        if line.startswith("#"):
            continue
        if not line.strip():
            if entry["msgstr"]:
                yield dict(entry, msgstr=list(entry["msgstr"]))
            begin()
            continue
        word, _, rest = line.partition(" ")
        if line.startswith('"'):
            rest = line
        elif word.startswith("msgstr"):
            entry["msgstr"].append("")
            target[:] = [entry["msgstr"], -1]
        else:
            target[:] = [entry, word]
        target[0][target[1]] += ast.literal_eval(rest)


def _plural_rule(header: str) -> Callable[[int], int] | None:
    for line in header.splitlines():
        name, _, value = line.partition(":")
        if name == "Plural-Forms":
            rule = value.partition("plural=")[2].rstrip("; ")
            return gettext.c2py(rule)
    return None


def choose(wanted: str, accepted: str) -> str:
    """Return the language a reader gets: the one they chose, else the first their browser names.

    ``wanted`` is what the cookie says, ``accepted`` the ``Accept-Language`` field.
    """
    if wanted in LANGUAGES:
        return wanted
    ranked = []
    for place, part in enumerate(accepted[:500].split(",")):
        tag, _, parameters = part.partition(";")
        try:
            weight = float(parameters.strip().removeprefix("q=") or 1)
        except ValueError:
            continue
        ranked.append((-weight, place, tag.strip().lower().partition("-")[0]))
    for weight, _place, language in sorted(ranked):
        if language in LANGUAGES and weight < 0:
            return language
    return "en"
