#!/usr/bin/env python3
"""Ask whether a package that is built into minihub.pyz has a known weakness.

Usage: python3 scripts/audit.py

Runs pip-audit, from an environment of its own, on requirements.lock. Where it cannot be installed,
or nobody who knows of weaknesses can be asked, that is said and is no failure: the answer depends
on the network and not on this checkout. The whole takes a minute at most.

Exit code: 0 when no weakness is known, or nobody could be asked; 1 when there is one.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
INSTALL_LIMIT_S = 35
ASK_LIMIT_S = 20
ENVIRONMENT = "import environments; print(environments.ensure('audit', ('pip-audit',)))"
#: Nothing is resolved or installed: each package is locked with its hashes.
ASK = ("--disable-pip", "--require-hashes", "--progress-spinner", "off", "--timeout", "5")


class NotAsked(Exception):
    """Raised when nothing can be found out; the message says why."""


def main() -> int:
    try:
        return report(ask([str(tool())], LOCK))
    except NotAsked as reason:
        print(f"Not audited: {reason}")
        return 0


def tool() -> Path:
    """Return pip-audit, installed if need be. Raises NotAsked."""
    out = _run([sys.executable, "-c", ENVIRONMENT], INSTALL_LIMIT_S, "installing pip-audit")
    program = Path(out.strip().rpartition("\n")[2]) / "pip-audit"
    if not program.exists():
        raise NotAsked(f"pip-audit cannot be installed: {_last_line(out)}")
    return program


def ask(program: list[str], lock: Path, limit_s: float = ASK_LIMIT_S) -> list[dict[str, Any]]:
    """Return what pip-audit says of each package of a lock file. Raises NotAsked."""
    out = _run([*program, *ASK, "--format", "json", "--requirement", str(lock)], limit_s, "asking")
    for line in out.splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return json.loads(line)["dependencies"]
    raise NotAsked(f"pip-audit says {_last_line(out)!r}")


def report(packages: list[dict[str, Any]]) -> int:
    """Tell of each weakness, and of who could not be looked up; return the exit code."""
    count = 0
    for package in packages:
        for found in package.get("vulns", ()):
            count += 1
            mended = ", ".join(found.get("fix_versions", ())) or "no version yet"
            names = " ".join([found["id"], *found.get("aliases", ())])
            print(f"{package['name']} {package['version']}: {names}, mended in {mended}")
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    if len(unknown) == len(packages):
        print(f"Not audited: the index knows nothing of any of {len(packages)} packages")
    elif unknown:
        print(f"Not audited: {', '.join(unknown)}")
    if count:
        print(f"{count} known weaknesses in what is built into minihub.pyz.")
        return 1
    if len(unknown) < len(packages):
        print(f"No known weakness in {len(packages) - len(unknown)} packages.")
    return 0


def _run(command: list[str], limit_s: float, what: str) -> str:
    """Return all that a command prints. Raises NotAsked when it cannot run or takes too long."""
    try:
        process = subprocess.Popen(
            command,
            cwd=ROOT / "scripts",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    except OSError as error:
        raise NotAsked(f"{command[0]}: {error.strerror}") from error
    try:
        return process.communicate(timeout=limit_s)[0]
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise NotAsked(f"{what} took more than {limit_s:g} s") from None


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2][:300]


if __name__ == "__main__":
    sys.exit(main())
