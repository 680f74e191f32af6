"""How often somebody may try: counted in sliding windows, so that guessing ends and nobody is
locked out for good.

Rules of this file: it counts attempts and knows neither passwords nor requests. An attempt counts
from its beginning, so that a thousand at once are no way around; one that succeeds is taken back.
Refused attempts do not count: whoever waits as long as told may try again, whatever others do.

Memory is bounded by the limit for everybody together: no more keys are alive than that limit lets
attempts in, so a key is dropped only when its window has passed.

Threads: any; a throttle has one lock, a leaf, held for dictionary work only.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass

from . import clock
from .texts import Text

#: The key of everybody together.
_ALL = b"all"


@dataclass(frozen=True)
class Attempt:
    """An attempt that was let in; give it back when it succeeded."""

    keys: tuple[bytes, ...]
    at: float


class Throttle:
    """Counts attempts under several keys at once, each kind of key with a limit of its own."""

    def __init__(self, limits: dict[str, int], *, overall: int, window_s: float) -> None:
        """``limits`` says how many attempts each kind of key has within ``window_s`` seconds,
        ``overall`` how many there are altogether. A limit of 0 is no limit; without ``overall``
        ten thousand still bound the memory.
        """
        self.limits = dict(limits)
        self.window_s = window_s
        self._overall = overall or 10_000
        self._times: OrderedDict[bytes, deque[float]] = OrderedDict()
        self._most_keys = (len(limits) + 1) * self._overall + 1
        self._lock = threading.Lock()

    def enter(self, **names: str) -> Attempt | float:
        """Let an attempt in that has a name of each kind, or return the seconds to wait.

        A kind without a limit, or with an empty name, is not looked at.
        """
        keys = [
            (_digest(kind, name), self.limits[kind])
            for kind, name in names.items()
            if name and self.limits.get(kind)
        ]
        keys.append((_ALL, self._overall))
        now = clock.monotonic()
        with self._lock:
            wait_s = max(self._wait_locked(key, limit, now) for key, limit in keys)
            if wait_s > 0:
                return wait_s
            for key, _limit in keys:
                self._times.setdefault(key, deque()).append(now)
                self._times.move_to_end(key)
            self._tidy_locked(now)
        return Attempt(tuple(key for key, _limit in keys), now)

    def give_back(self, attempt: Attempt) -> None:
        """Take an attempt back that succeeded: it counts no more."""
        with self._lock:
            for key in attempt.keys:
                times = self._times.get(key)
                if times is not None and attempt.at in times:
                    times.remove(attempt.at)
                    if not times:
                        del self._times[key]

    def forget(self, **names: str) -> None:
        """Forget the attempts under these names; those of everybody together stay."""
        with self._lock:
            for kind, name in names.items():
                self._times.pop(_digest(kind, name), None)

    def __len__(self) -> int:
        """Return how many keys are remembered."""
        return len(self._times)

    def _wait_locked(self, key: bytes, limit: int, now: float) -> float:
        """Return how long until ``key`` has room; forgets what has left the window."""
        times = self._times.get(key)
        if times is None:
            return 0.0
        while times and times[0] <= now - self.window_s:
            times.popleft()
        if not times:
            del self._times[key]
            return 0.0
        return times[-limit] + self.window_s - now if len(times) >= limit else 0.0

    def _tidy_locked(self, now: float) -> None:
        """Drop the keys whose last attempt has left the window, the longest untouched first."""
        while self._times:
            key, times = next(iter(self._times.items()))
            if times and times[-1] > now - self.window_s and len(self._times) <= self._most_keys:
                return
            del self._times[key]


def _digest(kind: str, name: str) -> bytes:
    """Return a key of fixed size, whatever somebody sends as a name."""
    return hashlib.blake2b(f"{kind}\0{name}".encode("utf-8", "replace"), digest_size=16).digest()


def seconds(wait_s: float) -> int:
    """Return a wait as whole seconds, at least one."""
    return max(1, math.ceil(wait_s))


def in_words(wait_s: float) -> str:
    """Return a wait as people say it: ``40 seconds``, ``3 minutes``."""
    whole = seconds(wait_s)
    if whole < 90:
        return Text("1 second") if whole == 1 else Text("%(count)s seconds", count=whole)
    return Text("%(count)s minutes", count=math.ceil(whole / 60))
