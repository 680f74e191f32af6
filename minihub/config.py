"""The configuration: found, read, checked as a whole, merged into one ``Config``.

Rules of this file: default < environment < file < command line. Every problem is found before
anything is reported, and reported with its place. In YAML and on the command line whatever is not
understood is an error; in a Python file an unknown option or class is a warning, since such files
are shared with other programs.

Threads: the main thread, before any other exists. The result is read by all and changed by none.
Sources: traitlets' ``Config``: the section of a class applies to its subclasses.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from traitlets import TraitError
from traitlets.config import Config, Configurable
from traitlets.config.loader import LazyConfigValue

from minihub import config_python, config_yaml, options, standins, upstream
from minihub.config_check import WRONG, Check
from minihub.config_urls import with_parts
from minihub.config_values import Entry
from minihub.errors import ConfigError

YAML_FILE = "minihub.yaml"
PYTHON_FILE = "jupyterhub_config.py"
YAML_SUFFIXES = (".yaml", ".yml")
#: How a problem begins that names the option it is about.
_OPTION = re.compile(r"(\w+)\.(\w+)\b")


@dataclass(frozen=True)
class Loaded:
    """A configuration that was found right.

    ``origins`` maps ``Class.option`` to the place that set it (``minihub.yaml:3:3``, ``--port``,
    ``environment JPY_COOKIE_SECRET``); what is not in it has its default. ``warnings`` are complete
    lines. ``file`` is None when there was none. ``classes`` are all whose options were known.
    """

    config: Config
    origins: dict[str, str]
    warnings: list[str]
    file: Path | None
    classes: tuple[type[Configurable], ...]

    def placed(self, problem: str) -> str:
        """Return a problem that begins with an option, found at the start, with the option's place.

        One with a place, or about an option that is not given, comes back as it is.
        """
        found = _OPTION.match(problem)
        if found is None:
            return problem
        section, option = found.groups()
        for cls in self.classes:
            if section in cls.section_names() or cls.__name__ in _bases(section, self.classes):
                for name in reversed(cls.section_names()):
                    if place := self.origins.get(f"{name}.{option}"):
                        return f"{place}  {problem}"
        return problem


def _bases(section: str, classes: Iterable[type[Configurable]]) -> list[str]:
    return [name for cls in classes if cls.__name__ == section for name in cls.section_names()]


def load(
    classes: Sequence[type[Configurable]],
    *,
    arguments: Sequence[Entry] = (),
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
    strict: bool = False,
) -> Loaded:
    """Return the configuration of the file, the environment and the command line.

    ``classes`` are those whose options may be given, :class:`~minihub.options.JupyterHub` among
    them; classes that the configuration defines or refers to come on top. ``arguments`` are the
    command line's, one entry for each occurrence; ``JupyterHub.config_file`` among them names the
    file, otherwise ``minihub.yaml`` or else ``jupyterhub_config.py`` of ``directory`` is read if
    there is one. With ``strict``, a Python file is judged as YAML is.

    Raises ConfigError with every problem found.
    """
    found: list[str] = []
    with standins.installed():
        loaded = _load(classes, arguments, environ, directory or Path.cwd(), strict, found)
    if found:
        raise ConfigError(found)
    return loaded


def salvage(
    classes: Sequence[type[Configurable]], *, arguments: Sequence[Entry] = ()
) -> tuple[Loaded, list[str]]:
    """Return what of a configuration can be used, and every problem found; for :mod:`doctor`.

    As :func:`load`, but what is wrong is left out, up to the whole file, and nothing is raised.
    """
    found: list[str] = []
    with standins.installed():
        return _load(classes, arguments, None, Path.cwd(), False, found, goes_on=True), found


def _load(
    classes: Sequence[type[Configurable]],
    arguments: Sequence[Entry],
    environ: Mapping[str, str] | None,
    directory: Path,
    strict: bool,
    found: list[str],
    *,
    goes_on: bool = False,
) -> Loaded:
    """Return the configuration without what is in ``found`` afterwards.

    With ``goes_on`` a file that cannot be read is a problem among others, else it raises.
    """
    told: list[str] = []
    entries: list[Entry] = []
    defined: list[type[Configurable]] = []
    path, label = None, ""
    try:
        path, label = _find(arguments, directory)
        if path is not None:
            entries, defined = _read(path, label, found, told)
    except ConfigError as error:
        if not goes_on:
            raise
        found += error.problems
    if strict:
        entries = [replace(entry, lenient=False) for entry in entries]
    entries = _from_environment(os.environ if environ is None else environ) + with_parts(entries)
    entries += with_parts(_joined(arguments))
    entries = [_renamed(entry, told) for entry in entries]

    check = Check([*classes, *defined], entries, found, told)
    merged = _Merged(check)
    for entry in entries:
        value = check.value(entry)
        if value is not WRONG:
            merged.add(entry, value)
    if path is not None and "JupyterHub.config_file" not in merged.origins:
        merged.set("JupyterHub", "config_file", label, "found in the working directory")
    if goes_on or not found:
        _apply_rules(merged, found, told)
    told += _uncalled(check.in_use, path, label)
    return Loaded(merged.config, merged.origins, told, path, tuple(check.known()))


# -- finding and reading ---------------------------------------------------------------------


def _find(arguments: Iterable[Entry], directory: Path) -> tuple[Path | None, str]:
    """Return the file to read and its name in messages. Raises ConfigError when it is not there."""
    named = [entry for entry in arguments if entry.name == "JupyterHub.config_file"]
    if not named:
        for name in (YAML_FILE, PYTHON_FILE):
            if os.path.lexists(directory / name):
                return _a_file(directory / name, name), name
        return None, ""
    name = named[-1].value[-1]
    if not name:
        raise ConfigError(f"{named[-1].where}: the name of a configuration file is empty")
    path = _a_file(directory / name, name)
    if path.suffix.lower() not in (*YAML_SUFFIXES, ".py"):
        raise ConfigError(f"{name}: the name of a configuration file ends in .yaml, .yml or .py")
    return path, name


def _a_file(path: Path, label: str) -> Path:
    """Return ``path`` if an ordinary file is there. Raises ConfigError saying what is instead.

    What only looks like the default file is an error too: nobody means to be without the
    configuration that is, say, on a disk not mounted.
    """
    try:
        mode = path.stat().st_mode
    except ValueError as error:
        raise ConfigError(f"{label!r}: no name of a file: {error}") from error
    except OSError as error:
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise ConfigError(f"{label}: cannot be read: {error.strerror}") from error
        kind = "a link that leads nowhere" if path.is_symlink() else "there is no such file"
        raise ConfigError(f"{label}: {kind}") from error
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "no ordinary file"
        raise ConfigError(f"{label}: is {kind}")
    return path


def _read(
    path: Path, label: str, found: list[str], told: list[str]
) -> tuple[list[Entry], list[type[Configurable]]]:
    """Return a file's entries and the classes it defines."""
    defined: list[type[Configurable]] = []
    try:
        if path.suffix.lower() == ".py":
            entries, wrong, notes, defined = config_python.read(path, label)
            told += notes
        else:
            entries, wrong = config_yaml.read(path, label)
    except OSError as error:
        raise ConfigError(f"{label}: cannot be read: {error.strerror}") from error
    found += wrong
    kept = []
    for entry in entries:
        if entry.name in options.COMMAND_LINE_ONLY:
            told.append(f"{entry.where}  {entry.name}: only works on the command line")
        else:
            kept.append(entry)
    return kept, defined


def _from_environment(environ: Mapping[str, str]) -> list[Entry]:
    entries = []
    for variable, name in options.ENVIRONMENT.items():
        if environ.get(variable):
            section, option = name.split(".")
            place = f"environment {variable}"
            entries.append(Entry(section, option, [environ[variable]], place, texts=True))
    return entries


def _joined(arguments: Sequence[Entry]) -> list[Entry]:
    """Return one entry for each option, with the texts of all its occurrences in order."""
    by_name: dict[str, Entry] = {}
    for entry in arguments:
        earlier = by_name.pop(entry.name, None)
        texts = [*(earlier.value if earlier else ()), *entry.value]
        by_name[entry.name] = replace(entry, value=texts)
    return list(by_name.values())


def _renamed(entry: Entry, told: list[str]) -> Entry:
    if entry.section != "JupyterHubApp":
        return entry
    told.append(f"{entry.where}  JupyterHubApp is the old name of JupyterHub; use JupyterHub")
    return replace(entry, section="JupyterHub")


def _uncalled(classes: Iterable[type], path: Path | None, label: str) -> Iterable[str]:
    """Yield a line for each method of a class in use that only JupyterHub would call."""
    for cls in classes:
        for owner, name, why in upstream.uncalled_methods(cls):
            code = getattr(vars(owner)[name], "__code__", None)
            place = owner.__module__
            if code is not None and path is not None and code.co_filename == str(path.absolute()):
                place = f"{label}:{code.co_firstlineno}"
            yield f"{place}  {owner.__name__}.{name}: this hub never calls it: {why}"


# -- merging ---------------------------------------------------------------------------------


class _Merged:
    """The configuration under construction, later entries over earlier ones."""

    def __init__(self, check: Check) -> None:
        self.config = Config()
        self.origins: dict[str, str] = {}
        self.check = check
        self._from_file: set[str] = set()

    def add(self, entry: Entry, value: Any) -> None:
        """Set one option.

        traitlets would let a file's section of a subclass win over the command line's option of
        its base; here it yields.
        """
        if entry.texts:
            for section in self.check.family(entry.section):
                if f"{section}.{entry.option}" in self._from_file:
                    self.remove(section, entry.option)
        else:
            self._from_file.add(entry.name)
        self.set(entry.section, entry.option, value, entry.where)

    def set(self, section: str, option: str, value: Any, origin: str) -> None:
        """Set one option, whatever was there."""
        self.config[section][option] = value
        self.origins[f"{section}.{option}"] = origin

    def remove(self, section: str, option: str) -> None:
        """Forget an option that was set."""
        del self.config[section][option]
        del self.origins[f"{section}.{option}"]
        self._from_file.discard(f"{section}.{option}")

    def given(self, section: str, option: str) -> list[tuple[str, Any]]:
        """Return ``(section, value)`` wherever an option is set, for a class or a subclass."""
        return [
            (name, self.config[name][option])
            for name in sorted(self.check.family(section))
            if f"{name}.{option}" in self.origins
        ]


def _apply_rules(merged: _Merged, found: list[str], told: list[str]) -> None:
    """Check the rules between options; tell of deprecated ones and hand their values on."""
    try:
        hub = options.JupyterHub(config=merged.config)
    except TraitError as error:
        found.append(str(error))
        return
    origins = {
        name: place
        for section in ("Application", "JupyterHub")
        for name in hub.trait_names(config=True)
        if (place := merged.origins.get(f"{section}.{name}"))
    }
    for names, what in options.problems(hub):
        place = next((origins[name] for name in names if name in origins), "default")
        found.append(f"{place}  JupyterHub.{names[0]}: {what}")
    for name, what in options.remarks(hub):
        told.append(f"{origins.get(name, 'default')}  JupyterHub.{name}: {what}")
    for name in origins:
        successor = hub.trait_metadata(name, "deprecated_for")
        if successor is not None:
            use = f"use {successor}" if successor else "it does nothing"
            told.append(f"{origins[name]}  JupyterHub.{name} is deprecated: {use}")
    for source, target, value in _handed_on(hub, origins):
        _hand_on(merged, target, value, origins.get(source, f"JupyterHub.{source}"))


def _handed_on(
    hub: options.JupyterHub, origins: Mapping[str, str]
) -> Iterable[tuple[str, str, Any]]:
    """Yield ``(option of JupyterHub, option of another class, value)`` for what moved there."""
    for source, target in options.MOVED.items():
        if source in origins:
            yield source, target, getattr(hub, source)
    if hub.proxy_api_ip or hub.proxy_api_port:
        source = "proxy_api_port" if hub.proxy_api_port else "proxy_api_ip"
        port = hub.proxy_api_port or hub.port + 1
        url = f"http://{hub.proxy_api_ip or '127.0.0.1'}:{port}"
        yield source, "ConfigurableHTTPProxy.api_url", url
    yield (
        "proxy_check_interval",
        "ConfigurableHTTPProxy.check_running_interval",
        hub.proxy_check_interval,
    )


def _hand_on(merged: _Merged, target: str, value: Any, origin: str) -> None:
    """Set ``target`` unless it is given; a set that is given but empty does not count."""
    section, option = target.split(".")
    given = merged.given(section, option)
    for _name, there in given:
        if not isinstance(value, set) or isinstance(there, LazyConfigValue) or there:
            return
    for name, _there in given:
        merged.remove(name, option)
    if section in merged.check.by_name:
        merged.set(section, option, value, origin)
