"""What a server in the sandbox may read and write: a list made of what is on the disk."""

from __future__ import annotations

import json
import os
import socket
import sys

import pytest

from minihub import confinement
from minihub.confinement import Hidden
from minihub.landlock import READ, WRITE, Rule, description


def rules(argv=(), *, env=None, own=(), read=(), write=(), files=("/nowhere",), homes=""):
    found = confinement.rules(
        argv=argv, env=env or {}, own=own, read=read, write=write, hidden=Hidden(files, homes)
    )
    return {rule.path: rule.rights for rule in found}


def covers(found, path):
    return any(path == one or path.startswith(one + "/") for one in found)


def test_system_is_read_and_never_written():
    found = rules()
    assert found[os.path.realpath("/usr")] == READ
    assert not covers(found, "/home/somebody") and not covers(found, "/tmp/file")


def test_own_directories_are_written(tmp_path):
    assert rules(own=[str(tmp_path)])[str(tmp_path)] == WRITE
    assert rules(own=[str(tmp_path)], read=[str(tmp_path)])[str(tmp_path)] == WRITE


def test_what_does_not_exist_has_no_rule(tmp_path):
    assert str(tmp_path / "gone") not in rules(own=[str(tmp_path / "gone")])


def test_script_brings_its_environment_its_interpreter_and_where_links_lead(tmp_path):
    real = tmp_path / "python3" / "bin" / "python3.9"
    real.parent.mkdir(parents=True)
    real.write_bytes(b"\x7fELF")
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(real)
    (venv / "pyvenv.cfg").write_text(f"home = {tmp_path}/made-from/bin\n")
    (tmp_path / "made-from" / "lib").mkdir(parents=True)
    script = venv / "bin" / "server"
    script.write_text(f"#!{venv}/bin/python\n")
    script.chmod(0o755)
    found = rules([script.name], env={"PATH": str(script.parent)})
    for path in (venv / "lib", tmp_path / "python3" / "lib", tmp_path / "made-from" / "lib"):
        assert covers(found, str(path)), path
    assert not covers(found, str(tmp_path / "else"))


def test_env_in_the_first_line_names_the_interpreter(tmp_path):
    tools = tmp_path / "tools" / "bin"
    tools.mkdir(parents=True)
    for name, text in (("run", "#!/usr/bin/env own-shell\n"), ("own-shell", "")):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    assert covers(rules(["run"], env={"PATH": str(tools)}), str(tmp_path / "tools" / "lib"))


def test_command_line_for_a_shell_is_read_word_by_word(tmp_path):
    for name in ("env", "other"):
        (tmp_path / name / "bin").mkdir(parents=True)
        (tmp_path / name / "bin" / f"{name}-server").touch(mode=0o755)
    line = f". '{tmp_path}/env/bin/env-server'; exec other-server --port=5"
    found = rules(["bash", "-c", line], env={"PATH": str(tmp_path / "other" / "bin")})
    assert covers(found, str(tmp_path / "env" / "lib"))
    assert covers(found, str(tmp_path / "other" / "lib"))


def test_kernels_bring_their_programs(tmp_path):
    kernel = tmp_path / "data" / "kernels" / "own"
    kernel.mkdir(parents=True)
    program = tmp_path / "julia" / "bin" / "julia"
    program.parent.mkdir(parents=True)
    program.touch()
    (kernel / "kernel.json").write_text(json.dumps({"argv": [str(program), "-i"]}))
    for name, text in (("broken", "{"), ("odd", '{"argv": 5}'), ("empty", '{"argv": []}')):
        (kernel.parent / name).mkdir()
        (kernel.parent / name / "kernel.json").write_text(text)
    found = rules([sys.executable], env={"JUPYTER_PATH": str(tmp_path / "data")})
    assert covers(found, str(tmp_path / "julia" / "share"))


def test_arguments_and_environment_hand_over_files(tmp_path):
    for name in ("scripts", "library", "rest"):
        (tmp_path / name).mkdir()
    (tmp_path / "scripts" / "main.py").touch()
    found = rules(
        ["python", str(tmp_path / "scripts" / "main.py"), "--port=5", "/"],
        env={"LIBRARY": f"/nothing:{tmp_path / 'library'}"},
    )
    assert covers(found, str(tmp_path / "scripts" / "beside.py"))
    assert covers(found, str(tmp_path / "library" / "x"))
    assert not covers(found, str(tmp_path / "rest"))


def test_hub_files_are_cut_out_of_what_is_handed_over(tmp_path):
    for name in ("data", "lib", "homes"):
        (tmp_path / name).mkdir()
    (tmp_path / "secret").touch()
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    found = rules(
        env={"PLACE": str(tmp_path)},
        files=(str(tmp_path / "data"), str(tmp_path / "secret")),
        homes=str(tmp_path / "homes"),
    )
    assert covers(found, str(tmp_path / "lib"))
    for name in ("data", "secret", "homes", "link"):
        assert not covers(found, str(tmp_path / name)), name


def test_copies_and_journals_of_hub_files_are_cut_out_with_them(tmp_path):
    for name in ("hub.sqlite", "hub.sqlite-journal", "hub.sqlite.jupyterhub-2026", "hub.css"):
        (tmp_path / name).touch()
    found = rules(env={"PLACE": str(tmp_path)}, files=(str(tmp_path / "hub.sqlite"),))
    assert [one for one in found if one.startswith(str(tmp_path))] == [str(tmp_path / "hub.css")]


def test_urls_are_no_directories(tmp_path):
    (tmp_path / "hub").mkdir()
    names = ("BASE_URL", "SERVICE_PREFIX", "OAUTH_CALLBACK_URL", "DEFAULT_URL")
    found = rules(env={f"JUPYTERHUB_{name}": f"{tmp_path}/hub/" for name in names})
    assert not covers(found, str(tmp_path / "hub"))


@pytest.fixture
def planted(tmp_path):
    """Return a function that tells what a server may do after its user has put links into the
    home and into a place that all write to; ``tmp_path/private`` is what they lead to."""
    for name in ("private", "homes/eve", "shared", "course"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "private" / "key").touch()
    for place in ("homes/eve", "shared"):
        (tmp_path / place / "link").symlink_to(tmp_path / "private")

    def check(argv=(), **kwargs):
        place = {"own": [str(tmp_path / "homes" / "eve")], "homes": str(tmp_path / "homes")}
        return rules(argv, **{**place, **kwargs})

    return check


@pytest.mark.parametrize("place", ["homes/eve/link", "homes/eve/link/..", "shared/link"])
@pytest.mark.parametrize("way", ["read", "write", "argument", "variable", "program"])
def test_link_that_a_server_can_make_leads_nowhere(planted, tmp_path, way, place):
    """Such as a notebook_dir in the home, which its owner has made a link meanwhile."""
    path = str(tmp_path / place)
    shared = str(tmp_path / "shared")
    given = {
        "read": {"read": [path], "write": [shared]},
        "write": {"write": [path, shared]},
        "argument": {"argv": [f"--config={path}/key"], "write": [shared]},
        "variable": {"env": {"PLACE": f"/nothing:{path}"}, "write": [shared]},
        "program": {"argv": [f"{path}/key"], "write": [shared]},
    }[way]
    assert not covers(planted(**given), str(tmp_path / "private" / "key"))
    assert covers(planted(**given), str(tmp_path / "homes" / "eve" / "work"))


def test_files_that_a_server_can_write_name_no_programs(planted, tmp_path):
    kernel = tmp_path / "shared" / "kernels" / "own"
    kernel.mkdir(parents=True)
    words = {"argv": [str(tmp_path / "private" / "key")]}
    (kernel / "kernel.json").write_text(json.dumps(words))
    env = {"JUPYTER_PATH": str(tmp_path / "shared")}
    found = planted([sys.executable], env=env, write=[str(tmp_path / "shared")])
    assert not covers(found, str(tmp_path / "private" / "key"))
    assert covers(planted([sys.executable], env=env), str(tmp_path / "private" / "key"))


def test_links_that_the_administrator_has_made_are_followed(planted, tmp_path):
    (tmp_path / "material").symlink_to(tmp_path / "course")
    assert covers(planted(read=[str(tmp_path / "material")]), str(tmp_path / "course"))
    (tmp_path / "homes" / "ada").symlink_to(tmp_path / "course")
    own = str(tmp_path / "homes" / "ada")
    assert rules(own=[own], homes=str(tmp_path / "homes"))[str(tmp_path / "course")] == WRITE


def test_what_lies_among_hub_files_is_never_handed_over(tmp_path):
    (tmp_path / "logs").mkdir()
    assert not covers(
        rules(env={"X": str(tmp_path / "logs")}, files=(str(tmp_path),)), f"{tmp_path}/logs"
    )


def test_explicit_folders_are_taken_as_they_are(tmp_path):
    (tmp_path / "secret").touch()
    assert covers(rules(read=[str(tmp_path)], files=(str(tmp_path / "secret"),)), str(tmp_path))


def test_older_kernels_are_asked_for_what_they_know():
    one = description([Rule("/x", WRITE)], 1)
    assert one["handled"] == (1 << 13) - 1 and one["scoped"] == 0 and one["size"] == 8
    assert one["rules"][0][1] & ~one["handled"] == 0
    assert description([], 6)["scoped"] == 3 and description([], 6)["size"] == 24


def test_gaps_of_older_kernels_are_told(monkeypatch):
    monkeypatch.setattr(confinement, "abi", lambda: 5)
    assert "signals" in next(confinement.gaps(Hidden(())))
    monkeypatch.setattr(confinement, "abi", lambda: 6)
    monkeypatch.setattr(confinement, "private_sockets", lambda: iter(()))
    assert list(confinement.gaps(Hidden(()))) == []


@pytest.mark.skipif(sys.platform != "linux", reason="Landlock is Linux's")
def test_sockets_of_this_user_are_told_where_they_cannot_be_held_back(tmp_path, monkeypatch):
    """A user's service manager starts programs for whoever can connect, outside any sandbox."""
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() or 65534)
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as bound:
        listening.bind(f"{tmp_path}/bus")
        listening.listen()
        bound.bind(f"{tmp_path}/silent")
        os.chmod(tmp_path / "bus", 0o600)
        os.chown(tmp_path / "bus", os.geteuid(), -1)
        assert str(tmp_path / "bus") in confinement.private_sockets()
        assert str(tmp_path / "silent") not in confinement.private_sockets()
        monkeypatch.setattr(confinement, "private_sockets", lambda: iter([f"{tmp_path}/bus"]))
        for version, told in ((8, True), (9, False)):
            monkeypatch.setattr(confinement, "abi", lambda version=version: version)
            assert any(f"{tmp_path}/bus" in gap for gap in confinement.gaps(Hidden(()))) is told
            servers_own = Hidden((str(tmp_path),))
            assert not any(f"{tmp_path}/bus" in gap for gap in confinement.gaps(servers_own))


def test_sockets_are_held_back_where_the_kernel_can(tmp_path):
    connect = 1 << 16
    rules = [Rule("/shared", WRITE), Rule("/usr", READ)]
    assert description(rules, 9)["handled"] & connect
    assert not description(rules, 8)["handled"] & connect
    (_shared, write), (_usr, read) = description(rules, 9)["rules"]
    assert write & connect and not read & connect


def test_names_of_sockets_may_hold_anything(tmp_path, monkeypatch):
    """The kernel prints them as they are, and anybody may make one."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (tmp_path / "table").write_text(
        "Num RefCount Protocol Flags Type St Inode Path\n"
        "0: 2 0 00010000 0001 01 1 @a\nb c d zz e f g /x\n0: 2 0 00010000 0001 01 2 @\x0bz\n"
    )
    assert list(confinement.private_sockets(str(tmp_path / "table"))) == []
