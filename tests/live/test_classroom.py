"""The class's own authenticator over real HTTP: joining, passwords, codes, what must not work."""

from __future__ import annotations

import os
import pwd
import re
import secrets
import subprocess
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

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
    users,
    write,
)
from harness import Browser, HubProcess, serving, until

TAKEN = "This name is taken. Choose another one."


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A hub whose people join with a class code."""
    with serving(tmp_path_factory.mktemp("classroom") / "hub", classroom()) as hub:
        make_code(hub, uses=1000)
        yield hub


@pytest.fixture(scope="module")
def boss(hub):
    """The teacher's browser."""
    return teacher(hub)


# -- joining -------------------------------------------------------------------------------------


def test_joining_logs_in_and_the_password_does_so_again(hub):
    browser = Browser(hub.url)
    answer = join(hub, "ada", browser=browser)
    assert answer.status_code == 302, answer.text
    assert browser.get("/hub/home").status_code == 200
    assert "Hello, ada" in hub.browser("ADA", PASSWORD).get("/hub/home").text
    wrong = Browser(hub.url).login("ada", "not this one")
    assert wrong.status_code == 403 and "Invalid username or password" in wrong.text


def test_joining_leads_where_the_link_led(hub):
    browser = Browser(hub.url)
    path = "/hub/join?code=CDFG-2345&next=%2Fhub%2Ftoken"
    assert 'value="CDFG-2345"' in browser.get(path).text
    fields = {"username": "lea", "password": PASSWORD, "again": PASSWORD, "code": "cdfg 2345"}
    answer = browser.submit("/hub/join", {**fields, "next": "/hub/token"}, page=path)
    assert answer.headers["Location"] == "/hub/token"


def test_short_address_leads_to_the_form_with_the_code_in_it(hub):
    page = Browser(hub.url).follow("/join?code=CDFG-2345")
    assert page.status_code == 200 and 'value="CDFG-2345"' in page.text
    assert 'value="CDFG-2345"' in Browser(hub.url).follow("/hub/join/cdfg2345").text
    assert page.headers["Referrer-Policy"] == "no-referrer"


def test_code_and_an_existing_name_take_over_nothing(hub):
    join(hub, "bob")
    (before,) = hub.rows("select hashed from credentials join users on id = user_id"
                         " where name = 'bob'")  # fmt: skip
    for name in ("bob", "BOB", "ｂｏｂ", " bob "):
        answer = join(hub, name, password="another password")
        assert answer.status_code == 409 and alert(answer) == TAKEN
    assert hub.rows("select hashed from credentials join users on id = user_id"
                    " where name = 'bob'") == [before]  # fmt: skip
    assert Browser(hub.url).login("bob", "another password").status_code == 403
    # Somebody whom an admin added, and who has no password yet, is nobody else's either.
    hub.api("users/added", TOKEN, "POST")
    assert join(hub, "added").status_code == 409


def test_names_of_admins_are_not_to_be_had_even_when_nobody_has_them(tmp_path):
    config = classroom()
    config["Authenticator"]["admin_users"] = ["office", "principal"]
    config["Authenticator"]["blocked_users"] = ["eve"]
    config["JupyterHub"]["load_groups"] = {"staff": ["janitor"]}
    hub = HubProcess(tmp_path / "hub", config).wait_ready()
    try:
        make_code(hub)
        for name in ("principal", "janitor"):
            assert hub.api(f"users/{name}", TOKEN, "DELETE").status_code == 204
        for name in ("principal", "janitor", "eve"):
            assert alert(join(hub, name)) == TAKEN
        assert join(hub, "ada").status_code == 302
        assert hub.rows("select name from users where admin") == [("office",)]
    finally:
        hub.stop()


def test_files_of_somebody_deleted_are_not_the_next_ones(hub):
    browser = Browser(hub.url)
    join(hub, "old", browser=browser)
    browser.start_server("old")
    (hub.state_dir / "homes" / "old" / "diary.txt").write_text("secret")
    assert hub.api("users/old", TOKEN, "DELETE").status_code == 204
    assert alert(join(hub, "old")) == TAKEN
    # Whoever administers the hub may give the name away.
    assert hub.api("users/old", TOKEN, "POST").status_code == 201


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "Choose a name."),
        ("ada lovelace", "This cannot be a name: it contains a space."),
        ("..", "This cannot be a name: it consists of dots."),
        ("con", "This cannot be a name: Windows keeps that name for itself."),
        ("a/b", "This cannot be a name: it contains a slash."),
        ("x" * 300, "This cannot be a name: it is longer than"),
    ],
)
def test_name_that_nobody_can_have_is_told_with_the_reason(hub, name, said):
    answer = join(hub, name)
    assert answer.status_code == 400 and alert(answer).startswith(said)


@pytest.mark.parametrize(
    ("password", "again", "said"),
    [
        ("short", None, "A password has at least 8 characters."),
        ("passw0rd-of-mine", "passw0rd-of-mime", "The two passwords are not the same."),
        ("12345678", None, "This password is among the first that everybody tries."),
        ("newcomer1", None, "A password is more than your name."),
        ("ü" * 600, None, "A password has at most 1024 bytes."),
    ],
)
def test_password_that_is_none_is_told_with_the_reason(hub, password, again, said):
    answer = join(hub, "newcomer", password=password, again=again)
    assert answer.status_code == 400 and alert(answer).startswith(said)
    assert "newcomer" not in users(hub)


def test_wrong_code_tells_nothing_about_names(hub):
    texts = {alert(join(hub, name, code="2222-2222")) for name in ("ada", "nobody", "a b", "")}
    assert len(texts) == 1 and "This class code is not good" in texts.pop()


def test_code_that_expired_was_used_up_or_ended_is_not_good(hub, boss):
    for kwargs in ({"expires": "2020-01-01T00:00:00.000000Z"}, {"uses": 0}):
        code = make_code(hub, code="GHJK" + str(2222 + len(kwargs)), **kwargs)
        assert join(hub, "late", code=code).status_code == 403
        write(hub, "delete from class_codes where code = ?", code)
    boss.submit("/hub/class/codes", {"uses": "5", "lifetime_s": "3600"}, page="/hub/class")
    ((row, code),) = hub.rows("select id, code from class_codes where created_by = 'teacher'")
    assert join(hub, "intime", code=code).status_code == 302
    assert boss.submit(f"/hub/class/codes/{row}/end", {}, page="/hub/class").status_code == 303
    assert join(hub, "late", code=code).status_code == 403
    assert boss.submit("/hub/class/codes/999999/end", {}, page="/hub/class").status_code == 404


def test_forms_without_the_secret_of_the_page_change_nothing(hub, boss):
    fields = {"username": "eve", "password": PASSWORD, "again": PASSWORD, "code": "CDFG-2345"}
    for path in ("/hub/join", "/hub/new-password"):
        answer = Browser(hub.url).post(path, data=fields)
        assert answer.status_code == 403 and "_xsrf" in alert(answer)
    for path in ("/hub/password", "/hub/class/codes", "/hub/class/codes/1/end",
                 "/hub/class/waiting", "/hub/class/reset/ada", "/hub/class/roster"):  # fmt: skip
        assert boss.post(path, data=fields).status_code == 403, path
    assert "eve" not in users(hub)


def test_pages_of_the_teacher_are_for_nobody_else(hub):
    student = Browser(hub.url)
    join(hub, "sly", browser=student)
    for path in ("", "/people", "/roster", "/roster.csv", "/reset/ada", "/projector/1",
                 "/projector/1/count"):  # fmt: skip
        assert student.get(f"/hub/class{path}").status_code == 403, path
        assert Browser(hub.url).get(f"/hub/class{path}").status_code == 302, path
    assert student.submit("/hub/class/reset/ada", {}, page="/hub/home").status_code == 403
    assert "Class</a>" not in student.get("/hub/home").text


def test_fifty_at_once_on_a_code_of_thirty_uses_make_thirty_users(start_class):
    hub = start_class()
    make_code(hub, uses=30)
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda n: join(hub, f"student{n}"), range(50)))
    codes = [answer.status_code for answer in answers]
    assert (codes.count(302), codes.count(403)) == (30, 20), codes
    assert len(users(hub)) == 30
    assert hub.rows("select used from class_codes") == [(30,)]
    assert hub.rows("select count(*) from credentials where class_code_id is not null") == [(30,)]


# -- approval and the open door ------------------------------------------------------------------


def test_who_asks_waits_until_somebody_lets_them_in(start_class):
    hub = start_class(classroom("approve"))
    boss = teacher(hub)
    for name in ("ada", "ben", "eve"):
        answer = join(hub, name, code="")
        assert answer.status_code == 200 and "has yet to let you in" in answer.text
    assert alert(join(hub, "ADA", code="")) == TAKEN
    assert users(hub) == set()
    waiting = Browser(hub.url).login("ada", PASSWORD)
    assert waiting.status_code == 403 and "somebody has yet to let you in" in alert(waiting)
    wrong = Browser(hub.url).login("ada", "not this one")
    assert alert(wrong) == "Invalid username or password"
    page = boss.get("/hub/class").text
    assert "3 people want to join" in page and 'value="eve"' in page
    assert re.search(r'badge-count">3<', boss.get("/hub/home").text)

    decide = {"name": ["ada", "ben"], "verdict": "approve"}
    assert boss.submit("/hub/class/waiting", decide, page="/hub/class").status_code == 303
    refuse = {"name": "eve", "verdict": "refuse"}
    assert boss.submit("/hub/class/waiting", refuse, page="/hub/class").status_code == 303
    assert users(hub) == {"ada", "ben"}
    assert "Hello, ada" in hub.browser("ada", PASSWORD).get("/hub/home").text
    assert alert(Browser(hub.url).login("eve", PASSWORD)) == "Invalid username or password"
    assert re.search(r'teacher" let "ada" in', hub.text)


def test_request_for_a_name_that_became_somebodys_takes_over_nothing(start_class):
    hub = start_class(classroom("approve"))
    join(hub, "ada", code="")
    hub.api("users/ada", TOKEN, "POST")
    answer = hub.api("class/waiting", TOKEN, "POST", json={"approve": ["ada"]})
    assert answer.json() == {"approved": [], "refused": 0}
    assert hub.rows("select * from signup_requests") == []
    assert Browser(hub.url).login("ada", PASSWORD).status_code == 403


# -- passwords and one-time codes ----------------------------------------------------------------


def test_one_time_code_ends_logins_and_tokens_and_wants_a_new_password(hub, boss):
    cleo = Browser(hub.url)
    join(hub, "cleo", browser=cleo)
    cleo.start_server("cleo")
    secret = {"X-XSRFToken": cleo.xsrf("/hub/home")}
    made = cleo.post("/hub/api/users/cleo/tokens", json={}, headers=secret).json()["token"]
    assert hub.api("user", made).status_code == 200
    assert "The password of" in boss.get("/hub/class/reset/cleo").text

    page = boss.submit("/hub/class/reset/cleo", {})
    code = shown_codes(page)["cleo"]
    assert re.fullmatch(r"[2-9C-Y]{3}(-[2-9C-Y]{3}){2}", code)
    assert cleo.get("/hub/home").status_code == 302  # to the login
    assert hub.api("user", made).status_code == 403
    assert Browser(hub.url).login("cleo", PASSWORD).status_code == 403
    assert code not in boss.get("/hub/class/people?q=cleo").text
    assert "code" in boss.get("/hub/class/people?q=cleo").text
    # The server itself goes on, and may go on asking who visits it.
    server = hub.server_process("cleo")
    assert hub.api("user", server.environ()["JUPYTERHUB_API_TOKEN"]).json()["name"] == "cleo"

    again = Browser(hub.url)
    form = again.login("cleo", code.lower())  # in the place of the password
    assert form.status_code == 200 and "Choose a password of your own" in form.text
    assert again.get("/hub/home").status_code == 302  # nobody is logged in by it
    assert alert(set_password(again, "cleo", "222-222-222")).startswith("Name and one-time code")
    short = set_password(again, "cleo", code, "short")
    assert alert(short).startswith("A password has at least")
    assert set_password(again, "cleo", code, "a brand new one").status_code == 302
    assert "Hello, cleo" in again.get("/hub/home").text
    assert set_password(Browser(hub.url), "cleo", code).status_code == 403  # it was for one use
    assert "Hello, cleo" in hub.browser("cleo", "a brand new one").get("/hub/home").text


def test_one_time_code_expires(hub):
    join(hub, "tardy")
    code = hub.api("users/tardy/one-time-code", TOKEN, "POST").json()["code"]
    write(hub, "update credentials set expires_at = '2020-01-01T00:00:00.000000Z'"
               " where expires_at is not null")  # fmt: skip
    for answer in (
        Browser(hub.url).login("tardy", code),
        set_password(Browser(hub.url), "tardy", code),
    ):
        assert answer.status_code == 403 and "has expired" in alert(answer)


def test_own_password_is_changed_with_the_present_one_and_ends_other_logins(hub):
    here, there = Browser(hub.url), Browser(hub.url)
    join(hub, "dan", browser=here)
    there.login("dan", PASSWORD)
    new = {"password": "something else", "again": "something else"}
    wrong = here.submit("/hub/password", {"current": "guess", **new})
    assert wrong.status_code == 403 and "present password is another" in alert(wrong)
    done = here.submit("/hub/password", {"current": PASSWORD, **new})
    assert (done.status_code, done.headers["Location"]) == (303, "/hub/password?changed")
    assert "Your password is changed" in here.get("/hub/password?changed").text
    assert there.get("/hub/home").status_code == 302
    assert Browser(hub.url).login("dan", PASSWORD).status_code == 403
    assert Browser(hub.url).login("dan", "something else").status_code == 302


def test_password_is_hashed_anew_when_parameters_have_changed(hub):
    from minihub import tokens

    join(hub, "eli")
    n, r, p = 2**12, 8, 1
    import hashlib

    digest = hashlib.scrypt(PASSWORD.encode(), salt=b"salt" * 4, n=n, r=r, p=p)
    old = f"scrypt:{n}:{r}:{p}:{(b'salt' * 4).hex()}:{digest.hex()}"
    where = "user_id = (select id from users where name = 'eli')"
    write(hub, f"update credentials set hashed = ? where {where}", old)
    assert tokens.is_outdated(old)
    assert Browser(hub.url).login("eli", PASSWORD).status_code == 302
    ((new,),) = hub.rows(f"select hashed from credentials where {where}")
    assert new != old and not tokens.is_outdated(new)
    assert Browser(hub.url).login("eli", PASSWORD).status_code == 302


@pytest.fixture
def ordinary_user():
    """A user of this machine who may own a hub: whoever runs the tests, or one that root makes."""
    if os.getuid():
        yield pwd.getpwuid(os.getuid()).pw_name
        return
    name = f"mh-{secrets.token_hex(4)}"
    subprocess.run(["useradd", "--no-create-home", "--shell", "/bin/sh", name], check=True)
    yield name
    subprocess.run(["userdel", name], check=True)


def test_owner_of_a_new_hub_is_asked_for_a_password(start_class, ordinary_user):
    config = {"JupyterHub": {"authenticator_class": "classroom", "api_tokens": {}},
              "Authenticator": {"allow_all": True, "admin_users": []}}  # fmt: skip
    hub = start_class(config)
    link = re.search(r"open +http://[^/]+(/hub/login\?owner=\S+)", hub.text)[1]
    owner = Browser(hub.url)
    fields = {"username": ordinary_user}  # as root one says who; else it is who runs the hub
    answer = owner.submit(link, fields)
    assert answer.headers["Location"] == "/hub/password", answer.text
    page = owner.get("/hub/password").text
    assert "Present password" not in page and "You came by a link" in page
    new = {"password": PASSWORD, "again": PASSWORD}
    assert owner.submit("/hub/password", new).headers["Location"] == "/hub/class"
    ((name,),) = hub.rows("select name from users where admin")
    assert hub.browser(name, PASSWORD).get("/hub/class").status_code == 200


# -- guessing ------------------------------------------------------------------------------------


def test_guesses_at_one_name_are_refused_for_a_while_whether_there_is_such_a_user_or_not(hub):
    join(hub, "target")
    for name in ("target", "no-such-user"):
        answers = [Browser(hub.url).login(name, f"guess {n}") for n in range(12)]
        assert [one.status_code for one in answers] == [403] * 10 + [429] * 2
        assert 0 < int(answers[-1].headers["Retry-After"]) <= 300
        assert alert(answers[-1]).startswith("Too many wrong attempts. Wait ")
    right = Browser(hub.url).login("target", PASSWORD)  # that would be the eleventh guess
    assert right.status_code == 429
    assert Browser(hub.url).login("ada", "a neighbour's slip").status_code == 403
    data = {"username": "target", "password": PASSWORD}
    by_api = Browser(hub.url).post("/hub/api/users/target/tokens", json={"auth": data})
    assert by_api.status_code == 429


def test_guesses_do_not_lock_out_the_browser_that_logged_in_before(hub):
    owner = Browser(hub.url)
    join(hub, "known", browser=owner)
    owner.get("/hub/logout")
    for number in range(11):
        last = Browser(hub.url).login("known", f"guess {number}")
    assert last.status_code == 429
    assert owner.login("known", PASSWORD).status_code == 302
    # But it has no more guesses than anybody.
    owner.get("/hub/logout")
    answers = [owner.login("known", f"guess {n}").status_code for n in range(11)]
    assert answers == [403] * 10 + [429]


def test_thirty_behind_one_address_that_fail_once_each_lock_nobody(hub):
    hub_users = [f"pupil{n}" for n in range(30)]
    with ThreadPoolExecutor(8) as pool:
        failed = list(pool.map(lambda n: Browser(hub.url).login(n, "wrong"), hub_users))
    assert {one.status_code for one in failed} == {403}
    assert join(hub, "pupil-of-now").status_code == 302
    assert Browser(hub.url).login("pupil-of-now", PASSWORD).status_code == 302


def test_guesses_of_class_codes_are_refused_for_a_while(start_class):
    config = classroom()
    config["Authenticator"]["login_failures_per_address"] = 20
    hub = start_class(config)
    make_code(hub)
    answers = [join(hub, "eve", code="2222-2222").status_code for _ in range(21)]
    assert answers == [403] * 20 + [429]
    assert join(hub, "eve").status_code == 429
    assert "class code from 127.0.0.1" in hub.text


# -- lists ---------------------------------------------------------------------------------------

LIST = "name,groups\r\nAnna,8b\r\nBert,8b|lab\r\nÇelik,\r\n"


def test_list_is_looked_at_first_then_carried_out_with_a_code_for_each(hub, boss):
    look = boss.submit("/hub/class/roster", {"list": LIST})
    assert look.status_code == 200 and "3 added" in look.text
    assert not users(hub) & {"anna", "bert", "çelik"}
    done = boss.submit("/hub/class/roster", {"list": LIST, "sure": "1"})
    codes = shown_codes(done)
    assert set(codes) == {"anna", "bert", "çelik"}
    assert set_password(Browser(hub.url), "bert", codes["bert"]).status_code == 302
    assert {row for row in hub.rows(
        "select u.name, g.name from group_members m join users u on u.id = m.user_id"
        " join user_groups g on g.id = m.group_id where u.name in ('anna', 'bert')"
    )} == {("anna", "8b"), ("bert", "8b"), ("bert", "lab")}  # fmt: skip
    again = boss.submit("/hub/class/roster", {"list": LIST, "sure": "1"})
    assert shown_codes(again) == {} and "Nobody needs a code" in again.text


def test_list_with_a_mistake_changes_nothing_and_names_the_line(hub, boss):
    text = "name;groups\nfritz;8c\nhans/peter;8c\nFRITZ;8c\n"
    for fields in ({"list": text}, {"list": text, "sure": "1"}):
        page = boss.submit("/hub/class/roster", fields)
        assert page.status_code == 400
        assert "it contains a slash" in page.text and "the same name as on line 2" in page.text
    assert "fritz" not in users(hub)


def test_wrong_list_is_an_error_like_others_with_the_plan_in_it(hub):
    wrong = {"list": "name\nfritz\nhans/peter\nFRITZ\n"}
    answer = hub.api("class/roster", TOKEN, "POST", json=wrong)
    body = answer.json()
    assert answer.status_code == body["status"] == 400
    assert body["message"].startswith("Nothing was done: line 3: ")
    assert body["message"].endswith("(2 lines are wrong)")
    assert [bool(row["problem"]) for row in body["rows"]] == [False, True, True]
    assert body["slips"] == [] and "fritz" not in users(hub)
    look = hub.api("class/roster", TOKEN, "POST", json=wrong | {"dry_run": True})
    assert look.status_code == 200 and set(look.json()) == {"rows", "note", "slips"}


def test_list_comes_as_a_file_too(hub, boss):
    files = {"file": ("class.csv", "Name;Gruppe\nJürgen;8d\n".encode("cp1252"), "text/csv")}
    data = {"_xsrf": boss.xsrf("/hub/class/roster")}
    page = boss.post("/hub/class/roster", data=data, files=files)
    assert page.status_code == 200 and "jürgen" in page.text and "Windows-1252" in page.text
    listed = re.search(r"<textarea name=\"list\"[^>]*>(.*?)</textarea>", page.text, re.S)[1]
    done = boss.submit("/hub/class/roster", {"list": listed, "sure": "1"})
    assert set(shown_codes(done)) == {"jürgen"}


def test_export_is_read_back_by_an_import(hub, boss):
    hub.api("groups/=risky", TOKEN, "POST", json={"users": ["ada"]})
    answer = boss.get("/hub/class/roster.csv")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert "attachment" in answer.headers["Content-Disposition"]
    text = answer.content.decode("utf-8-sig")
    assert text.startswith("name,groups,admin,password,created,last_activity\r\n")
    assert "teacher,,yes,own," in text
    look = boss.submit("/hub/class/roster", {"list": text})
    assert look.status_code == 200 and "0 added" in look.text and "0 join groups" in look.text


# -- the page for the projector ------------------------------------------------------------------


def test_projector_shows_code_and_address_and_counts(hub, boss):
    boss.submit(
        "/hub/class/codes", {"uses": "3", "lifetime_s": "3600", "group": "8b"}, "/hub/class"
    )
    ((row, code),) = hub.rows(
        "select id, code from class_codes where group_id is not null order by id desc limit 1"
    )
    page = boss.get(f"/hub/class/projector/{row}").text
    assert f"{code[:4]}-{code[4:]}" in page and "127.0.0.1" in page and "<path d=" in page
    assert "Only this computer can reach the hub" in page
    count = f"/hub/class/projector/{row}/count"
    assert boss.get(count).json() == {"used": 0, "uses": 3, "good": True}
    for name in ("one", "two", "three"):
        join(hub, name, code=code)
    assert boss.get(count).json() == {"used": 3, "uses": 3, "good": False}
    assert "two" in dict.fromkeys(
        name for (name,) in hub.rows(
            "select u.name from group_members m join users u on u.id = m.user_id"
            " join user_groups g on g.id = m.group_id where g.name = '8b'"
        )
    )  # fmt: skip
    assert boss.get("/hub/class/projector/999999").status_code == 404


def test_projector_follows_the_address_at_which_the_hub_is_reached(hub, boss):
    row = hub.rows("select max(id) from class_codes")[0][0]
    cookie = "; ".join(f"{one.name}={one.value}" for one in boss.cookies)
    elsewhere = {"Host": "hub.school.example:81", "Cookie": cookie}
    page = Browser(hub.url).get(f"/hub/class/projector/{row}", headers=elsewhere)
    assert "hub.school.example:81/join" in page.text
    assert "Only this computer" not in page.text


def test_hub_without_passwords_of_its_own_has_none_of_these_pages(tmp_path):
    hub = HubProcess(tmp_path / "hub").wait_ready()
    try:
        boss = hub.browser("root-admin")
        for path in ("join", "new-password", "password", "class", "class/people", "class/roster"):
            assert boss.get(f"/hub/{path}").status_code == 404, path
        assert "/hub/class" not in boss.get("/hub/home").text
        assert "/hub/join" not in hub.browser().get("/hub/login").text
    finally:
        hub.stop()


def test_log_shows_long_names_short(hub):
    Browser(hub.url).login("n" * 200, "x")
    until(lambda: f'"{"n" * 16}…" (200 characters)' in hub.text)
    assert "n" * 40 not in hub.text


# -- in the reader's language --------------------------------------------------------------------


def test_refusals_are_told_in_the_readers_language_and_to_programs_in_english(hub, boss):
    guest = Browser(hub.url)
    guest.headers["Accept-Language"] = "de"
    assert alert(guest.login("ada", "not this one")) == "Name oder Passwort stimmt nicht"
    assert alert(join(hub, "hans peter", browser=guest)) == (
        "Das kann kein Name sein: er enthält ein Leerzeichen."
    )
    assert alert(join(hub, "hans", password="short", browser=guest)) == (
        "Ein Passwort hat mindestens 8 Zeichen."
    )
    lost = guest.get("/hub/no-such-page")
    assert lost.status_code == 404 and "Nicht gefunden" in lost.text
    boss.headers["Accept-Language"] = "es"
    try:
        page = boss.submit("/hub/class/roster", {"list": "fritz\nhans/peter\nFRITZ\n"})
    finally:
        del boss.headers["Accept-Language"]
    assert "contiene una barra" in page.text and "el mismo nombre que en la línea 1" in page.text
    join(hub, "paula")
    program = Browser(hub.url)
    program.headers.update({"Accept-Language": "de", "Authorization": f"token {TOKEN}"})
    refused = program.put("/hub/api/users/paula/password", json={"password": "x"})
    assert refused.json()["message"] == "A password has at least 8 characters."


# -- nothing tells whether there is such a user ---------------------------------------------------


def test_refused_login_looks_the_same_whether_there_is_such_a_user_or_not(hub):
    join(hub, "somebody")

    def page(name, path="/hub/login"):
        browser = Browser(hub.url)
        fields = {"username": name, "password": "a wrong one!", "again": "a wrong one!"}
        answer = browser.submit(path, fields | {"code": "222-222-222"})
        assert answer.status_code == 403
        text = re.sub(r'"xsrf_token": "[^"]+"|name="_xsrf" value="[^"]+"', "", answer.text)
        text = re.sub(r"nonce-[\w-]+", "", text).replace(name, "NAME")
        return text, sorted(answer.headers), sorted(answer.cookies.keys())

    for path in ("/hub/login", "/hub/new-password"):
        assert page("somebody", path) == page("nobody00", path)


def test_export_and_import_keep_groups_whatever_they_are_called(hub, boss):
    names = ["a|b", "c\\\\", "'=risky", "plain"]
    join(hub, "grouped")
    for name in names:
        hub.api(f"groups/{quote(name)}", TOKEN, "POST", json={"users": ["grouped"]})
    text = boss.get("/hub/class/roster.csv").content.decode("utf-8-sig")
    look = boss.submit("/hub/class/roster", {"list": text})
    assert look.status_code == 200 and "0 join groups" in look.text
    (line,) = [line for line in text.splitlines() if line.startswith("grouped,")]
    list_text = "name,groups\n" + line.replace("grouped", "twin").partition(",no")[0]
    done = boss.submit("/hub/class/roster", {"list": list_text, "sure": "1"})
    assert set(shown_codes(done)) == {"twin"}
    assert sorted(hub.api("users/twin", TOKEN).json()["groups"]) == sorted(names)
