"""One request: who asks, what they sent, and how to answer.

Rules of this file: handlers see HTTP only through :class:`Context`. It reads the forwarded
headers (the last element only: that one is our own proxy's), checks access and XSRF, and builds
every kind of answer. Every redirect to a place a client named goes through ``safe_next``.

Threads: one context belongs to the thread that serves its request.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlencode

import bottle

from .. import tokens, urls
from ..errors import BadRequest, Forbidden, MethodNotAllowed
from . import cookies
from .identity import Caller
from .routing import Access, Route

if TYPE_CHECKING:
    from .site import Site

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class NeedsLogin(Forbidden):
    """Raised when a page is for people who are logged in; answered by the way to the login."""


class Context:
    """A request to the hub and the means to answer it."""

    def __init__(self, site: Site, request: Any, route: Route) -> None:
        self.site = site
        self.request = request
        self.route = route
        self.method: str = request.method
        self.jar = cookies.read(request.get_header("Cookie"))
        self.caller: Caller | None = None
        self.csp_nonce = secrets.token_urlsafe(12)
        self._set_cookies: list[str] = []
        self._xsrf: str | None = None

    # -- what was sent ---------------------------------------------------------------------

    def header(self, name: str, default: str = "") -> str:
        return self.request.get_header(name, default) or default

    def _forwarded(self, name: str) -> str:
        return self.header(name).rpartition(",")[2].strip()

    @cached_property
    def remote_ip(self) -> str:
        """The client's address as our proxy saw it."""
        return self._forwarded("X-Forwarded-For") or self.request.remote_addr or ""

    @cached_property
    def scheme(self) -> str:
        """``http`` or ``https``, as the browser sees it."""
        proto = self._forwarded("X-Forwarded-Proto")
        return proto if proto in ("http", "https") else "http"

    @property
    def secure(self) -> bool:
        return self.scheme == "https"

    @property
    def host(self) -> str:
        return self.header("Host")

    @property
    def user_agent(self) -> str:
        return self.header("User-Agent")

    @property
    def path(self) -> str:
        """The path as sent, without the query, still percent-encoded for use in URLs."""
        return quote(self.request.path, safe="/@~!$&'()*+,;=:")

    @property
    def query_string(self) -> str:
        return self.request.query_string

    @property
    def path_and_query(self) -> str:
        return self.path + ("?" + self.query_string if self.query_string else "")

    @cached_property
    def query(self) -> dict[str, str]:
        """The query's parameters; of repeated ones the last."""
        return dict(parse_qsl(self.query_string, keep_blank_values=True))

    @cached_property
    def form_lists(self) -> dict[str, list[str]]:
        """The form's fields, each with all its values."""
        forms = self.request.forms.decode("utf-8")
        return {name: forms.getall(name) for name in forms}

    @cached_property
    def form(self) -> dict[str, str]:
        """The form's fields; of repeated ones the last value."""
        return {name: values[-1] for name, values in self.form_lists.items() if values}

    def json_body(self) -> dict[str, Any] | None:
        """Return the JSON object that was sent, or None when the body is empty.

        Raises BadRequest when it is not JSON, or not an object.
        """
        raw = self.request.body.read()
        if not raw.strip():
            return None
        try:
            data = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise BadRequest("Invalid JSON in body of request") from error
        if not isinstance(data, dict):
            raise BadRequest(f"Invalid JSON data: {str(data)[:100]}")
        return data

    # -- who asks --------------------------------------------------------------------------

    def authorize(self) -> None:
        """Find out who asks and refuse whom the route is not for.

        Raises NeedsLogin, or Forbidden.
        """
        access = self.route.access
        identity = self.site.identity
        if access is not Access.PAGE:
            self.caller = identity.by_token(self.header("Authorization"))
        by_token = self.caller is not None
        if self.caller is None:
            self.caller = identity.by_cookie(self.jar)
        if not by_token and self.route.xsrf and self._xsrf_due():
            self.check_xsrf()
        if self.caller is None:
            if access is Access.API:
                raise Forbidden("Missing or invalid credentials.")
            if access is Access.PAGE:
                raise NeedsLogin("Log in first.")
        elif self.route.scopes and not any(
            self.caller.scopes.has_any(scope) for scope in self.route.scopes
        ):
            raise Forbidden(
                "Action is not authorized with current scopes; "
                f"requires any of [{', '.join(self.route.scopes)}]"
            )

    def _xsrf_due(self) -> bool:
        """Return whether this request must prove that it comes from our own page.

        A browser's own navigation may read; what changes anything, and what a page's script
        reads from the API with the cookie, must prove it.
        """
        if self.method not in SAFE_METHODS:
            # Without a login there is nothing to steal, but the login form itself is guarded.
            return self.caller is not None or self.route.access is not Access.API
        if self.route.access is not Access.API or self.method != "GET" or self.caller is None:
            return False
        mode = self.header("Sec-Fetch-Mode")
        site = self.header("Sec-Fetch-Site")
        return not (
            mode in ("", "navigate", "websocket") or (mode == "no-cors" and site == "same-origin")
        )

    def check_xsrf(self) -> None:
        """Raise Forbidden unless the request carries the secret of this browser's own forms."""
        sent = (
            self.header("X-XSRFToken")
            or self.header("X-CSRFToken")
            or self.query.get("_xsrf")
            or (self._form_xsrf() if self.method not in SAFE_METHODS else "")
        )
        if not sent:
            raise Forbidden(f"'_xsrf' argument missing from {self.method}")
        valid = self.site.identity.valid_xsrf(self.caller, self.jar, self.user_agent)
        if not valid or not tokens.same_secret(sent, valid):
            raise Forbidden("XSRF cookie does not match the _xsrf argument; load the page again")

    def _form_xsrf(self) -> str:
        kind = self.header("Content-Type").partition(";")[0].strip().lower()
        if kind in ("application/x-www-form-urlencoded", "multipart/form-data"):
            return self.form.get("_xsrf", "")
        return ""

    def xsrf_token(self) -> str:
        """Return the secret for this browser's forms, setting its cookie when it has none."""
        if self._xsrf is None:
            identity = self.site.identity
            self._xsrf = identity.valid_xsrf(self.caller, self.jar, self.user_agent)
            if not self._xsrf:
                self._xsrf = identity.new_xsrf(self.caller, self.jar, self.user_agent)
                self.set_cookie(
                    cookies.XSRF,
                    self._xsrf,
                    path=self.site.hub_prefix,
                    max_age_s=None if self.caller else 3600,
                    http_only=False,
                )
        return self._xsrf

    def allows(self, scope: str, **resource: Any) -> bool:
        """Return whether the caller holds ``scope`` for that user, server, group or service."""
        return self.caller is not None and self.caller.scopes.allows(scope, **resource)

    # -- cookies ---------------------------------------------------------------------------

    def set_cookie(self, name: str, value: str, **kwargs: Any) -> None:
        self._set_cookies.append(cookies.write(name, value, secure=self.secure, **kwargs))

    def clear_cookie(self, name: str, path: str) -> None:
        self._set_cookies.append(cookies.clear(name, path=path, secure=self.secure))

    # -- answers ---------------------------------------------------------------------------

    def reply(
        self, body: str | bytes = b"", status: int = 200, content_type: str = "text/plain"
    ) -> Any:
        """Return an answer with that body."""
        if isinstance(body, str):
            body = body.encode()
        response = bottle.HTTPResponse(body, status)
        response.set_header("Content-Type", _with_charset(content_type))
        return response

    def json(self, data: Any, status: int = 200) -> Any:
        """Answer with JSON; 304 when the client has exactly this already."""
        body = json.dumps(data).encode()
        response = self.reply(body, status, "application/json")
        if status == 200 and self.method in ("GET", "HEAD"):
            etag = f'"{hashlib.sha256(body).hexdigest()[:40]}"'
            if etag in self.header("If-None-Match"):
                response = bottle.HTTPResponse(b"", 304)
            response.set_header("ETag", etag)
        return response

    def redirect(self, location: str, status: int = 302) -> Any:
        """Answer with a redirect to a place that this program, not a client, named."""
        response = self.reply(b"", status)
        response.set_header("Location", location)
        return response

    def safe_next(self, target: str) -> str | None:
        """Return ``target`` as a path of this origin, or None (see :func:`minihub.urls`)."""
        return urls.safe_next(target, (self.host, *self.site.own_hosts))

    def page(
        self, template: str, status: int = 200, *, original: bool = False, **namespace: Any
    ) -> Any:
        """Answer with a rendered page; ``original`` leaves out the administrator's overrides."""
        renderer = self.site.renderer
        render = renderer.render_original if original else renderer.render
        body = render(template, **{**self.namespace(), **namespace})
        response = self.reply(body, status, "text/html")
        response.set_header("Cache-Control", "private, no-store")
        return response

    def namespace(self) -> dict[str, Any]:
        """Return what every template gets; the names are JupyterHub's."""
        site = self.site
        user = self.caller.user if self.caller else None
        held = sorted(self.caller.scopes.raw) if self.caller else []
        return {
            "prefix": site.base_url,
            "base_url": site.hub_prefix,
            "user": site.page_user(user) if user else None,
            "login_url": site.login_url(),
            "login_service": site.authenticator.login_service,
            "logout_url": site.hub_prefix + "logout",
            "parsed_scopes": dict.fromkeys(held),
            "expanded_scopes": held,
            "xsrf": self.xsrf_token(),
            "csp_nonce": self.csp_nonce,
            "no_spawner_check": True,
            "services": list(site.hub.services.shown()) if user else [],
            "admin_access": site.options.admin_access,
            "authenticator": site.authenticator,
        }

    def to_login(self) -> Any:
        """Answer with the way to the login page and back."""
        query = urlencode({"next": self.path_and_query})
        return self.redirect(f"{self.site.login_url()}?{query}")

    def only(self, *methods: str) -> None:
        """Raise MethodNotAllowed unless the request's method is one of these."""
        if self.method not in methods:
            raise MethodNotAllowed("Method Not Allowed")

    def finish(self, response: Any) -> None:
        """Add the headers that every answer carries, and the cookies set on the way."""
        site = self.site
        api = self.path.startswith(site.api_prefix)
        for name, value in site.headers(self.csp_nonce, api=api).items():
            response.headers.setdefault(name, value)
        for cookie in self._set_cookies:
            response.add_header("Set-Cookie", cookie)


def _with_charset(content_type: str) -> str:
    if content_type.startswith("text/") and "charset" not in content_type:
        return content_type + "; charset=utf-8"
    return content_type
