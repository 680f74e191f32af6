"""The hub: the only code that moves store, spawners and proxy together.

Rules of this file: requests look at state and return; whatever starts or stops a process, or
waits for one, runs in the pool. Every start undoes itself completely when any step fails, and
keeps the reason for the page. A route is removed before its server is stopped, and added only
when the server answers.

Threads: any may call the public methods. ``_lock`` guards the registry of servers and the
counting of limits, and is held for dictionary work only. The pool's threads run starts and
stops, one per server at a time, decided by the server's state.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from . import aio, clock, deadline, limits, metrics, startwords, warmpool
from .accounts import Accounts
from .activity import Activity
from .audit import Audit
from .authstate import AuthStates
from .burst import Turns
from .directory import Names
from .errors import BadRequest, MinihubError, ProxyError, SpawnError, SpawnTimeout, StoreError
from .hubroutes import HubRoutes
from .line import Line
from .models import User
from .oauth import OAuthProvider
from .options import JupyterHub
from .registry import Registry
from .roles import Roles
from .server import Server, State
from .serverrows import ServerRows
from .servicerunner import ServiceRunner
from .spawner import HubInfo, Spawner, UserInfo
from .store import Store
from .texts import Text

log = logging.getLogger("minihub.hub")

POOL_SIZE = 128
#: How long a process that was sent SIGKILL may take to end.
END_WAIT_S = 5.0
#: How often a spawner is asked, Spawner.start_timeout each time, for a server of the last hub.
CHECKS = 5
#: How long the hub's own stop waits for all servers together, beyond one server's ladder.
STOP_GRACE_S = 15.0


class Cancelled(SpawnError):
    """Raised inside a start that somebody stopped."""


class Hub:
    """All servers of all users, and what it takes to start and stop them."""

    #: Called once when too many starts failed in a row; ends the program.
    on_give_up: Callable[[], None] = staticmethod(lambda: None)

    def __init__(
        self,
        *,
        options: JupyterHub,
        config: Any,
        store: Store,
        accounts: Accounts,
        oauth: OAuthProvider,
        authenticator: Any,
        proxy: Any,
        info: HubInfo,
        services: ServiceRunner,
        roles: Roles,
        auth_states: AuthStates,
        spawner_class: type[Spawner],
    ) -> None:
        self.options = options
        self.config = config
        self.store = store
        self.accounts = accounts
        self.oauth = oauth
        self.authenticator = authenticator
        self.proxy = proxy
        self.info = info
        self.services = services
        self.roles = roles
        self.auth_states = auth_states
        self.spawner_class = spawner_class
        self.activity = Activity(store, step_s=options.activity_resolution)
        self.names = Names(store)
        self.audit = Audit(store)
        self.routes = HubRoutes(
            proxy=proxy,
            info=info,
            services=services,
            activity=self.activity,
            servers=self.active_servers,
            person=self.person,
            hub_routespec=options.hub_routespec,
        )
        self.promises = limits.Promises(self.active_servers)
        self._turns = Turns(soon=warmpool.soon)
        self.usual = limits.UsualTime()
        self._failures = limits.Failures(lambda: self.on_give_up())
        accounts.on_logout = self.close_tunnels
        self.rows = ServerRows(store, accounts, oauth, roles)
        self._servers = Registry()
        self._lock = threading.Lock()
        self._pool = futures.ThreadPoolExecutor(POOL_SIZE, thread_name_prefix="server")
        self.line = Line(options, self._pool.submit)
        self._stopping = threading.Event()
        #: Set when the start does not wait any more for servers of the last hub.
        self._resumed = threading.Event()
        #: Stopped servers whose rows could not be cleaned, as on a full disk.
        self._unclean: deque[Server] = deque()

    # -- looking ---------------------------------------------------------------------------

    def server(self, user: User, name: str = "") -> Server:
        """Return the user's server of that name, running or not."""
        with self._lock:
            return self._servers.get(user.id, name) or Server(user.id, user.name, name)

    def servers_of(self, user: User) -> dict[str, Server]:
        """Return the user's active servers, and those whose last start failed, by name."""
        with self._lock:
            return self._servers.of_user(user.id)

    def active_servers(self) -> list[Server]:
        """Return every server that is not stopped."""
        with self._lock:
            return self._active()

    def active_by_user(self) -> dict[int, list[Server]]:
        """Return every server that is not stopped, by its user's id."""
        found: dict[int, list[Server]] = {}
        for server in self.active_servers():
            found.setdefault(server.user_id, []).append(server)
        return found

    def server_url(self, user_name: str, server_name: str = "") -> str:
        """Return where a server is reached: ``BASEuser/NAME/[SERVER/]``, with the user's own host
        in front if there is one."""
        person = self.person(user_name)
        return person.host + person.server_url(server_name)

    def person(self, name: str, **facts: Any) -> UserInfo:
        """Return a user as others see one, with the addresses that follow from the name."""
        return UserInfo(
            name,
            base_url=self.info.base_url,
            host=self.info.host_of("user", name),
            domain=self.info.domain,
            **facts,
        )

    def user_info(self, user: User) -> UserInfo:
        """Return the user as spawners, authenticators and hooks see one."""
        return self.person(
            user.name,
            id=user.id,
            admin=user.admin,
            groups=list(self.roles.rights_of_user(user).groups),
            auth_state=lambda: self.auth_states.load(user.id),
        )

    def poll_now(self, server: Server) -> None:
        """Look whether a ready server's process still lives, and tidy up if not."""
        try:
            if server.ready and not self._is_alive(server):
                self._gone(server)
        except Exception:  # a spawner may be anybody's
            log.exception("Looking whether %s runs failed", server.full_name)

    def close_tunnels(self, user_id: int) -> None:
        """Make the proxy close, in the background, what is open to the servers of a user.

        Whoever may still enter opens it again; who has logged out is asked who they are.
        """
        for server in self.active_servers():
            if server.user_id == user_id and server.ready:
                self._pool.submit(self._close_tunnels, server)

    def _close_tunnels(self, server: Server) -> None:
        try:
            self.routes.close_tunnels(server)
        except Exception as error:
            log.error("Closing the WebSockets of %s: %s", server.full_name, error)

    def poll_soon(self, server: Server) -> None:
        """Have :meth:`poll_now` look at a server, in the background."""
        self._pool.submit(self.poll_now, server)

    def tidy_up_after(self, server: Server) -> None:
        """Notice, in the background, that a server's process was ended."""

        def wait_and_look() -> None:
            server.spawner.wait_exit(END_WAIT_S)
            self.poll_now(server)

        self._pool.submit(wait_and_look)

    # -- starting --------------------------------------------------------------------------

    def start_server(
        self,
        user: User,
        name: str = "",
        *,
        user_options: dict[str, Any] | None = None,
        display_name: str = "",
        handler: Any = None,
        room: limits.NamedRoom | None = None,
    ) -> Server:
        """Begin to start a server and return it, SPAWNING; one already SPAWNING is returned.

        Without ``user_options`` those of its last start count, and without ``display_name`` the
        one it has. Raises BadRequest when it runs or stops, or ``room`` has none for its name,
        TooMany at the limits. What goes wrong later is in the server's ``failure``.
        """
        with limits.noted(), self._lock:
            server = self._servers.get(user.id, name) or Server(user.id, user.name, name)
            if server.state is State.SPAWNING:
                return server
            if server.state is State.READY:
                raise BadRequest(Text("%(server)s is already running", server=server.full_name))
            if server.pending:
                raise BadRequest(
                    Text(
                        "%(server)s is pending %(pending)s",
                        server=server.full_name,
                        pending=server.pending,
                    )
                )
            if room is not None:
                mine = self._servers.of_user(user.id).values()
                room.check(name, (one.name for one in mine if one.active))
            waits = self.line.must_wait(self._active())
            server.move(State.SPAWNING)  # STOPPED -> SPAWNING
            self._servers.add(server)
            server.display_name = display_name or server.display_name
            work = partial(self._run_start, server, user, user_options, handler)
            self.line.start(server, work, waits=waits)
        return server

    def _active(self) -> list[Server]:
        return [one for one in self._servers if one.active]

    def admit(self) -> None:
        """Start those who wait in line for whom there is room now."""
        with self._lock:
            self.line.admit(self._active)

    def _run_start(
        self, server: Server, user: User, user_options: dict[str, Any] | None, handler: Any
    ) -> None:
        began = clock.monotonic()
        try:
            self._start(server, user, user_options, handler)
        except SpawnError as error:
            self._start_failed(server, error, clock.monotonic() - began)
        except (StoreError, ProxyError) as error:
            log.error("Starting %s: %s", server.full_name, error)
            self._start_failed(server, startwords.unusable(error), clock.monotonic() - began)
        except Exception as error:
            log.exception("Starting %s failed", server.full_name)
            wrapped = SpawnError(Text("the hub met an error: %(error)s", error=str(error)))
            self._start_failed(server, wrapped, clock.monotonic() - began)
        else:
            self._failures.note_success()
            took = clock.monotonic() - began
            self.usual.note(took)
            metrics.spawned(took)
            log.info("Server %s is ready after %.1f s", server.full_name, took)
        self.admit()

    def _start(
        self, server: Server, user: User, user_options: dict[str, Any] | None, handler: Any
    ) -> None:
        person = self.user_info(user)
        spawner = self.new_spawner(person, server.name)
        spawner.handler = handler
        server.spawner = spawner
        spawner.still_wanted = partial(self._go_on, server)
        spawner.apply_group_overrides()
        self.rows.give_credentials(server, spawner, user_options)
        if self.auth_states.enabled:
            spawner.run_hook("auth_state_hook", self.auth_states.load(server.user_id))
        spawner.take_user_options()
        _in_time(spawner, self.authenticator.pre_spawn_start, person)
        spawner.run_hook("pre_spawn_hook")
        self.promises.give(server, spawner.mem_guarantee)
        self._go_on(server)
        server.follow(spawner)
        with self._turn(server):
            server.target = spawner.run_start()
            self.rows.save_state(server)
            waiting = Text("Waiting for the server to answer...")
            server.add_event({"progress": 70, "message": waiting})
            url = server.target + spawner.server_url
            spawner.wait_ready(url)
        self._go_on(server)
        self.routes.add_server(server, partial(self._go_on, server))
        server.started = clock.utcnow()
        self.rows.save_started(server)
        if not server.move(State.READY, only_from=State.SPAWNING):  # SPAWNING -> READY
            raise Cancelled(Text("the start was cancelled"))
        self.activity.server(server.row_id, server.user_id, server.started, step_s=0)

    def _turn(self, server: Server) -> AbstractContextManager[None]:
        """Return the wait for a turn to start, where it is this machine that has the work."""
        if limits.is_here(server.spawner):
            return self._turns.taken(
                server.user_name, lambda: self._go_on(server), server.add_place_in_line
            )
        return nullcontext()

    def _go_on(self, server: Server) -> None:
        if server.cancelled.is_set() or self._stopping.is_set():
            raise Cancelled(Text("the start was cancelled"))

    def new_spawner(self, person: UserInfo, name: str = "") -> Spawner:
        """Return a spawner of the configured class for a user's server; it has started nothing."""
        spawner = self.spawner_class(
            user=person, server_name=name, hub=self.info, config=self.config
        )
        spawner.authenticator = self.authenticator
        return spawner

    def _start_failed(self, server: Server, error: SpawnError, took_s: float) -> None:
        cancelled = isinstance(error, Cancelled)
        if cancelled:
            log.info("Start of %s cancelled", server.full_name)
        else:
            log.error("Server %s did not start: %s", server.full_name, error.reason)
            metrics.not_spawned(
                took_s,
                "timeout" if isinstance(error, SpawnTimeout) else "error",
                waited=server.target is not None,
                refused=error.status < 500,
            )
            if error.status >= 500 and server.spawner is not None:
                self._failures.note_failure(server.spawner.consecutive_failure_limit)
        self._clean_up(server, now=True)
        server.failure = None if cancelled else error
        failed = Text("Spawn failed: %(reason)s", reason=error.reason)
        server.add_event({"progress": 100, "failed": True, "message": failed})
        server.move(State.STOPPED)  # SPAWNING or STOPPING -> STOPPED
        self._forget(server)

    # -- stopping --------------------------------------------------------------------------

    def stop_server(
        self, server: Server, *, why: str = "asked", tell: str = "", remove: bool = False
    ) -> Server:
        """Begin to stop a server, or cancel its start; a stopped one stays as it is.

        ``why`` is for the log, ``tell`` for its user; ``remove``: forget all about it afterwards.
        """
        with self._lock:
            server.notice = None
            if tell:
                server.note(tell)
            server.remove_when_stopped |= remove
            if server.state is State.SPAWNING:
                server.cancelled.set()  # whoever waits for code of others stops waiting
                server.move(State.STOPPING, only_from=State.SPAWNING)  # SPAWNING -> STOPPING
                if self.line.leave(server):
                    never = Cancelled(Text("the start was cancelled"))
                    self._pool.submit(self._start_failed, server, never, 0.0)
                return server
            # CHECKING -> STOPPING or READY -> STOPPING
            if not any(
                server.move(State.STOPPING, only_from=state)
                for state in (State.CHECKING, State.READY)
            ):
                return server
        log.info("Stopping server %s: %s", server.full_name, why)
        self._pool.submit(self._run_stop, server)
        return server

    def _run_stop(self, server: Server) -> None:
        began = clock.monotonic()
        try:
            self._clean_up(server, now=False)
        except Exception:
            log.exception("Stopping %s failed", server.full_name)
        try:
            failed = server.spawner is not None and self._is_alive(server)
        except TimeoutError:
            log.error("The spawner of %s does not say whether it has stopped", server.full_name)
            failed = False
        except Exception:  # a spawner may be anybody's
            log.exception("Looking whether %s has stopped failed", server.full_name)
            failed = False
        metrics.stopped(clock.monotonic() - began, failed=failed)
        if failed:
            server.move(State.READY)  # STOPPING -> READY: it could not be stopped
            return
        server.move(State.STOPPED)  # STOPPING -> STOPPED
        self._forget(server)

    def _clean_up(self, server: Server, *, now: bool) -> None:
        """Take away route, process, token and the row's target; each step whatever the others do.

        ``now`` skips the gentle part of the stop ladder. Rows that could not be written are
        cleaned later.
        """
        spawner = server.spawner
        steps: list[tuple[str, Any]] = [("route", lambda: self.routes.remove_server(server))]
        if spawner is not None:
            person = spawner.user
            spawner.is_over = True
            steps += [
                ("process", lambda: aio.call(spawner.stop, now=now, timeout_s=_ladder_s(spawner))),
                ("hook", lambda: spawner.run_hook("post_stop_hook")),
                (
                    "session",
                    lambda: _in_time(spawner, self.authenticator.post_spawn_stop, person),
                ),
            ]
        steps.append(("rows", lambda: self.rows.clean(server)))
        for what, step in steps:
            try:
                step()
            except (MinihubError, TimeoutError) as error:
                log.error("Stopping %s, its %s: %s", server.full_name, what, error)
                if what == "rows":
                    self._unclean.append(server)
            except Exception:
                log.exception("Stopping %s, its %s", server.full_name, what)
        server.target = None

    def clean_again(self) -> None:
        """Clean the rows that could not be written when their servers stopped."""
        while self._unclean:
            self.rows.clean(self._unclean[0], unless=self._servers.has_newer)
            self._unclean.popleft()

    def remove_server(self, server: Server) -> None:
        """Forget everything about a stopped server: its row, its OAuth client, its shares."""
        self.rows.remove(server)
        self.activity.forget()
        with self._lock:
            self._servers.remove(server.user_id, server.name)

    def forget_failures(self, user_id: int) -> None:
        """Drop what the registry keeps of a user's failed starts."""
        with self._lock:
            for name, server in self._servers.of_user(user_id).items():
                if not server.active:
                    self._servers.remove(user_id, name)

    def _forget(self, server: Server) -> None:
        """Drop a stopped server from the registry unless its user is still to be told why."""
        if server.remove_when_stopped:
            self.remove_server(server)
            return
        with self._lock:
            if server.active or self._servers.get(server.user_id, server.name) is not server:
                return
            server.drop_warning()
            if server.failure is None and server.notice is None:
                self._servers.remove(server.user_id, server.name)

    def _is_alive(self, server: Server) -> bool:
        began = clock.monotonic()
        alive = aio.call(server.spawner.poll, timeout_s=server.spawner.start_timeout) is None
        metrics.observe(
            "server_poll_duration_seconds",
            clock.monotonic() - began,
            status="running" if alive else "stopped",
        )
        return alive

    def _gone(self, server: Server) -> None:
        """Tidy up after a server whose process ended by itself."""
        if not server.move(State.STOPPING, only_from=State.READY):  # READY -> STOPPING
            return
        log.warning("Server %s has ended by itself", server.full_name)
        self._run_stop(server)

    # -- routes ----------------------------------------------------------------------------

    def check_routes(self, *, note_activity: bool = True) -> None:
        """Make the proxy's routes what they should be, and note the activity it saw."""
        self.routes.check(note_activity=note_activity)

    # -- start and stop of the hub ---------------------------------------------------------

    def know_left_running(self) -> None:
        """Know the servers of the last hub, pending ``check``, before anybody can ask for them."""
        for server in self._left_running():
            server.move(State.CHECKING)  # STOPPED -> CHECKING
            self._servers.add(server)

    def resume(self) -> None:
        """Take over the servers known to be left running; tidy up after those that ended.

        All are looked at side by side. After ``init_spawners_timeout`` seconds this returns, and
        those not known by then stay pending ``check`` until they are.
        """
        left = [one for one in self.active_servers() if one.state is State.CHECKING]
        looks = [self._pool.submit(self._look_again, server) for server in left]
        patience = self.options.init_spawners_timeout
        late = futures.wait(looks, patience if patience >= 0 else None).not_done
        self._resumed.set()
        if late:
            log.warning(
                "%d servers of the last hub do not say yet whether they run: the start goes on"
                " without them (JupyterHub.init_spawners_timeout)",
                len(late),
            )

    def _look_again(self, server: Server) -> None:
        """Find out whether a server of the last hub still runs."""
        try:
            alive = server.started is not None and self._answers_alive(server)
        except Exception:  # a spawner may be anybody's
            log.exception("Looking whether %s runs failed: it counts as ended", server.full_name)
            alive = False
        if alive:
            if server.move(State.READY, only_from=State.CHECKING):  # CHECKING -> READY: adopted
                log.info("Server %s still runs", server.full_name)
                if self._resumed.is_set():  # nobody else sees to its route now
                    self.routes.add_server(server)
            return
        if server.move(State.STOPPING, only_from=State.CHECKING):  # CHECKING -> STOPPING
            log.warning("Server %s has ended while the hub was away", server.full_name)
            self._clean_up(server, now=True)
            server.move(State.STOPPED)  # STOPPING -> STOPPED
            self._forget(server)

    def _answers_alive(self, server: Server) -> bool:
        """Ask a server's spawner until it answers; one that is slow says nothing about a server.

        After some tries the server counts as running: it can then be used, if it is, and stopped.
        """
        for left in range(CHECKS - 1, -1, -1):
            if self._stopping.is_set() or server.state is not State.CHECKING:
                break
            try:
                return self._is_alive(server)
            except TimeoutError:
                then = "asking again" if left else "its server counts as running"
                log.warning("The spawner of %s does not answer; %s", server.full_name, then)
        return True

    def reset(self) -> None:
        """Delete everything in the database, after stopping what an earlier hub left running."""
        for server in self._left_running():
            log.warning("Stopping server %s, which is about to be forgotten", server.full_name)
            try:
                aio.call(server.spawner.stop, timeout_s=_ladder_s(server.spawner))
            except Exception:  # a spawner may be anybody's
                log.exception("Stopping %s", server.full_name)
        self.store.open(reset=True)

    def _left_running(self) -> Iterator[Server]:
        """Yield the servers that ran when the last hub ended, each with its spawner."""
        for server, user, state in self.rows.left_running():
            server.spawner = self.new_spawner(self.user_info(user), server.name)
            try:
                deadline.in_time("load_state", server.spawner, server.spawner.load_state, state)
            except Exception:  # a spawner may be anybody's; what it says of the server, counts
                log.exception("The spawner of %s does not take its state", server.full_name)
            yield server

    def stop(self, *, stop_servers: bool) -> None:
        """End starts and stops and, if asked, all servers."""
        self._stopping.set()
        if stop_servers:
            servers = self.active_servers()
            for server in servers:
                self.stop_server(server, why="the hub stops")
            for server in servers:
                ladder = _ladder_s(server.spawner)
                server.wait_settled(ladder)
                if server.ready:  # it had been pending check
                    self.stop_server(server, why="the hub stops")
                if not server.wait_settled(ladder):
                    log.error("Server %s is still pending %s", server.full_name, server.pending)
        self._pool.shutdown(wait=True, cancel_futures=True)


def _ladder_s(spawner: Spawner | None) -> float:
    """Return how long it may take to stop a server, with something to spare."""
    return getattr(spawner, "stop_timeout_s", 60.0) + STOP_GRACE_S


def _in_time(spawner: Spawner, method: Callable[..., Any], person: UserInfo) -> Any:
    """Return what a method of the authenticator's does. Raises SpawnTimeout."""
    return deadline.in_time(method.__name__, spawner, method, person, spawner)
