"""Figures of a benchmark: samples of every contestant, bars for ours, the table of a run.

Rules of this file: a figure is a set of samples per contestant, taken in interleaved rounds; what
counts is the median. A failed measurement is a missed bar, never a missing line.

Threads: the main thread.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import CACHE, RESULTS, Calm, Failed, Program


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
