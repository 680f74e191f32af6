"""Fifty hubs, one after the other in one process, leave nothing: each gives back all it took."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from harness import DEFAULTS, HubProcess

ROUNDS = 50
#: What is loaded, or made for good, at the first use is there after these rounds.
WARM = 6
#: What an allocator may keep; a leak of a quarter of a megabyte in each round is more.
ALLOWANCE_MIB = 10


@pytest.mark.timeout(400)
def test_fifty_starts_and_stops_leave_nothing(tmp_path):
    place = tmp_path / "hub"
    (tmp_path / "tmp").mkdir()
    HubProcess.write_settings(place, DEFAULTS)
    log = tmp_path / "log"
    script = Path(__file__).with_name("leak_rounds.py")
    with open(log, "w") as out:
        done = subprocess.run(
            [sys.executable, str(script), str(ROUNDS), str(log)],
            cwd=place,
            env=os.environ | {"TMPDIR": str(tmp_path / "tmp")},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    text = log.read_text()
    assert done.returncode == 0, text[-3000:]
    assert "Traceback" not in text, text[-3000:]
    rounds = [json.loads(line[5:]) for line in text.splitlines() if line.startswith("LEFT ")]
    assert len(rounds) == ROUNDS
    first, last = rounds[WARM], rounds[-1]
    for what in first:
        if what != "rss_mib":
            assert last[what] == first[what], what
    assert first["children"] == [] and first["threads"] == ["MainThread"]
    assert first["tasks"] == 1 and first["connections"] == 0
    assert not any(one.startswith("socket") for one in first["descriptors"])
    middle = rounds[ROUNDS // 2]["rss_mib"]
    assert last["rss_mib"] < middle + ALLOWANCE_MIB, [round(one["rss_mib"]) for one in rounds]
    here = str(place)
    left = [one.pid for one in psutil.process_iter() if _cwd(one).startswith(here)]
    assert not left


def _cwd(process: psutil.Process) -> str:
    try:
        return process.cwd()
    except (psutil.Error, OSError):
        return ""
