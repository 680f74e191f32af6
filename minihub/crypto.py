"""Encryption of what authenticators let the hub remember about users.

Rules of this file: it encrypts and decrypts JSON with keys from the configuration or the
environment, as Fernet tokens that JupyterHub reads as well. ``cryptography`` is imported when
there is something to encrypt, and need not be installed otherwise. Keys are never shown.

Threads: any; at most ``n_threads`` encrypt or decrypt at the same time.
Sources: JupyterHub 6's CryptKeeper, whose options these are; the Fernet specification.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import threading
from collections.abc import Iterable
from typing import Any

from traitlets import Bytes, Int, List, TraitError, Unicode, Union, default, validate
from traitlets.config import Configurable

from minihub.errors import ConfigError, MinihubError

KEY_VARIABLE = "JUPYTERHUB_CRYPT_KEY"
KEY_BYTES = 32


class Undecipherable(MinihubError):
    """Raised when stored data cannot be decrypted with any of the keys."""


def read_key(key: str | bytes) -> bytes:
    """Return a key given as 32 bytes, 64 hexadecimal digits or 44 characters of base64.

    Raises ValueError, without the key in it.
    """
    raw = key.strip().encode("ascii", "replace") if isinstance(key, str) else key
    try:
        if len(raw) == 2 * KEY_BYTES:
            raw = binascii.a2b_hex(raw)
        elif len(raw) == 44:
            raw = base64.urlsafe_b64decode(raw)
    except ValueError:
        pass
    if len(raw) != KEY_BYTES:
        raise ValueError(
            f"a key is {KEY_BYTES} bytes, as {2 * KEY_BYTES} hexadecimal digits or 44 characters "
            "of base64; a new one: openssl rand -hex 32"
        )
    return raw


class CryptKeeper(Configurable):
    """Encrypts what authenticators store about users."""

    keys = List(
        Union([Bytes(), Unicode()]),
        help="Keys that encrypt what authenticators store about users, each as 64 hexadecimal"
        " digits or in base64; the first encrypts, all decrypt. By default those in"
        " JUPYTERHUB_CRYPT_KEY, separated by semicolons.",
    ).tag(config=True, example=["<openssl rand -hex 32>"])
    n_threads = Int(
        0,
        min=0,
        help="How many threads may encrypt or decrypt at the same time; 0 for one per processor.",
    ).tag(config=True, unit="threads")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._turns = threading.BoundedSemaphore(self.n_threads or os.cpu_count() or 1)
        self._fernet: Any = None

    @default("keys")
    def _default_keys(self) -> list[bytes]:
        try:
            return _read_keys(os.environ.get(KEY_VARIABLE, "").split(";"))
        except ValueError as error:
            raise ConfigError(f"environment {KEY_VARIABLE}: {error}") from error

    @validate("keys")
    def _as_bytes(self, proposal: Any) -> list[bytes]:
        try:
            return _read_keys(proposal["value"])
        except ValueError as error:
            raise TraitError(str(error)) from error

    def check_available(self, option: str) -> None:
        """Raise ConfigError naming ``option``, which needs encryption, unless there is one."""
        try:
            import cryptography.fernet  # noqa: F401
        except ImportError as error:
            raise ConfigError(
                f"{option}: needs the Python package cryptography, which is not installed for "
                "this Python: python3 -m pip install cryptography"
            ) from error
        if not self.keys:
            raise ConfigError(
                f"{option}: needs a key to encrypt with: set {KEY_VARIABLE} in the environment, or "
                "CryptKeeper.keys. A new key: openssl rand -hex 32"
            )

    def _cipher(self) -> Any:
        if self._fernet is None:
            from cryptography.fernet import Fernet, MultiFernet

            keys = [Fernet(base64.urlsafe_b64encode(key)) for key in self.keys]
            self._fernet = MultiFernet(keys)
        return self._fernet

    def encrypt(self, data: Any) -> str:
        """Return JSON data encrypted with the first key."""
        text = json.dumps(data).encode()
        with self._turns:
            return self._cipher().encrypt(text).decode("ascii")

    def decrypt(self, text: str) -> Any:
        """Return what :meth:`encrypt` was given, with whichever key. Raises Undecipherable."""
        from cryptography.fernet import InvalidToken

        with self._turns:
            try:
                return json.loads(self._cipher().decrypt(text.encode()))
            except (InvalidToken, ValueError) as error:
                raise Undecipherable("stored data cannot be decrypted with these keys") from error


def _read_keys(keys: Iterable[str | bytes]) -> list[bytes]:
    return [read_key(key) for key in keys if key.strip()]
