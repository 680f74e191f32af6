"""What stands in the way of a server's process, as sentences that its user can read.

Rules of this file: facts in, errors with a :class:`~minihub.texts.Text` out; it looks at nothing
and starts nothing.

Threads: any.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from typing import Any

from . import runtime
from .errors import ProxyError, SpawnError, StoreError
from .texts import Text

#: What installs the default server program.
INSTALL_LINE = runtime.install_line("jupyterhub", "jupyterlab")

#: What a server says before it ends, and what helps.
HINTS = (
    (
        "--allow-root",
        Text(
            "The hub runs as root, so this server would too, and Jupyter refuses that. Run the hub "
            'as another user, or add "--allow-root" to Spawner.args.'
        ),
    ),
    (
        "No space left on device",
        Text("The disk is full. Delete what is not needed, or ask whoever runs this hub."),
    ),
    (
        "Disk quota exceeded",
        Text("The disk is full. Delete what is not needed, or ask whoever runs this hub."),
    ),
    (
        "MemoryError",
        Text("It ran out of memory. Stop servers that are not needed, or raise Spawner.mem_limit."),
    ),
    (
        "No module named",
        Text("Something that the server needs is not installed: %(line)s", line=INSTALL_LINE),
    ),
    ("already in use", Text("Another program took the port just now. Start the server again.")),
    (
        "command not found",
        Text("The server's program was not found. Install it: %(line)s", line=INSTALL_LINE),
    ),
)

ADD_USER = Text(
    "Add the user to the system, or let all servers run as the hub's own user "
    "(SimpleLocalProcessSpawner), JupyterHub.spawner_class: simple."
)
RUN_AS_ROOT = Text(
    "Run the hub as root, or let all servers run as the hub's own user "
    "(SimpleLocalProcessSpawner), JupyterHub.spawner_class: simple."
)


class CommandNotFound(SpawnError):
    """Raised when the program to start does not exist; the reason names it."""


def misconfigured(problem: object) -> SpawnError:
    """Return the error of a start that an option makes impossible; ``problem`` names the option."""
    told = problem if isinstance(problem, Text) else str(problem)
    return SpawnError(Text("The hub is configured wrongly: %(problem)s.", problem=told))


def not_started(why: str) -> SpawnError:
    return SpawnError(Text("The server could not be started: %(why)s", why=why))


def unusable_address(error: ValueError) -> SpawnError:
    return SpawnError(Text("The server's address cannot be used: %(why)s.", why=error))


def unusable(error: StoreError | ProxyError) -> SpawnError:
    """Return the error of a start that the hub's own parts made impossible."""
    if isinstance(error, StoreError):
        return SpawnError(Text("the hub cannot use its database at the moment"))
    return SpawnError(Text("the hub's proxy does not answer at the moment"))


def no_process(error: OSError) -> SpawnError:
    return SpawnError(Text("No process can be started: %(why)s.", why=error.strerror))


def no_directory(path: object, error: OSError) -> SpawnError:
    return SpawnError(
        Text("The directory %(path)s cannot be made: %(why)s.", path=path, why=error.strerror)
    )


def no_log(path: object, error: OSError) -> SpawnError:
    return SpawnError(
        Text("The log %(path)s cannot be opened: %(why)s.", path=path, why=error.strerror)
    )


def silent(program: str, timeout_s: float) -> Text:
    """Return what is told of a program whose files do not answer."""
    return Text(
        "The program %(program)s was not started within %(time)s s: its files or its directory do "
        "not respond.",
        program=program,
        time=f"{timeout_s:g}",
    )


def unstoppable(names: str) -> Text:
    return Text("Could not be stopped, not even by SIGKILL: %(names)s.", names=names)


def one_text(program: str) -> str:
    """Return what to do about a program that is a whole command line, or ""."""
    words = program.split()
    if len(words) < 2:
        return ""
    return Text("A command with arguments is a list of words: %(words)s", words=json.dumps(words))


def launch_error(answer: Mapping[str, Any], user: str, env: Mapping[str, str]) -> SpawnError:
    """Put a launcher's failure into words."""
    path = os.fsdecode(answer["path"].encode("latin-1"))
    step, why = answer["step"], answer["text"]
    if step == "execute" and answer["errno"] == errno.ENOENT:
        hint = one_text(path)
        if "/" in path:
            return CommandNotFound(
                Text("The program %(path)s was not found.", path=path), hint=hint
            )
        searched = env.get("PATH", os.defpath)
        return CommandNotFound(
            Text(
                "The program %(path)s was not found in any directory of PATH (%(searched)s).",
                path=path,
                searched=searched,
            ),
            hint=hint,
        )
    facts = {
        "path": path,
        "why": why,
        "whose": Text(" as the user %(name)s", name=user) if user else "",
    }
    if step in ("execute", "become_user") and answer["errno"] == errno.EAGAIN:
        told = Text("Too many processes run%(whose)s already: %(why)s.", **facts)
    elif step == "execute":
        told = Text("The program %(path)s cannot be run%(whose)s: %(why)s.", **facts)
    elif step == "enter_directory":
        told = Text("The directory %(path)s cannot be entered%(whose)s: %(why)s.", **facts)
    elif step == "become_user":
        told = Text("The hub cannot start a process%(whose)s (%(path)s): %(why)s.", **facts)
    elif step == "set_limits":
        told = Text("The limit %(path)s cannot be set: %(why)s.", **facts)
    elif step == "join_group":
        told = Text("The control group %(path)s cannot be joined: %(why)s.", **facts)
    elif step in ("enter_sandbox", "refuse_limits"):
        told = Text("The server cannot be kept from other files (%(path)s): %(why)s.", **facts)
    else:
        told = Text("The launcher failed (%(step)s): %(why)s.", step=step, why=why)
    return SpawnError(told)
