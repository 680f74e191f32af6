"""The verbs for servers: over the running hub; without one, for those that were left running.

Rules of this file: as :mod:`minihub.manage`'s. Logs are read from their files either way.

Threads: the main thread.
"""

from __future__ import annotations

import re
import threading
from pathlib import Path
from urllib.parse import urljoin

from . import aio, clock, process
from .accounts import Accounts
from .config import Loaded
from .errors import NotPermitted
from .logs import safe
from .manage import (
    Failed,
    Home,
    Say,
    active,
    hub_says,
    left_running,
    minute,
    no_such_user,
    show,
    user_path,
)
from .models import Server as ServerRow
from .models import User
from .urls import escape_name

STOP_WAIT_S = 120.0
LOG_LINES = 100
FOLLOW_STEP_S = 0.2
#: What a server writes must not reach the terminal of whoever reads it as more than text.
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def list_servers(loaded: Loaded, say: Say, *, as_json: bool = False) -> int:
    """Show the servers that run, or are about to."""
    home = Home(loaded)
    hub = home.running()
    if hub is None:
        with home.accounts() as accounts:
            rows = [
                {
                    "user": user,
                    "server": server,
                    "status": "left running",
                    "url": None,
                    "started": row.started,
                    "last_activity": row.last_activity,
                }
                for user, server, row in left_running(home, accounts)
            ]
    else:
        with home.api(hub) as client:
            rows = [
                {
                    "user": model["name"],
                    "server": name,
                    "status": server["pending"] or ("ready" if server["ready"] else "stopped"),
                    "url": server["url"],
                    "started": server["started"],
                    "last_activity": server["last_activity"],
                }
                for model in client.items("/users", state="active")
                for name, server in active(model).items()
            ]
    show(
        say,
        sorted(rows, key=lambda row: (row["user"], row["server"])),
        as_json,
        {
            "USER": lambda row: row["user"],
            "SERVER": lambda row: row["server"] or "(default)",
            "STATUS": lambda row: row["status"],
            "STARTED (UTC)": lambda row: minute(row["started"]),
            "LAST ACTIVITY (UTC)": lambda row: minute(row["last_activity"]),
        },
    )
    return 0


def start(loaded: Loaded, say: Say, user: str, server: str = "") -> int:
    """Start a server and wait until it is ready, showing how it goes."""
    home = Home(loaded)
    hub = home.running()
    if hub is None:
        raise Failed(
            f"no hub is running with its state in {home.state_dir}, "
            "and only a hub can start servers"
        )
    path = _server_path(user, server)
    with home.api(hub) as client, hub_says(user):
        if client.request("POST", path, {}).status == 202:
            for event in client.events(f"{path}/progress"):
                if event.get("failed"):
                    raise Failed(safe(event["message"], 1000))
                say(safe(event["message"], 1000))
        model = client.request("GET", user_path(user)).data
        running = active(model).get(server)
        if running is None or not running["ready"]:
            raise Failed(f"the server {_full_name(user, server)} is not ready")
        say(f"{_full_name(user, server)} is ready at {urljoin(hub.url, running['url'])}")
    return 0


def stop(loaded: Loaded, say: Say, user: str, server: str = "") -> int:
    """Stop a server and wait until it has ended."""
    home = Home(loaded)
    hub = home.running()
    if hub is None:
        _stopleft_running(home, user, server)
    else:
        with home.api(hub) as client, hub_says(user):
            path = user_path(user)
            if server not in active(client.request("GET", path).data):
                raise Failed(f"{_full_name(user, server)} does not run")
            client.request("DELETE", _server_path(user, server))
            deadline = clock.monotonic() + STOP_WAIT_S
            pause = threading.Event()
            while server in active(client.request("GET", path).data):
                if clock.monotonic() > deadline:
                    raise Failed(f"{_full_name(user, server)} has not ended yet")
                pause.wait(FOLLOW_STEP_S)
    say(f"{_full_name(user, server)} has stopped.")
    return 0


def logs(loaded: Loaded, say: Say, user: str, server: str = "", *, follow: bool = False) -> int:
    """Show the last lines that a server wrote; with ``follow`` also what it goes on to write."""
    home = Home(loaded)
    with home.accounts() as accounts:
        if accounts.user(user) is None:
            raise no_such_user(user)
        row = _row(accounts, user, server)
    state = (row.state or {}) if row else {}
    kept = state.get("log") or getattr(home.spawner(user, server, {}), "log_path", None)
    if kept is None:
        kind = home.options.spawner_class.__name__
        raise Failed(f"{kind} keeps no log of its servers on this machine")
    path = Path(kept)
    try:
        with open(path, "rb"):
            pass
    except FileNotFoundError as error:
        raise Failed(f"{_full_name(user, server)} has never been started") from error
    except PermissionError as error:
        raise NotPermitted(f"{path} may not be read by this user") from error
    position = path.stat().st_size
    for line in process.tail(path, LOG_LINES):
        say(line)
    if follow:
        _follow(path, position, say)
    return 0


def _follow(path: Path, position: int, say: Say) -> None:
    """Show what is added to a file beyond ``position``, until the caller is interrupted."""
    pause = threading.Event()
    rest = ""
    while True:
        try:
            size = path.stat().st_size
            position = 0 if size < position else position  # begun anew
            if size > position:
                with open(path, "rb") as file:
                    file.seek(position)
                    new = file.read(size - position)
                position += len(new)
                *lines, rest = (rest + new.decode("utf-8", "replace")).split("\n")
                for line in lines:
                    say(_CONTROL.sub("", line))
        except FileNotFoundError:
            position = 0  # being put aside for a new one
        pause.wait(FOLLOW_STEP_S)


def _server_path(user: str, server: str) -> str:
    path = f"{user_path(user)}/server"
    if "/" in server:
        raise Failed(f"No such server: {_full_name(user, server)}")
    return f"{path}s/{escape_name(server)}" if server else path


def _full_name(user: str, server: str) -> str:
    return f"{user}/{server}" if server else user


def _row(accounts: Accounts, user: str, server: str) -> ServerRow | None:
    with accounts.store.session():
        return (
            ServerRow.select().join(User).where(User.name == user, ServerRow.name == server).first()
        )


def _stopleft_running(home: Home, user: str, server: str) -> None:
    """Stop a server that goes on without a hub; the next hub tidies up after it."""
    with home.accounts() as accounts:
        for owner, name, row in left_running(home, accounts):
            if (owner, name) == (user, server):
                aio.call(home.spawner(owner, name, row.state or {}).stop)
                return
        if accounts.user(user) is None:
            raise no_such_user(user)
    raise Failed(f"{_full_name(user, server)} does not run")
