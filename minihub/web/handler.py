"""What functions of the configuration see of a request, under JupyterHub's names.

Rules of this file: a view; what somebody changes in it changes nothing here. Attributes that
need tornado are not there.

Threads: as the :class:`~minihub.web.context.Context` it shows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .context import Context


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

    def full_url(self) -> str:
        """Return the URL that was asked for."""
        return f"{self.protocol}://{self.host}{self.uri}"


class HandlerView:
    """A request's handler: who asks, and what for."""

    def __init__(self, ctx: Context) -> None:
        self.request = RequestView(ctx)
        self.hub = ctx.site.hub.info
        self.base_url = ctx.site.base_url
        user = ctx.caller.user if ctx.caller is not None else None
        #: The user who is logged in, or None.
        self.current_user = ctx.site.hub.user_info(user) if user is not None else None
        #: What an authenticator wants its login page to say.
        self.custom_login_error = ""
        self._ctx = ctx

    def get_argument(self, name: str, default: Any = None) -> Any:
        """Return a parameter of the query or a field of the form."""
        found = self._ctx.query.get(name)
        return self._ctx.form.get(name, default) if found is None else found
