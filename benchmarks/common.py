"""What the benchmarks share: programs, pinned processes, wrk, a calm machine.

Rules of this file: standard library only. What is made of measurements is :mod:`figures`.

Threads: the main thread.
"""

from __future__ import annotations

import hashlib
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
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
