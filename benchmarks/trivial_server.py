"""A server that is nothing but there, so that spawning it measures the hub: run with ``-I -S``.

As every real server does, it asks the hub for its version and reports its activity once; then it
answers whatever it is asked with 200.

Threads: the main thread.
"""

import _signal
import _socket
import os
import time

ENV = os.environ


def split(url):
    """Return host, port and path of an http URL."""
    place, _, path = url.partition("://")[2].partition("/")
    host, _, port = place.partition(":")
    return host, int(port or 80), "/" + path


def call_hub(method, url, body=b""):
    """Make one request to the hub; its answer is waited for and not looked at."""
    host, port, path = split(url)
    hub = _socket.socket()
    hub.connect((host, port))
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n"
        f"Authorization: token {ENV['JUPYTERHUB_API_TOKEN']}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    hub.send(head.encode() + body)
    while hub.recv(65536):
        pass
    hub.close()


def main():
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    host, port, _path = split(ENV["JUPYTERHUB_SERVICE_URL"])
    listener = _socket.socket()
    listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(16)
    call_hub("GET", ENV["JUPYTERHUB_API_URL"])
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    seen = f'"last_activity": "{now}"'
    report = f'{{"servers": {{"": {{{seen}}}}}, {seen}}}'
    call_hub("POST", ENV["JUPYTERHUB_ACTIVITY_URL"], report.encode())
    while True:
        fd, _address = listener._accept()
        client = _socket.socket(fileno=fd)
        client.recv(65536)
        client.send(
            b"HTTP/1.1 200 OK\r\nX-JupyterHub-Version: 6.1.1\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
        )
        client.close()


main()
