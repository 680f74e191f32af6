"""How many servers there may be, and what each may take of the machine."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyconfig
import pytest
import requests
from harness import ROOT

ADMIN = {"Authorization": "token the-token-of-an-admin"}
MB = 1024**2
#: Servers that never answer stay where they are: starting.
MUTE = {"Spawner": {"environment": {"FAKE_MODE": "mute"}}}


def with_admin(config: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a configuration with a token that may do everything."""
    result = {section: dict(values) for section, values in (config or {}).items()}
    hub = result.setdefault("JupyterHub", {})
    hub["api_tokens"] = {"the-token-of-an-admin": "root-admin"}
    hub.setdefault("tornado_settings", {"slow_spawn_timeout": 20})
    return result


def api(hub: Any, method: str, path: str, **kwargs: Any) -> requests.Response:
    url = f"{hub.url}hub/api/{path}"
    return requests.request(method, url, headers=ADMIN, timeout=60, **kwargs)


def add_users(hub: Any, *names: str) -> None:
    assert api(hub, "POST", "users", json={"usernames": list(names)}).status_code == 201


def start(hub: Any, name: str) -> requests.Response:
    return api(hub, "POST", f"users/{name}/server")


def start_many(hub: Any, paths: list[str], method: str = "POST") -> list[int]:
    """Ask for all these servers at the same moment; return the statuses of the answers.

    A path is a user's name, or ``NAME/servers/SERVER``.
    """
    gate = threading.Barrier(len(paths))
    statuses = []

    def one(path: str) -> None:
        with requests.Session() as session:
            session.get(hub.url + "hub/api", timeout=60)  # the connection is there already
            gate.wait(30)
            url = f"{hub.url}hub/api/users/{path if '/' in path else path + '/server'}"
            statuses.append(session.request(method, url, headers=ADMIN, timeout=60).status_code)

    threads = [threading.Thread(target=one, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    return statuses


def until(condition: Any, timeout_s: float = 20.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.05)
    return value


# -- numbers of servers --------------------------------------------------------------------


def test_active_server_limit_is_exact_under_simultaneous_requests(start_hub):
    settings = {"slow_spawn_timeout": 0}
    hub = start_hub(
        with_admin(MUTE | {"JupyterHub": {"active_server_limit": 7, "tornado_settings": settings}})
    )
    names = [f"u{number}" for number in range(50)]
    add_users(hub, *names)
    statuses = start_many(hub, names)
    assert sorted(set(statuses)) == [202, 429]
    assert statuses.count(202) == 7
    refused = start(
        hub, next(n for n in names if not api(hub, "GET", f"users/{n}").json()["servers"])
    )
    assert refused.status_code == 429
    assert "Active user limit exceeded. Try again in a few minutes." in refused.json()["message"]
    assert int(refused.headers["Retry-After"]) > 0


def test_concurrent_spawn_limit_is_exact_under_simultaneous_requests(start_hub):
    settings = {"slow_spawn_timeout": 0}
    hub = start_hub(
        with_admin(
            MUTE | {"JupyterHub": {"concurrent_spawn_limit": 5, "tornado_settings": settings}}
        )
    )
    names = [f"u{number}" for number in range(50)]
    add_users(hub, *names)
    statuses = start_many(hub, names)
    assert (statuses.count(202), statuses.count(429)) == (5, 45)


def test_named_server_limit_is_exact_under_simultaneous_requests(start_hub):
    limits = {"allow_named_servers": True, "named_server_limit_per_user": 3}
    settings = {"tornado_settings": {"slow_spawn_timeout": 0}}
    hub = start_hub(with_admin(MUTE | {"JupyterHub": limits | settings}))
    add_users(hub, "ada")
    statuses = start_many(hub, [f"ada/servers/s{number}" for number in range(50)])
    assert (statuses.count(202), statuses.count(400)) == (3, 47)
    assert len(api(hub, "GET", "users/ada").json()["servers"]) == 3
    add_users(hub, "ben")  # the same for servers that are only made
    statuses = start_many(hub, [f"ben/servers/s{number}" for number in range(20)], "PUT")
    assert (statuses.count(201), statuses.count(400)) == (3, 17)


def test_active_server_limit_counts_servers_that_are_stopping(start_hub):
    hub = start_hub(
        with_admin(
            {
                "JupyterHub": {
                    "active_server_limit": 1,
                    "tornado_settings": {"slow_stop_timeout": 0, "slow_spawn_timeout": 20},
                },
                "Spawner": {"environment": {"FAKE_MODE": "stubborn"}},
                "LocalProcessSpawner": {"interrupt_timeout": 2, "term_timeout": 1},
            }
        )
    )
    add_users(hub, "ada", "ben")
    assert start(hub, "ada").status_code == 201
    assert start(hub, "ben").status_code == 429
    assert api(hub, "DELETE", "users/ada/server").status_code == 202
    assert start(hub, "ben").status_code == 429  # stopping is not stopped
    until(lambda: not api(hub, "GET", "users/ada").json()["servers"])
    assert start(hub, "ben").status_code == 201


def test_concurrent_spawn_limit_refuses_with_advice_and_counts_only_starting_ones(start_hub):
    hub = start_hub(
        with_admin(
            {
                "JupyterHub": {
                    "concurrent_spawn_limit": 2,
                    "spawn_throttle_retry_range": [41, 41],
                    "tornado_settings": {"slow_spawn_timeout": 0},
                },
                "Spawner": {"environment": {"FAKE_MODE": "mute"}},
            }
        )
    )
    add_users(hub, "a", "b", "c")
    assert [start(hub, name).status_code for name in "ab"] == [202, 202]
    refused = start(hub, "c")
    assert refused.status_code == 429
    advice = "Too many users trying to log in right now. Try again in 50 seconds."
    assert advice in refused.json()["message"]
    assert refused.headers["Retry-After"] == "41"
    browser = hub.browser("d")
    page = browser.get("/hub/spawn/d")
    assert page.status_code == 429 and advice in page.text
    assert page.headers["Retry-After"] == "41"
    # One that is given up makes room at once: it is stopping, not starting.
    api(hub, "DELETE", "users/a/server")
    assert start(hub, "c").status_code == 202


def test_limits_of_zero_are_none(start_hub):
    limits = {"active_server_limit": 0, "concurrent_spawn_limit": 0}
    hub = start_hub(
        with_admin(MUTE | {"JupyterHub": limits | {"tornado_settings": {"slow_spawn_timeout": 0}}})
    )
    names = [f"u{number}" for number in range(12)]
    add_users(hub, *names)
    assert set(start_many(hub, names)) == {202}


def test_named_servers_are_refused_unless_allowed_and_limited_if_asked(start_hub):
    hub = start_hub(with_admin())
    add_users(hub, "ada")
    refused = api(hub, "POST", "users/ada/servers/one")
    assert refused.status_code == 400 and "Named servers are not enabled" in refused.text
    assert hub.browser("ada").get("/hub/spawn/ada/one").status_code == 400
    hub.stop()

    names = {"allow_named_servers": True, "named_server_limit_per_user": 2}
    hub = start_hub(with_admin({"JupyterHub": names}))
    add_users(hub, "ada")
    for name in ("one", "two"):
        assert api(hub, "POST", f"users/ada/servers/{name}").status_code == 201
    refused = api(hub, "POST", "users/ada/servers/three")
    assert refused.status_code == 400
    assert "already has the maximum of 2 named servers" in refused.json()["message"]
    browser = hub.browser("ada")
    assert "up to 2" in browser.get("/hub/home").text
    page = browser.get("/hub/spawn/ada/three")
    assert page.status_code == 400 and "maximum of 2 named servers" in page.text
    assert api(hub, "DELETE", "users/ada/servers/one", json={"remove": True}).status_code == 204
    assert api(hub, "POST", "users/ada/servers/three").status_code == 201


# -- memory --------------------------------------------------------------------------------


def test_mem_limit_warns_and_ends_the_largest_process_then_the_server(start_hub):
    hub = start_hub(with_admin({"Spawner": {"mem_limit": "200M"}}))
    browser = hub.browser("ada")
    browser.start_server("ada")
    page = browser.follow("/user/ada/").json()
    assert page["env"]["MEM_LIMIT"] == str(200 * MB)
    server = page["pid"]

    small = int(browser.get("/user/ada/eat?mb=30&by=child").text)
    large = int(browser.get("/user/ada/eat?mb=125&by=child").text)
    hub.wait_text(r"Server ada/ uses 1\d\d MB of the 200 MB of memory it may")
    home = browser.get("/hub/home").text
    assert "of the 200 MB of memory it may use" in home
    assert psutil.pid_exists(large)

    browser.get("/user/ada/eat?mb=40&by=server")
    told = hub.wait_text(r"Server ada/ used 2\d\d MB of memory, its limit is 200 MB .*: ended (.*)")
    assert f"(pid {large}), which used 1" in told[1]
    assert until(lambda: not psutil.pid_exists(large) or psutil.Process(large).status() == "zombie")
    assert psutil.pid_exists(small) and psutil.pid_exists(server)
    assert "its largest program was ended" in browser.get("/hub/home").text
    assert browser.follow("/user/ada/").json()["pid"] == server

    with contextlib.suppress(requests.RequestException):  # it is ended while it answers
        browser.get("/user/ada/eat?mb=300&by=server")
    hub.wait_text(r"ended the server itself \(pid \d+\)")
    until(lambda: not psutil.pid_exists(server))
    hub.wait_text("Server ada/ has ended by itself")
    until(lambda: "Start my server" in browser.get("/hub/home").text)
    gone = browser.follow("/user/ada/lab")
    assert gone.status_code == 424
    assert "so it was ended" in gone.text and "may use 200 MB" in gone.text
    assert "so it was ended" in browser.get("/hub/home").text
    browser.start_server("ada")
    assert "so it was ended" not in browser.get("/hub/home").text


def test_mem_limit_counts_shared_memory_once_and_does_not_limit_address_space(start_hub):
    hub = start_hub(with_admin({"Spawner": {"mem_limit": "200M"}}))
    browser = hub.browser("ada")
    browser.start_server("ada")
    server = psutil.Process(browser.follow("/user/ada/").json()["pid"])
    assert server.rlimit(psutil.RLIMIT_AS) == (-1, -1)
    browser.get("/user/ada/eat?mb=90&by=family")
    family = server.children(recursive=True)
    assert len(family) == 4 and sum(one.memory_info().rss for one in family) > 300 * MB
    time.sleep(3)  # longer than it looks away
    assert all(one.is_running() for one in family) and "Spawner.mem_limit" not in hub.text


def test_limits_of_a_running_server_outlive_the_hub(start_hub, tmp_path):
    """What a hook made of them is not in the configuration that the next hub reads."""
    lines = (
        "def hook(spawner):\n    spawner.mem_limit = '150M'\n"
        "c.Spawner.pre_spawn_hook = hook\n"
        "c.JupyterHub.cleanup_servers = c.JupyterHub.cleanup_proxy = False\n"
    )
    args = pyconfig.write(tmp_path / "config.py", lines)
    hub = start_hub(args=args)
    browser = hub.browser("ada")
    browser.start_server("ada")
    pid = browser.follow("/user/ada/").json()["pid"]
    assert hub.stop() == 0 and psutil.pid_exists(pid)
    hub = start_hub(args=args, directory=hub.directory)
    browser = hub.browser("ada")
    browser.get("/user/ada/eat?mb=160&by=child")
    hub.wait_text(r"Server ada/ used 1\d\d MB of memory, its limit is 150 MB")
    browser.submit("/hub/stop/ada", {}, page="/hub/home")
    assert hub.stop() == 0
    psutil.Process(hub.proxy()["pid"]).terminate()


def test_mem_guarantee_refuses_what_cannot_be_kept(start_hub):
    total = psutil.virtual_memory().total
    half = int(psutil.virtual_memory().available * 0.6)
    hub = start_hub(with_admin({"Spawner": {"mem_guarantee": half}}))
    add_users(hub, "ada", "ben")
    started = start(hub, "ada")
    assert started.status_code == 201
    # The memory is free as yet, but promised.
    refused = start(hub, "ben")
    assert refused.status_code == 429
    assert "too little memory left for another server" in refused.json()["message"]
    assert int(refused.headers["Retry-After"]) > 0
    page = hub.browser("ben").follow("/hub/spawn/ben")
    assert page.status_code == 429 and "too little memory" in page.text
    env = psutil.Process(hub.server_process("ada").pid).environ()
    assert env["MEM_GUARANTEE"] == str(half)
    assert api(hub, "DELETE", "users/ada/server").status_code == 204
    assert start(hub, "ben").status_code == 201
    hub.stop()

    hub = start_hub(with_admin({"Spawner": {"mem_guarantee": total * 2}}))
    add_users(hub, "ada")
    assert start(hub, "ada").status_code == 429


# -- processors ----------------------------------------------------------------------------


def group_of(pid: int) -> Path | None:
    """Return the control group of its own that a server runs in, if it does."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    own = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "")
    return Path("/sys/fs/cgroup" + own) if "/server-" in own else None


@pytest.fixture
def delegated() -> Iterator[list[str]]:
    """A control group that is left to the hub; gives the words that run a command in it."""
    top = Path("/sys/fs/cgroup")
    group = top / f"minihub-test-{os.getpid()}"
    try:
        if "cpu" not in (top / "cgroup.controllers").read_text().split():
            pytest.skip("the processors are not in the hands of control groups, version 2")
        (top / "cgroup.subtree_control").write_text("+cpu")
        group.mkdir()
        os.setxattr(group, "trusted.delegate", b"1")
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"]
    for inner in sorted(group.rglob("*/"), reverse=True):
        with contextlib.suppress(OSError):
            inner.rmdir()
    group.rmdir()


def test_cpu_limit_is_exact_in_a_delegated_control_group(delegated, start_hub):
    program = [*delegated, sys.executable, str(ROOT / "minihub" / "__main__.py")]
    hub = start_hub(
        with_admin({"Spawner": {"cpu_limit": 0.3, "cpu_guarantee": 0.25}}), command=program
    )
    browser = hub.browser("ada")
    browser.start_server("ada")
    server = psutil.Process(hub.server_process("ada").pid)
    group = group_of(server.pid)
    assert group is not None
    assert (group / "cpu.max").read_text().split() == ["30000", "100000"]
    assert (group / "cpu.weight").read_text().strip() == "25"
    assert "Spawner.cpu_" not in hub.text  # nothing is missing
    began, before = time.monotonic(), sum(server.cpu_times()[:2])
    browser.get("/user/ada/burn?seconds=4")
    used = sum(server.cpu_times()[:2]) - before
    assert used / (time.monotonic() - began) < 0.4
    browser.submit("/hub/stop/ada", {}, page="/hub/home")
    until(lambda: not group.exists())


def test_cpu_limit_binds_to_processors_and_makes_nicer(start_hub):
    hub = start_hub(with_admin({"Spawner": {"cpu_limit": 0.5, "cpu_guarantee": 0.25}}))
    add_users(hub, "ada", "ben")
    for name in ("ada", "ben"):
        assert start(hub, name).status_code == 201
    ada, ben = (psutil.Process(hub.server_process(name).pid) for name in ("ada", "ben"))
    if group_of(ada.pid) is not None:
        pytest.skip("control groups hold the limit here")
    own = os.sched_getaffinity(0)
    if len(own) > 1:  # each on a processor of its own while there are enough
        assert len(ada.cpu_affinity()) == len(ben.cpu_affinity()) == 1
        assert ada.cpu_affinity() != ben.cpu_affinity()
    favoured = os.geteuid() == 0
    assert ada.nice() - os.nice(0) == (0 if favoured else 5)
    assert ada.environ()["CPU_LIMIT"] == "0.5" and ada.environ()["CPU_GUARANTEE"] == "0.25"
    if len(own) > 1:
        told = r"Spawner.cpu_limit: servers run on 1 of \d+ processors with a lower priority"
        hub.wait_text(told)


def test_cpu_limit_makes_what_a_server_starts_as_slow_as_itself(start_hub):
    hub = start_hub(with_admin({"Spawner": {"cpu_limit": 1}}))
    browser = hub.browser("ada")
    browser.start_server("ada")
    child = int(browser.get("/user/ada/eat?mb=1&by=child").text)
    assert len(psutil.Process(child).cpu_affinity()) == 1
    assert psutil.Process(child).nice() == os.nice(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become somebody else")
def test_cpu_guarantee_that_cannot_be_kept_is_told(start_hub):
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:  # not below one of root's own
        Path(directory).chmod(0o755)
        hub = start_hub(
            {"Spawner": {"cpu_guarantee": 1}}, user=65534, directory=Path(directory) / "hub"
        )
        hub.wait_text(r"Spawner.cpu_guarantee: the hub may not give servers a better priority")
        hub.stop()
