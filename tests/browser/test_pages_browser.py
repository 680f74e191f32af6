"""Every page of the hub in a real browser: it works, it fits, it is quiet; pictures are kept."""

from __future__ import annotations

import pytest
from harness import HubProcess, serving
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

PASSWORD = "right"
HUB = {
    "JupyterHub": {"allow_named_servers": True, "admin_access": True},
    "DummyAuthenticator": {"password": PASSWORD},
    "Authenticator": {"allow_all": False, "allowed_users": ["ada"]},
}


@pytest.fixture
def misbehaving_hub(tmp_path):
    """Start a hub whose servers misbehave as ``fake_singleuser.py`` says."""
    hubs = []

    def start(mode: str, **options: int) -> HubProcess:
        config = {"Spawner": {"environment": {"FAKE_MODE": mode}}, "LocalProcessSpawner": options}
        hubs.append(HubProcess(tmp_path / mode, config).wait_ready())
        return hubs[-1]

    yield start
    for hub in hubs:
        assert hub.stop() == 0, hub.text


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A hub with everything switched on that has a page."""
    with serving(tmp_path_factory.mktemp("pages") / "hub", HUB) as hub:
        yield hub


def test_login_page_says_what_was_wrong(hub, new_person):
    person = new_person(hub)
    person.open("/hub/home")
    person.wait_path("/hub/login")
    person.page.fill("#password_input", "seen")
    person.page.click("#toggle_password_visibility")
    expect(person.page.locator("#password_input")).to_have_attribute("type", "text")
    person.log_in("ada", "wrong")
    person.sees("Invalid username or password")
    expect(person.page.locator("#username_input")).to_have_value("ada")
    person.look("page-login-wrong")
    person.log_in("mallory", PASSWORD)
    person.sees("Your password is right, but you may not enter yet")
    person.look("page-login-not-allowed")
    person.log_in("ada", PASSWORD)
    person.sees("Hello, ada")


def test_named_servers_tokens_and_errors(hub, new_person):
    ada = new_person(hub)
    ada.open("/hub/home")
    ada.log_in("ada", PASSWORD)
    ada.page.fill("#new-server-name", "experiment-1")
    ada.page.get_by_role("button", name="Start", exact=True).click()
    ada.page.wait_for_url("**/user/ada/**")
    ada.open("/hub/home")
    ada.sees("experiment-1")
    ada.look("page-home-named")
    ada.picture("home")

    ada.page.get_by_role("link", name="Tokens").click()
    ada.look("page-token-empty")
    ada.page.fill("#token-note", "a script of mine")
    ada.page.click("#request-token")
    ada.sees("Your new token")
    token = ada.page.input_value("#token-result")
    answer = ada.page.request.get(
        hub.url + "hub/api/user", headers={"Authorization": f"token {token}"}
    )
    assert answer.status == 200 and answer.json()["name"] == "ada"
    ada.look("page-token-new")
    ada.open("/hub/account")
    ada.sees("Chromium on Linux")
    ada.sees("this browser")
    ada.look("page-account")
    ada.open("/hub/nowhere", status=404)
    ada.look("page-404")


def test_admin_page_and_consent_to_enter_somebody_elses_server(hub, new_person):
    ada, admin = new_person(hub), new_person(hub)
    ada.open("/hub/home")
    ada.log_in("ada", PASSWORD)
    ada.page.click("#start")
    ada.wait_path("/user/ada/.*")
    admin.open("/hub/home")
    admin.log_in("root-admin", PASSWORD)
    admin.page.get_by_role("link", name="Admin", exact=True).click()
    admin.sees("ada")
    expect(admin.page.locator('[data-live="memory:ada/"]')).to_contain_text("MB")
    admin.look("page-admin")
    admin.page.get_by_role("link", name="ada", exact=True).click()
    admin.sees("Delete this user")
    admin.look("page-admin-user")
    admin.page.get_by_role("link", name="Log ada", exact=True).click()
    admin.sees("Log of the server of ada")
    admin.look("page-log")
    for path, name in (("cull", "Idle servers"), ("audit", "Audit list")):
        admin.open(f"/hub/admin/{path}")
        admin.page.get_by_role("heading", name=name).wait_for()
        admin.look(f"page-admin-{path}")
    admin.open("/hub/admin/announcements")
    admin.page.fill("#notice-text", "On Friday from 6 to 7 the hub is down.")
    admin.page.get_by_role("button", name="Announce").click()
    admin.look("page-admin-announcements")
    admin.page.get_by_role("button", name="Take back").click()
    admin.sees("Nothing is announced.")
    admin.open("/user/ada/")
    admin.sees("Let it act for you?")
    admin.look("page-consent")
    admin.page.get_by_role("button", name="Authorize").click()
    admin.wait_path("/user/ada/")
    admin.sees('"name": "root-admin"')


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no-scripts"])
def test_chosen_theme_and_language_stay(hub, new_person, scripts):
    person = new_person(hub, java_script_enabled=scripts)
    person.open("/hub/login?next=%2Fhub%2Ftoken")
    root = person.page.locator("html")
    menu = person.page.locator("#dark-theme-toggle")
    menu.click()
    if scripts:
        person.look("page-display-menu")
    person.page.get_by_role("button", name="Dark", exact=True).click()
    expect(root).to_have_attribute("data-theme", "dark")
    person.page.reload()
    expect(root).to_have_attribute("data-theme", "dark")
    person.open("/hub/health-of-nothing", status=404)
    expect(root).to_have_attribute("data-theme", "dark")
    menu.click()
    chosen = person.page.get_by_role("button", name="Dark", exact=True)
    expect(chosen).to_have_attribute("aria-pressed", "true")
    person.page.get_by_role("button", name="As the system").click()
    expect(root).not_to_have_attribute("data-theme", "dark")

    person.open("/hub/login?next=%2Fhub%2Ftoken")
    menu.click()
    person.page.get_by_role("button", name="Deutsch").click()
    expect(root).to_have_attribute("lang", "de")
    assert person.page.url.endswith("/hub/login?next=%2Fhub%2Ftoken")
    menu.click()
    person.page.locator('[name="language"][value="auto"]').click()
    expect(root).to_have_attribute("lang", "en")


def test_printed_page_is_dark_on_white_and_without_controls(hub, new_person):
    person = new_person(hub)
    person.open("/hub/token")
    person.log_in("ada", PASSWORD)
    person.wait_path("/hub/token")
    person.page.emulate_media(media="print", color_scheme="dark")
    for selector in (".topbar-links", ".topbar-tools", "#request-token"):
        expect(person.page.locator(selector)).to_be_hidden()
    body = person.page.locator("body")
    expect(body).to_have_css("background-color", "rgb(255, 255, 255)")
    expect(person.page.locator("h1")).to_have_css("color", "rgb(0, 0, 0)")


def test_admin_page_stays_current_by_itself(hub, new_person):
    """Somebody's start and stop show without a reload, and nothing moves under one's fingers."""
    admin = new_person(hub)
    admin.open("/hub/home")
    admin.log_in("root-admin", PASSWORD)
    admin.wait_path("/hub/home")
    admin.open("/hub/admin")
    admin.page.fill("#add-names", "eva")
    admin.page.click("#add-users button")
    admin.open("/hub/admin?q=eva")
    status = admin.page.locator('[data-live="status:eva/"]')
    expect(status).to_have_text("Not running")
    admin.page.evaluate("document.body.dataset.same = 'yes'")
    admin.page.request.post(
        hub.url + "hub/admin/start/eva",
        form={"_xsrf": admin.page.evaluate("window.jhdata.xsrf_token")},
    )
    expect(status).to_have_text("Running")
    admin.page.get_by_role("button", name="Stop eva").focus()
    expect(admin.page.locator('[data-live="memory:eva/"]')).to_contain_text("MB")
    expect(admin.page.get_by_role("button", name="Stop eva")).to_be_focused()
    assert admin.page.evaluate("document.body.dataset.same") == "yes"
    admin.page.keyboard.press("Enter")
    expect(status).to_have_text("Not running")


def test_start_that_takes_long_is_watched_and_cancelled(misbehaving_hub, new_person):
    hub = misbehaving_hub("mute")
    person = new_person(hub)
    person.open("/hub/home")
    person.log_in("ada", "pw")
    person.page.click("#start")
    person.wait_path("/hub/spawn-pending/ada")
    expect(person.page.locator("#progress-message")).not_to_have_text("Getting ready …")
    person.page.click("#progress-details summary")
    person.look("page-spawn-pending")
    person.picture("starting")
    person.open("/hub/home")
    person.sees("Starting")
    person.look("page-home-starting")
    person.page.get_by_role("link", name="See how it goes").click()
    person.page.get_by_role("button", name="Cancel").click()
    person.wait_path("/hub/home")
    expect(person.page.get_by_role("link", name="Start my server")).to_be_visible()


def test_profile_is_chosen_before_the_start(tmp_path, new_person):
    profiles = [
        {"name": "Small", "description": "For most courses: 1 GB of memory.", "mem_limit": "1G"},
        {"name": "Large", "description": "For big data: 4 GB of memory.", "mem_limit": "4G"},
    ]
    hub = HubProcess(tmp_path / "hub", {"Spawner": {"profiles": profiles}}).wait_ready()
    person = new_person(hub)
    person.open("/hub/home")
    person.log_in("ada", "pw")
    person.wait_path("/hub/home")
    person.page.click("#start")
    person.sees("For big data")
    person.look("page-profiles")
    person.page.get_by_role("radio", name="Large").check(force=True)
    person.page.get_by_role("button", name="Start").click()
    person.wait_path("/user/ada/.*")
    person.open("/hub/home")
    person.sees("4 GB")
    person.look("page-home-use")
    assert hub.stop() == 0, hub.text


def test_stop_that_takes_long_is_watched(misbehaving_hub, new_person):
    hub = misbehaving_hub("stubborn", interrupt_timeout=6, term_timeout=1)
    person = new_person(hub)
    person.open("/hub/home")
    person.log_in("ada", "pw")
    person.page.click("#start")
    person.wait_path("/user/ada/.*")
    person.open("/hub/home")
    person.page.get_by_role("button", name="Stop my server").click()
    person.sees("Stopping")
    person.look("page-home-stopping", "light")
    person.open("/hub/spawn-pending/ada")
    person.sees("Stopping your server")
    person.look("page-stop-pending")
    person.sees("Your server is not running")  # the page looks again by itself


def test_failed_start_shows_why(misbehaving_hub, new_person):
    hub = misbehaving_hub("exit")
    person = new_person(hub)
    person.open("/hub/home")
    person.log_in("ada", "pw")
    person.page.click("#start")
    person.sees("Your server did not start")
    person.sees("No module named")
    person.look("page-not-started")
    person.picture("failed")
    person.open("/hub/home")
    person.sees("Did not start")
    person.look("page-home-failed")


def test_every_page_without_javascript(hub, new_person):
    admin = new_person(hub, java_script_enabled=False)
    admin.open("/hub/home")
    admin.log_in("root-admin", PASSWORD)
    admin.wait_path("/hub/home")
    for path in ("home", "token", "account", "admin", "admin/cull", "admin/announcements",
                 "admin/audit", "admin/user/ada", "api-docs"):  # fmt: skip
        admin.open(f"/hub/{path}")
        admin.look(f"page-noscript-{path.replace('/', '-')}", "light", "phone")
    admin.open("/hub/nowhere", status=404)
    admin.look("page-noscript-404", "light")


def test_whole_way_without_javascript(hub, new_person):
    person = new_person(hub, java_script_enabled=False)
    person.open("/hub/login")
    person.look("page-login-noscript", "light")
    person.log_in("ada", PASSWORD)
    person.open("/hub/spawn/ada/plain")
    person.wait_path("/user/ada/plain/.*")  # the pending page reloads by itself
    person.sees('"name": "ada"')
    person.open("/hub/home")
    row = person.page.locator('[data-server-name="plain"]')
    row.get_by_role("button", name="Stop").click()
    expect(row.get_by_role("link", name="Start")).to_be_visible()
    person.page.get_by_role("link", name="Log out").click()
    person.wait_path("/hub/login")
