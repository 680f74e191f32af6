"""Servers that all run as one user, kept from the hub's files and from each other by Landlock."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import requests
from harness import FAKE_SERVER, HubProcess, until

from minihub import landlock

REFUSED = "Permission denied"

pytestmark = pytest.mark.skipif(not landlock.abi(), reason="this kernel has no Landlock")


def shell(hub: HubProcess, name: str) -> Callable[[str], str]:
    """Return a function that runs a command in the server of that name; it returns the output."""

    def run(command: str) -> str:
        answer = requests.get(f"{hub.url}user/{name}/run", params={"command": command}, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.text.strip()

    return run


@pytest.fixture(scope="module")
def room(pyz: Path, lab_bin: Path) -> Iterator[Any]:
    """A hub in the sandbox's default, and the servers of two people, one with work to hide.

    Never root's, whose rights reach past the sandbox: it may look into processes.
    """
    directory = Path(tempfile.mkdtemp(prefix="minihub-sandbox-"))
    uid = None if os.getuid() else 65534
    directory.chmod(0o755)
    for name in ("material", "shared", "beside"):
        (directory / name).mkdir()
        (directory / name / "file").write_text(name)
        if uid is not None:
            os.chown(directory / name, uid, uid)
    python = str((lab_bin / "python").resolve())
    server = shutil.copy(FAKE_SERVER, directory / "beside")
    hub = HubProcess(
        directory / "hub",
        {
            "Spawner": {"cmd": [python, str(server)]},
            "SimpleLocalProcessSpawner": {
                "sandbox": "on",
                "sandbox_read": [str(directory / "material")],
                "sandbox_write": [str(directory / "shared")],
            },
        },
        command=[python, str(shutil.copy(pyz, directory / "minihub.pyz"))],
        env={"HOME": str(directory), "MINIHUB_CACHE": str(directory / "shared")},
        user=uid,
    ).wait_ready()
    for name in ("ada", "eve"):
        hub.browser(name).start_server(name)
    ada, eve = shell(hub, "ada"), shell(hub, "eve")
    assert ada("echo private > $HOME/work; echo for-a-while > $TMPDIR/note; cat $HOME/work") == (
        "private"
    )
    yield SimpleNamespace(hub=hub, ada=ada, eve=eve, directory=directory, python=python)
    assert hub.stop() == 0, hub.text
    shutil.rmtree(directory)


def test_own_home_and_temporary_files_are_ones_own(room):
    assert room.eve("echo mine > $HOME/x && cat $HOME/x") == "mine"
    assert room.eve("mkdir $HOME/d && mv $HOME/x $HOME/d/y && ls $HOME/d") == "y"
    made = room.eve(f"{room.python} -c 'import tempfile; print(tempfile.mkdtemp())'")
    assert made.startswith(str(room.hub.state_dir / "tmp" / "eve"))


@pytest.mark.parametrize("path", ["homes/ada/work", "tmp/ada/note", "logs/ada.log"])
def test_files_of_others_are_closed(room, path):
    file = room.hub.state_dir / path
    assert file.exists()
    assert REFUSED in room.eve(f"cat {shlex.quote(str(file))}")
    assert REFUSED in room.eve(f"echo x >> {shlex.quote(str(file))}")
    assert REFUSED in room.eve(f"rm -f {shlex.quote(str(file))}")
    assert REFUSED in room.eve(f"ls {shlex.quote(str(file.parent))}")
    assert file.exists()


def test_every_file_of_the_hub_is_closed(room):
    files = [one for one in room.hub.directory.rglob("*") if one.is_file()]
    own = [one for one in files if "homes/eve" not in str(one) and "tmp/eve" not in str(one)]
    names = {one.name for one in own}
    assert {"jupyterhub.sqlite", "jupyterhub_cookie_secret", "lock"} <= names
    for file in own:
        assert REFUSED in room.eve(f"cat {shlex.quote(str(file))}"), file


def test_links_lead_nowhere_else(room):
    target = shlex.quote(str(room.hub.state_dir / "homes" / "ada"))
    assert REFUSED in room.eve(f"ln -s {target} $HOME/link; cat $HOME/link/work")
    assert REFUSED in room.eve(f"touch $HOME/file; mv $HOME/file {target}/")
    assert room.eve(f"ln {target}/work $HOME/hard 2> $HOME/why; ls $HOME/hard || echo none") != (
        f"{room.hub.state_dir}/homes/eve/hard"
    )


def test_secrets_in_other_processes_are_closed(room):
    for name in ("ada", None):
        pid = room.hub.server_process(name).pid if name else room.hub.process.pid
        assert REFUSED in room.eve(f"cat /proc/{pid}/environ")
        assert REFUSED in room.eve(f"cat /proc/{pid}/fd/1")
        assert REFUSED in room.eve(f"cat /proc/{pid}/maps")


@pytest.mark.skipif(landlock.abi() < landlock.SCOPES_SINCE, reason="no scopes in this kernel")
def test_other_processes_cannot_be_signalled(room):
    victims = [room.hub.process.pid, room.hub.server_process("ada").pid]
    for pid in victims:
        assert "not permitted" in room.eve(f"kill -TERM {pid}")
    assert all(psutil.pid_exists(pid) for pid in victims)
    assert room.eve("sleep 60 & kill -TERM $! && echo ended") == "ended"


def test_limits_of_other_processes_cannot_be_set(room):
    """A limit of no time ends a process, and to the system all of them are one user's."""
    program = (
        "import os, resource as r, sys; "
        "print(r.prlimit(int(sys.argv[1]), r.RLIMIT_CPU)); "
        "r.prlimit(int(sys.argv[1]), r.RLIMIT_CPU, (1, 1))"
    )
    for pid in (room.hub.process.pid, room.hub.server_process("ada").pid):
        said = room.eve(f"{room.python} -c {shlex.quote(program)} {pid}")
        assert "PermissionError" in said and said.startswith("("), said
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert re.search(r"^Max cpu time +unlimited +unlimited", limits, re.M), limits
    assert room.eve("ulimit -n 100 && ulimit -n") == "100"


def test_sandbox_read_is_for_reading(room):
    file = room.directory / "material" / "file"
    assert room.eve(f"cat {file}") == "material"
    assert REFUSED in room.eve(f"echo x > {file}")
    (room.directory / "file").write_text("elsewhere")
    assert REFUSED in room.eve(f"cat {room.directory / 'file'}")
    assert room.eve(f"cat {room.directory / 'beside' / 'file'}") == "beside"  # beside its program


def test_sandbox_write_is_for_writing_too(room):
    new = room.directory / "shared" / "new"
    assert room.eve(f"echo from-eve > {new}; cat {new}") == "from-eve"
    assert room.ada(f"cat {new}") == "from-eve"


def test_no_privileges_are_gained(room):
    assert "NoNewPrivs:\t1" in room.eve("grep NoNewPrivs /proc/self/status")


def test_ordinary_work_goes_on(room):
    python = room.python
    assert room.eve(f"{python} -c 'import json, ssl, sqlite3; print(6 * 7)'") == "42"
    pool = "import multiprocessing as m; print(sum(m.Pool(2).map(abs, [-20, -22])))"
    assert room.eve(f'{python} -c "{pool}"') == "42"
    assert room.eve("echo a > /dev/null && head -c 4 /dev/urandom | wc -c") == "4"
    assert room.eve("getent hosts localhost | grep -c localhost") == "1"


def test_greeting_tells_what_the_sandbox_is(room):
    assert "in a sandbox: it cannot read the hub's files" in room.hub.text


def test_sandbox_off_closes_nothing(start_hub, tmp_path):
    hub = start_hub({"SimpleLocalProcessSpawner": {"sandbox": "off"}})
    hub.browser("ada").start_server("ada")
    assert "none between people" in hub.text
    assert shell(hub, "ada")(f"cat {hub.state_dir / 'lock'}").startswith("{")
    assert shell(hub, "ada")("echo ${TMPDIR-none}") == "none"


def test_allowed_folder_with_files_of_the_hub_is_warned_of(start_hub, tmp_path):
    hub = start_hub({"SimpleLocalProcessSpawner": {"sandbox_read": ["/"]}})
    assert "SimpleLocalProcessSpawner.sandbox_read: / contains files of the hub" in hub.text


def test_relative_path_is_a_mistake(tmp_path):
    config = tmp_path / "minihub.yaml"
    config.write_text("SimpleLocalProcessSpawner:\n  sandbox_write: [here]\n")
    done = subprocess.run(
        [sys.executable, "-m", "minihub", "config", "check", "-f", str(config)],
        capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2],
        env=os.environ,
    )  # fmt: skip
    assert done.returncode == 3
    assert "minihub.yaml:2" in done.stderr + done.stdout
    assert "'here' is no absolute path" in done.stderr + done.stdout


def test_program_and_hub_in_one_directory(tmp_path):
    """The hub's files lie within what a server must read: what is beside them stays readable."""
    place = tmp_path / "bin"
    place.mkdir()
    server = place / "server"
    server.write_text(f"#!{sys.executable}\nimport runpy; runpy.run_path({str(FAKE_SERVER)!r}, "
                      "run_name='__main__')\n")  # fmt: skip
    server.chmod(0o755)
    (place / "library").write_text("beside")
    config = {"Spawner": {"cmd": [str(server)], "environment": {"LIB": str(FAKE_SERVER)}}}
    hub = HubProcess(place, config).wait_ready()
    try:
        hub.browser("ada").start_server("ada")
        run = shell(hub, "ada")
        assert run(f"cat {place / 'library'}") == "beside"
        assert REFUSED in run(f"cat {place / 'jupyterhub_cookie_secret'}")
        assert REFUSED in run(f"cat {hub.state_dir / 'lock'}")
    finally:
        hub.stop()


def test_link_in_the_home_does_not_widen_the_sandbox(start_hub, tmp_path):
    """The configuration names a place in each home; its owner makes that a link to another."""
    (tmp_path / "private").mkdir()
    key = tmp_path / "private" / "key"
    key.write_text("not eve's")
    homes = str(tmp_path / "homes" / "{username}")
    hub = start_hub(
        {
            "Spawner": {"notebook_dir": f"{homes}/own", "environment": {"DATA": f"{homes}/data"}},
            "SimpleLocalProcessSpawner": {"sandbox": "on", "home_dir_template": homes},
        }
    )
    browser, run = hub.browser("eve"), shell(hub, "eve")
    browser.start_server("eve")
    for name in ("own", "data"):
        run(f"ln -s {shlex.quote(str(key.parent))} $HOME/{name}")
    browser.submit("/hub/stop/eve", {}, "/hub/home")
    until(lambda: hub.server_pid("eve") is None)
    browser.start_server("eve")
    assert "key" in run("readlink -f $HOME/own/key")
    for path in ("$HOME/own/key", "$HOME/data/key", shlex.quote(str(key))):
        assert REFUSED in run(f"cat {path}"), path
        assert REFUSED in run(f"echo x >> {path}"), path
