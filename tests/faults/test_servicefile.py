"""The hub as a service: a unit that systemd takes, and restarts that end nobody's work."""

from __future__ import annotations

import os
import plistlib
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import DEFAULTS, ROOT, HubProcess
from websockets.sync.client import connect

from minihub import servicefile

PROGRAM = [sys.executable, str(ROOT / "minihub" / "__main__.py")]


def minihub(directory: Path, *args: str, **env: str) -> tuple[int, str]:
    done = subprocess.run(
        [*PROGRAM, *args],
        cwd=directory,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    told = done.stdout + done.stderr
    assert "Traceback" not in told and "internal error" not in told, told
    return done.returncode, told


def settings(unit: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in unit.splitlines() if "=" in line and line[0] != "#")


def command_in(unit: str) -> list[str]:
    """Return the words of ExecStart, as systemd reads them."""
    words = shlex.split(settings(unit)["ExecStart"])
    return [word.replace("%%", "%").replace("$$", "$") for word in words]


def verify(path: Path) -> str:
    """Return what systemd finds wrong with a unit."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("there is no systemd-analyze")
    done = subprocess.run([program, "verify", str(path)], capture_output=True, text=True)
    return "\n".join(line for line in done.stderr.splitlines() if path.name in line)


@pytest.mark.parametrize("name", ["plain", "with a space", '100% $HOME;"it\'s"'])
@pytest.mark.parametrize("flag", ["--system", "--user"])
def test_unit_is_one_that_systemd_takes(tmp_path, name, flag):
    place = tmp_path / name
    place.mkdir()
    (place / "minihub.yaml").write_text("JupyterHub: {port: 8123}\n")
    code, unit = minihub(place, "service", "print", flag, "--JupyterHub.extra_log_file=a b")
    assert code == 0, unit
    facts = settings(unit)
    assert facts["KillMode"] == "process" and facts["Restart"] == "on-failure"
    assert facts["Delegate"] == "cpu" and "Environment=MINIHUB_DELEGATED=1\n" in unit
    shell, flag_c, script = shlex.split(facts["ExecStopPost"])
    assert (shell, flag_c) == ("-/bin/sh", "-c")
    assert script.replace("%%", "%").replace("$$", "$") == servicefile.MAKE_ROOM
    assert facts["WorkingDirectory"] == str(place).replace("%", "%%")
    assert facts["WantedBy"] == ("multi-user.target" if flag == "--system" else "default.target")
    if '"' not in name:
        words = command_in(unit)
        assert words[-2:] == list(servicefile.KEEP)
        assert str(place / "minihub.yaml") in words and "--JupyterHub.extra_log_file=a b" in words
    (tmp_path / "minihub.service").write_text(unit)
    assert verify(tmp_path / "minihub.service") == ""


def test_verify_would_find_a_mistake(tmp_path):
    (tmp_path / "minihub.service").write_text("[Service]\nExecStart=relative\nKillMode=nobody\n")
    assert verify(tmp_path / "minihub.service") != ""


def test_restart_of_the_service_ends_nobodys_work(start_hub, tmp_path):
    """systemd sends SIGTERM to the hub alone (KillMode=process), then starts it again."""
    place = tmp_path / "hub"
    HubProcess.write_settings(place, DEFAULTS)
    code, unit = minihub(place, "service", "print", "--system")
    assert code == 0
    command = command_in(unit)
    hub = start_hub(directory=place, command=command, defaults={})
    browser = hub.browser("ada")
    browser.start_server("ada")
    pid = browser.follow("/user/ada/").json()["pid"]
    proxy = hub.proxy()["pid"]
    cookie = "; ".join(f"{c.name}={c.value}" for c in browser.cookies)
    url = hub.url.replace("http", "ws") + "user/ada/ws"
    with connect(url, additional_headers={"Cookie": cookie}, ping_interval=None) as socket:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if number == signal.SIGTERM:
                assert hub.stop(number) == 0
            else:
                hub.kill()
            socket.send("while it is away")
            assert socket.recv(timeout=10) == "while it is away"
            hub = start_hub(directory=place, command=command, defaults={})
        assert hub.proxy()["pid"] == proxy
        assert browser.follow("/user/ada/").json()["pid"] == pid
        socket.send("still here")
        assert socket.recv(timeout=10) == "still here"


def test_install_writes_the_file_and_says_how_to_go_on(tmp_path):
    home = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "JUPYTERHUB_CRYPT_KEY": "ab" * 32}
    code, told = minihub(tmp_path, "service", "install", "--user", **home)
    file = tmp_path / "config" / "systemd" / "user" / "minihub.service"
    assert code == 0 and f"Wrote {file}." in told, told
    assert "systemctl --user start minihub" in told and "enable-linger" in told
    assert "minihub.env" in told and "abab" not in told + file.read_text()
    assert minihub(tmp_path, "service", "install", "--user", **home)[0] == 0  # the same again
    code, told = minihub(tmp_path, "service", "install", "--user", "--port=81", **home)
    assert code == 1 and "-y replaces it" in told and "port=81" not in file.read_text()
    code, told = minihub(tmp_path, "service", "install", "--user", "--port=81", "-y", **home)
    assert code == 0 and "--JupyterHub.port=81" in file.read_text()


@pytest.mark.parametrize(
    ("words", "expected", "told_of"),
    [
        (("--user", "--system"), 2, "either"),
        (("--user", "--run-as", "root"), 2, "--system"),
        (("--system", "--run-as", "nobody-of-that-name"), 2, "has no user"),
        (("--name", "../x"), 2, "may hold"),
        (("--JupyterHub.prot=1",), 3, "JupyterHub.prot"),
    ],
)
def test_wrong_wishes_are_named(tmp_path, words, expected, told_of):
    code, told = minihub(tmp_path, "service", "print", *words)
    assert code == expected and told_of in told


def test_launchd_gets_a_file_that_abandons_the_servers(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    wanted = servicefile.Plan("hub", False, "", tmp_path, ("python3", "x y"), "/bin")
    facts = plistlib.loads(servicefile.text(wanted).encode())
    assert facts["ProgramArguments"] == ["python3", "x y"] and facts["AbandonProcessGroup"] is True
    assert wanted.file == Path.home() / "Library/LaunchAgents/org.minihub.hub.plist"
