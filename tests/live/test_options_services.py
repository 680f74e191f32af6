"""Options about services: started, told what they need, watched, routed to."""

import http.server
import os
import pwd
import re
import signal
import sqlite3
import sys
import threading
import time

import psutil
import pytest
import requests
from harness import FAKE_SERVER, HubProcess, free_port, gone, until

TOKEN = "s" * 32


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """A hub with a managed service that has every key, an external one, and one without a URL."""
    directory = tmp_path_factory.mktemp("services")
    (directory / "work").mkdir()
    os.chmod(directory, 0o755)
    managed = {
        "name": "board",
        "url": f"http://127.0.0.1:{free_port()}",
        "command": [sys.executable, str(FAKE_SERVER)],
        "cwd": str(directory / "work"),
        "environment": {"COLOUR": "green", "NUMBER": 7},
        "admin": True,
        "api_token": TOKEN,
        "oauth_client_id": "service-of-ours",
        "oauth_no_confirm": True,
        "oauth_client_allowed_scopes": ["read:servers!user"],
        "info": {"contact": "staff"},
        "display": True,
        "timeout": 20,
    }
    hidden = {"name": "hidden", "url": "http://127.0.0.1:9", "display": False, "timeout": 0}
    hidden |= {"api_token": "h" * 32}
    helper = {"name": "helper", "api_token": "e" * 32, "oauth_redirect_uri": "https://x.test/back"}
    config = {"services": [managed, hidden, helper]}
    hub = HubProcess(directory, {"JupyterHub": config}).wait_ready()
    until(lambda: requests.get(hub.url + "services/board/api", timeout=5).status_code == 200)
    yield hub
    pid = hub.api("services/board", TOKEN).json()["pid"]
    assert hub.stop() == 0, hub.text
    assert gone(pid)
    assert "Traceback" not in hub.text


def test_managed_service_is_started_with_its_environment_and_directory(board):
    admin = board.browser("root-admin")
    page = admin.follow("/services/board/some/page?x=1").json()
    assert page["path"] == "/services/board/some/page?x=1"  # the prefix stays
    assert page["visitor"]["name"] == "root-admin"
    assert page["cwd"] == str(board.directory / "work")
    env = page["env"]
    assert env["COLOUR"] == "green" and env["NUMBER"] == "7"
    assert env["JUPYTERHUB_SERVICE_NAME"] == "board"
    assert env["JUPYTERHUB_API_TOKEN"] == TOKEN
    assert env["JUPYTERHUB_CLIENT_ID"] == "service-of-ours"
    assert env["JUPYTERHUB_SERVICE_PREFIX"] == "/services/board/"
    assert env["JUPYTERHUB_SERVICE_URL"].startswith("http://127.0.0.1:")
    assert env["JUPYTERHUB_OAUTH_CALLBACK_URL"] == "/services/board/oauth_callback"
    assert env["JUPYTERHUB_OAUTH_CLIENT_ALLOWED_SCOPES"] == '["read:servers!user"]'
    assert "JPY_COOKIE_SECRET" not in env and "CONFIGPROXY_AUTH_TOKEN" not in env


def test_visitors_token_holds_the_allowed_scopes(board):
    visitor = board.browser("root-admin").follow("/services/board/").json()["visitor"]
    assert "read:servers!user=root-admin" in visitor["scopes"]
    assert "access:services!service=board" in visitor["scopes"]


def test_service_describes_itself_by_its_keys(board):
    model = board.api("services/board", TOKEN).json()
    assert model["admin"] is True and model["display"] is True
    assert model["info"] == {"contact": "staff"}
    assert model["command"] == [sys.executable, str(FAKE_SERVER)]
    assert psutil.Process(model["pid"]).cmdline()[-1] == str(FAKE_SERVER)
    assert board.api("users", TOKEN).status_code == 200  # an admin's right


def test_external_services_are_routed_and_known_by_their_tokens(board):
    assert board.routes()["/services/hidden"]["target"] == "http://127.0.0.1:9"
    model = board.api("user", "e" * 32).json()
    assert model["kind"] == "service" and model["name"] == "helper"
    assert board.api("users", "e" * 32).status_code == 403


def test_home_page_shows_services_that_are_to_be_displayed(board):
    page = board.browser("ada").get("/hub/home").text
    assert "/services/board/" in page and "/services/hidden/" not in page


def test_oauth_redirect_uri_of_a_service_without_url(board):
    admin = board.browser("root-admin")
    query = "client_id=service-helper&response_type=code&state=x"
    good = f"/hub/api/oauth2/authorize?{query}&redirect_uri=https%3A%2F%2Fx.test%2Fback"
    assert admin.get(good).status_code == 200  # asks for consent
    bad = f"/hub/api/oauth2/authorize?{query}&redirect_uri=https%3A%2F%2Fy.test%2Fback"
    assert admin.get(bad).status_code == 400


def test_killed_service_runs_again_within_seconds(board):
    before = board.api("services/board", TOKEN).json()["pid"]
    os.kill(before, signal.SIGKILL)
    until(lambda: board.api("services/board", TOKEN).json()["pid"] not in (0, before), 8)
    until(lambda: requests.get(board.url + "services/board/api", timeout=5).status_code == 200)
    assert "Service board has ended (exit code -9)" in board.text


def test_service_that_keeps_dying_is_started_less_and_less_often(start_hub):
    command = [sys.executable, "-c", "print('started')"]
    hub = start_hub({"JupyterHub": {"services": [{"name": "moody", "command": command}]}})
    began = time.monotonic()
    until(lambda: hub.text.count("Service moody has ended") >= 3, 20)
    assert time.monotonic() - began > 1.5  # pauses of 1 and 2 s, less what the start took
    log = (hub.state_dir / "logs" / "service-moody.log").read_text()
    assert log.count("started") >= 3


def test_service_whose_program_is_absent_is_named(start_hub):
    services = [{"name": "lost", "command": "no-such-program"}]
    hub = start_hub({"JupyterHub": {"services": services}})
    hub.wait_text("Service lost cannot be started: The program no-such-program was not found")


def test_managed_service_without_token_gets_one(start_hub):
    url = f"http://127.0.0.1:{free_port()}"
    service = {"name": "fresh", "url": url, "command": [sys.executable, str(FAKE_SERVER)]}
    hub = start_hub({"JupyterHub": {"services": [{**service, "oauth_no_confirm": True}]}})
    until(lambda: requests.get(hub.url + "services/fresh/api", timeout=5).status_code == 200)
    env = hub.browser("root-admin").follow("/services/fresh/").json()["env"]
    model = hub.api("user", env["JUPYTERHUB_API_TOKEN"]).json()
    assert model["name"] == "fresh" and model["kind"] == "service"


def test_service_asks_for_consent_unless_told_otherwise(start_hub):
    url = f"http://127.0.0.1:{free_port()}"
    service = {"name": "polite", "url": url, "command": [sys.executable, str(FAKE_SERVER)]}
    hub = start_hub({"JupyterHub": {"services": [service]}})
    until(lambda: requests.get(hub.url + "services/polite/api", timeout=5).status_code == 200)
    admin = hub.browser("root-admin")
    page = admin.follow("/services/polite/")
    assert page.status_code == 200 and "Service polite" in page.text
    assert hub.browser("ada").follow("/services/polite/").status_code == 403


@pytest.mark.root
def test_managed_service_runs_as_its_user(start_hub, tmp_path):
    account = pwd.getpwnam("nobody")
    command = ["/bin/sh", "-c", "id -un; echo $USER; echo ${JUPYTERHUB_USER:-none}; sleep 600"]
    services = [{"name": "lowly", "command": command, "user": "nobody", "cwd": "/"}]
    hub = start_hub({"JupyterHub": {"services": services}})
    log = hub.state_dir / "logs" / "service-lowly.log"
    until(lambda: log.exists() and log.read_text().count("\n") >= 3)
    assert log.read_text().split() == ["nobody", "nobody", "nobody"]
    assert account.pw_uid


def test_service_of_a_killed_hub_is_replaced(start_hub):
    url = f"http://127.0.0.1:{free_port()}"
    service = {"name": "board", "url": url, "command": [sys.executable, str(FAKE_SERVER)]}
    config = {"JupyterHub": {"services": [{**service, "api_token": TOKEN, "admin": True}]}}
    hub = start_hub(config)
    before = until(lambda: hub.api("services/board", TOKEN).json().get("pid"))
    until(lambda: requests.get(hub.url + "services/board/api", timeout=5).status_code == 200)
    hub.kill()
    assert not gone(before)
    hub = start_hub(config, directory=hub.directory)
    until(lambda: gone(before))
    until(lambda: requests.get(hub.url + "services/board/api", timeout=5).status_code == 200)
    assert "Service board of an earlier hub still runs" in hub.text
    second = hub.api("services/board", TOKEN).json()["pid"]
    hub.kill()
    hub = start_hub(directory=hub.directory)  # it is not in the configuration any more
    until(lambda: gone(second))


def test_service_taken_out_of_the_configuration_is_forgotten(start_hub):
    hub = start_hub({"JupyterHub": {"services": [{"name": "old", "api_token": TOKEN}]}})
    assert hub.api("user", TOKEN).status_code == 200
    hub.stop()
    hub = start_hub(directory=hub.directory)
    assert hub.api("user", TOKEN).status_code == 403
    assert hub.rows("select name from services") == []


# -- service_check_interval, timeout ---------------------------------------------------------------


def test_service_check_interval_names_a_dead_service(start_hub):
    port = free_port()
    service = {"name": "frail", "url": f"http://127.0.0.1:{port}", "api_token": TOKEN}
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", port), http.server.SimpleHTTPRequestHandler
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    config = {"JupyterHub": {"services": [service], "service_check_interval": 1}}
    hub = start_hub(config)
    hub.wait_text("Service frail answers at")
    assert "does not answer" not in hub.text
    server.shutdown()
    server.server_close()
    thread.join()
    hub.wait_text(f"Service frail at http://127.0.0.1:{port} does not answer", 8)
    assert hub.text.count("does not answer") <= 3


def test_service_check_interval_0_checks_nothing(start_hub):
    service = {"name": "frail", "url": f"http://127.0.0.1:{free_port()}", "timeout": 0}
    config = {"services": [service], "service_check_interval": 0}
    hub = start_hub({"JupyterHub": config})
    hub.wait_text("Service frail has not answered at")  # once, at the start
    assert "does not answer" not in hub.text


def test_timeout_is_how_long_a_start_may_take_before_it_is_told(start_hub):
    url = f"http://127.0.0.1:{free_port()}"
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    services = [{"name": "slow", "url": url, "command": sleeper, "timeout": 1}]
    hub = start_hub({"JupyterHub": {"services": services}})
    hub.wait_text(f"Service slow has not answered at {url} within 1 s")
    assert requests.get(hub.url + "hub/login", timeout=5).status_code == 200  # nobody waits for it


# -- what cannot be --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "service, told",
    [
        ({"url": "http://127.0.0.1:1"}, "a service needs a name"),
        ({"name": "a", "colour": "red"}, "there is no key 'colour'"),
        ({"name": ".."}, "name takes a text without slash"),
        ({"name": "a", "url": "http://127.0.0.1:99999"}, "url takes an http:// or https:// URL"),
        ({"name": "a", "url": "http://a b:80"}, "url takes an http:// or https:// URL"),
        ({"name": "a", "environment": {"A=B": "x"}}, "environment takes names, without ="),
        ({"name": "a", "url": "ftp://x"}, "url takes an http:// or https:// URL"),
        ({"name": "a", "api_token": "short"}, "api_token needs at least 8 characters"),
        ({"name": "a", "oauth_client_id": "a"}, "oauth_client_id must begin with service-"),
        (
            {"name": "a", "oauth_redirect_uri": "javascript:alert(1)"},
            "oauth_redirect_uri takes a path, or an http:// or https:// URL, without fragment",
        ),
        ({"name": "a", "user": "no-such-user"}, "this machine has no user no-such-user"),
        ({"name": "a", "admin": "yes"}, "admin takes true or false"),
        ({"name": "a", "url": "http://x", "oauth_roles": ["none"]}, "there is no role none"),
    ],
)
def test_service_that_cannot_be_is_refused(start_hub, service, told):
    hub = start_hub({"JupyterHub": {"services": [service]}}, wait=False)
    assert hub.process.wait(20) == 3
    assert told in hub.text
    assert re.search(r"^minihub.yaml:\d+:3  JupyterHub.services", hub.text, re.MULTILINE)
    assert "Traceback" not in hub.text


def test_oauth_roles_count_as_scopes_and_are_deprecated(start_hub):
    url = f"http://127.0.0.1:{free_port()}"
    service = {"name": "older", "url": url, "command": [sys.executable, str(FAKE_SERVER)]}
    service |= {"oauth_no_confirm": True, "oauth_roles": ["lister"]}
    role = {"name": "lister", "scopes": ["list:users"]}
    config = {"services": [service], "load_roles": [role]}
    hub = start_hub({"JupyterHub": config})
    until(lambda: requests.get(hub.url + "services/older/api", timeout=5).status_code == 200)
    visitor = hub.browser("root-admin").follow("/services/older/").json()["visitor"]
    assert "list:users" in visitor["scopes"]
    lines = [line for line in hub.text.splitlines() if "oauth_roles is" in line]
    assert len(lines) == 1, lines
    line = lines[0]
    assert "deprecated" in line and "oauth_client_allowed_scopes" in line


def test_row_of_a_service_that_cannot_be_read_does_not_stop_the_hub(start_hub):
    hub = start_hub()
    assert hub.stop() == 0
    with sqlite3.connect(hub.directory / "jupyterhub.sqlite") as db:
        db.execute(
            "INSERT INTO services (name, admin, url, info, display, from_config, spec, legacy)"
            " VALUES ('broken', 0, '', '{}', 1, 0, '{}', 0)"
        )
    db.close()
    again = start_hub(directory=hub.directory)
    again.wait_text("Service broken, made through the API, is left out")


def test_service_environment_takes_texts_and_numbers_alone(start_hub):
    wrong = {"name": "odd", "command": ["true"], "environment": {"SWITCH": True}}
    hub = start_hub({"JupyterHub": {"services": [wrong]}}, wait=False)
    assert hub.process.wait(60) == 3
    assert "entry odd: environment takes names, without =, and for each a text or a" in hub.text


def test_service_command_in_one_text_is_told_as_the_list_it_should_be(start_hub):
    hub = start_hub({"JupyterHub": {"services": [{"name": "nap", "command": "sleep 1000"}]}})
    hub.wait_text("Service nap cannot be started: .*sleep 1000")
    hub.wait_text(r'A command with arguments is a list of words: \["sleep", "1000"\]')
