"""Sentences that people read on pages, in English, with what it takes to say them otherwise.

Rules of this file: a :class:`Text` is an ordinary English text everywhere (logs, API, other
programs); only the pages look inside. What a Text holds is written literally at its call, so that
``scripts/messages.py`` finds it; ``%`` is written ``%%`` in it.

Threads: any; a Text never changes.
"""

from __future__ import annotations

from typing import Any


class Text(str):
    """``msgid % values``, which still knows both.

    Values may be Texts themselves; pages say those in the reader's language too.
    """

    msgid: str
    values: dict[str, Any]

    def __new__(cls, msgid: str, **values: Any) -> Text:
        self = super().__new__(cls, msgid % values)
        self.msgid = msgid
        self.values = values
        return self

    @classmethod
    def whole(cls, msgid: str) -> Text:
        """Return a Text that is said as a whole; ``%`` in it is itself.

        For tables of texts: ``scripts/messages.py`` knows the classes whose rows they are.
        """
        return cls(msgid.replace("%", "%%"))

    def __str__(self) -> str:
        return self  # an exception's text stays what it is


class Number(Text):
    """A number with a decimal point, which pages write with the mark of their language."""

    def __new__(cls, number: str) -> Number:
        self = super().__new__(cls, "%(number)s", number=number)
        return self  # type: ignore[return-value]
