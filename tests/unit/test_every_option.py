"""What holds for every option of every class: wrong values are told, examples are right."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
import yaml
from traitlets import Bool

from minihub import cli, config, config_render
from minihub.config_check import Check
from minihub.config_values import Entry, static_default, type_name, unit
from minihub.errors import ConfigError
from minihub.hookinfo import UserInfo
from minihub.local import SimpleLocalProcessSpawner
from minihub.options import COMMAND_LINE_ONLY

CLASSES = cli._classes()
OPTIONS = [
    (cls.__name__, name, trait)
    for cls, traits in config_render.groups(CLASSES)
    for name, trait in traits.items()
]


def named(options):
    return [pytest.param(*one, id=f"{one[0]}.{one[1]}") for one in options]


NAMED = named(OPTIONS)
OF_FILES = named(one for one in OPTIONS if f"{one[0]}.{one[1]}" not in COMMAND_LINE_ONLY)
WITH_EXAMPLE = named(one for one in OPTIONS if "example" in one[2].metadata)

#: Values of every kind a file can hold; nearly every option takes one or two of these kinds.
VALUES: tuple[Any, ...] = (
    "no such value",
    -7.5,
    True,
    None,
    [-7.5],
    {"key": [-7.5]},
    date(2020, 1, 2),
)
#: Numbers that are a count of nothing.
NO_UNIT = {"command_umask", "poll_jitter"}


@pytest.mark.parametrize("section, name, trait", OF_FILES)
def test_values_of_a_wrong_kind_are_told_with_place_and_option(section, name, trait, tmp_path):
    file = tmp_path / "minihub.yaml"
    refused = []
    for value in VALUES:
        file.write_text(yaml.safe_dump({section: {name: value}}, default_flow_style=True))
        try:
            config.load(CLASSES, environ={}, directory=tmp_path)
        except ConfigError as error:
            told = [line for line in error.problems if f"{section}.{name}: " in line]
            assert told == error.problems and told[0].startswith("minihub.yaml:1:"), error.problems
            refused.append(value)
    assert len(refused) >= 4, f"only {refused} is refused"
    assert date(2020, 1, 2) in refused


@pytest.mark.parametrize("value, meant", [("on", "on"), ("off", "off"), ("auto", "auto")])
def test_switches_need_no_quotes_in_yaml(tmp_path, value, meant):
    text = f"LocalProcessSpawner: {{warm: {value}}}\nSpawner: {{sandbox: {value}}}\n"
    (tmp_path / "minihub.yaml").write_text(text + "JupyterHub: {spawner_class: simple}\n")
    loaded = config.load(CLASSES, environ={}, directory=tmp_path)
    spawner = SimpleLocalProcessSpawner(user=UserInfo("ada"), hub=None, config=loaded.config)
    assert (spawner.warm, spawner.sandbox) == (meant, meant)


@pytest.mark.parametrize("section, name, trait", WITH_EXAMPLE)
def test_example_is_a_value_the_option_takes(section, name, trait):
    entries = [
        Entry(section, name, trait.metadata["example"], "here"),
        Entry("Authenticator", "manage_groups", True, "here"),  # some need it
    ]
    found: list[str] = []
    Check(CLASSES, entries, found, []).value(entries[0])
    if (section, name) == ("CryptKeeper", "keys"):  # a key that everybody can read is none
        assert "a new one: openssl rand -hex 32" in found[0]
    else:
        assert found == []


@pytest.mark.parametrize("section, name, trait", NAMED)
def test_row_of_the_reference_says_everything(section, name, trait):
    row = config_render._row(section, name, trait)
    cells = [cell.strip() for cell in row.replace("\\|", "").strip("| ").split(" | ")]
    assert len(cells) == 6 and all(cells[:3]) and all(cells[4:])
    if type_name(trait) in ("Int", "Float") and not name.endswith("port") and name not in NO_UNIT:
        assert unit(trait), "say in its tag what it counts"
    example, default = cells[5], static_default(trait)
    if default in (None, "", b"", [], {}, set()) or isinstance(trait, Bool):
        assert example != f"`{name}: {config_render.yaml_value(default)}`"
