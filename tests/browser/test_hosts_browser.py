"""Hosts of users (``subdomain_host``) in a real browser: which cookies go where."""

import json
import shutil

import pytest
from harness import HubProcess, free_port, make_certificate, resolve_to_loopback
from people import FLAGS, TIMEOUT_MS
from playwright.sync_api import sync_playwright

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

RULES = "--host-resolver-rules=MAP hub.test 127.0.0.1, MAP *.hub.test 127.0.0.1, MAP * ~NOTFOUND"


@pytest.fixture(scope="module", params=["http", "https"])
def hub(request, tmp_path_factory):
    """A hub whose users have hosts below hub.test; by https with cookies that no host can set."""
    patch = pytest.MonkeyPatch()
    resolve_to_loopback(patch, "hub.test")
    port = free_port()
    directory = tmp_path_factory.mktemp("hosts")
    options = {"port": port, "subdomain_host": f"{request.param}://hub.test:{port}"}
    verify = True
    if request.param == "https":
        key, cert = make_certificate(directory, "hub.test", "*.hub.test")
        options |= {"ssl_key": str(key), "ssl_cert": str(cert), "cookie_host_prefix_enabled": True}
        verify = str(cert)
    hub = HubProcess(directory / "hub", {"JupyterHub": options}).wait_ready(verify=verify)
    hub.prefix = "__Host-" if request.param == "https" else ""
    yield hub
    assert hub.stop() == 0, hub.text
    patch.undo()


@pytest.fixture(scope="module")
def chromium():
    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    program = next(filter(None, found), None)
    assert program, "the browser tests need Chromium (Debian: apt install chromium)"
    flags = [flag for flag in FLAGS if not flag.startswith("--host-resolver-rules")]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*flags, RULES])
        yield browser
        browser.close()


@pytest.fixture
def visit(hub, chromium):
    """Seat somebody at a browser: they log in and are where that leads."""
    contexts = []

    def seat(name, target=""):
        context = chromium.new_context(ignore_https_errors=True)
        context.set_default_timeout(TIMEOUT_MS)
        contexts.append(context)
        page = context.new_page()
        page.goto(hub.url + target)
        page.fill("#username_input", name)
        page.fill("#password_input", "pw")
        page.click("#login_submit")
        return page

    yield seat
    for context in contexts:
        context.close()


def host_of(hub, name):
    """Return where somebody's server is: ``scheme://NAME.hub.test:port/user/NAME/``."""
    return hub.url.replace("://", f"://{name}.") + f"user/{name}/"


def told(page):
    """Return what the server says of the request it got, which is all that it shows."""
    return json.loads(page.inner_text("body"))


def test_login_stays_with_the_hub_and_the_session_goes_to_users_hosts(hub, visit):
    page = visit("ada")
    page.wait_for_url(host_of(hub, "ada") + "**")
    assert told(page)["visitor"]["name"] == "ada"
    sent = told(page)["headers"]["Cookie"]
    assert f"{hub.prefix}jupyterhub-hub-login=" not in sent
    assert "jupyterhub-session-id=" in sent
    cookies = {one["name"]: one for one in page.context.cookies()}
    login = cookies[f"{hub.prefix}jupyterhub-hub-login"]
    assert login["domain"] == "hub.test" and login["httpOnly"]
    assert login["path"] == ("/" if hub.prefix else "/hub/")
    assert cookies["jupyterhub-session-id"]["domain"] == ".hub.test"
    assert login["secure"] is bool(hub.prefix)
    # Scripts on a user's host see neither.
    assert "hub-login" not in page.evaluate("document.cookie")


def test_nobody_enters_the_host_of_somebody_else(hub, visit):
    visit("ada").wait_for_url(host_of(hub, "ada") + "**")
    page = visit("ben", "hub/home")
    page.wait_for_url(hub.url + "hub/home")
    response = page.goto(host_of(hub, "ada"))
    assert response.status == 403 and page.url.startswith(hub.url + "hub/api/oauth2/authorize")


def test_users_host_cannot_change_who_is_logged_in_at_the_hub(hub, visit):
    page = visit("ada")
    page.wait_for_url(host_of(hub, "ada") + "**")
    name = f"{hub.prefix}jupyterhub-hub-login"
    for path in ("/", "/hub/", "/hub/home"):
        page.evaluate(f"document.cookie = '{name}=tossed; domain=hub.test; path={path}'")
    page.goto(hub.url + "hub/home")
    assert page.url == hub.url + "hub/home" and "ada" in page.inner_text("body")


def test_logging_out_at_the_hub_ends_it_on_the_users_host_too(hub, visit):
    page = visit("ada")
    page.wait_for_url(host_of(hub, "ada") + "**")
    page.goto(hub.url + "hub/logout")
    page.goto(host_of(hub, "ada"))
    page.wait_for_url(hub.url + "hub/login?**")
