"""The file and the other places the cookie secret comes from."""

import base64
import os
import stat

import pytest

from minihub import cookiesecret
from minihub.errors import ConfigError


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("JPY_COOKIE_SECRET", raising=False)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "secret"


def test_new_file_is_private_under_any_umask_and_read_again(path):
    old = os.umask(0)
    try:
        first = cookiesecret.load(b"", str(path))
    finally:
        os.umask(old)
    assert len(first) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert cookiesecret.load(b"", str(path)) == first


def test_configured_secret_wins_and_writes_no_file(path, monkeypatch):
    monkeypatch.setenv("JPY_COOKIE_SECRET", "ab" * 32)
    assert cookiesecret.load(b"x" * 32, str(path)) == b"x" * 32
    assert cookiesecret.load(b"", str(path)) == b"\xab" * 32
    assert not path.exists()


def test_environment_that_is_not_hex_is_named(path, monkeypatch):
    monkeypatch.setenv("JPY_COOKIE_SECRET", "zz")
    with pytest.raises(ConfigError, match="JPY_COOKIE_SECRET.*openssl rand -hex 32"):
        cookiesecret.load(b"", str(path))


def test_readable_by_all_is_refused_with_the_command(path):
    path.write_text("ab" * 32)
    path.chmod(0o604)
    with pytest.raises(ConfigError, match=f"chmod 600 {path}"):
        cookiesecret.load(b"", str(path))


def test_readable_by_the_group_is_accepted(path):
    path.write_text("ab" * 32)
    path.chmod(0o640)
    assert cookiesecret.load(b"", str(path)) == b"\xab" * 32


@pytest.mark.parametrize("content", ["", "ab" * 10, "not hex!", "ü"])
def test_file_without_a_secret_is_refused(path, content):
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=f"rm {path}"):
        cookiesecret.load(b"", str(path))


def test_old_base64_file_is_accepted(path, caplog):
    path.write_text(base64.b64encode(b"x" * 32).decode())
    path.chmod(0o600)
    assert cookiesecret.load(b"", str(path)) == b"x" * 32
    assert "base64" in caplog.text


def test_symbolic_link_is_refused(path, tmp_path):
    real = tmp_path / "real"
    real.write_text("ab" * 32)
    real.chmod(0o600)
    path.symlink_to(real)
    with pytest.raises(ConfigError, match="symbolic link"):
        cookiesecret.load(b"", str(path))


def test_dangling_link_is_refused(path, tmp_path):
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError):
        cookiesecret.load(b"", str(path))
    assert not (tmp_path / "elsewhere").exists()


def test_missing_directory_is_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot be created"):
        cookiesecret.load(b"", str(tmp_path / "absent" / "secret"))


@pytest.mark.parametrize("name, told", [("", "names no file"), (".", "is a directory")])
def test_name_of_no_file_is_refused(tmp_path, monkeypatch, name, told):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"JupyterHub.cookie_secret_file: .*{told}"):
        cookiesecret.load(b"", name)


def test_pipe_is_refused_and_not_waited_for(path):
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="is no ordinary file"):
        cookiesecret.load(b"", str(path))


def test_link_that_is_planted_at_the_last_moment_is_not_followed(path, tmp_path):
    """Between the look for a file and the making of one."""
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="cannot be created"):
        cookiesecret._create(path)
    assert not (tmp_path / "elsewhere").exists()
    path.unlink()
    path.touch()
    with pytest.raises(ConfigError, match="cannot be created"):
        cookiesecret._create(path)


def test_new_file_is_private_from_its_first_moment(path, monkeypatch):
    """Not only after a second step: what can be opened meanwhile stays open."""
    seen = []
    monkeypatch.setattr(os, "fchmod", lambda fd, _mode: seen.append(os.fstat(fd).st_mode & 0o777))
    before = os.umask(0)
    try:
        cookiesecret._create(path)
    finally:
        os.umask(before)
    assert seen == [0o600]
