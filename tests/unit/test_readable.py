"""Codes that people read, say and type."""

import pytest

from minihub import readable


def test_codes_hold_no_signs_that_look_alike_and_are_no_words():
    assert not set(readable.ALPHABET) & set("01OILZSBAEU")
    assert len(set(readable.ALPHABET)) == len(readable.ALPHABET) == 25
    codes = {readable.new_code(8) for _ in range(200)}
    assert len(codes) == 200
    assert all(len(code) == 8 and set(code) <= set(readable.ALPHABET) for code in codes)


def test_codes_are_shown_in_groups():
    assert readable.grouped("K7MX4PRT") == "K7MX-4PRT"
    assert readable.grouped("K7M4XP2RT") == "K7M-4XP-2RT"
    assert readable.spaced("K7M") == "K 7 M"


@pytest.mark.parametrize(
    "typed",
    [
        "K7MX4PRT",
        "k7mx-4prt",
        " K7MX 4PRT ",
        "k7mx – 4prt",
        "Ｋ７ＭＸ－４ＰＲＴ",
        "K7 MX 4P RT",
        "k7mx.4prt",
    ],
)
def test_code_is_read_however_it_is_typed(typed):
    assert readable.read(typed) == "K7MX4PRT"


@pytest.mark.parametrize("typed", ["", "-", "K7MX-4PR0", "K7MX/4PRT", "K7MX\0", "K" * 65, "ñandu"])
def test_what_is_no_code_is_read_as_none(typed):
    assert readable.read(typed) == ""
