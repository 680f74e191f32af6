"""Activity moves forward only, in steps worth writing."""

from datetime import timedelta

import pytest

from minihub import clock, models
from minihub.activity import Activity
from minihub.store import Store


@pytest.fixture
def store(tmp_path):
    store = Store(f"{tmp_path}/hub.sqlite")
    store.open()
    with store.session():  # for what the tests read themselves
        yield store
    store.close()


@pytest.fixture
def rows(store):
    with store.transaction():
        user = models.User.create(name="ada", created=clock.now_text())
        return user.id, models.Server.create(user=user, name="").id


def seen(table, row_id):
    return table.get_by_id(row_id).last_activity


def test_server_activity_is_also_its_users(store, rows):
    user_id, server_id = rows
    when = clock.after(-100)
    Activity(store).server(server_id, user_id, when)
    assert seen(models.Server, server_id) == seen(models.User, user_id) == clock.isoformat(when)


def test_time_never_moves_back(store, rows):
    activity = Activity(store)
    activity.user(rows[0], clock.after(-100))
    before = seen(models.User, rows[0])
    activity.user(rows[0], clock.after(-5000))
    assert seen(models.User, rows[0]) == before


def test_small_steps_are_not_written(store, rows):
    activity = Activity(store)
    start = clock.after(-100)
    activity.user(rows[0], start)
    activity.user(rows[0], start + timedelta(seconds=20))
    assert seen(models.User, rows[0]) == clock.isoformat(start)
    activity.user(rows[0], start + timedelta(seconds=31))
    assert seen(models.User, rows[0]) > clock.isoformat(start)


def test_future_is_cut_to_the_present(store, rows):
    Activity(store).user(rows[0], clock.after(3000))
    assert seen(models.User, rows[0]) <= clock.now_text()


def test_report_without_a_step_is_written_however_small(store, rows):
    activity = Activity(store)
    start = clock.after(-100)
    activity.server(rows[1], rows[0], start)
    activity.server(rows[1], rows[0], start + timedelta(seconds=1), step_s=0)
    assert seen(models.Server, rows[1]) == clock.isoformat(start + timedelta(seconds=1))
    activity.server(rows[1], rows[0], start, step_s=0)
    assert seen(models.Server, rows[1]) == clock.isoformat(start + timedelta(seconds=1))


def test_last_time_is_remembered_until_it_is_to_be_forgotten(store, rows, queries):
    activity = Activity(store)
    assert activity.of_user(rows[0]) is None and activity.of_server(rows[1]) is None
    when = clock.after(-100)
    activity.server(rows[1], rows[0], when)
    with queries() as asked:
        assert activity.of_user(rows[0]) == activity.of_server(rows[1]) == clock.isoformat(when)
        activity.user(rows[0], when)
    assert asked == []
    with store.transaction(touches_rights=False):
        models.User.update(last_activity=None).execute()
    activity.forget()
    assert activity.of_user(rows[0]) is None
