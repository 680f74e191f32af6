"""The built file as a hub: an unprivileged user, and a file that is replaced under it."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from harness import FAKE_SERVER, HubProcess

#: Anybody but root; on a machine where the tests are not root, whoever runs them.
NOBODY = 65534 if os.getuid() == 0 else None


@pytest.fixture
def public():
    """A directory that another user can enter, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="minihub-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def running(pyz, public):
    """A hub of the built file, run by an unprivileged user with a cache of its own."""
    file = public / "minihub.pyz"
    shutil.copy(pyz, file)
    server = public / "fake_singleuser.py"
    shutil.copy(FAKE_SERVER, server)
    home = public / "home"
    home.mkdir()
    if NOBODY is not None:
        os.chown(home, NOBODY, NOBODY)
    hub = HubProcess(
        public / "hub",
        {"Spawner": {"cmd": [_python(), str(server)]}},
        command=[_python(), str(file)],
        env={"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")},
        user=NOBODY,
    ).wait_ready(60)
    yield hub, file
    if hub.process.poll() is None:
        assert hub.stop() == 0, hub.text


def _python() -> str:
    """Return an interpreter that other users may run; root's own home is closed to them."""
    if NOBODY is None or not sys.base_prefix.startswith("/root"):
        return sys.executable
    return "/usr/bin/python3"


def test_story_with_the_built_file(running):
    hub, _file = running
    browser = hub.browser("ada")
    browser.start_server("ada")
    page = browser.follow("/user/ada/").json()
    assert page["visitor"]["name"] == "ada"
    assert page["uid"] == (NOBODY if NOBODY is not None else os.getuid())
    state = hub.directory / "minihub-data"
    assert state.stat().st_mode & 0o777 == 0o700
    assert (hub.directory / "jupyterhub.sqlite").stat().st_mode & 0o777 == 0o600


def test_file_replaced_under_a_running_hub_changes_nothing(running):
    hub, file = running
    file.unlink()
    file.write_bytes(b"not a zip file")
    browser = hub.browser("ada")
    for path in ("/hub/home", "/hub/token", "/hub/nowhere", "/hub/static/css/minihub.css"):
        assert browser.get(path).status_code in (200, 404), path
    browser.start_server("ada")
    assert browser.follow("/user/ada/").status_code == 200
    browser.submit("/hub/stop/ada", {}, page="/hub/home")
    assert hub.stop() == 0
    assert "Traceback" not in hub.text
