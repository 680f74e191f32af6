"""Cookie headers, read and written."""

import pytest

from minihub.web import cookies


def test_every_value_of_a_repeated_name_is_kept_in_order():
    assert cookies.read("a=1; b=2; a=3") == {"a": ["1", "3"], "b": ["2"]}


@pytest.mark.parametrize("header", [None, "", ";", "a", "=;=", "; ;", "\x00=\x01"])
def test_odd_headers_do_not_raise(header):
    assert isinstance(cookies.read(header), dict)


def test_session_id_must_have_our_form():
    good = "0123456789abcdef" * 2
    assert cookies.session_id({cookies.SESSION_ID: ["x", "<script>", good]}) == good
    assert cookies.session_id({cookies.SESSION_ID: ["x"]}) == ""
    assert cookies.session_id({}) == ""


def test_written_cookie_is_narrow():
    text = cookies.write("n", "v", path="/hub/", secure=True, max_age_s=5)
    assert text == "n=v; Path=/hub/; Max-Age=5; HttpOnly; Secure; SameSite=Lax"


def test_cleared_cookie_ends_at_once():
    assert "Max-Age=0" in cookies.clear("n", path="/", secure=False)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"samesite": "strict"}, "n=v; Path=/hub/; Max-Age=5; HttpOnly; SameSite=Strict"),
        ({"httponly": False, "secure": True}, "n=v; Path=/hub/; Max-Age=5; Secure; SameSite=Lax"),
        ({"path": "/x", "domain": "d"},
         "n=v; Path=/x; Domain=d; Max-Age=5; HttpOnly; SameSite=Lax"),
        ({"expires_days": 0.5}, "n=v; Path=/hub/; Max-Age=43200; HttpOnly; SameSite=Lax"),
        ({"max_age": 7, "partitioned": True},
         "n=v; Path=/hub/; Max-Age=7; HttpOnly; SameSite=Lax; Partitioned"),
    ],
)  # fmt: skip
def test_options_of_the_administrator_win(options, text):
    assert cookies.write("n", "v", path="/hub/", secure=False, max_age_s=5, options=options) == text
    assert "Max-Age=0" in cookies.clear("n", path="/hub/", secure=False, options=options)
