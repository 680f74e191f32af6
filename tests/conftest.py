"""What every test may use: the built file."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs root where the tests run as somebody else."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture(scope="session")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built minihub.pyz: ``$MINIHUB_PYZ``, or one built once for the whole run."""
    if "MINIHUB_PYZ" in os.environ:
        return Path(os.environ["MINIHUB_PYZ"]).absolute()
    base = tmp_path_factory.getbasetemp()
    # The workers of pytest-xdist have a folder each below the run's own.
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    file = shared / "minihub.pyz"
    with open(shared / "minihub.pyz.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            command = [sys.executable, str(ROOT / "build_zipapp.py"), "-o", str(file)]
            built = subprocess.run(command, capture_output=True, text=True, check=False)
            assert built.returncode == 0, built.stdout + built.stderr
    return file


def programs(name: str, needed: str, what: str) -> Path:
    """Return the directory of programs of the environment ``.venv-NAME``, or skip the test.

    ``$MINIHUB_TEST_NAME_BIN`` may name another one.
    """
    place = os.environ.get(f"MINIHUB_TEST_{name.upper()}_BIN", ROOT / f".venv-{name}" / "bin")
    if not (Path(place) / needed).exists():
        pytest.skip(f"no {what} at {place}; scripts/test.py installs one")
    return Path(place)


@pytest.fixture(scope="session")
def lab_bin() -> Path:
    """Where jupyterhub-singleuser and JupyterLab are."""
    return programs("lab", "jupyterhub-singleuser", "JupyterLab")


@pytest.fixture(scope="session")
def old_bin() -> Path:
    """Where jupyterhub-singleuser 0.8.0 is."""
    return programs("old", "jupyterhub-singleuser", "JupyterHub 0.8.0")


@pytest.fixture(scope="session")
def numpy_bin() -> Path:
    """Where a Python with numpy is."""
    return programs("numpy", "python", "numpy")


@pytest.fixture(scope="session")
def chp() -> Path:
    """The node program configurable-http-proxy: in ``$MINIHUB_TEST_CHP``, or in .cache/chp."""
    made = ROOT / ".cache" / "chp" / "node_modules" / ".bin"
    program = Path(os.environ.get("MINIHUB_TEST_CHP", made)) / "configurable-http-proxy"
    if not program.exists():
        pytest.skip(f"there is no {program}; scripts/test.py installs it")
    return program
