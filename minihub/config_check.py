"""Judging configuration values against the declared options.

Rules of this file: an entry either becomes a value that every class it reaches will take, or a line
that says where it stands, what is wrong, and what would be right. Nothing is configured here:
options are validated on objects that are thrown away.

Threads: the main thread.
Sources: traitlets' ``Config``: the section of a class applies to its subclasses.
"""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

from traitlets import (
    Bool,
    Container,
    Dict,
    Float,
    HasTraits,
    Integer,
    List,
    Set,
    TraitError,
    TraitType,
    Unicode,
)
from traitlets.config import Configurable
from traitlets.config.loader import LazyConfigValue

from minihub import config_unfit, upstream
from minihub.config_values import Entry, describe, is_secret, nearest, show
from minihub.traits import ClassName

#: What :meth:`Check.value` returns for an entry that cannot be used.
WRONG = object()


@functools.cache
def declared(cls: type[Configurable]) -> dict[str, TraitType]:
    """Return the options of a class by name, inherited ones included."""
    return cls.class_traits(config=True)


class Check:
    """Judges entries against the declared options; collects problems and warnings.

    ``found`` and ``told`` are the lists to which it adds them, as complete lines.
    """

    def __init__(
        self,
        classes: Iterable[type[Configurable]],
        entries: Sequence[Entry],
        found: list[str],
        told: list[str],
    ) -> None:
        self.found = found
        self.told = told
        self._entries = entries
        #: Classes by name; a configuration may define one with a name that we have.
        self.by_name: dict[str, list[type[Configurable]]] = {}
        self._reported: set[str] = set()
        for cls in classes:
            self._learn(cls)
        self.in_use: list[type[Configurable]] = []
        self.in_use = self._classes_in_use(entries)

    def known(self) -> list[type[Configurable]]:
        """Return all classes whose options are known."""
        return [cls for group in self.by_name.values() for cls in group]

    def family(self, section: str) -> set[str]:
        """Return the names of the known classes that the section of this name reaches."""
        bases = tuple(self.by_name.get(section, ()))
        return {cls.__name__ for cls in self.known() if issubclass(cls, bases)}

    def trait(self, section: str, option: str) -> TraitType | None:
        """Return the declaration that ``section.option`` means, or None.

        The section of a class also reaches its subclasses, so their options may stand in it as
        long as the subclass is in use.
        """
        bases = tuple(self.by_name.get(section, ()))
        for cls in (*bases, *(used for used in self.in_use if issubclass(used, bases))):
            if option in declared(cls):
                return declared(cls)[option]
        return None

    def value(self, entry: Entry) -> Any:
        """Return the value to use, or WRONG after the problem or warning has been noted."""
        trait = self.trait(entry.section, entry.option)
        if trait is None:
            return self._unknown(entry)
        value = _from_texts(trait, entry.value) if entry.texts else entry.value
        blank = self._blank(trait)
        lazy = value if isinstance(value, LazyConfigValue) else None
        if lazy is not None:
            value = _applied(lazy, _present(blank, trait))
            if value is WRONG:
                return self._problem(entry, f"takes no {_calls(lazy)}; expected {describe(trait)}")
        unfit = config_unfit.problem(trait, value)
        wrong = f"cannot be {unfit}" if unfit else _problem_with(trait, blank, value, entry)
        if wrong:
            return self._problem(entry, wrong, entry.value_where)
        if lazy is not None and _can_be_copied(lazy):
            return lazy
        return self._copyable(entry, value)

    # -- classes -----------------------------------------------------------------------

    def _learn(self, cls: type) -> None:
        for base in cls.__mro__:
            if issubclass(base, Configurable) and not base.__module__.startswith("traitlets."):
                group = self.by_name.setdefault(base.__name__, [])
                if base not in group:
                    group.append(base)

    def _classes_in_use(self, entries: Sequence[Entry]) -> list[type[Configurable]]:
        """Return the classes that the class options choose; learn those given by the entries."""
        chosen: dict[str, list[type]] = {}
        for cls in self.known():
            for name, trait in declared(cls).items():
                if isinstance(trait, ClassName):
                    chosen[name] = self.by_name.get(trait.default_name.rpartition(".")[2], [])
        for entry in entries:
            trait = self.trait(entry.section, entry.option)
            if isinstance(trait, ClassName):
                try:
                    cls = trait.validate(None, entry.value[-1] if entry.texts else entry.value)
                except TraitError:
                    continue  # told when the entry itself is judged
                self._learn(cls)
                chosen[entry.option] = [cls]
        return [
            *self.by_name.get("JupyterHub", ()),
            *(cls for classes in chosen.values() for cls in classes),
        ]

    def _blank(self, trait: TraitType) -> HasTraits:
        """Return an object with the option ``trait``, not initialised, to validate against."""
        owner = trait.this_class
        cls = next((used for used in self.in_use if issubclass(used, owner)), owner)
        blank = cls.__new__(cls)
        if trait.name in blank._trait_validators:
            self._fill(blank, trait)
        return blank

    def _fill(self, blank: HasTraits, judged: TraitType) -> None:
        """Give an object the other options it will have: a validator may look at them."""
        sections = {base.__name__ for base in type(blank).__mro__}
        for entry in self._entries:
            trait = declared(type(blank)).get(entry.option)
            if trait is None or trait.name == judged.name or entry.section not in sections:
                continue
            value = _from_texts(trait, entry.value) if entry.texts else entry.value
            try:
                blank._trait_values[trait.name] = _validated(trait, blank, value)
            except Exception:  # told when the entry itself is judged
                continue

    # -- what is not understood --------------------------------------------------------

    def _unknown(self, entry: Entry) -> Any:
        section, option = entry.section, entry.option
        if not section:
            return self._without_class(entry)
        for name in dict.fromkeys((section, *self._bases(section))):
            reason = upstream.why_not(name, option)
            if reason:
                return self._problem(entry, reason)
        if section not in self.by_name:
            if section in self._reported:
                return WRONG
            self._reported.add(section)
            return self._note(entry, section, "unknown class", nearest(section, self.by_name))
        owners = [
            cls.__name__ for cls in self.known() if option in cls.class_own_traits(config=True)
        ]
        if owners:
            return self._note(
                entry, entry.name, f"unknown option; {owners[0]} has one of this name"
            )
        mine = [name for cls in self.by_name[section] for name in declared(cls)]
        near = nearest(option, mine)
        if near and entry.where.startswith("--"):
            near = f"--{section}.{near}"
        return self._note(entry, entry.name, "unknown option", near)

    def _without_class(self, entry: Entry) -> Any:
        name = entry.option
        if name in self.by_name:
            return self._note(entry, name, 'options are expected here, each as "name: value"')
        for cls in (*self.in_use, *self.known()):
            if name in declared(cls):
                what = f"an option without its class; it belongs to {cls.__name__}"
                return self._note(entry, name, what)
        return self._note(entry, name, "unknown class", nearest(name, self.by_name))

    def _bases(self, section: str) -> list[str]:
        return [base.__name__ for cls in self.by_name.get(section, ()) for base in cls.__mro__]

    def _note(self, entry: Entry, name: str, what: str, near: str = "") -> Any:
        """Note something that is a warning in a Python file and an error elsewhere."""
        if near:
            what += f'. Did you mean "{near}"?'
        (self.told if entry.lenient else self.found).append(_line(entry.where, name, what))
        return WRONG

    def _problem(self, entry: Entry, what: str, where: str = "") -> Any:
        self.found.append(_line(where or entry.where, entry.name, what))
        return WRONG

    def _copyable(self, entry: Entry, value: Any) -> Any:
        """Return ``value`` so that traitlets can copy it, as it does for every object it fills."""
        if _can_be_copied(value):
            return value
        if isinstance(value, list):
            return _List(value)
        if isinstance(value, dict):
            return _Dict(value)
        return self._problem(entry, "the value cannot be copied")


def _can_be_copied(value: Any) -> bool:
    try:
        copy.deepcopy(value)
    except Exception:  # whatever a foreign object raises when it is copied
        return False
    return True


def _line(where: str, name: str, what: str) -> str:
    return f"{where}: {what}" if where == f"--{name}" else f"{where}  {name}: {what}"


class _List(list):
    """A list whose items are shared by its copies, since they cannot be copied."""

    def __deepcopy__(self, memo: Any) -> _List:
        return type(self)(self)


class _Dict(dict):
    """A dict whose values are shared by its copies, since they cannot be copied."""

    def __deepcopy__(self, memo: Any) -> _Dict:
        return type(self)(self)


def _from_texts(trait: TraitType, texts: list[str]) -> Any:
    """Return the value that command line texts mean; unchanged where they mean none.

    Lists, sets and dicts take all texts (``key=value`` for dicts), other options the last.
    """
    try:
        if isinstance(trait, (Container, Dict)):
            with warnings.catch_warnings():
                # A literal such as "['a']" works, and traitlets would rather have it repeated.
                warnings.simplefilter("ignore", DeprecationWarning)
                return trait.from_string_list(texts)
        return trait.from_string(texts[-1])
    except Exception:  # traitlets raises whatever the conversion raised
        return texts if isinstance(trait, Container) else texts[-1]


def _present(blank: HasTraits, trait: TraitType) -> Any:
    """Return the default of an option, which may need a finished object to be known."""
    try:
        return getattr(blank, trait.name)
    except Exception:  # a dynamic default that uses what __init__ would have set
        return trait.default()


def _applied(lazy: LazyConfigValue, initial: Any) -> Any:
    """Return what ``append``, ``update`` … make of ``initial``; leaves ``lazy`` unused."""
    asked = lazy.to_dict()
    adds_items = {"extend", "prepend", "inserts"} & set(asked)
    fits = (list if adds_items else (dict, set)) if asked else object
    if isinstance(asked.get("update"), dict):
        fits = dict
    if not isinstance(initial, fits):
        return WRONG
    value = lazy.get_value(initial)
    lazy._value = None  # it remembers its first result, for whichever class asked first
    return value


def _calls(lazy: LazyConfigValue) -> str:
    names = {"extend": "append() or extend()", "prepend": "prepend()", "inserts": "insert()"}
    return ", ".join(names.get(key, "update() or add()") for key in lazy.to_dict())


def _validated(trait: TraitType, obj: HasTraits, value: Any) -> Any:
    """Return the value that an option takes for this one; a type that takes anything judges none.

    Raises TraitError, or whatever a foreign type raises.
    """
    validate = getattr(trait, "validate", None)
    return value if validate is None else validate(obj, value)


def _problem_with(trait: TraitType, obj: HasTraits, value: Any, entry: Entry) -> str:
    """Return what is wrong with ``value``, or an empty text."""
    shown = show(entry.name, value)
    expected = describe(trait)
    if value is None and not trait.allow_none:
        return f"{shown} is not right; expected {expected}. For the default, leave the option out"
    # To Python a truth value is a number, to a person it is not.
    is_number = isinstance(trait, (Integer, Float)) and not isinstance(trait, Bool)
    if not (is_number and isinstance(value, bool)):
        try:
            checked = value if value is None else _validated(trait, obj, value)
        except Exception as error:  # foreign types may raise anything, not TraitError alone
            if isinstance(trait, ClassName):
                return f"{error}{_nearest_class(trait, value)}"
        else:
            return _cross_problem_with(trait, obj, checked, shown)
    hint = ""
    if isinstance(trait, Unicode) and isinstance(value, (bool, int, float)) and not entry.lenient:
        hint = "; put it in quotes"
    elif entry.texts and isinstance(trait, Dict):
        hint = ", given as key=value"
    else:
        hint = _wrong_part(trait, obj, value, entry.name)
    return f"{shown} is not right; expected {expected}{hint}"


def _wrong_part(trait: TraitType, obj: HasTraits, value: Any, name: str) -> str:
    """Return which item of a list, or key or value of a mapping, is wrong; secrets not shown."""
    parts: list[tuple[str, Any, TraitType | None]] = []
    if isinstance(trait, Dict) and isinstance(value, dict):
        for key, inner in value.items():
            label = "a key" if is_secret(name) else f"the key {show('', key)}"
            parts.append((label, key, trait._key_trait))
            parts.append((f"the value of {label}", inner, trait._value_trait))
    elif isinstance(trait, (List, Set)) and isinstance(value, (list, tuple, set)):
        parts = [(f"item {number}", item, trait._trait) for number, item in enumerate(value, 1)]
    for label, part, kind in parts:
        try:
            if kind is not None:
                kind._validate(obj, part)
        except Exception:  # foreign types may raise anything, not TraitError alone
            wants_quotes = isinstance(kind, Unicode) and isinstance(part, (bool, int, float, date))
            return f"; look at {label}" + (", which needs quotes" if wants_quotes else "")
    return ""


def _nearest_class(trait: ClassName, value: Any) -> str:
    if not isinstance(value, str) or upstream.why_not_class_name(value):
        return ""
    dotted = "." in value
    near = nearest(value, (name for name in trait.names if ("." in name) == dotted))
    return f'. Did you mean "{near}"?' if near else ""


def _cross_problem_with(trait: TraitType, obj: HasTraits, value: Any, shown: str) -> str:
    """Return what the ``@validate`` method of the option finds, or an empty text."""
    try:
        trait._cross_validate(obj, value)
    except TraitError as error:
        return f"{shown}: {error}"
    except Exception:  # the method needs a finished object; that one will tell
        return ""
    return ""
