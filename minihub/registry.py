"""Which servers there are in memory, by user and name.

Rules of this file: a dictionary of dictionaries, so that one user's servers are found without
looking at all; it decides nothing.

Threads: whoever owns a registry guards it with a lock.
"""

from __future__ import annotations

from collections.abc import Iterator

from .server import Server


class Registry:
    """Servers by their users' ids and their own names."""

    def __init__(self) -> None:
        self._by_user: dict[int, dict[str, Server]] = {}

    def __iter__(self) -> Iterator[Server]:
        for mine in self._by_user.values():
            yield from mine.values()

    def get(self, user_id: int, name: str) -> Server | None:
        """Return that server, if it is here."""
        return self._by_user.get(user_id, {}).get(name)

    def of_user(self, user_id: int) -> dict[str, Server]:
        """Return a user's servers by name."""
        return dict(self._by_user.get(user_id, ()))

    def add(self, server: Server) -> None:
        """Put a server in, in the place of one of the same user and name."""
        self._by_user.setdefault(server.user_id, {})[server.name] = server

    def remove(self, user_id: int, name: str) -> None:
        """Take a server out, if it is here."""
        mine = self._by_user.get(user_id, {})
        mine.pop(name, None)
        if not mine:
            self._by_user.pop(user_id, None)

    def has_newer(self, server: Server) -> bool:
        """Return whether another run of the same server is here and active.

        May be called without the lock of whoever has the registry: it is one look.
        """
        other = self.get(server.user_id, server.name)
        return other is not None and other is not server and other.active
