"""What tornado_settings come to."""

from __future__ import annotations

import pytest

from minihub import websettings


def test_nothing_given_means_the_references_defaults():
    settings = websettings.read({})
    assert (settings.slow_spawn_timeout_s, settings.slow_stop_timeout_s) == (10, 10)
    assert settings.user_redirect_limit == 4
    assert settings.headers == {} and settings.csp_report_uri == ""


def test_all_keys_are_read():
    given = {
        "headers": {"X-Number": 5},
        "slow_spawn_timeout": 0,
        "slow_stop_timeout": 2.5,
        "user_redirect_limit": 9,
        "csp_report_uri": "/x",
        "cookie_options": {"SameSite": "None", "Secure": True},
        "xsrf_cookie_kwargs": {"httponly": True},
    }
    assert set(given) == set(websettings.KEYS)
    assert list(websettings.problems(given)) == []
    settings = websettings.read(given)
    assert settings.headers == {"X-Number": "5"}
    assert settings.slow_spawn_timeout_s == 0
    assert settings.cookie_options == {"samesite": "None", "secure": True}


@pytest.mark.parametrize(
    "given",
    [
        {"slow_stop_timeout": True},
        {"slow_spawn_timeout": -1},
        {"user_redirect_limit": 1.5},
        {"csp_report_uri": 5},
        {"headers": {"A:": "x"}},
        {"headers": {"A": None}},
        {"headers": {5: "x"}},
        {"cookie_options": "Secure"},
        {"cookie_options": {"secure": 1}},
        {"cookie_options": {"max_age": True}},
        {"cookie_options": {"path": "/; HttpOnly"}},
        {"xsrf_cookie_kwargs": {"domain": "a\r\nb"}},
        {"xsrf_cookie_kwargs": {"expires_days": 36526}},
        {"cookie_options": {"max_age": 1e300}},
        {"slow_spawn_timeout": 1e300},
        {"csp_report_uri": "https://x/\nSet-Cookie: y"},
        {"csp_report_uri": "https://x/; script-src *"},
    ],
)
def test_wrong_values_are_told_with_their_key(given):
    (problem,) = websettings.problems(given)
    assert problem.startswith(next(iter(given)) + ": ")


def test_other_keys_are_unknown():
    assert websettings.unknown({"xheaders": 1, "headers": {}, "debug": 1}) == ["debug", "xheaders"]
