"""OAuth with a service: who may, what is asked, what the token may then do."""

import re
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from apiworld import World, config
from harness import serving

SECRET = "wiki-service-token"
WIKI = {
    "name": "wiki",
    "url": "http://127.0.0.1:9",
    "api_token": SECRET,
    "oauth_client_allowed_scopes": ["read:servers!user", "read:users:activity!user", "read:hub"],
}
QUIET = {
    "name": "quiet",
    "url": "http://127.0.0.1:9",
    "api_token": "quiet-service-token",
    "oauth_no_confirm": True,
}
ROLES = [{"name": "visiting", "scopes": ["access:services"], "users": ["ada", "bob"]}]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A hub with a service that asks and one that need not."""
    settings = config(
        services=[*config()["JupyterHub"]["services"][:1], WIKI, QUIET], load_roles=ROLES
    )
    with serving(tmp_path_factory.mktemp("oauth"), settings) as hub:
        yield World(hub)


def authorize_url(name="wiki", **changes):
    query = {
        "client_id": f"service-{name}",
        "redirect_uri": f"/services/{name}/oauth_callback",
        "response_type": "code",
        "state": "s",
    } | changes
    return "/hub/api/oauth2/authorize?" + urlencode(query)


def code_of(response):
    assert response.status_code == 302, response.text
    target = urlsplit(response.headers["Location"])
    assert target.path.endswith("/oauth_callback")
    return parse_qs(target.query)["code"][0]


def exchange(world, code, name="wiki", secret=SECRET):
    form = {
        "client_id": f"service-{name}",
        "client_secret": secret,
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": f"/services/{name}/oauth_callback",
    }
    return world.nobody.post("/oauth2/token", data=form)


def scopes_of(world, response):
    assert response.status_code == 200, response.text
    caller = world.caller(response.json()["access_token"])
    return caller.call("GET", "/user").json()["scopes"]


def test_visitor_is_asked_and_gives_what_is_shown(world):
    browser = world.hub.browser("ada")
    page = browser.get(authorize_url())
    assert page.status_code == 200 and "Read servers" in page.text
    assert "Read details about the hub" not in page.text  # ada does not hold it
    offered = re.findall(r'name="scopes" value="([^"]+)"', page.text)
    assert "read:servers!user" in offered and "access:services!service=wiki" in offered
    fields = {"_xsrf": browser.xsrf("/hub/home"), "scopes": ["read:servers!user"]}
    answer = exchange(world, code_of(browser.post(authorize_url(), data=fields)))
    body = answer.json()
    assert body["token_type"] == "Bearer" and body["expires_in"] == 1209600
    assert scopes_of(world, answer) == [
        "access:services!service=wiki",
        "read:servers!user=ada",
        "read:users:groups!user=ada",
        "read:users:name!user=ada",
    ]


def test_nothing_chosen_gives_no_more_than_who_one_is(world):
    browser = world.hub.browser("bob")
    fields = {"_xsrf": browser.xsrf("/hub/home")}
    least = [
        "access:services!service=wiki",
        "read:users:groups!user=bob",
        "read:users:name!user=bob",
    ]
    code = code_of(browser.post(authorize_url(), data=fields))
    assert scopes_of(world, exchange(world, code)) == least
    code = code_of(browser.post(authorize_url(scope="read:hub"), data=fields))
    assert scopes_of(world, exchange(world, code)) == least


def test_who_was_asked_once_is_not_asked_again(world):
    browser = world.hub.browser("ada")
    url = authorize_url(scope="read:users:activity!user")
    assert browser.get(url).status_code == 200
    fields = {"_xsrf": browser.xsrf("/hub/home"), "scopes": ["read:users:activity!user"]}
    assert exchange(world, code_of(browser.post(url, data=fields))).status_code == 200
    assert code_of(browser.get(url))
    assert browser.get(authorize_url()).status_code == 200  # more than was given


def test_trusted_service_does_not_ask(world):
    code = code_of(world.hub.browser("ada").get(authorize_url("quiet")))
    answer = exchange(world, code, "quiet", "quiet-service-token")
    assert "access:services!service=quiet" in scopes_of(world, answer)


def test_who_may_not_enter_gets_no_code(world):
    name = world.new_user()
    page = world.hub.browser(name).get(authorize_url())
    assert page.status_code == 403 and page.headers["Content-Type"].startswith("text/html")
    assert "do not have permission" in page.text


def test_token_for_one_service_is_revoked_with_all_of_that_client(world):
    name = "bob"
    browser = world.hub.browser(name)
    codes = [code_of(browser.get(authorize_url("quiet"))) for _ in range(2)]
    secrets = [
        exchange(world, code, "quiet", "quiet-service-token").json()["access_token"]
        for code in codes
    ]
    callers = [world.caller(secret) for secret in secrets]
    token_id = callers[0].call("GET", "/user").json()["token_id"]
    listed = world.boss.call("GET", f"/users/{name}/tokens/{token_id}").json()
    assert listed["oauth_client"] == "Service quiet" and listed["session_id"]
    assert world.boss.call("DELETE", f"/users/{name}/tokens/{token_id}").status_code == 204
    assert [caller.call("GET", "/user").status_code for caller in callers] == [403, 403]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"client_id": "service-none"}, 400),
        ({"redirect_uri": "/services/wiki/elsewhere"}, 400),
        ({"redirect_uri": "https://evil.example/"}, 400),
        ({"response_type": "token"}, 302),
        ({"scope": "admin:users"}, 302),
    ],
)
def test_wrong_request_is_told_to_the_right_one(world, changes, status):
    response = world.hub.browser("ada").get(authorize_url(**changes))
    assert response.status_code == status
    if status == 302:
        location = response.headers["Location"]
        assert location.startswith("/services/wiki/oauth_callback?error=") and "state=s" in location
    else:
        assert response.headers["Content-Type"].startswith("text/html")


def test_code_is_for_one_use_and_one_client(world):
    browser = world.hub.browser("ada")
    code = code_of(browser.get(authorize_url("quiet")))
    assert exchange(world, code).json() == {"error": "invalid_grant"}
    code = code_of(browser.get(authorize_url("quiet")))
    assert exchange(world, code, "quiet", "wrong-secret").status_code == 401
    assert exchange(world, code, "quiet", "quiet-service-token").status_code == 200
    again = exchange(world, code, "quiet", "quiet-service-token")
    assert again.status_code == 400 and again.json()["error"] == "invalid_grant"
