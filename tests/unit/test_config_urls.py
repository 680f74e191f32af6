"""Options that are the parts of a URL given as one."""

import pytest

from minihub.config_urls import with_parts
from minihub.config_values import Entry
from minihub.options_later import split_url


def parts_of(option, url):
    """Return what a URL sets besides itself."""
    entry = Entry("JupyterHub", option, url, "file:1")
    return {one.option: one.value for one in with_parts([entry])[:-1]}


@pytest.mark.parametrize(
    "url, parts",
    [
        ("http://127.0.0.1:9000/lab", {"ip": "127.0.0.1", "port": 9000, "base_url": "/lab"}),
        ("http://:8000", {"ip": "", "port": 8000}),
        ("http://*:0/", {"ip": "*", "port": 0, "base_url": "/"}),
        ("https://hub.example.org", {"ip": "hub.example.org", "port": 443}),
        ("http://[::1]:80", {"ip": "::1", "port": 80}),
        ("ftp://x", {}),
        ("http://x:many", {}),
        (7, {}),
        ("", {}),
    ],
)
def test_bind_url_sets_its_parts(url, parts):
    assert parts_of("bind_url", url) == parts


def test_urls_of_the_hub_set_no_path():
    assert parts_of("hub_bind_url", "http://10.0.0.1:81/x/") == {
        "hub_ip": "10.0.0.1",
        "hub_port": 81,
    }
    assert parts_of("hub_connect_url", "http://name") == {
        "hub_connect_ip": "name",
        "hub_connect_port": 80,
    }


def test_parts_come_before_what_is_given_itself():
    given = Entry("JupyterHub", "port", 1234, "file:2")
    url = Entry("JupyterHub", "bind_url", "http://:8000", "file:3")
    found = with_parts([given, url])
    assert [entry.option for entry in found] == ["ip", "port", "port", "bind_url"]
    assert found[2] is given and found[1].where == "file:3"


def test_words_of_a_command_line_stay_words():
    entry = Entry("JupyterHub", "bind_url", ["http://a:1", "http://b:2"], "--url", texts=True)
    assert {one.option: one.value for one in with_parts([entry])[:-1]} == {
        "ip": ["b"],
        "port": ["2"],
    }


@pytest.mark.parametrize(
    "url", ["http+unix://%2Frun", "x", "http://a@b", "http://a?b", "http://a#b", "http://a:b"]
)
def test_url_that_is_no_place_is_refused(url):
    with pytest.raises(ValueError):
        split_url(url)
