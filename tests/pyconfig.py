"""Python configuration files for tests: what every test hub is told, and a test's own lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness import DEFAULTS, merge


def write(path: Path, lines: str, changes: dict[str, Any] | None = None) -> tuple[str, str]:
    """Write the file; return the arguments that make a hub read it.

    ``changes`` go over the defaults of tests, ``lines`` over both.
    """
    settings = json.dumps(merge(DEFAULTS, changes or {}))
    text = (
        "import json\n"
        f"for section, values in json.loads({settings!r}).items():\n"
        "    for name, value in values.items():\n"
        "        setattr(c[section], name, value)\n"
    )
    path.write_text(text + lines)
    return "-f", str(path)
