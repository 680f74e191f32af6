"""What authenticators remember: kept encrypted, handed to hooks, or the start is refused."""

from __future__ import annotations

import base64
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyconfig
import pytest
import requests

KEY, OTHER = "ab" * 32, "cd" * 32
ADMIN = {"Authorization": "token the-token-of-an-admin"}

LINES = """
from jupyterhub.auth import DummyAuthenticator
class Remembering(DummyAuthenticator):
    async def authenticate(self, handler, data):
        name = await super().authenticate(handler, data)
        return name and {"name": name, "auth_state": {"ticket": "the-ticket-of-" + name}}
    async def pre_spawn_start(self, user, spawner):
        state = await user.get_auth_state()
        spawner.environment["FROM_AUTHENTICATOR"] = (state or {}).get("ticket", "none")
def hook(spawner, auth_state):
    spawner.environment["FROM_HOOK"] = (auth_state or {}).get("ticket", "none")
async def before(spawner):
    state = await spawner.user.get_auth_state()
    spawner.environment["FROM_USER"] = (state or {}).get("ticket", "none")
c.JupyterHub.authenticator_class = Remembering
c.JupyterHub.api_tokens = {"the-token-of-an-admin": "root-admin"}
c.Authenticator.enable_auth_state = True
c.Spawner.auth_state_hook = hook
c.Spawner.pre_spawn_hook = before
"""


@pytest.fixture
def start(start_hub, tmp_path) -> Any:
    def run(lines: str = "", **kwargs: Any) -> Any:
        place = tmp_path / "config.py"
        kwargs.setdefault("env", {"JUPYTERHUB_CRYPT_KEY": KEY})
        return start_hub(args=pyconfig.write(place, LINES + lines), **kwargs)

    return run


def state_of(hub: Any, name: str) -> Any:
    answer = requests.get(f"{hub.url}hub/api/users/{name}", headers=ADMIN, timeout=10)
    return answer.json()["auth_state"]


def test_auth_state_is_kept_encrypted_and_given_to_hooks(start):
    hub = start()
    browser = hub.browser("ada")
    browser.start_server("ada")
    env = browser.follow("/user/ada/").json()["env"]
    for name in ("FROM_AUTHENTICATOR", "FROM_HOOK", "FROM_USER"):
        assert env[name] == "the-ticket-of-ada"
    assert "JUPYTERHUB_CRYPT_KEY" not in env
    (stored,) = hub.rows("select auth_state from users where name = 'ada'")[0]
    assert stored and "ticket" not in stored
    assert state_of(hub, "ada") == {"ticket": "the-ticket-of-ada"}
    assert state_of(hub, "root-admin") is None
    mine = browser.get("/hub/api/user").json()
    assert "auth_state" not in mine


def test_auth_state_can_be_set_through_the_api(start):
    hub = start()
    url = f"{hub.url}hub/api/users/ben"
    assert requests.post(url, headers=ADMIN, timeout=10).status_code == 201
    changed = requests.patch(url, json={"auth_state": {"a": [1]}}, headers=ADMIN, timeout=10)
    assert changed.status_code == 200
    assert state_of(hub, "ben") == {"a": [1]}


@pytest.mark.parametrize(
    "keys", [KEY, base64.urlsafe_b64encode(bytes.fromhex(KEY)).decode(), f"{OTHER};{KEY}"]
)
def test_keys_come_in_three_forms_and_older_ones_still_decrypt(start, keys):
    hub = start()
    hub.browser("ada")
    hub.stop()
    again = start(directory=hub.directory, env={"JUPYTERHUB_CRYPT_KEY": keys})
    assert state_of(again, "ada") == {"ticket": "the-ticket-of-ada"}


def test_first_key_encrypts_and_a_lost_key_is_as_if_nothing_was_kept(start):
    hub = start(f"c.CryptKeeper.keys = ['{OTHER}', '{KEY}']\nc.CryptKeeper.n_threads = 1\n")
    hub.browser("ada")
    assert state_of(hub, "ada") == {"ticket": "the-ticket-of-ada"}
    hub.stop()
    again = start(directory=hub.directory, env={"JUPYTERHUB_CRYPT_KEY": KEY})
    assert state_of(again, "ada") is None
    again.wait_text("The auth_state of ada is not used: .* cannot be decrypted")
    again.browser("ada")  # a new login brings it again
    assert state_of(again, "ada") == {"ticket": "the-ticket-of-ada"}


COUNTED = """
import threading, time
from cryptography.fernet import MultiFernet
real, lock, now, most = MultiFernet.encrypt, threading.Lock(), 0, 0
def encrypt(self, data, *args):
    global now, most
    with lock:
        now += 1
        most = max(most, now)
    time.sleep(0.3)
    with lock:
        now -= 1
        with open("most", "w") as file:
            file.write(str(most))
    return real(self, data, *args)
MultiFernet.encrypt = encrypt
"""


@pytest.mark.parametrize("n_threads", [1, 4])
def test_n_threads_bounds_how_many_encrypt_at_the_same_time(start, n_threads):
    hub = start(COUNTED + f"c.CryptKeeper.n_threads = {n_threads}\n")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(hub.browser, [f"u{number}" for number in range(8)]))
    most = int((hub.directory / "most").read_text())
    assert most == 1 if n_threads == 1 else 1 < most <= 4


def test_without_the_option_nothing_is_kept(start):
    hub = start("c.Authenticator.enable_auth_state = False\n", env={})
    hub.browser("ada")
    assert hub.rows("select auth_state from users where name = 'ada'") == [(None,)]
    hub.wait_text("gave auth_state, which is not kept: Authenticator.enable_auth_state is off")
    assert "the-ticket-of-ada" not in hub.text


def test_without_a_key_the_start_stops_and_says_how_to_get_one(start):
    hub = start(env={}, wait=False)
    assert hub.process.wait(30) == 3
    assert "Authenticator.enable_auth_state: needs a key to encrypt with" in hub.text
    assert "openssl rand -hex 32" in hub.text and "Traceback" not in hub.text


def test_without_cryptography_the_start_stops_and_names_the_package(start, tmp_path):
    absent = tmp_path / "absent"
    absent.mkdir()
    (absent / "cryptography.py").write_text("raise ImportError('not installed')\n")
    env = {"JUPYTERHUB_CRYPT_KEY": KEY, "PYTHONPATH": str(absent)}
    hub = start(env=env, wait=False)
    assert hub.process.wait(30) == 3
    assert re.search(r"enable_auth_state: needs the Python package cryptography", hub.text)
    assert "python3 -m pip install cryptography" in hub.text and "Traceback" not in hub.text


@pytest.mark.parametrize("key", ["short", "zz" * 32])
def test_wrong_key_is_refused_and_not_shown(start, key):
    hub = start(env={"JUPYTERHUB_CRYPT_KEY": key}, wait=False)
    assert hub.process.wait(30) == 3
    assert "JUPYTERHUB_CRYPT_KEY: a key is 32 bytes" in hub.text and key not in hub.text
