"""The small parts of the proxy: limits, log, resolver, reports, addresses."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from minihub.proxy import log
from minihub.proxy.limits import Limits
from minihub.proxy.listener import peer_address
from minihub.proxy.loop import Loop, describe_error
from minihub.proxy.report import Reporter, dump_routes, load_routes, merge
from minihub.proxy.resolver import Resolver
from minihub.proxy.routes import RouteTable, Target
from minihub.proxy.signals import Signals

# -- limits --------------------------------------------------------------------------------


def test_limits_are_sums_over_all_shares() -> None:
    limits = Limits(total=3, per_address=2, shares=2)
    one, two = limits.share(0), limits.share(1)
    assert one.enter(b"a") and two.enter(b"a")
    assert not one.enter(b"a") and not one.is_full()
    assert two.enter(b"b")
    assert one.is_full() and two.is_full()
    one.leave(b"a")
    assert not two.is_full() and two.enter(b"a")
    limits.clear(1)
    assert one.enter(b"a") and one.enter(b"a") and not one.enter(b"a")


def test_without_limits_nothing_is_counted() -> None:
    share = Limits(0, 0, 1).share(0)
    assert all(share.enter(b"a") for _ in range(1000)) and not share.is_full()
    share.leave(b"a")


def test_counts_are_shared_with_a_fork() -> None:
    limits = Limits(total=5, per_address=0, shares=2)
    pid = os.fork()
    if not pid:
        limits.share(1).enter(b"a")
        os._exit(0)
    os.waitpid(pid, 0)
    assert limits.sum(0) == 1


# -- the log -------------------------------------------------------------------------------


@pytest.fixture
def output(capfd: pytest.CaptureFixture[str]) -> pytest.CaptureFixture[str]:
    yield capfd
    log.set_level("info")
    log._alike.clear()


def test_lines_look_like_the_references(output: pytest.CaptureFixture[str]) -> None:
    log.warn("text")
    assert output.readouterr().out[12:] == " [ConfigProxy] warn: text\n"


def test_level_hides_what_is_below(output: pytest.CaptureFixture[str]) -> None:
    log.set_level("error")
    log.warn("hidden")
    log.error("shown")
    assert output.readouterr().out.count("\n") == 1


def test_line_stays_one_line(output: pytest.CaptureFixture[str]) -> None:
    log.info("a\r\nb\x1b[31m\u2028ä")
    assert output.readouterr().out.endswith("info: a\\r\\nb\\x1b[31m\\u2028ä\n")


def test_floods_are_counted(output: pytest.CaptureFixture[str]) -> None:
    for _ in range(log.MAX_ALIKE + 30):
        log.repeated("kind", "same")
    assert output.readouterr().out.count("same") == log.MAX_ALIKE
    log._alike["kind"][0] -= 1
    log.repeated("kind", "later")
    assert "30 similar lines suppressed (kind)" in output.readouterr().out


# -- names ---------------------------------------------------------------------------------


def resolve(text: str) -> tuple[list[tuple[int, object]], str]:
    loop, resolver = Loop("test"), Resolver()
    found: list[tuple[list[tuple[int, object]], str]] = []

    def done(addresses: list[tuple[int, object]], reason: str) -> None:
        found.append((addresses, reason))
        loop.stop()

    loop.call(lambda: resolver.resolve(loop, Target(text), done))
    loop.run()
    resolver.stop()
    for thread in resolver._threads:
        thread.join(5)
    return found[0]


def test_written_addresses_are_used_as_they_are() -> None:
    assert resolve("http://1.2.3.4:5") == ([(socket.AF_INET, ("1.2.3.4", 5))], "")
    assert resolve("http://[::1]:5") == ([(socket.AF_INET6, ("::1", 5))], "")
    assert resolve("http+unix://%2Fa") == ([(socket.AF_UNIX, "/a")], "")


def test_names_are_looked_up_in_a_thread() -> None:
    addresses, reason = resolve("http://localhost:5")
    assert ("127.0.0.1", 5) in [address for _, address in addresses] and not reason
    assert resolve("http://no-such-host.invalid") == ([], "host name not found")


def test_peer_addresses_are_shown_as_people_know_them() -> None:
    assert peer_address("::ffff:1.2.3.4") == b"1.2.3.4"
    assert peer_address("fe80::1%eth0") == b"fe80::1"
    assert peer_address("::1") == b"::1"


def test_errors_read_as_words() -> None:
    assert describe_error(ConnectionRefusedError(111, "x")) == "connection refused"
    assert describe_error(OSError("plain")) == "plain"


# -- reports -------------------------------------------------------------------------------


def test_reports_tell_what_has_changed_and_merge_keeps_the_latest() -> None:
    here, there = RouteTable(), RouteTable()
    here.add_many([(path, {"target": "http://a:1", "user": "x"}) for path in (b"/a", b"/b")])
    load_routes(there, dump_routes(here.snapshot))
    copied = there.get(b"/a")
    original = here.get(b"/a")
    assert copied is not None and original is not None
    assert copied.data == {"user": "x"} and copied.active == original.active

    reporter = Reporter(there, lambda: {"clients": 1})
    assert reporter.make() == {"tally": {"clients": 1}}
    copied.active += 10
    copied.counters_of("loop-0").requests = 7
    report = reporter.make()
    assert list(report["active"]) == ["/a"]
    assert reporter.make() == {}
    for _ in range(2):
        merge(here, "worker-1", report)
    assert original.active == copied.active
    assert original.counters["worker-1"].requests == 7
    here.remove(b"/a")
    merge(here, "worker-1", report)


# -- the loop ------------------------------------------------------------------------------


def test_calls_from_other_threads_wake_the_loop() -> None:
    loop = Loop("test")
    seen = []
    thread = threading.Thread(target=loop.run)
    thread.start()
    for number in range(3):
        loop.call(lambda number=number: seen.append(number))
    loop.call(loop.stop)
    thread.join(5)
    assert seen == [0, 1, 2] and not thread.is_alive()


def test_bug_in_a_call_is_logged_and_the_loop_goes_on(
    output: pytest.CaptureFixture[str],
) -> None:
    loop = Loop("test")
    loop.call(lambda: 1 / 0)
    loop.call(loop.stop)
    loop.run()
    assert "ZeroDivisionError" in output.readouterr().out


def test_signals_arrive_as_events() -> None:
    import signal

    loop = Loop("test")
    seen: list[int] = []

    def handle(number: int) -> None:
        seen.append(number)
        loop.stop()

    before = signal.getsignal(signal.SIGUSR2)
    try:
        Signals(loop, handle, (signal.SIGUSR2,))
        os.kill(os.getpid(), signal.SIGUSR2)
        loop.run()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert seen == [signal.SIGUSR2]


def test_proxy_imports_nothing_heavy() -> None:
    """Start-up cost: typing, logging, ssl and their like are not on the way to an answer."""
    import subprocess
    import sys

    root = Path(__file__).resolve().parents[2]
    code = (
        f"import sys; sys.path.insert(0, {str(root)!r}); import minihub.proxy.server; "
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert not loaded & {
        *("typing", "logging", "ssl", "asyncio", "http.client", "email", "argparse"),
        *("subprocess", "inspect", "dataclasses", "hashlib", "traceback"),
    }
