"""Listening sockets: opening them, naming them, accepting from them.

Rules of this file: options every accepted connection shall have are set on the listening
socket, from which it inherits them. When descriptors run out, accepting pauses; it never spins.

Threads: a Listener belongs to its loop's thread; the functions may be called by any.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from collections.abc import Callable

from minihub.errors import ProxyError
from minihub.proxy import log
from minihub.proxy.loop import FOREVER, READ, Connection, Loop, describe_error

BACKLOG = 4096
#: Connections taken in one go before other events get their turn.
ACCEPTS_AT_ONCE = 64
#: How long accepting pauses when descriptors have run out.
PAUSE_SECONDS = 0.1
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

Accept = Callable[[socket.socket, bytes], None]


class Listener(Connection):
    """A listening socket in a loop.

    ``accept`` gets each connection and the peer's address; while ``has_room`` says no, nobody is
    accepted.
    """

    __slots__ = ("_accept", "_has_room", "_is_unix")

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        accept: Accept,
        has_room: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__(loop, sock)
        self._accept = accept
        self._has_room = has_room
        self._is_unix = sock.family not in (socket.AF_INET, socket.AF_INET6)

    def on_event(self, mask: int) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            if not self._has_room():
                self.pause()
                return
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

    def close(self) -> None:
        """Stop accepting; the socket, which other loops may use too, is its owner's to close."""
        self.release()

    def pause(self) -> None:
        """Take no connection for PAUSE_SECONDS; they wait in the backlog."""
        self.want(0)
        self.deadline = self.loop.now + PAUSE_SECONDS
        self.loop.sweep_within(PAUSE_SECONDS)

    def on_timeout(self) -> None:
        self.deadline = FOREVER
        self.want(READ)


def peer_address(host: str) -> bytes:
    """Return a peer's address as it is shown, an IPv4 one also where it came in by IPv6."""
    if host.startswith("::ffff:") and "." in host:
        host = host[7:]
    return host.partition("%")[0].encode()


def open_listeners(ip: str, port: int, copies: int = 1) -> list[socket.socket]:
    """Listen on every address of ``ip`` (empty or ``*``: all of this machine's), on one port.

    With port 0 the system picks one. With ``copies`` there are so many sockets for each address,
    among which the system spreads connections, where it can do that. Raises ProxyError when the
    address cannot be had.
    """
    if sys.platform != "linux":
        # Elsewhere SO_REUSEPORT exists but gives everything to one of the sockets.
        copies = 1
    sockets: list[socket.socket] = []
    try:
        for family, address in _addresses(ip, port):
            try:
                sock = _bind(family, (address[0], port, *address[2:]))
                port = sock.getsockname()[1]
                group = [sock]
                if copies > 1:
                    # The port is free, as this socket, which does not share, has found out.
                    sock.close()
                    shared = (address[0], port, *address[2:])
                    group = [_bind(family, shared, is_shared=True) for _ in range(copies)]
                sockets += group
                for sock in group:
                    sock.listen(BACKLOG)
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


def open_unix_listener(path: str, option: str) -> socket.socket:
    """Listen on a Unix socket, in place of one that nobody listens on. Raises ProxyError."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        try:
            sock.bind(path)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE or not _is_stale(path):
                raise
            os.unlink(path)
            sock.bind(path)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as exc:
        sock.close()
        if exc.errno == errno.EADDRINUSE:
            raise ProxyError(f"--{option} {path} is in use by another program") from exc
        raise ProxyError(f"--{option} {path}: {describe_error(exc)}") from exc
    return sock


def _is_stale(path: str) -> bool:
    """Return whether ``path`` is a socket that nobody listens on."""
    if not stat.S_ISSOCK(os.stat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
    return False


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


def _bind(
    family: int,
    address: tuple,  # type: ignore[type-arg]
    is_shared: bool = False,
) -> socket.socket:
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
        if is_shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def address_text(ip: str, sockets: list[socket.socket]) -> str:
    """Return ``address:port`` as it is logged: as given, with the port that was really taken.

    A Unix socket is shown by its path.
    """
    if sockets[0].family == socket.AF_UNIX:
        return str(sockets[0].getsockname())
    port = sockets[0].getsockname()[1]
    host = ip.strip("[]") or "*"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
