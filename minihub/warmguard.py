"""Tells files that root alone can change, and lets a warm parent of root's read no others.

A parent whose copies become other users must never run code that anybody but root can change. So
whatever it opens while it imports is judged before it is opened, by an audit hook: the file, every
folder above it and above every link on the way to it must belong to root, and neither group nor
others may write there. What is so judged can be changed by root alone from then on, so nothing
can be put in its place between the judgement and the opening. Anything else is refused, and noted.

Libraries that a library names are found by the system's loader, which no hook sees. So before one
is loaded, the places where it has others looked for are judged, with the libraries that lie there.

The interpreter's own start comes before any hook. It runs without ``site`` (``-S``), so it reads
its standard library and PYTHONPATH alone; the hub has judged those (:func:`vet_interpreter`).
``site``, and with it every ``.pth`` file, runs when the hook is in place (:meth:`Guard.begin`).

Rules of this file: the standard library only, Python 3.8 and newer, nothing of minihub (see
:mod:`minihub.warmchild`); the hub imports it too. It looks and refuses, and changes nothing.

Threads: a guard has one; the functions any.
Sources: Python's table of audit events; ld.so(8) on DT_RPATH, DT_RUNPATH and glibc-hwcaps; elf(5);
CPython's getpath on where a standard library is looked for.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any

#: What everybody may write to and nobody can change.
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
#: Names in /proc through which one gets to files that lie elsewhere.
_WAYS_OUT = frozenset(("fd", "root", "cwd", "exe", "map_files", "task", ".."))
_MOST_LINKS = 40
#: Folders in which the loader prefers libraries to those beside them.
_PREFERRED = ("glibc-hwcaps", "tls", "haswell", "xeon_phi", "avx512_1", "x86_64", "aarch64")
#: Variables that make the loader, the interpreter or the C library load other code.
_STEERS = re.compile(
    r"LD_|GCONV_PATH$|LOCPATH$|NLSPATH$|PYTHON(HOME|EXECUTABLE|PLATLIBDIR|PYCACHEPREFIX)$"
    r"|OPENSSL_(CONF|MODULES|ENGINES)"
)
#: Files beside an interpreter that say where its standard library is.
_STEERING_FILES = ("pyvenv.cfg", "pybuilddir.txt", "Modules/Setup.local")


class NotRoots(PermissionError):
    """Raised for what somebody other than root can change; ``filename`` names it."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(errno.EACCES, reason, path)

    def __str__(self) -> str:
        return f"{self.filename} {self.strerror}"


class Vetting:
    """Judges paths; remembers what it has found to be root's alone, which stays so."""

    def __init__(self) -> None:
        self._folders = set()  # type: set[str]
        self._libraries = set()  # type: set[str]
        self._places = set()  # type: set[str]

    def vet(self, path: Any) -> tuple[str, os.stat_result | None]:
        """Return where a path leads and what is there; None for nothing, or nothing we may see.

        Raises NotRoots when somebody else than root can change what is there, or put something
        there.
        """
        text = os.path.join(os.getcwd(), os.fsdecode(path))
        folder, _slash, name = text.rpartition("/")
        if folder in self._folders and name not in ("", ".", ".."):
            here, todo = folder, [name]
        else:
            here, todo = "/", text.split("/")[::-1]
        links, facts = 0, None
        if "/" not in self._folders:
            facts = self._judge("/", os.lstat("/"))
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                here, facts = os.path.dirname(here), None
                continue
            if here == "/proc":
                return self._vet_proc(text, [part] + todo), None
            there = here.rstrip("/") + "/" + part
            if there in self._folders:
                here, facts = there, None
                continue
            try:
                facts = os.lstat(there)
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                return there, None
            if stat.S_ISLNK(facts.st_mode):
                links += 1
                if links > _MOST_LINKS:
                    raise NotRoots(text, "has too many links on its way")
                if facts.st_uid != 0:
                    raise NotRoots(there, f"is a link of the user with the number {facts.st_uid}")
                target = os.readlink(there)
                todo += target.split("/")[::-1]
                if target.startswith("/"):
                    here = "/"
                continue
            self._judge(there, facts)
            here = there
        return here, facts or os.lstat(here)

    def _judge(self, path: str, facts: os.stat_result) -> os.stat_result:
        if path in DEVICES and stat.S_ISCHR(facts.st_mode):
            return facts
        if facts.st_uid != 0:
            raise NotRoots(path, f"belongs to the user with the number {facts.st_uid}")
        if facts.st_mode & stat.S_IWOTH:
            raise NotRoots(path, "can be written by everybody")
        # A list of further users and groups who may (ACL) shows as the group's bits.
        if facts.st_mode & stat.S_IWGRP:
            raise NotRoots(path, f"can be written by the group with the number {facts.st_gid}")
        if stat.S_ISDIR(facts.st_mode):
            self._folders.add(path)
        return facts

    def _vet_proc(self, path: str, rest: list[str]) -> str:
        """Let what the kernel tells be read, but no other process's files through it."""
        number = rest[0]
        if (number.isdigit() and number != str(os.getpid())) or _WAYS_OUT.intersection(rest):
            raise NotRoots(path, "leads to another process or file")
        return path

    def vet_tree(self, path: str, *, leave_out: tuple[str, ...] = ()) -> None:
        """Judge a folder with all that lies in it, or a file; nothing need be there.

        ``leave_out`` names folders, wherever they are. Raises NotRoots.
        """
        real, facts = self.vet(path)
        if facts is None or not stat.S_ISDIR(facts.st_mode):
            return
        todo, seen = [real], {real}
        while todo:
            folder = todo.pop()
            for entry in _entries(folder):
                if entry.is_symlink():
                    real, facts = self.vet(entry.path)
                    is_folder = facts is not None and stat.S_ISDIR(facts.st_mode)
                    if is_folder and real not in seen and entry.name not in leave_out:
                        seen.add(real)
                        todo.append(real)
                elif not entry.is_dir():
                    self._judge(entry.path, entry.stat(follow_symlinks=False))
                    if ".so" in entry.name:
                        self.vet_library(entry.path)
                elif entry.name not in leave_out:
                    self._judge(entry.path, entry.stat(follow_symlinks=False))
                    todo.append(entry.path)

    # -- libraries -------------------------------------------------------------------------

    def vet_library(self, path: Any) -> None:
        """Judge a library or a program, and what the loader may load with it. Raises NotRoots."""
        real, facts = self.vet(path)
        if real in self._libraries or facts is None or not stat.S_ISREG(facts.st_mode):
            return
        self._libraries.add(real)
        try:
            named, places = read_library(real)
        except OSError as error:
            if isinstance(error, NotRoots):
                raise
            raise NotRoots(real, "cannot be read") from error
        except (struct.error, ValueError) as error:
            raise NotRoots(real, "is no library that can be judged") from error
        origins = {os.path.dirname(real), os.path.dirname(os.path.abspath(os.fsdecode(path)))}
        folders = []
        for place in places:
            for origin in sorted(origins):
                folder = place.replace("$ORIGIN", origin).replace("${ORIGIN}", origin)
                if "$" in folder or not folder.startswith("/"):
                    raise NotRoots(real, f"has libraries looked for in {place!r}")
                self._vet_place(folder)
                folders.append(folder)
        for name in named:
            if "/" in name:
                self.vet_library(name)
            for folder in folders:
                candidate = os.path.join(folder, name)
                if os.path.lexists(candidate):
                    self.vet_library(candidate)

    def _vet_place(self, folder: str) -> None:
        """Judge all libraries in a folder that the loader looks into."""
        real, facts = self.vet(folder)
        if real in self._places or facts is None or not stat.S_ISDIR(facts.st_mode):
            return
        self._places.add(real)
        for entry in _entries(real):
            if ".so" in entry.name:
                self.vet(entry.path)
            elif entry.name in _PREFERRED:
                self.vet_tree(entry.path)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except PermissionError as error:
        raise NotRoots(folder, "cannot be looked into") from error


def read_library(path: str) -> tuple[list[str], list[str]]:
    """Return the libraries that an ELF file needs, and where it has them looked for.

    Raises OSError, ValueError or struct.error.
    """
    with open(path, "rb") as file:
        head = file.read(64)
        if head[:4] != b"\x7fELF" or head[4] != 2:
            raise ValueError("no ELF file of 64 bits")
        order = "<" if head[5] == 1 else ">"
        (offset,) = struct.unpack_from(order + "Q", head, 32)
        size, count = struct.unpack_from(order + "HH", head, 54)
        file.seek(offset)
        table = file.read(size * count)
        segments, entries = [], []  # type: list[tuple[int, int, int]], list[tuple[int, int]]
        for index in range(count):
            kind, _flags, start, address, _physical, length = struct.unpack_from(
                order + "IIQQQQ", table, index * size
            )
            if kind == 1:
                segments.append((address, start, length))
            elif kind == 2:
                file.seek(start)
                raw = file.read(length)
                entries = list(struct.iter_unpack(order + "QQ", raw[: len(raw) // 16 * 16]))
        values = dict(entries)
        if 5 not in values:  # no dynamic linking
            return [], []
        for address, start, length in segments:
            if address <= values[5] < address + length:
                file.seek(start + values[5] - address)
                break
        else:
            raise ValueError("no table of texts")
        texts = file.read(values.get(10, 0))

    def text(at: int) -> str:
        return os.fsdecode(texts[at : texts.index(b"\0", at)])

    needed, places = [], []
    for tag, value in entries:
        if tag == 0:
            break
        if tag in (1, 0x7FFFFFFD, 0x7FFFFFFF):  # needed, auxiliary, filter
            needed.append(text(value))
        elif tag in (15, 29):
            places += text(value).split(":")
    return needed, places


# -- before the interpreter runs -----------------------------------------------------------


def vet_interpreter(interpreter: str, script: str, env: dict[str, str]) -> None:
    """Judge, for the hub, what the interpreter runs before its guard can be in place.

    Raises NotRoots, and ValueError with a reason when that cannot be told.
    """
    vetting = Vetting()
    for name in sorted(env):
        if _STEERS.match(name):
            raise ValueError(f"{name} is set")
    vetting.vet(script)
    vetting.vet_library(interpreter)
    folders = _folders_of(interpreter)
    libraries = []
    for folder in folders:
        vetting.vet(folder)
        for place in (folder, os.path.dirname(folder)):
            for name in _STEERING_FILES:
                vetting.vet(os.path.join(place, name))
        while True:
            for lib in ("lib", "lib64"):
                vetting.vet(os.path.join(folder, lib))  # also where there is no library yet
                libraries += _libraries_in(os.path.join(folder, lib))
            if folder == "/":
                break
            folder = os.path.dirname(folder)
    if not any(os.path.exists(os.path.join(one, "os.py")) for one in libraries):
        raise ValueError(f"where {interpreter} has its standard library cannot be told")
    for one in dict.fromkeys(os.path.realpath(one) for one in libraries):
        vetting.vet_tree(one, leave_out=("site-packages", "dist-packages", "test"))
    for one in libraries:
        vetting.vet(one)
    for element in env.get("PYTHONPATH", "").split(os.pathsep):
        if element and not os.path.isabs(element):
            raise ValueError("PYTHONPATH has an element that is no absolute path")
        if element:
            vetting.vet_tree(element)


def _folders_of(interpreter: str) -> list[str]:
    """Return the folders from which an interpreter looks for its library, upwards."""
    path, found = os.path.abspath(interpreter), []
    for _ in range(_MOST_LINKS):
        found.append(os.path.dirname(path))
        if not os.path.islink(path):
            break
        path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))
    found.append(os.path.dirname(os.path.realpath(interpreter)))
    for folder in list(found):
        for place in (folder, os.path.dirname(folder)):
            try:
                with open(os.path.join(place, "pyvenv.cfg"), encoding="utf-8") as file:
                    text = file.read()
            except (OSError, ValueError):
                continue
            home = re.search(r"^\s*home\s*=\s*(/.*?)\s*$", text, re.M)
            if home:
                found += [home[1], os.path.realpath(home[1])]
    return list(dict.fromkeys(found))


def _libraries_in(folder: str) -> list[str]:
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    wanted = re.compile(r"python3\.\d+t?$|python3\d+t?\.zip$")
    return [os.path.join(folder, name) for name in sorted(names) if wanted.match(name)]


# -- in the parent -------------------------------------------------------------------------


class Guard:
    """Refuses, from :meth:`begin` to :meth:`end`, to read what somebody else can change."""

    def __init__(self, who: Callable[[], str]) -> None:
        """``who`` names the module that is being imported by the code that asks."""
        self.vetting = Vetting()
        #: What was refused since it was last asked for, each with the module that wanted it.
        self.refused = []  # type: list[tuple[str, str]]
        #: All that was ever refused because it is not root's: the sentence and the path.
        self.not_roots = {}  # type: dict[str, str]
        self._who = who
        self._is_on = False

    def begin(self) -> None:
        """Put the hook in place, and only then do what ``site`` does at the interpreter's start.

        Raises NotRoots, and ValueError for an interpreter that is not known.
        """
        self._is_on = True
        sys.addaudithook(self._hear)
        self.vet_loaded()
        first = sys.path[:1] if sys.path[:1] == [""] else []
        del sys.path[: len(first)]
        _take_back_no_site()
        import site  # noqa: F401 -- runs as at any start

        for folder in sys.path:
            self.vetting.vet(folder)
        sys.path[:0] = first

    def end(self) -> None:
        """Look on no longer; the hook stays, which an interpreter never gives up."""
        self.vet_loaded()
        self._is_on = False
        self.vetting = Vetting()

    def vet_loaded(self) -> None:
        """Judge what is loaded already, and what is mapped. Raises NotRoots."""
        for module in list(sys.modules.values()):
            for name in ("__file__", "__cached__"):
                path = getattr(module, name, None)
                if isinstance(path, str) and os.path.isabs(path):
                    self.vetting.vet(path)
        for path in _mapped():
            self.vetting.vet(path)

    def take_refused(self) -> list[tuple[str, str]]:
        """Return what was refused since the last call."""
        found, self.refused = self.refused, []
        return found

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._is_on or event not in _HEARD:
            return
        try:
            _HEARD[event](self, *args)
        except NotRoots as error:
            self.refused.append((self._who(), str(error)))
            self.not_roots[str(error)] = error.filename
            raise

    def _open(self, path: Any, mode: Any, flags: int) -> None:
        if isinstance(path, int):
            return  # what is open already was judged when it was opened
        path = os.fspath(path)
        if flags & os.O_ACCMODE == os.O_WRONLY or flags & os.O_CREAT and flags & os.O_EXCL:
            return
        if mode is None and not os.path.isabs(path):
            raise NotRoots(os.fsdecode(path), "may be relative to any folder")
        real, facts = self.vetting.vet(path)
        if facts is None and not real.startswith("/proc/"):
            try:
                os.lstat(real)
            except FileNotFoundError:
                return
            except OSError as error:
                if error.errno != errno.EACCES:
                    return
                self.refused.append((self._who(), real + " cannot be reached by everybody"))
        elif facts is not None and not facts.st_mode & stat.S_IROTH:
            self.refused.append((self._who(), real + " cannot be read by everybody"))

    def _import(self, module: Any, filename: Any, *_rest: Any) -> None:
        if filename is not None:
            self.vetting.vet_library(filename)

    def _load(self, name: Any) -> None:
        if isinstance(name, (str, bytes)) and "/" in os.fsdecode(name):
            self.vetting.vet_library(name)

    def _run(self, program: Any, args: Any = (), *rest: Any) -> None:
        """Judge a program before it runs, and the folders of PATH in which it may be found."""
        if isinstance(program, (list, tuple)):
            program = program[0]
        text = os.fsdecode(program)
        if "/" in text:
            self.vetting.vet(text)
            return
        env = rest[1] if len(rest) > 1 else None
        for folder in os.get_exec_path(env if isinstance(env, dict) else None):
            candidate = os.path.join(folder, text)
            _real, facts = self.vetting.vet(candidate)
            if facts is not None and facts.st_mode & stat.S_IXOTH:
                return

    def _refuse(self, *args: Any) -> None:
        raise NotRoots(repr(args[-1])[:60], "is nothing for a module to use while it is imported")

    def _database(self, path: Any, *_rest: Any) -> None:
        if path != ":memory:":
            self.vetting.vet(path)


_HEARD = {
    "open": Guard._open,
    "import": Guard._import,
    "ctypes.dlopen": Guard._load,
    "sqlite3.connect": Guard._database,
    "subprocess.Popen": Guard._run,
    "os.exec": Guard._run,
    "os.posix_spawn": Guard._run,
    "os.system": Guard._refuse,
    "socket.connect": Guard._refuse,
    "socket.sendto": Guard._refuse,
    "socket.sendmsg": Guard._refuse,
}  # type: dict[str, Callable[..., None]]


def _mapped() -> Iterator[str]:
    """Yield the files that are mapped into this process."""
    with open("/proc/self/maps", "rb") as file:
        lines = file.read().splitlines()
    for line in lines:
        words = line.split(None, 5)
        if len(words) == 6 and words[5].startswith(b"/"):
            path = os.fsdecode(words[5])
            if path.endswith(" (deleted)"):
                raise NotRoots(path, "is loaded and has been removed")
            yield path


def _take_back_no_site() -> None:
    """Let ``sys.flags`` say what an interpreter says that was started without ``-S``.

    The flags are a tuple that nothing else can change; programs hand them on to interpreters that
    they start. Raises ValueError where they are kept in another way.
    """
    import ctypes

    flags, wanted = sys.flags, [0 if name == "no_site" else value for name, value in _flags()]
    if sys.implementation.name == "cpython" and flags.no_site == 1:
        index = [name for name, _value in _flags()].index("no_site")
        size = ctypes.sizeof(ctypes.c_void_p)
        place = ctypes.c_void_p.from_address(id(flags) + tuple.__basicsize__ + index * size)
        if place.value == id(flags.no_site):
            zero = 0
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(zero))
            place.value = id(zero)
    if [value for _name, value in _flags()] != wanted or sys.flags.no_site:
        raise ValueError("the interpreter keeps its flags in another way")


def _flags() -> list[tuple[str, Any]]:
    names = re.findall(r"(\w+)=", repr(sys.flags))
    return [(name, getattr(sys.flags, name)) for name in names]
