"""The admin's pages against a real hub, by forms alone: what a browser without scripts can do."""

from __future__ import annotations

import html
import re
import time
import zipfile

import pytest
from harness import HubProcess, gone, serving, until

CONFIG = {"JupyterHub": {"allow_named_servers": True, "admin_access": True}}


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """One hub for all tests; each uses user names of its own."""
    with serving(tmp_path_factory.mktemp("admin") / "hub", CONFIG) as hub:
        yield hub


@pytest.fixture(scope="module")
def admin(hub):
    return hub.browser("root-admin")


def press(browser, path, page="/hub/admin", **fields):
    """Press a button: send a form with the secret of a page."""
    return browser.submit(path, fields, page)


def names_on(page):
    return re.findall(r'<tbody data-user="([^"]+)"', page.text)


def deeds(hub, user):
    query = "select actor, action from audit where user = ? order by id"
    return [tuple(row) for row in hub.rows(query, user)]


def test_list_is_searched_sorted_filtered_and_paged_by_the_hub(hub, admin):
    many = " ".join(f"list-{number:03}" for number in range(120))
    assert press(admin, "/hub/admin/users", names=many).status_code == 303
    page = admin.get("/hub/admin?q=list-")
    assert names_on(page) == [f"list-{number:03}" for number in range(50)]
    assert "1 to 50 of 120" in page.text
    following = html.unescape(re.search(r'rel="next" href="([^"]+)"', page.text)[1])
    assert names_on(admin.get(following)) == [f"list-{number:03}" for number in range(50, 100)]
    assert names_on(admin.get("/hub/admin?q=list-11&order=desc"))[0] == "list-119"
    assert names_on(admin.get("/hub/admin?q=LIST-007")) == ["list-007"]
    assert names_on(admin.get("/hub/admin?show=admins")) == ["root-admin"]
    assert names_on(admin.get("/hub/admin?q=%25")) == []

    press(admin, "/hub/admin/start/list-077")
    until(lambda: "list-077" in names_on(admin.get("/hub/admin?show=running")))
    for sort in ("memory", "cpu", "status"):  # who has a server comes first, and nobody twice
        first = names_on(admin.get(f"/hub/admin?q=list-&sort={sort}"))
        second = names_on(admin.get(f"/hub/admin?q=list-&sort={sort}&page=2"))
        third = names_on(admin.get(f"/hub/admin?q=list-&sort={sort}&page=3"))
        assert first[0] == "list-077"
        assert len(set(first + second + third)) == 120
    press(admin, "/hub/admin/stop/list-077")


def test_use_of_a_server_is_shown_and_why_it_runs(hub, admin):
    hub.browser("user-a").start_server("user-a")
    page = until(lambda: (p := admin.get("/hub/admin?q=user-a")).text.count("MB") and p)
    assert re.search(r'data-live="memory:user-a/"><span class="number">[\d.]+ MB', page.text)
    assert "Nothing stops idle servers here." in page.text
    assert 'data-live="machine-memory"' in page.text
    own = admin.get("/hub/admin/user/user-a").text
    assert "Processes" in own and "/hub/log/user-a" in own
    assert "fake server starting" in admin.get("/hub/log/user-a").text


def test_start_stop_restart_and_open_are_noted_and_shown_to_the_user(hub, admin):
    press(admin, "/hub/admin/users", names="noted")
    noted = hub.browser("noted")
    press(admin, "/hub/admin/start/noted")
    noted.wait_server("noted")
    first = hub.server_process("noted").pid
    press(admin, "/hub/admin/restart/noted")
    until(lambda: "Stopping server noted/: root-admin restarts it" in hub.text and gone(first))
    noted.wait_server("noted")
    assert hub.server_process("noted").pid != first
    answer = press(admin, "/hub/admin/open/noted")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/user/noted/")
    answer = press(admin, "/hub/admin/stop/noted", next="/hub/admin?q=noted")
    assert answer.headers["Location"] == "/hub/admin?q=noted"
    assert deeds(hub, "noted") == [
        ("root-admin", deed)
        for deed in ("add user", "start server", "restart server", "open server", "stop server")
    ]
    audit = admin.get("/hub/admin/audit?q=noted").text
    assert audit.index("stop server") < audit.index("open server") < audit.index("add user")


def test_work_through_the_api_is_noted_too(hub, admin):
    token = re.search(
        r'id="token-result"[^>]*value="([^"]+)"',
        press(admin, "/hub/token", page="/hub/token", note="x").text,
    )[1]
    assert hub.api("users/by-api", token, "POST").status_code == 201
    assert hub.api("users/by-api", token).status_code == 200
    assert deeds(hub, "by-api") == [("root-admin", "API: POST")]


def test_users_are_renamed_grouped_made_admins_and_logged_out(hub, admin):
    press(admin, "/hub/admin/users", names="changing")
    browser = hub.browser("changing")
    answer = press(admin, "/hub/admin/user/changing/groups", new_group="physics")
    assert answer.headers["Location"] == "/hub/admin/user/changing"
    assert 'value="physics" checked' in admin.get("/hub/admin/user/changing").text
    press(admin, "/hub/admin/user/changing/change", name="changed", admin="on")
    page = admin.get("/hub/admin/user/changed").text
    assert "physics" in page and 'class="badge">admin' in page and "rename user" in page
    assert browser.get("/hub/home").status_code == 200
    press(admin, "/hub/admin/user/changed/logout")
    assert browser.get("/hub/home").status_code == 302
    wrong = press(admin, "/hub/admin/user/changed/change", name="root-admin", admin="on")
    assert wrong.status_code == 400 and "already exists" in wrong.text
    own = press(admin, "/hub/admin/user/root-admin/change", name="root-admin")
    assert own.status_code == 400 and "yourself" in own.text


@pytest.mark.parametrize("choice", ["keep", "archive", "delete"])
def test_deleted_user_leaves_files_as_the_form_says(hub, admin, choice):
    name = f"leaving-{choice}"
    hub.browser(name).start_server(name)
    home = hub.state_dir / "homes" / name
    (home / "work.txt").write_text("mine")
    (home / "secret").symlink_to("/etc/passwd")
    path = f"/hub/admin/user/{name}/delete"
    assert press(admin, path, files=choice, confirm="somebody").status_code == 400
    assert press(admin, path, files="burn", confirm=name).status_code == 400
    assert home.exists() and hub.rows("select 1 from users where name = ?", name)
    answer = press(admin, path, files=choice, confirm=name)
    assert answer.headers["Location"] == "/hub/admin"
    assert not hub.rows("select 1 from users where name = ?", name)
    if choice == "keep":
        assert (home / "work.txt").read_text() == "mine"
        return
    until(lambda: not list(home.parent.glob(f"*{name}*")))
    archives = list((hub.state_dir / "archives").glob(f"{name}-*.zip"))
    assert len(archives) == (choice == "archive")
    for archive in archives:
        assert archive.stat().st_mode & 0o077 == 0
        with zipfile.ZipFile(archive) as packed:
            assert packed.read(f"{name}/work.txt") == b"mine"
            assert not [one for one in packed.namelist() if "secret" in one]


def test_announcements_are_on_every_page_until_they_are_taken_back(hub, admin):
    path = "/hub/admin/announcements"
    press(admin, path, page=path, text="Down on <b>Friday</b>", hours="1")
    stranger = hub.browser()
    for page in (stranger.get("/hub/login"), admin.get("/hub/home"), admin.get("/hub/nowhere")):
        assert "Down on &lt;b&gt;Friday&lt;/b&gt;" in page.text
    number = re.search(r'name="remove" value="(\d+)"', admin.get(path).text)[1]
    press(admin, path, page=path, remove=number)
    assert "Friday" not in stranger.get("/hub/login").text
    assert press(admin, path, page=path, text=" ").status_code == 400
    assert press(admin, path, page=path, text="x" * 1001).status_code == 400


def test_all_servers_stop_at_once(hub, admin):
    for name in ("all-1", "all-2"):
        hub.browser(name).start_server(name)
    press(admin, "/hub/admin/stop-all")
    until(lambda: names_on(admin.get("/hub/admin?show=running")) == [])


PATHS = [
    "users", "start/root-admin", "stop/root-admin", "restart/root-admin", "open/root-admin",
    "remove/root-admin/x", "stop-all", "cull", "user/root-admin/change",
    "user/root-admin/groups", "user/root-admin/logout", "user/root-admin/delete", "announcements",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_button_is_nobodys_but_an_admins_and_needs_the_forms_secret(hub, admin, path):
    student = hub.browser("student")
    answer = student.submit(f"/hub/admin/{path}", {"names": "x", "text": "x"}, "/hub/home")
    assert answer.status_code in (403, 404), answer.text
    assert admin.post(f"/hub/admin/{path}", data={"names": "x"}).status_code == 403
    stranger = hub.browser()
    assert stranger.submit(f"/hub/admin/{path}", {}, "/hub/login").status_code in (302, 403)


def test_log_is_shown_to_its_user_and_to_admins_alone(hub, admin):
    mine, other = hub.browser("log-a"), hub.browser("log-b")
    mine.start_server("log-a")
    assert "fake server starting" in mine.get("/hub/log/log-a").text
    assert "fake server starting" in admin.get("/hub/log/log-a").text
    assert other.get("/hub/log/log-a").status_code == 404


# -- before the culler comes -----------------------------------------------------------------


def test_idle_server_is_announced_kept_and_culled_by_the_button(tmp_path):
    cull = {"timeout": 8, "every": "1h", "warn": "7s", "keep": 6, "keep_most": 9}
    hub = HubProcess(tmp_path / "hub", {"JupyterHub": {"cull": cull}}).wait_ready()
    ana, admin = hub.browser("ana"), hub.browser("root-admin")
    ana.start_server("ana")
    token = re.search(
        r'id="token-result"[^>]*value="([^"]+)"', ana.submit("/hub/token", {"note": "x"}).text
    )[1]
    assert hub.api("users/ana/server/ending", token).json()["soon"] is False
    assert hub.api("users/ana/server/ending", token, "POST").status_code == 409
    until(lambda: "/hub/keep/ana" in ana.get("/hub/token").text)
    assert hub.api("users/ana/server/ending", token).json()["soon"] is True
    assert "/hub/keep/ana" not in admin.get("/hub/home").text  # it is no business of others
    began = time.monotonic()
    assert ana.submit("/hub/keep/ana", {"next": "/hub/token"}).headers["Location"] == "/hub/token"
    assert "kept for another" in admin.get("/hub/admin/cull").text
    press(admin, "/hub/admin/cull")
    assert hub.server_process("ana").is_running()
    until(lambda: hub.api("users/ana/server/ending", token, "POST").status_code == 200)
    until(lambda: hub.api("users/ana/server/ending", token, "POST").status_code == 409)
    until(lambda: "would be stopped" in admin.get("/hub/admin/cull").text)
    assert time.monotonic() - began > 5
    press(admin, "/hub/admin/cull")
    until(lambda: hub.rows("select 1 from servers where target is not null") == [])
    assert ("root-admin", "cull now") in [tuple(r) for r in hub.rows(
        "select actor, action from audit")]  # fmt: skip
    assert hub.stop() == 0, hub.text
