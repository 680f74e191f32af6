"""What helps people of a class on when they mistype, come back, or bring lists of schools."""

from __future__ import annotations

import html
import re

import pytest
from class_tools import (
    PASSWORD,
    TOKEN,
    alert,
    classroom,
    join,
    make_code,
    set_password,
    shown_codes,
    teacher,
)
from harness import Browser, serving

from minihub.classbook import CodeNotGood


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A hub whose people join with a class code."""
    with serving(tmp_path_factory.mktemp("stumbles") / "hub", classroom()) as hub:
        make_code(hub, uses=1000)
        yield hub


@pytest.fixture(scope="module")
def boss(hub):
    """The teacher's browser."""
    return teacher(hub)


def focused(page) -> str:
    """Return the id of the field where the cursor is."""
    (field,) = re.findall(r"<input([^>]* autofocus[^>]*)>", page.text)
    return re.search(r'id="(\w+)"', field)[1]


def test_cursor_is_in_the_field_that_is_wrong(hub):
    assert focused(Browser(hub.url).get("/hub/join")) == "code_input"
    assert focused(Browser(hub.url).get("/hub/join?code=CDFG-2345")) == "username_input"
    wrong = join(hub, "iris", code="CDFG-2346")
    assert wrong.status_code == CodeNotGood.status and focused(wrong) == "code_input"
    assert focused(join(hub, "iris", again="something else")) == "password_input"
    assert focused(join(hub, "iris", password="short", again="short")) == "password_input"
    assert focused(join(hub, "a/b")) == "username_input"


def test_name_with_spaces_comes_back_with_dots(hub):
    page = join(hub, " Grace  Hopper ")
    assert alert(page) == "This cannot be a name: it contains a space."
    assert "How about grace.hopper?" in page.text
    assert re.search(r'id="username_input"[^>]* value="grace\.hopper"', page.text)
    nothing = join(hub, "??")
    assert "How about" not in nothing.text and 'value="??"' in nothing.text


def test_who_comes_back_by_the_code_is_led_to_the_login(hub):
    assert join(hub, "nora").status_code == 302
    browser = Browser(hub.url)
    page = join(hub, "Nora", password="not the same", browser=browser)
    assert page.status_code == 409
    link = html.unescape(re.search(r'id="join-login" href="([^"]+)"', page.text)[1])
    form = browser.get(link)
    assert form.status_code == 200
    assert re.search(r'id="username_input"[^>]* value="nora"', form.text, re.S)
    assert Browser(hub.url).login("nora", PASSWORD).status_code == 302


def test_spaces_in_the_name_of_a_login_are_read_as_dots(hub, boss):
    assert join(hub, "rosa.parks").status_code == 302
    assert Browser(hub.url).login(" Rosa  Parks ", PASSWORD).status_code == 302
    assert Browser(hub.url).login("Rosa Parks", "another password").status_code == 403
    codes = shown_codes(boss.submit("/hub/class/reset/rosa.parks", {}))
    answer = set_password(Browser(hub.url), "Rosa Parks", codes["rosa.parks"])
    assert answer.status_code == 302, alert(answer)


@pytest.mark.parametrize("name", ["аda", "pаul", "οtto"])  # one letter is not Latin
def test_name_that_looks_like_anothers_is_refused(hub, name):
    page = join(hub, name)
    assert page.status_code == 400
    assert alert(page) == (
        "This cannot be a name: it mixes letters of scripts that look alike; "
        "write it in one alphabet."
    )
    assert "How about" not in page.text  # what it would propose looks alike as well


@pytest.mark.parametrize("name", ["мария", "σοφία", "佐藤ken", "שרה", "maria-2"])
def test_name_in_any_one_script_is_welcome(hub, name):
    assert join(hub, name).status_code == 302


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Anna Schmidt\nBert  van  Dyk\n", ["anna.schmidt", "bert.van.dyk"]),
        ("Vorname;Nachname;Klasse\nCarla;Braun;8b\n", ["carla.braun"]),
        ("Name;Vorname\nDorn;Emil\n", ["emil.dorn"]),
        ("Nombre;Apellidos\nEva;Gil Sanz\n", ["eva.gil.sanz"]),
        ("First name,Last name,Username\nFay,Fox,ffox\n", ["ffox"]),
        ("Vorname,Benutzername\nGerd,gerd1\n", ["gerd1"]),
    ],
)
def test_lists_as_schools_have_them(hub, boss, text, names):
    look = boss.submit("/hub/class/roster", {"list": text})
    assert look.status_code == 200, alert(look)
    assert ("Names have no spaces" in look.text) == any("." in name for name in names)
    done = boss.submit("/hub/class/roster", {"list": text, "sure": "1"})
    assert list(shown_codes(done)) == names


def test_list_with_half_a_name_only_says_so(hub, boss):
    page = boss.submit("/hub/class/roster", {"list": "Vorname;E-Mail\nHans;h@example.org\n"})
    told = html.unescape(page.text)
    assert page.status_code == 400 and "unknown column" in told and "first name, last name" in told


def test_form_of_a_login_that_ended_says_what_to_do(hub):
    boss = teacher(hub)
    fields = {"uses": "5", "lifetime_s": "3600", "_xsrf": boss.xsrf("/hub/class")}
    boss.cookies.clear()
    page = boss.post("/hub/class/codes", data=fields)
    assert page.status_code == 403 and "You are not logged in any more." in page.text
    assert "any more" not in boss.post("/hub/login", data=fields).text


def test_used_up_code_is_told_from_an_expired_one(start_hub):
    hub = start_hub(classroom())
    boss = teacher(hub)
    assert "used up" not in boss.get("/hub/class").text
    make_code(hub, uses=1)
    assert "used up" not in boss.get("/hub/class").text
    assert join(hub, "ada").status_code == 302
    page = boss.get("/hub/class").text
    assert "The code CDFG-2345 is used up: 1 person has joined with it." in page
    make_code(hub, code="GHJK2345")
    assert "used up" not in boss.get("/hub/class").text


def test_password_is_reset_from_the_page_of_a_user(hub, boss):
    assert hub.api("users/olga", TOKEN, "POST").status_code == 201
    page = boss.get("/hub/admin/user/olga").text
    assert 'href="/hub/class/reset/olga"' in page and "Forgot the password?" in page
    people = boss.get("/hub/class/people?q=olga").text
    assert 'href="/hub/admin/user/olga"' in people and "One-time code" in people
    join(hub, "petra")
    assert "Reset password" in boss.get("/hub/class/people?q=petra").text
    assert "Reset the password?" in boss.get("/hub/class/reset/petra").text


def test_name_that_no_server_can_have_comes_back_with_one_that_can(start_hub):
    hub = start_hub({"JupyterHub": {"allow_named_servers": True}})
    browser = hub.browser("ada")
    page = browser.submit("/hub/new-server", {"server_name": "Project 2 ☕"}, page="/hub/home")
    assert page.status_code == 400 and "Hello, ada" in page.text
    assert re.search(r'id="new-server-name"[^>]* value="project-2"', page.text)
    answer = browser.submit("/hub/new-server", {"server_name": "project-2"}, page="/hub/home")
    assert answer.headers["Location"] == "/hub/spawn/ada/project-2"
