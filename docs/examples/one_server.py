"""Start somebody's server, follow its start, talk to it, and stop it, over the REST API.

Usage: JUPYTERHUB_API_TOKEN=… python3 one_server.py USER [URL-OF-THE-HUB]

The token needs the scopes read:servers, start:servers, delete:servers and access:servers for that
user; a user's own token has them. Needs the package requests, and works with JupyterHub as well.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from urllib.parse import quote, urljoin

import requests

TIMEOUT_S = 120


def events(session: requests.Session, url: str) -> Iterator[dict]:
    """Yield what the hub tells about a start, until it is over."""
    with session.get(url, stream=True, timeout=TIMEOUT_S) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines(decode_unicode=True):
            if line.startswith("data:"):  # what lies between keeps the connection open
                yield json.loads(line.removeprefix("data:"))


def start(session: requests.Session, hub: str, user: str) -> str:
    """Start the user's server unless it runs; return its URL when it is ready."""
    path = f"{hub}hub/api/users/{quote(user)}"
    answer = session.get(path, timeout=TIMEOUT_S)
    answer.raise_for_status()
    server = answer.json()["servers"].get("")
    if server is None:
        answer = session.post(f"{path}/server", json={}, timeout=TIMEOUT_S)
        answer.raise_for_status()  # 201: it is ready; 202: it is on its way
    for event in events(session, f"{path}/server/progress"):
        print(f"{event['progress']:3}%  {event['message']}")
        if event.get("ready"):
            return urljoin(hub, event["url"])
        if event.get("failed"):
            sys.exit("The server did not start.")
    sys.exit("The hub told of no end.")


def stop(session: requests.Session, hub: str, user: str) -> None:
    """Stop the user's server and wait until it has ended."""
    path = f"{hub}hub/api/users/{quote(user)}"
    answer = session.delete(f"{path}/server", timeout=TIMEOUT_S)
    answer.raise_for_status()  # 204: it has ended; 202: it is ending
    deadline = time.monotonic() + TIMEOUT_S
    while session.get(path, timeout=TIMEOUT_S).json()["servers"]:
        if time.monotonic() > deadline:
            sys.exit("The server did not stop.")
        time.sleep(0.5)


def main() -> None:
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    user = sys.argv[1]
    hub = (sys.argv[2] if len(sys.argv) == 3 else "http://127.0.0.1:8000").rstrip("/") + "/"
    session = requests.Session()
    session.headers["Authorization"] = f"token {os.environ['JUPYTERHUB_API_TOKEN']}"

    server = start(session, hub, user)
    print("ready at", server)
    # The same token opens the server itself: this is Jupyter's API, not the hub's.
    answer = session.get(urljoin(server, "api/status"), timeout=TIMEOUT_S)
    answer.raise_for_status()
    print("its status:", json.dumps(answer.json()))
    stop(session, hub, user)
    print("stopped")


if __name__ == "__main__":
    main()
