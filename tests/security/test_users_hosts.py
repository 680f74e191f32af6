"""Where each user has a host of their own: what lies on one harms neither hub nor others."""

from __future__ import annotations

import pytest
from harness import free_port, resolve_to_loopback, serving

from minihub.web import cookies


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A hub with hosts below hub.test, where the servers of ada and eve run."""
    patch = pytest.MonkeyPatch()
    resolve_to_loopback(patch, "hub.test")
    port = free_port()
    config = {"port": port, "subdomain_host": f"http://hub.test:{port}"}
    with serving(tmp_path_factory.mktemp("hosts"), {"JupyterHub": config}) as hub:
        hub.host = lambda name: f"http://{name}.hub.test:{port}"
        for name in ("ada", "eve"):
            hub.browser(name).start_server(name)
        yield hub
    patch.undo()


@pytest.fixture
def ada(hub):
    """ada's browser, with her server open in it."""
    browser = hub.browser("ada")
    assert browser.follow("/user/ada/lab").json()["visitor"]["name"] == "ada"
    return browser


def cookie(browser, name: str) -> str:
    [found] = [one.value for one in browser.cookies if one.name == name]
    return found


# -- cookies -------------------------------------------------------------------------------------


def test_users_host_is_shown_no_login(hub, ada):
    """Whoever runs the server there sees the session id, and that opens nothing."""
    page = ada.get(hub.host("ada") + "/user/ada/lab").json()
    sent = cookies.read(page["headers"]["Cookie"])
    assert cookies.SESSION_ID in sent
    assert not {cookies.LOGIN, cookies.XSRF, cookies.DEVICE} & set(sent)
    thief = hub.browser()
    for name, (value, *_) in sent.items():
        thief.cookies.set(name, value, path="/")
    assert thief.get("/hub/home").headers["Location"].startswith("/hub/login")
    assert thief.get("/hub/api/user").status_code == 403
    login = thief.login("eve")
    assert login.status_code == 302  # the session is a new one, not the one that was laid down
    assert cookie(ada, cookies.SESSION_ID) not in [
        one.value for one in thief.cookies if one.name == cookies.SESSION_ID and one.domain != ""
    ]


def test_cookie_of_one_server_opens_no_other(hub, ada):
    [mine] = [
        one for one in ada.cookies if one.name.startswith("fake-") and "state" not in one.name
    ]
    assert mine.domain == "ada.hub.test"
    other = hub.browser()
    answer = other.get(
        hub.host("eve") + "/user/eve/lab", headers={"Cookie": f"{mine.name}={mine.value}"}
    )
    assert answer.status_code == 302 and "oauth2/authorize" in answer.headers["Location"]
    bearer = {"Authorization": f"token {mine.value}"}
    assert other.get(hub.host("ada") + "/user/ada/lab", headers=bearer).status_code == 200
    assert other.get(hub.host("eve") + "/user/eve/lab", headers=bearer).status_code == 302
    assert hub.api("users", mine.value).status_code == 403


def test_cookies_set_from_a_users_host_lock_nobody_out(hub, ada):
    """A sibling may set cookies for the whole domain; the hub takes those that prove themselves."""
    eve = hub.browser("eve")
    eve.get("/hub/home")
    tossed = "; ".join(
        [
            f"{cookies.LOGIN}=2|1:0|made-up",
            f"{cookies.XSRF}={cookie(eve, cookies.XSRF)}",
            f"{cookies.SESSION_ID}={cookie(eve, cookies.SESSION_ID)}",
        ]
    )
    own = f"{cookies.LOGIN}={cookie(ada, cookies.LOGIN)}"
    headers = {"Cookie": f"{tossed}; {own}"}
    assert hub.browser().get("/hub/api/user", headers=headers).json()["name"] == "ada"
    # And the secret of eve's forms is none of ada's.
    answer = hub.browser().post(
        "/hub/token", headers=headers, data={"_xsrf": cookie(eve, cookies.XSRF), "note": "x"}
    )
    assert answer.status_code == 403


# -- pages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["cors", "no-cors", "same-origin"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_script_on_a_users_host_reads_and_changes_nothing(hub, ada, method, mode):
    headers = {"Origin": hub.host("eve"), "Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": mode}
    path = "server" if method == "DELETE" else "tokens"
    answer = ada.request(method, f"/hub/api/users/ada/{path}", headers=headers)
    assert answer.status_code == 403
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert hub.server_pid("ada")


@pytest.mark.parametrize("path", ["/hub/logout", "/hub/spawn/carla?x=1"])
def test_link_on_anothers_host_logs_nobody_out_and_starts_nothing(hub, path):
    browser = hub.browser("carla")
    led = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-site"}
    for origin in ("eve.hub.test", "hub.test.evil.example", "carla.hub.test.evil.example", ""):
        port = hub.host("x").rpartition(":")[2]
        referer = {"Referer": f"http://{origin}:{port}/user/eve/"} if origin else {}
        asked = browser.get(path, headers=led | referer)
        assert asked.status_code == 200 and "<form" in asked.text, origin
    assert browser.get("/hub/home").status_code == 200
    assert hub.server_pid("carla") is None


def test_way_from_ones_own_server_is_not_asked_about(hub):
    """JupyterLab's "log out" leads from the user's own host to the hub's."""
    led = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-site"}
    for referer in (hub.host("dora") + "/", hub.host("dora") + "/user/dora/lab"):
        browser = hub.browser("dora")
        answer = browser.get("/hub/logout", headers=led | {"Referer": referer})
        assert answer.status_code == 302
        assert browser.get("/hub/home").status_code == 302


# -- the way to a server -------------------------------------------------------------------------


def test_code_for_one_server_is_sent_to_no_other_host(hub, ada):
    asked = ada.get(hub.host("ada") + "/user/ada/new").status_code
    assert asked == 200
    for uri in (
        hub.host("eve") + "/user/ada/oauth_callback",
        hub.host("eve") + "/user/eve/oauth_callback",
        hub.host("ada.eve") + "/user/ada/oauth_callback",
        hub.host("ADA") + "/user/ada/oauth_callback",
        hub.host("ada").replace("http:", "https:") + "/user/ada/oauth_callback",
        hub.host("ada").rpartition(":")[0] + "/user/ada/oauth_callback",
        hub.host("eve@ada") + "/user/ada/oauth_callback",
        "http://evil.example/user/ada/oauth_callback",
        "/user/ada/oauth_callback",
    ):
        query = {
            "client_id": "jupyterhub-user-ada",
            "redirect_uri": uri,
            "response_type": "code",
            "state": "s",
        }
        answer = ada.get("/hub/api/oauth2/authorize", params=query)
        assert answer.status_code == 400 and "Location" not in answer.headers, uri


def test_login_leads_back_to_paths_only(hub):
    """A ``next`` that names another user's host is a path of the hub's own, or nothing."""
    browser = hub.browser("fay")
    for target in (
        hub.host("eve") + "/user/eve/x",
        hub.host("eve") + "//evil.example/",
        hub.host("eve") + "@evil.example/",
        "http:///evil.example/",
        "\\\\evil.example/",
        "/\\evil.example/",
    ):
        place = browser.get("/hub/login", params={"next": target}).headers["Location"]
        assert place.startswith("/") and not place.startswith(("//", "/\\")), (target, place)
