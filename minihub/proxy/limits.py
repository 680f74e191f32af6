"""How many client connections there may be, in all and from one address.

Rules of this file: every loop counts its own connections in its own share, so nothing is
locked; whether there is room is the sum over all shares, which lie in memory that forked workers
have in common. Addresses are counted by their hash: among 1,000 of them a stranger shares a
counter with somebody in 1 of 65 cases, and is refused wrongly only when both together exceed
the limit.

Threads: a Share is written by its loop only, and read by all.
"""

from __future__ import annotations

import mmap

BUCKETS = 65536
#: More would only cost the kernel memory for its table.
MAX_DESCRIPTORS = 1048576


class Limits:
    """The limits and everybody's counts; 0 means no limit."""

    def __init__(self, total: int, per_address: int, shares: int) -> None:
        """Make room for so many shares, one for each loop of each worker."""
        self.total = total
        self.per_address = per_address
        self.shares = shares
        self._width = 1 + (BUCKETS if per_address else 0)
        self.counts: memoryview | None = None
        if total or per_address:
            # Anonymous and shared: a fork keeps it in common.
            memory = mmap.mmap(-1, 4 * self._width * shares)
            self.counts = memoryview(memory).cast("I")

    def sum(self, column: int) -> int:
        """Return what all shares together count in a column."""
        assert self.counts is not None
        return sum(self.counts[column :: self._width].tolist())

    def share(self, index: int) -> Share:
        """Return the share of one loop."""
        return Share(self, index * self._width)

    def clear(self, index: int) -> None:
        """Forget a share whose worker has died."""
        if self.counts is not None:
            start = index * self._width
            self.counts[start : start + self._width] = memoryview(bytes(4 * self._width)).cast("I")


class Share:
    """One loop's part of the counts."""

    __slots__ = ("_limits", "_start")

    def __init__(self, limits: Limits, start: int) -> None:
        self._limits = limits
        self._start = start

    def is_full(self) -> bool:
        """Return whether the total is reached."""
        limits = self._limits
        return bool(limits.total) and limits.sum(0) >= limits.total

    def enter(self, address: bytes) -> bool:
        """Count a connection; return False, and do not, when its address has too many."""
        limits = self._limits
        counts = limits.counts
        if counts is None:
            return True
        if limits.per_address:
            column = 1 + hash(address) % BUCKETS
            if limits.sum(column) >= limits.per_address:
                return False
            counts[self._start + column] += 1
        counts[self._start] += 1
        return True

    def leave(self, address: bytes) -> None:
        """Count a connection that has ended."""
        limits = self._limits
        counts = limits.counts
        if counts is None:
            return
        if limits.per_address:
            counts[self._start + 1 + hash(address) % BUCKETS] -= 1
        counts[self._start] -= 1


def raise_descriptor_limit() -> int:
    """Allow this process as many descriptors as it may have and return how many that are."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (OSError, ValueError):
            pass  # macOS has a lower limit of its own
    return soft if soft != resource.RLIM_INFINITY else wanted
