"""File names, ports, programs, homes and accounts of servers on this machine."""

from __future__ import annotations

import os
import pwd
import socket
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from traitlets import TraitError
from traitlets.config import Config

from minihub import local, ports, rlimits
from minihub.errors import SpawnError
from minihub.filenames import file_name
from minihub.local import LocalProcessSpawner, SimpleLocalProcessSpawner
from minihub.spawner import HubInfo, UserInfo

OWN_NAME = pwd.getpwuid(os.geteuid()).pw_name


def make(cls, state_dir, *, name="ada", server_name="", **options):
    hub = HubInfo(api_url="http://127.0.0.1:1/hub/api", state_dir=state_dir)
    config = Config({"LocalProcessSpawner": options})
    return cls(user=UserInfo(name), server_name=server_name, hub=hub, config=config)


# -- names ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ada", "ada"),
        ("ada.b_c-d@e.org", "ada.b_c-d@e.org"),
        ("Ada", "%41da"),
        ("..", "%2E."),
        ("../etc", "%2E.%2Fetc"),
        (".hidden", "%2Ehidden"),
        ("a/b", "a%2Fb"),
        ("a%2Fb", "a%252%46b"),
        ("-x-", "%2Dx%2D"),
        ("a--b", "a-%2Db"),
        ("é", "%C3%A9"),
        ("a\0\n", "a%00%0A"),
    ],
)
def test_file_name_quotes_what_has_a_meaning(name, expected):
    assert file_name(name) == expected


def test_file_name_of_a_long_name_is_cut_and_stays_its_own():
    one, other = "x" * 500 + "1", "x" * 500 + "2"
    assert len(file_name(one)) <= 100
    assert file_name(one) != file_name(other)
    assert "%%" in file_name(one)
    assert "%%" not in file_name("%%")


@given(st.text(min_size=1), st.text(min_size=1))
def test_different_names_have_different_harmless_file_names(one, other):
    first, second = file_name(one), file_name(other)
    assert (first.casefold() == second.casefold()) == (one == other)
    assert os.path.basename(first) == first and first not in (".", "..")
    assert "--" not in first and not first.startswith("-") and not first.endswith("-")


def test_log_names_of_users_and_servers_never_meet(tmp_path):
    def log(user, server):
        return make(LocalProcessSpawner, tmp_path, name=user, server_name=server).log_path

    assert log("ada", "") == tmp_path / "logs" / "ada.log"
    assert log("ada", "lab") == tmp_path / "logs" / "ada--lab.log"
    assert log("a", "b--c") != log("a--b", "c")
    assert log("a-", "b") != log("a", "-b")


# -- ports ---------------------------------------------------------------------------------


def test_ports_differ_and_lie_below_those_of_outgoing_connections():
    given = [ports.free_port("127.0.0.1") for _ in range(50)]
    assert len(set(given)) == 50
    assert all(20000 <= port < 32768 for port in given)


def test_taken_port_is_not_given(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(ports, "_PORTS", [taken.getsockname()[1]])
        with pytest.raises(SpawnError, match=r"No free port was found at 127\.0\.0\.1"):
            ports.free_port("127.0.0.1")


def test_port_is_given_again_after_a_rest(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(ports.clock, "monotonic", lambda: now[0])
    monkeypatch.setattr(ports, "_ports_given", {})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setattr(ports, "_PORTS", [probe.getsockname()[1]])
    port = ports.free_port("127.0.0.1")
    with pytest.raises(SpawnError):
        ports.free_port("127.0.0.1")
    now[0] += 121
    assert ports.free_port("127.0.0.1") == port


# -- programs ------------------------------------------------------------------------------


def program(directory: Path, name: str) -> Path:
    directory.mkdir(exist_ok=True)
    file = directory / name
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    return file


def test_command_is_found_on_the_path_then_beside_the_python(tmp_path, monkeypatch):
    on_path = program(tmp_path / "path", "both")
    program(tmp_path / "python", "both")
    beside = program(tmp_path / "python", "only-here")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python" / "python3"))
    path = str(tmp_path / "path")
    assert local.find_command("both", path) == str(on_path)
    assert local.find_command("only-here", path) == str(beside)
    assert local.find_command(str(beside), path) == str(beside)
    assert local.find_command("nowhere", path) is None
    monkeypatch.setenv("PATH", path)
    assert local.find_command("both") == str(on_path)


def test_python_without_a_name_has_no_directory_beside_it(tmp_path, monkeypatch):
    program(tmp_path, "here")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", "")
    assert local.find_command("here", "/nowhere") is None


# -- options -------------------------------------------------------------------------------


def test_defaults_are_the_references(tmp_path):
    spawner = make(LocalProcessSpawner, tmp_path)
    assert spawner.interrupt_timeout == 30
    assert spawner.term_timeout == 30
    assert spawner.kill_timeout == 5
    assert spawner.stop_timeout_s == 65
    assert {"PATH", "PYTHONPATH", "CONDA_ROOT", "VIRTUAL_ENV", "LANG"} <= set(spawner.env_keep)
    assert spawner.shell_cmd == []


@pytest.mark.parametrize(
    ("popen_kwargs", "message"),
    [
        ({"env": {}}, '"env" has no meaning here; there are cwd and umask'),
        ({"preexec_fn": print}, '"preexec_fn" has no meaning here'),
        ({"umask": 0o1000}, "umask must be a number"),
        ({"umask": True}, "umask must be a number"),
        ({"cwd": 3}, "cwd must be a text"),
    ],
)
def test_popen_kwargs_without_a_meaning_are_refused_by_name(tmp_path, popen_kwargs, message):
    with pytest.raises(TraitError, match=message):
        make(LocalProcessSpawner, tmp_path, popen_kwargs=popen_kwargs)


def test_limits_asked_for_go_before_those_of_the_session_and_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(rlimits, "_first", {"RLIMIT_NOFILE": (5, 10), "RLIMIT_CORE": (1, 2)})
    monkeypatch.setattr(rlimits.resource, "getrlimit", lambda number: (10, 10))
    spawner = make(SimpleLocalProcessSpawner, tmp_path)
    of_hub = {"RLIMIT_NOFILE": (5, 10), "RLIMIT_CORE": (1, 10)}
    assert spawner.launch_spec().rlimits == of_hub
    spawner.session_limits = {"RLIMIT_NOFILE": (6, 7), "RLIMIT_NPROC": (8, 9)}
    assert spawner.launch_spec().rlimits == of_hub | spawner.session_limits
    spawner.rlimits = {"nproc": 3}
    assert spawner.launch_spec().rlimits == of_hub | spawner.session_limits | {
        "RLIMIT_NPROC": (3, 3)
    }


@pytest.mark.parametrize("template", ["/x/{user}", "/x/{", "/x/{0}", "/x/{username.x}"])
def test_home_template_with_other_braces_is_refused(tmp_path, template):
    with pytest.raises(TraitError, match="may hold {username} and no other braces"):
        make(SimpleLocalProcessSpawner, tmp_path, home_dir_template=template)


# -- homes and accounts --------------------------------------------------------------------


def test_simple_home_is_private_and_below_the_state_directory(tmp_path):
    spawner = make(SimpleLocalProcessSpawner, tmp_path)
    home = Path(spawner.home())
    assert home == tmp_path / "homes" / "ada"
    assert home.stat().st_mode & 0o777 == 0o700
    assert home.parent.stat().st_mode & 0o777 == 0o700


def test_simple_home_cannot_be_escaped_by_a_name(tmp_path):
    template = f"{tmp_path}/all/{{username}}"
    spawner = make(
        SimpleLocalProcessSpawner, tmp_path, name="../../etc", home_dir_template=template
    )
    assert Path(spawner.home()) == tmp_path / "all" / "%2E.%2F..%2Fetc"
    assert (tmp_path / "all" / "%2E.%2F..%2Fetc").is_dir()


def test_simple_home_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    spawner = make(
        SimpleLocalProcessSpawner, tmp_path, home_dir_template=f"{tmp_path}/file/{{username}}"
    )
    with pytest.raises(SpawnError, match=r"The directory .*/file/ada cannot be made: Not a dir"):
        spawner.home()


def test_simple_environment_is_of_the_user_and_the_home(tmp_path):
    env = make(SimpleLocalProcessSpawner, tmp_path).get_env()
    assert env["USER"] == "ada"
    assert env["HOME"] == str(tmp_path / "homes" / "ada")
    assert os.access(env["SHELL"], os.X_OK)


@pytest.mark.parametrize("shell", ["", "/usr/sbin/nologin", "/bin/false"])
def test_simple_shell_is_one_that_can_be_used(tmp_path, monkeypatch, shell):
    entry = pwd.struct_passwd(("hub", "x", os.geteuid(), 1, "", "/", shell))
    monkeypatch.setattr(local.pwd, "getpwuid", lambda _uid: entry)
    env = make(SimpleLocalProcessSpawner, tmp_path).get_env()
    assert os.path.basename(env["SHELL"]) in ("bash", "sh")


def test_hub_that_is_not_root_serves_its_own_user(tmp_path, monkeypatch):
    spawner = make(LocalProcessSpawner, tmp_path, name=OWN_NAME)
    uid = os.geteuid()
    monkeypatch.setattr(local.os, "geteuid", lambda: uid or 4711)
    entry = pwd.struct_passwd((OWN_NAME, "x", uid or 4711, 1, "", "/home/own", "/bin/zsh"))
    monkeypatch.setattr(local.pwd, "getpwnam", lambda _name: entry)
    assert spawner.launch_spec().user == ""
    env = spawner.get_env()
    assert (env["USER"], env["HOME"], env["SHELL"]) == (OWN_NAME, "/home/own", "/bin/zsh")


def test_hub_that_is_not_root_refuses_others_and_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(local.os, "geteuid", lambda: 4711)
    spawner = make(LocalProcessSpawner, tmp_path, name="daemon")
    with pytest.raises(SpawnError, match="cannot start a server as the user daemon") as caught:
        spawner.start()
    assert "SimpleLocalProcessSpawner" in caught.value.hint
    assert "Run the hub as root" in caught.value.hint


@pytest.mark.parametrize("name", ["no-such-user", "nul\0"])
def test_unknown_system_user_is_told(tmp_path, name):
    with pytest.raises(SpawnError, match="This machine has no user") as caught:
        make(LocalProcessSpawner, tmp_path, name=name).start()
    assert "SimpleLocalProcessSpawner" in caught.value.hint


def test_spawner_without_a_server_has_nothing_to_tell(tmp_path):
    spawner = make(LocalProcessSpawner, tmp_path)
    assert spawner.poll() == 0
    assert spawner.wait_exit(5) == 0
    assert spawner.pid == 0
    assert spawner.get_state() == {}
    assert spawner.tree is None
    assert spawner.log_tail() == []
    spawner.stop()


def test_state_of_another_program_is_not_taken_for_ours(tmp_path):
    """JupyterHub stores the process id alone, which may be anybody's by now."""
    spawner = make(LocalProcessSpawner, tmp_path)
    spawner.load_state({"pid": os.getpid()})
    assert spawner.poll() == 0
    spawner.stop()


@pytest.mark.parametrize(
    ("lines", "hint"),
    [
        (["x", "Running as root is not recommended. Use --allow-root to bypass."], "Spawner.args"),
        (["ModuleNotFoundError: No module named 'jupyter_server'"], local.INSTALL_LINE),
        (["bash: line 1: jupyterhub-singleuser: command not found"], local.INSTALL_LINE),
        (["The port 1 is already in use"], "Start the server again"),
        (["nothing known"], None),
    ],
)
def test_last_lines_of_a_server_give_a_hint(tmp_path, lines, hint):
    found = make(LocalProcessSpawner, tmp_path).exit_hint(lines)
    assert hint in found if hint else found == ""
