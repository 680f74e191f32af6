"""Classes of a configuration, written the ways people write them for JupyterHub."""

import json
import subprocess
import sys

import pyconfig
import pytest
from harness import FAKE_SERVER, ROOT, HubProcess, until

CLASSES = '''
import asyncio
from jupyterhub.auth import Authenticator, DummyAuthenticator
from jupyterhub.proxy import ConfigurableHTTPProxy
from jupyterhub.spawner import SimpleLocalProcessSpawner
from traitlets import Any, Instance, Integer, TraitError, Unicode, default, observe, validate
from traitlets.config import LoggingConfigurable


class Directory(LoggingConfigurable):
    """A part of the authenticator with options of its own."""

    size = Integer(1, config=True)

    @validate("size")
    def _not_negative(self, proposal):
        if proposal["value"] < 0:
            raise TraitError("must not be negative")
        return proposal["value"]


class Auth(DummyAuthenticator):
    directory = Instance(Directory)
    lookup = Any(None, config=True)
    retries = Integer(3, config=True)

    @default("directory")
    def _make_directory(self):
        return Directory(parent=self)

    @observe("retries")
    def _seen(self, change):
        self.log.warning("RETRIES %s", change.new)

    async def authenticate(self, handler, data=None):
        await super(DummyAuthenticator, self).authenticate(handler, data)
        name = await super().authenticate(handler, data)
        given = [
            handler.get_cookie("jupyterhub-session-id", "none"),
            handler.get_body_argument("username"),
            handler.get_query_argument("next", "nowhere"),
            handler.request.arguments["username"][0].decode(),
            len(handler.request.cookies) > 0,
        ]
        handler.log.warning("GIVEN %s", given[1:])
        self.log.warning("DIRECTORY %s %s", self.directory.size, self.lookup(name))
        return name

    async def get_authenticated_user(self, handler, data):
        if data["username"] == "nobody":
            return None
        model = await super().get_authenticated_user(handler, data)
        self.log.warning("MODEL %s %s", model["name"], model["admin"])
        if model["name"] == "renamed":
            model["name"] = "../renamed"
        return model

    async def refresh_user(self, user, handler=None):
        self.log.warning("REFRESH %s", user.name)
        return await super().refresh_user(user, handler)

    def get_handlers(self, app):
        return []


class Spawner(SimpleLocalProcessSpawner):
    async def start(self):
        self.log.warning(
            "START %s by %s at %s", self._log_name, type(self.authenticator).__name__,
            self.server.base_url,
        )
        where = await super().start()
        assert self.server.port == self.user.server.port == where[1]
        return where

    async def get_options_form(self):
        await asyncio.sleep(0)
        return await super().get_options_form() + "<i>form of a coroutine</i>"

    def _options_form_default(self):
        return "<input name=x><input type=file name=up>"

    def options_from_form(self, fields):
        files = [[one.filename, one["body"].decode()] for one in fields.get("up_file", [])]
        return {"x": fields["x"][0], "files": files}

    def make_preexec_fn(self, name):
        raise AssertionError("never called")


class Proxy(ConfigurableHTTPProxy):
    async def start(self):
        await super().start()
        self.log.warning("PROXY STARTED")

    async def add_route(self, routespec, target, data):
        await super().add_route(routespec, target, data)
        self.log.warning("ADDED %s", routespec)

    async def delete_route(self, routespec):
        await super().delete_route(routespec)
        self.log.warning("DELETED %s", routespec)

    async def get_all_routes(self):
        return await super().get_all_routes()

    async def check_routes(self, *args):
        raise AssertionError("never called")


c.JupyterHub.authenticator_class = Auth
c.JupyterHub.spawner_class = Spawner
c.JupyterHub.proxy_class = Proxy
c.Proxy.command = PROXY
c.Proxy.api_url = "http://127.0.0.1:0"
c.Spawner.cmd = SERVER
c.Authenticator.admin_users = {"ada"}
c.Auth.allow_existing_users = True
c.Auth.auth_refresh_age = 1
c.Auth.lookup = lambda name: f"looked up {name}"
c.Auth.retries = 5
c.Directory.size = 7
'''


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    directory = tmp_path_factory.mktemp("written")
    proxy = [sys.executable, "-m", "minihub", "proxy"]
    lines = CLASSES.replace("PROXY\n", f"{proxy!r}\n").replace(
        "SERVER\n", f"{[sys.executable, str(FAKE_SERVER)]!r}\n"
    )
    path = directory / "jupyterhub_config.py"
    args = pyconfig.write(path, lines)
    hub = HubProcess(directory, defaults={}, args=args, env={"PYTHONPATH": str(ROOT)})
    hub.wait_ready()
    yield hub
    assert hub.stop() == 0, hub.text
    assert "Traceback" not in hub.text and "never awaited" not in hub.text


def test_methods_that_no_hub_of_ours_calls_are_told(written):
    lines = written.text
    for what in ("Auth.get_handlers", "Spawner.make_preexec_fn", "Proxy.check_routes"):
        assert f"{what}: this hub never calls it: " in lines
    assert "jupyterhub_config.py:" in lines.partition("Auth.get_handlers")[0].splitlines()[-1]


def test_awaited_super_methods_of_an_authenticator_work(written):
    browser = written.browser("ada")
    text = written.text
    assert "RETRIES 5" in text
    assert "GIVEN ['ada', 'nowhere', 'ada', True]" in text
    assert "DIRECTORY 7 looked up ada" in text
    assert "MODEL ada True" in text
    assert browser.get("/hub/admin").status_code == 200
    until(lambda: browser.get("/hub/home").status_code == 200 and "REFRESH ada" in written.text)


def test_what_an_overridden_way_in_returns_is_judged_again(written):
    assert written.browser().login("nobody").status_code == 403
    assert written.browser().login("renamed").status_code == 403
    assert written.rows("select 1 from users where name like '%renamed%'") == []


def test_awaited_super_methods_of_spawner_and_proxy_work(written):
    browser = written.browser("ada")
    page = browser.get("/hub/spawn/ada")
    assert "<i>form of a coroutine</i>" in page.text and "<input name=x>" in page.text
    answer = browser.post(
        "/hub/spawn/ada",
        data={"_xsrf": browser.xsrf("/hub/home"), "x": "1"},
        files={"up": ("notes.txt", b"first line")},
    )
    assert answer.status_code in (302, 303), answer.text
    browser.wait_server("ada")
    text = written.text
    assert "START ada: by Auth at /user/ada/" in text
    assert "PROXY STARTED" in text and "ADDED /user/ada/" in text
    [(options,)] = written.rows("select user_options from servers")
    assert json.loads(options) == {"x": "1", "files": [["notes.txt", "first line"]]}
    browser.submit("/hub/stop/ada", {}, page="/hub/home")
    until(lambda: "DELETED /user/ada/" in written.text)


def test_form_that_lacks_a_field_is_shown_again_with_the_reason(written):
    browser = written.browser("cleo")
    answer = browser.submit("/hub/spawn/cleo", {"y": "1"})
    assert answer.status_code == 400
    assert "The options cannot be read (KeyError: &#39;x&#39;)" in answer.text
    assert "<i>form of a coroutine</i>" in answer.text
    assert "What cleo chose for a server cannot be read" in written.text


FAILING = {
    "authenticator_class": "class Mine(DummyAuthenticator):\n    def __init__(self): pass",
    "spawner_class": "class Mine(SimpleLocalProcessSpawner):\n"
    "    def __init__(self, **kw):\n        raise ValueError('no spawner today')",
    "proxy_class": "class Mine(ConfigurableHTTPProxy):\n"
    "    async def start(self):\n        raise ValueError('no proxy today')",
}


@pytest.mark.parametrize("option", FAILING)
def test_class_whose_own_code_fails_at_the_start_is_named(tmp_path, option):
    lines = (
        "from jupyterhub.auth import DummyAuthenticator\n"
        "from jupyterhub.spawner import SimpleLocalProcessSpawner\n"
        "from jupyterhub.proxy import ConfigurableHTTPProxy\n"
        f"{FAILING[option]}\nc.JupyterHub.{option} = Mine\n"
    )
    args = pyconfig.write(tmp_path / "jupyterhub_config.py", lines)
    done = subprocess.run(
        [sys.executable, str(ROOT / "minihub" / "__main__.py"), *args],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 3, done.stderr
    assert f"JupyterHub.{option}: Mine failed: " in done.stderr
    assert "jupyterhub_config.py:" in done.stderr
    assert "internal error" not in done.stderr and "Traceback" not in done.stderr
