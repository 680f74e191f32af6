"""An empty bottle route on the HTTP server that the hub uses: what a request costs at the least.

Usage: python empty_route.py DIRECTORY, where ``minihub`` and what it needs can be imported from.

Threads: those of ``minihub.web.server``; the main thread waits.
"""

import signal
import socket
import sys


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    import bottle

    from minihub.web.server import HTTPServer

    app = bottle.Bottle()
    app.route("/", callback=lambda: b"{}")
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    HTTPServer(app, listener).start()
    print("port", listener.getsockname()[1], flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
