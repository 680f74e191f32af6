"""What an authenticator remembers about a user between logins, encrypted in the store.

Rules of this file: nothing is stored in the clear, and nothing unless
``Authenticator.enable_auth_state`` is on. What can no longer be decrypted is as if it was not
there, since a new login brings it again.

Threads: any.
Sources: JupyterHub's auth_state.
"""

from __future__ import annotations

import logging
from typing import Any

from .crypto import CryptKeeper, Undecipherable
from .models import User
from .store import Store

log = logging.getLogger("minihub.auth")

OPTION = "Authenticator.enable_auth_state"


class AuthStates:
    """The auth_state of all users."""

    def __init__(self, store: Store, crypt: CryptKeeper, *, enabled: bool) -> None:
        """Raises ConfigError when it is enabled and nothing can be encrypted."""
        if enabled:
            crypt.check_available(OPTION)
        self.enabled = enabled
        self._store = store
        self._crypt = crypt

    def save(self, user_id: int, state: dict[str, Any] | None) -> None:
        """Keep ``state`` in place of what was kept; None keeps nothing."""
        if not self.enabled:
            if state:
                log.warning(
                    "The authenticator gave auth_state, which is not kept: %s is off", OPTION
                )
            return
        text = None if state is None else self._crypt.encrypt(state)
        with self._store.transaction(touches_rights=False):
            User.update(auth_state=text).where(User.id == user_id).execute()

    def load(self, user_id: int) -> dict[str, Any] | None:
        """Return what is kept about a user, or None."""
        if not self.enabled:
            return None
        with self._store.session():
            user = User.get_or_none(User.id == user_id)
        if user is None or not user.auth_state:
            return None
        try:
            return self._crypt.decrypt(user.auth_state)
        except Undecipherable as error:
            log.warning("The auth_state of %s is not used: %s", user.name, error)
            return None
