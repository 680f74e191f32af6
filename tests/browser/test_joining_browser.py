"""What the forms of a class do by themselves: names, passwords, and a list that stays current."""

import pytest
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

PASSWORD = "kind of blue"
CLASS = {
    "JupyterHub": {"authenticator_class": "classroom", "spawner_class": "simple"},
    "ClassroomAuthenticator": {"signup": "approve"},
}


def ask(person, name: str) -> None:
    """Fill in the form for joining and send it."""
    person.open("/hub/join")
    person.page.fill("#username_input", name)
    person.page.fill("#password_input", PASSWORD)
    person.page.fill("#again_input", PASSWORD)
    person.page.click("#join_submit")
    person.sees("Your teacher has yet to let you in")


def test_forms_help_before_they_go_and_the_list_of_who_waits_stays_current(start_hub, new_person):
    hub = start_hub(CLASS)
    link = hub.wait_text(r"open +http://127\.0\.0\.1:\d+(/hub/login\?owner=\S+)")[1]
    teacher = new_person(hub)
    teacher.open(link)
    teacher.page.get_by_role("button", name="Become the owner").click()
    teacher.wait_path("/hub/password")
    teacher.page.fill("#password_input", PASSWORD)
    teacher.page.fill("#again_input", PASSWORD + "!")
    teacher.page.click("#password_submit")
    again = teacher.page.locator("#again_input")
    assert again.evaluate("field => field.validationMessage") == (
        "The two passwords are not the same."
    )
    expect(teacher.page.locator("#password_input")).to_have_value(PASSWORD)  # nothing is lost
    again.fill(PASSWORD)
    teacher.page.click("#password_submit")
    teacher.wait_path("/hub/class")
    teacher.sees("Nobody is waiting.")

    pupil = new_person(hub)
    pupil.open("/hub/join")
    pupil.page.fill("#username_input", " Ada  King ")
    note = pupil.page.locator("#name-note")
    expect(note).to_be_hidden()
    pupil.page.press("#username_input", "Tab")
    expect(pupil.page.locator("#username_input")).to_have_value("Ada.King")
    expect(note).to_contain_text("Your name here will be ada.king")
    pupil.look("join-name-note", "light", "phone")

    ask(pupil, "Ada King")
    boxes = teacher.page.locator(".ticks input")
    expect(boxes).to_have_count(1)  # without a reload
    # What the teacher has chosen stays chosen, whoever comes meanwhile.
    boxes.first.uncheck()
    teacher.page.locator("h1").click()
    ask(new_person(hub), "ben")
    with teacher.page.expect_response(lambda answer: answer.url.endswith("/hub/class")):
        pass
    teacher.page.wait_for_timeout(500)
    expect(boxes).to_have_count(1)
    expect(boxes.first).not_to_be_checked()
    boxes.first.check()
    teacher.page.locator("h1").click()
    expect(boxes).to_have_count(2)
    teacher.page.get_by_role("button", name="Let them in").click()
    teacher.sees("Nobody is waiting.")
