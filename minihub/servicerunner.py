"""Running the services: rows, tokens, processes, and which routes they want.

Rules of this file: it moves store and processes together for services as :mod:`minihub.hub` does
for servers; the routes are added by the hub. A managed service that ends is started again, later
each time it ends young; one that a killed hub left behind is stopped first. A service that does not
answer is named in the log and never stops the hub.

Threads: any may look. Each managed service has a thread that starts it, waits for its end and
starts it again; each external one has a thread until it answers for the first time. One more
checks that services with a URL can be reached.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from . import clock, orphans, process, scopes, tokens
from .accounts import Accounts
from .errors import ConfigError, MinihubError
from .filenames import file_name
from .hookinfo import HubInfo
from .models import OAuthClient, Service, Token, User
from .oauth import OAuthProvider
from .options import JupyterHub
from .services import ServiceSpec, parse

log = logging.getLogger("minihub.services")

#: A log that is larger when its service starts is put aside.
LOG_MAX_BYTES = 10 * 1024 * 1024

#: Pause before a service is started again: doubled each time it lived shorter than a minute.
FIRST_PAUSE_S = 1.0
LAST_PAUSE_S = 60.0
YOUNG_S = 60.0
CONNECT_TIMEOUT_S = 1.0
#: How long at most a service's thread waits without looking whether the hub stops.
STEP_S = 0.25
ANSWER_STEP_S = 0.2
#: The note of tokens that stand in the configuration.
CONFIGURED = "Given in the configuration"
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
        """Start a managed service and keep it running; look whether an external one answers."""
        work = self._keep_running if self.spec.managed else self._wait_answer
        if self.spec.managed or self.spec.url:
            name = f"service-{self.spec.name}"
            self._thread = threading.Thread(target=work, name=name, daemon=True)
            self._thread.start()

    def _keep_running(self) -> None:
        pause = FIRST_PAUSE_S
        while not self._stopping.is_set():
            began = clock.monotonic()
            try:
                self._process = self._launch()
            except (MinihubError, OSError, KeyError) as error:
                hint = getattr(error, "hint", "")
                told = f"{error} {hint}".rstrip()
                log.error("Service %s cannot be started: %s", self.spec.name, told)
            else:
                log.info("Service %s: pid %d", self.spec.name, self._process.identity.pid)
                if self.spec.url:
                    self._wait_answer()
                while self._process.wait(STEP_S) is None and not self._stopping.is_set():
                    pass
                if self._stopping.is_set():
                    self._end(self._process)
                    return
                code = self._process.poll()
                log.error(
                    "Service %s has ended (exit code %s); its log: %s",
                    self.spec.name,
                    code,
                    self._log_path,
                )
            pause = FIRST_PAUSE_S if clock.monotonic() - began > YOUNG_S else pause
            self._stopping.wait(pause)
            pause = min(pause * 2, LAST_PAUSE_S)

    def _wait_answer(self) -> None:
        """Wait until the service answers, or ends, or the hub does; tell when it takes too long."""
        deadline = clock.monotonic() + self.spec.timeout
        while not self.can_connect():
            if self._stopping.wait(ANSWER_STEP_S):
                return
            if self._process is not None and self._process.poll() is not None:
                return
            if clock.monotonic() > deadline:
                log.warning(
                    "Service %s has not answered at %s within %g s",
                    self.spec.name,
                    self.spec.url,
                    self.spec.timeout,
                )
                return
        log.info("Service %s answers at %s", self.spec.name, self.spec.url)

    def _launch(self) -> process.Process:
        path = self._log_path
        process.rotate(path, LOG_MAX_BYTES)
        started = process.start(
            list(self.spec.command),
            env=self.spec.env(self._hub, self._api_token),
            cwd=self.spec.cwd or self._hub.state_dir.parent,
            log_path=path,
            launch=self.spec.launch_spec(),
            marker=orphans.new_marker(self._hub.state_dir, orphans.SERVICE),
        )
        try:
            process.private_directory(self._note.parent)
            facts = {**asdict(started.identity), "marker": started.marker}
            with open(self._note, "w", opener=_private) as file:
                file.write(json.dumps(facts))
        except (MinihubError, OSError) as error:
            log.warning("Service %s would not be found again: %s", self.spec.name, error)
        return started

    @property
    def _file_name(self) -> str:
        return file_name(self.spec.name)

    @property
    def _log_path(self) -> Path:
        return self._hub.state_dir / "logs" / f"service-{self._file_name}.log"

    @property
    def _note(self) -> Path:
        """The file that tells a later hub which process was the service."""
        return notes_directory(self._hub) / f"{self._file_name}.json"

    def _end(self, running: process.Process) -> None:
        try:
            running.stop(*STOP_LADDER_S)
            self._note.unlink(missing_ok=True)
        except (MinihubError, OSError) as error:
            log.error("Service %s: %s", self.spec.name, error)

    def stop(self) -> None:
        """Stop a managed service with all that came of it."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(sum(STOP_LADDER_S) + CONNECT_TIMEOUT_S)

    def can_connect(self) -> bool:
        """Return whether somebody listens where the service's URL points."""
        parts = urlsplit(self.spec.url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        try:
            socket.create_connection((parts.hostname or "", port), CONNECT_TIMEOUT_S).close()
        except OSError:
            return False
        return True


def notes_directory(hub: HubInfo) -> Path:
    """Return where it is noted which processes are services."""
    return hub.state_dir / "services"


def end_left_over(hub: HubInfo) -> None:
    """Stop the services that a hub that was killed has left running: their tokens are old."""
    for note in sorted(notes_directory(hub).glob("*.json")):
        try:
            facts = json.loads(note.read_text())
            identity = process.Identity(facts["pid"], facts["create_time"])
            left = process.adopt(identity, facts["marker"])
            if left.poll() is None:
                log.warning("Service %s of an earlier hub still runs; it is stopped", note.stem)
                left.stop(*STOP_LADDER_S)
            note.unlink()
        except (MinihubError, OSError, ValueError, KeyError, TypeError) as error:
            log.error("Service %s of an earlier hub: %s", note.stem, error)


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

    def load(self, token_owners: Mapping[str, User]) -> None:
        """Bring rows, tokens and OAuth clients in line with the configuration.

        ``token_owners`` are the users of ``JupyterHub.api_tokens``. Raises ConfigError for tokens
        that belong to nobody declared or to two.
        """
        for name in self.options.service_tokens.values():
            if name not in self.specs:
                raise ConfigError(
                    f"JupyterHub.service_tokens: there is no service {name} in JupyterHub.services"
                )
        store = self.accounts.store
        kept: set[int] = set()
        with store.transaction():
            gone = Service.select().where(
                Service.from_config, Service.name.not_in(list(self.specs))
            )
            for row in gone:
                self._delete(row)
        for spec in list(self.specs.values()):
            if spec.oauth_roles:
                log.warning(
                    "JupyterHub.services, entry %s: oauth_roles is deprecated: use "
                    "oauth_client_allowed_scopes",
                    spec.name,
                )
            row = self._row(spec, from_config=True)
            api_token = spec.api_token
            if api_token:
                kept.add(self._register_token(api_token, CONFIGURED, service_id=row.id))
            elif spec.managed:
                api_token = self._fresh_token(row)
            self._register_client(spec, api_token)
            self.runners[spec.name] = Runner(spec, self.info, api_token)
        with store.session():
            made = list(Service.select().where(~Service.from_config))
        for row in made:  # their tokens and OAuth clients are in the database
            try:
                [spec] = parse([row.spec])
            except ConfigError as error:
                log.error("Service %s, made through the API, is left out: %s", row.name, error)
                continue
            self.specs[spec.name], self.runners[spec.name] = spec, Runner(spec, self.info, "")
        for token, name in self.options.service_tokens.items():
            with store.session():
                row = Service.get(Service.name == name)
            kept.add(self._register_token(token, CONFIGURED, service_id=row.id))
        for token, user in token_owners.items():
            kept.add(self._register_token(token, CONFIGURED, user_id=user.id))
        with store.transaction():  # one taken out of the configuration is good no more
            Token.delete().where(Token.note == CONFIGURED, Token.id.not_in(list(kept))).execute()

    def _row(self, spec: ServiceSpec, *, from_config: bool) -> Service:
        with self.accounts.store.transaction():
            row, _created = Service.get_or_create(name=spec.name)
            row.admin, row.url, row.display = spec.admin, spec.url, spec.display
            row.info, row.from_config, row.legacy = dict(spec.info), from_config, spec.legacy
            row.spec = {}
            row.save()
            return row

    def _register_client(self, spec: ServiceSpec, api_token: str) -> None:
        if spec.uses_oauth:
            self.oauth.register_client(
                spec.client_id,
                secret=api_token or tokens.new_token(),
                redirect_uri=spec.redirect_uri(self.info),
                access=f"access:services!service={spec.name}",
                allowed_scopes=[*spec.oauth_client_allowed_scopes, *self._role_scopes(spec)],
                description=f"Service {spec.name}",
            )

    def _role_scopes(self, spec: ServiceSpec) -> Iterator[str]:
        """Yield the scopes that the roles in ``oauth_roles`` stand for. Raises ConfigError."""
        roles = {entry.get("name"): entry.get("scopes") for entry in self.options.load_roles}
        for name in spec.oauth_roles:
            default = scopes.DEFAULT_ROLES.get(name)
            if name not in roles and default is None:
                raise ConfigError(
                    f"JupyterHub.services, entry {spec.name}: oauth_roles: there is no role {name}"
                )
            yield from roles.get(name) or (default.scopes if default else ())

    def _delete(self, row: Service) -> None:
        access = f"access:services!service={row.name}"
        OAuthClient.delete().where(OAuthClient.access == access).execute()
        row.delete_instance()

    # -- services that the configuration does not know -------------------------------------

    def add(self, entry: dict[str, Any]) -> Service:
        """Make a service with the keys of a configured one; it stays until :meth:`remove`.

        Raises ConfigError for what a configured one could not be either, and for a token or an
        OAuth client that belongs to somebody already.
        """
        [spec] = parse([entry])
        kept = {key: value for key, value in entry.items() if key != "api_token"}
        with self.accounts.store.transaction():
            client = OAuthClient.get_or_none(OAuthClient.identifier == spec.client_id)
            if spec.uses_oauth and client is not None:
                raise ConfigError(f"the OAuth client {spec.client_id} is taken")
            row = self._row(spec, from_config=False)
            row.spec = kept
            row.save()
            if spec.api_token:
                self._register_token(spec.api_token, "Given to the API", service_id=row.id)
            self._register_client(spec, spec.api_token)
        self.specs[spec.name], self.runners[spec.name] = spec, Runner(spec, self.info, "")
        return row

    def remove(self, row: Service) -> None:
        """Delete a service that :meth:`add` made, with its tokens and its OAuth client."""
        with self.accounts.store.transaction():
            self._delete(row)
        self.specs.pop(row.name, None)
        self.runners.pop(row.name, None)

    def _register_token(
        self, plain: str, note: str, *, service_id: int | None = None, user_id: int | None = None
    ) -> int:
        """Make a token known that was made elsewhere, unless it is; return its row's id.

        It is stretched unless such tokens are trusted. Raises ConfigError when it is another's.
        """
        trusted = self.options.trust_user_provided_tokens
        rounds = tokens.GENERATED_ROUNDS if trusted else tokens.STRETCHED_ROUNDS
        known = self.accounts.find_token(plain)
        if known is not None:
            if (known.service_id, known.user_id) != (service_id, user_id):
                raise ConfigError("JupyterHub: one API token is given for two owners")
            if tokens.rounds_of(known.hashed) != rounds:
                hashed = tokens.hash_token(plain, rounds=rounds)
                with self.accounts.store.transaction():
                    Token.update(hashed=hashed).where(Token.id == known.id).execute()
            return known.id
        row, _plain = self.accounts.issue_token(
            service_id=service_id, user_id=user_id, note=note, plain=plain, rounds=rounds
        )
        return row.id

    def _fresh_token(self, row: Service) -> str:
        note = "Generated at the start of the hub"
        with self.accounts.store.transaction():
            Token.delete().where(Token.service == row, Token.note == note).execute()
            return self.accounts.issue_token(service_id=row.id, note=note)[1]

    # -- while the hub runs ----------------------------------------------------------------

    def start(self) -> None:
        """Start managed services, and begin to check that services can be reached."""
        end_left_over(self.info)
        orphans.end_services(self.info.state_dir)
        for runner in self.runners.values():
            runner.start()
        if self.options.service_check_interval > 0:
            self._checker = threading.Thread(target=self._check, name="service-check", daemon=True)
            self._checker.start()

    def _check(self) -> None:
        dead: set[str] = set()
        while not self._stopping.wait(self.options.service_check_interval):
            for name, runner in list(self.runners.items()):
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
            spec.routespec(self.info): (spec.target, {"service": spec.name})
            for spec in self.specs.values()
            if spec.url
        }

    def any_legacy(self) -> bool:
        """Return whether a service may show the hub its visitors' cookies, as 0.8's did."""
        return any(spec.legacy and spec.url for spec in self.specs.values())

    def skips_confirmation(self, client_id: str) -> bool:
        """Return whether this OAuth client needs no consent (``oauth_no_confirm``)."""
        return any(
            spec.oauth_no_confirm and spec.client_id == client_id for spec in self.specs.values()
        )

    def shown(self) -> Iterable[dict[str, str]]:
        """Yield the services that pages link to: ``{name, href}``."""
        for spec in self.specs.values():
            if spec.url and spec.display:
                yield {"name": spec.name, "href": spec.href(self.info)}

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


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
