"""The warm parent: has imported what a server imports, and forks a copy of itself for each start.

The hub starts it with the interpreter of the users' environment and talks to it through a socket
pair, which nobody else can reach. It is told once what to import and what its environment is to
look like: variables that differ between users hold stand-ins. It imports, sees to it that nothing
was opened or read that servers must not share (:mod:`minihub.warmstale`), proves that on a copy of
itself, and from then on only forks. Each copy reads what it is to become from a socket of its own
(:mod:`minihub.warmchild`).

Rules of this file: the standard library only, Python 3.8 and newer, and nothing of minihub to
import; the other modules come as source with the description. Run as ``python warmparent.py
CONTROL SETUP``: two descriptors, a datagram socket and a file that holds the description as JSON.
Its report replaces the description there. It ends with the hub.

Messages from the hub: ``{"start": id}`` with two descriptors, the copy's socket and its log;
``{"seen": id}`` when the hub holds on to the copy; ``{"retire": true}``: end when the last copy
has. To the hub: ``{"ready": bool}``, ``{"start": id, "pid": n}`` or ``{"start": id, "error":
text}``, ``{"exit": id, "code": n}``.

Threads: one; a parent with more is unfit.
"""

from __future__ import annotations

import array
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
import types
import zlib
from typing import Any

#: What the hub sends fits into this.
MESSAGE_BYTES = 65536
EXIT_CODE = 126


def load(name: str, source: str) -> types.ModuleType:
    """Return a module made of its source; it is not importable, so no server sees it."""
    module = types.ModuleType("minihub_" + name)
    exec(compile(source, f"<minihub>/{name}.py", "exec", dont_inherit=True), module.__dict__)
    return module


# -- getting warm --------------------------------------------------------------------------


def look_like(setup: dict[str, Any]) -> dict[bytes, bytes]:
    """Set what the command's modules see while they are imported.

    Returns the variables that the interpreter has set by itself.
    """
    script = setup["command"][-1]
    sys.argv[:] = [script]
    if not getattr(sys.flags, "safe_path", False) and not sys.flags.isolated:
        sys.path[0] = os.path.dirname(script)
    sys.path_importer_cache.pop(os.getcwd(), None)  # which the bootstrap had on its path
    return {
        key: value for key, value in os.environb.items() if os.fsdecode(key) not in setup["env"]
    }


class Preload:
    """Imports modules, and knows afterwards which to leave out for a parent that is fit."""

    def __init__(self, audit: Any, guard: Any = None) -> None:
        self.audit = audit
        self.guard = guard
        #: Modules that cannot be imported, each with the reason.
        self.failed: dict[str, str] = {}
        #: What is wrong, as sentences, each with the modules to leave out because of it.
        self.problems: dict[str, set[str]] = {}
        #: With which of the modules that were named each module came.
        self._came_with: dict[str, str] = {}

    def take(self, names: list[str]) -> None:
        """Import these modules in this order."""
        for name in names:
            if name in sys.modules:
                continue
            before = set(sys.modules)
            try:
                importlib.import_module(name)
            except BaseException as error:  # somebody else's code; a start will tell
                self.failed[name] = f"{type(error).__name__}: {error}"
            for module in set(sys.modules) - before:
                self._came_with[module] = name
            for problem in self.audit.state():
                self.problems.setdefault(problem, {name})
            self.look_at_refused(name)

    def look_at_refused(self, name: str) -> None:
        """Note what was not let be read meanwhile; ``name`` is what was imported, "" for none.

        Code may go on without what it was refused, and be another than in a server.
        """
        for module, problem in self.guard.take_refused() if self.guard is not None else ():
            names = self.problems.setdefault(problem, set())
            names.update({name, module} - {""} if name else ())

    def end(self, guard: Any) -> None:
        """Note what is not root's alone of all that is loaded, and let the guard rest."""
        self.look_at_refused("")
        try:
            guard.end()
        except OSError as error:
            self.blame("", str(error))
            guard.not_roots[str(error)] = error.filename

    def blame(self, module: str, problem: str) -> None:
        """Note that something is wrong because of this module, "" for one that is not known."""
        while module and module not in self._came_with:
            module = module.rpartition(".")[0]
        names = {module, self._came_with[module]} if module else set()
        self.problems.setdefault(problem, set()).update(names)

    def leave_out(self) -> list[str]:
        """Return the modules without which another try is worth while; empty for none."""
        if not all(self.problems.values()):
            return []
        return sorted(set().union(*self.problems.values()))


def stamp(path: str) -> int:
    """Return what changes when a file is changed, or when anything is added to a directory.

    Byte code that is written beside its source is no change. 0 for what is not there.
    """
    try:
        names = sorted(name for name in os.listdir(path) if name != "__pycache__")
        return zlib.crc32("\0".join(names).encode("utf-8", "surrogateescape"))
    except NotADirectoryError:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def files_read() -> dict[str, int]:
    """Return the files and directories that modules came from, each with its stamp."""
    paths = set(sys.path)
    for module in list(sys.modules.values()):
        spec = getattr(module, "__spec__", None)
        origin = getattr(spec, "origin", None)
        if isinstance(origin, str) and getattr(spec, "has_location", False):
            paths.add(origin)
    return {path: stamp(path) for path in paths}


#: Lines of code in ``.pth`` files that read nothing but what the hub compares anyway.
KNOWN_STARTUP = ("SETUPTOOLS_USE_DISTUTILS", "import _virtualenv", "import __editable__")


def have_changed(before: dict[str, int], files: dict[str, int], since: float) -> bool:
    """Return whether anything was changed while it was imported."""
    for path, seen in files.items():
        if path in before:
            if seen != before[path]:
                return True
        elif seen / 1e9 > since:
            return True
    return False


def startup_code() -> list[str]:
    """Return what unknown code ran before ours, when the interpreter started."""
    found = []
    for name in ("sitecustomize", "usercustomize"):
        origin = getattr(sys.modules.get(name), "__file__", None)
        if origin and not os.path.realpath(origin).startswith("/etc/"):
            found.append(origin)
    for directory in sys.path:
        try:
            names = [name for name in os.listdir(directory) if name.endswith(".pth")]
        except OSError:
            continue
        for name in names:
            path = os.path.join(directory, name)
            try:
                with open(path, encoding="utf-8", errors="replace") as file:
                    lines = [line for line in file if line.startswith(("import ", "import\t"))]
            except OSError:
                lines = [path]
            if any(not any(known in line for known in KNOWN_STARTUP) for line in lines):
                found.append(path)
    return found


def become_other(setup: dict[str, Any]) -> None:
    """Take on other values than the parent's, and keep of its own the token alone."""
    for key, value in setup.pop("env").items():
        os.environ[key] = value.replace(setup["token"], "other")
    os.chdir("/")
    sys.argv[:] = ["other"]


def prove(stale: Any, setup: dict[str, Any], pid: int, since: float) -> list[str]:
    """Return where a copy of this process still holds what is the parent's own.

    Found out in a copy that ends then. Raises OSError.
    """
    until = time.time()
    reader, writer = os.pipe()
    copy = os.fork()
    if copy == 0:
        code = 1
        try:
            become_other(setup)
            stale.renew()
            text = json.dumps(stale.leftovers(setup, pid, since, until))
            with open(writer, "wb") as pipe:
                pipe.write(text.encode())
            code = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)
    os.close(writer)
    with open(reader, "rb") as pipe:
        text = pipe.read()
    _pid, status = os.waitpid(copy, 0)
    if status:
        raise OSError(f"its copy failed (status {status})")
    return json.loads(text)


def begin_guard(setup: dict[str, Any], child: Any, stale: Any) -> Any:
    """Put away the right to change user, and let nothing be read that others can change.

    Called before ``site`` has run, so before any code of packages. Raises OSError or ValueError.
    """
    rights = load("warmrights", setup["sources"]["warmrights"])
    rights.put_away()
    child.become_user = rights.become_user
    guard = load("warmguard", setup["sources"]["warmguard"]).Guard(stale.importing)
    guard.begin()
    return guard


def get_warm(setup: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """Import everything; return the modules for a copy's way and the report for the hub."""
    stale = load("warmstale", setup["sources"]["warmstale"])
    child = load("warmchild", setup["sources"]["warmchild"])
    child.launcher = load("launcher", setup["sources"]["launcher"])
    child.stale = stale
    child.ready = load("warmready", setup["sources"]["warmready"])
    guard = begin_guard(setup, child, stale) if setup["guarded"] else None
    child.interpreters_own = look_like(setup)
    before = files_read()
    began = time.time()
    audit = stale.Audit(is_anybodys=guard is not None)
    audit.begin()
    preload = Preload(audit, guard)
    preload.look_at_refused("")
    preload.take(setup["modules"])
    skipped = [f"{name}: {reason}" for name, reason in preload.failed.items()]
    preload.failed.clear()
    preload.take(setup["extra"])
    audit.end()
    child.ready.make(setup["patterns"])
    for name, reason in preload.failed.items():
        preload.problems[f"{name}: {reason} cannot be imported"] = {name}
    for module, problem in audit.deeds():
        preload.blame(module, problem)
    for problem in audit.state():
        preload.blame("", problem)
    for place in stale.shared_memory():
        preload.blame("", f"it has writable memory in common with its copies: {place}")
    gc.collect()
    stale.find_generators()
    files = files_read()
    changed = have_changed(before, files, began)
    if not preload.problems and not changed:
        try:
            for place in prove(stale, setup, os.getpid(), began):
                preload.blame(place.partition(":")[0], f"{place} stays")
        except OSError as error:
            preload.blame("", str(error))
    if guard is not None:
        preload.end(guard)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    site = sys.modules.get("site")
    startup = startup_code()
    report = {
        "problems": list(preload.problems),
        "leave_out": preload.leave_out(),
        "not_roots": guard.not_roots if guard is not None else {},
        "changed": changed,
        "skipped": skipped,
        "modules": len(sys.modules),
        "reads": audit.reads(),
        "files": files,
        "startup": startup,
        "user_site": bool(getattr(site, "ENABLE_USER_SITE", False)),
        "version": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "took_s": time.time() - began,
        "cpu_s": usage.ru_utime + usage.ru_stime,
    }
    return child, stale, report


# -- forking -------------------------------------------------------------------------------


class Parent:
    """Forks on demand and tells the hub how its copies end."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        #: Copies that run, by process id, and the number of the start each belongs to.
        self.copies: dict[int, int] = {}
        #: Copies the hub has not held on to yet: they are not reaped before.
        self.unseen: dict[int, int] = {}
        self.retired = False

    def serve(self) -> tuple[int, int] | None:
        """Fork until the hub ends; returns (socket, log) in each copy, None in the parent."""
        wake, waker = os.pipe()
        for descriptor in (wake, waker):
            os.set_blocking(descriptor, False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        poller = select.poll()
        poller.register(self.control, select.POLLIN)
        poller.register(wake, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _event in poller.poll()}
            if wake in ready:
                os.read(wake, 4096)
                self.reap()
            if self.control.fileno() in ready:
                message, descriptors = self.receive()
                if message is None:
                    return None
                if "start" in message:
                    if self.fork(message["start"], descriptors):
                        return descriptors[0], descriptors[1]
                elif "seen" in message:
                    self.unseen.pop(message["seen"], None)
                    self.reap()
                elif "retire" in message:
                    self.retired = True
            if self.retired and not self.copies:
                return None

    def fork(self, number: int, descriptors: list[int]) -> bool:
        """Fork for a start; return whether this is the copy."""
        try:
            if len(os.listdir("/proc/self/task")) != 1:
                raise OSError("it has threads")
            pid = os.fork()
        except OSError as error:
            self.tell(start=number, error=str(error))
            pid = -1
        if pid == 0:
            return True
        for descriptor in descriptors:
            os.close(descriptor)
        if pid > 0:
            self.copies[pid] = number
            self.unseen[number] = pid
            self.tell(start=number, pid=pid)
        return False

    def reap(self) -> None:
        """Take the exit codes of copies that have ended."""
        for pid, number in list(self.copies.items()):
            if number in self.unseen:
                continue
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                del self.copies[pid]
                code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
                self.tell(exit=number, code=code)

    def receive(self) -> tuple[dict[str, Any] | None, list[int]]:
        """Return the next message and the descriptors with it; None when the hub is gone."""
        size = array.array("i").itemsize
        try:
            data, extra, _flags, _address = self.control.recvmsg(
                MESSAGE_BYTES, socket.CMSG_SPACE(4 * size)
            )
        except OSError:
            return None, []
        descriptors = array.array("i")
        for level, kind, payload in extra:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(payload[: len(payload) - len(payload) % size])
        return (json.loads(data) if data else None), list(descriptors)

    def tell(self, **facts: Any) -> None:
        try:
            self.control.send(json.dumps(facts).encode())
        except OSError:
            pass  # the hub is gone; the next message from it is none


def main() -> None:
    """Get warm, serve, and become a server in each copy."""
    control = socket.socket(fileno=int(sys.argv[1]))
    place = int(sys.argv[2])
    os.set_inheritable(control.fileno(), False)
    with open(place, "r+b", closefd=True) as file:
        file.seek(0)
        setup = json.loads(file.read())
        command = setup["command"]
        try:
            if setup["guarded"] and peer_of(control) != 0:
                raise PermissionError("it was not root that started it")
            child, stale, report = get_warm(setup)
        except (OSError, ValueError) as error:
            child, report = None, {"problems": [str(error)], "changed": False, "files": {}}
            report["not_roots"] = {str(error): getattr(error, "filename", None)}
        setup.clear()
        file.seek(0)
        file.truncate()
        file.write(json.dumps(report).encode())
    parent = Parent(control)
    ready = not report["problems"] and not report["changed"]
    del report, setup
    gc.collect()
    gc.freeze()
    parent.tell(ready=ready)
    given = parent.serve() if ready else None
    if given is None:
        os._exit(0)
    conn, output = given
    parent.control.detach()
    del parent, control
    become_server(child, command, conn, output)


def peer_of(connection: socket.socket) -> int:
    """Return the user id of whoever made this socket pair."""
    size = struct.calcsize("3i")
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    return struct.unpack("3i", data)[1]


def become_server(child: Any, command: list[str], conn: int, output: int) -> None:
    """Take the description and run the command; what it raises ends this process as any other."""
    launcher, spec = child.launcher, {}
    try:
        child.prepare(conn, output)
        if child.become_user is not None:
            with socket.socket(fileno=os.dup(conn)) as asked:
                if peer_of(asked) != 0:
                    raise PermissionError("it was not root that asked")
        spec = launcher.read_description(conn)
        child.become(spec, launcher, child.stale)
        child.ready.hand_out()
        child.set_command_line(spec, command)
        launcher.answer(conn, cwd=spec["cwd"])
        os.close(conn)
        spec.clear()
    except BaseException as error:  # the hub starts the command cold then
        cause = getattr(error, "error", error)
        launcher.answer(conn, step="warm", path="", errno=None, text=str(cause))
        os._exit(EXIT_CODE)
    child.run(command[-1])


if __name__ == "__main__":
    main()
