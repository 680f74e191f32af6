"""Holds ``Spawner.mem_limit``: looks what each server's processes use, warns, and ends the largest.

A server that has used four fifths of its limit is warned about, in the log and on its user's page.
At the limit the process that uses most is ended, so that a notebook dies and not the server with
all others; the server itself is the last. What counts is PSS, the memory with shared pages divided
among their users; address space (RLIMIT_AS) says nothing about memory.

Rules of this file: it ends processes of servers over their limit and nothing else. Looking costs at
most a twentieth of one processor, however many servers there are, unless one is over its limit.

Threads: one of its own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable

from . import clock, usage
from .limits import size, tree_of
from .server import Server
from .texts import Text

log = logging.getLogger("minihub.limits")

#: The share of a limit at which a warning is given, and below which it is taken back.
WARN_SHARE = 0.8
CALM_SHARE = 0.7
#: How often it looks; less often when a look takes longer than a twentieth of this.
STEP_S = 1.0
#: How often while a server is over its limit.
HURRY_S = 0.1
#: How long a process that was sent SIGKILL may take to give its memory back.
GONE_S = 2.0
REST = 20


class MemoryWatchdog:
    """Looks at all servers with a limit until :meth:`stop`."""

    def __init__(
        self, servers: Callable[[], Iterable[Server]], on_end: Callable[[Server], None]
    ) -> None:
        """``servers`` returns the active ones; ``on_end`` is told that a server was ended."""
        self._servers = servers
        self._on_end = on_end
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hub-memory", daemon=True)
        self._warned: set[Server] = set()
        #: Servers whose processes we may not end; told once.
        self._stuck: set[Server] = set()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(5)

    def _run(self) -> None:
        pause = STEP_S
        while not self._stopping.wait(pause):
            began = clock.monotonic()
            try:
                hurry = self.look()
            except Exception:  # the next look may go well
                log.exception("Looking at the servers' memory failed")
                hurry = False
            took = clock.monotonic() - began
            pause = HURRY_S if hurry else max(STEP_S, took * REST)

    def look(self) -> bool:
        """Look at every server once; return whether one was over its limit."""
        trees = {}
        for server in self._servers():
            tree = tree_of(server)
            if tree is not None and server.spawner.mem_limit:
                trees[server] = tree
        self._warned &= set(trees)
        self._stuck &= set(trees)
        if not trees:
            return False
        over = False
        for server, use in zip(trees, usage.of(list(trees.values())), strict=True):
            over |= self._judge(server, use, server.spawner.mem_limit)
        return over

    def _judge(self, server: Server, use: usage.Usage, limit: int) -> bool:
        if use.rss_bytes < limit * CALM_SHARE:  # PSS is never more
            used = use.rss_bytes
        else:
            used = use.pss_bytes
        if used >= limit:
            return self._end_largest(server, use, used, limit)
        if used >= limit * WARN_SHARE and server not in self._warned:
            self._warned.add(server)
            self._warn(server, used, limit)
        elif used < limit * CALM_SHARE and server in self._warned:
            self._warned.discard(server)
            server.drop_warning()
        return False

    def _warn(self, server: Server, used: int, limit: int) -> None:
        log.warning(
            "Server %s uses %s of the %s of memory it may (Spawner.mem_limit)",
            server.full_name,
            size(used),
            size(limit),
        )
        told = Text(
            "Your server uses %(used)s of the %(limit)s of memory it may use. At the limit its "
            "largest program is ended: save your work and close what you do not need.",
            used=size(used),
            limit=size(limit),
        )
        server.note(told, warning=True)

    def _end_largest(self, server: Server, use: usage.Usage, used: int, limit: int) -> bool:
        """End one process of the server; return whether there was one that could be."""
        order = sorted(use.members, key=lambda one: (one.is_server, -one.pss_bytes))
        victim = next((one for one in order if one.kill()), None)
        if victim is None:
            if server not in self._stuck:
                self._stuck.add(server)
                log.error(
                    "Server %s is over its limit of memory (Spawner.mem_limit), and no process of "
                    "it may be ended",
                    server.full_name,
                )
            return False
        taken = victim.pss_bytes
        log.error(
            "Server %s used %s of memory, its limit is %s (Spawner.mem_limit): ended %s "
            "(pid %d), which used %s",
            server.full_name,
            size(used),
            size(limit),
            "the server itself" if victim.is_server else victim.name,
            victim.pid,
            size(taken),
        )
        facts = {
            "used": size(used), "limit": size(limit), "program": victim.name, "taken": size(taken),
        }  # fmt: skip
        if victim.is_server:
            told = Text(
                "Your server used %(used)s of memory and may use %(limit)s, so it was ended "
                "(%(program)s, which used %(taken)s).",
                **facts,
            )
        else:
            told = Text(
                "Your server used %(used)s of memory and may use %(limit)s, so its largest program "
                "was ended (%(program)s, which used %(taken)s).",
                **facts,
            )
        server.note(told)
        if victim.is_server:
            self._on_end(server)
        self._wait_gone(victim)
        return True

    def _wait_gone(self, victim: usage.Member) -> None:
        """Wait until a process has ended: what it used still counts, and another would follow."""
        deadline = clock.monotonic() + GONE_S
        while clock.monotonic() < deadline and not victim.is_gone():
            if self._stopping.wait(0.01):
                return
