"""The admin's page with many people: it stays fluid, in shape, and current with one request."""

from __future__ import annotations

import sys
from urllib.parse import quote

import pytest
from harness import FAKE_SERVER, HubProcess, until
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

TOKEN = "a-token-of-the-office"
LONG = "maximiliane.von-und-zu-hohenstein-wackernagel.der.dritte@example"
NAMES = ("x" * 64, LONG, "žluťoučký-kůň-ñandú-straße", "学生太郎", "a")
GROUPS = (
    "course-2026-winter-introduction-to-data-science", "8b", "ñandú", "Informatik-Leistungskurs",
    "lab", *(f"g{number}" for number in range(12)),
)  # fmt: skip
SERVERS = ("y" * 30, "my-second-experiment-long-name", "z")
#: Windows: a phone, a laptop at 200 and at 100 per cent, tablets, a wall.
WIDTHS = (390, 640, 800, 1024, 1100, 1160, 1280, 1920)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A hub of 500 people, some with everything that is long."""
    config = {
        "JupyterHub": {
            "allow_named_servers": True,
            "admin_access": True,
            "api_tokens": {TOKEN: "root-admin"},
        },
        "Spawner": {"cmd": [sys.executable, str(FAKE_SERVER)]},
    }
    hub = HubProcess(tmp_path_factory.mktemp("many") / "hub", config).wait_ready()
    students = [f"student-{number:03}" for number in range(500 - len(NAMES))]

    def ask(path: str, **data) -> None:
        answer = hub.api(path, TOKEN, "POST", json=data, timeout=120)
        assert answer.status_code in (200, 201, 202), answer.text

    ask("users", usernames=[*NAMES, *students])
    for group in GROUPS:
        ask(f"groups/{quote(group)}")
        ask(f"groups/{quote(group)}/users", users=list(NAMES[:2]))
    for name in NAMES[:3]:
        for server in SERVERS:
            ask(f"users/{quote(name)}/servers/{server}")
    yield hub
    assert hub.stop(timeout_s=60) == 0, hub.text
    assert "Traceback" not in hub.text, hub.text


@pytest.fixture
def admin(hub, new_person):
    person = new_person(hub)
    person.open("/hub/home")
    person.log_in("root-admin", "pw")
    person.wait_path("/hub/home")
    return person


def test_one_request_brings_every_row_up_to_date(hub, admin):
    """However many servers start meanwhile, the page asks once, for itself, and takes all over."""
    page = admin.page
    admin.open("/hub/admin?q=student-0")
    states = page.locator('[data-live^="status:student-0"]')
    expect(states).to_have_count(50)
    running = states.locator(".status-ready")
    assert running.count() == 0
    names = [f"student-{number:03}" for number in range(12)]
    page.clock.install()  # the page's own time stands still until all servers run
    page.reload()
    for name in names:
        assert hub.api(f"users/{name}/server", TOKEN, "POST").status_code in (201, 202)
    ready = "users?state=ready&name_filter=student-0"
    until(lambda: len(hub.api(ready, TOKEN).json()) == len(names), 60)
    assert running.count() == 0
    asked: list[str] = []
    page.on("request", lambda one: asked.append(one.url))
    page.clock.run_for(5_000)
    expect(running).to_have_count(len(names))
    assert asked == [page.url]
    with page.expect_response(page.url):
        page.clock.run_for(5_000)
    assert asked == [page.url] * 2


@pytest.mark.parametrize("language", ["en", "de", "es"])
def test_long_names_fit_into_every_window(hub, admin, language):
    """Nothing scrolls sideways, neither the page nor a table in it, and no row is cut."""
    context = admin.page.context
    context.add_cookies([{"name": "minihub-language", "value": language, "url": hub.url}])
    wrong = []
    for path in (
        "admin?show=running",
        f"admin/user/{quote(LONG)}",
        "admin/audit",
        "admin/cull",
        "token",
        "home",
        "account",
    ):
        admin.open(f"/hub/{path}")
        expect(admin.page.locator("html")).to_have_attribute("lang", language)
        for width in WIDTHS:
            admin.page.set_viewport_size({"width": width, "height": 900})
            wrong += [f"{path} at {width}: {one}" for one in admin.overhang()]
    assert wrong == [], "\n".join(wrong)


def test_page_of_many_looks_well(hub, admin):
    admin.open("/hub/admin?show=running")
    expect(admin.page.locator('[data-live^="memory:"]', has_text="MB").first).to_be_visible()
    admin.look("many-admin")
    expect(admin.page.get_by_text("and 14 more").first).to_be_visible()
