"""Names that people choose: two that are accepted never lead to the same home, URL or row."""

from __future__ import annotations

import unicodedata
from urllib.parse import unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minihub.auth.classnames import (
    LONGEST,
    chosen_name_problem,
    mixed_up_problem,
    normalized,
    suggested,
)
from minihub.auth.classroom import ClassroomAuthenticator
from minihub.local import file_name
from minihub.urls import escape_name

#: What makes trouble in names, besides everything else there is.
TRICKY = [
    "İ", "I", "ı", "i", "i̇", "ß", "ss", "SS", "ﬁ", "fi", "ａ", "Ａ", "a", "A", "K", "K", "k",
    "Å", "Å", "å", "å", "ς", "σ", "Σ", "Ω", "Ω", "²", "2", "①", "1", "٣", ".", "..", " ",
    "\u00a0", "\u3000", "\u200b", "\u202e", "-", "_", "@", "/", "\\", "%", "%2e", "～", "con",
    "CON", "nul", "com1", "ＣＯＭ１", "lpt9", ".txt", "ǅ", "ǆ", "ﷺ", "ẞ", "ŉ", "ͅ", "ι",
    "\0", "\n",
]  # fmt: skip
names = st.one_of(
    st.text(max_size=12),
    st.lists(st.sampled_from(TRICKY), min_size=1, max_size=6).map("".join),
    st.lists(st.one_of(st.sampled_from(TRICKY), st.text(max_size=3)), min_size=1, max_size=5).map(
        "".join
    ),
)


def accepted(typed):
    """Return the name that somebody gets who types this; "" for none."""
    name = normalized(typed)
    return "" if chosen_name_problem(name) else name


def places(name):
    """Return everything by which a name is found, as the least exact of its users compares it."""
    home = file_name(name)
    return {
        "home": unicodedata.normalize("NFC", home).casefold().rstrip(". "),
        "url": unquote(escape_name(name)).casefold(),
        "path": escape_name(name).lower(),
        "row": unicodedata.normalize("NFKC", name).casefold().strip(),
    }


@settings(deadline=None)  # the machine may be busy
@given(names, names)
@example("ada", "ADA")
@example("İlker", "i̇lker")
@example("strasse", "straße")
@example("ａｄａ", "ada")
@example("ada.", "ada")
@example("ada ", "ada")
@example("con", "CON.txt")
def test_two_accepted_names_share_nothing(one, other):
    first, second = accepted(one), accepted(other)
    if first and second and first != second:
        mine, theirs = places(first), places(second)
        assert not [place for place in mine if mine[place] == theirs[place]]


@settings(deadline=None)  # the machine may be busy
@given(names)
def test_normalising_twice_changes_nothing(name):
    assert normalized(normalized(name)) == normalized(name)


@settings(deadline=None)  # the machine may be busy
@given(names)
def test_accepted_name_is_safe_everywhere(typed):
    name = accepted(typed)
    if name:
        assert name == name.strip() and not name.endswith(".") and ".." not in name
        assert not set(name) & set('/\\%?#:*"<>| \0\n\t')
        assert len(file_name(name).encode()) <= 255
        assert name.partition(".")[0] not in ("con", "prn", "aux", "nul", "com1", "lpt1")


@settings(deadline=None)  # the machine may be busy
@given(names)
def test_authenticator_takes_exactly_these(typed):
    authenticator = ClassroomAuthenticator()
    name = authenticator.normalize_username(typed)
    assert authenticator.validate_username(name) == (not chosen_name_problem(name))
    assert bool(authenticator.why_no_name(name)) == bool(chosen_name_problem(name))


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("ada", "ada"),
        (" Ada ", "ada"),
        ("ＡＤＡ", "ada"),
        ("José", "josé"),
        ("Jose\u0301", "josé"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("Σίσυφος", "σίσυφοσ"),
        ("李四", "李四"),
        ("ana.maria-lópez_2@school", "ana.maria-lópez_2@school"),
        ("_service", "_service"),
    ],
)
def test_spelling_of_a_name(typed, name):
    assert accepted(typed) == name


@pytest.mark.parametrize(
    "typed",
    [
        "", " ", ".", "..", "...", "ada.", "a..b", ".ada", "-ada", "@ada", "ada lovelace", "a/b",
        "a\\b", "a%2fb", "a\0b", "a\u200bb", "a\u202eb", "con", "NUL", "Com1", "lpt9.txt", "ａｕｘ",
        "a" * (LONGEST + 1), "a:b", "<b>", "a'b", 'a"b', "a;b", "$(id)", "😀",
    ],
)  # fmt: skip
def test_name_that_nobody_can_have(typed):
    assert accepted(typed) == ""


def test_reason_is_the_end_of_a_sentence():
    assert chosen_name_problem("ada lovelace") == "it contains a space"
    assert chosen_name_problem("ada!") == (
        'it contains "!"; letters, digits and . _ - @ may be in it'
    )


@given(st.text(max_size=60))
def test_suggestion_is_a_name_or_close_to_one(typed):
    name = suggested(typed)
    assert len(name) <= LONGEST and not any(sign.isspace() for sign in name)
    if name and not chosen_name_problem(name):
        assert suggested(name) == name


def test_suggestions():
    assert suggested(" Ada  King Lovelace ") == "ada.king.lovelace"
    assert suggested("O'Neill, Shane!") == "oneill.shane"
    assert suggested("😀") == ""


def test_letters_of_scripts_that_look_alike_are_not_mixed():
    assert mixed_up_problem("аda") and mixed_up_problem("οtto")
    assert not any(map(mixed_up_problem, ["ada", "мария-2", "σοφία", "佐藤ken", "שרה", "ﬁona"]))
