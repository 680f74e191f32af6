"""Restarts of the service in the middle of a cell of a real JupyterLab (scripts/vm.py)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest
from cell_tools import Cell
from harness import Browser, merge
from service_tools import SETTINGS, URL, running

LAB = Path(os.environ.get("MINIHUB_TEST_LAB", "/nonexistent"))

pytestmark = pytest.mark.skipif(
    "MINIHUB_TEST_SYSTEMD" not in os.environ or not LAB.is_dir(),
    reason="needs a machine of its own, with JupyterLab: scripts/vm.py",
)

#: JupyterLab starts in two seconds, and in minutes where every instruction is emulated.
LAB_PATIENCE_S = 900
WITH_LAB = merge(
    SETTINGS,
    {
        "Spawner": {
            "cmd": [sys.executable, "-m", "jupyterhub.singleuser"],
            "http_timeout": LAB_PATIENCE_S,
            "start_timeout": LAB_PATIENCE_S,
            "cpu_limit": None,
            "mem_limit": None,
            "environment": {
                "PYTHONPATH": str(LAB),
                "JUPYTER_PATH": f"{LAB}/share/jupyter",
                "JUPYTER_CONFIG_PATH": f"{LAB}/etc/jupyter",
                "JUPYTERLAB_DIR": f"{LAB}/share/jupyter/lab",
            },
        },
        "SimpleLocalProcessSpawner": {"sandbox_read": [str(LAB)]},
    },
)


def test_cell_survives_restarts_of_the_service():
    """The same process, log and WebSocket, and the result of the cell that ran all the time."""
    with running("system", WITH_LAB) as service:
        state = service.directory / "minihub-data"
        browser = Browser(URL)
        assert browser.login("ada").status_code == 302
        cell = Cell(browser, "ada", state / "homes" / "ada", patience_s=LAB_PATIENCE_S)
        log = state / "logs" / "ada.log"

        def facts() -> set[tuple]:
            """Return the processes of the server, its kernels among them, and its log."""
            group = service.group / "server-ada" / "cgroup.procs"
            pids = [int(pid) for pid in group.read_text().split()]
            assert pids
            return {(pid, psutil.Process(pid).create_time()) for pid in pids} | {
                ("log", log.stat().st_ino)
            }

        message = cell.begin()
        before = facts()
        for how in (["restart"], ["kill", "--kill-whom=main", "--signal=KILL"], ["stop"]):
            former = service.fact("MainPID")
            service.systemctl(*how, "minihub")
            if how == ["stop"]:
                assert service.fact("ActiveState") == "inactive"
                service.systemctl("start", "minihub")
            service.wait_ready(than=former)
            assert facts() == before, how
        cell.go.touch()
        assert cell.result(message) == "42"  # by the WebSocket that was open all the time
        assert cell.run("before") == "41"
        cell.socket.close()
