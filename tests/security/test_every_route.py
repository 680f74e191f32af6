"""Every route there is: none changes anything for a browser that another site's page steers."""

from __future__ import annotations

import re

import pytest

from minihub.web import tables
from minihub.web.routing import Access

ROUTES = [route for table in tables.ALL for route in table]
CHANGING = [route for route in ROUTES if route.method not in ("GET", "HEAD", "OPTIONS")]

#: What takes no secret of the page, each with its reason.
WITHOUT_SECRET = {
    ("POST", "api/oauth2/token"): "servers call it, with the secret of an OAuth client",
    ("POST", "security/csp-report"): "browsers report by themselves; nothing is stored",
    ("POST", "login"): "looks itself, to show its form again",
    ("POST", "join"): "looks itself, to show its form again",
    ("POST", "new-password"): "looks itself, to show its form again",
    ("POST", "api/users/<name>/tokens"): "a name and password in the body may stand for a login",
    ("POST", "api/authorizations/token"): "the same, for older clients",
}
#: What a request for a page changes; each asks first when another site's page leads there.
CHANGED_BY_GET = ("logout", "spawn")


def path_of(route, name="mallory"):
    """Return a path that the route matches, as far as its shape goes."""
    filled = re.sub(r"<(\w+)(:[^>]*)?>", lambda m: name if "name" in m[1] else "1", route.path)
    return "/hub/" + filled


def name_of(route):
    return f"{route.method} {route.path}"


@pytest.fixture(scope="module")
def admin(hub):
    return hub.browser("root-admin")


def test_exceptions_are_those_of_the_list():
    assert {(r.method, r.path) for r in CHANGING if not r.xsrf} == set(WITHOUT_SECRET)


@pytest.mark.parametrize(
    "path",
    ["login", "join", "new-password", "api/users/root-admin/tokens", "api/authorizations/token"],
)
def test_those_that_look_themselves_refuse_a_login_without_the_secret(admin, path):
    before = len(admin.get("/hub/api/users/root-admin/tokens").json()["api_tokens"])
    for body in ({"json": {"note": "x"}}, {"data": {"username": "eve", "password": "pw"}}):
        assert admin.post(f"/hub/{path}", **body).status_code in (400, 403, 404)
    assert admin.get("/hub/api/user").json()["name"] == "root-admin"
    assert len(admin.get("/hub/api/users/root-admin/tokens").json()["api_tokens"]) == before


@pytest.mark.parametrize("route", [r for r in CHANGING if r.xsrf], ids=name_of)
@pytest.mark.parametrize(
    "fetch",
    [
        {},
        {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Site": "same-origin"},
    ],
    ids=["bare", "navigate", "no-cors"],
)
def test_change_without_the_secret_is_refused(admin, route, fetch):
    """Whoever is logged in, and whatever the browser says of where the request comes from."""
    url = path_of(route)
    for body in ({"json": {}}, {"data": {"a": "b"}}, {"files": {"f": ("f", b"x")}}):
        answer = admin.request(
            route.method, url, headers={"Origin": "http://evil.example"} | fetch, **body
        )
        assert answer.status_code == 403, (url, body, answer.text[:300])
    answer = admin.request(route.method, url, data={"_xsrf": "2|made|up"}, headers=fetch)
    assert answer.status_code == 403, answer.text[:300]


@pytest.mark.parametrize("route", [r for r in ROUTES if r.access is not Access.PUBLIC], ids=name_of)
def test_strangers_are_refused(hub, route):
    answer = hub.browser().request(route.method, path_of(route))
    if route.access is Access.PAGE and answer.status_code == 302:
        assert answer.headers["Location"].startswith("/hub/login?next=")
    else:
        assert answer.status_code == 403, answer.text[:300]


@pytest.mark.parametrize("path", CHANGED_BY_GET)
def test_page_of_another_site_cannot_log_out_or_start(hub, path):
    browser = hub.browser(f"guest-{path}")
    cross = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "cross-site"}
    asked = browser.get(f"/hub/{path}", headers=cross)
    assert asked.status_code == 200 and "<form" in asked.text
    home = browser.get("/hub/home")
    assert home.status_code == 200
    assert hub.rows("select count(*) from servers where target is not null")[0][0] == 0


@pytest.mark.parametrize("route", [r for r in ROUTES if r.method == "GET"], ids=name_of)
def test_every_answer_forbids_sniffing_framing_and_leaking(admin, hub, route):
    if route.path == "logout":
        return
    answer = (admin if route.access is Access.PAGE else hub.browser()).get(
        path_of(route, "ada"), stream=True
    )
    headers = answer.headers
    answer.close()
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] in ("same-origin", "no-referrer")
    policy = headers["Content-Security-Policy"]
    assert "unsafe-inline" not in policy.split("script-src")[-1].split(";")[0]
    assert "unsafe-eval" not in policy
