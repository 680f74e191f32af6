"""Where a request came from, as the programs before the hub tell it in ``X-Forwarded-*`` fields.

Rules of this file: every program on the way appends its element, and only the last one is our own
proxy's: it is believed. An element further to the left is believed as long as everything to its
right was sent by an address in ``trusted_downstream_ips``.

Threads: any; a :class:`Trust` never changes.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable


def _elements(field: str) -> list[str]:
    return [element.strip() for element in field.split(",")] if field else []


class Trust:
    """The addresses of other proxies, whose word about their clients counts."""

    def __init__(self, addresses: Iterable[str] = ()) -> None:
        """``addresses`` are single ones or networks (``10.0.0.0/8``). Raises ValueError."""
        self._networks = [ipaddress.ip_network(one, strict=False) for one in addresses]

    def _is_trusted(self, text: str) -> bool:
        if not self._networks:
            return False
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None) or address
        return any(mapped in network for network in self._networks)

    def client(self, forwarded_for: str, peer: str) -> str:
        """Return the client's address; ``peer`` is who spoke to the hub."""
        chain = _elements(forwarded_for)
        return chain[self._index(chain)] if chain else peer

    def scheme(self, forwarded_proto: str, forwarded_for: str) -> str:
        """Return ``http`` or ``https``, as the client's browser sees it."""
        protos = _elements(forwarded_proto)
        if not protos:
            return "http"
        chain = _elements(forwarded_for)
        hops = len(chain) - 1 - self._index(chain) if chain else 0
        proto = protos[max(0, len(protos) - 1 - hops)]
        return proto if proto in ("http", "https") else "http"

    def _index(self, chain: list[str]) -> int:
        """Return the place of the first address from the right that is not trusted."""
        index = len(chain) - 1
        while index > 0 and self._is_trusted(chain[index]):
            index -= 1
        return index
