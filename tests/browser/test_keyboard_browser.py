"""Whoever cannot use a mouse, sees little, or wants no motion: what the hub is for them.

Tab, Enter, Escape and typing are all that is pressed here; what has the focus can always be seen.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from harness import HubProcess
from people import LOOKS
from playwright.sync_api import expect

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "live"))

import class_tools  # noqa: E402

pytestmark = pytest.mark.browser

PASSWORD = "right"
CLASS_PASSWORD = "kind of blue"
DIFFERENT = "The two passwords are not the same."


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    config = {
        "JupyterHub": {"allow_named_servers": True, "admin_access": True},
        "DummyAuthenticator": {"password": PASSWORD},
    }
    hub = HubProcess(tmp_path_factory.mktemp("keyboard") / "hub", config).wait_ready()
    yield hub
    assert hub.stop() == 0, hub.text
    assert "Traceback" not in hub.text, hub.text


@pytest.fixture(scope="module")
def class_hub(tmp_path_factory):
    config = class_tools.classroom("open")
    hub = HubProcess(tmp_path_factory.mktemp("class") / "hub", config).wait_ready()
    yield hub
    assert hub.stop() == 0, hub.text


def log_in(person, name: str, page: str) -> None:
    """Log in by the keyboard, on the way to ``page``."""
    person.open(page)
    person.tab_to("#username_input")
    person.page.keyboard.type(name)
    person.tab_to("#password_input")
    person.page.keyboard.type(PASSWORD)
    person.page.keyboard.press("Enter")
    person.wait_path(page)


def described(person, selector: str) -> str:
    """Return what a screen reader says of a field beside its label."""
    return person.page.eval_on_selector(
        selector,
        """field => (field.getAttribute('aria-describedby') || '').split(' ').filter(Boolean)
            .map(id => document.getElementById(id).textContent.trim()).join(' ')""",
    )


def test_logs_in_starts_and_stops(hub, new_person):
    person = new_person(hub)
    page = person.page
    person.open("/hub/login")
    page.keyboard.press("Tab")
    page.evaluate("document.activeElement.blur()")
    person.tab_to("a.skip-link")
    expect(page.locator("a.skip-link")).to_be_in_viewport()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.evaluate("document.activeElement.blur()")
    person.tab_to("#dark-theme-toggle")
    page.keyboard.press("Enter")
    person.tab_to('[name="theme"][value="dark"]')
    page.keyboard.press("Enter")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.keyboard.press("Escape")
    expect(page.locator("#display-menu")).not_to_have_attribute("open", "")
    expect(page.locator("#dark-theme-toggle")).to_be_focused()
    log_in(person, "ada", "/hub/home")
    person.tab_to("#start")
    page.keyboard.press("Enter")
    person.wait_path("/user/ada/.*")
    person.open("/hub/home")
    person.tab_to("#stop")
    page.keyboard.press("Enter")
    person.sees("Start my server")
    person.tab_to("#logout")
    page.keyboard.press("Enter")
    person.wait_path("/hub/login")


def test_wrong_login_is_told_with_the_fields_it_is_about(hub, new_person):
    person = new_person(hub)
    person.open("/hub/login")
    assert described(person, "#password_input") == ""
    person.log_in("ada", "wrong")
    person.sees("Invalid username or password")
    for field in ("#username_input", "#password_input"):
        assert described(person, field) == "Invalid username or password"
        expect(person.page.locator(field)).to_have_attribute("aria-invalid", "true")
    expect(person.page.locator("#form-error")).to_have_attribute("role", "alert")


def test_wrong_fields_are_told_without_javascript_too(class_hub, new_person):
    person = new_person(class_hub, java_script_enabled=False)
    page = person.page
    person.open("/hub/join")
    page.fill("#username_input", "zoe")
    page.fill("#password_input", CLASS_PASSWORD)
    page.fill("#again_input", "something else")
    page.click("#join_submit")
    person.sees(DIFFERENT)
    for field in ("#password_input", "#again_input"):
        assert DIFFERENT in described(person, field)
        expect(page.locator(field)).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#username_input")).to_have_value("zoe")
    expect(page.locator("#username_input")).not_to_have_attribute("aria-invalid", "true")


def test_joins_a_class_after_a_mistake(class_hub, new_person):
    person = new_person(class_hub)
    page = person.page
    person.open("/hub/join")
    person.tab_to("#username_input")
    page.keyboard.type("zoe")
    person.tab_to("#password_input")
    page.keyboard.type(CLASS_PASSWORD)
    person.tab_to("#again_input")
    page.keyboard.type("something else")
    page.keyboard.press("Enter")
    # The browser tells it at the field, and the form has not gone.
    again = page.locator("#again_input")
    expect(again).to_be_focused()
    assert again.evaluate("field => field.validationMessage") == DIFFERENT
    assert "At least" in described(person, "#password_input")
    page.keyboard.press("Control+A")
    page.keyboard.type(CLASS_PASSWORD)
    person.tab_to("#join_submit")
    page.keyboard.press("Enter")
    person.wait_path("/user/zoe/.*|/hub/spawn-pending/zoe|/hub/home")


@pytest.mark.parametrize(
    ("name", "told"),
    [("teacher", "This name is taken"), ("a/b", "it contains a slash")],
)
def test_name_that_is_not_to_be_had_is_told_with_its_field(class_hub, new_person, name, told):
    person = new_person(class_hub)
    person.open("/hub/join")
    person.page.fill("#username_input", name)
    person.page.fill("#password_input", CLASS_PASSWORD)
    person.page.fill("#again_input", CLASS_PASSWORD)
    person.page.click("#join_submit")
    person.sees(told)
    expect(person.page.locator("#username_input")).to_be_focused()
    assert told in described(person, "#username_input")
    assert told not in described(person, "#password_input")


def test_makes_and_revokes_a_token(hub, new_person):
    person = new_person(hub)
    page = person.page
    log_in(person, "ada", "/hub/token")
    person.tab_to("#request-token-form summary")
    page.keyboard.press("Enter")
    person.tab_to("#token-scopes")
    page.keyboard.type("nonsense")
    page.keyboard.press("Enter")
    person.sees("there is no scope")
    expect(page.locator("#token-scopes")).to_be_visible()
    assert "there is no scope" in described(person, "#token-scopes")
    person.open("/hub/token")
    person.tab_to("#token-note")
    page.keyboard.type("by keys")
    person.tab_to("#request-token")
    page.keyboard.press("Enter")
    person.sees("Your new token")
    expect(page.locator("#token-result")).to_be_focused()
    person.tab_to('[data-copy="token-result"]')
    page.keyboard.press("Enter")
    row = page.locator("tr", has=page.get_by_text("by keys"))
    expect(row).to_have_count(1)
    person.tab_to("#api-tokens-table .revoke-token-btn")
    page.keyboard.press("Enter")
    expect(row).to_have_count(0)


def test_admins_rows_and_dialogs(hub, new_person):
    person = new_person(hub)
    page = person.page
    log_in(person, "root-admin", "/hub/admin")
    person.tab_to('a[href="#add-users"]')
    page.keyboard.press("Enter")
    person.tab_to("#add-names")
    page.keyboard.type("kim lee")
    person.tab_to("#add-users button")
    page.keyboard.press("Enter")
    person.sees("kim")
    person.tab_to("#admin-search")
    page.keyboard.type("kim")
    page.keyboard.press("Enter")
    expect(page.locator("tbody[data-user]")).to_have_count(1)
    person.tab_to('[data-user="kim"] .actions button')
    page.keyboard.press("Enter")
    expect(page.locator('[data-live="status:kim/"]')).to_have_text("Running")
    stop_all = page.locator("summary", has_text="Stop all servers")
    person.tab_to(".confirm summary")
    page.keyboard.press("Enter")
    button = page.get_by_role("button", name="Stop all servers now")
    expect(button).to_be_visible()
    page.keyboard.press("Escape")  # the way back is where one came from
    expect(button).to_be_hidden()
    expect(stop_all).to_be_focused()
    page.keyboard.press("Enter")
    expect(button).to_be_visible()
    page.keyboard.press("Tab")
    expect(button).to_be_focused()
    page.keyboard.press("Tab")  # whoever goes on leaves it behind
    expect(button).to_be_hidden()
    person.tab_to(".confirm summary")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator('[data-live="status:kim/"]')).to_have_text("Not running")
    person.tab_to('[data-user="kim"] th a')
    page.keyboard.press("Enter")
    person.wait_path("/hub/admin/user/kim")
    person.tab_to("#delete-confirm")
    page.keyboard.type("lee")
    page.keyboard.press("Enter")
    person.sees("To delete this user, write their name into the field.")
    assert "write their name" in described(person, "#delete-confirm")
    expect(page.locator("#user-name")).not_to_have_attribute("aria-invalid", "true")


def test_motion_stops_for_those_who_want_none(hub, new_person):
    person = new_person(hub, reduced_motion="reduce")
    person.open("/hub/login")
    moving = person.page.evaluate(
        """() => {
            const made = document.createElement('div');
            made.innerHTML = '<progress></progress><span class="status status-pending">x</span>';
            document.querySelector('main').append(made);
            const bar = getComputedStyle(made.querySelector('progress'));
            const dot = getComputedStyle(made.querySelector('.status'), '::before');
            const button = getComputedStyle(document.querySelector('input[type=submit]'));
            return [bar.animationName, dot.animationName, button.transitionProperty];
        }"""
    )
    assert moving[:2] == ["none", "none"] and moving[2] in ("none", "all")


def test_everything_to_press_is_large_enough(hub, new_person):
    """24 by 24 px at least, but for links in the flow of a text and the browser's own boxes."""
    person = new_person(hub)
    log_in(person, "root-admin", "/hub/home")
    person.page.request.post(
        hub.url + "hub/admin/users",
        form={"_xsrf": person.page.evaluate("window.jhdata.xsrf_token"), "names": "max"},
    )
    small = []
    pages = ("home", "token", "account", "admin", "admin/user/max", "admin/announcements",
             "admin/audit", "admin/cull")  # fmt: skip
    for path in pages:
        person.open(f"/hub/{path}")
        for look, scheme, size in LOOKS:
            person.page.emulate_media(color_scheme=scheme)
            person.page.set_viewport_size(size)
            small += [
                f"{path} {look}: {one}"
                for one in person.page.evaluate(
                    """() => [...document.querySelectorAll(
                            'button, .btn, summary, select, input:not([type=hidden]), nav a')]
                        .filter(one => one.checkVisibility() && !one.matches('.visually-hidden *'))
                        .map(one => [one, one.getBoundingClientRect()])
                        .filter(([one, box]) => box.width && (box.width < 23.5 || box.height < 23.5)
                            && !one.matches('[type=checkbox], [type=radio]'))
                        .map(([one, box]) => `${one.outerHTML.slice(0, 80)} `
                            + `${box.width} x ${box.height}`)"""
                )
            ]
    assert small == []
