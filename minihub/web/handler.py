"""What functions of the configuration see of a request, under JupyterHub's names.

Rules of this file: a view; what somebody changes in it changes nothing here. Attributes that
need tornado are not there.

Threads: as the :class:`~minihub.web.context.Context` it shows.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from .context import Context

log = logging.getLogger("minihub.handler")


class RequestView:
    """A request, as tornado's ``HTTPServerRequest`` names its parts."""

    def __init__(self, ctx: Context) -> None:
        self.method = ctx.method
        self.path = ctx.path
        self.query = ctx.query_string
        self.uri = ctx.path_and_query
        self.protocol = ctx.scheme
        self.host = ctx.host
        self.remote_ip = ctx.remote_ip
        self.headers = ctx.request.headers
        self._ctx = ctx

    @property
    def cookies(self) -> SimpleCookie:
        """The cookies sent, each with its ``value``; of repeated ones the last.

        Without those whose names Python's cookies do not know, such as ``a[1]``.
        """
        found = SimpleCookie()
        for name, values in self._ctx.jar.items():
            with suppress(CookieError):
                found[name] = values[-1]
        return found

    @property
    def arguments(self) -> dict[str, list[bytes]]:
        """The parameters of the query and the fields of the form, each with all its values."""
        found: dict[str, list[bytes]] = {}
        for name, value in [
            *parse_qsl(self.query, keep_blank_values=True),
            *((name, one) for name, all in self._ctx.form_lists.items() for one in all),
        ]:
            found.setdefault(name, []).append(value.encode())
        return found

    def full_url(self) -> str:
        """Return the URL that was asked for."""
        return f"{self.protocol}://{self.host}{self.uri}"


class HandlerView:
    """A request's handler: who asks, and what for."""

    def __init__(self, ctx: Context) -> None:
        self.request = RequestView(ctx)
        self.log = log
        self.hub = ctx.site.hub.info
        self.base_url = ctx.site.base_url
        user = ctx.caller.user if ctx.caller is not None else None
        #: The user who is logged in, or None.
        self.current_user = ctx.site.hub.user_info(user) if user is not None else None
        #: What an authenticator wants its login page to say.
        self.custom_login_error = ""
        self._ctx = ctx

    def get_argument(self, name: str, default: Any = None, strip: bool = True) -> Any:
        """Return a parameter of the query or a field of the form."""
        found = self.get_query_argument(name, None, strip)
        return self.get_body_argument(name, default, strip) if found is None else found

    def get_query_argument(self, name: str, default: Any = None, strip: bool = True) -> Any:
        """Return a parameter of the query."""
        return _stripped(self._ctx.query.get(name, default), strip)

    def get_body_argument(self, name: str, default: Any = None, strip: bool = True) -> Any:
        """Return a field of the form."""
        return _stripped(self._ctx.form.get(name, default), strip)

    def get_cookie(self, name: str, default: Any = None) -> Any:
        """Return the value of a cookie; of repeated ones the last."""
        values = self._ctx.jar.get(name)
        return values[-1] if values else default


def _stripped(value: Any, strip: bool) -> Any:
    return value.strip() if strip and isinstance(value, str) else value
