"""The proxy as a whole: sockets it listens on, threads it runs, start and stop.

Rules of this file: everything is built before anything listens, and stopped in reverse order.
The main thread is the control thread: it runs a loop of its own with the REST API and signals.

Threads: a Proxy is made, run and stopped by the main thread.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable

from minihub.errors import ProxyError
from minihub.proxy import log
from minihub.proxy.answer import AnswerConnection
from minihub.proxy.context import Context, Settings
from minihub.proxy.control import Api
from minihub.proxy.listener import Listener, address_text, open_listeners
from minihub.proxy.loop import Connection, Loop
from minihub.proxy.options import Options
from minihub.proxy.relay import Relay
from minihub.proxy.resolver import Resolver
from minihub.proxy.routes import RouteTable
from minihub.proxy.sides import api_certificates, public_certificates

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minihub.proxy.tls import Certificates

#: What configurable-http-proxy ends with after SIGINT and SIGTERM.
SIGNAL_EXIT_CODE = 2


class _Signals(Connection):
    """Receives signals in the control loop through Python's wake-up descriptor."""

    __slots__ = ("_handle", "_write_end")

    def __init__(self, loop: Loop, handle: Callable[[int], None]) -> None:
        read_end, self._write_end = socket.socketpair()
        read_end.setblocking(False)
        self._write_end.setblocking(False)
        super().__init__(loop, read_end)
        self._handle = handle
        signal.set_wakeup_fd(self._write_end.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)

    def on_event(self, mask: int) -> None:
        try:
            numbers = self.sock.recv(256)
        except OSError:
            return
        for number in numbers:
            self._handle(number)

    def close(self) -> None:
        if not self.closed:
            signal.set_wakeup_fd(-1)
            self._write_end.close()
        super().close()


def _wrap(certificates: Certificates, sock: socket.socket) -> socket.socket | None:
    """Return an accepted socket with TLS on it, None when the peer has gone already."""
    try:
        return certificates.wrap(sock)  # type: ignore[return-value]
    except OSError:
        sock.close()
        return None


class Proxy:
    """A running proxy."""

    def __init__(self, options: Options) -> None:
        """Build everything. Raises ProxyError when an option cannot be used as given."""
        self.options = options
        self.table = RouteTable(options.host_routing)
        try:
            self.settings = Settings(options)
            if options.default_target:
                self.table.add(b"/", {"target": options.default_target})
        except ValueError as exc:
            raise ProxyError(f"--default-target or --error-target: {exc}") from None
        self.api = Api(self.table, options.auth_token)
        self.public_tls = public_certificates(options)
        self.api_tls = api_certificates(options)
        self.control = Loop("control")
        self.resolver = Resolver()
        self.loops = [Loop("loop-0")]
        self.contexts = [
            Context(loop, self.table, self.settings, self.resolver) for loop in self.loops
        ]
        self._threads: list[threading.Thread] = []
        self._exit_code = 0

    def run(self) -> int:
        """Listen, serve until a signal, and return the exit code. Raises ProxyError."""
        options = self.options
        if not options.auth_token:
            log.warn("REST API is not authenticated.")
        public = open_listeners(options.ip, options.port)
        try:
            api = open_listeners(options.api_ip, options.api_port)
        except ProxyError:
            for sock in public:
                sock.close()
            raise
        _Signals(self.control, self._on_signal)
        for context in self.contexts:
            self._listen_public(context, public)
        for sock in api:
            Listener(self.control, sock, self._accept_api)
        default = self.table.get(b"/")
        if default is not None:
            log.info(f"Route added / -> {default.target.text}")
        scheme = "https" if self.public_tls else "http"
        where = address_text(options.ip, public)
        log.info(f"Proxying {scheme}://{where} to {options.default_target or '(no default)'}")
        scheme = "https" if self.api_tls else "http"
        log.info(f"Proxy API at {scheme}://{address_text(options.api_ip, api)}/api/routes")
        if options.pid_file:
            self._write_pid_file()
        try:
            self._serve()
        finally:
            if options.pid_file:
                self._remove_pid_file()
        return self._exit_code

    def _serve(self) -> None:
        log.start_writer()
        for loop in self.loops:
            thread = threading.Thread(target=loop.run, name=loop.name)
            thread.start()
            self._threads.append(thread)
        self.control.run()
        for loop in self.loops:
            loop.stop()
        for thread in self._threads:
            thread.join()
        self.resolver.stop()
        log.stop_writer()

    def _listen_public(self, context: Context, sockets: list[socket.socket]) -> None:
        def accept(sock: socket.socket, address: bytes) -> None:
            context.stats.accepted += 1
            if self.public_tls is None:
                Relay(context, sock, address, b"http")
            elif (wrapped := _wrap(self.public_tls, sock)) is not None:
                Relay(context, wrapped, address, b"https")

        for sock in sockets:
            Listener(context.loop, sock, accept)

    def _accept_api(self, sock: socket.socket, address: bytes) -> None:
        if self.api_tls is not None:
            wrapped = _wrap(self.api_tls, sock)
            if wrapped is None:
                return
            sock = wrapped
        AnswerConnection(self.control, sock, self.api.handle, self.api.may_send_large)

    def _on_signal(self, number: int) -> None:
        log.warn("Interrupted" if number == signal.SIGINT else "Terminated")
        self._exit_code = SIGNAL_EXIT_CODE
        self.control.stop()

    def _write_pid_file(self) -> None:
        path = self.options.pid_file
        log.info(f"Writing pid {os.getpid()} to {path}")
        try:
            with open(path, "w", encoding="ascii") as file:
                file.write(str(os.getpid()))
        except OSError as exc:
            raise ProxyError(f"--pid-file {path}: {exc.strerror}") from exc

    def _remove_pid_file(self) -> None:
        try:
            os.unlink(self.options.pid_file)
        except OSError as exc:
            if sys.exc_info()[0] is None:
                log.warn(f"--pid-file {self.options.pid_file}: {exc.strerror}")
