#!/usr/bin/env python3
"""What the admin's page costs the hub: 500 users, of whom 50 have a server, seen over loopback.

Usage: python3 benchmarks/pages.py [--users 500] [--servers 50] [--views 30] [--save]

Needs the packages of the tests. What counts is the hub's own time, from the request's head to its
whole answer, as its log says; the proxy and the way there are not in it. A view is the page as
somebody opens it; the first is that of a hub whose templates for admins nobody has used yet. A live
update is what the page's own script asks for every five seconds: one request, whose answer holds
the present state of every row.

Exit code: 0 when every bar is met, 1 when one is missed.

Threads: the main thread.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from figures import Bar, Figure, Table  # noqa: E402
from harness import Browser, HubProcess  # noqa: E402

OURS = "minihub"
LIMIT_MS = 100.0
#: What the page's script sends with an update.
LIVE = {"Accept": "text/html"}
#: How people look at the page: title and query.
VIEWS = {
    "the users by name": "",
    "by memory": "?sort=memory",
    "a search": "?q=student-04",
    "the seventh page": "?page=7",
}


#: How the hub logs a view of the page: status, method, path, who, and how long it took.
LOGGED = re.compile(r"200 GET /hub/admin \(root-admin@[^)]*\) ([\d.]+)ms")


class Admin:
    """An admin at a browser of a hub."""

    def __init__(self, hub: HubProcess) -> None:
        self.hub = hub
        self.browser = hub.browser("root-admin")
        self._seen = 0

    def view(self, query: str, headers: dict[str, str] | None = None) -> tuple[float, str]:
        """Look at the page; return how many ms the hub took for it, and the page."""
        answer = self.browser.get(f"/hub/admin{query}", headers=headers)
        assert answer.status_code == 200, answer.status_code
        deadline = time.monotonic() + 10
        while len(found := LOGGED.findall(self.hub.text)) <= self._seen:
            if time.monotonic() > deadline:
                sys.exit("the hub logged no view of the page")
            time.sleep(0.01)
        self._seen = len(found)
        return float(found[-1]), answer.text


def fill(hub: HubProcess, admin: Browser, users: int, servers: int) -> None:
    """Make users, and start servers for the first of them."""
    names = [f"student-{number:04}" for number in range(users)]
    secret = admin.xsrf("/hub/home")
    for at in range(0, len(names), 500):
        data = {"_xsrf": secret, "names": " ".join(names[at : at + 500])}
        admin.post("/hub/admin/users", data=data, timeout=300)
    for name in names[:servers]:
        admin.post(f"/hub/admin/start/{name}", data={"_xsrf": secret})
    deadline = time.monotonic() + 120
    query = "select count(*) from servers"
    while hub.rows(query)[0][0] < servers or not _all_ready(hub, names[:servers]):
        if time.monotonic() > deadline:
            sys.exit("the servers did not start in two minutes")
        time.sleep(1)


def _all_ready(hub: HubProcess, names: list[str]) -> bool:
    routes = hub.routes()
    return all(f"/user/{name}/" in routes or f"/user/{name}" in routes for name in names)


def measure(admin: Admin, servers: int, views: int) -> list[Figure]:
    """Return the figures of the views and of the live update."""
    bar = (Bar(LIMIT_MS, at_least=False),)
    first = Figure("first_view", "first view of a new hub", "ms", bar)
    first.add(OURS, admin.view("")[0])
    figures = [first]
    for title, query in VIEWS.items():
        figure = Figure(f"view{query}", f"view: {title}", "ms", bar)
        for _ in range(views):
            figure.add(OURS, admin.view(query)[0])
        figures.append(figure)
    live = Figure("live_update", f"live update of {servers} running servers", "ms", bar)
    rows = Figure("live_rows", "rows that are current after one update", "rows",
                  (Bar(min(servers, 50)),))  # fmt: skip
    for _ in range(views):
        took, page = admin.view("?show=running", LIVE)
        live.add(OURS, took)
        rows.add(OURS, len(re.findall(r'data-live="status:[^"]+"><span class="status s', page)))
    return [*figures, live, rows]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("users", 500), ("servers", 50), ("views", 30)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--save", action="store_true")
    asked = parser.parse_args()
    settings = {"users": asked.users, "running servers": asked.servers, "views": asked.views}
    table = Table("pages", OURS, (), settings)
    with tempfile.TemporaryDirectory() as place:
        hub = HubProcess(Path(place) / "hub", {"JupyterHub": {"log_level": "INFO"}}).wait_ready()
        try:
            admin = Admin(hub)
            fill(hub, admin.browser, asked.users, asked.servers)
            for figure in measure(admin, asked.servers, asked.views):
                table.add(figure)
        finally:
            hub.stop(timeout_s=120)
    return table.finish(save=asked.save)


if __name__ == "__main__":
    sys.exit(main())
