"""Realistic values for the pages of a class."""

from __future__ import annotations

from datetime import datetime, timezone
from types import SimpleNamespace

MOMENT = datetime(2026, 11, 22, 20, 14, 7, tzinfo=timezone.utc)
TEXT_MOMENT = "2026-11-22T20:14:07.833220Z"

QR = {"size": 29, "path": "M4 4h7v1h-7z"}
CODE = {
    "code": "K7MX-4PRT",
    "note": "first lesson",
    "group": "8b",
    "used": 2,
    "uses": 40,
    "expires_at": "2099-01-01T00:00:00Z",
    "projector_url": "/hub/class/projector/3",
    "end_url": "/hub/class/codes/3/end",
    "joined": ["ada", "ben"],
}
LIFETIMES = [
    {"seconds": 5400, "number": 90, "unit": "minutes"},
    {"seconds": 28800, "number": 8, "unit": "hours"},
    {"seconds": 86400, "number": 1, "unit": "days"},
]
WAITING = [
    SimpleNamespace(name="ada", created=TEXT_MOMENT, address="192.168.1.20"),
    SimpleNamespace(name="ben", created=TEXT_MOMENT, address=""),
]
PLAN = SimpleNamespace(
    dotted=True,
    note="The file is not UTF-8 and was read as Windows-1252: look whether the names are right.",
    rows=[
        SimpleNamespace(line=2, name="ada", groups=["8b", "lab"], action="add", problem=""),
        SimpleNamespace(line=3, name="ben", groups=["8b"], action="join", problem=""),
        SimpleNamespace(line=4, name="cyd", groups=[], action="keep", problem=""),
    ],
)
WRONG = SimpleNamespace(
    dotted=False,
    note="",
    rows=[
        SimpleNamespace(
            line=1, name="a b", groups=[], action="keep", problem="this cannot be a name"
        )
    ],
)
COUNTS = {"add": 1, "join": 1, "keep": 1, "problems": 0}
KEEPER = SimpleNamespace(keeps_passwords=True)
TEACHER = {
    "authenticator": KEEPER,
    "parsed_scopes": {"admin-ui": {}, "admin:users": {}},
    "waiting_count": 2,
}
PAGES: dict[str, list[dict]] = {
    "join.html": [
        {"user": None, "url": "/hub/join", "asks_code": True, "next": "/hub/user-redirect/lab"},
        {
            "user": None,
            "url": "/hub/join",
            "asks_code": True,
            "code": "K7MX-4PRT",
            "username": "ada",
            "error": "This name is taken. Choose another one.",
            "error_field": "username",
            "taken": "ada",
            "taken_login_url": "/hub/login?username=ada",
        },
        {
            "user": None,
            "url": "/hub/join",
            "asks_code": True,
            "code": "K7MX-4PRT",
            "username": "ada.lovelace",
            "error": "This cannot be a name: it contains a space.",
            "error_field": "username",
            "suggestion": "ada.lovelace",
        },
        {"user": None, "url": "/hub/join", "needs_approval": True},
        {"user": None, "url": "/hub/join"},
    ],
    "join-waiting.html": [{"user": None, "username": "ada"}],
    "new-password.html": [
        {"user": None, "url": "/hub/new-password"},
        {
            "user": None,
            "url": "/hub/new-password",
            "username": "ada",
            "code": "K7M-4XP-2RT",
            "error": "The two passwords are not the same.",
        },
    ],
    "password.html": [
        {"url": "/hub/password", "authenticator": KEEPER, "changed": True},
        {"url": "/hub/password", "is_first": True, "error": "A password has more characters."},
    ],
    "class.html": [
        {
            **TEACHER,
            "codes": [CODE, CODE | {"joined": [], "note": "", "group": "", "code": "2345-6789"}],
            "join_url": "/hub/join",
            "lifetimes": LIFETIMES,
            "lifetime_s": 28800,
            "uses": 40,
            "group_names": ["8a", "8b"],
        },
        {**TEACHER, "error": "How many can join is a number.", "group": "8b", "note": "x"},
        {**TEACHER, "used_up": [CODE]},
        {**TEACHER, "signup": "approve", "waiting": WAITING, "join_url": "/hub/join"},
        {**TEACHER, "signup": "approve"},
        {**TEACHER, "signup": "open"},
        {**TEACHER, "signup": "closed"},
    ],
    "projector.html": [
        {
            "code": "K7MX-4PRT",
            "spoken": "K 7 M X 4 P R T",
            "picture": QR,
            "join_address": "192.168.1.20:8000/join",
            "other_addresses": [{"text": "10.8.0.3:8000", "url": "?at=10.8.0.3:8000"}],
            "group": "8b",
            "used": 7,
            "uses": 40,
            "count_url": "/hub/class/projector/3/count",
            "class_url": "/hub/class",
            "expires_at": "2099-01-01T00:00:00Z",
        },
        {"picture": QR, "code": "K7MX-4PRT", "reachable": False, "good": False},
    ],
    "class-people.html": [
        {
            **TEACHER,
            "users": [
                {
                    "name": name,
                    "admin": name == "ana",
                    "groups": groups,
                    "created": MOMENT,
                    "password": state,
                    "expires_at": None,
                    "expired": name == "dot",
                    "url": f"/hub/admin/user/{name}",
                    "reset_url": f"/hub/class/reset/{name}",
                }
                for name, groups, state in (
                    ("ana", [], "own"),
                    ("ben", ["8b", "lab"], "code"),
                    ("cyd", ["8b"], "none"),
                    ("dot", ["8b"], "code"),
                )
            ],
            "total_users": 4,
            "search": "",
            "previous_url": "/hub/class/people?page=1",
            "next_url": "/hub/class/people?page=3",
        },
        {**TEACHER, "search": "zoe"},
        {**TEACHER},
    ],
    "class-reset.html": [
        {
            **TEACHER,
            "username": "ada",
            "url": "/hub/class/reset/ada",
            "people_url": "/hub/class/people",
        },
        {**TEACHER, "username": "ana", "is_first": True, "for_oneself": True},
    ],
    "class-slips.html": [
        {
            **TEACHER,
            "slips": [
                {
                    "name": name,
                    "code": "K7M-4XP-2RT",
                    "groups": groups,
                    "expires_at": "2099-01-01T00:00:00Z",
                    "picture": QR,
                }
                for name, groups in (("ada", ["8b"]), ("ben", []))
            ],
            "address": "192.168.1.20:8000/",
            "people_url": "/hub/class/people",
            "imported": True,
            "plan_counts": COUNTS,
        },
        {**TEACHER, "imported": True, "plan_counts": {"add": 0, "join": 0, "keep": 3}},
    ],
    "class-roster.html": [
        {**TEACHER, "url": "/hub/class/roster", "export_url": "/hub/class/roster.csv"},
        {
            **TEACHER,
            "url": "/hub/class/roster",
            "plan": PLAN,
            "plan_counts": COUNTS,
            "list_text": "name,groups\nada,8b|lab",
        },
        {
            **TEACHER,
            "url": "/hub/class/roster",
            "plan": WRONG,
            "plan_counts": COUNTS | {"problems": 1},
        },
        {**TEACHER, "error": "The list is empty."},
    ],
}
