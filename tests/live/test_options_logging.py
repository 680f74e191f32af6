"""The log: how much of what, in which form, where to, and what is never in it."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from typing import Any

import pyconfig
import pytest
import requests
from harness import DEFAULTS, ROOT, merge

INFO_LINE = "[minihub.web] 200 GET /hub/login"
DEBUG = re.compile(r"^\[minihub[.\w]*\] .*debug", re.MULTILINE)


def look(hub: Any) -> None:
    """Make the hub log a request."""
    assert requests.get(hub.url + "hub/login", timeout=5).status_code == 200


# -- level ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "level, seen", [("INFO", True), (20, True), ("warning", False), (30, False)]
)
def test_log_level_by_name_or_number_in_yaml(start_hub, level, seen):
    hub = start_hub({"JupyterHub": {"log_level": level}})
    look(hub)
    assert (INFO_LINE in hub.text) is seen


@pytest.mark.parametrize("level, seen", [("'INFO'", True), ("20", True), ("40", False)])
def test_log_level_in_a_python_file(start_hub, tmp_path, level, seen):
    lines = f"c.JupyterHub.log_level = {level}\n"
    hub = start_hub(args=pyconfig.write(tmp_path / "config.py", lines))
    look(hub)
    assert (INFO_LINE in hub.text) is seen


@pytest.mark.parametrize(
    "args, seen",
    [(("--log-level", "INFO"), True), (("--log-level=20",), True), (("--debug",), True),
     (("--log-level=ERROR",), False), (("--JupyterHub.log_level=INFO",), True)],
)  # fmt: skip
def test_log_level_of_the_command_line_wins(start_hub, args, seen):
    other = "ERROR" if seen else "INFO"
    hub = start_hub({"JupyterHub": {"log_level": other}}, args=args)
    look(hub)
    assert (INFO_LINE in hub.text) is seen


def test_log_level_of_the_class_above_counts(start_hub):
    defaults = merge(DEFAULTS, {})
    del defaults["JupyterHub"]["log_level"]
    hub = start_hub({"Application": {"log_level": "INFO"}}, defaults=defaults)
    look(hub)
    assert INFO_LINE in hub.text


def test_default_level_is_warning(start_hub):
    defaults = merge(DEFAULTS, {})
    del defaults["JupyterHub"]["log_level"]
    hub = start_hub(defaults=defaults)
    look(hub)
    assert INFO_LINE not in hub.text and "[minihub] WARNING | " in hub.text


# -- form ----------------------------------------------------------------------------------


def test_log_format_and_datefmt_shape_the_lines(start_hub):
    hub = start_hub(
        {
            "JupyterHub": {
                "log_format": "%(color)s[%(levelname)1.1s %(asctime)s.%(msecs).03d %(name)s]"
                "%(end_color)s %(message)s",
                "log_datefmt": "%d/%m/%Y",
            }
        }
    )
    look(hub)
    assert re.search(r"^\[I \d\d/\d\d/\d{4}\.\d{3} minihub.web\] 200 GET", hub.text, re.MULTILINE)
    assert "\x1b[" not in hub.text  # it is a file


def test_default_format_names_high_levels_alone(start_hub):
    hub = start_hub({"JupyterHub": {"confirm_no_ssl": True}})
    look(hub)
    assert re.search(r"^\[minihub\] WARNING \| .*deprecated", hub.text, re.MULTILINE)
    assert re.search(r"^\[minihub.web\] 200 GET /hub/login", hub.text, re.MULTILINE)


def test_colors_are_shown_on_a_terminal(tmp_path):
    config = merge(DEFAULTS, {"JupyterHub": {"log_format": "%(color)s%(name)s%(end_color)s"}})
    (tmp_path / "minihub.yaml").write_text(json.dumps(config))
    ours, theirs = pty.openpty()
    env = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "minihub" / "__main__.py")],
        cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs, env=env,
    )  # fmt: skip
    os.close(theirs)
    try:
        text = b""
        while b"\x1b[33mminihub\x1b[0m" not in text:
            text += os.read(ours, 1000)
    finally:
        process.terminate()
        process.wait(30)
        os.close(ours)


@pytest.mark.parametrize("wrong", ["%(nosuchfield)s", "%(message"])
def test_wrong_format_stops_the_start(start_hub, wrong):
    hub = start_hub({"JupyterHub": {"log_format": wrong}}, wait=False)
    assert hub.process.wait(20) == 3
    assert "JupyterHub.log_format" in hub.text and "Traceback" not in hub.text


# -- where to ------------------------------------------------------------------------------


def test_extra_log_file_gets_the_same_lines(start_hub):
    hub = start_hub({"JupyterHub": {"extra_log_file": "more.log"}})
    look(hub)
    hub.wait_text(re.escape(INFO_LINE))
    assert INFO_LINE in (hub.directory / "more.log").read_text()
    assert "Proxying" not in (hub.directory / "more.log").read_text()  # that is the proxy's


def test_extra_log_file_by_its_short_flag(start_hub):
    hub = start_hub(args=("--log-file", "more.log"))
    look(hub)
    assert INFO_LINE in (hub.directory / "more.log").read_text()


def test_extra_log_file_that_cannot_be_written_stops_the_start(start_hub):
    hub = start_hub({"JupyterHub": {"extra_log_file": "/no/such/place.log"}}, wait=False)
    assert hub.process.wait(20) == 3
    assert "JupyterHub.extra_log_file: cannot write /no/such/place.log" in hub.text


HANDLERS = """
import logging, threading
class Keeper(logging.Handler):
    def __init__(self, path):
        super().__init__()
        self.path = path
        self.more = threading.Lock()  # one thing more that nobody can copy
    def emit(self, record):
        with self.more, open(self.path, "a") as file:
            file.write(self.format(record) + "\\n")
plain, own = Keeper("plain.txt"), Keeper("own.txt")
own.setFormatter(logging.Formatter("own:%(message)s"))
quiet = logging.FileHandler("quiet.txt")
quiet.setLevel(logging.ERROR)
"""


@pytest.mark.parametrize(
    "line",
    [
        "c.JupyterHub.extra_log_handlers = [plain, own, quiet]\n",
        "for one in (plain, own, quiet):\n    c.JupyterHub.extra_log_handlers.append(one)\n",
    ],
)
def test_extra_log_handlers_take_any_handler(start_hub, tmp_path, line):
    hub = start_hub(args=pyconfig.write(tmp_path / "config.py", HANDLERS + line))
    look(hub)
    hub.wait_text(re.escape(INFO_LINE))
    assert INFO_LINE in (hub.directory / "plain.txt").read_text()
    assert "own:200 GET /hub/login" in (hub.directory / "own.txt").read_text()
    assert (hub.directory / "quiet.txt").read_text() == ""
    assert hub.stop() == 0 and "Traceback" not in hub.text


def test_extra_log_handler_that_fails_is_told_once_and_breaks_nothing(start_hub, tmp_path):
    lines = (
        "import logging\nclass Broken(logging.Handler):\n    def emit(self, record):\n"
        "        raise RuntimeError('no connection today')\n"
        "c.JupyterHub.log_level = 'INFO'\nc.JupyterHub.extra_log_handlers = [Broken()]\n"
    )
    hub = start_hub(args=pyconfig.write(tmp_path / "config.py", lines))
    look(hub)
    hub.wait_text(re.escape(INFO_LINE))
    complaint = "The log cannot be written to Broken: RuntimeError: no connection today"
    assert hub.text.count(complaint) == 1
    assert hub.stop() == 0 and "Traceback" not in hub.text


def test_extra_log_handler_that_is_none_is_refused(start_hub, tmp_path):
    lines = "c.JupyterHub.extra_log_handlers = ['a text']\n"
    hub = start_hub(args=pyconfig.write(tmp_path / "config.py", lines), wait=False)
    assert hub.process.wait(20) == 3
    assert "JupyterHub.extra_log_handlers" in hub.text and "Traceback" not in hub.text


# -- what is never in it -------------------------------------------------------------------


def test_no_secret_is_logged_whatever_happens(start_hub):
    secrets = {
        "cookie secret": "ab" * 32,
        "token of the configuration": "a-token-from-the-configuration",
        "token of a service": "a-token-from-a-service-entry",
        "proxy's token": "the-token-of-the-proxy-itself",
        "database password": "db-password",
        "password": "a-password-somebody-typed",
        "key": "cd" * 32,
    }
    hub = start_hub(
        {
            "JupyterHub": {
                "log_level": "DEBUG",
                "extra_log_file": "more.log",
                "cookie_secret": secrets["cookie secret"],
                "api_tokens": {secrets["token of the configuration"]: "root-admin"},
                "services": [{"name": "grader", "api_token": secrets["token of a service"]}],
            },
            "ConfigurableHTTPProxy": {"auth_token": secrets["proxy's token"]},
        },
        env={"JUPYTERHUB_CRYPT_KEY": secrets["key"]},
        args=(f"--JupyterHub.template_vars=note={secrets['database password']}",),
    )
    browser = hub.browser("ada", secrets["password"])
    hub.browser().login(secrets["password"], "x" * 2000)
    browser.start_server("ada")
    env = browser.follow("/user/ada/").json()["env"]
    secrets["server's token"] = env["JUPYTERHUB_API_TOKEN"]
    made = browser.submit("/hub/token", {"note": "x", "expires_in": "", "scopes": ""}).text
    secrets["made token"] = re.search(r'id="token-result"[^>]*value="([0-9a-f]{64})"', made)[1]
    for token in (secrets["made token"], "wrong-token-that-somebody-sent"):
        requests.get(
            f"{hub.url}hub/api/user?token={token}",
            headers={"Authorization": f"token {token}"},
            timeout=5,
        )
    secrets["sent token"] = "wrong-token-that-somebody-sent"
    for cookie in browser.cookies:
        if len(cookie.value) > 20:
            secrets[f"cookie {cookie.name}"] = cookie.value
    browser.get("/hub/logout")
    assert hub.stop() == 0
    logs = {path.name: path.read_text(errors="replace")
            for path in (hub.directory / "minihub-data" / "logs").iterdir()}  # fmt: skip
    logs["the terminal"] = hub.text
    logs["more.log"] = (hub.directory / "more.log").read_text()
    del secrets["password"]  # somebody typed it as a name, and names are logged
    found = [
        (what, name) for what, value in secrets.items() for name, text in logs.items()
        if value in text
    ]  # fmt: skip
    assert found == []


def test_request_lines_have_no_query_and_cannot_be_forged(start_hub):
    hub = start_hub()
    requests.get(hub.url + "hub/login?next=/hub/home&code=a-code-from-a-query", timeout=5)
    requests.get(hub.url + "hub/a%0a[minihub] CRITICAL | forged%1b[31m", timeout=5)
    hub.wait_text(r"404 GET /hub/a")
    assert "a-code-from-a-query" not in hub.text
    assert not re.search(r"^\[minihub\] CRITICAL", hub.text, re.MULTILINE)
    assert "\x1b[31m" not in hub.text


def test_traceback_is_for_files_and_debug_alone(start_hub, tmp_path):
    lines = "def hook(spawner):\n    raise RuntimeError('hook broke')\n"
    lines += "c.Spawner.pre_spawn_hook = hook\nc.JupyterHub.extra_log_file = 'more.log'\n"
    hub = start_hub(args=pyconfig.write(tmp_path / "config.py", lines))
    browser = hub.browser("ada")
    assert "hook broke" in browser.follow("/hub/spawn/ada").text
    hub.wait_text("hook broke")
    assert "Traceback" not in hub.text
    assert "Traceback" in (hub.directory / "more.log").read_text()
