"""Class lists: what is written is read back, whatever the groups are called."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minihub import roster
from minihub.people import group_name_problem

NAMES = st.text(
    st.one_of(st.sampled_from("|\\ s'=+-@,;\"ab"), st.characters(categories=["L", "N", "P", "S"])),
    min_size=1,
    max_size=12,
).filter(lambda name: not group_name_problem(name))


@given(st.lists(NAMES, unique=True, max_size=4))
def test_groups_of_any_name_are_read_back_from_a_cell(names):
    cell = roster._inert(roster._joined_groups(names))
    assert roster._split_groups(roster._plain(cell)) == names


@pytest.mark.parametrize(
    ("cell", "groups"),
    [
        ("8b|lab", ["8b", "lab"]),
        (" 8b | lab |8b||", ["8b", "lab"]),
        (r"8b\|lab", ["8b|lab"]),
        (r"8b\\|lab", ["8b\\", "lab"]),
        (r"a\b|c", [r"a\b", "c"]),  # as somebody writes by hand
        ("", []),
    ],
)
def test_cell_of_groups(cell, groups):
    assert roster._split_groups(cell) == groups
