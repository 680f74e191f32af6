"""Start named servers of one user side by side, list them, talk to each, and remove them.

Usage: JUPYTERHUB_API_TOKEN=… python3 named_servers.py USER NAME… [--hub URL]

The hub needs JupyterHub.allow_named_servers; the token the scopes read:servers, start:servers,
delete:servers and access:servers for that user. Needs the package requests, and works with
JupyterHub as well.
"""

import argparse
import os
import sys
import time
from urllib.parse import quote, urljoin

import requests

TIMEOUT_S = 120


class User:
    """A user's servers, as the hub's REST API shows and changes them."""

    def __init__(self, hub: str, token: str, name: str) -> None:
        self.hub = hub
        self.path = f"{hub}hub/api/users/{quote(name)}"
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"token {token}"

    def ask(self, method: str, path: str = "", body: object = None) -> requests.Response:
        answer = self.session.request(method, self.path + path, json=body, timeout=TIMEOUT_S)
        if not answer.ok:
            sys.exit(f"{method} {answer.url}: {answer.json()['message']}")
        return answer

    def servers(self) -> dict:
        """Return the servers that are not stopped, by name; the default one has none."""
        return self.ask("GET").json()["servers"]

    def start(self, server: str) -> None:
        self.ask("POST", f"/servers/{quote(server)}", {})

    def remove(self, server: str) -> None:
        """Stop a server and forget it; without ``remove`` it would stay, stopped."""
        self.ask("DELETE", f"/servers/{quote(server)}", {"remove": True})

    def wait_until(self, condition, what: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not condition(self.servers()):
            if time.monotonic() > deadline:
                sys.exit(f"The servers are not {what} yet.")
            time.sleep(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("user")
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--hub", default="http://127.0.0.1:8000", metavar="URL")
    given = parser.parse_args()
    hub = given.hub.rstrip("/") + "/"
    user = User(hub, os.environ["JUPYTERHUB_API_TOKEN"], given.user)

    for name in given.names:
        user.start(name)  # the answer comes when the start has begun
    user.wait_until(
        lambda servers: all(servers.get(name, {}).get("ready") for name in given.names), "ready"
    )
    for name in given.names:
        server = user.servers()[name]
        url = urljoin(hub, server["url"])
        status = user.session.get(urljoin(url, "api/status"), timeout=TIMEOUT_S)
        status.raise_for_status()
        print(name, "started", server["started"], "at", url)
    for name in given.names:
        user.remove(name)
    user.wait_until(lambda servers: not set(given.names) & set(servers), "removed")
    print("removed", *given.names)


if __name__ == "__main__":
    main()
