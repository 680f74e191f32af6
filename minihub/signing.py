"""Signed values for cookies and forms.

Rules of this file: it signs and checks, it sets no cookie. The format is version 2 of tornado's
signed values, so that logins made by JupyterHub with the same secret stay valid:
``2|1:0|LEN:UNIXTIME|LEN:NAME|LEN:BASE64|HMAC-SHA256`` where the signature covers everything up
to and including the last bar.

Threads: any.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

from . import clock


def sign(secret: bytes, name: str, value: str) -> str:
    """Return ``value`` signed for the cookie or field ``name``, with the present time."""
    encoded = base64.b64encode(value.encode()).decode()
    head = "|".join(["2", "1:0", *(f"{len(part)}:{part}" for part in (str(_now()), name, encoded))])
    head += "|"
    return head + _mac(secret, head)


def unsign(secret: bytes, name: str, signed: str, *, max_age_days: float) -> str | None:
    """Return the value that was signed, or None when anything about it is not right.

    Nothing is read out of the text before its signature is known to be good.
    """
    head, bar, mac = signed.rpartition("|")
    if not bar or len(signed) > 8192 or not signed.startswith("2|"):
        return None
    head += "|"
    if not hmac.compare_digest(_mac(secret, head).encode(), mac.encode("utf-8", "replace")):
        return None
    try:
        _key, stamp, signed_name, encoded = _fields(head[2:])
        if signed_name != name or int(stamp) < _now() - max_age_days * 86400:
            return None
        return base64.b64decode(encoded, validate=True).decode()
    except (ValueError, binascii.Error):
        return None


def _fields(text: str) -> list[str]:
    """Split ``LEN:VALUE|LEN:VALUE|…``; raises ValueError when the lengths do not fit."""
    fields = []
    while text:
        length, colon, rest = text.partition(":")
        size = int(length)
        if not colon or rest[size : size + 1] != "|":
            raise ValueError("field length does not fit")
        fields.append(rest[:size])
        text = rest[size + 1 :]
    return fields


def _now() -> int:
    return int(clock.utcnow().timestamp())


def _mac(secret: bytes, text: str) -> str:
    return hmac.new(secret, text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()
