"""What a login comes to: a result, or one of the errors a login page can show.

Rules of this file: data and messages; no option, no log but one warning.

Threads: any.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from minihub.auth.names import shown
from minihub.errors import AuthError, MinihubError
from minihub.texts import Text

_log = logging.getLogger("minihub.auth")

#: What an auth model holds; everything but the name may be absent or None.
_MODEL = {
    "name": str,
    "admin": bool,
    "groups": list,
    "roles": list,
    "auth_state": dict,
    "user_info": dict,
}


class InvalidLogin(AuthError):
    """Raised when name and password do not belong together; never says which was wrong."""

    def __init__(self) -> None:
        super().__init__(Text("Invalid username or password"))


class NotAllowed(AuthError):
    """Raised when name and password are right, but the hub's rules do not let ``name`` in.

    ``reason`` completes the sentence "… may not log in to this hub:". ``unlisted`` tells that a
    place in the lists of the configuration is all that is missing.
    """

    def __init__(self, name: str, reason: str, *, unlisted: bool = False) -> None:
        self.name = name
        self.reason = reason
        self.unlisted = unlisted
        super().__init__(
            Text(
                "Your name and password are right, but %(name)s may not log in to this hub: "
                "%(reason)s.",
                name=shown(name),
                reason=reason,
            )
        )


class LoginUnavailable(AuthError):
    """Raised when nobody can log in this way at present; ``reason`` is one whole sentence."""

    def __init__(self, reason: str, *, status: int = 503) -> None:
        self.status = status
        super().__init__(reason)


class InvalidUser(MinihubError):
    """Raised by ``add_user`` when somebody cannot be a user of this hub, saying why."""

    status = 400


@dataclass(frozen=True)
class AuthResult:
    """A successful login.

    ``admin`` None leaves the user's admin status as it is; ``groups`` None leaves the groups as
    they are, a list replaces them; so it is with ``roles``, each a name or an entry as of
    ``load_roles``. ``auth_state`` and ``user_info`` are what the authenticator gave, or None.
    """

    name: str
    admin: bool | None = None
    groups: list[str] | None = None
    roles: list[Any] | None = None
    auth_state: dict[str, Any] | None = None
    user_info: dict[str, Any] | None = None


def as_model(answer: Any, giver: str) -> dict[str, Any]:
    """Return the auth model that ``giver`` returned, as a new dict with every key present.

    Raises TypeError naming the value that has the wrong type.
    """
    model = dict(answer) if isinstance(answer, dict) else {"name": answer}
    for key in ("groups", "roles"):
        if isinstance(model.get(key), (tuple, set, frozenset)):
            model[key] = sorted(model[key], key=str)
    for key, kind in _MODEL.items():
        value = model.setdefault(key, None)
        if not isinstance(value, kind) and (value is not None or key == "name"):
            raise TypeError(
                f"{giver} returned {key} as {type(value).__name__}, not {kind.__name__}"
            )
    if model["groups"] is not None and not all(isinstance(g, str) for g in model["groups"]):
        raise TypeError(f"{giver} returned groups that are not all names")
    return model
