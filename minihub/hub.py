"""The hub: the only code that moves store, spawners and proxy together.

Rules of this file: requests look at state and return; whatever starts or stops a process, or
waits for one, runs in the pool. Every start undoes itself completely when any step fails, and
keeps the reason for the page. A route is removed before its server is stopped, and added only
when the server answers.

Threads: any may call the public methods. ``_lock`` guards the registry of servers and the
counting of limits, and is held for dictionary work only. The pool's threads run starts and
stops, one per server at a time, decided by the server's state. One thread watches running
servers, one the proxy's activity.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from . import aio, clock, urls
from .accounts import Accounts
from .activity import Activity
from .errors import BadRequest, MinihubError, SpawnError, TooMany
from .models import Group, GroupMember, Token, User
from .models import Server as ServerRow
from .oauth import OAuthProvider
from .options import JupyterHub
from .server import Server, State
from .servicerunner import ServiceRunner
from .spawner import HubInfo, Spawner, UserInfo
from .store import Store

log = logging.getLogger("minihub.hub")

POOL_SIZE = 128
WATCH_STEP_S = 1.0
#: How long the hub's own stop waits for all servers together, beyond one server's ladder.
STOP_GRACE_S = 15.0


class Cancelled(SpawnError):
    """Raised inside a start that somebody stopped."""


class Hub:
    """All servers of all users, and what it takes to start and stop them."""

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
        self.spawner_class = spawner_class
        self.activity = Activity(store)
        self._servers: dict[tuple[int, str], Server] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(POOL_SIZE, thread_name_prefix="server")
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    # -- looking ---------------------------------------------------------------------------

    def server(self, user: User, name: str = "") -> Server:
        """Return the user's server of that name, running or not."""
        with self._lock:
            return self._servers.get((user.id, name)) or Server(user.id, user.name, name)

    def servers_of(self, user: User) -> dict[str, Server]:
        """Return the user's active servers, and those whose last start failed, by name."""
        with self._lock:
            return {name: one for (owner, name), one in self._servers.items() if owner == user.id}

    def active_servers(self) -> list[Server]:
        """Return every server that is not stopped."""
        with self._lock:
            return [server for server in self._servers.values() if server.active]

    def server_url(self, user_name: str, server_name: str = "") -> str:
        """Return the path at which a server is reached, ``BASEuser/NAME/[SERVER/]``."""
        return UserInfo(user_name, base_url=self.info.base_url).server_url(server_name)

    def user_info(self, user: User) -> UserInfo:
        """Return the user as spawners, authenticators and hooks see one."""
        with self.store.session():
            groups = [
                row.name for row in Group.select().join(GroupMember).where(GroupMember.user == user)
            ]
        return UserInfo(
            name=user.name,
            id=user.id,
            admin=user.admin,
            groups=groups,
            base_url=self.info.base_url,
        )

    def poll_now(self, server: Server) -> None:
        """Look whether a ready server's process still lives, and tidy up if not."""
        if server.ready and not self._is_alive(server):
            self._gone(server)

    # -- starting --------------------------------------------------------------------------

    def start_server(
        self,
        user: User,
        name: str = "",
        *,
        user_options: dict[str, Any] | None = None,
        handler: Any = None,
    ) -> Server:
        """Begin to start a server and return it, SPAWNING; one already SPAWNING is returned.

        Raises BadRequest when it runs or stops, TooMany at the limits. What goes wrong later
        is in the server's ``failure``.
        """
        with self._lock:
            server = self._servers.get((user.id, name)) or Server(user.id, user.name, name)
            if server.state is State.SPAWNING:
                return server
            if server.state is State.READY:
                raise BadRequest(f"{server.full_name} is already running")
            if server.state is State.STOPPING:
                raise BadRequest(f"{server.full_name} is pending stop")
            self._check_limits_locked()
            server.move(State.SPAWNING)  # STOPPED -> SPAWNING
            self._servers[user.id, name] = server
        self._pool.submit(self._run_start, server, user, dict(user_options or {}), handler)
        return server

    def _check_limits_locked(self) -> None:
        active = [server for server in self._servers.values() if server.active]
        limit = self.options.concurrent_spawn_limit
        if limit and sum(server.state is State.SPAWNING for server in active) >= limit:
            raise TooMany(
                "User startup rate limit exceeded. Try again in a few minutes.", retry_after_s=30
            )
        limit = self.options.active_server_limit
        if limit and len(active) >= limit:
            raise TooMany("Active user limit exceeded. Try again in a few minutes.")

    def _run_start(
        self, server: Server, user: User, user_options: dict[str, Any], handler: Any
    ) -> None:
        began = clock.monotonic()
        try:
            self._start(server, user, user_options, handler)
        except SpawnError as error:
            self._start_failed(server, error)
        except Exception as error:
            log.exception("Starting %s failed", server.full_name)
            self._start_failed(server, SpawnError(f"the hub met an error: {error}"))
        else:
            took = clock.monotonic() - began
            log.info("Server %s is ready after %.1f s", server.full_name, took)

    def _start(
        self, server: Server, user: User, user_options: dict[str, Any], handler: Any
    ) -> None:
        person = self.user_info(user)
        spawner = self._new_spawner(person, server.name)
        spawner.user_options = user_options
        spawner.handler = handler
        server.spawner = spawner
        self._give_credentials(server, spawner, user_options)
        aio.call(self.authenticator.pre_spawn_start, person, spawner)
        spawner.run_hook("pre_spawn_hook")
        self._go_on(server)
        name = f"progress-{server.full_name}"
        threading.Thread(
            target=_tell_progress, args=(server, spawner), name=name, daemon=True
        ).start()
        server.target = spawner.run_start()
        self._save_state(server)
        server.add_event({"progress": 70, "message": "Waiting for the server to answer..."})
        url = server.target + spawner.server_url
        spawner.wait_ready(url, still_wanted=lambda: self._go_on(server))
        self._go_on(server)
        self.proxy_add(server)
        server.started = clock.utcnow()
        with self.store.transaction():
            ServerRow.update(
                target=server.target,
                started=clock.isoformat(server.started),
                last_activity=clock.isoformat(server.started),
            ).where(ServerRow.id == server.row_id).execute()
        if not server.move(State.READY, only_from=State.SPAWNING):  # SPAWNING -> READY
            raise Cancelled("the start was cancelled")
        self.activity.user(server.user_id, server.started)

    def _go_on(self, server: Server) -> None:
        if server.cancelled.is_set() or self._stopping.is_set():
            raise Cancelled("the start was cancelled")

    def _new_spawner(self, person: UserInfo, name: str) -> Spawner:
        return self.spawner_class(user=person, server_name=name, hub=self.info, config=self.config)

    def _give_credentials(
        self, server: Server, spawner: Spawner, user_options: dict[str, Any]
    ) -> None:
        """Store the server's row, its OAuth client and its token, and hand them to the spawner."""
        access = f"access:servers!server={server.full_name}"
        token_scopes = spawner.token_scopes()
        allowed_scopes = spawner.allowed_scopes()
        spawner.oauth_client_id = _client_id(server)
        spawner.oauth_access_scopes = [access, f"access:servers!user={server.user_name}"]
        with self.store.transaction():
            row, _created = ServerRow.get_or_create(user=server.user_id, name=server.name)
            row.user_options = user_options
            row.state = {}
            Token.delete().where(Token.server == row).execute()
            server.row_id = row.id
            _token, spawner.api_token = self.accounts.issue_token(
                user_id=server.user_id,
                server_id=row.id,
                note=f"Server at {spawner.server_url}",
                scopes=token_scopes or [f"users:activity!user={server.user_name}", access],
            )
            row.oauth_client = self.oauth.register_client(
                spawner.oauth_client_id,
                secret=spawner.api_token,
                redirect_uri=spawner.oauth_callback_url,
                allowed_scopes=[access, *allowed_scopes],
                description=f"Server at {spawner.server_url}",
            )
            row.save()

    def _save_state(self, server: Server) -> None:
        state = server.spawner.get_state()
        with self.store.transaction():
            ServerRow.update(state=state, target=server.target).where(
                ServerRow.id == server.row_id
            ).execute()

    def _start_failed(self, server: Server, error: SpawnError) -> None:
        cancelled = isinstance(error, Cancelled)
        if cancelled:
            log.info("Start of %s cancelled", server.full_name)
        else:
            log.error("Server %s did not start: %s", server.full_name, error.reason)
        self._clean_up(server, now=True)
        server.failure = None if cancelled else error
        event = {"progress": 100, "failed": True, "message": f"Spawn failed: {error.reason}"}
        server.add_event(event)
        server.move(State.STOPPED)  # SPAWNING or STOPPING -> STOPPED
        self._forget(server)

    # -- stopping --------------------------------------------------------------------------

    def stop_server(self, server: Server, *, why: str = "asked") -> Server:
        """Begin to stop a server, or cancel its start; a stopped one stays as it is."""
        with self._lock:
            if server.state is State.SPAWNING:
                server.cancelled.set()
                server.move(State.STOPPING, only_from=State.SPAWNING)  # SPAWNING -> STOPPING
                return server
            if not server.move(State.STOPPING, only_from=State.READY):  # READY -> STOPPING
                return server
        log.info("Stopping server %s: %s", server.full_name, why)
        self._pool.submit(self._run_stop, server)
        return server

    def _run_stop(self, server: Server) -> None:
        try:
            self._clean_up(server, now=False)
        except Exception:
            log.exception("Stopping %s failed", server.full_name)
        if server.spawner is not None and self._is_alive(server):
            server.move(State.READY)  # STOPPING -> READY: it could not be stopped
            return
        server.move(State.STOPPED)  # STOPPING -> STOPPED
        self._forget(server)

    def _clean_up(self, server: Server, *, now: bool) -> None:
        """Take away route, process, token and the row's target; each step whatever the others do.

        ``now`` skips the gentle part of the stop ladder.
        """
        spawner = server.spawner
        steps: list[tuple[str, Any]] = [("route", lambda: self.proxy_delete(server))]
        if spawner is not None:
            person = spawner.user
            steps += [
                ("process", lambda: aio.call(spawner.stop, now=now)),
                ("hook", lambda: spawner.run_hook("post_stop_hook")),
                ("session", lambda: aio.call(self.authenticator.post_spawn_stop, person, spawner)),
            ]
        steps.append(("rows", lambda: self._clean_rows(server)))
        for what, step in steps:
            try:
                step()
            except MinihubError as error:
                log.error("Stopping %s, its %s: %s", server.full_name, what, error)
            except Exception:
                log.exception("Stopping %s, its %s", server.full_name, what)
        server.target = None

    def _clean_rows(self, server: Server) -> None:
        with self.store.transaction():
            row = ServerRow.get_or_none(ServerRow.id == server.row_id)
            if row is None:
                return
            Token.delete().where(Token.server == row).execute()
            if row.oauth_client_id:
                Token.delete().where(Token.oauth_client == row.oauth_client_id).execute()
            row.target = None
            row.started = None
            row.state = {}
            row.save()

    def _forget(self, server: Server) -> None:
        """Drop a stopped server from the registry unless its failure is still to be shown."""
        with self._lock:
            key = (server.user_id, server.name)
            if not server.active and server.failure is None and self._servers.get(key) is server:
                del self._servers[key]

    # -- watching --------------------------------------------------------------------------

    def run_threads(self) -> None:
        """Start the threads that watch running servers and fold the proxy's activity."""
        for name, loop in (("hub-watch", self._watch), ("hub-activity", self._fold_activity)):
            thread = threading.Thread(target=loop, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def _watch(self) -> None:
        """Poll each ready server every ``Spawner.poll_interval`` seconds."""
        due: dict[Server, float] = {}
        while not self._stopping.wait(WATCH_STEP_S):
            now = clock.monotonic()
            ready = [server for server in self.active_servers() if server.ready]
            due = {server: due[server] for server in ready if server in due}
            for server in ready:
                interval = server.spawner.poll_interval
                if interval > 0 and due.setdefault(server, now + interval) <= now:
                    due[server] = now + interval
                    self._pool.submit(self.poll_now, server)

    def _is_alive(self, server: Server) -> bool:
        return aio.call(server.spawner.poll, timeout_s=server.spawner.start_timeout) is None

    def _gone(self, server: Server) -> None:
        """Tidy up after a server whose process ended by itself."""
        if not server.move(State.STOPPING, only_from=State.READY):  # READY -> STOPPING
            return
        log.warning("Server %s has ended by itself", server.full_name)
        self._run_stop(server)

    def _fold_activity(self) -> None:
        interval = self.options.last_activity_interval
        while interval > 0 and not self._stopping.wait(interval):
            try:
                self.check_routes()
            except Exception as error:
                log.error("Checking the proxy's routes: %s", error)

    # -- routes ----------------------------------------------------------------------------

    def proxy_add(self, server: Server) -> None:
        """Tell the proxy where a server is."""
        data = {"user": server.user_name, "server_name": server.name}
        spec = self.server_url(server.user_name, server.name)
        aio.call(self.proxy.add_route, spec, server.target, data)

    def proxy_delete(self, server: Server) -> None:
        """Make the proxy forget a server."""
        aio.call(self.proxy.delete_route, self.server_url(server.user_name, server.name))

    def _hub_target(self) -> str:
        parts = urlsplit(self.info.api_url)
        return f"{parts.scheme}://{parts.netloc}"

    def add_default_route(self) -> None:
        """Send everything that is no server's to the hub."""
        aio.call(self.proxy.add_route, "/", self._hub_target(), {"hub": True})

    def check_routes(self) -> None:
        """Make the proxy's routes what they should be, and note the activity it saw."""
        routes = aio.call(self.proxy.get_all_routes)
        wanted = {"/"}
        if routes.get("/", {}).get("target") != self._hub_target():
            self.add_default_route()
        for server in self.active_servers():
            spec = self.server_url(server.user_name, server.name)
            wanted.add(spec)  # a pending one may be about to add its own
            if not server.ready:
                continue
            route = routes.get(spec)
            if route is None or route["target"] != server.target:
                log.warning("Adding the missing route %s", spec)
                self.proxy_add(server)
            elif seen := route["data"].get("last_activity"):
                self.activity.server(server.row_id, server.user_id, clock.parse(seen))
        for spec, (target, data) in self.services.routes().items():
            wanted.add(spec)
            if routes.get(spec, {}).get("target") != target:
                aio.call(self.proxy.add_route, spec, target, data)
        for spec in set(routes) - wanted:
            log.warning("Deleting the stale route %s", spec)
            aio.call(self.proxy.delete_route, spec)

    # -- start and stop of the hub ---------------------------------------------------------

    def resume(self) -> None:
        """Take over the servers that the last hub left running; tidy up after those that ended."""
        with self.store.session():
            rows = list(
                ServerRow.select(ServerRow, User).join(User).where(ServerRow.target.is_null(False))
            )
        for row in rows:
            server = Server(row.user.id, row.user.name, row.name)
            server.row_id = row.id
            server.target = row.target
            server.started = clock.parse(row.started) if row.started else clock.utcnow()
            server.spawner = self._new_spawner(self.user_info(row.user), row.name)
            server.spawner.load_state(row.state or {})
            if row.started is not None and self._is_alive(server):
                server.move(State.READY)  # STOPPED -> READY: adopted
                self._servers[row.user.id, row.name] = server
                log.info("Server %s still runs", server.full_name)
            else:
                log.warning("Server %s has ended while the hub was away", server.full_name)
                self._clean_up(server, now=True)

    def stop(self, *, stop_servers: bool) -> None:
        """End the threads and, if asked, all servers."""
        self._stopping.set()
        if stop_servers:
            servers = self.active_servers()
            for server in servers:
                self.stop_server(server, why="the hub stops")
            for server in servers:
                spawner = server.spawner
                ladder = getattr(spawner, "stop_timeout_s", 60.0) if spawner else 60.0
                if not server.wait_settled(ladder + STOP_GRACE_S):
                    log.error("Server %s is still pending %s", server.full_name, server.pending)
        self._pool.shutdown(wait=True, cancel_futures=True)
        for thread in self._threads:
            thread.join(5)


def _tell_progress(server: Server, spawner: Spawner) -> None:
    """Hand on what the spawner says of its start; it may go on saying until the start has ended."""
    try:
        for event in spawner.progress_events():
            if server.spawner is not spawner or server.state is not State.SPAWNING:
                return
            server.add_event(event)
    except Exception:  # a spawner may be anybody's
        log.exception("The progress of %s", server.full_name)


def _client_id(server: Server) -> str:
    """Return the name of a server's OAuth client, which is also the name of its cookie.

    No quoted name holds the sign between user and server, so that two servers never share one.
    """
    parts = [server.user_name, *([server.name] if server.name else [])]
    return "jupyterhub-user-" + "!".join(
        urls.escape_name(part).replace("@", "%40") for part in parts
    )
