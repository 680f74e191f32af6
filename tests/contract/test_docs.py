"""Documents that are made from the declarations are what the declarations say."""

import re
from pathlib import Path

import pytest

from minihub import cli, config_render

ROOT = Path(__file__).resolve().parents[2]
CLASSES = cli._classes()


@pytest.mark.parametrize(
    "name, render, flag",
    [
        ("docs/options.md", config_render.markdown, "--markdown"),
        ("minihub.yaml.example", config_render.yaml_file, "--yaml"),
    ],
)
def test_generated_file_is_current(name, render, flag):
    """Make it anew with ``python -m minihub options FLAG > NAME``."""
    current = (ROOT / name).read_bytes() == render(CLASSES).encode()
    assert current, f"python -m minihub options {flag} > {name}"


@pytest.mark.parametrize(
    "cls, name",
    [(cls, name) for cls, traits in config_render.groups(CLASSES) for name in traits],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_every_option_says_what_it_does(cls, name):
    help_text = cls.class_traits(config=True)[name].help
    assert help_text and help_text.rstrip().endswith((".", ")"))


def test_readme_has_a_line_for_each_option_of_the_hub():
    """Paste what ``python -m minihub options --overview`` says between the two comments."""
    text = (ROOT / "README.md").read_text()
    table = text.split("--overview` -->\n")[1].split("<!-- end of options -->")[0]
    assert table.strip() == config_render.overview().strip()
    assert len(table.strip().splitlines()) == 2 + 58


def test_promises_of_security_have_their_tests():
    text = (ROOT / "SECURITY.md").read_text()
    text = text.split("\n## Promises\n")[1].split("\n## ")[0]
    promised = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(promised) == len(re.findall(r"^\| (?!promise|--)", text, re.M)) > 30
    for file, name in promised:
        assert f"def {name}(" in (ROOT / file).read_text(), f"{file}::{name}"


def test_pictures_of_the_guides_are_small_used_and_there():
    """``MINIHUB_DOCS_IMAGES=1 python3 scripts/test.py tests/browser -k "class or pages"``"""
    shown = {
        (guide.parent / name).resolve()
        for guide in (ROOT / "docs").glob("*.md")
        for name in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", guide.read_text())
    }
    taken = set((ROOT / "docs" / "images").resolve().iterdir())
    assert shown == taken and 5 <= len(taken) <= 10
    for picture in taken:
        assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert picture.stat().st_size < 100_000, picture.name


def test_properties_of_an_attacked_hub_name_files_that_are_there():
    (page,) = (ROOT / "docs" / "decisions").glob("0228-*.md")
    named = re.findall(r"`((?:tests|benchmarks)[\w/.]*)`", page.read_text())
    assert len(named) > 30
    for file in named:
        assert (ROOT / file).exists(), file
