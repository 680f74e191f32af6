#!/usr/bin/env python3
"""Build minihub.pyz and run a demonstration hub with a real JupyterLab.

Usage: python3 scripts/demo.py [-y] [option of minihub.pyz ...]

The hub runs in the directory ``demo``, where its configuration and data are. At its first start
it prints a link that makes you its owner; everybody else logs in with a name of their own and the
password printed here. ``-y`` answers yes to the question whether JupyterLab may be installed. The
options are the hub's: ``--port 8080`` for another port, ``--ip 0.0.0.0`` to let other machines in.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

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
    password, own_password = secrets.token_hex(5), secrets.token_hex(16)
    classes = {
        "JupyterHub": {
            "ip": "127.0.0.1",
            "authenticator_class": "shared-password",
            "spawner_class": "simple",
        },
        "Authenticator": {"allow_all": True},
        "SharedPasswordAuthenticator": {
            "user_password": password,
            "admin_password": own_password,
        },
        "Spawner": {"cmd": [str(lab / "jupyterhub-singleuser")]},
    }
    if os.getuid() == 0:
        print(ROOT_WARNING)
        classes["Spawner"]["args"] = ["--allow-root"]
    print("\nAt the first start the link below makes you the owner.")
    print(f"Others log in with any name and the password {password}")
    print(f"The owner, to log in again: {own_password}\n")
    sys.stdout.flush()
    _configure(classes)
    command = [sys.executable, str(environments.ROOT / "minihub.pyz"), *arguments]
    os.execv(command[0], command)


def _configure(classes: dict[str, dict[str, object]]) -> None:
    """Go to the directory ``demo`` and write the configuration, for our eyes only, into it."""
    place = environments.ROOT / "demo"
    place.mkdir(mode=0o700, exist_ok=True)
    os.chdir(place)
    Path("minihub.yaml").unlink(missing_ok=True)
    descriptor = os.open("minihub.yaml", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write("# scripts/demo.py writes this anew each time.\n")
        file.write(json.dumps(classes, indent=2) + "\n")


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
