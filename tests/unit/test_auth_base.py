"""The way in: nobody but those whom a rule allows, and every refusal says what it may."""

from __future__ import annotations

import asyncio
import re
from types import SimpleNamespace

import pytest
from traitlets import TraitError
from traitlets.config import Config

from minihub import aio
from minihub.auth import base
from minihub.auth.base import (
    Authenticator,
    AuthResult,
    InvalidLogin,
    InvalidUser,
    LoginUnavailable,
    NotAllowed,
)
from minihub.errors import AuthError

REQUEST = SimpleNamespace(request=SimpleNamespace(remote_ip="192.0.2.7"))


class Echo(Authenticator):
    """Believes whatever the test says."""

    answer: object = "alice"

    def authenticate(self, handler, data):
        return data["username"] if self.answer == "alice" else self.answer


def make(cls=Echo, **options) -> Authenticator:
    return cls(config=Config({"Authenticator": options}))


def login(authenticator, name="alice", handler=REQUEST) -> AuthResult:
    return authenticator.log_in(handler, {"username": name, "password": "x"})


@pytest.fixture(autouse=True)
def closed_loop():
    yield
    aio.close()


# -- who -----------------------------------------------------------------------------------


def test_nobody_is_allowed_by_default():
    """Deny by default: a right password alone lets nobody in."""
    with pytest.raises(NotAllowed) as caught:
        login(make())
    assert caught.value.name == "alice"
    assert "password are right" in str(caught.value) and '"alice"' in str(caught.value)
    assert caught.value.status == 403 and isinstance(caught.value, AuthError)


def test_wrong_login_and_unknown_name_get_the_same_text():
    authenticator = make(allow_all=True)
    authenticator.answer = None
    texts = set()
    for name in ("alice", "no-such-user"):
        with pytest.raises(InvalidLogin) as caught:
            login(authenticator, name)
        texts.add(str(caught.value))
    assert texts == {"Invalid username or password"}


def test_base_authenticator_lets_nobody_in_even_when_all_are_allowed():
    with pytest.raises(InvalidLogin):
        login(make(Authenticator, allow_all=True))


@pytest.mark.parametrize(
    ("options", "allowed", "refused"),
    [
        ({"allow_all": True}, ["alice", "bob"], []),
        ({"allowed_users": {"alice"}}, ["alice"], ["bob"]),
        ({"allowed_users": {"Alice"}}, ["alice", "ALICE"], ["bob"]),
        ({"admin_users": {"alice"}}, ["alice"], ["bob"]),
        ({"allow_all": True, "blocked_users": {"bob"}}, ["alice"], ["bob"]),
        ({"allow_all": True, "blocked_users": {"Bob"}}, ["alice"], ["bob", "BOB"]),
        ({"allowed_users": {"alice"}, "blocked_users": {"alice"}}, [], ["alice"]),
        ({"admin_users": {"alice"}, "blocked_users": {"alice"}}, [], ["alice"]),
    ],
)
def test_rules_decide_who_gets_in(options, allowed, refused):
    authenticator = make(**options)
    for name in allowed:
        assert login(authenticator, name).name == name.lower()
    for name in refused:
        with pytest.raises(NotAllowed):
            login(authenticator, name)


def test_admin_of_the_hub_gets_in_without_any_allow_option():
    """The owner can always log in again; a block still holds."""
    authenticator = make()
    authenticator.is_hub_admin = {"alice"}.__contains__
    assert login(authenticator).name == "alice"
    with pytest.raises(NotAllowed):
        login(authenticator, "bob")
    blocking = make(blocked_users={"alice"})
    blocking.is_hub_admin = {"alice"}.__contains__
    with pytest.raises(NotAllowed):
        login(blocking)


@pytest.mark.parametrize(
    ("options", "known_gets_in"),
    [
        ({}, False),
        ({"allow_existing_users": True}, True),
        ({"allowed_users": {"carol"}}, True),
        ({"allowed_users": {"carol"}, "allow_existing_users": False}, False),
    ],
)
def test_existing_users_are_allowed_by_option_or_beside_allowed_users(options, known_gets_in):
    authenticator = make(**options)
    authenticator.user_exists = {"alice"}.__contains__
    if known_gets_in:
        assert login(authenticator).name == "alice"
    else:
        with pytest.raises(NotAllowed):
            login(authenticator)
    with pytest.raises(NotAllowed):
        login(authenticator, "stranger")


def test_admin_users_become_admins_and_others_stay_as_they_are():
    authenticator = make(allow_all=True, admin_users={"Root.Admin"})
    assert login(authenticator, "root.admin").admin is True
    assert login(authenticator, "bob").admin is None


# -- names ---------------------------------------------------------------------------------


def test_name_is_lowered_then_mapped():
    authenticator = make(allow_all=True, username_map={"jdoe": "john", "john": "other"})
    assert login(authenticator, "JDoe").name == "john"
    assert login(authenticator, "john").name == "other"


def test_rules_see_the_mapped_name():
    authenticator = make(allowed_users={"john"}, username_map={"jdoe": "john"})
    assert login(authenticator, "jdoe").name == "john"
    with pytest.raises(NotAllowed):
        login(make(allow_all=True, blocked_users={"john"}, username_map={"jdoe": "john"}), "jdoe")


@pytest.mark.parametrize("name", ["a/b", "..", " padded ", "al\u200bice", "é" * 130])
def test_impossible_user_name_is_refused_with_the_reason(name):
    with pytest.raises(NotAllowed, match="cannot be a user name here"):
        login(make(allow_all=True), name)


@pytest.mark.parametrize("name", ["x" * 10_000_000, "a\x00b", "a\r\nFAKE LOG LINE"])
def test_hostile_user_name_never_reaches_the_back_end(name, caplog):
    """Such a name costs one short log line and no question to anybody."""

    class Never(Authenticator):
        def authenticate(self, handler, data):
            raise AssertionError("asked")

    with pytest.raises(InvalidLogin):
        login(make(Never, allow_all=True), name)
    (record,) = caplog.records
    assert len(record.getMessage()) < 200 and "\n" not in record.getMessage()
    assert "192.0.2.7" in record.getMessage()


def test_pattern_must_match_the_whole_name(caplog):
    authenticator = make(allow_all=True, username_pattern="[a-z]+")
    assert login(authenticator).name == "alice"
    with pytest.raises(NotAllowed):
        login(authenticator, "1alice")
    assert "beginning" not in caplog.text
    with pytest.raises(NotAllowed):
        login(authenticator, "alice!!")
    assert "matches only the beginning" in caplog.text


def test_bad_pattern_is_a_configuration_error():
    with pytest.raises(TraitError, match="username_pattern is no regular expression"):
        make(username_pattern="[a-z")


def test_set_of_letters_is_noticed(caplog):
    make(allowed_users=set("alice"))
    assert "names of one letter: a, c, e, i, l" in caplog.text


# -- what authenticate may return ----------------------------------------------------------


def test_dict_is_taken_over_into_the_result():
    authenticator = make(allow_all=True, manage_groups=True)
    authenticator.answer = {
        "name": "Alice",
        "admin": False,
        "groups": {"b", "a"},
        "auth_state": {"token": "t"},
        "user_info": {"mail": "m"},
    }
    assert login(authenticator) == AuthResult(
        "alice", False, ["a", "b"], auth_state={"token": "t"}, user_info={"mail": "m"}
    )


def test_admin_given_by_the_authenticator_wins_over_admin_users():
    authenticator = make(allow_all=True, admin_users={"alice"})
    authenticator.answer = {"name": "alice", "admin": False}
    assert login(authenticator).admin is False


def test_groups_are_not_touched_unless_managed(caplog):
    authenticator = make(allow_all=True)
    authenticator.answer = {"name": "alice", "groups": ["a"]}
    assert login(authenticator).groups is None
    managing = make(allow_all=True, manage_groups=True)
    assert login(managing).groups is None
    assert "gave no groups" in caplog.text


@pytest.mark.parametrize(
    "answer",
    [
        7,
        {"admin": True},
        {"name": 7},
        {"name": "alice", "admin": "yes"},
        {"name": "alice", "groups": "staff"},
        {"name": "alice", "groups": [1]},
        {"name": "alice", "auth_state": "secret"},
    ],
)
def test_nonsense_from_a_subclass_is_an_error_not_a_login(answer):
    authenticator = make(allow_all=True, manage_groups=True)
    authenticator.answer = answer
    with pytest.raises(TypeError, match="Echo returned"):
        login(authenticator)


def test_roles_are_not_silently_dropped(caplog):
    authenticator = make(allow_all=True)
    authenticator.answer = {"name": "alice", "roles": ["r"]}
    assert login(authenticator).name == "alice"
    assert "roles" in caplog.text


# -- coroutines ----------------------------------------------------------------------------


class Coroutines(Authenticator):
    async def authenticate(self, handler, data):
        await asyncio.sleep(0)
        return {"name": data["username"]}

    async def check_allowed(self, username, authentication=None):
        return username == "alice"

    async def check_blocked_users(self, username, authentication=None):
        return username != "bob"

    async def is_admin(self, handler, authentication):
        return authentication["name"] == "alice"


def test_every_step_may_be_a_coroutine():
    authenticator = make(Coroutines)
    assert login(authenticator) == AuthResult("alice", admin=True)
    for name in ("bob", "carol"):
        with pytest.raises(NotAllowed):
            login(authenticator, name)


def test_coroutine_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(base, "STEP_TIMEOUT_S", 0.05)

    class Hanging(Authenticator):
        async def authenticate(self, handler, data):
            await asyncio.sleep(3600)

    with pytest.raises(LoginUnavailable, match="did not answer") as caught:
        login(make(Hanging, allow_all=True))
    assert caught.value.status == 503


# -- the hook ------------------------------------------------------------------------------


def test_hook_changes_the_model():
    def hook(authenticator, handler, model):
        assert handler is REQUEST and isinstance(authenticator, Echo)
        return {**model, "admin": True, "auth_state": {"k": 1}}

    result = login(make(allow_all=True, post_auth_hook=hook))
    assert result == AuthResult("alice", admin=True, auth_state={"k": 1})


def test_hook_may_be_a_coroutine_and_runs_only_after_success():
    calls = []

    async def hook(authenticator, handler, model):
        calls.append(model["name"])
        return model

    authenticator = make(allowed_users={"alice"}, post_auth_hook=hook)
    assert login(authenticator).name == "alice"
    with pytest.raises(NotAllowed):
        login(authenticator, "bob")
    assert calls == ["alice"]


def test_hook_that_returns_nothing_refuses_the_login(caplog):
    with pytest.raises(NotAllowed):
        login(make(allow_all=True, post_auth_hook=lambda *args: None))
    assert "must return the auth_model" in caplog.text


@pytest.mark.parametrize("name", ["../root", "blocked"])
def test_hook_cannot_smuggle_a_refused_name(name):
    def hook(authenticator, handler, model):
        return {**model, "name": name}

    with pytest.raises(NotAllowed):
        login(make(allow_all=True, blocked_users={"blocked"}, post_auth_hook=hook))


# -- old spellings -------------------------------------------------------------------------


def test_old_option_names_work_and_name_their_successor(caplog):
    authenticator = make(whitelist={"alice"}, blacklist={"bob"})
    assert authenticator.allowed_users == {"alice"}
    assert authenticator.blocked_users == {"bob"}
    assert "whitelist is the old spelling of Authenticator.allowed_users" in caplog.text
    assert "blacklist is the old spelling of Authenticator.blocked_users" in caplog.text


def test_where_both_spellings_are_given_the_stricter_reading_holds(caplog):
    authenticator = make(
        whitelist={"alice"}, allowed_users={"carol"}, blacklist={"bob"}, blocked_users={"dave"}
    )
    assert authenticator.allowed_users == {"carol"}
    assert authenticator.blocked_users == {"bob", "dave"}
    assert "whitelist is ignored" in caplog.text


def test_same_value_under_both_spellings_does_not_warn(caplog):
    make(whitelist={"alice"}, allowed_users={"alice"})
    assert caplog.text == ""


def test_old_method_names_in_a_subclass_take_part(caplog):
    class Old(Echo):
        def check_whitelist(self, username):
            return username == "alice" or super().check_whitelist(username)

        def check_blacklist(self, username, authentication):
            return "name" in authentication and username != "bob"

    authenticator = make(Old, allowed_users={"bob", "carol"})
    for name in ("alice", "carol"):
        assert login(authenticator, name).name == name
    for name in ("bob", "dave"):
        with pytest.raises(NotAllowed):
            login(authenticator, name)
    assert "Old.check_whitelist: the method is called check_allowed now" in caplog.text


# -- called by the hub ---------------------------------------------------------------------


def test_add_user_refuses_what_no_login_could_be():
    authenticator = make(username_pattern="[a-z]+")
    authenticator.add_user(SimpleNamespace(name="alice"))
    for name in ("a/b", "alice7", ""):
        with pytest.raises(InvalidUser) as caught:
            authenticator.add_user(SimpleNamespace(name=name))
        assert caught.value.status == 400


def test_urls_of_login_and_logout():
    authenticator = make()
    assert authenticator.login_url("/hub/") == "/hub/login"
    assert authenticator.logout_url("/base/hub/") == "/base/hub/logout"
    assert authenticator.get_custom_html("/hub/") == ""


def test_start_warns_when_nobody_may_log_in():
    assert re.search("allowed_users.*allow_all", make().check_allow_config()[0])
    for options in (
        {"allow_all": True},
        {"allowed_users": {"a1"}},
        {"allow_existing_users": True},
        {"any_allow_config": True},
    ):
        assert make(**options).check_allow_config() == []


def test_failed_login_is_logged_with_its_origin(caplog):
    authenticator = make(allow_all=True)
    authenticator.answer = None
    with pytest.raises(InvalidLogin):
        login(authenticator)
    assert 'wrong name or password, "alice" from 192.0.2.7' in caplog.text
    caplog.clear()
    with pytest.raises(InvalidLogin):
        authenticator.log_in(None, None)
    assert "an unknown address" in caplog.text
    caplog.clear()
    with pytest.raises(NotAllowed):
        login(make())
    assert 'no rule allows "alice" from 192.0.2.7' in caplog.text
