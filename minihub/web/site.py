"""The web application: every route mounted, every error answered, every header set.

Rules of this file: it holds what requests share and turns exceptions into answers; it decides
nothing about users or servers. One error shape: ``{"status", "message"}`` as JSON below
``BASEhub/api``, a page elsewhere. No traceback reaches a client.

Threads: built once, then used by all of waitress's threads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import bottle

from .. import JUPYTERHUB_VERSION, __version__, addresses, aio, clock, metrics, process, urls
from ..accounts import Accounts
from ..errors import (
    AuthError,
    BadRequest,
    MethodNotAllowed,
    MinihubError,
    NotFound,
    RequestError,
    SpawnError,
    StoreError,
)
from ..hub import Hub
from ..local import LocalProcessSpawner
from ..logs import safe
from ..models import User
from ..parts import Parts
from ..people import People
from ..server import Server
from ..texts import Text
from ..websettings import WebSettings
from . import phrases
from .context import SAFE_METHODS, Context, NeedsLogin
from .forwarded import Trust
from .guard import Guard
from .handler import HandlerView
from .hosts import Hosts
from .identity import Identity
from .refresh import Refresher
from .rendering import Renderer, TemplateError
from .routing import WHOLE, Access, Route, Routes
from .waits import Waits

log = logging.getLogger("minihub.web")

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
#: Every path there is, also one with a line break in it.
ANYTHING = r"<path:re:[\s\S]*>"
#: What the metrics tell apart; whoever asks could else make rows without end.
KNOWN_METHODS = frozenset({*METHODS, "HEAD", "OPTIONS"})
#: How many lines of a server's log a page shows.
LOG_LINES = 200
#: Requests with a larger body are refused; nothing the hub takes comes near it.
MAX_BODY_BYTES = 10 * 1024 * 1024


def _hint(ctx: Context, error: MinihubError) -> str:
    """Return what helps somebody whose form was refused because their login ended meanwhile."""
    is_form = ctx.route.access is Access.PAGE and ctx.method not in SAFE_METHODS
    if not is_form or ctx.caller is not None or error.status != 403:
        return ""
    return Text("You are not logged in any more. Log in, go back to the form, and send it again.")


class Site:
    """What all requests share."""

    def __init__(
        self,
        *,
        hub: Hub,
        accounts: Accounts,
        identity: Identity,
        renderer: Renderer,
        settings: WebSettings,
        parts: Parts,
        shutdown: Callable[..., None],
        own_hosts: Iterable[str] = (),
    ) -> None:
        """``shutdown(proxy=…, servers=…)`` ends the hub; what is not None goes before the
        configuration.
        """
        self.hub = hub
        self.accounts = accounts
        self.identity = identity
        self.renderer = renderer
        self.shutdown = shutdown
        self.people = People(hub)
        self.audit = hub.audit
        self.gauges = parts.gauges
        self.culler = parts.culler
        self.caretaker = parts.caretaker
        self.announcements = parts.announcements
        self.authenticator = hub.authenticator
        self.options = hub.options
        self.base_url: str = hub.info.base_url
        self.hub_prefix = self.base_url + "hub/"
        self.api_prefix = self.hub_prefix + "api"
        self._api_root = self.api_prefix + "/"
        self.own_hosts = tuple(own_hosts)
        #: The status of what is asked of a server that does not run.
        self.stopped_status = 503 if self.options.use_legacy_stopped_server_status_code else 424
        self.refresher = Refresher(hub)
        #: Host name of the hub when users have hosts of their own, else empty.
        self.domain = domain = hub.info.domain
        self.hosts = Hosts(
            [*self.options.allowed_hosts, *([f".{domain}"] if domain else [])]
            if self.options.allowed_hosts
            else [],
            [*self.own_hosts, urlsplit(hub.info.api_url).netloc],
        )
        self.guard = Guard(hub.authenticator, identity.secret)
        self.waits = Waits()
        self.trust = Trust(hub.options.trusted_downstream_ips)
        #: How browsers reach the site where that is known, else empty.
        self.public_scheme = urlsplit(hub.info.public_url).scheme
        if not self.public_scheme and addresses.scheme(self.options) == "https":
            self.public_scheme = "https"
        self.settings = settings
        self.slow_spawn_timeout_s = settings.slow_spawn_timeout_s
        self.slow_stop_timeout_s = settings.slow_stop_timeout_s
        self.user_redirect_limit = settings.user_redirect_limit
        #: The routes there are, and the API's description of them once somebody has asked for it.
        self.tables: tuple[Routes, ...] = ()
        self.openapi: bytes | None = None
        self._headers = dict(settings.headers)
        self._report = settings.csp_report_uri or self.hub_prefix + "security/csp-report"
        #: The headers of every answer of the API.
        self.api_headers = self._common("default-src 'none'", {
            "Access-Control-Allow-Headers": "accept, content-type, authorization"
        })  # fmt: skip

    def is_api_path(self, path: str) -> bool:
        """Return whether a path is the API's root or lies below it."""
        return path.startswith(self._api_root) or path == self.api_prefix

    def login_url(self) -> str:
        return self.authenticator.login_url(self.hub_prefix)

    def named_server_limit(self, ctx: Context) -> int:
        """Return how many named servers the caller may have; 0 for any number."""
        limit = self.options.named_server_limit_per_user
        if not callable(limit):
            return limit
        return int(aio.call(limit, HandlerView(ctx)))

    def page_user(self, user: User) -> Any:
        """Return a user as templates see one."""
        return self.hub.user_info(user)

    def log_of(self, server: Server, lines: int = LOG_LINES) -> list[str]:
        """Return the last lines of a server's log, of its present run or its last."""
        spawner = server.spawner
        if spawner is None:
            user = self.accounts.user(server.user_name)
            if user is None:
                return []
            spawner = self.hub.new_spawner(self.hub.user_info(user), server.name)
        if isinstance(spawner, LocalProcessSpawner):
            return process.tail(spawner.log_path, lines)
        return spawner.log_tail()

    def page_headers(self, csp_nonce: str) -> dict[str, list[str]]:
        """Return the headers of every page; ``tornado_settings['headers']`` come last."""
        return self._common(
            f"default-src 'self'; script-src 'self' 'nonce-{csp_nonce}'; "
            "img-src 'self' data:; object-src 'none'; base-uri 'none'",
            {},
        )

    def _common(self, policy: str, more: dict[str, str]) -> dict[str, list[str]]:
        """Return headers as an answer of bottle's holds them, so that adding them costs little."""
        headers = {
            "X-JupyterHub-Version": JUPYTERHUB_VERSION,
            "X-Minihub-Version": __version__,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "same-origin",
            "Content-Security-Policy": (
                f"frame-ancestors 'none'; report-uri {self._report}; {policy}"
            ),
            **more,
            **self._headers,
        }
        return bottle.HeaderDict(headers).dict

    # -- errors ----------------------------------------------------------------------------

    def error(self, ctx: Context, error: MinihubError) -> Any:
        """Return the answer to a request that met ``error``."""
        if isinstance(error, NeedsLogin):
            return ctx.to_login()
        # What a database or a template says of itself is for the log, not for visitors.
        told = isinstance(error, (RequestError, SpawnError, AuthError)) or error.status < 500
        message = (
            phrases.known(str(error)) if told else Text("The hub met an error; its log has more.")
        )
        if isinstance(error, StoreError):
            message = Text(
                "The hub cannot use its database at the moment; its log has more. "
                "Nothing that was saved is lost."
            )
        if ctx.path.startswith(self.api_prefix) and ctx.route.access is not Access.PAGE:
            response = ctx.json({"status": error.status, "message": message}, error.status)
        else:
            response = self.error_page(ctx, error.status, message, hint=_hint(ctx, error))
        for name, value in getattr(error, "headers", {}).items():
            response.set_header(name, value)
        return response

    def error_page(self, ctx: Context, status: int, message: str, **namespace: Any) -> Any:
        """Return an error page: that of the status, such as ``404.html``, else ``error.html``."""
        phrase = phrases.of(status)
        name = f"{status}.html"
        namespace |= {"status_code": status, "status_message": phrase, "message": message}
        namespace["otherwise"] = ("error.html",)
        try:
            return ctx.page(name, status, **namespace)
        except TemplateError as error:
            log.error("The error page cannot be rendered: %s", error)
            return ctx.page(name, status, original=True, **namespace)
        except StoreError:
            return self._page_for_nobody(ctx, name, status, namespace)

    def _page_for_nobody(
        self, ctx: Context, name: str, status: int, namespace: dict[str, Any]
    ) -> Any:
        """Return an error page while the database, which knows who asks, cannot be read."""
        ctx.forget_caller()
        try:
            return ctx.page(name, status, **namespace)
        except StoreError:  # an administrator's template may ask for anything
            return ctx.reply(f"{status}: {namespace['message']}\n", status)
        finally:
            ctx.forget_cookies()  # those of the visitor's own session stay

    # -- the application -------------------------------------------------------------------

    def application(self, tables: Iterable[Routes]) -> Callable[..., Any]:
        """Return the WSGI application that serves the routes of all ``tables``."""
        app = bottle.Bottle(catchall=False)
        app.uninstall(bottle.JSONPlugin)  # every handler returns an answer, never bare data
        self.tables = tuple(tables)
        for table in self.tables:
            for route in table:
                app.route(self.hub_prefix + route.path, route.method, self._endpoint(route))
        elsewhere = _Elsewhere(app)
        anything = Route("ANY", "", elsewhere, Access.PUBLIC, (), WHOLE, xsrf=False, head=True)
        for rule in (self.base_url + ANYTHING, "/" + ANYTHING):
            app.route(rule, "ANY", self._endpoint(anything))
        return app

    def _endpoint(self, route: Route) -> Callable[..., Any]:
        name = getattr(route.handler, "__name__", type(route.handler).__name__)
        handler_name = f"{route.handler.__module__}.{name}"
        takes_slashes = ":path>" in route.path or ":re:" in route.path

        def endpoint(**args: str) -> Any:
            began = clock.monotonic()
            _as_utf8(bottle.request.environ)
            ctx = Context(self, bottle.request, route)
            try:
                if ctx.method == "HEAD" and not route.head:
                    raise _NoHead(route.method)
                if ctx.is_api and not takes_slashes and ctx.has_encoded_slash:
                    raise NotFound()  # a name is one part of the path, never two
                if self.hosts.is_checked and not self.hosts.knows(ctx.host):
                    raise BadRequest(
                        Text(
                            "This hub is not called %(host)s. If it is to be, add the name to "
                            "JupyterHub.allowed_hosts.",
                            host=repr(safe(ctx.host)),
                        )
                    )
                response = self._misplaced(ctx)
                if response is None:
                    ctx.authorize(args)
                    response = route.handler(ctx, **args)
                    _note_others_work(ctx, args, response)
            except MinihubError as error:
                if error.status >= 500:
                    log.error(
                        "%s %s: %s",
                        ctx.method,
                        safe(_without_secrets(ctx.path, route, args)),
                        error,
                    )
                response = self.error(ctx, error)
            except bottle.HTTPError as error:  # a body too large or malformed
                message = str(error.body or HTTPStatus(error.status_code).phrase)
                response = self.error(ctx, _Refused(message, error.status_code))
            except Exception:
                log.exception(
                    "%s %s failed", ctx.method, safe(_without_secrets(ctx.path, route, args))
                )
                response = self.error(ctx, MinihubError(Text("an unexpected error")))
            ctx.finish(response)
            took_s = clock.monotonic() - began
            metrics.observe(
                "request_duration_seconds",
                took_s,
                method=ctx.method if ctx.method in KNOWN_METHODS else "OTHER",
                handler=handler_name,
                code=response.status_code,
            )
            if log.isEnabledFor(logging.INFO):
                log.info(
                    "%s %s %s (%s@%s) %.1fms",
                    response.status_code,
                    ctx.method,
                    safe(_without_secrets(ctx.path, route, args)),
                    ctx.caller.name if ctx.caller else "",
                    safe(ctx.remote_ip),
                    took_s * 1000,
                )
            return response

        return endpoint

    def _misplaced(self, ctx: Context) -> Any:
        """Send a page that was asked for on a user's host to the hub's own; None elsewhere.

        Whoever owns a host may run scripts there, so nobody is to log in on it.
        """
        domain = self.domain
        if not domain or ctx.is_api or not urls.host_name(ctx.host).endswith("." + domain):
            return None
        if ctx.method not in SAFE_METHODS:
            raise NotFound()
        return ctx.redirect(self.hub.info.public_host + ctx.path_and_query)


def _note_others_work(ctx: Context, args: dict[str, str], response: Any) -> None:
    """Note what somebody has done to somebody else through the API; pages note it themselves."""
    route, caller = ctx.route, ctx.caller
    if not ctx.is_api or route.on not in ("user", "server") or ctx.method in SAFE_METHODS:
        return
    is_report = route.path.endswith("/activity")
    if caller is None or caller.name == args["name"] or response.status_code >= 400 or is_report:
        return
    path = ctx.path.removeprefix(ctx.site.api_prefix)
    ctx.audit(f"API: {ctx.method}", args["name"], args.get("server_name", ""), detail=path)


def _as_utf8(environ: dict[str, Any]) -> None:
    """Mend header fields that are not UTF-8, such as another program's cookie on the same host.

    Bottle decodes a field when it is asked for and would fail, also while an error is answered.
    """
    for name, value in environ.items():
        if name[:5] in ("HTTP_", "CONTE") and not value.isascii():
            text = value.encode("latin-1").decode("utf-8", "replace")
            environ[name] = text.encode().decode("latin-1")


#: Parts of paths that are secrets, and so not for the log.
_SECRETS = ("token", "value")


def _without_secrets(path: str, route: Route, args: Mapping[str, str]) -> str:
    """Return a path without the tokens and cookies that old clients write into it."""
    if not any(f"<{name}>" in route.path for name in _SECRETS):
        return path
    shown = route.path
    for name, value in args.items():
        shown = shown.replace(f"<{name}>", "…" if name in _SECRETS else value)
    return path.partition("/hub/")[0] + "/hub/" + shown


class _Refused(RequestError):
    """Raised when the request itself could not be read."""

    def __init__(self, message: str, status: int) -> None:
        self.status = status
        super().__init__(message)


class _NoHead(MethodNotAllowed):
    """Raised for HEAD on what is answered to GET alone."""

    def __init__(self, allowed: str) -> None:
        super().__init__(Text("Method Not Allowed"), headers={"Allow": allowed})


class _Elsewhere:
    """Answers what no route matches."""

    def __init__(self, app: bottle.Bottle) -> None:
        self.app = app

    def __call__(self, ctx: Context, path: str) -> Any:
        site = ctx.site
        if ctx.is_api and ctx.method == "OPTIONS":
            response = ctx.reply(b"", content_type="application/json")
            if ctx.path.rstrip("/") == site.api_prefix:  # as to what it announces
                response.set_header("Access-Control-Allow-Origin", "*")
            return response
        if not ctx.path.startswith(site.hub_prefix):
            return self._outside(ctx)
        allowed = [method for method in METHODS if self._matches(ctx, method)]
        if allowed:
            response = site.error(ctx, _Refused(Text("Method Not Allowed"), 405))
            response.set_header("Allow", ", ".join(allowed))
            return response
        raise NotFound(Text("Not Found") if ctx.is_api else "")

    def _matches(self, ctx: Context, method: str) -> bool:
        environ = {"PATH_INFO": ctx.request.path, "REQUEST_METHOD": method}
        route, _args = self.app.router.match(environ)
        return route.method != "ANY"

    def _outside(self, ctx: Context) -> Any:
        """Send what lies outside ``BASEhub/`` to its place below it.

        A user's or service's root without its slash gets the slash first.
        """
        site = ctx.site
        query = "?" + ctx.query_string if ctx.query_string else ""
        path = "/" + ctx.path.lstrip("/")
        if path == site.hub_prefix[:-1]:
            return ctx.redirect(site.hub_prefix + query, 301)
        if not path.startswith(site.base_url):
            path = site.base_url
        rest = path[len(site.base_url) :]
        kind, slash, name = rest.partition("/")
        if kind in ("user", "services") and slash and name and "/" not in name:
            return ctx.redirect(f"{path}/{query}", 301)
        return ctx.redirect(site.hub_prefix + rest + query)
