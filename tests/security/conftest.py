"""Hubs for the tests of what must not be possible."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import HubProcess, starting  # noqa: E402


@pytest.fixture
def start_hub(tmp_path: Path) -> Iterator[Callable[..., HubProcess]]:
    """Start hubs with any configuration; all are stopped at the end of the test."""
    yield from starting(tmp_path)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """A hub that all tests of one module share; each uses user names of its own."""
    hub = HubProcess(
        tmp_path_factory.mktemp("hub"), {"Authenticator": {"admin_users": ["root-admin"]}}
    ).wait_ready()
    yield hub
    assert hub.stop() == 0, hub.text
    assert "Traceback" not in hub.text, hub.text
