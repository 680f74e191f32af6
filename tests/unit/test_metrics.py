"""Counting: what statsd is sent, what Prometheus reads, and that neither costs when unused."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import pytest

from minihub import metrics
from minihub.errors import ConfigError


@pytest.fixture(autouse=True)
def _counted_from_nothing():
    metrics.setup(environ={})
    yield
    metrics.close()
    for variable, name in metrics.BUCKET_VARIABLES.items():
        fresh = metrics._SPAWN if "SPAWN" in variable else metrics._USUAL
        metrics.HISTOGRAMS[name].bounds = fresh


@pytest.fixture
def listener():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        udp.settimeout(10)
        yield udp


def ready() -> None:
    deadline = time.monotonic() + 10
    while metrics._statsd is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def page(**gauges: int) -> str:
    body, content_type = metrics.exposition(lambda: {(k,): v for k, v in gauges.items()})
    assert content_type.startswith("text/plain")
    return body.decode()


# -- statsd --------------------------------------------------------------------------------


def test_statsd_gets_counters_timers_and_gauges_below_the_prefix(listener):
    metrics.setup(
        statsd_host="127.0.0.1", statsd_port=listener.getsockname()[1], statsd_prefix="lab.hub"
    )
    ready()
    metrics.count("login.request")
    metrics.timing("spawner.stop", 0.25)
    metrics.gauge("users.running", 7)
    told = [listener.recv(1000).decode() for _ in range(3)]
    assert told == [
        "lab.hub.login.request:1|c",
        "lab.hub.spawner.stop:250.000000|ms",
        "lab.hub.users.running:7|g",
    ]


def test_statsd_without_prefix_sends_bare_names(listener):
    metrics.setup(statsd_host="127.0.0.1", statsd_port=listener.getsockname()[1])
    ready()
    metrics.count("logout")
    assert listener.recv(1000) == b"logout:1|c"


def test_statsd_address_may_be_ipv6():
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp:
        udp.bind(("::1", 0))
        udp.settimeout(10)
        metrics.setup(statsd_host="::1", statsd_port=udp.getsockname()[1])
        ready()
        metrics.count("logout")
        assert udp.recv(1000) == b"logout:1|c"


def test_unknown_statsd_host_is_one_warning_and_nothing_else(caplog):
    metrics.setup(statsd_host="no-such-host.invalid")
    deadline = time.monotonic() + 30
    while not caplog.records:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    metrics.count("login.request")
    assert "JupyterHub.statsd_host: no-such-host.invalid cannot be found" in caplog.text


def test_closed_statsd_port_costs_nothing(listener):
    port = listener.getsockname()[1]
    listener.close()
    metrics.setup(statsd_host="127.0.0.1", statsd_port=port)
    ready()
    began = time.monotonic()
    for _ in range(2000):
        metrics.count("login.request")
    assert time.monotonic() - began < 1.0


def test_unused_packages_are_not_imported():
    program = (
        "import sys; from minihub import metrics; metrics.setup(); metrics.count('x');"
        "metrics.observe('logout_duration_seconds', 1);"
        "print([name for name in ('statsd', 'prometheus_client') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


# -- Prometheus ----------------------------------------------------------------------------


def test_histogram_counts_up_to_each_bound():
    for seconds in (0.4, 0.5, 0.6, 700):
        metrics.spawned(seconds)
    text = page()
    name = "jupyterhub_server_spawn_duration_seconds"
    rows = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1])
            for line in text.splitlines() if line.startswith(name)}  # fmt: skip
    success = 'reason="",status="success"'
    assert rows[f'{name}_bucket{{le="0.5",{success}}}'] == 2
    assert rows[f'{name}_bucket{{le="1.0",{success}}}'] == 3
    assert rows[f'{name}_bucket{{le="600.0",{success}}}'] == 3
    assert rows[f'{name}_bucket{{le="+Inf",{success}}}'] == 4
    assert rows[f"{name}_count{{{success}}}"] == 4
    assert rows[f"{name}_sum{{{success}}}"] == 701.5


@pytest.mark.parametrize(
    "row",
    [
        'jupyterhub_server_spawn_duration_seconds_count{reason="throttled",status="failure"} 0.0',
        'jupyterhub_server_spawn_duration_seconds_count{reason="",status="error"} 0.0',
        'jupyterhub_server_poll_duration_seconds_count{status="stopped"} 0.0',
        'jupyterhub_server_stop_seconds_count{status="failure"} 0.0',
        'jupyterhub_proxy_add_duration_seconds_count{status="success"} 0.0',
        'jupyterhub_proxy_delete_duration_seconds_count{status="failure"} 0.0',
        'jupyterhub_login_duration_seconds_count{status="failure"} 0.0',
        "jupyterhub_logout_duration_seconds_count 0.0",
        "jupyterhub_check_routes_duration_seconds_count 0.0",
        "jupyterhub_hub_startup_duration_seconds_count 0.0",
        "jupyterhub_init_spawners_duration_seconds_count 0.0",
        "jupyterhub_proxy_poll_duration_seconds_count 0.0",
        "jupyterhub_csp_reports_total 0.0",
        "jupyterhub_running_servers 3.0",
    ],
)
def test_rows_are_there_before_anything_happened(row):
    assert row in page(running_servers=3).splitlines()


def test_default_collectors_are_there():
    text = page()
    assert "python_info{" in text and "process_resident_memory_bytes" in text


def test_prefix_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("JUPYTERHUB_METRICS_PREFIX", "lab")
    assert "lab_logout_duration_seconds_count" in page()


def test_buckets_come_from_the_environment():
    metrics.setup(environ={"JUPYTERHUB_SERVER_SPAWN_DURATION_SECONDS_BUCKETS": "1,2, 3,inf"})
    metrics.spawned(2.5)
    text = page()
    bounds = [
        line for line in text.splitlines() if "spawn_duration_seconds_bucket" in line
        and 'reason="",status="success"' in line
    ]  # fmt: skip
    assert [line.split('le="')[1].split('"')[0] for line in bounds] == ["1.0", "2.0", "3.0", "+Inf"]


@pytest.mark.parametrize("text", ["1,x", "2,1", "1,1", ","])
def test_wrong_buckets_are_refused_by_name(text):
    name = "JUPYTERHUB_SERVER_STOP_DURATION_SECONDS_BUCKETS"
    with pytest.raises(ConfigError, match=name):
        metrics.setup(environ={name: text})


def test_timed_counts_failures_where_there_is_a_status():
    with pytest.raises(KeyError), metrics.timed("proxy_add_duration_seconds"):
        raise KeyError
    with pytest.raises(KeyError), metrics.timed("check_routes_duration_seconds"):
        raise KeyError
    with metrics.timed("check_routes_duration_seconds"):
        pass
    text = page()
    assert 'jupyterhub_proxy_add_duration_seconds_count{status="failure"} 1.0' in text
    assert "jupyterhub_check_routes_duration_seconds_count 1.0" in text


def test_failed_starts_are_told_apart():
    metrics.not_spawned(1, "timeout", waited=True, refused=False)
    metrics.not_spawned(1, "error", waited=False, refused=True)
    text = page()
    name = "jupyterhub_server_spawn_duration_seconds_count"
    assert f'{name}{{reason="timeout",status="error"}} 1.0' in text
    assert f'{name}{{reason="error",status="failure"}} 1.0' in text


def test_delays_are_measured_from_the_first_scrape_on():
    page()
    deadline = time.monotonic() + 10
    while "jupyterhub_event_loop_interval_seconds_count 0.0" in page():
        assert time.monotonic() < deadline
        time.sleep(0.02)
