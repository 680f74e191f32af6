"""Requests as bytes and what becomes of them.

Rules of this file: data only. A case is (name, bytes, outcome): a list of (method, path, body)
as the target shall see them, or the status with which the relay refuses and closes, in which
case the target sees nothing of it.
"""

from __future__ import annotations

G = b"GET / HTTP/1.1\r\n"
P = b"POST / HTTP/1.1\r\nHost: a\r\n"
H = b"Host: a\r\n"
END = b"\r\n"

Seen = list[tuple[bytes, bytes, bytes]]
ONE: Seen = [(b"GET", b"/", b"")]

REQUESTS: list[tuple[str, bytes, Seen | int]] = [
    # -- the request line ------------------------------------------------------------------
    ("plain", G + H + END, ONE),
    ("empty line in front", b"\r\n" + G + H + END, ONE),
    ("two empty lines in front", b"\r\n\r\n" + G + H + END, 400),
    ("method is any token", b"M-SEARCH / HTTP/1.1\r\nHost: a\r\n\r\n", [(b"M-SEARCH", b"/", b"")]),
    ("method with a slash", b"GE/T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("no method", b" / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("two spaces", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("tab for a space", b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("space at the end", b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
    ("space in the target", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("NUL in the target", b"GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("raw bytes in the target", b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("fragment in the target", b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("relative target", b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("query", b"GET /a?b=/../%2f HTTP/1.1\r\nHost: a\r\n\r\n", [(b"GET", b"/a?b=/../%2f", b"")]),
    (
        "odd but legal target",
        b"GET /~a;b=c/d@e:f,g HTTP/1.1\r\nHost: a\r\n\r\n",
        [(b"GET", b"/~a;b=c/d@e:f,g", b"")],
    ),
    ("absolute target", b"GET http://A/b?c HTTP/1.1\r\nHost: a\r\n\r\n", [(b"GET", b"/b?c", b"")]),
    ("absolute target without path", b"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", ONE),
    ("absolute target of another host", b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("absolute target with a user", b"GET http://x@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("authority target", b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("asterisk", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", [(b"OPTIONS", b"*", b"")]),
    ("HTTP/0.9", b"GET /\r\n\r\n", 400),
    ("HTTP/1.0", b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", ONE),
    ("HTTP/1.0 without Host", b"GET / HTTP/1.0\r\n\r\n", ONE),
    ("HTTP/1.2", b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
    ("HTTP/2.0 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("HTTP in small letters", b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
    ("version with a sign", b"GET / HTTP/+1.1\r\nHost: a\r\n\r\n", 400),
    ("long version", b"GET / HTTP/1.11\r\nHost: a\r\n\r\n", 400),
    ("TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    ("TLS hello without a line end", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ("NUL in front", b"\0", 400),
    ("dot segments", b"GET /a/../../b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("bad escape", b"GET /%4 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    # -- Host ------------------------------------------------------------------------------
    ("no Host", G + END, 400),
    ("two Hosts", G + H + H + END, 400),
    ("empty Host", G + b"Host:\r\n\r\n", 400),
    ("Host with a path", G + b"Host: a/b\r\n\r\n", 400),
    ("Host with a user", G + b"Host: u@a\r\n\r\n", 400),
    ("list of Hosts", G + b"Host: a, b\r\n\r\n", 400),
    ("Host with a port", G + b"Host: a:8000\r\n\r\n", ONE),
    ("Host with a bad port", G + b"Host: a:x\r\n\r\n", 400),
    ("Host is an IPv6 address", G + b"Host: [::1]:8000\r\n\r\n", ONE),
    ("Host is a broken IPv6 address", G + b"Host: [::1\r\n\r\n", 400),
    # -- field lines -----------------------------------------------------------------------
    ("empty value", G + H + b"A:\r\n\r\n", ONE),
    ("no space behind the colon", G + b"Host:a\r\nA:b\r\n\r\n", ONE),
    ("much space around a value", G + b"Host: \t a \t \r\n\r\n", ONE),
    ("space before the colon", G + b"Host : a\r\n\r\n", 400),
    ("space before a name", G + b" Host: a\r\n\r\n", 400),
    ("folded line", G + H + b"A: b\r\n c\r\n\r\n", 400),
    ("folded line with a tab", G + H + b"A: b\r\n\tc\r\n\r\n", 400),
    ("no colon", G + H + b"nonsense\r\n\r\n", 400),
    ("no name", G + H + b": a\r\n\r\n", 400),
    ("NUL in a value", G + H + b"A: b\0c\r\n\r\n", 400),
    ("CR in a value", G + H + b"A: b\rc\r\n\r\n", 400),
    ("control character in a value", G + H + b"A: b\x01c\r\n\r\n", 400),
    ("DEL in a value", G + H + b"A: b\x7fc\r\n\r\n", 400),
    ("obs-text in a value", G + H + b"A: \xc3\xa4\r\n\r\n", ONE),
    ("obs-text in a name", G + H + b"\xc3\xa4: b\r\n\r\n", 400),
    ("parenthesis in a name", G + H + b"A(b): c\r\n\r\n", 400),
    ("line ends with LF only", b"GET / HTTP/1.1\nHost: a\n\n", 400),
    ("one line ends with LF only", G + b"Host: a\nA: b\r\n\r\n", 400),
    ("head ends with LF only", G + b"Host: a\r\n\n", 400),
    ("CR CR LF", G + b"Host: a\r\r\n\r\n", 400),
    ("line too long", G + H + b"A: " + b"x" * 40000 + b"\r\n\r\n", 431),
    ("too many fields", G + H + b"A: b\r\n" * 300 + END, 431),
    ("head too large", G + H + (b"A: " + b"x" * 9000 + b"\r\n") * 8 + END, 431),
    ("endless request line", b"GET /" + b"x" * 70000, 431),
    ("large but allowed", G + H + b"Cookie: " + b"x" * 16000 + b"\r\n\r\n", ONE),
    # -- bodies by length ------------------------------------------------------------------
    ("length", P + b"Content-Length: 3\r\n\r\nabc", [(b"POST", b"/", b"abc")]),
    ("length zero", P + b"Content-Length: 0\r\n\r\n", [(b"POST", b"/", b"")]),
    ("leading zeros", P + b"Content-Length: 003\r\n\r\nabc", [(b"POST", b"/", b"abc")]),
    ("GET with a body", G + H + b"Content-Length: 3\r\n\r\nabc", [(b"GET", b"/", b"abc")]),
    ("two equal lengths", P + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
    ("two different lengths", P + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
    ("list of lengths", P + b"Content-Length: 3, 3\r\n\r\nabc", 400),
    ("length with plus", P + b"Content-Length: +3\r\n\r\nabc", 400),
    ("length with minus", P + b"Content-Length: -3\r\n\r\nabc", 400),
    ("length in hex", P + b"Content-Length: 0x3\r\n\r\nabc", 400),
    ("length with underscore", P + b"Content-Length: 1_0\r\n\r\nabcdefghij", 400),
    ("length with a space inside", P + b"Content-Length: 1 0\r\n\r\nabcdefghij", 400),
    ("empty length", P + b"Content-Length:\r\n\r\n", 400),
    ("length beyond all bounds", P + b"Content-Length: 99999999999999999999\r\n\r\n", 400),
    ("length with other digits", P + b"Content-Length: \xd9\xa3\r\n\r\nabc", 400),
    # -- bodies in chunks ------------------------------------------------------------------
    (
        "chunked",
        P + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        [(b"POST", b"/", b"abc")],
    ),
    (
        "chunked in capitals",
        P + b"Transfer-Encoding: CHUNKED\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        [(b"POST", b"/", b"abc")],
    ),
    (
        "two chunks",
        P + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n",
        [(b"POST", b"/", b"abc0123456789")],
    ),
    (
        "size with zeros",
        P + b"Transfer-Encoding: chunked\r\n\r\n0003\r\nabc\r\n000\r\n\r\n",
        [(b"POST", b"/", b"abc")],
    ),
    (
        "extension",
        P + b'Transfer-Encoding: chunked\r\n\r\n3;a="b"\r\nabc\r\n0;c\r\n\r\n',
        [(b"POST", b"/", b"abc")],
    ),
    (
        "space behind the size",
        P + b"Transfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n",
        [(b"POST", b"/", b"abc")],
    ),
    (
        "trailers",
        P + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\nC: d\r\n\r\n",
        [(b"POST", b"/", b"abc")],
    ),
    (
        "chunked and length",
        P + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "length and chunked",
        P + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "chunked twice",
        P + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    ("chunked, chunked", P + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    ("chunked, identity", P + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
    ("gzip", P + b"Transfer-Encoding: gzip\r\n\r\n", 400),
    ("xchunked", P + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    ("chunked with a comma", P + b"Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", 400),
    ("quoted chunked", P + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n', 400),
    ("empty coding", P + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n", 400),
    ("vertical tab", P + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    (
        "chunked in HTTP/1.0",
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    # -- the connection --------------------------------------------------------------------
    ("pipelined", (G + H + END) * 3, ONE * 3),
    ("pipelined bodies", (P + b"Content-Length: 1\r\n\r\nx") * 3, [(b"POST", b"/", b"x")] * 3),
    (
        "pipelined behind chunks",
        P + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n" + G + H + END,
        [(b"POST", b"/", b"x"), (b"GET", b"/", b"")],
    ),
    ("nothing behind close", G + H + b"Connection: close\r\n\r\n" + G + H + END, ONE),
    ("nothing behind HTTP/1.0", b"GET / HTTP/1.0\r\nHost: a\r\n\r\n" + G + H + END, ONE),
    ("unknown expectation", P + b"Expect: 200-ok\r\nContent-Length: 1\r\n\r\nx", 417),
    (
        "expectation",
        P + b"Expect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
        [(b"POST", b"/", b"x")],
    ),
]

#: Framing that breaks after the head was forwarded: the target sees no complete request, and
#: the client gets a 400 and the end.
BROKEN_BODIES: list[tuple[str, bytes]] = [
    (name, P + b"Transfer-Encoding: chunked\r\n\r\n" + body)
    for name, body in (
        ("no size", b"\r\nabc\r\n0\r\n\r\n"),
        ("size is no number", b"x\r\nabc\r\n0\r\n\r\n"),
        ("size with a sign", b"+3\r\nabc\r\n0\r\n\r\n"),
        ("size with 0x", b"0x3\r\nabc\r\n0\r\n\r\n"),
        ("size with a space in front", b" 3\r\nabc\r\n0\r\n\r\n"),
        ("size with underscore", b"1_0\r\nabcdefghijklmnop\r\n0\r\n\r\n"),
        ("size beyond all bounds", b"ffffffffffffffff1\r\nabc\r\n0\r\n\r\n"),
        ("size ends with LF only", b"3\nabc\r\n0\r\n\r\n"),
        ("chunk longer than its size", b"3\r\nabcd\r\n0\r\n\r\n"),
        ("chunk shorter than its size", b"5\r\nabc\r\n0\r\n\r\n"),
        ("chunk ends with LF only", b"3\r\nabc\n0\r\n\r\n"),
        ("chunk ends with CR only", b"3\r\nabc\r0\r\n\r\n"),
        ("LF in an extension", b"3;a\nb\r\nabc\r\n0\r\n\r\n"),
        ("NUL in an extension", b"3;a\0b\r\nabc\r\n0\r\n\r\n"),
        ("endless extension", b"3;" + b"a" * 2000 + b"\r\nabc\r\n0\r\n\r\n"),
        ("trailer without colon", b"0\r\nnonsense\r\n\r\n"),
        ("trailer with a space before the colon", b"0\r\nA : b\r\n\r\n"),
        ("trailer folded", b"0\r\nA: b\r\n c\r\n\r\n"),
        ("trailer ends with LF only", b"0\r\nA: b\n\r\n"),
        ("trailers end with LF only", b"0\r\nA: b\r\n\n"),
        ("endless trailers", b"0\r\n" + (b"A: " + b"b" * 900 + b"\r\n") * 30),
    )
]
