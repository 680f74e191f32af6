"""What a server in the sandbox may read and write: a list made of what is on the disk."""

from __future__ import annotations

import json
import os
import sys

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
    assert "signals" in next(confinement.gaps())
    monkeypatch.setattr(confinement, "abi", lambda: 6)
    assert list(confinement.gaps()) == []
