"""Heads and bodies as bytes."""

from __future__ import annotations

import time

import pytest

from minihub.errors import ProtocolError
from minihub.proxy import http1


def fields_of(block: bytes) -> http1.RequestFields:
    return http1.read_request_fields(block)


def test_fields_of_the_hop_are_cut_out_and_the_rest_is_kept_as_it_stands() -> None:
    fields = fields_of(
        b"Host: a\r\nConnection: keep-alive, x-b\r\nX-A:  1 \r\nX-B: 2\r\nKeep-Alive: 5\r\n"
        b"TE: trailers\r\nProxy-Foo: 1\r\nUpgrade: h2c\r\nCookie: c\r\n"
    )
    assert fields.forward == b"Host: a\r\nX-A:  1 \r\nCookie: c\r\n"
    assert fields.keep_alive and not fields.close
    assert fields.upgrade == b""
    assert fields.host == b"a"


def test_block_without_hop_fields_is_passed_whole() -> None:
    block = b"Host: a\r\nAccept: b\r\nContent-Length: 5\r\n"
    fields = fields_of(block)
    assert fields.forward is block
    assert fields.length == 5


@pytest.mark.parametrize(
    "name", [b"Host", b"Authorization", b"Cookie", b"Content-Length", b"X-Forwarded-For"]
)
def test_connection_cannot_name_what_others_decide_by(name: bytes) -> None:
    fields = fields_of(b"Host: a\r\nConnection: %b, x\r\nX: 1\r\n%b: 7\r\n" % (name, b"Via"))
    assert b"X: 1" not in fields.forward
    block = b"Connection: %b\r\n" % name
    if name != b"Host":
        block += b"Host: a\r\n"
    value = b"1" if name == b"Content-Length" else b"a"
    fields = fields_of(block + b"%b: %b\r\n" % (name, value))
    assert name in fields.forward or fields.forwarded_for == b"a"


def test_upgrade_needs_connection_upgrade() -> None:
    assert fields_of(b"Connection: upgrade\r\nUpgrade: WebSocket\r\n").upgrade == b"WebSocket"
    assert fields_of(b"Upgrade: websocket\r\n").upgrade == b""


def test_forwarding_fields_are_taken_out_and_joined() -> None:
    fields = fields_of(b"X-Forwarded-For: a\r\nx-forwarded-for: b\r\nX-Forwarded-Proto: https\r\n")
    assert fields.forward == b""
    assert fields.forwarded_for == b"a, b"
    assert fields.forwarded_proto == b"https"


def test_underscored_twins_of_steering_fields_are_dropped() -> None:
    fields = fields_of(b"X_Forwarded_For: a\r\nContent_Length: 5\r\nTransfer_Encoding: x\r\n")
    assert fields.forward == b""
    assert fields.length == -1 and not fields.chunked and fields.forwarded_for == b""


def test_response_head_says_how_its_body_ends() -> None:
    data = (
        b"HTTP/1.1 200 OK\r\nContent-Type: a\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc"
    )
    head = http1.read_response_head(data, data.index(b"\r\n\r\n") + 2)
    assert (head.status, head.reason, head.length, head.close) == (200, b"OK", 3, True)
    assert head.forward == b"Content-Type: a\r\nContent-Length: 3\r\n"
    assert http1.field_lines(head.forward, (b"content-type",)) == b"Content-Type: a\r\n"


@pytest.mark.parametrize("status", [b"103 Early Hints", b"204 No Content"])
def test_response_that_has_no_body_announces_none(status: bytes) -> None:
    data = b"HTTP/1.1 " + status + b"\r\nContent-Length: 3\r\nA: b\r\n\r\n"
    head = http1.read_response_head(data, data.index(b"\r\n\r\n") + 2)
    assert head.forward == b"A: b\r\n"


@pytest.mark.parametrize(
    "block",
    [
        b"A: " + b" " * 30000 + b"\0\r\n",
        b"A:" + b"\t " * 15000 + b"\r\n",
        b"Connection:" + b" ," * 15000 + b"\r\n",
        b"Host:" + b" " * 30000 + b"\r\n",
        b"A" * 30000,
        (b"A:" + b" " * 150 + b"\r\n") * 190 + b"x",
        b"Content-Length:" + b" " * 30000 + b"x\r\n",
        b"Transfer-Encoding:" + b" " * 30000 + b"x\r\n",
    ],
    ids=range(8),
)
def test_hostile_head_costs_no_more_than_its_length(block: bytes) -> None:
    start = time.process_time()
    for _ in range(5):
        try:
            fields_of(block)
        except ProtocolError:
            pass
    assert time.process_time() - start < 0.25


def test_hostile_chunks_cost_no_more_than_their_length() -> None:
    start = time.process_time()
    reader = http1.ChunkedReader()
    data = b"1\r\nx\r\n" * 20000
    reader.feed(data, len(data))
    reader = http1.ChunkedReader()
    for _ in range(60000):
        reader.feed(b"1", 1) if not reader._held else reader.feed(b"\r\nx\r\n", 5)
    assert time.process_time() - start < 2


def test_absolute_form_must_name_the_host() -> None:
    assert http1.split_target(b"http://A:1/b?c", b"a:1") == b"/b?c"
    assert http1.split_target(b"https://a", b"a") == b"/"
    for target, host in ((b"http://a/", b"b"), (b"ftp://a/", b"a"), (b"http://a/", None)):
        with pytest.raises(ProtocolError):
            http1.split_target(target, host)


def test_field_value_finds_by_name_without_case() -> None:
    block = b"A: 1\r\nAuthorization:  token x \r\n"
    assert http1.field_value(block, b"authorization") == b"token x"
    assert http1.field_value(block, b"b") == b""
