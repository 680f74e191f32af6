"""The languages of the pages: complete, current, and told as the reader wants."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from page_cases import COMMON, PAGES

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import messages as script  # noqa: E402

from minihub.errors import SpawnError  # noqa: E402
from minihub.texts import Text  # noqa: E402
from minihub.web import messages  # noqa: E402
from minihub.web.rendering import Renderer  # noqa: E402

each_language = pytest.mark.parametrize("language", messages.TRANSLATED)
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
    """No text of a page stays English but where both languages say the same."""
    catalogue = messages.catalogue(language)
    renderer = Renderer()
    for name, cases in PAGES.items():
        for case in cases:
            values = {**COMMON, **case}
            html = renderer.render(name, **values, texts=catalogue)
            assert f'<html lang="{language}"' in html
            assert catalogue.gettext("Skip to content") in html


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
