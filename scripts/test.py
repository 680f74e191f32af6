#!/usr/bin/env python3
"""Run every check and every test of the project.

Usage: python3 scripts/test.py [argument of pytest ...]

Makes what it needs: a virtual environment for the tests, one with a real JupyterLab and, where it
runs as root on Debian or Ubuntu, Chromium. The results of the browser tests are kept in
``tests/artifacts``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import environments

#: Debian packages the tests use, and a program of each.
PROGRAMS = {"chromium": "chromium", "setpriv": "util-linux"}


def main() -> int:
    os.chdir(environments.ROOT)
    _install_programs()
    bin_dir = environments.ensure("test", (), editable="test")
    lab = environments.ensure("lab", environments.LAB)
    python = str(bin_dir / "python")
    environment = os.environ | {"MINIHUB_TEST_LAB_BIN": str(lab)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    steps = [
        [str(bin_dir / "ruff"), "check", "."],
        [str(bin_dir / "ruff"), "format", "--check", "."],
        [python, "build_zipapp.py", "-o", "build/minihub.pyz"],
    ]
    environment["MINIHUB_PYZ"] = str(environments.ROOT / "build" / "minihub.pyz")
    (environments.ROOT / "build").mkdir(exist_ok=True)
    arguments = sys.argv[1:] or ["-n", "3", "--dist", "loadgroup", "tests"]
    steps.append([python, "-m", "pytest", *arguments])
    for step in steps:
        print("+", " ".join(step), flush=True)
        code = subprocess.run(step, env=environment).returncode
        if code:
            return code
    return 0


def _install_programs() -> None:
    missing = [package for program, package in PROGRAMS.items() if not shutil.which(program)]
    if not missing:
        return
    if os.getuid() != 0 or not shutil.which("apt-get"):
        sys.exit(f"The tests need: {' '.join(missing)}. On Debian: sudo apt install …")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], env=quiet, check=True)
    subprocess.run(["apt-get", "install", "-y", "-qq", *missing], env=quiet, check=True)


if __name__ == "__main__":
    sys.exit(main())
