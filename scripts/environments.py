"""Virtual environments that the demonstration and the tests use, made when they are absent.

An environment is made again when what it should hold has changed. Nothing outside the checkout
is touched.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: What a user's server needs, and the programs of the ecosystem that the tests run.
LAB = ("jupyterhub==6.1.1", "jupyterlab==4.6.6", "jupyterhub-idle-culler==2.0.0")


def ensure(name: str, requirements: tuple[str, ...], *, editable: str = "") -> Path:
    """Return the ``bin`` directory of the environment ``.venv-NAME`` with these packages in it.

    ``editable`` installs the checkout's own dependencies with these extras as well.
    """
    home = ROOT / f".venv-{name}"
    wanted = "\n".join((sys.version, *requirements, editable))
    if editable:
        wanted += (ROOT / "pyproject.toml").read_text()
    mark = home / "made-for"
    digest = hashlib.sha256(wanted.encode()).hexdigest()
    if mark.exists() and mark.read_text() == digest:
        return home / "bin"
    print(f"Making the virtual environment {home.name} (once, a few minutes) ...", flush=True)
    shutil.rmtree(home, ignore_errors=True)
    try:
        venv.create(home, with_pip=True)
    except subprocess.CalledProcessError as error:
        sys.exit(
            f"Python could not make a virtual environment ({error.cmd[0]} failed). "
            "On Debian and Ubuntu: sudo apt install python3-venv"
        )
    packages = [*requirements, *(["-e", f"{ROOT}[{editable}]"] if editable else [])]
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    if subprocess.run([*pip, "--disable-pip-version-check", *packages]).returncode:
        sys.exit("pip could not install: " + " ".join(packages))
    mark.write_text(digest)
    return home / "bin"


def find_lab() -> Path | None:
    """Return the directory that holds jupyterhub-singleuser and jupyter-lab, if there is one."""
    made = ROOT / ".venv-lab" / "bin"
    for directory in (made, _directory_of("jupyterhub-singleuser"), Path(sys.executable).parent):
        if directory and all(
            (directory / name).exists() for name in ("jupyterhub-singleuser", "jupyter-lab")
        ):
            return directory
    return None


def _directory_of(program: str) -> Path | None:
    found = shutil.which(program)
    return Path(found).parent if found else None
