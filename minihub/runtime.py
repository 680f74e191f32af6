"""How this minihub was started, and how to start another process of it.

minihub runs in one of three forms: from a ``checkout`` (or an installation), from the ``cache``
(the unpacked copy of minihub.pyz, :mod:`minihub.bundle`), or from the ``zip`` itself, held in
memory, where there was no place to unpack it (:mod:`minihub.zipform`).

Rules of this file: standard library only, and little of it, since every verb imports it. Nobody
else builds a command line that starts minihub again.

Threads: any, except :func:`drop_relative_path_entries`, which runs before there are any.
"""

from __future__ import annotations

import os
import sys

#: What a checkout needs installed: module, and the distribution it comes from.
DEPENDENCIES = {
    "bottle": "bottle",
    "jinja2": "jinja2",
    "oauthlib": "oauthlib",
    "pamela": "pamela",
    "peewee": "peewee",
    "prometheus_client": "prometheus_client",
    "psutil": "psutil",
    "statsd": "statsd",
    "traitlets": "traitlets",
    "waitress": "waitress",
    "yaml": "pyyaml",
}

#: Verbs that need the standard library only and never wait for the archive to be unpacked.
LIGHT_VERBS = ("proxy", "cull")

#: Beside the configuration: what a service's unit reads the hub's environment from.
ENVIRONMENT_FILE = "minihub.env"

#: Lies beside the package in an unpacked copy, and only there.
UNPACKED_MARK = "unpacked.manifest"

#: glibc's parameter (mallopt(3)), and from which size on a block is given back at once.
_M_MMAP_THRESHOLD = -3
_BIG_BLOCK = 2**20


def archive() -> str | None:
    """Return the absolute path of minihub.pyz when its code runs from the archive, else None."""
    return getattr(__spec__.loader, "archive", None)


def _package_directory() -> str:
    return os.path.dirname(os.path.abspath(__file__))


def form() -> str:
    """Return ``"checkout"``, ``"cache"`` or ``"zip"``."""
    if archive() is not None:
        return "zip"
    parent = os.path.dirname(_package_directory())
    return "cache" if os.path.exists(os.path.join(parent, UNPACKED_MARK)) else "checkout"


def is_light(args: list[str]) -> bool:
    """Tell whether this command line needs nothing but the standard library."""
    return bool(args) and args[0] in LIGHT_VERBS


def _interpreter(*flags: str) -> list[str]:
    # -O has to travel: byte code is looked up by it.
    optimize = ["-" + "O" * sys.flags.optimize] if sys.flags.optimize else []
    return [sys.executable or "python3", *optimize, *flags]


def self_command(*args: str) -> list[str]:
    """Return the argv that starts this same minihub again with these arguments.

    The new process is isolated (``-I``: no ``PYTHON*`` environment, no user site, nothing of the
    current directory); ``proxy`` also goes without site-packages (``-S``), which it does not need
    and which cost 60 ms.
    """
    flags = ["-I", "-S"] if args[:1] == ("proxy",) else ["-I"]
    program = archive() or os.path.join(_package_directory(), "__main__.py")
    return [*_interpreter(*flags), program, *args]


def own_command() -> list[str]:
    """Return the argv with which people start this minihub: their file, not its unpacked copy."""
    return [*_interpreter(), os.path.abspath(sys.argv[0])]


def typed_command() -> str:
    """Return what people type to start this minihub again in the same directory."""
    import shlex

    started = sys.argv[0]
    if started.endswith("__main__.py"):
        return "python3 -m minihub"
    if archive() is None and not started.endswith(".pyz"):
        return os.path.basename(started)
    return shlex.join(["python3", started])


def script_command(module: str, *args: str) -> list[str]:
    """Return the argv that runs one module of ours as a script, with ``-I -S``.

    ``module`` is a dotted name such as ``"minihub.launcher"`` and must import the standard library
    only: nothing of minihub is importable there. In the zip form its source is given by ``-c``,
    so ``__file__`` is not defined and ``sys.argv[0]`` is ``-c``.
    """
    if archive() is not None:
        program = ["-c", __spec__.loader.get_source(module)]
    else:
        path = os.path.join(_package_directory(), *module.split(".")[1:]) + ".py"
        program = [path]
    return [*_interpreter("-I", "-S"), *program, *args]


def missing_packages() -> str:
    """Return one line that names the packages to install and how, or ``""`` when all are there.

    Every form but the checkout carries its packages, save psutil on a platform for which
    minihub.pyz has none.
    """
    from importlib.util import find_spec

    where = form()
    needed = DEPENDENCIES if where == "checkout" else {"psutil": "psutil"}
    missing = [dist for module, dist in needed.items() if find_spec(module) is None]
    if not missing:
        return ""
    install = f"{sys.executable} -m pip install {' '.join(missing)}"
    if where == "checkout":
        return f"this checkout needs packages that {sys.executable} does not have: {install}"
    if where == "zip":
        return (
            "psutil cannot be loaded without unpacking it, and none is installed: set"
            f" MINIHUB_CACHE to a directory of your own, or {install}"
        )
    return (
        f"minihub.pyz carries no psutil for this Python ({describe_platform()}), and none is"
        f" installed: {install} (Debian and Ubuntu, for /usr/bin/python3: apt install"
        " python3-psutil)"
    )


def describe_platform() -> str:
    """Return interpreter and machine in a few words, such as ``CPython 3.13t, linux armv7l``."""
    name = {"cpython": "CPython", "pypy": "PyPy"}.get(
        sys.implementation.name, sys.implementation.name
    )
    version = f"{sys.version_info[0]}.{sys.version_info[1]}{getattr(sys, 'abiflags', '')}"
    bits = "" if sys.maxsize > 2**32 else ", 32 bit"
    return f"{name} {version}, {sys.platform} {os.uname().machine}{bits}"


def drop_relative_path_entries() -> None:
    """Take off ``sys.path`` what an empty or relative element of PYTHONPATH put there.

    ``PYTHONPATH=$PYTHONPATH:/srv/lib`` with the variable unset begins with an empty element, which
    means the current directory: whatever lies there would be imported. Absolute elements stay,
    also one that names the current directory: somebody meant it.
    """
    given = "" if sys.flags.ignore_environment else os.environ.get("PYTHONPATH", "")
    sys.path[:] = without_relative(sys.path, given)


def without_relative(path: list[str], pythonpath: str) -> list[str]:
    """Return ``path`` without relative entries and those ``pythonpath`` names relatively."""
    elements = pythonpath.split(os.pathsep) if pythonpath else []
    meant = {os.path.normpath(e) for e in elements if os.path.isabs(e)}
    try:
        stray = {os.path.abspath(e) for e in elements if not os.path.isabs(e)} - meant
    except OSError:  # the current directory was removed: nothing can be imported from it
        stray = set()
    return [e for e in path if os.path.isabs(e) and os.path.normpath(e) not in stray]


def install_line(*packages: str, prefix: str = "", marker: str = "") -> str:
    """Return the command that installs packages for this Python.

    Debian, Ubuntu and others mark their Python as theirs: there pip refuses to install anything
    outside a virtual environment. ``prefix`` and ``marker`` are this Python's unless given.
    """
    wanted = " ".join(packages)
    marker = marker or os.path.join(os.path.dirname(os.__file__), "EXTERNALLY-MANAGED")
    if (prefix or sys.prefix) != sys.base_prefix or not os.path.exists(marker):
        return f"python3 -m pip install {wanted}"
    return (
        f"python3 -m venv jupyter && jupyter/bin/pip install {wanted}, "
        "and start the hub with PATH=$PWD/jupyter/bin:$PATH before its command"
    )


def give_back_memory() -> None:
    """Have big blocks of memory go back to the system as soon as they are freed.

    Each password that is looked at takes 16 MiB for a moment. glibc learns from the first of these
    to keep such blocks, for every thread; told a limit, it does not learn. Elsewhere nothing
    happens, nor is there need.
    """
    try:
        import ctypes

        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _BIG_BLOCK)
    except (ImportError, OSError, AttributeError):
        pass
