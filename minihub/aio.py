"""Plain functions and coroutines, side by side in a synchronous program.

Configured classes and hooks (authenticators, spawners) may be written either way. The hub calls
all of them with :func:`call`; methods of ours that a subclass may want to await wear
:func:`either`.

Rules of this file: asyncio is imported when the first coroutine arrives, not before: most hubs
never need it. All coroutines share one event loop on one daemon thread, so that objects they
keep (locks, sessions) stay usable from call to call.

Threads: any thread but the loop's own may call; it waits for the result. The module lock guards
the creation and the closing of the loop only.
"""

from __future__ import annotations

import functools
import inspect
import logging
import threading
from collections.abc import Awaitable, Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from . import clock

if TYPE_CHECKING:
    import asyncio

    F = TypeVar("F", bound=Callable[..., Any])

log = logging.getLogger("minihub.aio")

#: How often somebody who waits is asked whether the result is still wanted.
STEP_S = 0.25
#: How long :func:`close` waits for cancelled coroutines and for its thread.
CLOSE_TIMEOUT_S = 5.0

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None


def call(
    fn: Callable[..., Any],
    *args: Any,
    timeout_s: float | None = None,
    late: Callable[[], Any] | None = None,
    still_wanted: Callable[[], Any] | None = None,
    **kwargs: Any,
) -> Any:
    """Return what ``fn(*args, **kwargs)`` returns, or what it comes to when awaited.

    ``timeout_s`` (seconds, None for no limit) bounds the waiting. A coroutine runs on the loop's
    thread. A plain function runs in the caller's thread or, when it is not ours and there is a
    limit, in a thread of its own: it cannot be interrupted, but nobody waits for it any longer.
    ``still_wanted`` is called several times a second meanwhile and raises to give up. ``late`` is
    called when such a function, or a coroutine that nothing can cancel, returns after all.

    Raises TimeoutError when the time is over; the coroutine is cancelled then. Raises RuntimeError
    when called with an awaitable on the loop's own thread, which would wait for itself, and when
    :func:`close` cancels the coroutine. Everything else that the function raises comes out as
    it is.
    """
    if getattr(fn, "__tornado_coroutine__", False):
        # tornado's own decorator makes futures, and wants the loop it is called in for that.
        return _wait_for(_called_inside(fn, args, kwargs), timeout_s, late, still_wanted)
    if timeout_s is not None and not _is_ours(fn) and threading.current_thread() is not _thread:
        began = clock.monotonic()
        result = _Bounded(fn, args, kwargs).result(timeout_s, late, still_wanted)
        timeout_s = max(0.001, timeout_s - (clock.monotonic() - began))
    else:
        result = fn(*args, **kwargs)
    if not inspect.isawaitable(result):
        return result
    return _wait_for(result, timeout_s, late, still_wanted)


def _patiently(
    wait: Callable[[float | None], Any],
    timeout_s: float | None,
    still_wanted: Callable[[], Any] | None,
) -> bool:
    """Wait, in steps where somebody may give up; return whether what was waited for came.

    ``wait`` waits so many seconds and returns what it waits for, or something false.
    """
    if still_wanted is None:
        return bool(wait(timeout_s))
    deadline = None if timeout_s is None else clock.monotonic() + timeout_s
    while True:
        left = STEP_S if deadline is None else deadline - clock.monotonic()
        if wait(max(0.0, min(left, STEP_S))):
            return True
        if left <= 0:
            return False
        still_wanted()


def _is_ours(fn: Callable[..., Any]) -> bool:
    """Return whether a function, a method or a callable object is minihub's own.

    A method of ours that somebody else's class has inherited is not: it calls what that class has
    overridden. Coroutine functions need no thread either: what they return is awaited.
    """
    while isinstance(fn, functools.partial):
        fn = fn.func
    if inspect.iscoroutinefunction(fn):
        return True
    owner = getattr(fn, "__self__", None)
    if owner is not None and not _is_of_minihub(owner if isinstance(owner, type) else type(owner)):
        return False
    return _is_of_minihub(getattr(fn, "__func__", fn))


def _is_of_minihub(thing: Any) -> bool:
    module = getattr(thing, "__module__", None) or type(thing).__module__
    return module.partition(".")[0] == "minihub"


class _Bounded:
    """A call in a daemon thread of its own."""

    def __init__(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self._work = functools.partial(fn, *args, **kwargs)
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._value: Any = None
        self._error: BaseException | None = None
        self._late: Callable[[], Any] | None = None
        name = getattr(fn, "__name__", type(fn).__name__)
        threading.Thread(target=self._run, name=f"call-{name}", daemon=True).start()

    def _run(self) -> None:
        try:
            self._value = self._work()
        except BaseException as error:  # it is the caller's to handle
            self._error = error
        with self._lock:
            self._done.set()
            late = self._late
        _run_late(late)

    def result(
        self,
        timeout_s: float,
        late: Callable[[], Any] | None,
        still_wanted: Callable[[], Any] | None,
    ) -> Any:
        """Return or raise what the function does. Raises TimeoutError."""
        try:
            _patiently(self._done.wait, timeout_s, still_wanted)
        finally:
            with self._lock:
                is_done = self._done.is_set()
                if not is_done:
                    self._late = late
        if not is_done:
            raise TimeoutError(f"no result within {timeout_s:g} s")
        if self._error is not None:
            raise self._error
        return self._value


def _run_late(late: Callable[[], Any] | None) -> None:
    try:
        if late is not None:
            late()
    except Exception:
        log.exception("After a call that was given up")


async def _called_inside(fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    return await fn(*args, **kwargs)


def either(fn: F) -> F:
    """Decorate a plain function so that a coroutine may also ``await`` it.

    Called on the event loop's thread, it returns an awaitable whose work is done in another thread,
    so that a slow function does not hold up the loop; anywhere else it simply runs. A subclass
    may thus say ``await super().authenticate(…)`` in an ``async def`` and
    ``super().authenticate(…)`` in a plain method.
    """

    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if threading.current_thread() is not _thread:
            return fn(*args, **kwargs)
        import asyncio

        return asyncio.to_thread(fn, *args, **kwargs)

    return wrapper  # type: ignore[return-value]


class Both:
    """What a generator yields, for ``for`` and for ``async for``: a subclass may be written
    either way."""

    def __init__(self, generator: Generator[Any, None, None]) -> None:
        self._generator = generator

    def __iter__(self) -> Iterator[Any]:
        return self._generator

    def __aiter__(self) -> Both:
        return self

    async def __anext__(self) -> Any:
        for item in self._generator:
            return item
        raise StopAsyncIteration


def close() -> None:
    """Cancel what still runs and end the loop's thread; a later :func:`call` starts a new one."""
    global _loop, _thread
    with _lock:
        loop, thread = _loop, _thread
        _loop = _thread = None
    if loop is None or thread is None:
        return
    loop.call_soon_threadsafe(loop.stop)
    thread.join(CLOSE_TIMEOUT_S)
    if thread.is_alive():
        log.warning("a coroutine did not end within %g s of its cancellation", CLOSE_TIMEOUT_S)


class _Awaited:
    """An awaitable in the loop, with what is to be done if it comes to an end after all."""

    def __init__(self, awaitable: Awaitable[Any], late: Callable[[], Any] | None) -> None:
        self._awaitable = awaitable
        self._late = late
        self._lock = threading.Lock()
        self._is_done = False
        self._was_given_up = False

    async def run(self) -> Any:
        try:
            result = await self._awaitable
        finally:
            with self._lock:
                self._is_done = True
        if self._was_given_up:  # and it was not to be cancelled
            thread = threading.Thread(target=_run_late, args=(self._late,), name="call-late")
            thread.daemon = True
            thread.start()
        return result

    def give_up(self) -> bool:
        """Return whether nobody will wait any longer: False when it has just come to its end."""
        with self._lock:
            self._was_given_up = not self._is_done
            return self._was_given_up


def _wait_for(
    awaitable: Awaitable[Any],
    timeout_s: float | None,
    late: Callable[[], Any] | None = None,
    still_wanted: Callable[[], Any] | None = None,
) -> Any:
    import asyncio
    import concurrent.futures

    awaited = _Awaited(awaitable, late)
    coroutine = awaited.run()
    with _lock:
        loop = _running_loop_locked()
        inside = threading.current_thread() is _thread
        if not inside:
            future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    if inside:
        coroutine.close()
        if inspect.iscoroutine(awaitable):
            awaitable.close()
        raise RuntimeError("call() on the event loop's own thread would wait for itself: use await")
    try:
        done = _patiently(
            lambda step_s: concurrent.futures.wait([future], step_s).done, timeout_s, still_wanted
        )
    except BaseException:
        awaited.give_up()
        future.cancel()
        raise
    if not done and awaited.give_up():
        future.cancel()
        raise TimeoutError(f"no result within {timeout_s:g} s")
    try:
        return future.result()
    except concurrent.futures.CancelledError:
        raise RuntimeError("the call was cancelled because the program stops") from None


def _running_loop_locked() -> asyncio.AbstractEventLoop:
    global _loop, _thread
    if _loop is None:
        import asyncio

        _loop = asyncio.new_event_loop()
        _thread = threading.Thread(
            target=_run_loop, args=(_loop,), name="minihub-asyncio", daemon=True
        )
        _thread.start()
    return _loop


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Serve ``loop`` until it is stopped, then cancel what is left in it and close it."""
    import asyncio

    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        asyncio.set_event_loop(None)
        loop.close()
