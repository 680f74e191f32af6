"""Options about tokens and cookies."""

import json
import re
import time

import pytest
import requests
from harness import HubProcess, python_config

PLAIN = "a-token-somebody-chose"
SECRET = "0123456789abcdef" * 4


def rounds(hub, note="Given in the configuration"):
    """Return how often the tokens with a note are hashed."""
    rows = hub.rows("select hashed from api_tokens where note = ?", note)
    return [int(hashed.split(":")[1]) for (hashed,) in rows]


# -- api_tokens, service_tokens, trust_user_provided_tokens --------------------------------------


@pytest.fixture(scope="module")
def tokened(tmp_path_factory):
    """A hub with tokens of a user and of a service in its configuration."""
    config = {
        "api_tokens": {PLAIN: "Newcomer", "b" * 20: "root-admin"},
        "services": [{"name": "grader", "admin": True, "api_token": "g" * 20}],
        "service_tokens": {"further-" + "s" * 20: "grader"},
    }
    hub = HubProcess(tmp_path_factory.mktemp("tokens"), {"JupyterHub": config}).wait_ready()
    yield hub
    assert hub.stop() == 0, hub.text


def test_api_tokens_make_the_user_and_work_at_once(tokened):
    model = tokened.api("user", PLAIN).json()
    assert model["name"] == "newcomer" and model["kind"] == "user"  # the name as logins give it
    assert tokened.api("user", "b" * 20).json()["admin"] is True
    assert tokened.api("user", PLAIN + "x").status_code == 403
    (line,) = [line for line in tokened.text.splitlines() if "JupyterHub.api_tokens" in line]
    assert "deprecated" in line and "service_tokens" in line and PLAIN not in line


def test_service_tokens_have_the_rights_of_their_service(tokened):
    for token in ("g" * 20, "further-" + "s" * 20):
        model = tokened.api("user", token).json()
        assert model["kind"] == "service" and model["name"] == "grader"
        listed = tokened.api("users", token)
        assert "newcomer" in [one["name"] for one in listed.json()]


def test_tokens_of_the_configuration_are_stored_stretched(tokened):
    assert set(rounds(tokened)) == {16384}
    text = json.dumps(tokened.rows("select * from api_tokens"))
    assert PLAIN not in text and "g" * 20 not in text


def test_tokens_of_the_hub_are_never_stretched(tokened):
    browser = tokened.browser("ada")
    browser.start_server("ada")
    assert set(rounds(tokened, "Server at /user/ada/")) == {1}


def test_trusted_tokens_are_cheap_to_check(start_hub):
    config = {"JupyterHub": {"api_tokens": {PLAIN: "ada"}, "trust_user_provided_tokens": True}}
    hub = start_hub(config)
    assert hub.api("user", PLAIN).json()["name"] == "ada" and rounds(hub) == [1]
    hub.stop()
    config["JupyterHub"]["trust_user_provided_tokens"] = False
    hub = start_hub(config, directory=hub.directory)
    assert hub.api("user", PLAIN).json()["name"] == "ada" and rounds(hub) == [16384]


def test_token_taken_out_of_the_configuration_is_good_no_more(start_hub):
    config = {"JupyterHub": {"api_tokens": {PLAIN: "ada", "k" * 20: "ada"}}}
    hub = start_hub(config)
    assert hub.api("user", PLAIN).status_code == 200
    hub.stop()
    hub = start_hub({"JupyterHub": {"api_tokens": {"k" * 20: "ada"}}}, directory=hub.directory)
    assert (
        hub.api("user", PLAIN).status_code == 403 and hub.api("user", "k" * 20).status_code == 200
    )


@pytest.mark.parametrize(
    "config, told",
    [
        ({"api_tokens": {"short": "ada"}}, "fewer than 8 characters"),
        ({"api_tokens": {"x" * 20: "a/b"}}, "'a/b' is no valid user name"),
        ({"service_tokens": {"x" * 20: "nobody"}}, "there is no service nobody"),
        (
            {
                "services": [{"name": "one", "api_token": "x" * 20}],
                "api_tokens": {"x" * 20: "ada"},
            },
            "one API token is given for two owners",
        ),
    ],
)
def test_tokens_that_cannot_be_are_refused(start_hub, config, told):
    hub = start_hub({"JupyterHub": config}, wait=False)
    assert hub.process.wait(20) == 3
    assert told in hub.text and "x" * 20 not in hub.text and "Traceback" not in hub.text


# -- cookie_secret, cookie_secret_file -----------------------------------------------------------


def login_cookie(hub, name="ada"):
    """Log in and return the login cookie's value."""
    return hub.browser(name).cookies["jupyterhub-hub-login"]


def accepts(hub, cookie):
    """Return whether the hub takes a login cookie."""
    jar = {"jupyterhub-hub-login": cookie}
    home = requests.get(hub.url + "hub/home", cookies=jar, allow_redirects=False, timeout=10)
    return home.status_code == 200


def test_cookie_secret_signs_the_cookies_and_makes_no_file(start_hub):
    config = {"JupyterHub": {"cookie_secret": SECRET}}
    hub = start_hub(config)
    cookie = login_cookie(hub)
    assert not (hub.directory / "jupyterhub_cookie_secret").exists()
    hub.stop()
    hub = start_hub(config, directory=hub.directory)
    assert accepts(hub, cookie)
    hub.stop()
    other = {"JupyterHub": {"cookie_secret": SECRET[::-1]}}
    hub = start_hub(other, directory=hub.directory)
    assert not accepts(hub, cookie)


def test_cookie_secret_may_be_bytes_in_python(start_hub, tmp_path):
    directory = tmp_path / "python"
    changes = {"JupyterHub": {"cookie_secret": bytes.fromhex(SECRET)}}
    hub = start_hub(**python_config(directory, changes=changes))
    cookie = login_cookie(hub)
    hub.stop()
    (directory / "jupyterhub_config.py").unlink()
    hub = start_hub({"JupyterHub": {"cookie_secret": SECRET}}, directory=directory)  # as hex
    assert accepts(hub, cookie)


def test_cookie_secret_of_the_environment_goes_before_the_file(start_hub):
    hub = start_hub(env={"JPY_COOKIE_SECRET": SECRET})
    cookie = login_cookie(hub)
    assert not (hub.directory / "jupyterhub_cookie_secret").exists()
    hub.stop()
    (hub.directory / "jupyterhub_cookie_secret").write_text(SECRET[::-1])
    (hub.directory / "jupyterhub_cookie_secret").chmod(0o600)
    hub = start_hub(directory=hub.directory, env={"JPY_COOKIE_SECRET": SECRET})
    assert accepts(hub, cookie)
    hub.stop()
    hub = start_hub(directory=hub.directory)
    assert not accepts(hub, cookie)


def test_cookie_secret_file_is_made_for_its_owner_and_kept(start_hub):
    config = {"JupyterHub": {"cookie_secret_file": "our-secret"}}
    hub = start_hub(config)
    file = hub.directory / "our-secret"
    assert file.stat().st_mode & 0o777 == 0o600
    assert re.fullmatch(r"[0-9a-f]{64}\n", file.read_text())
    cookie = login_cookie(hub)
    hub.stop()
    hub = start_hub(config, directory=hub.directory)
    assert accepts(hub, cookie)


@pytest.mark.parametrize(
    "text, mode, told",
    [
        (SECRET, 0o604, "chmod 600 "),
        (SECRET[:20], 0o600, "too short"),
        ("not hexadecimal at all", 0o600, "does not hold hexadecimal digits"),
    ],
)
def test_cookie_secret_file_that_is_unfit_is_refused_with_what_mends_it(
    start_hub, tmp_path, text, mode, told
):
    file = tmp_path / "secret"
    file.write_text(text)
    file.chmod(mode)
    hub = start_hub({"JupyterHub": {"cookie_secret_file": str(file)}}, wait=False)
    assert hub.process.wait(20) == 3
    assert "JupyterHub.cookie_secret_file" in hub.text and told in hub.text
    assert ("chmod 600 " if mode & 7 else "rm ") + str(file) in hub.text
    assert text not in hub.text and "Traceback" not in hub.text


# -- how long a login lasts ----------------------------------------------------------------------


def test_cookie_max_age_days_ends_logins_in_browser_and_hub(start_hub):
    lifetime_s = 4
    hub = start_hub({"JupyterHub": {"cookie_max_age_days": lifetime_s / 86400}})
    browser = hub.browser()
    answer = browser.login("ada")
    began = time.monotonic()
    cookies = answer.raw.headers.getlist("Set-Cookie")
    (login,) = [one for one in cookies if one.startswith("jupyterhub-hub-login=")]
    assert f"Max-Age={lifetime_s}" in login
    cookie = login.partition("=")[2].partition(";")[0]
    assert accepts(hub, cookie)
    while accepts(hub, cookie):
        assert time.monotonic() - began < lifetime_s + 5
        time.sleep(0.1)
    assert time.monotonic() - began > lifetime_s - 1
