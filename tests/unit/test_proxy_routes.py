"""The route table."""

from __future__ import annotations

import time

import pytest

from minihub.errors import ProtocolError
from minihub.proxy.routes import (
    RouteTable,
    Target,
    clean_path,
    host_name,
    percent_decode,
    strip_prefix,
)


def table_of(*paths: str, host_routing: bool = False) -> RouteTable:
    table = RouteTable(host_routing)
    for path in paths:
        table.add(path.encode(), {"target": "http://127.0.0.1:1"})
    return table


def found(table: RouteTable, path: str, host: str | None = None) -> str | None:
    route = table.snapshot.match(path.encode(), host.encode() if host is not None else None)
    return route.path.decode() if route else None


def test_longest_prefix_wins() -> None:
    table = table_of("/", "/a", "/a/b/c")
    assert found(table, "/a/b/c/d") == "/a/b/c"
    assert found(table, "/a/b/cd") == "/a"
    assert found(table, "/a/b") == "/a"
    assert found(table, "/ab") == "/"
    assert found(table, "/a?x=/b/c") == "/a"
    assert found(table_of("/a"), "/b") is None


def test_hosts_come_first_and_the_root_is_for_all() -> None:
    table = table_of("/", "/a.org", "/B.org/x", host_routing=True)
    assert found(table, "/y", "a.org:80") == "/a.org"
    assert found(table, "/x/y", "b.ORG") == "/B.org/x"
    assert found(table, "/y", "b.org") == "/"
    assert found(table, "/y", "[::1]:80") == "/"


@pytest.mark.parametrize(
    "path", ["/a/../b", "/%2e%2E/b", "/a/./c", "/a%2Fb", "/a\\b", "/a%5cb", "/a/b/c/../../../../x"]
)
def test_routed_part_must_be_plain(path: str) -> None:
    with pytest.raises(ProtocolError):
        found(table_of("/", "/a/b"), path)


def test_dots_may_not_climb_out_of_the_prefix() -> None:
    table = table_of("/", "/a/b")
    assert found(table, "/a/b/c/../d") == "/a/b"
    assert found(table, "/a/b/c/..%2f.") == "/a/b"
    for path in ("/a/b/c/../../..", "/a/b/..", "/a/b/%2e./c", "/a/b/x%2f..%2f..", "/a/b/..\\c"):
        with pytest.raises(ProtocolError):
            found(table, path)


def test_encoded_slash_below_the_prefix_is_the_targets_business() -> None:
    assert found(table_of("/", "/a/b"), "/a/b/c%2Fd") == "/a/b"
    assert found(table_of("/", "/x"), "/a/b%2Fc") == "/"


def test_hidden_dot_file_is_no_dot_segment() -> None:
    assert found(table_of("/", "/a/b"), "/.well-known/...") == "/"


def test_look_up_cost_depends_on_depth_not_on_size() -> None:
    table = RouteTable()
    table.add_many(
        (f"/user/{number}/".encode(), {"target": "http://127.0.0.1:1"}) for number in range(20000)
    )
    small = table_of("/user/1")

    def cost(snapshot) -> float:  # type: ignore[no-untyped-def]
        times = []
        for _ in range(7):
            start = time.perf_counter()
            for _ in range(2000):
                snapshot.match(b"/user/777/api/contents/x/y/z")
            times.append(time.perf_counter() - start)
        return min(times)

    assert cost(table.snapshot) < 4 * cost(small.snapshot)
    start = time.perf_counter()
    for _ in range(100):
        table.snapshot.match(b"/" * 8000)
    assert time.perf_counter() - start < 0.5


def test_snapshot_never_changes() -> None:
    table = table_of("/a")
    before = table.snapshot
    table.add(b"/b", {"target": "http://127.0.0.1:1"})
    table.remove(b"/a")
    assert [route.path for route in before] == [b"/a"]
    assert [route.path for route in table.snapshot] == [b"/b"]
    assert (len(before), before.get(b"/b")) == (1, None)


def test_add_many_adds_all_or_nothing() -> None:
    table = table_of("/a")
    with pytest.raises(ValueError):
        table.add_many([(b"/b", {"target": "http://a:1"}), (b"/c", {"target": "x"})])
    assert [route.path for route in table.snapshot] == [b"/a"]


def test_depth_follows_the_deepest_route() -> None:
    table = table_of("/", "/a/b", "/c/d")
    assert table.snapshot.depth == 2
    table.remove(b"/a/b")
    assert table.snapshot.depth == 2
    table.add(b"/c/d", {"target": "http://127.0.0.1:2"})
    table.remove(b"/c/d")
    assert (table.snapshot.depth, found(table, "/c/d")) == (0, "/")
    table.clear()
    assert found(table, "/") is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://127.0.0.1:8888", ("127.0.0.1", 8888, False, b"")),
        ("http://host", ("host", 80, False, b"")),
        ("https://host/", ("host", 443, True, b"")),
        ("http://[::1]:80/a/b/", ("::1", 80, False, b"/a/b")),
        ("HTTPS://host/a%20ä", ("host", 443, True, b"/a%20%C3%A4")),
    ],
)
def test_target_is_taken_apart(text: str, shown: tuple[object, ...]) -> None:
    target = Target(text)
    assert (target.host, target.port, target.is_tls, target.path) == shown
    assert target.text == text


def test_unix_target() -> None:
    for text in ("http+unix://%2Frun%2Fa.sock/b", "unix+http://%2Frun%2Fa.sock/b"):
        target = Target(text)
        assert (target.unix, target.path, target.host_field) == ("/run/a.sock", b"/b", b"localhost")


@pytest.mark.parametrize(
    "text",
    ["", "a", "ftp://a", "http://", "http://a:0", "http://a:99999", "http://a b", "http://a?b=c"]
    + [
        "http://u@a",
        "http://a\r\nb",
        "http://a/\0",
        "http://a/\x7f",
        "http://a/\ud800",
        "http://a/b\\c",
        "http://a/b c",
        "http+unix://%2Frun/\x01",
        "http://ä",
        "http+unix:///run",
        "http+unix://%zz",
        "http+unix://%00",
        "//a",
    ],
)
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Target(text)


def test_small_helpers() -> None:
    assert [clean_path(path) for path in (b"", b"/", b"a", b"/a/")] == [b"/", b"/", b"/a", b"/a"]
    assert percent_decode(b"/a%20%C3%A4") == "/a ä".encode()
    assert host_name(b"A.b:1") == b"a.b" and host_name(b"[::1]:2") == b"[::1]"
    assert strip_prefix(b"/a/b/c?d/e", 2) == b"/c?d/e"
    assert strip_prefix(b"/a/b", 2) == b"/" and strip_prefix(b"/a?x", 0) == b"/a?x"
