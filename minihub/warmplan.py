"""What a warm parent is made of: a Python program, and what is the same for everybody who runs it.

Rules of this file: it reads first lines of programs and looks at files; it runs nothing.

Threads: any; nothing is shared.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: Programs that are known to do the same from a warm parent as when they are executed.
KNOWN_PROGRAMS = ("jupyterhub-singleuser", "jupyter-labhub")


class NotWarm(Exception):
    """Raised when a start cannot be warm; says why in a few words."""


@dataclass(frozen=True)
class Command:
    """A Python program as the kernel would execute it: interpreter, its flags, its file."""

    interpreter: str
    flags: tuple[str, ...]
    script: str

    @property
    def argv(self) -> list[str]:
        return [self.interpreter, *self.flags, self.script]


_SHELL_LINE = re.compile(r"""'''exec' ("[^"]+"|[^ "]+)((?: -\S+)*) "\$0" "\$@"$""")


def find_command(program: str, path: str) -> Command:
    """Return the command that ``program`` means on this PATH. Raises NotWarm."""
    script = shutil.which(program, path=path)
    if script is None or not os.path.isabs(script):
        raise NotWarm(f"{program} is no file with an absolute path")
    try:
        with open(script, "rb") as file:
            first, second = (file.readline(4096).rstrip() for _ in range(2))
    except OSError as error:
        raise NotWarm(f"{script} cannot be read: {error.strerror}") from error
    if not first.startswith(b"#!"):
        raise NotWarm(f"{script} is no Python program")
    words = os.fsdecode(first[2:]).split()
    shell = _SHELL_LINE.match(os.fsdecode(second))
    if words == ["/bin/sh"] and shell:  # how pip writes a path that is too long for the kernel
        words = [shell[1].strip('"'), *shell[2].split()]
    elif words[:1] == ["/usr/bin/env"] and len(words) == 2:
        words = [shutil.which(words[1], path=path) or ""]
    if not words or not re.match(r"python[\d.]*$|pypy[\d.]*$", os.path.basename(words[0])):
        raise NotWarm(f"{script} is no Python program")
    if len(words) > 2 or any(word[:1] != "-" for word in words[1:]):
        raise NotWarm(f"the first line of {script} is unusual")
    return Command(words[0], tuple(words[1:]), script)


@dataclass(frozen=True)
class Plan:
    """What a parent is made of. Nothing in it is any user's."""

    command: Command
    #: Arguments of the command that are everybody's, for the throw-away start.
    args: tuple[str, ...] = ()
    #: Variables that are the same for everybody.
    env: Mapping[str, str] = field(default_factory=dict)
    #: Names of variables that each server has a value of its own of.
    own_names: tuple[str, ...] = ()
    #: Modules to import besides those that a start imports.
    preload: tuple[str, ...] = ()
    #: Most memory the parent may use, in bytes.
    mem_limit: int | None = None
    #: Whether its copies become other users: it is not root then, and imports what is root's alone.
    is_guarded: bool = False
    #: Whether somebody asked for it, and is told loudly when it cannot be.
    is_asked_for: bool = False


@dataclass(frozen=True)
class Learned:
    """What a throw-away start of a command, and getting warm, have shown of it; kept as JSON."""

    #: Names in the order of their import.
    modules: Sequence[str]
    #: Regular expressions that a start compiles, each with its flags.
    patterns: Sequence[tuple[str, int]] = ()
    #: Where modules are looked for, and the files that some came from.
    path: Sequence[str] = ()
    files: Sequence[str] = ()
    #: Modules that a parent must not import: each server does that by itself.
    left_out: Sequence[str] = ()


def stand_in(name: str, token: str) -> str:
    """Return a value that cannot be mistaken, in the form that values of this variable have."""
    low = name.lower().replace("_", "-")
    if name == "HOME":
        return f"/{token}/home"
    if name in ("SHELL", "TMPDIR"):
        return f"/{token}/{low}"
    if name.endswith("_PREFIX") or name == "JUPYTERHUB_BASE_URL":
        return f"/{token}/{low}/"
    if name.endswith(("_URL", "_HOST")):
        return f"http://{token}.invalid:1/{low}"
    if name.endswith(("_SCOPES", "_OPTIONS")):
        return json.dumps([f"{token}-{low}"])
    return f"{token}-{low}"


def signature(command: Command) -> list[Any]:
    """Return what changes when the interpreter or the program is replaced."""
    home = os.path.dirname(os.path.dirname(command.interpreter))
    found: list[Any] = list(command.argv)
    for path in (command.script, command.interpreter, os.path.join(home, "pyvenv.cfg")):
        try:
            facts = os.stat(path)
            found.append([path, facts.st_ino, facts.st_size, facts.st_mtime_ns])
        except OSError:
            found.append([path])
    return found
