"""One server's life as a state machine, with its progress events.

Rules of this file: it decides which moves are allowed and keeps what watchers need (state,
failure, events); it starts nothing and knows no database, no proxy, no HTTP. Every move carries
its arrow as a comment where it is made, in :mod:`minihub.hub`.

Threads: any. ``_changed`` is the server's own lock and guards state only; nobody waits for a
process or the network while holding it.
"""

from __future__ import annotations

import enum
import logging
import threading
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from . import clock
from .errors import SpawnError
from .texts import Text

log = logging.getLogger("minihub.hub")


class State(enum.Enum):
    """Where a server stands. CHECKING, SPAWNING and STOPPING are what the API calls pending."""

    STOPPED = "stopped"
    #: It ran when the last hub ended, and this one does not know yet whether it still does.
    CHECKING = "check"
    SPAWNING = "spawn"
    READY = "ready"
    STOPPING = "stop"


_MOVES = {
    State.STOPPED: {State.SPAWNING, State.CHECKING},
    State.CHECKING: {State.READY, State.STOPPING},
    State.SPAWNING: {State.READY, State.STOPPING, State.STOPPED},
    State.READY: {State.STOPPING, State.STOPPED},
    State.STOPPING: {State.STOPPED, State.READY},
}


@dataclass(frozen=True)
class Notice:
    """What happened to a server that its user should know."""

    text: str
    when: datetime
    #: Whether it only says what is about to happen.
    is_warning: bool = False


class Server:
    """One (user, server name) and what it is doing now."""

    def __init__(self, user_id: int, user_name: str, name: str) -> None:
        self.user_id = user_id
        self.user_name = user_name
        self.name = name
        self.row_id: int | None = None
        #: As of the present or last run.
        self.display_name = ""
        self.user_options: dict[str, Any] = {}
        #: Whether everything about it goes when it has stopped.
        self.remove_when_stopped = False
        #: The spawner of the present or last run.
        self.spawner: Any = None
        #: ``http://host:port`` of the running server.
        self.target: str | None = None
        self.started: datetime | None = None
        #: Why the last start failed; None after a success or before any start.
        self.failure: SpawnError | None = None
        #: What its user should know of this run; None for nothing.
        self.notice: Notice | None = None
        #: Its place in the line of starts that wait; 0 for none.
        self.place = 0
        #: Set to make a start under way give up.
        self.cancelled = threading.Event()
        self._state = State.STOPPED
        self._since = clock.monotonic()
        self._events: list[dict[str, Any]] = []
        self._changed = threading.Condition()

    @property
    def full_name(self) -> str:
        """``user/server``, as access scopes and logs name it."""
        return f"{self.user_name}/{self.name}"

    @property
    def state(self) -> State:
        return self._state

    @property
    def pending(self) -> str | None:
        """``check``, ``spawn``, ``stop`` or None, as the REST API shows it."""
        return None if self._state in (State.STOPPED, State.READY) else self._state.value

    @property
    def ready(self) -> bool:
        return self._state is State.READY

    @property
    def active(self) -> bool:
        return self._state is not State.STOPPED

    def seconds_in_state(self) -> float:
        """Return how long the server has been in its present state."""
        return clock.monotonic() - self._since

    def move(self, target: State, *, only_from: State | None = None) -> bool:
        """Go to ``target``; return False, changing nothing, when that move is not allowed.

        With ``only_from`` the move also needs exactly that present state.
        """
        with self._changed:
            if only_from is not None and self._state is not only_from:
                return False
            if target not in _MOVES[self._state]:
                return False
            self._state = target
            self._since = clock.monotonic()
            if target is State.SPAWNING:
                self.failure = self.notice = None
                self.cancelled.clear()
                self._events = [{"progress": 0, "message": Text("Server requested")}]
            self._changed.notify_all()
            return True

    def note(self, text: str, *, warning: bool = False) -> None:
        """Keep a text for the user's page, in place of what was kept before."""
        self.notice = Notice(text, clock.utcnow(), warning)

    def drop_warning(self) -> None:
        """Forget what was kept if it was a warning."""
        if self.notice is not None and self.notice.is_warning:
            self.notice = None

    def add_event(self, event: dict[str, Any]) -> None:
        """Append a progress event ``{progress: 0–100, message: str, …}`` and wake watchers.

        Progress never goes back, whoever tells it.
        """
        with self._changed:
            last = self._events[-1].get("progress", 0) if self._events else 0
            event = event | {"progress": max(last, event.get("progress", last))}
            self._events.append(event)
            self._changed.notify_all()

    def add_place_in_line(self, before: int) -> None:
        """Tell that so many servers start before this one."""
        who = Text("Waiting: another server starts first.")
        if before > 1:
            who = Text("Waiting: %(count)s other servers start first.", count=before)
        self.add_event({"progress": 0, "message": who})

    def take_place(self, place: int) -> None:
        """Take a place in the line of starts that wait for others to end, and tell it."""
        self.place = place
        told = Text("It waits in line, at place %(position)s.", position=place)
        self.add_event({"progress": 0, "message": told, "position": place})

    def follow(self, spawner: Any) -> None:
        """Hand on what a spawner says of its start, in a thread, until the start has ended."""
        name = f"progress-{self.full_name}"
        threading.Thread(target=self._follow, args=(spawner,), name=name, daemon=True).start()

    def _follow(self, spawner: Any) -> None:
        try:
            for event in spawner.progress_events():
                if self.spawner is not spawner or self.state is not State.SPAWNING:
                    return
                self.add_event(event)
        except Exception:  # a spawner may be anybody's
            log.exception("The progress of %s", self.full_name)

    def events_after(self, index: int, timeout_s: float) -> list[dict[str, Any]]:
        """Return the events from ``index`` on, waiting up to ``timeout_s`` for the first.

        Returns an empty list at the deadline, or at once when no start is under way.
        """
        deadline = clock.monotonic() + timeout_s
        with self._changed:
            while len(self._events) <= index and self._state is State.SPAWNING:
                left = deadline - clock.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            return self._events[index:]

    def wait_settled(self, timeout_s: float) -> bool:
        """Wait until nothing is pending; return whether that is so."""
        deadline = clock.monotonic() + timeout_s
        with self._changed:
            while self._state not in (State.STOPPED, State.READY):
                left = deadline - clock.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
            return True
