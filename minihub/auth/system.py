"""Authenticators whose users are the operating system's: groups, and creating users.

Rules of this file: as in :mod:`minihub.auth.base`. A name reaches a command only as one whole
argument that cannot be taken for an option.

Threads: as in :mod:`minihub.auth.base`.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from typing import Any

from traitlets import Bool, Dict, Integer, Set, Unicode, default, observe

from minihub import aio
from minihub.auth.base import Authenticator
from minihub.auth.names import shown
from minihub.auth.osusers import group_ids, group_ids_of, system_user
from minihub.auth.results import InvalidUser
from minihub.texts import Text
from minihub.traits import Command

#: How long the command that creates a system user may take.
ADD_USER_TIMEOUT_S = 120.0


class LocalAuthenticator(Authenticator):
    """The base of authenticators whose users are the operating system's."""

    has_system_users = True

    create_system_users = Bool(
        False, help="Create the system user of a new user of the hub; the hub must run as root."
    ).tag(config=True)
    add_user_cmd = Command(
        help="Command that creates a system user. USERNAME in it is replaced by the name, and the "
        "name is added at its end. Empty: adduser without a password, or pw useradd -m where "
        "there is pw.",
    ).tag(config=True, example=["useradd", "--create-home"])
    uids = Dict(
        value_trait=Integer(),
        key_trait=Unicode(),
        help="User names and the numeric user ids they get when they are created.",
    ).tag(config=True, example={"ana": 2001})
    allowed_groups = Set(Unicode(), help="Names of system groups whose members may log in.").tag(
        config=True, example=["students"]
    )
    group_whitelist = Set(Unicode(), help="Old spelling of allowed_groups.").tag(
        config=True, deprecated_for="LocalAuthenticator.allowed_groups", example=["students"]
    )

    def check_allowed(self, username: str, authentication: dict[str, Any] | None = None) -> bool:
        """Return whether a rule of the base or a group lets a name in."""
        return super().check_allowed(username, authentication) or self.check_allowed_groups(
            username, authentication
        )

    def check_allowed_groups(
        self, username: str, authentication: dict[str, Any] | None = None
    ) -> bool:
        """Return whether a system user is a member of a group in allowed_groups."""
        if not self.allowed_groups:
            return False
        groups, missing = group_ids(self.allowed_groups)
        if missing:
            self.log.error("LocalAuthenticator.allowed_groups: no group %s here", missing)
        return bool(groups & group_ids_of(username))

    check_whitelist = check_allowed
    check_group_whitelist = check_allowed_groups

    @aio.either
    def add_user(self, user: Any) -> None:
        """Make sure of the system user, creating it where that is asked for.

        Raises InvalidUser when there is none and none can be created.
        """
        super().add_user(user)
        if self.system_user_exists(user):
            return
        if not self.create_system_users:
            raise InvalidUser(
                Text(
                    "There is no system user %(name)s. Create it, or set "
                    "LocalAuthenticator.create_system_users to let the hub do so.",
                    name=shown(user.name),
                )
            )
        self.add_system_user(user)

    def system_user_exists(self, user: Any) -> bool:
        """Return whether the operating system knows ``user.name``."""
        return system_user(user.name) is not None

    def add_system_user(self, user: Any) -> None:
        """Create the system user ``user.name``; waits for the command, at most two minutes.

        Raises InvalidUser when the command cannot be run or fails.
        """
        name = user.name
        if name.startswith("-"):
            raise InvalidUser(
                Text("%(name)s cannot be a system user: it begins with a hyphen", name=shown(name))
            )
        words = self.add_user_cmd or self._default_add_user_cmd()
        if not words:
            raise InvalidUser(
                Text(
                    "System user %(name)s cannot be created: set "
                    "LocalAuthenticator.add_user_cmd to the command that does so on %(platform)s.",
                    name=shown(name),
                    platform=sys.platform,
                )
            )
        command = [word.replace("USERNAME", name) for word in words]
        if name in self.uids:
            command += ["--uid", str(self.uids[name])]
        command.append(name)
        self.log.info("Creating system user %s: %s", shown(name), shlex.join(command))
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=ADD_USER_TIMEOUT_S,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            problem = str(error)
        else:
            if done.returncode == 0:
                return
            output = " ".join(done.stdout.decode("utf-8", "replace").split())
            problem = f"{command[0]} ended with code {done.returncode}: {output[-500:]}"
        raise InvalidUser(
            Text(
                "System user %(name)s could not be created: %(problem)s "
                "(LocalAuthenticator.add_user_cmd)",
                name=shown(name),
                problem=problem,
            )
        )

    def check_allow_config(self) -> list[str]:
        """Add which groups do not exist."""
        _groups, missing = group_ids(self.allowed_groups)
        return super().check_allow_config() + (
            [f"LocalAuthenticator.allowed_groups: there is no group {missing} on this system."]
            if missing
            else []
        )

    @default("add_user_cmd")
    def _default_add_user_cmd(self) -> list[str]:
        if sys.platform == "darwin":
            return []
        if shutil.which("pw"):
            return ["pw", "useradd", "-m", "-n"]
        return ["adduser", "-q", "--gecos", '""', "--disabled-password"]

    @observe("group_whitelist")
    def _take_old_groups(self, change: Any) -> None:
        self._take_old_spelling(change.name, change.new)
