"""Durations: every spelling that is taken, and what is not."""

import pytest

from minihub import durations


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (0, 0),
        (90, 90),
        ("90", 90),
        ("45s", 45),
        ("10m", 600),
        ("2h", 7200),
        ("1d", 86400),
        ("1h30m", 5400),
        (" 1D12H ", 129600),
    ],
)
def test_spellings_are_read(given, seconds):
    assert durations.parse(given) == seconds


@pytest.mark.parametrize(
    "given",
    [
        "",
        "m",
        "-5",
        "-5m",
        "1.5h",
        "1h 30m",
        "10 m",
        "5w",
        "ten",
        "1" * 10,
        "٣m",
        None,
        True,
        -1,
        1.5,
    ],
)
def test_anything_else_is_refused_with_what_would_be_right(given):
    with pytest.raises(ValueError, match="10m, 2h"):
        durations.parse(given)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3, "0 s"),
        (0.9, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (75, "1 min 15 s"),
        (3600, "1 h"),
        (5460, "1 h 31 min"),
        (86400, "1 d"),
        (86400 * 3 + 7300, "3 d 2 h"),
    ],
)
def test_words_have_the_two_largest_units(seconds, words):
    assert durations.words(seconds) == words
