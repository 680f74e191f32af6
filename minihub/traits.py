"""Kinds of option values that traitlets does not have: URL prefixes, commands, sizes, classes.

Rules of this file: a trait type says what it accepts (``info``), turns every accepted spelling
into one form (``validate``) and reads the same value from a command line (``from_string``). A
refused value raises TraitError. Imports nothing of minihub but pure helpers; classes are named by
text and imported only when their value is asked for.

Threads: any.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Mapping
from typing import Any

from traitlets import Bytes, Enum, Integer, List, TraitError, TraitType, Undefined, Unicode

from minihub import upstream
from minihub.urls import is_address, is_host_name, url_prefix

#: Log levels by name; the numbers are those of :mod:`logging`.
LEVELS = {"NOTSET": 0, "DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}
_LEVEL_NAMES = {**LEVELS, "WARN": 30, "FATAL": 50}

_SEGMENT = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@-]+")
_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([KMGT]?)")


class URLPrefix(Unicode):
    """A path with one slash at each end; missing slashes are added.

    A path that browsers, proxies or cookies would each take for another one is refused.
    """

    type_name = "URLPrefix"
    info_text = "a URL path such as /hub-of-ours/, of letters, digits and - . _ ~ between slashes"

    def validate(self, obj: Any, value: Any) -> str:
        """Return ``value`` with its slashes."""
        prefix = url_prefix(super().validate(obj, value))
        parts = prefix.split("/")[1:-1]
        if not all(_SEGMENT.fullmatch(part) and part not in (".", "..") for part in parts):
            self.error(obj, value)
        return prefix


class Host(Unicode):
    """An IP address or a host name; empty, or a star, where all or none can be meant."""

    type_name = "Unicode"
    info_text = "an IP address or a host name such as 127.0.0.1, ::1 or hub.example.org"

    def validate(self, obj: Any, value: Any) -> str:
        """Return ``value``, an IPv6 address without brackets."""
        host = super().validate(obj, value)
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not (host in ("", "*") or is_address(bare) or (bare == host and is_host_name(host))):
            self.error(obj, value)
        return bare


class HeaderText(Unicode):
    """A text that can stand in an HTTP header as one word."""

    type_name = "Unicode"
    info_text = "a text of ASCII characters without spaces"

    def validate(self, obj: Any, value: Any) -> str:
        """Return ``value`` if it is one word."""
        text = super().validate(obj, value)
        if not all("!" <= sign <= "~" for sign in text):
            self.error(obj, value)
        return text


class Command(List):
    """A command as a list of arguments; one text is taken as the program's name alone."""

    info_text = "a command: a list of words, or the name of one program"

    def __init__(self, default_value: Any = Undefined, **kwargs: Any) -> None:
        if isinstance(default_value, str):
            default_value = [default_value]
        if default_value is None:
            kwargs["allow_none"] = True
        kwargs.setdefault("minlen", 0 if default_value in ([], Undefined) else 1)
        super().__init__(Unicode(), default_value=default_value, **kwargs)

    def info(self) -> str:
        """Return what is accepted, in words."""
        return self.info_text

    def validate(self, obj: Any, value: Any) -> Any:
        """Return ``value`` as a list of texts, the first of them not empty."""
        words = super().validate(obj, [value] if isinstance(value, str) else value)
        if words and not words[0]:
            self.error(obj, value)
        return words


class ByteSpecification(Integer):
    """A size in bytes: a number, or a number followed by K, M, G or T (powers of 1024), or None."""

    info_text = "a size in bytes such as 1073741824, 512M or 1.5G"

    def __init__(self, default_value: Any = None, **kwargs: Any) -> None:
        kwargs.setdefault("allow_none", True)
        super().__init__(default_value, **kwargs)

    def validate(self, obj: Any, value: Any) -> int:
        """Return ``value`` as a whole number of bytes."""
        if isinstance(value, str):
            found = _SIZE.fullmatch(value.strip())
            if found is None:
                self.error(obj, value)
            if len(found[1]) > 30:
                self.error(obj, value)
            return int(float(found[1]) * _UNITS[found[2]])
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.error(obj, value)
        if not math.isfinite(value) or value < 0:
            self.error(obj, value)
        return int(value)

    def from_string(self, s: str) -> Any:
        """Return a size given on a command line; the word None means no size."""
        return None if s == "None" and self.allow_none else self.validate(None, s)


class HexBytes(Bytes):
    """Bytes, given as they are or as hexadecimal digits."""

    type_name = "Bytes"
    info_text = "hexadecimal digits, two for each byte (in Python also bytes)"

    def validate(self, obj: Any, value: Any) -> bytes:
        """Return ``value`` as bytes."""
        if isinstance(value, str):
            try:
                return bytes.fromhex(value)
            except ValueError:
                self.error(obj, value)
        return super().validate(obj, value)

    def from_string(self, s: str) -> bytes:
        """Return the bytes of hexadecimal digits given on a command line."""
        return self.validate(None, s)


class LogLevel(TraitType):
    """A log level by name (any case) or number; kept as the number."""

    type_name = "Enum"
    info_text = "one of DEBUG, INFO, WARNING, ERROR, CRITICAL, or 0, 10, 20, 30, 40, 50"

    def validate(self, obj: Any, value: Any) -> int:
        """Return the number of ``value``."""
        if isinstance(value, str):
            word = value.strip().upper()
            value = _LEVEL_NAMES.get(word, int(word) if word.isdecimal() else value)
        if type(value) is not int or value not in LEVELS.values():
            self.error(obj, value)
        return value

    def from_string(self, s: str) -> int:
        """Return the number of a level given on a command line."""
        return self.validate(None, s)


class AutoOnOff(Enum):
    """One of auto, on and off; YAML reads the last two, without quotes, as truth values."""

    type_name = "Enum"

    def __init__(self, default_value: str = "auto", **kwargs: Any) -> None:
        super().__init__(("auto", "on", "off"), default_value, **kwargs)

    def validate(self, obj: Any, value: Any) -> str:
        """Return ``value`` as a word."""
        if isinstance(value, bool):
            value = "on" if value else "off"
        return super().validate(obj, value)


class Callable(TraitType):
    """Anything that can be called; it can only be given in a Python configuration file."""

    info_text = "a function"

    def validate(self, obj: Any, value: Any) -> Any:
        """Return ``value`` if it can be called."""
        if not callable(value):
            self.error(obj, value)
        return value


class ClassName(TraitType):
    """A class, given as itself, by its dotted name, or by a short name.

    ``default_value`` and ``base`` are dotted names; ``names`` maps short and foreign names to
    dotted ones. Reading the option returns the class, imported then.
    """

    type_name = "Type"

    def __init__(
        self, default_value: str, *, base: str, names: Mapping[str, str], **kwargs: Any
    ) -> None:
        self.base = base
        self.names = dict(names)
        self.default_name = default_value
        super().__init__(default_value, **kwargs)

    def info(self) -> str:
        """Return what is accepted, in words."""
        short = ", ".join(sorted(name for name in self.names if "." not in name))
        return f"{short}, or a dotted name of a class derived from {self.base.rpartition('.')[2]}"

    def default(self, obj: Any = None) -> Any:
        """Return the default class; imports it."""
        return self.validate(obj, self.default_name)

    def validate(self, obj: Any, value: Any) -> type:
        """Return the class that ``value`` names. Raises TraitError saying what is wrong with it."""
        named = value
        if isinstance(value, str):
            ours = self.names.get(value) or self.names.get(value.lower())
            reason = "" if ours else upstream.why_not_class_name(value)
            if reason:
                raise TraitError(reason)
            if not ours and "." not in value:
                raise TraitError(f'"{value}" is no name that is known here; give {self.info()}')
            value = import_class(ours or value)
        if not isinstance(value, type):
            raise TraitError(f"{value!r} is not a class; give {self.info()}")
        base = import_class(self.base)
        if not issubclass(value, base):
            raise TraitError(
                f"{named if isinstance(named, str) else value.__qualname__} "
                f"is not derived from minihub's {base.__name__}; give {self.info()}"
            )
        return value

    def from_string(self, s: str) -> str:
        """Return a name given on a command line as it is."""
        return s


def import_class(dotted: str) -> Any:
    """Return the attribute that ``package.module.Name`` names.

    Raises TraitError naming the part that is missing; an exception while the module is imported
    is told in the same way.
    """
    module_name, _, name = dotted.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # the module is the user's own code
        raise TraitError(f'"{dotted}" cannot be imported: {error}') from error
    try:
        return getattr(module, name)
    except AttributeError:
        raise TraitError(f'"{dotted}" cannot be imported: no {name} in {module_name}') from None
