"""The launcher becomes the command: with the given bytes, signals, limits, directory."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from minihub import launcher, runtime

DESCRIPTION = {
    "argv": ["true"],
    "env": {"PATH": "/usr/bin:/bin"},
    "cwd": "/",
    "cwd_fallback": False,
    "umask": None,
    "nice": 0,
    "rlimits": {},
    "cpus": [],
    "cgroup": "",
    "user": "",
    "uid": -1,
    "gid": -1,
    "no_new_privs": False,
    "sandbox": None,
}


def launch(*argv, **description):
    """Run the launcher; return (process id, its answers, output of the command, exit code)."""
    spec = DESCRIPTION | {"argv": list(argv)} | description
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = subprocess.Popen(
            runtime.script_command("minihub.launcher", str(theirs.fileno())),
            pass_fds=[theirs.fileno()],
            stdout=subprocess.PIPE,
            env={},
        )
        theirs.close()
        ours.sendall(json.dumps(spec).encode())
        ours.shutdown(socket.SHUT_WR)
        answers = b""
        while piece := ours.recv(65536):
            answers += piece
        output = child.communicate(timeout=20)[0]
    return child.pid, [json.loads(a) for a in answers.splitlines()], output, child.returncode


def test_command_keeps_the_process_id():
    pid, answers, output, code = launch("sh", "-c", "echo $$; exit 7")
    assert int(output) == pid
    assert code == 7
    assert answers == [{"cwd": "/"}]


def test_arguments_and_environment_arrive_byte_for_byte():
    word = "\x01\xff é\n".encode("latin-1").decode("latin-1")
    _pid, _answers, output, _code = launch(
        "sh", "-c", 'printf %s "$1|$VALUE"', "sh", word, env={"PATH": "/bin", "VALUE": word}
    )
    raw = word.encode("latin-1")
    assert output == raw + b"|" + raw


def test_environment_is_the_given_one_alone():
    _pid, _answers, output, _code = launch("/usr/bin/env", env={"ONLY": "this"})
    assert output == b"ONLY=this\n"


def test_large_environment_passes():
    _pid, _answers, output, code = launch(
        "sh", "-c", 'printf %s "${#BIG}"', env={"PATH": "/bin", "BIG": "x" * 100_000}
    )
    assert (output, code) == (b"100000", 0)


def test_descriptors_are_the_standard_three():
    # ls itself opens the directory it lists.
    _pid, _answers, output, _code = launch("ls", "/proc/self/fd")
    assert output.split() == [b"0", b"1", b"2", b"3"]


def test_signals_have_their_default_meaning_whatever_the_hub_ignored():
    ignored = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ignored}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        _pid, _answers, output, _code = launch("cat", "/proc/self/status")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for number, handler in before.items():
            signal.signal(number, handler)
    status = dict(line.split(":", 1) for line in output.decode().splitlines())
    assert int(status["SigIgn"], 16) == 0
    assert int(status["SigBlk"], 16) == 0


def test_umask_niceness_and_limits_are_applied():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(64, hard)
    _pid, _answers, output, _code = launch(
        "sh",
        "-c",
        "umask; nice; ulimit -n",
        umask=0o027,
        nice=3,
        rlimits={"RLIMIT_NOFILE": [wanted, hard]},
    )
    own = os.nice(0)
    assert output.split() == [b"0027", str(own + 3).encode(), str(wanted).encode()]


@pytest.mark.skipif(sys.platform != "linux", reason="a promise of Linux")
def test_no_new_privileges_if_asked():
    _pid, _answers, output, _code = launch("cat", "/proc/self/status", no_new_privs=True)
    assert b"NoNewPrivs:\t1" in output


def test_unknown_limit_is_reported_by_name():
    _pid, answers, _output, code = launch("true", rlimits={"RLIMIT_NONSENSE": [1, 1]})
    assert (answers[-1]["step"], answers[-1]["path"]) == ("set_limits", "RLIMIT_NONSENSE")
    assert code == launcher.EXIT_CODE


def test_directory_is_entered(tmp_path):
    _pid, answers, output, _code = launch("pwd", cwd=str(tmp_path))
    assert output.decode().strip() == str(tmp_path)
    assert answers == [{"cwd": str(tmp_path)}]


def test_missing_directory_is_an_error_without_fallback(tmp_path):
    missing = tmp_path / "gone"
    _pid, answers, output, _code = launch("pwd", cwd=str(missing))
    assert output == b""
    assert answers[-1]["step"] == "enter_directory"
    assert answers[-1]["path"] == str(missing)


def test_missing_directory_falls_back_to_its_nearest_parent(tmp_path):
    missing = tmp_path / "gone" / "deeper"
    _pid, answers, output, _code = launch("pwd", cwd=str(missing), cwd_fallback=True)
    assert output.decode().strip() == str(tmp_path)
    assert answers == [{"cwd": str(tmp_path)}]


def test_directory_without_any_parent_falls_back_to_a_temporary_one():
    _pid, answers, output, _code = launch("pwd", cwd="/no-such-dir/home", cwd_fallback=True)
    where = Path(output.decode().strip())
    assert answers == [{"cwd": str(where)}]
    assert where.parent == Path("/tmp") and where.stat().st_mode & 0o777 == 0o700
    where.rmdir()


def test_program_is_looked_for_on_the_path_of_its_own_environment(tmp_path):
    program = tmp_path / "hello-there"
    program.write_text("#!/bin/sh\necho found\n")
    program.chmod(0o755)
    _pid, _answers, output, _code = launch("hello-there", env={"PATH": f"/bin:{tmp_path}"})
    assert output == b"found\n"


def test_empty_elements_of_the_path_do_not_mean_the_current_directory(tmp_path):
    program = tmp_path / "hello-there"
    program.write_text("#!/bin/sh\necho found\n")
    program.chmod(0o755)
    _pid, answers, _output, _code = launch("hello-there", cwd=str(tmp_path), env={"PATH": ":/bin:"})
    assert answers[-1]["errno"] == 2


def test_missing_program_is_reported_by_name():
    _pid, answers, _output, code = launch("no-such-program")
    assert answers[0] == {"cwd": "/"}
    assert answers[1] == {
        "step": "execute",
        "path": "no-such-program",
        "errno": 2,
        "text": "No such file or directory",
    }
    assert code == launcher.EXIT_CODE


def test_script_whose_interpreter_is_gone_is_not_called_missing(tmp_path):
    program = tmp_path / "orphan"
    program.write_text("#!/no/such/python\n")
    program.chmod(0o755)
    _pid, answers, _output, _code = launch(str(program))
    assert answers[-1]["path"] == str(program)
    assert answers[-1]["text"] == "the interpreter in its first line does not exist"


def test_file_that_may_not_be_executed_is_found_and_refused(tmp_path):
    (tmp_path / "plain").write_text("text")
    _pid, answers, _output, _code = launch("plain", env={"PATH": str(tmp_path)})
    assert answers[-1]["path"] == str(tmp_path / "plain")
    assert answers[-1]["text"] == "Permission denied"


def test_words_that_no_system_takes_are_reported():
    _pid, answers, _output, _code = launch("true", "nul\0inside")
    assert answers[-1]["step"] == "execute"
    assert answers[-1]["path"].endswith("/true") and "null byte" in answers[-1]["text"]


def test_broken_description_ends_without_an_answer():
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            child = subprocess.Popen(
                runtime.script_command("minihub.launcher", str(theirs.fileno())),
                pass_fds=[theirs.fileno()],
                stderr=subprocess.DEVNULL,
            )
        ours.sendall(b"{")
        ours.shutdown(socket.SHUT_WR)
        assert ours.recv(100) == b""
    assert child.wait(20) == 1


def test_processors_are_those_asked_for():
    one = min(os.sched_getaffinity(0))
    program = "import os; print(os.sched_getaffinity(0))"
    _pid, _answers, output, _code = launch(sys.executable, "-c", program, cpus=[one])
    assert output == f"{{{one}}}\n".encode()


def test_impossible_processors_are_reported():
    _pid, answers, _output, code = launch("true", cpus=[1_000_000])
    assert (answers[0]["step"], answers[0]["path"]) == ("set_limits", "processors 1000000")
    assert code == launcher.EXIT_CODE


def test_control_group_is_joined(tmp_path):
    (tmp_path / "cgroup.procs").write_text("")
    _pid, answers, _output, code = launch("true", cgroup=str(tmp_path))
    assert (tmp_path / "cgroup.procs").read_text() == "0"  # the kernel reads it as: the writer
    assert answers == [{"cwd": "/"}] and code == 0


def test_missing_control_group_is_reported(tmp_path):
    _pid, answers, _output, code = launch("true", cgroup=str(tmp_path / "gone"))
    assert answers[0]["step"] == "join_group"
    assert answers[0]["path"] == str(tmp_path / "gone" / "cgroup.procs")
    assert code == launcher.EXIT_CODE


def test_path_that_stands_for_a_place_leads_through_no_link(tmp_path):
    """A way that had none when the list was made may have one now."""
    (tmp_path / "real" / "inside").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.close(launcher.open_path(os.fsencode(tmp_path / "real" / "inside")))
    for path in ("link", "link/inside", "gone"):
        with pytest.raises(OSError):
            launcher.open_path(os.fsencode(tmp_path / path))


def test_place_is_opened_where_the_call_for_it_is_not_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(launcher, "OPENAT2", 100_000)  # a number of no call
    os.close(launcher.open_path(os.fsencode(tmp_path)))
