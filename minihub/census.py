"""How many users and servers there are at this moment, for those who draw graphs of it.

Rules of this file: it counts and tells; it changes nothing.

Threads: any.
Sources: JupyterHub 0.8's statsd gauges, JupyterHub 6's Prometheus gauges.
"""

from __future__ import annotations

from collections.abc import Iterable

from . import clock, metrics
from .activity import Activity
from .models import User
from .server import Server
from .store import Store

#: The periods of the gauge ``active_users``, in hours.
PERIODS_H = {"24h": 24, "7d": 7 * 24, "30d": 30 * 24}


def send(servers: Iterable[Server], activity: Activity, window_s: float) -> None:
    """Send statsd's gauges: users with a running server, and how many of them are active.

    ``servers`` are the active ones; active is who was so in the last ``window_s`` seconds.
    """
    running = {server.user_id for server in servers if server.ready}
    since = clock.isoformat(clock.after(-window_s))
    metrics.gauge("users.running", len(running))
    metrics.gauge("users.active", sum((activity.of_user(one) or "") >= since for one in running))


def gauges(servers: Iterable[Server], store: Store) -> dict[tuple[str, ...], int]:
    """Return Prometheus's gauges by name and label."""
    found: dict[tuple[str, ...], int] = {
        ("running_servers",): sum(server.ready for server in servers)
    }
    with store.session():
        found["total_users",] = User.select().count()
        for period, hours in PERIODS_H.items():
            since = clock.isoformat(clock.after(-hours * 3600))
            found["active_users", period] = User.select().where(User.last_activity >= since).count()
    return found
