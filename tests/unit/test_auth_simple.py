"""Dummy, null and shared-password logins."""

from __future__ import annotations

import pytest
from traitlets import TraitError
from traitlets.config import Config

from minihub.auth.base import Authenticator, InvalidLogin, LoginUnavailable, NotAllowed
from minihub.auth.simple import (
    DummyAuthenticator,
    NullAuthenticator,
    SharedPasswordAuthenticator,
)

USER_PASSWORD = "correct horse"
ADMIN_PASSWORD = "battery staple battery staple battery"


def make(cls, **options) -> Authenticator:
    return cls(config=Config({cls.__name__: options}))


def login(authenticator, name, password=""):
    return authenticator.log_in(None, {"username": name, "password": password})


def shared(**options) -> Authenticator:
    options = {
        "user_password": USER_PASSWORD,
        "admin_password": ADMIN_PASSWORD,
        "admin_users": {"boss"},
        "allow_all": True,
        **options,
    }
    return make(SharedPasswordAuthenticator, **options)


def test_dummy_lets_everybody_in_but_nobody_without_a_name():
    authenticator = make(DummyAuthenticator)
    assert login(authenticator, "Anyone").name == "anyone"
    with pytest.raises(InvalidLogin):
        login(authenticator, "")
    with pytest.raises(InvalidLogin):
        authenticator.log_in(None, {})


def test_dummy_with_a_password_wants_it():
    authenticator = make(DummyAuthenticator, password="pässword")
    assert login(authenticator, "a", "pässword").name == "a"
    for wrong in ("", "password", "pässword "):
        with pytest.raises(InvalidLogin):
            login(authenticator, "a", wrong)


def test_dummy_with_allowed_users_allows_only_them():
    authenticator = make(DummyAuthenticator, allowed_users={"alice"})
    assert login(authenticator, "alice").name == "alice"
    with pytest.raises(NotAllowed):
        login(authenticator, "bob")


def test_dummy_warns_at_start():
    (warning,) = make(DummyAuthenticator).check_allow_config()
    assert "as anybody, without a password" in warning
    (warning,) = make(DummyAuthenticator, password="x").check_allow_config()
    assert "who knows its one password" in warning


def test_null_lets_nobody_in_and_says_so():
    authenticator = make(NullAuthenticator, allow_all=True)
    assert authenticator.auto_login is True
    for data in (None, {}, {"username": "a", "password": "b"}):
        with pytest.raises(LoginUnavailable, match="API tokens") as caught:
            authenticator.log_in(None, data)
        assert caught.value.status == 403
    assert authenticator.check_allow_config() == []


@pytest.mark.parametrize(
    ("name", "password", "admin"),
    [
        ("alice", USER_PASSWORD, False),
        ("alice", ADMIN_PASSWORD, None),
        ("boss", ADMIN_PASSWORD, True),
        ("BOSS", ADMIN_PASSWORD, True),
        ("boss", USER_PASSWORD, None),
        ("BOSS", USER_PASSWORD, None),
        ("alice", "", None),
        ("alice", "pässword", None),
        ("boss", "", None),
        ("", USER_PASSWORD, None),
    ],
)
def test_shared_password_belongs_to_one_kind_of_user(name, password, admin):
    authenticator = shared()
    if admin is None:
        with pytest.raises(InvalidLogin):
            login(authenticator, name, password)
    else:
        assert login(authenticator, name, password).admin is admin


def test_admin_made_on_the_admin_page_needs_the_admin_password_too():
    """Whoever knows the users' password must not become an admin under an admin's name."""
    authenticator = shared()
    authenticator.is_hub_admin = {"owner"}.__contains__
    with pytest.raises(InvalidLogin):
        login(authenticator, "owner", USER_PASSWORD)
    assert login(authenticator, "owner", ADMIN_PASSWORD).admin is True


def test_map_cannot_turn_a_user_password_into_an_admin():
    authenticator = shared(username_map={"alias": "boss", "chain": "alias"})
    with pytest.raises(InvalidLogin):
        login(authenticator, "alias", USER_PASSWORD)
    assert login(authenticator, "chain", USER_PASSWORD).name == "alias"


def test_absent_passwords_let_nobody_in():
    for options in ({"user_password": None}, {"user_password": ""}):
        with pytest.raises(InvalidLogin):
            login(shared(**options), "alice", "")
    for options in ({"admin_password": None}, {"admin_password": ""}):
        with pytest.raises(InvalidLogin):
            login(shared(**options), "boss", "")


def test_shared_password_still_needs_an_allow_rule():
    with pytest.raises(NotAllowed):
        login(shared(allow_all=False), "alice", USER_PASSWORD)
    assert login(shared(allow_all=False), "boss", ADMIN_PASSWORD).admin is True


def test_password_decides_the_groups():
    authenticator = shared(
        manage_groups=True, password_groups={"class of 2026": ["a", "b"], "class of 2027": ["c"]}
    )
    assert login(authenticator, "x1", "class of 2026").groups == ["a", "b"]
    assert login(authenticator, "x1", "class of 2027").groups == ["c"]
    assert login(authenticator, "x1", USER_PASSWORD).groups == []
    with pytest.raises(InvalidLogin):
        login(authenticator, "boss", "class of 2026")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"user_password": "seven77"}, "user_password must have 8 characters or more, not 7"),
        ({"admin_password": "x" * 31}, "admin_password must have 32 characters or more, not 31"),
        ({"user_password": ADMIN_PASSWORD}, "must differ"),
        ({"password_groups": {"class of 2026": []}}, "manage_groups"),
        ({"password_groups": {"short": []}, "manage_groups": True}, "8 characters"),
        ({"password_groups": {USER_PASSWORD: []}, "manage_groups": True}, "is also"),
    ],
)
def test_weak_or_ambiguous_passwords_are_configuration_errors(options, message):
    with pytest.raises(TraitError, match=message) as caught:
        shared(**options)
    assert ADMIN_PASSWORD not in str(caught.value) and USER_PASSWORD not in str(caught.value)


def test_start_warns_of_logins_that_cannot_work():
    nothing = make(SharedPasswordAuthenticator, allow_all=True).check_allow_config()
    assert "Nobody can log in" in nothing[0]
    assert "Only admins" in shared(user_password=None).check_allow_config()[0]
    assert "Admins cannot" in shared(admin_password=None).check_allow_config()[0]
    assert shared().check_allow_config() == []
