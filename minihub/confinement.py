"""What a server that runs as the hub's own user may read and write, where Landlock can hold it.

A server may read the system, the programs and files that the configuration hands it, and read and
write its own home and its own directory for temporary files. The hub's files, other people's homes
and everybody's logs are in none of these. Where a directory that it may read contains some of
them, the directories and files beside them are allowed one by one.

Rules of this file: a list is made of what is on the disk now, and nothing is applied: that is the
launcher's. Which programs there are is read from first lines and settings files, never by running
something. What servers can write is theirs, so its links lead nowhere and its files are not read.

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
from .landlock import DEVICES, READ, SCOPES_SINCE, SOCKETS_SINCE, WRITE, Rule, abi

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
#: What the kernel's table of sockets marks one with that waits for connections.
_LISTENS = 0x10000
#: So many sockets are named to people.
_MOST_NAMED = 3
#: How many links a way may have.
_MOST_LINKS = 40
#: Variables whose values look like paths and are URLs.
_URLS = frozenset(
    f"JUPYTERHUB_{name}"
    for name in ("BASE_URL", "SERVICE_PREFIX", "OAUTH_CALLBACK_URL", "DEFAULT_URL")
)
#: How long, and how much, is remembered of what servers have in common.
_MEMORY_S = 5.0
_MOST_REMEMBERED = 4096


@dataclass(frozen=True)
class Hidden:
    """What no server may see: ``files`` of the hub with whatever else begins with their names
    (journals, copies, older parts), and the directory ``homes`` that holds all homes (empty when
    they have none in common)."""

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
    taken as it is. Paths that do not exist are left out, and those that lead through a link in a
    place where servers write: whoever put it there could name anything.
    """
    found = {path: WRITE for path in _existing(own)}
    loose = _outermost(one for one in (*found, *hidden.files, hidden.homes) if one)
    for path in sorted(write, key=len):
        if not _is_led_away(path, loose):
            found |= {one: WRITE for one in _existing([path])}
            loose = _outermost([*loose, *found])
    found |= {path: DEVICES for path in _existing(["/dev"])}
    found |= {path: WRITE for path in _existing([_SHARED_MEMORY])}
    for path in _existing(one for one in read if not _is_led_away(one, loose)):
        found.setdefault(path, READ)
    words = [word for text in argv for word in _WORDS.findall(text)]
    path = env.get("PATH", "")
    programs = tuple(_programs(words, path, loose))
    kernels = _kernels(programs, path, env.get("JUPYTER_PATH", ""), loose)
    given = [
        one for one in (*_handed(words), *_handed(_values(env))) if not _is_led_away(one, loose)
    ]
    handed = _existing([*programs, *kernels, *given])
    for one in dict.fromkeys((*_system(), *handed)):
        for part in _without(one, hidden):
            found.setdefault(part, READ)
    return [Rule(path, rights) for path, rights in list(found.items())[:_MOST_RULES]]


def gaps(hidden: Hidden) -> Iterator[str]:
    """Yield what this kernel's Landlock does not hold, as sentences."""
    if abi() < SCOPES_SINCE:
        yield (
            "This kernel's Landlock does not hold back signals (that of Linux 6.12 or newer does): "
            "a server can end other servers and the hub"
        )
    sockets = [] if abi() >= SOCKETS_SINCE else sorted(private_sockets())
    homes = hidden.homes and hidden.homes.rstrip("/") + "/"
    sockets = [one for one in sockets if not one.startswith((*hidden.files, homes or "\0"))]
    if sockets:
        shown = ", ".join(sockets[:_MOST_NAMED])
        yield (
            "This kernel's Landlock does not hold back Unix sockets (that of Linux 7.1 or newer "
            "does): a server can have programs outside its sandbox work for it that answer this "
            f"user ({shown}). Run the hub as a user of its own that nobody logs in as"
        )


def private_sockets(table: str = "/proc/net/unix") -> Iterator[str]:
    """Yield the sockets that listen somewhere on the disk and answer this user but not everybody.

    Such as those of a desktop, of the user's service manager, of Docker. To root all answer, and
    no sandbox keeps anything from it.
    """
    me = os.geteuid()
    try:
        lines = Path(table).read_text(errors="surrogateescape").split("\n")[1:] if me else []
    except OSError:
        return
    for line in lines:
        fields = line.split(maxsplit=7)
        try:
            if len(fields) < 8 or not int(fields[3], 16) & _LISTENS or fields[7][0] != "/":
                continue
            info = os.stat(fields[7])
        except (OSError, ValueError):  # a name may hold anything, ends of lines too
            continue
        if info.st_uid != me and (info.st_mode & 0o002 or not os.access(fields[7], os.W_OK)):
            continue
        yield fields[7]


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


def _outermost(paths: Iterable[str]) -> tuple[str, ...]:
    """Return the paths that lie in none of the others; the same for many servers as a rule."""
    kept: list[str] = []
    for path in sorted(set(paths), key=len):
        if not any(_is_below(path, one) for one in kept):
            kept.append(path)
    return tuple(sorted(kept))


def _is_led_away(path: str, loose: Sequence[str]) -> bool:
    """Return whether the way to a path goes through a link that lies in a ``loose`` place."""
    todo, at, links = path.split("/")[::-1], "/", 0
    while todo:
        part = todo.pop()
        if part in ("", "."):
            continue
        at = os.path.dirname(at) if part == ".." else os.path.join(at, part)
        try:
            target = os.readlink(at)
        except OSError:
            continue  # no link, or nothing at all
        links += 1
        if links > _MOST_LINKS or any(_is_below(at, one) for one in loose):
            return True
        todo += target.split("/")[::-1]
        at = "/" if target.startswith("/") else os.path.dirname(at)
    return False


def _is_loose(file: str, loose: Sequence[str]) -> bool:
    """Return whether somebody's server may have written a file, or a link on the way to it."""
    real = os.path.realpath(file)
    return any(_is_below(real, one) for one in loose) or _is_led_away(file, loose)


def _without(path: str, hidden: Hidden) -> Iterator[str]:
    """Yield the path, or where something hidden lies in it the parts of it in which none does."""
    if path.startswith(hidden.files) or path == hidden.homes:
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
    for name, value in env.items():
        if name not in _URLS:
            yield from value.split(os.pathsep)


def _handed(words: Iterable[str]) -> Iterator[str]:
    """Yield the directories of the files, and the directories, that words name.

    A file's directory comes with it: a script imports what lies beside it.
    """
    for word in words:
        if len(word) > 1 and os.path.isabs(word):
            yield os.path.dirname(word) if os.path.isfile(word) else word


def _programs(commands: Iterable[str], path: str, loose: Sequence[str]) -> Iterator[str]:
    """Yield the directories that hold programs: each with its libraries, and its interpreter's."""
    for command in dict.fromkeys(commands):
        program = _which(command, path)
        if not _is_loose(program, loose):
            yield from (one for one in _program(command, path) if not _is_led_away(one, loose))


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
def _kernels(
    programs: Sequence[str], path: str, jupyter_path: str, loose: Sequence[str]
) -> Iterator[str]:
    """Yield where the programs of the kernels are that are installed with ``programs``."""
    data = ["/usr/local/share/jupyter", "/usr/share/jupyter"]
    data += [os.path.join(prefix, "share/jupyter") for prefix in programs]
    data += jupyter_path.split(os.pathsep)
    for directory in dict.fromkeys(data):
        for file in Path(directory or "/nowhere", "kernels").glob("*/kernel.json"):
            if _is_loose(str(file), loose):
                continue
            try:
                command = json.loads(file.read_text())["argv"][0]
            except (OSError, ValueError, LookupError, TypeError):
                continue  # no kernel; Jupyter leaves it out too
            if isinstance(command, str):
                yield from _programs([command], path, loose)
