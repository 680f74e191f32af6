#!/usr/bin/env python3
"""What minihub.pyz costs before anybody works with it: size, start, memory.

Usage: python3 benchmarks/footprint.py [--rounds N] [--python FILE] [--save] [minihub.pyz]

Without a file, one is built. Each round starts the file's hub twice in a directory of its own: at
first with nothing there (the copy that it unpacks has to be made), then again; and asks it for its
version. A hub is ready when ``/hub/api`` is answered with 200 through the public port. Memory is
that of hub and proxy together, some seconds after the start: resident (RSS, what both share
counted twice) and proportional (PSS, what is shared with others divided among them).

Exit code: 0 when every bar is met, 1 when one is missed.

Threads: the main thread.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common
from common import Failed, Program
from figures import Bar, Figure, Table

OURS = "minihub"
MIB = 2**20
#: How long a hub is left alone before its memory is read.
IDLE_S = 3.0
#: How many pages it has given when its memory is read again.
PAGES = 500


def at_most(value: float) -> tuple[Bar, ...]:
    return (Bar(value, at_least=False),)


class Figures:
    """The lines of the table."""

    def __init__(self) -> None:
        self.size = Figure("size", "Size of the file", "MiB", at_most(5))
        self.version = Figure("version", "--version", "s", at_most(0.2))
        self.cold = Figure("cold", "Ready at the very first start", "s")
        self.warm = Figure("warm", "Ready at a later start", "s", at_most(1.2))
        self.rss = Figure("rss", "Hub and proxy idle, resident", "MiB", at_most(80))
        self.pss = Figure("pss", "Hub and proxy idle, proportional", "MiB")
        self.hub = Figure("hub", "Hub alone, resident", "MiB")
        self.proxy = Figure("proxy", "Proxy alone, resident", "MiB")
        self.used = Figure("used", f"Both after {PAGES} pages, resident", "MiB")
        self.stop = Figure("stop", "Stop", "s")


class Hub:
    """A hub of the file in ``directory``, started and waited for."""

    def __init__(self, python: str, file: Path, directory: Path) -> None:
        self.port = common.free_port()
        flags = ["--ip=127.0.0.1", f"--port={self.port}", "--JupyterHub.hub_port=0"]
        began = time.monotonic()
        self.program = Program(
            [python, file, *flags, "--ThreadedProxy.api_url=http://127.0.0.1:0"],
            directory.with_suffix(".log"),
            on=os.sched_getaffinity(0),
            env=private(directory),
            cwd=directory,
        )
        while not self._answers("/hub/api"):
            self.program.check()
            if time.monotonic() - began > 60:
                raise Failed(f"the hub is not ready after a minute:\n{self.program.text[-2000:]}")
            time.sleep(0.002)
        self.ready_s = time.monotonic() - began

    def _answers(self, path: str) -> bool:
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nConnection: close\r\n\r\n"
        try:
            return b" 200 " in common.exchange(self.port, request.encode())[:15]
        except OSError:
            return False

    def show_pages(self) -> None:
        """Ask for the login page often. Raises Failed when it is not answered."""
        for _ in range(PAGES):
            if not self._answers("/hub/login"):
                raise Failed("the login page was not answered")

    def pss_mib(self) -> float:
        """Return the proportional memory of hub and proxy."""
        found = 0.0
        for pid in self.program.pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    found += int(line.split()[1]) / 1024
        return found

    def stop(self) -> float:
        """Stop the hub; return how long that took, in seconds."""
        began = time.monotonic()
        self.program.stop()
        return time.monotonic() - began


def private(directory: Path) -> dict[str, str]:
    """Return the environment of a program whose cache and home are its own."""
    home = directory.parent
    return {"HOME": str(home), "MINIHUB_CACHE": str(home / "cache"), "PYTHONDONTWRITEBYTECODE": ""}


def measure(python: str, file: Path, work: Path, figures: Figures) -> None:
    """Take one sample of everything. Raises Failed."""
    directory = work / "hub"
    directory.mkdir(parents=True)
    hub = Hub(python, file, directory)
    figures.cold.add(OURS, hub.ready_s)
    hub.stop()

    hub = Hub(python, file, directory)
    try:
        figures.warm.add(OURS, hub.ready_s)
        time.sleep(IDLE_S)
        pids = hub.program.pids()
        if len(pids) != 2:
            raise Failed(f"{len(pids)} processes instead of hub and proxy")
        figures.rss.add(OURS, hub.program.rss_mib())
        figures.pss.add(OURS, hub.pss_mib())
        figures.hub.add(OURS, hub.program.rss_mib(pids[:1]))
        figures.proxy.add(OURS, hub.program.rss_mib(pids[1:]))
        hub.show_pages()
        figures.used.add(OURS, hub.program.rss_mib())
    finally:
        figures.stop.add(OURS, hub.stop())

    for _ in range(3):
        began = time.monotonic()
        subprocess.run(
            [python, file, "--version"],
            env=os.environ | private(directory),
            check=True,
            capture_output=True,
        )
        figures.version.add(OURS, time.monotonic() - began)


def main() -> int:
    """Measure, print and write the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, help="minihub.pyz; built when not given")
    parser.add_argument("--rounds", type=int, default=7, help="samples of each figure (7)")
    parser.add_argument("--python", default=sys.executable, help="interpreter to run the file")
    parser.add_argument("--save", action="store_true", help="also write benchmarks/results")
    arguments = parser.parse_args()
    common.need("taskset")
    work = Path(tempfile.mkdtemp(prefix="minihub-bench-"))
    settings = {
        "rounds": arguments.rounds,
        "python": subprocess.check_output([arguments.python, "-VV"], text=True).strip(),
    }
    table = Table("footprint", OURS, [], settings)
    figures = Figures()
    try:
        file = arguments.file or build(work)
        figures.size.add(OURS, file.stat().st_size / MIB)
        for number in range(arguments.rounds):
            measure(arguments.python, file.resolve(), work / str(number), figures)
    except (Failed, OSError, subprocess.CalledProcessError) as error:
        for figure in vars(figures).values():
            figure.fail(OURS, error)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for figure in vars(figures).values():
        table.add(figure)
    return table.finish(save=arguments.save)


def build(work: Path) -> Path:
    """Build the file as it is in the checkout."""
    file = work / "minihub.pyz"
    command = [sys.executable, str(common.ROOT / "build_zipapp.py"), "-o", str(file)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return file


if __name__ == "__main__":
    sys.exit(main())
