"""The hub as one program: everything built, started in order, stopped in reverse.

Rules of this file: it connects the parts and decides nothing that a part could decide. Whatever
is started registers its own stop at once, so that a failure half-way leaves nothing behind.

Threads: :func:`serve` runs in the main thread and waits for a signal there; signal handlers only
enqueue.
"""

from __future__ import annotations

import fcntl
import getpass
import json
import logging
import os
import pwd
import queue
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from . import __version__, aio, cookiesecret, logs, machine
from .accounts import OWNER_LINK_LIFETIME_S, Accounts
from .config import Loaded
from .errors import AlreadyRunning, ConfigError
from .hub import Hub
from .local import (
    LocalProcessSpawner,
    SimpleLocalProcessSpawner,
    find_command,
    how_to_install,
)
from .oauth import OAuthProvider
from .options import JupyterHub
from .proxies import ProxyPlace
from .roles import Roles
from .servicerunner import ServiceRunner
from .spawner import HubInfo, UserInfo
from .store import Store

log = logging.getLogger("minihub")

Say = Callable[[str], None]


def serve(loaded: Loaded, say: Say) -> int:
    """Run the hub until SIGINT or SIGTERM; ``say`` shows a line to whoever started it.

    Returns 0 after a clean stop. Raises MinihubError when it cannot start.
    """
    options = JupyterHub(config=loaded.config)
    logs.setup(options)
    for warning in loaded.warnings:
        log.warning("%s", warning)
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    with ExitStack() as stack:
        stack.callback(logs.teardown)
        for number in (signal.SIGINT, signal.SIGTERM):
            previous = signal.signal(number, lambda received, _frame: signals.put(received))
            stack.callback(signal.signal, number, previous)
        _start(options, loaded, stack, say)
        received = signals.get()
        log.info("Received %s, stopping", signal.Signals(received).name)
    return 0


def _start(options: JupyterHub, loaded: Loaded, stack: ExitStack, say: Say) -> None:
    """Start everything; what must be undone is on ``stack``."""
    _raise_descriptor_limit()
    state_dir = private_directory(Path(options.state_dir))
    private_directory(state_dir / "logs")
    lock = stack.enter_context(_only_one(state_dir))
    if options.pid_file:
        Path(options.pid_file).write_text(f"{os.getpid()}\n")
        stack.callback(Path(options.pid_file).unlink, missing_ok=True)
    listener = stack.enter_context(_bind(options.hub_ip, options.hub_port, "JupyterHub.hub_port"))
    hub_port = listener.getsockname()[1]
    info = _hub_info(options, state_dir, hub_port)

    proxy = options.proxy_class(config=loaded.config)
    proxy.place = ProxyPlace(
        ip=options.ip,
        port=options.port,
        hub_url=info.api_url.removesuffix("api"),
        state_dir=state_dir,
        ssl_key=options.ssl_key,
        ssl_cert=options.ssl_cert,
    )
    if proxy.should_start and options.port:
        with _bind(options.ip, options.port, "JupyterHub.port"):
            pass  # free; the proxy takes it in a moment
    starter = ThreadPoolExecutor(1, "proxy-start")  # while the rest is built
    proxy_started = starter.submit(aio.call, proxy.start)
    stack.callback(_stop_proxy, proxy, options)
    stack.callback(starter.shutdown)

    from .web.server import HTTPServer  # imports what the start of the proxy need not wait for

    hub, accounts, authenticator = build_hub(options, loaded, info, proxy)
    stack.callback(hub.store.close)
    stack.callback(aio.close)
    _load_users(accounts, authenticator)
    hub.services.load()
    http = HTTPServer(_web(options, hub, accounts, proxy), listener)
    http.start()
    stack.callback(http.stop)
    proxy_started.result()
    proxy.on_restart = hub.check_routes
    stack.callback(hub.stop, stop_servers=options.cleanup_servers)
    hub.add_default_route()
    hub.resume()
    hub.services.start()
    stack.callback(hub.services.stop)
    hub.check_routes()
    hub.run_threads()
    _write_lock_facts(lock, public_urls(options, proxy.public_port)[0])
    _greet(options, hub, accounts, authenticator, proxy.public_port, say)


def _hub_info(options: JupyterHub, state_dir: Path, hub_port: int) -> HubInfo:
    connect_ip = options.hub_connect_ip or options.hub_ip
    if connect_ip in ("", "0.0.0.0", "::"):
        connect_ip = socket.gethostname()
    port = options.hub_connect_port or hub_port
    return HubInfo(
        base_url=options.base_url,
        api_url=f"http://{_in_url(connect_ip)}:{port}{options.base_url}hub/api",
        public_host=options.subdomain_host,
        state_dir=state_dir,
        admin_access=options.admin_access,
    )


def build_hub(
    options: JupyterHub, loaded: Loaded, info: HubInfo, proxy: Any
) -> tuple[Hub, Accounts, Any]:
    """Open the store and return hub, accounts and authenticator."""
    store = Store(options.db_url)
    store.open()
    lifetime_s = options.cookie_max_age_days * 86400
    accounts = Accounts(store, session_lifetime_s=lifetime_s)
    oauth = OAuthProvider(accounts, token_lifetime_s=int(lifetime_s))
    services = ServiceRunner(options=options, info=info, accounts=accounts, oauth=oauth)
    authenticator = options.authenticator_class(config=loaded.config)
    authenticator.user_exists = lambda name: accounts.user(name) is not None
    authenticator.is_hub_admin = accounts.is_admin
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
        spawner_class=options.spawner_class,
    )
    return hub, accounts, authenticator


def _web(options: JupyterHub, hub: Hub, accounts: Accounts, proxy: Any) -> Callable[..., Any]:
    """Return the WSGI application."""
    from .web import (
        admin_page,
        api_base,
        api_servers,
        api_tokens,
        assets,
        login,
        oauth_pages,
        pages,
    )
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
    )
    site = Site(
        hub=hub,
        accounts=accounts,
        identity=Identity(
            accounts,
            Roles(hub.store, admin_access=options.admin_access),
            secret=secret,
            cookie_max_age_days=options.cookie_max_age_days,
        ),
        renderer=renderer,
        settings=options.tornado_settings,
    )
    tables = (admin_page, api_base, api_servers, api_tokens, assets, login, oauth_pages, pages)
    return site.application(module.routes for module in tables)


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


def owner_uid() -> int:
    """Return the uid of the person who runs this program; behind sudo, of who called sudo."""
    uid = os.getuid()
    if uid == 0:
        try:
            return pwd.getpwnam(os.environ["SUDO_USER"]).pw_uid
        except KeyError:
            return 0
    return uid


def owner_url(options: JupyterHub, accounts: Accounts, port: int) -> str | None:
    """Return a fresh one-time link for the first owner; None when there is an admin."""
    code = accounts.new_owner_link(owner_uid())
    if code is None:
        return None
    return f"{public_urls(options, port)[0]}hub/login?owner={code}"


def admin_link(loaded: Loaded, say: Say) -> int:
    """Show a new one-time owner link, for whoever may read the database."""
    options = JupyterHub(config=loaded.config)
    store = Store(options.db_url)
    if store.path is None or not store.path.exists():
        raise ConfigError(
            f"JupyterHub.db_url: there is no database at {options.db_url}; "
            "start the hub once, or run this in the directory it was started in"
        )
    store.open()
    try:
        accounts = Accounts(store, session_lifetime_s=0)
        url = owner_url(options, accounts, options.port)
    finally:
        store.close()
    if url is None:
        say("This hub has an owner already. Owners make further admins on the hub's own pages.")
        return 1
    say(url)
    say(f"Good for {OWNER_LINK_LIFETIME_S // 60} minutes and one use.")
    return 0


# -- addresses -----------------------------------------------------------------------------


def public_urls(options: JupyterHub, port: int) -> list[str]:
    """Return the URLs under which people reach the hub, the nearest first."""
    scheme = "https" if options.ssl_cert else "http"
    default = {"http": 80, "https": 443}[scheme]
    suffix = "" if port == default else f":{port}"
    if options.ip in ("", "*", "0.0.0.0", "::"):
        hosts = ["127.0.0.1", *machine.lan_addresses()]
    else:
        hosts = [options.ip]
    return [f"{scheme}://{_in_url(host)}{suffix}{options.base_url}" for host in hosts]


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@contextmanager
def _bind(ip: str, port: int, option: str) -> Iterator[socket.socket]:
    """Give a listening socket. Raises AlreadyRunning naming who holds the port."""
    host = "" if ip in ("", "*") else ip
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(1024)
        except OSError as error:
            holder = machine.port_holder(port)
            who = f" by {holder}" if holder else ""
            raise AlreadyRunning(
                f"{option}: port {port} on {ip or 'all addresses'} is in use{who}. "
                f"Stop that program, or choose another port: --{option}=…"
                if error.errno == 98
                else f"{option}: cannot listen on {ip or 'all addresses'} port {port}: "
                f"{error.strerror}"
            ) from error
        yield listener


# -- the machine ---------------------------------------------------------------------------


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


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else max(soft, 65536)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextmanager
def _only_one(state_dir: Path) -> Iterator[Any]:
    """Hold this state directory's lock. Raises AlreadyRunning saying who holds it."""
    path = state_dir / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            try:
                facts = json.loads(lock.read())
                who = f"process {facts['pid']}, {facts['url']}"
            except (ValueError, KeyError):
                who = "it is just starting"
            raise AlreadyRunning(f"a hub is running already with {state_dir}: {who}") from error
        lock.truncate(0)
        yield lock
        lock.truncate(0)


def _write_lock_facts(lock: Any, url: str) -> None:
    lock.seek(0)
    lock.write(json.dumps({"pid": os.getpid(), "url": url}))
    lock.flush()


def _stop_proxy(proxy: Any, options: JupyterHub) -> None:
    if proxy.should_start and options.cleanup_proxy:
        aio.call(proxy.stop)
    else:
        proxy.disconnect()


# -- the start screen ----------------------------------------------------------------------


def _server_program(hub: Hub) -> Iterator[str]:
    """Yield what to do when the program that is to be everybody's server is absent."""
    if not issubclass(hub.spawner_class, LocalProcessSpawner):
        return
    spawner = hub.spawner_class(user=UserInfo("nobody"), hub=hub.info, config=hub.config)
    command = spawner.cmd[0] if spawner.cmd else ""
    if command and find_command(command) is None:
        yield f"Missing: the program {command}, which every server runs. {how_to_install(command)}"


def _greet(
    options: JupyterHub, hub: Hub, accounts: Accounts, authenticator: Any, port: int, say: Say
) -> None:
    """Tell who started the hub where it is, whose it is and what to know."""
    nearest, *others = public_urls(options, port)
    say(f"minihub {__version__} is running. Its data: {hub.info.state_dir}")
    simple = issubclass(hub.spawner_class, SimpleLocalProcessSpawner)
    me = getpass.getuser()
    if simple and os.getuid() == 0:
        log.warning(
            "SimpleLocalProcessSpawner runs every server as root: whoever may start one owns this "
            "machine. Do this only inside a container made for it."
        )
    if simple:
        say(f"Isolation: none between people; every server runs as {me}, who can read all files.")
    elif os.getuid() != 0:
        say(f"Servers: only for {me}, since the hub does not run as root.")
    for warning in authenticator.check_allow_config() or ():
        log.warning("%s", warning)
    for line in _server_program(hub):
        say(line)
    link = None if accounts.has_users() else owner_url(options, accounts, port)
    say(f"  open        {link or nearest}")
    if link:
        say(f"              (makes you its owner; one use, {OWNER_LINK_LIFETIME_S // 60} minutes; "
            "a new one: minihub.pyz admin link)")  # fmt: skip
    for url in others:
        say(f"  also at     {url}")
    say("Stop with Ctrl-C.")
