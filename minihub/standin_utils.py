"""Helpers that configuration files know from JupyterHub and tornado.

Rules of this file: names, arguments and results are theirs; nothing of ours uses them.

Threads: plain functions any; coroutines run on the event loop of :mod:`minihub.aio`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import random
import socket
from collections.abc import Callable, Generator
from typing import Any

from minihub import clock, tokens
from minihub.errors import words_of

sleep = asyncio.sleep


def random_port() -> int:
    """Return a port of this machine that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def can_connect(ip: str, port: int) -> bool:
    """Return whether somebody listens there."""
    host = "127.0.0.1" if ip in ("", "0.0.0.0", "::") else ip
    try:
        socket.create_connection((host, port), 1.0).close()
    except OSError:
        return False
    return True


def compare_token(compare: str, token: str | bytes) -> bool:
    """Return whether ``token`` is the one whose stored form is ``compare``."""
    text = token.decode("utf-8", "replace") if isinstance(token, bytes) else token
    return tokens.check_token(text, compare)


async def maybe_future(value: Any) -> Any:
    """Return ``value``, or what it comes to when it can be awaited."""
    return await value if inspect.isawaitable(value) else value


async def exponential_backoff(
    pass_func: Callable[..., Any],
    fail_message: str,
    start_wait: float = 0.2,
    scale_factor: float = 2,
    max_wait: float = 5,
    timeout: float = 10,
    timeout_tolerance: float = 0.1,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Call a function, less and less often, until it returns something true; return that.

    Times are seconds. Raises TimeoutError with ``fail_message``.
    """
    spread = timeout_tolerance * timeout
    deadline = clock.monotonic() + random.uniform(timeout - spread, timeout + spread)
    pause = start_wait
    while True:
        result = await maybe_future(pass_func(*args, **kwargs))
        if result:
            return result
        left = deadline - clock.monotonic()
        if left <= 0:
            raise asyncio.TimeoutError(fail_message)
        await asyncio.sleep(min(random.uniform(start_wait, pause), left))
        pause = min(pause * scale_factor, max_wait)


# -- tornado.web, tornado.log ----------------------------------------------------------------

app_log = gen_log = logging.getLogger("minihub.config")


class HTTPError(Exception):
    """Raised in an authenticator or a hook to refuse with a status and a message."""

    def __init__(
        self, status_code: int = 500, log_message: str | None = None, *args: Any, **kwargs: Any
    ) -> None:
        self.status_code = status_code
        self.log_message = log_message
        self.reason = kwargs.get("reason")
        super().__init__(*args)

    def __str__(self) -> str:
        return f"HTTP {self.status_code}: {words_of(self)}"


# -- tornado.gen -----------------------------------------------------------------------------


class Return(Exception):
    """Raised in a generator to end it with a value."""

    def __init__(self, value: Any = None) -> None:
        super().__init__(value)
        self.value = value


def coroutine(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Make a coroutine function of a generator that yields what it waits for."""

    @functools.wraps(fn)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            result = fn(*args, **kwargs)
            return await _driven(result) if isinstance(result, Generator) else result
        except Return as end:
            return end.value

    return wrapper


async def _driven(generator: Generator[Any, Any, Any]) -> Any:
    """Run a generator to its end, giving it the results of what it yields."""
    step: Callable[[], Any] = functools.partial(next, generator)
    while True:
        try:
            yielded = step()
        except StopIteration as end:
            return end.value
        try:
            if isinstance(yielded, (list, tuple)):
                value: Any = list(await asyncio.gather(*(maybe_future(one) for one in yielded)))
            else:
                value = await maybe_future(yielded)
        except Exception as error:
            step = functools.partial(generator.throw, error)
        else:
            step = functools.partial(generator.send, value)
