"""What PAM logins check before and around PAM; PAM itself is met in tests/live."""

from __future__ import annotations

import builtins
import grp
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from traitlets import TraitError
from traitlets.config import Config

from minihub.auth import pam
from minihub.auth.base import InvalidLogin, LoginUnavailable, NotAllowed
from minihub.auth.osusers import name_of_uid
from minihub.auth.pam import PAMAuthenticator

ME = name_of_uid(os.getuid())
MY_GROUP = grp.getgrgid(os.getgid()).gr_name


def make(**options) -> PAMAuthenticator:
    return PAMAuthenticator(config=Config({"PAMAuthenticator": {"allow_all": True, **options}}))


@pytest.fixture
def no_library(monkeypatch):
    """A machine without libpam, as pamela meets it."""
    real = builtins.__import__

    def without_pamela(name, *args, **kwargs):
        if name == "pamela":
            raise AttributeError("undefined symbol: pam_strerror")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_pamela)


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("alice", ""),
        ("", "password"),
        ("alice", "right\0junk"),
        ("alice", "x" * 513),
        ("alice", "é" * 257),
        ("alice", "lone\udc80surrogate"),
    ],
)
def test_unusable_password_is_wrong_without_asking_pam(name, password, monkeypatch, caplog):
    """libpam reads a text up to its first NUL, and has a limit."""
    monkeypatch.setattr(pam, "load_pam", lambda: pytest.fail("asked PAM"))
    with pytest.raises(InvalidLogin):
        make().log_in(None, {"username": name, "password": password})
    (record,) = caplog.records
    assert record.args == (f'"{name}"', "an unknown address")


def test_missing_library_is_told_to_the_user_and_at_start(no_library):
    with pytest.raises(LoginUnavailable, match="no PAM library.*apt install libpam0g") as caught:
        make().log_in(None, {"username": "alice", "password": "x"})
    assert caught.value.status == 503
    assert "no PAM library" in make().check_allow_config()[0]


def test_missing_library_disables_sessions_but_not_the_spawn(no_library, caplog):
    authenticator = make(open_sessions=True)
    user = SimpleNamespace(name="alice")
    authenticator.pre_spawn_start(user, None)
    assert 'could not open a session for "alice"' in caplog.text
    caplog.clear()
    authenticator.post_spawn_stop(user, None)
    assert caplog.text == ""


def test_missing_service_is_told_at_start(tmp_path, monkeypatch):
    monkeypatch.setattr(pam, "SERVICE_DIRS", (str(tmp_path), "/no/such/directory"))
    (tmp_path / "present").touch()
    assert make(service="present").check_allow_config() == []
    (warning,) = make(service="absent").check_allow_config()
    assert 'no service "absent"' in warning and "PAMAuthenticator.service" in warning
    monkeypatch.setattr(pam, "SERVICE_DIRS", ("/no/such/directory",))
    assert make(service="absent").check_allow_config() == []


def test_refusal_by_an_unprivileged_hub_is_explained(monkeypatch):
    monkeypatch.setattr(pam.os, "geteuid", lambda: 1)
    assert "does not run as root" in make()._hint("somebody-else")
    assert make()._hint(name_of_uid(1)) == ""
    monkeypatch.setattr(pam.os, "geteuid", lambda: 0)
    assert make()._hint("somebody-else") == ""


def test_admin_groups_decide_who_is_admin():
    member = make(admin_groups={MY_GROUP})
    assert member.is_admin(None, {"name": ME}) is True
    assert member.is_admin(None, {"name": "no-such-name-here"}) is False
    assert make().is_admin(None, {"name": ME}) is None
    named = make(admin_groups={MY_GROUP}, admin_users={"no-such-name-here"})
    assert named.is_admin(None, {"name": "no-such-name-here"}) is True


def test_unknown_admin_group_stops_logins_rather_than_revoking_admins(caplog):
    authenticator = make(admin_groups={MY_GROUP, "no-such-group"})
    with pytest.raises(LoginUnavailable):
        authenticator.is_admin(None, {"name": ME})
    assert "no-such-group" in caplog.text
    assert "no-such-group" in authenticator.check_allow_config()[0]


def test_name_is_normalised_through_the_system_when_asked(monkeypatch):
    authenticator = make(pam_normalize_username=True, username_map={ME: "mapped"})
    assert authenticator.normalize_username(ME) == "mapped"
    assert authenticator.normalize_username("No-Such-Name") == "no-such-name"

    # Two login names of one account, as a directory service may offer.
    entries = {"DOM\\Alice": 4242}
    monkeypatch.setattr(pam, "system_user", lambda name: SimpleNamespace(pw_uid=entries[name]))
    monkeypatch.setattr(pam, "name_of_uid", {4242: "alice"}.get)
    assert authenticator.normalize_username("DOM\\Alice") == "alice"


def test_name_that_becomes_another_account_in_lower_case_is_refused(monkeypatch):
    """The password of "Alice" must not open the account "alice"."""
    accounts = {"Alice": 1001, "alice": 1002, "Bob": 1003, "CAROL": 1004, "carol": 1004}
    monkeypatch.setattr(
        pam,
        "system_user",
        lambda name: SimpleNamespace(pw_uid=accounts[name]) if name in accounts else None,
    )
    monkeypatch.setattr(PAMAuthenticator, "_run_pam", lambda self, *args: ("", ""))

    def login(name):
        authenticator = make(check_account=False)
        return authenticator.log_in(None, {"username": name, "password": "x"}).name

    with pytest.raises(NotAllowed, match="another system user"):
        login("Alice")
    assert login("alice") == "alice"
    assert login("Bob") == "bob"
    assert login("CAROL") == "carol"


@pytest.mark.parametrize("asked", [True, False])
def test_one_time_password_is_a_second_answer_only_when_asked_for(asked, monkeypatch):
    seen = []

    def run_pam(self, pam, name, answers, *steps):
        seen.append(answers)
        return "", ""

    monkeypatch.setattr(PAMAuthenticator, "_run_pam", run_pam)
    authenticator = make(request_otp=asked)
    data = {"username": "alice", "password": "x", "otp": "123456"}
    assert authenticator.log_in(None, data).name == "alice"
    assert seen == [["x", "123456"] if asked else ["x"]]


@pytest.mark.parametrize(
    "options", [{"encoding": "utf-9"}, {"service": "/etc/pam.d/login"}, {"service": ""}]
)
def test_impossible_options_are_configuration_errors(options):
    with pytest.raises(TraitError, match=f"PAMAuthenticator.{next(iter(options))}"):
        make(**options)


def test_importing_the_module_does_not_load_libpam():
    """Only a hub that checks passwords pays for ctypes' search for the library."""
    code = "import sys, minihub.auth.pam; sys.exit('pamela' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
