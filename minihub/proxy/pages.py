"""What the proxy says itself: error pages and the request that asks the error target for one.

Rules of this file: pages are plain HTML without anything from the request in them, and without
a reference to anywhere.

Threads: any.
"""

from __future__ import annotations

import os
from urllib.parse import quote

from minihub.proxy.routes import Target

_REASONS = {
    101: b"Switching Protocols",
    200: b"OK",
    201: b"Created",
    204: b"No Content",
    301: b"Moved Permanently",
    400: b"Bad Request",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    413: b"Content Too Large",
    417: b"Expectation Failed",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    503: b"Service Unavailable",
    505: b"HTTP Version Not Supported",
}
_TEXTS = {
    404: "There is nothing at this address.",
    503: "The server behind this address does not answer. It may be starting, or have stopped.",
}
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{status} {reason}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;margin:15vh auto;max-width:32em;padding:0 1em}}
@media (prefers-color-scheme:dark){{body{{background:#111;color:#eee}}}}</style>
</head><body><h1>{status} {reason}</h1><p>{text}</p></body></html>
"""
HTML = b"text/html; charset=utf-8"


def reason(status: int) -> bytes:
    """Return the reason phrase of a status that the proxy itself answers with."""
    return _REASONS.get(status, b"Error")


def error_page(directory: str, status: int) -> tuple[bytes, bytes]:
    """Return content type and body of an error page.

    ``directory`` holds ``<status>.html`` or ``error.html``; empty means the built-in page. When
    neither file can be read the body is the bare reason.
    """
    phrase = reason(status)
    if not directory:
        text = _TEXTS.get(status, "The proxy could not answer this request.")
        page = _PAGE.format(status=status, reason=phrase.decode(), text=text)
        return HTML, page.encode()
    for name in (f"{status}.html", "error.html"):
        try:
            with open(os.path.join(directory, name), "rb") as file:
                return b"text/html", file.read()
        except OSError:
            continue
    return b"text/plain", phrase


def error_request(target: Target, status: int, path: bytes, is_head: bool) -> bytes:
    """Return the request for the error target's page: ``GET <target>/<status>?url=<path>``."""
    url = quote(path, safe="").encode()
    return b"%b %b/%d?url=%b HTTP/1.1\r\nHost: %b\r\n\r\n" % (
        b"HEAD" if is_head else b"GET",
        target.path,
        status,
        url,
        target.host_field,
    )
