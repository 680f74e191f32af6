"""The corpus of requests, fed whole, by line, by byte and at random places."""

from __future__ import annotations

import pytest
from request_cases import BROKEN_BODIES, REQUESTS, Seen
from wirekit import Bench, Player, cuts, read_responses

FEEDS = ("whole", "lines", "bytes", "random")


def case_id(value: object) -> str | None:
    return value.replace(" ", "_") if isinstance(value, str) else ""


def feeds_for(data: bytes) -> tuple[str, ...]:
    # A byte at a time is for grammar, not for size.
    return FEEDS if len(data) < 2000 else ("whole", "lines", "random")


@pytest.mark.parametrize(("name", "data", "outcome"), REQUESTS, ids=case_id)
def test_request(name: str, data: bytes, outcome: Seen | int) -> None:
    for feed in feeds_for(data):
        bench = Bench()
        target = Player(bench)
        bench.feed(cuts(data, 7)[feed], target.react)
        seen = [(method, path, body) for method, path, _, body in target.requests]
        responses = read_responses(
            bytes(bench.client.sent), [entry[0] for entry in seen] or [b"GET"], bench.is_over
        )
        if isinstance(outcome, int):
            assert (feed, [status for status, _ in responses]) == (feed, [outcome])
            assert bench.targets == []
            assert bench.is_over
            assert b"Connection: close\r\n" in bench.client.sent
        else:
            assert (feed, seen) == (feed, outcome)
            assert responses == [(200, b"ok")] * len(outcome)


@pytest.mark.parametrize(("name", "data"), BROKEN_BODIES, ids=case_id)
def test_broken_body(name: str, data: bytes) -> None:
    for feed in feeds_for(data):
        bench = Bench()
        target = Player(bench)
        bench.feed(cuts(data, 8)[feed], target.react)
        assert target.requests == []
        responses = read_responses(bytes(bench.client.sent), [b"POST"], bench.is_over)
        assert (feed, [status for status, _ in responses]) == (feed, [400])
        assert bench.is_over
        assert all(sock.is_closed for sock in bench.targets)


def test_what_is_not_named_passes_byte_for_byte() -> None:
    bench = Bench("--no-x-forward")
    data = b"GET /%7Ea//b;c?d HTTP/1.1\r\nhOST:  A.b \r\nX-a:\tq \r\nx-A: \r\n\r\n"
    bench.feed([data])
    assert bytes(bench.targets[0].sent) == data


def test_bytes_wait_while_the_target_is_slow() -> None:
    """Only one read's worth of a body is ever held."""
    bench = Bench()
    size = 10_000_000
    bench.feed([b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size])
    bench.targets[0].room = 1000
    for _ in range(100):
        bench.client.incoming.append(b"x" * 100_000)
        bench.run()
    assert len(bench.client.incoming) >= 99
    bench.targets[0].room = None
    bench.run()
    assert bytes(bench.targets[0].sent).count(b"x") == size
    assert not bench.client.incoming


def test_pipelined_input_is_bounded() -> None:
    bench = Bench()
    bench.feed([b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"])
    for _ in range(100):
        bench.client.incoming.append(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 1000)
        bench.run()
    assert len(bench.client.incoming) > 95
