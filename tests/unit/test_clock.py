"""Dates as text and back."""

from datetime import datetime, timedelta, timezone

import pytest

from minihub import clock


def test_text_has_six_digits_and_z():
    moment = datetime(2026, 11, 22, 20, 14, 7, tzinfo=timezone.utc)
    assert clock.isoformat(moment) == "2026-11-22T20:14:07.000000Z"


def test_other_zones_become_utc():
    berlin = timezone(timedelta(hours=1))
    moment = datetime(2026, 1, 1, 1, 0, tzinfo=berlin)
    assert clock.isoformat(moment) == "2026-01-01T00:00:00.000000Z"


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-22T20:14:07.833220Z",
        "2026-11-22T20:14:07.833220",
        "2026-11-22T20:14:07.833220+00:00",
        "2026-11-22T21:14:07.83322+01:00",
        "2026-11-22 20:14:07.83322z",
        " 2026-11-22T20:14:07.833220123Z",
    ],
)
def test_parse_reads_every_spelling_as_the_same_moment(text):
    assert clock.isoformat(clock.parse(text)) == "2026-11-22T20:14:07.833220Z"


def test_milliseconds_are_read():
    assert clock.parse("2026-01-01T00:00:00.500Z").microsecond == 500000


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01T00:00:00Z", "12", "2026-01-01T"])
def test_no_date_is_a_value_error(text):
    with pytest.raises(ValueError):
        clock.parse(text)


def test_text_order_is_time_order():
    early, late = clock.after(-1), clock.after(1)
    assert clock.isoformat(early) < clock.now_text() < clock.isoformat(late)
