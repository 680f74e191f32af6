"""What groups and choices make of a spawner."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
from traitlets import Dict, Float, HasTraits, Int, List, TraitError, Unicode

from minihub import overrides
from minihub.errors import SpawnError


class Options(HasTraits):
    environment = Dict()
    cpu = Float(1.0)
    port = Int(0, max=9)
    image = Unicode("plain")
    args = List(Unicode())
    log = logging.getLogger("minihub.test")

    def __init__(self, *groups):
        super().__init__()
        self.user = SimpleNamespace(name="ada", groups=[SimpleNamespace(name=g) for g in groups])

    def run_function(self, what, fn, *args):
        return fn(*args)


def entry(groups, **options):
    return {"groups": groups, "spawner_override": options}


# -- groups --------------------------------------------------------------------------------


def test_entries_of_my_groups_apply_in_the_order_of_their_keys():
    spawner = Options("a", "c")
    spawner.environment = {"keep": "1", "drop": "2", "deep": {"x": 1, "y": 2}}
    overrides.apply_groups(
        spawner,
        {
            "2": entry(["c"], image="second", environment={"deep": {"y": 3, "x": None}}),
            "1": entry(["a", "b"], image="first", environment={"drop": None, "new": "3"}),
            "0": entry(["b"], cpu=9.0),
        },
    )
    assert spawner.image == "second" and spawner.cpu == 1.0
    assert spawner.environment == {"keep": "1", "new": "3", "deep": {"y": 3}}


def test_values_may_be_functions_of_the_spawner():
    spawner = Options("a")
    overrides.apply_groups(spawner, {"1": entry(["a"], image=lambda one: one.user.name)})
    assert spawner.image == "ada"


@pytest.mark.parametrize("options", [{"no_such": 1}, {"port": 10}, {"port": "x"}])
def test_what_cannot_be_set_names_its_entry(options):
    with pytest.raises(SpawnError, match=r'Spawner.group_overrides\["1"\]'):
        overrides.apply_groups(Options("a"), {"1": entry(["a"], **options)})


@pytest.mark.parametrize(
    "wrong",
    [{"1": []}, {"1": {"groups": []}}, {"1": entry("a")}, {"1": {**entry(["a"]), "more": 1}}],
)
def test_malformed_entries_are_refused(wrong):
    with pytest.raises(TraitError, match='"1"'):
        overrides.check_groups(wrong)


# -- choices -------------------------------------------------------------------------------


def test_choices_set_what_they_may_and_become_what_the_option_takes(caplog):
    spawner = Options()
    names = {"processors": "cpu", "picture": "image"}
    overrides.apply_choices(spawner, names, {"processors": "2.5", "picture": "x", "port": "5"})
    assert (spawner.cpu, spawner.image, spawner.port) == (2.5, "x", 0)
    assert "The option port of ada means nothing" in caplog.text


@pytest.mark.parametrize("value", ["many", [1], {"a": 1}, None])
def test_impossible_choice_is_refused_with_400(value):
    with pytest.raises(overrides.InvalidOptions, match="processors cannot be") as found:
        overrides.apply_choices(Options(), {"processors": "cpu"}, {"processors": value})
    assert found.value.status == 400


def test_what_a_user_wrote_cannot_forge_a_line(caplog):
    overrides.apply_choices(Options(), {}, {"a\nERROR forged": 1})
    assert "\n" not in caplog.records[0].getMessage()


# -- forms ---------------------------------------------------------------------------------


class Form(HasTraits):
    reader = overrides.FormReader(default_value="passthrough")


def test_form_readers_by_name_and_by_function():
    form = Form()
    fields = {"a": ["1"], "b": ["1", "2"], "c": ["on"]}
    form.reader = "simple"
    assert form.reader(fields) == {"a": "1", "b": ["1", "2"], "c": True}
    form.reader = "passthrough"
    assert form.reader(fields) == fields
    form.reader = lambda data, spawner: spawner
    assert form.reader(fields) is form
    with pytest.raises(TraitError):
        form.reader = "other"
