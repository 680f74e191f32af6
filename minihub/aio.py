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
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import asyncio

    F = TypeVar("F", bound=Callable[..., Any])

log = logging.getLogger("minihub.aio")

#: How long :func:`close` waits for cancelled coroutines and for its thread.
CLOSE_TIMEOUT_S = 5.0

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None


def call(fn: Callable[..., Any], *args: Any, timeout_s: float | None = None, **kwargs: Any) -> Any:
    """Return what ``fn(*args, **kwargs)`` returns, or what it comes to when awaited.

    A plain function runs in the caller's thread and cannot be interrupted: ``timeout_s`` (seconds,
    None for no limit) bounds the waiting for an awaitable only. A coroutine runs on the loop's
    thread.

    Raises TimeoutError when the time is over; the coroutine is cancelled then. Raises RuntimeError
    when called with an awaitable on the loop's own thread, which would wait for itself, and when
    :func:`close` cancels the coroutine. Everything else that the function raises comes out as
    it is.
    """
    if getattr(fn, "__tornado_coroutine__", False):
        # tornado's own decorator makes futures, and wants the loop it is called in for that.
        return _wait_for(_called_inside(fn, args, kwargs), timeout_s)
    result = fn(*args, **kwargs)
    if not inspect.isawaitable(result):
        return result
    return _wait_for(result, timeout_s)


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


def _wait_for(awaitable: Awaitable[Any], timeout_s: float | None) -> Any:
    import asyncio
    import concurrent.futures

    async def waited() -> Any:
        return await awaitable

    coroutine = awaitable if inspect.iscoroutine(awaitable) else waited()
    with _lock:
        loop = _running_loop_locked()
        inside = threading.current_thread() is _thread
        if not inside:
            future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    if inside:
        coroutine.close()
        raise RuntimeError("call() on the event loop's own thread would wait for itself: use await")
    done, _pending = concurrent.futures.wait([future], timeout_s)
    if not done and future.cancel():
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
