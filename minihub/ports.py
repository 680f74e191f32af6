"""Ports for servers: free ones, not given out twice.

Rules of this file: a port is looked at, never kept open; who listens on it later is not known here.

Threads: any; the ports given out lately are shared and have a lock, a leaf.
"""

from __future__ import annotations

import random
import socket
import threading

from . import clock
from .errors import SpawnError
from .texts import Text

#: Ports are taken from below those that Linux and macOS give to outgoing connections: one of
#: the proxy's could else take the port before the server has opened it.
_PORTS = range(20000, 32768)
_PORT_TRIES = 100
#: How long a port that was given out is not given out again.
_PORT_REST_S = 120.0

_ports_lock = threading.Lock()
_ports_given: dict[int, float] = {}


def free_port(ip: str) -> int:
    """Return a port on which nobody listens at ``ip`` now, and that was not given out lately.

    Somebody else may still take it before the server does. Raises SpawnError.
    """
    now = clock.monotonic()
    with _ports_lock:
        for port in [port for port, since in _ports_given.items() if now - since > _PORT_REST_S]:
            del _ports_given[port]
        for _ in range(_PORT_TRIES):
            port = random.choice(_PORTS)
            if port not in _ports_given and _is_free(ip, port):
                _ports_given[port] = now
                return port
    raise SpawnError(
        Text("No free port was found at %(address)s.", address=ip or Text("any address"))
    )


def other_port(ip: str, port: int) -> int:
    """Return a port near one that is taken, on which nobody listens now; 0 when there is none."""
    near = range(port + 10, min(port + 110, 65536))
    return next((one for one in near if _is_free(ip, one)), 0)


def _is_free(ip: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((ip, port))
        except OSError:
            return False
    return True
