"""The teacher's story with everything real: from the terminal's join link to the pupils' cells."""

import re

import pytest
from people import LAB_TIMEOUT_MS, LAPTOP
from playwright.sync_api import expect

pytestmark = [
    pytest.mark.browser,
    pytest.mark.notebook,
    pytest.mark.timeout(420),
]

PASSWORD = "kind of blue"
CLASS = {
    "JupyterHub": {"authenticator_class": "classroom", "spawner_class": "simple"},
    "ClassroomAuthenticator": {"code_at_start": True},
}


def test_class_joins_from_the_terminals_link_and_each_runs_a_cell(start_hub, new_person):
    hub = start_hub(CLASS)
    link = hub.wait_text(r"open +http://127\.0\.0\.1:\d+(/hub/login\?owner=\S+)")[1]
    invitation = hub.wait_text(r"join at +http://[^/]+(/join\?code=\S+)")[1]
    teacher = new_person(hub, at=LAPTOP)
    teacher.open(link)
    teacher.page.get_by_role("button", name="Become the owner").click()
    teacher.wait_path("/hub/password")
    teacher.look("room-1-first-password")
    teacher.page.fill("#password_input", PASSWORD)
    teacher.page.fill("#again_input", PASSWORD)
    teacher.page.click("#password_submit")
    teacher.wait_path("/hub/class")
    teacher.look("room-2-class")
    teacher.picture("class")
    teacher.page.get_by_role("link", name="Show to the class").click()
    teacher.wait_path(r"/hub/class/projector/\d+")
    expect(teacher.page.locator("#joined-count")).to_have_text("0")
    teacher.look("room-3-projector")

    pupils = [(new_person(hub, at=LAPTOP), name) for name in ("ada", "ben")]
    for person, name in pupils:
        person.open(invitation)
        person.wait_path("/hub/join")
        if name == "ada":
            person.look("room-4-join")
            person.picture("join")
        person.page.fill("#username_input", name)
        person.page.fill("#password_input", PASSWORD)
        person.page.fill("#again_input", PASSWORD)
        person.page.click("#join_submit")
        person.wait_path(f"/user/{name}/lab|/hub/spawn-pending/{name}|/hub/home")
        if "/hub/home" in person.page.url:
            person.page.click("#start")
        person.wait_path(f"/user/{name}/lab", timeout_ms=LAB_TIMEOUT_MS)
        person.run_cell("6*7", "42")
        if name == "ada":
            person.picture("notebook")
    expect(teacher.page.locator("#joined-count")).to_have_text("2")  # without a reload
    teacher.look("room-5-projector-two", "light")
    teacher.picture("projector")
    teacher.open("/hub/class/people")
    teacher.look("room-6-people")
    teacher.open("/hub/admin")
    for name in ("ada", "ben"):
        memory = teacher.page.locator(f'[data-live="memory:{name}/"]')
        expect(memory).to_contain_text(re.compile(r"\d [MG]B"))
    teacher.look("room-7-admin", "light")
    teacher.picture("admin")

    teacher.open("/hub/class/roster")
    teacher.page.fill("#list-input", "name,groups\nçelik,8b\nada,8b\n")
    teacher.page.get_by_role("button", name="Look at it first").click()
    teacher.sees("What this list would do")
    teacher.look("room-8-plan")
    teacher.page.get_by_role("button", name="Do it").click()
    teacher.sees("These codes are shown now and never again")
    teacher.look("room-9-slips")
    teacher.picture("slips")
    teacher.open("/hub/class/reset/ada")
    teacher.look("room-10-reset", "light", "dark")
    look_at_the_class_without_scripts(hub, new_person)
    assert not re.search(r"Traceback|\[[EC] ", hub.text), hub.text


def look_at_the_class_without_scripts(hub, new_person):
    """The teacher's pages and the pupils' forms, in a browser that runs no scripts."""
    guest = new_person(hub, at=LAPTOP, java_script_enabled=False)
    for path in ("join", "new-password"):
        guest.open(f"/hub/{path}")
        guest.look(f"room-noscript-{path}", "light", "phone")
    ((owner,),) = hub.rows("select name from users where admin")
    guest.open("/hub/login")
    guest.log_in(owner, PASSWORD)
    guest.wait_path("/hub/.*|/user/.*")
    for path in ("class", "class/people", "class/roster", "class/reset/ben", "password", "account"):
        guest.open(f"/hub/{path}")
        guest.look(f"room-noscript-{path.replace('/', '-')}", "light", "phone")
    guest.open("/hub/class")
    guest.page.get_by_role("link", name="Show to the class").click()
    guest.wait_path(r"/hub/class/projector/\d+")
    guest.look("room-noscript-projector", "light")
