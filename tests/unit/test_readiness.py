"""Asking a server whether it answers: however it behaves, the asking ends in time."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

from minihub import readiness

GOOD = b"HTTP/1.1 200 OK\r\nX-JupyterHub-Version: 6.1.1\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
def serve():
    """Return a function that answers one connection with pieces, a pause after each."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()
    threads = []

    def serve(*pieces, pause_s=0.0):
        def run():
            # It may ask no longer, at any moment.
            with contextlib.suppress(OSError), listener.accept()[0] as client:
                client.recv(4096)
                for piece in pieces:
                    client.sendall(piece)
                    over.wait(pause_s)
                if not pieces:
                    over.wait(30)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/user/ada/api"

    yield serve
    over.set()
    listener.close()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(
    "pieces", [[GOOD], [GOOD[:9], GOOD[9:40], GOOD[40:]], [GOOD + b"x" * 9999]]
)
def test_answer_is_read_in_whatever_pieces_it_comes(serve, pieces):
    answer = readiness.ask(serve(*pieces, pause_s=0.05), 20)
    assert answer == readiness.Answer(200, "6.1.1") and answer.is_ready


@pytest.mark.parametrize(
    "pieces", [[b"\0\xff" * 99], [b"HTTP/1.1 "], [b"x" * 99_999], [b"HTTP/1.1 abc\r\n\r\n"], [b""]]
)
def test_nonsense_is_no_answer(serve, pieces):
    assert readiness.ask(serve(*pieces), 20) == readiness.Answer()


def test_answer_that_trickles_is_not_waited_for_beyond_the_limit(serve):
    """Each byte comes in time, and the whole never would."""
    url = serve(b"HTTP/1.1 200 OK\r\nX: ", *[b"x"] * 2000, pause_s=0.02)
    began = time.monotonic()
    assert readiness.ask(url, 0.5) == readiness.Answer()
    assert time.monotonic() - began < 15


def test_silent_server_is_given_up_when_nobody_wants_it(serve):
    class NoLonger(Exception):
        pass

    def still_wanted():
        raise NoLonger

    with pytest.raises(NoLonger):
        readiness.ask(serve(), 600, still_wanted)


def test_nobody_there_is_told_from_somebody_silent():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert readiness.ask(f"http://127.0.0.1:{port}/api", 5) == readiness.Answer(is_refused=True)


@pytest.mark.parametrize("url", ["ftp://x/", "http:///api", "https://x/", "x"])
def test_what_is_no_address_is_told(url):
    with pytest.raises(ValueError, match="is not of the form"):
        readiness.ask(url, 1)
