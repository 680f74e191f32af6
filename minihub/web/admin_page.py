"""The admin's page: everybody, their servers, and the means to start and stop them.

Rules of this file: search, order and pages are the database's work; the page is a form like any
other and works without JavaScript.

Threads: waitress's.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from peewee import fn

from ..models import Server as ServerRow
from ..models import User
from .context import Context
from .pages import server_facts
from .routing import Access, Routes

routes = Routes()

PAGE_SIZE = 50


def _page_url(ctx: Context, search: str, page: int) -> str:
    query = {"q": search} if search else {}
    return f"{ctx.site.hub_prefix}admin?{urlencode(query | {'page': str(page)})}"


@routes.add("GET", "admin", access=Access.PAGE, scopes=("admin-ui",))
def admin(ctx: Context) -> Any:
    """Show one page of users, by name, with their servers."""
    hub = ctx.site.hub
    search = ctx.query.get("q", "").strip()[:255]
    number = ctx.query.get("page", "1")
    page = max(1, int(number)) if number.isdecimal() and len(number) < 7 else 1
    with hub.store.session():
        everybody = User.select()
        total = everybody.count()
        found = everybody.where(fn.LOWER(User.name).contains(search.lower()))
        count = found.count()
        users = list(found.order_by(User.name).paginate(page, PAGE_SIZE))
        rows: dict[int, dict[str, ServerRow]] = {}
        for row in ServerRow.select().where(ServerRow.user.in_(users)):
            rows.setdefault(row.user_id, {})[row.name] = row
    people = []
    for user in users:
        mine = rows.get(user.id, {})
        names = sorted({"", *mine, *hub.servers_of(user)})
        servers = [server_facts(ctx, hub.server(user, name), mine.get(name)) for name in names]
        people.append(
            {
                "name": user.name,
                "admin": user.admin,
                "created": user.created,
                "last_activity": user.last_activity,
                "servers": servers,
            }
        )
    return ctx.page(
        "admin.html",
        users=people,
        total_users=total,
        running_servers=len(hub.active_servers()),
        search=search,
        previous_url=_page_url(ctx, search, page - 1) if page > 1 else "",
        next_url=_page_url(ctx, search, page + 1) if page * PAGE_SIZE < count else "",
    )
