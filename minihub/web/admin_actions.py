"""What the buttons of the admin's pages do, each noted in the audit list.

Rules of this file: every route takes a POST, checks the scope for what it names, notes who did what
to whom, and goes back to the page it came from. Nothing here needs JavaScript. Who may make admins
is the REST API's rule (:func:`minihub.web.api_users.may_make_admins`).

Threads: waitress's; what takes its time is :mod:`minihub.caretaker`'s.
"""

from __future__ import annotations

import re
from typing import Any

from .. import caretaker
from ..errors import BadRequest, Conflict, Forbidden, MinihubError, NotFound
from ..models import User
from ..server import Server
from ..texts import Text
from .admin_page import admin_path, find_person, user_page
from .api_users import may_make_admins
from .context import Context
from .pages import find_server, hub_path, options_form
from .routing import Access, Routes

routes = Routes()

#: How long an announcement may be chosen to last, in hours; 0 for no end.
LASTS_H = (1, 8, 24, 168, 0)
#: How many users one form may add.
MOST_NEW = 500


def _back(ctx: Context, otherwise: str = "") -> Any:
    """Go back to the page the form was on, which it names as ``next``."""
    target = ctx.safe_next(ctx.form.get("next", ""))
    return ctx.redirect(target or otherwise or admin_path(ctx), 303)


def _server(ctx: Context, user_name: str, server_name: str, scope: str) -> tuple[User, Server]:
    """Return the user and the server, for whoever may open the page and holds ``scope`` on it."""
    user = find_person(ctx, user_name)
    full = f"{user_name}/{server_name}"
    if not ctx.allows(scope, user=user_name, server=full):
        raise Forbidden(Text("You lack the right to do that (%(scope)s).", scope=scope))
    return user, ctx.site.hub.server(user, server_name)


def _page_paths(verb: str) -> tuple[str, str]:
    return f"admin/{verb}/<user_name>", f"admin/{verb}/<user_name>/<server_name>"


# -- servers ---------------------------------------------------------------------------------


@routes.add("POST", *_page_paths("start"), access=Access.PAGE, scopes=("admin-ui",))
def start(ctx: Context, user_name: str, server_name: str = "") -> Any:
    """Start a server with the options of its last start; a form of its own comes first."""
    user, server = _server(ctx, user_name, server_name, "start:servers")
    spawner = ctx.site.hub.new_spawner(ctx.site.hub.user_info(user), server_name)
    if options_form(spawner) and not server.active:
        return ctx.redirect(hub_path(ctx, "spawn", user_name, server_name), 303)
    ctx.check_before_start(user)
    ctx.site.hub.start_server(user, server_name)
    ctx.audit("start server", user_name, server_name)
    return _back(ctx)


@routes.add("POST", *_page_paths("stop"), access=Access.PAGE, scopes=("admin-ui",))
def stop(ctx: Context, user_name: str, server_name: str = "") -> Any:
    """Stop a server, or cancel its start."""
    _user, server = _server(ctx, user_name, server_name, "delete:servers")
    if server.active:
        ctx.site.hub.stop_server(server, why=f"{ctx.caller.name} pressed stop")
        ctx.audit("stop server", user_name, server_name)
        ctx.site.waits.settled(ctx.caller, server, ctx.site.slow_stop_timeout_s / 4)
    return _back(ctx)


@routes.add("POST", *_page_paths("restart"), access=Access.PAGE, scopes=("admin-ui",))
def restart(ctx: Context, user_name: str, server_name: str = "") -> Any:
    """Stop a server and start it again with the same options."""
    user, server = _server(ctx, user_name, server_name, "delete:servers")
    _server(ctx, user_name, server_name, "start:servers")
    ctx.site.caretaker.restart(user, server, by=ctx.caller.name)
    ctx.audit("restart server", user_name, server_name)
    return _back(ctx)


@routes.add("POST", *_page_paths("open"), access=Access.PAGE, scopes=("admin-ui",))
def open_server(ctx: Context, user_name: str, server_name: str = "") -> Any:
    """Go to somebody's server; they can see that."""
    _user, server = find_server(ctx, user_name, server_name, "access:servers")
    ctx.audit("open server", user_name, server_name)
    return ctx.redirect(ctx.site.hub.server_url(server.user_name, server.name), 303)


@routes.add("POST", *_page_paths("remove"), access=Access.PAGE, scopes=("admin-ui",))
def remove(ctx: Context, user_name: str, server_name: str = "") -> Any:
    """Forget a stopped named server."""
    _user, server = _server(ctx, user_name, server_name, "delete:servers")
    if not server_name or server.active:
        raise BadRequest(Text("Only named servers that are stopped can be deleted."))
    ctx.site.hub.remove_server(server)
    ctx.audit("delete server", user_name, server_name)
    return _back(ctx)


@routes.add("POST", "admin/stop-all", access=Access.PAGE, scopes=("delete:servers",))
def stop_all(ctx: Context) -> Any:
    """Stop every server, or cancel its start."""
    servers = ctx.site.hub.active_servers()
    for server in servers:
        ctx.site.hub.stop_server(server, why=f"{ctx.caller.name} stops all servers")
    ctx.audit("stop all servers", detail=str(len(servers)))
    return _back(ctx)


@routes.add("POST", "admin/cull", access=Access.PAGE, scopes=("delete:servers",))
def cull(ctx: Context) -> Any:
    """Let the culler look now, as it does from time to time."""
    if ctx.site.culler is None:
        raise BadRequest(Text("This hub has no culler (JupyterHub.cull)."))
    stopped = ctx.site.culler.run_once()
    ctx.audit("cull now", detail=", ".join(stopped)[:1000])
    return ctx.redirect(admin_path(ctx, "cull"), 303)


# -- users -----------------------------------------------------------------------------------


@routes.add("POST", "admin/users", access=Access.PAGE, scopes=("admin:users",))
def add_users(ctx: Context) -> Any:
    """Add one user or a list of them, separated by commas, spaces or lines."""
    names = [one for one in re.split(r"[\s,;]+", ctx.form.get("names", "")) if one]
    admin = ctx.form.get("admin") == "on"
    if not names:
        raise BadRequest(Text("Give at least one name."))
    if len(names) > MOST_NEW:
        raise BadRequest(Text("That is more than %(most)s names at once.", most=MOST_NEW))
    if admin and not may_make_admins(ctx):
        raise Forbidden(Text("Only admins can make admins."))
    made = ctx.site.people.create(names, admin=admin)
    if not made:
        raise Conflict(Text("All of them are users already."))
    for user in made:
        ctx.audit("add admin" if admin else "add user", user.name)
    return _back(ctx, admin_path(ctx, "user", made[0].name) if len(made) == 1 else "")


def _changeable(ctx: Context, user_name: str, scope: str) -> User:
    """Return a user whom the caller may change."""
    user = find_person(ctx, user_name)
    if not ctx.allows(scope, user=user_name):
        raise NotFound()
    if user.admin and not may_make_admins(ctx):
        raise Forbidden(Text("Only admins can change admins."))
    return user


def _user_url(ctx: Context, name: str) -> str:
    return admin_path(ctx, "user", hub_path(ctx, "x", name).rpartition("/")[2])


@routes.add("POST", "admin/user/<user_name>/change", access=Access.PAGE, scopes=("admin-ui",))
def change_user(ctx: Context, user_name: str) -> Any:
    """Rename a user, or make them an admin or no longer one."""
    user = _changeable(ctx, user_name, "admin:users")
    admin = ctx.form.get("admin") == "on"
    if admin != user.admin:
        if not may_make_admins(ctx):
            raise Forbidden(Text("Only admins can make admins."))
        if not admin and user.name == ctx.caller.name:
            raise BadRequest(Text("You cannot take the admin's rights from yourself."))
        ctx.site.people.set_admin(user, admin)
        ctx.audit("make admin" if admin else "no longer admin", user.name)
    name = ctx.form.get("name", "").strip()
    if name and name != user.name:
        try:
            renamed = ctx.site.people.rename(user, name)
        except BadRequest as error:
            return user_page(ctx, find_person(ctx, user_name), 400, user_error=error.message)
        ctx.site.audit.rename(user.name, renamed.name)
        ctx.audit("rename user", renamed.name, detail=f"{user.name} → {renamed.name}")
        user = renamed
    return ctx.redirect(_user_url(ctx, user.name), 303)


@routes.add("POST", "admin/user/<user_name>/groups", access=Access.PAGE, scopes=("groups",))
def change_groups(ctx: Context, user_name: str) -> Any:
    """Put a user into exactly the groups that are chosen; a new one is made first."""
    user = find_person(ctx, user_name)
    names = set(ctx.form_lists.get("groups", []))
    new = ctx.form.get("new_group", "").strip()
    if new:
        if not ctx.allows("admin:groups"):
            raise Forbidden(
                Text("You lack the right to do that (%(scope)s).", scope="admin:groups")
            )
        ctx.site.people.ensure_group(new)
        names.add(new)
    ctx.site.people.set_groups(user, sorted(names))
    ctx.audit("change groups", user.name, detail=", ".join(sorted(names)))
    return ctx.redirect(_user_url(ctx, user.name), 303)


@routes.add("POST", "admin/user/<user_name>/logout", access=Access.PAGE, scopes=("admin-ui",))
def log_out_user(ctx: Context, user_name: str) -> Any:
    """End every login of a user and revoke every token."""
    user = _changeable(ctx, user_name, "admin:users")
    ctx.site.accounts.lock_out(user.name)
    ctx.audit("end logins and tokens", user.name)
    return ctx.redirect(_user_url(ctx, user.name), 303)


@routes.add("POST", "admin/user/<user_name>/delete", access=Access.PAGE, scopes=("admin-ui",))
def delete_user(ctx: Context, user_name: str) -> Any:
    """Delete a user; their files stay, are archived or go, as the form says."""
    user = _changeable(ctx, user_name, "delete:users")
    if user.name == ctx.caller.name:
        raise BadRequest(Text("You cannot delete yourself."))
    choice = ctx.form.get("files", caretaker.KEEP)
    if choice not in caretaker.CHOICES:
        raise BadRequest(Text("Say what is to become of the files."))
    if ctx.form.get("confirm", "").strip() != user.name:
        problem = Text("To delete this user, write their name into the field.")
        return user_page(ctx, user, 400, delete_error=problem)
    site = ctx.site
    home = site.caretaker.home_of(user)
    try:
        why = f"{ctx.caller.name} deletes {user.name}"
        site.people.delete(user, why=why, timeout_s=site.slow_stop_timeout_s)
    except BadRequest as error:
        return user_page(ctx, user, 400, delete_error=error.message)
    ctx.audit("delete user", user.name, detail=f"files: {choice}")
    site.caretaker.clear_home(user.name, home, choice, by=ctx.caller.name)
    return ctx.redirect(admin_path(ctx), 303)


# -- announcements ---------------------------------------------------------------------------


@routes.add("GET", "admin/announcements", access=Access.PAGE, scopes=("admin-ui",))
def announcements(ctx: Context, status: int = 200, **namespace: Any) -> Any:
    """Show what is announced, and the form for more."""
    return ctx.page(
        "admin-announcements.html",
        status,
        notices=ctx.site.announcements.current(),
        lasts_h=LASTS_H,
        may_announce=ctx.allows("admin:users"),
        **namespace,
    )


@routes.add("POST", "admin/announcements", access=Access.PAGE, scopes=("admin:users",))
def announce(ctx: Context) -> Any:
    """Announce something to everybody, or take an announcement back."""
    taken_back = ctx.form.get("remove", "")
    if taken_back.isdecimal():
        ctx.site.announcements.remove(int(taken_back[:15]))
        ctx.audit("end announcement")
        return ctx.redirect(admin_path(ctx, "announcements"), 303)
    hours = ctx.form.get("hours", "")
    lasts = int(hours) if hours.isdecimal() and len(hours) < 5 else LASTS_H[1]
    text = ctx.form.get("text", "")
    try:
        ctx.site.announcements.add(text, ctx.caller.name, lasts * 3600 if lasts else None)
    except MinihubError as error:
        return announcements(ctx, 400, notice_error=error.args[0], notice_text=text)
    ctx.audit("announce", detail=text)
    return ctx.redirect(admin_path(ctx, "announcements"), 303)
