"""What the hub counts and times: sent to statsd as it happens, kept in memory for Prometheus.

Rules of this file: names, labels and buckets are JupyterHub's. Counting costs a dictionary look-up:
the packages ``statsd`` and ``prometheus_client`` are imported when a host is configured, or a first
scrape comes, and not before. Nothing here waits for the network, and nothing counted can fail the
work it belongs to. Durations are seconds; statsd gets milliseconds.

Threads: any. The numbers are guarded by one leaf lock. One thread finds statsd's address, one
measures the program's own delays once somebody scrapes.
Sources: JupyterHub 0.8's statsd calls; JupyterHub 6's Prometheus metrics; statsd's datagrams.
"""

from __future__ import annotations

import bisect
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from minihub import clock
from minihub.errors import ConfigError

log = logging.getLogger("minihub.metrics")

PREFIX_VARIABLE = "JUPYTERHUB_METRICS_PREFIX"
#: Environment variables that replace the buckets of a histogram: bounds in seconds, by commas.
BUCKET_VARIABLES = {
    "JUPYTERHUB_SERVER_SPAWN_DURATION_SECONDS_BUCKETS": "server_spawn_duration_seconds",
    "JUPYTERHUB_SERVER_STOP_DURATION_SECONDS_BUCKETS": "server_stop_seconds",
}

_USUAL = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
_SPAWN = (0.5, 1, 2.5, 5, 10, 15, 30, 60, 120, 180, 300, 600)
_INTERVAL = (0.05, 0.055, 0.06, 0.065, 0.07, *_USUAL[4:])
#: How often the program's own delays are measured.
INTERVAL_S = 0.05
#: A label's value is cut to this.
_LONGEST_LABEL = 100


@dataclass
class Histogram:
    """One histogram: per combination of labels the counts of its buckets, and a sum."""

    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = _USUAL
    #: Combinations that are shown before anything has happened.
    known: tuple[tuple[str, ...], ...] = ((),)
    rows: dict[tuple[str, ...], list[Any]] = field(default_factory=dict)

    def clear(self) -> None:
        """Forget everything that was observed."""
        self.rows = {values: self._empty() for values in self.known}

    def _empty(self) -> list[Any]:
        return [[0] * (len(self.bounds) + 1), 0.0]

    def observe(self, values: tuple[str, ...], seconds: float) -> None:
        """Count one duration."""
        row = self.rows.get(values)
        if row is None:
            row = self.rows[values] = self._empty()
        row[0][bisect.bisect_left(self.bounds, seconds)] += 1
        row[1] += seconds

    def cumulative(self, values: tuple[str, ...]) -> tuple[list[tuple[str, int]], float]:
        """Return ``([(upper bound, count up to it)], sum)``, the last bound being ``+Inf``."""
        counts, total = self.rows[values]
        found, so_far = [], 0
        for bound, count in zip((*self.bounds, float("inf")), counts, strict=True):
            so_far += count
            found.append(("+Inf" if bound == float("inf") else repr(float(bound)), so_far))
        return found, total


def _by_status(help: str, *statuses: str, bounds: tuple[float, ...] = _USUAL) -> Histogram:
    return Histogram(help, ("status",), bounds, tuple((status,) for status in statuses))


HISTOGRAMS: dict[str, Histogram] = {
    "request_duration_seconds": Histogram(
        "Request duration for all HTTP requests", ("method", "handler", "code"), known=()
    ),
    "server_spawn_duration_seconds": Histogram(
        "Time taken for server spawning operation",
        ("status", "reason"),
        _SPAWN,
        (
            ("success", ""),
            ("failure", ""),
            ("error", ""),
            ("failure", "throttled"),
            ("failure", "too-many-users"),
            ("failure", "already-pending"),
        ),
    ),
    "check_routes_duration_seconds": Histogram("Time taken to validate all routes in proxy"),
    "hub_startup_duration_seconds": Histogram("Time taken for Hub to start"),
    "init_spawners_duration_seconds": Histogram("Time taken for spawners to initialize"),
    "proxy_poll_duration_seconds": Histogram("Duration for polling all routes from proxy"),
    "proxy_add_duration_seconds": _by_status(
        "Duration for adding user routes to proxy", "success", "failure"
    ),
    "proxy_delete_duration_seconds": _by_status(
        "Duration for deleting user routes from proxy", "success", "failure"
    ),
    "server_poll_duration_seconds": _by_status(
        "Time taken to poll if server is running", "running", "stopped"
    ),
    "server_stop_seconds": _by_status(
        "Time taken for server stopping operation", "success", "failure"
    ),
    "event_loop_interval_seconds": Histogram(
        "Distribution of measured event loop intervals: how late a thread of the hub wakes that"
        " asked for 0.05 s, from the first scrape on",
        bounds=_INTERVAL,
    ),
    "login_duration_seconds": Histogram(
        "duration for all authentication attempts", ("status",), known=(("success",), ("failure",))
    ),
    "logout_duration_seconds": Histogram("duration for all logout requests"),
}

COUNTERS = {"csp_reports": "content security policy violation reports"}

GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "running_servers": ("The number of user servers currently running", ()),
    "total_users": ("Total number of users", ()),
    "active_users": ("Number of users who were active in the given time period", ("period",)),
}

_lock = threading.Lock()
_counts: dict[str, int] = {}
#: The statsd client; None while there is none, or its address is not known yet.
_statsd: Any = None
#: Set once statsd's address is known, or known not to be found.
_found = threading.Event()
_stopping = threading.Event()
_interval_thread: threading.Thread | None = None


def setup(
    *,
    statsd_host: str = "",
    statsd_port: int = 8125,
    statsd_prefix: str = "",
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Begin to count from nothing, and to send to statsd if there is a host.

    The address is looked up once, beside the start; until it is known nothing is sent, and a host
    that is not found is a warning. Raises ConfigError for buckets that are no numbers.
    """
    close()
    _stopping.clear()
    _found.clear()
    for variable, name in BUCKET_VARIABLES.items():
        text = environ.get(variable, "").strip()
        if text:
            HISTOGRAMS[name].bounds = _read_bounds(variable, text)
    with _lock:
        for histogram in HISTOGRAMS.values():
            histogram.clear()
        _counts.update(dict.fromkeys(COUNTERS, 0))
    if statsd_host:
        threading.Thread(
            target=_find_statsd,
            args=(statsd_host, statsd_port, statsd_prefix),
            name="metrics-statsd",
            daemon=True,
        ).start()


def close() -> None:
    """Send and measure nothing any more."""
    global _statsd, _interval_thread
    _stopping.set()
    thread, _interval_thread = _interval_thread, None
    if thread is not None:
        thread.join(5)
    client, _statsd = _statsd, None
    if client is not None:
        client.close()


def _read_bounds(variable: str, text: str) -> tuple[float, ...]:
    try:
        bounds = tuple(float(part) for part in text.split(","))
    except ValueError:
        bounds = ()
    if not bounds or list(bounds) != sorted(set(bounds)):
        raise ConfigError(
            f"environment {variable}: {text!r} is not right; expected rising numbers of seconds,"
            " separated by commas"
        )
    return tuple(bound for bound in bounds if bound != float("inf"))


# -- statsd --------------------------------------------------------------------------------


def _find_statsd(host: str, port: int, prefix: str) -> None:
    global _statsd
    import statsd

    try:
        client = _quiet_client(statsd, host, port, prefix)
    except (OSError, UnicodeError) as error:
        log.warning(
            "JupyterHub.statsd_host: %s cannot be found, nothing is sent there: %s", host, error
        )
        _found.set()
        return
    if _stopping.is_set():
        client.close()
    else:
        _statsd = client
    _found.set()


def statsd_address(timeout_s: float) -> str:
    """Return the address statsd was found at, waiting for it that long at most; "" without one."""
    _found.wait(timeout_s)
    client = _statsd
    return client._addr[0] if client is not None else ""


def _quiet_client(statsd: Any, host: str, port: int, prefix: str) -> Any:
    """Return a client whose sending never waits; an address of either family will do."""
    try:
        client = statsd.StatsClient(host, port, prefix or None)
    except OSError:
        client = statsd.StatsClient(host, port, prefix or None, ipv6=True)
    client._sock.setblocking(False)
    return client


def count(name: str) -> None:
    """Count one event for statsd."""
    client = _statsd
    if client is not None:
        client.incr(name)


def timing(name: str, seconds: float) -> None:
    """Send a duration to statsd."""
    client = _statsd
    if client is not None:
        client.timing(name, seconds * 1000)


def gauge(name: str, value: int) -> None:
    """Send a present value to statsd."""
    client = _statsd
    if client is not None:
        client.gauge(name, value)


# -- Prometheus ----------------------------------------------------------------------------


def observe(name: str, seconds: float, **labels: object) -> None:
    """Count a duration in a histogram; ``labels`` are exactly those it has."""
    histogram = HISTOGRAMS[name]
    values = tuple(str(labels[label])[:_LONGEST_LABEL] for label in histogram.labels)
    with _lock:
        histogram.observe(values, seconds)


def increment(name: str) -> None:
    """Count one event for Prometheus."""
    with _lock:
        _counts[name] = _counts.get(name, 0) + 1


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Count how long the block takes; by ``status`` success or failure where there is that label.

    A block that raises counts only where there is.
    """
    began = clock.monotonic()
    has_status = HISTOGRAMS[name].labels == ("status",)
    try:
        yield
    except BaseException:
        if has_status:
            observe(name, clock.monotonic() - began, status="failure")
        raise
    labels = {"status": "success"} if has_status else {}
    observe(name, clock.monotonic() - began, **labels)


@contextmanager
def login() -> Iterator[None]:
    """Count a login by whether the block raises."""
    began = clock.monotonic()
    status = "failure"
    try:
        yield
        status = "success"
    finally:
        took = clock.monotonic() - began
        observe("login_duration_seconds", took, status=status)
        timing(f"login.authenticate.{status}", took)
        count(f"login.{status}")


def spawned(seconds: float) -> None:
    """Count a server that is ready, so long after it was asked for."""
    observe("server_spawn_duration_seconds", seconds, status="success", reason="")
    timing("spawner.success", seconds)


def not_spawned(seconds: float, reason: str, *, waited: bool, refused: bool) -> None:
    """Count a start that failed for ``reason``, ``timeout`` or ``error``.

    ``waited``: its process had been started, and it was the answer that did not come; ``refused``:
    nothing broke, it was not allowed.
    """
    status = "failure" if refused else "error"
    observe("server_spawn_duration_seconds", seconds, status=status, reason=reason)
    count(f"spawner.failure.{'http_' if waited else ''}{reason}")
    timing("spawner.failure", seconds)


def stopped(seconds: float, *, failed: bool) -> None:
    """Count the stop of a server."""
    status = "failure" if failed else "success"
    observe("server_stop_seconds", seconds, status=status)
    timing("spawner.stop", seconds)


def exposition(gauges: Callable[[], Mapping[tuple[str, ...], int]]) -> tuple[bytes, str]:
    """Return everything in Prometheus's text format, and its content type.

    ``gauges`` returns present values by ``(name, *label values)``. Imports ``prometheus_client``,
    and begins to measure delays, when it is first called.
    """
    import prometheus_client
    from prometheus_client import core

    _measure_interval()
    prefix = os.environ.get(PREFIX_VARIABLE, "jupyterhub")
    prefix = f"{prefix}_" if prefix else ""

    class Collector:
        def collect(self) -> Iterator[Any]:
            for name, (help, labels) in GAUGES.items():
                family = core.GaugeMetricFamily(prefix + name, help, labels=labels)
                for key, value in values.items():
                    if key[0] == name:
                        family.add_metric(key[1:], value)
                yield family
            with _lock:
                counts, rows = dict(_counts), _rows_locked()
            for name, help in COUNTERS.items():
                yield core.CounterMetricFamily(prefix + name, help, value=counts.get(name, 0))
            for name, histogram in HISTOGRAMS.items():
                family = core.HistogramMetricFamily(
                    prefix + name, histogram.help, labels=histogram.labels
                )
                for labels, buckets, total in rows[name]:
                    family.add_metric(labels, buckets=buckets, sum_value=total)
                yield family

    values = gauges()
    registry = prometheus_client.CollectorRegistry(auto_describe=False)
    for collector in (
        prometheus_client.GCCollector,
        prometheus_client.PlatformCollector,
        prometheus_client.ProcessCollector,
    ):
        collector(registry=registry)
    registry.register(Collector())
    return prometheus_client.generate_latest(registry), prometheus_client.CONTENT_TYPE_LATEST


def _rows_locked() -> dict[str, list[tuple[Any, ...]]]:
    """Return ``(labels, buckets, sum)`` of every row of every histogram."""
    return {
        name: [(labels, *histogram.cumulative(labels)) for labels in histogram.rows]
        for name, histogram in HISTOGRAMS.items()
    }


def _measure_interval() -> None:
    global _interval_thread
    with _lock:
        if _interval_thread is not None or _stopping.is_set():
            return
        _interval_thread = threading.Thread(
            target=_run_interval, name="metrics-interval", daemon=True
        )
    _interval_thread.start()


def _run_interval() -> None:
    last = clock.monotonic()
    while not _stopping.wait(INTERVAL_S):
        now = clock.monotonic()
        # What is shorter than two steps cannot be told from the step itself.
        delay = now - last - INTERVAL_S
        observe("event_loop_interval_seconds", delay if delay >= INTERVAL_S else INTERVAL_S)
        last = now


for _histogram in HISTOGRAMS.values():
    _histogram.clear()
