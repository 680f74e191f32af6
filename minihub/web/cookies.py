"""Cookies of the hub's own pages: reading them all, writing them narrow.

Rules of this file: names, paths and flags of the hub's cookies stand here and nowhere else. A
browser may send several cookies of one name (set for a parent path or by a sibling domain), so
reading returns every value and the caller takes the one that proves itself.

Threads: any; pure functions.
Sources: RFC 6265; names and paths as JupyterHub 6 uses them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

#: On the hub's path only: browsers never send it to a user's server.
LOGIN = "jupyterhub-hub-login"
#: Below the services' path, for services written for JupyterHub 0.8, which show it to the hub.
SERVICES = "jupyterhub-services"
#: On the base path, readable by servers; no credential.
SESSION_ID = "jupyterhub-session-id"
#: On the hub's path, readable by the page's own script.
XSRF = "_xsrf"

#: On the hub's path only: under which names this browser has logged in before; no credential.
DEVICE = "minihub-device"

#: What browsers let nobody set but this very host, over https and for the path /.
HOST_PREFIX = "__Host-"
#: The cookies that get the prefix where that is asked for.
PREFIXED = frozenset({LOGIN, XSRF})

NOTHING: Mapping[str, Any] = MappingProxyType({})

_SESSION_ID_FORM = re.compile(r"[0-9a-f]{32}")


def read(header: str | None) -> dict[str, list[str]]:
    """Return ``{name: [value, …]}`` of a ``Cookie`` header, in the order sent."""
    cookies: dict[str, list[str]] = {}
    for pair in (header or "")[:65536].split(";"):
        name, equals, value = pair.strip().partition("=")
        if equals:
            cookies.setdefault(name, []).append(value.strip('"'))
    return cookies


def only_prefixed(cookies: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the cookies, those of the names in PREFIXED only where they came with the prefix."""
    kept = {name: values for name, values in cookies.items() if name not in PREFIXED}
    for name in PREFIXED:
        if HOST_PREFIX + name in cookies:
            kept[name] = cookies[HOST_PREFIX + name]
    return kept


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
    max_age_s: float | None = None,
    http_only: bool = True,
    domain: str = "",
    options: Mapping[str, Any] = NOTHING,
) -> str:
    """Return a ``Set-Cookie`` value; without ``max_age_s`` the cookie ends with the browser.

    With ``domain`` it is for all hosts below it as well, else for the one that sets it.
    ``options`` are the administrator's, with the keys of :data:`minihub.websettings.COOKIE_KEYS`,
    and go before everything else.
    """
    days = options.get("expires_days")
    max_age_s = max_age_s if days is None else days * 86400
    max_age_s = options.get("max_age", max_age_s)
    domain = options.get("domain", domain)
    parts = [f"{name}={value}", f"Path={options.get('path', path)}"]
    if domain:
        parts.append(f"Domain={domain}")
    if max_age_s is not None:
        parts.append(f"Max-Age={int(max_age_s)}")
    if options.get("httponly", http_only):
        parts.append("HttpOnly")
    if options.get("secure", secure):
        parts.append("Secure")
    parts.append(f"SameSite={options.get('samesite', 'Lax').capitalize()}")
    if options.get("partitioned"):
        parts.append("Partitioned")
    return "; ".join(parts)


def clear(
    name: str,
    *,
    path: str,
    secure: bool,
    domain: str = "",
    options: Mapping[str, Any] = NOTHING,
) -> str:
    """Return a ``Set-Cookie`` value that makes the browser forget the cookie.

    The other arguments are those that it was written with.
    """
    options = {**options, "max_age": 0}
    return write(name, "", path=path, secure=secure, domain=domain, options=options)
