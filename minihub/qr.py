"""QR codes: as a path for a page's own picture, and as lines for a terminal.

Rules of this file: it knows modules, dark and light, and no page. A quiet zone of four modules is
part of every code, as the standard asks.

Threads: any.
Sources: ISO/IEC 18004, which segno implements.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Light modules around the code.
QUIET = 4
#: What a terminal shows for the module above and the one below: dark is the terminal's ground.
_HALVES = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}
_ON_WHITE = "\x1b[38;5;231;48;5;16m"
_PLAIN = "\x1b[0m"


@dataclass(frozen=True)
class Picture:
    """A code for an SVG: the side of its square in modules, and the path of the dark ones."""

    size: int
    path: str


def _modules(text: str) -> list[list[bool]]:
    """Return the rows of a code with its quiet zone; True is dark."""
    import segno  # 2 MiB that a hub without codes does not need

    code = segno.make_qr(text, error="m")
    return [[bool(dark) for dark in row] for row in code.matrix_iter(border=QUIET)]


def picture(text: str) -> Picture:
    """Return a code for an SVG."""
    rows = _modules(text)
    steps = []
    for y, row in enumerate(rows):
        x = 0
        while x < len(row):
            end = x
            while end < len(row) and row[end]:
                end += 1
            if end > x:
                steps.append(f"M{x} {y}h{end - x}v1h-{end - x}z")
            x = max(end, x + 1)
    return Picture(len(rows), "".join(steps))


def terminal(text: str, *, colours: bool) -> list[str]:
    """Return the lines of a code, two modules to a line's height.

    With ``colours`` it is white on black whatever the terminal's own are; without, light
    modules are drawn and dark ones left, which suits a dark terminal.
    """
    rows = _modules(text)
    if len(rows) % 2:
        rows.append([False] * len(rows[0]))
    lines = []
    for above, below in zip(rows[::2], rows[1::2], strict=True):
        halves = zip(above, below, strict=True)
        line = "".join(_HALVES[(not one, not other)] for one, other in halves)
        lines.append(f"{_ON_WHITE}{line}{_PLAIN}" if colours else line)
    return lines
