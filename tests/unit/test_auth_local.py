"""Users of the operating system: groups, and creating them. Nothing here changes the system."""

from __future__ import annotations

import grp
import os
import sys
from types import SimpleNamespace

import pytest
from traitlets.config import Config

from minihub.auth import system
from minihub.auth.base import InvalidUser, NotAllowed
from minihub.auth.osusers import group_ids, group_ids_of, name_of_uid, system_user
from minihub.auth.system import LocalAuthenticator

ME = name_of_uid(os.getuid())
MY_GROUP = grp.getgrgid(os.getgid()).gr_name
MISSING = "no-such-name-here"


class Echo(LocalAuthenticator):
    def authenticate(self, handler, data):
        return data["username"]


def make(**options) -> LocalAuthenticator:
    return Echo(config=Config({"LocalAuthenticator": options}))


def user(name):
    return SimpleNamespace(name=name)


def test_unknown_names_are_answers_not_exceptions():
    for name in (MISSING, "nul\0", "lone\udc80surrogate", ""):
        assert system_user(name) is None
        assert group_ids_of(name) == set()
    assert name_of_uid(2**31 - 5) == ""
    assert group_ids(["nul\0", MISSING]) == (set(), f'"{MISSING}", "nul\0"')


def test_member_of_an_allowed_group_gets_in_by_primary_group_too():
    authenticator = make(allowed_groups={MY_GROUP})
    assert authenticator.log_in(None, {"username": ME}).name == ME
    with pytest.raises(NotAllowed):
        authenticator.log_in(None, {"username": MISSING})


def test_groups_and_names_are_alternatives():
    authenticator = make(allowed_groups={MY_GROUP}, allowed_users={MISSING})
    assert authenticator.check_allowed(ME) and authenticator.check_allowed(MISSING)
    assert not authenticator.check_allowed("third")


def test_unknown_group_allows_nobody_and_is_reported(caplog):
    authenticator = make(allowed_groups={MISSING})
    assert not authenticator.check_allowed(ME)
    assert MISSING in caplog.text
    assert MISSING in authenticator.check_allow_config()[0]


def test_old_spelling_of_the_groups_works(caplog):
    assert make(group_whitelist={MY_GROUP}).check_allowed(ME)
    assert "group_whitelist is the old spelling of LocalAuthenticator.allowed_groups" in caplog.text


def test_add_user_wants_a_system_user():
    make().add_user(user(ME))
    with pytest.raises(InvalidUser, match="create_system_users"):
        make().add_user(user(MISSING))


def recorder(tmp_path, code=0):
    """Return a command that writes its arguments to a file and ends with ``code``."""
    script = "import json, sys; json.dump(sys.argv[2:], open(sys.argv[1], 'w'))"
    script += f"; print('it says  why'); sys.exit({code})"
    return [sys.executable, "-c", script, str(tmp_path / "arguments")]


def test_missing_system_user_is_created_with_name_and_uid(tmp_path):
    authenticator = make(
        create_system_users=True,
        add_user_cmd=[*recorder(tmp_path), "--home", "/srv/USERNAME"],
        uids={MISSING: 4242},
    )
    authenticator.add_user(user(ME))
    assert not (tmp_path / "arguments").exists()
    authenticator.add_user(user(MISSING))
    assert (tmp_path / "arguments").read_text() == (
        f'["--home", "/srv/{MISSING}", "--uid", "4242", "{MISSING}"]'
    )


def test_failed_command_is_told_in_one_line(tmp_path):
    authenticator = make(create_system_users=True, add_user_cmd=recorder(tmp_path, code=3))
    with pytest.raises(InvalidUser, match="ended with code 3: it says why .*add_user_cmd"):
        authenticator.add_user(user(MISSING))
    authenticator = make(create_system_users=True, add_user_cmd=["/no/such/program"])
    with pytest.raises(InvalidUser, match="No such file.*add_user_cmd"):
        authenticator.add_user(user(MISSING))


def test_command_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr(system, "ADD_USER_TIMEOUT_S", 0.1)
    authenticator = make(create_system_users=True, add_user_cmd=["sleep", "600", "USERNAME"])
    authenticator.add_user_cmd = [sys.executable, "-c", "import time; time.sleep(600)"]
    with pytest.raises(InvalidUser, match="timed out"):
        authenticator.add_user(user(MISSING))


def test_name_that_looks_like_an_option_never_reaches_the_command(tmp_path):
    authenticator = make(create_system_users=True, add_user_cmd=recorder(tmp_path))
    with pytest.raises(InvalidUser, match="hyphen"):
        authenticator.add_user(user("--system"))
    assert not (tmp_path / "arguments").exists()


def test_command_defaults_to_what_the_platform_has(monkeypatch):
    monkeypatch.setattr(system.shutil, "which", lambda name: None)
    assert make().add_user_cmd == ["adduser", "-q", "--gecos", '""', "--disabled-password"]
    monkeypatch.setattr(system.shutil, "which", lambda name: f"/usr/sbin/{name}")
    assert make().add_user_cmd == ["pw", "useradd", "-m", "-n"]
    monkeypatch.setattr(system.sys, "platform", "darwin")
    with pytest.raises(InvalidUser, match="set LocalAuthenticator.add_user_cmd.*darwin"):
        make(create_system_users=True).add_user(user(MISSING))
