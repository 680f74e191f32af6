"""What the REST API refuses: other sites' requests, and junk. Nothing is answered with 5xx."""

import http.client
import json
import random
from urllib.parse import urlsplit

import pytest
from apiworld import ADMIN

from minihub.web import tables

READING, WRITING = "/hub/api/users/bob", "/hub/api/users/bob/activity"
BODY = json.dumps({"last_activity": "2020-01-01T00:00:00Z"})


@pytest.fixture(scope="module")
def bob(world):
    """A browser logged in as bob, and the secret of its pages."""
    browser = world.hub.browser("bob")
    return browser, browser.xsrf("/hub/home")


def send(browser, method, headers, secret=""):
    path, body = (READING, None) if method == "GET" else (WRITING, BODY)
    headers = {"Content-Type": "application/json"} | headers if body else headers
    if secret:
        headers = headers | {"X-XSRFToken": secret}
    return browser.request(method, path, data=body, headers=headers)


# -- requests of other sites -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "mode", "site", "free"),
    [
        ("GET", None, None, True),
        ("GET", "navigate", "none", True),
        ("GET", "navigate", "cross-site", True),
        ("GET", "no-cors", "same-origin", True),
        ("GET", "no-cors", "cross-site", False),
        ("GET", "no-cors", "same-site", False),
        ("GET", "cors", "same-origin", False),
        ("GET", "cors", "cross-site", False),
        ("GET", "same-origin", "same-origin", False),
        ("POST", None, None, False),
        ("POST", "navigate", "cross-site", False),
        ("POST", "navigate", "same-origin", False),
        ("POST", "no-cors", "same-origin", False),
        ("POST", "cors", "same-origin", False),
        ("POST", "cors", "cross-site", False),
        ("POST", "websocket", "same-origin", False),
    ],
)
def test_login_alone_is_enough_only_where_nothing_can_be_stolen(bob, method, mode, site, free):
    browser, secret = bob
    headers = {"Sec-Fetch-Mode": mode, "Sec-Fetch-Site": site}
    headers = {name: value for name, value in headers.items() if value}
    bare = send(browser, method, headers)
    if free:
        assert bare.status_code == 200
    else:
        assert bare.status_code == 403
        assert bare.json() == {"status": 403, "message": f"'_xsrf' argument missing from {method}"}
    assert send(browser, method, headers, secret).status_code == 200
    assert send(browser, method, headers, secret[:-2] + "xx").status_code == (200 if free else 403)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_every_change_needs_the_secret(bob, method):
    browser, secret = bob
    path = "/hub/api/users/bob/servers/of-a-stranger"
    bare = browser.request(method, path, json={})
    assert bare.status_code == 403 and "_xsrf" in bare.json()["message"]
    for name in ("X-XSRFToken", "X-CSRFToken"):
        assert browser.request(method, path, json=[], headers={name: secret}).status_code != 403
    assert browser.request(method, f"{path}?_xsrf={secret}", json=[]).status_code != 403


def test_secret_of_another_login_is_none(world, bob):
    browser, _secret = bob
    stranger = world.hub.browser("ada").xsrf("/hub/home")
    refused = send(browser, "POST", {}, stranger)
    assert refused.status_code == 403 and "does not match" in refused.json()["message"]


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("Application/JSON", 200),
        ("text/plain", 403),
        ("application/x-www-form-urlencoded", 403),
        ("multipart/form-data; boundary=x", 403),
    ],
)
def test_post_that_a_form_could_send_counts_as_nobodys(bob, kind, status):
    browser, secret = bob
    response = send(browser, "POST", {"Content-Type": kind}, secret)
    assert response.status_code == status
    if status == 403:
        assert response.json()["message"] == "Missing or invalid credentials."


def test_token_needs_no_secret(world):
    caller = world.as_user("bob")
    headers = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "cross-site", "Origin": "http://evil"}
    assert caller.get("/users/bob", headers=headers).status_code == 200
    assert caller.post("/users/bob/activity", data=BODY, headers=headers).status_code == 200


def test_wrong_token_falls_back_to_the_login(bob):
    browser, secret = bob
    headers = {"Authorization": "token wrong"}
    assert send(browser, "GET", headers).status_code == 200
    assert send(browser, "POST", headers).status_code == 403
    assert send(browser, "POST", headers, secret).status_code == 200


def test_token_of_one_beats_the_login_of_another(world, bob):
    browser, _secret = bob
    headers = {"Authorization": f"token {world.as_user('ada').token}"}
    assert browser.get("/hub/api/user", headers=headers).json()["name"] == "ada"


def test_token_for_oneself_by_login(world, bob):
    browser, secret = bob
    path = "/hub/api/users/bob/tokens"
    assert browser.post(path, json={"note": "x"}).status_code == 403
    form = {"Content-Type": "text/plain"}
    assert browser.post(path, data="{}", headers=form).status_code == 403
    made = browser.post(path, json={"note": "x"}, headers={"X-XSRFToken": secret})
    assert made.status_code == 201
    assert world.caller(made.json()["token"]).call("GET", "/user").json()["name"] == "bob"


def test_unknown_paths_need_no_secret(bob):
    browser, _secret = bob
    assert browser.post("/hub/api/nothing").status_code == 404


# -- junk ------------------------------------------------------------------------------------

JUNK = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b'"text"',
    b"1e999",
    b"{",
    b"\xff\xfe",
    b'{"a": NaN}',
    b"[" * 5000,
    b'{"a":' * 300 + b"1" + b"}" * 300,
    b'{"user_options":' * 150 + b"1" + b"}" * 150,
    b'{"usernames": ["\\ud800"], "groups": ["\\udfff"], "name": "\\ud800"}',
    b'{"usernames": [[]], "groups": [{}], "users": [null], "name": []}',
    b'{"usernames": {"a": 1}, "groups": "x", "users": {}, "name": "x\\u0000y"}',
    b'{"expires_in": 1e40, "scopes": [null], "roles": {}, "note": {}, "user": {}}',
    b'{"expires_in": 123456789012345678901234567890, "scopes": "x", "user": "\\u0000"}',
    b'{"servers": {"": 3}, "last_activity": {}, "remove": {}, "user_options": 3}',
    b'{"servers": {"": {"last_activity": "9999-99-99"}}, "display_name": {}}',
    b'{"last_activity": "0001-01-01T00:00:00+14:00", "url": [], "info": 3, "command": {}}',
    b'{"auth": {"username": "x", "password": []}, "auth_state": [], "admin": []}',
    b'{"api_url": "http://[", "proxy": 3, "servers": "x"}',
    json.dumps({str(number): "x" * 100 for number in range(1000)}).encode(),
]
NAMES = [
    "bob", "nobody", "%00", "%FF", "%ED%A0%80", "..", "%2e%2e", "a%2Fb", "%E2%80%AE", "x" * 300,
    "%27%22%3Cscript%3E", "a0", "sc_1", "-1", "%20",
]  # fmt: skip
QUERIES = [
    "", "limit=%FF", "limit=1e9", "offset=-99999999999999999999", "state=%00", "sort=%ED%A0%80",
    "name_filter=%25_%5C%00%FF", "include_stopped_servers=%FF", "id=sc_999999999999999999999",
    "code=%00", "_xsrf=x", "limit=" + "9" * 5000, "%", "a=b=c&&&",
]  # fmt: skip
#: Paths that would end the hub or lead it elsewhere if the junk were taken.
HARMFUL = {"api/shutdown"}


def routes_of_the_api():
    return sorted(
        (route.method, route.path)
        for table in tables.ALL
        for route in table
        if route.path.startswith("api/") and route.path not in HARMFUL
    )


@pytest.fixture(scope="module")
def hub_itself(world):
    """The hub behind the proxy, which would refuse some of the junk itself."""
    place = urlsplit(world.boss.call("GET", "/proxy").json()["/"]["target"])
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=30)
    yield connection
    connection.close()


@pytest.mark.parametrize("route", routes_of_the_api(), ids=" ".join)
def test_junk_is_never_the_hubs_fault(hub_itself, route):
    method, pattern = route
    chance = random.Random(" ".join(route))
    headers = {"Content-Type": "application/json", "Authorization": f"token {ADMIN}"}
    for body in JUNK:
        parts = [chance.choice(NAMES) if "<" in part else part for part in pattern.split("/")]
        path = f"/hub/{'/'.join(parts)}?{chance.choice(QUERIES)}"
        hub_itself.request(method, path, body, headers)
        response = hub_itself.getresponse()
        text = response.read()
        assert response.status < 500, (path, body[:80], text)
        if response.status >= 400 and "oauth2" not in pattern:
            error = json.loads(text)
            assert error["status"] == response.status and error["message"], (path, body[:80])
            assert response.getheader("Content-Type") == "application/json"


def test_too_large_a_body_is_refused(world):
    response = world.boss.post("/users", data=b"x" * (11 * 1024 * 1024))
    assert response.status_code == 413


def test_hub_is_well_after_all_that(world):
    assert world.boss.call("GET", "/user").json()["name"] == "boss"
    assert ADMIN not in world.hub.text


@pytest.mark.parametrize("slash", ["%2F", "%2f"])
def test_encoded_slash_never_leads_to_another_route(world, slash):
    """The path is decoded before it is routed: a name with a slash in it must not be two parts."""
    name = world.new_user("slash")
    assert world.boss.call("GET", f"/users/{name}/tokens").status_code == 200
    for method, path in (("GET", "tokens"), ("DELETE", "server"), ("POST", "server")):
        response = world.boss.call(method, f"/users/{name}{slash}{path}")
        assert response.status_code == 404, (method, path)
