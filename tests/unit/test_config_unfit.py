"""What no option can be, whatever its type, is refused in words and with its place."""

import datetime

import pytest
from traitlets import Any, Dict, Float, Int, List, Unicode

from minihub.config_unfit import problem

ENDLESS: dict = {}
ENDLESS["again"] = [ENDLESS]
DEEP: list = []
for _ in range(5000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "value, told",
    [
        ("a\0b", "NUL"),
        ({"key\0": 1}, "NUL"),
        ({"key": ["fine", ("a\0",)]}, "NUL"),
        ("\ud800", "half of a surrogate pair"),
        (float("nan"), "anything but a finite number"),
        (float("-inf"), "anything but a finite number"),
        ({"slow_spawn_timeout": float("inf")}, "anything but a finite number"),
        (ENDLESS, "contains itself"),
        (DEEP, "more than 100 levels deep"),
    ],
)
def test_value_that_nothing_can_have_is_refused(value, told):
    assert told in problem(Any(), value)


SHARED = ["the same twice is not endless"]


@pytest.mark.parametrize(
    "value", ["", "ü\n😀", 0, 10**40, -1.5, None, {"a": SHARED, "b": SHARED}, object(), b"\0", [[]]]
)
def test_other_values_are_left_to_the_type(value):
    assert problem(Any(), value) == ""


@pytest.mark.parametrize(
    "trait, most",
    [
        (Int().tag(unit="seconds"), 3155760000),
        (Float(help="Seconds until it ends."), 3155760000),
        (Float(help="Days for which it lasts."), 36525),
    ],
)
def test_times_end_after_a_hundred_years(trait, most):
    assert problem(trait, most) == "" and problem(trait, -1) == ""
    assert f"at most {most}" in problem(trait, most + 1)
    assert f"at most {most}" in problem(trait, [0, 10**30])


def test_numbers_of_other_things_have_no_such_end():
    assert problem(Int().tag(unit="servers"), 10**30) == ""


def test_values_beside_the_wrong_one_do_not_matter():
    assert problem(Dict(), {"day": datetime.date(2026, 1, 1), "names": {"ada"}}) == ""
    assert problem(List(Unicode()), ["x" * 10**6]) == ""
