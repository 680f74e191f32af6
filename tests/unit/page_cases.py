"""Realistic values for every page, as the web layer passes them."""

from __future__ import annotations

from datetime import datetime, timezone
from types import SimpleNamespace

MOMENT = datetime(2026, 11, 22, 20, 14, 7, tzinfo=timezone.utc)
TEXT_MOMENT = "2026-11-22T20:14:07.833220Z"


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
    make_server("slides", pending="stop", active=True),
    make_server("old-course", last_activity=None),
]
COMMON = {
    "user": SimpleNamespace(name="ana", escaped_name="ana", admin=True, url="/user/ana/"),
    "parsed_scopes": {"admin-ui": {}},
    "services": [{"name": "Announcements", "href": "/services/announcements/"}],
    "announcement": "The hub is down on <b>Friday</b> from 6 to 7.",
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
        {
            "user": None,
            "ask_username": True,
            "username": "root",
            "error": "The owner cannot be root. Give the name of another user of this computer.",
        },
    ],
    "home.html": [
        {"servers": [RUNNING], "spawn_url": "/hub/spawn/ana"},
        {"servers": [make_server(last_activity=None)], "spawn_url": "/hub/spawn/ana"},
        {
            "servers": SERVERS,
            "default_server": RUNNING,
            "allow_named_servers": True,
            "named_server_limit_per_user": 5,
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
        },
        {"progress_url": "/hub/api/users/ana/server/progress", "url": "/user/ana/"},
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
                    "scopes": ["read:users!user=ana", "access:servers!server=ana/"],
                    "revoke_url": "/hub/token/a12/revoke",
                },
                {
                    "id": "a13",
                    "note": "",
                    "created": None,
                    "last_activity": None,
                    "expires_at": None,
                    "scopes": [],
                    "revoke_url": "/hub/token/a13/revoke",
                },
            ],
            "oauth_clients": [
                {
                    "description": "Server at /user/ana/",
                    "scopes": ["read:users:name!user"],
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
    "logout.html": [{"user": None}],
    "admin.html": [
        {
            "users": [
                {"name": "ana", "admin": True, "last_activity": MOMENT, "servers": SERVERS},
                {
                    "name": "ben@school.example",
                    "admin": False,
                    "last_activity": None,
                    "servers": [],
                },
            ],
            "total_users": 2,
            "running_servers": 1,
            "search": "",
            "previous_url": "/hub/admin?offset=0",
            "next_url": "/hub/admin?offset=100",
        },
        {"search": "zoe"},
        {"total_users": 0, "running_servers": 0},
    ],
}
CASES = [(name, case) for name, cases in PAGES.items() for case in cases]
