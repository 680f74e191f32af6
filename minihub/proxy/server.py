"""The proxy as a whole: start, signals, end.

Rules of this file: everything is built before anything listens, and stopped in reverse order.
The main thread is the control thread: it runs a loop of its own with the REST API, signals and,
where there are any, channels to workers and to the processes before and after this one.

Threads: a Proxy is made and run by the main thread.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable

from minihub.errors import ProxyError
from minihub.proxy import log
from minihub.proxy.answer import AnswerConnection, Handler, Request
from minihub.proxy.channel import Message
from minihub.proxy.context import Settings
from minihub.proxy.control import Api
from minihub.proxy.fleet import Fleet, Threads, default_threads
from minihub.proxy.handover import Lineage, Successor, is_successor, take_over
from minihub.proxy.limits import Limits, raise_descriptor_limit
from minihub.proxy.listener import Listener
from minihub.proxy.loop import Loop
from minihub.proxy.options import Options
from minihub.proxy.report import Reporter, dump_routes
from minihub.proxy.routes import RouteTable
from minihub.proxy.sides import api_certificates, public_certificates
from minihub.proxy.signals import Signals
from minihub.proxy.sockets import Sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minihub.proxy.tls import Certificates

#: What configurable-http-proxy ends with after SIGINT and SIGTERM.
SIGNAL_EXIT_CODE = 2


class Proxy:
    """A running proxy."""

    def __init__(self, options: Options) -> None:
        """Build everything. Raises ProxyError when an option cannot be used as given."""
        self.options = options
        self.table = RouteTable(options.host_routing)
        try:
            settings = Settings(options)
            if options.default_target:
                self.table.add(b"/", {"target": options.default_target})
        except ValueError as exc:
            raise ProxyError(f"--default-target or --error-target: {exc}") from None
        self._public_tls = public_certificates(options)
        self._api_tls = api_certificates(options)
        self.control = Loop("control")
        self.fleet = self._make_fleet(settings)
        self.lineage = Lineage(self.table, self.fleet)
        self.api = Api(self.table, self.lineage, options.auth_token)
        self._exit_code = 0
        self._is_ending = False
        self._sockets: Sockets | None = None
        self._listeners: list[Listener] = []
        self._successor: Successor | None = None
        self._is_fleet_empty = False

    def _make_fleet(self, settings: Settings) -> Fleet:
        options = self.options
        threads = options.threads or default_threads()
        # A client may need a second descriptor for its target.
        room = max(16, (raise_descriptor_limit() - 64) // 2)
        limits = Limits(
            options.max_connections,
            options.max_connections_per_ip,
            threads * (options.workers or 1),
        )
        if options.workers:
            from minihub.proxy.workers import Workers

            return Workers(
                self.control,
                self.table,
                settings,
                limits,
                workers=options.workers,
                threads=threads,
                room=room,
                certificates=self._public_tls,
            )
        return Threads(
            self.control,
            self.table,
            settings,
            limits,
            count=threads,
            room=room,
            certificates=self._public_tls,
        )

    def run(self) -> int:
        """Listen, serve until a signal, and return the exit code. Raises ProxyError."""
        options = self.options
        inheritance = take_over() if is_successor() else None
        if not options.auth_token:
            log.warn("REST API is not authenticated.")
        if options.auto_rewrite:
            log.info("AutoRewrite of Location headers enabled.")
        if options.change_origin:
            log.info("Change Origin of host headers enabled.")
        if options.protocol_rewrite:
            log.info(f"ProtocolRewrite enabled. Rewriting to {options.protocol_rewrite}")
        statsd = None
        if options.statsd_host:
            from minihub.proxy.metrics import Statsd

            statsd = Statsd(self.api, self.lineage, options)
            self.control.on_sweep.append(statsd.tick)
        # From before anybody can see that we are there: they wait until the loop runs.
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
        Signals(self.control, self._on_signal, numbers)
        self._sockets = sockets = Sockets(options, inheritance.groups if inheritance else None)
        try:
            if inheritance is not None:
                log.info(f"Taking over from process {inheritance.table['pid']}")
                self.api.load_counts(inheritance.table["api"])
                self.lineage.inherit(self.control, inheritance, self._leave_if_empty)
            default = self.table.get(b"/")
            if default is not None:
                log.info(f"Route added / -> {default.target.text}")
            if not options.workers:
                # With workers this process forks, and has one thread only.
                log.allow_thread()
            self.fleet.start(sockets.groups["public"], sockets.private, self._on_ready)
            self.control.run()
        finally:
            self.fleet.stop()
            log.finish()
            sockets.close()
            if statsd is not None:
                statsd.close()
            self._remove_pid_file()
        return self._exit_code

    def _on_ready(self) -> None:
        """Answer on the private sockets and say so, now that the public ones are served."""
        assert self._sockets is not None
        self._listen_control(self._sockets)
        try:
            self._write_pid_file()
        except ProxyError as exc:
            # Called by an event of a loop as often as not: nobody above would hear of it.
            log.error(str(exc))
            self._exit_code = exc.exit_code
            self.control.stop()
            return
        self._sockets.announce(
            "https" if self._public_tls else "http", "https" if self._api_tls else "http"
        )
        self.lineage.tell({"op": "ready"})

    # -- listening -------------------------------------------------------------------------

    def _listen_control(self, sockets: Sockets) -> None:
        """Listen for everything that the control thread answers."""
        for sock in sockets.groups["api"]:
            self._answer(sock, self.api.handle, self.api.may_send_large, self._api_tls)
        if sockets.groups["metrics"]:
            from minihub.proxy.metrics import Metrics

            handler = Metrics(self.api, self.lineage).handle
            for sock in sockets.groups["metrics"]:
                self._answer(sock, handler, _never, None)
        if sockets.groups["redirect"]:
            from minihub.proxy.redirect import redirect_handler

            handler = redirect_handler(sockets.https_port)
            for sock in sockets.groups["redirect"]:
                self._answer(sock, handler, _never, None)

    def _answer(
        self,
        listening: socket.socket,
        handler: Handler,
        allows_body: Callable[[Request], bool],
        certificates: Certificates | None,
    ) -> None:
        def accept(sock: socket.socket, address: bytes) -> None:
            if certificates is not None:
                try:
                    sock = certificates.wrap(sock)  # type: ignore[assignment]
                except OSError:
                    sock.close()  # the peer has gone already
                    return
            AnswerConnection(self.control, sock, handler, allows_body)

        self._listeners.append(Listener(self.control, listening, accept))

    def _stop_answering(self) -> None:
        """Take no more connections and requests on the private sockets."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        for connection in list(self.control.connections.values()):
            if isinstance(connection, AnswerConnection):
                connection.finish()

    # -- handing over ----------------------------------------------------------------------

    def _hand_over(self) -> None:
        if self._successor is not None or self._is_ending:
            log.warn("Already handing over, or ending")
            return
        assert self._sockets is not None
        try:
            self._successor = Successor(
                self.control,
                self._sockets.groups,
                self._freeze,
                self._on_successor,
                self._on_successor_message,
            )
        except ProxyError as exc:
            log.error(f"SIGUSR2: {exc}; going on")
            return
        log.info(f"Handing over to process {self._successor.pid}")

    def _freeze(self) -> Message:
        """Let nobody change the table any more, and return it."""
        self._stop_answering()
        self._reporter = Reporter(self.table, self.lineage.tally)
        return {
            "op": "table",
            "pid": os.getpid(),
            "routes": dump_routes(self.table.snapshot),
            "api": self.api.dump_counts(),
            **self._reporter.make(),
        }

    def _on_successor(self, is_serving: bool) -> None:
        assert self._sockets is not None and self._successor is not None
        if not is_serving:
            self._successor = None
            if not self._listeners:
                self._listen_control(self._sockets)
            return
        log.info(f"Process {self._successor.pid} serves; this one leaves with its last tunnel")
        self.options.pid_file = ""  # it is the new process's now
        self.control.on_sweep.append(self._report)
        self._sockets.abandon()
        self.fleet.retire(self._on_retired)

    def _report(self) -> None:
        assert self._successor is not None
        report = self._reporter.make()
        if report:
            self._successor.channel.tell({"op": "report", **report})

    def _on_successor_message(self, message: Message) -> None:
        assert self._successor is not None
        channel = self._successor.channel
        op = message.get("op")
        if op == "report":
            self.lineage.refresh(
                lambda: channel.tell({"answer": message["id"], **self._reporter.make()})
            )
        elif op == "tunnels":
            path = str(message["path"]).encode()
            self.lineage.close_tunnels(
                path, lambda count: channel.tell({"answer": message["id"], "closed": count})
            )
        elif op == "drain":
            self._drain(0)

    def _on_retired(self) -> None:
        self._is_fleet_empty = True
        self._leave_if_empty()

    def _leave_if_empty(self) -> None:
        if self._is_fleet_empty and not self.lineage.has_predecessor:
            self._report()
            self.control.stop()

    # -- the process -----------------------------------------------------------------------

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGUSR2:
            self._hand_over()
            return
        log.warn("Interrupted" if number == signal.SIGINT else "Terminated")
        self._drain(SIGNAL_EXIT_CODE)

    def _drain(self, exit_code: int) -> None:
        """Answer what is in flight, for a while, and end; at once when asked again."""
        self._exit_code = exit_code
        if self._is_ending:
            self.control.stop()
            return
        self._is_ending = True
        self._stop_answering()
        self.lineage.tell({"op": "drain"})
        due = self.control.now + self.options.drain_timeout / 1000

        def check() -> None:
            if self.control.now >= due:
                log.warn("Requests are still in flight: cutting them")
                self.control.stop()
            else:
                self.control.sweep_within(min(1.0, due - self.control.now))

        self.control.on_sweep.append(check)
        check()
        self.fleet.drain(self.control.stop)

    def _write_pid_file(self) -> None:
        path = self.options.pid_file
        if not path:
            return
        log.info(f"Writing pid {os.getpid()} to {path}")
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            with open(fd, "w", encoding="ascii") as file:
                file.write(str(os.getpid()))
        except OSError as exc:
            raise ProxyError(f"--pid-file {path}: {exc.strerror}") from exc

    def _remove_pid_file(self) -> None:
        path = self.options.pid_file
        if not path:
            return
        try:
            with open(path, encoding="ascii") as file:
                is_ours = file.read().strip() == str(os.getpid())
            if is_ours:
                os.unlink(path)
        except OSError as exc:
            log.warn(f"--pid-file {path}: {exc.strerror}")


def _never(request: Request) -> bool:
    return False
