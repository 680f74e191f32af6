"""Turns: how many servers of this machine start at once, and in which order.

When a class begins, everybody presses Start in the same minute. Started all at once, every one of
them is slow and so is the hub; started a few at a time, the first are ready at once and the last no
later. So many start at once as the processors can carry; the others wait for a turn, and are told
how many come before them. While something is being made that will let those who wait start in a
fraction of the time, fewer start without it.

Rules of this file: it knows names of users and nothing else of a start. Whoever has the fewest
servers starting comes first, then whoever waits longest: one person's ten servers do not keep
others waiting. A turn is given back when the server is ready, has failed, or has taken so long that
it cannot be its work that keeps the processors busy.

Threads: any. A lock, a leaf, guards who has a turn and who waits; whoever waits is woken alone.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from . import clock

#: How many servers start at once for each processor: a start also waits for disks and the hub.
PER_PROCESSOR = 2
#: How many a crowd starts when starts will soon take far less, and how many, for each processor
#: too, are a crowd: so many that the last of them would be ready later without it.
PER_PROCESSOR_OF_CROWD = 1
CROWD_PER_PROCESSOR = 4
#: How long somebody may wait then to see whether a crowd comes.
GATHER_S = 0.2
#: How long a turn counts at most.
LONGEST_S = 10.0
#: How often somebody who waits looks whether the start is still wanted.
_STEP_S = 0.25


@dataclass(eq=False)
class _Turn:
    user: str
    #: When it began; 0 for one that waits.
    since: float = 0.0
    came: float = field(default_factory=clock.monotonic)
    #: How many come before it while it waits.
    before: int = 0
    began: threading.Event = field(default_factory=threading.Event)


class Turns:
    """Who may start now and who waits."""

    def __init__(
        self,
        at_once: int | None = None,
        longest_s: float = LONGEST_S,
        soon: Callable[[bool], bool] = lambda is_crowd: False,
    ) -> None:
        """``at_once``: how many have a turn at the same time; by the processors when None.

        ``soon`` returns whether starts will take far less in a while, and is told whether a crowd
        waits for that. It is called several times a second and must take no lock.
        """
        self.at_once = at_once or PER_PROCESSOR * processors()
        self.longest_s = longest_s
        self._soon = soon
        #: Whether a crowd waits for what will come soon.
        self._crowded = False
        self._lock = threading.Lock()
        self._running: list[_Turn] = []
        self._waiting: list[_Turn] = []

    @contextmanager
    def taken(
        self, user: str, still_wanted: Callable[[], None], tell: Callable[[int], None]
    ) -> Iterator[None]:
        """Wait for a turn and hold it for the block.

        ``still_wanted`` is called several times a second and raises to give up; ``tell`` is told
        how many come before, whenever that changes.
        """
        turn = _Turn(user)
        with self._lock:
            self._waiting.append(turn)
            self._give_turns()
        told, step_s = 0, 0.0
        try:
            while not turn.began.wait(step_s):
                before, step_s = turn.before, _STEP_S
                if before != told:
                    told = before
                    tell(before)
                still_wanted()
                self._look_again()
            yield
        finally:
            with self._lock:
                for turns in (self._waiting, self._running):
                    if turn in turns:
                        turns.remove(turn)
                self._give_turns()

    def _look_again(self) -> None:
        """Take the turns away that have taken too long, and see whether there is room now."""
        now = clock.monotonic()
        with self._lock:
            quick = [one for one in self._running if now - one.since < self.longest_s]
            is_over = self._crowded and not self._soon(True)
            has_room = len(quick) < self.at_once and not self._crowded
            if len(quick) < len(self._running) or is_over or has_room:
                self._running = quick
                self._give_turns()

    def _give_turns(self) -> None:
        """Let those begin for whom there is room, and count for the others who comes before."""
        now = clock.monotonic()
        room = self.at_once - len(self._running)
        few = min(room, PER_PROCESSOR_OF_CROWD * processors() - len(self._running))
        everybody = len(self._running) + len(self._waiting)
        is_crowd = self._crowded or everybody > CROWD_PER_PROCESSOR * processors()
        comes_soon = self._soon(is_crowd)
        self._crowded = comes_soon and is_crowd
        busy = Counter(one.user for one in self._running)
        for position, turn in enumerate(_order(self._waiting, busy)):
            gathers = self._crowded or comes_soon and now - turn.came < GATHER_S
            if position < (few if gathers else room):
                turn.since = now
                self._waiting.remove(turn)
                self._running.append(turn)
                turn.began.set()
            else:
                turn.before = max(0, position + 1 - max(few if self._crowded else room, 0))

    def counts(self) -> tuple[int, int]:
        """Return how many have a turn and how many wait."""
        with self._lock:
            return len(self._running), len(self._waiting)


def _order(waiting: list[_Turn], busy: Counter[str]) -> list[_Turn]:
    """Return those who wait in the order of their turns, as if each began when its turn came."""
    seen = Counter(busy)
    keys = []
    for place, turn in enumerate(waiting):
        # Before this one, its user has so many starting; of equals, whoever waits longest is first.
        keys.append((seen[turn.user], place))
        seen[turn.user] += 1
    return [waiting[place] for _busy, place in sorted(keys)]


def processors() -> int:
    """Return how many processors the hub may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1
