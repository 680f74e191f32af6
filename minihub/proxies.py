"""The hub's side of the proxy: starting it, watching it, telling it the routes.

Rules of this file: it knows processes, and routes as text; which routes there should be is decided
in :mod:`minihub.hubroutes`. Routespecs are ``/path/`` or ``host/path/``, with a final slash.

Threads: any thread may call the route methods.
One thread, started by :meth:`ConfigurableHTTPProxy.start`, watches the process: its end is seen at
once, and every ``check_running_interval`` it is asked whether it is well.
Sources: configurable-http-proxy's README, REST API and command line.
"""

from __future__ import annotations

import http.client
import logging
import os
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from traitlets import Bool, CaselessStrEnum, Dict, Int, TraitError, Unicode, default, validate
from traitlets.config import LoggingConfigurable

from . import aio, clock, orphans, process, proxyfacts, startwords, tokens
from .addresses import ALL_ADDRESSES, in_url
from .errors import ConfigError, ProxyError
from .options_later import split_url
from .proxyclient import ProxyClient
from .traits import Command, HeaderText
from .urls import is_host

log = logging.getLogger("minihub.proxy")

#: A log that is larger when the proxy starts is put aside.
LOG_MAX_BYTES = 10 * 1024 * 1024

#: A living proxy that twice in a row does not answer within this time is replaced.
CHECK_TIMEOUT_S = 5.0
START_TIMEOUT_S = 15.0
#: How long at most the watching thread waits without looking whether the hub stops.
STEP_S = 0.25
STOP_TIMEOUT_S = 10.0
#: Pause before a proxy that died is started again; doubled each time it dies young.
RESTART_PAUSE_S = 0.1
RESTART_PAUSE_MAX_S = 10.0


@dataclass(frozen=True)
class ProxyPlace:
    """What a proxy must know of its hub before it starts."""

    ip: str
    port: int
    #: ``http://host:port/hub/``, where the hub listens.
    hub_url: str
    state_dir: Path
    host_routing: bool = False
    ssl_key: str = ""
    ssl_cert: str = ""
    #: Address, port and the hub's prefix of statsd; an empty address for none.
    statsd: tuple[str, int, str] = ("", 0, "")


class Proxy(LoggingConfigurable):
    """Base of all proxies; subclasses may write their methods plain or ``async``."""

    #: Whether the hub's own route, which it adds last, is the one for all that is no other's.
    hub_is_default = False
    #: False while the public side waits for its routes.
    is_open = True

    should_start = Bool(True, help="Whether the hub starts and stops the proxy itself.").tag(
        config=True
    )

    extra_routes = Dict(
        key_trait=Unicode(),
        value_trait=Unicode(),
        help="Further routes, and the URLs they lead to; a route begins with a slash (with"
        " JupyterHub.subdomain_host, with a host) and ends with one.",
    ).tag(config=True, example={"/docs/": "http://127.0.0.1:9000"})

    place: ProxyPlace
    #: Called, from any thread, after the proxy lost its routes.
    on_restart: Callable[[], None] = staticmethod(lambda: None)
    #: The public port in use; differs from the one asked for when that was 0.
    public_port: int = 0

    @default("log")
    def _default_log(self) -> logging.Logger:
        return log

    @validate("extra_routes")
    def _routespecs(self, proposal: dict) -> dict[str, str]:
        for spec, target in proposal["value"].items():
            if not spec.endswith("/") or urlsplit(target).scheme not in ("http", "https"):
                raise TraitError(f'"{spec}: {target}" is no route; one is /docs/: http://host:port')
        return proposal["value"]

    def adopt(self) -> bool:
        """Go on with the proxy that an earlier hub left running, if there is one that fits.

        Called before :meth:`start`; returns whether there is. One that does not fit is stopped.
        """
        return False

    def start(self) -> None:
        """Start the proxy. Raises ProxyError when it does not come up."""

    def stop(self) -> None:
        """Stop the proxy."""

    def disconnect(self) -> None:
        """Let go of the proxy, which goes on without the hub."""

    @aio.either
    def add_route(self, routespec: str, target: str, data: dict[str, Any]) -> None:
        """Send what begins with ``routespec`` to ``target`` (``http://host:port``)."""
        raise ProxyError(f"{type(self).__name__} defines no add_route")

    @aio.either
    def delete_route(self, routespec: str) -> None:
        """Forget a route; one that is not there is no error."""
        raise ProxyError(f"{type(self).__name__} defines no delete_route")

    @aio.either
    def get_all_routes(self) -> dict[str, dict[str, Any]]:
        """Return ``{routespec: {"routespec", "target", "data"}}`` of this hub's routes.

        ``data`` may hold ``last_activity``, an ISO 8601 text.
        """
        raise ProxyError(f"{type(self).__name__} defines no get_all_routes")

    def close_tunnels(self, routespec: str) -> None:
        """Close the WebSockets that are open on a route, if this proxy can; the route stays."""

    def use_other(self, api_url: str, auth_token: str) -> None:
        """Talk to another proxy from now on. Raises ValueError for a URL that cannot be one."""
        raise ValueError(f"{type(self).__name__} cannot be replaced by another proxy")


class ConfigurableHTTPProxy(Proxy):
    """The node program configurable-http-proxy, from npm."""

    debug = Bool(False, help="Log at debug level in the proxy.").tag(config=True)
    auth_token = HeaderText(
        help="Secret shared with the proxy's API. Default: the environment's"
        " CONFIGPROXY_AUTH_TOKEN, else a new one at each start."
    ).tag(config=True, example="a-long-random-text")
    check_running_interval = Int(
        30,
        min=1,
        help="Seconds between two looks at whether the proxy answers. Default:"
        " JupyterHub.proxy_check_interval.",
    ).tag(config=True)
    api_url = Unicode("http://127.0.0.1:8001", help="Where the proxy's REST API listens.").tag(
        config=True
    )
    command = Command(
        ["configurable-http-proxy"], help="The proxy's program and first arguments."
    ).tag(config=True)
    log_level = CaselessStrEnum(
        ["debug", "info", "warn", "error"],
        default_value="info",
        help="How much the proxy logs: debug, info, warn or error. It is debug if debug is set.",
    ).tag(config=True, example="warn")
    command_umask = Int(
        None,
        allow_none=True,
        min=0,
        max=0o777,
        help="File mode mask of the proxy's process; by default the hub's own.",
    ).tag(config=True, example=0o077)
    concurrency = Int(
        10, min=1, help="How many requests the hub sends to the proxy's API at the same time."
    ).tag(config=True, unit="requests")
    pid_file = Unicode(help="File in which the proxy's process id is kept while it runs.").tag(
        config=True, example="/run/proxy.pid"
    )

    @validate("api_url")
    def _place_of_the_api(self, proposal: dict) -> str:
        try:
            parts = split_url(proposal["value"])
            fine = is_host(parts.hostname or "") and parts.port is not None
        except ValueError:
            fine = False
        if not fine or parts.path not in ("", "/"):
            raise TraitError("is a URL with a port and no path, such as http://127.0.0.1:8001")
        return proposal["value"]

    @default("auth_token")
    def _default_auth_token(self) -> str:
        return os.environ.get("CONFIGPROXY_AUTH_TOKEN") or tokens.new_token()

    @default("pid_file")
    def _default_pid_file(self) -> str:
        return str(self.place.state_dir / "proxy.pid")

    #: Whether the program answers nobody on its public side before it has the hub's route.
    waits_for_routes = False
    #: Whether the program listens where it likes when it is told port 0, and logs where.
    finds_ports = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Written out, but empty, is as if it were not there. An empty token would let in anybody.
        for name in ("auth_token", "pid_file"):
            if self._trait_values.get(name) == "":
                del self._trait_values[name]
        self._process: process.Process | None = None
        #: Processes that have handed over and still serve their last tunnels.
        self._leaving: list[process.Process] = []
        self._asked: list[str] = []
        #: The API of the process that we watch; another than ``api_url`` after use_other().
        self._own_url = ""
        self._log_since = 0
        self._stopping = threading.Event()
        self._client = ProxyClient(
            lambda: (self.api_url, self.auth_token),
            self._stopping,
            concurrency=self.concurrency,
        )
        self._watcher: threading.Thread | None = None

    # -- the process -----------------------------------------------------------------------

    @property
    def log_path(self) -> Path:
        return self.place.state_dir / "logs" / "proxy.log"

    def program(self) -> list[str]:
        """Return the program and its first arguments."""
        return list(self.command)

    def arguments(self) -> list[str]:
        """Return the command line after the program (CHP 5's options)."""
        api = urlsplit(self.api_url)
        place = self.place
        args = ["--ip", place.ip, "--port", str(self.public_port)]
        args += ["--api-ip", api.hostname or "127.0.0.1", "--api-port", str(api.port)]
        args += ["--error-target", place.hub_url + "error"]
        args += ["--log-level", self._level]
        if place.host_routing:
            args.append("--host-routing")
        if place.ssl_key:
            args += ["--ssl-key", place.ssl_key]
        if place.ssl_cert:
            args += ["--ssl-cert", place.ssl_cert]
        return args

    @property
    def _level(self) -> str:
        return "debug" if self.debug else self.log_level

    @property
    def _facts_path(self) -> Path:
        return self.place.state_dir / "proxy.json"

    def adopt(self) -> bool:
        given = self.auth_token if self.trait_has_value("auth_token") else ""
        self.public_port = self.place.port
        self._asked = self._what_is_asked()
        facts = proxyfacts.load(self._facts_path)
        if facts is None:
            return False
        identity = process.Identity(facts.pid, facts.create_time)
        found = process.adopt(identity, facts.marker)
        found = self._successor_of(found) or found
        if found.poll() is not None:
            return False
        if facts.asked == self._asked and given in ("", facts.auth_token):
            asked_url = self.api_url
            self.api_url, self.auth_token = facts.api_url, facts.auth_token
            self.public_port = facts.public_port
            if self._is_well():
                self._process, self._own_url = found, self.api_url
                log.info("The proxy still runs: pid %d", found.identity.pid)
                if found.identity.pid != facts.pid:
                    self._note()
                return True
            self.api_url, self.public_port = asked_url, self.place.port
            why = "does not answer"
        else:
            why = "was started with another configuration"
        log.warning("The running proxy (pid %d) %s; it is replaced", found.identity.pid, why)
        found.stop(0, STOP_TIMEOUT_S, 2)
        return False

    def _what_is_asked(self) -> list[str]:
        """Return all that makes one configured proxy different from another, as texts."""
        api_url = self.api_url if self.trait_has_value("api_url") else ""
        return [
            type(self).__name__,
            *self.command,
            api_url,
            self._level,
            *map(str, astuple(self.place)),
        ]

    @aio.either
    def start(self) -> None:
        if not self.should_start:
            self.public_port = self.place.port
            if not self.trait_has_value("auth_token"):
                raise ConfigError(
                    f"{type(self).__name__}.auth_token: with should_start=False the running "
                    "proxy's token must be given"
                )
            return
        if self._process is None:
            if not self.finds_ports or self._level not in ("debug", "info"):
                self._choose_ports()
            self._launch()
        self._watcher = threading.Thread(target=self._watch, name="proxy-watch", daemon=True)
        self._watcher.start()

    def _choose_ports(self) -> None:
        """Put free ports in the place of 0."""
        self.public_port = self.public_port or _free_port(self.place.ip)
        api = urlsplit(self.api_url)
        if api.port == 0:
            host = api.hostname or "127.0.0.1"
            self.api_url = f"{api.scheme}://{in_url(host)}:{_free_port(host)}"

    def _launch(self) -> None:
        self.is_open = not self.waits_for_routes
        env = dict(os.environ) | {"CONFIGPROXY_AUTH_TOKEN": self.auth_token}
        argv = self.program() + self.arguments()
        process.rotate(self.log_path, LOG_MAX_BYTES)
        self._log_since = self.log_path.stat().st_size if self.log_path.exists() else 0
        try:
            self._process = process.start(
                argv,
                env=env,
                cwd=os.getcwd(),
                log_path=self.log_path,
                launch=process.LaunchSpec(umask=self.command_umask),
                marker=orphans.new_marker(self.place.state_dir, orphans.PROXY),
            )
        except startwords.CommandNotFound as error:
            raise ConfigError(
                f"{type(self).__name__}.command: {argv[0]!r} was not found. Install it "
                "(npm install -g configurable-http-proxy) or use the built-in proxy "
                "(JupyterHub.proxy_class = threaded)"
            ) from error
        try:
            self._wait_listening()
            self._own_url = self.api_url
            self._note()
        except BaseException:
            self._process.stop(0, 2, 2)
            raise

    def _successor_of(self, one: process.Process) -> process.Process | None:
        """Return the process that this one has handed over to, None when it has not.

        The pid file names it; the marker in its environment says that it came of this one.
        """
        try:
            pid = int(Path(self.pid_file).read_text())
        except (OSError, ValueError):
            return None
        if pid == one.identity.pid:
            return None
        for identity in one.tree():
            if identity.pid == pid:
                return process.adopt(identity, one.marker)
        return None

    def _follow(self) -> bool:
        """Watch the process that ours has handed over to; return whether there is one.

        The former one ends when its last tunnel does.
        """
        successor = self._successor_of(self._process)
        if successor is None:
            return False
        log.info("The proxy has handed over to pid %d", successor.identity.pid)
        self._leaving.append(self._process)
        self._process = successor
        self._note()
        return True

    def _note(self) -> None:
        """Keep what a later hub needs to find the proxy. Raises ProxyError."""
        identity = self._process.identity
        try:
            with open(self.pid_file, "w", opener=_not_for_others_to_write) as file:
                file.write(f"{identity.pid}\n")
        except OSError as error:
            raise ProxyError(
                f"{type(self).__name__}.pid_file: {self.pid_file}: {error.strerror}"
            ) from error
        facts = proxyfacts.ProxyFacts(
            pid=identity.pid,
            create_time=identity.create_time,
            marker=self._process.marker,
            auth_token=self.auth_token,
            api_url=self.api_url,
            public_port=self.public_port,
            asked=self._asked,
        )
        proxyfacts.save(self._facts_path, facts)

    def _wait_listening(self) -> None:
        deadline = clock.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self.find_ports()
                self._client.call("GET", "/api/routes", timeout_s=CHECK_TIMEOUT_S)
                self._ask_public_side()
                return
            except ProxyError as error:
                code = self._process.poll()
                if code is not None:
                    tail = "\n".join(process.tail(self.log_path, 10, self._log_since))
                    raise ProxyError(
                        f"the proxy ended at its start (exit code {code}):\n{tail}"
                    ) from error
                if clock.monotonic() > deadline:
                    raise ProxyError(
                        f"the proxy did not answer within {START_TIMEOUT_S:g} s ({error}); "
                        f"its log: {self.log_path}"
                    ) from error
            self._stopping.wait(0.02)

    def _is_well(self) -> bool:
        """Return whether both sides of the proxy answer, asked twice before that is denied."""
        for _attempt in range(2):
            try:
                self._client.call("GET", "/api/routes", timeout_s=CHECK_TIMEOUT_S)
                self._ask_public_side()
                return True
            except ProxyError as error:
                log.warning("%s", error)
        return False

    def _ask_public_side(self) -> None:
        """Raise ProxyError unless the public side answers with anything.

        One that waits for its routes answers nobody yet: that it listens is enough then.
        """
        host = "127.0.0.1" if self.place.ip in ALL_ADDRESSES else self.place.ip
        if not self.is_open:
            try:
                socket.create_connection((host, self.public_port), CHECK_TIMEOUT_S).close()
            except OSError as error:
                raise ProxyError(f"the proxy does not listen yet: {error}") from error
            return
        timeout: dict[str, Any] = {"timeout": CHECK_TIMEOUT_S}
        if self.place.ssl_cert:
            # We know who listens there, and its certificate is for another name.
            context = ssl._create_unverified_context()
            connection = http.client.HTTPSConnection(
                host, self.public_port, context=context, **timeout
            )
        else:
            connection = http.client.HTTPConnection(host, self.public_port, **timeout)
        try:
            connection.request("GET", "/_chp_healthz")
            connection.getresponse().read()
        except (OSError, http.client.HTTPException) as error:
            where = f"{in_url(host)}:{self.public_port}"
            raise ProxyError(f"the proxy at {where} did not answer: {error}") from error
        finally:
            connection.close()

    def find_ports(self) -> None:
        """Find the ports in use, where 0 was asked for. Raises ProxyError before they are known."""

    def _watch(self) -> None:
        """Start the proxy again whenever it ends or no longer answers, until :meth:`stop`."""
        pause = RESTART_PAUSE_S
        began = clock.monotonic()
        while not self._stopping.is_set():
            if self.api_url != self._own_url:
                self._stopping.wait(self.check_running_interval)
                continue
            code = self._wait_end(self.check_running_interval)
            if self._stopping.is_set():
                return
            # Those that have ended are reaped by being asked.
            self._leaving = [one for one in self._leaving if one.poll() is None]
            if self._follow():
                continue
            if code is None:
                if self._is_well() or self._stopping.is_set() or self.api_url != self._own_url:
                    continue
                log.error("The proxy runs but does not answer; starting another")
                self._process.stop(0, 2, 2)
            else:
                log.error("The proxy ended (exit code %s); starting it again", code)
            pause = RESTART_PAUSE_S if clock.monotonic() - began > 60 else pause
            while not self._stopping.wait(pause):
                pause = min(pause * 2, RESTART_PAUSE_MAX_S)
                began = clock.monotonic()
                try:
                    self._launch()
                    break
                except Exception as error:
                    log.error("The proxy could not be started: %s", error)
            else:
                return
            try:
                self.on_restart()
            except Exception as error:  # routes are looked at again by and by
                log.error("The proxy has not got its routes back: %s", error)

    def _wait_end(self, timeout_s: float) -> int | None:
        """Wait for the process's end or for :meth:`stop`; return as the process's ``poll``."""
        deadline = clock.monotonic() + timeout_s
        while True:
            left = deadline - clock.monotonic()
            code = self._process.wait(max(0.0, min(left, STEP_S)))
            if code is not None or left <= 0 or self._stopping.is_set():
                return code

    def stop(self) -> None:
        self._stopping.set()
        if self._process is not None:
            self._process.stop(0, STOP_TIMEOUT_S, 2)
            Path(self.pid_file).unlink(missing_ok=True)
            self._facts_path.unlink(missing_ok=True)
        self.disconnect()

    def disconnect(self) -> None:
        """Close the idle API connections and end the watching; the proxy goes on."""
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join(STOP_TIMEOUT_S)
        self._client.close()

    # -- routes ----------------------------------------------------------------------------

    def use_other(self, api_url: str, auth_token: str) -> None:
        parts = urlsplit(api_url)
        if parts.scheme != "http" or not parts.hostname or not parts.port:
            raise ValueError("api_url must be http://host:port")
        self.api_url, self.auth_token = f"http://{parts.netloc}", auth_token
        self._client.close()

    def _api_path(self, routespec: str, resource: str = "routes") -> str:
        path = routespec if routespec.startswith("/") else "/" + routespec
        path = path if path == "/" else path.rstrip("/")
        return f"/api/{resource}" + quote(unquote(path), safe="@/~")

    @aio.either
    def add_route(self, routespec: str, target: str, data: dict[str, Any]) -> None:
        body = dict(data) | {"target": target, "jupyterhub": True}
        self._client.request("POST", self._api_path(routespec), body)
        if routespec == "/":
            self.is_open = True

    @aio.either
    def delete_route(self, routespec: str) -> None:
        self._client.request("DELETE", self._api_path(routespec))

    @aio.either
    def get_all_routes(self) -> dict[str, dict[str, Any]]:
        routes = {}
        for path, facts in (self._client.request("GET", "/api/routes") or {}).items():
            if not facts.get("jupyterhub"):
                continue
            spec = quote(path, safe="@/~").rstrip("/") + "/"
            if self.place.host_routing:
                spec = spec.lstrip("/") or "/"
            data = {key: facts[key] for key in facts if key not in ("target", "jupyterhub")}
            routes[spec] = {"routespec": spec, "target": facts["target"], "data": data}
        self.is_open |= "/" in routes  # it may have come although its answer did not
        return routes


def _free_port(ip: str) -> int:
    """Return a port that is free at the moment."""
    host = "127.0.0.1" if ip in ALL_ADDRESSES else ip
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def _not_for_others_to_write(path: str, flags: int) -> int:
    return os.open(path, flags, 0o644)
