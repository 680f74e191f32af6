"""One's own account: where one is logged in, what others did, language and theme.

Rules of this file: everything here is about the caller and nobody else.

Threads: waitress's.
"""

from __future__ import annotations

from typing import Any

from ..texts import Text
from . import browsers
from .context import Context
from .routing import Access, Routes

routes = Routes()

#: How many entries of the audit list the page shows.
ENTRIES = 20
#: How many of somebody's logins it shows, the latest.
LOGINS = 100


@routes.add("GET", "account", access=Access.PAGE)
def account(ctx: Context) -> Any:
    """Show the caller's logins, and what others did to what is theirs."""
    user, session = ctx.caller.user, ctx.caller.session
    rows = ctx.site.accounts.sessions_of(user, LOGINS)
    places = ctx.site.accounts.places_of(rows)
    sessions = []
    for row in rows:
        place = places.get(row.id)
        sessions.append(
            {
                "id": row.id,
                "created": row.created,
                "is_this": row.id == session.id,
                "browser": browsers.named(place.browser, place.system)
                if place
                else Text("A browser"),
                "address": place.address if place else "",
                "last_used": place.last_used if place else None,
            }
        )
    entries = ctx.site.audit.latest(
        ENTRIES, about=user.name, since=user.created, by_others=True
    )  # fmt: skip
    return ctx.page(
        "account.html",
        sessions=sessions,
        member_of=sorted(ctx.caller.groups),
        created=user.created,
        entries=entries,
    )


@routes.add("POST", "account/sessions", access=Access.PAGE)
def end_sessions(ctx: Context) -> Any:
    """End one login (``end``: its id), or with ``everywhere`` all of them and, if asked, tokens."""
    site, user = ctx.site, ctx.caller.user
    if ctx.form.get("everywhere"):
        if ctx.form.get("tokens") == "on":
            site.accounts.lock_out(user.name)
        else:
            site.accounts.end_sessions(user)
        return ctx.redirect(site.hub_prefix + "logout", 303)
    wanted = ctx.form.get("end", "")
    for session in site.accounts.sessions_of(user, LOGINS):
        if str(session.id) == wanted:
            site.accounts.end_session(session)
    return ctx.redirect(site.hub_prefix + "account", 303)
