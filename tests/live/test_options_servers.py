"""What changes one user's server: groups, choices, looks at it, and failures in a row."""

from __future__ import annotations

import itertools
import statistics
from typing import Any

import psutil
import pyconfig
import pytest
import requests
from harness import free_port, until

ADMIN = {"Authorization": "token the-token-of-an-admin"}
WITH_ADMIN = {"JupyterHub": {"api_tokens": {"the-token-of-an-admin": "root-admin"}}}


def start(hub: Any, name: str, **kwargs: Any) -> requests.Response:
    url = f"{hub.url}hub/api/users/{name}/server"
    return requests.post(url, headers=ADMIN, timeout=30, **kwargs)


def env_of(hub: Any, name: str) -> dict[str, str]:
    return hub.server_process(name).environ()


# -- groups --------------------------------------------------------------------------------

OVERRIDES = {
    "01-physics": {
        "groups": ["physics", "chemistry"],
        "spawner_override": {"environment": {"LAB": "physics", "ROOM": "7"}, "mem_limit": "8G"},
    },
    "02-night": {
        "groups": ["night"],
        "spawner_override": {"environment": {"LAB": "night", "FAKE_MODE": None}, "args": ["--x"]},
    },
}


def test_group_overrides_change_the_servers_of_members(start_hub):
    groups = {"physics": ["ada"], "night": ["ada", "ben"]}
    hub = start_hub(
        {
            "JupyterHub": WITH_ADMIN["JupyterHub"] | {"load_groups": groups},
            "Spawner": {
                "group_overrides": OVERRIDES,
                "environment": {"BASE": "1", "FAKE_MODE": "exit"},
                "mem_limit": "1G",
            },
        }
    )
    assert start(hub, "ada").status_code == 201
    assert start(hub, "ben").status_code == 201
    ada, ben = env_of(hub, "ada"), env_of(hub, "ben")
    assert (ada["BASE"], ada["LAB"], ada["ROOM"]) == ("1", "night", "7")
    assert ada["MEM_LIMIT"] == str(8 * 1024**3)
    assert (ben["LAB"], ben["MEM_LIMIT"]) == ("night", str(1024**3)) and "ROOM" not in ben
    assert hub.server_process("ben").cmdline()[-1] == "--x"
    # Who is in no group has none of it, and so a server that ends at once.
    failed = start(hub, "root-admin")
    assert failed.status_code == 500 and "exit code 3" in failed.json()["message"]


def test_group_overrides_may_be_functions(start_hub, tmp_path):
    lines = (
        "async def overrides(spawner):\n"
        "    mine = {'groups': ['physics'], 'spawner_override': {\n"
        "        'environment': lambda spawner: {'WHO': spawner.user.name}}}\n"
        "    return {'1': mine}\n"
        "c.Spawner.group_overrides = overrides\n"
        "c.JupyterHub.load_groups = {'physics': ['ada']}\n"
    )
    hub = start_hub(args=pyconfig.write(tmp_path / "config.py", lines, WITH_ADMIN))
    assert start(hub, "ada").status_code == 201
    assert env_of(hub, "ada")["WHO"] == "ada"


@pytest.mark.parametrize(
    "entry, told",
    [
        ({"groups": ["x"]}, 'needs "groups" and "spawner_override"'),
        ({"groups": "x", "spawner_override": {}}, "groups is a list of names"),
    ],
)
def test_malformed_group_overrides_stop_the_start(start_hub, entry, told):
    hub = start_hub({"Spawner": {"group_overrides": {"1": entry}}}, wait=False)
    assert hub.process.wait(20) == 3
    assert "Spawner.group_overrides" in hub.text and told in hub.text


def test_override_of_no_option_fails_the_start_in_words(start_hub):
    entry = {"groups": ["night"], "spawner_override": {"mem_limmit": "1G"}}
    hub = start_hub(
        {
            "JupyterHub": WITH_ADMIN["JupyterHub"] | {"load_groups": {"night": ["ada"]}},
            "Spawner": {"group_overrides": {"1": entry}},
        }
    )
    failed = start(hub, "ada")
    assert failed.status_code == 500
    assert 'group_overrides["1"]: there is no option mem_limmit' in failed.json()["message"]


# -- choices -------------------------------------------------------------------------------


def test_apply_user_options_as_a_dict_sets_what_it_names(start_hub):
    hub = start_hub(
        WITH_ADMIN
        | {
            "Spawner": {
                "apply_user_options": {"memory": "mem_limit", "page": "default_url"},
                "options_form": '<input name="memory"><input name="page"><input name="debug">',
                "options_from_form": "simple",
            }
        }
    )
    browser = hub.browser("ada")
    form = {"memory": "2G", "page": "/lab", "debug": "on"}
    browser.submit("/hub/spawn/ada", form)
    browser.wait_server("ada")
    env = env_of(hub, "ada")
    assert env["MEM_LIMIT"] == str(2 * 1024**3) and env["JUPYTERHUB_DEFAULT_URL"] == "/lab"
    assert "JUPYTERHUB_DEBUG" not in env  # nobody allowed that
    hub.wait_text("The option debug of ada means nothing to Spawner.apply_user_options")
    refused = start(hub, "root-admin", json={"memory": "as much as there is"})
    assert refused.status_code == 400
    assert "memory cannot be 'as much as there is'" in refused.json()["message"]


def test_apply_user_options_as_a_function_may_refuse(start_hub, tmp_path):
    lines = (
        "async def apply(spawner, user_options):\n"
        "    if user_options.get('size') not in ('small', 'large'):\n"
        "        raise ValueError('size is small or large')\n"
        "    spawner.environment['SIZE'] = user_options['size']\n"
        "c.Spawner.apply_user_options = apply\n"
    )
    hub = start_hub(args=pyconfig.write(tmp_path / "config.py", lines, WITH_ADMIN))
    assert start(hub, "ada", json={"size": "small"}).status_code == 404
    hub.browser("ada")
    refused = start(hub, "ada", json={"size": "huge"})
    assert refused.status_code == 400 and "size is small or large" in refused.json()["message"]
    assert start(hub, "ada", json={"size": "small"}).status_code == 201
    assert env_of(hub, "ada")["SIZE"] == "small"


# -- addresses, looks, failures ------------------------------------------------------------


def test_hub_connect_url_is_what_servers_are_told(start_hub):
    port = free_port()
    hub = start_hub(
        {
            "JupyterHub": WITH_ADMIN["JupyterHub"] | {"hub_port": port},
            "Spawner": {"hub_connect_url": f"http://localhost:{port}/"},
        }
    )
    assert start(hub, "root-admin").status_code == 201
    env = env_of(hub, "root-admin")
    assert env["JUPYTERHUB_API_URL"] == f"http://localhost:{port}/hub/api"
    assert env["JUPYTERHUB_ACTIVITY_URL"].startswith(f"http://localhost:{port}/hub/api/users/")
    assert hub.default_route() == f"http://127.0.0.1:{port}"


LOOKED_AT = """
import time
from jupyterhub.spawner import SimpleLocalProcessSpawner
class Noting(SimpleLocalProcessSpawner):
    async def poll(self):
        with open("looks", "a") as file:
            print(time.monotonic(), file=file)
        return await super().poll()
c.JupyterHub.spawner_class = Noting
c.Spawner.poll_interval = 3
c.Spawner.poll_jitter = JITTER
"""


@pytest.mark.parametrize("jitter", [0, 1])
def test_poll_interval_and_jitter_notice_an_ended_server(start_hub, tmp_path, jitter):
    lines = LOOKED_AT.replace("JITTER", str(jitter))
    hub = start_hub(args=pyconfig.write(tmp_path / "config.py", lines, WITH_ADMIN))
    assert start(hub, "root-admin").status_code == 201
    (hub.directory / "looks").unlink(missing_ok=True)  # those of the start

    def pauses() -> list[float]:
        times = [float(line) for line in (hub.directory / "looks").read_text().split()]
        return [after - before for before, after in itertools.pairwise(times)]

    if jitter:  # from nothing to twice the interval
        until(lambda: any(pause < 2.5 for pause in pauses()), 60)
    else:
        until(lambda: len(pauses()) >= 3, 60)
        # A look that came late makes the pause behind it shorter; and a busy machine is slow.
        assert 2.7 < statistics.median(pauses()) < 15
    psutil.Process(hub.server_process("root-admin").pid).kill()
    hub.wait_text("Server root-admin/ has ended by itself", timeout_s=20)


def test_hub_ends_after_so_many_failed_starts_in_a_row(start_hub):
    hub = start_hub(
        WITH_ADMIN
        | {
            "Spawner": {
                "consecutive_failure_limit": 3,
                "environment": {"FAKE_MODE": "exit"},
                "group_overrides": {
                    "1": {
                        "groups": ["well"],
                        "spawner_override": {"environment": {"FAKE_MODE": ""}},
                    }
                },
            },
            "JupyterHub": WITH_ADMIN["JupyterHub"] | {"load_groups": {"well": ["ben"]}},
        }
    )
    for name in ("root-admin", "root-admin"):
        assert start(hub, name).status_code == 500
    hub.wait_text("2 starts failed in a row; after 3 the hub ends")
    assert start(hub, "ben").status_code == 201  # one that succeeds ends the row
    for _ in range(2):
        assert start(hub, "root-admin").status_code == 500
    assert hub.process.poll() is None
    start(hub, "root-admin")
    assert hub.process.wait(30) == 1
    assert "CRITICAL | 3 starts failed in a row: the hub ends" in hub.text
    assert "Traceback" not in hub.text
