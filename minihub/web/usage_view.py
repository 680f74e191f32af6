"""What a server uses, as pages show it: numbers in words, and the last hour as a line.

Rules of this file: facts in, plain values for templates out.

Threads: any.
"""

from __future__ import annotations

from typing import Any

from ..limits import size
from ..server import Server
from .context import Context

#: How the graph of an hour is drawn: its size in units, one minute is two of them.
SPARK_WIDTH, SPARK_HEIGHT = 120, 24


def usage_facts(ctx: Context, server: Server) -> dict[str, Any]:
    """Return what a server uses, as pages show it; empty where nobody knows."""
    reading = ctx.site.gauges.of(server)
    if reading is None or not server.active:
        return {}
    limit = getattr(server.spawner, "mem_limit", None)
    return {
        "memory": size(reading.rss_bytes),
        "memory_limit": size(limit) if limit else "",
        "memory_share": min(100, round(100 * reading.rss_bytes / limit)) if limit else None,
        "cpu": f"{100 * reading.cpus:.0f} %",
        "processes": reading.processes,
        "memory_line": _line(reading.memory, limit),
        "load_line": _line(reading.load, None),
    }


def _line(points: Any, limit: float | None) -> str:
    """Return the points of an SVG line for up to an hour of values, the newest at the right."""
    if len(points) < 2:
        return ""
    top = max(limit or 0, max(points)) or 1
    step = SPARK_WIDTH / 59
    start = SPARK_WIDTH - step * (len(points) - 1)
    return " ".join(
        f"{start + step * at:.0f},{SPARK_HEIGHT - 1 - (SPARK_HEIGHT - 2) * value / top:.1f}"
        for at, value in enumerate(points)
    )
