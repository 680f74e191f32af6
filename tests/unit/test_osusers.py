"""Users of the operating system."""

import os

from minihub.auth import osusers


def test_who_has_no_account_is_called_by_number(monkeypatch):
    """As in containers that are run with any number."""
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    assert osusers.own_name() == "54321"
    assert osusers.name_of_uid(54321) == ""
