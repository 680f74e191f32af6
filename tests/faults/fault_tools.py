"""What tests of faults of servers share: short limits, and whether anything of one is left."""

from __future__ import annotations

import psutil

MARKER = "MINIHUB_SERVER_ID"
SETTINGS = {
    "Spawner": {"start_timeout": 3, "http_timeout": 3},
    "LocalProcessSpawner": {"interrupt_timeout": 1, "term_timeout": 1, "kill_timeout": 5},
}
#: The same with more patience than any test has.
LONG = {
    "Spawner": {"start_timeout": 300, "http_timeout": 300},
    "LocalProcessSpawner": SETTINGS["LocalProcessSpawner"],
}


def marked(hub) -> list[psutil.Process]:
    """Return every process that bears a marker of this hub's servers, whoever its parent is."""
    own = (hub.state_dir / "hub-id").read_text().strip()
    assert own
    found = []
    for one in psutil.process_iter():
        try:
            env = one.environ()
            if f"{hub.directory}" in env.get("HOME", "") and env.get(MARKER):
                if one.status() != psutil.STATUS_ZOMBIE:
                    found.append(one)
        except (psutil.Error, OSError):
            continue
    return found


def nothing_left(hub, name: str = "ada") -> bool:
    """Return whether nothing of the user's server is left anywhere."""
    rows = hub.rows(
        "SELECT target, started, state FROM servers JOIN users ON user_id = users.id"
        " WHERE users.name = ?",
        name,
    )
    tokens = hub.rows("SELECT 1 FROM api_tokens WHERE server_id IS NOT NULL")
    return (
        not marked(hub)
        and all(row == (None, None, "{}") for row in rows)
        and not tokens
        and set(hub.routes()) == {"/"}
    )
