#!/usr/bin/env python3
"""What the admin's page costs the hub: 500 users, of whom 30 have a server, seen over loopback.

Usage: python3 benchmarks/pages.py [--users 500] [--servers 30] [--views 30]

Needs the packages of the tests. Prints the first view, which is also that of a hub whose templates
have not been used yet, and the median and the slowest of the following ones, in ms.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from harness import HubProcess  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("users", 500), ("servers", 30), ("views", 30)):
        parser.add_argument(f"--{name}", type=int, default=value)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        hub = HubProcess(Path(place) / "hub", {"JupyterHub": {"log_level": "WARN"}}).wait_ready()
        try:
            admin = hub.browser("root-admin")
            names = [f"student-{number:04}" for number in range(asked.users)]
            secret = admin.xsrf("/hub/home")
            for at in range(0, len(names), 500):
                data = {"_xsrf": secret, "names": " ".join(names[at : at + 500])}
                admin.post("/hub/admin/users", data=data, timeout=300)
            for name in names[: asked.servers]:
                admin.post(f"/hub/admin/start/{name}", data={"_xsrf": secret})
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline:
                page = admin.get("/hub/admin?show=running").text
                if page.count("status-ready") >= asked.servers:
                    break
                time.sleep(1)
            for query in ("", "?sort=memory", "?q=student-04", "?page=7"):
                took = []
                for _ in range(asked.views):
                    began = time.perf_counter()
                    answer = admin.get(f"/hub/admin{query}")
                    took.append(1000 * (time.perf_counter() - began))
                    assert answer.status_code == 200
                print(
                    f"admin{query}: first {took[0]:.1f}, median {statistics.median(took):.1f}, "
                    f"slowest {max(took):.1f} ms, {len(answer.content) / 1024:.0f} KiB"
                )
        finally:
            hub.stop(timeout_s=120)
    return 0


if __name__ == "__main__":
    sys.exit(main())
