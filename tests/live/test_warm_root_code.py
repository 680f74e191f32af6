"""What the parent of system users' servers reads, and whose code never runs in it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import psutil
import pytest
from harness import FAKE_SERVER, HubProcess, until
from root_tools import (
    AS_ROOT,
    install,
    new_environment,
    packages_of,
)
from warm_tools import MODULES, until_there

from minihub import warmroot
from minihub.errors import SpawnError
from minihub.warm import NotWarm, learn

pytestmark = [*AS_ROOT, pytest.mark.timeout(300)]

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
        ("open('/proc/1/cwd/etc/passwd')", "leads to another process or file"),
        ("open('/proc/self/fd/0')", "leads to another process or file"),
        ("open('/proc/1/cmdline')", "leads to another process or file"),
        ("import subprocess\nsubprocess.run(['{foreign}'])", "belongs to the user"),
        ("import ctypes\nctypes.CDLL('{foreign}')", "belongs to the user"),
        (
            "import os, pathlib\nos.open(pathlib.Path('{foreign}'), os.O_RDONLY)",
            "belongs to the user",
        ),
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
