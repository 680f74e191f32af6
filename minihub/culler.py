"""Which servers and users are idle enough to go, and why.

Rules of this file: one rule for both forms, the verb ``cull`` (:mod:`minihub.cullpass`) and the
thread inside the hub (:mod:`minihub.hubculler`). :func:`should_cull` and :func:`should_cull_user`
are pure: facts, moment and limits in, verdict with its reason out; :func:`busy_kernels` alone
talks to anybody. The standard library only, since the verb must start quickly.

Threads: any.
Sources: the rules of jupyterhub-idle-culler; where ours differ, :func:`should_cull` says so.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from . import durations, rest
from .errors import MinihubError
from .texts import Text

ASK_TIMEOUT_S = 5.0
#: How long the token lives that asks a server for its kernels.
ASK_TOKEN_S = 60
ASK_NOTE = "asks whether a kernel is busy"

#: What is said of a server with which something is being done.
PENDING = {
    "spawn": Text("pending spawn"),
    "stop": Text("pending stop"),
    "check": Text("pending check"),
}


@dataclass(frozen=True)
class Limits:
    """How long servers and users may be idle, and who is spared. Durations in seconds.

    ``max_age`` 0 is no limit. ``spare_busy``: ask a server that looks idle whether a kernel of it
    is at work.
    """

    timeout: int = 600
    max_age: int = 0
    cull_users: bool = False
    cull_admin_users: bool = True
    cull_default_servers: bool = True
    cull_named_servers: bool = True
    remove_named_servers: bool = False
    spare_busy: bool = False

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Limits:
        """Return the limits among ``values``; what is no limit is left out."""
        names = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in names})


@dataclass(frozen=True)
class ServerFacts:
    """What is known of one server. ``busy``: its kernels at work, None when that is not known.

    ``url``: where it is reached, as the hub tells it (a path, or a URL); may be empty.
    ``kept_until``: somebody asked that it stays until then.
    """

    user: str
    name: str
    ready: bool
    pending: str | None = None
    started: datetime | None = None
    last_activity: datetime | None = None
    busy: int | None = None
    url: str = ""
    kept_until: datetime | None = None

    @property
    def full_name(self) -> str:
        """``ana``, or ``ana/work`` for a named server."""
        return f"{self.user}/{self.name}" if self.name else self.user


@dataclass(frozen=True)
class UserFacts:
    """What is known of one user; ``servers`` are those that run or are about to."""

    name: str
    admin: bool = False
    created: datetime | None = None
    last_activity: datetime | None = None
    servers: tuple[ServerFacts, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """Whether something goes, and why, in words and as one word for programs.

    ``rule`` is one of idle, too-old (these go); active, busy, kept, pending, not-ready, unknown,
    spared, has-servers (these stay). ``due`` is when a server that stays goes if nothing happens
    before; None where that is never, or not known.
    """

    cull: bool
    why: str
    rule: str
    due: datetime | None = None


def _seconds_between(first: datetime, second: datetime) -> float:
    return (second - first).total_seconds()


def _seconds_since(moment: datetime, now: datetime) -> float:
    """Return the seconds from ``moment`` to ``now``; a moment that is still to come is now."""
    return max(0.0, (now - moment).total_seconds())


def should_cull(server: ServerFacts, now: datetime, limits: Limits) -> Verdict:
    """Say whether ``server`` is to be stopped at ``now``, and why or why not.

    Unlike jupyterhub-idle-culler: a server is never idle for longer than it has been running (an
    old record of activity does not end a server that was just started), a busy kernel counts as
    activity where it is known, and what is spared by kind is spared from ``max_age`` too.
    """
    if server.pending:
        return Verdict(False, PENDING.get(server.pending, f"pending {server.pending}"), "pending")
    if not server.ready:
        return Verdict(False, Text("not ready"), "not-ready")
    if not (limits.cull_named_servers if server.name else limits.cull_default_servers):
        if server.name:
            return Verdict(False, Text("named servers are spared"), "spared")
        return Verdict(False, Text("default servers are spared"), "spared")
    known = [moment for moment in (server.started, server.last_activity) if moment]
    if not known:
        unknown = Text("neither its start nor its last activity is known")
        return Verdict(False, unknown, "unknown")
    due = _due(server, max(known), limits)
    if server.kept_until is not None and server.kept_until > now:
        left = durations.words(_seconds_between(now, server.kept_until))
        return Verdict(False, Text("kept for another %(time)s", time=left), "kept", due)
    idle_s = _seconds_since(max(known), now)
    old = _too_old(server.started, now, limits, "running")
    if idle_s < limits.timeout:
        return old or replace(_active(idle_s, limits), due=due)
    if server.busy:
        kernels = Text("1 kernel is busy, though idle for %(time)s", time=durations.words(idle_s))
        if server.busy > 1:
            kernels = Text(
                "%(count)s kernels are busy, though idle for %(time)s",
                count=server.busy, time=durations.words(idle_s),
            )  # fmt: skip
        return old or Verdict(False, kernels, "busy")
    return Verdict(True, _idle(idle_s, limits), "idle", due)


def _due(server: ServerFacts, last: datetime, limits: Limits) -> datetime:
    """Return when a server goes if nothing happens to it from now on."""
    moments = [last + timedelta(seconds=limits.timeout)]
    if limits.max_age and server.started is not None:
        moments.append(server.started + timedelta(seconds=limits.max_age))
    due = min(moments)
    return max(due, server.kept_until) if server.kept_until is not None else due


def should_cull_user(user: UserFacts, now: datetime, limits: Limits) -> Verdict:
    """Say whether ``user`` is to be deleted at ``now``, and why or why not.

    Somebody with a server stays. ``cull_admin_users`` False spares admins from ``max_age`` too.
    """
    if user.servers:
        return Verdict(False, "has a server", "has-servers")
    if user.admin and not limits.cull_admin_users:
        return Verdict(False, "admins are spared", "spared")
    known = [moment for moment in (user.created, user.last_activity) if moment]
    if not known:
        return Verdict(False, Text("neither creation nor last activity is known"), "unknown")
    idle_s = _seconds_since(max(known), now)
    if idle_s >= limits.timeout:
        return Verdict(True, _idle(idle_s, limits), "idle")
    return _too_old(user.created, now, limits, "here") or _active(idle_s, limits)


def _idle(idle_s: float, limits: Limits) -> str:
    limit = durations.words(limits.timeout)
    return Text("idle for %(time)s, limit %(limit)s", time=durations.words(idle_s), limit=limit)


def _active(idle_s: float, limits: Limits) -> Verdict:
    limit = durations.words(limits.timeout)
    why = Text("active %(time)s ago, limit %(limit)s", time=durations.words(idle_s), limit=limit)
    return Verdict(False, why, "active")


def _too_old(since: datetime | None, now: datetime, limits: Limits, what: str) -> Verdict | None:
    if not limits.max_age or since is None or _seconds_since(since, now) < limits.max_age:
        return None
    age, limit = durations.words(_seconds_since(since, now)), durations.words(limits.max_age)
    if what == "running":
        why = Text("running for %(time)s, limit %(limit)s", time=age, limit=limit)
    else:
        why = Text("here for %(time)s, limit %(limit)s", time=age, limit=limit)
    return Verdict(True, why, "too-old")


# -- asking a server --------------------------------------------------------------------------


class AskedHub(MinihubError):
    """Raised when not the server but the hub answered: its own address is not the public one."""


def busy_kernels(server_url: str, token: str) -> int | None:
    """Return how many kernels of the server at ``server_url`` (with final slash) are at work.

    None when it does not say within :data:`ASK_TIMEOUT_S`, as servers that know no kernels.
    ``token`` is shown to the server, which belongs to its user: it must be able to do no more than
    the user's own. Raises AskedHub.
    """
    parts = urlsplit(server_url)
    connection = rest.connect(parts.scheme == "https", parts.hostname, parts.port, ASK_TIMEOUT_S)
    path = parts.path + "api/kernels?no_track_activity=1"  # the question is no activity
    timer = None
    try:
        connection.connect()
        # A server that sends its answer byte by byte would never meet the socket's timeout.
        timer = threading.Timer(ASK_TIMEOUT_S, _shut, (connection.sock,))
        timer.daemon = True
        timer.start()
        connection.request("GET", path, headers={"Authorization": f"token {token}"})
        response = connection.getresponse()
        location = response.headers.get("Location", "")
        if response.status in (301, 302, 303) and "/hub/user/" in location:
            raise AskedHub(f"{server_url} leads to the hub instead of the server")
        kernels = json.loads(response.read(1024 * 1024)) if response.status == 200 else None
    except (OSError, ValueError, RecursionError, http.client.HTTPException):
        return None
    finally:
        if timer is not None:
            timer.cancel()
        connection.close()
    if not isinstance(kernels, list):
        return None
    return sum(isinstance(k, dict) and k.get("execution_state") == "busy" for k in kernels)


def _shut(connected: socket.socket) -> None:
    with suppress(OSError):  # it is closed already
        connected.shutdown(socket.SHUT_RDWR)
