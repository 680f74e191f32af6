"""What admins tell everybody: short texts that every page shows, without a restart.

Rules of this file: texts are plain; pages escape them. What is in force is kept in memory, since
every page asks.

Threads: any; the list in memory is replaced whole.
"""

from __future__ import annotations

from typing import NamedTuple

from . import clock
from .errors import BadRequest
from .models import Announcement
from .store import Store
from .texts import Text

LONGEST = 1000


class Notice(NamedTuple):
    """One announcement; ``expires_at`` None for one without an end."""

    id: int
    text: str
    created: str
    created_by: str
    expires_at: str | None


class Announcements:
    """The announcements of one hub."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known = self._read()

    def current(self) -> list[Notice]:
        """Return the announcements in force, the newest first."""
        now = clock.now_text()
        return [one for one in self._known if one.expires_at is None or one.expires_at > now]

    def add(self, text: str, by: str, lasts_s: float | None) -> None:
        """Announce something for so many seconds; None for ever. Raises BadRequest."""
        text = text.strip()
        if not text or len(text) > LONGEST:
            raise BadRequest(
                Text("An announcement has from 1 to %(most)s characters.", most=LONGEST)
            )
        expires = None if lasts_s is None else clock.isoformat(clock.after(lasts_s))
        with self._store.transaction(touches_rights=False):
            Announcement.delete().where(Announcement.expires_at <= clock.now_text()).execute()
            Announcement.create(
                text=text, created=clock.now_text(), created_by=by, expires_at=expires
            )
        self._known = self._read()

    def remove(self, notice_id: int) -> None:
        """Take an announcement back; one that is gone is fine."""
        with self._store.transaction(touches_rights=False):
            Announcement.delete().where(Announcement.id == notice_id).execute()
        self._known = self._read()

    def _read(self) -> list[Notice]:
        with self._store.session():
            rows = Announcement.select().order_by(Announcement.id.desc())
            return [
                Notice(row.id, row.text, row.created, row.created_by, row.expires_at)
                for row in rows
            ]
