"""Realistic values for every page, as the web layer passes them."""

from __future__ import annotations

from types import SimpleNamespace

import class_page_cases
from class_page_cases import MOMENT, TEXT_MOMENT

from minihub.scopes import describe
from minihub.texts import Text


def make_server(name: str = "", **changes) -> dict:
    """Return a server as home.html shows it: stopped, unless ``changes`` say otherwise."""
    path = f"ana/{name}" if name else "ana"
    return {
        "name": name,
        "display_name": name.title(),
        "ready": False,
        "active": False,
        "pending": None,
        "url": f"/user/{path}/",
        "start_url": f"/hub/spawn/{path}",
        "stop_url": f"/hub/stop/{path}",
        "spawn_pending_url": f"/hub/spawn-pending/{path}",
        "delete_url": f"/hub/delete/{path}" if name else "",
        "last_activity": TEXT_MOMENT,
        **changes,
    }


RUNNING = make_server(ready=True, active=True)
SERVERS = [
    RUNNING,
    make_server("analysis", pending="spawn", active=True),
    make_server("second", pending="spawn", active=True, position=2),
    make_server("slides", pending="stop", active=True),
    make_server("old-course", last_activity=None),
]
USE = {
    "memory": "312 MB",
    "memory_limit": "1 GB",
    "memory_share": 31,
    "cpu": "4 %",
    "processes": 3,
    "memory_line": "116,10.0 118,9.0 120,3.5",
    "load_line": "116,23.0 118,22.0 120,20.5",
}


def make_admin_server(name: str = "", **changes) -> dict:
    """Return a server as the admin's pages show it."""
    path = f"ana/{name}" if name else "ana"
    urls = {
        f"{verb}_url": f"/hub/admin/{verb}/{path}" for verb in ("open", "stop", "restart", "start")
    }
    return {
        **make_server(name),
        **urls,
        "full_name": path,
        "use": {},
        "why": "",
        "started": None,
        "notice": "",
        "failed": False,
        "delete_url": "",
        "log_url": f"/hub/log/{path}",
        "may_open": True,
        **changes,
    }


ADMIN_SERVER = make_admin_server(
    ready=True, active=True, use=USE, started=MOMENT, notice="It used much memory.",
    why=Text("active %(time)s ago, limit %(limit)s", time="2 min", limit="10 min"),
)  # fmt: skip


def make_person(name: str, **changes) -> dict:
    """Return a user as the admin's pages show one."""
    return {
        "name": name,
        "admin": True,
        "groups": ["physics"],
        "created": MOMENT,
        "last_activity": MOMENT,
        "url": "/hub/admin/user/ana",
        "is_me": False,
        "servers": [ADMIN_SERVER],
        **changes,
    }


PERSON = make_person(
    "ana",
    servers=[
        ADMIN_SERVER,
        make_admin_server("analysis", pending="spawn", active=True),
        make_admin_server("slides", pending="stop", active=True),
        make_admin_server("old", failed=True, delete_url="/hub/admin/remove/ana/old"),
        make_admin_server("full", ready=True, use=USE | {"memory_share": 93}),
        make_admin_server("free", ready=True, may_open=False, use=USE | {
            "memory_share": None, "memory_limit": "", "memory_line": "", "load_line": ""}),
    ],
)  # fmt: skip
ENTRIES = [
    SimpleNamespace(id=8, at=TEXT_MOMENT, actor="root", deed=Text("stop server"), user="ana",
                    server="work", detail=""),
    SimpleNamespace(id=7, at=TEXT_MOMENT, actor="root", deed="API: POST users", user="", server="",
                    detail="On Friday"),
]  # fmt: skip
NOTICE = {
    "id": 3,
    "text": "On Friday from 6 to 7 the hub is down.",
    "created": TEXT_MOMENT,
    "created_by": "root",
    "expires_at": TEXT_MOMENT,
}
COMMON = {
    "user": SimpleNamespace(name="ana", escaped_name="ana", admin=True, url="/user/ana/"),
    "parsed_scopes": {"admin-ui": {}},
    "services": [{"name": "Announcements", "href": "/services/announcements/"}],
    "announcement": "The hub is down on <b>Friday</b> from 6 to 7.",
    "notices": [NOTICE],
    "ending": [
        {"name": "", "due": MOMENT, "keep_s": 1800, "keep_url": "/hub/keep/ana"},
        {"name": "Work", "due": MOMENT, "keep_s": 0, "keep_url": "/hub/keep/ana/work"},
    ],
    "here": "/hub/home",
    "xsrf": "2|token|of-this-session",
    "csp_nonce": "n0nce",
}
LOG = [
    "[I 20:14:07 ServerApp] jupyterlab | extension was linked",
    "Traceback (most recent call last):",
    '  File "/usr/lib/python3/dist-packages/traitlets/config/application.py", line 1041, in launch',
    "ModuleNotFoundError: No module named 'jupyter_server'",
]
#: Realistic values for every page: what the web layer passes beyond the common names.
PAGES: dict[str, list[dict]] = {
    "login.html": [
        {"user": None, "authenticator_login_url": "/hub/login?next=%2Fhub%2Fhome"},
        {"user": None, "login_error": "Invalid username or password", "username": "ana"},
        {"user": None, "not_allowed": True, "username": "ana", "login_term_url": "/terms"},
        {"user": None, "login_service": "School", "authenticator_login_url": "/hub/oauth_login"},
        {"user": None, "custom_html": "<p>Use the terminal.</p>"},
        {
            "user": None,
            "authenticator": SimpleNamespace(request_otp=True, otp_prompt="Code:"),
            "next": "/hub/token?a=1&b=2",
        },
    ],
    "owner.html": [
        {"user": None, "username": "ana", "new_hub": True},
        {"user": None, "ask_username": True, "new_hub": True},
        {
            "user": None,
            "ask_username": True,
            "needs_account": True,
            "username": "root",
            "error": "The owner cannot be root. Give the name of another user of this computer.",
        },
    ],
    "home.html": [
        {
            "servers": [RUNNING | {"log_url": "/hub/log/ana"}],
            "spawn_url": "/hub/spawn/ana",
            "use": USE,
            "limits": [(Text("Memory at most"), "1 GB")],
        },
        {"servers": [make_server(last_activity=None)], "spawn_url": "/hub/spawn/ana"},
        {
            "servers": SERVERS,
            "default_server": RUNNING,
            "allow_named_servers": True,
            "named_server_limit_per_user": 5,
            "invalid_server_names": ["My server #1"],
            "new_server_url": "/hub/home",
        },
        {"servers": [make_server(pending="stop", active=True)]},
        {"servers": [make_server(pending="check", active=True)]},
        {"servers": [make_server(pending="spawn", active=True)], "allow_named_servers": True},
        {
            "servers": [make_server(failed=True), make_server("lost", failed=True)],
            "allow_named_servers": True,
        },
    ],
    "account.html": [
        {
            "sessions": [
                {
                    "id": 3,
                    "browser": Text("%(browser)s on %(system)s", browser="Firefox", system="Linux"),
                    "address": "192.0.2.7",
                    "last_used": TEXT_MOMENT,
                    "created": TEXT_MOMENT,
                    "is_this": True,
                },
                {
                    "id": 2,
                    "browser": "Safari",
                    "address": "",
                    "last_used": None,
                    "created": TEXT_MOMENT,
                    "is_this": False,
                },
            ],
            "member_of": ["chemistry", "physics"],
            "created": TEXT_MOMENT,
            "entries": ENTRIES,
        },
        {},
    ],
    "spawn.html": [
        {
            "for_user": SimpleNamespace(name="ben"),
            "error_message": "Memory: 64G is more than the 8G allowed",
            "url": "/hub/spawn/ben",
            "spawner_options_form": '<label for="m">Memory</label><select id="m" name="mem">'
            "<option>2G</option><option>4G</option></select>"
            '<p><input type="checkbox" id="g" name="gpu"><label for="g">With a GPU</label></p>',
        },
        {"error_html_message": "<b>No</b> such profile", "url": "/hub/spawn/ana"},
    ],
    "spawn_pending.html": [
        {
            "server_name": "analysis",
            "display_name": "Analysis of 2026",
            "progress_url": "/hub/api/users/ana/servers/analysis/progress",
            "url": "/user/ana/analysis/",
            "stop_url": "/hub/stop/ana/analysis",
            "elapsed_s": 4.2,
            "usual_s": 3.4,
            "log_lines": LOG,
        },
        {"progress_url": "/hub/api/users/ana/server/progress", "url": "/user/ana/"},
        {"progress_url": "/hub/api/users/ana/server/progress", "position": 3},
    ],
    "not_running.html": [
        {"spawn_url": "/hub/spawn/ana?next=%2Fuser%2Fana%2Flab"},
        {
            "server_name": "analysis",
            "spawn_url": "/hub/spawn/ana/analysis",
            "failed": True,
            "failed_message": "The server's process ended with exit code 1 before it answered.",
            "hint": "JupyterLab is not installed for this Python. Install it with\n"
            "/usr/bin/python3 -m pip install jupyterlab",
            "log_tail": LOG,
        },
        {"spawn_url": "/hub/spawn/ana", "implicit_spawn_seconds": 3},
        {"spawn_url": "/hub/spawn/ana", "failed": True, "failed_html_message": "<i>gone</i>"},
        {"spawn_url": "/hub/spawn/ana", "failed": True},
    ],
    "stop_pending.html": [{}, {"server_name": "analysis"}, {"checking": True}],
    "error.html": [
        {
            "status_code": 503,
            "status_message": "Service Unavailable",
            "message": "Your server appears to be down. Try restarting it from your home page.",
        },
        {"status_code": 500, "status_message": "Internal Server Error"},
        {"status_code": 429, "status_message": "Too Many Requests", "message_html": "<b>Wait</b>"},
        {"status_code": 403, "message": "No.", "extra_error_html": "<p>More</p>", "hint": "Ask"},
        *({"status_code": code} for code in (400, 405, 418, 424)),
    ],
    "404.html": [
        {
            "status_code": 404,
            "status_message": "Not Found",
            "message": "No user nobody",
            "user": None,
        }
    ],
    "token.html": [
        {
            "new_token": "mh_9f2c7d0e4b1a4c0f8a6d5b3e2f1c0d9e",
            "tokens": [
                {
                    "id": "a12",
                    "note": "script on my laptop",
                    "created": MOMENT,
                    "last_activity": TEXT_MOMENT,
                    "expires_at": "2099-01-01T00:00:00Z",
                    "in_words": [
                        describe(scope, "ana")
                        for scope in ("read:users!user=ana", "access:servers!server=ana/", "self")
                    ],
                    "revoke_url": "/hub/token/a12/revoke",
                },
                {
                    "id": "a13",
                    "note": "",
                    "created": None,
                    "last_activity": None,
                    "expires_at": None,
                    "in_words": [],
                    "revoke_url": "/hub/token/a13/revoke",
                },
            ],
            "oauth_clients": [
                {
                    "description": "Server at /user/ana/",
                    "in_words": [describe("read:users:name!user", "ana")],
                    "created": TEXT_MOMENT,
                    "last_activity": None,
                    "revoke_url": "/hub/token/o4/revoke",
                }
            ],
        },
        {"token_error": "There is no scope wread:users", "token_expires_in_max_seconds": 604800},
        {"token_expires_in_max_seconds": 600},
    ],
    "oauth.html": [
        {
            "oauth_client": {"identifier": "service-grader", "description": "Grader"},
            "allowed_scopes": ["access:services!service=grader", "read:users:name!user"],
            "scope_descriptions": [
                {"scope": "read:users:name", "description": "Read names of users", "filter": "ana"},
                {"scope": "access:services", "description": "Open services", "filter": ""},
            ],
            "role_names": ["reader"],
        },
        {"oauth_client": {"identifier": "service-x", "description": ""}, "user": None},
    ],
    "accept-share.html": [
        {
            "code": "qSZrPYMFkqiIwVH4",
            "owner": SimpleNamespace(name="ben"),
            "spawner": {"name": name, "display_name": name.title(), "ready": bool(name)},
            "spawner_ready": bool(name),
            "spawner_url": f"/user/ben/{name}",
            "scope_descriptions": [
                {"scope": "access:servers", "description": "Use servers", "filter": filter_},
            ],
            "next_url": f"/user/ben/{name}",
        }
        for name, filter_ in (("", ""), ("analysis", "server ben/analysis"))
    ],
    "logout.html": [{"user": None}, {"ask": True}],
    "api.html": [
        {
            "api": {
                "url": "/hub/api",
                "version": "6.1.1",
                "groups": {
                    "users": [
                        {
                            "id": "get_users_name",
                            "call": "GET /users/{name}",
                            "summary": "Describe a user",
                            "description": "Needs one of the scopes `read:users`.",
                            "parameters": [
                                {
                                    "name": name,
                                    "in": place,
                                    "shape": "text",
                                    "description": "The user's name.",
                                }
                                for name, place in (("name", "path"), ("sort", "query"))
                            ],
                            "bodies": [("application/json", "ChangeUser")],
                            "answers": [("200", "OK", ["User"]), ("204", "No Content", [])],
                        }
                    ]
                },
                "shapes": [{"name": "User", "words": "Somebody.", "shape": "{name: text}"}],
                "scopes": [
                    {"name": "users", "words": "Read users.", "includes": ("read:users",)},
                    {"name": "proxy", "words": "Read routes.", "includes": ()},
                ],
            }
        },
        {"user": None},
    ],
    "admin.html": [
        {
            "users": [PERSON, make_person("ben@school.example", admin=False, servers=[])],
            "total_users": 2,
            "found_users": 120,
            "running_servers": 1,
            "machine": {
                "cpus": 8,
                "cpu_percent": 12,
                "memory_used": "3.2 GB",
                "memory_total": "16 GB",
                "memory_percent": 20,
                "disk_used": "90 GB",
                "disk_total": "100 GB",
                "disk_percent": 90,
            },
            "warm": {
                "state": "warm",
                "reason": "",
                "parents": 1,
                "servers": 30,
                "saved": "2.1 GB",
            },
            "search": "",
            "shown": "running",
            "show_urls": {
                "all": "/hub/admin",
                "running": "/hub/admin?show=running",
                "admins": "/hub/admin?show=admins",
            },
            "sort": "memory",
            "descending": True,
            "sort_urls": {
                key: f"/hub/admin?sort={key}"
                for key in ("name", "status", "memory", "cpu", "last_activity")
            },
            "first_number": 51,
            "last_number": 100,
            "previous_url": "/hub/admin?page=1",
            "next_url": "/hub/admin?page=3",
            "may_add": True,
            "may_stop": True,
        },
        {"search": "zoe"},
        {
            "machine": {
                "cpus": 1,
                "cpu_percent": 0,
                "memory_used": "1 GB",
                "memory_total": "2 GB",
                "memory_percent": 50,
                "disk_used": "1 GB",
                "disk_total": "9 GB",
                "disk_percent": 11,
            },
            "warm": {
                "state": "cold",
                "reason": "LocalProcessSpawner.warm is off",
                "parents": 0,
                "servers": 0,
                "saved": "",
            },
        },
        {"total_users": 0, "running_servers": 0},
        {"shown": "running"},
    ],
    "admin-user.html": [
        {
            "person": PERSON,
            "every_group": ["physics", "chemistry"],
            "home": "/srv/hub/homes/ana",
            "change_url": "/hub/admin/user/ana/change",
            "groups_url": "/hub/admin/user/ana/groups",
            "logout_url_of_user": "/hub/admin/user/ana/logout",
            "delete_user_url": "/hub/admin/user/ana/delete",
            "reset_url": "/hub/class/reset/ana",
            "may_change": True,
            "may_group": True,
            "may_delete": True,
            "user_error": "That name is taken.",
            "delete_error": Text("To delete this user, write their name into the field."),
            "entries": ENTRIES,
        },
        {"person": make_person("ben", servers=[]), "may_delete": True, "may_group": True},
    ],
    "admin-announcements.html": [
        {
            "notices": [NOTICE, NOTICE | {"expires_at": None}],
            "may_announce": True,
            "lasts_h": [1, 8, 24, 168, 0],
            "notice_error": "Too long",
            "notice_text": "On Friday",
        },
        {},
    ],
    "admin-audit.html": [
        {
            "entries": ENTRIES,
            "search": "stop",
            "previous_url": "/hub/admin/audit",
            "next_url": "/hub/admin/audit?before=7",
        },
        {},
    ],
    "admin-cull.html": [
        {
            "servers": [ADMIN_SERVER | {"goes": True}, ADMIN_SERVER | {"goes": False}],
            "culls": True,
            "cull_url": "/hub/admin/cull",
            "may_stop": True,
        },
        {"servers": [ADMIN_SERVER | {"goes": False, "why": ""}]},
        {},
    ],
    "server-log.html": [
        {"user_name": "ana", "log_lines": LOG, "is_mine": True, "active": True},
        {"user_name": "ana", "server_name": "work", "display_name": "Work", "log_lines": []},
        {"user_name": "ana", "log_lines": LOG},
    ],
}

PAGES |= class_page_cases.PAGES
CASES = [(name, case) for name, cases in PAGES.items() for case in cases]
