"""Every table of routes there is, in the order in which they are looked at.

Rules of this file: a module that declares routes stands here, or its routes do not exist.

Threads: read only.
"""

from __future__ import annotations

from . import (
    account_page,
    admin_actions,
    admin_page,
    api_class,
    api_groups,
    api_hub,
    api_legacy,
    api_servers,
    api_services,
    api_shares,
    api_tokens,
    api_users,
    assets,
    class_pages,
    class_people,
    join,
    landing,
    login,
    metrics_page,
    oauth_pages,
    openapi,
    pages,
    passwords,
    preferences,
)
from .routing import Routes

ALL: tuple[Routes, ...] = tuple(
    module.routes
    for module in (
        api_hub,
        api_users,
        api_servers,
        api_tokens,
        api_class,
        api_groups,
        api_services,
        api_shares,
        api_legacy,
        oauth_pages,
        openapi,
        login,
        join,
        passwords,
        landing,
        pages,
        preferences,
        account_page,
        admin_page,
        admin_actions,
        class_pages,
        class_people,
        metrics_page,
        assets,
    )
)
