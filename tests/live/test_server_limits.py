"""Servers have the resource limits that their hub was started with, however they are started."""

from __future__ import annotations

import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from harness import until
from test_warm import how, program, settings, wait_warm  # noqa: F401 -- a fixture among them

#: What this process lets its hubs have of descriptors, and what they may raise that to.
SOFT = 777


@pytest.fixture
def few_descriptors() -> Iterator[int]:
    """Start programs with SOFT descriptors; the hard limit is returned."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (SOFT, before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def limits_of(pid: int | str) -> str:
    return Path(f"/proc/{pid}/limits").read_text()


def descriptors_of(pid: int) -> tuple[int, int]:
    return psutil.Process(pid).rlimit(psutil.RLIMIT_NOFILE)


def test_servers_have_the_limits_their_hub_was_started_with(start_hub, few_descriptors):
    """The first one is started by a launcher of its own, later ones by the prepared one."""
    hub = start_hub({})
    assert descriptors_of(hub.process.pid)[0] == few_descriptors, "the hub takes all it may"
    for name in ("ada", "bob", "cleo"):
        hub.browser(name).start_server(name)
        assert limits_of(hub.server_process(name).pid) == limits_of("self"), name
    assert descriptors_of(hub.server_process("ada").pid) == (SOFT, few_descriptors)


@pytest.mark.timeout(400)
def test_warm_servers_have_the_limits_their_hub_was_started_with(
    start_hub,
    few_descriptors,
    program,  # noqa: F811
):
    hub = start_hub(settings(program, rlimits={"core": 0}))
    wait_warm(hub)
    hub.browser("ada").start_server("ada")
    assert how(hub, "ada") == "warm"
    server = hub.server_process("ada")
    assert server.rlimit(psutil.RLIMIT_NOFILE) == (SOFT, few_descriptors)
    assert server.rlimit(psutil.RLIMIT_CORE) == (0, 0)


def test_services_have_the_limits_their_hub_was_started_with(start_hub, few_descriptors):
    service = {"name": "waits", "command": ["sleep", "600"]}
    hub = start_hub({"JupyterHub": {"services": [service]}})

    def found() -> psutil.Process | None:
        children = psutil.Process(hub.process.pid).children()
        return next((one for one in children if one.cmdline() == service["command"]), None)

    assert limits_of(until(found).pid) == limits_of("self")


def test_rlimits_are_those_of_each_server(start_hub):
    given = {"nofile": [300, 400], "core": 0, "fsize": "1G", "stack": ["8M", "8M"]}
    hub = start_hub({"LocalProcessSpawner": {"rlimits": given}})
    for name in ("ada", "bob"):
        hub.browser(name).start_server(name)
        server = hub.server_process(name)
        assert server.rlimit(psutil.RLIMIT_NOFILE) == (300, 400)
        assert server.rlimit(psutil.RLIMIT_CORE) == (0, 0)
        assert server.rlimit(psutil.RLIMIT_FSIZE) == (2**30, 2**30)
        assert server.rlimit(psutil.RLIMIT_STACK) == (2**23, 2**23)


def test_rlimits_of_a_group_are_those_of_its_members(start_hub):
    hub = start_hub(
        {
            "JupyterHub": {"load_groups": {"strict": ["ada"]}},
            "Spawner": {
                "group_overrides": {
                    "strict": {
                        "groups": ["strict"],
                        "spawner_override": {"rlimits": {"nofile": [200, 250]}},
                    }
                }
            },
        }
    )
    for name in ("ada", "bob"):
        hub.browser(name).start_server(name)
    assert descriptors_of(hub.server_process("ada").pid) == (200, 250)
    assert descriptors_of(hub.server_process("bob").pid)[0] != 200


@pytest.mark.root
def test_limit_above_the_hubs_own_is_told_when_the_hub_starts_and_when_a_server_does(start_hub):
    """A hub that is not root's may lower limits only."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:  # not below one of root's own
        Path(directory).chmod(0o755)
        hub = start_hub(
            {
                "Spawner": {"cmd": ["sleep", "600"]},
                "LocalProcessSpawner": {"rlimits": {"nofile": hard + 1}},
            },
            user=65534,
            directory=Path(directory) / "hub",
        )
        hub.wait_text(f"rlimits: nofile is to be {hard + 1}.* no server starts")
        page = hub.browser("ada").follow("/hub/spawn/ada")
        page = hub.browser("ada").follow("/hub/spawn-pending/ada")
        assert "The limit RLIMIT_NOFILE cannot be set" in page.text
        hub.stop()


def test_wrong_rlimits_stop_the_start_and_name_what_there_is(start_hub):
    hub = start_hub({"LocalProcessSpawner": {"rlimits": {"nprocs": 5}}}, wait=False)
    assert hub.process.wait(60) == 3
    assert "LocalProcessSpawner.rlimits" in hub.text
    assert 'there is no limit "nprocs"; there are as, core' in hub.text
