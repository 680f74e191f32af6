#!/usr/bin/env python3
"""A class begins: JupyterLab for 1, 10 and 30 people, from their request until all are ready.

Usage: python3 benchmarks/class_start.py [--counts 1,10,30] [--rounds N] [--firsts N]
       [--within SECONDS] [--only NAMES] [--save]

The servers are an unmodified jupyterhub-singleuser with JupyterLab. minihub starts them warm, and
for comparison cold; JupyterHub starts them with its SimpleLocalProcessSpawner behind
configurable-http-proxy. All on all cores, one hub at a time, in interleaved rounds. Memory is PSS,
in which shared pages are divided among their users, of all servers, with the warm parent. Meanwhile
the hub's API is asked for a user every 50 ms (20 ms for one server).

First starts come before the rounds: hubs that are new, one warm and one cold in turn, each with a
server that is asked for as soon as the hub answers; then the same hub, started again. A start that
does not count comes before, so that no hub is the one that reads the files from the disk. After
them, once, a whole class begins with a new hub.

JupyterLab asks npm, where there is one, for its directory at every start, and that costs as much
processor time as a good part of a warm start. JupyterHub needs node for its proxy, and who installs
that as its documentation says has npm on the servers' PATH; minihub needs neither. So there are two
sets of rows: with npm, as on this machine and on JupyterHub's, and without npm on the PATH of any
contestant's servers, as on a machine that never had JupyterHub. The bar counts in both.

Exit code: 0 when every bar is met, 1 when one is missed.

Threads: the main thread; one for each start, and one that asks the API.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import common
from common import Failed
from figures import Bar, Figure, Table
from hubs import JUPYTERHUB, MINIHUB, Hub, build_minihub, lab_bin

COLD = "minihub, cold"
CONTESTANTS = (MINIHUB, COLD, JUPYTERHUB)
PROGRAM = "jupyterhub-singleuser"
#: Words that mark a server, or the process that servers are forked from, on a command line.
MARKS = (PROGRAM.encode(), b"warmparent")
WARM_TIMEOUT_S = 120.0
READY_TIMEOUT_S = 300.0
#: Between two questions to the API: for one server, and for many.
STEP_S = (0.02, 0.05)
#: How many more times a round starts one server, which takes a moment and varies.
AGAIN = 2
#: Programs that rows "without npm" keep from servers.
NPM = ("npm", "npx")
#: How many servers have to be so much sooner than JupyterHub's.
BARRED = (1, 30)
#: First starts: what was learned of the program is not known yet, and known.
FIRSTS = {
    "first-new": "first start of a new hub, right after its own",
    "first-again": "first start of a hub started again, right after its own",
}
#: A class that begins with its hub.
CLASS = "first-class"
#: What the rows of each PATH are called.
WITH, WITHOUT = "", ", no npm"


class ClassHub(Hub):
    """A hub whose servers are JupyterLab."""

    def __init__(
        self, work: Path, python: str, minihub: Path, lab: Path, name: str, path: str = ""
    ) -> None:
        """``path`` is the PATH of servers; "" for the hub's own."""
        self.lab = lab
        self.name = name
        self.path = path
        super().__init__(work, python, minihub, lab if name == JUPYTERHUB else None)

    def _settings(self, server: list[str]) -> dict[str, dict[str, Any]]:
        settings = super()._settings([str(self.lab / PROGRAM)])
        settings["JupyterHub"]["log_level"] = 20
        settings["Spawner"] |= {
            "args": ["--allow-root"] if os.geteuid() == 0 else [],
            "start_timeout": 240,
            "http_timeout": 240,
            "environment": {"PATH": self.path} if self.path else {},
        }
        if self.is_minihub:
            warm = "off" if self.name == COLD else "auto"
            settings["LocalProcessSpawner"] = {"warm": warm}
        return settings

    def wait_warm(self) -> float:
        """Wait until servers would start warm; return how long that took. Raises Failed."""
        began = time.monotonic()
        if self.name == MINIHUB:
            self.program.wait_text(rf"{PROGRAM} is warm", WARM_TIMEOUT_S)
        return time.monotonic() - began

    def begin(self, names: list[str]) -> float:
        """Start everybody's server at once; return the seconds until all are ready."""

        def ask(name: str) -> None:
            status, answer = self.call("POST", f"/users/{name}/server")
            if status not in (201, 202):
                raise Failed(f"a start was answered {status}: {str(answer)[:200]}")

        began = time.monotonic()
        self.each(names, ask)
        waiting = set(names)
        while waiting:
            name = next(iter(waiting))
            server = self.must(200, "GET", f"/users/{name}")["servers"].get("")
            if server and server["ready"]:
                waiting.discard(name)
                continue
            if not server or not server.get("pending"):
                raise Failed(f"the server of {name} did not start")
            if time.monotonic() - began > READY_TIMEOUT_S:
                raise Failed(f"{len(waiting)} servers are not ready after {READY_TIMEOUT_S:g} s")
            time.sleep(STEP_S[len(names) > 1])
        return time.monotonic() - began

    def check_warm(self, count: int) -> None:
        """Raise Failed unless the last so many servers started as they were to."""
        if self.is_minihub:
            lines = [line for line in self.program.text.splitlines() if ": pid " in line]
            how = "cold" if self.name == COLD else "warm"
            if not all(line.endswith(f", {how}") for line in lines[-count:]):
                raise Failed(f"not all servers started {how}")

    def end(self, names: list[str]) -> None:
        """Stop everybody's server."""
        self.each(names, self.stop_server)

    def pss_mib(self) -> float:
        """Return the memory of all servers and of what they were forked from."""
        total = 0
        for pid in self.program.pids():
            try:
                if any(mark in Path(f"/proc/{pid}/cmdline").read_bytes() for mark in MARKS):
                    total += pss_kib(pid)
            except OSError:
                continue
        return total / 1024


def without_npm(place: Path) -> str:
    """Return a PATH with the programs of this one but for npm, as links in a new directory."""
    place.mkdir()
    for directory in os.get_exec_path():
        for file in Path(directory).glob("*"):
            link = place / file.name
            if file.name not in NPM and not link.is_symlink() and file.is_file():
                link.symlink_to(file.absolute())
    for name in NPM:
        if shutil.which(name, path=str(place)):
            raise Failed(f"{name} is still there")
    return str(place)


def pss_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


class Asker:
    """Asks a hub's API for a user again and again, and notes how long each answer took."""

    def __init__(self, hub: ClassHub, name: str, step_s: float) -> None:
        self.hub = hub
        self.step_s = step_s
        self.name = name
        self.took_ms: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Asker:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._stop.wait(self.step_s):
            began = time.monotonic()
            self.hub.must(200, "GET", f"/users/{self.name}")
            self.took_ms.append((time.monotonic() - began) * 1000)

    def p99_ms(self) -> float:
        ordered = sorted(self.took_ms)
        return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] if ordered else 0.0


class Run:
    """The figures of all contestants, filled round by round."""

    def __init__(self, arguments: argparse.Namespace, work: Path) -> None:
        self.cores = common.cores()
        self.work = work
        self.python = arguments.python
        self.minihub = build_minihub()
        self.lab = lab_bin()
        self.counts = sorted(int(count) for count in arguments.counts.split(","))
        self.firsts = arguments.firsts
        self.names = arguments.only.split(";") if arguments.only else list(CONTESTANTS)
        self.figures = {key: figure for key, figure in self._figures()}

    def _figures(self) -> Any:
        bars = (Bar(1.1, COLD, at_least=False),)
        for key, title in FIRSTS.items() if self.firsts else ():
            yield key, Figure(key, title, "s", bars)
        if self.firsts:
            bars = (Bar(0.5, COLD, at_least=False),)
            title = f"{self.counts[-1]} servers of a new hub, right after its own start"
            yield CLASS, Figure(CLASS, title, "s", bars)
        for count in self.counts:
            people = f"{count} server{'s' if count > 1 else ''}"
            yield self._ready(count, people, WITH)
            bars = (Bar(0.5, JUPYTERHUB, at_least=False),) if count >= 10 else ()
            title = f"memory of each of {people}"
            yield f"memory-{count}", Figure(f"memory-{count}", title, "MiB", bars)
            bars = (Bar(100, at_least=False),) if count > 1 else ()
            title = f"API meanwhile, {people}, p99"
            yield f"api-{count}", Figure(f"api-{count}", title, "ms", bars)
        for count in self.counts:
            if count in BARRED:
                people = f"{count} server{'s' if count > 1 else ''}"
                yield self._ready(count, people, WITHOUT)

    @staticmethod
    def _ready(count: int, people: str, path: str) -> tuple[str, Figure]:
        bars = (Bar(0.1, JUPYTERHUB, at_least=False),) if count in BARRED else ()
        key = f"ready-{count}{path}"
        return key, Figure(key, f"{people} until ready{path}", "s", bars)

    def first(self, number: int) -> None:
        """Take the first starts of two new hubs, one warm and one cold; the order alternates."""
        pair = [name for name in (MINIHUB, COLD) if name in self.names]
        for name in pair[:: 1 if number % 2 else -1]:
            try:
                self._first(name, self.work / f"first-{number}-{len(name)}", count=number >= 0)
            except (Failed, OSError) as error:
                for key in FIRSTS:
                    self.figures[key].fail(name, error)

    def _first(self, name: str, place: Path, *, count: bool) -> None:
        hub = ClassHub(place, self.python, self.minihub, self.lab, name)
        for key in FIRSTS if count else list(FIRSTS)[:1]:
            try:
                hub.start(self.cores)
                if not (place / "asked").exists():
                    hub.add_users(["student"])
                    (place / "asked").touch()
                took = hub.begin(["student"])
                if count:
                    self.figures[key].add(name, took)
                    print(f"  {name}: {self.figures[key].title}: {took:.2f} s", flush=True)
                hub.end(["student"])
                hub.wait_warm()
            finally:
                hub.stop()

    def first_class(self) -> None:
        """Start everybody's server as soon as a new hub answers."""
        everybody = [f"student-{index}" for index in range(self.counts[-1])]
        for name in (MINIHUB, COLD):
            if name not in self.names:
                continue
            place = self.work / f"class-{len(name)}"
            hub = ClassHub(place, self.python, self.minihub, self.lab, name)
            try:
                hub.start(self.cores)
                hub.add_users(everybody)
                took = hub.begin(everybody)
                self.figures[CLASS].add(name, took)
                print(f"  {name}: {self.figures[CLASS].title}: {took:.2f} s", flush=True)
                hub.end(everybody)
            except (Failed, OSError) as error:
                self.figures[CLASS].fail(name, error)
            finally:
                hub.stop()

    def round(self, number: int) -> None:
        """Measure each contestant, with npm on its servers' PATH and without."""
        bare = [count for count in self.counts if count in BARRED]
        for path, counts in ((WITH, self.counts), (WITHOUT, bare)):
            for name in self.names:
                if path == WITHOUT and name == COLD:
                    continue  # no bar compares with it
                place = self.work / f"{number}-{name.replace(', ', '-')}{path.replace(', ', '-')}"
                try:
                    self._measure(name, place, path, counts)
                except (Failed, OSError) as error:
                    for key, figure in self.figures.items():
                        if key not in (*FIRSTS, CLASS) and key.endswith(WITHOUT) == (
                            path == WITHOUT
                        ):
                            figure.fail(name, error)

    def _measure(self, name: str, place: Path, path: str, counts: list[int]) -> None:
        servers_path = without_npm(self.work / f"{place.name}-bin") if path == WITHOUT else ""
        hub = ClassHub(place, self.python, self.minihub, self.lab, name, servers_path)
        try:
            hub.start(self.cores)
            everybody = [f"student-{index}" for index in range(max(counts))]
            hub.add_users([*everybody, "watcher"])
            hub.wait_warm()
            for count in [*[1] * AGAIN, *counts] if 1 in counts else counts:
                with Asker(hub, "watcher", STEP_S[count > 1]) as asker:
                    took = hub.begin(everybody[:count])
                self.figures[f"ready-{count}{path}"].add(name, took)
                if path == WITH:
                    self.figures[f"memory-{count}"].add(name, hub.pss_mib() / count)
                    self.figures[f"api-{count}"].add(name, asker.p99_ms())
                hub.check_warm(count)
                print(f"  {name}: {count} ready after {took:.2f} s{path}", flush=True)
                hub.end(everybody[:count])
        finally:
            hub.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--counts", default="1,10,30")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--firsts", type=int, default=5, help="how many hubs start a first server")
    within = "begin no further round that would end later than so many seconds"
    parser.add_argument("--within", type=float, default=3600.0, help=within)
    parser.add_argument("--only", help=f"some of: {'; '.join(CONTESTANTS)}")
    parser.add_argument("--save", action="store_true", help="keep the results in results/")
    parser.add_argument("--python", default=sys.executable, help="the Python of minihub")
    arguments = parser.parse_args()
    common.need("node", "npm", "taskset")
    common.raise_descriptor_limit()
    common.install_chp()
    work = Path(tempfile.mkdtemp(prefix="minihub-class-"))
    began = time.monotonic()
    try:
        run = Run(arguments, work)
        version = subprocess.check_output([run.lab / "jupyterhub", "--version"], text=True).strip()
        settings = {
            "rounds": "",
            "python": subprocess.check_output([arguments.python, "-VV"], text=True).strip(),
            "rival": f"JupyterHub {version}, configurable-http-proxy {common.CHP_VERSION}",
        }
        table = Table("class_start", MINIHUB, [COLD, JUPYTERHUB], settings)
        for number in range(-1, arguments.firsts or -1):
            run.first(number)
        if arguments.firsts:
            run.first_class()
        rounds = 0
        while rounds < arguments.rounds:
            round_began = time.monotonic()
            run.round(rounds)
            rounds += 1
            took = time.monotonic() - round_began
            if time.monotonic() + took > began + arguments.within:
                break
        table.settings["rounds"] = f"{rounds}, and {arguments.firsts} pairs of first starts"
        for figure in run.figures.values():
            table.add(figure)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    table.notes.append(f"The run took {time.monotonic() - began:.0f} s.")
    return table.finish(save=arguments.save)


if __name__ == "__main__":
    sys.exit(main())
