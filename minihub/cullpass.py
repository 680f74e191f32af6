"""One pass of the culler over a hub's REST API, ours or JupyterHub's.

Rules of this file: first everything is listed, then decided, then done, since pages shift while
servers stop. Whatever is about to go is looked at again when the list is no longer fresh. The
hub's clock counts, not this machine's. Nothing is printed: what became of each server and user is
reported as an :class:`Outcome`. Standard library only.

Threads: :meth:`Pass.run` belongs to one thread and reports there; a pool sends the requests that
stop and delete.
Sources: JupyterHub 6's REST API; jupyterhub-idle-culler.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from . import clock, culler
from .culler import Limits, ServerFacts, UserFacts, Verdict, should_cull, should_cull_user
from .errors import NotPermitted
from .rest import RestClient, RestError
from .urls import escape_name

#: What was listed longer ago is looked at again before anything is done about it.
FRESH_S = 10.0
#: A difference between the clocks below this is the time an answer takes, and the second that
#: the hub's date is rounded to.
SKEW_S = 5.0


@dataclass(frozen=True)
class Outcome:
    """What became of one server or user.

    ``action``: kept; stopped, stopping, deleted; would-stop, would-delete (a dry run); gone (it
    had ended meanwhile); failed, refused (``problem`` says why).
    """

    facts: ServerFacts | UserFacts
    verdict: Verdict
    action: str
    problem: str = ""

    @property
    def is_server(self) -> bool:
        return isinstance(self.facts, ServerFacts)

    def as_json(self) -> dict[str, Any]:
        """Return everything about it, for programs."""
        facts = self.facts
        result: dict[str, Any] = {"event": "server" if self.is_server else "user"}
        if isinstance(facts, ServerFacts):
            result |= {"user": facts.user, "server": facts.name}
        else:
            result |= {"user": facts.name, "admin": facts.admin}
        result |= {"action": self.action, "why": self.verdict.why, "rule": self.verdict.rule}
        if self.problem:
            result["problem"] = self.problem
        for name in ("created", "started", "last_activity"):
            moment = getattr(facts, name, None)
            if moment is not None:
                result[name] = clock.isoformat(moment)
        for name in ("ready", "pending", "busy"):
            if hasattr(facts, name):
                result[name] = getattr(facts, name)
        return result


class Pass:
    """Looks at every server, and every user if asked, once."""

    def __init__(
        self,
        client: RestClient,
        limits: Limits,
        report: Callable[[Outcome], None],
        *,
        concurrency: int = 10,
        page_size: int = 0,
        dry_run: bool = False,
    ) -> None:
        """``page_size`` 0 leaves the size of a page of users to the hub."""
        self._client = client
        self._limits = limits
        self._report = report
        self._concurrency = concurrency
        self._page_size = page_size
        self._dry_run = dry_run
        self._skew = timedelta()
        self._listed_at = 0.0
        #: How many servers or users are to go, for whoever shows the progress.
        self.due = 0

    def run(self) -> None:
        """Do all of it.

        Raises RestError when the hub cannot be reached, NotPermitted when it refuses the token.
        """
        users = self._list()
        servers = [server for user in users for server in user.servers]
        ended = self._work(servers, self._judge, self._stop)
        if not self._limits.cull_users:
            return
        own = self._own_name()
        left = [
            replace(user, servers=tuple(s for s in user.servers if s.full_name not in ended))
            for user in users
            if user.name != own
        ]
        self._work(left, lambda user: should_cull_user(user, self._now(), self._limits), self._drop)

    # -- listing ---------------------------------------------------------------------------

    def _list(self) -> list[UserFacts]:
        answer = self._client.request("GET", "/")
        try:
            version = str(answer.data["version"])
        except (KeyError, TypeError) as error:
            raise RestError(f"{self._client.url} is no hub's API: it tells no version") from error
        if answer.date is not None:
            skew = answer.date - clock.utcnow()
            self._skew = skew if abs(skew.total_seconds()) >= SKEW_S else timedelta()
        self._listed_at = clock.monotonic()
        query = {"limit": str(self._page_size)} if self._page_size else {}
        found: dict[str, UserFacts] = {}
        states: tuple[str, ...] = ("inactive", "ready") if self._limits.cull_users else ("ready",)
        if not _filters_by_state(version):
            states = ("",)
        for state in states:
            chosen = {"state": state, **query} if state else query
            for model in self._client.items("/users", **chosen):
                user = user_facts(model, need_activity=self._limits.cull_users)
                found[user.name] = user  # of somebody in both lists the later one is right
        return list(found.values())

    def _own_name(self) -> str:
        """Return the user to whom the token belongs and who cannot delete themselves, or ""."""
        model = self._client.request("GET", "/user").data or {}
        return model.get("name", "") if model.get("kind") == "user" else ""

    def _now(self) -> datetime:
        return clock.utcnow() + self._skew

    def _again(self, name: str) -> UserFacts | None:
        """Return the user as the hub has it now; None when there is none any more."""
        try:
            model = self._client.request("GET", f"/users/{escape_name(name)}").data
        except RestError as error:
            if error.answered == 404:
                return None
            raise
        return user_facts(model, need_activity=self._limits.cull_users)

    # -- deciding and doing ----------------------------------------------------------------

    def _work(
        self,
        subjects: Iterable[Any],
        judge: Callable[[Any], Verdict],
        act: Callable[[Any, Verdict], Outcome],
    ) -> set[str]:
        """Judge all, report who is kept, act on the others; return the servers that have ended."""
        due = []
        for subject in subjects:
            verdict = judge(subject)
            if verdict.cull:
                due.append((subject, verdict))
            else:
                self._report(Outcome(subject, verdict, "kept"))
        self.due = len(due)
        ended = set()
        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="cull")
        try:
            for future in as_completed([pool.submit(act, *one) for one in due]):
                outcome = future.result()
                self._report(outcome)
                if outcome.is_server and outcome.action in ("stopped", "gone", "would-stop"):
                    ended.add(outcome.facts.full_name)
        finally:
            pool.shutdown(cancel_futures=True)
        return ended

    def _judge(self, server: ServerFacts) -> Verdict:
        return should_cull(server, self._now(), self._limits)

    def _is_fresh(self) -> bool:
        return clock.monotonic() - self._listed_at < FRESH_S

    def _stop(self, server: ServerFacts, verdict: Verdict) -> Outcome:
        """Stop one server, unless a second look spares it."""
        if self._dry_run:
            return Outcome(server, verdict, "would-stop")
        try:
            if not self._is_fresh():
                found = self._find_again(server)
                if found is None:
                    return Outcome(server, verdict, "gone")
                server, verdict = found, self._judge(found)
            if verdict.rule == "idle" and self._limits.spare_busy:
                server = replace(server, busy=self._ask(server))
                verdict = self._judge(server)
            if not verdict.cull:
                return Outcome(server, verdict, "kept")
            return Outcome(server, verdict, self._delete_server(server))
        except NotPermitted as error:
            return Outcome(server, verdict, "refused", str(error))
        except RestError as error:
            if not error.answered:
                raise
            return Outcome(server, verdict, "failed", str(error))

    def _find_again(self, server: ServerFacts) -> ServerFacts | None:
        user = self._again(server.user)
        servers = user.servers if user else ()
        return next((one for one in servers if one.name == server.name), None)

    def _delete_server(self, server: ServerFacts) -> str:
        """Return the action that came of it."""
        path = f"/users/{escape_name(server.user)}/server"
        body = None
        if server.name:
            path += f"s/{escape_name(server.name)}"
            body = {"remove": True} if self._limits.remove_named_servers else None
        try:
            answer = self._client.request("DELETE", path, body)
        except RestError as error:
            if error.answered != 404:
                raise
            if self._find_again(server) is None:
                return "gone"
            raise NotPermitted(f"the token may see {server.full_name} but not stop it") from error
        return "stopping" if answer.status == 202 else "stopped"

    def _drop(self, user: UserFacts, verdict: Verdict) -> Outcome:
        """Delete one user, unless a second look spares them."""
        if self._dry_run:
            return Outcome(user, verdict, "would-delete")
        try:
            found = self._again(user.name)
            if found is None:
                return Outcome(user, verdict, "gone")
            verdict = should_cull_user(found, self._now(), self._limits)
            if not verdict.cull:
                return Outcome(found, verdict, "kept")
            self._client.request("DELETE", f"/users/{escape_name(user.name)}")
            return Outcome(found, verdict, "deleted")
        except NotPermitted as error:
            return Outcome(user, verdict, "refused", str(error))
        except RestError as error:
            if not error.answered:
                raise
            return Outcome(user, verdict, "failed", str(error))

    # -- asking a server -------------------------------------------------------------------

    def _ask(self, server: ServerFacts) -> int | None:
        """Return how many kernels of a server are busy; None when it does not say.

        The server is its user's, so it never sees our token, but one of the user's own that opens
        nothing else and is deleted at once.
        """
        path = f"/users/{escape_name(server.user)}/tokens"
        scope = f"access:servers!server={server.user}/{server.name}"
        wanted = {"note": culler.ASK_NOTE, "expires_in": culler.ASK_TOKEN_S, "scopes": [scope]}
        try:
            token = self._client.request("POST", path, wanted).data
        except (NotPermitted, RestError) as error:
            if isinstance(error, RestError) and error.answered not in (400, 404):
                raise
            raise NotPermitted(
                f"--spare-busy needs a token with the scopes tokens and access:servers: {error}"
            ) from error
        url = server.url if "://" in server.url else self._client.origin + server.url
        try:
            return culler.busy_kernels(url, token["token"])
        except culler.AskedHub as error:
            raise RestError(
                f"--spare-busy asks the servers, so --url must be the hub's public URL: {error}",
                answered=404,
            ) from error
        finally:
            self._client.request("DELETE", f"{path}/{token['id']}")


# -- models to facts --------------------------------------------------------------------------


def _filters_by_state(version: str) -> bool:
    """Return whether a hub of that version knows ``/users?state=``: since JupyterHub 1.3."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return numbers is None or (int(numbers[1]), int(numbers[2])) >= (1, 3)


def user_facts(model: Mapping[str, Any], *, need_activity: bool = False) -> UserFacts:
    """Return the facts of a user as the REST API shows one, of any version since 0.8.

    Raises NotPermitted when the token may not see what is needed, RestError for nonsense.
    """
    try:
        name = model["name"]
        if "servers" in model:
            servers = model["servers"] or {}
        elif "server" in model:  # JupyterHub 0.8 without named servers
            keys = ("pending", "last_activity")
            default = {key: model.get(key) for key in keys} | {"url": model["server"]}
            servers = {"": default} if model["server"] else {}
        else:
            raise NotPermitted("the token may not see servers: it needs the scope read:servers")
        if need_activity and "last_activity" not in model:
            raise NotPermitted(
                "the token may not see when users were active: it needs the scope "
                "read:users:activity"
            )
        return UserFacts(
            name=name,
            admin=bool(model.get("admin")),
            created=_moment(model.get("created")),
            last_activity=_moment(model.get("last_activity")),
            servers=tuple(_server_facts(name, *one) for one in servers.items()),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RestError(f"the hub describes a user in an unknown way: {error!r}") from error


def _server_facts(user: str, name: str, model: Mapping[str, Any]) -> ServerFacts:
    return ServerFacts(
        user=user,
        name=name,
        # Before 0.9 a server has a URL when it is ready.
        ready=bool(model.get("ready", model.get("url"))),
        pending=model.get("pending") or None,
        started=_moment(model.get("started")),
        last_activity=_moment(model.get("last_activity")),
        url=model.get("full_url") or model.get("url") or "",
    )


def _moment(text: str | None) -> datetime | None:
    return clock.parse(text) if text else None
