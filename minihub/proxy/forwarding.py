"""What changes in a message on its way: paths, forwarding fields, redirects, framing.

Rules of this file: pure functions; whatever is not named here passes byte for byte.

Threads: any.

Sources: node-http-proxy's xfwd, changeOrigin, autoRewrite and protocolRewrite, as
configurable-http-proxy uses them.
"""

from __future__ import annotations

import re

from minihub.proxy import http1
from minihub.proxy.context import Settings
from minihub.proxy.loop import SMALL_READ
from minihub.proxy.routes import Route, strip_prefix

#: So many pieces are copied together whatever their size.
MANY_PIECES = 8
_REWRITTEN = frozenset((201, 301, 302, 307, 308))
_LOCATION = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)(.*)")


def request_lines(
    settings: Settings, fields: http1.RequestFields, address: bytes, scheme: bytes
) -> bytes:
    """Return the field block, with its empty last line, that goes to the target.

    ``address`` and ``scheme`` are the client's.
    """
    forward = fields.forward
    if settings.custom_headers:
        forward = http1.without_fields(forward, {name for name, _ in settings.custom_headers})
    lines = [forward]
    if settings.x_forward:
        host = fields.host or b""
        port = host.rpartition(b":")[2] if b":" in host else b""
        if not port.isdigit():
            port = b"443" if scheme == b"https" else b"80"
        lines.append(
            b"X-Forwarded-For: %b\r\nX-Forwarded-Port: %b\r\nX-Forwarded-Proto: %b\r\n"
            % (
                _appended(fields.forwarded_for, address),
                _appended(fields.forwarded_port, port),
                _appended(fields.forwarded_proto, scheme),
            )
        )
        shown = fields.forwarded_host or host
        if shown:
            lines.append(b"X-Forwarded-Host: %b\r\n" % shown)
    else:
        for name, value in (
            (b"For", fields.forwarded_for),
            (b"Port", fields.forwarded_port),
            (b"Proto", fields.forwarded_proto),
            (b"Host", fields.forwarded_host),
        ):
            if value:
                lines.append(b"X-Forwarded-%b: %b\r\n" % (name, value))
    lines.extend(line for _, line in settings.custom_headers)
    if fields.upgrade:
        lines.append(b"Connection: Upgrade\r\nUpgrade: %b\r\n" % fields.upgrade)
    lines.append(b"\r\n")
    return b"".join(lines)


def _appended(before: bytes, value: bytes) -> bytes:
    return before + b"," + value if before else value


def request_path(settings: Settings, path: bytes, route: Route) -> bytes:
    """Return the path and query that the target is asked for."""
    if path == b"*":
        return path
    if not settings.include_prefix:
        path = strip_prefix(path, route.depth - (1 if settings.host_routing else 0))
    if settings.prepend_path and route.target.path:
        path = route.target.path + path
    return path


def rewrite_location(
    settings: Settings,
    head: http1.ResponseHead,
    route: Route | None,
    fields: http1.RequestFields | None,
) -> bytes:
    """Return the response's fields with a redirect to the target itself turned to the client's."""
    if route is None or head.status not in _REWRITTEN:
        return head.forward
    old = http1.field_lines(head.forward, (b"location",))
    name, _, value = old.partition(b":")
    match = _LOCATION.fullmatch(value.strip())
    if match is None:
        return head.forward
    scheme, host, rest = match.groups()
    if host.lower() != route.target.host_field.lower():
        return head.forward
    if settings.auto_rewrite and fields is not None and fields.host is not None:
        host = fields.host
    if settings.protocol_rewrite:
        scheme = settings.protocol_rewrite.encode("latin-1", "replace").rstrip(b":")
    line = b"%b: %b://%b%b\r\n" % (name, scheme, host, rest)
    return head.forward.replace(old, line, 1)


def as_chunks(pieces: list[bytes | memoryview]) -> list[bytes | memoryview]:
    """Return the pieces of a body, each framed as a chunk; the last chunk is the caller's."""
    framed: list[bytes | memoryview] = []
    for piece in pieces:
        framed += (b"%x\r\n" % len(piece), piece, b"\r\n")
    return framed


def joined(pieces: list[bytes | memoryview], size: int) -> list[bytes | memoryview]:
    """Return pieces of together ``size`` bytes as one, where copying costs less than sending."""
    if len(pieces) > 1 and (size <= SMALL_READ or len(pieces) > MANY_PIECES):
        return [b"".join(pieces)]
    return pieces
