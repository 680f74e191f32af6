"""Routes as data: method, path, who may call, and the function that answers.

Rules of this file: a handler is declared with everything that guards it, so that one place
(:mod:`minihub.web.site`) can enforce it and a test can enumerate it. Paths are relative to the
hub's prefix (``BASEhub/``) and written as bottle writes them (``user/<name>``).

Threads: filled at import, read only afterwards.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import scopes as scope_table


class Access(enum.Enum):
    """Who a route is for."""

    #: Anybody; who asks is looked up but may be nobody.
    PUBLIC = "public"
    #: Somebody logged in with a browser; others are sent to the login page. Errors are pages too,
    #: wherever the path is.
    PAGE = "page"
    #: Somebody with a token or a login; others get 403 as JSON.
    API = "api"


def _user(args: Mapping[str, str]) -> dict[str, str]:
    return {"user": args["name"]}


def _server(args: Mapping[str, str]) -> dict[str, str]:
    return {"server": f"{args['name']}/{args.get('server_name', '')}"}


def _group(args: Mapping[str, str]) -> dict[str, str]:
    return {"group": args["group_name"]}


def _service(args: Mapping[str, str]) -> dict[str, str]:
    return {"service": args["service_name"]}


#: What a route acts on, and how its path names that: the scopes must be held for this resource.
RESOURCES: dict[str, Callable[[Mapping[str, str]], dict[str, str]]] = {
    "user": _user,
    "server": _server,
    "group": _group,
    "service": _service,
}
#: Acts on everything: the scopes must be held without a filter.
WHOLE = ""
#: A list: the scopes may be held for anything, and the handler shows only that.
SOME = "some"


@dataclass(frozen=True)
class Route:
    """One method on one path.

    ``scopes``: holding any one of them admits the caller, held for ``on``: a key of
    :data:`RESOURCES`, WHOLE or SOME. ``xsrf``: whether a browser's state-changing request must
    carry the form's secret. ``head``: whether HEAD is answered as GET is.

    For the description of the API: ``takes`` names the schema of the body, ``query`` the parameters
    of the query, ``gives`` the schema (or content type) of each answer that is not an error, and
    ``fails`` the statuses of errors beyond those that every such route has.
    """

    method: str
    path: str
    handler: Callable[..., Any]
    access: Access
    scopes: tuple[str, ...]
    on: str
    xsrf: bool
    head: bool
    takes: str = ""
    query: tuple[str, ...] = ()
    gives: Mapping[int, str] = field(default_factory=dict)
    fails: tuple[int, ...] = ()


class Routes(list[Route]):
    """Collects one module's routes through its decorator."""

    def add(
        self,
        methods: str,
        *paths: str,
        access: Access = Access.API,
        scopes: tuple[str, ...] = (),
        on: str = WHOLE,
        xsrf: bool = True,
        head: bool | None = None,
        takes: str = "",
        query: tuple[str, ...] = (),
        gives: Mapping[int, str] | None = None,
        fails: tuple[int, ...] = (),
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Declare the decorated function for each of ``methods`` (``"GET POST"``) and paths.

        HEAD is answered for pages and files, and not for the API, unless ``head`` says.
        """
        for scope in scopes:
            if scope not in scope_table.SCOPES:
                raise ValueError(f"{paths[0]}: no such scope: {scope}")
        if on not in (WHOLE, SOME, *RESOURCES):
            raise ValueError(f"{paths[0]}: no such resource: {on}")

        def register(handler: Callable[..., Any]) -> Callable[..., Any]:
            for method in methods.split():
                for path in paths:
                    is_api = f"{path}/".startswith("api/")
                    allows_head = not is_api if head is None else head
                    route = Route(
                        method, path, handler, access, scopes, on, xsrf, allows_head,
                        takes, query, gives or {}, fails,
                    )  # fmt: skip
                    self.append(route)
            return handler

        return register
