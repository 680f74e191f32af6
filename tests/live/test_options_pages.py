"""The pages: templates, static files and logo of one's own, and the settings of the web server."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pyconfig
import pytest
import requests

ADMIN = {"Authorization": "token the-token-of-an-admin"}


def get(hub: Any, path: str, **kwargs: Any) -> requests.Response:
    kwargs.setdefault("timeout", 20)
    return requests.get(hub.url + path, allow_redirects=False, **kwargs)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# -- templates and files -------------------------------------------------------------------


def test_template_paths_override_one_template_and_extend_the_original(start_hub, tmp_path):
    write(
        tmp_path / "mine" / "login.html",
        '{% extends "templates/login.html" %}'
        "{% block main %}<p>Ask room 7 for a password.</p>{{ super() }}{% endblock %}",
    )
    write(
        tmp_path / "mine" / "404.html",
        '{% extends "error.html" %}{% block main %}<h1>Lost at {{ base_url }}</h1>{% endblock %}',
    )
    hub = start_hub({"JupyterHub": {"template_paths": [str(tmp_path / "mine")]}})
    page = get(hub, "hub/login").text
    assert "Ask room 7 for a password." in page and 'name="password"' in page
    lost = get(hub, "hub/nowhere")
    assert lost.status_code == 404 and "<h1>Lost at /hub/</h1>" in lost.text
    assert hub.browser("ada").get("/hub/home").status_code == 200  # all others are ours
    # A change shows without a restart.
    write(tmp_path / "mine" / "404.html", "gone")
    assert get(hub, "hub/nowhere").text == "gone"
    write(tmp_path / "mine" / "403.html", "{{ status_code }}: ask room 7")
    refused = hub.browser("ada").get("/hub/admin")
    assert (refused.status_code, refused.text) == (403, "403: ask room 7")


def test_broken_override_is_told_in_the_log_and_shown_as_an_error(start_hub, tmp_path):
    write(tmp_path / "mine" / "home.html", "line one\n{{ nothing.at_all() }}")
    hub = start_hub({"JupyterHub": {"template_paths": [str(tmp_path / "mine")]}})
    page = hub.browser("ada").get("/hub/home")
    assert page.status_code == 500 and "Traceback" not in page.text
    hub.wait_text(re.escape(f"{tmp_path}/mine/home.html:2: UndefinedError"))


def test_missing_template_directory_stops_the_start(start_hub):
    hub = start_hub({"JupyterHub": {"template_paths": ["/no/such/place"]}}, wait=False)
    assert hub.process.wait(20) == 3
    assert "JupyterHub.template_paths: no directory '/no/such/place'" in hub.text


def test_jinja_environment_options_are_added_to_ours(start_hub, tmp_path):
    write(
        tmp_path / "mine" / "logout.html",
        "{% set words = [] %}{% do words.append(_('done')) %}[[ words | join ]]|{{ words|join }}",
    )
    options = {"extensions": ["jinja2.ext.do"], "trim_blocks": True}
    config = {"template_paths": [str(tmp_path / "mine")], "jinja_environment_options": options}
    hub = start_hub(
        {"JupyterHub": config, "Authenticator": {"auto_login": True}},
    )
    assert get(hub, "hub/logout").text.endswith("|done")
    wrong = {"jinja_environment_options": {"extensions": ["no.such.extension"]}}
    refused = start_hub({"JupyterHub": wrong}, wait=False)
    assert refused.process.wait(20) == 3
    assert "JupyterHub.jinja_environment_options" in refused.text


def test_data_files_path_may_hold_only_some_files(start_hub, tmp_path):
    data = tmp_path / "data"
    write(data / "templates" / "logout.html", "Good bye from our own page.")
    write(data / "static" / "css" / "more.css", "body { color: red }")
    write(data / "static" / "css" / "minihub.css", "/* ours instead */")
    hub = start_hub(
        {"JupyterHub": {"data_files_path": str(data)}, "Authenticator": {"auto_login": True}}
    )
    assert get(hub, "hub/logout").text == "Good bye from our own page."
    assert get(hub, "hub/static/css/more.css").text == "body { color: red }"
    assert get(hub, "hub/static/css/minihub.css").text == "/* ours instead */"
    assert get(hub, "hub/static/js/minihub.js").status_code == 200
    assert get(hub, "hub/static/../minihub.yaml").status_code == 404


def test_logo_file_replaces_the_logo(start_hub, tmp_path):
    picture = tmp_path / "logo.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n and so on")
    hub = start_hub({"JupyterHub": {"logo_file": str(picture)}})
    answer = get(hub, "hub/logo")
    assert answer.content == picture.read_bytes()
    assert answer.headers["Content-Type"] == "image/png"
    refused = start_hub({"JupyterHub": {"logo_file": "/no/such.png"}}, wait=False)
    assert refused.process.wait(20) == 3
    assert "JupyterHub.logo_file: cannot read '/no/such.png'" in refused.text


def test_template_vars_reach_every_page_and_functions_are_given_the_user(start_hub, tmp_path):
    lines = (
        "def greeting(user):\n"
        "    return f'For {user.name} alone' if user else 'For nobody yet'\n"
        "c.JupyterHub.template_vars = {'announcement': 'Closed on <b>Friday</b>',"
        " 'announcement_home': greeting, 'announcement_login': greeting}\n"
    )
    hub = start_hub(args=pyconfig.write(tmp_path / "config.py", lines))
    assert "For nobody yet" in get(hub, "hub/login").text
    browser = hub.browser("ada")
    assert "For ada alone" in browser.get("/hub/home").text
    assert "Closed on <b>Friday</b>" in browser.get("/hub/token").text
    from_yaml = start_hub({"JupyterHub": {"template_vars": {"announcement": "Come in"}}})
    assert "Come in" in get(from_yaml, "hub/login").text


# -- tornado_settings ----------------------------------------------------------------------


def with_settings(**settings: Any) -> dict[str, Any]:
    tokens = {"the-token-of-an-admin": "root-admin"}
    return {"JupyterHub": {"tornado_settings": settings, "api_tokens": tokens}}


def test_headers_are_added_and_may_replace_the_policy(start_hub):
    headers = {"X-Room": "seven", "Content-Security-Policy": "frame-ancestors https://school"}
    hub = start_hub(with_settings(headers=headers))
    for path in ("hub/login", "hub/nowhere", "hub/api", "hub/api/users"):
        answer = get(hub, path)
        assert answer.headers["X-Room"] == "seven"
        assert answer.headers["Content-Security-Policy"] == "frame-ancestors https://school"


def test_csp_report_uri_is_where_browsers_report_to(start_hub):
    hub = start_hub(with_settings(csp_report_uri="https://reports.example.org/csp"))
    policy = get(hub, "hub/login").headers["Content-Security-Policy"]
    assert "report-uri https://reports.example.org/csp;" in policy


def test_cookie_options_shape_every_cookie_and_reach_the_servers(start_hub):
    options = {"SameSite": "Strict", "Secure": True, "expires_days": 2, "path": "/elsewhere"}
    hub = start_hub(with_settings(cookie_options=options, xsrf_cookie_kwargs={"samesite": "None"}))
    page = get(hub, "hub/login")
    (xsrf,) = (one for one in _cookies(page) if one.startswith("_xsrf="))
    assert "SameSite=None" in xsrf and "Secure" in xsrf and "Path=/hub/" in xsrf
    secret = re.search(r'"xsrf_token": "([^"]+)"', page.text)[1]
    answer = requests.post(
        hub.url + "hub/login",
        data={"_xsrf": secret, "username": "ada", "password": "pw"},
        headers={"Cookie": xsrf.split(";")[0]},
        allow_redirects=False,
        timeout=20,
    )
    cookies = {one.split("=")[0]: one for one in _cookies(answer)}
    login = cookies["jupyterhub-hub-login"]
    assert "SameSite=Strict" in login and "Secure" in login and "HttpOnly" in login
    assert "Path=/hub/" in login and "Max-Age=1209600" in login  # the hub's own say
    session = cookies["jupyterhub-session-id"]
    assert "Max-Age=172800" in session and "Path=/;" in session
    start = requests.post(hub.url + "hub/api/users/ada/server", headers=ADMIN, timeout=20)
    assert start.status_code == 201
    env = hub.server_process("ada").environ()
    assert '"SameSite": "Strict"' in env["JUPYTERHUB_COOKIE_OPTIONS"]


def _cookies(answer: requests.Response) -> list[str]:
    return answer.raw.headers.getlist("Set-Cookie")


def test_slow_timeouts_bound_how_long_the_api_waits(start_hub):
    hub = start_hub(
        with_settings(slow_spawn_timeout=0.2, slow_stop_timeout=0.2)
        | {
            "Spawner": {"environment": {"FAKE_MODE": "stubborn"}, "cmd": _slow_server()},
            "LocalProcessSpawner": {"interrupt_timeout": 2, "term_timeout": 0, "kill_timeout": 5},
        }
    )
    url = hub.url + "hub/api/users/ada"
    assert requests.post(url, headers=ADMIN, timeout=20).status_code == 201
    began = time.monotonic()
    assert requests.post(url + "/server", headers=ADMIN, timeout=20).status_code == 202
    assert 0.2 <= time.monotonic() - began < 5
    _until(lambda: requests.get(url, headers=ADMIN, timeout=20).json()["server"])
    assert requests.delete(url + "/server", headers=ADMIN, timeout=20).status_code == 202
    _until(lambda: not requests.get(url, headers=ADMIN, timeout=20).json()["servers"])


def _slow_server() -> list[str]:
    """Return the command of a server that comes up after a second."""
    from harness import DEFAULTS

    command = DEFAULTS["Spawner"]["cmd"]
    return ["sh", "-c", f"sleep 1; exec {command[0]} {command[1]}"]


def _until(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_longer_slow_timeout_waits_for_the_end(start_hub):
    hub = start_hub(with_settings(slow_spawn_timeout=15) | {"Spawner": {"cmd": _slow_server()}})
    url = hub.url + "hub/api/users/root-admin/server"
    assert requests.post(url, headers=ADMIN, timeout=30).status_code == 201


def test_user_redirect_limit_ends_a_loop(start_hub):
    hub = start_hub(with_settings(user_redirect_limit=2))
    browser = hub.browser("ada")
    browser.start_server("ada")
    counts = []
    for times in range(4):
        answer = browser.get(f"/hub/user/ada/lab?redirects={times}")
        counts.append(answer.status_code)
    assert counts == [302, 302, 500, 500]
    assert "Redirect loop detected." in answer.text


def test_unknown_setting_is_a_warning_that_names_it(start_hub):
    hub = start_hub(with_settings(xheaders=True, max_body_size=5))
    hub.wait_text(
        r"WARNING \| minihub.yaml:\d+:\d+  JupyterHub.tornado_settings: "
        "max_body_size, xheaders means nothing here; known are headers, slow_spawn_timeout"
    )


@pytest.mark.parametrize(
    "settings, told",
    [
        ({"slow_spawn_timeout": "soon"}, "slow_spawn_timeout: expected a number of seconds"),
        ({"user_redirect_limit": -1}, "user_redirect_limit: expected a whole number"),
        ({"headers": ["X"]}, "headers: expected a dictionary"),
        ({"headers": {"X-A": "a\nb"}}, "headers: X-A cannot be"),
        ({"cookie_options": {"flavour": "mint"}}, 'cookie_options: "flavour" is no attribute'),
        ({"cookie_options": {"samesite": "Perhaps"}}, "samesite is one of Strict, Lax, None"),
    ],
)
def test_wrong_setting_stops_the_start(start_hub, settings, told):
    hub = start_hub({"JupyterHub": {"tornado_settings": settings}}, wait=False)
    assert hub.process.wait(20) == 3
    assert "JupyterHub.tornado_settings" in hub.text and told in hub.text
