"""REST API: servers, from their creation to their removal, and how a start is going.

Rules of this file: requests wait at most ``slow_spawn_timeout`` for a start and
``slow_stop_timeout`` for a stop, and then answer that it is pending.

Threads: waitress's. A progress stream keeps one of them until the start has ended; how many may
do so at once is bounded. Beyond that a page's stream tells what is known and ends, since it comes
back by itself; a program, which reads to the final event, is asked to come later.
Sources: JupyterHub 6's REST API.
"""

from __future__ import annotations

import json
import logging
import threading
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

import bottle

from .. import clock
from ..errors import BadRequest, Conflict, MinihubError, NotFound, RequestError
from ..limits import NamedRoom
from ..models import Server as ServerRow
from ..models import User
from ..server import Server, State
from ..serverrows import delete_clients, find_row
from ..texts import Text
from ..urls import server_name_problem
from . import schemas
from .api_base import UserModels, find_user
from .context import Context
from .routing import Routes
from .waits import long_requests

log = logging.getLogger("minihub.web")
routes = Routes()

#: How many of the long requests may be streams of pages.
MAX_PAGE_STREAMS = 80
KEEPALIVE_S = 8.0
_page_streams = threading.BoundedSemaphore(MAX_PAGE_STREAMS)

_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}
MAX_DISPLAY_NAME = 255

PATHS = (
    "api/users/<name>/server",
    "api/users/<name>/servers/",
    "api/users/<name>/servers/<server_name>",
)


class SpawnFailed(RequestError):
    """Raised when a start that was waited for has failed."""

    def __init__(self, server: Server) -> None:
        failure = server.failure
        self.status = failure.status
        super().__init__(
            f"Failed to start {server.full_name}: {failure.reason} {failure.hint}".strip(),
            headers=getattr(failure, "headers", None),
        )


class TooManyStreams(RequestError):
    """Raised when as many starts are watched as the hub has threads for."""

    status = 503

    def __init__(self) -> None:
        super().__init__("Too many starts are being watched.", headers={"Retry-After": "2"})


# -- finding and checking --------------------------------------------------------------------


def _find(ctx: Context, name: str, server_name: str) -> tuple[User, Server, ServerRow | None]:
    """Return the user, the server, and its row if it was ever made. Raises NotFound."""
    user = find_user(ctx, name)
    with ctx.site.accounts.store.session():
        row = find_row(user.id, server_name)
    return user, ctx.site.hub.server(user, server_name), row


def _model(ctx: Context, user: User, server: Server, row: ServerRow | None) -> dict[str, Any]:
    models = UserModels(ctx)
    groups = ctx.site.hub.roles.rights_of_user(user).groups
    if server.active:
        return models.active_server(server, groups)
    return models.stopped_server(user.name, row, groups, server.name)


def check_new_name(
    ctx: Context, user: User, server_name: str, display_name: str, *, check_limit: bool = True
) -> NamedRoom | None:
    """Raise BadRequest unless the user has that named server, or may have one more of that name.

    Returns what is to be asked again when the server begins to start, if anything is.
    """
    if not ctx.site.options.allow_named_servers:
        raise BadRequest(Text("Named servers are not enabled."))
    with ctx.site.accounts.store.session():
        mine = ServerRow.select(ServerRow.name).where(ServerRow.user == user).tuples()
        named = {name for (name,) in mine if name}
    if server_name in named:
        if problem := old_name_problem(ctx, server_name):
            raise BadRequest(problem)
        return None
    room = NamedRoom(user.name, ctx.site.named_server_limit(ctx), frozenset(named))
    if check_limit:
        room.check(server_name)
    if problem := server_name_problem(server_name) or _display_name_problem(display_name):
        raise BadRequest(problem)
    return room


def old_name_problem(ctx: Context, server_name: str) -> str:
    """Return why an existing server may not start by its name, or an empty text."""
    if not server_name or not server_name_problem(server_name):
        return ""
    if ctx.site.options.allow_existing_invalid_named_servers == "allow-start":
        return ""
    return (
        f"Starting invalid server_name {server_name[:60]!r} is disabled, contact your administrator"
    )


def _display_name_problem(name: str) -> str:
    """Return why ``name`` cannot be shown as a server's, or an empty text."""
    fine = (
        0 < len(name) <= MAX_DISPLAY_NAME
        and name == name.strip()
        and "  " not in name
        and all(c == " " or unicodedata.category(c) not in _INVISIBLE for c in name)
    )
    return "" if fine else Text("Invalid display_name: %(name)s", name=repr(name[:60]))


def _body(ctx: Context) -> tuple[dict[str, Any] | None, str]:
    """Return ``(user_options, display_name)`` of a body in either of its forms.

    Older clients send the options alone. None stands for options that were not given.
    """
    body = ctx.json_value()
    if not body:
        return None, ""
    if not isinstance(body, dict):
        raise BadRequest("Body must be a JSON object")
    if "display_name" in body and not isinstance(body["display_name"], str):
        raise BadRequest("display_name must be a string")
    options = body.get("user_options")
    if "user_options" in body and not isinstance(options, (dict, type(None))):
        raise BadRequest("user_options must be an object or null")
    if "display_name" not in body and "user_options" not in body:
        options = body
    return options, _display_name(body.get("display_name", ""))


def _display_name(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _check_display_name(name: str) -> None:
    if name and (problem := _display_name_problem(name)):
        raise BadRequest(problem)


# -- servers ---------------------------------------------------------------------------------


@routes.add("GET", *PATHS, scopes=("read:servers",), on="server", gives={200: "Server"})
def get_server(ctx: Context, name: str, server_name: str = "") -> Any:
    """Describe a server."""
    user, server, row = _find(ctx, name, server_name)
    if server_name and row is None and not server.active:
        raise NotFound()
    return ctx.json(_model(ctx, user, server, row))


@routes.add(
    "PUT",
    *PATHS,
    scopes=("start:servers",),
    on="server",
    takes="StartServer",
    gives={201: "Server"},
    fails=(409,),
)
def make_server(ctx: Context, name: str, server_name: str = "") -> Any:
    """Make a named server without starting it."""
    user, server, row = _find(ctx, name, server_name)
    if not server_name:
        raise Conflict(f"User {user.name} already has a default server")
    if row is not None or server.active:
        raise Conflict(f"User {user.name} already has server {server_name}")
    options, display_name = _body(ctx)
    display_name = display_name or server_name
    room = check_new_name(ctx, user, server_name, display_name)
    with ctx.site.accounts.store.transaction():
        if room is not None:  # nobody else makes one meanwhile
            mine = ServerRow.select(ServerRow.name).where(ServerRow.user == user).tuples()
            room.check(server_name, (name for (name,) in mine))
        row, created = ServerRow.get_or_create(
            user=user,
            name=server_name,
            defaults={"display_name": display_name, "user_options": options or {}},
        )
    if not created:
        raise Conflict(f"User {user.name} already has server {server_name}")
    return ctx.json(_model(ctx, user, server, row), 201)


@routes.add(
    "POST",
    *PATHS,
    scopes=("start:servers",),
    on="server",
    takes="StartServer",
    gives={201: schemas.EMPTY, 202: schemas.EMPTY},
    fails=(409, 429, 500, 503),
)
def start(ctx: Context, name: str, server_name: str = "") -> Any:
    """Start a server: 201 when it is ready in time, 202 while it is pending."""
    user, server, _row = _find(ctx, name, server_name)
    options, display_name = _body(ctx)
    room = None
    if server_name:
        room = check_new_name(ctx, user, server_name, display_name or server_name)
    _check_display_name(display_name)
    hub = ctx.site.hub
    hub.poll_now(server)
    if server.state is State.SPAWNING:
        return ctx.reply(b"", 202)
    ctx.check_before_start(user)
    server = hub.start_server(
        user, server_name, user_options=options, display_name=display_name, room=room
    )
    if not ctx.site.waits.settled(ctx.caller, server, ctx.site.slow_spawn_timeout_s):
        return ctx.reply(b"", 202)
    if server.failure is not None:
        raise SpawnFailed(server)
    return ctx.reply(b"", 201)


@routes.add(
    "PATCH",
    *PATHS,
    scopes=("start:servers",),
    on="server",
    takes="ChangeServer",
    gives={200: "Server"},
    fails=(409,),
)
def change_server(ctx: Context, name: str, server_name: str = "") -> Any:
    """Rename a stopped server, or change what it is shown as or started with."""
    user, server, row = _find(ctx, name, server_name)
    body = ctx.json_body() or {}
    if not body:
        raise BadRequest("Must specify at least one field to modify.")
    unknown = sorted(set(body) - {"name", "display_name", "user_options"})
    if unknown:
        raise BadRequest(
            f"Unexpected fields: {', '.join(unknown)[:100]}, "
            "supported fields: name, display_name, user_options"
        )
    new_name = body.get("name")
    for key in ("name", "display_name"):
        if body.get(key) is not None and not isinstance(body[key], str):
            raise BadRequest(f"{key} must be a string")
    display_name = _display_name(body.get("display_name") or "")
    if new_name is not None:
        check_new_name(ctx, user, new_name, display_name or new_name, check_limit=server_name == "")
    _check_display_name(display_name)
    if "user_options" in body and not isinstance(body["user_options"], dict):
        raise BadRequest("user_options must be a dict")
    if server.active:
        raise BadRequest(f"{server.full_name} is active. Please stop it before modifying it.")
    if row is None and server_name:
        raise NotFound(f"User {user.name} has no such server {server_name[:60]!r}")
    row = _change_row(ctx, user, server_name, new_name, display_name, body.get("user_options"))
    return ctx.json(_model(ctx, user, ctx.site.hub.server(user, row.name), row))


def _change_row(
    ctx: Context,
    user: User,
    server_name: str,
    new_name: str | None,
    display_name: str,
    user_options: dict[str, Any] | None,
) -> ServerRow:
    """Change a stopped server's row and return it. Raises Conflict when its new name is taken."""
    with ctx.site.accounts.store.transaction():
        row, _created = ServerRow.get_or_create(user=user, name=server_name)
        if new_name is not None:
            taken = (ServerRow.user == user) & (ServerRow.name == new_name)
            if ServerRow.select().where(taken).exists():
                raise Conflict(f"User {user.name} already has server {new_name!r}")
            delete_clients(ServerRow.id == row.id)  # they are named after the server
            row.name = new_name
        row.display_name = display_name or row.display_name
        row.user_options = row.user_options if user_options is None else user_options
        row.oauth_client = None if new_name is not None else row.oauth_client_id
        row.save()
    if new_name is not None:
        ctx.site.hub.forget_failures(user.id)
    return row


@routes.add(
    "DELETE",
    *PATHS,
    scopes=("delete:servers",),
    on="server",
    takes="StopServer",
    gives={202: schemas.EMPTY, 204: schemas.EMPTY},
)
def stop(ctx: Context, name: str, server_name: str = "") -> Any:
    """Stop a server: 204 when it is stopped in time, 202 while it is stopping."""
    _user, server, row = _find(ctx, name, server_name)
    remove = bool((ctx.json_body() or {}).get("remove"))
    if server_name:
        if not ctx.site.options.allow_named_servers:
            raise BadRequest(Text("Named servers are not enabled."))
        if row is None and not server.active:
            raise NotFound(f"{name} has no server named {server_name[:60]!r}")
    elif remove:
        raise BadRequest("Cannot delete the default server")
    hub = ctx.site.hub
    hub.poll_now(server)
    hub.stop_server(server, why=f"{ctx.caller.name} asked through the API", remove=remove)
    waits = ctx.site.waits
    if not waits.settled(ctx.caller, server, ctx.site.slow_stop_timeout_s) or server.active:
        return ctx.reply(b"", 202)
    if remove:
        hub.remove_server(server)
    return ctx.reply(b"", 204)


# -- before the culler comes -----------------------------------------------------------------

ENDING_PATHS = ("api/users/<name>/server/ending", "api/users/<name>/servers/<server_name>/ending")


def _ending(ctx: Context, server: Server) -> dict[str, Any]:
    """Return what the culler will do to a server if nothing happens before."""
    culler = ctx.site.culler
    if culler is None or not server.ready:
        return {"due": None, "why": "", "soon": False, "keep_until": None}
    verdict, warning = culler.explain(server), culler.warning(server)
    until = warning.keep_until if warning else None
    return {
        "due": clock.isoformat(verdict.due) if verdict.due else None,
        "why": verdict.why,
        "soon": warning is not None,
        "keep_until": clock.isoformat(until) if until else None,
    }


@routes.add("GET", *ENDING_PATHS, scopes=("access:servers",), on="server", gives={200: "Ending"})
def ending(ctx: Context, name: str, server_name: str = "") -> Any:
    """Say when a server is stopped as idle, and until when it could be kept now."""
    _user, server, _row = _find(ctx, name, server_name)
    return ctx.json(_ending(ctx, server))


@routes.add(
    "POST",
    *ENDING_PATHS,
    scopes=("access:servers",),
    on="server",
    gives={200: "Ending"},
    fails=(409,),
)
def keep(ctx: Context, name: str, server_name: str = "") -> Any:
    """Keep a server for a while that is stopped soon. Raises Conflict where it cannot be."""
    _user, server, _row = _find(ctx, name, server_name)
    culler = ctx.site.culler
    if culler is None or culler.keep(server) is None:
        raise Conflict(f"{server.full_name} is not about to be stopped, or cannot be kept longer.")
    return ctx.json(_ending(ctx, server))


# -- progress --------------------------------------------------------------------------------


@routes.add(
    "GET",
    *(f"{path}/progress" for path in PATHS),
    scopes=("read:servers",),
    on="server",
    gives={200: schemas.EVENTS},
    fails=(400, 503),
)
def progress(ctx: Context, name: str, server_name: str = "") -> Any:
    """Stream the events of a start, to its end, as server-sent events."""
    user, server, row = _find(ctx, name, server_name)
    if server_name and row is None and not server.active and server.failure is None:
        raise NotFound()
    if not server.active and server.failure is None:
        raise BadRequest(f"{server.full_name} is not starting...")
    url = ctx.site.hub.server_url(user.name, server_name)
    slots = [long_requests]
    if ctx.caller.token is None:
        slots.insert(0, _page_streams)
    tell = ctx.texts.tell if ctx.caller.token is None else str
    stream: Any = _Stream.open(_events(server, url, tell), slots)
    if stream is None:
        if ctx.caller.token is not None:
            raise TooManyStreams()
        stream = [b"retry: 2000\n\n"]
    response = bottle.HTTPResponse(stream, 200)
    response.set_header("Content-Type", "text/event-stream")
    response.set_header("Cache-Control", "no-cache")
    response.set_header("X-Accel-Buffering", "no")
    return response


class _Stream:
    """Events on their way to one client; holds its slots until it is closed."""

    def __init__(self, events: Iterator[bytes], slots: list[threading.BoundedSemaphore]) -> None:
        self._events = events
        self._slots = slots

    @classmethod
    def open(
        cls, events: Iterator[bytes], slots: list[threading.BoundedSemaphore]
    ) -> _Stream | None:
        """Return the stream, or None when one of the kinds of slots is used up."""
        taken = []
        for slot in slots:
            if not slot.acquire(blocking=False):
                for one in taken:
                    one.release()
                return None
            taken.append(slot)
        return cls(events, taken)

    def __iter__(self) -> Iterator[bytes]:
        return self._events

    def close(self) -> None:
        """Give the slots back; whoever serves the answer calls this, however it ends."""
        slots, self._slots = self._slots, []
        for slot in slots:
            slot.release()


def _events(server: Server, url: str, tell: Callable[[Any], Any]) -> Iterator[bytes]:
    """Yield the events as they come; blank lines keep the connection alive between them.

    ``tell`` says texts in the language of whoever reads them.
    """
    index = 0
    while server.state is State.SPAWNING:
        events = server.events_after(index, KEEPALIVE_S)
        index += len(events)
        for event in events:
            told = {key: value for key, value in event.items() if key != "ready"}
            if "message" in told:
                told["message"] = tell(told["message"])
            yield _event(told)
        if not events:
            yield b"\n\n"
    if server.ready:
        event = _ready_event(server, url)
        yield _event(event | {"message": tell(event.get("message", ""))})
        return
    left = [event for event in server.events_after(index, 0) if event.get("failed")]
    reason = server.failure.reason if server.failure else Text("the start was cancelled")
    said = Text("Spawn failed: %(reason)s", reason=reason)
    failed = {"progress": 100, "failed": True, "message": said}
    last = left[-1] if left else failed
    yield _event(last | {"message": tell(last["message"])})


def _ready_event(server: Server, url: str) -> dict[str, Any]:
    """Return the last event of a start, as ``Spawner.progress_ready_hook`` leaves it."""
    event = {
        "progress": 100,
        "ready": True,
        "message": Text("Server ready at %(url)s", url=url),
        "html_message": f'Server ready at <a href="{url}">{url}</a>',
        "url": url,
    }
    try:
        return server.spawner.run_hook("progress_ready_hook", dict(event)) or event
    except MinihubError as error:
        log.error("%s", error)
        return event


def _event(event: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"
