"""Random input: whatever comes in, the relay never crashes and never forwards what h11 refuses."""

from __future__ import annotations

import os
import re

import h11
from hypothesis import given, settings
from hypothesis import strategies as st
from request_cases import BROKEN_BODIES, REQUESTS
from response_cases import BROKEN_CHUNKS, RESPONSES
from wirekit import Bench, Player

from minihub.errors import ProtocolError
from minihub.proxy import http1

RELAXED = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "300")), deadline=None, derandomize=True
)

REQUEST_SEEDS = [case[1] for case in REQUESTS + BROKEN_BODIES if len(case[1]) < 400]
RESPONSE_SEEDS = [case[1] for case in RESPONSES + BROKEN_CHUNKS if len(case[1]) < 400]
#: Bytes that matter to a parser, more often than chance would have them.
SPICE = [b"\r\n", b"\n", b"\r", b" ", b":", b"\0", b",", b";", b"0", b"chunked", b"\t", b"\xff"]
SPICE += [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: b\r\n", b"\r\n\r\n"]


@st.composite
def spoiled(draw: st.DrawFn, seeds: list[bytes]) -> list[bytes]:
    """Draw a message with a few places changed, cut into pieces."""
    data = b"".join(draw(st.lists(st.sampled_from(seeds), min_size=1, max_size=3)))
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 8)))
        middle = draw(st.sampled_from(SPICE) | st.binary(max_size=4))
        data = data[:start] + middle + data[end:]
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True) if a < b]


@given(spoiled(REQUEST_SEEDS))
@RELAXED
def test_what_is_forwarded_is_a_request_to_h11(pieces: list[bytes]) -> None:
    bench = Bench()
    player = Player(bench)
    # h11 raises RemoteProtocolError inside react where it reads the forwarded bytes differently.
    bench.feed(pieces, player.react)
    for sock in bench.targets:
        assert sock.sent.count(b"X-Forwarded-For:") <= len(player.requests) + 1


@given(spoiled(REQUEST_SEEDS))
@RELAXED
def test_cuts_do_not_change_the_outcome(pieces: list[bytes]) -> None:
    outcomes = []
    for feed in (pieces, [b"".join(pieces)]):
        bench = Bench()
        player = Player(bench)
        bench.feed(feed, player.react)
        statuses = re.findall(rb"HTTP/1\.1 (\d+)", bytes(bench.client.sent))
        outcomes.append((player.requests, statuses, bench.is_over))
    assert outcomes[0] == outcomes[1]


@given(spoiled(RESPONSE_SEEDS))
@RELAXED
def test_what_the_client_gets_is_a_response_to_h11(pieces: list[bytes]) -> None:
    bench = Bench()
    bench.feed([b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"])
    target = bench.targets[0]
    for piece in pieces:
        target.incoming.append(piece)
        bench.run()
    target.has_eof = True
    bench.run()
    reader = h11.Connection(h11.CLIENT)
    reader.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    reader.send(h11.EndOfMessage())
    reader.receive_data(bytes(bench.client.sent))
    is_whole = False
    while not is_whole:
        event = reader.next_event()
        if event is h11.NEED_DATA:
            break
        is_whole = isinstance(event, h11.EndOfMessage)
    assert is_whole or bench.is_over


@given(
    st.lists(st.binary(min_size=1, max_size=50), max_size=8),
    st.lists(st.integers(1, 20), min_size=1, max_size=8),
    st.booleans(),
)
@RELAXED
def test_chunks_come_out_as_they_went_in(
    contents: list[bytes], steps: list[int], strip: bool
) -> None:
    data = b"".join(b"%X;e\r\n%b\r\n" % (len(item), item) for item in contents)
    data += b"0\r\nA: b\r\nHost: c\r\n\r\nNEXT"
    reader = http1.ChunkedReader(strip)
    out = b""
    position = turn = 0
    while not reader.done:
        step = data[position : position + steps[turn % len(steps)]]
        used, pieces = reader.feed(step, len(step))
        out += b"".join(pieces)
        position += used
        turn += 1
    assert data[position:] == b"NEXT"
    if strip:
        assert out == b"".join(contents)
    else:
        plain = http1.ChunkedReader(strip=True)
        _, pieces = plain.feed(out, len(out))
        assert b"".join(pieces) == b"".join(contents)
        assert plain.done
        assert b";e" not in out and out.endswith(b"0\r\nA: b\r\n\r\n")


@given(st.binary(max_size=200))
@RELAXED
def test_any_field_block_is_read_or_refused(block: bytes) -> None:
    for read in (http1.read_request_fields, lambda data: http1.read_response_head(data, len(data))):
        try:
            read(block)
        except ProtocolError:
            pass
