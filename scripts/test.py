#!/usr/bin/env python3
"""Run every check and every test of the project.

Usage: python3 scripts/test.py [argument of pytest ...]

Makes what it needs: a virtual environment for the tests, one with a real JupyterLab, the node
program configurable-http-proxy and, where it runs as root on Debian or Ubuntu, Chromium and the
database servers PostgreSQL and MariaDB, which the tests start in directories of their own. The
pictures that the browser tests take are kept in ``tests/artifacts``. With arguments, pytest is
given these instead of the whole suite.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import environments

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


def main() -> int:
    os.chdir(environments.ROOT)
    _install_programs()
    tools = environments.ensure("test", python=environments.public_python(), extra="test")
    lab = environments.ensure_lab()
    old = environments.ensure_old()
    chp = environments.ensure_chp()
    python = str(tools / "python")
    environment = os.environ | {
        "MINIHUB_TEST_LAB_BIN": str(lab),
        "MINIHUB_TEST_CHP": str(chp),
        "MINIHUB_TEST_OLD_BIN": str(old),
        "MINIHUB_PYZ": str(PYZ),
    }
    # Waiting is most of what the tests do: more at once than there are cores. A file stays with
    # one worker, so that what its tests share is started once.
    together = ["-n", str((os.cpu_count() or 1) + 1), "--dist", "loadfile"]
    pytest = [python, "-m", "pytest"]
    tests = [[*pytest, "-q", *together, "tests"]]
    if len(sys.argv) > 1:
        tests = [[*pytest, *sys.argv[1:]]]
    PYZ.parent.mkdir(exist_ok=True)
    steps = [
        [str(tools / "ruff"), "check", "--quiet", "."],
        [str(tools / "ruff"), "format", "--quiet", "--check", "."],
        [python, "build_zipapp.py", "-o", str(PYZ)],
        *tests,
    ]
    for step in steps:
        print("+", " ".join(step), flush=True)
        code = subprocess.run(step, env=environment).returncode
        if code:
            return code
    return 0


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
