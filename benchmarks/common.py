"""What the benchmarks share: programs, pinned processes, wrk, samples, bars and tables.

Rules of this file: standard library only. A figure is a set of samples per contestant, taken in
interleaved rounds; what counts is the median. A failed measurement is a missed bar, never a
missing line.

Threads: the main thread.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
CACHE = ROOT / ".cache" / "benchmarks"
RESULTS = HERE / "results"
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")

#: Debian packages of the programs that may be missing.
PACKAGES = {
    "wrk": "wrk",
    "nginx": "nginx-light",
    "cc": "gcc libc6-dev",
    "npm": "npm",
    "node": "nodejs",
    "taskset": "util-linux",
}
CHP_VERSION = "5.3.0"


class Failed(Exception):
    """Raised when something cannot be measured; says why."""


# -- what must be there --------------------------------------------------------------------


def need(*programs: str) -> None:
    """End with advice unless all of these programs are installed."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        packages = " ".join(PACKAGES[name] for name in missing)
        sys.exit(
            f"Missing: {', '.join(missing)}. On Debian and Ubuntu: sudo apt install {packages}"
        )


def cores() -> list[int]:
    """Return the cores this program may use; at least two, or it ends."""
    found = sorted(os.sched_getaffinity(0))
    if len(found) < 2:
        sys.exit("The benchmarks need two cores: one for what is measured, one for the load.")
    return found


def build_load() -> Path:
    """Compile load.c, unless that has been done, and return the program."""
    need("cc")
    source = HERE / "load.c"
    program = CACHE / f"load-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}"
    if not program.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        made = program.with_suffix(".new")
        if subprocess.run(["cc", "-O2", "-o", str(made), str(source)]).returncode:
            sys.exit(f"{source} could not be compiled")
        made.rename(program)
    return program


def install_chp() -> Path:
    """Install configurable-http-proxy, unless that has been done, and return the program.

    ``MINIHUB_BENCH_CHP`` in the environment names one that is installed already.
    """
    need("node")
    given = os.environ.get("MINIHUB_BENCH_CHP")
    if given:
        return Path(given)
    home = CACHE / f"chp-{CHP_VERSION}"
    program = home / "node_modules" / ".bin" / "configurable-http-proxy"
    if not program.exists():
        need("npm")
        home.mkdir(parents=True, exist_ok=True)
        package = f"configurable-http-proxy@{CHP_VERSION}"
        print(f"Installing {package} (once) ...", flush=True)
        quiet = ["--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
        if subprocess.run(["npm", "install", "--prefix", str(home), *quiet, package]).returncode:
            sys.exit(f"npm could not install {package}")
    return program


def raise_descriptor_limit() -> None:
    """Let this program and what it starts have as many descriptors as is allowed."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def free_port() -> int:
    """Return a port of the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# -- processes -----------------------------------------------------------------------------


class Program:
    """A process that runs on the given cores until :meth:`stop`, with its output in a file.

    Its figures are those of the process and all its descendants.
    """

    def __init__(
        self,
        argv: Iterable[str | Path],
        log: Path,
        *,
        on: Iterable[int],
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.log = log
        self.argv = [str(word) for word in argv]
        with open(log, "wb") as output:
            self.process = subprocess.Popen(
                ["taskset", "-c", ",".join(map(str, on)), *self.argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | (env or {}),
                cwd=cwd,
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        """Everything it has printed."""
        return self.log.read_text(errors="replace")

    def wait_text(self, pattern: str, timeout_s: float = 30.0) -> re.Match[str]:
        """Wait until it has printed something that matches."""
        deadline = time.monotonic() + timeout_s
        while True:
            match = re.search(pattern, self.text)
            if match:
                return match
            self.check()
            if time.monotonic() > deadline:
                raise Failed(f"{self.argv[0]} did not print {pattern!r}:\n{self.text[-2000:]}")
            time.sleep(0.005)

    def wait_answer(
        self, port: int, path: str = "/", timeout_s: float = 60.0, *, status: bytes = b""
    ) -> float:
        """Wait until a request on ``port`` is answered; return :func:`time.monotonic` then.

        ``status`` is how the answer's status begins; nothing stands for anything below 500.
        """
        deadline = time.monotonic() + timeout_s
        while not is_answered(port, path, status):
            self.check()
            if time.monotonic() > deadline:
                raise Failed(f"{self.argv[0]} does not answer on {port}:\n{self.text[-2000:]}")
            time.sleep(0.001)
        return time.monotonic()

    def check(self) -> None:
        """Raise Failed when it has ended."""
        if self.process.poll() is not None:
            raise Failed(
                f"{' '.join(self.argv[:6])} ended with {self.process.returncode}:\n"
                f"{self.text[-2000:]}"
            )

    def pids(self) -> list[int]:
        return tree(self.process.pid)

    def cpu_s(self) -> float:
        """Return the processor time used so far, by descendants that have ended too."""
        return sum(_cpu_ticks(pid) for pid in self.pids()) / TICK

    def own_cpu_s(self) -> float:
        """Return the processor time used so far by the process itself."""
        fields = _stat(self.process.pid)
        return sum(map(int, fields[11:13])) / TICK if fields else 0.0

    def rss_mib(self, pids: Iterable[int] | None = None) -> float:
        """Return the resident memory."""
        return sum(_rss_bytes(pid) for pid in (self.pids() if pids is None else pids)) / 2**20

    def move(self, on: Iterable[int]) -> None:
        """Let every thread of every process of it run on these cores from now on."""
        for pid in self.pids():
            for task in _listdir(f"/proc/{pid}/task"):
                try:
                    os.sched_setaffinity(int(task), on)
                except ProcessLookupError:
                    pass

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 20.0) -> None:
        """End it, and what is left of its descendants."""
        pids = self.pids()
        if self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                pass
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()


def _listdir(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third on; none for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _cpu_ticks(pid: int) -> int:
    fields = _stat(pid)
    return sum(map(int, fields[11:15])) if fields else 0  # own and of children waited for


def _rss_bytes(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[21]) * PAGE if fields else 0


def tree(root: int) -> list[int]:
    """Return the process and its descendants."""
    parents = {}
    for name in _listdir("/proc"):
        if name.isdigit():
            fields = _stat(int(name))
            if fields:
                parents[int(name)] = int(fields[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def exchange(port: int, request: bytes, timeout_s: float = 10.0) -> bytes:
    """Send a request that asks for ``Connection: close``; return the whole answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as client:
        client.sendall(request)
        answer = b""
        while data := client.recv(65536):
            answer += data
        return answer


def is_answered(port: int, path: str = "/", status: bytes = b"") -> bool:
    """Return whether a request on ``port`` gets such a response (:meth:`Program.wait_answer`)."""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
    try:
        answer = exchange(port, request.encode())
    except OSError:
        return False
    found = answer[9:12]
    return found.startswith(status) if status and found else found[:1] in (b"2", b"3", b"4")


# -- load ----------------------------------------------------------------------------------

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


@dataclass(frozen=True)
class Wrk:
    """What one run of wrk found; latencies in milliseconds."""

    requests: int
    per_s: float
    p50_ms: float
    p99_ms: float


def wrk(
    url: str,
    connections: int,
    seconds: float,
    *,
    on: Iterable[int],
    headers: dict[str, str] | None = None,
    script: Path | None = None,
) -> Wrk:
    """Run wrk with one thread. Raises Failed when any request failed."""
    argv = ["taskset", "-c", ",".join(map(str, on)), "wrk", "-t", "1", "-c", str(connections)]
    argv += ["-d", f"{max(1, round(seconds))}s", "--latency", "--timeout", "10s"]
    for name, value in (headers or {}).items():
        argv += ["-H", f"{name}: {value}"]
    if script:
        argv += ["-s", str(script)]
    text = subprocess.run([*argv, url], capture_output=True, text=True).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    total = re.search(r"(\d+) requests in", text)
    if not rate or not total or not int(total[1]):
        raise Failed(f"wrk got no answers from {url}: {text.strip()[-300:]}")
    for sign in ("Non-2xx", "Socket errors"):
        line = re.search(rf"{sign}.*", text)
        if line:
            raise Failed(f"wrk on {url}: {line[0].strip()}")
    p50, p99 = (
        float(found[1]) * _UNITS[found[2]]
        for found in (re.search(rf" {share}%\s+([\d.]+)([a-z]+)", text) for share in (50, 99))
    )
    return Wrk(int(total[1]), float(rate[1]), p50, p99)


class Meter:
    """How much of some cores other programs took while something was measured."""

    def __init__(self, on: Iterable[int], programs: Iterable[Program]) -> None:
        self._names = {f"cpu{core}" for core in on}
        self._programs = list(programs)
        self._before = self._read()

    def _read(self) -> tuple[float, float, float]:
        busy = 0
        for line in Path("/proc/stat").read_text().splitlines():
            name, *ticks = line.split()
            if name in self._names:
                numbers = list(map(int, ticks))
                busy += sum(numbers[:3]) + sum(numbers[5:8])
        mine = os.times()
        own = mine.user + mine.system + mine.children_user + mine.children_system
        own += sum(program.cpu_s() for program in self._programs)
        return busy / TICK, own, time.monotonic()

    def foreign(self) -> float:
        """Return that share, from 0 to 1, since this object was made."""
        before, after = self._before, self._read()
        busy, own, seconds = (late - early for late, early in zip(after, before, strict=True))
        return max(0.0, busy - own) / (seconds * len(self._names))


class Calm:
    """Measures when nobody else is busy: waits for it, and measures again what was disturbed.

    ``patience_s`` bounds what all of that may cost; once it is spent, what was disturbed stands.
    """

    #: The share of the cores that others may take.
    LIMIT = 0.10
    LOOK_S = 0.25
    TRIES = 3

    def __init__(self, cores: Iterable[int], patience_s: float) -> None:
        self._cores = list(cores)
        self._patience_s = patience_s

    def take(
        self,
        measure: Callable[[], Any],
        programs: Iterable[Program] = (),
        cores: Iterable[int] = (),
    ) -> tuple[Any, float]:
        """Return the result of ``measure`` and the share of ``cores`` that others took meanwhile.

        ``programs`` are ours: what they and our own children take is not others' share.
        """
        programs = list(programs)
        best: tuple[Any, float] | None = None
        for _ in range(self.TRIES):
            self._wait(programs)
            began = time.monotonic()
            meter = Meter(cores or self._cores, programs)
            result = measure()
            foreign = meter.foreign()
            if best is None or foreign < best[1]:
                best = (result, foreign)
            if foreign <= self.LIMIT or self._patience_s <= 0:
                break
            self._patience_s -= time.monotonic() - began
        assert best is not None
        return best

    def _wait(self, programs: list[Program]) -> None:
        while self._patience_s > 0:
            meter = Meter(self._cores, programs)
            time.sleep(self.LOOK_S)
            self._patience_s -= self.LOOK_S
            if meter.foreign() <= self.LIMIT:
                return


# -- figures -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bar:
    """What ours has to reach: ``factor`` times a rival's median, or ``factor`` itself.

    One with a note is shown but missing it is no failure.
    """

    factor: float
    rival: str = ""
    at_least: bool = True
    note: str = ""

    def describe(self) -> str:
        sign = "≥" if self.at_least else "≤"
        number = f"{self.factor:g}"
        if self.rival and not self.at_least and self.factor < 1:
            number = f"1/{1 / self.factor:g}"
        text = f"{sign} {number}" + (f" × {self.rival}" if self.rival else "")
        return text + (f" ({self.note})" if self.note else "")


@dataclass
class Figure:
    """One line of the table: samples of every contestant, and the bars for ours."""

    key: str
    title: str
    unit: str
    bars: tuple[Bar, ...] = ()
    samples: dict[str, list[float]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    foreign: list[float] = field(default_factory=list)

    def add(self, contestant: str, value: float) -> None:
        self.samples.setdefault(contestant, []).append(value)

    def fail(self, contestant: str, why: object) -> None:
        self.failures[contestant] = str(why)

    def median(self, contestant: str) -> float | None:
        values = self.samples.get(contestant)
        if not values or contestant in self.failures:
            return None
        return statistics.median(values)

    def judge(self, bar: Bar, ours: str) -> tuple[float | None, bool]:
        """Return what is compared with the bar, and whether it is met."""
        mine = self.median(ours)
        theirs = self.median(bar.rival) if bar.rival else 1.0
        if mine is None or not theirs:
            return None, False
        value = mine / theirs
        return value, value >= bar.factor if bar.at_least else value <= bar.factor


def show(value: float) -> str:
    """Return a number with three digits that mean something."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


class Table:
    """The figures of a run, printed as they come and written at the end."""

    def __init__(self, name: str, ours: str, rivals: Iterable[str], settings: dict[str, Any]):
        self.name = name
        self.ours = ours
        self.contestants = [ours, *rivals]
        self.settings = settings
        self.figures: list[Figure] = []
        self.notes: list[str] = []

    def add(self, figure: Figure) -> None:
        """Print a finished figure and keep it."""
        self.figures.append(figure)
        print(f"\n{figure.title} [{figure.unit}]")
        for name in self.contestants:
            values = figure.samples.get(name)
            if name in figure.failures:
                print(f"  {name:<16} failed: {figure.failures[name]}")
            elif values:
                low, high = show(min(values)), show(max(values))
                middle = show(statistics.median(values))
                print(f"  {name:<16} {middle:>9}   ({low} … {high})")
        for bar in figure.bars:
            value, is_met = figure.judge(bar, self.ours)
            found = "nothing to compare" if value is None else show(value)
            print(f"  {bar.describe():<28} {found:>9}   {'met' if is_met else 'MISSED'}")
        if figure.foreign:
            print(f"  (other programs took {statistics.median(figure.foreign):.0%} of the cores)")
        sys.stdout.flush()

    def missed(self) -> list[tuple[Figure, Bar]]:
        """Return every bar that is missed, those with a note left out."""
        return [
            (figure, bar)
            for figure in self.figures
            for bar in figure.bars
            if not bar.note and not figure.judge(bar, self.ours)[1]
        ]

    def markdown(self) -> str:
        """Return the table: one line for each figure and bar, medians with least and most."""
        head = ["figure", *self.contestants, "bar", "measured", "verdict"]
        lines = []
        for figure in self.figures:
            cells = [f"{figure.title} [{figure.unit}]", *self._cells(figure)]
            for bar in figure.bars or (None,):
                if bar is None:
                    lines.append([*cells, "", "", ""])
                    continue
                value, is_met = figure.judge(bar, self.ours)
                verdict = "met" if is_met else "missed"
                lines.append(
                    [*cells, bar.describe(), "–" if value is None else show(value), verdict]
                )
                cells = [""] * len(cells)
        widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
        rows = [head, ["-" * width for width in widths], *lines]
        text = "".join(
            "| "
            + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            + " |\n"
            for row in rows
        )
        return text

    def _cells(self, figure: Figure) -> list[str]:
        cells = []
        for name in self.contestants:
            values = figure.samples.get(name)
            if name in figure.failures:
                cells.append("failed")
            elif values:
                cells.append(
                    f"{show(statistics.median(values))} ({show(min(values))} … {show(max(values))})"
                )
            else:
                cells.append("")
        return cells

    def finish(self, *, save: bool) -> int:
        """Print the table, write it, and return the exit code: 1 when a bar is missed."""
        table = self.markdown()
        missed = self.missed()
        facts = machine() | self.settings
        print("\n" + table)
        for line in self.notes:
            print(line)
        if missed:
            print("Missed: " + "; ".join(f"{f.title}: {b.describe()}" for f, b in missed))
        else:
            print("Every bar is met.")
        title = "\n".join(f"- {key}: {value}" for key, value in facts.items())
        notes = "".join(f"\n{line}\n" for line in self.notes)
        # What is kept in the repository has its date in its name, and stays beside older ones.
        places = [CACHE / self.name]
        if save:
            places.append(RESULTS / f"{self.name}-{facts['date']}")
        for place in places:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.with_name(place.name + ".json").write_text(self._json(facts))
            place.with_name(place.name + ".md").write_text(
                f"# benchmarks/{self.name}.py\n\n{title}\n\n"
                "Medians of interleaved rounds, least and most in brackets. MiB is 2^20 bytes, GB "
                f"10^9, kB 10^3.\n\n{table}{notes}"
            )
        print(f"Written: {', '.join(f'{place}.{{json,md}}' for place in places)}")
        return 1 if missed else 0

    def _json(self, facts: dict[str, Any]) -> str:
        figures = []
        for figure in self.figures:
            bars = []
            for bar in figure.bars:
                value, is_met = figure.judge(bar, self.ours)
                bars.append({"bar": bar.describe(), "measured": value, "met": is_met})
            figures.append(
                {
                    "key": figure.key,
                    "title": figure.title,
                    "unit": figure.unit,
                    "medians": {name: figure.median(name) for name in figure.samples},
                    "samples": figure.samples,
                    "failures": figure.failures,
                    "foreign": figure.foreign,
                    "bars": bars,
                }
            )
        facts = {"settings": facts, "figures": figures, "notes": self.notes}
        return json.dumps(facts, indent=1, ensure_ascii=False) + "\n"


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": f"{model[1] if model else platform.machine()}, {os.cpu_count()} cores",
        "system": f"Linux {platform.release()}",
    }


def interleave(
    figures: Iterable[Figure],
    measures: dict[str, Callable[[], Iterable[float]]],
    count: int,
    calm: Calm,
    programs: Iterable[Program] = (),
    cores: Callable[[str], Iterable[int]] = lambda name: (),
) -> None:
    """Take the samples of some figures: each contestant in turn, ``count`` times over.

    A measure returns one value for each figure. A contestant whose measure raises Failed is out
    of the remaining rounds, and its figures have failed. ``cores``: those a contestant uses.
    """
    figures, programs = list(figures), list(programs)
    out: set[str] = set()
    for _ in range(count):
        for name, measure in measures.items():
            if name in out:
                continue
            try:
                values, foreign = calm.take(measure, programs, cores(name))
            except (Failed, OSError) as error:
                out.add(name)
                for figure in figures:
                    figure.fail(name, error)
                continue
            for figure, value in zip(figures, values, strict=True):
                figure.add(name, value)
                figure.foreign.append(foreign)
