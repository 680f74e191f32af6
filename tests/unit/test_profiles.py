"""Profiles: which are sound, and what is said of those that are not."""

from __future__ import annotations

from pathlib import Path

import pytest
from traitlets import TraitError
from traitlets.config import Config

from minihub import profiles
from minihub.spawner import HubInfo, Spawner, UserInfo


def make(given):
    place = Path("/nowhere")
    config = Config({"Spawner": {"profiles": given}})
    hub = HubInfo(api_url="http://127.0.0.1:8081/hub/api", state_dir=place)
    return Spawner(user=UserInfo("ana"), hub=hub, config=config)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([{"mem_limit": "1G"}], "profile 1 has no name"),
        ([{"name": "A", "memory": "1G"}], "unknown key 'memory'"),
        ([{"name": "A", "mem_limit": "much"}], 'profile "A", mem_limit'),
        ([{"name": "A"}, {"name": "a"}], "two profiles have the key 'a'"),
    ],
)
def test_profile_that_is_not_sound_is_refused_by_name(given, said):
    with pytest.raises(TraitError, match=said):
        make(given)


def test_one_profile_is_taken_without_a_question():
    spawner = make([{"name": "Only", "default_url": "/tree"}])
    assert spawner.get_options_form() == ""
    spawner.take_user_options()
    assert spawner.default_url == "/tree"


def test_last_choice_is_offered_again():
    spawner = make([{"name": "A"}, {"name": "B"}])
    spawner.user_options = {"profile": ["b"]}
    assert 'value="b" checked' in spawner.get_options_form()


def test_key_is_made_of_the_name():
    assert profiles.key_of({"name": "Größe: XL!"}) == "gr-e-xl"
    assert profiles.key_of({"name": "日本"}) == "profile"
    assert profiles.key_of({"name": "A", "key": "b"}) == "b"
