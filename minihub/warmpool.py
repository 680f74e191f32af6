"""Warm parents: when there is one for which command, and whether a start goes through it.

The first start of a command that can be kept warm, or the hub's own start, asks for a parent. A
thread then learns what the command imports, which is kept until packages change, and gets a parent
warm. Until it is, and whenever there is any doubt, servers start cold, as if this were not here.
A parent is renewed when anything it has imported changes on disk, and every day: the seed of
string hashes is the same for all servers of one parent.

Rules of this file: no failure of a warm start is anybody's but the log's, and each is told in one
line; a command that fails twice stays cold until its packages change. A parent that is no longer
used ends when its last server has, since it tells their exit codes.

Threads: any may start servers and ask for the state. One thread of ours gets parents warm and
looks after them. A lock guards what is known, for dictionary work only; it is a leaf.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from . import clock, machine, process, warmparent, warmroot
from .errors import SpawnError
from .warm import PATIENCE_S, Preparation, WarmParent, is_possible, learn, shared_bytes
from .warmplan import Command, Learned, NotWarm, Plan, signature

log = logging.getLogger("minihub.warm")

#: How often parents are looked after.
TICK_S = 2.0
#: How long packages must have stayed as they are before they are imported again.
SETTLE_S = 3.0
#: How old a parent may become.
LIFETIME_S = 86400.0
#: Pauses before another try after failures that may pass; the last one counts for all further.
PAUSES_S = (30.0, 300.0, 3600.0)
#: After how many servers that ended before they answered a command is no longer kept warm.
LAST_STRAW = 2
#: How often a parent is made anew without the modules that made the one before unfit.
MOST_TRIES = 6
#: How many commands are kept warm at once.
MOST_PARENTS = 3
#: How much memory must be free before a parent is made, besides what it may use.
SPARE_BYTES = 256 * 2**20
#: Where a pool writes down what is warm, for those who cannot ask it.
NOTE = "states.json"


@dataclass(frozen=True)
class WarmState:
    """What is known of one command that is kept warm, or was to be."""

    program: str
    #: ``warm``, ``warming`` or ``cold``.
    state: str
    #: Why it is cold, or is getting warm again; "" when there is nothing to say.
    reason: str
    pid: int
    since: datetime | None
    modules: int
    memory_bytes: int
    #: Servers that run and share the parent's memory, and how much they save by that.
    servers: int
    saved_bytes: int
    warm_starts: int
    cold_starts: int
    #: Modules that the parent must not import; each server does that by itself.
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Summary:
    """All that is kept warm, for pages and for whoever wants one line of it."""

    #: ``warm`` when servers start warm, ``warming`` when they soon will, else ``cold``.
    state: str
    #: Why it is cold, or is getting warm again; "" when there is nothing to say.
    reason: str
    #: Processes that servers are forked from, the servers that share memory with them, and how much
    #: less all that is than if each server had its own.
    parents: int
    servers: int
    saved_bytes: int


@dataclass
class _Entry:
    plan: Plan
    parent: WarmParent | None = None
    since: datetime | None = None
    reason: str = ""
    warm_starts: int = 0
    cold_starts: int = 0
    failures: int = 0
    straws: int = 0
    #: Not before this moment is another parent made; None: not before packages change.
    next_try: float | None = 0.0
    #: What was last seen of the files whose change makes a new try worth while.
    seen: Any = None
    seen_since: float = 0.0
    watched: tuple[str, ...] = ()
    is_unsettled: bool = False
    #: What others than root can change, so that it is cold until they cannot.
    not_roots: str | None = None
    told: set[str] = field(default_factory=set)


class Pool:
    """All warm parents of a hub, from :meth:`start` until :meth:`stop`."""

    def __init__(self, directory: Path) -> None:
        """``directory`` is made, private to the hub; what an earlier hub left there is removed."""
        self.directory = process.private_directory(directory)
        self.directory.chmod(0o700)
        for name in os.listdir(directory):
            if name.startswith(("learn-", "minihub-stand-in-")):
                shutil.rmtree(directory / name, ignore_errors=True)
        (directory / NOTE).unlink(missing_ok=True)
        self._lock = threading.Lock()
        self._entries: dict[Command, _Entry] = {}
        self._retired: list[WarmParent] = []
        self._wake = threading.Event()
        self._stopping = False
        #: Servers that start cold at the moment, and what waits for them.
        self._starting_cold = 0
        self._preparation: Preparation | None = None
        #: Whether a parent is being made where there is none.
        self._is_first = False
        self._noted: list[dict[str, str]] = []
        self._thread = threading.Thread(target=self._run, name="warm", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End all parents; their servers stay."""
        self._stopping = True
        self._wake.set()
        with self._lock:
            parents = [entry.parent for entry in self._entries.values() if entry.parent]
            parents += self._retired
            if self._preparation is not None:
                self._preparation.give_up()
        for parent in parents:
            parent.stop()
        self._thread.join(10)

    # -- starting servers ------------------------------------------------------------------

    def ask_for(self, plan: Plan) -> None:
        """See to it that there will be a parent for this plan."""
        with self._lock:
            entry = self._entries.get(plan.command)
            if entry is None:
                if len(self._entries) >= MOST_PARENTS:
                    return
                self._entries[plan.command] = _Entry(plan)
            elif entry.plan != plan:  # the configuration of a later spawner differs
                return
        self._wake.set()

    def start_server(
        self,
        plan: Plan,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str | os.PathLike[str] | None,
        log_path: str | os.PathLike[str],
        launch: process.LaunchSpec,
        timeout_s: float,
        marker: str = "",
    ) -> process.Process:
        """Start a server from the plan's parent. Raises NotWarm, with nothing left behind."""
        self.ask_for(plan)
        with self._lock:
            entry = self._entries.get(plan.command)
            parent = entry.parent if entry else None
        try:
            if entry is None:
                raise NotWarm(f"{MOST_PARENTS} other programs are kept warm")
            if parent is None:
                raise NotWarm(entry.reason or "its parent is not warm yet")
            if not parent.is_alive():
                raise NotWarm("its parent has ended")
            if not parent.is_fresh():
                self._wake.set()
                raise NotWarm("its packages have changed")
            parent.judge(argv, env)
            started = parent.start_server(
                argv,
                env=env,
                cwd=cwd,
                log_path=log_path,
                launch=launch,
                timeout_s=timeout_s,
                marker=marker,
            )
        except NotWarm:
            if entry is not None:
                entry.cold_starts += 1
            raise
        entry.warm_starts += 1
        return started

    @contextlib.contextmanager
    def cold_start(self) -> Iterator[None]:
        """Hold back, for a while, what is getting warm as long as this lasts."""
        with self._lock:
            self._starting_cold += 1
            preparation = self._preparation
        if preparation is not None:
            preparation.hold()
        try:
            yield
        finally:
            with self._lock:
                self._starting_cold -= 1
                preparation = None if self._starting_cold else self._preparation
            if preparation is not None:
                preparation.go_on()

    def soon(self, is_crowd: bool) -> bool:
        """Return whether a parent is getting warm, and there is none yet. Takes no lock.

        With a crowd that waits for it, it is held back no longer for those who start cold.
        """
        preparation = self._preparation
        if self._is_first and is_crowd and preparation is not None:
            preparation.hurry()
        return self._is_first

    def blame(self, plan: Plan) -> None:
        """Note that a server of this plan's parent ended before it answered."""
        with self._lock:
            entry = self._entries.get(plan.command)
            if entry is None:
                return
            entry.straws += 1
            if entry.straws < LAST_STRAW or entry.parent is None:
                return
            self._retire(entry)
            entry.next_try = None
            entry.reason = "servers that it started ended before they answered"
        log.warning("%s starts cold from now on: %s", plan.command.script, entry.reason)

    def states(self) -> list[WarmState]:
        """Return what is known of each command."""
        with self._lock:
            entries = list(self._entries.values())
        return [_describe(entry) for entry in entries]

    # -- looking after parents -------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            with self._lock:
                entries = list(self._entries.values())
            for entry in entries:
                try:
                    self._look_after(entry)
                except Exception:  # the next look may go well
                    log.exception("Keeping %s warm", entry.plan.command.script)
                    self._put_off(entry, "the hub met an error")
            with self._lock:
                self._retired = [parent for parent in self._retired if parent.is_alive()]
            self._note()
            self._wake.wait(TICK_S)
            self._wake.clear()

    def _note(self) -> None:
        """Write down what is warm and what is not, when that has changed."""
        with self._lock:
            entries = list(self._entries.values())
        facts = [
            {"program": one.plan.command.script, "state": _state(one), "reason": one.reason}
            for one in entries
        ]
        if facts == self._noted:
            return
        fresh = self.directory / f"{NOTE}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with contextlib.suppress(OSError):  # a full disk is told by others
            with os.fdopen(os.open(fresh, flags, 0o600), "w") as file:
                json.dump(facts, file)
            fresh.replace(self.directory / NOTE)
            self._noted = facts

    def _look_after(self, entry: _Entry) -> None:
        parent, now = entry.parent, clock.monotonic()
        if parent is not None and not parent.is_alive():
            log.warning("The warm parent of %s has ended", entry.plan.command.script)
            with self._lock:
                self._retire(entry)
            self._put_off(entry, "its parent has ended")
        elif parent is not None and not parent.is_fresh():
            log.info("%s has changed: it is made warm again", entry.plan.command.script)
            with self._lock:
                self._retire(entry)
            entry.reason = "its packages have changed"
            entry.next_try, entry.is_unsettled, entry.straws = now, True, 0
        elif parent is not None and now - parent.ready_since > LIFETIME_S:
            self._make(entry)
        if entry.parent is None:
            if entry.not_roots is not None and warmroot.is_roots(entry.not_roots):
                entry.not_roots, entry.next_try = None, now
            if entry.next_try is None and self._has_changed(entry):
                entry.next_try, entry.is_unsettled, entry.straws = now, True, 0
            if entry.is_unsettled and not self._is_settled(entry):
                return
            if entry.next_try is not None and entry.next_try <= now:
                self._make(entry)

    def _retire(self, entry: _Entry) -> None:
        if entry.parent is not None:
            entry.parent.retire()
            self._retired.append(entry.parent)
            entry.parent = None

    def _put_off(self, entry: _Entry, reason: str) -> None:
        pause_s = PAUSES_S[min(entry.failures, len(PAUSES_S) - 1)]
        entry.failures += 1
        entry.reason = reason
        entry.next_try = clock.monotonic() + pause_s

    def _snapshot(self, entry: _Entry) -> Any:
        return [
            signature(entry.plan.command),
            *([path, warmparent.stamp(path)] for path in entry.watched),
        ]

    def _has_changed(self, entry: _Entry) -> bool:
        return entry.seen is not None and self._snapshot(entry) != entry.seen

    def _is_settled(self, entry: _Entry) -> bool:
        """Return whether packages have stayed as they are for a while."""
        now, found = clock.monotonic(), self._snapshot(entry)
        if found != entry.seen:
            entry.seen, entry.seen_since = found, now
        entry.is_unsettled = now - entry.seen_since < SETTLE_S
        return not entry.is_unsettled

    def _make(self, entry: _Entry) -> None:
        """Get a parent warm and put it in the place of the one there may be."""
        self._is_first = entry.parent is None
        try:
            self._try_to_make(entry)
        finally:
            self._is_first = False

    def _try_to_make(self, entry: _Entry) -> None:
        plan = entry.plan
        began = clock.monotonic()
        parent: WarmParent | None = None
        preparation = Preparation(PATIENCE_S)
        with self._lock:
            self._preparation = preparation
            if self._starting_cold:
                preparation.hold()
        try:
            free = machine.free_memory_bytes()
            if free < SPARE_BYTES + (plan.mem_limit or 0):
                self._put_off(entry, "too little memory is free")
                return
            if plan.is_guarded:
                warmroot.check(plan)
            known = self._known(plan)
            learned = known or learn(plan, self.directory, preparation)
            for tries_left in reversed(range(MOST_TRIES)):
                parent = WarmParent(plan, learned, self.directory)
                try:
                    parent.start(preparation)
                    break
                except NotWarm as error:
                    more = set(parent.report.get("leave_out", ())) - set(learned.left_out)
                    if not more or not tries_left:
                        raise
                    learned = replace(learned, left_out=sorted({*learned.left_out, *more}))
                    _tell_left_out(plan, more, str(error))
        except (NotWarm, SpawnError, OSError) as error:
            self._failed(entry, parent, error)
            return
        finally:
            with self._lock:
                self._preparation = None
        watched = tuple(path for path in parent.report["files"] if os.path.isdir(path))
        with self._lock:
            self._retire(entry)
            entry.parent, entry.since, entry.reason = parent, clock.utcnow(), ""
            entry.watched, entry.failures = watched, 0
        entry.seen = self._snapshot(entry)
        if learned is not known:
            self._keep(plan, learned, entry.seen, watched)
        if self._stopping:
            parent.stop()
        log.info(
            "%s is warm: %d modules, %d MB, after %.1f s",
            plan.command.script,
            parent.report["modules"],
            parent.memory_bytes() // 2**20,
            clock.monotonic() - began,
        )

    def _failed(self, entry: _Entry, parent: WarmParent | None, error: Exception) -> None:
        reason = str(error)
        path = getattr(error, "path", None)
        # A refusal that is not about whose it is does not go away by looking again.
        entry.not_roots = None if path is None or warmroot.is_roots(path) else path
        report = parent.report if parent is not None else {}
        entry.watched = tuple(path for path in report.get("files", ()) if os.path.isdir(path))
        entry.seen = self._snapshot(entry)
        if report.get("problems") or entry.not_roots:  # another try would end in the same
            entry.reason, entry.next_try = reason, None
        else:
            self._put_off(entry, reason)
        if reason not in entry.told and not self._stopping:
            entry.told.add(reason)
            is_loud = entry.plan.is_asked_for or entry.not_roots is None
            level = logging.WARNING if is_loud else logging.INFO
            log.log(level, "%s starts cold: %s", entry.plan.command.script, reason)

    # -- what was learned ------------------------------------------------------------------

    def _place(self, plan: Plan) -> Path:
        given = [plan.command.argv, sorted(plan.env.items()), plan.args, plan.is_guarded]
        text = json.dumps(given)
        return self.directory / f"learned-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"

    def _known(self, plan: Plan) -> Learned | None:
        """Return what was learned of this plan; None when nothing was, or files have changed."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(self._place(plan).read_text())
            entry = _Entry(plan, watched=tuple(known["watched"]))
            if self._snapshot(entry) == known["seen"]:
                return Learned(**known["learned"])
        return None

    def _keep(self, plan: Plan, learned: Learned, seen: Any, watched: Sequence[str]) -> None:
        text = json.dumps({"seen": seen, "watched": watched, "learned": asdict(learned)})
        place = self._place(plan)
        for old in self.directory.glob("learned-*.json"):
            if old != place and clock.utcnow().timestamp() - old.stat().st_mtime > 30 * 86400:
                old.unlink(missing_ok=True)
        with open(place, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(text)


def _state(entry: _Entry) -> str:
    if entry.parent is not None:
        return "warm"
    return "cold" if entry.next_try is None or entry.failures else "warming"


def _tell_left_out(plan: Plan, modules: set[str], reason: str) -> None:
    """Log which modules a parent is made without; loudly when the configuration names one."""
    level = logging.WARNING if modules & set(plan.preload) else logging.INFO
    names = ", ".join(sorted(modules))
    log.log(level, "%s gets warm without %s: %s", plan.command.script, names, reason)


def _describe(entry: _Entry) -> WarmState:
    parent = entry.parent
    state = WarmState(
        program=entry.plan.command.script,
        state=_state(entry),
        reason=entry.reason,
        pid=0,
        since=None,
        modules=0,
        memory_bytes=0,
        servers=0,
        saved_bytes=0,
        warm_starts=entry.warm_starts,
        cold_starts=entry.cold_starts,
    )
    if parent is None:
        return state
    running = parent.running()
    return replace(
        state,
        pid=parent.pid,
        since=entry.since,
        modules=parent.report["modules"],
        left_out=tuple(parent.learned.left_out),
        memory_bytes=parent.memory_bytes(),
        servers=len(running),
        saved_bytes=max(0, sum(map(shared_bytes, running)) - shared_bytes(parent.pid, own=True)),
    )


def noted(directory: Path) -> list[dict[str, str]]:
    """Return ``program``, ``state`` and ``reason`` of each command, as a running hub noted them."""
    try:
        found = json.loads((directory / NOTE).read_text())
        return [{key: str(one[key]) for key in ("program", "state", "reason")} for one in found]
    except (OSError, ValueError, KeyError, TypeError):
        return []


# -- the hub's ----------------------------------------------------------------------------

_pool: Pool | None = None
#: Why servers start cold where no command is to be kept warm.
_why_cold = ""


@contextlib.contextmanager
def kept(directory: Path) -> Any:
    """Let servers of this process start warm, as long as this lasts."""
    global _pool
    note_cold("")
    if not is_possible():
        note_cold("this system cannot fork a process that has imported things")
        yield None
        return
    _pool = Pool(directory)
    _pool.start()
    try:
        yield _pool
    finally:
        pool, _pool = _pool, None
        pool.stop()


def pool() -> Pool | None:
    """Return the pool of this hub; None where nothing is kept warm."""
    return _pool


def cold_start() -> Any:
    """Return a context for the time in which a server starts cold."""
    return _pool.cold_start() if _pool is not None else contextlib.nullcontext()


def soon(is_crowd: bool) -> bool:
    """Return whether servers will start warm in a while, the sooner if a crowd waits for it.

    Takes no lock.
    """
    pool = _pool
    return pool is not None and pool.soon(is_crowd)


def note_cold(reason: str) -> None:
    """Remember why servers of this hub start cold, for :func:`summary`."""
    global _why_cold
    _why_cold = reason


def states() -> list[WarmState]:
    """Return what is known of every command that is kept warm, or was to be.

    Empty when none was asked for: :func:`summary` says why. Reads the memory maps of all servers
    that started warm, some milliseconds for each: nothing for a thread that answers requests.
    """
    return _pool.states() if _pool is not None else []


def summary() -> Summary:
    """Return all of :func:`states` in one; as slow as that."""
    found = states()
    if not found:
        return Summary("cold", _why_cold, 0, 0, 0)
    first = min(found, key=lambda one: ("warm", "warming", "cold").index(one.state))
    return Summary(
        state=first.state,
        reason=first.reason,
        parents=sum(one.pid > 0 for one in found),
        servers=sum(one.servers for one in found),
        saved_bytes=sum(one.saved_bytes for one in found),
    )
