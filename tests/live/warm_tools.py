"""For tests of warm starts: a process started cold or warm, and what it is like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness import until

from minihub import process
from minihub.warm import WarmParent

PROBE = Path(__file__).with_name("warm_probe.py")
MODULES = ("json", "random", "tempfile", "multiprocessing", "wsgiref.handlers", "logging", "uuid")

#: What differs between a cold and a warm start, and why that does not matter.
DIFFERENCES = {
    # A frame or two of ours lie below the program's own: they are seen in tracebacks alone.
    "depth of the stack",
}


def started(argv: list[str], parent: WarmParent | None, **given: Any) -> process.Process:
    """Start a program: warm with a parent, cold without."""
    if parent is None:
        return process.start(argv, **given)
    parent.judge(argv, given["env"])
    return parent.start_server(argv, **given)


def until_there(path: str | Path) -> None:
    """Wait until a program has written all of its JSON object."""
    until(lambda: Path(path).read_text().endswith("}"), 60)


def compared(facts):
    """Return facts that should not depend on how a process was started."""
    marker = facts["environment"].get(process.MARKER, "?")
    text = json.dumps({k: v for k, v in facts.items() if not k.startswith("#")})
    text = text.replace(marker, "MARKER").replace(marker.encode().hex(), "MARKER")
    found = json.loads(text)
    found["main"]["__loader__"] = found["main"]["__loader__"].partition(" at ")[0]
    found["environment in C"] = sorted(found["environment in C"].splitlines())
    return found


def holds(pid, needle):
    """Return whether a process has these bytes anywhere in its memory."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, rights, *_rest = line.split()
        if "r" not in rights or line.endswith(("[vvar]", "[vsyscall]", "[vvar_vclock]")):
            continue
        begin, end = (int(part, 16) for part in span.split("-"))
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            memory.seek(begin)
            if needle in memory.read(end - begin):
                return True
    return False
