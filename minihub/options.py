"""The options of the hub itself, each declared once: name, type, default, unit, help.

Rules of this file: the 58 options of the reference stand in the reference's order, with its names,
types and defaults (``proxy_class`` alone differs); what is only ours follows at the end. ``help``
begins with one short sentence. Tags: ``unit`` of a number, ``example`` in YAML where the default
is none, ``deprecated_for`` with the option (``Class.option``) to use instead. Rules between options
stand together in :func:`problems`. Companion classes are named here as text and imported by nobody
here.

Threads: an instance is read by all and changed by none.
Sources: JupyterHub's reference of its application class.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Iterator
from urllib.parse import urlsplit

from traitlets import (
    Bool,
    Dict,
    Float,
    Instance,
    Int,
    List,
    Set,
    TraitError,
    Unicode,
    Union,
    validate,
)
from traitlets.config import Configurable

from minihub import dburl, durations, logs, urls, websettings
from minihub.options_later import LaterOptions
from minihub.traits import (
    ClassName,
    Command,
    HeaderText,
    HexBytes,
    Host,
    LogLevel,
    URLPrefix,
)

#: The classes whose options may stand in a configuration besides ours, as shown in the docs.
COMPANIONS = (
    "minihub.auth.base.Authenticator",
    "minihub.auth.system.LocalAuthenticator",
    "minihub.auth.pam.PAMAuthenticator",
    "minihub.auth.simple.DummyAuthenticator",
    "minihub.auth.simple.NullAuthenticator",
    "minihub.auth.simple.SharedPasswordAuthenticator",
    "minihub.auth.classroom.ClassroomAuthenticator",
    "minihub.crypto.CryptKeeper",
    "minihub.spawner.Spawner",
    "minihub.local.LocalProcessSpawner",
    "minihub.local.SimpleLocalProcessSpawner",
    "minihub.proxies.Proxy",
    "minihub.proxies.ConfigurableHTTPProxy",
    "minihub.ownproxy.ThreadedProxy",
)

#: Short names, and JupyterHub's own dotted names, of classes that we have.
AUTHENTICATORS = {
    "classroom": "minihub.auth.classroom.ClassroomAuthenticator",
    "default": "minihub.auth.pam.PAMAuthenticator",
    "pam": "minihub.auth.pam.PAMAuthenticator",
    "dummy": "minihub.auth.simple.DummyAuthenticator",
    "null": "minihub.auth.simple.NullAuthenticator",
    "shared-password": "minihub.auth.simple.SharedPasswordAuthenticator",
    "jupyterhub.auth.Authenticator": "minihub.auth.base.Authenticator",
    "jupyterhub.auth.LocalAuthenticator": "minihub.auth.system.LocalAuthenticator",
    "jupyterhub.auth.PAMAuthenticator": "minihub.auth.pam.PAMAuthenticator",
    "jupyterhub.auth.DummyAuthenticator": "minihub.auth.simple.DummyAuthenticator",
    "dummyauthenticator.DummyAuthenticator": "minihub.auth.simple.DummyAuthenticator",
    "jupyterhub.auth.NullAuthenticator": "minihub.auth.simple.NullAuthenticator",
    "jupyterhub.authenticators.shared.SharedPasswordAuthenticator": (
        "minihub.auth.simple.SharedPasswordAuthenticator"
    ),
}
SPAWNERS = {
    "default": "minihub.local.LocalProcessSpawner",
    "localprocess": "minihub.local.LocalProcessSpawner",
    "simple": "minihub.local.SimpleLocalProcessSpawner",
    "jupyterhub.spawner.Spawner": "minihub.spawner.Spawner",
    "jupyterhub.spawner.LocalProcessSpawner": "minihub.local.LocalProcessSpawner",
    "jupyterhub.spawner.SimpleLocalProcessSpawner": "minihub.local.SimpleLocalProcessSpawner",
}
PROXIES = {
    "default": "minihub.ownproxy.ThreadedProxy",
    "threaded": "minihub.ownproxy.ThreadedProxy",
    "minihub.proxies.ThreadedProxy": "minihub.ownproxy.ThreadedProxy",
    "configurable-http-proxy": "minihub.proxies.ConfigurableHTTPProxy",
    "jupyterhub.proxy.Proxy": "minihub.proxies.Proxy",
    "jupyterhub.proxy.ConfigurableHTTPProxy": "minihub.proxies.ConfigurableHTTPProxy",
}

#: Environment variables that set an option.
ENVIRONMENT = {
    "JPY_COOKIE_SECRET": "JupyterHub.cookie_secret",
    "CONFIGPROXY_AUTH_TOKEN": "ConfigurableHTTPProxy.auth_token",
}

#: Options that only the command line can give: they are needed before a file is read.
COMMAND_LINE_ONLY = ("JupyterHub.config_file", "JupyterHub.generate_config")

#: Deprecated options whose value another class takes as it is, unless it is given there.
MOVED = {
    "admin_users": "Authenticator.admin_users",
    "debug_proxy": "ConfigurableHTTPProxy.debug",
    "proxy_auth_token": "ConfigurableHTTPProxy.auth_token",
    "proxy_cmd": "ConfigurableHTTPProxy.command",
}

#: Options of JupyterHub (the class) that no reference has.
OURS = ("cull", "queue_spawns", "state_dir")

#: Shorter tokens given in a configuration are refused.
SHORTEST_TOKEN = 8


class Application(Configurable):
    """The log, as every program of the family has it."""

    log_datefmt = Unicode(
        "%Y-%m-%d %H:%M:%S", help="How dates are written in the log, where log_format shows them."
    ).tag(config=True)
    log_format = Unicode(
        "[%(name)s]%(highlevel)s %(message)s",
        help="What a line of the log looks like. The fields are those of Python's logging, and"
        " %(highlevel)s, which names the level from WARNING on, and %(color)s and %(end_color)s,"
        " which are empty unless the log goes to a terminal.",
    ).tag(config=True)
    log_level = LogLevel(
        30, help="Least level that is logged. By name (DEBUG, INFO, WARNING, ERROR) or number."
    ).tag(config=True, example="INFO")


class JupyterHub(LaterOptions, Application):
    """The hub."""

    active_server_limit = Int(
        0,
        min=0,
        help="How many servers may be active at once; 0 for no limit. A server is active from the"
        " moment it is asked for until it has stopped. Further starts are refused with status 429.",
    ).tag(config=True, unit="servers", example=50)
    admin_access = Bool(
        False,
        help="Let admins use the servers of other users. Users should be told if this is on.",
    ).tag(config=True)
    admin_users = Set(
        Unicode(),
        help="Names of admins; counts only while Authenticator.admin_users is empty.",
    ).tag(config=True, deprecated_for="Authenticator.admin_users", example=["ana"])
    allow_named_servers = Bool(
        False, help="Let a user have several servers, each with a name."
    ).tag(config=True)
    answer_yes = Bool(
        False, help="Answer yes to every question, for instance whether to overwrite a file."
    ).tag(config=True)
    api_tokens = Dict(
        key_trait=Unicode(),
        value_trait=Unicode(),
        help="API tokens and the users they belong to. Users are created if need be."
        " For programs, service_tokens is the better place.",
    ).tag(
        config=True,
        deprecated_for="JupyterHub.service_tokens",
        example={"a-long-random-text": "ana"},
    )
    authenticator_class = ClassName(
        "minihub.auth.pam.PAMAuthenticator",
        base="minihub.auth.base.Authenticator",
        names=AUTHENTICATORS,
        help="Class that decides who may log in. A short name (pam, classroom, shared-password,"
        " dummy, null), a dotted name, or in Python a class. Its authenticate(handler, data)"
        " returns the user's name, or None.",
    ).tag(config=True, example="dummy")
    base_url = URLPrefix("/", help="Path below which everything the hub serves lies.").tag(
        config=True, example="/lab/"
    )
    cleanup_proxy = Bool(
        True,
        help="Stop the proxy when the hub stops. If this and cleanup_servers are false, a signal"
        " ends the hub alone, and the next start carries on from the database.",
    ).tag(config=True)
    cleanup_servers = Bool(
        True,
        help="Stop the users' servers when the hub stops. If this and cleanup_proxy are false, a"
        " signal ends the hub alone, and the next start carries on from the database.",
    ).tag(config=True)
    concurrent_spawn_limit = Int(
        100,
        min=0,
        help="How many users may be starting servers at the same time; 0 for no limit. Further"
        " starts are refused with status 429 until some have finished.",
    ).tag(config=True, unit="users")
    config_file = Unicode(
        "jupyterhub_config.py",
        help="Configuration file to read; only on the command line. Without it, minihub.yaml in"
        " the working directory is read if there is one, otherwise this.",
    ).tag(config=True)
    confirm_no_ssl = Bool(False, help="Accepted because old files have it.").tag(
        config=True, deprecated_for=""
    )
    cookie_max_age_days = Float(14, min=0, help="Days for which a login lasts in a browser.").tag(
        config=True, unit="days"
    )
    cookie_secret = HexBytes(
        b"",
        help="Key that signs cookies, 32 bytes. 64 hexadecimal digits, in Python also bytes. By"
        " default JPY_COOKIE_SECRET of the environment, else the content of cookie_secret_file.",
    ).tag(config=True, example="0123456789abcdef" * 4)
    cookie_secret_file = Unicode(
        "jupyterhub_cookie_secret",
        help="File that keeps the key that signs cookies. It is created if it does not exist.",
    ).tag(config=True)
    data_files_path = Unicode(
        "",
        help="Directory with further templates and static files. Its templates/ and static/ are"
        " looked into before the built-in ones and need not be complete.",
    ).tag(config=True, example="/usr/local/share/jupyterhub")
    db_kwargs = Dict(
        key_trait=Unicode(),
        help="Arguments for the connection to the database, named as SQLAlchemy's create_engine"
        " names them.",
    ).tag(config=True, example={"connect_args": {"timeout": 5}})
    db_url = Unicode(
        "sqlite:///jupyterhub.sqlite",
        help="Database in which the hub keeps its state. A plain file name means SQLite.",
    ).tag(config=True, example="postgresql://hub:secret@db.example.org/hub")
    debug_db = Bool(False, help="Log every statement sent to the database; a lot of text.").tag(
        config=True
    )
    debug_proxy = Bool(False, help="Let the proxy log at debug level.").tag(
        config=True, deprecated_for="ConfigurableHTTPProxy.debug"
    )
    extra_log_file = Unicode(
        "",
        help="File that gets the hub's log as well. Logs of the proxy and of servers are not in"
        " it.",
    ).tag(config=True, example="/var/log/minihub.log")
    extra_log_handlers = List(
        Instance(logging.Handler),
        help="Further handlers of Python's logging for the hub's log; only in a Python file. A"
        " handler without a formatter gets log_format.",
    ).tag(config=True, python="[logging.FileHandler('hub.log')]")
    generate_config = Bool(
        False,
        help="Write a configuration file with all defaults and end; only on the command line.",
    ).tag(config=True)
    hub_connect_ip = Host(
        "",
        help="Address or name at which the proxy and the servers reach the hub. By default hub_ip,"
        " or this machine's name where hub_ip means all addresses.",
    ).tag(config=True, example="hub.internal")
    hub_connect_port = Int(
        0,
        min=0,
        max=65535,
        help="Port at which the proxy and the servers reach the hub. By default hub_port.",
    ).tag(config=True, example=8081)
    hub_ip = Host("127.0.0.1", help="Address at which the hub itself listens.").tag(config=True)
    hub_port = Int(
        8081, min=0, max=65535, help="Port at which the hub itself listens; 0 for any free one."
    ).tag(config=True)
    ip = Host("", help="Address at which the public side listens; empty for all.").tag(
        config=True, example="127.0.0.1"
    )
    jinja_environment_options = Dict(
        key_trait=Unicode(), help="Further arguments for the Jinja environment of the pages."
    ).tag(config=True, example={"extensions": ["jinja2.ext.do"]})
    last_activity_interval = Int(
        300,
        min=0,
        help="Seconds between two collections of the activity that the proxy saw; 0 for never.",
    ).tag(config=True, unit="seconds")
    load_groups = Dict(
        key_trait=Unicode(),
        value_trait=Union([List(Unicode()), Set(Unicode()), Dict()]),
        help="Groups and their users to add at start. Nothing is ever removed by this: a user or"
        " group taken out here stays until it is removed through the API.",
    ).tag(config=True, example={"physics": ["ana", "ben"]})
    logo_file = Unicode("", help="Image that replaces the logo in the pages' header.").tag(
        config=True, example="/srv/logo.png"
    )
    pid_file = Unicode("", help="File that holds the hub's process id while it runs.").tag(
        config=True, example="/run/minihub.pid"
    )
    port = Int(
        8000, min=0, max=65535, help="Port at which the public side listens; 0 for any free one."
    ).tag(config=True)
    proxy_api_ip = Host("", help="Address of the proxy's API.").tag(
        config=True, deprecated_for="ConfigurableHTTPProxy.api_url", example="127.0.0.1"
    )
    proxy_api_port = Int(
        0, min=0, max=65535, help="Port of the proxy's API; 0 for the public port plus one."
    ).tag(config=True, deprecated_for="ConfigurableHTTPProxy.api_url")
    proxy_auth_token = HeaderText("", help="Token for the proxy's API.").tag(
        config=True, deprecated_for="ConfigurableHTTPProxy.auth_token", example="a-long-random-text"
    )
    proxy_check_interval = Int(
        30,
        min=1,
        help="Seconds between two checks that a running proxy still answers and knows its routes."
        " A proxy that has ended is noticed at once.",
    ).tag(config=True, unit="seconds")
    proxy_class = ClassName(
        "minihub.ownproxy.ThreadedProxy",
        base="minihub.proxies.Proxy",
        names=PROXIES,
        help="Class that runs the proxy. A short name (threaded, configurable-http-proxy), a"
        " dotted name, or in Python a class.",
    ).tag(config=True, example="configurable-http-proxy")
    proxy_cmd = Command(
        [], help="Command that starts the proxy; a list of words or one program's name."
    ).tag(
        config=True,
        deprecated_for="ConfigurableHTTPProxy.command",
        example=["configurable-http-proxy"],
    )
    reset_db = Bool(False, help="Delete everything in the database before the hub starts.").tag(
        config=True
    )
    service_check_interval = Int(
        60,
        min=0,
        help="Seconds between two checks that services with a URL can be reached; 0 for never.",
    ).tag(config=True, unit="seconds")
    service_tokens = Dict(
        key_trait=Unicode(),
        value_trait=Unicode(),
        help="API tokens and the services they belong to. Each service must be one of services.",
    ).tag(config=True, example={"a-long-random-text": "grader"})
    services = List(
        Dict(key_trait=Unicode()),
        help="Services beside the hub, one dictionary each. name is needed; command makes the hub"
        " run it, url gives it a place below /services/, api_token lets it call the API.",
    ).tag(
        config=True,
        example=[{"name": "grader", "url": "http://127.0.0.1:1234", "api_token": "a-long-text"}],
    )
    spawner_class = ClassName(
        "minihub.local.LocalProcessSpawner",
        base="minihub.spawner.Spawner",
        names=SPAWNERS,
        help="Class that starts the users' servers. A short name (localprocess, simple), a dotted"
        " name, or in Python a class.",
    ).tag(config=True, example="simple")
    ssl_cert = Unicode(
        "", help="File with the certificate of the public side, in PEM. Goes with ssl_key."
    ).tag(config=True, example="/etc/ssl/hub.crt")
    ssl_key = Unicode(
        "", help="File with the private key of the public side, in PEM. Goes with ssl_cert."
    ).tag(config=True, example="/etc/ssl/hub.key")
    statsd_host = Host("", help="Host to which statsd metrics are sent; empty for none.").tag(
        config=True, example="127.0.0.1"
    )
    statsd_port = Int(8125, min=0, max=65535, help="Port to which statsd metrics are sent.").tag(
        config=True
    )
    statsd_prefix = Unicode(
        "jupyterhub", help="What the name of every statsd metric begins with."
    ).tag(config=True, example="lab.hub")
    subdomain_host = Unicode(
        "",
        help="Give each user's servers a host name of their own below this one. A URL such as"
        " https://hub.example.org:8000; NAME.hub.example.org must lead to the same machine, and a"
        " certificate must cover those names.",
    ).tag(config=True, example="https://hub.example.org")
    template_paths = List(
        Unicode(), help="Directories in which templates are looked for before the built-in ones."
    ).tag(config=True, example=["/srv/templates"])
    tornado_settings = Dict(
        key_trait=Unicode(),
        help="Settings of the pages, named as JupyterHub's web framework names them. Known are"
        " headers, slow_spawn_timeout, slow_stop_timeout, user_redirect_limit, csp_report_uri,"
        " cookie_options and xsrf_cookie_kwargs.",
    ).tag(config=True, example={"slow_spawn_timeout": 5})
    trust_user_provided_tokens = Bool(
        False,
        help="Trust tokens given in this configuration to be random. They are then stored with one"
        " round of hashing instead of many, which makes checking them cheap. Only for tokens from"
        " a good generator.",
    ).tag(config=True)

    # -- ours ------------------------------------------------------------------------------

    state_dir = Unicode(
        "./minihub-data",
        help="Directory for everything of the hub's own: lock, logs, sockets, the proxy's token,"
        " homes. It is created, for its owner alone.",
    ).tag(config=True, example="/var/lib/minihub")

    queue_spawns = Bool(
        False,
        help="Let starts beyond the limits wait in line, with their place shown. The limits are"
        " concurrent_spawn_limit and active_server_limit; otherwise such starts are refused with"
        " status 429.",
    ).tag(config=True)

    cull = Dict(
        key_trait=Unicode(),
        help="Stop servers that nobody uses. timeout is how long a server may be idle, max_age how"
        " long it may run at all, every the pause between two looks; each in seconds or such as"
        " 30m, 2h, 1d. warn is how long before its end a server is announced on its user's pages"
        " (10m, or half of timeout), keep for how long a press of the button there keeps it (30m;"
        " 0 for no button), keep_most how long beyond its end in all (4h). True or false are"
        " spare_busy (a server with a busy kernel is not idle; on),"
        " cull_default_servers and cull_named_servers (on), remove_named_servers, cull_users"
        " (delete idle users too) and cull_admin_users. Empty: nothing is culled.",
    ).tag(config=True, example={"timeout": "1h", "max_age": "2d"})

    @validate("cull")
    def _cull_with_known_keys(self, proposal: dict) -> dict:
        return _checked_cull(proposal["value"])

    @validate("statsd_prefix")
    def _statsd_name(self, proposal: dict) -> str:
        prefix = proposal["value"].rstrip(".")
        if not prefix.isascii() or not prefix.isprintable() or set(prefix) & set(" :|@"):
            raise TraitError("a prefix has no spaces and none of the signs : | @")
        return prefix

    @validate("db_url")
    def _db_url_of_file_name(self, proposal: dict) -> str:
        url = proposal["value"]
        return url if "://" in url else f"sqlite:///{url}"

    @validate("subdomain_host")
    def _subdomain_host_with_scheme(self, proposal: dict) -> str:
        host = proposal["value"].removesuffix("/")
        if host and "://" not in host:
            host = f"https://{host}"
        if host:
            try:
                parts = urlsplit(host)
                fine = parts.scheme in ("http", "https") and parts.port != 0
            except ValueError:
                fine = False
            if fine and urls.is_address(parts.hostname or ""):
                raise TraitError("an IP address has no names below it; give a host name")
            if (
                not fine
                or not urls.is_host_name(parts.hostname or "")
                or parts.path
                or parts.query
                or parts.fragment
                or "@" in parts.netloc
            ):
                raise TraitError("must be a URL such as https://hub.example.org[:port], no path")
        return host


#: What each key of ``JupyterHub.cull`` takes.
CULL = {
    "timeout": "duration",
    "max_age": "duration",
    "every": "duration",
    "warn": "duration",
    "keep": "duration",
    "keep_most": "duration",
    "spare_busy": "truth",
    "cull_default_servers": "truth",
    "cull_named_servers": "truth",
    "remove_named_servers": "truth",
    "cull_users": "truth",
    "cull_admin_users": "truth",
}
_TRUTHS = {"true": True, "false": False}


def _checked_cull(given: dict) -> dict:
    """Return the option ``cull`` with durations in seconds. Raises TraitError."""
    checked = {}
    for key, value in given.items():
        kind = CULL.get(key)
        if kind is None:
            near = difflib.get_close_matches(key, CULL, 1)
            hint = f'. Did you mean "{near[0]}"?' if near else f"; there are {', '.join(CULL)}"
            raise TraitError(f'unknown key "{key}"{hint}')
        if kind == "duration":
            try:
                checked[key] = durations.parse(value)
            except ValueError as error:
                raise TraitError(f"{key}: {error}") from error
        else:
            checked[key] = _TRUTHS.get(str(value).lower())
            if checked[key] is None:
                raise TraitError(f"{key}: {value!r} is neither true nor false")
    if checked and not checked.get("timeout"):
        raise TraitError("timeout is needed: how long a server may be idle, such as 1h")
    return checked


def problems(options: JupyterHub) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield ``(options concerned, what is wrong)`` for every rule between options that is broken.

    The first of the options is the one to name.
    """
    if options.port and options.port == options.hub_port:
        message = f"the hub and the proxy cannot both listen on port {options.port}"
        yield ("hub_port", "port"), message
    if urlsplit(options.public_url).path not in ("", "/", options.base_url):
        yield ("public_url", "base_url"), f"must end in base_url, which is {options.base_url}"
    if options.cookie_host_prefix_enabled and not options.subdomain_host:
        message = "needs subdomain_host: without it every server would be shown the hub's cookies"
        yield ("cookie_host_prefix_enabled", "subdomain_host"), message
    for name, other in (("ssl_key", "ssl_cert"), ("ssl_cert", "ssl_key")):
        path = getattr(options, name)
        if path and not getattr(options, other):
            yield (name,), f"needs {other} as well"
        if path and not os.path.isfile(path):
            yield (name,), f"there is no file {path}"
    for name in ("api_tokens", "service_tokens"):
        for token, owner in getattr(options, name).items():
            if len(token) < SHORTEST_TOKEN:
                yield (name,), f"the token of {owner} has fewer than {SHORTEST_TOKEN} characters"
    low, high = options.spawn_throttle_retry_range
    if low > high:
        yield ("spawn_throttle_retry_range",), f"{low} is more than {high}"
    for wrong in websettings.problems(options.tornado_settings):
        yield ("tornado_settings",), wrong
    for name, wrong in dburl.problems(options.db_url, options.db_kwargs):
        yield (name,), wrong
    if not options.state_dir:
        yield ("state_dir",), "must name a directory"
    wrong = logs.check_format(options.log_format, options.log_datefmt)
    if wrong:
        yield ("log_format", "log_datefmt"), wrong


def remarks(options: JupyterHub) -> Iterator[tuple[str, str]]:
    """Yield ``(option, what about it is odd)`` for what works, but not as somebody expects."""
    unknown = websettings.unknown(options.tornado_settings)
    if unknown:
        yield (
            "tornado_settings",
            f"{', '.join(unknown)} means nothing here; known are {', '.join(websettings.KEYS)}",
        )
    for what in dburl.remarks(options.db_url, options.db_kwargs):
        yield "db_kwargs", what
