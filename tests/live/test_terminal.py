"""A hub and the terminal, pipe or file it was started with, which may be closed, full or gone."""

import json
import os
import signal
import sys
import time

import pytest
import requests
from harness import ROOT, until

PROGRAM = [sys.executable, str(ROOT / "minihub" / "__main__.py")]


def redirected(how):
    """Return the command that runs a hub with its standard streams redirected like that."""
    return ["bash", "-c", f'exec "$@" {how}', "bash", *PROGRAM]


def answers(hub):
    """Return whether a hub answers of which nothing can be read."""
    assert hub.process.poll() is None
    facts = (hub.state_dir / "lock").read_text()
    if not facts:
        return False
    url = json.loads(facts)["url"]
    return requests.get(url + "hub/api", timeout=5).status_code == 200


@pytest.mark.parametrize(
    "how",
    ["<&- >&- 2>&-", ">/dev/full 2>&1", ">&-", "2>&-"],
    ids=["all-closed", "disk-full", "output-closed", "errors-closed"],
)
def test_hub_runs_and_stops_whatever_became_of_its_output(start_hub, how):
    hub = start_hub(command=redirected(how), wait=False)
    until(lambda: answers(hub), 30)
    for number in range(3):  # nothing of the hub's own has taken the place of a stream
        target = os.readlink(f"/proc/{hub.process.pid}/fd/{number}")
        assert target in ("/dev/null", "/dev/full", str(hub.log)), number
    assert hub.stop() == 0
    assert "Traceback" not in hub.text


def test_hub_runs_on_when_nobody_reads_its_output_any_more(start_hub):
    # `minihub.pyz | head -1`, or `| tee log` whose tee got the Ctrl-C first
    reader, writer = os.pipe()
    os.close(reader)
    try:
        hub = start_hub(command=redirected(f">&{writer} 2>&1"), wait=False, pass_fds=(writer,))
    finally:
        os.close(writer)
    until(lambda: answers(hub), 30)
    assert hub.stop(signal.SIGINT) == 0


def test_hub_started_with_nohup_outlives_its_terminal(start_hub):
    hub = start_hub(command=["nohup", *PROGRAM])
    hub.process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert answers(hub)
    assert hub.stop() == 0
