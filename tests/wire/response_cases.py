"""Responses of a target as bytes and what the client gets.

Rules of this file: data only. A case is (name, bytes, outcome): (status, body) as an HTTP/1.1
client reads it, 503 where the head cannot be trusted, or BROKEN where the body cannot be
completed and the connection ends early. Every response ends with the target's connection.
"""

from __future__ import annotations

BROKEN = "broken off"

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"

RESPONSES: list[tuple[str, bytes, tuple[int, bytes] | int | str]] = [
    ("length", OK + b"Content-Length: 2\r\n\r\nok", (200, b"ok")),
    ("length zero", OK + b"Content-Length: 0\r\n\r\n", (200, b"")),
    ("chunked", CHUNKED + b"2\r\nok\r\n0\r\n\r\n", (200, b"ok")),
    (
        "chunked with extension and trailers",
        CHUNKED + b"2;a\r\nok\r\n0\r\nA: b\r\n\r\n",
        (200, b"ok"),
    ),
    ("until the end", OK + b"\r\nhello", (200, b"hello")),
    ("nothing until the end", OK + b"\r\n", (200, b"")),
    ("HTTP/1.0", b"HTTP/1.0 200 OK\r\n\r\nhello", (200, b"hello")),
    ("no reason", b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", (200, b"")),
    ("empty reason", b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", (200, b"")),
    ("odd status", b"HTTP/1.1 299 Odd\r\nContent-Length: 0\r\n\r\n", (299, b"")),
    ("204", b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"")),
    ("204 with a length", b"HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n", (204, b"")),
    ("304 with a length", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", (304, b"")),
    (
        "interim",
        b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nok",
        (200, b"ok"),
    ),
    (
        "interim with a length",
        b"HTTP/1.1 103 Early Hints\r\nContent-Length: 9\r\n\r\n"
        + OK
        + b"Content-Length: 2\r\n\r\nok",
        (200, b"ok"),
    ),
    ("more than announced", OK + b"Content-Length: 2\r\n\r\nok!", (200, b"ok")),
    ("more behind the chunks", CHUNKED + b"2\r\nok\r\n0\r\n\r\n!", (200, b"ok")),
    ("body behind 204", b"HTTP/1.1 204 No Content\r\n\r\nbody", (204, b"")),
    # -- heads that cannot be trusted ------------------------------------------------------
    ("nothing", b"", 503),
    ("half a head", b"HTTP/1.1 200 OK\r\nContent-", 503),
    ("no HTTP", b"SSH-2.0-OpenSSH\r\n\r\n", 503),
    ("HTTP/2", b"HTTP/2 200\r\n\r\n", 503),
    ("status of two digits", b"HTTP/1.1 20 OK\r\n\r\n", 503),
    ("status of four digits", b"HTTP/1.1 2000 OK\r\n\r\n", 503),
    ("status 600", b"HTTP/1.1 600 OK\r\n\r\n", 503),
    ("unasked upgrade", b"HTTP/1.1 101 OK\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n", 503),
    ("CR in the reason", b"HTTP/1.1 200 O\rK\r\n\r\n", 503),
    ("NUL in a value", OK + b"A: b\0\r\n\r\n", 503),
    ("CR in a value", OK + b"A: b\rSet-Cookie: x\r\n\r\n", 503),
    ("folded line", OK + b"A: b\r\n c\r\nContent-Length: 0\r\n\r\n", 503),
    ("space before the colon", OK + b"Content-Length : 0\r\n\r\n", 503),
    ("LF only", b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", 503),
    ("two lengths", OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok", 503),
    ("bad length", OK + b"Content-Length: 2x\r\n\r\nok", 503),
    (
        "length and chunked",
        OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        503,
    ),
    ("unknown coding", OK + b"Transfer-Encoding: gzip\r\n\r\nok", 503),
    ("chunked twice", OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 503),
    ("chunked in HTTP/1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 503),
    ("endless head", OK + b"A: " + b"x" * 70000, 503),
    ("endless interim responses", b"HTTP/1.1 102 Processing\r\n\r\n" * 40, 503),
    # -- bodies that end too early ---------------------------------------------------------
    ("short of its length", OK + b"Content-Length: 3\r\n\r\nok", BROKEN),
    ("chunk cut short", CHUNKED + b"3\r\nok", BROKEN),
    ("no last chunk", CHUNKED + b"2\r\nok\r\n", BROKEN),
    ("trailers cut short", CHUNKED + b"2\r\nok\r\n0\r\nA: b", BROKEN),
]
#: Chunks that break the grammar: broken off, or 503 where the head was not out yet.
BROKEN_CHUNKS: list[tuple[str, bytes]] = [
    ("bad size", CHUNKED + b"x\r\nok\r\n0\r\n\r\n"),
    ("size with a sign", CHUNKED + b"-2\r\nok\r\n0\r\n\r\n"),
    ("LF behind the size", CHUNKED + b"2\nok\r\n0\r\n\r\n"),
    ("chunk too long", CHUNKED + b"2\r\nokay\r\n0\r\n\r\n"),
    ("bad trailer", CHUNKED + b"2\r\nok\r\n0\r\nA b\r\n\r\n"),
]
