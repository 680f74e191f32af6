#!/usr/bin/env python3
"""What ``JupyterHub.trust_user_provided_tokens`` saves: the cost of checking one API token.

Usage: python3 benchmarks/tokens.py [--seconds S]

A token from the configuration is hashed 16,384 times over unless such tokens are trusted; the hub's
own are hashed once. The hub remembers a token it has checked until somebody's rights change, so
this is the price of the first request after that.

Threads: the main thread.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from minihub import tokens


def check_us(hashed: str, token: str, seconds: float) -> float:
    """Return the median time of a check, in microseconds."""
    samples = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(samples) < 5:
        began = time.perf_counter()
        assert tokens.check_token(token, hashed)
        samples.append((time.perf_counter() - began) * 1e6)
    return statistics.median(samples)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each kind (2)")
    seconds = parser.parse_args().seconds
    token = tokens.new_token()
    found = {}
    for name, rounds in (
        ("stretched (default)", tokens.STRETCHED_ROUNDS),
        ("trusted, and the hub's own", tokens.GENERATED_ROUNDS),
    ):
        found[name] = check_us(tokens.hash_token(token, rounds=rounds), token, seconds)
        print(f"{name:<28} {found[name]:10.1f} µs a check, {1e6 / found[name]:10.0f} a second")
    stretched, trusted = found.values()
    print(f"A trusted token costs {stretched / trusted:.0f} times less.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
