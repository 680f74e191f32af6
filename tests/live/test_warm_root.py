"""Servers that root's hub starts as system users, from a process that is neither root nor they."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from harness import HubProcess
from notebook_tools import Notebook, run
from root_tools import (
    AS_ROOT,
    install,
)
from warm_tools import DIFFERENCES, PROBE, compared, holds, until_there

from minihub import warmrights, warmroot
from minihub.warm import NotWarm

pytestmark = [*AS_ROOT, pytest.mark.timeout(300)]


def status(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.split() for name, _colon, value in (one.partition(":") for one in lines)}


# -- what a server is ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "env", "launch"),
    [
        ("", {}, {}),
        (" -s", {}, {}),
        (" -IB", {}, {}),
        ("", {"LC_ALL": "C", "PYTHONUNBUFFERED": "1"}, {}),
        ("", {}, {"umask": 0o77, "nice": -3, "rlimits": {"RLIMIT_NOFILE": (200, 300)}}),
        ("", {}, {"cpus": (sorted(os.sched_getaffinity(0))[0],), "no_new_privs": True}),
    ],
    ids=["plain", "no user site", "isolated", "C locale", "limits that root may set", "processors"],
)
def test_cold_and_warm_processes_of_a_user_do_not_differ(room, bench, flags, env, launch):
    """Ids, groups, rights, limits, flags of the interpreter: only the listed differences."""
    script = install(room.place / "probe", PROBE, room.python, flags)
    cold = bench.facts(script, room.ada, env=env, **launch)
    parent = bench.parent(script, env=env)
    warm = bench.facts(script, room.ada, env=env, parent=parent, **launch)
    one, other = compared(cold), compared(warm)
    for facts in (one, other):  # how large a table the kernel once had to make is nobody's matter
        del facts["status"]["FDSize"]
    differing = [
        f"{name}:\n  cold {one[name]}\n  warm {other[name]}"
        for name in one
        if one[name] != other[name] and name not in DIFFERENCES
    ]
    assert not differing, "\n".join(differing)
    assert warm["ids"][0] == [room.ada.pw_uid] * 3 and len(warm["ids"][2]) == 2, "and games"
    assert {"CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"} <= set(
        warm["status"]
    )
    assert set(warm["status"]["CapEff"]) == set(warm["status"]["CapPrm"]) == {"0" * 16}
    assert set(cold["#modules"]) <= set(warm["#modules"])
    for name, file in cold["#module files"].items():
        assert file is None or warm["#module files"][name] == file


def test_set_uid_programs_work_as_after_a_cold_start(room, bench):
    """So sudo does, in a terminal."""
    whoami = shutil.copy("/usr/bin/id", room.place / "id")
    os.chmod(whoami, 0o4755)
    source = (
        "import json, subprocess, sys\n"
        f"said = subprocess.run([{str(whoami)!r}], capture_output=True, text=True).stdout\n"
        "open(sys.argv[1], 'w').write(json.dumps(said))\n"
    )
    script = install(room.place / "program", source, room.python)
    cold = bench.facts(script, room.ada)
    warm = bench.facts(script, room.ada, parent=bench.parent(script))
    assert "euid=0(root)" in cold and cold == warm


def test_process_of_a_server_is_its_users_own(room, bench, probe):
    """A debugger of the user's works on it, and /proc shows it, as after an execution."""
    parent = bench.parent(probe)
    facts = {}
    for how, one in (("cold", None), ("warm", parent)):
        code = "import time; time.sleep(60)"
        answer = os.path.join(room.ada.pw_dir, f"{how}.json")
        pid = bench.start(probe, room.ada, answer, code, parent=one).identity.pid
        until_there(answer)
        owners = {Path(f"/proc/{pid}/{name}").stat().st_uid for name in ("environ", "mem", "fd")}
        facts[how] = owners, as_user(room.ada, f"cat /proc/{pid}/environ | wc -c").returncode
    assert facts["cold"] == facts["warm"] == ({room.ada.pw_uid}, 0)


def as_user(account, command, **given):
    return subprocess.run(
        command if isinstance(command, list) else ["/bin/sh", "-c", command],
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        **given,
    )


# -- what two users have of each other, and of the parent --------------------------------------


def test_two_users_have_nothing_of_each_other(room, bench, probe):
    parent = bench.parent(probe)
    pids, answers = {}, {}
    for account in (room.ada, room.eve):
        answer = os.path.join(account.pw_dir, "mine.json")
        code = "import time; time.sleep(60)"
        one = bench.start(probe, account, answer, code, parent=parent)
        until_there(answer)
        pids[account.pw_name] = one.identity.pid
        answers[account.pw_name] = json.loads(Path(answer).read_text())
    for name, pid in pids.items():
        secret = f"secret-of-{name}".encode()
        assert [other for other, number in pids.items() if holds(number, secret)] == [name]
        assert not holds(parent.pid, secret)
        files = {str(file.resolve()) for file in Path(f"/proc/{pid}/fd").iterdir()}
        assert files == {"/dev/null", str(bench.directory / "logs" / f"{name}.log")}
        assert not shared_maps(pid)
    ada, eve = answers.values()
    for name in ("#random", "#name", "#authkey"):
        assert ada[name] != eve[name], name
    other = pids[room.ada.pw_name]
    for command in (
        f"cat /proc/{other}/environ",
        f"cat /proc/{other}/maps",
        f"head -c 1 /proc/{other}/mem",
        f"ls /proc/{other}/fd",
        f"kill -0 {other}",
    ):
        assert as_user(room.eve, command).returncode != 0, command


def shared_maps(pid):
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return [line for line in lines if line.split()[1][1::2] == "ws"]


PTRACE = """\
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
sys.exit(0 if libc.ptrace(16, int(sys.argv[1]), 0, 0) == 0 else ctypes.get_errno())
"""


def test_parent_is_nobodys_and_closed_to_all_but_root(room, bench, probe):
    parent = bench.parent(probe)
    found = status(parent.pid)
    assert found["Uid"] == found["Gid"] == [str(parent.uid)] * 4 and parent.uid in warmroot.IDS
    assert found["Groups"] == []
    assert int(found["CapEff"][0], 16) == int(found["CapInh"][0], 16) == 0
    assert int(found["CapAmb"][0], 16) == 0
    assert int(found["CapPrm"][0], 16) == warmrights.CHANGE_USER
    assert Path(f"/proc/{parent.pid}/environ").stat().st_uid == 0, "it can be dumped"
    with Path(f"/proc/{parent.pid}/net/unix").open() as file:
        assert str(bench.directory) not in file.read(), "it listens somewhere"
    other = SimpleNamespace(pw_uid=parent.uid, pw_gid=parent.uid)
    for account in (room.eve, other):  # even one who has got its very id
        for name in ("environ", "maps", "mem", "fd/0", "cwd/x", "root/etc/passwd"):
            command = f"head -c 1 /proc/{parent.pid}/{name}"
            assert as_user(account, command).returncode != 0, (account, command)
        done = as_user(account, [str(room.python), "-c", PTRACE, str(parent.pid)])
        assert done.returncode == 1, (account, done)  # EPERM
    for number in (0, 2, 9, 19):
        assert as_user(room.eve, f"kill -{number} {parent.pid}").returncode != 0
    assert psutil.Process(parent.pid).status() != psutil.STATUS_STOPPED
    assert bench.facts(probe, room.ada, parent=parent)["ids"][0] == [room.ada.pw_uid] * 3


def test_server_cannot_get_back_what_its_parent_may(room, bench):
    """Neither the parent's id nor root's, nor a right, also not by executing something."""
    source = """\
import json, os, subprocess, sys
sys.path.insert(0, os.path.dirname(sys.argv[1]))
tried, file = {}, open(sys.argv[1], "w")
for name, call in {
    "root": lambda: os.setuid(0),
    "parent": lambda: os.setresuid(*[%d] * 3),
    "group": lambda: os.setgid(0),
    "groups": lambda: os.setgroups([0]),
    "chown": lambda: os.chown(sys.argv[1], 0, 0),
}.items():
    try:
        call()
        tried[name] = "done"
    except PermissionError:
        tried[name] = "refused"
status = open("/proc/self/status").read()
child = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True).stdout
tried["rights"] = [line for line in (status + child).splitlines() if line[:6] in (
    "CapEff", "CapPrm", "CapInh", "CapAmb")]
json.dump(tried, file)
"""
    uid = warmroot.free_id()
    script = install(room.place / "program", source % uid, room.python)
    parent = bench.parent(script)
    assert parent.uid == uid
    facts = bench.facts(script, room.ada, parent=parent)
    assert {line.split()[1] for line in facts.pop("rights")} == {"0" * 16}
    assert set(facts.values()) == {"refused"}


def test_no_copy_becomes_root(room, bench, probe):
    root = SimpleNamespace(
        pw_name="root", pw_uid=0, pw_gid=0, pw_dir=room.ada.pw_dir, pw_shell="/bin/sh"
    )
    parent = bench.parent(probe)
    answer = os.path.join(room.ada.pw_dir, "of-root.json")
    with pytest.raises(NotWarm, match="no copy becomes this user"):
        bench.start(probe, root, answer, parent=parent)
    assert not os.path.exists(answer)


# -- JupyterLab ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lab_hub(room, lab_bin):
    """Root's hub, with nothing configured but who may log in, and two people's JupyterLabs."""
    program = str(lab_bin / "jupyterhub-singleuser")
    for path in (program, os.path.realpath(lab_bin / "python")):
        if not warmroot.is_roots(path):
            pytest.skip(f"others than root can change {path}")
    config = {
        "JupyterHub": {"spawner_class": "localprocess", "log_level": "INFO"},
        "Spawner": {"cmd": [program], "http_timeout": 120, "start_timeout": 120},
    }
    hub = HubProcess(room.place / "hub", config)
    try:
        hub.wait_ready()
        hub.wait_text(" is warm: ", 240)
        yield hub
    finally:
        code = hub.stop()
    assert code == 0, hub.text
    assert "Traceback" not in hub.text, hub.text


@pytest.mark.notebook
@pytest.mark.timeout(600)
def test_jupyterlabs_of_two_system_users_start_warm(room, lab_hub):
    """Unmodified, at once: each is its user, with kernels and files of that user's alone."""
    hub, people = lab_hub, {}
    for account in (room.ada, room.eve):
        people[account.pw_name] = hub.browser(account.pw_name)
        people[account.pw_name].get(f"/hub/spawn/{account.pw_name}")
    pids, facts = {}, {}
    for account, other in ((room.ada, room.eve), (room.eve, room.ada)):
        name = account.pw_name
        people[name].wait_server(name, timeout_s=120)
        hub.wait_text(f"Server {name}: pid .*, warm", 10)
        assert people[name].follow(f"/user/{name}/lab").status_code == 200
        notebook = Notebook(people[name], name)
        kernel = notebook.new_kernel().json()["id"]
        with notebook.channels(kernel) as socket:
            code = "import os; os.getuid(), os.environ['JUPYTERHUB_USER'], os.getcwd()"
            assert run(socket, code) == str((account.pw_uid, name, account.pw_dir))
            code = f"import subprocess; subprocess.run(['ls', {other.pw_dir!r}]).returncode"
            assert run(socket, code) != "0"
        pids[name] = hub.server_process(name).pid
        found = status(pids[name])
        facts[name] = {one: found[one] for one in found if one[:3] in ("Cap", "NoN", "Sec")}
        assert found["Uid"] == [str(account.pw_uid)] * 4
        assert found["Gid"] == [str(account.pw_gid)] * 4
        assert len(found["Groups"]) == 2
        log = hub.state_dir / "logs" / f"{name}.log"
        assert (log.stat().st_uid, log.stat().st_mode & 0o777) == (0, 0o600)
        assert not shared_maps(pids[name])
    ada, eve = facts.values()
    assert ada == eve and set(ada["CapPrm"] + ada["CapEff"] + ada["CapAmb"]) == {"0" * 16}
    assert ada["CapBnd"] == status(hub.process.pid)["CapBnd"] and ada["NoNewPrivs"] == ["0"]
    (parent,) = {psutil.Process(pid).ppid() for pid in pids.values()}
    assert int(status(parent)["Uid"][0]) in warmroot.IDS
    assert status(parent)["CapEff"] == ["0" * 16]
    for name, pid in pids.items():
        token = psutil.Process(pid).environ()["JUPYTERHUB_API_TOKEN"].encode()
        assert [one for one, number in pids.items() if holds(number, token)] == [name]
        assert not holds(parent, token)


@pytest.mark.notebook
def test_what_learned_has_left_nothing_behind(lab_hub):
    """Its home is gone, and nothing runs as its id but the one parent."""
    assert not (lab_hub.state_dir / "warm" / "learn-home").exists()
    family = psutil.Process(lab_hub.process.pid).children(recursive=True)
    (parent,) = (one for one in family if one.uids().real in warmroot.IDS)
    assert f"{lab_hub.state_dir}/warm/minihub-stand-in-" in parent.cwd()
