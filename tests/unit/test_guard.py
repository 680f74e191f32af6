"""Guesses are counted for a name, wherever they come from."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from minihub.auth.simple import DummyAuthenticator
from minihub.web.guard import Guard, TooManyAttempts


def browser(address: str) -> Any:
    return SimpleNamespace(remote_ip=address, jar={})


def guess(guard: Guard, name: str, address: str, *, is_right: bool = False) -> None:
    with guard.password(browser(address), name) as one:
        if is_right:
            one.right()


@pytest.fixture
def guard() -> Guard:
    return Guard(DummyAuthenticator(), b"secret")


def test_twenty_guesses_at_one_name_are_all_however_many_addresses_there_are(guard: Guard) -> None:
    for number in range(20):
        guess(guard, ("ada", "ADA", " ada")[number % 2], f"10.0.0.{number}")
    with pytest.raises(TooManyAttempts) as refused:
        guess(guard, "ada", "10.0.1.1", is_right=True)
    assert int(refused.value.headers["Retry-After"]) > 0
    guess(guard, "bob", "10.0.0.1")


def test_guesses_at_many_names_from_one_address_are_bounded(guard: Guard) -> None:
    for number in range(200):
        guess(guard, f"name{number}", "10.0.0.1")
    with pytest.raises(TooManyAttempts):
        guess(guard, "one-more", "10.0.0.1")
    guess(guard, "one-more", "10.0.0.2")


def test_right_ones_do_not_count(guard: Guard) -> None:
    for number in range(50):
        guess(guard, "ada", f"10.0.0.{number % 3}", is_right=True)
    guess(guard, "ada", "10.0.0.1")
