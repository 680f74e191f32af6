"""Nothing stays pending for ever, and whatever is pending can be cancelled.

A server is pending while it is looked for (CHECKING), starts (SPAWNING) or stops (STOPPING). Each
of these calls code of others, asks the proxy and writes to the database; none of them may hold it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time

import pytest
import requests
from fault_tools import LONG, SETTINGS, marked, nothing_left
from harness import gone, merge, python_config, until

TOKEN = "the-token-of-an-admin"
#: What every configuration here begins with.
HEAD = "import time\nfrom jupyterhub.spawner import SimpleLocalProcessSpawner\n"

# -- code of others that hangs -----------------------------------------------------------------

HANGING = {
    "pre_spawn_hook": "c.Spawner.pre_spawn_hook = lambda spawner: time.sleep(600)",
    "environment": "c.Spawner.environment = {'X': lambda spawner: time.sleep(600)}",
    "start": "class Mine(SimpleLocalProcessSpawner):\n"
    "    def start(self): time.sleep(600)\n"
    "c.JupyterHub.spawner_class = Mine",
    "coroutine": "import asyncio\n"
    "class Mine(SimpleLocalProcessSpawner):\n"
    "    async def start(self): await asyncio.sleep(600)\n"
    "c.JupyterHub.spawner_class = Mine",
    "inherited start": "class Mine(SimpleLocalProcessSpawner):\n"
    "    def user_env(self, env): time.sleep(600)\n"
    "c.JupyterHub.spawner_class = Mine",
    "get_state": "class Mine(SimpleLocalProcessSpawner):\n"
    "    def get_state(self): time.sleep(600)\n"
    "c.Spawner.cmd = ['sleep', '600']\n"
    "c.JupyterHub.spawner_class = Mine",
    "poll": "class Mine(SimpleLocalProcessSpawner):\n"
    "    def wait_exit(self, timeout_s):\n"
    "        self._next_poll = 0\n"
    "        return super(SimpleLocalProcessSpawner.__mro__[1], self).wait_exit(timeout_s)\n"
    "    def poll(self): time.sleep(600)\n"
    "c.Spawner.cmd = ['sleep', '600']\n"
    "c.JupyterHub.spawner_class = Mine",
    "auth_state_hook": "import os\n"
    "c.CryptKeeper.keys = [os.urandom(32)]\n"
    "c.Authenticator.enable_auth_state = True\n"
    "c.Spawner.auth_state_hook = lambda spawner, state: time.sleep(600)",
    "group_overrides": "c.Spawner.group_overrides = lambda spawner: time.sleep(600)",
    "apply_user_options": "c.Spawner.apply_user_options = lambda spawner, o: time.sleep(600)",
    "server_token_scopes": "c.Spawner.server_token_scopes = lambda spawner: time.sleep(600)",
    "client scopes": "c.Spawner.oauth_client_allowed_scopes = lambda spawner: time.sleep(600)",
    "authenticator": "from jupyterhub.auth import DummyAuthenticator\n"
    "class Mine(DummyAuthenticator):\n"
    "    def pre_spawn_start(self, user, spawner): time.sleep(600)\n"
    "c.JupyterHub.authenticator_class = Mine",
}


@pytest.mark.parametrize("place", HANGING)
def test_code_that_hangs_holds_no_server_pending_for_ever(start_hub, tmp_path, place):
    hub = start_hub(**python_config(tmp_path / "here", HEAD + HANGING[place], SETTINGS))
    browser = hub.browser("ada")
    browser.get("/hub/spawn/ada")
    until(lambda: "within 3 s" in browser.get("/hub/spawn-pending/ada").text, 20)
    until(lambda: nothing_left(hub), 20)
    began = time.monotonic()
    assert hub.stop() == 0 and time.monotonic() - began < 20
    assert "Traceback" not in hub.text, hub.text


def test_stop_and_poll_that_hang_do_not_hold_the_hub(start_hub, tmp_path):
    lines = (
        HEAD + "class Mine(SimpleLocalProcessSpawner):\n"
        "    stop_timeout_s = 1\n"
        "    def stop(self, now=False): time.sleep(600)\n"
        "c.JupyterHub.spawner_class = Mine\n"
        "c.Spawner.post_stop_hook = lambda spawner: time.sleep(600)\n"
    )
    hub = start_hub(**python_config(tmp_path / "here", lines, SETTINGS))
    browser = hub.browser("ada")
    browser.start_server("ada")
    browser.submit("/hub/stop/ada", {}, page="/hub/home")
    # It could not be stopped, and says so: running again, not pending for ever.
    hub.wait_text("Stopping ada/, its process: ", 30)
    until(lambda: 'id="stop"' in browser.get("/hub/home").text, 30)
    for one in marked(hub):
        one.kill()


#: What goes on for ever when a server stops.
STOPS = {
    "stop": "class Mine(SimpleLocalProcessSpawner):\n"
    "    stop_timeout_s = 1\n"
    "    def stop(self, now=False):\n"
    "        super().stop(now=True)\n"
    "        time.sleep(600)\n"
    "c.JupyterHub.spawner_class = Mine",
    "stop, awaited": "import asyncio\n"
    "class Mine(SimpleLocalProcessSpawner):\n"
    "    stop_timeout_s = 1\n"
    "    async def stop(self, now=False):\n"
    "        await super().stop(now=True)\n"
    "        await asyncio.sleep(600)\n"
    "c.JupyterHub.spawner_class = Mine",
    "poll": "class Mine(SimpleLocalProcessSpawner):\n"
    "    def poll(self):\n"
    "        if self.is_over: time.sleep(600)\n"
    "        return super().poll()\n"
    "c.JupyterHub.spawner_class = Mine",
    "post_stop_hook": "c.Spawner.post_stop_hook = lambda spawner: time.sleep(600)",
    "authenticator": "from jupyterhub.auth import DummyAuthenticator\n"
    "class Mine(DummyAuthenticator):\n"
    "    def post_spawn_stop(self, user, spawner): time.sleep(600)\n"
    "c.JupyterHub.authenticator_class = Mine",
}


@pytest.mark.parametrize("place", STOPS)
def test_stop_whose_code_hangs_is_no_stop_for_ever(start_hub, tmp_path, place):
    hub = start_hub(**python_config(tmp_path / "here", HEAD + STOPS[place], SETTINGS))
    browser = hub.browser("ada")
    browser.start_server("ada")
    browser.submit("/hub/stop/ada", {}, page="/hub/home")
    until(lambda: nothing_left(hub) and 'id="start"' in browser.get("/hub/home").text, 60)
    browser.start_server("ada")  # and the next one is as good
    assert len(marked(hub)) == 1


def test_state_that_is_never_read_keeps_no_hub_from_starting(start_hub, tmp_path):
    """What a spawner cannot be told of its server, it does not know: the server counts as ended."""
    lines = (
        "import os, time\n"
        "from jupyterhub.spawner import SimpleLocalProcessSpawner\n"
        "class Mine(SimpleLocalProcessSpawner):\n"
        "    def load_state(self, state):\n"
        "        if os.path.exists('hold'): time.sleep(600)\n"
        "        super().load_state(state)\n"
        "c.JupyterHub.spawner_class = Mine\n"
    )
    keep = {"JupyterHub": {"cleanup_servers": False, "cleanup_proxy": False}}
    config = python_config(tmp_path / "here", lines, {**SETTINGS, **keep})
    hub = start_hub(**config)
    hub.browser("ada").start_server("ada")
    hub.kill()
    (hub.directory / "hold").touch()
    hub = start_hub(**config)
    hub.wait_text("The spawner of ada/ does not take its state")
    assert hub.rows("SELECT target FROM servers") == [(None,)]
    for one in marked(hub):
        one.kill()


@pytest.mark.parametrize("what", ["start", "cancel", "stop"])
def test_silent_proxy_keeps_nothing_pending(start_hub, what):
    """Another one takes its place, and gets the routes there are then."""
    mine = {"JupyterHub": {"api_tokens": {TOKEN: "root-admin"}}}
    hub = start_hub(merge(SETTINGS, mine | {"ThreadedProxy": {"check_running_interval": 1}}))
    direct = hub.default_route()  # the hub's own port, which the proxy has no part in

    def call(method: str, path: str = "") -> requests.Response:
        url = f"{direct}/hub/api/users/ada{path}"
        headers = {"Authorization": f"token {TOKEN}"}
        return requests.request(method, url, headers=headers, timeout=90)

    def server() -> dict:
        return call("GET").json()["servers"].get("", {})

    assert call("POST").status_code == 201
    if what == "stop":
        call("POST", "/server")
        until(lambda: server()["ready"])
    silent = hub.proxy()["pid"]
    os.kill(silent, signal.SIGSTOP)
    if what != "stop":
        call("POST", "/server")
    if what != "start":
        call("DELETE", "/server")
    until(lambda: not server().get("pending"), 90)
    until(lambda: gone(silent) and hub.proxy()["pid"] != silent, 60)
    if server().get("ready"):
        assert what == "start"
        until(lambda: "/user/ada" in hub.routes(), 30)
    else:
        until(lambda: nothing_left(hub), 30)


@pytest.mark.parametrize("what", ["start", "stop"])
def test_database_that_another_program_locks_keeps_nothing_pending(start_hub, what):
    hub = start_hub(SETTINGS)
    browser = hub.browser("ada")
    if what == "stop":
        browser.start_server("ada")
    else:
        browser.get("/hub/home")
    with contextlib.closing(sqlite3.connect(hub.directory / "jupyterhub.sqlite")) as other:
        other.isolation_level = None
        other.execute("BEGIN IMMEDIATE")
        if what == "start":
            browser.get("/hub/spawn/ada")
            told = "the hub cannot use its database at the moment"
            until(lambda: told in browser.get("/hub/spawn-pending/ada").text, 60)
        else:
            browser.submit("/hub/stop/ada", {}, page="/hub/home")
            until(lambda: not marked(hub), 30)
            until(lambda: 'id="start"' in browser.get("/hub/home").text, 60)
        other.execute("ROLLBACK")
    until(lambda: nothing_left(hub), 30)
    browser.start_server("ada")


def test_start_that_comes_too_late_is_ended(start_hub, tmp_path):
    lines = (
        HEAD + "class Mine(SimpleLocalProcessSpawner):\n"
        "    def start(self):\n"
        "        time.sleep(5)\n"
        "        return super().start()\n"
        "c.JupyterHub.spawner_class = Mine\n"
    )
    hub = start_hub(**python_config(tmp_path / "here", lines, SETTINGS))
    browser = hub.browser("ada")
    browser.get("/hub/spawn/ada")
    until(lambda: "within 3 s" in browser.get("/hub/spawn-pending/ada").text, 20)
    time.sleep(3)  # and then its process would be there
    assert "Server ada: pid" not in hub.text
    until(lambda: nothing_left(hub), 20)


#: Starts in which somebody else's code goes on for long: for ever, or with a process that comes
#: when the start was cancelled, or in a way that cannot be cancelled.
LATE_STARTS = {
    "its own process": "class Mine(SimpleLocalProcessSpawner):\n"
    "    def start(self):\n"
    "        wait()\n"
    "        self.child = subprocess.Popen(['sleep', '600'], env={'HOME': os.getcwd(),\n"
    "            'MINIHUB_SERVER_ID': 'mine'}, start_new_session=True)\n"
    "        return '127.0.0.1', 9\n"
    "    def stop(self, now=False):\n"
    "        if hasattr(self, 'child'): self.child.kill(); self.child.wait()\n"
    "    def poll(self): return self.child.poll() if hasattr(self, 'child') else 0\n",
    "ours": "class Mine(SimpleLocalProcessSpawner):\n"
    "    def start(self):\n"
    "        wait()\n"
    "        return super().start()\n",
    "ours, then more": "class Mine(SimpleLocalProcessSpawner):\n"
    "    def start(self):\n"
    "        where = super().start()\n"
    "        wait()\n"
    "        return where\n",
    "ours, awaited": "class Mine(SimpleLocalProcessSpawner):\n"
    "    async def start(self):\n"
    "        await asyncio.to_thread(wait)\n"
    "        return await super().start()\n",
    "ours, awaited, with a wait inside": "class Mine(SimpleLocalProcessSpawner):\n"
    "    async def start(self):\n"
    "        return await super().start()\n"
    "    def get_args(self):\n"
    "        wait()\n"
    "        return super().get_args()\n",
    "a coroutine that nothing cancels": "class Mine(SimpleLocalProcessSpawner):\n"
    "    async def start(self):\n"
    "        while not os.path.exists('go'):\n"
    "            try: await asyncio.sleep(0.1)\n"
    "            except asyncio.CancelledError: pass\n"
    "        self.child = subprocess.Popen(['sleep', '600'], env={'HOME': os.getcwd(),\n"
    "            'MINIHUB_SERVER_ID': 'mine'}, start_new_session=True)\n"
    "        return '127.0.0.1', 9\n"
    "    async def stop(self, now=False):\n"
    "        if hasattr(self, 'child'): self.child.kill(); self.child.wait()\n"
    "    async def poll(self): return self.child.poll() if hasattr(self, 'child') else 0\n",
}


@pytest.mark.parametrize("kind", LATE_STARTS)
def test_cancel_settles_at_once_and_what_comes_late_is_ended(start_hub, tmp_path, kind):
    """Long before ``start_timeout``; the next start is the user's at once."""
    head = (
        "import asyncio, os, subprocess, time\n"
        "from jupyterhub.spawner import SimpleLocalProcessSpawner\n"
        "def wait():\n"
        "    while not os.path.exists('go'): time.sleep(0.05)\n"
    )
    lines = head + LATE_STARTS[kind] + "c.JupyterHub.spawner_class = Mine\n"
    lines += "c.Spawner.cmd = ['sleep', '600']\n"  # it does not end by itself without its hub
    hub = start_hub(**python_config(tmp_path / "here", lines, LONG))
    browser = hub.browser("ada")
    browser.get("/hub/spawn/ada")
    until(lambda: hub.rows("SELECT 1 FROM api_tokens WHERE server_id IS NOT NULL"))
    time.sleep(1)  # the start is on its way by now
    for _again in range(2):
        browser.submit("/hub/stop/ada", {}, page="/hub/home")
        until(lambda: 'id="start"' in browser.get("/hub/home").text, 20)
        until(lambda: nothing_left(hub), 20)
        browser.get("/hub/spawn/ada")
    browser.submit("/hub/stop/ada", {}, page="/hub/home")
    until(lambda: nothing_left(hub), 20)
    (hub.directory / "go").touch()
    time.sleep(2)  # what comes late comes now
    until(lambda: nothing_left(hub), 20)
    assert hub.stop() == 0 and "Traceback" not in hub.text, hub.text


@pytest.mark.parametrize("place", HANGING)
def test_cancel_of_a_start_whose_code_hangs_settles_at_once(start_hub, tmp_path, place):
    hub = start_hub(**python_config(tmp_path / "here", HEAD + HANGING[place], LONG))
    browser = hub.browser("ada")
    browser.get("/hub/spawn/ada")
    time.sleep(1)
    browser.submit("/hub/stop/ada", {}, page="/hub/home")
    until(lambda: nothing_left(hub) and 'id="start"' in browser.get("/hub/home").text, 20)
    assert hub.stop() == 0 and "Traceback" not in hub.text, hub.text


def test_server_whose_spawner_never_answers_is_not_looked_at_for_ever(start_hub, tmp_path):
    """Servers of the last hub: they can be stopped meanwhile, and count as running at last."""
    lines = (
        "import os, time\n"
        "from jupyterhub.spawner import SimpleLocalProcessSpawner\n"
        "class Mine(SimpleLocalProcessSpawner):\n"
        "    def poll(self):\n"
        "        while os.path.exists('hold'): time.sleep(0.05)\n"
        "        return super().poll()\n"
        "c.JupyterHub.spawner_class = Mine\n"
        "c.JupyterHub.init_spawners_timeout = 1\n"
    )
    keep = {"JupyterHub": {"cleanup_servers": False, "cleanup_proxy": False}}
    config = python_config(tmp_path / "here", lines, {**SETTINGS, **keep})
    hub = start_hub(**config)
    ada, eve = hub.browser("ada"), hub.browser("eve")
    for name, browser in (("ada", ada), ("eve", eve)):
        browser.start_server(name)
    pid = hub.server_process("ada").pid
    hub.kill()
    (hub.directory / "hold").touch()
    hub = start_hub(**config)
    hub.wait_text("2 servers of the last hub do not say yet")
    ada.submit("/hub/stop/ada", {}, page="/hub/home")
    until(lambda: gone(pid), 20)
    hub.wait_text("The spawner of eve/ does not answer; its server counts as running", 40)
    until(lambda: 'id="stop"' in eve.get("/hub/home").text, 20)
    assert eve.get("/user/eve/api").status_code == 200
    (hub.directory / "hold").unlink()
    eve.submit("/hub/stop/eve", {}, page="/hub/home")
    until(lambda: nothing_left(hub) and nothing_left(hub, "eve"), 20)
