#!/usr/bin/env python3
"""minihub against JupyterHub with its own proxy, on this machine and in the same run.

Usage: python3 benchmarks/hub.py [--rows A,B] [--rounds N] [--seconds S] [--quick] [--save]

Requests go straight at the hub, which is pinned to one core while the load has another; servers
are started and stopped with all cores for everybody. Each figure is taken in interleaved rounds.

Exit code: 0 when every bar is met, 1 when one is missed.

Threads: the main thread; starts and stops of servers are asked for in one thread each.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import common
from common import Failed, Program, wrk
from figures import Bar, Figure, Table, interleave
from hubs import JUPYTERHUB, MINIHUB, SERVICE_TOKEN, Hub, build_minihub, code_directory, lab_bin

EMPTY_ROUTE = "empty route"
FEW = "minihub, 100 users"
USERS = 1000
MANY_USERS = 10_000
SERVERS = 50
#: Seconds that waiting for a calm machine, and measuring again, may cost altogether.
PATIENCE_S = 240.0
BOTH = (MINIHUB, JUPYTERHUB)
PAGES = "application/jupyterhub-pagination+json"
SERVICE = {"Authorization": f"token {SERVICE_TOKEN}"}


class Run:
    """One run of the benchmark: the hubs, and how long each measurement takes."""

    def __init__(self, arguments: argparse.Namespace, work: Path) -> None:
        self.cores = common.cores()
        self.hub_core, self.load_core = self.cores[:2]
        self.rounds = arguments.rounds
        self.seconds = arguments.seconds
        self.python = arguments.python
        self.minihub = arguments.minihub or build_minihub()
        self.lab = lab_bin()
        self.work = work
        self.calm = common.Calm(self.cores, arguments.patience)
        self._hubs: dict[str, Hub] = {}
        self.users = [f"student-{index}" for index in range(USERS)]

    def make(self, name: str, place: str) -> Hub:
        """Return a hub of that kind that has not been started, with a database of its own."""
        lab = self.lab if name == JUPYTERHUB else None
        return Hub(self.work / place, self.python, self.minihub, lab)

    def hub(self, name: str) -> Hub:
        """Return the hub that serves many rows, with USERS users; started when first wanted."""
        if name not in self._hubs:
            hub = self.make(name, name)
            hub.start(self.cores)
            self._hubs[name] = hub
            hub.add_users(self.users)
            hub.token = hub.new_token(self.users[0])
        return self._hubs[name]

    def stop(self) -> None:
        for hub in self._hubs.values():
            hub.stop()

    def take(
        self,
        figures: Iterable[Figure],
        measures: dict[str, Callable[[], list]],
        programs: Iterable[Program] = (),
        count: int = 0,
    ) -> None:
        """Take samples in turn (:func:`interleave`); ``programs`` run all the while."""
        interleave(figures, measures, count or self.rounds, self.calm, programs)

    def by_wrk(
        self,
        figure: Figure,
        names: Iterable[str],
        path: str,
        pick: Callable[[common.Wrk], float],
        *,
        connections: int = 1,
        headers: Callable[[Hub], dict[str, str]] = lambda hub: SERVICE,
        script: Callable[[Hub, int], Path] | None = None,
        hubs: dict[str, Hub] | None = None,
        cost: Figure | None = None,
    ) -> None:
        """Take a figure's samples with wrk; ``script`` writes one for a hub and a turn.

        ``cost`` gets the processor time of hub and proxy for each request.
        """
        found: dict[str, Hub] = {}
        for name in names:
            try:
                found[name] = hubs[name] if hubs else self.hub(name)
                found[name].program.move([self.hub_core])
            except (Failed, OSError) as error:
                figure.fail(name, error)
        turn = 0

        def measure(hub: Hub) -> list[float]:
            nonlocal turn
            turn += 1
            before = hub.program.cpu_s()
            result = wrk(
                hub.url + path,
                connections,
                self.seconds,
                on=[self.load_core],
                headers=headers(hub),
                script=script(hub, turn) if script else None,
            )
            used = hub.program.cpu_s() - before
            return [pick(result), *([used * 1e3 / result.requests] if cost else [])]

        def bind(hub: Hub) -> Callable[[], list]:
            return lambda: measure(hub)

        figures = [figure, cost] if cost else [figure]
        programs = [hub.program for hub in found.values()]
        self.take(figures, {name: bind(hub) for name, hub in found.items()}, programs)
        for hub in found.values():
            hub.program.move(self.cores)


def rate(found: common.Wrk) -> float:
    return found.per_s


def each_ms(found: common.Wrk) -> float:
    return found.p50_ms


def by_user(hub: Hub) -> dict[str, str]:
    return {"Authorization": f"token {hub.token}"}


# -- rows ----------------------------------------------------------------------------------


def token(run: Run, table: Table) -> None:
    whoami = Figure(
        "token",
        "GET /hub/api/user with a token, 16 connections",
        "requests/s",
        (Bar(6, JUPYTERHUB), Bar(8, JUPYTERHUB, note="stretch")),
    )
    cost = Figure("token_cpu", "processor time per such request", "ms")
    run.by_wrk(whoami, BOTH, "/hub/api/user", rate, connections=16, headers=by_user, cost=cost)
    log = run.work / "empty-route.log"
    script = common.HERE / "empty_route.py"
    argv = [run.python, script, code_directory(run.minihub)]
    empty = Program(argv, log, on=[run.hub_core])
    try:
        port = int(empty.wait_text(r"port (\d+)")[1])
        url = f"http://127.0.0.1:{port}/"

        def measure() -> list[float]:
            before = empty.cpu_s()
            found = wrk(url, 16, run.seconds, on=[run.load_core])
            return [found.per_s, (empty.cpu_s() - before) * 1e3 / found.requests]

        run.take((whoami, cost), {EMPTY_ROUTE: measure}, [empty])
    except Failed as error:
        whoami.fail(EMPTY_ROUTE, error)
    finally:
        empty.stop()
    table.add(whoami)
    table.add(cost)
    version = Figure("version", "GET /hub/api, 16 connections", "requests/s", (Bar(2, JUPYTERHUB),))
    run.by_wrk(version, BOTH, "/hub/api", rate, connections=16, headers=lambda hub: {})
    table.add(version)


def users(run: Run, table: Table) -> None:
    page = Figure(
        "users_page",
        f"GET /hub/api/users?limit=200, {USERS:,} users",
        "ms",
        (Bar(1 / 8, JUPYTERHUB, at_least=False),),
    )
    run.by_wrk(page, BOTH, "/hub/api/users?limit=200", each_ms)
    table.add(page)
    one = Figure(
        "one_user", "GET /hub/api/users/NAME", "ms", (Bar(1 / 6, JUPYTERHUB, at_least=False),)
    )
    run.by_wrk(one, BOTH, f"/hub/api/users/{run.users[7]}", each_ms)
    table.add(one)
    # Last: every one of its requests leaves a user behind.
    create = Figure(
        "create_user", "POST /hub/api/users/NAME", "ms", (Bar(1 / 6, JUPYTERHUB, at_least=False),)
    )
    run.by_wrk(create, BOTH, "/", each_ms, script=create_script(run))
    table.add(create)


def create_script(run: Run) -> Callable[[Hub, int], Path]:
    """Return what writes a wrk script that creates ever new users."""

    def write(hub: Hub, turn: int) -> Path:
        script = run.work / "create.lua"
        script.write_text(
            "local n = 0\n"
            "request = function()\n"
            "  n = n + 1\n"
            f'  return wrk.format("POST", "/hub/api/users/made-{turn}-" .. n)\n'
            "end\n"
        )
        return script

    return write


def login(run: Run, table: Table) -> None:
    bar = (Bar(1 / 3, JUPYTERHUB, at_least=False),)
    known = Figure("login", "login POST to redirect, known user", "ms", bar)
    fresh = Figure("login_new", "login POST to redirect, new user", "ms", bar)
    for figure, name in ((known, '"student-" .. n % 100'), (fresh, '"new-{turn}-" .. n')):
        run.by_wrk(figure, BOTH, "/", each_ms, script=login_script(run, name))
        table.add(figure)


def login_script(run: Run, name: str) -> Callable[[Hub, int], Path]:
    """Return what writes a wrk script that logs in users named by a Lua expression."""
    place = run.work / "login.lua"
    return lambda hub, turn: hub.login_script(place, name.replace("{turn}", str(turn)))


def start(run: Run, table: Table) -> None:
    title = "ready after start, warm"
    installed = Figure("start", title, "s", (Bar(1 / 4, JUPYTERHUB, at_least=False),))
    blocked = Figure(
        "start_unburdened",
        f"{title}, JupyterHub without the grammar that a package builds at import",
        "s",
        (Bar(1 / 2.5, JUPYTERHUB, at_least=False),),
    )
    ours, theirs = run.make(MINIHUB, "start-minihub"), run.make(JUPYTERHUB, "start-jupyterhub")

    def once(hub: Hub, **kwargs: bool) -> Callable[[], list[float]]:
        def measure() -> list[float]:
            try:
                return [hub.start(run.cores, **kwargs)]
            finally:
                hub.stop()

        return measure

    measures = {MINIHUB: once(ours), JUPYTERHUB: once(theirs)}
    for name, measure in measures.items():
        try:
            measure()  # unpacks, compiles, creates the database
        except (Failed, OSError) as error:
            installed.fail(name, error)
            blocked.fail(name, error)
    run.take((installed,), measures)
    measures = {MINIHUB: once(ours), JUPYTERHUB: once(theirs, block_grammar=True)}
    run.take((blocked,), measures)
    table.add(installed)
    table.add(blocked)


def memory(run: Run, table: Table) -> None:
    bar = (Bar(1 / 2, JUPYTERHUB, at_least=False),)
    idle = Figure("memory", "resident memory of hub and proxy, idle", "MiB", bar)
    full = Figure("memory_spawned", f"the same after {SERVERS} starts", "MiB", bar)
    for name in BOTH:
        hub = run.make(name, f"memory-{name}")
        try:
            hub.start(run.cores)
            time.sleep(2)
            idle.add(name, hub.rss_mib())
            names = [f"student-{index}" for index in range(SERVERS)]
            hub.add_users(names)
            hub.each(names, hub.start_server)
            time.sleep(2)
            full.add(name, hub.rss_mib())
        except (Failed, OSError) as error:
            idle.fail(name, error)
            full.fail(name, error)
        finally:
            hub.stop()
    table.add(idle)
    table.add(full)


def servers(run: Run, table: Table) -> None:
    sooner = (Bar(1 / 2, JUPYTERHUB, at_least=False),)
    figures = {
        "start_20": Figure("start_20", "20 servers, from POST to all ready", "s", sooner),
        "start_50": Figure("start_50", f"{SERVERS} servers, from POST to all ready", "s", sooner),
        "cpu_50": Figure(
            "cpu_50",
            f"the hub's processor time for {SERVERS}",
            "s",
            (Bar(1 / 3, JUPYTERHUB, at_least=False),),
        ),
        "stop_50": Figure(
            "stop_50",
            f"{SERVERS} servers stopped",
            "s",
            (Bar(1 / 1.5, JUPYTERHUB, at_least=False),),
        ),
    }
    some, all_ = run.users[:20], run.users[:SERVERS]

    hubs = {}
    for name in BOTH:
        try:
            hubs[name] = run.hub(name)
        except (Failed, OSError) as error:
            for figure in figures.values():
                figure.fail(name, error)

    def once(hub: Hub) -> Callable[[], list[float]]:
        def measure() -> list[float]:
            first = hub.each(some, hub.start_server)
            hub.each(some, hub.stop_server)
            before = hub.program.own_cpu_s()
            second = hub.each(all_, hub.start_server)
            used = hub.program.own_cpu_s() - before
            return [first, second, used, hub.each(all_, hub.stop_server)]

        return measure

    measures = {name: once(hub) for name, hub in hubs.items()}
    programs = [hub.program for hub in hubs.values()]
    run.take(figures.values(), measures, programs, count=min(3, run.rounds))
    for figure in figures.values():
        table.add(figure)


def many(run: Run, table: Table) -> None:
    """Take every figure again with MANY_USERS users, against 100."""
    hubs = {MINIHUB: run.make(MINIHUB, "many"), FEW: run.make(MINIHUB, "few")}
    suffix = f", {MANY_USERS:,} users"
    slower = (Bar(1.5, FEW, at_least=False),)
    faster = (Bar(round(1 / 1.5, 3), FEW),)
    try:
        for (_name, hub), count in zip(hubs.items(), (MANY_USERS, 100), strict=True):
            hub.start(run.cores)
            hub.add_users([f"student-{index}" for index in range(count)] + ["zebra"])
            hub.token = hub.new_token("student-42")
        for key, title, unit, bars, path, more in (
            ("many_token", "GET /hub/api/user", "requests/s", faster, "/hub/api/user",
             {"pick": rate, "connections": 16, "headers": by_user}),
            ("many_page", "GET /hub/api/users?limit=50", "ms", slower,
             "/hub/api/users?limit=50", {}),
            ("many_paged", "the same as a page, with the total", "ms", slower,
             "/hub/api/users?limit=50",
             {"headers": lambda hub: SERVICE | {"Accept": PAGES}}),
            ("many_search", "GET /hub/api/users?name_filter=ebr, one found", "ms", slower,
             "/hub/api/users?name_filter=ebr&limit=50", {}),
            ("many_one", "GET /hub/api/users/NAME", "ms", slower,
             "/hub/api/users/student-42", {}),
            ("many_login", "login POST to redirect, known user", "ms", slower, "/",
             {"script": login_script(run, '"student-" .. n % 100')}),
            ("many_create", "POST /hub/api/users/NAME", "ms", slower, "/",
             {"script": create_script(run)}),
        ):  # fmt: skip
            figure = Figure(key, title + suffix, unit, bars)
            pick = more.pop("pick", each_ms)
            run.by_wrk(figure, hubs, path, pick, hubs=hubs, **more)
            table.add(figure)
        memory_ = Figure("many_memory", "resident memory of hub and proxy" + suffix, "MiB", slower)
        ready = Figure("many_start", "ready after start" + suffix, "s", slower)

        def restart(hub: Hub) -> Callable[[], list[float]]:
            def measure() -> list[float]:
                hub.stop()
                return [hub.start(run.cores)]

            return measure

        run.take((ready,), {name: restart(hub) for name, hub in hubs.items()})
        time.sleep(2)
        for name, hub in hubs.items():
            memory_.add(name, hub.rss_mib())
        table.add(ready)
        table.add(memory_)
    finally:
        for hub in hubs.values():
            hub.stop()


ROWS: dict[str, Callable[[Run, Table], None]] = {
    "token": token,
    "users": users,
    "login": login,
    "start": start,
    "memory": memory,
    "servers": servers,
    "many": many,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", default=",".join(ROWS), help=f"some of: {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2, help="of load in each run")
    parser.add_argument(
        "--patience", type=float, default=PATIENCE_S, help="seconds to spend on a calm machine"
    )
    parser.add_argument("--quick", action="store_true", help="two rounds of a second")
    parser.add_argument("--save", action="store_true", help="keep the results in results/")
    parser.add_argument("--python", default=sys.executable, help="the Python of minihub")
    parser.add_argument(
        "--minihub",
        type=Path,
        help="minihub.pyz, or the __main__.py of a checkout (default: built from this checkout)",
    )
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.seconds, arguments.patience = 2, 1, 30
    rows = arguments.rows.split(",")
    for name in rows:
        if name not in ROWS:
            parser.error(f"no row {name!r}; there are {', '.join(ROWS)}")
    common.need("wrk", "taskset", "node")
    common.raise_descriptor_limit()
    common.install_chp()
    work = Path(tempfile.mkdtemp(prefix="minihub-bench-"))
    run = None
    began = time.monotonic()
    try:
        run = Run(arguments, work)
        settings = {
            "rounds": arguments.rounds,
            "seconds": arguments.seconds,
            "python": subprocess.check_output([arguments.python, "-VV"], text=True).strip(),
            "rival": subprocess.check_output([run.lab / "jupyterhub", "--version"], text=True)
            .strip()
            .join(("JupyterHub ", f", configurable-http-proxy {common.CHP_VERSION}")),
        }
        table = Table("hub", MINIHUB, [JUPYTERHUB, EMPTY_ROUTE, FEW], settings)
        for name in rows:
            ROWS[name](run, table)
    finally:
        if run is not None:
            run.stop()
        shutil.rmtree(work, ignore_errors=True)
    table.notes.append(f"The run took {time.monotonic() - began:.0f} s.")
    return table.finish(save=arguments.save)


if __name__ == "__main__":
    sys.exit(main())
