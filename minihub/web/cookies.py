"""Cookies of the hub's own pages: reading them all, writing them narrow.

Rules of this file: names, paths and flags of the hub's cookies stand here and nowhere else. A
browser may send several cookies of one name (set for a parent path or by a sibling domain), so
reading returns every value and the caller takes the one that proves itself.

Threads: any; pure functions.
Sources: RFC 6265; names and paths as JupyterHub 6 uses them.
"""

from __future__ import annotations

import re

#: On the hub's path only: browsers never send it to a user's server.
LOGIN = "jupyterhub-hub-login"
#: On the base path, readable by servers; no credential.
SESSION_ID = "jupyterhub-session-id"
#: On the hub's path, readable by the page's own script.
XSRF = "_xsrf"

_SESSION_ID_FORM = re.compile(r"[0-9a-f]{32}")


def read(header: str | None) -> dict[str, list[str]]:
    """Return ``{name: [value, …]}`` of a ``Cookie`` header, in the order sent."""
    cookies: dict[str, list[str]] = {}
    for pair in (header or "")[:65536].split(";"):
        name, equals, value = pair.strip().partition("=")
        if equals:
            cookies.setdefault(name, []).append(value.strip('"'))
    return cookies


def session_id(cookies: dict[str, list[str]]) -> str:
    """Return the browser's session id, or an empty text when it has none of our form."""
    for value in cookies.get(SESSION_ID, ()):
        if _SESSION_ID_FORM.fullmatch(value):
            return value
    return ""


def write(
    name: str,
    value: str,
    *,
    path: str,
    secure: bool,
    max_age_s: int | None = None,
    http_only: bool = True,
    same_site: str = "Lax",
) -> str:
    """Return a ``Set-Cookie`` value; without ``max_age_s`` the cookie ends with the browser."""
    parts = [f"{name}={value}", f"Path={path}"]
    if max_age_s is not None:
        parts.append(f"Max-Age={max_age_s}")
    if http_only:
        parts.append("HttpOnly")
    if secure:
        parts.append("Secure")
    parts.append(f"SameSite={same_site}")
    return "; ".join(parts)


def clear(name: str, *, path: str, secure: bool) -> str:
    """Return a ``Set-Cookie`` value that makes the browser forget the cookie."""
    return write(name, "", path=path, secure=secure, max_age_s=0)
