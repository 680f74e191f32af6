"""TLS on any of the proxy's sides: contexts from files, and sockets a loop can use.

Rules of this file: it is imported only where TLS is asked for, for the ssl module costs as much
as the rest of the proxy. A certificate that has changed on disk serves the next connection; the
open ones keep theirs. When the new files do not fit together the old certificate stays.

Threads: a Certificates belongs to whoever accepts or connects with it and may be shared by loop
threads: at worst two of them load the same files.
"""

from __future__ import annotations

import os
import socket
import ssl

from minihub import clock
from minihub.errors import ProxyError
from minihub.proxy import log

#: How often files are looked at, seconds, and only when a connection comes.
CHECK_SECONDS = 1.0
#: A TLS record's largest content: reads of at least this much leave nothing behind in OpenSSL,
#: where a poller could not see it.
RECORD_BYTES = 16384

CIPHERS = (
    "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384"
    ":ECDHE-ECDSA-AES256-GCM-SHA384:DHE-RSA-AES128-GCM-SHA256:HIGH"
    ":{rc4}:!aNULL:!eNULL:!EXPORT:!DES:!MD5:!PSK:!SRP:!CAMELLIA"
)
_VERSIONS = {
    "TLSv1": ssl.TLSVersion.TLSv1,
    "TLSv1_1": ssl.TLSVersion.TLSv1_1,
    "TLSv1_2": ssl.TLSVersion.TLSv1_2,
    "TLSv1_3": ssl.TLSVersion.TLSv1_3,
}


class Certificates:
    """Makes contexts for one side of the proxy and renews them when the files change.

    ``key``, ``cert``, ``ca`` and ``dhparam`` are file names or empty. ``is_server`` says which
    end of the connection we are; ``is_verified`` whether the peer must show a certificate that
    ``ca`` (or, for a server's, the system) vouches for. ``protocol`` is a version such as
    TLSv1_2 or empty; ``option`` names the option group in errors.
    """

    def __init__(
        self,
        option: str,
        *,
        key: str = "",
        cert: str = "",
        ca: str = "",
        dhparam: str = "",
        passphrase: str = "",
        protocol: str = "",
        ciphers: str = "",
        is_server: bool,
        is_verified: bool,
    ) -> None:
        """Load the files once. Raises ProxyError naming what is wrong with them."""
        self._option = option
        self._key = key
        self._cert = cert
        self._ca = ca
        self._dhparam = dhparam
        self._passphrase = passphrase
        self._protocol = protocol
        self._ciphers = ciphers
        self._is_server = is_server
        self._is_verified = is_verified
        self._files = [name for name in (key, cert, ca, dhparam) if name]
        self._stamp = self._read_stamp()
        self._checked = clock.monotonic()
        self._context = self._load()

    def context(self) -> ssl.SSLContext:
        """Return the context for a new connection."""
        now = clock.monotonic()
        if now - self._checked >= CHECK_SECONDS:
            self._checked = now
            stamp = self._read_stamp()
            if stamp != self._stamp:
                self._stamp = stamp
                try:
                    self._context = self._load()
                    log.info(f"{self._option}: certificate files changed, reloaded")
                except ProxyError as exc:
                    log.error(f"{exc}; the old certificate stays in use")
        return self._context

    def wrap(self, sock: socket.socket, host: str = "") -> TlsSocket:
        """Return ``sock`` with TLS on it; ``host`` is the name a server must prove.

        Raises OSError.
        """
        context = self.context()
        return TlsSocket(
            context.wrap_socket(
                sock,
                server_side=self._is_server,
                do_handshake_on_connect=False,
                server_hostname=None if self._is_server else host,
            )
        )

    def _read_stamp(self) -> list[tuple[int, int, int]]:
        stamp = []
        for name in self._files:
            try:
                info = os.stat(name)
                stamp.append((info.st_mtime_ns, info.st_size, info.st_ino))
            except OSError:
                stamp.append((0, 0, 0))
        return stamp

    def _load(self) -> ssl.SSLContext:
        side = ssl.PROTOCOL_TLS_SERVER if self._is_server else ssl.PROTOCOL_TLS_CLIENT
        context = ssl.SSLContext(side)
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        if self._is_server:
            context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
        if self._protocol not in ("", "TLS", "SSLv23"):
            version = _VERSIONS.get(self._protocol)
            if version is None:
                known = ", ".join(_VERSIONS)
                raise ProxyError(f"--ssl-protocol is one of {known}, not {self._protocol!r}")
            context.minimum_version = context.maximum_version = version
        name = ""
        try:
            if self._ciphers:
                name = "--ssl-ciphers"
                context.set_ciphers(self._ciphers)
            if self._cert:
                name = f"{self._option}-cert {self._cert}"
                for file in (self._cert, self._key):
                    if file:
                        # OpenSSL does not say which file is missing.
                        name = file
                        with open(file, "rb"):
                            pass
                name = f"{self._option}-cert {self._cert} and {self._option}-key {self._key}"
                context.load_cert_chain(
                    self._cert, self._key or None, password=lambda: self._passphrase
                )
            if self._dhparam:
                name = f"--ssl-dhparam {self._dhparam}"
                context.load_dh_params(self._dhparam)
            if self._ca:
                name = f"{self._option}-ca {self._ca}"
                context.load_verify_locations(self._ca)
            elif self._is_verified:
                context.load_default_certs(
                    ssl.Purpose.CLIENT_AUTH if self._is_server else ssl.Purpose.SERVER_AUTH
                )
        except (OSError, ValueError) as exc:
            reason = getattr(exc, "strerror", "") or str(exc)
            raise ProxyError(f"{name}: {reason}") from exc
        context.check_hostname = self._is_verified and not self._is_server
        context.verify_mode = ssl.CERT_REQUIRED if self._is_verified else ssl.CERT_NONE
        return context


class TlsSocket:
    """A TLS connection with the calls of a non-blocking socket that the loop uses.

    What OpenSSL wants to wait for becomes BlockingIOError; everything else it complains of is
    an OSError already. Reads of RECORD_BYTES or more leave nothing undelivered.
    """

    __slots__ = ("_sock", "_is_cut", "family")

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._sock = sock
        self._is_cut = False
        self.family = sock.family

    def fileno(self) -> int:
        return self._sock.fileno()

    def recv(self, size: int) -> bytes:
        try:
            return self._sock.recv(size)
        except ssl.SSLWantReadError:
            raise BlockingIOError from None

    def recv_into(self, buffer: memoryview, size: int) -> int:
        count = 0
        view = buffer[:size]
        try:
            # Many records a call: each is a read of its own in OpenSSL.
            while count == 0 or size - count >= RECORD_BYTES:
                got = self._sock.recv_into(view[count:])
                if not got:
                    break
                count += got
        except ssl.SSLWantReadError:
            if not count:
                raise BlockingIOError from None
        except OSError:
            # What was read is delivered; the error comes again with the next call.
            if not count:
                raise
        return count

    def send(self, data: bytes | memoryview) -> int:
        try:
            return self._sock.send(data)
        except ssl.SSLWantWriteError:
            raise BlockingIOError from None

    def handshake(self) -> bool:
        """Go on with the handshake; return whether it is done. Raises OSError."""
        try:
            self._sock.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        return True

    def has_input(self) -> bool:
        """Return whether something has come, or the end, without taking any of it."""
        try:
            # The call of the socket below: TLS knows no peeking.
            socket.socket.recv(self._sock, 1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    def shutdown(self, how: int) -> None:
        """Tell the peer that nothing more comes. Raises OSError."""
        self._say_farewell()
        self._sock.shutdown(how)

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        if option == socket.SO_LINGER:
            # Who resets the connection wants its end to look like a fault.
            self._is_cut = True
        self._sock.setsockopt(level, option, value)

    def getsockopt(self, level: int, option: int) -> int:
        return self._sock.getsockopt(level, option)

    def close(self) -> None:
        if not self._is_cut:
            self._say_farewell()
        self._sock.close()

    def _say_farewell(self) -> None:
        try:
            self._sock.unwrap()
        except (OSError, ValueError):
            pass  # the peer's own farewell need not be there yet, or the peer at all
