"""When users and their servers were last active.

Rules of this file: a time only ever moves forward. Small steps of what is noted in passing are not
written, so that a busy class costs few writes; what a server reports itself is written as
reported. It does not decide what counts as activity: the proxy, the servers and requests do.

Threads: any. What was written last is also kept in memory, where every reader of one user or one
server finds it; nobody else writes these columns while the hub runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from . import clock
from .models import Server, User
from .prepared import Prepared, slot
from .store import Store

#: Smaller steps forward are not written when activity is noted in passing, unless told otherwise.
RESOLUTION_S = 30.0
#: A report from further ahead than this is refused: a clock is wrong.
MAX_AHEAD_S = 59 * 60
#: How many times are kept in memory; beyond, it starts anew from the store.
MEMORY_SIZE = 50_000


def _raising(table: type[User] | type[Server]) -> Prepared:
    later = table.last_activity.is_null() | (table.last_activity < slot("text"))
    return Prepared(
        lambda: table.update(last_activity=slot("text")).where((table.id == slot("id")) & later)
    )


def _reading(table: type[User] | type[Server]) -> Prepared:
    return Prepared(lambda: table.select(table.last_activity).where(table.id == slot("id")))


_RAISE = {table: _raising(table) for table in (User, Server)}
_LAST = {table: _reading(table) for table in (User, Server)}


class Activity:
    """Records reports of activity in the store."""

    def __init__(self, store: Store, *, step_s: float = RESOLUTION_S) -> None:
        """``step_s``: the least step that is written of what is noted in passing."""
        self.store = store
        self.step_s = step_s
        self._memory: dict[tuple[type[User] | type[Server], int], str] = {}

    def user(self, user_id: int, when: datetime, *, step_s: float | None = None) -> None:
        """Note that the user was active at ``when``, unless that is less than a step ahead."""
        self._raise(((User, user_id),), when, step_s)

    def server(
        self, row_id: int, user_id: int, when: datetime, *, step_s: float | None = None
    ) -> None:
        """Note that the server, and so its user, was active at ``when``."""
        self._raise(((Server, row_id), (User, user_id)), when, step_s)

    def of_user(self, user_id: int) -> str | None:
        """Return when the user was last active, as text; None for never."""
        return self._last(User, user_id)

    def of_server(self, row_id: int) -> str | None:
        """Return when the server was last active, as text; None for never."""
        return self._last(Server, row_id)

    def forget(self) -> None:
        """Read everything from the store again; for when rows went whose ids may come again."""
        self._memory.clear()

    def _last(self, table: type[User] | type[Server], row_id: int) -> str | None:
        text = self._memory.get((table, row_id))
        if text is None:
            with self.store.session():
                found = _LAST[table].tuples(id=row_id)
                text = found[0][0] if found else None
            if text is not None:
                self._keep(table, row_id, text)
        return text

    def _keep(self, table: type[User] | type[Server], row_id: int, text: str) -> None:
        if len(self._memory) >= MEMORY_SIZE:
            self._memory.clear()
        if text > self._memory.get((table, row_id), ""):
            self._memory[table, row_id] = text

    def _raise(
        self,
        rows: Iterable[tuple[type[User] | type[Server], int]],
        when: datetime,
        step_s: float | None,
    ) -> None:
        when = min(when, clock.utcnow())
        text = clock.isoformat(when)
        least = timedelta(seconds=self.step_s if step_s is None else step_s)
        recent = clock.isoformat(when - least)
        due = [row for row in rows if (self._last(*row) or "") < recent]
        if not due:
            return
        with self.store.transaction(touches_rights=False, lasting=False):
            for table, row_id in due:
                _RAISE[table].run(id=row_id, text=text)
        for table, row_id in due:
            self._keep(table, row_id, text)
