"""Servers that root's hub starts as system users, from a process that is neither root nor they."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from harness import FAKE_SERVER, HubProcess, until
from notebook_tools import Notebook, run
from root_tools import (
    AS_ROOT,
    MODULES,
    Bench,
    accounts,
    install,
    new_environment,
    packages_of,
    place_of_roots,
)
from test_warm_process import DIFFERENCES, PROBE, compared, holds

from minihub import warmrights, warmroot
from minihub.errors import SpawnError
from minihub.warm import NotWarm, learn

pytestmark = [*AS_ROOT, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def room():
    """Two people, and an environment that root alone can change."""
    with place_of_roots() as place, accounts("ada", "eve") as people:
        python = new_environment(place / "env")
        yield SimpleNamespace(place=place, python=python, **people)


@pytest.fixture
def bench(tmp_path):
    found = Bench(tmp_path / "warm")
    yield found
    found.stop()


@pytest.fixture
def probe(room):
    return install(room.place / "probe", PROBE, room.python)


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


def until_there(path):
    deadline = time.monotonic() + 60
    while not (os.path.exists(path) and Path(path).read_text().endswith("}")):
        assert time.monotonic() < deadline
        time.sleep(0.02)


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


# -- what is not root's ------------------------------------------------------------------------

#: Leaves a mark when it is run, wherever that is.
PLANT = "import os; open({marker!r} + str(os.getpid()), 'w').close()"


@pytest.fixture
def marker(tmp_path):
    """The beginning of the names of files that planted code leaves, where everybody may."""
    place = Path(f"/tmp/{tmp_path.parent.name}-{tmp_path.name}-marks")
    place.mkdir()
    place.chmod(0o777)
    yield str(place / "ran-")
    shutil.rmtree(place)


def ran(marker):
    return os.listdir(os.path.dirname(marker))


@pytest.fixture
def env(room):
    """An environment that a test may spoil."""
    directory = room.place / "spoilt"
    yield new_environment(directory)
    shutil.rmtree(directory)


def group_writable(path):
    path.chmod(path.stat().st_mode | 0o020)


def foreign_pth(env, room, plant):
    file = packages_of(env) / "planted.pth"
    file.write_text(plant + "\n")
    os.chown(file, room.eve.pw_uid, -1)
    return file


def writable_packages(env, room, plant):
    folder = packages_of(env)
    (folder / "planted.pth").write_text(plant + "\n")
    (folder / "json.py").write_text(plant)
    group_writable(folder)
    return folder


def writable_module(env, room, plant):
    file = packages_of(env) / "planted.py"
    file.write_text(plant)
    group_writable(file)
    return file


def editable(env, room, plant):
    folder = room.place / "work"
    folder.mkdir(exist_ok=True)
    (folder / "planted.py").write_text(plant)
    os.chown(folder, room.eve.pw_uid, -1)
    (packages_of(env) / "editable.pth").write_text(f"{folder}\n")
    return folder


def foreign_folder_above(env, room, plant):
    (packages_of(env) / "planted.pth").write_text(plant + "\n")
    os.chown(env.parent.parent, room.eve.pw_uid, -1)
    return env.parent.parent


def writable_link(env, room, plant):
    """The folder that a link on the way leads through is somebody's."""
    elsewhere = room.place / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    (elsewhere / "planted.py").write_text(plant)
    elsewhere.chmod(0o777)
    (packages_of(env) / "planted.py").symlink_to(elsewhere / "planted.py")
    return elsewhere


def listed_more(env, room, plant):
    """Somebody is given the right to write by a list of its own (ACL)."""
    if shutil.which("setfacl") is None:
        pytest.skip("there is no setfacl")
    (packages_of(env) / "planted.pth").write_text(plant + "\n")
    command = ["setfacl", "-m", f"u:{room.eve.pw_name}:rwx", packages_of(env)]
    subprocess.run(command, check=True)
    return packages_of(env)


def started_by_roots(env, room, plant):
    """A line of root's, in a file of root's, imports what somebody else can change."""
    file = packages_of(env) / "starter.py"
    file.write_text(plant)
    os.chown(file, room.eve.pw_uid, -1)
    (packages_of(env) / "starter.pth").write_text("import starter\n")
    return file


def writable_cache(env, room, plant):
    """The source is root's and does nothing; what is kept of it beside it is anybody's."""
    file = packages_of(env) / "planted.py"
    file.write_text(plant)
    code = f"import py_compile; print(py_compile.compile({str(file)!r}))"
    said = subprocess.run([env, "-c", code], check=True, capture_output=True, text=True).stdout
    before = file.stat().st_mtime_ns
    file.write_text("#" * len(plant))
    os.utime(file, ns=(before, before))
    group_writable(Path(said.strip()).parent)
    return Path(said.strip()).parent


WAYS = [
    foreign_pth,
    writable_packages,
    writable_module,
    editable,
    foreign_folder_above,
    writable_link,
    listed_more,
    started_by_roots,
    writable_cache,
]


@pytest.mark.parametrize("spoil", WAYS, ids=lambda one: one.__name__)
def test_code_that_others_can_change_never_runs_in_a_parent(room, bench, env, marker, spoil):
    """The path that is not root's is named; the code has not run, and does in a cold start."""
    plant = PLANT.format(marker=marker)
    path = spoil(env, room, plant)
    source = f"import json, sys\ntry:\n    import planted\nexcept ImportError:\n    {plant}\n"
    script = install(room.place / "program", source + "print(sys.argv)\n", env)
    modules = (*MODULES, "planted") if "pth" not in spoil.__name__ else MODULES
    with pytest.raises(NotWarm) as refused:
        bench.parent(script, modules=modules)
    report = bench.parents[-1].report
    assert str(path) in str(refused.value) or str(path) in str(report), (refused.value, report)
    assert "root alone can change" in str(refused.value)
    assert not ran(marker), bench.log()
    assert bench.start(script, room.ada).wait(60) == 0
    assert ran(marker), "it would have run"


def test_module_that_others_can_change_is_left_out_and_named(room, bench, env, marker):
    """All others may be fit: the pool makes a parent without it, and each server imports it."""
    path = writable_module(env, room, PLANT.format(marker=marker))
    (packages_of(env) / "user.py").write_text("try:\n    import planted\nexcept OSError: pass\n")
    script = install(room.place / "program", "import user\n", env)
    with pytest.raises(NotWarm, match="can be written by the group root"):
        bench.parent(script, modules=(*MODULES, "user"))
    assert bench.parents[-1].report["leave_out"] == ["user"], "it would lack what it was refused"
    assert not ran(marker)
    parent = bench.parent(script)
    assert bench.start(script, room.ada, parent=parent).wait(60) == 0
    assert len(ran(marker)) == 1 and str(path)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("open('/etc/shadow')", "/etc/shadow cannot be read by everybody"),
        ("import os\nme = os.getuid() == 0", "asks who runs it"),
        ("import mmap\nshared = mmap.mmap(-1, 4096)", "writable memory in common"),
        ("import socket\nsocket.create_connection(('127.0.0.1', 9))", "while it is imported"),
        ("import os\nos.open('x', os.O_RDONLY, dir_fd=0)", "may be relative to any folder"),
        ("open('/proc/1/root/etc/passwd')", "leads to another process or file"),
        ("open('/proc/self/fd/0')", "leads to another process or file"),
        ("open('/proc/1/cmdline')", "leads to another process or file"),
        ("import subprocess\nsubprocess.run(['{foreign}'])", "belongs to the user"),
        ("import ctypes\nctypes.CDLL('{foreign}')", "belongs to the user"),
        ("import sqlite3\nsqlite3.connect('{foreign}')", "belongs to the user"),
        ("open('/tmp/no-such-file')", "/tmp can be written by everybody"),
    ],
)
def test_module_that_reads_what_differs_or_is_not_roots_is_refused(
    room, bench, env, source, problem
):
    foreign = room.place / "thing"
    shutil.copy("/usr/bin/true", foreign)
    foreign.chmod(0o755)
    os.chown(foreign, room.eve.pw_uid, -1)
    lines = source.replace("{foreign}", str(foreign)).splitlines()
    guarded = "\n".join(f"    {line}" for line in lines)
    text = f"try:\n{guarded}\nexcept OSError: pass\n"
    (packages_of(env) / "planted.py").write_text(text)
    script = install(room.place / "program", "", env)
    with pytest.raises(NotWarm, match=problem):
        bench.parent(script, modules=("ctypes", "subprocess", "sqlite3", "mmap", "planted"))


def test_library_whose_libraries_others_can_change_is_refused(room, bench, env, marker):
    """The system's loader finds them by itself, where no hook of Python's sees it."""
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    place = room.place / "theirs"
    place.mkdir()
    place.chmod(0o777)
    helper = 'void __attribute__((constructor)) run(void) { creat("%shelper", 0666); }'
    code = f"#include <fcntl.h>\nvoid used(void) {{}}\n{helper % marker}\n"
    compile_(code, place / "libhelper.so")
    folder = packages_of(env)
    compile_(
        "extern void used(void); void *PyInit_planted(void) { used(); return 0; }",
        folder / "planted.so",
        f"-L{place}",
        "-lhelper",
        f"-Wl,-rpath,{place}",
    )
    script = install(room.place / "program", "try:\n  import planted\nexcept: pass\n", env)
    with pytest.raises(NotWarm, match=f"{place} can be written by everybody"):
        bench.parent(script, modules=("planted",))
    assert not ran(marker)
    bench.start(script, room.ada).wait(60)
    assert ran(marker), "it would have run"
    place.chmod(0o755)
    shutil.rmtree(place)


def test_library_that_others_could_put_one_beside_is_refused(room, bench, env):
    """There is none yet where the loader looks first."""
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    place = room.place / "theirs"
    place.mkdir()
    place.chmod(0o777)
    file = packages_of(env) / "planted.so"
    compile_("void *PyInit_planted(void) { return 0; }", file, f"-Wl,-rpath,{place}")
    script = install(room.place / "program", "", env)
    with pytest.raises(NotWarm, match=f"{place} can be written by everybody"):
        bench.parent(script, modules=("planted",))
    place.rmdir()


def compile_(code, file, *flags):
    command = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(file), *flags]
    subprocess.run(command, input=code, text=True, check=True)


def test_what_python_reads_before_it_is_guarded_is_judged_before(room, bench, probe, marker):
    """A folder of PYTHONPATH is looked through: it comes before the standard library."""
    folder = room.place / "lib"
    (folder / "json").mkdir(parents=True)
    shutil.copytree(os.path.dirname(json.__file__), folder / "json", dirs_exist_ok=True)
    with (folder / "json" / "__init__.py").open("a") as file:
        file.write(PLANT.format(marker=marker) + "\n")
    env = {"PYTHONPATH": str(folder)}
    group_writable(folder / "json")
    with pytest.raises(NotWarm, match=f"{folder}/json can be written by the group root"):
        bench.parent(probe, env=env)
    assert not ran(marker)
    (folder / "json").chmod(0o755)
    parent = bench.parent(probe, env=env)
    assert ran(marker), "root's own code runs"
    assert bench.facts(probe, room.ada, env=env, parent=parent)["path"][1] == str(folder)
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["pyvenv.cfg", "lib", "bin"])
def test_what_leads_to_the_standard_library_is_judged_before(room, bench, env, name):
    """Who can change that gives the interpreter another library, before any guard of ours."""
    path = env.parent.parent / name
    os.chown(path, room.eve.pw_uid, -1)
    script = install(room.place / "program", "", env)
    with pytest.raises(NotWarm, match=f"{path} belongs to the user {room.eve.pw_name}"):
        warmroot.check(bench.plan(script))


def test_folder_that_a_link_leads_to_is_looked_through(room, bench, probe):
    folder, other = room.place / "lib", room.place / "other"
    folder.mkdir()
    other.mkdir()
    (folder / "package").symlink_to(other)
    (other / "module.py").touch()
    plan = bench.plan(probe, env={"PYTHONPATH": str(folder)})
    warmroot.check(plan)
    group_writable(other / "module.py")
    with pytest.raises(NotWarm, match=f"{other}/module.py can be written by the group root"):
        warmroot.check(plan)
    shutil.rmtree(folder)
    shutil.rmtree(other)


@pytest.mark.parametrize("flag", [" -S", " -sS", " -Xpycache_prefix=/tmp"])
def test_first_line_that_steers_the_start_keeps_all_cold(room, bench, flag):
    script = install(room.place / "program", "", room.python, flag)
    with pytest.raises(NotWarm, match="is unusual"):
        warmroot.check(bench.plan(script))


def test_what_learns_has_no_right_and_leaves_nothing_running(room, bench, marker):
    source = f"""\
import os, subprocess, sys
with open({marker!r} + "status", "w") as file:
    file.write(open("/proc/self/status").read())
with open({marker!r} + "home", "w") as file:
    file.write(os.environ["HOME"])
os.close(os.open(os.path.expanduser("~/mine"), os.O_CREAT))
if os.fork() == 0:
    os.setsid()
    os.execv("/bin/sleep", ["sleep", "600"])
"""
    script = install(room.place / "program", source, room.python)
    with pytest.raises(NotWarm, match="its throw-away start ended"):
        learn(bench.plan(script), bench.directory)
    found = dict(line.split(":", 1) for line in Path(marker + "status").read_text().splitlines())
    assert int(found["Uid"].split()[0]) in warmroot.IDS and len(set(found["Uid"].split())) == 1
    assert found["Groups"].split() == [] and found["NoNewPrivs"].strip() == "1"
    for name in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
        assert int(found[name], 16) == 0, name
    home = Path(marker + "home").read_text()
    assert home.startswith("/tmp/minihub-learn-") and not os.path.exists(home)
    own = int(found["Uid"].split()[0])
    left = [one for one in psutil.process_iter() if one.uids().real == own]
    assert all(one.status() == psutil.STATUS_ZOMBIE for one in left), left


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        (["json", "os.path", "../x", "a b", "", 3, "json;x", "9x", "a..b"], ["json", "os.path"]),
        ({"json": 1}, None),
        (["x"] * 20_001, None),
    ],
)
def test_only_names_are_taken_from_what_learns(told, kept):
    if kept is None:
        with pytest.raises(NotWarm, match="told no names"):
            warmroot.names(told)
    else:
        assert warmroot.names(told) == kept


def test_user_with_too_many_processes_gets_no_more(room, bench, probe):
    """A cold start fails at the execution, which a warm one does not have."""
    parent = bench.parent(probe)
    answer = os.path.join(room.ada.pw_dir, "busy.json")
    bench.start(probe, room.ada, answer, "import time; time.sleep(60)", parent=parent)
    until_there(answer)
    few = {"rlimits": {"RLIMIT_NPROC": (0, 0)}}
    with pytest.raises(SpawnError):
        bench.start(probe, room.ada, parent=None, **few)
    with pytest.raises(NotWarm, match="temporarily unavailable"):
        bench.start(probe, room.ada, parent=parent, **few)


@pytest.mark.parametrize("name", ["LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONHOME", "OPENSSL_CONF"])
def test_variable_that_steers_what_is_loaded_keeps_all_cold(room, bench, probe, name):
    with pytest.raises(NotWarm, match=f"{name} is set"):
        bench.parent(probe, env={name: "/opt"})


def test_environment_that_not_everybody_can_enter_is_cold(room, bench, env):
    script = install(room.place / "program", "", env)
    env.parent.parent.chmod(0o700)
    with pytest.raises(NotWarm, match=f"{env.parent.parent} is not open to everybody"):
        bench.parent(script)


def test_import_hooks_and_names_of_python_are_as_ever(room, bench):
    """An interpreter that a server starts gets no ``-S``, and finds its packages."""
    source = (
        "import json, subprocess, sys\n"
        "flags = subprocess._args_from_interpreter_flags()\n"
        "code = 'import json, sys; print(json.dumps([sys.path[1:], sys.flags.no_site]))'\n"
        "said = subprocess.run([sys.executable, *flags, '-c', code], capture_output=True)\n"
        "found = [flags, sys.flags.no_site, json.loads(said.stdout), exit.__class__.__name__]\n"
        "open(sys.argv[1], 'w').write(json.dumps(found))\n"
    )
    script = install(room.place / "program", source, room.python)
    warm = bench.facts(script, room.ada, parent=bench.parent(script, modules=("subprocess",)))
    assert warm == bench.facts(script, room.ada)
    assert warm[:2] == [[], 0] and str(packages_of(room.python)) in warm[2][0]


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


def test_hub_says_what_is_not_roots_and_gets_warm_once_it_is(room, env, tmp_path):
    """The log, the admin's page and doctor name it; nobody has to start the hub again."""
    script = install(room.place / "small-server", FAKE_SERVER, env)
    folder = packages_of(env)
    group_writable(folder)
    config = {
        "JupyterHub": {"spawner_class": "localprocess", "log_level": "INFO"},
        "Spawner": {"cmd": [str(script)]},
        "LocalProcessSpawner": {"warm": "on"},
    }
    hub = HubProcess(tmp_path / "hub", config)
    try:
        hub.wait_ready()
        said = f"small-server starts cold: {folder} can be written by the group root; "
        hub.wait_text(re.escape(said), 120)
        hub.browser(room.ada.pw_name).start_server(room.ada.pw_name)
        hub.wait_text(f"Server {room.ada.pw_name}: pid .*, cold", 10)
        note = until(lambda: (hub.state_dir / "warm" / "states.json").read_text(), 20)
        assert str(folder) in note
        folder.chmod(0o755)
        hub.wait_text(" is warm: ", 120)
        hub.browser(room.eve.pw_name).start_server(room.eve.pw_name)
        hub.wait_text(f"Server {room.eve.pw_name}: pid .*, warm", 10)
    finally:
        code = hub.stop()
    assert code == 0, hub.text
