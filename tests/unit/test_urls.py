"""Paths, names in paths, and where a redirect may lead."""

import pytest

from minihub.urls import (
    escape_name,
    host_name,
    is_local_path,
    safe_next,
    server_name_problem,
    server_slug,
    url_path_join,
    url_prefix,
)

HOSTS = ("hub.example:8000",)


@pytest.mark.parametrize(
    ("pieces", "joined"),
    [
        (("/", "hub"), "/hub"),
        (("/a/", "/b/"), "/a/b/"),
        (("a", "b"), "a/b"),
        (("/", "/"), "/"),
        (("/x/", "", "y"), "/x/y"),
    ],
)
def test_join_puts_one_slash_between(pieces, joined):
    assert url_path_join(*pieces) == joined


@pytest.mark.parametrize(
    ("text", "prefix"), [("", "/"), ("/", "/"), ("x", "/x/"), ("/x/y", "/x/y/"), ("//x//", "/x/")]
)
def test_prefix_has_a_slash_at_each_end(text, prefix):
    assert url_prefix(text) == prefix


def test_escape_keeps_at_and_tilde_and_nothing_else_special():
    assert escape_name("ada@x~y") == "ada@x~y"
    assert escape_name("a/b c%") == "a%2Fb%20c%25"


@pytest.mark.parametrize(
    ("target", "safe"),
    [
        ("/hub/home", "/hub/home"),
        ("/user/ada/lab?x=1#top", "/user/ada/lab?x=1#top"),
        ("http://hub.example:8000/user/ada/?a=b", "/user/ada/?a=b"),
        ("https://hub.example:8000/x", "/x"),
        ("//hub.example:8000/x", "/x"),
        ("http://hub.example:8000//evil.example", "/evil.example"),
        ("/\\evil.example", "/%5Cevil.example"),
    ],
)
def test_own_targets_become_paths(target, safe):
    assert safe_next(target, HOSTS) == safe


EVIL = [
    "",
    "//evil.example",
    "///evil.example",
    "////evil.example/x",
    "http://evil.example",
    "https://evil.example/hub/home",
    "http://hub.example:8000@evil.example/",
    "http://hub.example:8000.evil.example/",
    "http://hub.example/",
    "https:evil.example",
    "http:///evil.example",
    "javascript:alert(1)",
    "data:text/html,x",
    "evil.example",
    "./x",
    "?next=/x",
    "#x",
    "\\\\evil.example",
    "\\/evil.example",
    "/\t/evil.example",
    "/ /evil.example",
    " //evil.example",
    "\x00//evil.example",
    "/x\r\nLocation: //evil.example",
    "ftp://hub.example:8000/x",
    "//[evil",
    "http://[::1",
    "/" + "x" * 9000,
]


@pytest.mark.parametrize("target", EVIL)
def test_foreign_targets_never_leave_this_origin(target):
    result = safe_next(target, HOSTS)
    assert result is None or (result.startswith("/") and not result.startswith(("//", "/\\")))


@pytest.mark.parametrize("target", [t for t in EVIL if not t.startswith("///")])
def test_foreign_targets_are_refused(target):
    assert safe_next(target, HOSTS) is None


def test_local_path_needs_the_whole_prefix():
    assert is_local_path("/hub", "/hub/")
    assert is_local_path("/hub/x", "/hub/")
    assert not is_local_path("/hubx", "/hub/")


@pytest.mark.parametrize(
    "target, safe",
    [
        ("http://ada.hub.org:8000/user/ada/lab?x=1", "/user/ada/lab?x=1"),
        ("//ada.HUB.org/user/ada/", "/user/ada/"),
        ("https://hub.org.evil.org/", None),
        ("https://evilhub.org/", None),
        ("https://hub.org@evil.org/", None),
        ("javascript://ada.hub.org/%0aalert(1)", None),
    ],
)
def test_hosts_below_our_domain_are_ours(target, safe):
    assert safe_next(target, ("hub.org",), "hub.org") == safe
    assert safe_next(target, ("other.org",)) is None


@pytest.mark.parametrize(
    "netloc, name",
    [
        ("Hub.org", "hub.org"),
        ("hub.org:8000", "hub.org"),
        ("hub.org:", "hub.org"),
        ("[::1]:80", "::1"),
        ("[::1]", "::1"),
        ("", ""),
    ],
)
def test_host_name_has_no_port(netloc, name):
    assert host_name(netloc) == name


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("a-b-c\N{PENGUIN}", "a-b-c"),
        ("\\ a \N{PENGUIN} -", "a"),
        ("$p~c|a! ch@rs", "p-c-a-ch-rs"),
        ("Großer Übungsraum 2", "gro-er-ubungsraum-2"),
        ("2nd", "x-2nd"),
        ("\N{PENGUIN}", "x"),
        ("x" * 40, "x" * 30),
        ("a" * 29 + " b", "a" * 29),
        ("7" * 40, "x-" + "7" * 28),
    ],
)
def test_slug_is_a_name_that_a_new_server_may_have(name, slug):
    assert server_slug(name, ()) == slug and server_name_problem(slug) == ""
    second = server_slug(name, {slug})
    assert second != slug and server_name_problem(second) == ""


def test_slug_of_a_taken_name_ends_with_a_hash():
    assert server_slug("a-b-c\N{PENGUIN}", {"a-b-c"}) == "a-b-c-3d9e03d4"
