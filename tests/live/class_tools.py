"""A class for tests: hubs whose people join by themselves, and what people do there."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from typing import Any

import requests
from harness import Browser, HubProcess

PASSWORD = "kind of blue"
#: Belongs to an admin of every class here who never logs in.
TOKEN = "a-token-of-the-office"
FAR_FUTURE = "2999-01-01T00:00:00.000000Z"


def classroom(signup: str = "code", **options: Any) -> dict[str, Any]:
    """Return the configuration of a hub whose people join by ``signup``."""
    return {
        "JupyterHub": {
            "authenticator_class": "classroom",
            "api_tokens": {TOKEN: "office"},
        },
        "Authenticator": {"allow_all": True, "admin_users": ["teacher", "office"]},
        "ClassroomAuthenticator": {"signup": signup, **options},
    }


def write(hub: HubProcess, statement: str, *values: Any) -> None:
    """Change a row of a hub's database behind its back."""
    with contextlib.closing(sqlite3.connect(hub.directory / "jupyterhub.sqlite")) as db:
        db.execute(statement, values)
        db.commit()


def make_code(
    hub: HubProcess, *, uses: int = 30, code: str = "CDFG2345", expires: str = FAR_FUTURE
) -> str:
    """Put a class code into the database of a hub; return it."""
    write(
        hub,
        "insert into class_codes (code, note, uses, used, created, created_by, expires_at)"
        " values (?, '', ?, 0, '2020-01-01T00:00:00.000000Z', '', ?)",
        code,
        uses,
        expires,
    )
    return code


def join(
    hub: HubProcess,
    name: str,
    *,
    code: str = "CDFG-2345",
    password: str = PASSWORD,
    again: str | None = None,
    browser: Browser | None = None,
) -> requests.Response:
    """Fill in the join form, in a browser of its own unless one is given; return the answer."""
    browser = browser or Browser(hub.url)
    data = {"username": name, "password": password, "again": again or password, "code": code}
    data["_xsrf"] = browser.xsrf("/hub/join")
    return browser.post("/hub/join", data=data, timeout=120)  # a whole class may be before us


def users(hub: HubProcess) -> set[str]:
    """Return the names of all users but the admins."""
    return {name for (name,) in hub.rows("select name from users where not admin")}


def teacher(hub: HubProcess) -> Browser:
    """Return the browser of the teacher, who has a password."""
    browser = Browser(hub.url)
    if browser.login("teacher", PASSWORD).status_code != 302:
        code = hub.api("users/teacher/one-time-code", TOKEN, "POST").json()["code"]
        answer = set_password(browser, "teacher", code)
        assert answer.status_code == 302, answer.text
    return browser


def set_password(
    browser: Browser, name: str, code: str, password: str = PASSWORD
) -> requests.Response:
    """Turn a one-time code into a password."""
    fields = {"username": name, "code": code, "password": password, "again": password}
    return browser.submit("/hub/new-password", fields)


def shown_codes(page: requests.Response) -> dict[str, str]:
    """Return the one-time codes on a page of slips, by name."""
    assert page.status_code == 200, page.text
    found = re.findall(
        r'class="slip-name">([^<]+)</p>.*?class="slip-code code">([^<]+)</p>', page.text, re.S
    )
    return dict(found)


def alert(page: requests.Response) -> str:
    """Return what a page complains about."""
    match = re.search(r'class="[^"]*alert-danger[^"]*"[^>]*>([^<]+)<', page.text)
    assert match, page.text
    return match[1]
