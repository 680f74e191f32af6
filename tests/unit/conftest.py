"""Fixtures of the unit tests."""

import contextlib
import sqlite3

import pytest


@pytest.fixture
def queries(store):
    """Return a context that lists the statements sent to ``store`` by this thread."""

    @contextlib.contextmanager
    def watch():
        with store.session() as db:
            connection: sqlite3.Connection = db.connection()
            seen: list[str] = []
            connection.set_trace_callback(seen.append)
            try:
                yield seen
            finally:
                connection.set_trace_callback(None)

    return watch
