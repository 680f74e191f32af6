"""What changes a spawner before one start: the user's groups, and what the user chose.

Rules of this file: it sets attributes of one spawner, from the configuration and within what the
configuration allows. What a group or a choice would set wrongly fails that one start, in words.

Threads: as for the spawner.
Sources: JupyterHub 6's Spawner: group_overrides, apply_user_options, options_from_form.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable as CallableType
from collections.abc import Mapping
from typing import Any

from traitlets import Enum, TraitError, Union

from . import startwords
from .errors import SpawnError
from .logs import safe
from .texts import Text
from .traits import Callable


class InvalidOptions(SpawnError):
    """Raised when what a user chose for a server cannot be."""

    status = 400


# -- groups --------------------------------------------------------------------------------


def check_groups(value: Any) -> None:
    """Raise TraitError unless ``value`` is what ``Spawner.group_overrides`` takes, as a dict."""
    for key, entry in value.items():
        if not isinstance(entry, Mapping) or set(entry) != {"groups", "spawner_override"}:
            raise TraitError(f'"{key}" needs "groups" and "spawner_override", and nothing else')
        if isinstance(entry["groups"], str) or not isinstance(entry["spawner_override"], Mapping):
            raise TraitError(f'"{key}": groups is a list of names, spawner_override a dictionary')


def apply_groups(spawner: Any, overrides: Mapping[str, Any]) -> None:
    """Set what ``overrides`` say for the groups of the spawner's user, in the order of their keys.

    Raises SpawnError naming the entry.
    """
    mine = {group.name for group in spawner.user.groups}
    for key in sorted(overrides):
        entry = overrides[key]
        if mine.isdisjoint(entry["groups"]):
            continue
        for name, value in entry["spawner_override"].items():
            what = f'Spawner.group_overrides["{key}"]'
            if callable(value):
                value = spawner.run_function(f"{what}, {name}", value, spawner)
            if not spawner.has_trait(name):
                raise _wrong(what, f"there is no option {name}")
            present = getattr(spawner, name)
            if isinstance(present, dict) and isinstance(value, Mapping):
                value = _updated(present, value)
            try:
                setattr(spawner, name, value)
            except TraitError as error:
                raise _wrong(what, str(error)) from error


def _wrong(what: str, why: str) -> SpawnError:
    return startwords.misconfigured(f"{what}: {why}")


def _updated(present: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``present`` with ``changes`` laid over it, at every depth; None takes a key out."""
    result = dict(present)
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = _updated(result[key], value)
        else:
            result[key] = value
    return result


# -- choices of the user -------------------------------------------------------------------


def _simple_options(form: Mapping[str, list[Any]]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for key, values in form.items():
        value = values[0] if len(values) == 1 else values
        options[key] = True if value == "on" else value
    return options


FORM_READERS: dict[str, CallableType[..., Any]] = {"passthrough": dict, "simple": _simple_options}


class FormReader(Union):
    """A function that makes user_options of form fields, or the name of one of ours."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__([Enum(list(FORM_READERS)), Callable()], **kwargs)

    def validate(self, obj: Any, value: Any) -> CallableType[..., Any]:
        """Return the function, to be called with the fields alone."""
        value = super().validate(obj, value)
        if isinstance(value, str):
            return FORM_READERS[value]
        try:
            wants_spawner = "spawner" in inspect.signature(value).parameters
        except (TypeError, ValueError):  # a type built in, such as dict
            wants_spawner = False
        return functools.partial(value, spawner=obj) if wants_spawner else value


def apply_choices(spawner: Any, names: Mapping[str, str], choices: Mapping[str, Any]) -> None:
    """Set the attributes that ``names`` maps the keys of ``choices`` to.

    Texts, as forms send them, become what the option takes. Raises InvalidOptions.
    """
    for key, value in choices.items():
        name = names.get(key)
        if name is None:
            spawner.log.warning(
                "The option %s of %s means nothing to Spawner.apply_user_options",
                safe(key, 60),
                spawner.user.name,
            )
            continue
        trait = spawner.traits().get(name)
        try:
            if trait is not None and isinstance(value, str):
                value = trait.from_string(value)
            setattr(spawner, name, value)
        except Exception as error:  # a trait's conversion raises what it likes
            shown = safe(value, 60)
            told = Text("%(name)s cannot be %(value)s.", name=safe(key, 60), value=repr(shown))
            raise InvalidOptions(told) from error
