"""The culler inside the hub: a thread that stops idle servers and deletes idle users.

Rules of this file: it gathers facts from the hub's registry and the store, leaves the decision to
:func:`minihub.culler.should_cull` and the stop to the hub, so that a culled server goes the same
way as one that its user stops. One server or user that makes trouble does not keep the others.

A server that goes soon is announced on its user's pages (:meth:`Culler.warning`), who may keep it
for a while, within what the configuration allows.

Threads: ``hub-culler`` does the work, or whoever asks for a pass of its own, one at a time;
:meth:`Culler.start` and :meth:`Culler.stop` are the main thread's; explaining, warning and keeping
are anybody's. What is kept is a dictionary whose entries are written whole.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from . import clock, culler
from .culler import Limits, ServerFacts, UserFacts, Verdict, should_cull, should_cull_user
from .errors import MinihubError
from .hub import Hub
from .models import Token
from .people import People
from .server import Server
from .texts import Text

log = logging.getLogger("minihub.culler")

#: Passes are at most this far apart unless ``every`` says otherwise.
LONGEST_PAUSE_S = 600
#: What is on inside the hub though jupyterhub-idle-culler knows nothing of it, or does otherwise.
DEFAULTS = {"spare_busy": True, "cull_admin_users": False}
#: How long before its end a server is announced, how long it is kept at a press, and how long in
#: all beyond the end it would have had; seconds.
WARN_S, KEEP_S, KEEP_MOST_S = 600, 1800, 4 * 3600
#: How long a deletion waits for a server that was started at the last moment.
DELETE_WAIT_S = 10.0


@dataclass(frozen=True)
class Warning:
    """That a server goes soon: when, and until when a press of the button keeps it, if it does."""

    due: datetime
    keep_until: datetime | None


class Culler:
    """Culls as the option ``JupyterHub.cull`` says."""

    def __init__(self, hub: Hub, settings: Mapping[str, Any]) -> None:
        """``settings`` is the option's value, checked."""
        self._hub = hub
        self._people = People(hub)
        self.limits = Limits.of({**DEFAULTS, **settings})
        pause_s = max(1, min(self.limits.timeout // 2, LONGEST_PAUSE_S))
        self.every_s: int = settings.get("every") or pause_s
        self.warn_s: int = settings.get("warn", min(WARN_S, self.limits.timeout // 2))
        self.keep_s: int = settings.get("keep", KEEP_S)
        self.keep_most_s: int = settings.get("keep_most", KEEP_MOST_S)
        #: By user and server name: the run that is kept, by its start, and until when.
        self._kept: dict[tuple[int, str], tuple[datetime | None, datetime]] = {}
        self._pass = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hub-culler", daemon=True)

    def start(self) -> None:
        """Begin; the first pass comes after one pause, when servers have had time to report."""
        self._thread.start()

    def stop(self) -> None:
        """End after the step under way."""
        self._stopping.set()
        self._thread.join(culler.ASK_TIMEOUT_S + 1)

    def _run(self) -> None:
        while not self._stopping.wait(self.every_s):
            try:
                self.run_once()
            except MinihubError as error:
                log.error("Nothing was culled: %s", error)
            except Exception:
                log.exception("Nothing was culled")

    def run_once(self) -> list[str]:
        """Look at every server, then at every user; stop and delete whoever is idle.

        Returns the full names of the servers that were stopped.
        """
        with self._pass:
            self._hub.check_routes()  # so that what the proxy saw until now counts
            stopped = self._stop_idle()
            if self.limits.cull_users:
                self._delete_idle()
        return stopped

    # -- what is said of servers -----------------------------------------------------------

    def explain(self, server: Server) -> Verdict:
        """Return whether a server would go now, and why; its kernels are not asked."""
        return self._judge(self._facts(server))

    def warning(self, server: Server) -> Warning | None:
        """Return the warning for a server that goes soon; None for one that has time."""
        if not server.ready:
            return None
        facts = self._facts(server)
        due, now = self._judge(facts).due, clock.utcnow()
        if due is None or due > now + timedelta(seconds=self.warn_s):
            return None
        until = now + timedelta(seconds=self.keep_s)
        own_end = self._judge(replace(facts, kept_until=None)).due or due
        last = own_end + timedelta(seconds=self.keep_most_s)
        until = min(until, last)
        return Warning(due, until if until > due + timedelta(seconds=1) else None)

    def keep(self, server: Server) -> datetime | None:
        """Keep a server that would go soon; return until when, None where it may not be kept."""
        warning = self.warning(server)
        if warning is None or warning.keep_until is None:
            return None
        self._kept[server.user_id, server.name] = server.started, warning.keep_until
        log.info("Server %s is kept until %s", server.full_name, warning.keep_until)
        return warning.keep_until

    def _facts(self, server: Server) -> ServerFacts:
        row_id = server.row_id
        seen = None if row_id is None else self._hub.activity.of_server(row_id)
        started, until = self._kept.get((server.user_id, server.name), (None, None))
        kept = until if started == server.started else None  # a later run begins anew
        return replace(_facts(server, _moment(seen)), kept_until=kept)

    # -- servers ---------------------------------------------------------------------------

    def _stop_idle(self) -> list[str]:
        stopped = []
        now = clock.utcnow()
        self._kept = {key: value for key, value in self._kept.items() if value[1] > now}
        for server in self._hub.active_servers():
            if self._stopping.is_set():
                break
            facts = self._facts(server)
            verdict = self._judge(facts)
            if verdict.rule == "idle" and self.limits.spare_busy:
                facts = replace(facts, busy=self._busy_kernels(server))
                verdict = self._judge(facts)
            log.debug("%s: %s", facts.full_name, verdict.why)
            if verdict.cull and server.ready:  # one that was started anew meanwhile is not meant
                remove = self.limits.remove_named_servers and bool(server.name)
                tell = Text("The hub stopped this server: %(reason)s.", reason=verdict.why)
                self._hub.stop_server(server, why=verdict.why, tell=tell, remove=remove)
                stopped.append(facts.full_name)
        return stopped

    def _judge(self, facts: ServerFacts) -> Verdict:
        return should_cull(facts, clock.utcnow(), self.limits)

    def _busy_kernels(self, server: Server) -> int | None:
        """Ask the server, with a token of its own user that opens nothing else."""
        token, secret = self._hub.accounts.issue_token(
            user_id=server.user_id,
            note=culler.ASK_NOTE,
            scopes=[f"access:servers!server={server.full_name}"],
            expires_in_s=culler.ASK_TOKEN_S,
        )
        try:
            return culler.busy_kernels(f"{server.target}{server.spawner.server_url}", secret)
        except culler.AskedHub:
            return None
        finally:
            with self._hub.store.transaction():
                Token.delete().where(Token.id == token.id).execute()

    # -- users -----------------------------------------------------------------------------

    def _delete_idle(self) -> None:
        active = self._hub.active_by_user()
        for user in self._hub.accounts.users():
            if self._stopping.is_set():
                break
            facts = UserFacts(
                name=user.name,
                admin=user.admin,
                created=_moment(user.created),
                last_activity=_moment(user.last_activity),
                servers=tuple(_facts(server, None) for server in active.get(user.id, ())),
            )
            verdict = should_cull_user(facts, clock.utcnow(), self.limits)
            log.debug("User %s: %s", user.name, verdict.why)
            if verdict.cull:
                try:
                    self._people.delete(user, why=verdict.why, timeout_s=DELETE_WAIT_S)
                except MinihubError as error:
                    log.error("The user %s was not deleted: %s", user.name, error)


def _facts(server: Server, last_activity: datetime | None) -> ServerFacts:
    return ServerFacts(
        user=server.user_name,
        name=server.name,
        ready=server.ready,
        pending=server.pending,
        started=server.started,
        last_activity=last_activity,
    )


def _moment(text: str | None) -> datetime | None:
    return clock.parse(text) if text else None
