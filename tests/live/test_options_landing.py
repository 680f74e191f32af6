"""Options about where people go, how long things last, and when activity is noted."""

import time

import pytest
import requests
from harness import (
    free_port,
    make_certificate,
    merge,
    python_config,
    resolve_to_loopback,
    serving,
)
from harness import until as wait_until

TOKEN = "t" * 32
NAMED = {"JupyterHub": {"allow_named_servers": True}}


def where(response):
    """Return where a redirect leads."""
    assert response.status_code in (302, 303), response.text
    return response.headers["Location"]


# -- where people go -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A hub where several of these options have values that do not disturb each other."""
    config = {
        "default_url": "/hub/token",
        "redirect_to_server": False,
        "shutdown_on_logout": True,
        "implicit_spawn_seconds": 1.5,
        "use_legacy_stopped_server_status_code": True,
        "token_expires_in_max_seconds": 3600,
        "oauth_token_expires_in": 1200,
        "api_tokens": {TOKEN: "root-admin"},
        "api_page_default_limit": 2,
        "api_page_max_limit": 4,
    }
    with serving(tmp_path_factory.mktemp("plain"), {"JupyterHub": config}) as hub:
        yield hub


def test_default_url_is_where_people_go_who_ask_for_nothing(plain):
    assert where(plain.browser().get("/hub/")) == "/hub/token"
    browser = plain.browser()
    assert where(browser.login("ada")) == "/hub/token"
    assert where(plain.browser().login("ada", target="/hub/home")) == "/hub/home"


def test_default_url_may_be_a_function(start_hub, tmp_path):
    lines = (
        "async def place(handler):\n"
        "    user = handler.current_user\n"
        "    return f'/for/{user.name}' if user else ''\n"
        "c.JupyterHub.default_url = place\n"
    )
    hub = start_hub(**python_config(tmp_path / "own", lines))
    assert where(hub.browser().get("/hub/")).startswith("/hub/login")
    assert where(hub.browser("ada").get("/hub/")) == "/for/ada"


@pytest.mark.parametrize("to_server, expected", [(True, "/hub/spawn"), (False, "/hub/home")])
def test_redirect_to_server_decides_where_a_login_leads(start_hub, to_server, expected):
    hub = start_hub({"JupyterHub": {"redirect_to_server": to_server}})
    browser = hub.browser()
    assert where(browser.login("ada")) == expected
    assert where(browser.get("/hub/")) == expected
    browser.start_server("ada")
    assert where(browser.get("/hub/")) == "/user/ada/"


def test_shutdown_on_logout_stops_the_users_servers(plain):
    browser = plain.browser("leaver")
    browser.start_server("leaver")
    assert browser.follow("/user/leaver/").status_code == 200
    browser.get("/hub/logout")
    wait_until(lambda: plain.api("users/leaver", TOKEN).json()["servers"] == {})


def test_user_redirect_hook_says_where_shared_links_lead(start_hub, tmp_path):
    lines = (
        "def hook(path, request, user, base_url):\n"
        "    if path.startswith('own'):\n"
        "        return None\n"
        "    return f'{base_url}elsewhere/{user.name}/{path}?{request.query}'\n"
        "c.JupyterHub.user_redirect_hook = hook\n"
    )
    hub = start_hub(**python_config(tmp_path / "own", lines))
    browser = hub.browser("ada")
    lead = where(browser.get("/hub/user-redirect/lab/tree/a%20b.ipynb?x=1"))
    assert lead == "/elsewhere/ada/lab/tree/a%20b.ipynb?x=1"
    assert where(browser.get("/hub/user-redirect/own/page")).startswith("/hub/spawn/ada?next=")


def test_default_server_name_is_meant_where_none_is_named(start_hub):
    config = merge(NAMED, {"JupyterHub": {"default_server_name": "lab"}})
    hub = start_hub(config)
    browser = hub.browser()
    assert where(browser.login("ada")) == "/hub/spawn/ada/lab"
    lead = where(browser.get("/hub/user-redirect/tree"))
    assert lead == "/hub/spawn/ada/lab?next=%2Fuser%2Fada%2Flab%2Ftree"
    browser.start_server("ada/lab")
    assert where(browser.get("/hub/user-redirect/tree?a=1")) == "/user/ada/lab/tree?a=1"
    assert where(browser.get("/hub/")) == "/user/ada/lab/"


def test_default_server_name_that_cannot_be_one_is_refused(start_hub):
    hub = start_hub(merge(NAMED, {"JupyterHub": {"default_server_name": "A b"}}), wait=False)
    assert hub.process.wait(20) == 3
    assert "JupyterHub.default_server_name" in hub.text


def test_implicit_spawn_seconds_is_in_the_page(plain):
    page = plain.browser("idler").get("/hub/user/idler/lab").text
    assert 'data-go-after="1.5"' in page and "/hub/spawn/idler?next=" in page


def test_legacy_status_of_a_server_that_does_not_run(plain):
    browser = plain.browser("away")
    assert browser.get("/hub/user/away/lab").status_code == 503
    answer = browser.get("/hub/user/away/api/status")
    assert answer.status_code == 503 and "no longer running" in answer.json()["message"]


def test_pages_of_lists_are_as_long_as_they_are_told(plain):
    names = [f"page{number}" for number in range(6)]
    assert plain.api("users", TOKEN, "POST", json={"usernames": names}).status_code == 201
    assert len(plain.api("users", TOKEN).json()) == 4
    assert len(plain.api("users?limit=100", TOKEN).json()) == 4
    paged = {"Authorization": f"token {TOKEN}", "Accept": "application/jupyterhub-pagination+json"}
    page = requests.get(plain.url + "hub/api/users", headers=paged, timeout=10).json()
    assert len(page["items"]) == 2 and page["_pagination"]["next"]["limit"] == 2


# -- how long things last --------------------------------------------------------------------------


def test_token_expires_in_max_seconds_bounds_new_tokens(plain):
    made = plain.api("users/root-admin/tokens", TOKEN, "POST", json={})
    assert made.status_code == 201
    row = plain.rows("select created, expires_at from api_tokens order by id desc limit 1")[0]
    hours = {text[11:13] for text in row}
    assert len(hours) == 2  # an hour later
    longer = plain.api("users/root-admin/tokens", TOKEN, "POST", json={"expires_in": 3601})
    assert longer.status_code == 400 and "must not exceed 3600" in longer.json()["message"]
    assert "until it is revoked" not in plain.browser("ada").get("/hub/token").text


def test_oauth_token_expires_in_is_told_and_kept(plain):
    browser = plain.browser("visitor")
    browser.start_server("visitor")
    assert browser.follow("/user/visitor/").status_code == 200
    query = (
        "select t.created, t.expires_at from api_tokens t join users u on u.id = t.user_id "
        "where u.name = 'visitor' and t.oauth_client_id is not null"
    )
    ((created, expires),) = plain.rows(query)
    from minihub import clock

    lasts = clock.parse(expires) - clock.parse(created)
    assert lasts.total_seconds() == pytest.approx(1200, abs=2)


def test_oauth_require_pkce_refuses_who_offers_none(start_hub):
    hub = start_hub({"JupyterHub": {"oauth_require_pkce": True}})
    browser = hub.browser("ada")
    browser.start_server("ada")  # the stand-in for a server offers none
    callback = browser.get("/user/ada/").headers["Location"]
    answer = browser.get(callback)
    assert "error=invalid_request" in where(answer) and "challenge" in where(answer)


# -- cookies ---------------------------------------------------------------------------------------


def test_cookie_host_prefix_keeps_users_hosts_from_setting_cookies(
    start_hub, tmp_path, monkeypatch
):
    resolve_to_loopback(monkeypatch, "hub.test")
    key, cert = make_certificate(tmp_path, "hub.test", "*.hub.test")
    port = free_port()
    config = {
        "port": port,
        "subdomain_host": f"https://hub.test:{port}",
        "ssl_key": str(key),
        "ssl_cert": str(cert),
        "cookie_host_prefix_enabled": True,
    }
    hub = start_hub({"JupyterHub": config}, ready={"verify": str(cert)})
    browser = hub.browser()
    answer = browser.login("ada")
    cookies = {one.partition("=")[0]: one for one in answer.raw.headers.getlist("Set-Cookie")}
    login = cookies["__Host-jupyterhub-hub-login"]
    assert "Path=/;" in login and "Secure" in login and "Domain" not in login
    browser.start_server("ada")
    page = browser.follow("/user/ada/").json()
    assert page["env"]["JUPYTERHUB_COOKIE_HOST_PREFIX_ENABLED"] == "1"
    value = browser.cookies["__Host-jupyterhub-hub-login"]
    tossed = hub.browser().get("/hub/home", cookies={"jupyterhub-hub-login": value})
    assert where(tossed).startswith("/hub/login")


def test_cookie_host_prefix_without_subdomains_is_refused(start_hub):
    hub = start_hub({"JupyterHub": {"cookie_host_prefix_enabled": True}}, wait=False)
    assert hub.process.wait(20) == 3
    assert "JupyterHub.cookie_host_prefix_enabled: needs subdomain_host" in hub.text


# -- activity --------------------------------------------------------------------------------------


def seen(hub, name):
    """Return when a server and its user were last active."""
    query = (
        "select s.last_activity, u.last_activity from servers s join users u on u.id = s.user_id "
        "where u.name = ?"
    )
    return hub.rows(query, name)[0]


def noted_start(hub, name):
    """Wait until a server's start has been noted as its activity; return as :func:`seen`."""
    query = "select started from servers s join users u on u.id = s.user_id where u.name = ?"
    wait_until(lambda: seen(hub, name)[0] == hub.rows(query, name)[0][0])
    return seen(hub, name)


def test_activity_that_the_proxy_saw_is_collected(start_hub):
    config = {"last_activity_interval": 1, "activity_resolution": 0}
    hub = start_hub({"JupyterHub": config | {"api_tokens": {TOKEN: "root-admin"}}})
    browser = hub.browser("ada")
    browser.start_server("ada")
    browser.follow("/user/ada/")
    before = seen(hub, "ada")

    def is_later():
        assert requests.get(hub.url + "user/ada/api", timeout=5).status_code == 200
        return seen(hub, "ada")[0] > before[0]

    wait_until(is_later, 10)
    idle = time.monotonic() + 1.5
    wait_until(lambda: time.monotonic() > idle)
    after = seen(hub, "ada")
    assert after[1] >= after[0]
    # Nothing moves while nobody does anything, nor back when an older time is reported.
    old = {"servers": {"": {"last_activity": "2020-01-01T00:00:00Z"}}}
    assert hub.api("users/ada/activity", TOKEN, "POST", json=old).status_code == 200
    collected = time.monotonic() + 2.5
    wait_until(lambda: time.monotonic() > collected)
    assert seen(hub, "ada")[0] == after[0]


def test_small_steps_of_activity_are_not_written(start_hub):
    config = {"last_activity_interval": 1, "activity_resolution": 600}
    hub = start_hub({"JupyterHub": config})
    browser = hub.browser("ada")
    browser.start_server("ada")
    before = noted_start(hub, "ada")
    for _ in range(5):
        requests.get(hub.url + "user/ada/api", timeout=5)
    collected = time.monotonic() + 2.5
    wait_until(lambda: time.monotonic() > collected)
    assert seen(hub, "ada")[0] == before[0]
