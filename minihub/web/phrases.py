"""What an HTTP status is called on a page.

Rules of this file: a table. Programs get the standard's own phrases.

Threads: any.
Sources: RFC 9110, section 15.
"""

from __future__ import annotations

from http import HTTPStatus

from ..texts import Text

_PHRASES = {
    400: Text("Bad request"),
    403: Text("Forbidden"),
    404: Text("Not found"),
    405: Text("Method not allowed"),
    409: Text("Conflict"),
    413: Text("Too large"),
    424: Text("Server not running"),
    429: Text("Too many requests"),
    500: Text("Error of the hub"),
    502: Text("Bad answer"),
    503: Text("Not available"),
    504: Text("No answer in time"),
}


def of(status: int) -> str:
    """Return the phrase of a status; the standard's where pages have no better one."""
    if status in _PHRASES:
        return _PHRASES[status]
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return Text("Unknown error")
