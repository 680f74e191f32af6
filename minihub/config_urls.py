"""Options that set several others at once: URLs whose parts are options of their own.

Rules of this file: pure functions over entries. What is given itself wins over the part of a URL
given at the same place (file or command line); a place that counts more wins as a whole.

Threads: the main thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from minihub.config_values import Entry
from minihub.options_later import split_url

#: Options of JupyterHub that take address and port of each URL.
_PARTS = {
    "bind_url": ("ip", "port"),
    "hub_bind_url": ("hub_ip", "hub_port"),
    "hub_connect_url": ("hub_connect_ip", "hub_connect_port"),
}
_PORTS = {"http": 80, "https": 443}


def with_parts(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries of one place, those that come of a URL's parts first.

    A URL that is none brings nothing; it is judged where all values are.
    """
    parts = [
        replace(entry, option=option, value=[str(value)] if entry.texts else value)
        for entry in entries
        if entry.section == "JupyterHub" and entry.option in _PARTS
        for option, value in _parts(entry)
    ]
    return [*parts, *entries]


def _parts(entry: Entry) -> Iterator[tuple[str, Any]]:
    url = entry.value[-1] if entry.texts else entry.value
    if not isinstance(url, str) or not url:
        return
    try:
        parts = split_url(url)
        port = parts.port
    except ValueError:
        return
    address, port_option = _PARTS[entry.option]
    yield address, parts.hostname or ""
    yield port_option, _PORTS[parts.scheme] if port is None else port
    if entry.option == "bind_url" and parts.path:
        yield "base_url", parts.path
