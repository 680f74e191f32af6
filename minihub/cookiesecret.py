"""The secret that signs login cookies: from the configuration, the environment, or its file.

Rules of this file: a file is created with mode 0600 before anything is in it and never followed
through a symbolic link; one that others could read, or that holds anything but a secret, is
refused with the command that mends it.

Threads: the main thread, at start.
Sources: JupyterHub.cookie_secret, JupyterHub.cookie_secret_file.
"""

from __future__ import annotations

import base64
import binascii
import logging
import os
import secrets
import stat
from pathlib import Path

from .errors import ConfigError

log = logging.getLogger("minihub")

SECRET_BYTES = 32


def load(configured: bytes, path: str, *, create: bool = True) -> bytes:
    """Return the secret; ``configured`` wins, else ``JPY_COOKIE_SECRET`` (hex), else the file.

    A file that does not exist is created with a new secret, unless ``create`` is false: it is
    nothing then, where it could be created. Raises ConfigError for a file that
    is readable by others, a symbolic link, or does not hold a secret.
    """
    if configured:
        if create and len(configured) != SECRET_BYTES:
            log.warning("JupyterHub.cookie_secret has %d bytes; it should have 32", len(configured))
        return configured
    from_env = os.environ.get("JPY_COOKIE_SECRET")
    if from_env:
        try:
            return bytes.fromhex(from_env)
        except ValueError as error:
            raise ConfigError(
                "JPY_COOKIE_SECRET: the environment variable must hold hexadecimal digits; "
                "make one with: openssl rand -hex 32"
            ) from error
    if not path:
        raise ConfigError("JupyterHub.cookie_secret_file: names no file")
    file = Path(path)
    try:
        return _read(file)
    except FileNotFoundError:
        if create:
            return _create(file)
        if not file.absolute().parent.is_dir():
            raise ConfigError(
                f"JupyterHub.cookie_secret_file: there is no directory {file.absolute().parent}"
            ) from None
        return b""


def _read(file: Path) -> bytes:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        what = "is a symbolic link" if os.path.islink(file) else f"cannot be read: {error.strerror}"
        raise ConfigError(
            f"JupyterHub.cookie_secret_file: {file} {what}; name the file itself"
        ) from error
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind):
        os.close(descriptor)
        what = "a directory" if stat.S_ISDIR(kind) else "no ordinary file"
        raise ConfigError(f"JupyterHub.cookie_secret_file: {file} is {what}; name a file")
    with os.fdopen(descriptor, "rb") as stream:
        mode = stat.S_IMODE(kind)
        raw = stream.read(1024).strip()
    if mode & 0o007:
        raise ConfigError(
            f"JupyterHub.cookie_secret_file: {file} can be read by everybody (mode {mode:04o}). "
            f"Mend it: chmod 600 {file}"
        )
    renew = f"A new one ends all logins: rm {file}"
    try:
        secret = bytes.fromhex(raw.decode("ascii"))
    except ValueError:
        try:
            secret = base64.b64decode(raw, validate=True)
        except binascii.Error as error:
            raise ConfigError(
                f"JupyterHub.cookie_secret_file: {file} does not hold hexadecimal digits. {renew}"
            ) from error
        log.warning("%s holds an old base64 secret; new ones are hexadecimal", file)
    if len(secret) < SECRET_BYTES:
        raise ConfigError(
            f"JupyterHub.cookie_secret_file: {file} is too short ({len(secret)} of "
            f"{SECRET_BYTES} bytes). {renew}"
        )
    return secret


def _create(file: Path) -> bytes:
    secret = secrets.token_bytes(SECRET_BYTES)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(file, flags, 0o600)
        os.fchmod(descriptor, 0o600)  # whatever the umask
    except OSError as error:
        raise ConfigError(
            f"JupyterHub.cookie_secret_file: {file} cannot be created: {error.strerror}"
        ) from error
    with os.fdopen(descriptor, "w") as stream:
        stream.write(secret.hex() + "\n")
    return secret
