"""What every server is started with, and how it is ended."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyconfig
import pytest
import requests
from harness import FAKE_SERVER, HubProcess, free_port

ADMIN = {"Authorization": "token the-token-of-an-admin"}
WITH_ADMIN = {"JupyterHub": {"api_tokens": {"the-token-of-an-admin": "root-admin"}}}
FREEZER = Path("/sys/fs/cgroup/freezer")


def call(hub: Any, method: str, name: str) -> requests.Response:
    url = f"{hub.url}hub/api/users/{name}/server"
    return requests.request(method, url, headers=ADMIN, timeout=60)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What a server says that was started with another value of nearly every option."""
    directory = tmp_path_factory.mktemp("odd")
    (directory / "start-here").mkdir()
    hub = HubProcess(
        directory / "hub",
        WITH_ADMIN
        | {
            "Spawner": {
                "cmd": [sys.executable, str(FAKE_SERVER)],
                "args": ["--first", "second word"],
                "ip": "127.0.0.2",
                "debug": True,
                "default_url": "/lab/tree/{username}",
                "notebook_dir": "~/work-of-{username}",
                "disable_user_config": True,
                "env_keep": ["PATH", "KEPT_FOR_SERVERS"],
                "environment": {
                    "GIVEN": "to servers",
                    "NUMBER": 5,
                    "JUPYTERHUB_PUBLIC_HUB_URL": "changed",
                },
                "oauth_client_allowed_scopes": ["read:users!user"],
                "server_token_scopes": ["read:users:name!user", "users:activity!user"],
            },
            "LocalProcessSpawner": {
                "popen_kwargs": {"cwd": str(directory / "start-here"), "umask": 0o27},
            },
            "SimpleLocalProcessSpawner": {"home_dir_template": f"{directory}/h/{{username}}"},
        },
        env={"KEPT_FOR_SERVERS": "yes", "NOT_KEPT": "no"},
    ).wait_ready()
    browser = hub.browser("ada")
    browser.start_server("ada")
    page = browser.follow("/user/ada/").json()
    page["directory"] = directory
    page["hub"] = hub
    page["process"] = psutil.Process(page["pid"])
    yield page
    assert hub.stop() == 0, hub.text


# -- what it is started with ---------------------------------------------------------------


def test_args_follow_the_command(odd):
    assert odd["process"].cmdline()[1:] == [str(FAKE_SERVER), "--first", "second word"]


def test_ip_is_where_the_server_listens(odd):
    listening = [one.laddr.ip for one in odd["process"].net_connections() if one.status == "LISTEN"]
    assert listening == ["127.0.0.2"]
    assert odd["hub"].routes()["/user/ada"]["target"].startswith("http://127.0.0.2:")


def test_options_reach_the_server_by_its_environment(odd):
    env = odd["env"]
    assert env["JUPYTERHUB_DEBUG"] == "1"
    assert env["JUPYTERHUB_DEFAULT_URL"] == "/lab/tree/ada"
    assert env["JUPYTERHUB_ROOT_DIR"] == "~/work-of-ada"
    assert env["JUPYTERHUB_DISABLE_USER_CONFIG"] == "1"


def test_environment_wins_over_everything(odd):
    env = odd["env"]
    assert (env["GIVEN"], env["NUMBER"], env["JUPYTERHUB_PUBLIC_HUB_URL"]) == (
        "to servers",
        "5",
        "changed",
    )


def test_env_keep_is_all_that_comes_from_the_hub(odd):
    assert odd["env"]["KEPT_FOR_SERVERS"] == "yes" and "NOT_KEPT" not in odd["env"]
    assert "LANG" not in odd["env"]


def test_popen_kwargs_say_where_and_with_which_mask_it_starts(odd):
    assert odd["cwd"] == str(odd["directory"] / "start-here")
    umask = Path(f"/proc/{odd['pid']}/status").read_text().split("Umask:")[1].split()[0]
    assert umask == "0027"


def test_home_dir_template_is_where_homes_are(odd):
    home = odd["directory"] / "h" / "ada"
    assert odd["env"]["HOME"] == str(home)
    assert home.stat().st_mode & 0o777 == 0o700


def test_scopes_of_visitors_are_those_the_client_may_have(odd):
    allowed = json.loads(odd["env"]["JUPYTERHUB_OAUTH_CLIENT_ALLOWED_SCOPES"])
    assert "read:users!user" in allowed
    assert "read:users!user=ada" in odd["visitor"]["scopes"]


def test_scopes_of_the_servers_own_token_are_the_given_ones(odd):
    token = {"Authorization": f"token {odd['env']['JUPYTERHUB_API_TOKEN']}"}
    model = requests.get(odd["hub"].url + "hub/api/user", headers=token, timeout=10).json()
    scopes = set(model["scopes"])
    assert {"read:users:name!user=ada", "users:activity!user=ada"} <= scopes
    assert not [one for one in scopes if one.startswith("access:servers")]  # those of the role


def test_cmd_may_be_one_word_and_port_a_fixed_one(start_hub, tmp_path):
    program = tmp_path / "my-server"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} {FAKE_SERVER} by-my-server\n")
    program.chmod(0o755)
    port = free_port()
    hub = start_hub(WITH_ADMIN | {"Spawner": {"cmd": str(program), "port": port}})
    assert call(hub, "POST", "root-admin").status_code == 201
    assert hub.server_process("root-admin").cmdline()[-1] == "by-my-server"
    assert hub.routes()["/user/root-admin"]["target"] == f"http://127.0.0.1:{port}"


def test_shell_cmd_is_given_the_whole_command_line(start_hub):
    shell = ["sh", "-c", 'echo "$0"; export FROM_SHELL=1; eval "exec $0"']
    hub = start_hub(WITH_ADMIN | {"LocalProcessSpawner": {"shell_cmd": shell}})
    assert call(hub, "POST", "root-admin").status_code == 201
    assert hub.server_process("root-admin").environ()["FROM_SHELL"] == "1"
    log = (hub.state_dir / "logs" / "root-admin.log").read_text()
    assert f"{sys.executable} {FAKE_SERVER}" in log


def test_start_timeout_ends_a_start_that_takes_too_long(start_hub, tmp_path):
    lines = (
        "import asyncio\n"
        "from jupyterhub.spawner import SimpleLocalProcessSpawner\n"
        "class Slow(SimpleLocalProcessSpawner):\n"
        "    async def start(self):\n"
        "        await asyncio.sleep(60)\n"
        "c.JupyterHub.spawner_class = Slow\n"
        "c.Spawner.start_timeout = 1\n"
    )
    hub = start_hub(args=pyconfig.write(tmp_path / "config.py", lines, WITH_ADMIN))
    began = time.monotonic()
    failed = call(hub, "POST", "root-admin")
    assert failed.status_code == 500 and time.monotonic() - began < 10
    assert "not started within 1 s (Spawner.start_timeout)" in failed.json()["message"]


def test_http_timeout_ends_a_server_that_does_not_answer(start_hub):
    changes = {"environment": {"FAKE_MODE": "mute"}, "http_timeout": 1}
    hub = start_hub(WITH_ADMIN | {"Spawner": changes})
    began = time.monotonic()
    failed = call(hub, "POST", "root-admin")
    assert failed.status_code == 500 and time.monotonic() - began < 10
    assert "did not answer within 1 s (Spawner.http_timeout)" in failed.json()["message"]


# -- forms and hooks -----------------------------------------------------------------------


def test_options_form_is_shown_and_options_from_form_reads_it(start_hub, tmp_path):
    lines = (
        "async def form(spawner):\n"
        "    return f'<label>Size for {spawner.user.name} <input name=\"size\"></label>'\n"
        "def read(fields, spawner):\n"
        "    if not fields['size'][0].isdecimal():\n"
        "        raise ValueError('a size is a number')\n"
        "    return {'size': int(fields['size'][0]), 'who': spawner.user.name}\n"
        "def apply(spawner, user_options):\n"
        "    spawner.environment['CHOSEN'] = str(sorted(user_options.items()))\n"
        "c.Spawner.options_form = form\n"
        "c.Spawner.options_from_form = read\n"
        "c.Spawner.apply_user_options = apply\n"
    )
    hub = start_hub(args=pyconfig.write(tmp_path / "config.py", lines))
    browser = hub.browser("ada")
    page = browser.get("/hub/spawn/ada")
    assert page.status_code == 200 and "Size for ada" in page.text
    wrong = browser.submit("/hub/spawn/ada", {"size": "big"})
    assert wrong.status_code == 400 and "a size is a number" in wrong.text
    assert browser.submit("/hub/spawn/ada", {"size": "7"}).status_code in (302, 303)
    browser.wait_server("ada")
    env = hub.server_process("ada").environ()
    assert env["CHOSEN"] == "[('size', 7), ('who', 'ada')]"


def test_options_from_query_reads_a_spawn_link(start_hub, tmp_path):
    lines = (
        "c.Spawner.options_from_query = lambda query: {'size': query['size'][0]}\n"
        "c.Spawner.apply_user_options = {'size': 'mem_limit'}\n"
    )
    hub = start_hub(args=pyconfig.write(tmp_path / "config.py", lines))
    browser = hub.browser("ada")
    browser.get("/hub/spawn/ada?size=3G")
    browser.wait_server("ada")
    assert hub.server_process("ada").environ()["MEM_LIMIT"] == str(3 * 1024**3)


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_hooks_run_before_a_start_and_after_a_stop(start_hub, tmp_path, kind):
    lines = (
        "from pathlib import Path\n"
        f"{kind} before(spawner):\n"
        "    if spawner.user.name == 'nobody':\n"
        "        raise RuntimeError('not today')\n"
        "    spawner.environment['FROM_HOOK'] = spawner.user.name\n"
        f"{kind} after(spawner):\n"
        "    Path('stopped.txt').write_text(spawner.user.name)\n"
        f"{kind} ready(spawner, event):\n"
        "    event['message'] = 'Ready for ' + spawner.user.name\n"
        "    return event\n"
        "c.Spawner.pre_spawn_hook = before\n"
        "c.Spawner.post_stop_hook = after\n"
        "c.Spawner.progress_ready_hook = ready\n"
    )
    hub = start_hub(args=pyconfig.write(tmp_path / "config.py", lines, WITH_ADMIN))
    assert call(hub, "POST", "root-admin").status_code == 201
    assert hub.server_process("root-admin").environ()["FROM_HOOK"] == "root-admin"
    url = f"{hub.url}hub/api/users/root-admin/server/progress"
    assert "Ready for root-admin" in requests.get(url, headers=ADMIN, timeout=20).text
    assert not (hub.directory / "stopped.txt").exists()
    assert call(hub, "DELETE", "root-admin").status_code == 204
    assert (hub.directory / "stopped.txt").read_text() == "root-admin"
    browser = hub.browser("nobody")
    assert "not today" in browser.follow("/hub/spawn/nobody").text


# -- how it is ended -----------------------------------------------------------------------


def test_patience_of_the_stop_is_that_of_the_options(start_hub):
    patience = {"interrupt_timeout": 1, "term_timeout": 2, "kill_timeout": 9}
    hub = start_hub(
        WITH_ADMIN
        | {
            "Spawner": {"environment": {"FAKE_MODE": "stubborn"}},
            "LocalProcessSpawner": patience,
        }
    )
    assert call(hub, "POST", "root-admin").status_code == 201
    began = time.monotonic()
    assert call(hub, "DELETE", "root-admin").status_code == 204
    assert 3 <= time.monotonic() - began < 6  # it took SIGKILL


@pytest.mark.skipif(
    not os.access(FREEZER / "cgroup.procs", os.W_OK), reason="nothing here outlives SIGKILL"
)
def test_kill_timeout_is_when_a_server_counts_as_one_that_cannot_be_stopped(start_hub):
    patience = {"interrupt_timeout": 0, "term_timeout": 0, "kill_timeout": 8}
    hub = start_hub(WITH_ADMIN | {"LocalProcessSpawner": patience})
    assert call(hub, "POST", "root-admin").status_code == 201
    pid = hub.server_process("root-admin").pid
    frozen = FREEZER / f"minihub-test-{os.getpid()}"
    frozen.mkdir()
    try:
        (frozen / "cgroup.procs").write_text(str(pid))
        (frozen / "freezer.state").write_text("FROZEN")
        began = time.monotonic()
        call(hub, "DELETE", "root-admin")
        hub.wait_text("its process: Could not be stopped, not even by SIGKILL", 40)
        assert time.monotonic() - began >= 8
    finally:
        (frozen / "freezer.state").write_text("THAWED")
        deadline = time.monotonic() + 10
        while (frozen / "cgroup.procs").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        frozen.rmdir()
