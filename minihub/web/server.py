"""The hub's HTTP server: waitress, on a socket that is bound before anything else starts.

Rules of this file: it owns the listening socket, the loop thread and waitress's worker threads,
and nothing else. WebSockets never come here: waitress refuses what is hop-by-hop, and the proxy
answers for servers.

Threads: ``hub-http`` runs waitress's loop; the workers run the application.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

from waitress.server import create_server

from .api_servers import MAX_STREAMS
from .site import MAX_BODY_BYTES

#: Workers that no progress stream may take.
RESERVED_THREADS = 16


class HTTPServer:
    """Serves a WSGI application on a bound socket until :meth:`stop`."""

    def __init__(self, application: Callable[..., Any], listener: socket.socket) -> None:
        self._map: dict[int, Any] = {}
        self._stopping = threading.Event()
        self._server = create_server(
            application,
            map=self._map,
            sockets=[listener],
            threads=MAX_STREAMS + RESERVED_THREADS,
            connection_limit=2000,
            backlog=1024,
            asyncore_use_poll=True,
            clear_untrusted_proxy_headers=False,  # our proxy's; we read the last element only
            max_request_body_size=MAX_BODY_BYTES,
            ident=None,
        )
        self._thread = threading.Thread(target=self._run, name="hub-http", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._server.asyncore.loop(timeout=1, map=self._map, use_poll=True, count=1)

    def stop(self) -> None:
        """Stop accepting, let answers under way end, close everything."""
        self._stopping.set()
        self._server.pull_trigger()
        self._thread.join(5)
        self._server.task_dispatcher.shutdown(cancel_pending=True, timeout=5)
        self._server.asyncore.close_all(self._map, ignore_all=True)
