"""One value of a configuration: where it stands, how it is shown, what would be right.

Rules of this file: every text made here may be printed, so secrets are masked and long values cut;
nothing here reads a file. :class:`Entry` is what the readers of files, environment and command
line produce and :mod:`minihub.config` judges.

Threads: any.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from traitlets import (
    Bool,
    Bytes,
    Dict,
    Enum,
    Float,
    Instance,
    Integer,
    List,
    Set,
    TraitType,
    Tuple,
    Unicode,
    Union,
)

from minihub.traits import LEVELS, ByteSpecification, ClassName, LogLevel

MASK = "***"
_SHOWN = 80

_SECRET = re.compile(
    r"secret|token|passw|credential|private_key|(^|_)(api_?)?keys?$", re.IGNORECASE
)
#: Names that only sound secret: a file's name, a switch, a limit.
_OPEN = re.compile(r"_(file|path|command|scopes|expires_in|days)$|^trust_", re.IGNORECASE)
_PATHS = {"ssl_key"}
_URL_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^/\s@]+@")


@dataclass(frozen=True)
class Entry:
    """One option given somewhere.

    ``where`` is the place of its name (``minihub.yaml:3:3``, ``--port``), ``value_where`` that of
    its value. ``lenient`` entries (Python files) may name unknown options. ``texts`` is True while
    the value is the list of texts given on a command line.
    """

    section: str
    option: str
    value: Any
    where: str
    value_where: str = ""
    lenient: bool = False
    texts: bool = False

    @property
    def name(self) -> str:
        """``Class.option``."""
        return f"{self.section}.{self.option}"


# -- showing ---------------------------------------------------------------------------------


def is_secret(name: str) -> bool:
    """Return whether values of an option or key with this name are masked."""
    name = name.rpartition(".")[2]
    return bool(_SECRET.search(name)) and not _OPEN.search(name) and name not in _PATHS


def masked(name: str, value: Any) -> Any:
    """Return ``value`` of the option ``name`` without secrets, also inside dictionaries."""
    if is_secret(name) and value not in (None, "", b"", [], {}, ()) and not _is_plain(value):
        return MASK
    if isinstance(value, dict):
        return {key: masked(str(key), inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return type(value)(masked("", inner) for inner in value) if value else value
    if isinstance(value, str):
        return _URL_PASSWORD.sub(rf"\1{MASK}@", value)
    return value


def show(name: str, value: Any) -> str:
    """Return ``value`` of the option ``name`` on one short line, secrets masked."""
    value = masked(name, value)
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False)
    elif value is None:
        text = "null"
    elif isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, type):
        text = f"the class {value.__qualname__}"
    elif callable(value):
        text = f"the function {getattr(value, '__qualname__', type(value).__name__)}"
    else:
        try:
            text = repr(value)
        except Exception:  # an object of the configuration's own may do anything
            text = f"an object of {type(value).__qualname__}"
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _is_plain(value: Any) -> bool:
    return isinstance(value, (bool, int, float))


# -- saying what is right --------------------------------------------------------------------


def describe(trait: TraitType, *, many: bool = False) -> str:
    """Return in words what values ``trait`` accepts; in the plural if ``many``."""
    text = _describe(trait, many)
    return f"{text} or null" if trait.allow_none and not many and "None" not in text else text


def _describe(trait: TraitType, many: bool) -> str:
    if isinstance(trait, (ClassName, LogLevel, ByteSpecification)):
        return trait.info()
    if isinstance(trait, Union):
        parts = (describe(part, many=many) for part in trait.trait_types)
        return " or ".join(dict.fromkeys(parts))
    if isinstance(trait, Bool):
        return "true or false"
    if isinstance(trait, (Integer, Float)):
        whole = "whole " if isinstance(trait, Integer) else ""
        text = f"{whole}numbers" if many else f"a {whole}number"
        return text + _bounds(trait)
    if type(trait) is Unicode:
        return "texts" if many else "a text"
    if isinstance(trait, Enum):
        return "one of " + ", ".join(str(value) for value in trait.values or ())
    if type(trait) is Tuple and trait._traits:
        parts = [describe(part) for part in trait._traits]
        text = f"{len(parts)} times {parts[0]}" if len(set(parts)) == 1 else ", ".join(parts)
        return f"a list of {text}"
    if type(trait) in (List, Set, Tuple):
        return ("lists" if many else "a list") + _of(getattr(trait, "_trait", None))
    if isinstance(trait, Dict):
        text = "mappings" if many else "a mapping"
        value = getattr(trait, "_value_trait", None)
        return text + (f" of names to {_describe(value, True)}" if value is not None else "")
    if type(trait) is Instance:
        name = trait.klass if isinstance(trait.klass, str) else trait.klass.__name__
        return (
            f"{name} objects (Python file only)" if many else f"a {name} object (Python file only)"
        )
    if type(trait) is Bytes:
        return "bytes (Python file only)"
    return trait.info()


def _bounds(trait: Integer | Float) -> str:
    low, high = trait.min, trait.max
    if low is not None and high is not None and abs(high) != float("inf"):
        return f" from {low:g} to {high:g}"
    if low is not None and abs(low) != float("inf"):
        return f", {low:g} or more"
    if high is not None and abs(high) != float("inf"):
        return f", {high:g} or less"
    return ""


def _of(element: TraitType | None) -> str:
    if element is None or type(element).__name__ == "Any":
        return ""
    return f" of {_describe(element, True)}"


def type_name(trait: TraitType) -> str:
    """Return the type of an option as JupyterHub's reference names it."""
    own = getattr(trait, "type_name", None)
    if own:
        return own
    if isinstance(trait, Union):
        return " or ".join(type_name(part) for part in trait.trait_types)
    return {"Integer": "Int", "CaselessStrEnum": "Enum"}.get(
        type(trait).__name__, type(trait).__name__
    )


def unit(trait: TraitType) -> str:
    """Return the unit of a number: as tagged, or as its kind or its help's first word says."""
    if isinstance(trait, ByteSpecification):
        return "bytes"
    word = (trait.help or "").partition(" ")[0]
    return trait.metadata.get("unit", word.lower() if word in ("Seconds", "Days") else "")


def static_default(trait: TraitType) -> Any:
    """Return the default of an option as declared: a class by name, a level by name."""
    if isinstance(trait, ClassName):
        return trait.default_name
    value = trait.default()
    if isinstance(trait, LogLevel):
        return next(name for name, number in LEVELS.items() if number == value)
    return None if type(value).__name__ == "Sentinel" else value


def nearest(name: str, candidates: Iterable[str]) -> str:
    """Return the candidate most like ``name``, whatever its case, or an empty text."""
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else ""
