"""Secrets: API tokens, passwords and their stored forms.

Rules of this file: plain text goes in, only salted hashes come out; every comparison is
constant-time. A stored token reads ``sha512:ROUNDS:SALT:HEX`` as JupyterHub writes it, so its
database can be imported; a stored password reads ``scrypt:N:R:P:SALT:HEX``.

Threads: any; what is known of stretched tokens is changed by single operations. ``hash_password``
and ``check_password`` cost about 150 ms and 16 MiB on purpose.
Sources: OWASP's sheet on storing passwords, whose least parameters for scrypt these are.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

#: Characters of a token that are stored in the clear, to find its row.
PREFIX_LENGTH = 4
#: Rounds for a token whose entropy we vouch for, and for one that a person may have chosen.
GENERATED_ROUNDS = 1
STRETCHED_ROUNDS = 16384
#: So many rounds are one call: what is hashed is the same.
_AT_ONCE = 128

#: Which stretched tokens were right, by a digest that only this process can make.
_known: set[bytes] = set()
_MOST_KNOWN = 1024
_KEY = secrets.token_bytes(32)

_SCRYPT = {"n": 2**14, "r": 8, "p": 5}
MAX_PASSWORD_BYTES = 1024


def new_token() -> str:
    """Return a fresh secret of 256 bits as 64 hexadecimal digits."""
    return secrets.token_hex(32)


def hash_token(token: str, *, rounds: int = GENERATED_ROUNDS, salt: str | None = None) -> str:
    """Return the stored form of ``token``; a random salt of 64 bits unless one is given."""
    salt = secrets.token_hex(8) if salt is None else salt
    raw = token.encode("utf-8", "replace")
    digest = hashlib.sha512(salt.encode())
    several = raw * min(rounds, _AT_ONCE)
    for _ in range(rounds // _AT_ONCE):
        digest.update(several)
    digest.update(raw * (rounds % _AT_ONCE))
    return f"sha512:{rounds}:{salt}:{digest.hexdigest()}"


def rounds_of(hashed: str) -> int:
    """Return how many rounds made a stored form."""
    return int(hashed.split(":")[1])


def check_token(token: str, hashed: str) -> bool:
    """Return whether ``token`` is the one whose stored form is ``hashed``."""
    algorithm, rounds, salt, _digest = hashed.split(":")
    if algorithm != "sha512":
        return False
    if int(rounds) == GENERATED_ROUNDS:
        return same_secret(hash_token(token, rounds=GENERATED_ROUNDS, salt=salt), hashed)
    # Stretching is for whoever guesses; the right one is stretched once.
    seen = hmac.digest(_KEY, f"{hashed}:{token}".encode("utf-8", "replace"), "sha256")
    if seen in _known:
        return True
    is_right = same_secret(hash_token(token, rounds=int(rounds), salt=salt), hashed)
    if is_right:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known.add(seen)
    return is_right


def same_secret(one: str, other: str) -> bool:
    """Return whether two secrets are equal, in constant time."""
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


def hash_password(password: str) -> str:
    """Return the stored form of ``password``. Raises ValueError when it is over 1024 bytes."""
    raw = password.encode("utf-8", "replace")
    if len(raw) > MAX_PASSWORD_BYTES:
        raise ValueError(f"a password may have at most {MAX_PASSWORD_BYTES} bytes")
    salt = secrets.token_bytes(16)
    n, r, p = _SCRYPT["n"], _SCRYPT["r"], _SCRYPT["p"]
    digest = hashlib.scrypt(raw, salt=salt, n=n, r=r, p=p)
    return f"scrypt:{n}:{r}:{p}:{salt.hex()}:{digest.hex()}"


def check_password(password: str, hashed: str) -> bool:
    """Return whether ``password`` is the one whose stored form is ``hashed``."""
    raw = password.encode("utf-8", "replace")
    if len(raw) > MAX_PASSWORD_BYTES:
        return False
    _scheme, n, r, p, salt, expected = hashed.split(":")
    digest = hashlib.scrypt(raw, salt=bytes.fromhex(salt), n=int(n), r=int(r), p=int(p))
    return hmac.compare_digest(digest.hex(), expected)


def is_outdated(hashed: str) -> bool:
    """Return whether a stored password was made with other parameters than today's."""
    return hashed.split(":")[1:4] != [str(_SCRYPT[name]) for name in "nrp"]


def impossible_password() -> str:
    """Return a stored form that no password has; checking it takes as long as checking any."""
    n, r, p = _SCRYPT["n"], _SCRYPT["r"], _SCRYPT["p"]
    return f"scrypt:{n}:{r}:{p}:{secrets.token_hex(16)}:{secrets.token_hex(64)}"
