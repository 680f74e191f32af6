#!/usr/bin/env python3
"""Starts and stops a hub again and again in one process, and says what is left after each round.

Usage: leak_rounds.py ROUNDS LOG   in a directory with a minihub.yaml

LOG is the file that its output goes to; it gets a line of JSON after each round.

Everything a hub opens must be closed by its own stop: what it leaves behind adds up here, where a
process of its own would hide it by ending. In each round somebody logs in; in every fifth a server
is started as well.

Threads: the hub's are those of any hub; one more looks at it and asks it to stop.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path

import psutil

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from harness import Browser, until  # noqa: E402

from minihub import cli  # noqa: E402

FACTS = Path("minihub-data", "lock")


def visit(number: int, failed: list[str]) -> None:
    """Use the hub as soon as it is there, then ask it to stop."""
    try:
        until(
            lambda: "Stop with Ctrl-C." in Path(sys.argv[2]).read_text().split(mark(number))[1], 60
        )
        browser = Browser(json.loads(FACTS.read_text())["url"])
        with browser:
            assert browser.login("ada").status_code == 302
            if number % 5 == 0:
                browser.start_server("ada", 60)
            assert browser.get("/hub/home").status_code == 200
    except Exception:
        failed.append(traceback.format_exc())
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


def mark(number: int) -> str:
    return f"== round {number} ==\n"


def left() -> dict[str, object]:
    """Return what this process and its directories hold."""
    gc.collect()
    own = psutil.Process()
    descriptors = []
    for name in os.listdir("/proc/self/fd"):
        try:
            descriptors.append(os.readlink(f"/proc/self/fd/{name}").partition(":[")[0])
        except OSError:
            continue  # the one that lists
    children = []
    for child in own.children(recursive=True):
        children.append(" ".join(child.cmdline())[:200])
    return {
        "descriptors": sorted(descriptors),
        "threads": sorted(one.name for one in threading.enumerate()),
        "tasks": len(os.listdir("/proc/self/task")),
        "children": children,
        "connections": len(own.net_connections("all")),
        "temporary": sorted(os.listdir(os.environ["TMPDIR"])),
        "files": sorted(str(one) for one in Path().rglob("*")),
        "signals": [str(signal.getsignal(n)) for n in (1, 2, 15)],
        "modules": len(sys.modules),
        "rss_mib": own.memory_info().rss / 2**20,
    }


def main() -> int:
    for number in range(int(sys.argv[1])):
        failed: list[str] = []
        print(mark(number), end="", flush=True)
        guest = threading.Thread(target=visit, args=(number, failed))
        guest.start()
        code = cli.main(["-f", "minihub.yaml"])
        guest.join()
        if code or failed:
            print(code, *failed, file=sys.stderr)
            return 1
        print("LEFT", json.dumps(left()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
