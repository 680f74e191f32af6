"""What a forked server must not have in common with its parent, and how each is renewed.

Modules read the environment, the home directory, the time or random bytes while they are imported.
A forked server would keep what its parent read. Here stands what is known of that and how it is
made what a cold start would have read: always by doing again what the module did. What is not
known here makes a parent unfit: :class:`Audit` notes what is read, by which module, while the
parent imports; :func:`leftovers` looks for the parent's stand-in values in all of memory.

Rules of this file: the standard library only, Python 3.8 and newer, nothing of minihub (see
:mod:`minihub.warmchild`). A renewal touches modules that are loaded and imports none.

Threads: one.
"""

from __future__ import annotations

import collections
import faulthandler
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

#: Every generator of random numbers in the parent's memory; :func:`find_generators` fills it.
generators: list[random.Random] = []

# -- renewing ------------------------------------------------------------------------------


def renew() -> None:
    """Make this process's own what it has from its parent; all is renewed that is loaded."""
    for module, renewal in RENEWALS.items():
        if module in sys.modules:
            renewal(sys.modules[module])


def _new_trait(owner: Any, name: str, value: Any) -> None:
    """Give a trait another default, in its class and all that inherit it."""
    trait = getattr(owner, "_traits", {}).get(name)
    if trait is None:
        return
    trait.default_value = value
    todo = [owner]
    while todo:
        one = todo.pop()
        todo += one.__subclasses__()
        if getattr(one, "_traits", {}).get(name) is trait:
            values = one.__dict__.get("_static_immutable_initial_values", {})
            if name in values:
                values[name] = value


def _renew_hub_auth(module: Any) -> None:
    owner = module.HubAuth
    prefix = os.getenv("JUPYTERHUB_SERVICE_PREFIX") or "/"
    api_url = os.getenv("JUPYTERHUB_API_URL") or "http://127.0.0.1:8081/hub/api"
    _new_trait(owner, "base_url", prefix)
    _new_trait(owner, "api_url", api_url)


def _renew_session(module: Any) -> None:
    _new_trait(module.Session, "username", os.environ.get("USER", "username"))
    flags = getattr(module, "session_flags", {}).get("secure")
    if flags:  # a key that would else be known to every user
        flags[0]["Session"]["key"] = module.new_id_bytes()


def _renew_lab(module: Any) -> None:
    _new_trait(module.LabApp, "user_settings_dir", module.get_user_settings_dir())
    _new_trait(module.LabApp, "workspaces_dir", module.get_workspaces_dir())


def _renew_trash(module: Any) -> None:
    spec = module.__spec__
    spec.loader.exec_module(module)


def _renew_wsgi(module: Any) -> None:
    module.BaseHandler.os_environ = module.read_environ()


def _renew_multiprocessing(module: Any) -> None:
    module.ORIGINAL_DIR = os.path.abspath(os.getcwd())
    module._current_process._config["authkey"] = module.AuthenticationString(os.urandom(32))


def _renew_sysconfig(module: Any) -> None:
    known = getattr(module, "_CONFIG_VARS", None)
    if known and "userbase" in known:
        known["userbase"] = module._getuserbase()


def _renew_site(module: Any) -> None:
    if module.USER_BASE is not None:
        module.USER_BASE = module.USER_SITE = None
        module.getusersitepackages()


def _renew_random(module: Any) -> None:
    for one in generators:
        one.seed()


def _renew_threading(module: Any) -> None:
    main = module.main_thread()
    if hasattr(main, "_set_native_id"):
        main._set_native_id()


def _renew_numpy(module: Any) -> None:
    module.seed()


def _renew_tempfile(module: Any) -> None:
    module._name_sequence = None
    module.tempdir = None


def _renew_logging(module: Any) -> None:
    if isinstance(module._startTime, int):
        module._startTime = time.time_ns()
    else:
        module._startTime = time.time()


def _renew_prometheus(module: Any) -> None:
    now = time.time()
    todo = list(module.REGISTRY._collector_to_names)
    for one in todo:
        if hasattr(one, "_created"):
            one._created = now
        children = getattr(one, "_metrics", None)
        if isinstance(children, dict):
            todo += children.values()


#: How each module's own is renewed. Order matters where one uses what another has renewed.
RENEWALS: dict[str, Callable[[Any], None]] = {
    "site": _renew_site,
    "sysconfig": _renew_sysconfig,
    "threading": _renew_threading,
    "random": _renew_random,
    "numpy.random": _renew_numpy,
    "tempfile": _renew_tempfile,
    "logging": _renew_logging,
    "multiprocessing.process": _renew_multiprocessing,
    "wsgiref.handlers": _renew_wsgi,
    "send2trash.plat_other": _renew_trash,
    "prometheus_client.registry": _renew_prometheus,
    "jupyter_client.session": _renew_session,
    "jupyterhub.services.auth": _renew_hub_auth,
    "jupyterlab.labapp": _renew_lab,
}

#: Modules that may read these variables while they are imported: a renewal does it again.
READ_AGAIN: dict[str, tuple[str, ...]] = {
    "wsgiref.handlers": ("*",),
    "send2trash.plat_other": ("*",),
    "sysconfig": ("HOME",),
    "jupyter_client.session": ("USER",),
    "jupyterhub.services.auth": ("JUPYTERHUB_SERVICE_PREFIX", "JUPYTERHUB_API_URL"),
    "jupyterlab.labapp": ("HOME",),
}

#: Modules that may take random bytes while they are imported. numpy's generator is made by compiled
#: code, on behalf of whichever module comes first.
RANDOM_AGAIN = (
    "multiprocessing.process",
    "jupyter_client.session",
    "numpy.random",
    "numpy.random._pickle",
)

#: What tells a process who it is; a copy becomes somebody else.
WHO_AM_I = ("getuid", "geteuid", "getgid", "getegid", "getresuid", "getresgid", "getgroups")

#: Modules that may ask that while they are imported: a renewal does it again.
ASK_AGAIN = ("send2trash.plat_other",)

#: Modules that may run a program while they are imported: what it says is the same for everybody.
MAY_RUN = ("jupyterlab.labapp", "jupyterlab.commands")


# -- auditing ------------------------------------------------------------------------------

#: Modules that only help others to read the environment.
_HELPERS = frozenset(
    {"os", "posixpath", "genericpath", "_collections_abc", "collections.abc", "pathlib"}
)

#: Modules that others ask at any time, and whose answers a renewal corrects.
_ANSWERABLE = frozenset({"sysconfig"})


def importing() -> str:
    """Return the name of the module that is being imported by the code that asks; "" for none."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name in _ANSWERABLE:
            return name
        if frame.f_code.co_name == "<module>" and name not in ("__main__", *_HELPERS):
            return name
        frame = frame.f_back
    return ""


class _NotingEnviron(os._Environ):  # type: ignore[type-arg]
    """``os.environ`` while a parent imports: the same object, which tells who reads what."""

    def __getitem__(self, key: Any) -> Any:
        _reads.add((importing(), os.fsdecode(key)))
        return super().__getitem__(key)

    def __iter__(self) -> Iterator[Any]:
        _reads.add((importing(), "*"))
        return super().__iter__()

    def __setitem__(self, key: Any, value: Any) -> None:
        _writes.add((importing(), os.fsdecode(key)))
        super().__setitem__(key, value)

    def __delitem__(self, key: Any) -> None:
        _writes.add((importing(), os.fsdecode(key)))
        super().__delitem__(key)


_reads: set[tuple[str, str]] = set()
_writes: set[tuple[str, str]] = set()


class Audit:
    """Notes, between :meth:`begin` and :meth:`end`, what imports do that forks must not share."""

    def __init__(self, is_anybodys: bool = False) -> None:
        """``is_anybodys`` says that copies become users, and this process is none."""
        self.is_anybodys = is_anybodys
        self.programs: set[tuple[str, str]] = set()
        self.askers: set[tuple[str, str]] = set()
        self.random: set[str] = set()
        self._undo: list[Callable[[], None]] = []
        self._before = self._state()

    @staticmethod
    def _state() -> tuple[dict[str, str], dict[int, Any]]:
        files = {}
        for name in os.listdir("/proc/self/fd"):
            try:
                files[name] = os.readlink("/proc/self/fd/" + name)
            except OSError:
                pass  # the one that listed the directory
        handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
        return files, handlers

    def begin(self) -> None:
        os.environ.__class__ = os.environb.__class__ = _NotingEnviron
        self._replace(subprocess.Popen, "_execute_child", self._noting_run)
        for name in ("fork", "forkpty", "system", "posix_spawn", "posix_spawnp"):
            if hasattr(os, name):
                self._replace(os, name, self._noting_run)
        for owner, name in ((os, "urandom"), (random, "_urandom")):
            self._replace(owner, name, self._noting_random)
        for name in WHO_AM_I if self.is_anybodys else ():
            self._replace(os, name, self._noting_asker)

    def end(self) -> None:
        os.environ.__class__ = os.environb.__class__ = os._Environ
        while self._undo:
            self._undo.pop()()

    def _replace(self, owner: Any, name: str, wrap: Callable[[Any, str], Any]) -> None:
        original = getattr(owner, name)
        setattr(owner, name, wrap(original, name))
        self._undo.append(lambda: setattr(owner, name, original))

    def _noting_run(self, original: Any, name: str) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            self.programs.add((importing(), name))
            return original(*args, **kwargs)

        return run

    def _noting_random(self, original: Any, name: str) -> Any:
        def take(count: int) -> bytes:
            self.random.add(importing())
            return original(count)

        return take

    def _noting_asker(self, original: Any, name: str) -> Any:
        def ask(*args: Any) -> Any:
            self.askers.add((importing(), name))
            return original(*args)

        return ask

    def reads(self) -> dict[str, list[str]]:
        """Return the variables that were read and are not read again, each with its readers."""
        found: dict[str, list[str]] = {}
        for module, name in sorted(_reads):
            again = READ_AGAIN.get(module, ())
            if name not in again and "*" not in again:
                found.setdefault(name, []).append(module)
        return found

    def deeds(self) -> list[tuple[str, str]]:
        """Return what modules did that nothing may be forked after: (module, sentence)."""
        found = []
        for module, name in sorted(self.programs):
            if module not in MAY_RUN:
                found.append((module, f"{module or 'it'} runs a program ({name})"))
        for module in sorted(self.random):
            if module not in RANDOM_AGAIN:
                found.append((module, f"{module or 'it'} takes random bytes"))
        for module, name in sorted(self.askers):
            if module in ASK_AGAIN:
                continue
            found.append((module, f"{module or 'it'} asks who runs it ({name})"))
        for module, name in sorted(_writes):
            found.append((module, f"{module or 'it'} changes the variable {name}"))
        for module in self.reads().get("*", ()):
            found.append((module, f"{module or 'it'} reads all variables"))
        return found

    def state(self) -> list[str]:
        """Return what this process is like now that nothing may be forked from, as sentences."""
        found = []
        if faulthandler.is_enabled():
            found.append("Python's fault handler is on")
        threads = len(os.listdir("/proc/self/task"))
        if threads != 1 or threading.active_count() != 1:
            found.append(f"it has {threads} threads")
        try:
            os.waitpid(-1, os.WNOHANG)
            found.append("it has child processes")
        except ChildProcessError:
            pass
        files, handlers = self._state()
        for number in sorted(set(files) - set(self._before[0])):
            found.append(f"it holds {files[number]} open")
        for number, handler in handlers.items():
            if handler != self._before[1][number]:
                found.append(f"it handles the signal {number}")
        return found


def shared_memory() -> list[str]:
    """Return what of this process's memory its copies could write to for each other to read."""
    found = []
    with open("/proc/self/maps", "rb") as file:
        for line in file:
            words = line.split(None, 5)
            if words[1][1:2] == b"w" and words[1][3:4] == b"s":
                found.append(os.fsdecode(words[5].strip()) if len(words) > 5 else "memory")
    return sorted(set(found))


def find_generators() -> None:
    """Find every generator of random numbers there is, before the collector forgets them."""
    generators[:] = [
        one
        for one in gc.get_objects()
        if isinstance(one, random.Random) and not isinstance(one, random.SystemRandom)
    ]


# -- proving -------------------------------------------------------------------------------


def leftovers(known: dict[str, Any], pid: int, since: float, until: float) -> list[str]:
    """Return where in this process's memory the parent's values are still held.

    ``known["token"]`` is a part of every stand-in value the parent was given, ``pid`` its process
    id, ``since`` and ``until`` when it imported (seconds since the epoch). All that the collector
    can reach is looked through. Takes about a second for a million objects.
    """
    gc.unfreeze()
    wanted, raw = known["token"], known["token"].encode()
    skew = time.time() - time.monotonic()
    came_from: dict[int, Any] = {}
    found = []
    skip = {id(came_from), id(found), id(known)}
    roots = [sys.modules, gc.get_objects()]
    skip.add(id(roots))
    for root in roots:  # modules first: what they hold is named by them
        came_from[id(root)] = None
        queue = collections.deque([root])
        skip.add(id(queue))
        while queue:
            one = queue.popleft()
            if id(one) in skip or isinstance(one, types.FrameType):
                continue
            for held in gc.get_referents(one):
                kind = type(held)
                if kind is str:
                    hit = wanted in held
                elif kind is bytes or kind is bytearray:
                    hit = raw in held
                elif kind is float:
                    hit = since <= held <= until or since <= held + skew <= until
                    hit = hit and type(one).__name__ not in ("FileFinder", "tuple")
                elif kind is int:
                    hit = held == pid and _is_called_pid(one, held)
                else:
                    hit = False
                    if id(held) not in came_from:
                        came_from[id(held)] = one
                        queue.append(held)
                if hit:
                    found.append((one, held))
    return sorted({_where(one, held, came_from) for one, held in found})


def _is_called_pid(owner: Any, value: int) -> bool:
    if not isinstance(owner, dict):
        return False
    return any(
        held is value and isinstance(key, str) and "pid" in key for key, held in owner.items()
    )


def _where(owner: Any, value: Any, came_from: dict[int, Any]) -> str:
    """Return a description of what holds a value: module, path and what it is."""
    names = []
    if isinstance(owner, dict):
        names += [str(key) for key, held in owner.items() if held is value][:1]
    one = owner
    for _ in range(12):
        if isinstance(one, types.ModuleType):
            names.append(one.__name__)
            break
        if isinstance(one, dict) and "__spec__" in one:
            names.append(str(one.get("__name__")))
            break
        if isinstance(one, type):
            names.append(f"{one.__module__}.{one.__qualname__}")
            break
        if not isinstance(one, (dict, list, tuple, set)):
            names.append(type(one).__name__)
        one = came_from.get(id(one))
        if one is None:
            break
    place = ".".join(reversed(names)) or type(owner).__name__
    return f"{place}: {value!r:.60}"
