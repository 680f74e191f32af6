"""Archives of files whose owner may have meant harm."""

from __future__ import annotations

import os
import stat
import zipfile

import pytest

from minihub.caretaker import archive


@pytest.fixture
def home(tmp_path):
    directory = tmp_path / "home"
    directory.mkdir()
    (directory / "work.txt").write_text("work")
    return directory


def test_links_and_what_is_no_file_are_left_out(home, tmp_path):
    (tmp_path / "secret").write_text("the hub's")
    (home / "link").symlink_to(tmp_path / "secret")
    (home / "place").symlink_to(tmp_path)
    os.mkfifo(home / "pipe")
    archive(home, tmp_path / "home.zip", root="ada")
    assert stat.S_IMODE((tmp_path / "home.zip").stat().st_mode) == 0o600
    with zipfile.ZipFile(tmp_path / "home.zip") as packed:
        names = {name.rstrip("/") for name in packed.namelist()}
        assert packed.read("ada/work.txt") == b"work"
    assert names == {"ada", "ada/work.txt"}


def test_name_that_is_no_text_is_kept_as_escapes(home, tmp_path):
    with open(os.path.join(os.fsencode(home), b"caf\xe9"), "wb") as file:
        file.write(b"odd")
    archive(home, tmp_path / "home.zip", root="ada")
    with zipfile.ZipFile(tmp_path / "home.zip") as packed:
        assert packed.read("ada/caf\\udce9") == b"odd"


def test_file_that_is_a_hole_is_not_read_to_its_end(home, tmp_path):
    with open(home / "hole", "wb") as file:
        file.truncate(1024**4)
    with pytest.raises(OSError, match="far less on the disk"):
        archive(home, tmp_path / "home.zip", root="ada")
    assert not [one for one in tmp_path.iterdir() if "zip" in one.name]


def test_archive_is_given_up_when_the_hub_ends(home, tmp_path):
    with pytest.raises(OSError, match="the hub ended"):
        archive(home, tmp_path / "home.zip", root="ada", given_up=lambda: True)
    assert not [one for one in tmp_path.iterdir() if "zip" in one.name]
    assert (home / "work.txt").exists()
