"""What a user name may look like, and how foreign text is written to the log.

Rules of this file: pure functions. A name becomes part of URLs, file names, cookie paths and log
lines: what would be dangerous in one of them is refused here, once, for every authenticator.

Threads: any.
"""

from __future__ import annotations

import unicodedata
from urllib.parse import unquote

from minihub.logs import safe
from minihub.texts import Text

#: A name must fit into one component of a file path on every file system in use.
MAX_NAME_BYTES = 255

_LONGEST_SHOWN = 32
_SHOWN_OF_LONGER = 16

#: Unicode categories without a visible, unambiguous form: controls, format characters
#: (zero-width, right-to-left marks), surrogates, line and paragraph separators.
_INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def name_problem(name: object) -> str:
    """Return why ``name`` cannot be a user name, as the end of a sentence; "" if it can."""
    if not isinstance(name, str):
        return Text("it is not a text but %(kind)s", kind=type(name).__name__)
    if not name:
        return Text("it is empty")
    if len(name) > MAX_NAME_BYTES or len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES:
        return Text("it is longer than %(count)s bytes", count=MAX_NAME_BYTES)
    if any(unicodedata.category(character) in _INVISIBLE for character in name):
        return Text("it contains an invisible character")
    if "/" in name:
        return Text("it contains a slash")
    if not name.strip(".") or not unquote(name).strip("."):
        return Text("it consists of dots")
    if name != name.strip():
        return Text("it begins or ends with a space")
    return ""


def shown(text: object) -> str:
    """Return foreign text for a log line: on one line, at most a few dozen characters.

    Beyond 32 characters only the first 16 and the length are kept; characters that do not print
    are escaped.
    """
    text = str(text)
    if len(text) <= _LONGEST_SHOWN:
        return f'"{safe(text)}"'
    return f'"{safe(text, _SHOWN_OF_LONGER)}" ({len(text)} characters)'
