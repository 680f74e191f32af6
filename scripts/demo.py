#!/usr/bin/env python3
"""Build minihub.pyz and run a demonstration hub with a real JupyterLab.

Usage: python3 scripts/demo.py [-y] [option of minihub.pyz ...]

The hub runs in the directory ``demo``. What it prints holds the link that makes you its owner;
everybody else logs in with a name of their own and the password printed here. ``-y`` answers yes
to the question whether JupyterLab may be installed. The options are the hub's: ``--port 8080``
for another port, ``--ip 0.0.0.0`` to let other machines in.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys

import environments

ROOT_WARNING = """
WARNING: you are root, so everybody's JupyterLab will run as root, who may do everything on this
machine. That is fit for a throw-away container only; elsewhere run this as an ordinary user.
"""


def main() -> int:
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        print(__doc__.strip())
        return 0
    yes = "-y" in arguments
    if yes:
        arguments.remove("-y")
    build = [sys.executable, str(environments.ROOT / "build_zipapp.py")]
    if subprocess.run(build).returncode:
        return 1
    lab = environments.find_lab()
    if lab is None:
        print(f"\nJupyterLab was not found. It would go into {environments.place()}/.venv-lab,")
        print("a virtual environment of its own (400 MB, from the package index).")
        if not yes and not _agrees("Install it now?"):
            return 1
        lab = environments.ensure_lab()
    place = environments.ROOT / "demo"
    place.mkdir(exist_ok=True)
    password = secrets.token_hex(5)
    command = [
        sys.executable,
        str(environments.ROOT / "minihub.pyz"),
        "--ip=127.0.0.1",
        "--JupyterHub.authenticator_class=shared-password",
        f"--SharedPasswordAuthenticator.user_password={password}",
        "--SharedPasswordAuthenticator.allow_all=True",
        "--JupyterHub.spawner_class=simple",
        "--Spawner.cmd=" + json.dumps([str(lab / "jupyterhub-singleuser")]),
    ]
    if os.getuid() == 0:
        print(ROOT_WARNING)
        command.append("--Spawner.args=" + json.dumps(["--allow-root"]))
    print(f"\nThe link below makes you the owner. Others: any name, password {password}\n")
    sys.stdout.flush()
    os.chdir(place)
    os.execv(command[0], [*command, *arguments])


def _agrees(question: str) -> bool:
    """Return whether the person at the keyboard says yes or just presses Enter."""
    try:
        return input(f"{question} [Y/n] ").strip().lower() in ("", "y", "yes")
    except EOFError:
        print("(no answer; -y says yes)")
        return False


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
