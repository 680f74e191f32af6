"""The languages of the pages: complete, current, and told as the reader wants."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from page_cases import COMMON, PAGES

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import messages as script  # noqa: E402

from minihub import limits  # noqa: E402
from minihub.errors import NotFound, SpawnError  # noqa: E402
from minihub.texts import Text  # noqa: E402
from minihub.web import messages, phrases  # noqa: E402
from minihub.web.rendering import Renderer  # noqa: E402

each_language = pytest.mark.parametrize("language", messages.TRANSLATED)
#: What is called the same in every language.
OUR_NAMES = {
    "minihub", "JupyterHub", "REST", "API", "English", "Deutsch", "Español", "Authorization", "UTC",
    "token", "SECRET", "openapi", "yaml", "list", "read", "servers", "users",
}  # fmt: skip
PLACE = re.compile(r"%\((\w+)\)[sd]|%%|</?\w+")


@each_language
def test_catalogue_is_current_and_complete(language):
    """After a change of a text: ``python3 scripts/messages.py``, then translate what it names."""
    text, missing = script.update(language, script.found())
    assert missing == []
    assert (script.LOCALE / f"{language}.po").read_text() == text


@each_language
def test_translation_has_the_same_places_and_markup(language):
    text = (script.LOCALE / f"{language}.po").read_text()
    for entry in messages.entries(text):
        wanted = sorted(set(PLACE.findall(entry["msgid_plural"] or entry["msgid"])))
        for form in entry["msgstr"] if entry["msgid"] else ():
            found = sorted(set(PLACE.findall(form)))
            assert found == wanted or entry["msgid_plural"], entry["msgid"]
            assert set(found) <= set(wanted), entry["msgid"]


@each_language
def test_every_page_is_told_in_the_language(language):
    catalogue = messages.catalogue(language)
    renderer = Renderer()
    for name, cases in PAGES.items():
        for case in cases:
            values = {**COMMON, **case}
            html = renderer.render(name, **values, texts=catalogue)
            assert f'<html lang="{language}"' in html
            assert catalogue.gettext("Skip to content") in html


class Marked(messages.Catalogue):
    """A language in which every text stands between brackets."""

    def gettext(self, message: str) -> str:
        return f"⟦{message}⟧"

    def ngettext(self, singular: str, plural: str, number: int) -> str:
        return f"⟦{singular if number == 1 else plural}⟧"


class Told(HTMLParser):
    """What a page tells its reader: texts and attributes; what is marked as English is left out."""

    SPOKEN = {"alt", "aria-label", "placeholder", "title", "data-show", "data-hide", "data-done"}
    SILENT = {"script", "style", "code", "pre"}

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: list[str] = []
        self._open: list[bool] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        given = {name: value or "" for name, value in attrs}
        self.texts += [given[name] for name in self.SPOKEN & given.keys()]
        if tag == "input" and given.get("type") == "submit":
            self.texts.append(given.get("value", ""))
        if tag not in {"br", "circle", "hr", "img", "input", "link", "meta", "path", "polyline"}:
            quiet = tag in self.SILENT or tag != "html" and "lang" in given
            self._open.append(quiet or bool(self._open and self._open[-1]))

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if self._open and tag != "polyline":
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if not (self._open and self._open[-1]):
            self.texts.append(data)


def given_words(value: Any) -> set[str]:
    """Return every word of what a page was given."""
    if isinstance(value, dict):
        return set().union(*map(given_words, [*value, *value.values()]))
    if isinstance(value, (list, tuple, set)):
        return set().union(*map(given_words, value))
    if hasattr(value, "__dict__") and not isinstance(value, str):
        return given_words(vars(value))
    return set(re.findall(r"[^\W\d_]+", str(value)))


def test_every_word_of_a_page_is_a_text_of_the_catalogue_or_was_given():
    """Nothing is written in a template, or made by a filter, in one language only."""
    renderer, found = Renderer(), []
    for name, cases in PAGES.items():
        for case in cases:
            values = {**COMMON, **case}
            html = renderer.render(name, **values, texts=Marked("xx"))
            known = given_words(values) | OUR_NAMES
            text, before = "\n".join(Told(html).texts), ""
            while text != before:  # a text may hold others as its values
                text, before = re.sub(r"⟦[^⟦⟧]*⟧", "", text), text
            for line in text.splitlines():
                words = set(re.findall(r"[^\W\d_]{2,}", line)) - known
                if words:
                    found.append((name, words, line.strip()))
    assert found == []


def test_text_is_english_everywhere_and_can_be_said_otherwise():
    inner = Text("Why?")
    text = Text("%(name)s did not start", name=inner)
    assert text == "Why? did not start" and f"{text}!" == "Why? did not start!"
    german = messages.catalogue("de")
    assert german.tell(text) == "Warum? ist nicht gestartet"
    assert german.tell("Why?") == "Why?"  # what users wrote is never translated
    assert isinstance(str(SpawnError(text)), Text)


def test_told_values_are_escaped():
    renderer = Renderer()
    hostile = Text("%(name)s did not start", name="<b>")
    for language in messages.LANGUAGES:
        html = renderer.render(
            "not_running.html", failed=True, failed_message=hostile,
            texts=messages.catalogue(language),
        )  # fmt: skip
        assert "<b>" not in html and "&lt;b&gt; " in html


@pytest.mark.parametrize(
    ("cookie", "accepted", "language"),
    [
        ("", "", "en"),
        ("", "de-AT,de;q=0.9,en;q=0.5", "de"),
        ("", "fr, es;q=0.4, en;q=0.3", "es"),
        ("", "fr", "en"),
        ("", "en-GB,de", "en"),
        ("", "de;q=0, es;q=0.1", "es"),
        ("", "de;q=much, es", "es"),
        ("de", "es", "de"),
        ("xx", "es", "es"),
    ],
)
def test_language_is_the_chosen_one_else_the_browsers(cookie, accepted, language):
    assert messages.choose(cookie, accepted) == language


def test_po_file_is_read_as_gettext_writes_it():
    text = (
        'msgid ""\nmsgstr ""\n"Plural-Forms: nplurals=3; plural=n==1 ? 0 : n==2 ? 1 : 2;\\n"\n\n'
        '#: a.html\nmsgid "a \\"b\\"\\n"\n"c"\nmsgstr "A"\n\n'
        'msgid "%(n)s dog"\nmsgid_plural "%(n)s dogs"\n'
        'msgstr[0] "one"\nmsgstr[1] "two"\nmsgstr[2] "many"\n\n'
        '#, fuzzy\nmsgid "maybe"\nmsgstr "perhaps"\n\nmsgid "open"\nmsgstr ""'
    )
    catalogue = messages.read("xx", text)
    assert catalogue.gettext('a "b"\nc') == "A"
    assert [catalogue.ngettext("%(n)s dog", "%(n)s dogs", n) for n in (1, 2, 9)] == [
        "one", "two", "many",
    ]  # fmt: skip
    assert catalogue.gettext("maybe") == "maybe" and catalogue.gettext("open") == "open"


@pytest.mark.parametrize(
    ("bytes_", "english", "german"),
    [
        (21_706_547, "20.7 MB", "20,7 MB"),
        (400 * 1024**3, "400 GB", "400 GB"),
        (512, "512 bytes", "512 Bytes"),
    ],
)
def test_numbers_have_the_decimal_mark_of_the_language(bytes_, english, german):
    number = limits.size(bytes_)
    assert number == english and messages.ENGLISH.tell(number) == english
    assert messages.catalogue("de").tell(number) == german
    sentence = Text("%(size)s saved", size=number)
    assert (
        messages.catalogue("es").tell(sentence) == german.replace("Bytes", "bytes") + " ahorrados"
    )


@pytest.mark.parametrize(
    ("english", "german"),
    [
        ("Server at /user/ana/", "Server unter /user/ana/"),
        ("Server at home", "Server at home"),  # somebody's own words
        (NotFound().message, "Das gibt es nicht, oder es ist Ihnen nicht zugänglich"),
        ("a script", "a script"),
    ],
)
def test_english_of_rows_and_errors_is_told_in_the_language(english, german):
    assert phrases.known(english) == english
    assert messages.catalogue("de").tell(phrases.known(english)) == german
