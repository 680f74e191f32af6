"""Attacks on the way a person logs in to servers and services: codes, challenges, redirects."""

from __future__ import annotations

import base64
import hashlib
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import requests
from harness import serving

SECRETS = {"wiki": "wiki-secret-token", "forum": "forum-secret-token"}
VERIFIER = "v" * 60
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().strip("=")
BOSS = "boss-secret-token"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A hub with two services that need no consent, which everybody may use, and an admin."""
    services = [
        {"name": name, "url": "http://127.0.0.1:9", "api_token": secret, "oauth_no_confirm": True}
        for name, secret in SECRETS.items()
    ]
    services.append({"name": "boss", "api_token": BOSS, "admin": True})
    role = {"name": "user", "scopes": ["self", "access:services"]}
    settings = {"services": services, "load_roles": [role], "trust_user_provided_tokens": True}
    with serving(tmp_path_factory.mktemp("oauth"), {"JupyterHub": settings}) as hub:
        yield hub


def query(name="wiki", **changes):
    asked = {
        "client_id": f"service-{name}",
        "redirect_uri": f"/services/{name}/oauth_callback",
        "response_type": "code",
        "state": "s",
    } | changes
    return urlencode([(key, value) for key, value in asked.items() if value is not None])


def authorize(browser, asked: str):
    return browser.get("/hub/api/oauth2/authorize?" + asked)


def code_of(browser, asked: str) -> str:
    answer = authorize(browser, asked)
    assert answer.status_code == 302, answer.text
    return parse_qs(urlsplit(answer.headers["Location"]).query)["code"][0]


def exchange(hub, code, name="wiki", **changes):
    form = {
        "client_id": f"service-{name}",
        "client_secret": SECRETS[name],
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": f"/services/{name}/oauth_callback",
    } | changes
    form = {key: value for key, value in form.items() if value is not None}
    return requests.post(hub.url + "hub/api/oauth2/token", data=form, timeout=20)


def whose(hub, token: str) -> str | None:
    answer = hub.api("user", token)
    return answer.json()["name"] if answer.status_code == 200 else None


# -- codes ---------------------------------------------------------------------------------------


def test_code_shown_twice_gives_one_token(hub):
    code = code_of(hub.browser("ada"), query())
    first = exchange(hub, code)
    assert first.status_code == 200 and whose(hub, first.json()["access_token"]) == "ada"
    for _ in range(2):
        again = exchange(hub, code)
        assert again.status_code == 400 and again.json() == {"error": "invalid_grant"}


def test_code_shown_by_many_at_once_gives_one_token(hub):
    codes = [code_of(hub.browser("ada"), query()) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        for code in codes:
            answers = list(pool.map(lambda _number, code=code: exchange(hub, code), range(8)))
            assert sorted(one.status_code for one in answers) == [200] + [400] * 7


def test_code_of_one_client_is_nothing_to_another(hub):
    """Also not with the first one's redirect URI, and the attempt costs the owner nothing."""
    code = code_of(hub.browser("ada"), query())
    for uri in ("/services/forum/oauth_callback", "/services/wiki/oauth_callback", None):
        stolen = exchange(hub, code, "forum", redirect_uri=uri)
        assert stolen.status_code == 400 and stolen.json() == {"error": "invalid_grant"}
    assert exchange(hub, code).status_code == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"client_secret": SECRETS["forum"]},
        {"client_secret": ""},
        {"client_secret": None},
        {"client_id": "service-boss", "client_secret": BOSS},
        {"client_id": "service-wiki'--"},
        {"client_id": None},
    ],
)
def test_code_alone_is_not_enough(hub, changes):
    code = code_of(hub.browser("ada"), query())
    answer = exchange(hub, code, **changes)
    assert answer.status_code in (400, 401) and "access_token" not in answer.text
    assert exchange(hub, code).status_code == 200


def test_token_of_a_client_is_no_code_and_a_code_no_token(hub):
    code = code_of(hub.browser("ada"), query())
    assert whose(hub, code) is None
    token = exchange(hub, code).json()["access_token"]
    assert exchange(hub, token).status_code == 400


def test_code_ends_with_the_login_it_came_from(hub):
    """What was asked for before a logout is not handed out after it."""
    browser, other = hub.browser("ada"), hub.browser("ada")
    code, kept = code_of(browser, query()), code_of(other, query())
    browser.get("/hub/logout")
    assert exchange(hub, code).json() == {"error": "invalid_grant"}
    assert exchange(hub, kept).status_code == 200


def test_code_of_somebody_deleted_is_dead(hub):
    code = code_of(hub.browser("gone"), query())
    assert hub.api("users/gone", BOSS, "DELETE").status_code == 204
    assert exchange(hub, code).json() == {"error": "invalid_grant"}


# -- proof key -----------------------------------------------------------------------------------

OFFER = {"code_challenge": CHALLENGE, "code_challenge_method": "S256"}


@pytest.mark.parametrize(
    ("offered", "shown"),
    [
        (OFFER, None),
        (OFFER, ""),
        (OFFER, "w" * 60),
        (OFFER, CHALLENGE),  # what everybody saw in the browser's address
        ({"code_challenge": VERIFIER, "code_challenge_method": "plain"}, "w" * 60),
        ({}, VERIFIER),  # somebody took the challenge out on the way
    ],
)
def test_challenge_and_verifier_belong_together(hub, offered, shown):
    code = code_of(hub.browser("ada"), query(**offered))
    refused = exchange(hub, code, code_verifier=shown)
    assert refused.status_code == 400 and "access_token" not in refused.text
    assert exchange(hub, code, code_verifier=VERIFIER).status_code == 400  # spent by the try


def test_right_verifier_is_taken(hub):
    code = code_of(hub.browser("ada"), query(**OFFER))
    assert exchange(hub, code, code_verifier=VERIFIER).status_code == 200


def test_unknown_way_of_a_challenge_is_refused_before_a_code_is_given(hub):
    answer = authorize(
        hub.browser("ada"), query(code_challenge=CHALLENGE, code_challenge_method="S512")
    )
    assert answer.status_code == 302
    told = parse_qs(urlsplit(answer.headers["Location"]).query)
    assert told["error"] == ["invalid_request"] and "code" not in told


# -- where the code goes -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri",
    [
        "/services/wiki/oauth_callback/",
        "/services/wiki/oauth_callback?x=1",
        "/services/wiki/oauth_callback#x",
        "/services/wiki/../forum/oauth_callback",
        "/services/wiki/oauth_callback/../../forum/oauth_callback",
        "/services/wiki%2Foauth_callback",
        "/SERVICES/wiki/oauth_callback",
        "//services/wiki/oauth_callback",
        "\\\\evil.example/services/wiki/oauth_callback",
        "http://127.0.0.1/services/wiki/oauth_callback",
        "https://evil.example/services/wiki/oauth_callback",
        "//evil.example/services/wiki/oauth_callback",
        "/services/forum/oauth_callback",
        "javascript:alert(1)",
        " /services/wiki/oauth_callback",
        "/services/wiki/oauth_callback\r\nX-Evil: 1",
        "/services/wiki/oauth_callback\x00",
        "",
    ],
)
def test_code_goes_nowhere_but_where_the_client_is_registered(hub, uri):
    answer = authorize(hub.browser("ada"), query(redirect_uri=uri))
    assert answer.status_code == 400 and "Location" not in answer.headers
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "X-Evil" not in answer.headers


@pytest.mark.parametrize("field", ["redirect_uri", "client_id", "response_type"])
def test_parameter_given_twice_is_refused(hub, field):
    for asked in (
        query() + "&" + urlencode({field: "https://evil.example/"}),
        urlencode({field: "https://evil.example/"}) + "&" + query(),
    ):
        answer = authorize(hub.browser("ada"), asked)
        assert "evil.example" not in answer.headers.get("Location", "")
        assert "code=" not in answer.headers.get("Location", "")


@pytest.mark.parametrize(
    "state", ["", "a" * 4000, "&code=mine&state=x", "#x", "x\r\nSet-Cookie: a=b", "ü\x00%00", "//"]
)
def test_state_comes_back_untouched_and_is_nothing_but_text(hub, state):
    """Only who asked knows whether it is their own; another one's is not taken for it."""
    answer = authorize(hub.browser("ada"), query(state=state))
    assert answer.status_code == 302 and "a" not in answer.cookies
    place = urlsplit(answer.headers["Location"])
    assert place.path == "/services/wiki/oauth_callback" and not place.netloc
    told = parse_qs(place.query)
    assert told.get("state", [""]) == [state] and len(told["code"]) == 1
    assert exchange(hub, told["code"][0]).status_code == 200


def test_callback_that_a_stranger_prepared_logs_nobody_in(hub):
    """A server takes a code only with the state that it gave this very browser."""
    ada, eve = hub.browser("ada"), hub.browser("eve")
    for browser, name in ((ada, "ada"), (eve, "eve")):
        browser.start_server(name)
    hers = ada.get("/user/ada/lab").headers["Location"]  # ada's browser has a state of its own
    boss = hub.browser("root-admin")
    assert hers and boss.get("/user/ada/lab").status_code == 302
    asked = parse_qs(urlsplit(hers).query)
    code = code_of(ada, urlencode({key: value[0] for key, value in asked.items()}))
    for state in ("made-up", "", asked["state"][0]):
        callback = "/user/ada/oauth_callback?" + urlencode({"code": code, "state": state})
        assert boss.get(callback).status_code == 403
        assert eve.get(callback).status_code != 200
    assert boss.get("/user/ada/lab").status_code == 302


def test_login_on_the_way_leads_back_to_the_same_question(hub):
    """Who is not logged in sees the login first; the request is not changed by it."""
    browser = hub.browser()
    asked = query(state="a&b=c")
    answer = authorize(browser, asked)
    assert answer.status_code == 302
    place = urlsplit(answer.headers["Location"])
    assert place.path == "/hub/login" and not place.netloc
    (back,) = parse_qs(place.query)["next"]
    assert urlsplit(back).path == "/hub/api/oauth2/authorize"
    assert parse_qs(urlsplit(back).query) == parse_qs(asked)


# -- what the token may do -----------------------------------------------------------------------


def test_token_of_a_service_opens_that_service_and_tells_who_it_is(hub):
    token = exchange(hub, code_of(hub.browser("root-admin"), query())).json()["access_token"]
    told = hub.api("user", token).json()
    assert told["name"] == "root-admin" and set(told["scopes"]) == {
        "access:services!service=wiki",
        "read:users:groups!user=root-admin",
        "read:users:name!user=root-admin",
    }
    for method, path, body in (
        ("GET", "users", None),
        ("POST", "users/mallory", {}),
        ("POST", "users/root-admin/tokens", {}),
        ("GET", "users/root-admin/tokens", None),
        ("POST", "users/root-admin/server", {}),
        ("GET", "services", None),
        ("GET", "info", None),
        ("POST", "shutdown", {}),
    ):
        assert hub.api(path, token, method, json=body).status_code == 403, path


@pytest.mark.parametrize(
    "scope",
    [
        "inherit",
        "self",
        "admin:users",
        "tokens!user",
        "access:services",
        "access:services!service=forum",
        "access:servers!user=ada",
        "read:users:name",
        "read:users:name!user=eve",
    ],
)
def test_client_gets_no_scope_it_is_not_registered_for(hub, scope):
    answer = authorize(hub.browser("root-admin"), query(scope=scope))
    told = parse_qs(urlsplit(answer.headers["Location"]).query)
    assert told["error"] == ["invalid_scope"] and "code" not in told


def test_server_token_vouches_for_its_server_alone(hub):
    browser = hub.browser("zoe")
    browser.start_server("zoe")
    token = browser.follow("/user/zoe/").json()["env"]["JUPYTERHUB_API_TOKEN"]
    assert set(hub.api("user", token).json()["scopes"]) == {
        "access:servers!server=zoe/",
        "read:users:activity!user=zoe",
        "read:users:groups!user=zoe",
        "read:users:name!user=zoe",
        "users:activity!user=zoe",
    }
    for method, path in (
        ("GET", "users"),
        ("POST", "users/zoe/tokens"),
        ("GET", "users/zoe/tokens"),
        ("POST", "users/zoe/servers/two"),
        ("DELETE", "users/zoe/server"),
        ("GET", "users/zoe/shared"),
        ("POST", "shares/zoe/"),
    ):
        assert hub.api(path, token, method).status_code in (403, 404), path
    for name in ("ada", "root-admin", "nobody"):
        assert hub.api(f"users/{name}/activity", token, "POST", json={}).status_code == 404
    assert hub.server_pid("zoe")
