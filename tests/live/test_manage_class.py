"""The verbs for a class, over a running hub and without one; and the flag ``--classroom``."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest
import yaml
from class_tools import PASSWORD, classroom, join, set_password, users
from harness import ROOT, Browser, HubProcess

PROGRAM = [sys.executable, str(ROOT / "minihub" / "__main__.py")]


def run(hub, *words, text=""):
    """Run a command line in the hub's directory."""
    return subprocess.run(
        [*PROGRAM, *words],
        cwd=hub.directory,
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(params=[True, False], ids=["running", "stopped"])
def hub(request, tmp_path):
    """A hub whose people wait for approval: one that runs, one that does not any more."""
    hub = HubProcess(tmp_path / "hub", classroom("approve")).wait_ready()
    for name in ("ada", "ben", "eve"):
        join(hub, name, code="")
    if not request.param:
        hub.stop()
    yield hub
    hub.stop()


def test_people_are_listed_let_in_and_turned_away(hub):
    listed = run(hub, "user", "approve")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["NAME", "ada", "ben", "eve"]
    done = run(hub, "user", "approve", "ADA", "nobody")
    assert (done.returncode, done.stdout) == (
        1, "ada may log in now.\nnobody does not wait for approval.\n",
    )  # fmt: skip
    assert run(hub, "user", "approve", "--refuse", "eve").stdout == "eve is turned away.\n"
    assert run(hub, "user", "approve", "--all").stdout == "ben may log in now.\n"
    assert run(hub, "user", "approve", "--all", "x").returncode == 2
    assert users(hub) == {"ada", "ben"}


def test_list_is_imported_and_exported(hub):
    rows = "name,groups\nzoe,8b\nyan,8b|lab\n"
    dry = run(hub, "user", "import", "-", "--dry-run", text=rows)
    assert dry.returncode == 0 and "Nothing was changed" in dry.stdout
    assert users(hub) == set()
    wrong = run(hub, "user", "import", "-", text=rows + "a/b,\n")
    assert wrong.returncode == 1 and "it contains a slash" in wrong.stdout
    assert users(hub) == set()
    done = run(hub, "user", "import", "-", text=rows)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^(zoe|yan)  \S{3}-\S{3}-\S{3}  good until", done.stdout, re.M)) == 2
    assert "2 added, 0 joined groups, 0 unchanged." in done.stdout
    exported = run(hub, "user", "export").stdout
    assert (
        exported.startswith("name,groups,admin,password,") and "\nyan,8b|lab,no,code," in exported
    )
    again = run(hub, "user", "import", "-", text=exported)
    assert "0 added, 0 joined groups" in again.stdout


def test_password_and_one_time_code(hub):
    run(hub, "user", "approve", "ada")
    running = hub.process.poll() is None
    browser = hub.browser("ada", PASSWORD) if running else None
    short = run(hub, "user", "passwd", "ada", text="short\n")
    assert short.returncode == 1 and "at least 8 characters" in short.stderr
    assert run(hub, "user", "passwd", "ada", text="quite another\n").returncode == 0
    if running:
        assert browser.get("/hub/home").status_code == 302  # the login is over at once
        browser = hub.browser("ada", "quite another")
    shown = run(hub, "user", "passwd", "ada", "--code").stdout
    code = re.match(r"ada  (\S+)  good until", shown)[1]
    added = run(hub, "user", "add", "cyd", "--code").stdout
    assert re.match(r"Added cyd\.\ncyd  \S{3}-\S{3}-\S{3}  ", added)
    if running:
        assert browser.get("/hub/home").status_code == 302
        assert set_password(Browser(hub.url), "ada", code).status_code == 302


def test_verbs_for_a_class_say_when_there_is_none(start_hub):
    done = run(start_hub(), "user", "export")
    assert done.returncode == 1 and "DummyAuthenticator keeps no passwords" in done.stderr


# -- the flag ------------------------------------------------------------------------------------

ROOT_TOO = ["--Spawner.args=['--allow-root']"] if os.geteuid() == 0 else []
PORTS = ["--port=0", "--JupyterHub.hub_port=0", "--ThreadedProxy.api_url=http://127.0.0.1:0"]


def test_classroom_flag_starts_a_class_and_what_it_writes_starts_it_again(start_hub):
    args = ("--classroom", "--write-config", *PORTS, *ROOT_TOO)
    hub = start_hub(args=args, defaults={})
    assert "Wrote minihub.yaml" in hub.text and "Isolation: " in hub.text
    code = re.search(r"Class code +(\S+) +40 can join", hub.text)[1]
    assert re.search(rf"at +http://\S+/join\?code={code}", hub.text)
    assert join(hub, "ada", code=code).status_code == 302
    written = yaml.safe_load((hub.directory / "minihub.yaml").read_text())
    assert written["JupyterHub"]["authenticator_class"] == "classroom"
    assert written["JupyterHub"]["spawner_class"] == "simple"
    assert written["JupyterHub"]["admin_access"] is True
    assert re.search(
        r"\nStop with Ctrl-C\. Every server ends with it; files are kept\.\n", hub.text
    )
    assert re.search(
        r"Wrote minihub\.yaml\. From now on: python3 (-m minihub|\S*minihub\.pyz)\n", hub.text
    )
    hub.stop()
    hub.log.unlink()
    again = start_hub(directory=hub.directory, defaults={})
    assert re.search(rf"Class code +{code} +39 can join", again.text)
    assert again.browser("ada", PASSWORD).get("/hub/home").status_code == 200


@pytest.mark.parametrize("answer", ["y", "n"])
def test_classroom_on_a_terminal_asks_whether_to_write_the_file(tmp_path, answer):
    """Whoever starts a class by hand is asked once; the hub runs either way."""
    ours, theirs = pty.openpty()
    hub = subprocess.Popen(
        [*PROGRAM, "--classroom", *PORTS, *ROOT_TOO],
        cwd=tmp_path,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    told = ""

    def read_until(wanted):
        nonlocal told
        deadline = time.monotonic() + 60
        while not re.search(wanted, told):
            assert time.monotonic() < deadline, told
            if select.select([ours], [], [], 1)[0]:
                told += os.read(ours, 65536).decode(errors="replace")

    file = tmp_path / "minihub.yaml"
    try:
        read_until(r"Write minihub\.yaml, so that the next start is the same .*\? ")
        assert not file.exists() and "Class code" not in told
        os.write(ours, f"{answer}\n".encode())
        read_until(r"Isolation: [\s\S]*Class code +\S+ +40 can join[\s\S]*Stop with")
        assert file.exists() == (answer == "y")
        assert ("Wrote minihub.yaml" in told) == (answer == "y")
    finally:
        hub.send_signal(signal.SIGTERM)
        assert hub.wait(60) == 0, told
        os.close(ours)
    if answer == "y":
        assert file.stat().st_mode & 0o777 == 0o600
        written = yaml.safe_load(file.read_text())
        assert written["JupyterHub"]["authenticator_class"] == "classroom"
        assert written["ClassroomAuthenticator"] == {"code_at_start": True}


def test_write_config_leaves_a_file_that_is_there(start_hub, tmp_path):
    (tmp_path / "hub0").mkdir()
    file = tmp_path / "hub0" / "minihub.yaml"
    file.write_text("JupyterHub: {log_level: INFO}\n")
    hub = start_hub(args=("--classroom", "--write-config", *PORTS, *ROOT_TOO), defaults={})
    assert file.read_text() == "JupyterHub: {log_level: INFO}\n"
    assert "is left as it is" in hub.text and "authenticator_class: classroom" in hub.text


def test_write_config_goes_with_classroom(tmp_path):
    done = subprocess.run(
        [*PROGRAM, "--write-config"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "goes with --classroom" in done.stderr


@pytest.mark.root
def test_classroom_as_root_is_refused(tmp_path):
    done = subprocess.run(
        [*PROGRAM, "--classroom"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 6 and "as an ordinary user" in done.stderr
    assert os.listdir(tmp_path) == []
