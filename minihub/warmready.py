"""What a warm parent makes beforehand besides its imports, for each copy to take as its own.

A start does some work that has the same outcome for everybody and takes long: a third of the time
of a warm JupyterLab went into reading the certificates of authorities, which its extension manager
does whether or not anybody uses it. The parent makes the same object by the same call, and the
first call with the same arguments in a copy gets that one. Every copy has the parent's object as
its own memory, as everything else; nothing is shared.

Rules of this file: the standard library only, Python 3.8 and newer, nothing of minihub (see
:mod:`minihub.warmchild`). What is made must not depend on any variable that servers have values of
their own of, nor hold random bytes that are ever used, and must be thrown away when the files it
was made from have changed.

Threads: in the parent one; in a copy any may take what there is.
Sources: CPython's ssl.create_default_context; SSL_CTX_new(3), which draws keys for session tickets
that only servers use: the contexts made here are clients'. OpenSSL notices a fork by itself and
seeds its generators anew.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any

#: Variables on which the outcome of ``ssl.create_default_context`` depends.
CONTEXT_VARIABLES = ("SSLKEYLOGFILE",)

#: The contexts that were made, by the file of authorities, with what that file was then.
_contexts: dict[str, tuple[tuple, Any]] = {}


def make(patterns: Any = ()) -> None:
    """In the parent, after its imports: make what its copies would.

    ``patterns`` are regular expressions with their flags: ``re`` remembers those it has compiled.
    """
    for pattern, flags in patterns:
        try:
            re.compile(pattern, flags)
        except (re.error, ValueError, TypeError):  # flags of another version
            pass
    _make_context()


def _make_context() -> None:
    ssl, certifi = sys.modules.get("ssl"), sys.modules.get("certifi")
    if ssl is None or certifi is None or "httpx" not in sys.modules:
        return
    # Not certifi.where(): that has something to put away at the end of the process.
    path = os.path.join(os.path.dirname(certifi.__file__ or ""), "cacert.pem")
    if any(name in os.environ for name in CONTEXT_VARIABLES):
        return
    try:
        facts = _facts(path)
        _contexts[path] = (facts, ssl.create_default_context(cafile=path))
    except OSError:  # it is somewhere else, or is no such file
        pass


def hand_out() -> None:
    """In a copy that has its own environment: let the first call that would make it find it."""
    ssl = sys.modules.get("ssl")
    if ssl is None or not _contexts or any(name in os.environ for name in CONTEXT_VARIABLES):
        _contexts.clear()
        return
    original = ssl.create_default_context

    def create_default_context(
        purpose: Any = ssl.Purpose.SERVER_AUTH,
        *,
        cafile: Any = None,
        capath: Any = None,
        cadata: Any = None,
    ) -> Any:
        found = None
        if purpose == ssl.Purpose.SERVER_AUTH and not capath and not cadata:
            found = _take(cafile)
        if found is not None:
            return found
        return original(purpose, cafile=cafile, capath=capath, cadata=cadata)

    def _take(path: Any) -> Any:
        if not isinstance(path, str) or path not in _contexts:
            return None
        if ssl.create_default_context is create_default_context:
            ssl.create_default_context = original
        facts, context = _contexts.pop(path, (None, None))
        try:
            return context if facts == _facts(path) else None
        except OSError:
            return None  # the call itself will say what is wrong

    ssl.create_default_context = create_default_context


def _facts(path: str) -> tuple:
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
