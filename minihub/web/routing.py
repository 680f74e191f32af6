"""Routes as data: method, path, who may call, and the function that answers.

Rules of this file: a handler is declared with everything that guards it, so that one place
(:mod:`minihub.web.site`) can enforce it and a test can enumerate it. Paths are relative to the
hub's prefix (``BASEhub/``) and written as bottle writes them (``user/<name>``).

Threads: filled at import, read only afterwards.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import scopes as scope_table


class Access(enum.Enum):
    """Who a route is for."""

    #: Anybody; who asks is looked up but may be nobody.
    PUBLIC = "public"
    #: Somebody logged in with a browser; others are sent to the login page.
    PAGE = "page"
    #: Somebody with a token or a login; others get 403 as JSON.
    API = "api"


@dataclass(frozen=True)
class Route:
    """One method on one path.

    ``scopes``: holding any one of them (for whatever resource) admits the caller; the handler
    checks the resource itself. ``xsrf``: whether a browser's state-changing request must carry
    the form's secret.
    """

    method: str
    path: str
    handler: Callable[..., Any]
    access: Access
    scopes: tuple[str, ...]
    xsrf: bool


class Routes(list[Route]):
    """Collects one module's routes through its decorator."""

    def add(
        self,
        methods: str,
        *paths: str,
        access: Access = Access.API,
        scopes: tuple[str, ...] = (),
        xsrf: bool = True,
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Declare the decorated function for each of ``methods`` (``"GET POST"``) and paths."""
        for scope in scopes:
            if scope not in scope_table.SCOPES:
                raise ValueError(f"{paths[0]}: no such scope: {scope}")

        def register(handler: Callable[..., Any]) -> Callable[..., Any]:
            for method in methods.split():
                for path in paths:
                    self.append(Route(method, path, handler, access, scopes, xsrf))
            return handler

        return register
