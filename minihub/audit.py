"""Who did what to whom: the list that admins read, and everybody where it is about them.

Rules of this file: entries are added and read, never changed; the oldest go when there are
:data:`MOST`. It decides nothing about rights.

Threads: any.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from . import clock
from .models import AuditEntry
from .prepared import Prepared, slots
from .store import Store
from .texts import Text

#: How many entries are kept.
MOST = 100_000
#: After how many new entries the oldest are looked for.
TRIM_EVERY = 1000


#: What is done, as pages say it; what stands nowhere here is said as it was noted.
DEEDS: dict[str, Text] = {
    str(deed): deed
    for deed in (
        Text("add admin"),
        Text("add user"),
        Text("announce"),
        Text("ask to join"),
        Text("change groups"),
        Text("cull now"),
        Text("delete server"),
        Text("delete user"),
        Text("end announcement"),
        Text("end logins and tokens"),
        Text("end class code"),
        Text("enter server"),
        Text("files archived"),
        Text("files deleted"),
        Text("files left"),
        Text("give one-time code"),
        Text("import class list"),
        Text("join class"),
        Text("keep server"),
        Text("let into class"),
        Text("make admin"),
        Text("make class code"),
        Text("no longer admin"),
        Text("open server"),
        Text("own password by code"),
        Text("rename user"),
        Text("restart server"),
        Text("start server"),
        Text("stop all servers"),
        Text("stop server"),
        Text("turn away from class"),
    )
}


class Entry(NamedTuple):
    """One entry; ``server`` is the server's name, and says nothing where ``user`` is empty."""

    id: int
    at: str
    actor: str
    action: str
    user: str
    server: str
    detail: str

    @property
    def deed(self) -> str:
        """The action, as pages say it."""
        return DEEDS.get(self.action, self.action)


_ADD = Prepared(
    lambda: AuditEntry.insert(slots("at", "actor", "action", "user", "server", "detail"))
)


class Audit:
    """The audit list of one hub."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._added = 0

    def note(
        self, actor: str, action: str, user: str = "", server: str = "", detail: str = ""
    ) -> None:
        """Add an entry: ``actor`` did ``action`` (a word or two, as in ``stop server``)."""
        with self._store.transaction(touches_rights=False):
            _ADD.run(
                at=clock.now_text(),
                actor=actor[:255],
                action=action[:64],
                user=user[:255],
                server=server[:255],
                detail=detail[:1024],
            )
            with self._lock:
                self._added += 1
                full = self._added % TRIM_EVERY == 0
            if full:
                self._trim()

    def _trim(self) -> None:
        last = AuditEntry.select(AuditEntry.id).order_by(AuditEntry.id.desc()).scalar()
        AuditEntry.delete().where(AuditEntry.id <= (last or 0) - MOST).execute()

    def latest(
        self, limit: int, *, before: int | None = None, part: str = "", about: str = "",
        since: str = "", by_others: bool = False,
    ) -> list[Entry]:  # fmt: skip
        """Return the latest entries, newest first.

        ``before``: older than the entry of that id. ``part``: a text in actor, user or action.
        ``about``: only of that user, with ``by_others`` only what others did; ``since``: not older
        than that moment (a name may have been somebody else's before).
        """
        rows = AuditEntry.select().order_by(AuditEntry.id.desc()).limit(limit)
        if before is not None:
            rows = rows.where(AuditEntry.id < before)
        if about:
            rows = rows.where(AuditEntry.user == about)
            if by_others:
                rows = rows.where(AuditEntry.actor != about)
        if since:
            rows = rows.where(AuditEntry.at >= since)
        if part:
            rows = rows.where(
                AuditEntry.actor.contains(part)
                | AuditEntry.user.contains(part)
                | AuditEntry.action.contains(part)
            )
        with self._store.session():
            return [
                Entry(row.id, row.at, row.actor, row.action, row.user, row.server, row.detail)
                for row in rows
            ]

    def rename(self, old: str, new: str) -> None:
        """Let the entries about a user follow them to their new name."""
        with self._store.transaction(touches_rights=False):
            AuditEntry.update(user=new).where(AuditEntry.user == old).execute()
