"""Turns: how many servers of this machine start at once, and in which order.

When a class begins, everybody presses Start in the same minute. Started all at once, every one of
them is slow and so is the hub; started a few at a time, the first are ready at once and the last no
later. So many start at once as the processors can carry; the others wait for a turn, and are told
how many come before them.

Rules of this file: it knows names of users and nothing else of a start. Whoever has the fewest
servers starting comes first, then whoever waits longest: one person's ten servers do not keep
others waiting. A turn is given back when the server is ready, has failed, or has taken so long that
it cannot be its work that keeps the processors busy.

Threads: any. A condition guards who has a turn and who waits; nothing slow is done in it.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from . import clock

#: How many servers start at once for each processor: a start also waits for disks and the hub.
PER_PROCESSOR = 2
#: How long a turn counts at most.
LONGEST_S = 10.0
#: How often somebody who waits looks whether the start is still wanted.
_STEP_S = 0.25


@dataclass(eq=False)
class _Turn:
    user: str
    #: When it began; 0 for one that waits.
    since: float = 0.0


class Turns:
    """Who may start now and who waits."""

    def __init__(self, at_once: int | None = None, longest_s: float = LONGEST_S) -> None:
        """``at_once``: how many have a turn at the same time; by the processors when None."""
        self.at_once = at_once or PER_PROCESSOR * processors()
        self.longest_s = longest_s
        self._changed = threading.Condition()
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
        with self._changed:
            self._waiting.append(turn)
        told = 0
        try:
            while True:
                before = self._try(turn)
                if before == 0:
                    break
                if before != told:
                    told = before
                    tell(before)
                still_wanted()
            yield
        finally:
            with self._changed:
                for turns in (self._waiting, self._running):
                    if turn in turns:
                        turns.remove(turn)
                self._changed.notify_all()

    def _try(self, turn: _Turn) -> int:
        """Take the turn if it may be taken, after a short wait if need be.

        Returns how many come before; 0 when it is taken.
        """
        with self._changed:
            for last in (False, True):
                before = self._before(turn)
                if before <= 0:
                    turn.since = clock.monotonic()
                    self._waiting.remove(turn)
                    self._running.append(turn)
                    self._changed.notify_all()
                    return 0
                if not last:
                    self._changed.wait(_STEP_S)
            return before

    def _before(self, turn: _Turn) -> int:
        """Return how many must be done before this one may start; 0 or less for none."""
        now = clock.monotonic()
        self._running = [one for one in self._running if now - one.since < self.longest_s]
        busy = Counter(one.user for one in self._running)
        position = 0
        for one in _order(self._waiting, busy):
            if one is turn:
                break
            position += 1
        return position + 1 + len(self._running) - self.at_once

    def counts(self) -> tuple[int, int]:
        """Return how many have a turn and how many wait."""
        with self._changed:
            return len(self._running), len(self._waiting)


def _order(waiting: list[_Turn], busy: Counter[str]) -> Iterator[_Turn]:
    """Yield those who wait in the order of their turns, as if each began when its turn came."""
    busy, left = Counter(busy), list(waiting)
    while left:
        one = min(left, key=lambda turn: busy[turn.user])  # of equals the first, who waits longest
        left.remove(one)
        busy[one.user] += 1
        yield one


def processors() -> int:
    """Return how many processors the hub may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1
