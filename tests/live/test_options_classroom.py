"""Options of the class's own authenticator, and those against guessing."""

from __future__ import annotations

import re
import time

import pytest
from class_tools import (
    PASSWORD,
    TOKEN,
    alert,
    classroom,
    join,
    make_code,
    teacher,
    users,
)
from harness import Browser

from minihub import clock


@pytest.mark.parametrize("signup", ["closed", "code", "approve", "open"])
def test_signup_decides_how_people_join(start_hub, signup):
    hub = start_hub(classroom(signup))
    make_code(hub)
    page = Browser(hub.url).get("/hub/join")
    link = "/hub/join" in Browser(hub.url).get("/hub/login").text
    if signup == "closed":
        assert (page.status_code, link) == (404, False)
        assert Browser(hub.url).post("/hub/join", data={}).status_code == 404
        return
    assert (page.status_code, link) == (200, True)
    assert ('name="code"' in page.text) == (signup == "code")
    answer = join(hub, "ada", code="" if signup != "code" else "CDFG2345")
    assert answer.status_code == (200 if signup == "approve" else 302)
    assert users(hub) == (set() if signup == "approve" else {"ada"})
    if signup == "code":
        assert join(hub, "ben", code="").status_code == 403


def test_minimum_password_length_counts_wherever_passwords_are_set(start_hub):
    hub = start_hub(classroom("open", minimum_password_length=14))
    assert alert(join(hub, "ada", password="thirteen char")) == (
        "A password has at least 14 characters."
    )
    assert join(hub, "ada", password="fourteen chars").status_code == 302
    short = hub.api("users/ada/password", TOKEN, "PUT", json={"password": "thirteen char"})
    assert short.status_code == 400


def test_code_uses_lifetime_and_code_at_start_make_the_code_on_the_start_screen(start_hub):
    hub = start_hub(classroom(code_at_start=True, code_uses=2, code_lifetime=7200))
    code = re.search(r"Class code +(\S+) +2 can join, good until \d\d:\d\d", hub.text)[1]
    assert "Nobody else can reach this hub" in hub.text and "█▀" in hub.text
    ((expires,),) = hub.rows("select expires_at from class_codes")
    assert 7000 < (clock.parse(expires) - clock.utcnow()).total_seconds() <= 7200
    page = teacher(hub).get("/hub/class").text
    assert 'value="2" required' in page and 'value="7200" selected' in page
    assert [join(hub, f"p{n}", code=code).status_code for n in range(3)] == [302, 302, 403]


def test_code_that_is_good_is_shown_again_at_the_next_start(start_hub, tmp_path):
    config = classroom(code_at_start=True)
    hub = start_hub(config)
    code = re.search(r"Class code +(\S+)", hub.text)[1]
    join(hub, "ada", code=code)
    hub.stop()
    hub.log.unlink()
    again = start_hub(config, directory=hub.directory)
    assert re.search(rf"Class code +{code} +39 can join", again.text)


def test_one_time_code_lifetime(start_hub):
    hub = start_hub(classroom("open", one_time_code_lifetime=3600))
    join(hub, "ada")
    expires = hub.api("users/ada/one-time-code", TOKEN, "POST").json()["expires_at"]
    assert 3500 < (clock.parse(expires) - clock.utcnow()).total_seconds() <= 3600


def test_max_waiting_bounds_who_waits(start_hub):
    hub = start_hub(classroom("approve", max_waiting=2))
    answers = [join(hub, f"p{n}").status_code for n in range(3)]
    assert answers == [200, 200, 503]
    assert hub.rows("select count(*) from signup_requests") == [(2,)]


# -- guessing, with an authenticator that is not ours ----------------------------------------------


def guesses(hub, names, password="wrong"):
    """Return the answers' statuses to one wrong password for each name."""
    return [Browser(hub.url).login(name, password).status_code for name in names]


def guarded(**limits):
    return {
        "DummyAuthenticator": {"password": PASSWORD},
        "Authenticator": limits,
    }


def test_login_failures_per_client(start_hub):
    hub = start_hub(guarded(login_failures_per_client=3))
    assert guesses(hub, ["ada"] * 4) == [403, 403, 403, 429]
    assert guesses(hub, ["ADA"]) == [429]
    assert hub.browser("ben", PASSWORD).get("/hub/home").status_code == 200


def test_login_failures_per_name_count_whatever_the_address(start_hub):
    hub = start_hub(
        guarded(login_failures_per_client=2, login_failures_per_name=5)
        | {"JupyterHub": {"trusted_downstream_ips": ["127.0.0.1"]}}
    )

    def guess(address, password="wrong"):
        browser = Browser(hub.url)
        browser.headers["X-Forwarded-For"] = address
        return browser.login("ada", password).status_code

    assert [guess(f"10.0.0.{n}") for n in range(6)] == [403] * 5 + [429]
    assert guess("10.0.0.99", PASSWORD) == 429
    assert [guess("10.1.1.1")] == [429]


def test_address_that_nobody_vouches_for_does_not_count(start_hub):
    hub = start_hub(guarded(login_failures_per_client=2))
    answers = []
    for number in range(3):
        browser = Browser(hub.url)
        browser.headers["X-Forwarded-For"] = f"10.0.0.{number}"
        answers.append(browser.login("ada", "wrong").status_code)
    assert answers == [403, 403, 429]


def test_login_failures_per_address(start_hub):
    hub = start_hub(guarded(login_failures_per_address=6))
    assert guesses(hub, [f"name{n}" for n in range(7)]) == [403] * 6 + [429]


def test_login_failures_overall(start_hub):
    hub = start_hub(guarded(login_failures_per_address=0, login_failures_overall=6))
    assert guesses(hub, [f"name{n}" for n in range(7)]) == [403] * 6 + [429]


def test_login_failure_window_is_how_long_a_failure_counts(start_hub):
    hub = start_hub(guarded(login_failures_per_client=2, login_failure_window=4))
    began = time.monotonic()
    assert guesses(hub, ["ada"] * 2) == [403, 403]
    answer = Browser(hub.url).login("ada", PASSWORD)
    if time.monotonic() - began < 4:  # else the machine was too slow to tell
        assert answer.status_code == 429 and int(answer.headers["Retry-After"]) <= 4
    time.sleep(max(0.0, 4.1 - (time.monotonic() - began)))
    time.sleep(4.1)
    assert Browser(hub.url).login("ada", PASSWORD).status_code == 302


def test_a_right_password_is_never_a_failure(start_hub):
    hub = start_hub(guarded(login_failures_per_client=2, login_failures_overall=5))
    for _ in range(12):
        assert Browser(hub.url).login("ada", PASSWORD).status_code == 302
