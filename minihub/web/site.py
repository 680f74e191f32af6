"""The web application: every route mounted, every error answered, every header set.

Rules of this file: it holds what requests share and turns exceptions into answers; it decides
nothing about users or servers. One error shape: ``{"status", "message"}`` as JSON below
``BASEhub/api``, a page elsewhere. No traceback reaches a client.

Threads: built once, then used by all of waitress's threads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

import bottle

from .. import JUPYTERHUB_VERSION, __version__, clock
from ..accounts import Accounts
from ..errors import AuthError, MinihubError, NotFound, RequestError, SpawnError
from ..hub import Hub
from ..logs import safe
from ..models import User
from .context import Context, NeedsLogin
from .identity import Identity
from .rendering import Renderer, TemplateError
from .routing import Access, Route, Routes

log = logging.getLogger("minihub.web")

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
#: Requests with a larger body are refused; nothing the hub takes comes near it.
MAX_BODY_BYTES = 10 * 1024 * 1024


class Site:
    """What all requests share."""

    def __init__(
        self,
        *,
        hub: Hub,
        accounts: Accounts,
        identity: Identity,
        renderer: Renderer,
        settings: dict[str, Any],
        own_hosts: Iterable[str] = (),
    ) -> None:
        """``settings``: the keys of ``tornado_settings`` that have a meaning here."""
        self.hub = hub
        self.accounts = accounts
        self.identity = identity
        self.renderer = renderer
        self.authenticator = hub.authenticator
        self.options = hub.options
        self.base_url: str = hub.info.base_url
        self.hub_prefix = self.base_url + "hub/"
        self.api_prefix = self.hub_prefix + "api"
        self.own_hosts = tuple(own_hosts)
        self.slow_spawn_timeout_s = float(settings.get("slow_spawn_timeout", 10))
        self.slow_stop_timeout_s = float(settings.get("slow_stop_timeout", 10))
        self.user_redirect_limit = int(settings.get("user_redirect_limit", 4))
        self._headers = dict(settings.get("headers") or {})
        self._report = settings.get("csp_report_uri", self.hub_prefix + "security/csp-report")

    def login_url(self) -> str:
        return self.authenticator.login_url(self.hub_prefix)

    def page_user(self, user: User) -> Any:
        """Return a user as templates see one."""
        return self.hub.user_info(user)

    def headers(self, csp_nonce: str, *, api: bool) -> dict[str, str]:
        """Return the headers of every answer; ``tornado_settings['headers']`` come last."""
        if api:
            policy = "default-src 'none'"
        else:
            policy = (
                f"default-src 'self'; script-src 'self' 'nonce-{csp_nonce}'; "
                "img-src 'self' data:; object-src 'none'; base-uri 'none'"
            )
        headers = {
            "X-JupyterHub-Version": JUPYTERHUB_VERSION,
            "X-Minihub-Version": __version__,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "same-origin",
            "Content-Security-Policy": (
                f"frame-ancestors 'none'; report-uri {self._report}; {policy}"
            ),
        }
        if api:
            headers["Access-Control-Allow-Headers"] = "accept, content-type, authorization"
        return headers | self._headers

    # -- errors ----------------------------------------------------------------------------

    def error(self, ctx: Context, error: MinihubError) -> Any:
        """Return the answer to a request that met ``error``."""
        if isinstance(error, NeedsLogin):
            return ctx.to_login()
        # What a database or a template says of itself is for the log, not for visitors.
        told = isinstance(error, (RequestError, SpawnError, AuthError)) or error.status < 500
        message = str(error) if told else "The hub met an error; its log has more."
        if ctx.path.startswith(self.api_prefix):
            response = ctx.json({"status": error.status, "message": message}, error.status)
        else:
            response = self.error_page(ctx, error.status, message)
        for name, value in getattr(error, "headers", {}).items():
            response.set_header(name, value)
        return response

    def error_page(self, ctx: Context, status: int, message: str, **namespace: Any) -> Any:
        """Return an error page; ``404.html`` for 404, else ``error.html``."""
        try:
            phrase = HTTPStatus(status).phrase
        except ValueError:
            phrase = "Unknown error"
        name = "404.html" if status == 404 else "error.html"
        namespace |= {"status_code": status, "status_message": phrase, "message": message}
        try:
            return ctx.page(name, status, **namespace)
        except TemplateError as error:
            log.error("The error page cannot be rendered: %s", error)
            return ctx.page(name, status, original=True, **namespace)

    # -- the application -------------------------------------------------------------------

    def application(self, tables: Iterable[Routes]) -> Callable[..., Any]:
        """Return the WSGI application that serves the routes of all ``tables``."""
        app = bottle.Bottle(catchall=False)
        for table in tables:
            for route in table:
                app.route(self.hub_prefix + route.path, route.method, self._endpoint(route))
        anything = Route("ANY", "", _Elsewhere(app), Access.PUBLIC, (), xsrf=False)
        for rule in (self.base_url + "<path:re:.*>", "/<path:re:.*>"):
            app.route(rule, "ANY", self._endpoint(anything))
        return app

    def _endpoint(self, route: Route) -> Callable[..., Any]:
        def endpoint(**args: str) -> Any:
            began = clock.monotonic()
            ctx = Context(self, bottle.request, route)
            try:
                ctx.authorize()
                response = route.handler(ctx, **args)
            except MinihubError as error:
                if error.status >= 500:
                    log.error("%s %s: %s", ctx.method, safe(ctx.path), error)
                response = self.error(ctx, error)
            except bottle.HTTPError as error:  # a body too large or malformed
                message = str(error.body or HTTPStatus(error.status_code).phrase)
                response = self.error(ctx, _Refused(message, error.status_code))
            except Exception:
                log.exception("%s %s failed", ctx.method, safe(ctx.path))
                response = self.error(ctx, MinihubError("an unexpected error"))
            ctx.finish(response)
            if log.isEnabledFor(logging.INFO):
                log.info(
                    "%s %s %s (%s@%s) %.1fms",
                    response.status_code,
                    ctx.method,
                    safe(ctx.path),
                    ctx.caller.name if ctx.caller else "",
                    safe(ctx.remote_ip),
                    (clock.monotonic() - began) * 1000,
                )
            return response

        return endpoint


class _Refused(RequestError):
    """Raised when the request itself could not be read."""

    def __init__(self, message: str, status: int) -> None:
        self.status = status
        super().__init__(message)


class _Elsewhere:
    """Answers what no route matches."""

    def __init__(self, app: bottle.Bottle) -> None:
        self.app = app

    def __call__(self, ctx: Context, path: str) -> Any:
        site = ctx.site
        if ctx.path.startswith(site.api_prefix) and ctx.method == "OPTIONS":
            return ctx.reply(b"")
        if not ctx.path.startswith(site.hub_prefix):
            return self._outside(ctx)
        allowed = [method for method in METHODS if self._matches(ctx, method)]
        if allowed:
            response = site.error(ctx, _Refused("Method Not Allowed", 405))
            response.set_header("Allow", ", ".join(allowed))
            return response
        raise NotFound("Not Found" if ctx.path.startswith(site.api_prefix) else "")

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
