"""The hub's side of the proxy: starting it, watching it, telling it the routes.

Rules of this file: it speaks configurable-http-proxy's REST API and knows routes as text; which
routes there should be is decided in :mod:`minihub.hub`. Routespecs are ``/path/`` or, with host
routing, ``host/path/``, always with a final slash.

Threads: any thread may call the route methods; idle API connections are shared through a queue.
One thread, started by :meth:`ConfigurableHTTPProxy.start`, watches the process.
Sources: configurable-http-proxy's README, REST API and command line.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import queue
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from traitlets import Bool, Int, Unicode, default
from traitlets.config import Configurable

from . import clock, process, runtime, tokens
from .errors import ConfigError, ProxyError
from .traits import Command

log = logging.getLogger("minihub.proxy")

#: A log that is larger when the proxy starts is put aside.
LOG_MAX_BYTES = 10 * 1024 * 1024

API_TIMEOUT_S = 30.0
START_TIMEOUT_S = 15.0
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


class Proxy(Configurable):
    """Base of all proxies; subclasses may write their methods plain or ``async``."""

    should_start = Bool(True, help="Whether the hub starts and stops the proxy itself.").tag(
        config=True
    )

    place: ProxyPlace
    #: Called, from any thread, after the proxy lost its routes.
    on_restart: Callable[[], None] = staticmethod(lambda: None)
    #: The public port in use; differs from the one asked for when that was 0.
    public_port: int = 0

    def start(self) -> None:
        """Start the proxy. Raises ProxyError when it does not come up."""

    def stop(self) -> None:
        """Stop the proxy."""

    def add_route(self, routespec: str, target: str, data: dict[str, Any]) -> None:
        """Send what begins with ``routespec`` to ``target`` (``http://host:port``)."""
        raise ProxyError(f"{type(self).__name__} defines no add_route")

    def delete_route(self, routespec: str) -> None:
        """Forget a route; one that is not there is no error."""
        raise ProxyError(f"{type(self).__name__} defines no delete_route")

    def get_all_routes(self) -> dict[str, dict[str, Any]]:
        """Return ``{routespec: {"routespec", "target", "data"}}`` of this hub's routes.

        ``data`` may hold ``last_activity``, an ISO 8601 text.
        """
        raise ProxyError(f"{type(self).__name__} defines no get_all_routes")


class ConfigurableHTTPProxy(Proxy):
    """The node program configurable-http-proxy, from npm."""

    debug = Bool(False, help="Log at debug level in the proxy.").tag(config=True)
    auth_token = Unicode(
        help="Secret shared with the proxy's API. Default: the environment's"
        " CONFIGPROXY_AUTH_TOKEN, else a new one at each start."
    ).tag(config=True)
    check_running_interval = Int(
        5, help="Seconds between two looks at whether the proxy answers."
    ).tag(config=True)
    api_url = Unicode("http://127.0.0.1:8001", help="Where the proxy's REST API listens.").tag(
        config=True
    )
    command = Command(
        ["configurable-http-proxy"], help="The proxy's program and first arguments."
    ).tag(config=True)
    pid_file = Unicode(help="File in which the proxy's process id is kept while it runs.").tag(
        config=True
    )

    @default("auth_token")
    def _default_auth_token(self) -> str:
        return os.environ.get("CONFIGPROXY_AUTH_TOKEN") or tokens.new_token()

    @default("pid_file")
    def _default_pid_file(self) -> str:
        return str(self.place.state_dir / "proxy.pid")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._process: process.Process | None = None
        self._log_since = 0
        self._idle: queue.SimpleQueue[http.client.HTTPConnection] = queue.SimpleQueue()
        self._stopping = threading.Event()
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
        args += ["--log-level", "debug" if self.debug else "info"]
        if place.host_routing:
            args.append("--host-routing")
        if place.ssl_key:
            args += ["--ssl-key", place.ssl_key]
        if place.ssl_cert:
            args += ["--ssl-cert", place.ssl_cert]
        return args

    def start(self) -> None:
        self.public_port = self.place.port
        if not self.should_start:
            if not self.trait_values().get("auth_token"):
                raise ConfigError(
                    f"{type(self).__name__}.auth_token: with should_start=False the running "
                    "proxy's token must be given"
                )
            return
        self._launch()
        self._watcher = threading.Thread(target=self._watch, name="proxy-watch", daemon=True)
        self._watcher.start()

    def _launch(self) -> None:
        env = dict(os.environ) | {"CONFIGPROXY_AUTH_TOKEN": self.auth_token}
        argv = self.program() + self.arguments()
        process.rotate(self.log_path, LOG_MAX_BYTES)
        self._log_since = self.log_path.stat().st_size if self.log_path.exists() else 0
        try:
            self._process = process.start(argv, env=env, cwd=None, log_path=self.log_path)
        except process.CommandNotFound as error:
            raise ConfigError(
                f"{type(self).__name__}.command: {argv[0]!r} was not found. Install it "
                "(npm install -g configurable-http-proxy) or use the built-in proxy "
                "(JupyterHub.proxy_class = threaded)"
            ) from error
        Path(self.pid_file).write_text(f"{self._process.identity.pid}\n")
        self._wait_listening()

    def _wait_listening(self) -> None:
        deadline = clock.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self.find_ports()
                self._request("GET", "/api/routes")
                return
            except ProxyError as error:
                code = self._process.poll()
                if code is not None:
                    tail = "\n".join(process.tail(self.log_path, 10, self._log_since))
                    raise ProxyError(
                        f"the proxy ended at its start (exit code {code}):\n{tail}"
                    ) from error
                if clock.monotonic() > deadline:
                    self._process.stop(0, 2, 2)
                    raise ProxyError(
                        f"the proxy's API at {self.api_url} did not answer within "
                        f"{START_TIMEOUT_S:g} s; its log: {self.log_path}"
                    ) from error
            self._stopping.wait(0.02)

    def find_ports(self) -> None:
        """Find the ports in use, where 0 was asked for. Raises ProxyError before they are known."""

    def _watch(self) -> None:
        """Start the proxy again whenever it ends, until :meth:`stop`."""
        pause = RESTART_PAUSE_S
        began = clock.monotonic()
        while not self._stopping.is_set():
            code = self._process.wait(self.check_running_interval)
            if self._stopping.is_set():
                return
            if code is None:
                continue
            log.error("The proxy ended (exit code %s); starting it again", code)
            pause = RESTART_PAUSE_S if clock.monotonic() - began > 60 else pause
            while not self._stopping.wait(pause):
                pause = min(pause * 2, RESTART_PAUSE_MAX_S)
                began = clock.monotonic()
                try:
                    self._launch()
                    self.on_restart()
                    break
                except Exception as error:
                    log.error("The proxy could not be started: %s", error)

    def stop(self) -> None:
        self._stopping.set()
        if self._process is not None:
            self._process.stop(0, STOP_TIMEOUT_S, 2)
            Path(self.pid_file).unlink(missing_ok=True)
        if self._watcher is not None:
            self._watcher.join(STOP_TIMEOUT_S)
        self.disconnect()

    def disconnect(self) -> None:
        """Close the idle API connections; the proxy goes on."""
        self._stopping.set()
        while True:
            try:
                self._idle.get_nowait().close()
            except queue.Empty:
                return

    # -- routes ----------------------------------------------------------------------------

    def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Call the proxy's API; returns the decoded JSON answer or None.

        Raises ProxyError for anything but success; a 404 to a DELETE counts as success.
        """
        payload = None if body is None else json.dumps(body)
        headers = {"Authorization": f"token {self.auth_token}"}
        for fresh in (False, True):  # an idle connection may have gone stale
            connection = self._connection(fresh)
            try:
                connection.request(method, path, payload, headers)
                response = connection.getresponse()
                answer = response.read()
                break
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if fresh:
                    raise ProxyError(
                        f"the proxy's API at {self.api_url} did not answer: {error}"
                    ) from error
        if not response.will_close:
            self._idle.put(connection)
        if response.status == 403:
            raise ProxyError(
                f"the proxy at {self.api_url} refused our token; another proxy may be running "
                "there, or CONFIGPROXY_AUTH_TOKEN has changed"
            )
        if response.status >= 400 and not (method == "DELETE" and response.status == 404):
            raise ProxyError(f"the proxy answered {response.status} to {method} {path}")
        return json.loads(answer) if answer else None

    def _connection(self, fresh: bool) -> http.client.HTTPConnection:
        if not fresh:
            try:
                return self._idle.get_nowait()
            except queue.Empty:
                pass
        api = urlsplit(self.api_url)
        return http.client.HTTPConnection(api.hostname, api.port, timeout=API_TIMEOUT_S)

    def _api_path(self, routespec: str) -> str:
        path = routespec if routespec.startswith("/") else "/" + routespec
        path = path if path == "/" else path.rstrip("/")
        return "/api/routes" + quote(unquote(path), safe="@/~")

    def add_route(self, routespec: str, target: str, data: dict[str, Any]) -> None:
        body = dict(data) | {"target": target, "jupyterhub": True}
        self._request("POST", self._api_path(routespec), body)

    def delete_route(self, routespec: str) -> None:
        self._request("DELETE", self._api_path(routespec))

    def get_all_routes(self) -> dict[str, dict[str, Any]]:
        routes = {}
        for path, facts in (self._request("GET", "/api/routes") or {}).items():
            if not facts.get("jupyterhub"):
                continue
            spec = quote(path, safe="@/~").rstrip("/") + "/"
            if self.place.host_routing:
                spec = spec.lstrip("/") or "/"
            data = {key: facts[key] for key in facts if key not in ("target", "jupyterhub")}
            routes[spec] = {"routespec": spec, "target": facts["target"], "data": data}
        return routes


class ThreadedProxy(ConfigurableHTTPProxy):
    """The built-in proxy: the ``proxy`` verb of this program."""

    command = Command([], help="Program to use in place of the built-in one.").tag(config=True)

    _PUBLIC = re.compile(r"Proxying https?://.*:(\d+) to")
    _API = re.compile(r"Proxy API at https?://.*:(\d+)/api/routes")

    @default("api_url")
    def _default_api_url(self) -> str:
        """The usual port when it is free, else any: a second hub on one machine is no mistake."""
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", 8001))
            except OSError:
                return "http://127.0.0.1:0"
        return "http://127.0.0.1:8001"

    def program(self) -> list[str]:
        return list(self.command) or runtime.self_command("proxy")

    def find_ports(self) -> None:
        """Read the ports in use from what the proxy prints once it listens."""
        lines = "\n".join(process.tail(self.log_path, 50, self._log_since))
        public, api = self._PUBLIC.search(lines), self._API.search(lines)
        if public is None or api is None:
            raise ProxyError("the proxy does not listen yet")
        self.public_port = int(public[1])
        parts = urlsplit(self.api_url)
        self.api_url = f"{parts.scheme}://{_host(parts.hostname)}:{api[1]}"


def _host(name: str | None) -> str:
    return f"[{name}]" if name and ":" in name else name or "127.0.0.1"
