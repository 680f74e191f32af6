"""URLs and names in URLs: joining, quoting, and where a redirect may lead.

Rules of this file: pure functions over text; no request, no configuration. ``safe_next`` is the
only place that decides whether a redirect target given by a client is followed.

Sources: RFC 3986; the redirect rules are those of JupyterHub 6's ``get_next_url``.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import unicodedata
from collections.abc import Container
from urllib.parse import quote, urlsplit

from .texts import Text

_SERVER_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_HOST_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x20\x7f]")


def url_path_join(*pieces: str) -> str:
    """Join path pieces with exactly one slash between them.

    A leading slash of the first and a trailing slash of the last piece are kept:
    ``url_path_join("/a/", "/b/")`` is ``/a/b/``.
    """
    leading = pieces[0].startswith("/")
    trailing = pieces[-1].endswith("/")
    inner = "/".join(part for part in (piece.strip("/") for piece in pieces) if part)
    result = ("/" if leading else "") + inner + ("/" if trailing else "")
    return "/" if result == "//" else result


def url_prefix(text: str) -> str:
    """Return ``text`` with one slash at each end, as base URLs are kept."""
    inner = text.strip("/")
    return f"/{inner}/" if inner else "/"


def is_address(text: str) -> bool:
    """Return whether ``text`` is an IPv4 or IPv6 address, without brackets."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return text.isascii()


def is_host_name(text: str) -> bool:
    """Return whether ``text`` can be the name of a host: ASCII, and no IP address.

    Underscores are let pass, which DNS has not for hosts but container networks do.
    """
    labels = text.removesuffix(".").split(".")
    fits = len(text) <= 253 and all(_HOST_LABEL.fullmatch(label) for label in labels)
    return fits and not labels[-1].isdecimal()


def is_host(text: str) -> bool:
    """Return whether ``text`` is an address or can be the name of a host."""
    return is_address(text) or is_host_name(text)


def escape_name(name: str) -> str:
    """Return a user's or server's name as it stands in a URL path (``@`` and ``~`` stay)."""
    return quote(name, safe="@~")


def escape_path(path: str) -> str:
    """Return a path for use in a URL, slashes kept."""
    return "/".join(escape_name(part) for part in path.split("/"))


def server_name_problem(name: str) -> str:
    """Return why ``name`` cannot be a new named server's, or an empty text.

    Source: JupyterHub 6's rule for named servers.
    """
    if len(name) <= 30 and _SERVER_NAME.fullmatch(name):
        return ""
    return Text(
        "Invalid server name %(name)s: it must have 1 to 30 lower-case letters and digits, "
        "begin with a letter, and may hold single hyphens between them.",
        name=repr(name[:40]),
    )


def server_slug(name: str, taken: Container[str]) -> str:
    """Return a name that a new server may have and that is not ``taken``, made of any other name.

    The same name always gives the same one, or, where that is taken, one that ends with eight
    digits of its hash.
    Source: what JupyterHub 6 names servers of older versions that it renames.
    """
    plain = "".join(
        sign for sign in unicodedata.normalize("NFKD", name) if unicodedata.category(sign) != "Mn"
    )
    words = re.sub(r"[^a-z0-9]+", "-", plain.lower()).lstrip("-")
    for room, end in ((30, ""), (21, "-" + hashlib.sha256(name.encode()).hexdigest()[:8])):
        slug = words[:room]
        if slug[:1].isdigit():
            slug = "x-" + slug[: room - 2]
        slug = (slug.rstrip("-") or "x") + end
        if slug not in taken:
            break
    return slug


def host_name(netloc: str) -> str:
    """Return the host of ``name[:port]`` in lower case, without the brackets of an address."""
    host, colon, port = netloc.rpartition(":")
    name = host if colon and (port.isdecimal() or not port) else netloc
    return name.strip("[]").lower()


def safe_next(target: str, own_hosts: tuple[str, ...], domain: str = "") -> str | None:
    """Return ``target`` as a path on this origin, or None when it leads anywhere else.

    ``own_hosts`` are the values of ``Host`` under which this hub is known (``name[:port]``);
    ``domain`` is the host name below which users have theirs, if they have.
    An absolute URL of an own host is cut down to path, query and fragment. The result starts
    with exactly one slash and holds no backslash, control character or space.
    """
    if not target or len(target) > 8192 or _CONTROL.search(target):
        return None
    target = target.replace("\\", "%5C")
    try:
        parts = urlsplit(target)
    except ValueError:
        return None
    if parts.scheme or parts.netloc:
        below = bool(domain) and host_name(parts.netloc).endswith("." + domain)
        if parts.scheme not in ("", "http", "https"):
            return None
        if not below and parts.netloc not in own_hosts:
            return None
    elif not target.startswith("/"):
        return None
    path = "/" + parts.path.lstrip("/")
    if parts.query:
        path += "?" + parts.query
    if parts.fragment:
        path += "#" + parts.fragment
    return path


def is_local_path(path: str, prefix: str) -> bool:
    """Return whether ``path`` lies at or below ``prefix`` (which ends with a slash)."""
    return path == prefix[:-1] or path.startswith(prefix)
