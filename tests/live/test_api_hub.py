"""The REST API of the hub itself: who asks, its proxy, its end; and what old clients call."""

import contextlib
import http.client
import json
import time
from urllib.parse import urlsplit

import psutil
import pytest
import requests
from admin_tools import wait_until
from apiworld import ADMIN, Caller, config

# -- who asks --------------------------------------------------------------------------------


def test_token_learns_whose_it_is_and_what_it_may(world):
    name = world.new_user(groups=["club"])
    narrow = world.as_user(name, "access:servers!server")
    model = narrow.call("GET", "/user").json()
    assert model == {
        "kind": "user", "name": name, "admin": False, "groups": ["club"], "user_info": None,
        "scopes": [f"read:users:groups!user={name}", f"read:users:name!user={name}"],
        "session_id": None, "token_id": model["token_id"],
    }  # fmt: skip
    whole = world.as_user(name).call("GET", "/user").json()
    assert whole["token_id"].startswith("a") and whole["servers"] == {}
    assert whole["scopes"] == sorted(whole["scopes"]) and f"servers!user={name}" in whole["scopes"]
    assert not any(scope.startswith("admin") for scope in whole["scopes"])


def test_service_learns_who_it_is(world):
    plain = world.caller("plain-service-token").call("GET", "/user").json()
    assert plain == {
        "kind": "service", "name": "plain", "admin": False, "scopes": [], "session_id": None,
        "token_id": plain["token_id"],
    }  # fmt: skip
    boss = world.boss.call("GET", "/user").json()
    assert boss["admin"] and boss["roles"] == ["admin"] and "shutdown" in boss["scopes"]
    culler = world.caller("culler-service-token").call("GET", "/user").json()
    assert culler["scopes"] == [
        "delete:servers", "list:users", "read:servers", "read:users:activity", "read:users:name",
    ]  # fmt: skip


def test_login_learns_who_it_is(world):
    name = world.new_user()
    model = world.hub.browser(name).get("/hub/api/user").json()
    assert model["name"] == name and model["token_id"] is None and model["session_id"] is None


def test_hub_says_what_it_runs_on(world):
    model = world.boss.call("GET", "/info").json()
    assert set(model) == {"version", "python", "sys_executable", "spawner", "authenticator"}
    assert model["version"] == "6.1.1"
    assert model["spawner"]["class"].endswith("SimpleLocalProcessSpawner")
    assert set(model["authenticator"]) == {"class", "version"}


# -- the proxy -------------------------------------------------------------------------------


def test_routes_are_shown_whole_and_in_pages(world):
    routes = world.boss.call("GET", "/proxy").json()
    assert set(routes["/"]) == {"routespec", "target", "data"} and routes["/"]["data"]["hub"]
    headers = {"Accept": "application/jupyterhub-pagination+json"}
    page = world.boss.get("/proxy?limit=1", headers=headers).json()
    assert len(page["items"]) == 1 and page["_pagination"]["total"] >= 1


def test_lost_route_is_put_back(world):
    name = world.new_user()
    world.boss.call("POST", f"/users/{name}/server")
    spec = f"/user/{name}/"
    facts = world.boss.call("GET", "/proxy").json()[spec]
    assert facts["data"]["user"] == name and facts["target"].startswith("http://127.0.0.1:")
    assert world.boss.call("POST", "/proxy").status_code == 200
    assert world.boss.call("POST", "/proxy").content == b""
    assert world.boss.call("GET", "/proxy").json()[spec]["target"] == facts["target"]
    world.boss.call("DELETE", f"/users/{name}")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "need JSON body"),
        (b"x", "Request body must be JSON dict"),
        (b"[]", "Request body must be JSON dict"),
        (b'{"api_url": 3}', "api_url and auth_token must be texts"),
        (b'{"api_url": ""}', "api_url and auth_token must be texts"),
        (b'{"api_url": "ftp://x"}', "api_url must be http://host:port"),
    ],
)
def test_wrong_proxy_is_refused(world, raw, message):
    response = world.boss.patch("/proxy", data=raw)
    assert response.status_code == 400 and response.json()["message"] == message


def test_proxy_that_refuses_us_is_not_taken(world):
    response = world.boss.call("PATCH", "/proxy", {"auth_token": "wrong"})
    assert response.status_code == 503 and "token" in response.json()["message"]
    assert world.boss.call("GET", "/proxy").status_code == 200
    assert world.boss.call("PATCH", "/proxy", {}).status_code == 200


# -- the end ---------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [{"proxy": "x"}, {"servers": 1}, {"servers": None}])
def test_wrong_end_ends_nothing(world, body):
    response = world.boss.call("POST", "/shutdown", body)
    assert response.status_code == 400 and "must be true or false" in response.json()["message"]


def test_shutdown_can_leave_servers_and_proxy_behind(start_hub):
    hub = start_hub(config())
    boss = Caller(hub, ADMIN)
    boss.call("POST", "/users/ada/server")
    pid = boss.call("GET", "/users/ada").json()["servers"][""]["state"]["pid"]
    family = psutil.Process(hub.process.pid).children(recursive=True)
    answer = boss.call("POST", "/shutdown", {"servers": False, "proxy": False})
    assert answer.status_code == 202 and answer.json() == {"message": "Shutting down Hub"}
    assert hub.process.wait(20) == 0
    assert psutil.pid_exists(pid)
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):  # some end with the hub
            process.kill()
    psutil.Process(pid).kill()
    assert "Traceback" not in hub.text


def test_shutdown_takes_everything_along(start_hub):
    hub = start_hub(config(cleanup_servers=False, cleanup_proxy=False))
    boss = Caller(hub, ADMIN)
    boss.call("POST", "/users/ada/server")
    pid = boss.call("GET", "/users/ada").json()["servers"][""]["state"]["pid"]
    family = psutil.Process(hub.process.pid).children(recursive=True)
    assert boss.call("POST", "/shutdown", {"servers": True, "proxy": True}).status_code == 202
    assert hub.process.wait(20) == 0
    assert not psutil.pid_exists(pid)
    _gone, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []


# -- what clients of JupyterHub 0.8 call -----------------------------------------------------


def test_owner_of_a_token_is_told_to_any_token(world):
    name = world.new_user(groups=["club"])
    secret = world.as_user(name).token
    asker = world.caller("plain-service-token")
    model = asker.call("GET", f"/authorizations/token/{secret}").json()
    assert model == {
        "kind": "user", "name": name, "admin": False, "groups": ["club"], "user_info": None,
    }  # fmt: skip
    service = asker.call("GET", f"/authorizations/token/{ADMIN}").json()
    assert service == {"kind": "service", "name": "boss", "admin": True}
    missing = asker.call("GET", "/authorizations/token/unknown")
    assert missing.status_code == 404
    assert world.nobody.call("GET", f"/authorizations/token/{secret}").status_code == 403
    by_login = world.hub.browser(name).get(f"/hub/api/authorizations/token/{secret}")
    assert by_login.status_code == 403


def test_tokens_are_made_elsewhere_today(world):
    for caller in (world.boss, world.nobody):
        response = caller.call("POST", "/authorizations/token", {"username": "bob"})
        assert response.status_code == 404
        assert "Use /hub/api/users/:user/tokens instead." in response.json()["message"]


def test_login_of_a_cookie_is_told_to_any_token(start_hub):
    service = {
        "name": "wiki",
        "url": "http://127.0.0.1:9",
        "api_token": "wiki-token-1",
        "legacy": True,
    }
    hub = start_hub(config(services=[service], load_roles=[]))
    browser = hub.browser("ada")
    jar = {cookie.name: cookie for cookie in browser.cookies}
    assert jar["jupyterhub-services"].path == "/services"
    wiki = Caller(hub, "wiki-token-1")
    for name in ("jupyterhub-services", "jupyterhub-hub-login"):
        value = requests.utils.quote(jar[name].value, safe="")
        model = wiki.call("GET", f"/authorizations/cookie/{name}/{value}")
        assert model.status_code == 200, name
        assert model.json()["name"] == "ada"
        in_body = wiki.request("GET", f"/authorizations/cookie/{name}", data=jar[name].value)
        assert in_body.json()["name"] == "ada"
        other = {"jupyterhub-services": "jupyterhub-hub-login"}.get(name, "jupyterhub-services")
        assert wiki.call("GET", f"/authorizations/cookie/{other}/{value}").status_code == 404
    value = requests.utils.quote(jar["jupyterhub-services"].value, safe="")
    assert wiki.call("GET", f"/authorizations/cookie/unknown/{value}").status_code == 404
    browser.get("/hub/logout")
    gone = wiki.call("GET", f"/authorizations/cookie/jupyterhub-services/{value}")
    assert gone.status_code == 404


def ask(world, path, **headers):
    """Ask with these headers and none of a library's own."""
    place = urlsplit(world.hub.url)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=10)
    connection.putrequest("GET", f"/hub/api{path}", skip_accept_encoding=True)
    connection.putheader("Authorization", f"token {ADMIN}")
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def test_old_culler_gets_dates_without_zone(world):
    name = world.new_user()
    for headers, naive in (
        ({}, True),
        ({"User_Agent": "Tornado/6.5"}, True),
        ({"User_Agent": "Python-urllib/3.12"}, False),
        ({"Accept": "*/*"}, False),
    ):
        user = next(user for user in ask(world, "/users", **headers) if user["name"] == name)
        assert user["created"].endswith("Z") != naive, headers
        assert (user["last_activity"] is not None) == naive
    assert all(user["created"].endswith("Z") for user in ask(world, "/users?sort=id"))
    assert ask(world, f"/users/{name}")["created"].endswith("Z")


def test_legacy_service_and_legacy_token_get_dates_without_zone(world):
    name = world.new_user()
    made = world.boss.call("POST", f"/users/{name}/tokens", {"legacy": True}).json()
    assert made["created"].endswith("Z")
    old = world.caller("old-service-token")
    for caller in (old, world.caller(made["token"])):
        assert not caller.call("GET", f"/users/{name}").json()["created"].endswith("Z")
    page = old.get("/users", headers={"Accept": "application/jupyterhub-pagination+json"}).json()
    assert not any(user["created"].endswith("Z") for user in page["items"])
    [token] = old.call("GET", f"/users/{name}/tokens").json()["api_tokens"]
    assert len(token["created"]) == 26


def test_hub_goes_on_while_it_is_asked(world):
    """Repeated questions of one caller are answered from memory, whatever others do."""
    name = world.new_user()
    caller = world.as_user(name)
    deadline = time.monotonic() + 0.5
    count = 0
    while time.monotonic() < deadline:
        assert caller.call("GET", "/user").json()["name"] == name
        count += 1
    assert count > 20
    world.boss.call("POST", "/groups/empty/users", {"users": [name]})
    assert caller.call("GET", "/user").json()["groups"] == ["empty"]
    wait_until(lambda: json.loads(caller.call("GET", "/user").text)["last_activity"], "activity")
