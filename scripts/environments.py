"""Virtual environments that the demonstration and the tests use, made when they are absent.

An environment is made again when what it should hold has changed. It lies in the checkout, or in
/var/tmp where root has the checkout in a place that other users cannot enter: servers and tests
also run as other users.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST_PYTHON = (3, 10)

#: What a user's server needs, and the programs of the ecosystem that the tests run.
LAB = ("jupyterhub==6.1.1", "jupyterlab==4.6.6", "jupyterhub-idle-culler==2.0.0")
#: A user's server as it was in 2017, with packages of its time as far as they still run.
OLD = (
    "notebook==6.5.7",
    "tornado==6.6.1",
    "jinja2==3.1.6",
    "sqlalchemy==1.4.49",
    "alembic==1.12.1",
    "python-oauth2==1.1.1",
    "pamela==1.2.0",
    "requests",
    "setuptools<81",
)
#: Asks for packages by versions that no longer install, so none are installed for its sake.
OLD_HUB = "jupyterhub==0.8.0"
#: What makes random numbers by compiled code.
NUMPY = ("numpy>=1.26,<3",)
#: The proxy that the built-in one stands in for, a program of node's.
CHP = "configurable-http-proxy@5.3.0"
#: What the browser tests look for barriers with.
AXE = "axe-core@4.14.1"
#: The programs by which such an environment is recognised.
LAB_PROGRAMS = ("jupyterhub-singleuser", "jupyter-lab")
#: JupyterLab asks nobody on the Internet whether it is current and whether there are news.
LAB_SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {"checkForUpdates": False, "fetchNews": "false"}
}


def ensure(
    name: str,
    requirements: tuple[str, ...] = (),
    *,
    python: str = sys.executable,
    extra: str = "",
    alone: str = "",
) -> Path:
    """Return the ``bin`` directory of the environment ``.venv-NAME`` with these packages in it.

    ``python`` is the interpreter it is made with. With ``extra`` the checkout itself is installed,
    editable, with that extra. ``alone`` is a package installed without what it
    asks for. Ends the program when it cannot be made, saying why.
    """
    home = place() / f".venv-{name}"
    wanted = "\n".join((python, _version(python), *requirements, extra, alone))
    if extra:
        wanted += (ROOT / "pyproject.toml").read_text()
    mark = home / "made-for"
    digest = hashlib.sha256(wanted.encode()).hexdigest()
    if mark.exists() and mark.read_text() == digest:
        return home / "bin"
    print(f"Making the virtual environment {home} (once, a minute or two) ...", flush=True)
    shutil.rmtree(home, ignore_errors=True)
    made = subprocess.run([python, "-m", "venv", str(home)], capture_output=True, text=True)
    if made.returncode:
        sys.exit(
            f"{python} could not make a virtual environment:\n{made.stdout}{made.stderr}"
            "On Debian and Ubuntu: sudo apt install python3-venv"
        )
    packages = [*requirements, *(["-e", f"{ROOT}[{extra}]"] if extra else [])]
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "-qq"]
    if subprocess.run([*pip, "--disable-pip-version-check", *packages]).returncode:
        sys.exit("pip could not install: " + " ".join(packages))
    if alone and subprocess.run([*pip, "--no-deps", alone]).returncode:
        sys.exit(f"pip could not install: {alone}")
    mark.write_text(digest)
    return home / "bin"


def ensure_lab() -> Path:
    """Return the ``bin`` directory of an environment with JupyterLab that every user can run."""
    directory = ensure("lab", LAB, python=public_python())
    settings = directory.parent / "share" / "jupyter" / "lab" / "settings" / "overrides.json"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(json.dumps(LAB_SETTINGS))
    return directory


def ensure_old() -> Path:
    """Return the ``bin`` directory of an environment with JupyterHub 0.8.0's server."""
    return ensure("old", OLD, python=public_python(), alone=OLD_HUB)


def ensure_numpy() -> Path:
    """Return the ``bin`` directory of an environment with numpy."""
    return ensure("numpy", NUMPY, python=public_python())


def ensure_chp() -> Path:
    """Return the directory that holds the program configurable-http-proxy."""
    return ensure_npm("chp", CHP) / "node_modules" / ".bin"


def ensure_axe() -> Path:
    """Return the script of axe-core, which looks for barriers on a page."""
    return ensure_npm("axe", AXE) / "node_modules" / "axe-core" / "axe.min.js"


def ensure_npm(name: str, package: str) -> Path:
    """Return the directory ``.cache/NAME`` in which npm has installed exactly this package.

    Ends the program when npm cannot install it.
    """
    home = place() / ".cache" / name
    mark = home / "made-for"
    if not (mark.exists() and mark.read_text() == package):
        print(f"Installing {package} in {home} (once) ...", flush=True)
        home.mkdir(parents=True, exist_ok=True)
        npm = ["npm", "install", "--silent", "--no-package-lock", "--no-audit", "--no-fund"]
        if subprocess.run([*npm, "--prefix", str(home), package]).returncode:
            sys.exit(f"npm could not install {package}")
        mark.write_text(package)
    return home


def find_lab() -> Path | None:
    """Return the directory that holds jupyterhub-singleuser and jupyter-lab, if there is one."""
    on_path = shutil.which(LAB_PROGRAMS[0])
    candidates = [place() / ".venv-lab" / "bin", Path(sys.executable).parent]
    for directory in (*candidates, *([Path(on_path).parent] if on_path else [])):
        if all((directory / program).exists() for program in LAB_PROGRAMS):
            return directory
    return None


def public_python() -> str:
    """Return a Python that every user of this machine can run; for others than root, this one.

    Ends the program when root has none: it may be the one in root's own home.
    """
    if os.getuid():
        return sys.executable
    code = f"import sys; sys.exit(sys.version_info < {OLDEST_PYTHON})"
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        try:
            subprocess.run([python, "-I", "-c", code], user=65534, cwd="/", check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return python
    sys.exit(
        f"No Python that other users than root can run was found ({sys.executable} they cannot). "
        "On Debian and Ubuntu: apt install python3 python3-venv"
    )


def place() -> Path:
    """Return the directory in which the environments lie."""
    if os.getuid() or all(_is_open(path) for path in (ROOT, *ROOT.parents)):
        return ROOT
    directory = Path("/var/tmp", "minihub-" + hashlib.sha256(bytes(ROOT)).hexdigest()[:12])
    directory.mkdir(mode=0o755, exist_ok=True)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != 0 or status.st_mode & 0o022:
        sys.exit(f"{directory} is not root's own directory; remove it")
    return directory


def _is_open(path: Path) -> bool:
    return bool(path.stat().st_mode & stat.S_IXOTH)


def _version(python: str) -> str:
    code = "import sys; print(sys.version)"
    return subprocess.run([python, "-I", "-c", code], capture_output=True, text=True).stdout
