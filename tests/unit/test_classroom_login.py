"""A refused login costs the same whether there is such a user or not: one hash, with one cost."""

from __future__ import annotations

import hashlib

import pytest

from minihub import readable, tokens
from minihub.accounts import Accounts
from minihub.auth.classroom import (
    ClassroomAuthenticator,
    CodeExpired,
    MustSetPassword,
    StillWaiting,
)
from minihub.store import Store

PASSWORD = "kind of blue"


@pytest.fixture
def authenticator(tmp_path, monkeypatch):
    """One with a user of a password, one of a code, one of an old code, and one who waits."""
    monkeypatch.setattr(tokens, "_SCRYPT", {"n": 4, "r": 8, "p": 1})  # the test is not about time
    store = Store(f"{tmp_path}/hub.sqlite")
    store.open()
    made = ClassroomAuthenticator()
    made.use_accounts(Accounts(store, session_lifetime_s=1000))
    book = made.book
    book.sign_up("ada", made.hashed(PASSWORD), code=None)
    for name, lifetime_s in (("coded", 1000), ("late", -1000)):
        user = made.book.accounts.ensure_user(name)[0]
        book.reset(user, made.hashed("CDF2345GH"), lifetime_s)
    book.ask("waiting", made.hashed(PASSWORD), address="192.0.2.1", most=10)
    made._matches("x", made.hashed("forgotten"))  # what this thread hashed last is remembered once
    yield made
    store.close()


@pytest.fixture
def costs(monkeypatch):
    """Return the parameters of every scrypt so far."""
    seen: list[tuple[int, int, int]] = []
    real = hashlib.scrypt

    def counted(raw, *, salt, n, r, p):
        seen.append((n, r, p))
        return real(raw, salt=salt, n=n, r=r, p=p)

    monkeypatch.setattr(hashlib, "scrypt", counted)
    return seen


NAMES = ["ada", "coded", "late", "waiting", "nobody", "", "ADA", "../etc", "a" * 300]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("password", ["not this one", "", "CDF2345GG", "\N{SNOWMAN}" * 300])
def test_wrong_password_costs_one_hash_for_any_name(authenticator, costs, name, password):
    typed = {"username": name, "password": password}
    assert authenticator.authenticate(None, typed) is None
    assert costs == [(4, 8, 1)]


@pytest.mark.parametrize("name", ["ada", "nobody"])
def test_password_that_nobody_can_have_costs_nothing_for_any_name(authenticator, costs, name):
    too_long = "x" * (tokens.MAX_PASSWORD_BYTES + 1)
    assert authenticator.authenticate(None, {"username": name, "password": too_long}) is None
    assert costs == []


@pytest.mark.parametrize("name", NAMES)
def test_wrong_one_time_code_costs_one_hash_for_any_name(authenticator, costs, name):
    assert authenticator.spend_one_time_code(name, "222222222", "a brand new one") is False
    assert costs == [(4, 8, 1)]


def test_right_words_cost_one_hash_as_well(authenticator, costs):
    """Those who know the secret are told what is missing; the time says no more than that."""
    code = readable.grouped("CDF2345GH")
    assert authenticator.authenticate(None, {"username": "ada", "password": PASSWORD}) == "ada"
    for name, password, told in (
        ("coded", code, MustSetPassword),
        ("late", code, CodeExpired),
        ("waiting", PASSWORD, StillWaiting),
    ):
        with pytest.raises(told):
            authenticator.authenticate(None, {"username": name, "password": password})
    assert costs == [(4, 8, 1)] * 4
