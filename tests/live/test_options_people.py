"""Options about people: who is an admin, who is in which group, who decides about logins."""

import pytest
from harness import ABSENT, HubProcess, merge, python_config

BOSS = {"JupyterHub": {"api_tokens": {"boss-" + "x" * 32: "root-admin"}}}
BOSS_TOKEN = "boss-" + "x" * 32


# -- admins --------------------------------------------------------------------------------------


def test_admin_users_of_the_hub_count_while_the_authenticator_has_none(start_hub):
    old = {
        "JupyterHub": {"admin_users": ["ada"]},
        "Authenticator": {"admin_users": ABSENT},
    }
    hub = start_hub(old)
    assert hub.browser("ada").get("/hub/admin").status_code == 200
    (line,) = [line for line in hub.text.splitlines() if "JupyterHub.admin_users" in line]
    assert "deprecated" in line and "Authenticator.admin_users" in line


def test_admin_users_of_the_authenticator_go_before(start_hub):
    hub = start_hub({"JupyterHub": {"admin_users": ["ada"]}})  # besides root-admin
    assert hub.browser("ada").get("/hub/admin").status_code == 403
    assert hub.browser("root-admin").get("/hub/admin").status_code == 200


@pytest.fixture(scope="module", params=[False, True], ids=["off", "on"])
def access(tmp_path_factory, request):
    """A hub where admins may, or may not, use other people's servers."""
    config = merge(BOSS, {"JupyterHub": {"admin_access": request.param}})
    hub = HubProcess(tmp_path_factory.mktemp("access"), config).wait_ready()
    hub.is_on = request.param
    hub.browser("ada").start_server("ada")
    yield hub
    assert hub.stop() == 0, hub.text


def test_admin_access_decides_what_admins_may_enter(access):
    answer = access.api("users/ada/admin-access", BOSS_TOKEN, "POST")
    assert answer.status_code == (200 if access.is_on else 403)
    admin = access.browser("root-admin")
    # The server asks the hub by OAuth, and the hub asks the admin for consent.
    page = admin.follow("/user/ada/")
    assert page.status_code == (200 if access.is_on else 403)
    assert ("ada" in page.text and "oauth2/authorize" in page.url) is True


def test_admin_access_reaches_servers_only_when_on(access):
    env = access.server_process("ada").environ()
    assert env.get("JUPYTERHUB_ADMIN_ACCESS") == ("1" if access.is_on else None)


# -- groups --------------------------------------------------------------------------------------


def test_load_groups_adds_and_never_removes(start_hub):
    first = {
        "physics": ["ada", "ben"],
        "staff": {"users": ["ada"], "properties": {"room": "12", "memory": 3}},
        "empty": [],
    }
    hub = start_hub(merge(BOSS, {"JupyterHub": {"load_groups": first}}))
    assert hub.api("users/ben", BOSS_TOKEN).json()["groups"] == ["physics"]
    staff = hub.api("groups/staff", BOSS_TOKEN).json()
    assert staff["users"] == ["ada"] and staff["properties"] == {"room": "12", "memory": 3}
    assert hub.api("groups/empty", BOSS_TOKEN).json()["users"] == []
    assert hub.stop() == 0
    second = {"physics": ["carla"], "staff": {"properties": {"room": "13"}}}
    hub = start_hub(merge(BOSS, {"JupyterHub": {"load_groups": second}}), directory=hub.directory)
    assert sorted(hub.api("groups/physics", BOSS_TOKEN).json()["users"]) == ["ada", "ben", "carla"]
    staff = hub.api("groups/staff", BOSS_TOKEN).json()
    assert staff["users"] == ["ada"] and staff["properties"]["room"] == "13"
    assert hub.api("groups/empty", BOSS_TOKEN).status_code == 200


def test_load_groups_refuses_a_name_that_nobody_can_have(start_hub):
    hub = start_hub({"JupyterHub": {"load_groups": {"physics": ["a/b"]}}}, wait=False)
    assert hub.process.wait(20) == 3
    assert "load_groups" in hub.text and "a/b" in hub.text and "Traceback" not in hub.text


@pytest.mark.parametrize("role", [[], [{"name": "user", "scopes": ["self", "read:hub"]}]])
def test_extra_user_scopes_are_everybodys(start_hub, role):
    options = {"extra_user_scopes": ["list:users"], "load_roles": role}
    hub = start_hub({"JupyterHub": options | {"api_tokens": {"a" * 20: "ada"}}})
    assert [one["name"] for one in hub.api("users", "a" * 20).json()] == ["root-admin", "ada"]
    assert hub.api("info", "a" * 20).status_code == (200 if role else 403)
    assert hub.api("users/ada", "a" * 20).json()["name"] == "ada"  # what users have anyway


def test_extra_user_scope_that_is_none_is_refused(start_hub):
    hub = start_hub({"JupyterHub": {"extra_user_scopes": ["list:userz"]}}, wait=False)
    assert hub.process.wait(20) == 3
    assert "  JupyterHub.extra_user_scopes: " in hub.text and "list:userz" in hub.text


# -- classes -------------------------------------------------------------------------------------

FILE_WITH_CLASSES = '''
from jupyterhub.auth import Authenticator
from jupyterhub.spawner import SimpleLocalProcessSpawner
from jupyterhub.utils import url_path_join

class Riddle(Authenticator):
    """Lets in who knows the answer."""

    def authenticate(self, handler, data):
        return data["username"] if data["password"] == "42" else None

class Marked(SimpleLocalProcessSpawner):
    async def start(self):
        self.environment = {"MARK": url_path_join("/a", "b")}
        return await super().start()

    async def stop(self, now=False):
        print("stopping", self.user.name, flush=True)
        await super().stop(now)

    async def poll(self):
        return await super().poll()

c.JupyterHub.authenticator_class = Riddle
c.JupyterHub.spawner_class = Marked

def pre_spawn(spawner):
    from jupyterhub.utils import random_port      # when it runs, not when it is read
    spawner.environment["PORT_TOO"] = str(random_port())
c.Spawner.pre_spawn_hook = pre_spawn
'''


def test_classes_of_the_configuration_file_are_used(start_hub, tmp_path):
    hub = start_hub(**python_config(tmp_path / "own", FILE_WITH_CLASSES))
    assert hub.browser().login("ada", "wrong").status_code == 403
    browser = hub.browser("ada", "42")
    browser.start_server("ada")
    env = browser.follow("/user/ada/").json()["env"]
    assert env["MARK"] == "/a/b"
    browser.submit("/hub/stop/ada", {}, page="/hub/home")
    hub.wait_text("stopping ada")


OWN_SPAWNER = """
import subprocess
from jupyterhub.spawner import Spawner

class Bare(Spawner):
    '''A spawner of its own, written plainly.'''

    process = None

    def start(self):
        from jupyterhub.utils import random_port
        self.port = random_port()
        self.process = subprocess.Popen([*self.cmd, *self.get_args()], env=self.get_env())
        return f"http://127.0.0.1:{self.port}"

    def poll(self):
        return self.process.poll() if self.process else 0

    def stop(self, now=False):
        self.process.terminate()
        self.process.wait()

    def get_state(self):
        return {"pid": self.process.pid}

async def announce(spawner):
    print("about to start", spawner.user.name, flush=True)

def after(spawner):
    print("has stopped", spawner.user.name, flush=True)

c.JupyterHub.spawner_class = Bare
c.Spawner.pre_spawn_hook = announce
c.Spawner.post_stop_hook = after
"""


def test_spawner_class_may_be_all_ones_own(start_hub, tmp_path):
    changes = {"JupyterHub": {"spawner_class": ABSENT}}
    hub = start_hub(**python_config(tmp_path / "own", OWN_SPAWNER, changes))
    browser = hub.browser("ada")
    browser.start_server("ada")
    assert browser.follow("/user/ada/").json()["visitor"]["name"] == "ada"
    browser.submit("/hub/stop/ada", {}, page="/hub/home")
    hub.wait_text("about to start ada")
    hub.wait_text("has stopped ada")


FORMS = {
    "plain": "def authenticate(self, handler, data):\n        return answer(data)",
    "async": "async def authenticate(self, handler, data):\n        return answer(data)",
    "tornado": (
        "@gen.coroutine\n    def authenticate(self, handler, data):\n"
        "        yield gen.sleep(0.01)\n        raise gen.Return(answer(data))"
    ),
}


@pytest.mark.parametrize("form, real_tornado", [*((f, False) for f in FORMS), ("tornado", True)])
def test_authenticate_may_be_plain_or_a_coroutine(start_hub, tmp_path, form, real_tornado, request):
    env = {}
    if real_tornado:
        lab = request.getfixturevalue("lab_bin").parent
        (found,) = lab.glob("lib/python*/site-packages/tornado")
        (tmp_path / "packages").mkdir()
        (tmp_path / "packages" / "tornado").symlink_to(found)
        env = {"PYTHONPATH": str(tmp_path / "packages")}
    lines = f"""
from tornado import gen
from jupyterhub.auth import Authenticator
def answer(data):
    return data["username"] if data["password"] == "42" else None
class Own(Authenticator):
    {FORMS[form]}
c.JupyterHub.authenticator_class = Own
"""
    hub = start_hub(**python_config(tmp_path / "own", lines), env=env)
    assert hub.browser().login("ada", "41").status_code == 403
    assert hub.browser().login("ada", "42").status_code == 302
    assert "Traceback" not in hub.text


OLD_FILE = """
from tornado import gen, web
from tornado.log import app_log
from jupyterhub.auth import Authenticator

class Choosy(Authenticator):
    @gen.coroutine
    def authenticate(self, handler, data):
        if data["username"].startswith("x"):
            app_log.warning("somebody beginning with x")
            raise web.HTTPError(403, "Nobody beginning with %s is let in.", "x")
        raise gen.Return(data["username"])

def before(spawner):
    if spawner.user.name == "poor":
        error = RuntimeError("quota of poor: 0")
        error.jupyterhub_message = "Your quota is used up."
        raise error
    if spawner.user.name == "late":
        raise web.HTTPError(403, "Lessons are over.")

c.JupyterHub.authenticator_class = Choosy
c.Spawner.pre_spawn_hook = before
"""


@pytest.mark.parametrize("real_tornado", [False, True])
def test_refusals_of_a_files_own_code_are_shown_in_its_words(
    start_hub, tmp_path, real_tornado, request
):
    env = {}
    if real_tornado:
        lab = request.getfixturevalue("lab_bin").parent
        (found,) = lab.glob("lib/python*/site-packages/tornado")
        (tmp_path / "packages").mkdir()
        (tmp_path / "packages" / "tornado").symlink_to(found)
        env = {"PYTHONPATH": str(tmp_path / "packages")}
    hub = start_hub(**python_config(tmp_path / "own", OLD_FILE), env=env)
    refused = hub.browser().login("xaver")
    assert refused.status_code == 403 and "Nobody beginning with x is let in." in refused.text
    for name, told in (("poor", "Your quota is used up."), ("late", "Lessons are over.")):
        page = hub.browser(name).follow(f"/hub/spawn/{name}")
        assert told in page.text and "pre_spawn_hook" not in page.text
    hub.wait_text("somebody beginning with x")
    assert "Traceback" not in hub.text


def test_classes_by_dotted_and_short_names(start_hub, tmp_path):
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "ourclasses.py").write_text(
        "from jupyterhub.auth import Authenticator\n"
        "from jupyterhub.spawner import LocalProcessSpawner, SimpleLocalProcessSpawner\n"
        "class Dotted(Authenticator):\n"
        "    def authenticate(self, handler, data):\n"
        "        return 'dotted-' + data['username']\n"
    )
    names = {
        "authenticator_class": "ourclasses.Dotted",
        "spawner_class": "jupyterhub.spawner.SimpleLocalProcessSpawner",
    }
    hub = start_hub({"JupyterHub": names}, env={"PYTHONPATH": str(tmp_path / "packages")})
    browser = hub.browser("ada")
    browser.start_server("dotted-ada")
    info = hub.rows("select name from users where name like 'dotted%'")
    assert info == [("dotted-ada",)]


@pytest.mark.parametrize(
    "line, told",
    [
        ("c.JupyterHub.spawner_class = 'dockerspawner.DockerSpawner'", "class of dockerspawner"),
        ("c.JupyterHub.authenticator_class = 'github'", "class of oauthenticator"),
        ("from kubespawner import KubeSpawner", "kubespawner: a package for JupyterHub"),
        ("from jupyterhub.handlers import LoginHandler", "no stand-in for jupyterhub.handlers"),
    ],
)
def test_classes_of_other_packages_are_refused_by_name(start_hub, tmp_path, line, told):
    hub = start_hub(**python_config(tmp_path / "own", line + "\n"), wait=False)
    assert hub.process.wait(20) == 3
    assert told in hub.text and "jupyterhub_config.py:" in hub.text
    assert "Traceback" not in hub.text
