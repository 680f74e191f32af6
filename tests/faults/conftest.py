"""What goes wrong with machines, and hubs for it to happen to."""

from __future__ import annotations

import subprocess
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


@pytest.fixture
def new_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Make file systems, each with options of mount(8); containers may have no right to."""
    made: list[Path] = []

    def make(options: str) -> Path:
        place = tmp_path / f"disk{len(made)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"{options},mode=0755", "none", str(place)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("needs the right to mount a file system")
        made.append(place)
        return place

    yield make
    for place in made:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def small_disk(new_disk: Callable[[str], Path]) -> Path:
    """A file system of 4 MB of its own."""
    return new_disk("size=4m")
