"""A single-user server that echoes WebSockets, as many as come: run with ``-I -S``.

What is no WebSocket is answered with 200 and closed. Frames are small and come back as they are,
without their mask.

Threads: the main thread.
"""

import base64
import hashlib
import os
import selectors
import signal
import socket
from urllib.parse import urlsplit

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
PLAIN = (
    b"HTTP/1.1 200 OK\r\nX-JupyterHub-Version: 6.1.1\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
)


class Client:
    """One connection: its head first, then frames."""

    def __init__(self, sock):
        self.sock = sock
        self.data = b""
        self.is_open = False

    def take(self, data):
        """Use what came; return whether the connection goes on."""
        self.data += data
        if not self.is_open:
            head, end, rest = self.data.partition(b"\r\n\r\n")
            if not end:
                return True
            self.data = rest
            fields = dict(
                (line.partition(b":")[0].lower(), line.partition(b":")[2].strip())
                for line in head.split(b"\r\n")[1:]
            )
            if b"sec-websocket-key" not in fields:
                self.sock.sendall(PLAIN)
                return False
            digest = hashlib.sha1(fields[b"sec-websocket-key"] + MAGIC).digest()
            self.sock.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
            )
            self.is_open = True
        while len(self.data) >= 6:
            size, start = self.data[1] & 127, 2
            if size == 126:
                size, start = int.from_bytes(self.data[2:4], "big"), 4
            end = start + 4 + size
            if len(self.data) < end:
                break
            mask, body = self.data[start : start + 4], self.data[start + 4 : end]
            plain = bytes(byte ^ mask[place & 3] for place, byte in enumerate(body))
            head = bytes([self.data[0], size]) if start == 2 else self.data[:1] + b"\x7e" + (
                size.to_bytes(2, "big"))  # fmt: skip
            self.sock.sendall(head + plain)
            if self.data[0] & 15 == 8:
                return False
            self.data = self.data[end:]
        return True


def main():
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    place = urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"])
    listener = socket.create_server((place.hostname, place.port), backlog=64)
    ready = selectors.DefaultSelector()
    ready.register(listener, selectors.EVENT_READ)
    while True:
        for key, _events in ready.select():
            if key.fileobj is listener:
                sock = listener.accept()[0]
                ready.register(sock, selectors.EVENT_READ, Client(sock))
                continue
            try:
                data = key.fileobj.recv(65536)
                goes_on = bool(data) and key.data.take(data)
            except OSError:
                goes_on = False
            if not goes_on:
                ready.unregister(key.fileobj)
                key.fileobj.close()


main()
