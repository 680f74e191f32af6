"""The unpacked, byte-compiled copy of minihub.pyz: where it lies, whether it is sound, making it.

A directory ``<place>/<build>`` per content of the archive and interpreter. ``<place>`` is
``$MINIHUB_CACHE``, or ``minihub`` in the XDG cache directory, or ``minihub-<uid>`` in a temporary
directory; ``<build>`` begins with the archive's content hash. A directory is used only when nobody
else could have written to it: it and ``<place>`` belong to us, are no symlinks, cannot be written
by others, and nobody but us or root can rename a directory above them. The hub may run as root,
so whoever could write here would be root.

A build is made in a directory of its own beside its final place, checked file by file against the
hashes in the archive, and renamed when complete: what stands under the final name was complete
once. What has been lost since (a cleaner of temporary files, a full disk before a power failure)
shows in the sizes, which are compared at every start; then it is made again.

Temporary places are not removed at exit, since the proxy and the servers outlive the hub and import
from there. Every process holds a shared lock on the build it runs from; builds nobody holds are
removed when a new one is made, save the recent ones.

Rules of this file: standard library only; what only the making needs is imported there, since
every start passes through here. Nothing below prints, except :func:`enter`, which speaks before
there is a log.

Threads: the main thread, before any other exists.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from minihub import runtime

#: In the archive: the content hash, then ``sha256 size path`` of each file of the payload.
MANIFEST = "minihub.manifest"

#: In the archive: the folder of what belongs to one platform only, one folder each below it.
NATIVE = "_native/"

#: In a build: the file whose lock says that the build is in use, and its date since when.
LOCK = "in-use.lock"

KEEP_BUILDS = 3
KEEP_S = 14 * 86400
LEFTOVER_S = 3600

#: How long to wait for another process that is making the same build, before making it as well.
WAIT_S = 20.0


class Unusable(Exception):
    """Raised when a place cannot be used; the message says why, for the person who chose it."""


class Damaged(Exception):
    """Raised when the archive does not contain what was built."""


# -- what belongs to this interpreter ----------------------------------------------------------


def platform_tag() -> str:
    """Return the name of the folder with extension modules for this interpreter, or ``""``.

    Such as ``linux-x86_64-glibc``, ``linux-aarch64-musl``, ``macos-arm64``. Empty where the stable
    ABI's extensions cannot be loaded: other implementations, free-threaded builds, 32 bit.
    """
    if sys.implementation.name != "cpython" or sys.maxsize < 2**32:
        return ""
    if "t" in getattr(sys, "abiflags", ""):
        return ""
    machine = os.uname().machine
    if sys.platform == "darwin":
        return f"macos-{machine}"
    if sys.platform != "linux":
        return ""
    try:
        libc = "glibc" if os.confstr("CS_GNU_LIBC_VERSION") else "musl"
    except (OSError, ValueError):
        libc = "musl"
    return f"linux-{machine}-{libc}"


def build_name(content: str, tag: str) -> str:
    """Return the directory name of a build: content hash, interpreter, platform."""
    optimize = f"-O{sys.flags.optimize}" if sys.flags.optimize else ""
    return f"{content[:20]}-{sys.implementation.cache_tag}-{sys.hexversion:08x}{optimize}-{tag}"


# -- places ------------------------------------------------------------------------------------


def places() -> list[str]:
    """Return the absolute paths where builds may lie, best first.

    Symbolic links above them are resolved, so that what is checked is what is used.
    """
    import pwd

    user = os.geteuid()
    chosen = os.environ.get("MINIHUB_CACHE")
    if chosen:
        found = [os.path.abspath(chosen)]
    else:
        found = []
        xdg = os.environ.get("XDG_CACHE_HOME", "")
        if os.path.isabs(xdg):
            found.append(os.path.join(xdg, "minihub"))
        homes = [os.environ.get("HOME", "")]
        with suppress(KeyError):  # sudo may leave HOME as it was; a container may know no user
            homes.append(pwd.getpwuid(user).pw_dir)
        for home in homes:
            # A home that does not exist is not ours to make.
            if os.path.isabs(home) and os.path.isdir(home):
                found.append(os.path.join(home, ".cache", "minihub"))
    for temporary in (os.environ.get("TMPDIR", ""), "/tmp", "/var/tmp"):
        if os.path.isabs(temporary) and os.path.isdir(temporary):
            found.append(os.path.join(temporary, f"minihub-{user}"))
    resolved = [
        os.path.join(os.path.realpath(os.path.dirname(p)), os.path.basename(p)) for p in found
    ]
    return list(dict.fromkeys(resolved))


def check_private(path: str) -> None:
    """Raise Unusable unless ``path`` is a directory that only we, or root, can have changed."""
    info = os.lstat(path)
    if stat.S_ISLNK(info.st_mode):
        raise Unusable("is a symbolic link")
    if not stat.S_ISDIR(info.st_mode):
        raise Unusable("is not a directory")
    if info.st_uid != os.geteuid():
        raise Unusable(f"belongs to uid {info.st_uid}, not to uid {os.geteuid()}")
    if info.st_mode & 0o022:
        raise Unusable(f"can be written by others (mode {info.st_mode & 0o7777:04o})")


def check_above(path: str) -> None:
    """Raise Unusable when somebody else than we or root could replace ``path`` by another one."""
    above = os.path.dirname(path)
    while not os.path.lexists(above):
        above = os.path.dirname(above)
    while True:
        info = os.stat(above)
        if info.st_uid not in (0, os.geteuid()):
            raise Unusable(f"lies in {above}, which belongs to uid {info.st_uid}")
        if info.st_mode & 0o022 and not info.st_mode & stat.S_ISVTX:
            mode = f"{info.st_mode & 0o7777:04o}"
            raise Unusable(f"lies in {above}, which can be written by others (mode {mode})")
        if above == os.path.dirname(above):
            return
        above = os.path.dirname(above)


def prepare(place: str, needs_exec: bool) -> None:
    """Make ``place`` if absent. Raises Unusable or OSError when no build can be made there."""
    check_above(place)  # before anything is made: root must not make folders in a user's home
    umask = os.umask(0o077)
    try:
        with suppress(FileExistsError):
            os.makedirs(place)
    finally:
        os.umask(umask)
    check_private(place)
    if not os.access(place, os.W_OK | os.X_OK):
        raise Unusable("is not writable")
    if needs_exec and os.statvfs(place).f_flag & getattr(os, "ST_NOEXEC", 0):
        raise Unusable("is on a file system mounted noexec, where psutil cannot be loaded from")


# -- a build that is there ---------------------------------------------------------------------


def existing(place: str, name: str) -> str | None:
    """Return the directory of the build ``name`` in ``place`` if it is sound, else None."""
    root = os.path.join(place, name)
    try:
        check_private(place)
        check_above(place)
    except (OSError, Unusable):
        return None
    return root if is_sound(root) else None


def is_sound(root: str) -> bool:
    """Tell whether a build, in a place that was checked, is ours alone and complete."""
    try:
        check_private(root)
    except (OSError, Unusable):
        return False
    return is_complete(root)


def is_complete(root: str) -> bool:
    """Tell whether every file of a build is there with the size it was made with."""
    try:
        with open(os.path.join(root, runtime.UNPACKED_MARK), encoding="utf-8") as file:
            lines = file.read().split("\n")
        for line in lines[:-1]:
            size, _, path = line.partition(" ")
            info = os.lstat(root + "/" + path)
            if info.st_size != int(size) or not stat.S_ISREG(info.st_mode):
                return False
    except (OSError, ValueError):
        return False
    # The last line is empty: the list itself was not cut.
    return len(lines) > 1 and lines[-1] == ""


_held: list[int] = []


def hold(root: str) -> bool:
    """Mark the build as used by this process until it ends; False when it is being removed."""
    import fcntl

    path = os.path.join(root, LOCK)
    try:
        # The cleaner of systemd's temporary files leaves alone what lies in a locked directory.
        for held in (root, path):
            fd = os.open(held, os.O_RDONLY | os.O_NOFOLLOW)
            _held.append(fd)
            with suppress(OSError):  # some network file systems have no locks
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        with suppress(OSError):
            os.utime(path)
        # Who removes a build holds its lock and renames it first.
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:
        return False


# -- making one --------------------------------------------------------------------------------


@contextmanager
def _alone(place: str) -> Iterator[None]:
    """Let one process at a time make builds in ``place``; after WAIT_S do not wait any more.

    It only saves work and keeps a damaged build from being replaced twice. A file system without
    locks, or a maker that was stopped half-way, does not keep anybody from starting.
    """
    import fcntl

    fd = os.open(os.path.join(place, "making.lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.02)
                continue
            except OSError:
                pass
            break
        yield
    finally:
        os.close(fd)


def make(archive: str, place: str, name: str, tag: str) -> str:
    """Return the directory of the build ``name`` in ``place``, made unless it is there.

    Raises Unusable or OSError when it cannot be made there; nothing is left behind then.
    """
    import shutil
    import tempfile

    prepare(place, needs_exec=bool(tag))
    root = os.path.join(place, name)
    with _alone(place):
        if not is_sound(root):
            new = tempfile.mkdtemp(prefix=".new-", dir=place)
            try:
                _in_child(lambda: unpack(archive, new, root, tag))
                _put(new, root)
            finally:
                shutil.rmtree(new, ignore_errors=True)
        if not is_sound(root):
            raise Unusable("lost files of the build while it was being made")
        prune(place, keep=name)
    return root


def _in_child(work: Callable[[], None]) -> None:
    """Run ``work`` in a forked process, where all it makes is private, and wait for it.

    Compiling takes memory that a process never gives back: 13 MB that the hub would keep for life.
    Raises what ``work`` may raise: Damaged, Unusable, and for OSError Unusable as well.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        report = "Unusable could not be unpacked to"
        os.umask(0o077)
        try:
            work()
            report = "Done"
        except (Damaged, Unusable) as error:
            report = f"{type(error).__name__} {error}"
        except OSError as error:
            report = f"Unusable gives: {error.strerror}"
        finally:
            os.write(writing, report.encode())
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8", errors="replace") as pipe:
        kind, _, reason = pipe.read().partition(" ")
    with suppress(ChildProcessError):  # started with SIGCHLD ignored: the kernel has reaped it
        os.waitpid(child, 0)
    if kind == "Damaged":
        raise Damaged(reason)
    if kind != "Done":
        raise Unusable(reason or "lost the process that unpacked (was it out of memory?)")


def _put(new: str, root: str) -> None:
    """Rename ``new`` to ``root``; an unsound ``root`` gives way, one made meanwhile stays."""
    import shutil

    try:
        os.rename(new, root)
    except OSError:
        if is_sound(root):
            return
        aside = new + ".old"
        os.rename(root, aside)
        os.rename(new, root)
        if os.path.islink(aside) or not os.path.isdir(aside):
            os.unlink(aside)
        else:
            shutil.rmtree(aside, ignore_errors=True)


def unpack(archive: str, new: str, root: str, tag: str) -> None:
    """Unpack and compile ``archive`` into the empty directory ``new``, to be renamed to ``root``.

    Raises Damaged when the archive's content is not what its manifest says.
    """
    import hashlib
    import zipfile
    import zlib

    sizes = {}
    try:
        with zipfile.ZipFile(archive) as file:
            content, listed = read_manifest(file.read(MANIFEST))
            if hashlib.sha256(listed).hexdigest() != content:
                raise ValueError(f"{MANIFEST} was changed")
            if not os.path.basename(root).startswith(content[:20]):
                raise ValueError("it was replaced during the start")
            for line in listed.decode("utf-8").splitlines():
                digest, _, path = line.split(" ", 2)
                target = destination(path, tag)
                if target is None:
                    continue
                data = file.read(path)
                if hashlib.sha256(data).hexdigest() != digest:
                    raise ValueError(f"{path} was changed")
                _write(os.path.join(new, target), data)
                sizes[target] = len(data)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError) as error:
        raise Damaged(f"{archive} is damaged, get or build it again: {error}") from error
    sizes.update(compile_all(new, root, list(sizes)))
    _write(os.path.join(new, LOCK), b"")
    lines = [f"{size} {path}\n" for path, size in sorted(sizes.items())]
    _write(os.path.join(new, runtime.UNPACKED_MARK), "".join(lines).encode("utf-8"))


def read_manifest(data: bytes) -> tuple[str, bytes]:
    """Return the content hash and the list it is the hash of, from the archive's manifest."""
    content, _, listed = data.partition(b"\n")
    return content.decode("ascii"), listed


def destination(path: str, tag: str) -> str | None:
    """Return where a file of the archive lies in a build, or None when it is not for this platform.

    Without an extension that fits, psutil stays out altogether, so that an installed one is found.
    """
    if path.startswith(NATIVE):
        own = f"{NATIVE}{tag}/"
        return path[len(own) :] if tag and path.startswith(own) else None
    if not tag and path.startswith(("psutil/", "psutil-")):
        return None
    return path


def _write(path: str, data: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)


def compile_all(new: str, root: str, paths: list[str]) -> dict[str, int]:
    """Compile the modules among ``paths`` below ``new``; return path → size of the byte code.

    Tracebacks will name the sources where they are going to lie, below ``root``. The byte code is
    of the kind that is not compared with its source at import: the directory is ours, its sizes
    are checked at start, and a look at 300 sources is saved. It is written also where Python is
    told to write none (``PYTHONDONTWRITEBYTECODE``), since that is about other people's folders.
    A module that does not compile under this Python is left to fail when somebody imports it.
    """
    import py_compile
    import warnings

    level = sys.flags.optimize
    suffix = f".{sys.implementation.cache_tag}{f'.opt-{level}' if level else ''}.pyc"
    sizes = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in paths:
            if not path.endswith(".py"):
                continue
            folder, file = os.path.split(path)
            compiled = os.path.join(folder, "__pycache__", file[:-3] + suffix)
            with suppress(py_compile.PyCompileError):
                py_compile.compile(
                    os.path.join(new, path),
                    os.path.join(new, compiled),
                    dfile=os.path.join(root, path),
                    doraise=True,
                    invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
                )
                sizes[compiled] = os.stat(os.path.join(new, compiled)).st_size
    return sizes


def prune(place: str, keep: str) -> None:
    """Remove builds that no process uses: all but the newest few, and old ones in any case."""
    import fcntl
    import shutil

    builds = []
    now = time.time()
    for entry in os.scandir(place):
        try:
            if entry.name.startswith(".new-"):  # its maker was killed
                if now - entry.stat(follow_symlinks=False).st_mtime > LEFTOVER_S:
                    shutil.rmtree(entry.path, ignore_errors=True)
            elif entry.name != keep and entry.is_dir(follow_symlinks=False):
                used = os.stat(os.path.join(entry.path, LOCK)).st_mtime
                builds.append((used, entry.path))
        except OSError:
            continue
    builds.sort(reverse=True)
    for rank, (used, path) in enumerate(builds, start=2):
        if rank <= KEEP_BUILDS and now - used < KEEP_S:
            continue
        with suppress(OSError):
            with open(os.path.join(path, LOCK), "r+b") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                gone = os.path.join(place, f".new-{os.path.basename(path)}.old")
                os.rename(path, gone)
                shutil.rmtree(gone, ignore_errors=True)


# -- the way in --------------------------------------------------------------------------------


def enter(archive: str, args: list[str]) -> str:
    """Leave the archive: make everything importable from its build, or from a copy in memory.

    Called by the archive's ``__main__``, whose entry is the first of ``sys.path``. Afterwards no
    module of minihub is loaded, and importing one gets it from the new place; the archive is not
    read again. Returns one line when that cannot be done, else ``""``.
    """
    entry, sys.path[0] = sys.path[0], archive
    runtime.drop_relative_path_entries()
    content, listed = read_manifest(__spec__.loader.get_data(MANIFEST))
    tag = platform_tag()
    if f" {NATIVE}{tag}/".encode() not in listed:
        tag = ""
    name = build_name(content, tag or "any")
    try:
        root = _settle(archive, name, tag, make_it=not runtime.is_light(args))
    except Damaged as error:
        return str(error)

    if root is not None:
        sys.path[0] = root
    else:
        from minihub import zipform

        zipform.enter(archive, f"{NATIVE}{tag}/" if tag else "")
        sys.path.remove(archive)
    for path in [p for p in sys.path_importer_cache if p.startswith((entry, archive))]:
        del sys.path_importer_cache[path]
    for module in [m for m in sys.modules if m == "minihub" or m.startswith("minihub.")]:
        del sys.modules[module]
    return ""


def _settle(archive: str, name: str, tag: str, make_it: bool) -> str | None:
    """Return the build to run from, held, or None when there is none and none can be made."""
    refused = []
    for place in places():
        root = existing(place, name)
        try:
            if root is None and make_it:
                root = make(archive, place, name, tag)
        except (OSError, Unusable) as error:
            reason = f"gives: {error.strerror}" if isinstance(error, OSError) else str(error)
            refused.append(f"{place} {reason}")
            continue
        if root is not None and hold(root):
            break
    else:
        root = None
    if refused and os.environ.get("MINIHUB_CACHE"):
        _say(f"MINIHUB_CACHE is not used: {refused[0]}")
    if make_it and root is None:
        _say(
            "starts slowly, since there is no private place to unpack to; set MINIHUB_CACHE to a"
            f" directory of your own ({'; '.join(refused)})"
        )
    return root


def _say(text: str) -> None:
    with suppress(OSError):
        sys.stderr.write(f"minihub: {text}\n")
