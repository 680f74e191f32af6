"""Plain functions and coroutines are called in one way."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
import threading
import time

import pytest

from minihub import aio


@pytest.fixture(autouse=True)
def closed_loop():
    """End the loop after each test, so that none leaks into the next."""
    yield
    aio.close()
    assert "minihub-asyncio" not in {thread.name for thread in threading.enumerate()}


async def name_of_thread() -> str:
    await asyncio.sleep(0)
    return threading.current_thread().name


def test_plain_function_runs_in_the_callers_thread_without_asyncio():
    """A hub without coroutines never pays for asyncio."""
    code = "import sys; from minihub import aio; assert aio.call(max, 1, 2) == 2; "
    code += "aio.close(); assert 'asyncio' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert aio.call(threading.current_thread) is threading.current_thread()


def test_coroutine_function_result_is_returned():
    async def add(one, *, two):
        await asyncio.sleep(0)
        return one + two

    assert aio.call(add, 1, two=2) == 3


def test_plain_function_returning_an_awaitable_is_awaited():
    class Later:
        def __await__(self):
            yield from asyncio.sleep(0).__await__()
            return "came"

    assert aio.call(Later) == "came"
    assert aio.call(lambda: name_of_thread()) == "minihub-asyncio"


def test_all_coroutines_share_one_loop_from_any_thread():
    loops = []

    async def remember():
        loops.append(asyncio.get_running_loop())

    threads = [threading.Thread(target=aio.call, args=(remember,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loops) == 8 and len(set(loops)) == 1


def test_exceptions_come_out_as_they_are():
    async def fail():
        raise KeyError("who")

    def fail_plainly():
        raise LookupError("where")

    with pytest.raises(KeyError, match="who"):
        aio.call(fail)
    with pytest.raises(LookupError, match="where"):
        aio.call(fail_plainly)


def test_timeout_cancels_the_coroutine():
    ended = threading.Event()

    async def forever():
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    with pytest.raises(TimeoutError, match="0.05 s"):
        aio.call(forever, timeout_s=0.05)
    assert ended.wait(5)


def test_call_on_the_loops_own_thread_is_refused_instead_of_hanging():
    async def outer():
        return aio.call(name_of_thread)

    with pytest.raises(RuntimeError, match="use await"):
        aio.call(outer, timeout_s=5)


def test_close_cancels_what_runs_and_a_later_call_starts_anew():
    started = threading.Event()
    seen = []

    async def forever():
        started.set()
        await asyncio.sleep(3600)

    def caller():
        try:
            aio.call(forever)
        except RuntimeError as error:
            seen.append(str(error))

    thread = threading.Thread(target=caller)
    thread.start()
    assert started.wait(5)
    aio.close()
    thread.join(5)
    assert seen == ["the call was cancelled because the program stops"]
    assert aio.call(name_of_thread) == "minihub-asyncio"


def test_close_warns_of_a_coroutine_that_will_not_end(caplog, monkeypatch):
    monkeypatch.setattr(aio, "CLOSE_TIMEOUT_S", 0.05)
    release = threading.Event()
    inside = threading.Event()

    async def stubborn():
        inside.set()
        release.wait(5)

    caller = threading.Thread(target=aio.call, args=(stubborn,))
    caller.start()
    assert inside.wait(5)
    loop_thread = next(t for t in threading.enumerate() if t.name == "minihub-asyncio")
    aio.close()
    assert "did not end" in caplog.text
    release.set()
    caller.join(5)
    loop_thread.join(5)


class Base:
    @aio.either
    def work(self, value):
        """Double a value, slowly."""
        time.sleep(0.01)
        return value * 2, threading.current_thread().name


def test_either_runs_plainly_outside_the_loop():
    assert Base().work(2) == (4, threading.current_thread().name)
    assert Base.work.__doc__ == "Double a value, slowly."


def test_either_can_be_awaited_and_does_not_hold_up_the_loop():
    class Custom(Base):
        async def work(self, value):
            return await super().work(value)

    doubled, thread = aio.call(Custom().work, 3)
    assert doubled == 6
    assert thread not in ("minihub-asyncio", threading.current_thread().name)


def test_plain_function_of_others_is_given_up_and_what_comes_late_is_told():
    release, late = threading.Event(), threading.Event()

    def theirs():
        return release.wait(30)

    with pytest.raises(TimeoutError, match="no result within 0.05 s"):
        aio.call(theirs, timeout_s=0.05, late=late.set)
    assert not late.is_set()
    release.set()
    assert late.wait(5)


def test_plain_function_of_others_in_time_gives_its_result_or_error():
    def theirs(one, *, two):
        if two == 0:
            raise KeyError("two")
        return one / two

    assert aio.call(theirs, 4, two=2, timeout_s=5) == 2
    with pytest.raises(KeyError):
        aio.call(theirs, 4, two=0, timeout_s=5)


def test_function_of_ours_stays_in_the_callers_thread_with_a_limit_too():
    assert aio._is_ours(aio.close) and not aio._is_ours(test_log_of_names)


def test_inherited_method_is_not_ours_for_it_calls_what_was_overridden():
    class Theirs(NoLonger):
        method = aio._Bounded.result

    assert aio._is_ours(aio._Bounded.result)
    assert not aio._is_ours(Theirs().method)
    assert not aio._is_ours(functools.partial(Theirs().method, 1))


def test_log_of_names():
    assert aio.log.name == "minihub.aio"


class NoLonger(Exception):
    """Raised by whoever does not want a result any more."""


@pytest.mark.parametrize("kind", ["plain", "coroutine", "coroutine that nothing cancels"])
def test_call_that_is_not_wanted_any_more_is_given_up(kind):
    release, late, began = threading.Event(), threading.Event(), threading.Event()

    def plain():
        began.set()
        return release.wait(30)

    async def coroutine():
        began.set()
        while not release.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                if kind == "coroutine":
                    raise

    def still_wanted():
        if began.is_set():
            raise NoLonger

    with pytest.raises(NoLonger):
        aio.call(
            plain if kind == "plain" else coroutine,
            timeout_s=60,
            late=late.set,
            still_wanted=still_wanted,
        )
    assert not late.is_set()
    release.set()
    if kind == "coroutine":  # it has ended: nothing comes any more
        assert not late.wait(0.3)
    else:
        assert late.wait(5)


def test_call_that_stays_wanted_gives_its_result():
    asked = []
    slow = lambda: time.sleep(0.6) or 7  # noqa: E731
    assert aio.call(slow, timeout_s=30, still_wanted=lambda: asked.append(1)) == 7
    assert len(asked) >= 1
