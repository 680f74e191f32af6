"""What the machine says of itself: who holds a port, which addresses others reach it by.

Rules of this file: it asks psutil and answers in words; it changes nothing. Beside
:mod:`minihub.process` the only user of psutil.

Threads: any.
"""

from __future__ import annotations

import ipaddress
import socket

import psutil


def port_holder(port: int) -> str:
    """Return who listens on a TCP port, as ``NAME (process PID)``; empty when it cannot be seen.

    Without root only processes of the same user can be seen.
    """
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status != psutil.CONN_LISTEN or connection.laddr.port != port:
                continue
            if connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    except (psutil.Error, OSError):
        pass
    return ""


def lan_addresses() -> list[str]:
    """Return this machine's IPv4 addresses that other machines may reach, in a stable order."""
    found = set()
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            if address.family == socket.AF_INET:
                parsed = ipaddress.ip_address(address.address)
                if not parsed.is_loopback and not parsed.is_link_local:
                    found.add(str(parsed))
    return sorted(found, key=ipaddress.ip_address)
