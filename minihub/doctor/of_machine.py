"""Checks of the machine and of the programs that servers run: versions, limits, users.

Rules of this file: as in :mod:`minihub.doctor`. The interpreter of the servers is asked for the
versions of its packages, by a script that imports none of them.

Threads: as in :mod:`minihub.doctor.patient`.
"""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Iterator

from .. import __version__, clock, machine, runtime
from ..auth.osusers import system_user
from ..limits import size
from ..local import INSTALLED_PROGRAMS, LocalProcessSpawner, find_command, how_to_install
from ..warmplan import NotWarm
from ..warmplan import find_command as find_python_program
from .finding import Word, check, fail, fine, unseen, warn
from .patient import Patient

#: The month in which a Python gets its last security fix (https://devguide.python.org/versions/).
LAST_FIXES = {(3, 10): "2026-10", (3, 11): "2027-10", (3, 12): "2028-10", (3, 13): "2029-10",
              (3, 14): "2030-10"}  # fmt: skip
#: A proxied WebSocket takes two descriptors, and a JupyterLab has six open.
FILES_OF_ONE = 14
FILES_OF_HUB = 128
LITTLE_MEMORY_BYTES = 256 * 1024**2
#: Packages of servers, the first version of each line without a published hole, and what it was.
HOLES: dict[str, list[tuple[str, str]]] = {
    "jupyter_server": [("2.20.0", "CVE-2026-44727: a notebook can take over whoever converts it")],
    "jupyterlab": [
        ("4.6.2", "CVE-2026-73415: an image can run code as whoever opens it"),
        ("4.5.10", "CVE-2026-73415: an image can run code as whoever opens it"),
    ],
    "notebook": [("6.4.12", "CVE-2022-29238: hidden files are shown")],
}
_VERSIONS = """\
import importlib.metadata as m, json, sys
found = {"python": "%d.%d.%d" % sys.version_info[:3]}
for name in sys.argv[1:]:
    try:
        found[name] = m.version(name)
    except m.PackageNotFoundError:
        pass
print(json.dumps(found))
"""
ASKED = ("jupyterhub", "jupyter_server", "jupyterlab", "notebook", "ipykernel", "tornado")


@check(
    "python",
    "This Python still gets security fixes",
    "A hole that is found in it stays open.",
)
def python(patient: Patient) -> Iterator[Word]:
    version = tuple(sys.version_info[:2])
    last = LAST_FIXES.get(version, "")
    if last and f"{clock.utcnow():%Y-%m}" > last:
        yield warn(f"Python {platform.python_version()} gets none since {last}",
                   "python3.13 minihub.pyz")  # fmt: skip
    yield fine(f"minihub {__version__}, {runtime.describe_platform()}, SQLite "
               f"{sqlite3.sqlite_version}")  # fmt: skip


@check(
    "unpacked",
    "minihub.pyz could unpack itself",
    "Every start, and every command, takes longer.",
)
def unpacked(patient: Patient) -> Iterator[Word]:
    if runtime.form() == "zip":
        yield warn(
            "there is no private place to unpack to",
            "mkdir -m 700 -p ~/.cache && export MINIHUB_CACHE=~/.cache/minihub",
        )
    yield fine(runtime.form())


@check(
    "descriptors",
    "The proxy may open enough files for everybody",
    "Beyond the limit nobody more gets a connection, and pages hang.",
)
def descriptors(patient: Patient) -> Iterator[Word]:
    ((users,),) = patient.rows("SELECT count(*) FROM users")
    expected = patient.options.active_server_limit or users
    need = FILES_OF_HUB + FILES_OF_ONE * expected
    have = 0
    if patient.hub is not None and patient.proxy is not None:
        have = machine.descriptor_limit(patient.proxy.pid)
    if not have:
        have = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # the hub takes all it may have
    if have == resource.RLIM_INFINITY:
        have = 2**31
    if have < need:
        wanted = 2 ** (need - 1).bit_length()
        yield warn(
            f"{have} may be open, and {expected} people at once need some {need}",
            f"ulimit -n {wanted}  # in the shell that starts the hub; in a service: "
            f"LimitNOFILE={wanted}",
        )
    yield fine(str(have))


@check(
    "memory",
    "There is memory for another server",
    "The system ends whatever it likes: somebody's server, or the hub.",
)
def memory(patient: Patient) -> Iterator[Word]:
    free = machine.free_memory_bytes()
    promised = getattr(patient.spawner, "mem_guarantee", None) or 0
    if promised > free:
        yield warn(
            f"{size(free)} are free, and Spawner.mem_guarantee promises {size(promised)}: no "
            "server starts",
            patient.command(f"--Spawner.mem_guarantee={max(1, free // 4 // 1024**2)}M"),
        )
    elif free < LITTLE_MEMORY_BYTES:
        yield warn(f"{size(free)} are free", patient.command("server", "list"))
    yield fine(f"{size(free)} are free")


@check(
    "accounts",
    "Users of the hub are users of the system",
    "The servers of those who are not do not start.",
)
def accounts(patient: Patient) -> Iterator[Word]:
    spawner = patient.spawner
    if not isinstance(spawner, LocalProcessSpawner) or not spawner.changes_user:
        return
    if os.geteuid() != 0 or getattr(patient.authenticator, "create_system_users", False):
        return
    names = [name for (name,) in patient.rows("SELECT name FROM users ORDER BY name")]
    absent = [name for name in names if system_user(name) is None]
    if absent:
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        yield warn(
            f"{', '.join(absent[:3])}{more}: this machine has no such user",
            *(f"useradd --create-home {name}" for name in absent[:3]),
        )


# -- the program of the servers ------------------------------------------------------------


@check(
    "server-program",
    "The program that every server runs is there",
    "No server starts.",
)
def server_program(patient: Patient) -> Iterator[Word]:
    spawner = patient.spawner
    if not isinstance(spawner, LocalProcessSpawner) or not spawner.cmd:
        return
    program = find_command(spawner.cmd[0], patient.path)
    if program is None:
        mend = how_to_install(spawner.cmd[0]).removeprefix("Install it: ")
        yield fail(f"there is no program {spawner.cmd[0]} on the PATH of the hub", mend)
        return
    yield fine(program)


def server_packages(patient: Patient) -> tuple[str, dict[str, str]]:
    """Return the interpreter of the servers and the versions of its packages.

    Empty where the program is no Python program, or cannot be asked.
    """
    spawner = patient.spawner
    if not isinstance(spawner, LocalProcessSpawner) or not spawner.cmd:
        return "", {}
    try:
        command = find_python_program(spawner.cmd[0], spawner.path_of(patient.path))
    except NotWarm:
        return "", {}
    done = subprocess.run(
        [command.interpreter, "-I", "-c", _VERSIONS, *ASKED],
        capture_output=True, text=True, timeout=15, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        return command.interpreter, json.loads(done.stdout)
    except ValueError:
        return command.interpreter, {}


@check(
    "jupyter",
    "What servers run is complete and without known holes",
    "Servers end at their start, or a prepared file takes over whoever opens it.",
)
def jupyter(patient: Patient) -> Iterator[Word]:
    spawner = patient.spawner
    interpreter, found = server_packages(patient)
    if not interpreter:
        return
    if not found:
        yield unseen(f"{interpreter} does not run")
        return
    pip = f"{interpreter} -m pip install --upgrade"
    if os.path.basename(spawner.cmd[0]) in INSTALLED_PROGRAMS:
        if not {"jupyter_server", "notebook"} & found.keys():
            yield fail(
                f"{interpreter} has neither jupyter_server nor notebook", f"{pip} jupyterlab"
            )
    for package, lines in HOLES.items():
        version = found.get(package)
        if version and (hole := _hole(version, lines)):
            fixed, what = hole
            yield warn(f"{package} {version} is older than {fixed} ({what})", f"{pip} {package}")
    yield fine(", ".join(f"{name} {version}" for name, version in found.items()))


def _hole(version: str, lines: list[tuple[str, str]]) -> tuple[str, str] | None:
    """Return the version to have and why; None for one that is new enough.

    A version belongs to the line of its first two numbers; without one of its own, to the newest.
    """
    has = _numbers(version)
    own = [line for line in lines if _numbers(line[0])[:2] == has[:2]]
    fixed, what = (own or lines)[0]
    return (fixed, what) if has < _numbers(fixed) else None


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)[:3]]
