"""Which names of the hub browsers may use: what keeps pages of strangers from posing as its own.

A page of another site whose name suddenly leads to this machine (rebinding) is of the same origin
as the hub to a browser; only the name it was asked for tells.

Rules of this file: it compares names; it knows no requests.

Threads: any. What the machine is called is looked up again after a while; two threads may do so at
once.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

from .. import clock, machine, urls

#: The entry that stands for the addresses and names the machine has at the moment.
THIS_MACHINE = "this-machine"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
#: How long what the machine is called is believed; a laptop changes networks.
_MEMORY_S = 10.0


class Hosts:
    """The names and addresses that are the hub's."""

    def __init__(self, allowed: Iterable[str], own: Iterable[str]) -> None:
        """``allowed`` as ``JupyterHub.allowed_hosts``; ``own``: more of them, maybe with ports."""
        names = {name.lower() for name in allowed}
        self.is_checked = bool(names)
        self._follows_machine = THIS_MACHINE in names
        self._suffixes = tuple(name for name in names if name.startswith("."))
        self._names = names | _LOOPBACK | {urls.host_name(name) for name in own}
        self._machine: tuple[float, frozenset[str]] = (0.0, frozenset())

    def knows(self, netloc: str) -> bool:
        """Return whether ``name[:port]`` is a name of the hub's; every one is without a list."""
        if not self.is_checked:
            return True
        name = urls.host_name(netloc).rstrip(".")
        if name in self._names or name.endswith(self._suffixes or "\0"):
            return True
        return self._follows_machine and name in self._of_machine()

    def _of_machine(self) -> frozenset[str]:
        now = clock.monotonic()
        since, found = self._machine
        if not found or now - since > _MEMORY_S:
            host = socket.gethostname().lower()
            short = host.partition(".")[0]
            found = frozenset({host, short, f"{short}.local", *machine.lan_addresses()})
            self._machine = (now, found)
        return found
