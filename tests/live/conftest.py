"""Hubs for the live tests: one that tests share, and ones of their own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from apiworld import CONFIG, World  # noqa: E402
from class_tools import classroom  # noqa: E402
from harness import HubProcess, serving, starting  # noqa: E402


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """A hub that all tests of one module share; each uses user names of its own."""
    with serving(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture
def start_hub(tmp_path: Path) -> Iterator[Callable[..., HubProcess]]:
    """Start hubs with any configuration; all are stopped at the end of the test."""
    yield from starting(tmp_path)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A hub for the REST API that all tests of one module share; each makes its own users."""
    with serving(tmp_path_factory.mktemp("world"), CONFIG) as hub:
        yield World(hub)


@pytest.fixture
def start_class(tmp_path: Path) -> Iterator[Callable[..., HubProcess]]:
    """Start hubs of a class."""
    hubs: list[HubProcess] = []

    def start(config: dict | None = None) -> HubProcess:
        hubs.append(HubProcess(tmp_path / f"hub{len(hubs)}", config or classroom()))
        return hubs[-1].wait_ready(60)

    yield start
    for hub in hubs:
        assert hub.stop() == 0, hub.text


@pytest.fixture(scope="module")
def room():
    """Two system users, and an environment that root alone can change."""
    from root_tools import accounts, new_environment, place_of_roots

    with place_of_roots() as place, accounts("ada", "eve") as people:
        python = new_environment(place / "env")
        yield SimpleNamespace(place=place, python=python, **people)


@pytest.fixture
def bench(tmp_path):
    """What starts servers of system users, cold and warm."""
    from root_tools import Bench

    found = Bench(tmp_path / "warm")
    yield found
    found.stop()


@pytest.fixture
def probe(room):
    """A program of root's that tells what it finds itself to be."""
    from root_tools import install
    from warm_tools import PROBE

    return install(room.place / "probe", PROBE, room.python)
