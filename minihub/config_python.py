"""Reading ``jupyterhub_config.py``: the file is run, and what it sets on ``c`` is collected.

Rules of this file: each assignment is remembered with the line that made it. Whatever goes wrong
in the file becomes one line with file and line number. The file's directory and the working
directory are not put on ``sys.path``.

Threads: the main thread, before any other exists.
Sources: traitlets' Python configuration files: ``c``, ``get_config()``, ``load_subconfig()``.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

from traitlets.config import Config, Configurable
from traitlets.config.loader import LazyConfigValue

from minihub.config_values import Entry

#: The module as which a configuration file is run; classes it defines belong to it.
MODULE = "minihub_configuration"


class _Run:
    """The state of one run: the files involved and the place of each assignment."""

    def __init__(self) -> None:
        #: Names of code files and how messages call them.
        self.labels: dict[str, str] = {}
        self.places: dict[tuple[str, str], str] = {}
        self.warnings: list[str] = []

    def here(self) -> str:
        """Return ``file:line`` of the line of a configuration file that is being run."""
        frame = sys._getframe(1)
        while frame is not None:
            label = self.labels.get(frame.f_code.co_filename)
            if label is not None:
                return f"{label}:{frame.f_lineno}"
            frame = frame.f_back
        return next(iter(self.labels.values()))


class _Recording(Config):
    """A Config that remembers where its values were set; ``c`` of a configuration file."""

    # Config turns attributes into keys, except those that begin with two underscores.
    def __init__(self, run: _Run, section: str = "") -> None:
        dict.__setattr__(self, "_run", run)
        dict.__setattr__(self, "_section", section)
        super().__init__()

    def __getitem__(self, key: str) -> Any:
        if dict.__contains__(self, key):
            value = dict.__getitem__(self, key)
        elif key and key[0].isupper():
            inner = f"{self._section}.{key}".lstrip(".")
            value = _Recording(self._run, inner)
            dict.__setitem__(self, key, value)
        else:
            value = super().__getitem__(key)
        if isinstance(value, LazyConfigValue):
            self._run.places[self._section, key] = self._run.here()
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self._run.places[self._section, key] = self._run.here()

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set each item as an assignment would."""
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def copy(self) -> Config:
        """Return the content as an ordinary Config."""
        return Config(self)

    def __deepcopy__(self, memo: Any) -> Config:
        return Config(self).__deepcopy__(memo)


def read(path: Path, label: str) -> tuple[list[Entry], list[str], list[str], list[type]]:
    """Run a file; return its entries, problems, warnings and the Configurables it defines.

    ``label`` is the file's name in messages. Raises OSError when the file cannot be read.
    """
    run = _Run()
    config = _Recording(run)
    module = types.ModuleType(MODULE)
    sys.modules[MODULE] = module
    namespace = module.__dict__

    def load_subconfig(name: str, path: str | None = None) -> None:
        outer = namespace["__file__"]
        other = Path(path or Path(outer).parent, name)
        try:
            problem = _execute(other, other.name, run, namespace)
        except FileNotFoundError:
            # As traitlets does: a sub-configuration may be absent.
            run.warnings.append(f"{run.here()}  load_subconfig: there is no file {other}")
            return
        finally:
            namespace["__file__"] = outer
        if problem:
            raise _SubconfigFailed(problem)

    namespace.update(c=config, get_config=lambda: config, load_subconfig=load_subconfig)
    problem = _execute(path, label, run, namespace)
    if problem:
        return [], [problem], run.warnings, []
    defined = [
        value
        for value in namespace.values()
        if isinstance(value, type)
        and issubclass(value, Configurable)
        and value.__module__ == MODULE
    ]
    return _entries(config, run, label), [], run.warnings, defined


class _SubconfigFailed(Exception):
    """Raised to end the outer file when an inner one failed; its text is the whole problem."""


def _execute(path: Path, label: str, run: _Run, namespace: dict[str, Any]) -> str | None:
    """Run one file in ``namespace``; return what went wrong, or None. Raises OSError."""
    path = path.absolute()
    source = path.read_bytes()
    run.labels[str(path)] = label
    namespace["__file__"] = str(path)
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), namespace)
    except _SubconfigFailed as error:
        return str(error)
    except SyntaxError as error:
        if error.filename != str(path):
            return _told(error, label, run)
        column = f":{error.offset}" if error.offset else ""
        return f"{label}:{error.lineno}{column}  {error.msg}"
    except SystemExit as error:
        return f"{_line(error.__traceback__, label, run)}  the file ends the program (SystemExit)"
    except Exception as error:
        return _told(error, label, run)
    return None


def _told(error: Exception, label: str, run: _Run) -> str:
    what = " ".join(str(error).split())
    return f"{_line(error.__traceback__, label, run)}  {type(error).__name__}: {what}".rstrip(": ")


def _line(traceback: types.TracebackType | None, label: str, run: _Run) -> str:
    """Return the innermost line of a configuration file in ``traceback``."""
    place = label
    while traceback is not None:
        found = run.labels.get(traceback.tb_frame.f_code.co_filename)
        if found is not None:
            place = f"{found}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return place


def _entries(config: Config, run: _Run, label: str) -> list[Entry]:
    entries = []
    for section, content in config.items():
        place = run.places.get(("", section), label)
        if not isinstance(content, Config):
            # ``c.port = 8000``: no class. An empty lazy value is only what reading left behind.
            if not isinstance(content, LazyConfigValue) or content.to_dict():
                entries.append(Entry("", section, content, place, lenient=True))
            continue
        for option, value in content.items():
            if isinstance(value, LazyConfigValue) and not value.to_dict():
                continue
            where = run.places.get((section, option), place)
            entries.append(Entry(section, option, value, where, lenient=True))
    return entries
