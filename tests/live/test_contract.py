"""What clients and browsers of JupyterHub 6 rely on, path by path, asked of the built file.

The answers were those of JupyterHub 6.1.1 itself to the same requests.
"""

from __future__ import annotations

import json
import re
import sys
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import requests
from harness import FAKE_SERVER, HubProcess, free_port, until

SECRET = "secret-of-the-boss"
BOSS = {"name": "boss", "api_token": SECRET, "admin": True}


@pytest.fixture(scope="module")
def hub(tmp_path_factory, pyz):
    """A hub of the built file, with a service that it runs and one that it does not."""
    services = [
        BOSS,
        {
            "name": "board",
            "url": f"http://127.0.0.1:{free_port()}/ignored/",
            "command": [sys.executable, str(FAKE_SERVER)],
            "environment": {"COLOUR": "blue"},
            "oauth_no_confirm": True,
        },
        {"name": "tokenless"},
    ]
    config = {
        "JupyterHub": {"services": services, "allow_named_servers": True},
        "Spawner": {"mem_limit": "1G", "cpu_limit": 0.5, "environment": {"COLOUR": "red"}},
    }
    hub = HubProcess(tmp_path_factory.mktemp("hub"), config, command=[sys.executable, str(pyz)])
    yield hub.wait_ready()
    assert hub.stop() == 0 and "Traceback" not in hub.text, hub.text


def login_then(path: str) -> str:
    return "/hub/login?" + urlencode({"next": path})


# -- pages ---------------------------------------------------------------------------------------

#: To anybody: path, status, where it leads.
ANYBODY = [
    ("/", 302, "/hub/"),
    ("/x?y=1", 302, "/hub/x?y=1"),
    ("/hub", 301, "/hub/"),
    ("/hub/", 302, login_then("/hub/")),
    ("/hub/login", 200, ""),
    ("/hub/home", 302, login_then("/hub/home")),
    ("/hub/home/", 404, ""),
    ("/hub/spawn", 302, login_then("/hub/spawn")),
    ("/hub/spawn-pending/ada", 302, login_then("/hub/spawn-pending/ada")),
    ("/hub/admin", 302, login_then("/hub/admin")),
    ("/hub/token", 302, login_then("/hub/token")),
    ("/hub/accept-share?code=x", 302, login_then("/hub/accept-share?code=x")),
    ("/hub/error/404", 200, ""),
    ("/hub/error/503", 200, ""),
    ("/hub/health", 200, ""),
    ("/hub/api/health", 200, ""),
    ("/hub/logo", 200, ""),
    ("/hub/metrics", 403, ""),
    ("/hub/nothing", 404, ""),
    ("/hub/static/nothing.css", 404, ""),
    ("/user/ada", 301, "/user/ada/"),
    ("/user/ada/lab?x=1", 302, "/hub/user/ada/lab?x=1"),
    ("/services/nothing", 301, "/services/nothing/"),
    ("/user-redirect/lab?x=1", 302, "/hub/user-redirect/lab?x=1"),
    ("/hub/user-redirect/lab?x=1", 302, login_then("/hub/user-redirect/lab?x=1")),
    ("/hub/user/ada", 302, login_then("/hub/user/ada")),
    ("/hub/user/ada/", 302, login_then("/hub/user/ada/")),
    ("/hub/user/ada/lab", 302, login_then("/hub/user/ada/lab")),
    ("/hub/user/ada/api", 302, login_then("/hub/user/ada/api")),
    ("/hub/user/ada/api/kernels", 302, login_then("/hub/user/ada/api/kernels")),
    ("/favicon.ico", 302, "/hub/favicon.ico"),
    ("/hub/favicon.ico", 200, ""),
    ("/hub/api/nothing", 404, ""),
    ("/hub/api/users/", 404, ""),
    ("/hub/logout", 302, "/hub/login"),
]


@pytest.mark.parametrize(("path", "status", "place"), ANYBODY)
@pytest.mark.parametrize("accept", ["*/*", "text/html", "application/json"])
def test_path_leads_anybody_where_it_should(hub, path, status, place, accept):
    """Whatever they prefer as an answer: of others' servers strangers are told nothing."""
    answer = hub.browser().get(path, headers={"Accept": accept})
    assert (answer.status_code, answer.headers.get("Location", "")) == (status, place)
    assert "X-JupyterHub-Version" in answer.headers
    if path.startswith("/hub/api/") and status >= 400:
        assert answer.json().keys() == {"status", "message"}


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_pages_of_other_sites_read_the_version_and_nothing_else(hub, method):
    browser = hub.browser()
    for path in ("/hub/api", "/hub/api/", "/hub/api/users", "/hub/api/user", "/hub/login"):
        answer = browser.request(method, path, headers={"Origin": "http://elsewhere.example"})
        allowed = answer.headers.get("Access-Control-Allow-Origin")
        assert allowed == ("*" if path.rstrip("/") == "/hub/api" else None), path
        assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "path", ["/hub/user/ada", "/hub/user/ada/lab", "/hub/user/ada/api/kernels"]
)
def test_change_of_a_server_that_is_none_needs_the_pages_secret_first(hub, method, path):
    for browser in (hub.browser(), hub.browser("ada")):
        assert browser.request(method, path).status_code == 403
    browser = hub.browser("ada")
    secret = {"X-XSRFToken": browser.xsrf("/hub/home")}
    answer = browser.request(method, path, headers=secret)
    assert answer.status_code == 424 and "no longer running" in answer.json()["message"]


#: To somebody whose server is stopped, and whose may not enter others'.
SOMEBODY = [
    ("/hub/", 302, "/hub/spawn"),
    ("/hub/?next=/user/ann/x%3Fa=b", 302, "/user/ann/x?a=b"),
    ("/hub/?next=//evil.example/x", 302, "/hub/spawn"),
    ("/hub/?next=https://evil.example/", 302, "/hub/spawn"),
    ("/hub/login", 302, "/hub/spawn"),
    ("/hub/login?next=/hub/token", 302, "/hub/token"),
    ("/hub/home", 200, ""),
    ("/hub/token", 200, ""),
    ("/hub/admin", 403, ""),
    ("/hub/user/ann", 424, ""),
    ("/hub/user/ann/lab", 424, ""),
    ("/hub/user/ann/api/kernels", 424, ""),
    ("/hub/user/bob/lab", 404, ""),
    ("/hub/user/nobody/lab", 404, ""),
    ("/hub/spawn-pending/ann", 200, ""),
    ("/hub/spawn/bob", 404, ""),
    ("/hub/spawn/nobody", 404, ""),
    ("/hub/user-redirect/lab?x=1", 302, "/hub/spawn/ann?next=%2Fuser%2Fann%2Flab%3Fx%3D1"),
]


@pytest.mark.parametrize(("path", "status", "place"), SOMEBODY)
def test_path_leads_somebody_where_it_should(hub, path, status, place):
    hub.api("users/bob", SECRET, "POST")
    answer = hub.browser("ann").get(path)
    assert (answer.status_code, answer.headers.get("Location", "")) == (status, place)
    if "/api/" in path and status == 424:
        assert "no longer running at /user/ann/" in answer.json()["message"]


def test_path_leads_to_a_server_that_runs(hub):
    browser = hub.browser("ben")
    browser.start_server("ben")
    for path, place in (
        ("/hub/", "/user/ben/"),
        ("/hub/login", "/user/ben/"),
        ("/hub/spawn", "/user/ben/"),
        ("/hub/spawn/ben", "/user/ben/"),
        ("/hub/spawn-pending/ben", "/user/ben/"),
        ("/hub/user/ben/lab", "/user/ben/lab?redirects=1"),
        ("/hub/user/ben/lab?redirects=1", "/user/ben/lab?redirects=2"),
        ("/hub/user-redirect/lab", "/user/ben/lab"),
    ):
        answer = browser.get(path)
        assert (answer.status_code, answer.headers.get("Location")) == (302, place), path


# -- what a server and a service find ------------------------------------------------------------


def test_server_finds_what_jupyterhub_singleuser_reads(hub):
    browser = hub.browser("cleo")
    browser.get("/hub/spawn/cleo/lab-1")
    until(lambda: browser.get("/hub/spawn-pending/cleo/lab-1").status_code == 302)
    page = browser.follow("/user/cleo/lab-1/").json()
    env = page["env"]
    api, token = env["JUPYTERHUB_API_URL"], env["JUPYTERHUB_API_TOKEN"]
    access = ["access:servers!server=cleo/lab-1", "access:servers!user=cleo"]
    expected = {
        "JPY_API_TOKEN": token,
        "JUPYTERHUB_CLIENT_ID": "jupyterhub-user-cleo-lab-1",
        "JUPYTERHUB_OAUTH_CALLBACK_URL": "/user/cleo/lab-1/oauth_callback",
        "JUPYTERHUB_HOST": "",
        "JUPYTERHUB_BASE_URL": "/",
        "JUPYTERHUB_SERVICE_PREFIX": "/user/cleo/lab-1/",
        "JUPYTERHUB_USER": "cleo",
        "JUPYTERHUB_SERVER_NAME": "lab-1",
        "JUPYTERHUB_ACTIVITY_URL": f"{api}/users/cleo/activity",
        "JUPYTERHUB_OAUTH_ACCESS_SCOPES": access,
        "JUPYTERHUB_OAUTH_SCOPES": access,
        "JUPYTERHUB_OAUTH_CLIENT_ALLOWED_SCOPES": [],
        "JUPYTERHUB_COOKIE_HOST_PREFIX_ENABLED": "0",
        "JUPYTERHUB_PUBLIC_URL": "",
        "JUPYTERHUB_PUBLIC_HUB_URL": "",
        "MEM_LIMIT": str(1024**3),
        "CPU_LIMIT": "0.5",
        "COLOUR": "red",
    }
    found = {name: env.get(name) for name in expected}
    for name, value in expected.items():
        if isinstance(value, list):
            found[name] = json.loads(found[name])
    client = found.pop("JUPYTERHUB_CLIENT_ID")
    expected.pop("JUPYTERHUB_CLIENT_ID")
    assert found == expected
    # The client's name becomes a cookie's.
    assert re.fullmatch(r"jupyterhub-user-[\w%.!~'*-]+", client)
    assert api.startswith("http://127.0.0.1:") and api.endswith("/hub/api")
    place = urlsplit(env["JUPYTERHUB_SERVICE_URL"])
    assert place.path == "/user/cleo/lab-1/" and place.port
    for absent in ("JUPYTERHUB_ADMIN_ACCESS", "JUPYTERHUB_GROUP", "MEM_GUARANTEE"):
        assert absent not in env
    assert {"USER", "HOME", "SHELL", "PATH"} <= set(env)
    # Its first request, without proof, tells the version; activity is taken with its token.
    answer = requests.get(api, timeout=10)
    assert answer.json() == {"version": answer.headers["X-JupyterHub-Version"]}
    assert re.fullmatch(r"6\.\d+\.\d+", answer.json()["version"])
    now = "2026-01-02T03:04:05.678901Z"
    report = {"servers": {"lab-1": {"last_activity": now}}, "last_activity": now}
    headers = {"Authorization": f"token {token}"}
    answer = requests.post(env["JUPYTERHUB_ACTIVITY_URL"], json=report, headers=headers, timeout=10)
    assert (answer.status_code, answer.content) == (200, b"")


def test_service_finds_what_hubauth_reads(hub):
    url = hub.url + "services/board/"
    until(lambda: requests.get(url, allow_redirects=False, timeout=5).status_code == 302, 60)
    route = hub.routes()["/services/board"]
    assert route["service"] == "board" and urlsplit(route["target"]).path in ("", "/")
    role = {"scopes": ["access:services", "read:users!user"]}
    made = hub.api("users/root-admin/tokens", SECRET, "POST", json=role).json()
    bearer = {"Authorization": f"token {made['token']}"}
    page = requests.get(url + "deep/x?y=1", headers=bearer, timeout=10).json()
    assert page["path"] == "/services/board/deep/x?y=1"  # the prefix stays on
    env = page["env"]
    access = ["access:services", "access:services!service=board"]
    assert json.loads(env["JUPYTERHUB_OAUTH_ACCESS_SCOPES"]) == access
    assert json.loads(env["JUPYTERHUB_OAUTH_SCOPES"]) == access
    expected = {
        "JUPYTERHUB_SERVICE_NAME": "board",
        "JUPYTERHUB_SERVICE_PREFIX": "/services/board/",
        "JUPYTERHUB_CLIENT_ID": "service-board",
        "JUPYTERHUB_OAUTH_CALLBACK_URL": "/services/board/oauth_callback",
        "JUPYTERHUB_BASE_URL": "/",
        "JUPYTERHUB_SERVER_NAME": "",
        "JUPYTERHUB_USER": "",
        "JUPYTERHUB_HOST": "",
        "JPY_API_TOKEN": env["JUPYTERHUB_API_TOKEN"],
        "COLOUR": "blue",
    }
    assert {name: env.get(name) for name in expected} == expected
    assert env["JUPYTERHUB_SERVICE_URL"].endswith("/ignored/")
    # Its own token says who it is, with what identifies a service and no more.
    own = requests.get(
        hub.url + "hub/api/user",
        headers={"Authorization": f"Bearer {env['JUPYTERHUB_API_TOKEN']}"},
        timeout=10,
    ).json()
    assert (own["kind"], own["name"], own["admin"], own["scopes"]) == (
        "service", "board", False, [],
    )  # fmt: skip


@pytest.mark.parametrize("value", ["token ", "token", "Bearer", "token  ", "", "Basic eDp5"])
def test_service_without_a_token_is_not_whoever_shows_none(hub, value):
    answer = requests.get(hub.url + "hub/api/user", headers={"Authorization": value}, timeout=10)
    assert answer.status_code == 403


# -- OAuth ---------------------------------------------------------------------------------------


def authorize(browser, **changes):
    asked = {
        "client_id": "service-board",
        "redirect_uri": "/services/board/oauth_callback",
        "response_type": "code",
        "state": "abc",
    } | changes
    query = {key: value for key, value in asked.items() if value is not None}
    return browser.get("/hub/api/oauth2/authorize?" + urlencode(query))


def test_way_of_a_code_from_browser_to_client(hub):
    browser = hub.browser("root-admin")
    session = browser.cookies["jupyterhub-session-id"]
    assert re.fullmatch(r"[0-9a-f]{32}", session)
    for uri in ("/services/board/oauth_callback", None):  # None: the registered one
        del browser.cookies["jupyterhub-session-id"]
        answer = authorize(browser, redirect_uri=uri)
        assert answer.status_code == 302
        assert "jupyterhub-session-id" in answer.cookies  # it was absent
        place = urlsplit(answer.headers["Location"])
        told = parse_qs(place.query)
        assert place.path == "/services/board/oauth_callback" and told["state"] == ["abc"]
    url = hub.url + "services/board/"
    until(lambda: requests.get(url, allow_redirects=False, timeout=5).status_code == 302, 60)
    env = browser.follow("/services/board/").json()["env"]
    form = {
        "client_id": "service-board",
        "client_secret": env["JUPYTERHUB_API_TOKEN"],
        "grant_type": "authorization_code",
        "code": told["code"][0],
        "redirect_uri": "/services/board/oauth_callback",
    }
    token_url = hub.url + "hub/api/oauth2/token"
    wrong = requests.post(token_url, data=form | {"client_secret": "wrong"}, timeout=10)
    assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid_client")
    other = requests.post(token_url, data=form | {"grant_type": "password"}, timeout=10)
    assert (other.status_code, other.json()["error"]) == (400, "unsupported_grant_type")
    answer = requests.post(token_url, data=form, timeout=10)
    body = answer.json()
    assert answer.status_code == 200 and body.keys() == {
        "access_token", "token_type", "expires_in", "scope",
    }  # fmt: skip
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 14 * 86400)
    assert "access:services!service=board" in body["scope"].split()
    assert (answer.headers["Cache-Control"], answer.headers["Pragma"]) == ("no-store", "no-cache")
    again = requests.post(token_url, data=form, timeout=10)
    assert (again.status_code, again.json()) == (400, {"error": "invalid_grant"})
    model = hub.api("user", body["access_token"]).json()
    assert {"name", "kind", "admin", "groups", "scopes", "session_id", "token_id"} <= set(model)


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        ({"client_id": "nobody"}, 400, ""),
        ({"redirect_uri": "/elsewhere"}, 400, ""),
        ({"response_type": None}, 302, "invalid_request"),
        ({"scope": "nonsense"}, 302, "invalid_scope"),
    ],
)
def test_wrong_question_is_told_to_whom_it_concerns(hub, changes, status, error):
    answer = authorize(hub.browser("root-admin"), **changes)
    assert answer.status_code == status
    if error:
        told = parse_qs(urlsplit(answer.headers["Location"]).query)
        assert told["error"] == [error] and told["state"] == ["abc"] and "code" not in told
    else:
        assert answer.headers["Content-Type"].startswith("text/html")


def test_plain_user_may_not_enter_a_service_without_being_let(hub):
    assert authorize(hub.browser("dan")).status_code == 403


# -- cookies -------------------------------------------------------------------------------------


def test_cookies_of_a_login_and_their_end(hub):
    browser = hub.browser()
    browser.get("/hub/login")
    [anonymous] = [one for one in browser.cookies if one.name == "_xsrf"]
    assert anonymous.path == "/hub/" and anonymous.expires is not None
    answer = browser.login("eli")
    sent = {one.partition("=")[0]: one for one in answer.raw.headers.getlist("Set-Cookie")}
    login = sent["jupyterhub-hub-login"]
    assert "Path=/hub/;" in login and "HttpOnly" in login and "Max-Age=1209600" in login
    assert re.match(r"jupyterhub-hub-login=2\|1:0\|10:\d{10}\|20:jupyterhub-hub-login\|", login)
    session = sent["jupyterhub-session-id"]
    assert "Path=/;" in session and "HttpOnly" in session and "Max-Age" not in session
    assert re.match(r"jupyterhub-session-id=[0-9a-f]{32};", session)
    first = browser.cookies["jupyterhub-session-id"]
    away = browser.get("/hub/logout")
    gone = {
        one.partition("=")[0]
        for one in away.raw.headers.getlist("Set-Cookie")
        if "Max-Age=0" in one
    }
    assert {"jupyterhub-hub-login", "jupyterhub-session-id"} <= gone
    assert browser.login("eli").status_code == 302
    assert browser.cookies["jupyterhub-session-id"] != first


# -- what exists already, and bodies that are wrong ----------------------------------------------


@pytest.mark.parametrize("kind", ["users", "groups"])
def test_what_exists_is_a_conflict_whatever_the_body(hub, kind):
    assert hub.api(f"{kind}/there", SECRET, "POST", json={}).status_code in (201, 409)
    for body in ({}, {"foo": 1}, [], {"users": ["nobody"]}, {"admin": 1}):
        answer = hub.api(f"{kind}/there", SECRET, "POST", json=body)
        assert answer.status_code == 409, body
        assert answer.json()["message"] == f"{kind[:-1].title()} there already exists"
