"""Opens or closes one PAM session, in a process of its own.

Modules of sessions act on the process that opens the session: they lower its limits, for good where
it may not raise them again, give it the user's login id, mask and name space. The hub must keep its
own, so it starts this small program instead, and learns which limits the user's processes are to
have.

Rules of this file: the standard library only, and nothing of minihub, since it is run as a script
by ``python -I -S``. It reads ``{"function": "pam_open_session", "service": …, "name": …, "limits":
{"RLIMIT_NOFILE": [soft, hard]}}`` from standard input, takes these limits, and answers with one
line on standard output: ``{"failed": function, "problem": text, "limits": {…}}``; ``failed`` is
empty when all went well, and the limits are those that the session has changed. Modules print to
standard error, which is nobody's. Questions are answered with nothing. Texts travel as the Latin-1
reading of their bytes.

Threads: one.
Sources: pam_start(3), pam_conv(3), pam_open_session(3).
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys
from ctypes.util import find_library

PAM_SUCCESS = 0
PAM_CONV_ERR = 19


class Message(ctypes.Structure):
    """``struct pam_message``."""

    _fields_ = [("style", ctypes.c_int), ("text", ctypes.c_char_p)]


#: What PAM calls to ask or tell: number, messages, answers, what was given along.
Conversation = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_int,
    ctypes.POINTER(ctypes.POINTER(Message)),
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.c_void_p,
)


class Conv(ctypes.Structure):
    """``struct pam_conv``."""

    _fields_ = [("function", Conversation), ("data", ctypes.c_void_p)]


def load_library() -> ctypes.CDLL:
    """Return libpam. Raises OSError."""
    try:
        return ctypes.CDLL("libpam.so.0")
    except OSError:  # macOS, musl
        return ctypes.CDLL(find_library("pam") or "libpam.so")


def conversation() -> Conversation:
    """Return what answers each message with nothing."""
    libc = ctypes.CDLL(None)
    libc.calloc.restype = ctypes.c_void_p
    libc.calloc.argtypes = (ctypes.c_size_t, ctypes.c_size_t)

    def answer(count: int, _messages: object, answers: object, _data: object) -> int:
        # An answer is a pointer and a number; PAM frees them.
        memory = libc.calloc(count, 2 * ctypes.sizeof(ctypes.c_void_p))
        if not memory:
            return PAM_CONV_ERR
        answers[0] = memory
        return PAM_SUCCESS

    return Conversation(answer)


def run(function: str, service: bytes, name: bytes) -> tuple[str, str]:
    """Call one function of the library for a user; return what failed and why, or empty texts."""
    pam = load_library()
    pam.pam_strerror.restype = ctypes.c_char_p
    pam.pam_start.argtypes = (
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.POINTER(Conv),
        ctypes.POINTER(ctypes.c_void_p),
    )
    for other in (pam.pam_strerror, pam.pam_end, getattr(pam, function)):
        other.argtypes = (ctypes.c_void_p, ctypes.c_int)
    handle, conv = ctypes.c_void_p(), Conv(conversation(), None)
    code = pam.pam_start(service, name, ctypes.byref(conv), ctypes.byref(handle))
    if code:
        return "pam_start", f"error {code}"
    code = getattr(pam, function)(handle, 0)
    problem = (pam.pam_strerror(handle, code) or b"").decode("utf-8", "replace") if code else ""
    pam.pam_end(handle, code)
    return (function if code else ""), problem


def limits() -> dict[str, tuple[int, int]]:
    """Return the limits of this process by their names."""
    names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    return {name: resource.getrlimit(getattr(resource, name)) for name in names}


def main() -> None:
    wanted = json.load(sys.stdin)
    answers = os.dup(1)
    os.dup2(2, 1)  # what a module prints is no answer
    for limit, pair in wanted["limits"].items():
        resource.setrlimit(getattr(resource, limit), tuple(pair))
    before = limits()
    try:
        failed, problem = run(
            wanted["function"],
            wanted["service"].encode("latin-1"),
            wanted["name"].encode("latin-1"),
        )
    except (OSError, AttributeError) as error:  # no such library, or not that function in it
        failed, problem = "load", str(error)
    changed = {name: now for name, now in limits().items() if now != before[name]}
    changed.pop("RLIMIT_OFILE", None)
    told = json.dumps({"failed": failed, "problem": problem, "limits": changed}).encode()
    while told:  # which may be more than a limit lets one write at once
        told = told[os.write(answers, told) :]


if __name__ == "__main__":
    main()
