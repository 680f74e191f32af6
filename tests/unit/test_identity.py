"""Callers are recognised, remembered without a query, and forgotten at once when it matters."""

from datetime import timedelta

import pytest

from minihub import clock, models
from minihub.accounts import Accounts
from minihub.activity import Activity
from minihub.roles import Roles
from minihub.store import Store
from minihub.web import cookies
from minihub.web.identity import Identity

SECRET = b"0" * 32


@pytest.fixture
def store(tmp_path):
    store = Store(f"{tmp_path}/hub.sqlite")
    store.open()
    with store.session():  # for what the tests read themselves
        yield store
    store.close()


@pytest.fixture
def accounts(store):
    return Accounts(store, session_lifetime_s=1000)


@pytest.fixture
def identity(accounts):
    roles = Roles(accounts.store, admin_access=True)
    activity = Activity(accounts.store)
    return Identity(accounts, roles, activity, secret=SECRET, cookie_max_age_days=1)


@pytest.fixture
def ada(accounts):
    return accounts.ensure_user("ada", admin=True)[0]


@pytest.fixture
def later(monkeypatch):
    """Return a function that moves the clock forward by so many seconds."""
    present = clock.utcnow

    def move(seconds):
        monkeypatch.setattr(clock, "utcnow", lambda: present() + timedelta(seconds=seconds))

    return move


@pytest.fixture
def proofs(identity, accounts, ada):
    """Return two ways to ask who it is: by a token, and by a login cookie."""
    _row, secret = accounts.issue_token(user_id=ada.id, scopes=["list:users"])
    jar = {cookies.LOGIN: [identity.sign_login(accounts.start_session(ada, "sid"))]}
    return {
        "token": lambda: identity.by_token(f"Bearer {secret}"),
        "login": lambda: identity.by_cookie(jar),
    }


@pytest.mark.parametrize("kind", ["token", "login"])
def test_known_caller_costs_no_query(proofs, queries, kind):
    assert proofs[kind]().name == "ada"
    with queries() as seen:
        for _ in range(10):
            caller = proofs[kind]()
            assert caller.scopes.allows("list:users") and caller.roles == ("admin", "user")
    assert seen == []


@pytest.mark.parametrize("kind", ["token", "login"])
@pytest.mark.parametrize("end", ["lock out", "delete", "demote", "rename"])
def test_change_shows_at_once(proofs, accounts, ada, kind, end):
    assert proofs[kind]().is_admin
    if end == "lock out":
        accounts.lock_out("ada")
    elif end == "delete":
        accounts.delete_user(ada)
    elif end == "demote":
        accounts.ensure_user("ada", admin=False)
    else:
        with accounts.store.transaction():
            models.User.update(name="anna").execute()
    caller = proofs[kind]()
    if end in ("lock out", "delete"):
        assert caller is None
    elif end == "demote":
        assert not caller.is_admin and not caller.scopes.has_any("list:users")
    else:
        assert caller.name == "anna"


def test_unknown_caller_is_not_remembered(identity, accounts, ada):
    secret = "a-token-that-comes-later"
    assert identity.by_token(f"token {secret}") is None
    accounts.issue_token(user_id=ada.id, plain=secret)
    assert identity.by_token(f"token {secret}").name == "ada"


def test_remembered_token_expires_on_time(identity, accounts, ada, later):
    _row, secret = accounts.issue_token(user_id=ada.id, expires_in_s=60)
    assert identity.by_token(f"token {secret}")
    later(59)
    assert identity.by_token(f"token {secret}")
    later(61)
    assert identity.by_token(f"token {secret}") is None


def test_remembered_login_expires_on_time(proofs, later):
    assert proofs["login"]()
    later(999)
    assert proofs["login"]()
    later(1001)
    assert proofs["login"]() is None


def test_ended_session_takes_its_login_and_its_tokens_along(identity, accounts, ada, proofs):
    _row, secret = accounts.issue_token(user_id=ada.id, session_id="sid")
    assert identity.by_token(f"token {secret}")
    accounts.end_session(proofs["login"]().session)
    assert proofs["login"]() is None and identity.by_token(f"token {secret}") is None
    assert proofs["token"]()


def test_cookie_is_good_under_its_own_name_only(identity, accounts, ada):
    key = accounts.start_session(ada, "sid")
    value = identity.sign_login(key, cookies.SERVICES)
    assert identity.by_cookie({cookies.SERVICES: [value]}, cookies.SERVICES).name == "ada"
    assert identity.by_cookie({cookies.LOGIN: [value]}) is None


def test_users_request_is_activity_a_servers_is_not(identity, accounts, store, ada):
    with store.transaction():
        server = models.Server.create(user=ada, name="")
    _row, secret = accounts.issue_token(user_id=ada.id, server_id=server.id)
    identity.by_token(f"token {secret}")
    assert models.User.get_by_id(ada.id).last_activity is None
    _row, secret = accounts.issue_token(user_id=ada.id)
    identity.by_token(f"token {secret}")
    assert models.User.get_by_id(ada.id).last_activity is not None


def test_memory_is_bounded(identity, accounts, ada, monkeypatch):
    monkeypatch.setattr(identity._callers, "_size", 3)
    secrets = [accounts.issue_token(user_id=ada.id)[1] for _ in range(10)]
    for secret in secrets * 2:
        assert identity.by_token(f"token {secret}").name == "ada"
        assert len(identity._callers._entries) <= 3
