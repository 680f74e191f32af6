"""The corpus of responses, fed whole, by line, by byte and at random places."""

from __future__ import annotations

import h11
import pytest
from request_cases import END, G, H, P
from response_cases import BROKEN, BROKEN_CHUNKS, OK, RESPONSES
from wirekit import Bench, cuts, read_responses

from minihub.proxy.relay import MAX_PIPELINED

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def case_id(value: object) -> str | None:
    return value.replace(" ", "_") if isinstance(value, str) else ""


def feed_response(bench: Bench, pieces: list[bytes]) -> None:
    """Send a request, then let the target answer in pieces and hang up."""
    bench.feed([G + H + END])
    sock = bench.targets[0]
    for piece in pieces:
        sock.incoming.append(piece)
        bench.run()
    sock.has_eof = True
    bench.run()


@pytest.mark.parametrize(("name", "data", "outcome"), RESPONSES, ids=case_id)
def test_response(name: str, data: bytes, outcome: tuple[int, bytes] | int | str) -> None:
    feeds = cuts(data, 9)
    if len(data) > 2000:
        del feeds["bytes"]
    for feed, pieces in feeds.items():
        bench = Bench()
        feed_response(bench, pieces)
        sent = bytes(bench.client.sent)
        if outcome == BROKEN:
            assert bench.client.is_closed
            if sent:
                with pytest.raises(h11.RemoteProtocolError):
                    read_responses(sent, [b"GET"], True)
            continue
        while sent.startswith(b"HTTP/1.1 10"):
            sent = sent.partition(b"\r\n\r\n")[2]
        responses = read_responses(sent, [b"GET"], bench.is_over)
        if isinstance(outcome, int):
            assert (feed, responses[0][0]) == (feed, outcome)
            assert b"Set-Cookie" not in sent
        else:
            assert (feed, responses) == (feed, [outcome])
            assert not bench.is_over


@pytest.mark.parametrize(("name", "data"), BROKEN_CHUNKS, ids=case_id)
def test_broken_chunks(name: str, data: bytes) -> None:
    for pieces in cuts(data, 10).values():
        bench = Bench()
        feed_response(bench, pieces)
        sent = bytes(bench.client.sent)
        if b" 503 " in sent:
            assert len(read_responses(sent, [b"GET"], bench.is_over)) == 1
        else:
            assert bench.client.is_closed
            with pytest.raises(h11.RemoteProtocolError):
                read_responses(sent, [b"GET"], True)


@pytest.mark.parametrize("data", [b"HTTP/1.1 200 OK\r\n\r\nhello", b"HTTP/1.0 200 OK\r\n\r\nhello"])
def test_http_1_0_client_gets_the_end_of_the_connection(data: bytes) -> None:
    bench = Bench()
    bench.feed([b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"])
    bench.targets[0].incoming.append(data)
    bench.targets[0].has_eof = True
    bench.run()
    assert bytes(bench.client.sent) == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello"
    assert bench.client.is_closed


def test_response_waits_while_the_client_is_slow() -> None:
    """Only one read's worth of a body is ever held."""
    bench = Bench()
    bench.feed([G + H + END])
    target = bench.targets[0]
    bench.client.room = 1000
    target.incoming.append(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n")
    for _ in range(100):
        target.incoming.append(b"x" * 100_000)
        bench.run()
    assert len(target.incoming) >= 98
    bench.client.room = None
    bench.run()
    assert bytes(bench.client.sent).count(b"x") == 10_000_000


def test_client_that_takes_no_answer_but_sends_on_is_read_no_further() -> None:
    """However much is pipelined, little of it is held; all of it is answered in the end."""
    bench = Bench()
    bench.client.room = 10
    request = G + H + END
    count = 40_000
    bench.feed([request])
    bench.targets[0].incoming.append(ANSWER)
    bench.run()
    block = request * 1000
    bench.client.incoming.extend([block] * (count // 1000))
    bench.run()
    assert len(bench.relay._inbuf) <= MAX_PIPELINED + len(block)
    assert bench.client.incoming
    # Once it takes its answers it is served again.
    bench.client.room = None
    bench.run()
    for _ in range(20):
        bench.targets[0].incoming.append(ANSWER)
        bench.run()
    assert bytes(bench.client.sent).count(b"HTTP/1.1 200") >= 20


def test_early_response_to_an_upload_that_goes_wrong_is_the_only_one() -> None:
    """The client cannot take the response yet and goes on with a body that is none."""
    bench = Bench()
    bench.feed([P + b"Transfer-Encoding: chunked\r\n\r\n"])
    bench.client.room = 0
    bench.targets[0].incoming.append(ANSWER)
    bench.run()
    bench.feed([b"nonsense\r\n" * 3])
    bench.relay.on_timeout()
    bench.client.room = None
    bench.run()
    assert bytes(bench.client.sent).count(b"HTTP/1.1") <= 1
    assert bench.is_over


@pytest.mark.parametrize("connection", [b"close", b"keep-alive"])
@pytest.mark.parametrize("room", [0, 10, 90])
def test_client_that_closes_its_side_gets_the_whole_response(connection: bytes, room: int) -> None:
    bench = Bench()
    bench.client.room = room
    bench.feed([G + H + b"Connection: %b\r\n\r\n" % connection])
    bench.targets[0].incoming.append(OK + b"Content-Length: 100\r\n\r\n" + b"x" * 50)
    bench.run()
    bench.client.has_eof = True
    bench.run()
    bench.targets[0].incoming.append(b"x" * 50)
    bench.run()
    bench.client.room = None
    bench.run()
    assert read_responses(bytes(bench.client.sent), [b"GET"], True) == [(200, b"x" * 100)]
    assert bench.client.is_closed


@pytest.mark.parametrize(
    ("data", "is_repeated"),
    [(G + H + END, True), (P + b"Content-Length: 1\r\n\r\nx", False)],
    ids=["GET", "POST"],
)
def test_kept_connection_that_ended_is_replaced_once_for_a_safe_request(
    data: bytes, is_repeated: bool
) -> None:
    bench = Bench()
    bench.feed([data])
    first = bench.targets[0]
    first.incoming.append(ANSWER)
    bench.feed([data])
    assert bytes(first.sent).count(data[:8]) == 2
    first.has_eof = True
    bench.run()
    assert len(bench.targets) == (2 if is_repeated else 1)
    if is_repeated:
        assert bytes(first.sent).endswith(bytes(bench.targets[1].sent))
        # The new one may not end as well.
        bench.targets[1].has_eof = True
        bench.run()
    statuses = [
        status for status, _ in read_responses(bytes(bench.client.sent), [b"GET"] * 2, True)
    ]
    assert statuses == [200, 503]
