"""What a server that runs as the hub's own user may read and write, where Landlock can hold it.

A server may read the system, the programs and files that the configuration hands it, and read and
write its own home and its own directory for temporary files. The hub's files, other people's homes
and everybody's logs are in none of these. Where a directory that it may read contains some of
them, the directories and files beside them are allowed one by one.

Rules of this file: a list is made of what is on the disk now, and nothing is applied: that is the
launcher's. Which programs there are is read from first lines and settings files, never by running
something.

Threads: any. What many servers have in common is remembered for some seconds, in dictionaries that
are changed by single operations.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import clock
from .landlock import DEVICES, READ, SCOPES_SINCE, WRITE, Rule, abi

#: What every program may read: the system and its settings, and where names are looked up.
_SYSTEM = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/proc", "/sys",
    "/nix", "/gnu", "/snap", "/var/lib/texmf", "/var/cache/fontconfig", "/run/systemd/resolve",
    "/run/resolvconf", "/run/NetworkManager",
)  # fmt: skip
_SHARED_MEMORY = "/dev/shm"
#: What a shell would take for a word, roughly: a command may be one text for a shell.
_WORDS = re.compile(r"""[^\s'"`;|&()<>=:,]+""")
#: More entries than any sensible directory has that hub files lie in.
_MOST_RULES = 4000
#: How long, and how much, is remembered of what servers have in common.
_MEMORY_S = 5.0
_MOST_REMEMBERED = 4096


@dataclass(frozen=True)
class Hidden:
    """What no server may see: ``files`` of the hub, and the directory ``homes`` that holds all
    homes (empty when they have none in common)."""

    files: tuple[str, ...]
    homes: str = ""

    def lies_in(self, path: str) -> bool:
        """Return whether some of it is below the path."""
        return any(_is_below(one, path) for one in (*self.files, self.homes) if one)


def rules(
    *,
    argv: Sequence[str],
    env: Mapping[str, str],
    own: Iterable[str],
    read: Iterable[str],
    write: Iterable[str],
    hidden: Hidden,
) -> list[Rule]:
    """Return what a server may do.

    ``argv`` and ``env``: the command and its environment, whose programs, directories and files it
    may read. ``own``: directories of its own; ``read``, ``write``: what the configuration adds,
    taken as it is. Paths that do not exist are left out.
    """
    found = {path: WRITE for path in _existing([*own, *write])}
    found |= {path: DEVICES for path in _existing(["/dev"])}
    found |= {path: WRITE for path in _existing([_SHARED_MEMORY])}
    for path in _existing(read):
        found.setdefault(path, READ)
    words = [word for text in argv for word in _WORDS.findall(text)]
    path = env.get("PATH", "")
    programs = tuple(_programs(words, path))
    kernels = _kernels(programs, path, env.get("JUPYTER_PATH", ""))
    handed = _existing([*programs, *kernels, *_handed(words), *_handed(_values(env))])
    for one in dict.fromkeys((*_system(), *handed)):
        for part in _without(one, hidden):
            found.setdefault(part, READ)
    return [Rule(path, rights) for path, rights in list(found.items())[:_MOST_RULES]]


def gaps() -> Iterator[str]:
    """Yield what this kernel's Landlock does not hold, as sentences."""
    if abi() < SCOPES_SINCE:
        yield (
            "This kernel's Landlock does not hold back signals (that of Linux 6.12 or newer does): "
            "a server can end other servers and the hub"
        )


def _remembered(function: Callable[..., Iterator[str]]) -> Callable[..., tuple[str, ...]]:
    """Make a function's answers last a few seconds: a class starts the same servers at once."""
    known: dict[tuple[Any, ...], tuple[float, tuple[str, ...]]] = {}

    def answer(*args: Any) -> tuple[str, ...]:
        now = clock.monotonic()
        made, value = known.get(args, (0.0, ()))
        if args not in known or now - made > _MEMORY_S:
            if len(known) >= _MOST_REMEMBERED:
                known.clear()
            value = tuple(function(*args))
            if value:  # what is not there may be there soon
                known[args] = (now, value)
        return value

    return answer


@_remembered
def _system() -> Iterator[str]:
    yield from _existing(_SYSTEM)


def _existing(paths: Iterable[str]) -> Iterator[str]:
    """Yield the real path of each that exists."""
    for path in paths:
        if os.path.isabs(path):
            yield from _real(path)


@_remembered
def _real(path: str) -> Iterator[str]:
    if os.path.exists(path):
        yield os.path.realpath(path)


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _without(path: str, hidden: Hidden) -> Iterator[str]:
    """Yield the path, or where something hidden lies in it the parts of it in which none does."""
    if any(_is_below(path, one) for one in hidden.files) or path == hidden.homes:
        return
    if not hidden.lies_in(path):
        yield path
        return
    try:
        with os.scandir(path) as entries:
            inside = [entry.path for entry in entries if not entry.is_symlink()]
    except OSError:
        return
    for one in sorted(inside):
        yield from _without(one, hidden)


# -- what the configuration hands to a server --------------------------------------------------


def _values(env: Mapping[str, str]) -> Iterator[str]:
    for value in env.values():
        yield from value.split(os.pathsep)


def _handed(words: Iterable[str]) -> Iterator[str]:
    """Yield the directories of the files, and the directories, that words name.

    A file's directory comes with it: a script imports what lies beside it.
    """
    for word in words:
        if len(word) > 1 and os.path.isabs(word):
            yield os.path.dirname(word) if os.path.isfile(word) else word


def _programs(commands: Iterable[str], path: str) -> Iterator[str]:
    """Yield the directories that hold programs: each with its libraries, and its interpreter's."""
    for command in dict.fromkeys(commands):
        yield from _program(command, path)


@_remembered
def _program(command: str, path: str) -> Iterator[str]:
    program = _which(command, path)
    if os.path.isfile(program):
        yield from _prefixes(program)
        interpreter = _interpreter(program)
        if interpreter:
            yield from _prefixes(_which(interpreter, path) or interpreter)


def _which(command: str, path: str) -> str:
    if os.path.isabs(command):
        return command
    for directory in path.split(os.pathsep):
        candidate = os.path.join(directory, command)
        if os.path.isabs(directory) and os.access(candidate, os.X_OK):
            return candidate
    return ""


def _prefixes(program: str) -> Iterator[str]:
    """Yield where a program's own files are: as it is called, and where its links lead.

    That is the directory above its ``bin``; elsewhere the program's own directory.
    """
    link = program
    for _ in range(8):
        directory = os.path.dirname(link)
        prefix = os.path.dirname(directory) if os.path.basename(directory) == "bin" else directory
        yield prefix
        yield from _base_prefix(prefix)
        if not os.path.islink(link):
            break
        link = os.path.normpath(os.path.join(directory, os.readlink(link)))
    real = os.path.dirname(os.path.realpath(program))
    yield os.path.dirname(real) if os.path.basename(real) == "bin" else real


def _base_prefix(prefix: str) -> Iterator[str]:
    """Yield the installation that a virtual environment was made from."""
    try:
        settings = Path(prefix, "pyvenv.cfg").read_text(errors="replace")
    except OSError:
        return
    for line in settings.splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "home":
            yield os.path.dirname(value.strip())


def _interpreter(program: str) -> str:
    """Return what the first line of a script names, or "" for other programs."""
    try:
        with open(program, "rb") as file:
            first = file.readline(1024)
    except OSError:
        return ""
    words = os.fsdecode(first[2:]).split() if first.startswith(b"#!") else []
    if len(words) > 1 and os.path.basename(words[0]) == "env":
        return words[-1]
    return words[0] if words else ""


@_remembered
def _kernels(programs: Sequence[str], path: str, jupyter_path: str) -> Iterator[str]:
    """Yield where the programs of the kernels are that are installed with ``programs``."""
    data = ["/usr/local/share/jupyter", "/usr/share/jupyter"]
    data += [os.path.join(prefix, "share/jupyter") for prefix in programs]
    data += jupyter_path.split(os.pathsep)
    for directory in dict.fromkeys(data):
        for file in Path(directory or "/nowhere", "kernels").glob("*/kernel.json"):
            try:
                command = json.loads(file.read_text())["argv"][0]
            except (OSError, ValueError, LookupError, TypeError):
                continue  # no kernel; Jupyter leaves it out too
            if isinstance(command, str):
                yield from _program(command, path)
