#!/usr/bin/env python3
"""Build minihub.pyz and run a demonstration hub with a real JupyterLab.

Usage: python3 scripts/demo.py [-y] [option of minihub.pyz ...]

The hub runs in the directory ``demo``. The first lines it prints hold the link that makes you its
owner; everybody else logs in with a name of their own and the password printed here.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys

import environments


def main() -> int:
    arguments = sys.argv[1:]
    yes = "-y" in arguments
    if yes:
        arguments.remove("-y")
    build = [sys.executable, str(environments.ROOT / "build_zipapp.py")]
    if subprocess.run(build).returncode:
        return 1
    lab = environments.find_lab()
    if lab is None:
        print("JupyterLab was not found. It would go into the virtual environment .venv-lab here.")
        if not yes and input("Install it now? [Y/n] ").strip().lower() not in ("", "y", "yes"):
            return 1
        lab = environments.ensure("lab", environments.LAB)
    place = environments.ROOT / "demo"
    place.mkdir(exist_ok=True)
    password = secrets.token_hex(4)
    print(f"\nOthers log in with any name and the password {password}\n", flush=True)
    command = [
        sys.executable,
        str(environments.ROOT / "minihub.pyz"),
        "--JupyterHub.authenticator_class=shared-password",
        f"--SharedPasswordAuthenticator.user_password={password}",
        "--SharedPasswordAuthenticator.allow_all=True",
        "--JupyterHub.spawner_class=simple",
        f"--Spawner.cmd={lab / 'jupyterhub-singleuser'}",
        "--Spawner.default_url=/lab",
        *arguments,
    ]
    os.chdir(place)
    sys.stdout.flush()
    os.execv(command[0], command)


if __name__ == "__main__":
    sys.exit(main())
