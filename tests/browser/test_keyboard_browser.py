"""Whoever cannot use a mouse, sees little, or wants no motion: what the hub is for them.

Tab, Enter, Escape and typing are all that is pressed here; what has the focus can always be seen.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from harness import HubProcess, serving
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
    with serving(tmp_path_factory.mktemp("keyboard") / "hub", config) as hub:
        yield hub


@pytest.fixture(scope="module")
def class_hub(tmp_path_factory):
    config = class_tools.classroom("open")
    hub = HubProcess(tmp_path_factory.mktemp("class") / "hub", config).wait_ready()
    yield hub
    assert hub.stop() == 0, hub.text


def press(person, selector: str) -> None:
    """Go to a link or button and press it."""
    person.tab_to(selector)
    person.page.keyboard.press("Enter")


def write(person, selector: str, text: str) -> None:
    """Go to a field and write into it."""
    person.tab_to(selector)
    person.page.keyboard.type(text)


def log_in(person, name: str, page: str) -> None:
    """Log in by the keyboard, on the way to ``page``."""
    person.open(page)
    write(person, "#username_input", name)
    write(person, "#password_input", PASSWORD)
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
    press(person, "#dark-theme-toggle")
    press(person, '[name="theme"][value="dark"]')
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.keyboard.press("Escape")
    expect(page.locator("#display-menu")).not_to_have_attribute("open", "")
    expect(page.locator("#dark-theme-toggle")).to_be_focused()
    log_in(person, "ada", "/hub/home")
    press(person, "#start")
    person.wait_path("/user/ada/.*")
    person.open("/hub/home")
    press(person, "#stop")
    person.sees("Start my server")
    press(person, "#logout")
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
    write(person, "#username_input", "zoe")
    write(person, "#password_input", CLASS_PASSWORD)
    write(person, "#again_input", "something else")
    page.keyboard.press("Enter")
    # The browser tells it at the field, and the form has not gone.
    again = page.locator("#again_input")
    expect(again).to_be_focused()
    assert again.evaluate("field => field.validationMessage") == DIFFERENT
    assert "At least" in described(person, "#password_input")
    page.keyboard.press("Control+A")
    page.keyboard.type(CLASS_PASSWORD)
    press(person, "#join_submit")
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
    press(person, "#request-token-form summary")
    write(person, "#token-scopes", "nonsense")
    page.keyboard.press("Enter")
    person.sees("there is no scope")
    expect(page.locator("#token-scopes")).to_be_visible()
    assert "there is no scope" in described(person, "#token-scopes")
    person.open("/hub/token")
    write(person, "#token-note", "by keys")
    press(person, "#request-token")
    person.sees("Your new token")
    expect(page.locator("#token-result")).to_be_focused()
    press(person, '[data-copy="token-result"]')
    row = page.locator("tr", has=page.get_by_text("by keys"))
    expect(row).to_have_count(1)
    press(person, "#api-tokens-table .revoke-token-btn")
    expect(row).to_have_count(0)


def test_admins_rows_and_dialogs(hub, new_person):
    person = new_person(hub)
    page = person.page
    log_in(person, "root-admin", "/hub/admin")
    press(person, 'a[href="#add-users"]')
    write(person, "#add-names", "kim lee")
    press(person, "#add-users button")
    person.sees("kim")
    write(person, "#admin-search", "kim")
    page.keyboard.press("Enter")
    expect(page.locator("tbody[data-user]")).to_have_count(1)
    press(person, '[data-user="kim"] .actions button')
    expect(page.locator('[data-live="status:kim/"]')).to_have_text("Running")
    stop_all = page.locator("summary", has_text="Stop all servers")
    press(person, ".confirm summary")
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
    press(person, ".confirm summary")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator('[data-live="status:kim/"]')).to_have_text("Not running")
    press(person, '[data-user="kim"] th a')
    person.wait_path("/hub/admin/user/kim")
    write(person, "#delete-confirm", "lee")
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
