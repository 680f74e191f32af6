"""The port that sends clients of plain HTTP to HTTPS.

Rules of this file: it answers every request with a redirect to the same path, and reads no body.

Threads: the control thread.
"""

from __future__ import annotations

from collections.abc import Callable

from minihub.proxy.answer import Answer, Handler, Reply, Request
from minihub.proxy.routes import host_name

HTTPS_PORT = 443


def redirect_handler(port: Callable[[], int]) -> Handler:
    """Return a handler that redirects to ``port()`` of the host that was asked for."""

    def handle(request: Request, reply: Reply) -> None:
        if not request.host:
            text = (
                f"This server is HTTPS-only on port {port()}, but an HTTP request was made and the"
                " host could not be determined from the request."
            )
            reply(Answer(400, text.encode()))
            return
        host = host_name(request.host)
        if port() != HTTPS_PORT:
            host += b":%d" % port()
        path = request.path
        if request.query:
            path += b"?" + request.query
        reply(Answer(301, fields=b"Location: https://%b%b\r\n" % (host, path)))

    return handle
