#!/usr/bin/env python3
"""Run every check and every test of the project.

Usage: python3 scripts/test.py [argument of pytest ...]

Makes what it needs: a virtual environment for the tests, one with a real JupyterLab, the node
program configurable-http-proxy and, where it runs as root on Debian or Ubuntu, Chromium and the
database servers PostgreSQL and MariaDB, which the tests start in directories of their own. The
pictures that the browser tests take are kept in ``tests/artifacts``. With arguments, pytest is
given these instead of the whole suite.

Of the whole suite, many tests run at once, and some judge real processes by the clock: a few that
fail are run once more, alone, and are named. Who fails alone too fails the run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import environments

#: So many tests may owe their failure to the others beside them; more are no accident.
FEW = 12
#: Programs the tests use, and the Debian package of each.
PROGRAMS = {
    "caddy": "caddy",
    "chromium": "chromium",
    "mariadb-install-db": "mariadb-server",
    "nginx": "nginx-light",
    "npm": "npm",
    "openssl": "openssl",
    "pg_createcluster": "postgresql",
}
PYZ = environments.ROOT / "build" / "minihub.pyz"
FAILED = environments.ROOT / ".pytest_cache" / "v" / "cache" / "lastfailed"


def main() -> int:
    os.chdir(environments.ROOT)
    _install_programs()
    tools = environments.ensure("test", python=environments.public_python(), extra="test")
    lab = environments.ensure_lab()
    old = environments.ensure_old()
    numpy = environments.ensure_numpy()
    chp = environments.ensure_chp()
    python = str(tools / "python")
    environment = os.environ | {
        "MINIHUB_TEST_LAB_BIN": str(lab),
        "MINIHUB_TEST_CHP": str(chp),
        "MINIHUB_TEST_OLD_BIN": str(old),
        "MINIHUB_TEST_NUMPY_BIN": str(numpy),
        "MINIHUB_PYZ": str(PYZ),
    }
    # Waiting is most of what the tests do: more at once than there are cores. A file stays with
    # one worker, so that what its tests share is started once.
    together = ["-n", str((os.cpu_count() or 1) + 1), "--dist", "loadfile"]
    pytest = [python, "-m", "pytest"]
    PYZ.parent.mkdir(exist_ok=True)
    steps = [
        [str(tools / "ruff"), "check", "--quiet", "."],
        [str(tools / "ruff"), "format", "--quiet", "--check", "."],
        [python, "build_zipapp.py", "-o", str(PYZ)],
    ]
    if len(sys.argv) > 1:
        return _run([*steps, [*pytest, *sys.argv[1:]]], environment)
    if code := _run([*steps, [python, "scripts/audit.py"]], environment):
        return code
    code = _run([[*pytest, "-q", "--cache-clear", *together, "tests"]], environment)
    failed = _failed() if code == 1 else []
    if not 0 < len(failed) <= FEW:
        return code
    print("Once more, alone:", *failed, sep="\n  ", flush=True)
    return _run([[*pytest, "-q", "--last-failed", "--last-failed-no-failures=none"]], environment)


def _run(steps: list[list[str]], environment: dict[str, str]) -> int:
    """Run these commands up to the first that fails, and return the exit code of the last."""
    for step in steps:
        print("+", " ".join(step), flush=True)
        if code := subprocess.run(step, env=environment).returncode:
            return code
    return 0


def _failed() -> list[str]:
    """Return the tests that failed in the last run, as pytest has written them down."""
    try:
        return sorted(json.loads(FAILED.read_text()))
    except (OSError, ValueError):
        return []


def _install_programs() -> None:
    """Install what is missing where that is possible, else say what to install."""
    missing = [package for program, package in PROGRAMS.items() if not shutil.which(program)]
    check = [environments.public_python(), "-I", "-c", "import ensurepip"]
    if subprocess.run(check, stderr=subprocess.DEVNULL).returncode:
        missing.append("python3-venv")
    if not missing:
        return
    if os.getuid() or not shutil.which("apt-get"):
        sys.exit("The tests need programs that are not installed. On Debian and Ubuntu: "
                 f"sudo apt install {' '.join(missing)}")  # fmt: skip
    print(f"Installing {', '.join(missing)} ...", flush=True)
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
        done = subprocess.run(
            ["apt-get", "-qq", *command], env=quiet, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"apt-get {' '.join(command)} failed:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    sys.exit(main())
