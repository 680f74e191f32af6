"""Starts as people see them: profiles, the log meanwhile, why they failed; and the account."""

from __future__ import annotations

import re
import time

import pytest
from harness import Browser, HubProcess, until

PROFILES = [
    {"name": "Small & quick", "description": "For <most> courses.", "mem_limit": "300M"},
    {
        "name": "Large",
        "key": "big",
        "default": True,
        "mem_limit": "900M",
        "cpu_limit": 1.5,
        "default_url": "/tree",
        "environment": {"COURSE": "physics"},
    },
]


@pytest.fixture
def hub(tmp_path):
    hubs = []

    def start(config=None, **kwargs) -> HubProcess:
        hubs.append(HubProcess(tmp_path / f"hub{len(hubs)}", config or {}, **kwargs).wait_ready())
        return hubs[-1]

    yield start
    for one in hubs:
        assert one.stop() == 0, one.text
        assert "Traceback" not in one.text, one.text


def environment_of(hub, name):
    return hub.server_process(name).environ()


def test_profiles_are_chosen_in_the_form_and_by_programs(hub):
    hub = hub({"Spawner": {"profiles": PROFILES, "environment": {"TERM_": "1"}}})
    ana = hub.browser("ana")
    page = ana.get("/hub/spawn/ana").text
    assert "Small &amp; quick" in page and "For &lt;most&gt; courses." in page
    assert re.search(r'value="big" checked', page) and 'value="small-quick">' in page
    assert ana.submit("/hub/spawn/ana", {"profile": "small-quick"}).status_code == 302
    ana.wait_server("ana")
    assert environment_of(hub, "ana")["MEM_LIMIT"] == str(300 * 1024**2)
    assert "COURSE" not in environment_of(hub, "ana")
    assert ">300 MB<" in ana.get("/hub/home").text

    root = hub.browser("root-admin")
    token = re.search(
        r'id="token-result"[^>]*value="([^"]+)"', root.submit("/hub/token", {"note": "x"}).text
    )[1]
    hub.api("users/ben", token, "POST")
    assert hub.api("users/ben/server", token, "POST").status_code in (201, 202)  # the default
    until(lambda: hub.api("users/ben", token).json()["servers"][""]["ready"])
    env = environment_of(hub, "ben")
    assert env["MEM_LIMIT"] == str(900 * 1024**2) and env["CPU_LIMIT"] == "1.5"
    assert (env["COURSE"], env["TERM_"]) == ("physics", "1")
    hub.api("users/eva", token, "POST")
    refused = hub.api("users/eva/server", token, "POST", json={"profile": "huge"})
    if refused.status_code == 202:  # it failed a moment later
        page = until(lambda: (p := root.get("/hub/spawn-pending/eva")).status_code == 400 and p)
        assert "There is no profile huge." in page.text and "big" in page.text
    else:
        assert refused.status_code == 400 and "There is no profile huge." in refused.text


def test_starting_page_shows_the_log_and_the_usual_time(hub):
    hub = hub({"Spawner": {"environment": {"FAKE_MODE": "mute"}, "http_timeout": 60}})
    ana = hub.browser("ana")
    ana.get("/hub/spawn/ana")
    page = until(
        lambda: "fake server starting" in (p := ana.get("/hub/spawn-pending/ana").text) and p
    )
    assert "This usually takes a few seconds." in page
    ana.submit("/hub/stop/ana", {}, "/hub/home")


def test_usual_time_is_that_of_starts_before(hub):
    hub = hub({"Spawner": {"environment": {"FAKE_MODE": "normal"}}})
    ana, ben = hub.browser("ana"), hub.browser("ben")
    ana.start_server("ana")
    answer = ben.get("/hub/spawn/ben")
    page = ben.get(answer.headers["Location"])
    assert page.status_code == 302 or re.search(r"usually takes \d+ second", page.text)


@pytest.mark.parametrize(
    ("cmd", "said"),
    [
        (["sh", "-c", "echo No module named \\'jupyterlab\\'; exit 1"], "is not installed"),
        (["sh", "-c", "kill -9 $$"], "when memory ran out"),
        (["sh", "-c", "echo OSError: [Errno 28] No space left on device; exit 1"], "disk is full"),
        (["sh", "-c", "echo MemoryError; exit 1"], "ran out of memory"),
        (["sleep", "60"], "never opened its port"),
        (["no-such-program-at-all"], "Install it, or name another program"),
    ],
    ids=["module", "killed", "disk", "memory", "port", "program"],
)
def test_failed_start_is_diagnosed_in_the_readers_language(hub, cmd, said):
    hub = hub({"Spawner": {"cmd": cmd, "http_timeout": 2}})
    ana = hub.browser("ana")
    ana.get("/hub/spawn/ana")
    page = until(lambda: "did not start" in (p := ana.get("/hub/spawn-pending/ana").text) and p)
    assert said in page and "Try again" in page
    german = ana.get("/hub/spawn-pending/ana", headers={"Accept-Language": "de"}).text
    assert "Noch einmal versuchen" in german and '<html lang="de"' in german


@pytest.mark.parametrize("limit", ["active_server_limit", "concurrent_spawn_limit"])
def test_starts_beyond_the_limits_wait_in_line(hub, limit):
    """In order, pending with their place, cancelled at once, and on when there is room."""
    mode = "mute" if limit == "concurrent_spawn_limit" else "normal"
    hub = hub({
        "JupyterHub": {limit: 1, "queue_spawns": True},
        "Spawner": {"environment": {"FAKE_MODE": mode}, "http_timeout": 60},
    })  # fmt: skip
    root = hub.browser("root-admin")
    token = re.search(
        r'id="token-result"[^>]*value="([^"]+)"', root.submit("/hub/token", {"note": "x"}).text
    )[1]

    def server(name):
        return hub.api(f"users/{name}", token).json()["servers"].get("", {})

    first = hub.browser("first")
    first.get("/hub/spawn/first")
    until(lambda: hub.server_pid("first"))
    people = {name: hub.browser(name) for name in ("second", "third", "fourth")}
    for name, browser in people.items():
        assert browser.get(f"/hub/spawn/{name}").status_code == 302
        assert server(name)["pending"] == "spawn"
    assert "at place 1." in people["second"].get("/hub/spawn-pending/second").text
    assert "at place 3." in people["fourth"].get("/hub/spawn-pending/fourth").text
    assert hub.api("users/fifth", token, "POST").status_code == 201
    assert hub.api("users/fifth/server", token, "POST").status_code == 202  # never 429
    hub.api("users/fifth/server", token, "DELETE")

    people["second"].submit("/hub/stop/second", {}, "/hub/home")
    until(lambda: server("second") == {})
    assert not hub.rows("select 1 from servers join users on user_id = users.id"
                        " where users.name = 'second' and target is not null")  # fmt: skip
    assert "at place 2." in people["fourth"].get("/hub/spawn-pending/fourth").text
    first.submit("/hub/stop/first", {}, "/hub/home")
    until(lambda: hub.server_pid("third"))
    assert "at place 1." in people["fourth"].get("/hub/spawn-pending/fourth").text
    assert not hub.server_pid("fourth")
    hub.api("users/third/server", token, "DELETE")
    until(lambda: hub.server_pid("fourth"))


def test_time_in_line_is_none_of_the_starts_own(hub):
    """``start_timeout`` runs from the start of the process, however long that waited."""
    hub = hub({
        "JupyterHub": {"active_server_limit": 1, "queue_spawns": True},
        "Spawner": {"start_timeout": 5, "http_timeout": 30},
    })  # fmt: skip
    first, second = hub.browser("first"), hub.browser("second")
    first.start_server("first")
    began = time.monotonic()
    assert second.get("/hub/spawn/second").status_code == 302
    while time.monotonic() - began < 6:
        assert "at place 1." in second.get("/hub/spawn-pending/second").text
        time.sleep(0.5)
    first.submit("/hub/stop/first", {}, "/hub/home")
    second.wait_server("second")
    assert "timeout" not in hub.text


# -- the account -----------------------------------------------------------------------------


def test_account_shows_logins_and_ends_them(hub):
    hub = hub()
    first, second, admin = hub.browser("ana"), Browser(hub.url), hub.browser("root-admin")
    second.headers["User-Agent"] = "Mozilla/5.0 (Windows NT 10.0; rv:140.0) Gecko Firefox/140.0"
    assert second.login("ana").status_code == 302
    page = first.get("/hub/account").text
    assert page.count("this browser") == 1 and page.count("Firefox on Windows") == 1 + 1
    assert "Python" in page and page.count("127.0.0.1</td>") == 2
    ((used,),) = hub.rows(
        "select last_used from session_places where browser = 'Firefox' and system = 'Windows'"
    )
    assert f'datetime="{used[:19]}Z"' in page
    (number,) = re.findall(r'name="end" value="(\d+)"', page)
    assert admin.submit("/hub/account/sessions", {"end": number}, "/hub/account").status_code == 303
    assert second.get("/hub/account").status_code == 200  # it is nobody else's to end
    first.submit("/hub/account/sessions", {"end": number}, "/hub/account")
    assert second.get("/hub/account").status_code == 302
    assert first.get("/hub/account").status_code == 200

    third = hub.browser("ana")
    token = re.search(
        r'id="token-result"[^>]*value="([^"]+)"', third.submit("/hub/token", {"note": "x"}).text
    )[1]
    third.submit("/hub/account/sessions", {"everywhere": "yes"}, "/hub/account")
    assert first.get("/hub/account").status_code == third.get("/hub/account").status_code == 302
    assert hub.api("user", token).status_code == 200
    fourth = hub.browser("ana")
    fourth.submit("/hub/account/sessions", {"everywhere": "yes", "tokens": "on"}, "/hub/account")
    assert hub.api("user", token).status_code == 403


def test_account_shows_what_others_did(hub):
    hub = hub()
    ana, admin = hub.browser("ana"), hub.browser("root-admin")
    ana.start_server("ana")
    assert "Nothing so far." in ana.get("/hub/account").text
    admin.submit("/hub/admin/stop/ana", {}, "/hub/admin")
    page = ana.get("/hub/account").text
    assert "stop server" in page and "root-admin" in page
    assert "stop server" not in hub.browser("ben").get("/hub/account").text
