"""All the sockets a proxy listens on, opened or inherited.

Rules of this file: all are there or none; a Unix socket's file goes with the process that made
it, or to the one that takes over.

Threads: the main thread.
"""

from __future__ import annotations

import os
import socket

from minihub.errors import ProxyError
from minihub.proxy import log
from minihub.proxy.listener import address_text, open_listeners, open_unix_listener
from minihub.proxy.options import Options

Groups = dict[str, list[socket.socket]]


class Sockets:
    """The listening sockets by purpose: public, api, metrics and redirect."""

    def __init__(self, options: Options, inherited: Groups | None) -> None:
        """Listen on everything the options ask for. Raises ProxyError.

        What is ``inherited`` is listened on already and only taken.
        """
        self._options = options
        self.groups: Groups = {"public": [], "api": [], "metrics": [], "redirect": []}
        self._paths = [
            path for path in (options.socket, options.api_socket, options.metrics_socket) if path
        ]
        if inherited is not None:
            self.groups.update(inherited)
            return
        paths, self._paths = self._paths, []
        try:
            self._open(options)
        except ProxyError:
            self.close()
            raise
        self._paths = paths

    def _open(self, options: Options) -> None:
        groups = self.groups
        if options.socket:
            groups["public"].append(self._open_unix(options.socket, "socket"))
        else:
            groups["public"] += open_listeners(options.ip, options.port, options.workers or 1)
        if options.api_socket:
            groups["api"].append(self._open_unix(options.api_socket, "api-socket"))
        else:
            groups["api"] += open_listeners(options.api_ip, options.api_port)
        if options.metrics_socket:
            groups["metrics"].append(self._open_unix(options.metrics_socket, "metrics-socket"))
        elif options.metrics_port:
            groups["metrics"] += open_listeners(options.metrics_ip, options.metrics_port)
        if options.redirect_port:
            groups["redirect"] += open_listeners(options.ip, options.redirect_port)

    def _open_unix(self, path: str, option: str) -> socket.socket:
        sock = open_unix_listener(path, option)
        self._paths.append(path)
        return sock

    @property
    def private(self) -> list[socket.socket]:
        """Return the sockets that the control thread answers on."""
        return [*self.groups["api"], *self.groups["metrics"], *self.groups["redirect"]]

    def abandon(self) -> None:
        """Leave it all to another process; the public sockets are closed by those who serve."""
        for sock in self.private:
            sock.close()
        self._paths.clear()

    def close(self) -> None:
        """Stop listening; a Unix socket's file goes as well."""
        for group in self.groups.values():
            for sock in group:
                sock.close()
        for path in self._paths:
            try:
                os.unlink(path)
            except OSError:
                pass  # somebody has cleaned up

    def announce(self, public_scheme: str, api_scheme: str) -> None:
        """Log where everything is, with real ports."""
        options = self._options
        target = options.default_target or "(no default)"
        where = address_text(options.ip, self.groups["public"])
        log.info(f"Proxying {public_scheme}://{where} to {target}")
        if options.wait_for_default and not options.default_target:
            log.info("Nobody is answered before there is a route / (--wait-for-default)")
        where = address_text(options.api_ip, self.groups["api"])
        log.info(f"Proxy API at {api_scheme}://{where}/api/routes")
        if self.groups["metrics"]:
            where = address_text(options.metrics_ip, self.groups["metrics"])
            log.info(f"Serve metrics at http://{where}/metrics")
        if self.groups["redirect"]:
            port = self.groups["redirect"][0].getsockname()[1]
            log.info(f"Added HTTP to HTTPS redirection from {port} to {self.https_port()}")

    def https_port(self) -> int:
        """Return the port that clients of plain HTTP are sent to."""
        return self._options.redirect_to or self.groups["public"][0].getsockname()[1]
