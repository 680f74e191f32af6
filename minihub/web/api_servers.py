"""REST API: starting and stopping servers, and how a start is going.

Rules of this file: requests wait at most ``slow_spawn_timeout`` for a start and then answer that
it is pending.

Threads: waitress's. A progress stream keeps one of them until the start has ended; how many may
do so at once is bounded, and beyond that a stream tells what is known and ends.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import bottle

from ..errors import BadRequest, NotFound, RequestError
from ..models import Server as ServerRow
from ..models import User
from ..server import Server, State
from .context import Context
from .routing import Routes

routes = Routes()

#: Streams that may keep a thread at once; the server has this many threads and a reserve.
MAX_STREAMS = 100
KEEPALIVE_S = 8.0
_streams = threading.BoundedSemaphore(MAX_STREAMS)


class SpawnFailed(RequestError):
    """Raised when a start that was waited for has failed."""

    status = 500


def _find(ctx: Context, name: str, server_name: str, scope: str) -> tuple[User, Server]:
    user = ctx.site.accounts.user(name)
    if user is None or not ctx.allows(scope, user=name, server=f"{name}/{server_name}"):
        raise NotFound()
    return user, ctx.site.hub.server(user, server_name)


@routes.add(
    "POST",
    "api/users/<name>/server",
    "api/users/<name>/servers/<server_name>",
    scopes=("start:servers",),
)
def start(ctx: Context, name: str, server_name: str = "") -> Any:
    """Start a server: 201 when it is ready in time, 202 while it is pending."""
    user, server = _find(ctx, name, server_name, "start:servers")
    if server_name and not ctx.site.options.allow_named_servers:
        raise BadRequest("Named servers are not enabled.")
    options = ctx.json_body() or {}
    if isinstance(options.get("user_options"), dict):
        options = options["user_options"]
    ctx.site.hub.poll_now(server)
    server = ctx.site.hub.start_server(user, server_name, user_options=options)
    if not server.wait_settled(ctx.site.slow_spawn_timeout_s):
        return ctx.reply(b"", 202)
    if server.failure is not None:
        raise SpawnFailed(f"Failed to start {server.full_name}: {server.failure.reason}")
    return ctx.reply(b"", 201)


@routes.add(
    "DELETE",
    "api/users/<name>/server",
    "api/users/<name>/servers/<server_name>",
    scopes=("delete:servers",),
)
def stop(ctx: Context, name: str, server_name: str = "") -> Any:
    """Stop a server: 204 when it is stopped in time, 202 while it is stopping."""
    user, server = _find(ctx, name, server_name, "delete:servers")
    remove = bool((ctx.json_body() or {}).get("remove"))
    if remove and not server_name:
        raise BadRequest("The default server cannot be removed.")
    with ctx.site.accounts.store.session():
        mine = (ServerRow.user == user) & (ServerRow.name == server_name)
        if server_name and not server.active and not ServerRow.select().where(mine).exists():
            raise NotFound(f"{name} has no server named {server_name!r}")
    ctx.site.hub.stop_server(server, why=f"{ctx.caller.name} asked through the API")
    if not server.wait_settled(ctx.site.slow_stop_timeout_s):
        return ctx.reply(b"", 202)
    if remove:
        with ctx.site.accounts.store.transaction():
            ServerRow.delete().where(mine).execute()
    return ctx.reply(b"", 204)


@routes.add(
    "GET",
    "api/users/<name>/server/progress",
    "api/users/<name>/servers/<server_name>/progress",
    scopes=("read:servers",),
)
def progress(ctx: Context, name: str, server_name: str = "") -> Any:
    """Stream the events of a start, to its end, as server-sent events."""
    user, server = _find(ctx, name, server_name, "read:servers")
    if not server.active and server.failure is None:
        raise BadRequest(f"{server.full_name} is not starting...")
    url = ctx.site.hub.server_url(user.name, server_name)
    response = bottle.HTTPResponse(_events(server, url), 200)
    response.set_header("Content-Type", "text/event-stream")
    response.set_header("Cache-Control", "no-cache")
    response.set_header("X-Accel-Buffering", "no")
    return response


def _events(server: Server, url: str) -> Iterator[bytes]:
    """Yield the events as they come; blank lines keep the connection alive between them."""
    if not _streams.acquire(blocking=False):
        yield b"retry: 2000\n\n"
        return
    try:
        index = 0
        while server.state is State.SPAWNING:
            events = server.events_after(index, KEEPALIVE_S)
            index += len(events)
            for event in events:
                yield _event(event)
            if not events:
                yield b"\n\n"
        if server.ready:
            yield _event(
                {
                    "progress": 100,
                    "ready": True,
                    "message": f"Server ready at {url}",
                    "html_message": f'Server ready at <a href="{url}">{url}</a>',
                    "url": url,
                }
            )
            return
        left = [event for event in server.events_after(index, 0) if event.get("failed")]
        reason = server.failure.reason if server.failure else "the start was cancelled"
        failed = {"progress": 100, "failed": True, "message": f"Spawn failed: {reason}"}
        yield _event(left[-1] if left else failed)
    finally:
        _streams.release()


def _event(event: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"
