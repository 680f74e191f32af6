"""Users, sessions, tokens and the owner's link."""

from datetime import timedelta

import pytest

from minihub import clock, models
from minihub.accounts import Accounts
from minihub.store import Store


@pytest.fixture
def accounts(tmp_path):
    store = Store(f"{tmp_path}/hub.sqlite")
    store.open()
    with store.session():  # for what the tests read themselves
        yield Accounts(store, session_lifetime_s=1000)
    store.close()


@pytest.fixture
def ada(accounts):
    return accounts.ensure_user("ada")[0]


@pytest.fixture
def later(monkeypatch):
    """Return a function that moves the clock forward by so many seconds."""
    present = clock.utcnow

    def move(seconds):
        monkeypatch.setattr(clock, "utcnow", lambda: present() + timedelta(seconds=seconds))

    return move


def database_text(store):
    with store.session() as db:
        return "\n".join(db.connection().iterdump())


def test_user_is_made_once(accounts, ada):
    again, created = accounts.ensure_user("ada")
    assert again.id == ada.id and not created
    assert accounts.user("ada").id == ada.id
    assert accounts.user("bob") is None


def test_admin_flag_changes_only_when_given(accounts):
    accounts.ensure_user("ada", admin=True)
    accounts.ensure_user("ada")
    assert accounts.is_admin("ada")
    accounts.ensure_user("ada", admin=False)
    assert not accounts.is_admin("ada")


def test_what_is_known_of_rights_outlives_those_who_bring_none(accounts, ada):
    known = accounts.store.generation
    accounts.ensure_user("bob")
    accounts.ensure_user("ada")
    accounts.ensure_user("ada", admin=False)
    assert accounts.store.generation == known
    accounts.ensure_user("carol", admin=True)
    assert accounts.store.generation == known + 1
    accounts.ensure_user("ada", admin=True)
    assert accounts.store.generation == known + 2
    accounts.ensure_user("ada", admin=True)
    assert accounts.store.generation == known + 2
    accounts.ensure_user("ada", admin=False)
    assert accounts.store.generation == known + 3


def test_login_is_found_by_its_key_only(accounts, ada):
    key = accounts.start_session(ada, "sid")
    assert accounts.login(key).user.name == "ada"
    assert accounts.login(key[:-1] + "x") is None


def test_ended_session_is_no_login_and_its_tokens_are_gone(accounts, ada):
    key = accounts.start_session(ada, "sid")
    other = accounts.start_session(ada, "sid2")
    _row, token = accounts.issue_token(user_id=ada.id, session_id="sid")
    _row, kept = accounts.issue_token(user_id=ada.id, session_id="sid2")
    accounts.end_session(accounts.login(key).session)
    assert accounts.login(key) is None
    assert accounts.find_token(token) is None
    assert accounts.login(other) is not None
    assert accounts.find_token(kept) is not None


def test_old_session_is_no_login(accounts, ada, later):
    key = accounts.start_session(ada, "sid")
    later(999)
    assert accounts.login(key)
    later(1001)
    assert accounts.login(key) is None


def test_token_is_found_until_it_expires(accounts, ada, later):
    _row, token = accounts.issue_token(user_id=ada.id, expires_in_s=60)
    assert accounts.find_token(token).user_id == ada.id
    later(61)
    assert accounts.find_token(token) is None


def test_expired_tokens_leave_the_database_with_the_next_new_one(accounts, ada, later):
    accounts.issue_token(user_id=ada.id, expires_in_s=60)
    kept, _secret = accounts.issue_token(user_id=ada.id, expires_in_s=100)
    later(61)
    new, _secret = accounts.issue_token(user_id=ada.id)
    assert [row.id for row in models.Token.select()] == [kept.id, new.id]


@pytest.mark.parametrize("junk", ["", "x", "a" * 64, "ä" * 64, "x" * 5000, "\ud800"])
def test_junk_is_no_token(accounts, ada, junk):
    accounts.issue_token(user_id=ada.id)
    assert accounts.find_token(junk) is None


def test_no_secret_stands_in_the_database(accounts, ada):
    key = accounts.start_session(ada, "sid")
    _row, token = accounts.issue_token(user_id=ada.id)
    models.User.update(admin=False).execute()
    code = accounts.new_owner_link(1000)
    text = database_text(accounts.store)
    for secret in (key, token, code):
        assert secret not in text


def test_token_use_is_noted_in_coarse_steps(accounts, ada, later):
    row, _token = accounts.issue_token(user_id=ada.id)
    accounts.touch_token(row)
    first = models.Token.get_by_id(row.id).last_activity
    accounts.touch_token(models.Token.get_by_id(row.id))
    assert models.Token.get_by_id(row.id).last_activity == first
    later(120)
    accounts.touch_token(models.Token.get_by_id(row.id))
    assert models.Token.get_by_id(row.id).last_activity > first


# -- the owner's link ------------------------------------------------------------------------


def test_owner_link_makes_one_admin_once(accounts):
    code = accounts.new_owner_link(1000)
    assert accounts.owner_link(code).uid == 1000
    assert accounts.spend_owner_link(code, "ada").admin
    assert accounts.spend_owner_link(code, "eve") is None
    assert accounts.user("eve") is None


def test_looking_at_the_owner_link_does_not_spend_it(accounts):
    code = accounts.new_owner_link(1000)
    for _ in range(3):
        assert accounts.owner_link(code)


def test_owner_link_ends_after_half_an_hour(accounts, later):
    code = accounts.new_owner_link(1000)
    later(1801)
    assert accounts.owner_link(code) is None
    assert accounts.spend_owner_link(code, "eve") is None


def test_owner_link_dies_with_the_first_admin(accounts):
    code = accounts.new_owner_link(1000)
    accounts.ensure_user("ada", admin=True)
    assert accounts.spend_owner_link(code, "eve") is None


def test_owner_link_for_a_hub_with_an_admin_outlasts_that_admins_logins(accounts):
    accounts.ensure_user("ada", admin=True)
    assert accounts.has_admin()
    code = accounts.new_owner_link(1000)
    accounts.ensure_user("ada", admin=True)
    accounts.ensure_user("bob")
    assert accounts.spend_owner_link(code, "eve").admin
    code = accounts.new_owner_link(1000)
    accounts.ensure_user("bob", admin=True)  # somebody new
    assert accounts.spend_owner_link(code, "eve") is None


def test_newer_owner_link_ends_the_older_one(accounts):
    older, newer = accounts.new_owner_link(1), accounts.new_owner_link(1)
    assert accounts.owner_link(older) is None
    assert accounts.owner_link(newer)


def test_owner_link_is_spent_by_who_is_an_admin_already(accounts):
    accounts.ensure_user("ada", admin=True)
    code = accounts.new_owner_link(1000)
    assert accounts.spend_owner_link(code, "ada").name == "ada"
    assert accounts.owner_link(code) is None
    assert accounts.spend_owner_link(code, "eve") is None


def test_wrong_owner_code_is_nothing(accounts):
    accounts.new_owner_link(1)
    assert accounts.owner_link("guess") is None
    assert accounts.spend_owner_link("guess", "eve") is None


def test_any_number_of_logins_is_ended(accounts, ada):
    """More than a statement can have values: whoever has a password can make them."""
    rows = (
        "INSERT INTO sessions (user_id, hashed, session_id, created) "
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 260000) "
        "SELECT ?, 'hash-' || i, 'id-' || i, ? FROM n"
    )
    with accounts.store.session() as db:
        db.execute_sql(rows, (ada.id, clock.now_text()))
    accounts.issue_token(user_id=ada.id, session_id="id-7")
    kept, _plain = accounts.issue_token(user_id=ada.id)
    assert len(accounts.sessions_of(ada, 100)) == 100
    accounts.end_sessions(ada)
    assert accounts.sessions_of(ada, 100) == []
    with accounts.store.session():
        assert [row.id for row in models.Token.select()] == [kept.id]
