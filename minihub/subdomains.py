"""Host names of users and services, where they have hosts of their own below the hub's.

Rules of this file: pure functions over text. By :func:`idna` two names never share a host: what
cannot be a DNS label as it is, or by IDNA and back, gets a part of its hash.

Sources: RFC 1035 (section 2.3.1), RFC 5891; the forms are those of JupyterHub's hooks ``idna`` and
``legacy``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from urllib.parse import quote

#: ``hook(name, domain, kind)`` returns a host name; ``kind`` is ``user`` or ``service``.
Hook = Callable[[str, str, str], str]

_LABEL = re.compile(r"(?!\d+\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LONGEST_LABEL = 63


def idna(name: str, domain: str, kind: str) -> str:
    """Return ``NAME.domain`` for a user and ``NAME--KIND.domain`` for anything else."""
    suffix = "" if kind == "user" else f"--{kind}"
    return f"{_label(name, _LONGEST_LABEL - len(suffix))}{suffix}.{domain}"


def legacy(name: str, domain: str, kind: str) -> str:
    """Return ``NAME.domain`` with the name quoted, and one host for all services.

    Not every result is a name that DNS can hold, and unusual names can meet.
    """
    if kind != "user":
        return f"{kind}s.{domain}"
    return f"{quote(name, safe='').replace('~', '%7e').replace('%', '_').lower()}.{domain}"


HOOKS: dict[str, Hook] = {"idna": idna, "legacy": legacy}


def _label(name: str, longest: int) -> str:
    # Everything else that is made here holds "--", so a name with it could meet another's.
    if "--" not in name:
        if _is_label(name, longest):
            return name
        try:
            coded = name.encode("idna").decode("ascii")
            if coded.startswith("xn--") and coded.encode().decode("idna") == name:
                if _is_label(coded, longest):
                    return coded
        except UnicodeError:
            pass
    stub = "".join(re.findall("[a-z0-9]", name.lower())[:8]) or "x"
    return f"u-{stub}--{hashlib.sha256(name.encode()).hexdigest()[:7]}"


def _is_label(text: str, longest: int) -> bool:
    return len(text) <= longest and _LABEL.fullmatch(text) is not None
