"""Worker processes: the data path in several processes on one port.

Rules of this file: the control process holds the table and the REST API and serves nobody; a
worker is forked from it, has loop threads of its own and a table that follows the control
process's by messages. A change counts as made when every worker has made it. A worker that dies,
or does not answer, is replaced by one with the whole table. Nothing is read from disk to make
one: a fork runs the code that runs already.

Threads: the control process has one thread only, for forking one with more is no good idea.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable

from minihub import clock
from minihub.errors import ProxyError
from minihub.proxy import log
from minihub.proxy.channel import Channel, Message
from minihub.proxy.context import Settings
from minihub.proxy.fleet import Fleet, Tally, Threads, add_up, lasting
from minihub.proxy.limits import Limits
from minihub.proxy.loop import Loop, describe_error
from minihub.proxy.report import Reporter, dump_routes, load_routes, merge
from minihub.proxy.routes import Route, RouteTable
from minihub.proxy.signals import Signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minihub.proxy.tls import Certificates

#: A worker that lived shorter is replaced only after as long a pause.
SHORT_LIFE = 1.0
#: How long a worker that was told to end may take.
END_SECONDS = 5.0


def _reap(pid: int, patience: float) -> None:
    """Wait for a process to end, and end it after ``patience`` seconds."""
    end = clock.monotonic() + patience
    try:
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if clock.monotonic() >= end:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return
            time.sleep(0.005)
    except (ChildProcessError, ProcessLookupError):
        pass  # it is gone, which is all that is asked


class Worker:
    """A worker as the control process knows it."""

    def __init__(self, index: int, pid: int, started: float) -> None:
        self.index = index
        self.pid = pid
        self.started = started
        self.channel: Channel | None = None
        self.tally: Tally = {}

    def ask(self, message: Message, done: Callable[[Message | None], None]) -> None:
        """Ask the worker; ``done`` gets None when it has died."""
        if self.channel is None:
            done(None)
        else:
            self.channel.ask(message, done)


class Workers(Fleet):
    """Worker processes behind the calls of a fleet."""

    def __init__(
        self,
        control: Loop,
        table: RouteTable,
        settings: Settings,
        limits: Limits,
        *,
        workers: int,
        threads: int,
        room: int,
        certificates: Certificates | None,
    ) -> None:
        self.control = control
        self.table = table
        self._settings = settings
        self._limits = limits
        self._count = workers
        self._threads = threads
        self._room = room
        self._certificates = certificates
        self._sockets: list[list[socket.socket]] = []
        self._others: list[socket.socket] = []
        self._workers: dict[int, Worker] = {}
        self._ended: Tally = {}
        self._is_ending = False
        self._done: list[Callable[[], None]] = []

    def start(
        self, sockets: list[socket.socket], others: list[socket.socket], ready: Callable[[], None]
    ) -> None:
        # One socket for each worker where there are so many of an address, else all share it.
        groups: dict[object, list[socket.socket]] = {}
        for sock in sockets:
            groups.setdefault(sock.getsockname(), []).append(sock)
        self._sockets = [[] for _ in range(self._count)]
        for group in groups.values():
            for index in range(max(self._count, len(group))):
                self._sockets[index % self._count].append(group[index % len(group)])
        self._others = others
        waiting = set(range(self._count))

        def served(index: int) -> None:
            waiting.discard(index)
            if not waiting:
                ready()

        for index in range(self._count):
            self._spawn(index, lambda index=index: served(index))  # type: ignore[misc]

    def _spawn(self, index: int, served: Callable[[], None]) -> None:
        ours, theirs = socket.socketpair()
        try:
            pid = os.fork()
        except OSError as exc:
            ours.close()
            theirs.close()
            raise ProxyError(f"cannot start a worker: {describe_error(exc)}") from exc
        if pid == 0:
            code = 1
            try:
                self._leave_parent(ours, index)
                code = self._run_worker(index, theirs)
            except BaseException:
                log.crash(f"worker {index}")
            finally:
                os._exit(code)
        theirs.close()
        worker = Worker(index, pid, self.control.now)
        self._workers[index] = worker
        worker.channel = Channel(
            self.control,
            ours,
            lambda message: self._on_message(worker, message),
            lambda: self._on_end(worker),
        )
        routes = dump_routes(self.table.snapshot)
        worker.ask({"op": "start", "add": routes}, lambda answer: answer and served())

    # -- in the worker ---------------------------------------------------------------------

    def _leave_parent(self, ours: socket.socket, index: int) -> None:
        """Close what a fork has inherited and must not hold: other workers would never see us
        end, and the parent's poller is the parent's."""
        signal.set_wakeup_fd(-1)
        self.control.abandon()
        ours.close()
        mine = {sock.fileno() for sock in self._sockets[index]}
        for sock in [*self._others, *(sock for group in self._sockets for sock in group)]:
            if sock.fileno() not in mine:
                sock.close()

    def _run_worker(self, index: int, sock: socket.socket) -> int:
        """Serve until the control process says otherwise, or has gone."""
        control = Loop(f"worker-{index}")
        table = RouteTable(self._settings.host_routing)
        fleet = Threads(
            control,
            table,
            self._settings,
            self._limits,
            first_share=index * self._threads,
            count=self._threads,
            room=self._room,
            certificates=self._certificates,
        )
        reporter = Reporter(table, fleet.tally)

        def answer(message: Message, **facts: object) -> None:
            channel.tell({"answer": message["id"], **facts})

        def leave() -> None:
            channel.tell({"op": "report", **reporter.make()})
            control.stop()

        def on_message(message: Message) -> None:
            op = message["op"]
            if op == "start":
                load_routes(table, message["add"])
                fleet.start(self._sockets[index], [], lambda: answer(message))
            elif op == "change":
                for path in message["remove"]:  # type: ignore[attr-defined]
                    table.remove(path.encode())
                load_routes(table, message["add"])
                answer(message)
            elif op == "report":
                answer(message, **reporter.make())
            elif op == "tunnels":
                path = str(message["path"]).encode()
                fleet.close_tunnels(path, lambda count: answer(message, closed=count))
            elif op == "retire":
                fleet.retire(leave)
            elif op == "drain":
                fleet.drain(leave)

        def tick() -> None:
            report = reporter.make()
            if report:
                channel.tell({"op": "report", **report})

        channel = Channel(control, sock, on_message, control.stop)
        # The terminal's Ctrl-C reaches the control process too, which decides for all.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        Signals(control, lambda number: fleet.drain(leave), (signal.SIGTERM,))
        control.on_sweep.append(tick)
        log.allow_thread()
        control.run()
        fleet.stop()
        log.finish()
        return 0

    # -- in the control process ------------------------------------------------------------

    def _on_message(self, worker: Worker, message: Message) -> None:
        if message.get("op") == "report":
            self._take_report(worker, message)

    def _take_report(self, worker: Worker, report: Message) -> None:
        tally = report.get("tally")
        if isinstance(tally, dict):
            worker.tally = tally
        merge(self.table, f"worker-{worker.pid}", report)

    def _on_end(self, worker: Worker) -> None:
        worker.channel = None
        self._workers.pop(worker.index, None)
        _reap(worker.pid, END_SECONDS if self._is_ending else 0)
        for share in range(self._threads):
            self._limits.clear(worker.index * self._threads + share)
        self._ended = add_up([self._ended, lasting(worker.tally)])
        if self._is_ending:
            if not self._workers:
                for done in self._done:
                    done()
            return
        log.error(f"worker {worker.index} (pid {worker.pid}) has ended; starting another")
        is_early = self.control.now - worker.started < SHORT_LIFE
        self._respawn(worker.index, SHORT_LIFE if is_early else 0)

    def _respawn(self, index: int, pause: float) -> None:
        """Start another worker after a pause, and again after one when that fails."""
        due = self.control.now + pause

        def respawn() -> None:
            if self.control.now < due and not self._is_ending:
                return
            self.control.on_sweep.remove(respawn)
            if self._is_ending:
                return
            try:
                self._spawn(index, lambda: None)
            except ProxyError as exc:
                log.error(str(exc))
                self._respawn(index, SHORT_LIFE)

        self.control.on_sweep.append(respawn)
        self.control.sweep_within(pause)

    def _ask_all(self, message: Message, done: Callable[[list[Message]], None]) -> None:
        """Ask every worker and call ``done`` with the answers of those that live."""
        workers = list(self._workers.values())
        answers: list[Message] = []
        left = len(workers)

        def gather(worker: Worker, answer: Message | None) -> None:
            nonlocal left
            left -= 1
            if answer is not None:
                answers.append(answer)
                self._take_report(worker, answer)
            if not left:
                done(answers)

        if not workers:
            done([])
        for worker in workers:
            worker.ask(message, lambda answer, worker=worker: gather(worker, answer))  # type: ignore[misc]

    def publish(self, added: list[Route], removed: list[bytes], done: Callable[[], None]) -> None:
        self._ask_all(
            {
                "op": "change",
                "add": dump_routes(added),
                "remove": [path.decode() for path in removed],
            },
            lambda _: done(),
        )

    def refresh(self, done: Callable[[], None]) -> None:
        self._ask_all({"op": "report"}, lambda _: done())

    def tally(self) -> Tally:
        return add_up([self._ended, *(worker.tally for worker in self._workers.values())])

    def close_tunnels(self, path: bytes, done: Callable[[int], None]) -> None:

        def count(answers: list[Message]) -> None:
            done(sum(int(str(answer["closed"])) for answer in answers))

        self._ask_all({"op": "tunnels", "path": path.decode()}, count)

    def retire(self, done: Callable[[], None]) -> None:
        self._end("retire", done)

    def drain(self, done: Callable[[], None]) -> None:
        self._end("drain", done)

    def _end(self, op: str, done: Callable[[], None]) -> None:
        self._is_ending = True
        for group in self._sockets:
            for sock in group:
                sock.close()
        self._done.append(done)
        for worker in self._workers.values():
            if worker.channel is not None:
                worker.channel.tell({"op": op})
        if not self._workers:
            done()

    def stop(self) -> None:
        self._is_ending = True
        self._done.clear()
        for worker in list(self._workers.values()):
            # A worker ends with its channel; its sockets are cut in the same breath.
            if worker.channel is not None:
                worker.channel.close()
