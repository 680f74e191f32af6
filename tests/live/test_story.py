"""A person's day in plain HTTP: log in, start a server, enter it, stop it, log out."""

import json
import re
import signal
import time

import psutil
import pytest
import requests
from websockets.sync.client import connect


def test_version_is_told_to_anybody(hub):
    response = requests.get(hub.url + "hub/api", timeout=5)
    assert response.json() == {"version": "6.1.1"}
    assert response.headers["X-JupyterHub-Version"] == "6.1.1"
    assert response.headers["Access-Control-Allow-Origin"] == "*"


def test_stranger_is_sent_to_the_login_page_and_back(hub):
    response = hub.browser().get("/")
    assert response.status_code == 302 and response.headers["Location"].rstrip("/") == "/hub"
    response = hub.browser().get("/hub/home")
    assert response.headers["Location"] == "/hub/login?next=%2Fhub%2Fhome"
    browser = hub.browser()
    response = browser.login("visitor", target="/hub/token")
    assert response.headers["Location"] == "/hub/token"


def test_whole_story(hub):
    browser = hub.browser("ada")
    assert "ada" in browser.get("/hub/home").text
    browser.start_server("ada")
    page = browser.follow("/user/ada/lab?x=1").json()
    assert page["visitor"]["name"] == "ada"
    assert page["path"] == "/user/ada/lab?x=1"
    assert "jupyterhub-hub-login" not in page["headers"].get("Cookie", "")
    browser.submit("/hub/stop/ada", {}, page="/hub/home")
    home = browser.get("/hub/home")
    assert 'id="start"' in home.text
    response = browser.get("/user/ada/lab")
    assert response.headers["Location"] == "/hub/user/ada/lab"
    gone = browser.get("/hub/user/ada/lab")
    assert gone.status_code == 424
    assert "/hub/spawn/ada?next=%2Fuser%2Fada%2Flab" in gone.text
    assert browser.get("/hub/logout").headers["Location"] == "/hub/login"
    assert browser.get("/hub/home").status_code == 302


def test_environment_of_a_server_is_the_contracts(hub):
    browser = hub.browser("env-user")
    browser.start_server("env-user")
    page = browser.follow("/user/env-user/").json()
    env = page["env"]
    assert env["JUPYTERHUB_USER"] == "env-user"
    assert env["JUPYTERHUB_SERVICE_PREFIX"] == "/user/env-user/"
    assert env["JUPYTERHUB_CLIENT_ID"] == "jupyterhub-user-env-user"
    assert env["JUPYTERHUB_OAUTH_CALLBACK_URL"] == "/user/env-user/oauth_callback"
    assert env["JUPYTERHUB_BASE_URL"] == "/"
    assert env["JUPYTERHUB_API_URL"].endswith("/hub/api")
    assert json.loads(env["JUPYTERHUB_OAUTH_ACCESS_SCOPES"]) == [
        "access:servers!server=env-user/",
        "access:servers!user=env-user",
    ]
    assert env["JUPYTERHUB_API_TOKEN"] == env["JPY_API_TOKEN"]
    for secret in ("CONFIGPROXY_AUTH_TOKEN", "JPY_COOKIE_SECRET", "JUPYTERHUB_ADMIN_ACCESS"):
        assert secret not in env
    assert page["cwd"].endswith("/homes/env-user")


def test_other_people_cannot_enter(hub):
    ada, eve = hub.browser("owner"), hub.browser("eve")
    ada.start_server("owner")
    assert ada.follow("/user/owner/").status_code == 200
    refused = eve.follow("/user/owner/")
    assert refused.status_code == 403 and "<html" in refused.text
    assert eve.get("/hub/user/owner/").status_code == 404
    assert eve.get("/hub/spawn/owner").status_code == 404
    assert eve.get("/hub/spawn-pending/owner").status_code == 404
    assert eve.submit("/hub/stop/owner", {}, page="/hub/home").status_code == 404
    assert ada.follow("/user/owner/").status_code == 200


def test_admin_cannot_enter_either_unless_admin_access_is_on(hub):
    ada, admin = hub.browser("private"), hub.browser("root-admin")
    ada.start_server("private")
    assert admin.follow("/user/private/").status_code == 403


def test_websocket_reaches_the_server(hub):
    browser = hub.browser("socket")
    browser.start_server("socket")
    browser.follow("/user/socket/")
    cookie = "; ".join(f"{c.name}={c.value}" for c in browser.cookies)
    url = hub.url.replace("http", "ws") + "user/socket/ws"
    with connect(url, additional_headers={"Cookie": cookie}) as socket:
        for text in ("hello", "x" * 5000):
            socket.send(text)
            assert socket.recv(timeout=10) == text


def test_logout_revokes_what_came_out_of_the_login(hub):
    browser = hub.browser("leaver")
    browser.start_server("leaver")
    browser.follow("/user/leaver/")
    token = next(
        c.value for c in browser.cookies if c.name.startswith("fake-") and "state" not in c.name
    )
    bearer = {"Authorization": f"token {token}"}
    assert requests.get(hub.url + "hub/api/user", headers=bearer, timeout=5).status_code == 200
    old = {c.name: c.value for c in browser.cookies}
    browser.get("/hub/logout")
    assert requests.get(hub.url + "hub/api/user", headers=bearer, timeout=5).status_code == 403
    thief = hub.browser()
    stolen = thief.get("/hub/home", cookies={"jupyterhub-hub-login": old["jupyterhub-hub-login"]})
    assert stolen.status_code == 302


def test_identity_of_an_oauth_token_is_as_servers_read_it(hub):
    browser = hub.browser("who")
    browser.start_server("who")
    visitor = browser.follow("/user/who/").json()["visitor"]
    assert visitor["kind"] == "user" and visitor["name"] == "who" and visitor["groups"] == []
    assert set(visitor["scopes"]) == {
        "access:servers!server=who/",
        "read:users:groups!user=who",
        "read:users:name!user=who",
    }
    assert visitor["token_id"].startswith("a") and len(visitor["session_id"]) == 32
    assert "servers" not in visitor and "last_activity" not in visitor


def test_stop_leaves_no_process(hub):
    browser = hub.browser("tidy")
    browser.start_server("tidy")
    pid = browser.follow("/user/tidy/").json()["pid"]
    assert psutil.pid_exists(pid)
    browser.submit("/hub/stop/tidy", {}, page="/hub/home")
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_server_that_died_is_noticed_and_can_be_started_again(hub):
    browser = hub.browser("phoenix")
    browser.start_server("phoenix")
    pid = browser.follow("/user/phoenix/").json()["pid"]
    psutil.Process(pid).kill()
    deadline = time.monotonic() + 10
    while 'id="start"' not in browser.get("/hub/home").text or psutil.pid_exists(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    browser.start_server("phoenix")
    assert browser.follow("/user/phoenix/").json()["pid"] != pid


def test_failed_start_shows_the_reason_and_the_last_lines(start_hub):
    hub = start_hub({"Spawner": {"environment": {"FAKE_MODE": "exit"}}})
    browser = hub.browser("unlucky")
    response = browser.follow("/hub/spawn/unlucky")
    assert response.status_code == 500
    assert "exit code 3" in response.text
    assert "No module named" in response.text
    assert 'href="/hub/spawn/unlucky"' in response.text


def test_start_can_be_cancelled(start_hub):
    hub = start_hub({"Spawner": {"environment": {"FAKE_MODE": "mute"}}})
    browser = hub.browser("waiter")
    page = browser.follow("/hub/spawn/waiter")
    assert page.status_code == 200 and "progress" in page.text
    browser.submit("/hub/stop/waiter", {}, page="/hub/spawn-pending/waiter")
    deadline = time.monotonic() + 10
    while 'id="start"' not in browser.get("/hub/home").text:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_progress_is_streamed_to_its_end(hub):
    browser = hub.browser("watcher")
    browser.get("/hub/spawn/watcher")
    response = browser.get("/hub/api/users/watcher/server/progress", stream=True)
    assert response.headers["Content-Type"].startswith("text/event-stream")
    events = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith(b"data: ")]
    assert events[-1]["ready"] and events[-1]["url"] == "/user/watcher/"
    progress = [event["progress"] for event in events]
    assert progress == sorted(progress) and progress[-1] == 100


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_stops_everything_and_leaves_nothing(start_hub, number):
    hub = start_hub({"JupyterHub": {"pid_file": "hub.pid"}})
    assert int((hub.directory / "hub.pid").read_text()) == hub.process.pid
    browser = hub.browser("last")
    browser.start_server("last")
    browser.follow("/user/last/")
    family = psutil.Process(hub.process.pid).children(recursive=True)
    server = browser.follow("/user/last/").json()["pid"]
    assert hub.stop(number) == 0
    gone, alive = psutil.wait_procs([*family], timeout=5)
    assert alive == [] and not psutil.pid_exists(server)
    assert not (hub.directory / "hub.pid").exists()
    with pytest.raises(requests.ConnectionError):
        requests.get(hub.url, timeout=2)
    assert "Traceback" not in hub.text


def test_second_hub_in_the_same_place_says_who_runs(start_hub):
    hub = start_hub()
    second = start_hub(directory=hub.directory, wait=False)
    assert second.process.wait(20) == 4
    lines = second.text.splitlines()[-1]
    assert str(hub.process.pid) in lines and hub.url in lines
    assert "Traceback" not in second.text


def test_port_in_use_names_its_holder(start_hub):
    hub = start_hub()
    port = int(hub.url.rstrip("/").rpartition(":")[2])
    second = start_hub({"JupyterHub": {"port": port}}, wait=False)
    assert second.process.wait(20) == 4
    assert f"port {port}" in second.text and "Traceback" not in second.text
    assert "process " in second.text


def test_base_url_moves_everything(start_hub):
    hub = start_hub({"JupyterHub": {"base_url": "/class/"}})
    assert hub.url.endswith("/class/")
    browser = hub.browser("ada")
    browser.start_server("ada")
    assert browser.follow("/user/ada/").json()["path"] == "/class/user/ada/"


def test_token_page_makes_shows_once_and_revokes(hub):
    browser = hub.browser("tokens")
    fields = {"note": "my script", "expires_in": "3600", "scopes": ""}
    made = browser.submit("/hub/token", fields)
    secret = re.search(r'id="token-result"[^>]*value="([0-9a-f]{64})"', made.text)[1]
    bearer = {"Authorization": f"token {secret}"}
    model = requests.get(hub.url + "hub/api/user", headers=bearer, timeout=5).json()
    assert model["name"] == "tokens"
    page = browser.get("/hub/token").text
    assert "my script" in page and secret not in page
    revoke = re.search(r'action="/hub(/token/a\d+/revoke)"', page)[1]
    assert browser.submit("/hub" + revoke, {}, page="/hub/token").status_code == 303
    assert requests.get(hub.url + "hub/api/user", headers=bearer, timeout=5).status_code == 403


def test_token_page_refuses_scopes_one_does_not_hold(hub):
    browser = hub.browser("greedy")
    fields = {"note": "x", "expires_in": "", "scopes": "admin:users"}
    response = browser.submit("/hub/token", fields)
    assert response.status_code == 400 and "admin:users" in response.text


def test_admin_page_is_for_admins(hub):
    hub.browser("student-x")
    assert hub.browser("student-y").get("/hub/admin").status_code == 403
    admin = hub.browser("root-admin")
    page = admin.get("/hub/admin?q=STUDENT-x")
    assert page.status_code == 200 and "student-x" in page.text and "student-y" not in page.text


@pytest.mark.parametrize(
    "field",
    [{"Cookie": b"other=\xe9; jupyterhub-hub-login=\xff"}, {"Authorization": b"token \xff"},
     {"Accept": b"\xfe"}, {"User-Agent": b"\xe9"}, {"X-Forwarded-For": b"\xe9"}],
    ids=lambda field: next(iter(field)),
)  # fmt: skip
def test_header_that_is_not_utf_8_is_no_error_of_the_hub(hub, field):
    browser = hub.browser()
    assert browser.get("/hub/login", headers=field).status_code == 200
    assert browser.get("/hub/home", headers=field).status_code == 302
    assert browser.get("/hub/api/user", headers=field).status_code == 403
    assert browser.get("/user/nobody/lab", headers=field).status_code == 302


def test_login_survives_another_programs_cookie_on_the_host(hub):
    browser = hub.browser("neighbour")
    sent = "; ".join(f"{cookie.name}={cookie.value}" for cookie in browser.cookies)
    field = {"Cookie": b"word=caf\xe9; " + sent.encode()}
    assert "neighbour" in requests.get(hub.url + "hub/home", headers=field, timeout=5).text


def test_form_that_is_not_utf_8_is_the_senders_fault(hub):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    browser = hub.browser()
    page = browser.post("/hub/login", data=b"username=%ff&password=x", headers=form)
    assert page.status_code == 400 and "not UTF-8" in page.text


def test_name_that_nobody_can_have_is_told_apart_from_one_on_no_list(hub):
    page = hub.browser().login("a/b")
    assert page.status_code == 403 and "contains a slash" in page.text
    assert "listed people" not in page.text


def test_form_without_its_secret_is_refused(hub):
    browser = hub.browser("forger")
    for path in ("/hub/stop/forger", "/hub/token", "/hub/new-server", "/hub/spawn/forger"):
        assert browser.post(path, data={}).status_code == 403
        assert browser.post(path, data={"_xsrf": "guess"}).status_code == 403
    stranger = hub.browser()
    response = stranger.post("/hub/login", data={"username": "x", "password": "y"})
    assert response.status_code == 403 and "login_submit" in response.text


def test_named_server_runs_beside_the_default_one(start_hub):
    hub = start_hub({"JupyterHub": {"allow_named_servers": True}})
    browser = hub.browser("ada")
    browser.start_server("ada")
    response = browser.submit("/hub/new-server", {"server_name": "second"}, page="/hub/home")
    assert response.headers["Location"] == "/hub/spawn/ada/second"
    browser.start_server("ada/second")
    first, second = browser.follow("/user/ada/").json(), browser.follow("/user/ada/second/").json()
    assert first["pid"] != second["pid"]
    assert second["env"]["JUPYTERHUB_CLIENT_ID"] == "jupyterhub-user-ada!second"
    assert "second" in browser.get("/hub/home").text
    bad = browser.submit("/hub/new-server", {"server_name": "../x"}, page="/hub/home")
    assert bad.status_code == 400


def test_login_leads_to_ones_own_server(hub):
    browser = hub.browser()
    assert browser.login("direct").headers["Location"] == "/hub/spawn"
    assert browser.get("/hub/").headers["Location"] == "/hub/spawn"
    browser.follow("/hub/spawn")
    browser.wait_server("direct")
    assert browser.get("/hub/").headers["Location"] == "/user/direct/"


def test_link_on_another_site_starts_nothing(hub):
    browser = hub.browser("lured")
    page = browser.get("/hub/spawn/lured", headers={"Sec-Fetch-Site": "cross-site"})
    assert page.status_code == 200 and 'href="/hub/spawn/lured"' in page.text
    assert 'id="start"' in browser.get("/hub/home").text


OPEN_REDIRECTS = [
    "//evil.example/",
    "///evil.example/",
    "/\\evil.example",
    "http://evil.example/",
    "https:evil.example",
    "/%09/evil.example",
    "javascript:alert(1)",
]


@pytest.mark.parametrize("target", OPEN_REDIRECTS)
def test_next_never_leaves_this_origin(hub, target):
    browser = hub.browser()
    quoted = requests.utils.quote(target, safe="")
    place = browser.login("redirected", target=quoted).headers["Location"]
    assert place.startswith("/") and not place.startswith(("//", "/\\")), place
    place = browser.get(f"/hub/login?next={quoted}").headers["Location"]
    assert place.startswith("/") and not place.startswith(("//", "/\\")), place


@pytest.mark.parametrize(
    "path", ["//evil.example/", "//evil.example/..", "/%2fevil.example/", "/user//x"]
)
def test_path_never_becomes_another_origin(hub, path):
    response = requests.get(hub.url.rstrip("/") + path, allow_redirects=False, timeout=5)
    place = response.headers.get("Location", "/")
    assert place.startswith("/") and not place.startswith(("//", "/\\")), place
