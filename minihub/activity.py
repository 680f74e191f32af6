"""When users and their servers were last active.

Rules of this file: a time only ever moves forward, and is written only when it moves by more
than a step, so that a busy class costs few writes. It does not decide what counts as activity:
the proxy and the servers report it.

Threads: any.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from . import clock
from .models import Server, User
from .store import Store

#: Smaller steps forward are not written.
RESOLUTION_S = 30
#: A report from further ahead than this is refused: a clock is wrong.
MAX_AHEAD_S = 59 * 60


class Activity:
    """Records reports of activity in the store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def user(self, user_id: int, when: datetime) -> None:
        """Note that the user was active at ``when``."""
        self._raise(User, user_id, when)

    def server(self, row_id: int, user_id: int, when: datetime) -> None:
        """Note that the server, and so its user, was active at ``when``."""
        self._raise(Server, row_id, when)
        self._raise(User, user_id, when)

    def _raise(self, table: type[User] | type[Server], row_id: int, when: datetime) -> None:
        when = min(when, clock.utcnow())
        text = clock.isoformat(when)
        threshold = clock.isoformat(when - timedelta(seconds=RESOLUTION_S))
        column = table.last_activity
        due = (table.id == row_id) & (column.is_null() | (column < threshold))
        with self.store.session():
            if not table.select().where(due).exists():
                return
        with self.store.transaction():
            table.update(last_activity=text).where(due).execute()
