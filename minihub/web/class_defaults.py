"""What the pages for joining and for a class may use, with the values they have without any.

Rules of this file: a part of :data:`minihub.web.rendering.DEFAULTS`, and nothing else.

Threads: read only.
"""

from __future__ import annotations

from typing import Any

CLASS_DEFAULTS: dict[str, Any] = {
    # -- join.html, join-waiting.html, new-password.html, password.html --
    "asks_code": False,
    "needs_approval": False,
    "suggestion": "",  # a name in the place of the one that cannot be; it is in the field
    "taken": "",  # the name that is somebody's, who may log in at taken_login_url
    "taken_login_url": "",
    "minimum_length": 8,
    "is_first": False,  # there is no password yet
    "changed": False,
    # -- class.html --
    "signup": "code",  # closed, code, approve, open
    "codes": (),  # dicts: code, note, group, used, uses, expires_at, projector_url, end_url, joined
    "used_up": (),  # codes that would be good still, had not so many joined; as codes
    "waiting": (),  # objects: name, created, address
    "lifetimes": (),  # dicts: seconds, number, unit
    "lifetime_s": 0,
    "uses": 0,
    "group_names": (),
    "group": "",
    "note": "",
    # -- projector.html --
    "spoken": "",  # the code, sign by sign
    "picture": {"size": 0, "path": ""},
    "join_address": "",
    "reachable": True,  # whether other machines can reach the hub at all
    "other_addresses": (),  # dicts: text, url
    "used": 0,
    "good": True,
    "count_url": "",
    "class_url": "",
    "expires_at": None,
    # -- class-people.html, class-reset.html, class-slips.html, class-roster.html --
    "people_url": "",
    "for_oneself": False,
    "slips": (),  # dicts: name, code, groups, expires_at, picture
    "address": "",
    "imported": False,
    "plan": None,  # object: rows (line, name, groups, action, problem), note
    "plan_counts": {},  # add, join, keep, problems
    "list_text": "",
    "export_url": "",
}
