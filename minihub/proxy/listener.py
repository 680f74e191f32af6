"""Listening sockets: opening them, naming them, accepting from them.

Rules of this file: options every accepted connection shall have are set on the listening
socket, from which it inherits them. When descriptors run out, accepting pauses; it never spins.

Threads: a Listener belongs to its loop's thread; the functions may be called by any.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

from minihub.errors import ProxyError
from minihub.proxy import log
from minihub.proxy.loop import FOREVER, READ, Connection, Loop, describe_error

BACKLOG = 4096
#: Connections taken in one go before other events get their turn.
ACCEPTS_AT_ONCE = 64
#: How long accepting pauses when descriptors have run out.
PAUSE_SECONDS = 1.0
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

Accept = Callable[[socket.socket, bytes], None]


class Listener(Connection):
    """A listening socket in a loop; ``accept`` gets each connection and the peer's address."""

    __slots__ = ("_accept", "_is_unix")

    def __init__(self, loop: Loop, sock: socket.socket, accept: Accept) -> None:
        super().__init__(loop, sock)
        self._accept = accept
        self._is_unix = sock.family not in (socket.AF_INET, socket.AF_INET6)

    def on_event(self, mask: int) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                sock, peer = self.sock.accept()
            except BlockingIOError:
                return
            except OSError as exc:
                if exc.errno in _EXHAUSTED:
                    log.repeated("accept", f"not accepting for now: {describe_error(exc)}")
                    self.pause()
                    return
                continue  # the peer has gone already
            sock.setblocking(False)
            self._accept(sock, b"127.0.0.1" if self._is_unix else peer_address(peer[0]))

    def pause(self) -> None:
        """Take no connection for PAUSE_SECONDS; they wait in the backlog."""
        self.want(0)
        self.deadline = self.loop.now + PAUSE_SECONDS

    def on_timeout(self) -> None:
        self.deadline = FOREVER
        self.want(READ)


def peer_address(host: str) -> bytes:
    """Return a peer's address as it is shown, an IPv4 one also where it came in by IPv6."""
    if host.startswith("::ffff:") and "." in host:
        host = host[7:]
    return host.partition("%")[0].encode()


def open_listeners(ip: str, port: int) -> list[socket.socket]:
    """Listen on every address of ``ip`` (empty or ``*``: all of this machine's), on one port.

    With port 0 the system picks one. Raises ProxyError when the address cannot be had.
    """
    sockets: list[socket.socket] = []
    try:
        for family, address in _addresses(ip, port):
            if sockets and not port:
                port = sockets[0].getsockname()[1]
            try:
                sockets.append(_listen(family, (address[0], port, *address[2:])))
            except OSError as exc:
                # A machine without IPv6 may still name ::1 in /etc/hosts.
                if exc.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) and ip in (
                    "localhost",
                    "",
                    "*",
                ):
                    continue
                raise
            if ip in ("", "*") and family == socket.AF_INET6:
                break
        if not sockets:
            raise OSError(errno.EADDRNOTAVAIL, "")
    except OSError as exc:
        for sock in sockets:
            sock.close()
        shown = f"{ip or '*'}:{port}"
        if exc.errno == errno.EADDRINUSE:
            raise ProxyError(f"{shown} is in use by another program") from exc
        raise ProxyError(f"cannot listen on {shown}: {describe_error(exc)}") from exc
    return sockets


def _addresses(ip: str, port: int) -> list[tuple[int, tuple]]:  # type: ignore[type-arg]
    if ip in ("", "*"):
        return [(socket.AF_INET6, ("::", port, 0, 0)), (socket.AF_INET, ("0.0.0.0", port))]
    host = ip.strip("[]")
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return [(family, (host, port))]
    found = socket.getaddrinfo(
        host.encode("ascii", "replace"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    entries = sorted({(int(entry[0]), entry[4]) for entry in found})
    return entries


def _listen(family: int, address: tuple) -> socket.socket:  # type: ignore[type-arg]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 120)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 30)
        if family == socket.AF_INET6:
            is_any = address[0] == "::"
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if is_any else 1)
        sock.bind(address)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def address_text(ip: str, sockets: list[socket.socket]) -> str:
    """Return ``address:port`` as it is logged: as given, with the port that was really taken."""
    port = sockets[0].getsockname()[1]
    host = ip.strip("[]") or "*"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
