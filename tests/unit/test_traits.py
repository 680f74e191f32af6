"""Kinds of option values: what each accepts, refuses, and turns into."""

import pytest
from traitlets import TraitError
from traitlets.config import Configurable

from minihub.traits import (
    AutoOnOff,
    ByteSpecification,
    Callable,
    ClassName,
    Command,
    HeaderText,
    HexBytes,
    Host,
    LogLevel,
    URLPrefix,
)


class Thing(Configurable):
    prefix = URLPrefix("/")
    command = Command(["a", "b"])
    optional_command = Command([])
    no_command = Command(None)
    size = ByteSpecification()
    function = Callable(None, allow_none=True)
    secret = HexBytes(b"")
    host = Host()
    word = HeaderText()
    level = LogLevel(30)
    switch = AutoOnOff()
    error_class = ClassName(
        "minihub.errors.ConfigError",
        base="minihub.errors.MinihubError",
        names={"usage": "minihub.errors.UsageError", "old.Usage": "minihub.errors.UsageError"},
    )


@pytest.mark.parametrize(
    "name, given, kept",
    [
        ("prefix", "lab", "/lab/"),
        ("prefix", "/a/b", "/a/b/"),
        ("prefix", "", "/"),
        ("prefix", "/~ana/a.b-c@x/", "/~ana/a.b-c@x/"),
        ("host", "", ""),
        ("host", "*", "*"),
        ("host", "127.0.0.1", "127.0.0.1"),
        ("host", "[::1]", "::1"),
        ("host", "fe80::1%eth0", "fe80::1%eth0"),
        ("host", "my_hub-1.example.org.", "my_hub-1.example.org."),
        ("word", "!~A-Token", "!~A-Token"),
        ("command", "jupyter-labhub", ["jupyter-labhub"]),
        ("command", ["x", "-y"], ["x", "-y"]),
        ("optional_command", [], []),
        ("no_command", None, None),
        ("size", "2G", 2 * 1024**3),
        ("size", "1.5K", 1536),
        ("size", "512", 512),
        ("size", 7.9, 7),
        ("size", None, None),
        ("function", len, len),
        ("secret", "00ff", b"\x00\xff"),
        ("secret", b"raw", b"raw"),
        ("level", "debug", 10),
        ("level", "10", 10),
        ("level", 40, 40),
        ("switch", "on", "on"),
        ("switch", True, "on"),
        ("switch", False, "off"),
    ],
)
def test_accepted_values_take_one_form(name, given, kept):
    thing = Thing()
    setattr(thing, name, given)
    assert getattr(thing, name) == kept


@pytest.mark.parametrize(
    "name, given",
    [
        ("prefix", 3),
        ("prefix", "/a b/"),
        ("prefix", "/ü/"),
        ("prefix", "/a//b/"),
        ("prefix", "/../"),
        ("prefix", "/%2F/"),
        ("prefix", "/a?b"),
        ("prefix", "http://x/y"),
        ("host", "http://127.0.0.1"),
        ("host", "127.0.0.1:80"),
        ("host", "999.1.1.1"),
        ("host", "１２７.0.0.1"),
        ("host", "no such host"),
        ("host", "ü.example"),
        ("host", "[hub]"),
        ("host", "a" * 64),
        ("host", "-a"),
        ("host", "a..b"),
        ("word", "two words"),
        ("word", "a\nb"),
        ("word", "ü"),
        ("command", ""),
        ("command", ["", "x"]),
        ("size", "9" * 400 + "T"),
        ("command", []),
        ("command", ["x", 3]),
        ("size", "2 gigs"),
        ("size", "G"),
        ("size", True),
        ("size", -1),
        ("size", float("inf")),
        ("function", "len"),
        ("secret", "abc"),
        ("secret", 5),
        ("level", "lots"),
        ("level", 15),
        ("level", True),
        ("switch", "yes"),
        ("switch", 0),
        ("error_class", "nothing"),
        ("error_class", "minihub.nothing.X"),
        ("error_class", "minihub.errors.Nothing"),
        ("error_class", "minihub.errors.Sequence"),
        ("error_class", int),
        ("error_class", 3),
    ],
)
def test_other_values_are_refused(name, given):
    with pytest.raises(TraitError):
        setattr(Thing(), name, given)


@pytest.mark.parametrize("name", ["usage", "USAGE", "old.Usage", "minihub.errors.UsageError"])
def test_class_is_found_by_short_foreign_and_dotted_name(name):
    assert Thing(error_class=name).error_class.__name__ == "UsageError"


def test_class_default_is_imported_when_it_is_read():
    assert Thing().error_class.__name__ == "ConfigError"


def test_class_whose_module_fails_says_why(tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TraitError, match="cannot be imported: division by zero"):
        Thing(error_class="broken_module.X")


@pytest.mark.parametrize(
    "name, text, value",
    [
        ("size", "2K", 2048),
        ("size", "None", None),
        ("secret", "ff", b"\xff"),
        ("level", "INFO", 20),
        ("error_class", "usage", "usage"),
    ],
)
def test_command_line_text_is_read(name, text, value):
    assert Thing().traits()[name].from_string(text) == value
