"""Becomes a server inside a forked copy of the warm parent, as if the command had been executed.

The parent (:mod:`minihub.warmparent`) has imported what the command imports and forks; the copy
takes a description from a socket of its own, which the parent never reads, so that nothing of one
user is ever in the memory another user's server is forked from. It then makes itself what the
description asks for and runs the command's file.

Rules of this file: the standard library only, Python 3.8 and newer, and nothing of minihub to
import: it runs in the interpreter of the users' environment, from source that the hub hands over.
What the launcher does before it executes a command is done here by the launcher's own steps, in
the same order, before any code of the user's runs. The description is the launcher's
(:mod:`minihub.launcher`), and so are the answers.

Threads: one; forking with more is refused by the parent.
Sources: prctl(2), PR_SET_MM_MAP and PR_SET_NAME; CPython's initialisation of signals.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import sys
import types
from typing import Any

PR_SET_NAME = 15
PR_SET_MM = 35
PR_SET_MM_MAP = 14
#: The longest name of a process that the kernel keeps.
NAME_BYTES = 15

_libc = ctypes.CDLL(None, use_errno=True)
_libc.sbrk.restype = ctypes.c_void_p
#: Memory that /proc shows as command line and environment; it lives as long as the process.
_shown: list = []
#: Variables that this interpreter sets when it starts, such as LC_CTYPE in the C locale.
interpreters_own: dict = {}
#: How a copy becomes a user where its parent is not root (:mod:`minihub.warmrights`); else None.
become_user: Any = None


def prepare(conn: int, output: int) -> None:
    """Leave the parent: a session of its own, no descriptor but ``conn``, the log and no input."""
    signal.set_wakeup_fd(-1)
    os.setsid()
    empty = os.open(os.devnull, os.O_RDWR)
    for source, target in ((empty, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        if number > 2 and number != conn:
            try:
                os.close(number)
            except OSError:
                pass  # the one that listed this directory


def become(spec: dict, launcher: Any, stale: Any) -> None:
    """Do the launcher's steps, and what an execution would have done besides.

    Raises the launcher's StepFailed, or whatever went wrong.
    """
    for step in launcher.STEPS:
        if become_user is not None and step is launcher.become_user:
            step = become_user
        step(spec)
    reset_interpreter()
    set_environment(spec)
    stale.renew()


def reset_interpreter() -> None:
    """Give signals the meanings that Python gives them when it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in ("SIGPIPE", "SIGXFSZ", "SIGXFZ"):
        number = getattr(signal, name, None)
        if number is not None:
            signal.signal(number, signal.SIG_IGN)


def set_environment(spec: dict) -> None:
    """Make the environment what the description says, for Python and for the C library."""
    env = {key.encode("latin-1"): value.encode("latin-1") for key, value in spec["env"].items()}
    os.environb.clear()
    os.environb.update({**env, **{k: v for k, v in interpreters_own.items() if k not in env}})


def set_command_line(spec: dict, command: list) -> None:
    """Let Python's ``sys`` and, where the kernel allows it, ``/proc`` show the command.

    ``command`` is interpreter, its flags and the command's file, as the kernel would execute it.
    """
    args = [text.encode("latin-1") for text in spec["argv"][1:]]
    words = [os.fsencode(word) for word in command] + args
    sys.argv[:] = [command[-1]] + [os.fsdecode(word) for word in args]
    if hasattr(sys, "orig_argv"):
        sys.orig_argv[:] = [os.fsdecode(word) for word in words]
    name = os.path.basename(os.fsencode(command[-1]))[:NAME_BYTES]
    _libc.prctl(PR_SET_NAME, name, 0, 0, 0)
    env = [
        key.encode("latin-1") + b"=" + value.encode("latin-1") for key, value in spec["env"].items()
    ]
    _show(b"".join(word + b"\0" for word in words), b"".join(word + b"\0" for word in env))


def _show(command_line: bytes, environment: bytes) -> bool:
    """Point /proc/PID/cmdline and environ at other memory; return whether that was possible.

    Programs that look at processes see the server and its marker then. Where it is not possible,
    the process is known by id and creation time, and its descendants by the marker they inherit.
    """
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()

    def field(number: int) -> int:  # as proc(5) counts them
        return int(fields[number - 3])

    memory = ctypes.create_string_buffer(command_line + environment)
    begin = ctypes.addressof(memory)
    middle = begin + len(command_line)
    brk = _libc.sbrk(0)
    layout = struct.pack(
        "12QIi",
        *(field(number) for number in (26, 27, 45, 46, 47)),
        brk,
        field(28),
        begin,
        middle,
        middle,
        middle + len(environment),
        0,  # no new auxiliary vector
        0,
        -1,  # no new program
    )
    _shown.append(memory)
    size = ctypes.c_ulong(len(layout))
    return _libc.prctl(PR_SET_MM, PR_SET_MM_MAP, layout, size, ctypes.c_ulong(0)) == 0


def run(script: str) -> None:
    """Run the command's file as ``__main__``; whatever it raises goes on, SystemExit included."""
    with open(script, "rb") as file:
        code = compile(file.read(), script, "exec", dont_inherit=True)
    main = types.ModuleType("__main__")
    from importlib.machinery import SourceFileLoader

    if sys.version_info < (3, 14):
        main.__dict__["__annotations__"] = {}
    main.__dict__.update(
        __loader__=SourceFileLoader("__main__", script),
        __builtins__=sys.modules["builtins"],
        __file__=script,
        __cached__=None,
    )
    sys.modules["__main__"] = main
    exec(code, main.__dict__)
