"""What holds of a hub as a whole: its cookies, its files, what refusals cost it."""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from http.cookies import SimpleCookie

import psutil
import pytest
import requests
from harness import ROOT, free_port, until

from minihub.web import tables
from minihub.web.routing import Access

LOGIN = "jupyterhub-hub-login"
TOKEN = "the-token-of-an-admin"


def set_cookies(answer):
    """Return the cookies that an answer sets, as morsels."""
    jar = SimpleCookie()
    for line in answer.raw.headers.getlist("Set-Cookie"):
        jar.load(line)
    return jar.values()


@pytest.mark.parametrize("secure", [False, True])
def test_every_cookie_is_narrow(start_hub, secure):
    """Of every answer of every page, with a login and without."""
    port = free_port()
    options = {"port": port} | ({"public_url": "https://hub.example/"} if secure else {})
    hub = start_hub({"JupyterHub": options}, ready={"url": f"http://127.0.0.1:{port}/"})
    browser, seen = hub.browser(), []
    for path in ("/hub/login", "/hub/home", "/hub/api", "/no/such/page"):
        seen += set_cookies(browser.get(path))
    secret = browser.xsrf("/hub/login")
    jar = {one.name: one.value for one in browser.cookies}
    # Secure cookies do not come back over http: the test carries them itself.
    cookies = {"Cookie": "; ".join(f"{name}={value}" for name, value in jar.items())}
    form = {"username": "ada", "password": "pw", "_xsrf": secret}
    answer = requests.post(
        hub.url + "hub/login", data=form, headers=cookies, allow_redirects=False, timeout=20
    )
    assert answer.status_code == 302, answer.text
    logged_in = list(set_cookies(answer))
    assert LOGIN in {one.key for one in logged_in}
    seen += logged_in
    jar |= {one.key: one.coded_value for one in logged_in}
    cookies = {"Cookie": "; ".join(f"{name}={value}" for name, value in jar.items())}
    pages = [
        route
        for table in tables.ALL
        for route in table
        if route.method == "GET" and route.access is Access.PAGE and "<" not in route.path
    ]
    for page in [*(route.path for route in pages), "logout"]:
        answer = requests.get(
            f"{hub.url}hub/{page}", headers=cookies, allow_redirects=False, timeout=20
        )
        seen += set_cookies(answer)
    names = {one.key for one in seen}
    assert {LOGIN, "_xsrf", "jupyterhub-session-id"} <= names
    for one in seen:
        if one["max-age"] == "0" or not one.value:
            continue  # it ends there
        assert one["samesite"].lower() in ("lax", "strict"), one
        assert bool(one["secure"]) is secure, one
        if one.key != "_xsrf":  # no credential: it only shows that a script is the hub's
            assert one["httponly"], one
        if one.key != "jupyterhub-session-id":  # no credential, and of use to servers
            assert one["path"] == "/hub/", one
        assert not one["domain"], one


def test_login_cookie_stays_at_the_hub(start_hub):
    """Browsers send it to the hub's path alone; a server that sets it itself gains nothing."""
    hub = start_hub()
    browser = hub.browser("ada")
    browser.start_server("ada")
    answer = browser.follow("/user/ada/")
    value = browser.cookies[LOGIN].strip('"')
    sent = answer.json()["headers"].get("Cookie", "")
    assert "jupyterhub-session-id" in sent
    assert LOGIN not in sent and value not in json.dumps(answer.json())
    for one in browser.cookies:
        assert one.path != "/hub/" or one.value.strip('"') not in sent, one.name
    # Planted from a server's page: unsigned, of another person, of another login.
    eve = hub.browser("eve")
    own = f"{LOGIN}={browser.cookies[LOGIN]}"
    session = f"jupyterhub-session-id={browser.cookies['jupyterhub-session-id']}"
    for planted in (f"{LOGIN}=x", f"{LOGIN}={eve.cookies[LOGIN]}"):
        for cookies in ([planted, own, session], [session, own, planted]):
            headers = {"Cookie": "; ".join(cookies)}
            answer = requests.get(hub.url + "hub/api/user", headers=headers, timeout=20)
            assert answer.json()["name"] == "ada"
    secret = {"_xsrf": eve.xsrf("/hub/home")}
    theirs = "; ".join(f"{one.name}={one.value}" for one in eve.cookies if one.name != LOGIN)
    headers = {"Cookie": f"{LOGIN}={browser.cookies[LOGIN]}; {theirs}"}
    answer = requests.post(
        hub.url + "hub/account/sessions",
        data=secret,
        headers=headers,
        allow_redirects=False,
        timeout=20,
    )
    assert answer.status_code == 403
    assert browser.get("/hub/home").status_code == 200


def test_every_file_is_the_hubs_alone(start_hub, tmp_path):
    """Under a mask that takes nothing away, after everything that writes."""
    before = os.umask(0)
    try:
        hub = start_hub(
            {
                "JupyterHub": {
                    "pid_file": "hub.pid",
                    "extra_log_file": "hub.log",
                    "api_tokens": {TOKEN: "root-admin"},
                }
            }
        )
        browser = hub.browser("ada")
        browser.start_server("ada")
        assert hub.api("users/ada/tokens", TOKEN, "POST", json={}).status_code == 201
        saved = tmp_path / "saved.tar.gz"
        command = [sys.executable, str(ROOT / "minihub" / "__main__.py"), "backup", str(saved)]
        done = subprocess.run(command, cwd=hub.directory, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        os.umask(before)
    own = ("hub.log", "hub.pid", "jupyterhub_cookie_secret")
    places = [saved, *(hub.directory / name for name in own)]
    places += hub.directory.glob("jupyterhub.sqlite*")
    places += [one for one in hub.state_dir.rglob("*") if "homes/" not in str(one)]
    names = {one.name for one in places}
    assert {"jupyterhub.sqlite-wal", "jupyterhub.sqlite-shm", "ada.log", "hub.log", "lock"} <= names
    assert hub.state_dir.stat().st_mode & 0o777 == 0o700
    for place in places:
        if place.is_dir():
            assert place.stat().st_mode & 0o077 == 0, place
        elif place.suffix == ".pid":  # everybody may read it
            assert place.stat().st_mode & 0o777 == 0o644
        elif place.is_file():
            assert place.stat().st_mode & 0o777 in (0o600, 0o400), place
    homes = hub.state_dir / "homes"
    assert homes.stat().st_mode & 0o077 == 0
    assert (homes / "ada").stat().st_mode & 0o077 == 0


CLASSROOM = {
    "JupyterHub": {"authenticator_class": "classroom", "api_tokens": {TOKEN: "office"}},
    "ClassroomAuthenticator": {"signup": "open"},
}


def test_password_or_name_of_a_megabyte_is_refused_at_once(start_hub):
    hub = start_hub(CLASSROOM)
    browser = hub.browser()
    secret = browser.xsrf("/hub/login")
    size = len(hub.text)
    for form in (
        {"username": "ada", "password": "x" * 10**6},
        {"username": "x" * 10**6, "password": "pw"},
    ):
        began = time.monotonic()
        answer = browser.post("/hub/login", data={**form, "_xsrf": secret})
        assert 400 <= answer.status_code < 500 and len(answer.text) < 100_000
        assert time.monotonic() - began < 10
    assert len(hub.text) - size < 4000, "it fills the log"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="others keep no memory")
def test_passwords_that_are_looked_at_leave_no_memory_behind(start_hub):
    """Each takes 16 MiB for a moment, in whichever thread it is."""
    hub = start_hub(CLASSROOM)
    process = psutil.Process(hub.process.pid)

    def wrong(number):
        browser = hub.browser()
        assert browser.login(f"nobody{number}", "wrong").status_code == 403

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: requests.get(hub.url + "hub/login", timeout=30), range(64)))
        before = process.memory_info().rss
        list(pool.map(wrong, range(24)))
    assert (process.memory_info().rss - before) / 2**20 < 40


def test_hundreds_that_never_finish_their_request_keep_nobody_out(start_hub):
    hub = start_hub()
    port = int(hub.url.rstrip("/").rpartition(":")[2])
    slow = []
    try:
        for number in range(500):
            client = socket.create_connection(("127.0.0.1", port), timeout=20)
            client.sendall(b"GET /hub/login HTTP/1.1\r\nHost: a\r\nX: "[: 10 + number % 30])
            slow.append(client)
        until(lambda: hub.browser("ada"), 20)
        began = time.monotonic()
        hub.browser("bob")
        assert time.monotonic() - began < 5
    finally:
        for client in slow:
            client.close()


@pytest.mark.parametrize("kind", ["progress", "page"])
def test_page_of_another_origin_reads_no_stream(start_hub, kind):
    """Whoever cannot be told from a stranger's page is treated as one."""
    hub = start_hub()
    browser = hub.browser("ada")
    browser.start_server("ada")
    cross = {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}
    cross["Sec-Fetch-Mode"] = "cors"
    path = "/hub/api/users/ada/server/progress" if kind == "progress" else "/hub/api/users/ada"
    answer = browser.get(path, headers=cross, stream=True)
    assert answer.status_code == 403
    assert "Access-Control-Allow-Origin" not in answer.headers
    answer.close()
    bare = browser.get(path, headers={"Origin": "http://evil.example"}, stream=True)
    assert "Access-Control-Allow-Origin" not in bare.headers  # so that no page may read it
    bare.close()
