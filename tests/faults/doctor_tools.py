"""``minihub.pyz doctor`` as people run it, what it found, and the commands it prints."""

from __future__ import annotations

import functools
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness import ROOT

PROGRAM = [sys.executable, str(ROOT / "minihub" / "__main__.py")]
NOBODY = 65534
USER_PASSWORD = "correct-horse-battery"
ADMIN_PASSWORD = "a-long-password-that-only-admins-know-here"

#: A hub with which all is well.
HEALTHY: dict[str, Any] = {
    "JupyterHub": {"authenticator_class": "shared-password"},
    "SharedPasswordAuthenticator": {
        "user_password": USER_PASSWORD,
        "admin_password": ADMIN_PASSWORD,
    },
}


def close_config(directory: Path) -> None:
    """Make the configuration file the hub's alone, as it should be with a password in it."""
    for path in directory.glob("minihub.yaml"):
        path.chmod(0o600)


class Found(dict[str, dict[str, Any]]):
    """What each check found, by its id."""

    code = 0

    def level(self, id: str) -> str:
        return self[id]["level"]

    def said(self, id: str) -> str:
        return " | ".join(one["what"] for one in self[id]["found"])

    def mends(self, id: str) -> list[str]:
        return [
            mend
            for one in self[id]["found"]
            if one["level"] in ("warn", "fail")
            for mend in one["mend"]
        ]

    def bad(self) -> dict[str, str]:
        """Return what is not all right."""
        return {id: self.said(id) for id, one in self.items() if one["level"] != "ok"}


def run(directory: Path, *args: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    """Run doctor in a directory; ``user`` is a uid to run as."""
    user = kwargs.pop("user", None)
    if user is not None:
        kwargs |= {"user": user, "group": user, "extra_groups": []}
    env = {k: v for k, v in os.environ.items() if not k.startswith("MINIHUB_")}
    done = subprocess.run(
        [*PROGRAM, "doctor", *args],
        cwd=directory,
        env=env | kwargs.pop("env", {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **kwargs,
    )
    told = done.stdout + done.stderr
    assert "Traceback" not in told and "internal error" not in told, told
    return done


def doctor(directory: Path, *args: str, **kwargs: Any) -> Found:
    """Run doctor and return what it found."""
    done = run(directory, "--json", *args, **kwargs)
    try:
        facts = json.loads(done.stdout)
    except ValueError:
        raise AssertionError(done.stdout + done.stderr) from None
    assert done.stderr == "", done.stderr
    found = Found({one["id"]: one for one in facts["checks"]})
    found.code = done.returncode
    assert facts["exit_code"] == done.returncode
    return found


def flags(command: str) -> list[str]:
    """Return the flags of a printed command that starts the hub with them."""
    program, *words = shlex.split(command, comments=True)
    assert program == "minihub.pyz", command
    return words


@functools.cache
def _programs() -> tempfile.TemporaryDirectory[str]:
    """Return a directory for PATH, with a program minihub.pyz; gone when the tests end."""
    place = tempfile.TemporaryDirectory(prefix="minihub-bin-")
    program = Path(place.name) / "minihub.pyz"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(PROGRAM)} "$@"\n')
    program.chmod(0o755)
    return place


def mend(directory: Path, command: str) -> str:
    """Run a printed command in the hub's directory, as a shell would."""
    place = _programs().name
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=directory,
        env=os.environ | {"PATH": f"{place}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout
