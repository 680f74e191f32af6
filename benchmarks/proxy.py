#!/usr/bin/env python3
"""minihub's proxy against configurable-http-proxy and nginx on this machine.

Usage: python3 benchmarks/proxy.py [--rows A,B] [--rounds N] [--seconds S] [--quick] [--save]

Every proxy is pinned to one core, the load and the upstream to another. Each figure is taken in
interleaved rounds (A B C A B C ...); a run during which other programs took much of these two
cores is taken again, within limits. Rivals run their defaults and, beside them, nginx a tuned
configuration; minihub runs its defaults with every limit and check on.

Exit code: 0 when every bar is met, 1 when one is missed.

Threads: the main thread.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import common
from common import Failed, Program, wrk
from figures import Bar, Figure, Table, interleave
from peers import CHP, MINIHUB, NGINX, NGINX_TUNED, TOKEN, Proxies, Proxy, Upstreams

ROUTES = 10_000
SOCKETS = 2_000
MESSAGE_BYTES = 32
UPLOAD_BYTES = 64 * 2**20
#: Seconds that waiting for a calm machine, and measuring again, may cost altogether.
PATIENCE_S = 240.0


class Run:
    """One run of the benchmark: upstreams, proxies, and how long each measurement takes."""

    def __init__(self, arguments: argparse.Namespace, work: Path) -> None:
        self.cores = common.cores()
        self.proxy_core, self.load_core = self.cores[:2]
        self.rounds = arguments.rounds
        self.seconds = arguments.seconds
        self.work = work
        os.sched_setaffinity(0, {self.load_core})  # what we start on our own is load
        self.load = common.build_load()
        self.upstreams = Upstreams(work, [self.load_core])
        self.proxies = Proxies(
            work,
            self.upstreams,
            [self.proxy_core],
            python=arguments.python,
            minihub=arguments.minihub,
        )
        self.calm = common.Calm(self.cores[:2], arguments.patience)
        self._shared: dict[str, Proxy] = {}

    def shared(self, name: str) -> Proxy:
        """Return the proxy of that name that serves many rows, started when first wanted."""
        if name not in self._shared:
            proxy = self._shared[name] = self.proxies.start(name)
            wrk(proxy.url, 16, 1, on=[self.load_core])  # warm
        return self._shared[name]

    def stop(self) -> None:
        for proxy in self._shared.values():
            proxy.stop()
        self.upstreams.stop()

    # -- measuring -------------------------------------------------------------------------

    def interleave(
        self, figures: Iterable[Figure], names: Iterable[str], measure: Callable[[Proxy], list]
    ) -> None:
        """Measure the shared proxies in turn; ``measure`` returns one value for each figure."""
        figures = list(figures)
        proxies = []
        for name in names:
            try:
                proxies.append(self.shared(name))
            except (Failed, OSError) as error:
                for figure in figures:
                    figure.fail(name, error)
        self.take(figures, {proxy.name: bind(measure, proxy) for proxy in proxies}, proxies)

    def take(
        self,
        figures: Iterable[Figure],
        measures: dict[str, Callable[[], list]],
        proxies: Iterable[Proxy] = (),
        count: int = 0,
        cores: Callable[[str], Iterable[int]] = lambda name: (),
    ) -> None:
        """Take samples in turn (:func:`interleave`); ``proxies`` run all the while."""
        programs = [proxy.program for proxy in proxies] + self.upstreams.programs
        interleave(figures, measures, count or self.rounds, self.calm, programs, cores)

    def wrk(self, url: str, connections: int, **kwargs: Any) -> common.Wrk:
        return wrk(url, connections, self.seconds, on=[self.load_core], **kwargs)

    def drive(self, verb: str, port: int, path: str, connections: int, *rest: int) -> dict:
        """Run load.c against a port; return what it found. Raises Failed."""
        words = [verb, port, path, connections, self.seconds, *rest]
        done = subprocess.run(
            ["taskset", "-c", str(self.load_core), self.load, *map(str, words)],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise Failed(done.stderr.strip())
        return json.loads(done.stdout)


def bind(measure: Callable[[Proxy], list], proxy: Proxy) -> Callable[[], list]:
    """Return ``measure`` of that proxy."""
    return lambda: measure(proxy)


def cpu_us(program: Program, work: Callable[[], Any], count: Callable[[Any], float]) -> tuple:
    """Return what ``work`` returns and the program's processor microseconds for each operation."""
    before = program.cpu_s()
    result = work()
    return result, (program.cpu_s() - before) * 1e6 / count(result)


# -- rows ----------------------------------------------------------------------------------


def requests(run: Run, table: Table) -> None:
    rate = Figure(
        "requests",
        "small responses, 64 kept connections",
        "requests/s",
        (Bar(5, CHP), Bar(0.28, NGINX), Bar(0.35, NGINX, note="stretch")),
    )
    tail = Figure("p99_64", "p99 at 64 connections", "ms", (Bar(0.2, CHP, at_least=False),))
    cost = Figure("request_cpu", "processor time per request", "µs")

    def measure(proxy: Proxy) -> list[float]:
        found, cpu = cpu_us(
            proxy.program, lambda: run.wrk(proxy.url, 64), lambda result: result.requests
        )
        return [found.per_s, found.p99_ms, cpu]

    run.interleave((rate, tail, cost), (MINIHUB, CHP, NGINX, NGINX_TUNED), measure)
    for figure in (rate, tail, cost):
        table.add(figure)


def latency(run: Run, table: Table) -> None:
    tail = Figure("p99_256", "p99 at 256 connections", "ms", (Bar(0.2, CHP, at_least=False),))
    run.interleave((tail,), (MINIHUB, CHP, NGINX), lambda proxy: [run.wrk(proxy.url, 256).p99_ms])
    table.add(tail)


def routes(run: Run, table: Table) -> None:
    figure = Figure("routes", f"the same with {ROUTES:,} routes", "requests/s", (Bar(5, CHP),))
    cost = Figure("routes_cpu", "processor time per such request", "µs")
    script = run.work / "routes.lua"
    script.write_text(
        "local requests, turn = {}, 0\n"
        "init = function()\n"
        "  for i = 1, 1000 do\n"
        '    requests[i] = wrk.format("GET", "/user/student-" .. i * 10 - 1 .. "/tree")\n'
        "  end\n"
        "end\n"
        "request = function()\n"
        "  turn = turn % 1000 + 1\n"
        "  return requests[turn]\n"
        "end\n"
    )
    proxies: dict[str, Proxy] = {}
    try:
        for name in (MINIHUB, CHP):
            proxies[name] = run.proxies.start(name)
            register_singly(proxies[name], run.upstreams.plain_port)
            wrk(proxies[name].url, 16, 1, on=[run.load_core])

        def measure(proxy: Proxy) -> list[float]:
            found, cpu = cpu_us(
                proxy.program,
                lambda: run.wrk(proxy.url, 64, script=script),
                lambda result: result.requests,
            )
            return [found.per_s, cpu]

        measures = {name: bind(measure, proxy) for name, proxy in proxies.items()}
        run.take((figure, cost), measures, proxies.values())
    finally:
        for proxy in proxies.values():
            proxy.stop()
    table.add(figure)
    table.add(cost)


def close(run: Run, table: Table) -> None:
    rate = Figure(
        "close", "a connection for each request, 16 at once", "requests/s", (Bar(6, CHP),)
    )
    cost = Figure("close_cpu", "processor time per such request", "µs")
    headers = {"Connection": "close"}

    def measure(proxy: Proxy) -> list[float]:
        found, cpu = cpu_us(
            proxy.program,
            lambda: run.wrk(proxy.url, 16, headers=headers),
            lambda result: result.requests,
        )
        return [found.per_s, cpu]

    run.interleave((rate, cost), (MINIHUB, CHP, NGINX), measure)
    table.add(rate)
    table.add(cost)


def websocket(run: Run, table: Table) -> None:
    rate = Figure("websocket", "WebSocket echoes, 64 connections", "round trips/s", (Bar(2, CHP),))
    cost = Figure(
        "websocket_cpu",
        "processor time per round trip",
        "µs",
        (Bar(0.5, CHP, at_least=False),),
    )

    def measure(proxy: Proxy) -> list[float]:
        found, cpu = cpu_us(
            proxy.program,
            lambda: run.drive("ws", proxy.port, "/load/echo", 64, MESSAGE_BYTES),
            lambda result: result["count"],
        )
        return [found["count"] / found["seconds"], cpu]

    run.interleave((rate, cost), (MINIHUB, CHP, NGINX), measure)
    table.add(rate)
    table.add(cost)


def _bulk(run: Run, table: Table, key: str, verb: str, path: str, bars: tuple, *rest: int) -> None:
    for connections in (1, 4):
        plural = "connection" if connections == 1 else "connections"
        rate = Figure(f"{key}_{connections}", f"{key}, {connections} {plural}", "GB/s", bars)
        cost = Figure(f"{key}_{connections}_cpu", "processor time per GB", "s")

        def measure(proxy: Proxy, connections: int = connections) -> list[float]:
            found, cpu = cpu_us(
                proxy.program,
                lambda: run.drive(verb, proxy.port, path, connections, *rest),
                lambda result: result["bytes"],
            )
            return [found["bytes"] / found["seconds"] / 1e9, cpu * 1e3]

        run.interleave((rate, cost), (MINIHUB, CHP, NGINX, NGINX_TUNED), measure)
        table.add(rate)
        table.add(cost)


def download(run: Run, table: Table) -> None:
    _bulk(run, table, "download", "get", "/big", (Bar(1.2, NGINX), Bar(1.2, NGINX_TUNED)))


def upload(run: Run, table: Table) -> None:
    bars = (Bar(1, NGINX), Bar(1, NGINX_TUNED, note="shown only"))
    _bulk(run, table, "upload", "put", "/load/sink", bars, UPLOAD_BYTES)


def start(run: Run, table: Table) -> None:
    figure = Figure("start", "start to first answer", "s", (Bar(0.25, at_least=False),))

    def once(name: str) -> Callable[[], list[float]]:
        def measure() -> list[float]:
            began = time.monotonic()
            proxy = run.proxies.launch(name)
            try:
                return [proxy.program.wait_answer(proxy.port) - began]
            finally:
                proxy.stop()

        return measure

    names = (MINIHUB, CHP, NGINX)
    run.take((figure,), {name: once(name) for name in names}, count=run.rounds + 2)
    table.add(figure)


def memory(run: Run, table: Table) -> None:
    idle = Figure("memory", "resident memory, idle", "MiB", (Bar(20, at_least=False),))
    full = Figure(
        "memory_routes",
        f"resident memory with {ROUTES:,} routes",
        "MiB",
        (Bar(32, at_least=False),),
    )
    each = Figure(
        "memory_websocket",
        f"resident memory per idle WebSocket, over {SOCKETS:,}",
        "kB",
        (Bar(4, at_least=False),),
    )
    for name in (MINIHUB, CHP, NGINX):
        try:
            proxy = run.proxies.start(name)
            try:
                time.sleep(1)
                idle.add(name, proxy.program.rss_mib())
                if proxy.api_port:
                    register_singly(proxy, run.upstreams.plain_port)
                    time.sleep(1)
                    full.add(name, proxy.program.rss_mib())
            finally:
                proxy.stop()
            proxy = run.proxies.start(name)
            try:
                each.add(name, _memory_per_socket(run, proxy))
            finally:
                proxy.stop()
        except (Failed, OSError) as error:
            for figure in (idle, full, each):
                figure.fail(name, error)
    for figure in (idle, full, each):
        table.add(figure)


def _memory_per_socket(run: Run, proxy: Proxy) -> float:
    time.sleep(0.5)
    before = proxy.program.rss_mib()
    words = [run.load, "hold", str(proxy.port), "/load/silent", str(SOCKETS)]
    holder = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdin and holder.stdout
    if holder.stdout.readline().strip() != "ready":
        raise Failed(f"{SOCKETS} WebSockets could not be opened through {proxy.name}")
    time.sleep(0.5)
    after = proxy.program.rss_mib()
    holder.communicate("")
    return (after - before) * 2**20 / 1000 / SOCKETS


def register_singly(proxy: Proxy, target_port: int) -> float:
    """Add ROUTES routes, one request each, on one kept connection; return the seconds it took.

    Raises Failed when one is not taken.
    """
    requests = []
    for index in range(ROUTES):
        body = json.dumps(
            {"target": f"http://127.0.0.1:{target_port}", "jupyterhub": True, "user": "student"}
        )
        requests.append(
            f"POST /api/routes/user/student-{index} HTTP/1.1\r\nHost: proxy\r\n"
            f"Authorization: token {TOKEN}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", proxy.api_port), timeout=30) as api:
        for request in requests:
            api.sendall(request)
            answer = api.recv(65536)
            # node frames its empty answers as chunks, the last of which may come by itself
            chunked = b"chunked" in answer
            while b"\r\n\r\n" not in answer or (chunked and not answer.endswith(b"0\r\n\r\n")):
                more = api.recv(65536)
                if not more:
                    raise Failed(f"{proxy.name} hung up in the middle of {ROUTES} routes")
                answer += more
            if answer[9:12] != b"201":
                raise Failed(f"{proxy.name} answered {answer[:40]!r} to a new route")
    return time.monotonic() - began


def register_in_bulk(proxy: Proxy, target_port: int) -> float:
    """Add ROUTES routes with one request; return the seconds it took. Raises Failed."""
    data = {"target": f"http://127.0.0.1:{target_port}", "jupyterhub": True, "user": "student"}
    body = {"routes": {f"/user/student-{index}": data for index in range(ROUTES)}}
    began = time.monotonic()
    status = proxy.api("POST", "/api/routes", body)
    if status != 201:
        raise Failed(f"the bulk request was answered {status}")
    taken = time.monotonic() - began
    if common.exchange(
        proxy.api_port,
        f"GET /api/routes/user/student-{ROUTES - 1} HTTP/1.1\r\nHost: proxy\r\n"
        f"Authorization: token {TOKEN}\r\nConnection: close\r\n\r\n".encode(),
    )[9:12] != b"200":  # fmt: skip
        raise Failed("the bulk request was answered 201, but its last route is not there")
    return taken


def register(run: Run, table: Table) -> None:
    singly = Figure(
        "register", f"{ROUTES:,} routes registered singly", "s", (Bar(2.5, at_least=False),)
    )
    bulk = Figure(
        "register_bulk",
        f"{ROUTES:,} routes registered in bulk",
        "s",
        (Bar(0.5, at_least=False),),
    )

    def once(name: str, how: Callable[[Proxy, int], float]) -> Callable[[], list[float]]:
        def measure() -> list[float]:
            proxy = run.proxies.start(name)
            try:
                return [how(proxy, run.upstreams.plain_port)]
            finally:
                proxy.stop()

        return measure

    for figure, how, names in (
        (singly, register_singly, (MINIHUB, CHP)),
        (bulk, register_in_bulk, (MINIHUB,)),
    ):
        measures = {name: once(name, how) for name in names}
        run.take((figure,), measures, count=min(3, run.rounds))
        table.add(figure)


def workers(run: Run, table: Table) -> None:
    """Compare two workers with one.

    With four cores or more the proxy gets one or two of them, the load the others. With fewer,
    one worker shares one core with its load, and two share two with theirs: whatever scales
    perfectly does twice the work on twice the cores.
    """
    one_title, two_title = "one worker", "two workers"
    cores = run.cores
    if len(cores) >= 4:
        places = {one_title: (cores[:1], cores[2:]), two_title: (cores[:2], cores[2:])}
        title = "two workers on two cores against one"
    else:
        places = {one_title: (cores[:1], cores[:1]), two_title: (cores[:2], cores[:2])}
        title = "two workers on two cores against one, load and upstream on the same cores"
    figure = Figure("workers", title, "× requests/s", (Bar(1.6),))
    if not run.proxies.has_option("--workers"):
        figure.fail(MINIHUB, "this proxy has no option --workers")
        table.add(figure)
        return
    rates = Figure("workers_rates", title, "requests/s")

    def once(name: str) -> Callable[[], list[float]]:
        mine, load = places[name]

        def measure() -> list[float]:
            args = ["--workers", "2" if name == two_title else "1"]
            proxy = run.proxies.start(MINIHUB, on=mine, args=args)
            for program in run.upstreams.programs:
                program.move(load)
            try:
                wrk(proxy.url, 16, 1, on=load)
                return [wrk(proxy.url, 64, run.seconds, on=load).per_s]
            finally:
                proxy.stop()
                for program in run.upstreams.programs:
                    program.move([run.load_core])

        return measure

    measures = {name: once(name) for name in places}
    run.take((rates,), measures, cores=lambda name: {*places[name][0], *places[name][1]})
    figure.foreign = rates.foreign
    for one, two in zip(*(rates.samples.get(name, []) for name in places), strict=False):
        figure.add(MINIHUB, two / one)
    if rates.failures:
        figure.fail(MINIHUB, "; ".join(rates.failures.values()))
    table.add(figure)


ROWS: dict[str, Callable[[Run, Table], None]] = {
    "requests": requests,
    "latency": latency,
    "routes": routes,
    "close": close,
    "websocket": websocket,
    "download": download,
    "upload": upload,
    "start": start,
    "memory": memory,
    "register": register,
    "workers": workers,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", default=",".join(ROWS), help=f"some of: {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="of load in each run")
    parser.add_argument(
        "--patience", type=float, default=PATIENCE_S, help="seconds to spend on a calm machine"
    )
    parser.add_argument("--quick", action="store_true", help="two rounds of a second")
    parser.add_argument("--save", action="store_true", help="keep the results in results/")
    parser.add_argument("--python", default=sys.executable, help="the Python of minihub's proxy")
    parser.add_argument(
        "--minihub",
        type=Path,
        default=common.ROOT / "minihub" / "__main__.py",
        help="minihub.pyz, or the __main__.py of a checkout",
    )
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.seconds, arguments.patience = 2, 1, 30
    rows = arguments.rows.split(",")
    for name in rows:
        if name not in ROWS:
            parser.error(f"no row {name!r}; there are {', '.join(ROWS)}")
    common.need("wrk", "nginx", "taskset", "cc", "node")
    common.raise_descriptor_limit()
    work = Path(tempfile.mkdtemp(prefix="minihub-bench-"))
    work.chmod(0o755)  # nginx's worker is another user when we are root
    settings = {
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "python": subprocess.check_output([arguments.python, "-VV"], text=True).strip(),
        "rivals": f"configurable-http-proxy {common.CHP_VERSION}, {version_of('nginx', '-v')}",
    }
    table = Table("proxy", MINIHUB, [CHP, NGINX, NGINX_TUNED], settings)
    run = None
    began = time.monotonic()
    try:
        common.install_chp()
        run = Run(arguments, work)
        for name in rows:
            ROWS[name](run, table)
    finally:
        if run is not None:
            run.stop()
        shutil.rmtree(work, ignore_errors=True)
    table.notes.append(f"The run took {time.monotonic() - began:.0f} s.")
    return table.finish(save=arguments.save)


def version_of(*command: str) -> str:
    """Return what a program prints of its version, on either stream."""
    done = subprocess.run(command, capture_output=True, text=True)
    return (done.stdout + done.stderr).strip().splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
