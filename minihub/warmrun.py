"""Starts one of our own modules in the users' interpreter, as whom it is to run there.

The module comes as source, together with those that it needs, in a file without a name that the
process inherits and leaves its answer in: no directory of ours is on its path.

Rules of this file: it starts and reads, and knows nothing of what the modules do.

Threads: any; nothing is shared.
"""

from __future__ import annotations

import importlib.resources
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

from . import warmroot
from .warmplan import NotWarm, Plan

#: The code that runs in the users' interpreter, by name of the module.
SOURCES = (
    "warmparent",
    "warmchild",
    "warmstale",
    "warmready",
    "warmlearn",
    "launcher",
    "warmguard",
    "warmrights",
)
#: Runs one of them from the description, so that no directory of ours is on its path.
BOOTSTRAP = (
    "import json,sys;exec(json.load(open(int(sys.argv[2]),closefd=False))['sources'][sys.argv[3]])"
)
#: The most that such a process has to tell.
MOST_TOLD_BYTES = 64 * 2**20


def _sources() -> dict[str, str]:
    ours = importlib.resources.files("minihub")
    return {name: ours.joinpath(f"{name}.py").read_text("utf-8") for name in SOURCES}


def run(
    plan: Plan,
    module: str,
    setup: dict[str, Any],
    control: int,
    output: BinaryIO,
    cwd: Path,
    uid: int | None = None,
) -> tuple[subprocess.Popen[bytes], BinaryIO]:
    """Start one of our modules; return the process and the file of its description.

    With ``uid`` it runs as that id; a parent may then change user, what learns may do nothing.
    """
    place = tempfile.TemporaryFile()
    place.write(json.dumps(setup | {"sources": _sources()}).encode())
    place.flush()
    place.seek(0)
    command = plan.command
    words = [*command.argv[:-1], "-c", BOOTSTRAP, str(control), str(place.fileno()), module]
    if uid is not None:
        keep = module == "warmparent"
        words[1:1] = ["-S"] if keep else []  # nothing of packages runs before it is guarded
        words[:0] = warmroot.descent(uid, keep=keep)
    try:
        popen = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(setup["env"]),
            cwd=cwd,
            pass_fds=(control, place.fileno()),
            start_new_session=True,
        )
    except OSError as error:
        place.close()
        raise NotWarm(f"{command.interpreter} cannot be run: {error.strerror}") from error
    return popen, place


def read(place: BinaryIO) -> dict[str, Any]:
    """Return what the process left in the file of its description. Raises NotWarm."""
    place.seek(0)
    try:
        found = json.loads(place.read(MOST_TOLD_BYTES))
    except ValueError:
        found = {}
    finally:
        place.close()
    if "sources" in found or not found:
        raise NotWarm("it ended at once")
    return found
