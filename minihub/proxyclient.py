"""A client of configurable-http-proxy's REST API.

Rules of this file: it knows requests and answers, not which routes there should be. Foreign
exceptions leave as ProxyError.

Threads: any; idle connections are shared through a queue, and a semaphore bounds how many call at
once.
Sources: configurable-http-proxy's README and REST API.
"""

from __future__ import annotations

import http.client
import json
import queue
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from . import clock
from .errors import ProxyError

TIMEOUT_S = 30.0
#: How long a request goes on trying while the proxy is not there: the time a restart may take.
PATIENCE_S = 10.0
RETRY_PAUSE_S = 0.1


class ProxyAway(ProxyError):
    """Raised when the proxy does not answer at all; another call may succeed."""


class ProxyClient:
    """Calls the API at the place that ``where`` returns, ``(api_url, auth_token)``."""

    def __init__(
        self,
        where: Callable[[], tuple[str, str]],
        stopping: threading.Event,
        *,
        concurrency: int = 10,
    ) -> None:
        """``concurrency``: how many calls there may be at once.

        Once ``stopping`` is set, nothing is tried again.
        """
        self._where = where
        self._stopping = stopping
        self._slots = threading.BoundedSemaphore(concurrency)
        self._idle: queue.SimpleQueue[http.client.HTTPConnection] = queue.SimpleQueue()

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Call the API and go on trying while the proxy is not there.

        Returns the decoded JSON answer or None. Raises ProxyError for anything but success; a 404
        to a DELETE counts as success.
        """
        deadline = clock.monotonic() + PATIENCE_S
        while True:
            try:
                return self.call(method, path, body)
            except ProxyAway:
                if clock.monotonic() > deadline or self._stopping.wait(RETRY_PAUSE_S):
                    raise

    def call(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Any:
        """Call the API once. Raises ProxyAway when nobody answers, else as :meth:`request`."""
        with self._slots:
            return self._call(method, path, body, timeout_s)

    def _call(self, method: str, path: str, body: dict[str, Any] | None, timeout_s: float) -> Any:
        api_url, token = self._where()
        payload = None if body is None else json.dumps(body)
        headers = {"Authorization": f"token {token}"}
        for fresh in (False, True):  # an idle connection may have gone stale
            connection = self._connection(api_url, fresh, timeout_s)
            try:
                connection.request(method, path, payload, headers)
                response = connection.getresponse()
                answer = response.read()
                break
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if fresh or isinstance(error, TimeoutError):
                    raise ProxyAway(
                        f"the proxy's API at {api_url} did not answer: {error}"
                    ) from error
        if response.will_close:
            connection.close()
        else:
            self._idle.put(connection)
        if response.status == 403:
            raise ProxyError(
                f"the proxy at {api_url} refused our token; another proxy may be running "
                "there, or CONFIGPROXY_AUTH_TOKEN has changed"
            )
        if response.status >= 500:
            raise ProxyAway(f"the proxy answered {response.status} to {method} {path}")
        if response.status >= 300 and not (method == "DELETE" and response.status == 404):
            raise ProxyError(f"the proxy answered {response.status} to {method} {path}")
        try:
            return json.loads(answer) if answer else None
        except ValueError as error:
            raise ProxyError(f"what listens at {api_url} is no proxy of ours") from error

    def _connection(self, api_url: str, fresh: bool, timeout_s: float) -> Any:
        if not fresh:
            try:
                connection = self._idle.get_nowait()
            except queue.Empty:
                pass
            else:
                if connection.sock is not None:
                    connection.sock.settimeout(timeout_s)
                return connection
        api = urlsplit(api_url)
        return http.client.HTTPConnection(api.hostname, api.port, timeout=timeout_s)

    def close(self) -> None:
        """Close the idle connections; a later call opens new ones."""
        while True:
            try:
                self._idle.get_nowait().close()
            except queue.Empty:
                return
