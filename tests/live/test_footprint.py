"""What a hub costs while nobody works with it; benchmarks/footprint.py measures more."""

import sys

import psutil

MIB = 2**20
MOST_MIB = 80


def test_hub_and_proxy_fit_into_little_memory(start_hub, pyz):
    hub = start_hub(command=[sys.executable, str(pyz)])
    hub.browser("ada").get("/hub/home")
    root = psutil.Process(hub.process.pid)
    family = [root, *root.children(recursive=True)]
    resident = {" ".join(one.cmdline()[-3:]): one.memory_info().rss / MIB for one in family}
    assert len(family) == 2, resident
    assert sum(resident.values()) < MOST_MIB, resident


def test_file_is_small(pyz):
    assert pyz.stat().st_size < 5 * MIB
