"""Options of the hub that JupyterHub added after the 58 of its reference.

Rules of this file: as in :mod:`minihub.options`, which inherits them; in alphabetical order. Only
what works stands here; the rest of JupyterHub's is in :mod:`minihub.upstream` and refused.

Threads: as :mod:`minihub.options`.
Sources: the option reference of JupyterHub 6.1.
"""

from __future__ import annotations

import ipaddress
import string
from typing import Any
from urllib.parse import SplitResult, urlsplit

from traitlets import (
    Bool,
    Dict,
    Enum,
    Float,
    HasTraits,
    Int,
    List,
    Set,
    TraitError,
    Tuple,
    Unicode,
    Union,
    validate,
)

from minihub import subdomains, urls
from minihub.traits import Callable

_HEADER_SIGNS = set(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~")


def split_url(url: str) -> SplitResult:
    """Take apart an http:// or https:// URL of a place; its host may be empty.

    Raises ValueError saying what is wrong with it.
    """
    parts = urlsplit(url)
    if parts.scheme == "http+unix":
        raise ValueError("the hub and the proxy listen on TCP ports, not on sockets")
    if parts.scheme not in ("http", "https"):
        raise ValueError("must begin with http:// or https://")
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("must be a URL such as http://127.0.0.1:8000/base/")
    if parts.port == 0 and not parts.netloc.endswith(":0"):
        raise ValueError("the port is no number")
    return parts


class LaterOptions(HasTraits):
    """The options, to be inherited by the class that has all."""

    activity_resolution = Int(
        30,
        min=0,
        help="Seconds by which an activity must be later than the last one to be written down."
        " What servers report themselves is always written.",
    ).tag(config=True, unit="seconds")
    active_user_window = Int(
        1800,
        min=0,
        help="For how many seconds after their last activity users count as active in the metrics"
        " sent to statsd.",
    ).tag(config=True, unit="seconds")
    allow_existing_invalid_named_servers = Enum(
        ("allow-start", "allow-delete", "autorename"),
        "allow-start",
        help="What becomes of named servers with names that no new server may have. JupyterHub 5"
        " and older took such names. allow-start lets their owners start, stop and delete them,"
        " allow-delete only stop and delete them. autorename gives those that do not run a name"
        " that fits when the hub starts, and shows the old one; what a spawner keeps elsewhere"
        " under the old name is not renamed.",
    ).tag(config=True, example="autorename")
    authenticate_prometheus = Bool(
        True,
        help="Show the metrics at /hub/metrics only to those who hold the scope read:metrics.",
    ).tag(config=True)
    allowed_hosts = List(
        Unicode(),
        help="Names and addresses under which browsers may ask for pages. A request for any other"
        " is refused, so that no page of a stranger can pretend to be the hub. A name that begins"
        ' with a dot stands for all below it, "this-machine" for the addresses and names the'
        " machine has at the moment. localhost and the hub's own URLs are always among them. Empty:"
        " every name is taken.",
    ).tag(config=True, example=["this-machine", "hub.example.org"])
    bind_url = Unicode(
        "",
        help="URL at which the public side listens. It sets ip, port and base_url at once, where"
        " they are not given themselves. With https:// and no ssl_cert, TLS ends before the proxy.",
    ).tag(config=True, example="http://127.0.0.1:8000/lab/")
    api_page_default_limit = Int(
        50,
        min=1,
        help="How many entries a page of a list of the REST API has when the client asks for"
        " pages and names no number.",
    ).tag(config=True, unit="entries", example=100)
    api_page_max_limit = Int(
        200,
        min=1,
        help="How many entries of a list the REST API gives at once at most, whatever a client"
        " asks for.",
    ).tag(config=True, unit="entries", example=1000)
    cookie_host_prefix_enabled = Bool(
        False,
        help="Give the hub's cookies the prefix __Host-, so that no user's host can set them."
        " For hubs with subdomain_host that are reached by https.",
    ).tag(config=True)
    custom_scopes = Dict(
        key_trait=Unicode(),
        value_trait=Dict(),
        help="Further scopes, for services to check; the hub itself asks for none of them. Names"
        " begin with custom:, and each has a description and may have subscopes.",
    ).tag(
        config=True, example={"custom:grades:read": {"description": "Read the grades of a course."}}
    )
    default_server_name = Unicode(
        "",
        help="Named server to which people go when none is named: after a login, and by links to"
        " /hub/user-redirect/. Counts with allow_named_servers only.",
    ).tag(config=True, example="lab")
    default_url = Union(
        [Unicode(), Callable()],
        default_value="",
        help="Where people go who ask for nothing in particular. A URL or a path, in Python also a"
        " function that is given the request's handler and returns one; empty for one's own"
        " server.",
    ).tag(config=True, example="/hub/home")
    extra_user_scopes = Set(
        Unicode(),
        help="Scopes that every user gets beside those of the role user, without having to write"
        " that role anew in load_roles.",
    ).tag(config=True, example=["shares!user"])
    forwarded_host_header = Unicode(
        "",
        help="Name of the header field in which a proxy before ours tells the host that people"
        " asked for, where it sends another Host.",
    ).tag(config=True, example="X-Forwarded-Host")
    hub_bind_url = Unicode(
        "",
        help="URL at which the hub itself listens. It sets hub_ip and hub_port at once, where they"
        " are not given themselves.",
    ).tag(config=True, example="http://127.0.0.1:8081")
    hub_connect_url = Unicode(
        "",
        help="URL at which the proxy and the servers reach the hub. It sets hub_connect_ip and"
        " hub_connect_port at once, where they are not given themselves; its path does not count.",
    ).tag(config=True, example="http://hub.internal:8081")
    hub_routespec = Unicode(
        "/",
        help="Route of the proxy that leads to the hub; another than / leaves the rest of the site"
        " to Proxy.extra_routes.",
    ).tag(config=True, example="/lab/hub/")
    implicit_spawn_seconds = Float(
        0,
        min=0,
        help="Seconds after which the page of a server that does not run starts it by itself. 0"
        " waits for the button.",
    ).tag(config=True, unit="seconds", example=5)
    init_spawners_timeout = Int(
        10,
        help="Seconds that the start of the hub waits for the servers of the last one to say"
        " whether they run. Those that have not said are pending check until they do; a negative"
        " number waits for all.",
    ).tag(config=True, unit="seconds", example=30)
    load_roles = List(
        Dict(key_trait=Unicode()),
        help="Roles beyond the default ones, one dictionary each. name is needed; description and"
        " scopes say what the role is, and users, groups and services who holds it: these lists"
        " are the whole truth at each start. The default roles user, server and token can be given"
        " other scopes.",
    ).tag(
        config=True,
        example=[{"name": "grading", "scopes": ["read:users!group=physics"], "users": ["ana"]}],
    )
    named_server_limit_per_user = Union(
        [Int(min=0), Callable()],
        default_value=0,
        help="How many named servers a user may have, running or not; 0 for any number. In Python"
        " also a function that is given the request's handler and returns the number.",
    ).tag(config=True, unit="servers", example=3)
    oauth_require_pkce = Bool(
        False, help="Refuse OAuth logins to servers and services that do not offer PKCE."
    ).tag(config=True)
    oauth_token_expires_in = Int(
        0,
        min=0,
        help="Seconds for which a login to a server or service lasts; 0 for cookie_max_age_days.",
    ).tag(config=True, unit="seconds", example=3600)
    public_url = Unicode(
        "",
        help="URL at which people reach the hub, base_url included, where other programs stand"
        " before the proxy. By default subdomain_host, else what a request says.",
    ).tag(config=True, example="https://hub.example.org/")
    redirect_to_server = Bool(
        True,
        help="Send people to their own server after a login, starting it if need be. Otherwise"
        " those whose server does not run go to their home page.",
    ).tag(config=True)
    shutdown_on_logout = Bool(False, help="Stop a user's servers when the user logs out.").tag(
        config=True
    )
    spawn_throttle_retry_range = Tuple(
        Int(min=0),
        Int(min=0),
        default_value=(30, 60),
        help="Seconds, from and to, after which a start that was refused may be tried again. They"
        " are told to those whom concurrent_spawn_limit keeps from starting a server.",
    ).tag(config=True, unit="seconds")
    subdomain_hook = Union(
        [Enum(list(subdomains.HOOKS)), Callable()],
        default_value="idna",
        help="How users and services get their hosts with subdomain_host. idna (NAME.host and"
        " NAME--service.host, safe for every name), legacy (all services on services.host), in"
        " Python also a function of name, domain and kind (user or service).",
    ).tag(config=True, example="legacy")
    template_vars = Dict(
        key_trait=Unicode(),
        help="Further values for all templates, by name. In Python a value may be a function, which"
        " is given the user, or None on pages for nobody, and returns the value.",
    ).tag(config=True, example={"announcement": "Maintenance on Friday."})
    token_expires_in_max_seconds = Int(
        0,
        min=0,
        help="Seconds for which tokens may last at most that users make; 0 for any time. A token"
        " made without an end gets this one.",
    ).tag(config=True, unit="seconds", example=2592000)
    trusted_downstream_ips = List(
        Unicode(),
        help="Addresses or networks of proxies before ours that are trusted. Their X-Forwarded-*"
        " fields are believed as ours are, so that logs and limits know the clients themselves.",
    ).tag(config=True, example=["10.0.0.5", "192.168.0.0/24"])

    upgrade_db = Bool(
        True,
        help="Bring a database that an older minihub wrote up to date at the start; an SQLite file"
        " is copied before. Without it such a hub does not start, and minihub upgrade-db does it.",
    ).tag(config=True)
    use_legacy_stopped_server_status_code = Bool(
        False,
        help="Answer with status 503, as older hubs did, for servers that do not run, not 424.",
    ).tag(config=True)
    user_redirect_hook = Callable(
        None,
        allow_none=True,
        help="Function(path, request, user, base_url) that says where links to"
        " /hub/user-redirect/PATH lead. Only in a Python file; if it returns None, to the user's"
        " own server.",
    ).tag(config=True)

    @validate("default_url")
    def _where_people_go(self, proposal: dict) -> Any:
        url = proposal["value"]
        if isinstance(url, str):
            if not url.isascii() or not url.isprintable() or " " in url:
                raise TraitError("has signs that no URL has; write them as %XX")
            try:
                scheme = urlsplit(url).scheme
            except ValueError as error:
                raise TraitError(f"is no URL: {error}") from error
            if scheme not in ("", "http", "https"):
                raise TraitError("is a path, or a URL with http:// or https://")
        return url

    @validate("forwarded_host_header")
    def _name_of_a_header(self, proposal: dict) -> str:
        name = proposal["value"]
        if not set(name) <= _HEADER_SIGNS:
            raise TraitError("is no name of a header field, such as X-Forwarded-Host")
        return name

    @validate("default_server_name")
    def _server_name(self, proposal: dict) -> str:
        name = proposal["value"]
        if name and (problem := urls.server_name_problem(name)):
            raise TraitError(problem)
        return name

    @validate("hub_routespec")
    def _routespec(self, proposal: dict) -> str:
        spec = proposal["value"]
        if not spec.endswith("/"):
            raise TraitError("must end with a slash")
        return spec

    @validate("allowed_hosts")
    def _host_names(self, proposal: dict) -> list[str]:
        for text in proposal["value"]:
            if not text or urls.host_name(text) != text.lower() or set(text) & set("/@* "):
                raise TraitError(f'"{text}" is no host; give a name or an address, without a port')
        return proposal["value"]

    @validate("trusted_downstream_ips")
    def _addresses(self, proposal: dict) -> list[str]:
        for text in proposal["value"]:
            try:
                ipaddress.ip_network(text, strict=False)
            except ValueError as error:
                raise TraitError(f'"{text}" is no address or network') from error
        return proposal["value"]

    @validate("bind_url", "hub_bind_url", "hub_connect_url")
    def _place(self, proposal: dict) -> str:
        try:
            if proposal["value"]:
                split_url(proposal["value"])
        except ValueError as error:
            raise TraitError(str(error)) from error
        return proposal["value"]

    @validate("public_url")
    def _public_url(self, proposal: dict) -> str:
        url = proposal["value"]
        if not url:
            return url
        url = url if "://" in url else f"https://{url}"
        try:
            if not split_url(url).hostname:
                raise ValueError("must name a host")
        except ValueError as error:
            raise TraitError(str(error)) from error
        return url if url.endswith("/") else url + "/"
