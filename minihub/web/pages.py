"""The pages of a person's own day: home, starting and stopping servers, the way to a server.

Rules of this file: pages read state and call the hub; every form works without JavaScript. A
server of somebody else answers as one that does not exist unless the caller may enter it.

Threads: waitress's. A page waits at most a second for a start to fail at once.
"""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import urlencode

from .. import aio, durations, metrics
from ..errors import BadRequest, MinihubError, NotFound, SpawnError, words_of
from ..limits import size
from ..models import Server as ServerRow
from ..models import User
from ..server import Server, State
from ..serverrows import find_row
from ..spawner import Spawner
from ..texts import Number, Text
from ..urls import escape_name, escape_path, server_name_problem, server_slug
from .api_servers import check_new_name, old_name_problem
from .context import SAFE_METHODS, Context
from .identity import wants_json
from .routing import Access, Routes
from .usage_view import usage_facts

log = logging.getLogger("minihub.pages")
routes = Routes()

#: How long a page waits for a start that fails at once.
INSTANT_FAILURE_S = 1.0


def hub_path(ctx: Context, verb: str, user_name: str, server_name: str = "") -> str:
    """Return ``BASEhub/VERB/USER[/SERVER]``."""
    path = f"{ctx.site.hub_prefix}{verb}/{escape_name(user_name)}"
    return f"{path}/{escape_name(server_name)}" if server_name else path


def find_server(ctx: Context, user_name: str, server_name: str, scope: str) -> tuple[User, Server]:
    """Return the user and their server. Raises NotFound unless the caller holds ``scope`` on it."""
    user = ctx.site.accounts.user(user_name)
    if user is None or not ctx.allows(scope, user=user_name, server=f"{user_name}/{server_name}"):
        raise NotFound()
    if server_name and not ctx.site.options.allow_named_servers:
        raise BadRequest(Text("Named servers are not enabled."))
    return user, ctx.site.hub.server(user, server_name)


def server_facts(ctx: Context, server: Server, row: ServerRow | None) -> dict[str, Any]:
    """Return a server as ``home.html`` shows it."""
    user, name = server.user_name, server.name
    return {
        "name": name,
        "display_name": (row.display_name if row else "") or name,
        "ready": server.ready,
        "active": server.active,
        "position": server.place,
        "pending": server.pending,
        "failed": server.failure is not None,
        "notice": server.notice.text if server.notice else "",
        "url": ctx.site.hub.server_url(user, name),
        "last_activity": row.last_activity if row else None,
        "start_url": "" if old_name_problem(ctx, name) else hub_path(ctx, "spawn", user, name),
        "delete_url": hub_path(ctx, "delete", user, name) if name and not server.active else "",
        "stop_url": hub_path(ctx, "stop", user, name),
        "log_url": hub_path(ctx, "log", user, name),
        "spawn_pending_url": hub_path(ctx, "spawn-pending", user, name),
    }


@routes.add("GET", "home", access=Access.PAGE)
def home(ctx: Context) -> Any:
    """Show a person's own servers."""
    return home_page(ctx)


def home_page(ctx: Context, status: int = 200, **namespace: Any) -> Any:
    """Return the home page."""
    hub, user = ctx.site.hub, ctx.caller.user
    with hub.store.session():
        rows = {row.name: row for row in ServerRow.select().where(ServerRow.user == user)}
    running = hub.servers_of(user)
    for server in running.values():
        hub.poll_now(server)
    named = sorted({*rows, *running} - {""}) if ctx.site.options.allow_named_servers else []
    servers = [server_facts(ctx, hub.server(user, name), rows.get(name)) for name in ["", *named]]
    ctx.site.gauges.watch()
    use = usage_facts(ctx, hub.server(user))
    return ctx.page(
        "home.html",
        status,
        servers=servers,
        use=use,
        limits=_own_limits(ctx, hub.server(user)),
        default_server=servers[0],
        spawn_url=hub_path(ctx, "spawn", user.name),
        allow_named_servers=ctx.site.options.allow_named_servers,
        new_server_url=ctx.site.hub_prefix + "new-server",
        invalid_server_names=[name for name in named if server_name_problem(name)],
        named_server_limit_per_user=ctx.site.named_server_limit(ctx),
        **namespace,
    )


def _own_limits(ctx: Context, server: Server) -> list[tuple[str, str]]:
    """Return what a person's server may use, as the present run or the configuration says."""
    spawner = server.spawner or _spawner_for_form(ctx, ctx.caller.user, server.name)
    found: list[tuple[str, str]] = []
    if spawner.mem_limit:
        found.append((Text("Memory at most"), size(spawner.mem_limit)))
    if spawner.cpu_limit:
        found.append((Text("Processors at most"), Number(f"{spawner.cpu_limit:g}")))
    culler = ctx.site.culler
    if culler is not None:
        found.append((Text("Stopped when unused for"), durations.words(culler.limits.timeout)))
    return found


@routes.add("POST", "new-server", access=Access.PAGE)
def new_server(ctx: Context) -> Any:
    """Go on to the start of a named server that the home page's form names."""
    name = ctx.form.get("server_name", "").strip()
    if problem := server_name_problem(name):
        if not ctx.site.options.allow_named_servers:
            raise BadRequest(problem)
        # Another name that would do stands in the form, to be sent or changed.
        return home_page(
            ctx,
            400,
            new_server_error=problem,
            new_server_name=server_slug(name, ()) if name else "",
        )
    return ctx.redirect(hub_path(ctx, "spawn", ctx.caller.name, name), 303)


# -- start and stop --------------------------------------------------------------------------


def _spawner_for_form(ctx: Context, user: User, server_name: str) -> Spawner:
    """Return a spawner that knows what was chosen for the last start."""
    with ctx.site.hub.store.session():
        row = find_row(user.id, server_name)
    spawner = ctx.site.hub.new_spawner(ctx.site.hub.user_info(user), server_name)
    spawner.user_options = (row.user_options if row else None) or {}
    return spawner


@routes.add(
    "GET POST", "spawn", "spawn/<user_name>", "spawn/<user_name>/<server_name>", access=Access.PAGE
)
def spawn(ctx: Context, user_name: str = "", server_name: str = "") -> Any:
    """Start a server, after its form if there is one."""
    user_name = user_name or ctx.caller.name
    user, server = find_server(ctx, user_name, server_name, "start:servers")
    ctx.site.hub.poll_now(server)
    if server.ready:
        return ctx.redirect(_after_start(ctx, server))
    if server.active:
        return ctx.redirect(_pending_url(ctx, server))
    room = check_new_name(ctx, user, server_name, server_name) if server_name else None
    spawner = _spawner_for_form(ctx, user, server_name)
    form = options_form(spawner)
    if ctx.method == "GET" and form:
        return _options_page(ctx, server, form)
    if ctx.method == "GET" and ctx.led_by_others():
        return _not_running(ctx, server, 200)  # another's link may not start anything
    try:
        if ctx.method == "POST" and form:
            fields = {k: v for k, v in ctx.form_lists.items() if k not in ("_xsrf", "next")}
            fields |= {f"{name}_file": files for name, files in _files(ctx).items()}
            options = aio.call(spawner.options_from_form, fields)
        else:
            query = {k: [v] for k, v in ctx.query.items() if k not in ("_xsrf", "next")}
            options = aio.call(spawner.options_from_query, query)
    except (ValueError, SpawnError) as error:
        return _options_page(ctx, server, form, str(error), 400)
    except MinihubError:
        raise
    except Exception as error:  # the function is the configuration's
        log.exception("What %s chose for a server cannot be read", user_name)
        what = words_of(error)
        if what == str(error):  # nothing that is meant for users
            why = f"{type(error).__name__}: {what}"
            what = Text("The options cannot be read (%(problem)s).", problem=why)
        return _options_page(ctx, server, form, what, 400)
    ctx.check_before_start(user)
    ctx.site.hub.start_server(user, server_name, user_options=options, room=room)
    if ctx.caller.name != user_name:
        ctx.audit("start server", user_name, server_name)
    ctx.will_wait()
    ctx.site.waits.settled(ctx.caller, ctx.site.hub.server(user, server_name), INSTANT_FAILURE_S)
    return ctx.redirect(_pending_url(ctx, server))


def options_form(spawner: Spawner) -> str:
    """Return the HTML of the form before a start, which a subclass may make as a coroutine.

    Raises SpawnError for whatever the subclass raises.
    """
    return spawner.run_function(f"{type(spawner).__name__}.get_options_form", _form_of, spawner)


def _form_of(spawner: Spawner) -> Any:
    return spawner.get_options_form()


class UploadedFile(dict):
    """A file sent with a form: ``filename``, ``body`` (bytes) and ``content_type``.

    They are keys and attributes, as in JupyterHub.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def _files(ctx: Context) -> dict[str, list[UploadedFile]]:
    """Return the files that came with the form, by the names of their fields."""
    found: dict[str, list[UploadedFile]] = {}
    for name, one in ctx.request.files.allitems():
        file = UploadedFile(
            filename=one.raw_filename, body=one.file.read(), content_type=one.content_type
        )
        found.setdefault(name, []).append(file)
    return found


def _options_page(
    ctx: Context, server: Server, form: str, error: str = "", status: int = 200
) -> Any:
    return ctx.page(
        "spawn.html",
        status,
        spawner_options_form=form,
        error_message=error,
        url=ctx.path_and_query,
        for_user=ctx.site.hub.person(server.user_name),
        server_name=server.name,
    )


def _after_start(ctx: Context, server: Server) -> str:
    """Return where to go once the server runs: the page asked for, else its own start page."""
    target = ctx.safe_next(ctx.query.get("next") or ctx.form.get("next") or "")
    return target or ctx.site.hub.server_url(server.user_name, server.name)


def _pending_url(ctx: Context, server: Server) -> str:
    target = ctx.safe_next(ctx.query.get("next") or ctx.form.get("next") or "")
    path = hub_path(ctx, "spawn-pending", server.user_name, server.name)
    return path + ("?" + urlencode({"next": target}) if target else "")


@routes.add(
    "GET",
    "spawn-pending/<user_name>",
    "spawn-pending/<user_name>/<server_name>",
    access=Access.PAGE,
)
def spawn_pending(ctx: Context, user_name: str, server_name: str = "") -> Any:
    """Show how a start is going; go on to the server when it is there."""
    _user, server = find_server(ctx, user_name, server_name, "access:servers")
    if server.ready:
        return ctx.redirect(_after_start(ctx, server))
    if server.state in (State.STOPPING, State.CHECKING):
        return ctx.page(
            "stop_pending.html", user_name=user_name, server_name=server_name,
            display_name=server_name, checking=server.state is State.CHECKING,
        )  # fmt: skip
    if not server.active:
        return _not_running(ctx, server, server.failure.status if server.failure else 200)
    kind = f"servers/{escape_name(server_name)}" if server_name else "server"
    return ctx.page(
        "spawn_pending.html",
        user_name=user_name,
        server_name=server_name,
        display_name=server_name,
        progress_url=f"{ctx.site.api_prefix}/users/{escape_name(user_name)}/{kind}/progress",
        url=_after_start(ctx, server),
        stop_url=hub_path(ctx, "stop", user_name, server_name),
        elapsed_s=int(server.seconds_in_state()),
        usual_s=ctx.site.hub.usual.seconds,
        position=server.place,
        log_lines=server.spawner.log_tail() if server.spawner is not None else [],
    )


def _not_running(ctx: Context, server: Server, status: int) -> Any:
    """Return the page of a stopped server, with the reason when its last start failed."""
    target = ctx.safe_next(ctx.query.get("next", "")) or ""
    start = hub_path(ctx, "spawn", server.user_name, server.name)
    failure, notice = server.failure, server.notice
    is_told = notice is not None and not notice.is_warning  # why it was ended: no guess is needed
    return ctx.page(
        "not_running.html",
        status,
        user_name=server.user_name,
        server_name=server.name,
        display_name=server.name,
        spawn_url=start + ("?" + urlencode({"next": target}) if target else ""),
        failed=failure is not None,
        failed_message=failure.reason if failure else "",
        failed_html_message="",
        log_tail=failure.log_tail if failure else [],
        hint=failure.hint if failure and not is_told else "",
        notice=notice.text if notice else "",
        implicit_spawn_seconds=ctx.site.options.implicit_spawn_seconds,
    )


@routes.add("POST", "stop/<user_name>", "stop/<user_name>/<server_name>", access=Access.PAGE)
def stop(ctx: Context, user_name: str, server_name: str = "") -> Any:
    """Stop a server, or cancel its start."""
    _user, server = find_server(ctx, user_name, server_name, "delete:servers")
    if server.active and ctx.caller.name != user_name:
        ctx.audit("stop server", user_name, server_name)
    ctx.site.hub.stop_server(server, why=f"{ctx.caller.name} pressed stop")
    ctx.site.waits.settled(ctx.caller, server, ctx.site.slow_stop_timeout_s / 4)
    return ctx.redirect(ctx.site.hub_prefix + "home", 303)


@routes.add("POST", "delete/<user_name>/<server_name>", access=Access.PAGE)
def delete(ctx: Context, user_name: str, server_name: str) -> Any:
    """Forget a stopped named server, so that another may take its place."""
    _user, server = find_server(ctx, user_name, server_name, "delete:servers")
    if server.active:
        raise BadRequest(Text("Only named servers that are stopped can be deleted."))
    ctx.site.hub.remove_server(server)
    if ctx.caller.name != user_name:
        ctx.audit("delete server", user_name, server_name)
    return ctx.redirect(ctx.site.hub_prefix + "home", 303)


@routes.add("POST", "keep/<user_name>", "keep/<user_name>/<server_name>", access=Access.PAGE)
def keep(ctx: Context, user_name: str, server_name: str = "") -> Any:
    """Keep a server for a while that would be stopped soon as idle."""
    _user, server = find_server(ctx, user_name, server_name, "access:servers")
    culler = ctx.site.culler
    if culler is None or (culler.keep(server) is None and culler.warning(server) is not None):
        raise BadRequest(Text("This server cannot be kept any longer."))
    if ctx.caller.name != user_name:
        ctx.audit("keep server", user_name, server_name)
    target = ctx.safe_next(ctx.form.get("next", ""))
    return ctx.redirect(target or ctx.site.hub_prefix + "home", 303)


# -- the way to a server ---------------------------------------------------------------------


def _split_server(ctx: Context, user: User, rest: str) -> tuple[str, str]:
    """Split the path after the user's name into a named server and the rest."""
    first, _, deeper = rest.partition("/")
    if first and ctx.site.options.allow_named_servers:
        with ctx.site.accounts.store.session():
            known = ServerRow.select().where(ServerRow.user == user, ServerRow.name == first)
            if known.exists():
                return first, deeper
    return "", rest


@routes.add(
    "GET POST PUT PATCH DELETE",
    "user/<user_name>",
    "user/<user_name>/",
    "user/<user_name>/<rest:path>",
    access=Access.PUBLIC,
)
def user_server(ctx: Context, user_name: str, rest: str = "") -> Any:
    """Answer in place of a server that the proxy has no route to."""
    site = ctx.site
    api_like = wants_json(ctx.request.headers) or "api" in rest.split("/")
    if ctx.caller is None:
        if ctx.method not in SAFE_METHODS:
            return _gone_json(ctx, user_name, "")
        metrics.count("redirects.user_to_login")
        return ctx.to_login()
    user = site.accounts.user(user_name)
    server_name, inner = _split_server(ctx, user, rest) if user else ("", rest)
    if user_name != ctx.caller.name:
        metrics.count("redirects.user_to_user")
    access = {"user": user_name, "server": f"{user_name}/{server_name}"}
    if user is None or not ctx.allows("access:servers", **access):
        raise NotFound()
    server = site.hub.server(user, server_name)
    site.hub.poll_now(server)
    path = site.hub.server_url(user_name, server_name) + escape_path(inner)
    if server.ready and ctx.method in SAFE_METHODS:
        return _again(ctx, server, path)
    if api_like or ctx.method not in SAFE_METHODS:
        return _gone_json(ctx, user_name, server_name)
    query = f"?{ctx.query_string}" if ctx.query_string else ""
    target = urlencode({"next": path + query})
    if server.active or server.failure:
        metrics.count("redirects.user_spawn_pending")
        pending = hub_path(ctx, "spawn-pending", user_name, server_name)
        return ctx.redirect(f"{pending}?{target}", 303)
    ctx.query["next"] = path + query
    return _not_running(ctx, server, ctx.site.stopped_status)


def _again(ctx: Context, server: Server, path: str) -> Any:
    """Give a running server its route back and send the browser there again, a few times."""
    count = ctx.query.pop("redirects", "0")
    times = int(count) if count.isdecimal() and len(count) < 3 else 0
    if times >= ctx.site.user_redirect_limit:
        advice = Text("Stop the server on the home page and start it again.")
        return ctx.site.error_page(ctx, 500, Text("Redirect loop detected."), hint=advice)
    ctx.site.hub.routes.add_server(server)
    metrics.count("redirects.user_after_login")
    return ctx.redirect(f"{path}?{urlencode({**ctx.query, 'redirects': times + 1})}")


def _gone_json(ctx: Context, user_name: str, server_name: str) -> Any:
    path = ctx.site.hub.server_url(user_name, server_name)
    start = f"{ctx.origin}{hub_path(ctx, 'spawn', user_name, server_name)}"
    message = f"JupyterHub server no longer running at {path}. Restart the server at {start}"
    response = ctx.json({"message": message}, ctx.site.stopped_status)
    response.set_header("Retry-After", "30")
    return response
