"""What scopes show, and dates of two generations."""

import pytest

from minihub.scopes import Scopes
from minihub.web import shapes

EVERYTHING = frozenset(
    {
        "kind", "name", "admin", "roles", "groups", "server", "pending", "created",
        "last_activity", "auth_state", "servers", "user_info",
    }
)  # fmt: skip


def user(keys, **changes):
    facts = {
        "name": "ada", "admin": False, "roles": ["user"], "groups": [], "server": None,
        "pending": None, "created": "2026-01-01T00:00:00.000000Z", "last_activity": None,
        "servers": {},
    }  # fmt: skip
    return shapes.user_model(**(facts | changes), keys=keys)


def test_full_model_has_every_key_in_order():
    assert list(user(EVERYTHING)) == [
        "kind", "name", "admin", "roles", "groups", "server", "pending", "created",
        "last_activity", "auth_state", "servers", "user_info",
    ]  # fmt: skip


def test_model_is_cut_to_its_keys():
    assert user({"kind", "name"}) == {"kind": "user", "name": "ada"}


def test_servers_that_may_be_shown_are_shown():
    assert set(user({"kind"}, servers={"": {}})) == {"kind", "servers"}


@pytest.mark.parametrize(
    ("scopes", "keys"),
    [
        ((), set()),
        (("list:users",), set()),
        (("read:users:name",), {"kind", "name", "admin", "user_info"}),
        (("read:users:name!user=bob",), set()),
        (("read:users:groups!user=ada",), {"kind", "name", "groups"}),
        (("read:users:activity!group=club",), {"kind", "name", "last_activity"}),
        (("read:users:activity!group=crew",), set()),
        (("read:servers!server=ada/x",), set()),
        (("read:users", "read:servers", "admin:auth_state"), EVERYTHING),
    ],
)
def test_keys_follow_from_scopes(scopes, keys):
    assert shapes.UserView(Scopes(scopes)).keys("ada", ["club"]) == keys


def test_one_server_may_be_shown_alone():
    view = shapes.UserView(Scopes({"read:servers!server=ada/x"}))
    assert view.shows("read:servers", "ada", "x", [])
    assert not view.shows("read:servers", "ada", "", [])


def test_state_of_a_server_is_left_out_unless_given():
    facts = {
        "user": "ada", "name": "", "display_name": "", "last_activity": None, "started": None,
        "pending": None, "ready": False, "stopped": True, "url": "/", "user_options": {},
        "progress_url": "/", "origin": "",
    }  # fmt: skip
    assert "state" not in shapes.server_model(**facts, state=None)
    assert shapes.server_model(**facts, state={})["state"] == {}
    assert shapes.server_model(**facts | {"name": "x"}, state=None)["display_name"] == "x"


def test_scopes_of_a_share_are_narrowed_to_its_server():
    assert shapes.share_scopes(["read:servers", "access:servers"], "ada", "") == [
        "access:servers!server=ada/",
        "read:servers!server=ada/",
    ]


def test_last_page_leads_nowhere():
    page = shapes.page_model([1], offset=2, limit=1, total=3, next_url=None)
    assert page["_pagination"] == {"offset": 2, "limit": 1, "total": 3, "next": None}
    page = shapes.page_model([1], offset=0, limit=1, total=3, next_url="u")
    assert page["_pagination"]["next"] == {"offset": 1, "limit": 1, "url": "u"}


def test_dates_lose_their_zone_at_any_depth_and_nothing_else_does():
    data = {
        "created": "2026-01-01T00:00:00.000000Z",
        "name": "Z",
        "servers": {"": {"started": "2026-01-01T00:00:00.000000Z", "last_activity": None}},
        "items": [{"expires_at": "2026-01-01T00:00:00.000000Z", "url": "/Z"}],
    }
    assert shapes.without_zone(data) == {
        "created": "2026-01-01T00:00:00.000000",
        "name": "Z",
        "servers": {"": {"started": "2026-01-01T00:00:00.000000", "last_activity": None}},
        "items": [{"expires_at": "2026-01-01T00:00:00.000000", "url": "/Z"}],
    }
    assert data["created"].endswith("Z")
