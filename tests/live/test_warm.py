"""Servers that start from a process that has imported what they import, through the hub."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from harness import FAKE_SERVER, until
from notebook_tools import Notebook, run
from websockets.sync.client import connect

from minihub import landlock
from minihub.burst import processors

#: A busy machine lets people's servers go first, and the tests' others too.
WARM_TIMEOUT_S = 240

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def program(tmp_path):
    """A small server as an installed program: a file whose first line names its Python."""
    file = tmp_path / "bin" / "small-server"
    file.parent.mkdir()
    file.write_text(f"#!{sys.executable}\n" + FAKE_SERVER.read_text())
    file.chmod(0o755)
    return file


def settings(program, *, environment=None, hub=None, **spawner):
    """Return settings of a hub whose servers start warm."""
    return {
        "JupyterHub": hub or {},
        "Spawner": {"cmd": [str(program)], "environment": environment or {}},
        "LocalProcessSpawner": {"warm": "on"} | spawner,
    }


def wait_warm(hub, times=1):
    """Wait until a program has become warm so many times."""
    until(lambda: hub.text.count(" is warm: ") >= times, WARM_TIMEOUT_S)


def how(hub, name):
    """Return how a user's server has started, the last time."""
    hub.wait_text(f"Server {name}: pid", 60)
    found = [line for line in hub.text.splitlines() if f"Server {name}: pid" in line]
    return found[-1].rpartition(", ")[2]


def parents(hub):
    """Return the processes that servers are forked from."""
    place = str(hub.state_dir / "warm")
    found = []
    for one in psutil.Process(hub.process.pid).children():
        with contextlib.suppress(psutil.Error):  # it ends just now
            if place in one.cwd():
                found.append(one)
    return found


# -- the options -----------------------------------------------------------------------------


def test_warm_decides_whether_servers_start_warm(start_hub, program):
    """on: any Python program; auto: known programs only; off: none."""
    hub = start_hub(settings(program))
    wait_warm(hub)
    ada = hub.browser("ada")
    ada.start_server("ada")
    assert how(hub, "ada") == "warm"
    (parent,) = parents(hub)
    assert hub.server_process("ada").ppid() == parent.pid
    assert ada.follow("/user/ada/").status_code == 200

    for mode in ("auto", "off"):
        hub = start_hub(settings(program, warm=mode))
        hub.browser("ada").start_server("ada")
        assert how(hub, "ada") == "cold"
        assert parents(hub) == [] and "is warm" not in hub.text, hub.text


def test_warm_preload_adds_modules_and_leaves_out_an_unfit_one(start_hub, program, tmp_path):
    lib = tmp_path / "lib"
    lib.mkdir()
    (lib / "extra.py").write_text("import sys\nprint('imported', flush=True)\n")
    (lib / "unfit.py").write_text("file = open('/etc/passwd')\n")
    path = {"PYTHONPATH": str(lib)}
    hub = start_hub(settings(program, warm_preload=["extra"], environment=path))
    wait_warm(hub)
    assert (hub.state_dir / "warm" / "parent.log").read_text() == "imported\n"
    hub = start_hub(settings(program, warm_preload=["unfit", "extra"], environment=path))
    hub.wait_text("gets warm without unfit: it holds /etc/passwd open", WARM_TIMEOUT_S)
    wait_warm(hub)
    assert (hub.state_dir / "warm" / "parent.log").read_text() == "imported\n" * 2
    hub.browser("ada").start_server("ada")
    assert how(hub, "ada") == "warm"


def test_warm_mem_limit_bounds_the_memory_of_the_parent(start_hub, program):
    hub = start_hub(settings(program, warm_mem_limit="1M"))
    hub.wait_text("small-server starts cold: .*more than .*warm_mem_limit", WARM_TIMEOUT_S)
    hub.browser("ada").start_server("ada")
    assert how(hub, "ada") == "cold"
    until(lambda: parents(hub) == [], 60)


def warm_on_page(admin):
    """Return what the admin's page says of warm starts, its words alone."""
    text = admin.get("/hub/admin").text
    found = re.search(r'data-live="machine-warm">(.*?)</div>', text, re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", found[1]).split()) if found else ""


def test_admin_page_shows_state_and_savings(start_hub, program):
    """On, with how much the servers save by sharing memory; off, and why."""
    people = {"admin_users": ["root-admin"]}
    config = settings(program)
    config["Authenticator"] = people
    hub = start_hub(config)
    wait_warm(hub)
    admin = hub.browser("root-admin")
    until(lambda: warm_on_page(admin) == "Warm starts on 0 servers share memory", 30)
    for name in ("ada", "eve"):
        hub.browser(name).start_server(name)
        assert how(hub, name) == "warm"
    shown = until(lambda: (t := warm_on_page(admin)).count("2 servers share memory") and t, 30)
    assert re.fullmatch(r"Warm starts on 2 servers share memory · [\d.]+ MB saved", shown)

    config["LocalProcessSpawner"]["warm"] = "off"
    hub = start_hub(config)
    admin = hub.browser("root-admin")
    off = "Warm starts off LocalProcessSpawner.warm is off"
    until(lambda: warm_on_page(admin) == off, 30)


# -- never worse than cold -------------------------------------------------------------------


def test_first_start_does_not_wait_for_warmth(start_hub, program):
    program.write_text(program.read_text().replace("import sys\n", "import sys, time\n"))
    hub = start_hub(settings(program))
    hub.browser("ada").start_server("ada")
    if how(hub, "ada") == "cold":
        hub.wait_text("Server ada starts cold: its parent is not warm yet")


def test_parent_that_dies_costs_one_cold_start_and_is_replaced(start_hub, program):
    hub = start_hub(settings(program))
    wait_warm(hub)
    ada = hub.browser("ada")
    ada.start_server("ada")
    (parent,) = parents(hub)
    parent.kill()
    hub.wait_text("The warm parent of .* has ended")
    assert hub.server_process("ada").is_running()
    assert ada.follow("/user/ada/").status_code == 200
    eve = hub.browser("eve")
    eve.start_server("eve")
    assert how(hub, "eve") == "cold"
    assert hub.text.count("Server eve starts cold") == 1
    assert ada.submit("/hub/stop/ada", {}, page="/hub/home").status_code == 303
    until(lambda: ada.follow("/user/ada/api").status_code == 424)
    assert "Traceback" not in hub.text


def test_parent_that_dies_while_it_is_asked_costs_one_cold_start(start_hub, program):
    """Killed in the middle: it was stopped, so it has the question and gives no answer."""
    hub = start_hub(settings(program))
    wait_warm(hub)
    (parent,) = parents(hub)
    parent.suspend()
    ada = hub.browser("ada")
    ada.get("/hub/spawn/ada")
    time.sleep(0.5)
    parent.kill()
    ada.wait_server("ada")
    assert how(hub, "ada") == "cold" and hub.text.count("Server ada starts cold: ") == 1
    assert ada.follow("/user/ada/").status_code == 200
    wait_warm(hub, times=2)
    hub.browser("eve").start_server("eve")
    assert how(hub, "eve") == "warm" and "Traceback" not in hub.text


def test_parent_that_hangs_does_not_keep_a_server_waiting(start_hub, program):
    hub = start_hub(settings(program))
    wait_warm(hub)
    (parent,) = parents(hub)
    parent.suspend()
    try:
        ada = hub.browser("ada")
        ada.start_server("ada")
        assert how(hub, "ada") == "cold"
        hub.wait_text("Server ada starts cold: the parent does not fork")
        one = hub.server_process("ada")
    finally:
        parent.resume()
    # It forks at last for a start that nobody waits for; that copy ends and leaves nothing.
    until(lambda: parent.children() == [], 30)
    assert one.is_running() and ada.follow("/user/ada/").status_code == 200


def test_one_that_fails_among_many_at_once_is_the_only_one(start_hub, program):
    config = settings(program)
    config["JupyterHub"] = {"load_groups": {"unlucky": ["person-3"]}}
    config["Spawner"]["group_overrides"] = {
        "1": {"groups": ["unlucky"], "spawner_override": {"environment": {"FAKE_MODE": "exit"}}}
    }
    hub = start_hub(config)
    wait_warm(hub)
    people = {f"person-{number}": hub.browser(f"person-{number}") for number in range(12)}
    for name, browser in people.items():
        browser.get(f"/hub/spawn/{name}")
    unlucky = people.pop("person-3")
    for name, browser in people.items():
        browser.wait_server(name)
        assert how(hub, name) == "warm"
        assert browser.follow(f"/user/{name}/").status_code == 200
    hub.wait_text("Server person-3, started warm, ended; it starts cold", 60)
    ended = "The server ended before it answered"
    until(lambda: ended in unlucky.get("/hub/spawn-pending/person-3").text, 60)
    hub.browser("late").start_server("late")
    assert how(hub, "late") == "warm"


def test_changed_packages_are_noticed_and_made_warm_again(start_hub, program, tmp_path):
    lib = tmp_path / "lib"
    lib.mkdir()
    hub = start_hub(settings(program, environment={"PYTHONPATH": str(lib)}))
    wait_warm(hub)
    hub.browser("ada").start_server("ada")
    (lib / "new_package.py").write_text("")
    time.sleep(1.1)
    eve = hub.browser("eve")
    eve.start_server("eve")
    assert (how(hub, "ada"), how(hub, "eve")) == ("warm", "cold")
    wait_warm(hub, times=2)
    hub.browser("mia").start_server("mia")
    assert how(hub, "mia") == "warm"
    # The old parent stays for its server's exit code, and ends with it.
    assert len(parents(hub)) == 2
    ada = hub.browser("ada")
    assert ada.submit("/hub/stop/ada", {}, page="/hub/home").status_code == 303
    until(lambda: len(parents(hub)) == 1)


def test_variable_that_a_person_has_another_value_of_keeps_that_person_cold(start_hub, program):
    config = settings(program, environment={"LANG": "C.UTF-8"})
    config["JupyterHub"] = {"load_groups": {"germans": ["eve"]}}
    config["Spawner"]["group_overrides"] = {
        "1": {"groups": ["germans"], "spawner_override": {"environment": {"LANG": "POSIX"}}}
    }
    hub = start_hub(config)
    wait_warm(hub)
    for name in ("ada", "eve"):
        hub.browser(name).start_server(name)
    assert (how(hub, "ada"), how(hub, "eve")) == ("warm", "cold")
    hub.wait_text("Server eve starts cold: Python has read another value of LANG")


def test_server_that_ends_at_once_when_warm_is_started_once_more_cold(start_hub, program):
    """A program that cannot run warm: it starts cold instead, and after two such always."""
    check = "\nimport os\nif 'minihub' in open('/proc/%d/cmdline' % os.getppid()).read(): pass\n"
    check += (
        "if len(__import__('sys')._current_frames()) and __import__('sys')._getframe().f_back:\n"
    )
    check += "    raise SystemExit('not from here')\n"
    text = program.read_text()
    program.write_text(text.replace("\nENV = os.environ\n", check + "\nENV = os.environ\n"))
    # The throw-away start has frames below it as well: it is taught apart.
    program.write_text(
        program.read_text().replace("if len(", "if os.environ['USER'] != 'learn' and len(")
    )
    hub = start_hub(settings(program))
    wait_warm(hub)
    for name in ("ada", "eve"):
        browser = hub.browser(name)
        browser.start_server(name)
        hub.wait_text(f"Server {name}, started warm, ended; it starts cold: ")
        assert browser.follow(f"/user/{name}/").status_code == 200
        pid = hub.server_process(name).pid
        assert psutil.Process(pid).ppid() == hub.process.pid
    hub.wait_text("small-server starts cold from now on: servers that it started ended")
    hub.browser("mia").start_server("mia")
    assert how(hub, "mia") == "cold"


def test_server_that_fails_anyway_says_why(start_hub, program):
    hub = start_hub(settings(program))
    wait_warm(hub)
    program.write_text(program.read_text())  # not changed in what it says
    hub = start_hub(settings(program, environment={"FAKE_MODE": "exit"}))
    hub.wait_text("small-server starts cold: its throw-away start ended", WARM_TIMEOUT_S)
    ada = hub.browser("ada")
    ada.get("/hub/spawn/ada")
    until(lambda: "The server ended before it answered" in ada.get("/hub/spawn-pending/ada").text)


# -- restarts --------------------------------------------------------------------------------


def test_warm_servers_are_found_again_by_the_next_hub(start_hub, program):
    """With their parent gone, known by id and creation time; and stopped as any other."""
    config = settings(program, hub={"cleanup_servers": False, "cleanup_proxy": False})
    hub = start_hub(config)
    wait_warm(hub)
    ada = hub.browser("ada")
    ada.start_server("ada")
    assert how(hub, "ada") == "warm"
    one, (parent,) = hub.server_process("ada"), parents(hub)
    hub.kill()
    until(lambda: not parent.is_running() or parent.status() == "zombie")
    assert one.is_running()
    again = start_hub(config, directory=hub.directory)
    again.wait_text("Server ada/ still runs")
    ada = again.browser("ada")
    assert ada.follow("/user/ada/").status_code == 200
    assert ada.submit("/hub/stop/ada", {}, page="/hub/home").status_code == 303
    until(lambda: not one.is_running() or one.status() == "zombie")
    # What was learned is kept: the second hub needs no throw-away start.
    wait_warm(again, times=2)
    assert len(list((again.state_dir / "warm").glob("learned-*.json"))) == 1
    leftovers = [name.name for name in (again.state_dir / "warm").iterdir()]
    assert not [name for name in leftovers if name.startswith("learn-")]


@pytest.mark.timeout(400)
def test_class_that_begins_with_the_hub_waits_for_warm_starts(start_hub, program, tmp_path):
    """A crowd of cold starts would take longer than getting warm, which none of them holds back."""
    lib = tmp_path / "lib"
    lib.mkdir()
    # Takes seconds of a process that is not stopped: six of a server, four of what gets warm.
    steps = "for _ in range(40 if '/warm/' in os.getcwd() else 60):\n    time.sleep(0.1)\n"
    (lib / "slow.py").write_text(f"import os, time\n{steps}")
    head, mark, rest = program.read_text().partition("import json\n")
    program.write_text(f"{head}import slow\n{mark}{rest}")
    token = "a-token-of-whoever-starts-them-all"
    boss = [{"name": "boss", "admin": True, "api_token": token}]
    environment = {"PYTHONPATH": str(lib)}
    hub = start_hub(settings(program, environment=environment, hub={"services": boss}))
    crowd = [f"student-{number}" for number in range(5 * processors() + 3)]
    assert hub.api("users", token, "POST", json={"usernames": crowd}).status_code == 201

    def press_start(name):
        return hub.api(f"users/{name}/server", token, "POST", timeout=60).status_code

    with ThreadPoolExecutor(len(crowd)) as people:
        assert set(people.map(press_start, crowd)) <= {201, 202}
    until(lambda: all(f"Server {name}: pid" in hub.text for name in crowd), 300)
    started = [how(hub, name) for name in crowd]
    assert "warm" in started, hub.text


def test_end_of_the_hub_ends_parents_and_servers(start_hub, program):
    hub = start_hub(settings(program))
    wait_warm(hub)
    hub.browser("ada").start_server("ada")
    family = psutil.Process(hub.process.pid).children(recursive=True)
    assert len(family) >= 3
    assert hub.stop() == 0, hub.text
    assert psutil.wait_procs(family, timeout=10)[1] == []
    assert "Traceback" not in hub.text, hub.text


def test_server_that_ends_by_itself_is_noticed(start_hub, program):
    config = settings(program)
    config["Spawner"]["poll_interval"] = 1
    hub = start_hub(config)
    wait_warm(hub)
    ada = hub.browser("ada")
    ada.start_server("ada")
    os.kill(hub.server_process("ada").pid, signal.SIGKILL)
    hub.wait_text("Server ada/ has ended by itself", 20)


# -- JupyterLab ------------------------------------------------------------------------------


def lab(lab_bin):
    arguments = ["--allow-root"] if os.getuid() == 0 else []
    command = {"cmd": [str(lab_bin / "jupyterhub-singleuser")], "args": arguments}
    return {"Spawner": command, "LocalProcessSpawner": {"warm": "auto"}}


def terminal_says(browser, name, line):
    """Type a line into a new terminal of a user's server and return all it says until ``done``."""
    secret = next(
        c.value for c in browser.cookies if c.name == "_xsrf" and c.path == f"/user/{name}/"
    )
    path = f"/user/{name}/api/terminals"
    made = browser.post(path, headers={"X-XSRFToken": secret})
    assert made.status_code == 200, made.text
    cookie = "; ".join(
        f"{c.name}={c.value}" for c in browser.cookies if f"/user/{name}/".startswith(c.path)
    )
    url = f"{browser.base}/user/{name}/terminals/websocket/{made.json()['name']}"
    headers = {"Cookie": cookie, "Origin": browser.base}
    with connect(url.replace("http", "ws", 1), additional_headers=headers) as socket:
        word = uuid.uuid4().hex
        socket.send(json.dumps(["stdin", f"{line}; echo {word[:8]}''{word[8:]}\r"]))
        text = ""
        while word not in text:
            kind, *rest = json.loads(socket.recv(timeout=30))
            text += rest[0] if kind == "stdout" else ""
    return text


@pytest.mark.notebook
@pytest.mark.timeout(300)
def test_unmodified_jupyterlab_starts_warm_with_cells_and_terminals(start_hub, lab_bin):
    """Two users at once: each with an environment, a home, kernels and terminals of their own."""
    hub = start_hub(lab(lab_bin))
    wait_warm(hub)
    people = {name: hub.browser(name) for name in ("ada", "eve")}
    for name, browser in people.items():
        browser.get(f"/hub/spawn/{name}")
    for name, browser in people.items():
        browser.wait_server(name, timeout_s=60)
        assert how(hub, name) == "warm"
        response = browser.follow(f"/user/{name}/lab")
        assert response.status_code == 200 and "jupyter-config-data" in response.text
        notebook = Notebook(browser, name)
        kernel = notebook.new_kernel().json()["id"]
        with notebook.channels(kernel) as socket:
            assert run(socket, "6*7") == "42"
            assert run(socket, "import os; os.environ['JUPYTERHUB_USER'], os.getcwd()[-9:]") == (
                f"({name!r}, {f'homes/{name}'!r})"
            )
            if landlock.abi():  # the sandbox holds in a process that was forked as well
                other = hub.state_dir / "homes" / ("eve" if name == "ada" else "ada")
                code = "import subprocess; subprocess.run(['ls', {!r}], capture_output=True).stderr"
                assert "Permission denied" in run(socket, code.format(str(other)))
                assert "Permission denied" in run(socket, code.format(str(hub.state_dir / "warm")))
        assert f"home=/{name}" in terminal_says(
            browser, name, 'echo "home=/$(basename $HOME)"; cd; pwd'
        )
        one = hub.server_process(name)
        assert one.name() == "jupyterhub-sing"
        assert one.cmdline()[1] == str(lab_bin / "jupyterhub-singleuser")
        assert one.environ()["JUPYTERHUB_USER"] == name
    assert people["eve"].follow("/user/ada/lab").status_code == 403
    family = psutil.Process(hub.server_process("ada").pid)
    family = [family, *family.children(recursive=True)]
    assert len(family) > 1
    ada = people["ada"]
    assert ada.submit("/hub/stop/ada", {}, page="/hub/home").status_code == 303
    assert psutil.wait_procs(family, timeout=20)[1] == []
    assert hub.stop() == 0, hub.text
    assert "Traceback" not in hub.text, hub.text
