"""The admin's page: everybody with their servers, what these use, and why they still run.

Rules of this file: it reads and shows; what the buttons do is :mod:`minihub.web.admin_actions`.
Search, order and pages are made here, not in the browser; what only memory knows (use, state)
orders the users with servers, the database all others. The page's own script asks for the same
page again, once for everything that may have changed, and takes over what is marked as live.

Threads: waitress's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from .. import directory
from ..directory import UserFacts, Wanted
from ..errors import NotFound
from ..limits import size
from ..models import User
from ..server import Server
from ..texts import Text
from .context import Context
from .pages import find_server, hub_path, server_facts
from .routing import Access, Routes
from .usage_view import usage_facts

routes = Routes()

PAGE_SIZE = 50
AUDIT_SIZE = 50
#: What the list may be sorted by; those of the second line are known to memory alone.
BY_DATABASE = ("name", "last_activity")
BY_MEMORY = ("memory", "cpu", "status")
SORTS = (*BY_DATABASE, *BY_MEMORY)
#: Which users are shown.
SHOWN = ("all", "running", "admins")


def admin_path(ctx: Context, *parts: str, **query: Any) -> str:
    """Return ``BASEhub/admin/PART…?QUERY``, without what is empty."""
    path = "/".join([f"{ctx.site.hub_prefix}admin", *parts])
    given = {key: value for key, value in query.items() if value not in ("", None)}
    return f"{path}?{urlencode(given)}" if given else path


# -- what is shown of a server ---------------------------------------------------------------


def why_alive(ctx: Context, server: Server) -> str:
    """Return why a server still runs, and how long it may; empty for one that does not."""
    if not server.ready:
        return ""
    if ctx.site.culler is None:
        return Text("Nothing stops idle servers here.")
    return ctx.site.culler.explain(server).why


def admin_server(ctx: Context, server: Server, row: Any) -> dict[str, Any]:
    """Return a server as the admin's pages show it."""
    user, name = server.user_name, server.name
    parts = [user, name] if name else [user]
    quoted = "/".join(hub_path(ctx, "x", *parts).split("/")[-len(parts) :])
    facts = server_facts(ctx, server, row)
    return facts | {
        "full_name": "/".join(parts),
        "use": usage_facts(ctx, server),
        "why": why_alive(ctx, server),
        "open_url": admin_path(ctx, "open", quoted),
        "stop_url": admin_path(ctx, "stop", quoted),
        "restart_url": admin_path(ctx, "restart", quoted),
        "start_url": admin_path(ctx, "start", quoted),
        "delete_url": admin_path(ctx, "remove", quoted) if name and not server.active else "",
        "log_url": hub_path(ctx, "log", user, name),
        "started": server.started,
        "may_open": ctx.allows("access:servers", user=user, server=f"{user}/{name}"),
    }


# -- the list --------------------------------------------------------------------------------


def _listed(
    ctx: Context, wanted: Wanted, sort: str, descending: bool, offset: int
) -> tuple[list[UserFacts], int]:
    """Return one page of users and how many there are in all."""
    store = ctx.site.hub.store
    wanted = ctx.site.hub.names.narrow(wanted)
    count = directory.count(store, wanted)
    if sort in BY_DATABASE:
        found = directory.users(
            store, wanted, sort=sort, descending=descending, offset=offset, limit=PAGE_SIZE
        )
        return found, count
    active = ctx.site.hub.active_by_user()
    ids = set(active) if wanted.only is None else set(active) & set(wanted.only)
    first = directory.users(
        store, replace(wanted, only=ids), sort="name", descending=False, offset=0, limit=len(ids)
    ) if ids else []  # fmt: skip
    first.sort(key=lambda facts: _weight(ctx, active[facts.id], sort), reverse=True)
    rest_offset, rest_limit = max(0, offset - len(first)), PAGE_SIZE
    found = first[offset : offset + PAGE_SIZE]
    rest_limit -= len(found)
    if rest_limit and wanted.only is not None:
        wanted = replace(wanted, only=[one for one in wanted.only if one not in ids])
    if rest_limit:
        found += directory.users(
            store, replace(wanted, without=ids), sort="name", descending=False,
            offset=rest_offset, limit=rest_limit,
        )  # fmt: skip
    return found, count


def _weight(ctx: Context, servers: list[Server], sort: str) -> float:
    if sort == "status":
        return sum(1 + server.ready for server in servers)
    readings = [one for server in servers if (one := ctx.site.gauges.of(server))]
    return sum(one.rss_bytes if sort == "memory" else one.cpus for one in readings)


def _people(ctx: Context, found: list[UserFacts]) -> list[dict[str, Any]]:
    hub = ctx.site.hub
    ids = [facts.id for facts in found]
    rows = directory.servers_of(hub.store, ids)
    groups = directory.groups_of(hub.store, ids)
    people = []
    for facts in found:
        known = {server.name: server for server in hub.servers_of(facts).values()}
        mine = {row.name: row for row in rows.get(facts.id, ())}
        names = sorted({"", *mine, *known})
        servers = [
            known.get(name) or Server(facts.id, facts.name, name)
            for name in names
            if name in known or name in mine or len(names) == 1
        ]
        people.append(
            {
                "name": facts.name,
                "admin": facts.admin,
                "groups": groups.get(facts.id, []),
                "last_activity": facts.last_activity,
                "url": admin_path(ctx, "user", hub_path(ctx, "x", facts.name).split("/")[-1]),
                "servers": [admin_server(ctx, one, mine.get(one.name)) for one in servers],
            }
        )
    return people


def machine_facts(ctx: Context) -> dict[str, Any]:
    """Return the machine's totals as the page shows them; empty before the first look."""
    found = ctx.site.gauges.machine()
    if found is None:
        return {}
    return {
        "cpus": found.cpu_count,
        "cpu_percent": round(100 * found.cpu_share),
        "memory_used": size(found.memory_used),
        "memory_total": size(found.memory_total),
        "memory_percent": round(100 * found.memory_used / found.memory_total),
        "disk_used": size(found.disk_used),
        "disk_total": size(found.disk_total),
        "disk_percent": round(100 * found.disk_used / max(1, found.disk_total)),
    }


def warm_facts(ctx: Context) -> dict[str, Any]:
    """Return what is known of warm starts as the page shows it; empty before the first look."""
    found = ctx.site.gauges.warm()
    if found is None:
        return {}
    return {
        "state": found.state,
        "reason": found.reason,
        "parents": found.parents,
        "servers": found.servers,
        "saved": size(found.saved_bytes) if found.saved_bytes else "",
    }


@routes.add("GET", "admin", access=Access.PAGE, scopes=("admin-ui",))
def admin(ctx: Context) -> Any:
    """Show one page of users with their servers."""
    hub = ctx.site.hub
    ctx.site.gauges.watch()
    search = ctx.query.get("q", "").strip()[:255]
    shown = ctx.query.get("show", "all")
    shown = shown if shown in SHOWN else "all"
    sort = ctx.query.get("sort", "name")
    sort = sort if sort in SORTS else "name"
    descending = ctx.query.get("order", "") == "desc" or sort in BY_MEMORY
    number = ctx.query.get("page", "1")
    page = max(1, int(number)) if number.isdecimal() and len(number) < 7 else 1
    only = None
    if shown == "running":
        only = list(hub.active_by_user())
    elif shown == "admins":
        with hub.store.session():
            only = [row for (row,) in User.select(User.id).where(User.admin).tuples()]
    wanted = Wanted(part=search, only=only)
    found, count = _listed(ctx, wanted, sort, descending, (page - 1) * PAGE_SIZE)
    asked = {"q": search, "show": shown if shown != "all" else ""}
    ordered = asked | {
        "sort": sort if sort != "name" else "",
        "order": "desc" if descending else "",
    }

    def sort_url(key: str) -> str:
        turned = "desc" if key == sort and not descending else ""
        first = "desc" if key == "last_activity" and key != sort else turned
        return admin_path(ctx, **asked, sort=key, order=first)

    return ctx.page(
        "admin.html",
        users=_people(ctx, found),
        total_users=directory.count(hub.store, Wanted()),
        found_users=count,
        running_servers=len(hub.active_servers()),
        culls=ctx.site.culler is not None,
        machine=machine_facts(ctx),
        warm=warm_facts(ctx),
        search=search,
        shown=shown,
        sort=sort,
        descending=descending,
        sort_urls={key: sort_url(key) for key in SORTS},
        show_urls={
            key: admin_path(ctx, q=search, show=key if key != "all" else "") for key in SHOWN
        },
        first_number=(page - 1) * PAGE_SIZE + 1,
        last_number=(page - 1) * PAGE_SIZE + len(found),
        previous_url=admin_path(ctx, **ordered, page=page - 1) if page > 1 else "",
        next_url=admin_path(ctx, **ordered, page=page + 1) if page * PAGE_SIZE < count else "",
        may_add=ctx.allows("admin:users"),
        may_stop=ctx.allows("delete:servers"),
    )


# -- one user --------------------------------------------------------------------------------


def find_person(ctx: Context, name: str) -> User:
    """Return the user of that name. Raises NotFound."""
    user = ctx.site.accounts.user(name)
    if user is None:
        raise NotFound(Text("There is no user of that name."))
    return user


def _reset_url(ctx: Context, escaped: str) -> str:
    """Return where somebody gets a new password; "" where the hub keeps no passwords."""
    if not ctx.site.authenticator.keeps_passwords or not ctx.allows("admin:users"):
        return ""
    return f"{ctx.site.hub_prefix}class/reset/{escaped}"


def user_page(ctx: Context, user: User, status: int = 200, **namespace: Any) -> Any:
    """Return the page of one user."""
    site, hub = ctx.site, ctx.site.hub
    site.gauges.watch()
    facts = UserFacts(user.id, user.name, user.admin, user.created, user.last_activity)
    (person,) = _people(ctx, [facts])
    name = person["url"].rpartition("/")[2]
    home = site.caretaker.home_of(user)
    with hub.store.session():
        groups = [one.name for one in site.people.all_groups()]
    return ctx.page(
        "admin-user.html",
        status,
        person=person | {"created": user.created, "is_me": ctx.caller.name == user.name},
        every_group=groups,
        home=str(home) if home else "",
        reset_url=_reset_url(ctx, name),
        change_url=admin_path(ctx, "user", name, "change"),
        groups_url=admin_path(ctx, "user", name, "groups"),
        logout_url_of_user=admin_path(ctx, "user", name, "logout"),
        delete_user_url=admin_path(ctx, "user", name, "delete"),
        may_change=ctx.allows("admin:users", user=user.name),
        may_group=ctx.allows("groups"),
        may_delete=ctx.allows("delete:users", user=user.name),
        entries=site.audit.latest(20, about=user.name, since=user.created),
        **namespace,
    )


@routes.add("GET", "admin/user/<user_name>", access=Access.PAGE, scopes=("admin-ui",))
def show_user(ctx: Context, user_name: str) -> Any:
    """Show one user with servers, groups and what was done."""
    return user_page(ctx, find_person(ctx, user_name))


# -- logs, the culler, the audit list --------------------------------------------------------


@routes.add("GET", "log/<user_name>", "log/<user_name>/<server_name>", access=Access.PAGE)
def server_log(ctx: Context, user_name: str, server_name: str = "") -> Any:
    """Show the last lines a server wrote: to its user, and to who may read servers' state."""
    _user, server = find_server(ctx, user_name, server_name, "read:servers")
    mine = ctx.caller.user is not None and ctx.caller.name == user_name
    if not mine and not ctx.allows("admin:server_state", user=user_name, server=server.full_name):
        raise NotFound()
    lines = ctx.site.log_of(server)
    return ctx.page(
        "server-log.html",
        user_name=user_name,
        server_name=server_name,
        display_name=server.display_name or server_name,
        log_lines=lines,
        is_mine=mine,
        active=server.active,
    )


@routes.add("GET", "admin/cull", access=Access.PAGE, scopes=("admin-ui",))
def cull_page(ctx: Context) -> Any:
    """Show which servers the culler would stop now, and why or why not."""
    culler = ctx.site.culler
    servers = []
    for server in ctx.site.hub.active_servers():
        verdict = culler.explain(server) if culler else None
        servers.append(admin_server(ctx, server, None) | {
            "goes": bool(verdict and verdict.cull), "why": verdict.why if verdict else "",
        })  # fmt: skip
    servers.sort(key=lambda one: (not one["goes"], one["full_name"]))
    return ctx.page(
        "admin-cull.html",
        servers=servers,
        culls=culler is not None,
        cull_url=admin_path(ctx, "cull"),
        may_stop=ctx.allows("delete:servers"),
    )


@routes.add("GET", "admin/audit", access=Access.PAGE, scopes=("admin-ui",))
def audit_page(ctx: Context) -> Any:
    """Show who did what, the newest first."""
    before = ctx.query.get("before", "")
    part = ctx.query.get("q", "").strip()[:255]
    entries = ctx.site.audit.latest(
        AUDIT_SIZE + 1,
        before=int(before) if before.isdecimal() and len(before) < 15 else None,
        part=part,
    )
    more = len(entries) > AUDIT_SIZE
    entries = entries[:AUDIT_SIZE]
    return ctx.page(
        "admin-audit.html",
        entries=entries,
        search=part,
        previous_url=admin_path(ctx, "audit", q=part) if before else "",
        next_url=admin_path(ctx, "audit", q=part, before=entries[-1].id) if more else "",
    )
