"""Running the services: rows, tokens, processes, and which routes they want.

Rules of this file: it moves store and processes together for services as :mod:`minihub.hub` does
for servers; the routes are added by the hub. A managed service that ends is started again, later
each time it ends young. A service that does not answer is named in the log and never stops the hub.

Threads: any may look. Each managed service has a thread that starts it, waits for its end and
starts it again; one thread checks that services with a URL can be reached.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from . import clock, process, tokens
from .accounts import Accounts
from .errors import ConfigError, MinihubError
from .hookinfo import HubInfo
from .models import OAuthClient, Service, Token
from .oauth import OAuthProvider
from .options import JupyterHub
from .services import MIN_TOKEN_LENGTH, ServiceSpec, parse

log = logging.getLogger("minihub.services")

#: A log that is larger when its service starts is put aside.
LOG_MAX_BYTES = 10 * 1024 * 1024

#: Pause before a service is started again: doubled each time it lived shorter than a minute.
FIRST_PAUSE_S = 1.0
LAST_PAUSE_S = 60.0
YOUNG_S = 60.0
CONNECT_TIMEOUT_S = 1.0
#: The stop ladder of a managed service.
STOP_LADDER_S = (5.0, 5.0, 5.0)


class Runner:
    """One service of the configuration."""

    def __init__(self, spec: ServiceSpec, hub: HubInfo, api_token: str) -> None:
        self.spec = spec
        self._hub = hub
        self._api_token = api_token
        self._process: process.Process | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def pid(self) -> int:
        """The process id of a managed service that runs, else 0."""
        current = self._process
        return current.identity.pid if current is not None and current.poll() is None else 0

    def start(self) -> None:
        """Start a managed service and keep it running; nothing for an external one."""
        if self.spec.managed:
            name = f"service-{self.spec.name}"
            self._thread = threading.Thread(target=self._keep_running, name=name, daemon=True)
            self._thread.start()

    def _keep_running(self) -> None:
        pause = FIRST_PAUSE_S
        while not self._stopping.is_set():
            began = clock.monotonic()
            try:
                self._process = self._launch()
            except (MinihubError, OSError, KeyError) as error:
                log.error("Service %s cannot be started: %s", self.spec.name, error)
            else:
                log.info("Service %s: pid %d", self.spec.name, self._process.identity.pid)
                code = self._process.wait()
                if self._stopping.is_set():
                    return
                log.error("Service %s has ended (exit code %s)", self.spec.name, code)
            pause = FIRST_PAUSE_S if clock.monotonic() - began > YOUNG_S else pause
            self._stopping.wait(pause)
            pause = min(pause * 2, LAST_PAUSE_S)

    def _launch(self) -> process.Process:
        path = self._hub.state_dir / "logs" / f"service-{self.spec.name}.log"
        process.rotate(path, LOG_MAX_BYTES)
        return process.start(
            list(self.spec.command),
            env=self.spec.env(self._hub, self._api_token),
            cwd=self.spec.cwd or self._hub.state_dir.parent,
            log_path=path,
            launch=self.spec.launch_spec(),
        )

    def stop(self) -> None:
        """Stop a managed service with all that came of it."""
        self._stopping.set()
        if self._process is not None:
            try:
                self._process.stop(*STOP_LADDER_S)
            except MinihubError as error:
                log.error("Service %s: %s", self.spec.name, error)
        if self._thread is not None:
            self._thread.join(sum(STOP_LADDER_S))

    def can_connect(self) -> bool:
        """Return whether somebody listens where the service's URL points."""
        parts = urlsplit(self.spec.url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        try:
            socket.create_connection((parts.hostname or "", port), CONNECT_TIMEOUT_S).close()
        except OSError:
            return False
        return True


class ServiceRunner:
    """All services of the configuration."""

    def __init__(
        self,
        *,
        options: JupyterHub,
        info: HubInfo,
        accounts: Accounts,
        oauth: OAuthProvider,
    ) -> None:
        self.options = options
        self.info = info
        self.accounts = accounts
        self.oauth = oauth
        self.specs = {spec.name: spec for spec in parse(options.services)}
        self.runners: dict[str, Runner] = {}
        self._stopping = threading.Event()
        self._checker: threading.Thread | None = None

    # -- at start --------------------------------------------------------------------------

    def load(self) -> None:
        """Bring rows, tokens and OAuth clients in line with the configuration.

        Raises ConfigError for tokens that are too short or belong to nobody declared.
        """
        self._check_tokens()
        store = self.accounts.store
        with store.transaction():
            gone = Service.select().where(
                Service.from_config, Service.name.not_in(list(self.specs))
            )
            for row in gone:
                OAuthClient.delete().where(
                    OAuthClient.identifier.startswith(f"service-{row.name}")
                ).execute()
                row.delete_instance()
        for spec in self.specs.values():
            row = self._row(spec)
            api_token = spec.api_token
            if api_token:
                self._register_token(api_token, service_id=row.id)
            elif spec.managed:
                api_token = self._fresh_token(row)
            if spec.uses_oauth:
                self.oauth.register_client(
                    spec.client_id,
                    secret=api_token or tokens.new_token(),
                    redirect_uri=spec.redirect_uri(self.info.base_url),
                    allowed_scopes=[
                        f"access:services!service={spec.name}",
                        *spec.oauth_client_allowed_scopes,
                    ],
                    description=f"Service {spec.name}",
                )
            self.runners[spec.name] = Runner(spec, self.info, api_token)
        for token, name in self.options.service_tokens.items():
            with store.session():
                row = Service.get(Service.name == name)
            self._register_token(token, service_id=row.id)
        for token, name in self.options.api_tokens.items():
            user, _created = self.accounts.ensure_user(name)
            self._register_token(token, user_id=user.id)

    def _check_tokens(self) -> None:
        problems = []
        for option in ("service_tokens", "api_tokens"):
            for token, name in getattr(self.options, option).items():
                if len(token) < MIN_TOKEN_LENGTH:
                    problems.append(
                        f"JupyterHub.{option}: the token of {name} needs at least "
                        f"{MIN_TOKEN_LENGTH} characters; make one with: openssl rand -hex 32"
                    )
                if option == "service_tokens" and name not in self.specs:
                    problems.append(
                        f"JupyterHub.service_tokens: there is no service {name} in "
                        "JupyterHub.services"
                    )
        if problems:
            raise ConfigError(problems)

    def _row(self, spec: ServiceSpec) -> Service:
        with self.accounts.store.transaction():
            row, _created = Service.get_or_create(name=spec.name)
            row.admin, row.url, row.display = spec.admin, spec.url, spec.display
            row.info, row.from_config = dict(spec.info), True
            row.save()
            return row

    def _register_token(
        self, plain: str, *, service_id: int | None = None, user_id: int | None = None
    ) -> None:
        """Make a configured token known, unless it is; stretched unless trusted."""
        known = self.accounts.find_token(plain)
        if known is not None:
            if (known.service_id, known.user_id) != (service_id, user_id):
                raise ConfigError("JupyterHub: one API token is given for two owners")
            return
        trusted = self.options.trust_user_provided_tokens
        self.accounts.issue_token(
            service_id=service_id,
            user_id=user_id,
            note="Given in the configuration",
            plain=plain,
            rounds=tokens.GENERATED_ROUNDS if trusted else tokens.STRETCHED_ROUNDS,
        )

    def _fresh_token(self, row: Service) -> str:
        note = "Generated at the start of the hub"
        with self.accounts.store.transaction():
            Token.delete().where(Token.service == row, Token.note == note).execute()
            return self.accounts.issue_token(service_id=row.id, note=note)[1]

    # -- while the hub runs ----------------------------------------------------------------

    def start(self) -> None:
        """Start managed services, and begin to check that services can be reached."""
        for runner in self.runners.values():
            runner.start()
        if self.options.service_check_interval > 0 and any(s.url for s in self.specs.values()):
            self._checker = threading.Thread(target=self._check, name="service-check", daemon=True)
            self._checker.start()

    def _check(self) -> None:
        dead: set[str] = set()
        while not self._stopping.wait(self.options.service_check_interval):
            for name, runner in self.runners.items():
                if not runner.spec.url:
                    continue
                if runner.can_connect():
                    if name in dead:
                        log.warning("Service %s answers again", name)
                    dead.discard(name)
                else:
                    log.warning("Service %s at %s does not answer", name, runner.spec.url)
                    dead.add(name)

    def routes(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """Return ``{routespec: (target, data)}`` of all services with a URL."""
        return {
            spec.prefix(self.info.base_url): (spec.target, {"service": spec.name})
            for spec in self.specs.values()
            if spec.url
        }

    def skips_confirmation(self, client_id: str) -> bool:
        """Return whether this OAuth client needs no consent (``oauth_no_confirm``)."""
        return any(
            spec.oauth_no_confirm and spec.client_id == client_id for spec in self.specs.values()
        )

    def shown(self) -> Iterable[dict[str, str]]:
        """Yield the services that pages link to: ``{name, href}``."""
        for spec in self.specs.values():
            if spec.url and spec.display:
                yield {"name": spec.name, "href": spec.prefix(self.info.base_url)}

    def stop(self) -> None:
        """Stop every managed service, all at once."""
        self._stopping.set()
        threads = [
            threading.Thread(target=runner.stop, name=f"stop-{name}")
            for name, runner in self.runners.items()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._checker is not None:
            self._checker.join(CONNECT_TIMEOUT_S + 1)
