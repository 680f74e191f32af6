"""The hub's HTTP server: waitress, on a socket that is bound before anything else starts.

waitress hands every request from the thread that reads to one that works, which costs as much as a
small answer itself. Here the thread that reads, the leader, serves what is brief as a rule (GET)
on the spot, and another takes the lead over when that takes longer than :data:`PATIENCE_S`, or at
once when the application says that it will wait. What changes something goes to waitress's workers.

Rules of this file: it owns the listening socket, the threads that lead and waitress's workers, and
nothing else. WebSockets never come here: waitress refuses what is hop-by-hop, and the proxy
answers for servers.

Threads: ``hub-http-N`` lead, stand by or serve what took long; waitress's workers serve the rest.
One lock guards who leads; it is held for a few assignments.
"""

from __future__ import annotations

import logging
import math
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.buffers import ReadOnlyFileBasedBuffer
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher

from .. import clock
from .channel import BRIEF, Channel
from .site import MAX_BODY_BYTES
from .waits import MAX_LONG

log = logging.getLogger("minihub.web")

#: Workers that neither streams nor waits for servers may take.
RESERVED_THREADS = 16
#: How many requests may be served at once that change something, and how many others.
THREADS = MAX_LONG + RESERVED_THREADS
#: How long the leader may serve one request before another thread leads.
PATIENCE_S = 0.005
#: From so many connections on, those have to go that have kept the server waiting longest: some
#: who never finish their requests would keep everybody out else.
CROWD = 1000
#: More of a request's body than this waits on the disk.
BODY_IN_MEMORY = 65536
#: How often connections are looked at of which no event told.
ROUND_S = 1.0
#: How long the leader rests after an error that nobody expected.
PAUSE_S = 0.1
#: How often the log tells of too many connections.
TOLD_S = 60.0
#: How long an end waits for answers under way.
END_S = 5.0
#: In a request's environment: the function to call before a wait.
WILL_WAIT = "minihub.will_wait"

_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class HTTPServer:
    """Serves a WSGI application on a bound socket until :meth:`stop`."""

    def __init__(self, application: Callable[..., Any], listener: socket.socket) -> None:
        self._map: dict[int, Any] = {}
        adjustments = Adjustments(
            sockets=[listener],
            threads=THREADS,
            connection_limit=2000,
            backlog=1024,
            clear_untrusted_proxy_headers=False,  # our proxy's; we read the last element only
            max_request_body_size=MAX_BODY_BYTES,
            inbuf_overflow=BODY_IN_MEMORY,
            ident=None,
        )
        self._workers = ThreadedTaskDispatcher()
        self._workers.set_thread_count(THREADS)
        self._server = _Server(
            application,
            self._map,
            _sock=listener,
            dispatcher=self._workers,
            adj=adjustments,
            sockinfo=(listener.family, listener.type, listener.proto, listener.getsockname()),
            bind_socket=False,
        )

    def start(self) -> None:
        self._server.lead.start()

    def stop(self) -> None:
        """Stop accepting, let answers under way end, close everything."""
        self._server.lead.stop()
        self._workers.shutdown(cancel_pending=True, timeout=END_S)
        for channel in list(self._server.active_channels.values()):
            channel.handle_close()  # with the files of what waits to be sent
        wasyncore.close_all(self._map, ignore_all=True)
        self._server.lead.close()


class _Server(TcpWSGIServer):
    """waitress's server, whose leader serves what is brief itself."""

    channel_class = Channel
    #: The channel that the leader reads at the moment.
    reading: Channel | None = None
    _told_at = -math.inf

    def __init__(self, application: Callable[..., Any], map: dict[int, Any], **kwargs: Any) -> None:
        self.lead = _Lead(self, map)
        super().__init__(self._watched(application), map, **kwargs)

    def _watched(self, application: Callable[..., Any]) -> Callable[..., Any]:
        hand_over = self.lead.hand_over

        def watched(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
            environ[WILL_WAIT] = hand_over
            answer = application(environ, start_response)
            if not isinstance(answer, (list, tuple, ReadOnlyFileBasedBuffer)):
                hand_over()  # whoever makes the answer bit by bit may take long for each
            return answer

        return watched

    def handle_accept(self) -> None:
        super().handle_accept()
        if len(self.active_channels) > CROWD:
            self._make_room()

    def _make_room(self) -> None:
        """Close connections that nobody serves: first those that have kept us waiting longest."""
        found = [one for one in self.active_channels.values() if not one.requests]
        for one in sorted(found, key=Channel.claim)[: CROWD // 4]:
            one.handle_close()
        now = clock.monotonic()
        if now - self._told_at > TOLD_S:
            self._told_at = now
            log.warning(
                "More than %d connections to the hub: the longest unfinished are closed", CROWD
            )

    def add_task(self, task: Channel) -> None:
        """Have a channel's first request served: by the leader who has just read it, or later."""
        request = task.requests[0]
        if task is self.reading and (request.error or request.command in BRIEF):
            task.is_due = True
        else:
            super().add_task(task)

    def serve(self, channel: Channel) -> None:
        self.lead.serve(channel)

    def pull_trigger(self) -> None:
        """Wake the leader up, unless that is who asks."""
        if not self.lead.is_mine():
            super().pull_trigger()

    def wake(self) -> None:
        super().pull_trigger()


class _Lead:
    """Who reads connections: one thread at a time, which another one can relieve."""

    def __init__(self, server: _Server, map: dict[int, Any]) -> None:
        self._server = server
        self._map = map
        self._selector = selectors.DefaultSelector()
        #: What the selector watches, by descriptor: the object and the events.
        self._watching: dict[int, tuple[Any, int]] = {}
        #: Events that were seen and not yet dealt with.
        self._events: deque[tuple[Any, int]] = deque()
        self._looked_at = 0.0
        self._stopping = False
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._threads: list[threading.Thread] = []
        #: Threads by what they do; 0 for nobody.
        self._leader = 0
        self._standby = 0
        self._idle_count = 0
        #: When the leader began to serve a request; 0 while it serves none.
        self._since = 0.0
        #: Counts what leaders served, so that the one who stands by sees whether there is work.
        self._served = 0
        self._is_asleep = False
        self._wake = threading.Event()

    def start(self) -> None:
        with self._lock:
            self._add_thread_locked()

    def stop(self) -> None:
        """Let the leader and what it serves come to an end."""
        with self._lock:
            self._stopping = True
            self._idle.notify_all()
            threads = list(self._threads)
        self._wake.set()
        self._server.wake()
        deadline = clock.monotonic() + END_S
        for thread in threads:
            thread.join(max(0.0, deadline - clock.monotonic()))

    def close(self) -> None:
        """Close what watched the connections, after they are closed."""
        self._selector.close()

    # -- what the server asks ----------------------------------------------------------------

    def is_mine(self) -> bool:
        """Return whether this thread leads."""
        return self._leader == threading.get_ident()

    def serve(self, channel: Channel) -> None:
        """Serve one request as the leader, perhaps no longer so at its end."""
        self._served += 1
        self._since = clock.monotonic()
        if self._is_asleep:
            self._wake.set()
        try:
            channel.service()
        except BaseException:  # as a worker of waitress's goes on after any; SystemExit is one
            log.exception("A request ended its thread")
            channel.will_close = True
        with self._lock:
            is_mine = self.is_mine()
            if is_mine:
                self._since = 0.0
        if not is_mine:
            self._server.wake()  # the connection may be read again

    def hand_over(self) -> None:
        """Let another thread lead, if this one does."""
        if not self.is_mine():
            return
        with self._lock:
            # With all threads at work there is nobody to hand over to.
            if self._since and self._standby:
                self._since = 0.0
                self._leader = 0
        self._wake.set()

    # -- the threads ---------------------------------------------------------------------------

    def _add_thread_locked(self) -> None:
        if len(self._threads) < THREADS:
            name = f"hub-http-{len(self._threads)}"
            thread = threading.Thread(target=self._run, name=name, daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # the system has none left: this one goes on alone
                log.warning("No thread to relieve the one that reads connections: %s", error)
            else:
                self._threads.append(thread)

    def _run(self) -> None:
        while self._stand_by():
            while self.is_mine() and not self._stopping:
                try:
                    self._watch_all()
                    self._loop()
                except Exception:
                    log.exception("Reading connections met an error")
                    time.sleep(PAUSE_S)

    def _stand_by(self) -> bool:
        """Wait until it is this thread's turn to lead; return False at the end."""
        with self._lock:
            while self._standby and not self._stopping:
                self._idle_count += 1
                self._idle.wait()
                self._idle_count -= 1
            self._standby = threading.get_ident()
        seen = -1
        while not self._stopping:
            if self._take_over():
                return True
            if self._served != seen:  # there is work: look again soon
                seen = self._served
                self._wake.wait(PATIENCE_S)
            else:
                self._is_asleep = True
                if not self._since and self._served == seen and self._leader:
                    self._wake.wait(ROUND_S)
                self._is_asleep = False
            self._wake.clear()
        return False

    def _take_over(self) -> bool:
        with self._lock:
            since = self._since
            if self._leader and not (since and clock.monotonic() - since >= PATIENCE_S):
                return False
            self._leader, self._standby = threading.get_ident(), 0
            self._since = 0.0
            if self._idle_count:
                self._idle.notify()
            else:
                self._add_thread_locked()
        return True

    # -- the leader ----------------------------------------------------------------------------

    def _loop(self) -> None:
        """Deal with what happens on the connections for as long as this thread leads."""
        events = self._events
        while not self._stopping:
            while events:
                self._deal(*events.popleft())
                if not self.is_mine():
                    return
            if clock.monotonic() - self._looked_at >= ROUND_S:
                self._watch_all()
            events.extend((key.data, mask) for key, mask in self._selector.select(ROUND_S))

    def _deal(self, thing: Any, mask: int) -> None:
        """Deal with one event of a connection, of the listening socket or of the trigger."""
        descriptor = thing._fileno
        if descriptor is None or self._map.get(descriptor) is not thing:
            return  # closed meanwhile
        if mask & _READ:
            wasyncore.read(thing)
            if not self.is_mine():
                return  # all of it belongs to the new leader
        if mask & _WRITE and thing._fileno is not None:
            wasyncore.write(thing)
        if not isinstance(thing, Channel) or self._server.in_connection_overflow:
            self._watch_all()  # a new connection, or one that a worker has done with
            return
        if thing._fileno is not None and not thing.requests and thing.writable():
            wasyncore.write(thing)  # what is left over, or the end
        self._watch(descriptor, self._map.get(descriptor))

    def _watch_all(self) -> None:
        """Bring what is watched up to date for every connection there is."""
        self._looked_at = clock.monotonic()
        for descriptor in [one for one in self._watching if one not in self._map]:
            self._watch(descriptor, None)
        for descriptor, thing in list(self._map.items()):
            self._watch(descriptor, thing)

    def _watch(self, descriptor: int, thing: Any) -> None:
        """Watch a descriptor for what waitress wants to know of it; None when it is closed."""
        known, watched = self._watching.get(descriptor, (None, 0))
        if watched and known is not thing:  # closing it ended the watch, and the number is free
            self._selector.unregister(descriptor)
            del self._watching[descriptor]
            watched = 0
        wanted = 0
        if thing is not None:
            if thing.readable():
                wanted = _READ
            if thing.writable() and not thing.accepting:
                wanted |= _WRITE
        if wanted == watched:
            return
        if watched:
            self._selector.unregister(descriptor)
            del self._watching[descriptor]
        if wanted:
            self._selector.register(descriptor, wanted, thing)
            self._watching[descriptor] = (thing, wanted)
