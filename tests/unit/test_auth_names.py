"""What may be a user name, and how foreign text gets into the log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minihub.auth.names import MAX_NAME_BYTES, name_problem, shown


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "alice",
        "alice@example.org",
        "o'brien",
        "dom\\alice",
        "émile",
        "王",
        "a.b",
        ".hidden",
        "two words",
        "x" * 255,
    ],
)
def test_name_of_a_person_is_accepted(name):
    assert name_problem(name) == ""


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "empty"),
        (".", "dots"),
        ("..", "dots"),
        ("...", "dots"),
        ("%2e%2E", "dots"),
        ("a/b", "slash"),
        ("a\nb", "invisible"),
        ("a\x00", "invisible"),
        ("a\x7f", "invisible"),
        ("al\u200bice", "invisible"),
        ("\u202eecila", "invisible"),
        ("a\udc80", "invisible"),
        (" alice", "space"),
        ("alice\u00a0", "space"),
        ("x" * 256, "longer than 255 bytes"),
        ("é" * 128, "longer than 255 bytes"),
        (None, "not a text"),
        (b"alice", "not a text"),
    ],
)
def test_dangerous_name_is_refused_with_the_reason(name, reason):
    assert reason in name_problem(name)


@given(st.text())
def test_accepted_name_is_one_safe_path_component(name):
    """Whatever is accepted can be a file name and a part of a URL path."""
    if name_problem(name) == "":
        assert 0 < len(name.encode("utf-8")) <= MAX_NAME_BYTES
        assert name not in (".", "..") and "/" not in name and "\0" not in name
        assert "\n" not in name and "\r" not in name


@given(st.text(max_size=2000))
def test_shown_text_stays_on_one_short_printable_line(text):
    line = shown(text)
    assert line.isprintable()
    assert len(line) < 32 * 10 + 30


def test_shown_text_keeps_names_readable_and_cuts_long_ones():
    assert shown("alice") == '"alice"'
    assert shown("é" * 32) == '"' + "é" * 32 + '"'
    assert shown("x" * 10_000_000) == '"xxxxxxxxxxxxxxxx…" (10000000 characters)'
    assert shown("a\r\nb\x1b[31m") == r'"a\r\nb\x1b[31m"'
    assert shown(None) == '"None"'
