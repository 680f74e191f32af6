"""The one-time link that makes whoever runs the hub its owner: whose it is, and its address.

Rules of this file: the rows are :mod:`minihub.accounts`', what the page does is
:mod:`minihub.web.login`'s. Nothing is printed.

Threads: any.
"""

from __future__ import annotations

import os
import pwd

from .accounts import OWNER_LINK_LIFETIME_S, Accounts

LIFETIME_MINUTES = OWNER_LINK_LIFETIME_S // 60


def owner_uid() -> int:
    """Return the uid of the person who runs this program; behind sudo, of who called sudo."""
    uid = os.getuid()
    if uid == 0:
        try:
            return pwd.getpwnam(os.environ["SUDO_USER"]).pw_uid
        except KeyError:
            return 0
    return uid


def new(accounts: Accounts, public_url: str) -> str:
    """Return a fresh link on the hub that people reach at ``public_url``. Earlier ones end."""
    return f"{public_url}hub/login?owner={accounts.new_owner_link(owner_uid())}"
