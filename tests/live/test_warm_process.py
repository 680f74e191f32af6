"""A process that was forked from a warm parent is what it would be had it been executed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from warm_tools import DIFFERENCES, MODULES, PROBE, compared, holds, started, until_there

from minihub import process, warm
from minihub.warm import Learned, NotWarm, Plan, WarmParent

PATH = f"{os.path.dirname(sys.executable)}:/usr/bin:/bin"
#: What is the same for all servers.
COMMON = {"PATH": PATH, "LANG": "C.UTF-8", "TZ": "Asia/Tokyo"}
OWN = ("HOME", "JUPYTERHUB_API_TOKEN", "MINIHUB_SERVER_ID", "SHELL", "USER")


@pytest.fixture
def program(tmp_path):
    """Install a Python program and return its path."""

    def install(source=PROBE, flags="", python=sys.executable):
        file = tmp_path / "bin" / f"program-{len(list(tmp_path.glob('bin/*')))}"
        file.parent.mkdir(exist_ok=True)
        text = Path(source).read_text() if isinstance(source, Path) else source
        file.write_text(f"#!{python}{flags}\n{text}")
        file.chmod(0o755)
        return file

    return install


@pytest.fixture
def new_parent(tmp_path):
    """Make warm parents; all are stopped at the end."""
    parents = []

    def make(script, *, modules=MODULES, env=COMMON, own=OWN, start=True, **kwargs):
        command = warm.find_command(str(script), PATH)
        plan = Plan(command, env=env, own_names=own, **kwargs)
        directory = process.private_directory(tmp_path / "warm")
        parents.append(WarmParent(plan, Learned(modules), directory))
        if start:
            parents[-1].start()
        return parents[-1]

    yield make
    for parent in parents:
        for pid in parent.running():
            os.kill(pid, signal.SIGKILL)
        parent.stop()


class Starter:
    """Starts a program cold or warm, as a user of that name."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.count = 0
        self.started = []

    def __call__(self, script, *args, parent=None, user="ada", env=None, wait=True, **launch):
        self.count += 1
        home = self.place / user
        home.mkdir(exist_ok=True)
        answer = self.place / f"answer-{self.count}.json"
        given = {
            "env": COMMON
            | {"HOME": str(home), "USER": user, "JUPYTERHUB_API_TOKEN": f"secret-of-{user}"}
            | (env or {}),
            "cwd": home,
            "log_path": self.place / "logs" / f"{user}.log",
            "launch": process.LaunchSpec(**launch),
            "timeout_s": 30,
        }
        one = started([str(script), str(answer), *args], parent, **given)
        self.started.append(one)
        if not wait:
            return one
        code = one.wait(60)
        text = Path(given["log_path"]).read_text()
        assert code == 0, text
        return json.loads(answer.read_text().replace(answer.name, "answer"))


MARKER = re.compile(r"(?<=')[0-9a-f]{32}(?=')")


@pytest.fixture
def start(tmp_path):
    starter = Starter(tmp_path)
    yield starter
    for one in starter.started:
        one.stop(0, 0, 10)


@pytest.mark.parametrize(
    ("flags", "env", "launch"),
    [
        ("", {}, {}),
        (" -s", {}, {}),
        (" -IB", {}, {}),
        ("", {"LC_ALL": "C", "PYTHONUNBUFFERED": "1"}, {}),
        ("", {"LANG": "POSIX", "PYTHONUTF8": "0", "PYTHONWARNINGS": "error"}, {}),
        ("", {}, {"umask": 0o77, "nice": 3, "rlimits": {"RLIMIT_NOFILE": (200, 300)}}),
        ("", {}, {"cpus": (sorted(os.sched_getaffinity(0))[0],), "no_new_privs": True}),
    ],
    ids=[
        "plain",
        "no user site",
        "isolated",
        "C locale",
        "POSIX",
        "limits",
        "processors",
    ],
)
def test_cold_and_warm_processes_do_not_differ(program, new_parent, start, flags, env, launch):
    """Nothing differs but what is listed, with a reason, in DIFFERENCES."""
    script = program(flags=flags)
    cold = start(script, env=env, **launch)
    parent = new_parent(script, env=COMMON | env)
    warm_ = start(script, env=env, parent=parent, **launch)
    one, other = compared(cold), compared(warm_)
    differing = [
        f"{name}:\n  cold {one[name]}\n  warm {other[name]}"
        for name in one
        if one[name] != other[name] and name not in DIFFERENCES
    ]
    assert not differing, "\n".join(differing)
    assert set(cold["#modules"]) <= set(warm_["#modules"])
    for name, file in cold["#module files"].items():
        assert warm_["#module files"][name] == file


# -- what two servers of one parent have in common ------------------------------------------


def test_two_servers_have_nothing_of_each_other(program, new_parent, start, tmp_path):
    """Not in memory, nor open, nor on the way: no token, no random number, no name of a file."""
    script = program()
    parent = new_parent(script)
    pids = {}
    for user in ("ada", "eve", "mia"):
        one = start(script, "import time; time.sleep(60)", parent=parent, user=user, wait=False)
        until_there(tmp_path / f"answer-{start.count}.json")
        pids[user] = one.identity.pid
    for user, pid in pids.items():
        secret = f"secret-of-{user}".encode()
        assert [name for name, other in pids.items() if holds(other, secret)] == [user]
        assert not holds(parent.pid, secret)
        log = (tmp_path / "logs" / f"{user}.log").as_posix()
        files = {file.resolve().as_posix() for file in Path(f"/proc/{pid}/fd").iterdir()}
        assert files == {"/dev/null", log}
    ada, eve, mia = (
        json.loads((tmp_path / f"answer-{number}.json").read_text()) for number in (1, 2, 3)
    )
    for name in ("#random", "#name", "#authkey"):
        assert len({str(facts[name]) for facts in (ada, eve, mia)}) == 3, name
    # The one thing that is shared, and why a parent does not live longer than a day.
    assert ada["#hash"] == eve["#hash"]


def test_numpy_gives_each_server_other_numbers(program, new_parent, start, numpy_bin):
    script = program(python=numpy_bin / "python")
    env = {"OPENBLAS_NUM_THREADS": "1"}  # else it starts threads when it is imported
    modules = (*MODULES, "numpy", "numpy.random")
    parent = new_parent(script, modules=modules, env=COMMON | env)
    ada, eve = (start(script, parent=parent, user=user, env=env) for user in ("ada", "eve"))
    assert ada["#numpy"] != eve["#numpy"]
    assert "numpy.random" not in start(script, env=env)["#modules"]  # it came with the parent


def test_descriptors_of_the_parent_and_of_other_servers_are_closed(program, new_parent, start):
    script = program()
    parent = new_parent(script)
    start(script, "import time; time.sleep(60)", parent=parent, user="eve", wait=False)
    facts = start(script, parent=parent)
    assert sorted(facts["descriptors"]) == ["0", "1", "2"]


# -- what keeps a parent from being used ----------------------------------------------------

PLANTED = {
    "reads a directory": (
        "import os\nplace = os.path.expanduser('~/.config')",
        r"planted\.place: '/minihub-stand-in-\w+/home/.config' stays",
    ),
    "hides a value deep inside": (
        "import os\nclass A:\n    def __init__(self): self.b = [({'k': os.environ['USER']},)]\n"
        "a = A()",
        r"planted.*minihub-stand-in-\w+-user' stays",
    ),
    "remembers when it was imported": (
        "import time\nstarted = time.time()",
        r"started: \d+.*stays",
    ),
    "remembers the process": ("import os\nmain_pid = os.getpid()", r"main_pid: \d+ stays"),
    "remembers the directory": ("import os\nhere = os.getcwd()", r"here: .*stays"),
    "takes random bytes": ("import os\nkey = os.urandom(16)", "planted takes random bytes"),
    "starts a thread": (
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
        "it has 2 threads",
    ),
    "runs a program": ("import subprocess\nsubprocess.run(['true'])", r"planted runs a program"),
    "forks": (
        "import os\npid = os.fork()\nif not pid: os._exit(0)\nos.waitpid(pid, 0)",
        r"planted runs a program \(fork\)",
    ),
    "leaves a child": (
        "import subprocess\nit = subprocess.Popen(['sleep', '5'])",
        "it has child processes",
    ),
    "opens a file": ("file = open('/etc/passwd')", "it holds /etc/passwd open"),
    "opens a socket": ("import socket\nit = socket.socket()", r"it holds socket:\S+ open"),
    "handles a signal": (
        "import signal\nsignal.signal(signal.SIGTERM, lambda *a: None)",
        f"it handles the signal {int(signal.SIGTERM)}",
    ),
    "changes a variable": ("import os\nos.environ['X'] = '1'", "planted changes the variable X"),
    "copies all variables": ("import os\nall = dict(os.environ)", "planted reads all variables"),
}


@pytest.mark.parametrize("what", PLANTED)
def test_module_that_servers_must_not_share_makes_a_parent_unfit(
    what, program, new_parent, tmp_path
):
    source, reason = PLANTED[what]
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "planted.py").write_text(source)
    env = COMMON | {"PYTHONPATH": str(tmp_path / "lib")}
    parent = new_parent(program(), modules=["planted"], env=env, start=False)
    with pytest.raises(NotWarm, match=reason):
        parent.start()
    assert not parent.is_alive()


@pytest.mark.parametrize(
    ("source", "own", "reason"),
    [
        ("import os\ndebug = os.environ.get('USER') == 'ada'", {}, "planted has read .* USER"),
        ("import os\nfast = 'FAST' in os.environ", {"FAST": "1"}, "planted has read .* FAST"),
        ("", {"PYTHONHASHSEED": "1"}, "Python has read another value of PYTHONHASHSEED"),
        ("", {"LANG": "de_DE.UTF-8"}, "Python has read another value of LANG"),
        ("", {"PYTHONPATH": ":/x"}, "another value of PYTHONPATH"),
    ],
)
def test_variable_that_was_read_must_be_the_same(
    source, own, reason, program, new_parent, start, tmp_path
):
    """A value that only decides something, and is kept nowhere, is missed by no search."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "planted.py").write_text(source)
    script = program()
    env = COMMON | {"PYTHONPATH": str(tmp_path / "lib")}
    parent = new_parent(script, modules=["planted"], env=env)
    with pytest.raises(NotWarm, match=reason):
        start(script, parent=parent, env={"PYTHONPATH": str(tmp_path / "lib")} | own)


def test_users_own_packages_keep_a_start_cold(program, new_parent, start, tmp_path):
    script = program(python="/usr/bin/python3")
    parent = new_parent(script)
    if not parent.report["user_site"]:
        pytest.skip("this Python knows no packages of a user's own")
    assert start(script, parent=parent)["leader"] == [True, True]
    site = tmp_path / "ada" / ".local" / "lib" / f"python{parent.report['version']}"
    (site / "site-packages").mkdir(parents=True)
    with pytest.raises(NotWarm, match=r"packages of the user's own in .*/ada/\.local"):
        start(script, parent=parent)
    assert start(script, parent=parent, user="eve")["leader"] == [True, True]


def test_changed_package_and_changed_program_are_noticed(program, new_parent, tmp_path):
    lib = tmp_path / "lib"
    lib.mkdir()
    (lib / "planted.py").write_text("value = 1")
    script = program()
    env = COMMON | {"PYTHONPATH": str(lib)}

    def outdated(change):
        parent = new_parent(script, modules=["planted"], env=env)
        assert parent.is_fresh()
        change()
        time.sleep(warm.LOOK_AGAIN_S)
        return not parent.is_fresh()

    assert outdated(lambda: (lib / "planted.py").write_text("value = 22"))
    time.sleep(0.1)
    assert outdated(lambda: (lib / "installed.py").write_text(""))
    assert outdated(lambda: script.write_text(script.read_text() + "\n# changed"))
    assert not outdated(lambda: (tmp_path / "elsewhere").mkdir())


def test_packages_that_change_while_they_are_imported_make_a_parent_unfit(
    program, new_parent, tmp_path
):
    lib = tmp_path / "lib"
    lib.mkdir()
    (lib / "planted.py").write_text(f"open({str(lib / 'new.py')!r}, 'w').close()\n")
    env = COMMON | {"PYTHONPATH": str(lib)}
    parent = new_parent(program(), modules=["planted"], env=env, start=False)
    with pytest.raises(NotWarm, match="its files have changed meanwhile"):
        parent.start()
    again = new_parent(program(), modules=["planted"], env=env)  # it is there by now
    assert again.is_alive()


def test_more_memory_than_allowed_keeps_a_command_cold(program, new_parent):
    parent = new_parent(program(), start=False, mem_limit=2**20)
    with pytest.raises(NotWarm, match="more than LocalProcessSpawner.warm_mem_limit"):
        parent.start()
    assert not parent.is_alive()


# -- a process's life ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("sys.exit(0)", 0),
        ("sys.exit(7)", 7),
        ("os._exit(9)", 9),
        ("sys.exit('a reason')", 1),
        ("raise RuntimeError('a reason')", 1),
        ("os.kill(os.getpid(), 9)", -9),
        ("os.kill(os.getpid(), 15)", -15),
        ("os.abort()", -6),
        ("import atexit; atexit.register(print, 'a reason')", 0),
    ],
)
def test_exit_code_and_last_words_are_as_after_a_cold_start(
    code, expected, program, new_parent, start, tmp_path
):
    script = program()
    log = tmp_path / "logs" / "ada.log"
    one = start(script, code, parent=new_parent(script), wait=False)
    assert one.wait(20) == expected
    assert one.poll() == expected
    warm_text = log.read_text()
    log.write_text("")
    assert start(script, code, wait=False).wait(20) == expected
    assert ("a reason" in warm_text) == ("a reason" in log.read_text()) == ("a reason" in code)


def test_signals_reach_the_process_and_interrupt_it(program, new_parent, start, tmp_path):
    script = program()
    parent = new_parent(script)
    wait = "import time\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    sys.exit(3)"
    one = start(script, wait, parent=parent, wait=False)
    until_there(tmp_path / "answer-1.json")
    one.stop(10, 0, 0)
    assert one.poll() == 3
    stubborn = "import signal, time\nsignal.signal(15, signal.SIG_IGN)\ntime.sleep(60)"
    one = start(script, stubborn, parent=parent, wait=False)
    until_there(tmp_path / "answer-2.json")
    one.stop(0, 0.5, 10)
    assert one.poll() == -9


def test_process_is_known_by_its_marker_and_its_descendants_too(
    program, new_parent, start, tmp_path
):
    script = program()
    parent = new_parent(script)
    leave = (
        "import subprocess, time\n"
        "subprocess.Popen(['sh', '-c', '(setsid sleep 300 &)']).wait()\ntime.sleep(60)"
    )
    one = start(script, leave, parent=parent, wait=False)
    until_there(tmp_path / "answer-1.json")
    deadline = time.monotonic() + 10
    while len(one.tree()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    later = process.adopt(one.identity, one.marker)
    assert later.poll() is None and len(later.tree()) == 2
    # Known without its creation time, as after the clock was set.
    assert process.adopt(process.Identity(one.identity.pid, 1.0), one.marker).poll() is None
    later.stop(0, 5, 5)
    assert one.wait(5) == -15
    assert one.tree() == []


def test_servers_survive_their_parent(program, new_parent, start, tmp_path):
    script = program()
    parent = new_parent(script)
    one = start(script, "import time; time.sleep(60)", parent=parent, wait=False)
    os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while parent.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert one.poll() is None
    with pytest.raises(NotWarm, match="the parent has ended"):
        start(script, parent=parent)
    one.stop(0, 5, 5)
    assert one.poll() == 0  # nobody can tell any more


def test_retired_parent_tells_the_exit_codes_and_ends(program, new_parent, start):
    script = program()
    parent = new_parent(script)
    one = start(script, "import time; time.sleep(60)", parent=parent, wait=False)
    parent.retire()
    assert parent.is_alive()
    os.kill(one.identity.pid, signal.SIGUSR1)
    assert one.wait(10) == -signal.SIGUSR1
    deadline = time.monotonic() + 10
    while parent.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_parent_ends_with_the_hub(program, new_parent, tmp_path):
    """Also with one that is killed: the socket closes."""
    code = f"""
import os, sys
from pathlib import Path
from minihub import process, warm
plan = warm.Plan(warm.find_command({str(program())!r}, {PATH!r}), env={COMMON!r}, own_names={OWN!r})
learned = warm.Learned(["json"])
parent = warm.WarmParent(plan, learned, process.private_directory(Path({str(tmp_path / "w")!r})))
parent.start()
print(parent.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=os.getcwd()
    )
    pid = int(done.stdout)
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_step_that_fails_leaves_no_process(program, new_parent, start):
    script = program()
    parent = new_parent(script)
    with pytest.raises(NotWarm, match="No such file or directory"):
        start(script, parent=parent, cgroup="/no/such/group")
    assert parent.running() == [] or not psutil.pid_exists(parent.running()[0])


# -- JupyterLab ------------------------------------------------------------------------------

#: Values that are another one in every process: ids, addresses, and what must never be the same.
VARYING = re.compile(
    r"(_pid|pid|authkey|_startTime|_name_sequence|_addr|_sa_instrumented|_NO_STATE_SYMBOLS)\b"
    r"|at 0x|^sys\.path_importer_cache|^ctypes\.CDLL|^random\.|^posix\.environ|^linecache\.cache"
    r"|^jupyter_client\.session\.session_flags"
)


@pytest.fixture(scope="module")
def lab_modules(lab_bin, tmp_path_factory):
    """Learn what a start of JupyterLab imports."""
    place = tmp_path_factory.mktemp("learn")
    env = COMMON | {"PATH": f"{lab_bin}:/usr/bin:/bin"}
    command = warm.find_command("jupyterhub-singleuser", env["PATH"])
    plan = Plan(command, args=("--allow-root",), env=env)
    modules = warm.learn(plan, place).modules
    assert not [name for name in os.listdir(place) if name != "learn.log"]
    assert {"jupyterlab.labapp", "jupyterhub.singleuser.extension", "zmq"} <= set(modules)
    (place / "modules.json").write_text(json.dumps(modules))
    return place / "modules.json"


@pytest.mark.notebook
@pytest.mark.timeout(300)
def test_all_values_of_all_modules_are_those_of_a_cold_start(
    lab_bin, lab_modules, program, new_parent, start, tmp_path
):
    """All that JupyterLab's modules and classes hold is compared, with the same seed of hashes."""
    script = program(PROBE.with_name("warm_values.py"), python=lab_bin / "python")
    (tmp_path / "real").mkdir()
    (tmp_path / "ada").symlink_to("real")  # a home is not always where it seems to be
    own = (*OWN, "JUPYTERHUB_API_URL", "JUPYTERHUB_SERVICE_PREFIX")
    env = {"JUPYTERHUB_API_URL": "http://hub:1/hub/api", "JUPYTERHUB_SERVICE_PREFIX": "/user/ada/"}
    env["PYTHONHASHSEED"] = "1"
    cold = start(script, str(lab_modules), env=env)
    modules = json.loads(lab_modules.read_text())
    parent = new_parent(script, modules=modules, own=own, env=COMMON | {"PYTHONHASHSEED": "1"})
    warm_ = start(script, str(lab_modules), env=env, parent=parent)
    assert len(cold) > 20000
    for name, value in (
        ("jupyterhub.services.auth.HubAuth.api_url (default)", "http://hub:1/hub/api"),
        ("jupyterhub.services.auth.HubAuth.base_url (default)", "/user/ada/"),
        ("jupyter_client.session.Session.username (default)", "ada"),
        (
            "jupyterlab.labapp.LabApp.workspaces_dir (default)",
            f"{tmp_path}/real/.jupyter/lab/workspaces",
        ),
    ):
        assert warm_[name] == repr(value)
    differing = [
        f"{name}:\n  cold {value:.200}\n  warm {warm_.get(name, 'absent'):.200}"
        for name, value in cold.items()
        if MARKER.sub("", warm_.get(name, "")) != MARKER.sub("", value)
        and not VARYING.search(name)
        and not VARYING.search(value)
    ]
    assert not differing, "\n".join(differing)
    secret = "jupyter_client.session.session_flags"  # holds a key of the process
    assert warm_[secret] != start(script, str(lab_modules), env=env, parent=parent)[secret]
