"""Spawners: what starts one user's server and stops it, seen from the hub.

A spawner knows the user, the server's name and the hub's addresses, and nothing of database, web
or proxy. :class:`Spawner` holds everything that all spawners share: options, environment, hooks,
and waiting until a server answers. A subclass adds ``start``, ``stop`` and ``poll``, which may be
plain functions or coroutines; the hub calls them, like every hook, through
:func:`minihub.aio.call`.

Rules of this file: the environment is made of an allow-list of the hub's own, the variables that
single-user servers read, and ``Spawner.environment``, in this order; nothing else gets in. What
somebody else's hook or method raises leaves as SpawnError naming the option.

Threads: one at a time per spawner; which one is decided by the hub's state machine.
Sources: JupyterHub 6's Spawner, whose option names and meanings these are.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable as CallableType
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from traitlets import (
    Bool,
    Dict,
    Float,
    Int,
    List,
    TraitError,
    Unicode,
    Union,
    default,
    validate,
)
from traitlets.config import LoggingConfigurable

from . import aio, clock, deadline, profiles, readiness, serverenv, spawnernames, startwords
from .errors import ExitedEarly, MinihubError, SpawnError, SpawnTimeout, words_of
from .hookinfo import GroupInfo, HubInfo, UserInfo
from .overrides import (
    FORM_READERS,
    FormReader,
    InvalidOptions,
    apply_choices,
    apply_groups,
    check_groups,
)
from .texts import Text
from .traits import ByteSpecification, Callable, Command, Host

__all__ = ["GroupInfo", "HubInfo", "Spawner", "UserInfo"]

#: Variables of the hub's environment that are its secrets: no server gets them, whoever asks.
HUB_SECRETS = frozenset(
    {
        "CONFIGPROXY_AUTH_TOKEN",
        "JPY_COOKIE_SECRET",
        "JUPYTERHUB_API_TOKEN",
        "JUPYTERHUB_CRYPT_KEY",
    }
)

#: How long at most a wait goes on without asking whether it is still wanted.
_STEP_S = 0.25
#: How often a spawner that can only be polled is polled while its server starts.
_POLL_STEP_S = 2.0
LOG_TAIL_LINES = 20
#: Values in an old spelling that were told in the log.
_told_old: set[str] = set()


class Spawner(spawnernames.JupyterHubNames, LoggingConfigurable):
    """Base of all spawners; subclasses may write their methods plain or ``async``.

    The hub sets ``api_token``, ``oauth_client_id``, ``oauth_access_scopes``, ``user_options`` and
    ``handler`` before a start.
    """

    ip = Host(
        "127.0.0.1",
        help="Address on which servers listen; empty means all, IPv4 and IPv6.",
    ).tag(config=True)
    port = Int(
        0,
        min=0,
        max=65535,
        help="Port on which servers listen; 0 chooses a free one at each start. Another value only "
        "makes sense where every server has an address of its own.",
    ).tag(config=True)
    start_timeout = Int(
        60,
        min=1,
        help="Seconds within which a server's process must have been started. The time until the "
        "server answers is http_timeout.",
    ).tag(config=True)
    http_timeout = Int(
        30, min=1, help="Seconds within which a started server must answer its first request."
    ).tag(config=True)
    poll_interval = Int(
        30, help="Seconds between looks whether a running server still runs; 0 or less: never."
    ).tag(config=True)
    poll_jitter = Float(
        0.1,
        min=0,
        max=1,
        help="By how much of itself poll_interval varies, so that servers are not looked at all at "
        "once; 0.1 means a tenth.",
    ).tag(config=True)
    consecutive_failure_limit = Int(
        0,
        min=0,
        help="After how many failed starts in a row the hub ends, with exit code 1, so that what "
        "runs it starts it anew; 0: never.",
    ).tag(config=True, unit="starts")
    debug = Bool(False, help="Whether servers log in full detail.").tag(config=True)

    cmd = Command(
        ["jupyterhub-singleuser"],
        allow_none=True,
        help="The program that is a user's server: a name that is looked for on PATH and beside "
        "the hub's Python, or a path; as a list, with its first arguments.",
    ).tag(config=True)
    args = List(Unicode(), help="Arguments added to cmd.").tag(config=True, example=["--debug"])
    notebook_dir = Unicode(
        help="Directory that the server shows as its root; empty for the user's home. {username} "
        "and {base_url} are replaced, and ~ means the home. This hides, it does not protect."
    ).tag(config=True, example="~/notebooks")
    default_url = Unicode(
        help="Page of the server on which users land, such as /lab or /tree; {username} and "
        "{base_url} are replaced. Empty for the server's own choice."
    ).tag(config=True, example="/lab")
    disable_user_config = Bool(
        False, help="Whether servers ignore Jupyter configuration found in the user's home."
    ).tag(config=True)

    env_keep = List(
        Unicode(),
        default_value=["JUPYTERHUB_SINGLEUSER_APP"],
        help="Names of variables that servers inherit from the hub's own environment. Nothing "
        "else of it reaches them, and the hub's secrets may not be named here. By default local "
        "ones also get PATH, LANG, LC_ALL and what names the environment of Python.",
    ).tag(config=True, example=["PATH", "LANG", "HTTP_PROXY"])
    environment = Dict(
        help="Variables added to a server's environment; they win over all others. A value is a "
        "text or a number; in a Python file also a function that is given the spawner and "
        "returns one."
    ).tag(config=True, example={"EDITOR": "nano"})

    mem_limit = ByteSpecification(
        help="Most memory a server and all it starts may use, in bytes or such as 2G. On this "
        "machine it is warned at four fifths, and at the limit its largest process is ended; it "
        "reads the limit as MEM_LIMIT."
    ).tag(config=True, example="2G")
    mem_guarantee = ByteSpecification(
        help="Memory a server can count on, in bytes or such as 1G. A start is refused while less "
        "is free; the server reads it as MEM_GUARANTEE."
    ).tag(config=True, example="1G")
    cpu_limit = Float(
        None,
        allow_none=True,
        min=0,
        help="Most processors a server may use, such as 0.5 or 2. Held by a control group where "
        "one is delegated to the hub, else by binding it to so many, rounded up; it reads the "
        "limit as CPU_LIMIT.",
    ).tag(config=True, example=2, unit="processors")
    cpu_guarantee = Float(
        None,
        allow_none=True,
        min=0,
        help="Processors a server can count on, such as 0.5 or 2. A larger weight in its control "
        "group, else a better priority where the hub may give one; the server reads it as "
        "CPU_GUARANTEE.",
    ).tag(config=True, example=0.5, unit="processors")

    profiles = profiles.option()
    options_form = Union(
        [Unicode(), Callable()],
        help="HTML of the fields shown before a server starts (without <form> and button), or a "
        "function that is given the spawner and returns it. Empty: no such page.",
    ).tag(config=True, example='Size <input name="size">')
    options_from_form = FormReader(
        default_value="passthrough",
        help="How the fields, a dict of lists of texts, become user_options: passthrough leaves "
        "them so; simple makes single values texts, and on true; a function is given the fields, "
        "and the spawner if it has a parameter of that name, and returns a dict.",
    ).tag(config=True)
    options_from_query = Callable(
        default_value=None,
        allow_none=True,
        help="Function that makes user_options of the query of a spawn link, a dict of lists of "
        "texts. Unset: as options_from_form.",
    ).tag(config=True)

    apply_user_options = Union(
        [Callable(), Dict(value_trait=Unicode())],
        default_value=None,
        allow_none=True,
        help="What user_options change: a dict of their keys and the options of the spawner that "
        "each sets, or a function that is given the spawner and user_options. Unset: nothing.",
    ).tag(config=True, example={"memory": "mem_limit"})
    group_overrides = Union(
        [Dict(), Callable()],
        help="Options of the spawner for members of groups: a dict whose values hold groups (a "
        "list of names) and spawner_override (options and their values; dicts are merged), taken "
        "in the order of its keys; or a function that is given the spawner and returns it.",
    ).tag(
        config=True,
        example={"01-big": {"groups": ["physics"], "spawner_override": {"mem_limit": "8G"}}},
    )
    hub_connect_url = Unicode(
        None,
        allow_none=True,
        help="URL at which servers reach the hub, where that differs from how the proxy does. Its "
        "path does not count.",
    ).tag(config=True, example="http://hub.internal:8081")

    oauth_client_allowed_scopes = Union(
        [List(Unicode()), Callable()],
        help="Scopes a server may use on behalf of those who visit it, beyond knowing who they "
        "are; or a function that is given the spawner and returns them.",
    ).tag(config=True, example=["read:users!user"])
    server_token_scopes = Union(
        [List(Unicode()), Callable()],
        help="Scopes of the server's own API token; or a function that is given the spawner and "
        "returns them. Empty: those of the role server.",
    ).tag(config=True, example=["users:activity!user", "access:servers!user"])

    auth_state_hook = Callable(
        default_value=None,
        allow_none=True,
        help="Function(spawner, auth_state) called before a start with what the authenticator "
        "stored about the user.",
    ).tag(config=True)
    pre_spawn_hook = Callable(
        default_value=None,
        allow_none=True,
        help="Function(spawner) called before a start; an exception in it prevents the start.",
    ).tag(config=True)
    post_stop_hook = Callable(
        default_value=None,
        allow_none=True,
        help="Function(spawner) called after a server has stopped.",
    ).tag(config=True)
    progress_ready_hook = Callable(
        default_value=None,
        allow_none=True,
        help="Function(spawner, event) that may change the last progress event of a start, which "
        "tells that the server is ready, and returns it.",
    ).tag(config=True)

    def __init__(
        self, *, user: UserInfo, server_name: str = "", hub: HubInfo, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if self.options_from_query is None:  # written out as null
            self.options_from_query = self._default_options_from_query()
        self.user = user
        self.server_name = server_name
        self.hub = hub
        self.api_token = ""
        self.oauth_client_id = ""
        self.oauth_access_scopes: list[str] = []
        self.user_options: dict[str, Any] = {}
        self.handler: Any = None
        #: Raises while a start is under way that nobody wants any more; None for no such question.
        self.still_wanted: CallableType[[], Any] | None = None
        #: Whether the hub has ended this run: a start that comes to something now is ended again.
        self.is_over = False
        self._next_poll = 0.0
        user.spawners[server_name] = self

    @default("log")
    def _default_log(self) -> logging.Logger:
        return logging.getLogger("minihub.spawner")

    # -- judging options -------------------------------------------------------------------

    @validate("notebook_dir", "default_url")
    def _with_known_names(self, proposal: Any) -> str:
        value = proposal["value"]
        if type(self).template_namespace is Spawner.template_namespace:
            serverenv.check_template(value, ("username", "base_url"))
        if "%U" in value and self.config and value not in _told_old:
            _told_old.add(value)  # once, though every server has a spawner
            self.log.warning(
                "Spawner.%s: %%U is an old spelling; write {username}", proposal["trait"].name
            )
        return value.replace("%U", "{username}")

    @validate("profiles")
    def _sound_profiles(self, proposal: Any) -> list[dict[str, Any]]:
        return profiles.checked(self, proposal["value"])

    @validate("group_overrides")
    def _with_groups(self, proposal: Any) -> Any:
        if not callable(proposal["value"]):
            check_groups(proposal["value"])
        return proposal["value"]

    @validate("env_keep")
    def _without_secrets(self, proposal: Any) -> list[str]:
        secret = HUB_SECRETS.intersection(proposal["value"])
        if secret:
            raise TraitError(f"{', '.join(sorted(secret))} is a secret of the hub")
        return proposal["value"]

    @validate("environment")
    def _writable_as_text(self, proposal: Any) -> dict[str, Any]:
        for key, value in proposal["value"].items():
            if not callable(value):
                serverenv.as_text(key, value)
        return proposal["value"]

    @default("options_from_form")
    def _default_options_from_form(self) -> CallableType[..., Any]:
        return FORM_READERS["passthrough"]

    @default("options_from_query")
    def _default_options_from_query(self) -> CallableType[..., Any]:
        return lambda query: self.options_from_form(query)

    # -- names and addresses ---------------------------------------------------------------

    @property
    def server_url(self) -> str:
        """Path under which the server answers, ``BASEuser/NAME/[SERVER/]``."""
        return self.user.server_url(self.server_name)

    @property
    def oauth_callback_url(self) -> str:
        """Where the hub sends a visitor back to; a path, unless users have their own hosts."""
        return f"{self.user.host}{self.server_url}oauth_callback"

    def template_namespace(self) -> dict[str, Any]:
        """Return what ``{name}`` stands for in ``notebook_dir`` and ``default_url``."""
        return {"username": self.user.name, "base_url": self.server_url}

    def format_string(self, text: str) -> str:
        """Return ``text`` with its ``{names}`` replaced. Raises SpawnError for an unknown one."""
        names = self.template_namespace()
        try:
            return text.format(**names)
        except (AttributeError, IndexError, KeyError, ValueError) as error:
            known = ", ".join(f"{{{name}}}" for name in names)
            told = Text(
                '"%(text)s" cannot be filled in; it may hold %(known)s', text=text, known=known
            )
            raise startwords.misconfigured(told) from error

    # -- what the server is given ----------------------------------------------------------

    def get_env(self) -> dict[str, str]:
        """Return the server's whole environment."""
        env = {name: os.environ[name] for name in self.env_keep if name in os.environ}
        env |= serverenv.of_hub(self)
        env |= serverenv.of_options(self)
        env = self.user_env(env)
        for key, value in self.environment.items():
            if callable(value):
                value = self.run_function(f'Spawner.environment["{key}"]', value, self)
            try:
                env[key] = serverenv.as_text(key, value)
            except TraitError as error:
                raise startwords.misconfigured(f"Spawner.environment: {error}") from error
        return env

    def user_env(self, env: dict[str, str]) -> dict[str, str]:
        """Return ``env`` with what belongs to the user's account added."""
        return env

    def get_args(self) -> list[str]:
        """Return the arguments after ``cmd``."""
        return list(self.args)

    # -- what the configuration's author may add -------------------------------------------

    def allowed_scopes(self) -> list[str]:
        """Return ``oauth_client_allowed_scopes``, asked for if it is a function."""
        return self._scopes("oauth_client_allowed_scopes")

    def token_scopes(self) -> list[str]:
        """Return ``server_token_scopes``, asked for if it is a function."""
        return self._scopes("server_token_scopes")

    def _scopes(self, option: str) -> list[str]:
        value = getattr(self, option)
        if callable(value):
            value = self.run_function(f"Spawner.{option}", value, self)
        return sorted(set(value or ()))

    @aio.either
    def get_options_form(self) -> str:
        """Return the HTML of the form shown before a start, or ""."""
        form = self.options_form
        if callable(form):
            form = self.run_function("Spawner.options_form", form, self)
        return profiles.form(self.profiles, self.user_options.get(profiles.FIELD)) + (form or "")

    def run_hook(self, option: str, *args: Any) -> Any:
        """Call the hook that is set as ``option``, with the spawner and ``args``, if there is one.

        Returns what the hook returns; None without one. Raises SpawnError for whatever it raises.
        """
        hook = getattr(self, option)
        return None if hook is None else self.run_function(f"Spawner.{option}", hook, self, *args)

    def apply_group_overrides(self) -> None:
        """Set what ``group_overrides`` say for the user's groups. Raises SpawnError."""
        overrides = self.group_overrides
        if callable(overrides):
            overrides = self.run_function("Spawner.group_overrides", overrides, self) or {}
            try:
                check_groups(overrides)
            except TraitError as error:
                raise startwords.misconfigured(f"Spawner.group_overrides: {error}") from error
        apply_groups(self, overrides)

    def take_user_options(self) -> None:
        """Let ``user_options`` have the effect the configuration gives them.

        Raises InvalidOptions when they cannot be.
        """
        profiles.apply(self)
        how = self.apply_user_options
        if callable(how):
            try:
                self.run_function("Spawner.apply_user_options", how, self, self.user_options)
            except SpawnError as error:
                raise InvalidOptions(error.reason) from error
        elif how:
            apply_choices(self, how, self.user_options)

    def run_function(self, what: str, fn: CallableType[..., Any], *args: Any) -> Any:
        """Return what a function of the configuration's author returns; ``what`` names it.

        Raises SpawnError for whatever it raises.
        """
        try:
            return deadline.in_time(what, self, fn, *args)
        except MinihubError:
            raise
        except Exception as error:  # it is somebody else's code
            self.log.exception("%s of server %s%s", what, self.user.name, self._slash_name)
            said = words_of(error)
            if said == str(error):  # nothing that is meant for users
                why = said or type(error).__name__
                said = Text("%(what)s failed: %(why)s", what=what, why=why)
            raise SpawnError(said) from error

    @property
    def _slash_name(self) -> str:
        return f"/{self.server_name}" if self.server_name else ""

    # -- starting and stopping -------------------------------------------------------------

    def start(self) -> Any:
        """Start the server; return its URL or (ip, port), where the hub can reach it."""
        raise startwords.misconfigured(f"{type(self).__name__}.start() is missing")

    def stop(self, now: bool = False) -> Any:
        """Stop the server and wait until it has ended; ``now`` leaves out the gentle part."""
        raise startwords.misconfigured(f"{type(self).__name__}.stop() is missing")

    def poll(self) -> Any:
        """Return None while the server runs, then its exit code (0 when unknown)."""
        raise startwords.misconfigured(f"{type(self).__name__}.poll() is missing")

    def get_state(self) -> dict[str, Any]:
        """Return what a later hub needs to find the running server again, as JSON types."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Find the server again that :meth:`get_state` described; {} describes none."""

    def clear_state(self) -> None:
        """Forget the server that has ended."""
        self.api_token = ""

    def progress(self) -> Any:
        """Yield progress events of a start: ``{progress: 0–100, message: str}``; may be async."""
        event = {"progress": 50, "message": Text("Spawning server...")}
        return aio.Both(one for one in (event,))

    def progress_events(self) -> Iterator[dict[str, Any]]:
        """Yield what :meth:`progress` yields, be it a plain or an async generator."""
        events = self.progress()
        if hasattr(events, "__iter__"):
            yield from events
            return
        try:
            while True:
                yield aio.call(events.__anext__)
        except StopAsyncIteration:
            pass
        finally:
            aio.call(events.aclose)

    def log_tail(self) -> list[str]:
        """Return the last lines the server wrote since its start, where that is known."""
        return []

    def exit_hint(self, log_tail: list[str]) -> str:
        """Return what to do about a server that ended at its start with these last lines, or ""."""
        return ""

    def run_start(self) -> str:
        """Call :meth:`start`; return ``http://host:port`` of the server.

        Raises SpawnTimeout after ``start_timeout``, else SpawnError for whatever ``start`` raised.
        """
        try:
            where = deadline.start(self)
        except TimeoutError as error:
            raise SpawnTimeout(
                Text(
                    "The server was not started within %(time)s s (Spawner.start_timeout).",
                    time=self.start_timeout,
                ),
                log_tail=self.log_tail(),
                hint=Text("If it only needs longer, raise Spawner.start_timeout."),
            ) from error
        except MinihubError:
            raise
        except Exception as error:  # a subclass may be anybody's
            self.log.exception("Starting server %s%s", self.user.name, self._slash_name)
            raise startwords.not_started(words_of(error)) from error
        if isinstance(where, str):
            parts = urlsplit(where)
            return f"{parts.scheme}://{parts.netloc}"
        ip, port = where or (self.ip, self.port)
        return f"http://{readiness.reachable(ip)}:{port}"

    def wait_exit(self, timeout_s: float) -> int | None:
        """Wait up to ``timeout_s`` for the server's end; return as :meth:`poll` does.

        This one can only ask ``poll`` now and then; a subclass that sees the end returns at once.
        """
        time.sleep(timeout_s)
        if clock.monotonic() < self._next_poll:
            return None
        self._next_poll = clock.monotonic() + _POLL_STEP_S
        return deadline.bounded(self, self.poll)

    def wait_ready(self, url: str, timeout_s: float | None = None) -> str | None:
        """Wait until the server answers ``GET URLapi`` with any status below 500.

        ``url`` is that of the server with its path. ``timeout_s`` is ``http_timeout`` unless
        given, and varied by a tenth so that many servers do not time out together.
        ``still_wanted`` is called several times a second and raises to give up. Redirects are
        not followed. Returns the version in ``X-JupyterHub-Version``, or None. Raises ExitedEarly
        as soon as the server ends, SpawnTimeout, both with the last lines of its log.
        """
        timeout_s = self.http_timeout if timeout_s is None else timeout_s
        deadline = clock.monotonic() + timeout_s * random.uniform(0.9, 1.1)
        pauses = readiness.Pauses()
        answer = readiness.Answer(is_refused=True)
        while True:
            left = deadline - clock.monotonic()
            if left <= 0:
                tail = self.log_tail()
                raise SpawnTimeout(
                    Text(
                        "The server did not answer within %(time)s s (Spawner.http_timeout).",
                        time=f"{timeout_s:.0f}",
                    ),
                    log_tail=tail,
                    hint=self.exit_hint(tail) or readiness.silence_hint(answer),
                )
            try:
                try_s = min(left, readiness.TRY_TIMEOUT_S)
                answer = readiness.ask(url + "api", try_s, self.still_wanted)
            except ValueError as error:
                raise startwords.unusable_address(error) from error
            if answer.is_ready:
                return answer.version
            self._pause(min(pauses.after(answer), left))

    def _pause(self, pause_s: float) -> None:
        """Wait that long. Raises ExitedEarly, or what ``still_wanted`` raises."""
        end = clock.monotonic() + pause_s
        while True:
            if self.still_wanted is not None:
                self.still_wanted()
            left = end - clock.monotonic()
            code = self.wait_exit(max(0.0, min(left, _STEP_S)))
            if code is not None:
                tail = self.log_tail()
                how = readiness.describe_exit(code)
                reason = Text("The server ended before it answered: %(how)s.", how=how)
                hint = self.exit_hint(tail) or readiness.exit_hint(code)
                raise ExitedEarly(reason, code, log_tail=tail, hint=hint)
            if left <= _STEP_S:
                return
