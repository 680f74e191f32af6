"""Scopes: what includes what, what a filter narrows, and that nobody gains by arithmetic."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minihub import scopes
from minihub.errors import ConfigError
from minihub.scopes import ALL, DEFAULT_ROLES, SCOPES, Scope, Scopes, expand, intersect, missing
from minihub.web import messages

GROUPS = {"alice": {"staff"}, "bob": {"staff", "class"}, "carol": set()}


def groups_of(user):
    return GROUPS.get(user, set())


# -- the table -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "includes"),
    [
        ("admin:users", {"admin:auth_state", "users", "read:roles:users", "delete:users"}),
        ("users", {"read:users", "list:users", "users:activity"}),
        ("list:users", {"read:users:name"}),
        ("read:users", {"read:users:name", "read:users:groups", "read:users:activity"}),
        ("users:activity", {"read:users:activity"}),
        ("admin:servers", {"admin:server_state", "servers"}),
        ("servers", {"read:servers", "start:servers", "delete:servers"}),
        ("read:servers", {"read:users:name"}),
        ("tokens", {"read:tokens"}),
        ("admin:groups", {"groups", "read:roles:groups", "delete:groups"}),
        ("groups", {"read:groups", "list:groups"}),
        ("list:groups", {"read:groups:name"}),
        ("read:groups", {"read:groups:name"}),
        ("admin:services", {"list:services", "read:services", "read:roles:services"}),
        ("list:services", {"read:services:name"}),
        ("read:services", {"read:services:name"}),
        ("shares", {"access:servers", "read:shares", "users:shares", "groups:shares"}),
        ("users:shares", {"read:users:shares"}),
        ("groups:shares", {"read:groups:shares"}),
        ("read:roles", {"read:roles:users", "read:roles:services", "read:roles:groups"}),
    ],
)
def test_scope_includes_exactly_its_children(name, includes):
    assert set(SCOPES[name].includes) == includes


def test_every_other_scope_is_a_leaf():
    parents = {name for name, row in SCOPES.items() if row.includes}
    assert len(parents) == 20 and len(SCOPES) == 45
    assert {"admin-ui", "access:servers", "access:services", "proxy", "shutdown"} < set(SCOPES)


def test_every_scope_says_what_it_allows_in_one_line():
    for name, row in SCOPES.items():
        assert row.description.endswith(".") and "\n" not in row.description, name
        assert "|" not in row.description, name


def test_broken_tables_are_noticed():
    with pytest.raises(ValueError, match="a includes gone, which does not exist"):
        scopes.included({"a": Scope("", ("gone",))})
    with pytest.raises(ValueError, match="a includes itself: a > b > a"):
        scopes.included({"a": Scope("", ("b",)), "b": Scope("", ("a",))})


def test_documentation_is_current():
    """Regenerate with: python -c "from minihub import scopes; print(scopes.markdown(), end='')"."""
    page = Path(__file__).parents[2] / "docs" / "scopes.md"
    assert page.read_text(encoding="utf-8") == scopes.markdown()


# -- raw scopes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scope",
    [
        "self",
        "inherit",
        "read:users",
        "read:users!user",
        "read:users!user=alice",
        "read:users!user=a!b=c",
        "read:users!group=staff",
        "access:servers!server",
        "access:servers!server=alice/",
        "access:services!service=grader",
    ],
)
def test_well_formed_scope_is_known(scope):
    assert scopes.problem(scope) == "" and scopes.unknown([scope]) == []


@pytest.mark.parametrize(
    ("scope", "reason"),
    [
        ("", "no scope"),
        ("all", "no scope"),
        ("read:users ", "no scope"),
        ("self!user=alice", "takes no filter"),
        ("inherit!", "takes no filter"),
        ("read:users!", "a filter begins with"),
        ("read:users!name=alice", "a filter begins with"),
        ("read:users!user=", "names nothing"),
        ("read:users!group", "names nothing"),
        ("access:servers!server=alice", "USER/SERVER"),
        (7, "not int"),
    ],
)
def test_malformed_scope_is_unknown_and_grants_nothing(scope, reason):
    assert reason in scopes.problem(scope)
    assert scopes.unknown([scope]) == [scope]
    assert expand([scope], "alice", service="s", server="alice/") == frozenset()


# -- expanding -----------------------------------------------------------------------------


def test_scope_expands_to_everything_below_it():
    assert expand(["users"]) == {
        "users",
        "read:users",
        "read:users:name",
        "read:users:groups",
        "read:users:activity",
        "list:users",
        "users:activity",
    }


def test_filter_is_carried_to_everything_below():
    assert expand(["tokens!user=alice"]) == {"tokens!user=alice", "read:tokens!user=alice"}


def test_right_to_one_server_says_nothing_about_its_user():
    assert expand(["servers!server=alice/x"]) == {
        "servers!server=alice/x",
        "read:servers!server=alice/x",
        "start:servers!server=alice/x",
        "delete:servers!server=alice/x",
    }


def test_self_is_the_users_own_and_nothing_for_others():
    own = expand(["self"], "alice")
    assert all(scope.endswith("!user=alice") for scope in own)
    assert {scope.partition("!")[0] for scope in own} == {
        "read:users",
        "read:users:name",
        "read:users:groups",
        "read:users:activity",
        "users:shares",
        "read:users:shares",
        "read:shares",
        "users:activity",
        "servers",
        "read:servers",
        "start:servers",
        "delete:servers",
        "tokens",
        "read:tokens",
        "access:servers",
    }
    assert expand(["self"], service="grader") == frozenset()


def test_shorthand_is_resolved_or_left_out():
    raw = DEFAULT_ROLES["server"].scopes
    assert expand(raw, "alice", server="alice/x") == {
        "users:activity!user=alice",
        "read:users:activity!user=alice",
        "access:servers!server=alice/x",
    }
    assert expand(raw) == frozenset()
    assert expand(["read:services!service"], service="s") == {
        "read:services!service=s",
        "read:services:name!service=s",
    }


def test_inherit_is_left_to_the_caller():
    assert expand(["inherit", "shutdown"], "alice") == {"shutdown"}


def test_narrowed_scope_disappears_beside_the_whole_one():
    assert expand(["read:tokens", "read:tokens!user=alice"]) == {"read:tokens"}


def test_admin_role_covers_every_scope():
    held = expand(DEFAULT_ROLES["admin"].scopes)
    assert set(SCOPES) - held == set()


def test_every_users_role_fits_into_the_admins():
    admin = expand(DEFAULT_ROLES["admin"].scopes)
    assert missing(expand(["self"], "alice"), admin) == []


# -- asking --------------------------------------------------------------------------------


def test_unfiltered_scope_allows_every_resource():
    held = Scopes(["read:users"])
    assert held.allows("read:users")
    for resource in ({"user": "a"}, {"server": "a/b"}, {"group": "g"}, {"service": "s"}):
        assert held.allows("read:users", **resource)
    assert not held.allows("users") and not held.has_any("users")


@pytest.mark.parametrize(
    ("held", "resource", "allowed"),
    [
        ("x!user=alice", {"user": "alice"}, True),
        ("x!user=alice", {"user": "bob"}, False),
        ("x!user=alice", {}, False),
        ("x!user=alice", {"server": "alice/"}, True),
        ("x!user=alice", {"server": "alice/a/b"}, True),
        ("x!user=alice", {"user": "alice", "server": "alice/x"}, True),
        ("x!user=alice", {"server": "alice2/x"}, False),
        ("x!user=alice", {"group": "alice"}, False),
        ("x!user=alice", {"service": "alice"}, False),
        ("x!server=alice/", {"server": "alice/"}, True),
        ("x!server=alice/", {"server": "alice/x"}, False),
        ("x!server=alice/x", {"user": "alice", "server": "alice/x"}, True),
        ("x!server=alice/x", {"user": "alice"}, False),
        ("x!group=staff", {"group": "staff"}, True),
        ("x!group=staff", {"user": "alice"}, True),
        ("x!group=staff", {"server": "alice/x"}, True),
        ("x!group=staff", {"user": "carol"}, False),
        ("x!group=staff", {"user": "carol", "user_groups": ["staff"]}, True),
        ("x!group=staff", {"user": "alice", "user_groups": []}, False),
        ("x!group=staff", {"user": "staff"}, False),
        ("x!service=s", {"service": "s"}, True),
        ("x!service=s", {"service": "t"}, False),
        ("x!service=s", {"user": "s"}, False),
        ("x!user=", {"user": ""}, False),
        ("x!", {}, False),
    ],
)
def test_filtered_scope_allows_only_its_resources(held, resource, allowed):
    assert Scopes([held], groups_of).allows("x", **resource) is allowed


def test_group_filter_without_a_way_to_know_members_matches_no_user():
    assert not Scopes(["x!group=staff"]).allows("x", user="alice")


def test_question_about_two_resources_is_a_mistake():
    held = Scopes(["x"])
    for question in ({"user": "a", "server": "b/s"}, {"user": "a", "group": "g"}):
        with pytest.raises(ValueError):
            held.allows("x", **question)


def test_filters_tell_what_a_list_may_show():
    held = Scopes(["a", "b!user=alice", "b!user=bob", "b!group=staff", "a!user=carol"])
    assert held.filters("a") is ALL
    assert held.filters("b") == {"user": {"alice", "bob"}, "group": {"staff"}}
    assert held.filters("c") == {}
    assert held.has_any("b") and not held.allows("b")
    assert held.raw == {"a", "b!user=alice", "b!user=bob", "b!group=staff"}


# -- arithmetic ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [
        ({"x"}, {"x"}, {"x"}),
        ({"x"}, {"y"}, set()),
        ({"x"}, {"x!user=alice"}, {"x!user=alice"}),
        ({"x!user=alice"}, {"x!user=bob"}, set()),
        ({"x!user=alice", "x!user=bob"}, {"x!user=bob", "x!user=carol"}, {"x!user=bob"}),
        ({"x!user=alice"}, {"x!server=alice/s"}, {"x!server=alice/s"}),
        ({"x!user=alice"}, {"x!server=bob/s"}, set()),
        ({"x!user=alice"}, {"x!group=staff"}, {"x!user=alice"}),
        ({"x!user=carol"}, {"x!group=staff"}, set()),
        ({"x!server=bob/s"}, {"x!group=class"}, {"x!server=bob/s"}),
        ({"x!group=staff"}, {"x!group=staff"}, {"x!group=staff"}),
        ({"x!group=staff"}, {"x!group=class"}, set()),
        ({"x!service=s"}, {"x!service=s", "x!user=s"}, {"x!service=s"}),
        ({"x", "y!user=a"}, {"x!user=b", "y"}, {"x!user=b", "y!user=a"}),
    ],
)
def test_intersection_is_what_both_allow(one, other, common):
    assert intersect(one, other, groups_of) == common
    assert intersect(other, one, groups_of) == common


def test_group_filter_meets_users_only_where_membership_is_known():
    assert intersect({"x!user=alice"}, {"x!group=staff"}) == frozenset()


def test_nobody_grants_more_than_they_hold():
    held = expand(["self"], "alice")
    assert missing(expand(["read:servers!user"], "alice"), held) == []
    assert missing(expand(["access:servers!server=alice/x"]), held) == []
    assert missing(expand(["read:tokens!user=bob"]), held) == ["read:tokens!user=bob"]
    assert missing(expand(["read:tokens"]), held) == ["read:tokens"]
    assert missing({"x!user=bob", "x!user=carol"}, {"x!group=class"}, groups_of) == ["x!user=carol"]
    assert missing({"x!group=class"}, {"x!user=bob"}, groups_of) == ["x!group=class"]


NAMES = st.sampled_from(["x", "y"])
USERS = st.sampled_from(sorted(GROUPS))
SERVERS = st.builds("{}/{}".format, USERS, st.sampled_from(["", "s"]))
GROUP_NAMES = st.sampled_from(["staff", "class"])
NARROWED = st.one_of(
    st.just(""),
    st.builds("!user={}".format, USERS),
    st.builds("!server={}".format, SERVERS),
    st.builds("!group={}".format, GROUP_NAMES),
    st.builds("!service={}".format, st.just("alice")),
)
HELD = st.frozensets(st.builds("{}{}".format, NAMES, NARROWED), max_size=6)
RESOURCES = st.one_of(
    st.just({}),
    st.builds(lambda name: {"user": name}, USERS),
    st.builds(lambda name: {"server": name}, SERVERS),
    st.builds(lambda name: {"group": name}, GROUP_NAMES),
    st.just({"service": "alice"}),
)


@given(HELD, HELD, NAMES, RESOURCES)
def test_intersection_allows_nothing_that_one_side_does_not(one, other, name, resource):
    common = Scopes(intersect(one, other, groups_of), groups_of).allows(name, **resource)
    first = Scopes(one, groups_of).allows(name, **resource)
    second = Scopes(other, groups_of).allows(name, **resource)
    assert not common or (first and second)
    # It loses nothing either, but where two different groups overlap.
    if first and second and not any("!group" in scope for scope in one | other):
        assert common


@given(HELD, HELD)
def test_what_is_not_missing_is_held(one, other):
    lacking = missing(one, other, groups_of)
    assert not set(lacking) & set(intersect(one, other, groups_of))
    assert intersect(set(one) - set(lacking), other, groups_of) >= {
        scope for scope in Scopes(one).raw if scope not in lacking
    }


# -- custom scopes -------------------------------------------------------------------------


@pytest.fixture
def custom():
    yield scopes.define_custom
    scopes.forget_custom()


def test_custom_scopes_take_part(custom):
    custom(
        {
            "custom:grades:write": {
                "description": "Change grades.",
                "subscopes": ["custom:grades:read"],
            },
            "custom:grades:read": {"description": "Read grades."},
        }
    )
    assert expand(["custom:grades:write!user=alice"]) == {
        "custom:grades:write!user=alice",
        "custom:grades:read!user=alice",
    }
    assert scopes.describe("custom:grades:read")["description"] == "Read grades."
    assert "custom:" not in scopes.markdown().partition("## Custom")[0]
    scopes.forget_custom()
    assert scopes.unknown(["custom:grades:read"]) and not expand(["custom:grades:read"])


@pytest.mark.parametrize(
    ("definitions", "problem"),
    [
        ({"grades": {"description": "x"}}, "is named custom:"),
        ({"custom:Grades": {"description": "x"}}, "is named custom:"),
        ({"custom:a-": {"description": "x"}}, "is named custom:"),
        ({"custom:ab": {}}, "a description is needed"),
        ({"custom:ab": "x"}, "a description is needed"),
        ({"custom:ab": {"description": "x", "subscopes": "y"}}, "must be a list"),
        ({"custom:ab": {"description": "x", "subscopes": ["users"]}}, '"users" is not a custom'),
        ({"custom:ab": {"description": "x", "subscope": []}}, 'unknown key "subscope"'),
        ({"custom:ab": {"description": "x", "subscopes": ["custom:ab"]}}, "includes itself"),
    ],
)
def test_bad_custom_scope_is_a_configuration_error(custom, definitions, problem):
    before = dict(SCOPES)
    with pytest.raises(ConfigError, match=problem):
        custom({"custom:fine": {"description": "x"}, **definitions})
    assert before == SCOPES


def test_all_problems_of_custom_scopes_are_told_at_once(custom):
    with pytest.raises(ConfigError) as caught:
        custom({"one": {}, "custom:two": {}})
    assert len(caught.value.problems) == 2


# -- words ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "words", "narrowed"),
    [
        ("shutdown", "Stop the hub.", ""),
        ("read:users:name!user", "Read the names of users.", "what is yours"),
        ("read:users:name!user=alice", "Read the names of users.", "what is yours"),
        ("read:users:name!user=bob", "Read the names of users.", "user bob"),
        ("read:users:name!group=g", "Read the names of users.", "group g and its users"),
        ("servers!server=bob/x", "Start and stop servers.", "server x of bob"),
        ("servers!server=bob/", "Start and stop servers.", "the server of bob"),
        ("servers!server", "Start and stop servers.", "the server that asks"),
        ("read:services!service=s", "Read services.", "service s"),
        ("self", "Everything a user may do with what is their own.", ""),
        ("nonsense", "nonsense", ""),
    ],
)
def test_scope_is_described_in_words(scope, words, narrowed):
    described = {"scope": scope, "description": words, "filter": narrowed}
    assert scopes.describe(scope, "alice") == described


def test_every_scope_is_described_in_every_language():
    for language in messages.TRANSLATED:
        catalogue = messages.catalogue(language)
        for name, row in scopes.SCOPES.items():
            assert catalogue.tell(row.description) != row.description, (language, name)
