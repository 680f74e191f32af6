"""Statements whose SQL is made once: for those that every request or every start makes.

Making the text of a statement costs several times what running it does. A statement is written with
the query builder as any other, in a function, with a :func:`slot` wherever a value comes later; its
text is made at the first use.

Rules of this file: it knows statements, not what they mean. What fills a slot is what the database
stores, a text or a number: nothing is converted.

Threads: any; a text that two threads make at once is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import peewee


class _Name(str):
    """Stands for a value among the parameters of a statement."""


def slot(name: str) -> peewee.Value:
    """Return what stands in a statement for the value of that name."""
    return peewee.Value(_Name(name), converter=False, unpack=False)


def slots(*names: str) -> dict[str, peewee.Value]:
    """Return a slot for each column of these names, for an UPDATE or INSERT of them."""
    return {name: slot(name) for name in names}


class Prepared:
    """One statement on the rows of one table."""

    def __init__(self, make: Callable[[], Any]) -> None:
        """``make`` returns the statement."""
        self._make = make
        self._made: tuple[peewee.Database, type[peewee.Model], str, list[Any]] | None = None

    def rows(self, **values: Any) -> list[Any]:
        """Return the rows of the table that a SELECT of whole rows finds."""
        model, sql, parameters = self._filled(values)
        fields = model._meta.sorted_fields  # the columns of a SELECT of whole rows, in its order
        found = []
        for stored in model._meta.database.execute_sql(sql, parameters).fetchall():
            row = model(__no_default__=True)
            for field, value in zip(fields, stored, strict=True):
                row.__data__[field.name] = field.python_value(value)
            row._dirty.clear()
            found.append(row)
        return found

    def row(self, **values: Any) -> Any:
        """Return the first row that a SELECT of whole rows finds, or None."""
        found = self.rows(**values)
        return found[0] if found else None

    def tuples(self, **values: Any) -> list[tuple[Any, ...]]:
        """Return what a SELECT of columns finds, as it is stored."""
        model, sql, parameters = self._filled(values)
        return model._meta.database.execute_sql(sql, parameters).fetchall()

    def run(self, **values: Any) -> int:
        """Run an UPDATE or DELETE; return how many rows it touched."""
        model, sql, parameters = self._filled(values)
        database = model._meta.database
        return database.rows_affected(database.execute_sql(sql, parameters))

    def insert(self, **values: Any) -> int:
        """Run an INSERT of one row; return its id."""
        model, sql, parameters = self._filled(values)
        database = model._meta.database
        cursor = database.execute_sql(sql, parameters)
        return cursor.fetchone()[0] if database.returning_clause else cursor.lastrowid

    def _filled(self, values: dict[str, Any]) -> tuple[type[peewee.Model], str, list[Any]]:
        made = self._made
        if made is None or made[0] is not made[1]._meta.database:  # tests have several
            query = self._make()
            sql, parameters = query.sql()
            made = self._made = (query.model._meta.database, query.model, sql, list(parameters))
        _database, model, sql, parameters = made
        return model, sql, [values[one] if isinstance(one, _Name) else one for one in parameters]
