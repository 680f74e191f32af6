"""What ``JupyterHub.tornado_settings`` means to a hub that does not run on tornado.

Rules of this file: the keys below have a meaning here; any other is told in a warning. A value of
the wrong type is an error before anything starts.

Threads: made at the start, then read by all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

#: What a cookie may be told; the names are those of Python's cookies, in any case.
COOKIE_KEYS = {
    "domain": str,
    "expires_days": (int, float, type(None)),
    "httponly": bool,
    "max_age": (int, float),
    "partitioned": bool,
    "path": str,
    "samesite": str,
    "secure": bool,
}
SAME_SITE = ("strict", "lax", "none")


@dataclass(frozen=True)
class WebSettings:
    """The settings in force."""

    headers: Mapping[str, str] = field(default_factory=dict)
    #: Seconds an API call waits for a start or stop before it answers that it is pending.
    slow_spawn_timeout_s: float = 10.0
    slow_stop_timeout_s: float = 10.0
    #: How often a browser is sent back to a running server before the loop is told.
    user_redirect_limit: int = 4
    #: Where browsers report what a policy forbade; empty for the hub itself.
    csp_report_uri: str = ""
    #: Attributes of all cookies, and of the one for forms alone; keys in lower case.
    cookie_options: Mapping[str, Any] = field(default_factory=dict)
    xsrf_cookie_kwargs: Mapping[str, Any] = field(default_factory=dict)


CENTURY_DAYS = 36525
_NUMBER = "a number of seconds, from 0 to a hundred years"


def _is_number(value: Any) -> bool:
    is_one = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_one and 0 <= value <= CENTURY_DAYS * 86400


def _problem(key: str, value: Any) -> str:
    """Return what is wrong with the value of a known key, or an empty text."""
    if key in ("slow_spawn_timeout", "slow_stop_timeout"):
        return "" if _is_number(value) else f"expected {_NUMBER}"
    if key == "user_redirect_limit":
        fine = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        return "" if fine else "expected a whole number, 0 or more"
    if key == "csp_report_uri":
        fine = isinstance(value, str) and value.isprintable() and not set(value) & set(" ;,")
        return "" if fine else "expected a URL, without spaces, semicolons and commas"
    if not isinstance(value, Mapping):
        return "expected a dictionary"
    if key == "headers":
        return _header_problem(value)
    for name, entry in value.items():
        expected = COOKIE_KEYS.get(str(name).lower())
        if expected is None:
            return f'"{name}" is no attribute of a cookie; there are {", ".join(COOKIE_KEYS)}'
        if not isinstance(entry, expected) or (isinstance(entry, bool) and expected is not bool):
            return f"{name} cannot be {entry!r}"
        if isinstance(entry, str) and (";" in entry or not entry.isprintable()):
            return f"{name} cannot be {entry!r}"
        most = CENTURY_DAYS * (86400 if str(name).lower() == "max_age" else 1)
        if isinstance(entry, (int, float)) and not abs(entry) <= most:
            return f"{name} cannot be {entry!r}: more than a hundred years"
        if str(name).lower() == "samesite" and entry.lower() not in SAME_SITE:
            return f"{name} is one of Strict, Lax, None, not {entry!r}"
    return ""


def _header_problem(headers: Mapping[Any, Any]) -> str:
    for name, value in headers.items():
        if not isinstance(name, str) or not name or any(c in ':\r\n\0 "' for c in name):
            return f"{name!r} is no name of a header"
        if not isinstance(value, (str, int, float)) or any(c in "\r\n\0" for c in str(value)):
            return f"{name} cannot be {value!r}"
    return ""


KEYS = (
    "headers",
    "slow_spawn_timeout",
    "slow_stop_timeout",
    "user_redirect_limit",
    "csp_report_uri",
    "cookie_options",
    "xsrf_cookie_kwargs",
)


def problems(given: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with ``tornado_settings``."""
    for key in KEYS:
        if key in given and (wrong := _problem(key, given[key])):
            yield f"{key}: {wrong}"


def unknown(given: Mapping[str, Any]) -> list[str]:
    """Return the keys that mean nothing here."""
    return sorted(str(key) for key in given if key not in KEYS)


def read(given: Mapping[str, Any]) -> WebSettings:
    """Return the settings of a ``tornado_settings`` without problems."""
    defaults = WebSettings()
    return WebSettings(
        headers={name: str(value) for name, value in given.get("headers", {}).items()},
        slow_spawn_timeout_s=float(given.get("slow_spawn_timeout", defaults.slow_spawn_timeout_s)),
        slow_stop_timeout_s=float(given.get("slow_stop_timeout", defaults.slow_stop_timeout_s)),
        user_redirect_limit=given.get("user_redirect_limit", defaults.user_redirect_limit),
        csp_report_uri=given.get("csp_report_uri", ""),
        cookie_options=_lower(given.get("cookie_options", {})),
        xsrf_cookie_kwargs=_lower(given.get("xsrf_cookie_kwargs", {})),
    )


def _lower(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name.lower(): value for name, value in options.items()}
