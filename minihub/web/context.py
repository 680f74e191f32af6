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
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlencode

import bottle

from .. import tokens, urls
from ..errors import BadRequest, Forbidden, MethodNotAllowed, NotFound
from ..texts import Text
from . import cookies, messages, shapes
from .identity import Caller
from .routing import RESOURCES, SOME, Access, Route

if TYPE_CHECKING:
    from ..models import User
    from .site import Site

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
#: How long a browser keeps what somebody wants of the pages' look.
PREFERENCE_DAYS = 365
#: How deep the lists and objects of a JSON body may lie in each other.
MAX_DEPTH = 100


class NeedsLogin(Forbidden):
    """Raised when a page is for people who are logged in; answered by the way to the login."""


class Context:
    """A request to the hub and the means to answer it."""

    #: Cookies of preferences, and the themes there are besides the system's.
    THEME = "minihub-theme"
    LANGUAGE = "minihub-language"
    THEMES = ("light", "dark")

    def __init__(self, site: Site, request: Any, route: Route) -> None:
        self.site = site
        self.request = request
        #: The request as WSGI has it: what is asked of every request is not asked through bottle.
        self.environ: dict[str, Any] = request.environ
        self.route = route
        self.method: str = self.environ["REQUEST_METHOD"]
        #: Whether this is for the REST API, whose errors are JSON. The consent page alone lies
        #: below the API's path and is for people.
        self.is_api = site.is_api_path(request.path) and route.access is not Access.PAGE
        self.caller: Caller | None = None
        #: Whether dates are written without a zone, for clients of JupyterHub 0.8.
        self.naive_dates = False
        self._set_cookies: list[str] = []
        self._xsrf: str | None = None

    # -- what was sent ---------------------------------------------------------------------

    def header(self, name: str, default: str = "") -> str:
        value = self.environ.get(_variable(name))
        if not value:
            return default
        return value if value.isascii() else value.encode("latin-1").decode("utf-8", "replace")

    @cached_property
    def remote_ip(self) -> str:
        """The client's address as our proxy, or one it trusts, saw it."""
        peer = self.request.remote_addr or ""
        return self.site.trust.client(self.header("X-Forwarded-For"), peer)

    @cached_property
    def scheme(self) -> str:
        """``http`` or ``https``, as the browser sees it."""
        if self.site.public_scheme:
            return self.site.public_scheme
        chain = self.header("X-Forwarded-For")
        return self.site.trust.scheme(self.header("X-Forwarded-Proto"), chain)

    @cached_property
    def origin(self) -> str:
        """``scheme://host[:port]`` at which people reach the hub's pages."""
        return self.site.hub.info.public_origin or f"{self.scheme}://{self.host}"

    @property
    def secure(self) -> bool:
        return self.scheme == "https"

    @property
    def host(self) -> str:
        field = self.site.options.forwarded_host_header
        return (self.header(field) if field else "") or self.header("Host")

    @property
    def user_agent(self) -> str:
        return self.header("User-Agent")

    @cached_property
    def jar(self) -> dict[str, list[str]]:
        """The cookies sent, each with all its values."""
        sent = cookies.read(self.header("Cookie"))
        if not sent:
            return sent
        return cookies.only_prefixed(sent) if self._has_host_prefix else sent

    @property
    def _has_host_prefix(self) -> bool:
        return self.secure and self.site.hub.info.cookie_host_prefix_enabled

    @cached_property
    def csp_nonce(self) -> str:
        """What the inline scripts of this one answer carry to be allowed."""
        return secrets.token_urlsafe(12)

    @property
    def has_encoded_slash(self) -> bool:
        """Whether the path was sent with a percent-encoded slash; it is decoded before routing."""
        target = self.environ.get("REQUEST_URI", "")
        return "%" in target and "%2f" in target.partition("?")[0].lower()

    @cached_property
    def path(self) -> str:
        """The path as sent, without the query, still percent-encoded for use in URLs."""
        return quote(self.request.path, safe="/@~!$&'()*+,;=:")

    @property
    def query_string(self) -> str:
        return self.environ.get("QUERY_STRING", "")

    @property
    def path_and_query(self) -> str:
        return self.path + ("?" + self.query_string if self.query_string else "")

    @cached_property
    def query(self) -> dict[str, str]:
        """The query's parameters; of repeated ones the last."""
        if not self.query_string:
            return {}
        return dict(parse_qsl(self.query_string, keep_blank_values=True))

    @cached_property
    def form_lists(self) -> dict[str, list[str]]:
        """The form's fields, each with all its values. Raises BadRequest."""
        try:
            forms = self.request.forms.decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadRequest(Text("The form is not UTF-8 text")) from error
        return {name: forms.getall(name) for name in forms}

    @cached_property
    def form(self) -> dict[str, str]:
        """The form's fields; of repeated ones the last value."""
        return {name: values[-1] for name, values in self.form_lists.items() if values}

    def json_body(self) -> dict[str, Any] | None:
        """Return the JSON object that was sent, or None when the body is empty.

        Raises BadRequest when it is not JSON, not an object, or holds what cannot be stored.
        """
        data = self.json_value()
        if data is not None and not isinstance(data, dict):
            raise BadRequest(Text("Invalid JSON data: %(text)s", text=str(data)[:100]))
        return data

    def json_value(self) -> Any:
        """Return the JSON value that was sent, or None when the body is empty.

        Raises BadRequest when it is not JSON or holds what cannot be stored.
        """
        if self.environ.get("CONTENT_LENGTH", "0") == "0":  # waitress counts bodies in chunks too
            return None
        raw = self.request.body.read()
        if not raw.strip():
            return None
        try:
            data = json.loads(raw)
            if b"\\u" in raw:
                json.dumps(data, ensure_ascii=False).encode()  # half a character is none
        except (ValueError, RecursionError) as error:
            raise BadRequest(Text("Invalid JSON in body of request")) from error
        if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _depth(data) > MAX_DEPTH:
            raise BadRequest(
                Text(
                    "Invalid JSON in body of request: more than %(count)s levels deep",
                    count=MAX_DEPTH,
                )
            )
        return data

    def will_wait(self) -> None:
        """Say that answering waits for something: others are served meanwhile, at once."""
        hand_over = self.environ.get("minihub.will_wait")
        if hand_over is not None:
            hand_over()

    # -- who asks --------------------------------------------------------------------------

    def authorize(self, args: Mapping[str, str]) -> None:
        """Find out who asks and refuse whom the route is not for; ``args`` are the path's names.

        Raises NeedsLogin, Forbidden, or NotFound for a resource that the caller may not know of.
        """
        access = self.route.access
        identity = self.site.identity
        if access is not Access.PAGE:
            self.caller = identity.by_token(self.header("Authorization"))
        by_token = self.caller is not None
        if not by_token:
            self.caller = identity.by_cookie(self.jar, address=self.remote_ip)
            if self.caller is not None and access is Access.API and self._is_foreign_form():
                self.caller = None
            if self.route.xsrf and self._xsrf_due():
                self.check_xsrf()
        if self.caller is not None and not self._is_current(self.caller):
            self.caller = None
        if self.caller is None:
            if access is Access.API:
                raise Forbidden(Text("Missing or invalid credentials."))
            if access is Access.PAGE:
                raise NeedsLogin("Log in first.")
            return
        self.naive_dates = self.caller.is_legacy
        if self.route.scopes:
            self._check_scopes(args)

    def _is_current(self, caller: Caller) -> bool:
        """Return whether the authenticator still stands by the caller."""
        if caller.user is None or (caller.token is not None and caller.token.server_id is not None):
            return True
        return self.site.refresher.is_current(self, caller.user)

    def check_before_start(self, user: User) -> None:
        """Raise Forbidden if the user must log in again before a server of theirs starts."""
        if not self.site.authenticator.refresh_pre_spawn:
            return
        if not self.site.refresher.is_current(self, user, now=True):
            raise Forbidden(
                Text("The login of %(name)s is no longer good; log in again.", name=user.name)
            )

    def _check_scopes(self, args: Mapping[str, str]) -> None:
        """Raise unless the caller holds one of the route's scopes for what the path names."""
        route, held = self.route, self.caller.scopes
        if route.on == SOME:
            if any(held.has_any(scope) for scope in route.scopes):
                return
        else:
            resource = RESOURCES[route.on](args) if route.on else {}
            if any(held.allows(scope, **resource) for scope in route.scopes):
                return
            if resource and any(held.has_any(scope) for scope in route.scopes):
                raise NotFound()  # as for what does not exist
        raise Forbidden(
            Text(
                "Action is not authorized with current scopes; requires any of [%(scopes)s]",
                scopes=", ".join(route.scopes),
            )
        )

    def led_by_others(self) -> bool:
        """Return whether the browser says that somebody else's page led to this one.

        Browsers call the hosts of one hub's users the same site, though each is somebody's own.
        Who leaves their own server, as by its "log out", comes from a host of their own.
        """
        relation = self.header("Sec-Fetch-Site")
        info = self.site.hub.info
        if relation != "same-site" or not info.domain:
            return relation == "cross-site"
        own = info.host_of("user", self.caller.name) if self.caller else ""
        return not own or not f"{self.header('Referer')}/".startswith(own + "/")

    def _is_foreign_form(self) -> bool:
        """Return whether this is a POST that a form of any site could have sent."""
        if self.method != "POST":
            return False
        kind = self.header("Content-Type").lower()
        return bool(kind) and not any(
            part.strip().startswith("application/json") for part in kind.split(";")
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
            raise Forbidden(Text("'_xsrf' argument missing from %(method)s", method=self.method))
        valid = self.site.identity.valid_xsrf(self.caller, self.jar, self.user_agent)
        if not valid or not tokens.same_secret(sent, valid):
            raise Forbidden(
                Text("XSRF cookie does not match the _xsrf argument; load the page again")
            )

    def check_post_of_login(self) -> None:
        """Raise Forbidden unless a POST that a login cookie vouches for comes from our own page."""
        if self._is_foreign_form():
            raise Forbidden(Text("Missing or invalid credentials."))
        self.check_xsrf()

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

    def audit(self, action: str, user: str = "", server: str = "", detail: str = "") -> None:
        """Note in the audit list that the caller did something."""
        caller = self.caller
        actor = caller.name if caller.kind == "user" else f"service {caller.name}"
        self.site.audit.note(actor, action, user, server, detail)

    # -- cookies ---------------------------------------------------------------------------

    def set_cookie(self, name: str, value: str, **kwargs: Any) -> None:
        options = self._cookie_options(name, **kwargs)
        if name in cookies.PREFIXED and self._has_host_prefix:
            name, kwargs["path"] = cookies.HOST_PREFIX + name, "/"
        cookie = cookies.write(name, value, secure=self.secure, options=options, **kwargs)
        self._set_cookies.append(cookie)

    def clear_cookie(self, name: str, path: str, **kwargs: Any) -> None:
        options = self._cookie_options(name, **kwargs)
        if name in cookies.PREFIXED and self._has_host_prefix:
            name, path = cookies.HOST_PREFIX + name, "/"
        cookie = cookies.clear(name, path=path, secure=self.secure, options=options, **kwargs)
        self._set_cookies.append(cookie)

    def keep_preference(self, name: str, value: str) -> None:
        """Set a cookie that a page's own script may change too."""
        self.set_cookie(
            name,
            value,
            path=self.site.hub_prefix,
            max_age_s=PREFERENCE_DAYS * 86400,
            http_only=False,
        )

    def _preference(self, name: str) -> str:
        return self.jar.get(name, [""])[-1]

    @cached_property
    def theme(self) -> str:
        """``light`` or ``dark`` where somebody chose; empty for the system's."""
        chosen = self._preference(self.THEME)
        return chosen if chosen in self.THEMES else ""

    @cached_property
    def texts(self) -> messages.Catalogue:
        """The language of whoever reads the answer, if it is a page."""
        wanted = self._preference(self.LANGUAGE)
        return messages.catalogue(messages.choose(wanted, self.header("Accept-Language")))

    def _cookie_options(
        self, name: str, domain: str = "", max_age_s: float | None = None, **_others: Any
    ) -> dict[str, Any]:
        """Return what the administrator wants of a cookie.

        What the hub itself has to say of this one goes before ``cookie_options``, and
        ``xsrf_cookie_kwargs`` before all.
        """
        settings = self.site.settings
        ours = {"path": True, "domain": domain, "max_age": max_age_s, "expires_days": max_age_s}
        options = {
            key: value for key, value in settings.cookie_options.items() if not ours.get(key)
        }
        return options | (settings.xsrf_cookie_kwargs if name == cookies.XSRF else {})

    def set_session_id(self, value: str) -> None:
        """Give the browser the session id that servers read too, on whichever host they are."""
        site = self.site
        self.set_cookie(cookies.SESSION_ID, value, path=site.base_url, domain=site.hub.info.domain)

    def clear_session_id(self) -> None:
        site = self.site
        self.clear_cookie(cookies.SESSION_ID, site.base_url, domain=site.hub.info.domain)

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
        body = json.dumps(shapes.without_zone(data) if self.naive_dates else data).encode()
        response = self.reply(body, status, "application/json")
        if status == 200 and self.method in ("GET", "HEAD"):
            etag = f'"{hashlib.sha256(body).hexdigest()[:40]}"'
            known = self.header("If-None-Match")
            if etag in known or known.strip() == "*":
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
        below = self.site.hub.info.domain
        return urls.safe_next(target, (self.host, *self.site.own_hosts), below)

    def page(
        self,
        template: str,
        status: int = 200,
        *,
        otherwise: Sequence[str] = (),
        original: bool = False,
        **namespace: Any,
    ) -> Any:
        """Answer with a rendered page; ``original`` leaves out the administrator's overrides.

        ``otherwise`` names pages that may stand in for one that does not exist.
        """
        renderer = self.site.renderer
        render = renderer.render_original if original else renderer.render
        body = render(template, *otherwise, **{**self.namespace(), **namespace})
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
            "texts": self.texts,
            "theme": self.theme,
            "chosen_language": self._preference(self.LANGUAGE),
            "here": self.path_and_query,
            "notices": site.announcements.current(),
            "ending": ending(self, user) if user else (),
            "waiting_count": self._waiting_count(),
        }

    def _waiting_count(self) -> int:
        """Return how many people wait for the caller's approval."""
        keeper = self.site.authenticator
        counts = keeper.keeps_passwords and self.allows("admin:users")
        return keeper.book.count_waiting() if counts else 0

    def to_login(self) -> Any:
        """Answer with the way to the login page and back."""
        query = urlencode({"next": self.path_and_query})
        return self.redirect(f"{self.site.login_url()}?{query}")

    def only(self, *methods: str) -> None:
        """Raise MethodNotAllowed unless the request's method is one of these."""
        if self.method not in methods:
            raise MethodNotAllowed(Text("Method Not Allowed"))

    def forget_caller(self) -> None:
        """Go on as for nobody."""
        self.caller = self._xsrf = None

    def forget_cookies(self) -> None:
        """Let the browser's cookies be as they are."""
        self._set_cookies.clear()

    def finish(self, response: Any) -> None:
        """Add the headers that every answer carries, and the cookies set on the way."""
        site = self.site
        common = site.api_headers if self.is_api else site.page_headers(self.csp_nonce)
        headers = response.headers.dict
        for name, values in common.items():
            headers.setdefault(name, values)
        for cookie in self._set_cookies:
            response.add_header("Set-Cookie", cookie)


def ending(ctx: Context, user: User) -> list[dict[str, Any]]:
    """Return which of a user's servers are stopped soon, as every page shows it."""
    culler = ctx.site.culler
    if culler is None:
        return []
    found = []
    for server in ctx.site.hub.servers_of(user).values():
        warning = culler.warning(server)
        if warning is not None:
            name = f"/{urls.escape_name(server.name)}" if server.name else ""
            found.append(
                {
                    "name": server.display_name if server.name else "",
                    "due": warning.due,
                    "keep_s": culler.keep_s if warning.keep_until else 0,
                    "keep_url": f"{ctx.site.hub_prefix}keep/{urls.escape_name(user.name)}{name}",
                }
            )
    return found


@lru_cache(maxsize=64)
def _variable(name: str) -> str:
    """Return where WSGI has a header."""
    variable = name.upper().replace("-", "_")
    return variable if variable in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{variable}"


def _with_charset(content_type: str) -> str:
    if content_type.startswith("text/") and "charset" not in content_type:
        return content_type + "; charset=utf-8"
    return content_type


def _depth(data: Any) -> int:
    """Return how deep lists and objects lie in each other."""
    deepest, level = 0, [data]
    while level:
        inner = [one for one in level if isinstance(one, (list, dict))]
        deepest += bool(inner)
        level = [v for one in inner for v in (one.values() if isinstance(one, dict) else one)]
    return deepest
