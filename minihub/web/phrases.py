"""What pages call an HTTP status, and what rows and errors say in English for programs' sake.

Rules of this file: tables. Programs get the standard's own phrases.

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

#: The error that says no more than that there is nothing; programs compare its text.
_NOTHING = Text("No access to resources or resources not found")
#: How the note and the name of what a server got of the hub begin in the database.
_SERVER = "Server at "


def known(text: str) -> str:
    """Return an English text as one that pages can say in any language, if it is one of ours."""
    if text == _NOTHING:
        return _NOTHING
    if text.startswith(_SERVER + "/"):
        return Text("Server at %(path)s", path=text.removeprefix(_SERVER))
    return text


def of(status: int) -> str:
    """Return the phrase of a status; the standard's where pages have no better one."""
    if status in _PHRASES:
        return _PHRASES[status]
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return Text("Unknown error")
