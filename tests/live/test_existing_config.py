"""A ``jupyterhub_config.py`` as people have them runs unchanged."""

import subprocess
import sys

import pytest
import requests
from harness import FAKE_SERVER, ROOT, serving, until

FILE = '''
# A course's hub, with what such files usually have in them.
import os
import sys

from jupyterhub.auth import DummyAuthenticator
from jupyterhub.spawner import SimpleLocalProcessSpawner
from traitlets import Unicode
from tornado import gen

c = get_config()  # noqa

here = os.path.dirname(os.path.abspath(__file__))


class CourseAuthenticator(DummyAuthenticator):
    """Names are matriculation numbers."""

    prefix = Unicode("s", config=True, help="What a number begins with.")

    @gen.coroutine
    def authenticate(self, handler, data):
        name = yield gen.maybe_future(super().authenticate(handler, data))
        if name and not name.startswith(self.prefix) and name not in ("teacher", "prof"):
            raise gen.Return(None)
        raise gen.Return(name)


class CourseSpawner(SimpleLocalProcessSpawner):
    """One directory per course."""

    course = Unicode("physics", config=True)

    def user_env(self, env):
        env = super().user_env(env)
        env["COURSE"] = self.course
        return env


def make_form(spawner):
    return '<select name="size"><option>small</option><option>large</option></select>'


def read_form(formdata):
    return {"size": formdata["size"][0]}


async def before(spawner):
    spawner.environment["SIZE"] = spawner.user_options.get("size", "none")
    spawner.environment["GROUPS"] = ",".join(group.name for group in spawner.user.groups)


def after(spawner):
    with open(os.path.join(here, "stopped.txt"), "a") as file:
        print(spawner.user.name, file=file)


def note_login(authenticator, handler, authentication):
    with open(os.path.join(here, "logins.txt"), "a") as file:
        print(authentication["name"], handler.request.remote_ip, file=file)
    return authentication


c.JupyterHub.ip = "127.0.0.1"
c.JupyterHub.port = 0
c.JupyterHub.hub_ip = "127.0.0.1"
c.JupyterHub.hub_port = 0
c.JupyterHub.base_url = "/course/"
c.JupyterHub.db_url = "sqlite:///course.sqlite"
c.JupyterHub.cookie_secret_file = os.path.join(here, "secret")
c.JupyterHub.pid_file = os.path.join(here, "hub.pid")
c.JupyterHub.log_level = "INFO"
c.JupyterHub.admin_access = True
c.JupyterHub.allow_named_servers = True
c.JupyterHub.active_server_limit = 20
c.JupyterHub.concurrent_spawn_limit = 5
c.JupyterHub.last_activity_interval = 60
c.JupyterHub.authenticator_class = CourseAuthenticator
c.JupyterHub.spawner_class = CourseSpawner
c.JupyterHub.load_groups = {"tutors": ["teacher"], "students": ["s1", "s2"]}
c.JupyterHub.template_vars = {"announcement": "Exam on Friday"}
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 3, "headers": {"X-Course": "physics"}}
c.JupyterHub.services = [
    {"name": "cull", "command": [sys.executable, "-c", "import time; time.sleep(600)"]},
    {"name": "grades", "api_token": "g" * 32, "admin": True},
]

c.Authenticator.admin_users = {"teacher"}
c.Authenticator.whitelist = {"s1", "s2", "s3"}
c.Authenticator.blocked_users = {"s3"}
c.Authenticator.username_map = {"prof": "teacher"}
c.Authenticator.post_auth_hook = note_login
c.DummyAuthenticator.password = "together"
c.CourseAuthenticator.prefix = "s"

c.Spawner.cmd = [sys.executable, SERVER]
c.Spawner.args = ["--quiet"]
c.Spawner.default_url = "/lab/tree/{username}"
c.Spawner.notebook_dir = "~/work"
c.Spawner.env_keep.append("COLOUR")
c.Spawner.environment = {
    "FIXED": "value",
    "WHO": lambda spawner: spawner.user.name.upper(),
}
c.Spawner.options_form = make_form
c.Spawner.options_from_form = read_form
c.Spawner.pre_spawn_hook = before
c.Spawner.post_stop_hook = after
c.Spawner.start_timeout = 50
c.Spawner.http_timeout = 25
c.Spawner.poll_interval = 10
c.CourseSpawner.course = "optics"
c.LocalProcessSpawner.interrupt_timeout = 1

c.ConfigurableHTTPProxy.auth_token = "p" * 32
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:0"
'''


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    directory = tmp_path_factory.mktemp("course")
    text = FILE.replace("SERVER]", f"{str(FAKE_SERVER)!r}]")
    (directory / "jupyterhub_config.py").write_text(text)
    with serving(directory, defaults={}, env={"COLOUR": "blue"}) as hub:
        yield hub


def test_file_is_taken_with_no_more_than_hints(course):
    warnings = [line for line in course.text.splitlines() if "jupyterhub_config.py:" in line]
    assert warnings == []
    assert "whitelist is the old spelling of Authenticator.allowed_users" in course.text
    assert course.url.endswith("/course/")
    assert int((course.directory / "hub.pid").read_text()) == course.process.pid
    assert (course.directory / "course.sqlite").exists() and (course.directory / "secret").exists()


def test_people_of_the_file_may_log_in(course):
    assert course.browser().login("s1", "wrong").status_code == 403
    assert course.browser().login("x1", "together").status_code == 403
    assert course.browser().login("s3", "together").status_code == 403
    assert course.browser().login("prof", "together").status_code == 302
    assert "teacher 127.0.0.1" in (course.directory / "logins.txt").read_text()
    page = course.browser("teacher", "together").get("/hub/admin")
    assert page.status_code == 200 and page.headers["X-Course"] == "physics"
    assert "Exam on Friday" in page.text


def test_server_is_started_as_the_file_says(course):
    browser = course.browser("s1", "together")
    form = browser.get("/hub/spawn/s1")
    assert '<select name="size">' in form.text
    assert browser.submit("/hub/spawn/s1", {"size": "large"}).status_code in (302, 303)
    browser.wait_server("s1")
    env = browser.follow("/user/s1/").json()["env"]
    assert env["SIZE"] == "large" and env["GROUPS"] == "students"
    assert env["COURSE"] == "optics" and env["WHO"] == "S1" and env["FIXED"] == "value"
    assert env["COLOUR"] == "blue"
    assert env["JUPYTERHUB_DEFAULT_URL"] == "/lab/tree/s1"
    assert env["JUPYTERHUB_ROOT_DIR"] == "~/work"
    assert env["JUPYTERHUB_ADMIN_ACCESS"] == "1"
    browser.submit("/hub/stop/s1", {}, page="/hub/home")
    until(lambda: "s1" in (course.directory / "stopped.txt").read_text())


def test_services_of_the_file_run_and_may_call(course):
    def pid(name):
        return course.api("services", "g" * 32).json()[name]["pid"]

    until(lambda: pid("cull") > 0)
    assert pid("grades") == 0
    assert requests.get(course.url + "hub/api/users", timeout=5).status_code == 403
    assert {"s1", "teacher"} <= {one["name"] for one in course.api("users", "g" * 32).json()}


def test_origin_of_every_value_can_be_shown(course):
    done = subprocess.run(
        [sys.executable, str(ROOT / "minihub" / "__main__.py"), "config", "show", "--origin"]
        + ["--port=8123"],
        cwd=course.directory,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    number = 1 + (course.directory / "jupyterhub_config.py").read_text().splitlines().index(
        'c.JupyterHub.base_url = "/course/"'
    )
    assert f"  base_url: /course/  # jupyterhub_config.py:{number}" in lines
    assert "  port: 8123  # --port" in lines
    assert "  statsd_port: 8125  # default" in lines
    assert any(line.startswith("  course: optics  # jupyterhub_config.py:") for line in lines)
    assert any(line.startswith("  auth_token: '***'  # jupyterhub_config.py:") for line in lines)
    assert "p" * 32 not in done.stdout and "g" * 32 not in done.stdout
    assert "together" not in done.stdout
