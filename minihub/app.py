"""The hub as one program: everything built, started in order, stopped in reverse.

Rules of this file: it connects the parts and decides nothing that a part could decide. Whatever
is started registers its own stop at once, so that a failure half-way leaves nothing behind.

Threads: :func:`serve` runs in the main thread and waits for a signal there; signal handlers only
enqueue.
"""

from __future__ import annotations

import dataclasses
import errno
import logging
import os
import queue
import signal
import socket
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from traitlets import TraitError

from . import (
    __version__,
    addresses,
    aio,
    classmode,
    clock,
    cookiesecret,
    cpu,
    dburl,
    hublock,
    launchpad,
    limits,
    logs,
    machine,
    metrics,
    orphans,
    ownerlink,
    ports,
    rlimits,
    roles,
    runtime,
    standins,
    startcheck,
    warmpool,
    warmstart,
    websettings,
)
from .accounts import Accounts
from .announcements import Announcements
from .auth.osusers import own_name
from .authstate import AuthStates
from .caretaker import Caretaker
from .config import Loaded
from .crypto import CryptKeeper
from .errors import AlreadyRunning, ConfigError, MinihubError
from .gauges import Gauges
from .hub import Hub
from .hubculler import Culler
from .hublock import HubFacts
from .hubwatch import HubWatch
from .local import (
    NO_SANDBOX,
    LocalProcessSpawner,
    SimpleLocalProcessSpawner,
    find_command,
    how_to_install,
)
from .oauth import OAuthProvider
from .options import JupyterHub
from .parts import Parts
from .people import People
from .proxies import ProxyPlace
from .roles import Roles
from .servicerunner import ServiceRunner
from .spawner import HubInfo, UserInfo
from .store import Store
from .watchdog import MemoryWatchdog

log = logging.getLogger("minihub")

Say = Callable[[str], None]

#: The signals that end the hub in order; SIGHUP is what closing its terminal sends.
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: What is received in place of a signal's number when the hub itself wants to end.
GAVE_UP = 0
SIGNAL_STEP_S = 0.5
#: How long the start waits for the address of the statsd host.
STATSD_WAIT_S = 1.0


def serve(loaded: Loaded, say: Say) -> int:
    """Run the hub until SIGINT, SIGTERM or SIGHUP; ``say`` shows a line to whoever started it.

    Returns 0 after a clean stop, 1 when the hub gave up (``Spawner.consecutive_failure_limit``).
    Raises MinihubError when it cannot start.
    """
    began = clock.monotonic()
    options = JupyterHub(config=loaded.config)
    logs.setup(options)
    for warning in loaded.warnings:
        log.warning("%s", warning)
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    cleanup = Cleanup(options, signals)
    with ExitStack() as stack:
        stack.enter_context(standins.installed())  # hooks import when they run
        stack.callback(logs.teardown)
        metrics.setup(
            statsd_host=options.statsd_host,
            statsd_port=options.statsd_port,
            statsd_prefix=options.statsd_prefix,
        )
        stack.callback(metrics.close)
        for number in ENDS:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # nohup: it is to outlive its terminal
            previous = signal.signal(number, lambda received, _frame: signals.put(received))
            stack.callback(signal.signal, number, previous)
        _start(options, loaded, stack, cleanup, say)
        metrics.observe("hub_startup_duration_seconds", clock.monotonic() - began)
        received = _next(signals)
        if received != GAVE_UP:
            log.info("Received %s, stopping", signal.Signals(received).name)
    return 1 if received == GAVE_UP else 0


def _next(signals: queue.SimpleQueue[int]) -> int:
    """Return the next signal.

    A thread that is just starting a process may be the one that a signal interrupts. Python runs
    the handler in this thread, when it wakes: so it does now and then.
    """
    while True:
        try:
            return signals.get(timeout=SIGNAL_STEP_S)
        except queue.Empty:
            continue


def _statsd(options: JupyterHub) -> tuple[str, int, str]:
    """Return where the proxy sends its counters; nowhere when that is not found at once."""
    host = metrics.statsd_address(STATSD_WAIT_S) if options.statsd_host else ""
    return host, options.statsd_port, options.statsd_prefix


class Cleanup:
    """What the end of the hub takes with it, and the way to that end for requests."""

    def __init__(self, options: JupyterHub, signals: queue.SimpleQueue[int]) -> None:
        self.servers: bool = options.cleanup_servers
        self.proxy: bool = options.cleanup_proxy
        self._signals = signals

    def give_up(self) -> None:
        """End the hub as one that failed."""
        self._signals.put(GAVE_UP)

    def shutdown(self, *, proxy: bool | None = None, servers: bool | None = None) -> None:
        """End the hub as SIGTERM does; what is not None goes before the configuration."""
        self.proxy = self.proxy if proxy is None else proxy
        self.servers = self.servers if servers is None else servers
        self._signals.put(signal.SIGTERM)


def _start(
    options: JupyterHub, loaded: Loaded, stack: ExitStack, cleanup: Cleanup, say: Say
) -> None:
    """Start everything; what must be undone is on ``stack``."""
    startcheck.check(options)
    role_specs = roles.parse(options.load_roles, options.extra_user_scopes)
    rlimits.raise_descriptors()
    state_dir = private_directory(Path(options.state_dir))
    private_directory(state_dir / "logs")
    lock = stack.enter_context(hublock.hold(state_dir))
    if options.pid_file:
        stack.enter_context(_pid_file(Path(options.pid_file).absolute()))
    runtime.give_back_memory()
    cpu.setup()  # while this process has no others beside it
    listener = stack.enter_context(_bind_hub(options, state_dir))
    hub_port = listener.getsockname()[1]
    info = dataclasses.replace(
        addresses.hub_info(options, state_dir, hub_port), own_files=own_files(options)
    )

    with _code_of("proxy_class", options.proxy_class):
        proxy = options.proxy_class(config=loaded.config)
    proxy.place = ProxyPlace(
        ip=options.ip,
        port=options.port,
        hub_url=info.api_url.removesuffix("api"),
        state_dir=state_dir,
        host_routing=bool(options.subdomain_host),
        ssl_key=options.ssl_key,
        ssl_cert=options.ssl_cert,
        statsd=_statsd(options),
    )
    proxy.public_port = options.port
    proxy.hub_is_default = options.hub_routespec == "/"
    orphans.end_proxies(state_dir)
    if proxy.should_start and not aio.call(proxy.adopt) and options.port:
        with _bind(options.ip, options.port, "JupyterHub.port"):
            pass  # free; the proxy takes it in a moment
    starter = ThreadPoolExecutor(1, "proxy-start")  # while the rest is built
    proxy_started = starter.submit(aio.call, proxy.start)
    stack.callback(_stop_proxy, proxy, cleanup)
    stack.callback(starter.shutdown)

    from .web.server import HTTPServer  # imports what the start of the proxy need not wait for

    hub, accounts, authenticator = build_hub(options, loaded, info, proxy)
    stack.callback(hub.store.close)
    stack.callback(aio.close)
    with _code_of("spawner_class", options.spawner_class):
        nobody = _nobodys_spawner(hub)
    if isinstance(nobody, SimpleLocalProcessSpawner) and not nobody.can_start:
        raise ConfigError(NO_SANDBOX)
    if options.reset_db:
        hub.reset()
    with _code_of("authenticator_class", options.authenticator_class):
        _load_users(accounts, authenticator)
    people = People(hub)
    people.load_groups(options.load_groups)
    hub.services.load(people.load_token_owners(options.api_tokens))
    hub.roles.load(people.load_members(role_specs), managed=authenticator.manage_roles)
    orphans.end(state_dir, orphans.SERVER, hub.rows.tidy(), "a server")
    hub.rows.fit_names(options.allow_existing_invalid_named_servers)
    hub.know_left_running()
    parts = _parts(options, hub, state_dir, stack)
    http = HTTPServer(_web(options, hub, accounts, cleanup, parts), listener)
    http.start()
    stack.callback(http.stop)
    with _code_of("proxy_class", options.proxy_class):
        proxy_started.result()
    proxy.on_restart = hub.check_routes
    hub.on_give_up = cleanup.give_up
    stack.enter_context(launchpad.kept())
    stack.enter_context(warmpool.kept(state_dir / "warm"))
    stack.callback(lambda: hub.stop(stop_servers=cleanup.servers))
    if proxy.is_open:  # else the hub's route comes last, with those of the servers that run
        hub.routes.add_hub()
    with metrics.timed("init_spawners_duration_seconds"):
        hub.resume()
    hub.services.start()
    stack.callback(hub.services.stop)
    hub.check_routes()
    hub_watch = HubWatch(hub)
    hub_watch.start()
    stack.callback(hub_watch.stop)
    watchdog = MemoryWatchdog(hub.active_servers, hub.tidy_up_after)
    watchdog.start()
    stack.callback(watchdog.stop)
    nobodys = _nobodys_spawner(hub)
    if isinstance(nobodys, LocalProcessSpawner):
        warmstart.prepare(nobodys)
    for part in (parts.gauges, parts.culler):
        if part is not None:
            part.start()
            stack.callback(part.stop)
    public_url = addresses.public_urls(options, proxy.public_port)[0]
    hublock.write(lock, HubFacts(os.getpid(), public_url, info.api_url))
    _greet(options, hub, accounts, authenticator, proxy.public_port, say)


def build_hub(
    options: JupyterHub, loaded: Loaded, info: HubInfo, proxy: Any
) -> tuple[Hub, Accounts, Any]:
    """Open the store and return hub, accounts and authenticator."""
    store = Store.of(options)
    store.open(upgrade=options.upgrade_db)
    lifetime_s = options.cookie_max_age_days * 86400
    accounts = Accounts(store, session_lifetime_s=lifetime_s)
    oauth = OAuthProvider(
        accounts,
        token_lifetime_s=options.oauth_token_expires_in or int(lifetime_s),
        require_pkce=options.oauth_require_pkce,
    )
    services = ServiceRunner(options=options, info=info, accounts=accounts, oauth=oauth)
    with _code_of("authenticator_class", options.authenticator_class):
        authenticator = options.authenticator_class(config=loaded.config)
    authenticator.use_accounts(accounts)
    hub = Hub(
        options=options,
        config=loaded.config,
        store=store,
        accounts=accounts,
        oauth=oauth,
        authenticator=authenticator,
        proxy=proxy,
        info=info,
        services=services,
        roles=Roles(store, admin_access=options.admin_access),
        auth_states=AuthStates(
            store,
            CryptKeeper(config=loaded.config),
            enabled=authenticator.enable_auth_state,
        ),
        spawner_class=options.spawner_class,
    )
    return hub, accounts, authenticator


def _parts(options: JupyterHub, hub: Hub, state_dir: Path, stack: ExitStack) -> Parts:
    """Return what the pages use besides the hub; what runs is started later."""
    caretaker = Caretaker(hub, hub.audit)
    stack.callback(caretaker.stop)
    return Parts(
        gauges=Gauges(hub.active_servers, str(state_dir)),
        culler=Culler(hub, options.cull) if options.cull else None,
        caretaker=caretaker,
        announcements=Announcements(hub.store),
    )


def _web(
    options: JupyterHub, hub: Hub, accounts: Accounts, cleanup: Cleanup, parts: Parts
) -> Callable[..., Any]:
    """Return the WSGI application."""
    from .web import tables
    from .web.identity import Identity
    from .web.rendering import Renderer
    from .web.site import Site

    secret = cookiesecret.load(options.cookie_secret, options.cookie_secret_file)
    renderer = Renderer(
        template_paths=options.template_paths,
        data_files_path=options.data_files_path,
        jinja_environment_options=options.jinja_environment_options,
        logo_file=options.logo_file,
        base_url=options.base_url,
        template_vars=options.template_vars,
    )
    site = Site(
        hub=hub,
        accounts=accounts,
        identity=Identity(
            accounts,
            hub.roles,
            hub.activity,
            secret=secret,
            cookie_max_age_days=options.cookie_max_age_days,
        ),
        renderer=renderer,
        settings=websettings.read(options.tornado_settings),
        own_hosts=addresses.own_hosts(options),
        shutdown=cleanup.shutdown,
        parts=parts,
    )
    return site.application(tables.ALL)


@contextmanager
def _code_of(option: str, cls: type) -> Iterator[None]:
    """Name the class of the configuration, and the line, whose own code fails at the start.

    Raises ConfigError; what is ours comes out as it is.
    """
    try:
        yield
    except (MinihubError, TraitError, OSError):
        raise
    except Exception as error:
        if cls.__module__.partition(".")[0] == __package__:
            raise
        log.debug("%s", cls.__name__, exc_info=True)
        line = traceback.extract_tb(error.__traceback__)[-1]
        raise ConfigError(
            f"JupyterHub.{option}: {cls.__name__} failed: {type(error).__name__}: {error} "
            f"({line.filename}:{line.lineno})"
        ) from error


# -- people --------------------------------------------------------------------------------


def _load_users(accounts: Accounts, authenticator: Any) -> None:
    """Make sure that everybody the configuration names is a user; admins become admins.

    Taking a name out of the configuration takes nothing away, but blocking one ends its logins.
    Every user is made known to the authenticator; one it cannot have is deleted with
    ``delete_invalid_users``, else only logged.
    """
    for option, admin in (("admin_users", True), ("allowed_users", None)):
        for name in sorted(authenticator.names_in(option)):
            if not authenticator.validate_username(name):
                raise ConfigError(f"Authenticator.{option}: {name!r} is no valid user name")
            accounts.ensure_user(name, admin=admin)
    for name in sorted(authenticator.names_in("blocked_users")):
        accounts.lock_out(name)
    for user in accounts.users():
        try:
            aio.call(authenticator.add_user, UserInfo(user.name, id=user.id, admin=user.admin))
        except Exception as error:  # an authenticator may be anybody's
            log.error("The authenticator cannot have the user %s: %s", user.name, error)
            if authenticator.delete_invalid_users:
                accounts.delete_user(user)


# -- ports ---------------------------------------------------------------------------------


@contextmanager
def _bind_hub(options: JupyterHub, state_dir: Path) -> Iterator[socket.socket]:
    """Give the hub's listening socket.

    Where any port will do it is the last one again: servers and proxy that a hub left running know
    that one.
    """
    note = state_dir / "hub-port"
    last = note.read_text().strip() if note.exists() else ""
    again = not options.hub_port and last.isdecimal()
    with ExitStack() as stack:
        option = "JupyterHub.hub_port"
        try:
            port = int(last) if again else options.hub_port
            listener = stack.enter_context(_bind(options.hub_ip, port, option))
        except AlreadyRunning:
            if not again:
                raise
            listener = stack.enter_context(_bind(options.hub_ip, 0, option))
        _write(note, f"{listener.getsockname()[1]}\n", 0o600)
        yield listener


@contextmanager
def _bind(ip: str, port: int, option: str) -> Iterator[socket.socket]:
    """Give a listening socket. Raises AlreadyRunning naming who holds the port, ConfigError."""
    host = "" if ip == "*" else ip
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(1024)
        except OSError as error:
            where = ip or "all addresses"
            if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
                raise ConfigError(
                    f"{option.replace('port', 'ip')}: {where} is no address of this machine: "
                    f"{error.strerror}. Leave it empty for all addresses, or name one of its own"
                ) from error
            if error.errno != errno.EADDRINUSE:
                free = f"; those below 1024 are root's: --{option}=8000" if port < 1024 else ""
                raise AlreadyRunning(
                    f"{option}: cannot listen on {where} port {port}: {error.strerror}{free}"
                ) from error
            holder = machine.port_holder(port)
            who = f" by {holder}" if holder else ""
            other = ports.other_port(host, port) or "…"
            raise AlreadyRunning(
                f"{option}: port {port} on {where} is in use{who}. "
                f"Stop that program, or choose another port: --{option}={other}"
            ) from error
        yield listener


# -- the machine ---------------------------------------------------------------------------


def own_files(options: JupyterHub) -> tuple[str, ...]:
    """Return the files outside the state directory that are the hub's alone, and may be secret.

    What begins with such a name, such as a copy of the database, belongs to it.
    """
    files = [
        options.cookie_secret_file,
        options.config_file,
        options.ssl_key,
        options.extra_log_file,
        dburl.parse(options.db_url).path,
        runtime.ENVIRONMENT_FILE,
    ]
    return tuple(os.path.realpath(file) for file in files if file)


def private_directory(path: Path) -> Path:
    """Create a directory that only its owner may enter; return its absolute path."""
    path = path.absolute()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.stat().st_uid == os.getuid():
            path.chmod(0o700)
    except OSError as error:
        raise ConfigError(
            f"JupyterHub.state_dir: {path} cannot be created: {error.strerror}"
        ) from error
    return path


def _write(path: Path, text: str, mode: int) -> None:
    """Write a file that, if it is new, has this mode at most, whatever the umask."""
    with open(path, "w", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        file.write(text)


@contextmanager
def _pid_file(path: Path) -> Iterator[None]:
    """Keep the process id in a file while the hub runs. Raises ConfigError."""
    mine = f"{os.getpid()}\n"
    try:
        _write(path, mine, 0o644)
    except OSError as error:
        raise ConfigError(
            f"JupyterHub.pid_file: {path} cannot be written: {error.strerror}"
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):
            if path.read_text() == mine:
                path.unlink()


def _stop_proxy(proxy: Any, cleanup: Cleanup) -> None:
    if proxy.should_start and cleanup.proxy:
        aio.call(proxy.stop)
    else:
        proxy.disconnect()


# -- the start screen ----------------------------------------------------------------------


def _nobodys_spawner(hub: Hub) -> Any:
    """Return a spawner that starts nothing, to see what all have in common."""
    return hub.new_spawner(UserInfo("nobody"))


def _server_program(hub: Hub) -> Iterator[str]:
    """Yield what to do when the program that is to be everybody's server is absent."""
    if not issubclass(hub.spawner_class, LocalProcessSpawner):
        return
    spawner = _nobodys_spawner(hub)
    command = spawner.cmd[0] if spawner.cmd else ""
    if command and find_command(command) is None:
        yield f"Missing: the program {command}, which every server runs. {how_to_install(command)}"


def _greet(
    options: JupyterHub, hub: Hub, accounts: Accounts, authenticator: Any, port: int, say: Say
) -> None:
    """Tell who started the hub where it is, whose it is and what to know."""
    nearest, *others = addresses.public_urls(options, port)
    say(f"minihub {__version__} is running. Its data: {hub.info.state_dir}")
    simple = issubclass(hub.spawner_class, SimpleLocalProcessSpawner)
    me = own_name()
    if simple and os.getuid() == 0:
        log.warning(
            "SimpleLocalProcessSpawner runs every server as root: whoever may start one owns this "
            "machine. Do this only inside a container made for it."
        )
    nobody = _nobodys_spawner(hub)
    if simple and nobody.is_confined:
        say(
            f"Isolation: every server runs as {me}, in a sandbox: it cannot read the hub's files or"
        )
        say("           other people's. Network, terminals and what they use are shared by all.")
        for warning in nobody.sandbox_warnings():
            log.warning("%s", warning)
    elif simple and authenticator.keeps_passwords:
        for line in classmode.isolation(me):
            say(line)
    elif simple:
        say(f"Isolation: none between people; every server runs as {me}, who can read all files.")
    elif os.getuid() == 0 and issubclass(hub.spawner_class, LocalProcessSpawner):
        say("Isolation: each server runs as the system user of that name.")
    elif os.getuid() != 0:
        say(f"Servers: only for {me}, since the hub does not run as root.")
    for warning in authenticator.check_allow_config() or ():
        log.warning("%s", warning)
    for warning in limits.missing(nobody):
        log.warning("%s", warning)
    for line in _server_program(hub):
        say(line)
    link = "" if accounts.has_users() else ownerlink.new(accounts, nearest)
    say(f"  open        {link or nearest}")
    if not accounts.has_admin() and not link:
        say(
            "              (it has no owner yet; a link that makes you one: minihub.pyz admin link)"
        )
    if link:
        say(f"              (makes you its owner; one use, {ownerlink.LIFETIME_MINUTES} minutes; "
            "a new one: minihub.pyz admin link)")  # fmt: skip
    for url in others:
        say(f"  also at     {url}")
    if authenticator.keeps_passwords:
        for line in classmode.invitation(options, authenticator, port):
            say(line)
    ends = " Every server ends with it; files are kept." if options.cleanup_servers else ""
    say(f"Stop with Ctrl-C.{ends}")
