"""How somebody wants the pages to be: their language and theme, each in a cookie of this browser.

Rules of this file: a preference is no credential and says nothing about anybody; it is checked
against the lists here whenever it is read.

Threads: waitress's.
"""

from __future__ import annotations

from typing import Any

from ..errors import BadRequest
from ..texts import Text
from . import messages
from .context import Context
from .routing import Access, Routes

routes = Routes()


@routes.add("POST", "preferences", access=Access.PUBLIC)
def preferences(ctx: Context) -> Any:
    """Keep what the form of any page chose, and go back to that page.

    ``theme`` system and ``language`` auto forget a choice.
    """
    for field, cookie, known, forget in (
        ("theme", ctx.THEME, ctx.THEMES, "system"),
        ("language", ctx.LANGUAGE, messages.LANGUAGES, "auto"),
    ):
        value = ctx.form.get(field)
        if value is None:
            continue
        if value == forget:
            ctx.clear_cookie(cookie, ctx.site.hub_prefix)
        elif value in known:
            ctx.keep_preference(cookie, value)
        else:
            raise BadRequest(
                Text("There is no %(field)s %(value)s.", field=field, value=repr(value[:20]))
            )
    return ctx.redirect(ctx.safe_next(ctx.form.get("next", "")) or ctx.site.hub_prefix, 303)
