#!/usr/bin/env python3
"""kill -9 of a hub that is written to, again and again: is anything lost, or half done?

Usage: python3 benchmarks/crashes.py [--rounds N] [--seed N]

What a round does and what is compared after it is said in tests/faults/crash_rounds.py, whose
short form runs with the tests. Run it with the tests' environment (scripts/test.py makes it).

Exit code: 0 when nothing was lost in any round, 1 otherwise.

Threads: as there.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "faults")]

import crash_rounds  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    words = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="crashes-") as directory:
        try:
            place = Path(directory) / "hub"
            facts = crash_rounds.rounds(words.rounds, place, words.seed, lambda line: print(line))
        except AssertionError as error:
            print(f"seed {words.seed}: {error}", file=sys.stderr)
            return 1
    for name, value in facts.items():
        print(f"{name}: {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
