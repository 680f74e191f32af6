"""Options as text: configuration files to start from, help, reference, and what is in force.

Rules of this file: everything is made from the declarations, in the same order each time, and does
not depend on the machine it is made on. Prose in a generated file begins with ``# ``, an option
with ``#`` alone, so that taking that one character away switches the option on.

Threads: the main thread.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from traitlets import Bool, TraitType
from traitlets.config import Config, Configurable
from traitlets.config.loader import LazyConfigValue

from minihub.config_check import declared
from minihub.config_values import describe, masked, static_default, type_name, unit
from minihub.options import COMMAND_LINE_ONLY, ENVIRONMENT, OURS, JupyterHub
from minihub.options_later import LaterOptions
from minihub.traits import Callable, ClassName

_WIDTH = 96
_NOTHING = object()


def groups(
    classes: Sequence[type[Configurable]],
) -> Iterator[tuple[type[Configurable], dict[str, TraitType]]]:
    """Yield each class with the options to show for it, in alphabetical order.

    JupyterHub is shown with what it inherits, every other class with its own alone.
    """
    for cls in classes:
        if cls is JupyterHub:
            own = declared(cls)
        else:
            own = cls.class_own_traits(config=True)
        if own:
            yield cls, dict(sorted(own.items()))


# -- files to start from ---------------------------------------------------------------------


def yaml_file(classes: Sequence[type[Configurable]]) -> str:
    """Return a complete ``minihub.yaml`` in which every option is commented out."""
    lines = _comment(
        "Configuration of minihub: every option with its default. To set one, take the # before"
        " its name away and change the value. Options are grouped by class; what is set for a"
        " class holds for those derived from it as well. `minihub config check` tells whether a"
        " file is right."
    )
    for cls, traits in groups(classes):
        lines += ["", *_comment(_summary(cls)), f"{cls.__name__}:"]
        for name, trait in traits.items():
            lines += ["", *(f"  {line}" for line in _help(name, trait, _yaml_line))]
            lines.append(f"  #{_yaml_line(name, _value_for_file(trait))}")
    return "\n".join(lines) + "\n"


def python_file(classes: Sequence[type[Configurable]]) -> str:
    """Return a complete ``jupyterhub_config.py`` in which every option is commented out."""
    lines = _comment(
        "Configuration of minihub: every option with its default. To set one, take the # before"
        " it away and change the value. What is set for a class holds for those derived from it"
        " as well."
    )
    lines += ["", "c = get_config()  # noqa: F821"]
    for cls, traits in groups(classes):
        lines += ["", *_comment(f"---- {cls.__name__} " + "-" * 60), *_comment(_summary(cls))]

        def line(name: str, value: Any, section: str = cls.__name__) -> str:
            return f"c.{section}.{name} = {value!r}"

        for name, trait in traits.items():
            lines += ["", *_help(name, trait, line)]
            lines.append(f"#{line(name, _value_for_file(trait))}")
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, _WIDTH - 4)]


def _help(name: str, trait: TraitType, line: Any) -> list[str]:
    """Return the comment that explains an option; ``line(name, value)`` writes its examples."""
    lines = _comment(_help_text(trait))
    if not isinstance(trait, ClassName):  # its help names the classes
        lines += _comment(f"Value: {describe(trait)}.")
    for note in _notes(trait):
        lines += _comment(note)
    example = trait.metadata.get("example", _NOTHING)
    if example is not _NOTHING:
        lines.append(f"# Example: {line(name, example)}")
    return lines


def _yaml_line(name: str, value: Any) -> str:
    return f"{name}: {yaml_value(value)}"


def _value_for_file(trait: TraitType) -> Any:
    """Return the default as it is written in a file; classes by their short names."""
    default = static_default(trait)
    if isinstance(trait, ClassName):
        short = [
            name
            for name, dotted in trait.names.items()
            if dotted == default and "." not in name and name != "default"
        ]
        return short[0] if short else default
    return default


def yaml_value(value: Any) -> str:
    """Return a value on one line of YAML; what YAML cannot hold becomes a text or null."""
    return (
        yaml.safe_dump(
            _plain(value), default_flow_style=True, width=10**6, allow_unicode=True, sort_keys=False
        )
        .removesuffix("\n")
        .removesuffix("\n...")
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {_plain(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (set, frozenset)):
        return [_plain(inner) for inner in sorted(value, key=str)]
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, bytes):
        return value.hex()
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if callable(value):
        return f"<function {getattr(value, '__qualname__', type(value).__name__)}>"
    return f"<{type(value).__name__}>"


# -- words -----------------------------------------------------------------------------------


def _summary(cls: type) -> str:
    """Return the first sentence of a class's docstring."""
    text = " ".join((cls.__doc__ or cls.__name__).split("\n\n")[0].split())
    return text.replace("``", "")


def _help_text(trait: TraitType) -> str:
    return " ".join((trait.help or "").split())


def _notes(trait: TraitType) -> list[str]:
    successor = trait.metadata.get("deprecated_for", trait.metadata.get("successor"))
    if successor:
        return [f"Deprecated: use {successor}."]
    return [] if successor is None else ["Deprecated: does nothing."]


# -- reference -------------------------------------------------------------------------------


def markdown(classes: Sequence[type[Configurable]]) -> str:
    """Return the reference of all options, ``docs/options.md``.

    In a checkout each option comes with the test that proves it.
    """
    proofs = _proofs()
    lines = [
        "# Options",
        "",
        "<!-- Generated from the declarations by `minihub options --markdown`; do not edit. -->",
        "",
        "An option is set in `minihub.yaml` (class, then option), in `jupyterhub_config.py`"
        " (`c.Class.option = value`) or on the command line (`--Class.option=value`). What comes"
        " later in this list wins: default, environment, file, command line. What is set for a"
        " class also holds for the classes derived from it.",
        "",
        "| environment variable | option |",
        "| --- | --- |",
        *(f"| `{variable}` | `{option}` |" for variable, option in ENVIRONMENT.items()),
    ]
    for cls, traits in groups(classes):
        lines += ["", f"## {cls.__name__}", "", _summary(cls)]
        bases = [base.__name__ for base in cls.__mro__[1:] if base in classes]
        if bases:
            lines += ["", f"Options of {', '.join(bases)} hold here too."]
        lines += [
            "",
            "| option | type | default | unit | meaning | example |"
            + (" proof |" if proofs else ""),
            "| --- | --- | --- | --- | --- | --- |" + (" --- |" if proofs else ""),
        ]
        for name, trait in traits.items():
            row = _row(cls.__name__, name, trait)
            proof = proofs.get(f"{cls.__name__}.{name}")
            lines.append(f"{row} {_code(proof) if proof else ''} |" if proofs else row)
    return "\n".join(lines) + "\n"


def overview() -> str:
    """Return the table of the README: the 58 options of the hub, one line each.

    What it says of one is its help's first sentence; the rest is in the reference.
    """
    later = LaterOptions.class_traits(config=True)
    lines = ["| option | default | what it says |", "| --- | --- | --- |"]
    for name, trait in sorted(declared(JupyterHub).items()):
        if name in later or name in OURS:
            continue
        first = _help_text(trait).split(". ")[0].removesuffix(".")
        notes = "".join(
            f" ({note[0].lower()}{note[1:].removesuffix('.')})" for note in _notes(trait)
        )
        default = _code(yaml_value(_value_for_file(trait))).replace("|", "\\|")
        lines.append(f"| `{name}` | {default} | {first}{notes} |")
    return "\n".join(lines) + "\n"


def _proofs() -> dict[str, str]:
    """Return the test of each option (``Class.option``); only a checkout has them."""
    file = Path(__file__).parents[1] / "tests" / "contract" / "test_option_proofs.py"
    if not file.is_file():
        return {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PROOFS":
            return ast.literal_eval(node.value)
    return {}


def _row(section: str, name: str, trait: TraitType) -> str:
    default = static_default(trait)
    if isinstance(trait, ClassName):
        default = default.rpartition(".")[2]
    cells = (
        f"`{name}`",
        type_name(trait),
        _code(yaml_value(default)),
        unit(trait),
        " ".join([_help_text(trait), *_notes(trait)]).replace("<", "&lt;"),
        _code(_example(section, name, trait)),
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _example(section: str, name: str, trait: TraitType) -> str:
    """Return a line that sets an option: the example declared, else what the default is not.

    What a YAML file cannot say is written as in a Python file or on the command line.
    """
    python = "my_function" if isinstance(trait, Callable) else trait.metadata.get("python")
    if python:
        return f"c.{section}.{name} = {python}"
    value = static_default(trait)
    value = trait.metadata.get("example", not value if isinstance(trait, Bool) else value)
    if f"{section}.{name}" in COMMAND_LINE_ONLY:
        return f"--{section}.{name}={yaml_value(value)}"
    return _yaml_line(name, value)


def _code(text: str) -> str:
    return f"`{text}`"


def help_all(classes: Sequence[type[Configurable]]) -> str:
    """Return the help of every option, as ``--help-all`` shows it."""
    lines = ["Options (--Class.option=value, or in a configuration file):"]
    for cls, traits in groups(classes):
        lines += ["", f"{cls.__name__}: {_summary(cls)}"]
        for name, trait in traits.items():
            default = _value_for_file(trait)
            lines.append(f"--{cls.__name__}.{name}=<{type_name(trait)}>")
            body = [_help_text(trait), *_notes(trait), f"Default: {yaml_value(default)}"]
            lines += textwrap.wrap(
                " ".join(body), _WIDTH, initial_indent="    ", subsequent_indent="    "
            )
    return "\n".join(lines) + "\n"


# -- what is in force ------------------------------------------------------------------------


def in_force(
    config: Config,
    origins: dict[str, str],
    classes: Sequence[type[Configurable]],
    *,
    with_origin: bool = False,
) -> str:
    """Return YAML with every option of ``classes`` and its value, secrets masked.

    ``origins`` is that of :class:`minihub.config.Loaded`; with ``with_origin`` each line ends with
    the place that set the option, or ``default``.
    """
    lines = []
    for cls in classes:
        lines.append(f"{cls.__name__}:")
        for name, trait in sorted(declared(cls).items()):
            value, origin = _value_in_force(cls, name, trait, config, origins)
            line = f"  {name}: {yaml_value(masked(name, value))}"
            lines.append(f"{line}  # {origin}" if with_origin else line)
    return "\n".join(lines) + "\n"


def _value_in_force(
    cls: type[Configurable],
    name: str,
    trait: TraitType,
    config: Config,
    origins: dict[str, str],
) -> tuple[Any, str]:
    value, origin = _value_for_file(trait), "default"
    for section in cls.section_names():
        if f"{section}.{name}" in origins:
            given = config[section][name]
            origin = origins[f"{section}.{name}"]
            if isinstance(given, LazyConfigValue):
                value, given._value = given.get_value(value), None
            else:
                value = given
    return value, origin
