"""What the pages use besides the hub itself, built once at the start.

Rules of this file: a list of parts and nothing else.

Threads: filled once, read by all.
"""

from __future__ import annotations

from dataclasses import dataclass

from .announcements import Announcements
from .caretaker import Caretaker
from .gauges import Gauges
from .hubculler import Culler


@dataclass(frozen=True)
class Parts:
    """``culler`` is None where nothing is culled."""

    gauges: Gauges
    culler: Culler | None
    caretaker: Caretaker
    announcements: Announcements
