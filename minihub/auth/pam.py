"""Logging in with the names and passwords of the operating system, through PAM.

Rules of this file: pamela (libpam through ctypes) is imported when it is first needed and its
errors do not leave this file. No PAM module may read from or write to the hub's terminal: every
conversation is answered with what the form gave and nothing else.

Threads: any number of logins at once, each with a PAM handle of its own. A PAM stack may take
seconds (a wrong password is answered with a delay on purpose); the caller waits.
"""

from __future__ import annotations

import codecs
import ctypes
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from traitlets import Bool, Set, TraitError, Unicode, validate

from minihub import aio, launchpad, rlimits, runtime
from minihub.auth.base import origin_of
from minihub.auth.names import shown
from minihub.auth.osusers import group_ids, group_ids_of, name_of_uid, system_user
from minihub.auth.results import LoginUnavailable, NotAllowed
from minihub.auth.system import LocalAuthenticator
from minihub.texts import Text

#: libpam's own limit for one answer (PAM_MAX_RESP_SIZE).
MAX_PASSWORD_BYTES = 512

#: How long a session may take to be opened or closed.
SESSION_TIMEOUT_S = 30.0

#: Flag of pam_authenticate: an account without a password accepts none instead of any.
DISALLOW_NULL_AUTHTOK = 1

#: Where PAM looks for the file of a service, on the systems we know.
SERVICE_DIRS = (
    "/etc/pam.d",
    "/usr/lib/pam.d",
    "/usr/etc/pam.d",
    "/usr/share/pam.d",
    "/usr/local/etc/pam.d",
)


class PAMAuthenticator(LocalAuthenticator):
    """Checks names and passwords against the system's own, with PAM."""

    service = Unicode(
        "login", help="Name of the PAM service (a file in /etc/pam.d) that checks logins."
    ).tag(config=True)
    encoding = Unicode("utf8", help="Text encoding of names and passwords for PAM.").tag(
        config=True
    )
    check_account = Bool(
        True,
        help="Also ask PAM whether the account may be used at present: not expired, not locked "
        "out. Without this, people the system would turn away can run programs on it.",
    ).tag(config=True)
    open_sessions = Bool(
        False,
        help="Open a PAM session before a user's server starts and close it after it stops. "
        "Limits that it sets (/etc/security/limits.conf) are given to the server. Whatever else "
        "session modules do to a process, they do to one that ends at once; after the first error "
        "no session is opened any more.",
    ).tag(config=True)
    admin_groups = Set(
        Unicode(),
        help="Names of system groups whose members are admins. If given, users in none of them "
        "and not in admin_users stop being admins when they log in.",
    ).tag(config=True, example=["sudo"])
    pam_normalize_username = Bool(
        False,
        help="Look the login name up in the system and use the name found there, for systems "
        "where several login names mean one account.",
    ).tag(config=True)

    _logs_failures = True
    _sessions_failed = False

    @aio.either
    def authenticate(self, handler: Any, data: Any) -> str | None:
        """Return the name given, if PAM accepts the password.

        Raises NotAllowed when the password is right but the account is not usable at present,
        LoginUnavailable when there is no PAM here.
        """
        data = data or {}
        name, password = data.get("username") or "", data.get("password") or ""
        origin = origin_of(handler)
        if not self._is_sendable(name, password):
            self.log.warning(
                "Login failed: unusable name or password, %s from %s", shown(name), origin
            )
            return None
        pam = load_pam()
        answers = [password, data.get("otp") or ""] if self.request_otp else [password]
        steps = [("PAM_AUTHENTICATE", DISALLOW_NULL_AUTHTOK)]
        if self.check_account:
            steps.append(("PAM_ACCT_MGMT", 0))
        steps.append(("PAM_SETCRED", pam.PAM_REINITIALIZE_CRED))
        failed, problem = self._run_pam(pam, name, answers, *steps)
        if failed == "PAM_ACCT_MGMT":
            self.log.warning(
                "Login refused: PAM's account check for %s from %s: %s",
                shown(name),
                origin,
                problem,
            )
            raise NotAllowed(name, Text('the system says "%(problem)s"', problem=problem))
        if failed:
            self.log.warning(
                "Login failed: PAM refused %s from %s: %s%s",
                shown(name),
                origin,
                problem,
                self._hint(name),
            )
            return None
        if self._is_someone_else(name):
            self.log.warning(
                "Login refused: %s from %s is another system user than %s",
                shown(name),
                origin,
                shown(name.lower()),
            )
            raise NotAllowed(name, Text("another system user has this name in lower case"))
        return name

    def normalize_username(self, username: str) -> str:
        """Return the user name of a login name, as the system spells it where that is asked for."""
        found = system_user(username) if self.pam_normalize_username else None
        if found is None:
            return super().normalize_username(username)
        name = name_of_uid(found.pw_uid) or found.pw_name
        return self.username_map.get(name, name)

    @aio.either
    def is_admin(self, handler: Any, authentication: dict[str, Any]) -> bool | None:
        """Return the base's answer, else membership in admin_groups where they are given.

        Raises LoginUnavailable when one of the groups does not exist: better no login than an
        admin lost to a typing error or a directory that does not answer.
        """
        status = super().is_admin(handler, authentication)
        if status or not self.admin_groups:
            return status
        groups, missing = group_ids(self.admin_groups)
        if missing:
            self.log.error("PAMAuthenticator.admin_groups: there is no group %s here", missing)
            raise LoginUnavailable(
                Text(
                    "The groups that decide who is an admin of this hub cannot be found. Its "
                    "administrator finds the details in the log."
                )
            )
        return bool(groups & group_ids_of(authentication["name"]))

    @aio.either
    def pre_spawn_start(self, user: Any, spawner: Any) -> None:
        """Open a PAM session where that is asked for."""
        session_limits = self._session("pam_open_session", "open", user.name)
        if hasattr(spawner, "session_limits"):
            spawner.session_limits = session_limits

    @aio.either
    def post_spawn_stop(self, user: Any, spawner: Any) -> None:
        """Close the PAM session where sessions are asked for."""
        self._session("pam_close_session", "close", user.name)

    def check_allow_config(self) -> list[str]:
        """Add what is missing on this system: the library, the service, groups."""
        warnings = super().check_allow_config()
        try:
            load_pam()
        except LoginUnavailable as error:
            warnings.append(str(error))
        if not self._has_service():
            warnings.append(self._no_service())
        _groups, missing = group_ids(self.admin_groups)
        if missing:
            warnings.append(
                f"PAMAuthenticator.admin_groups: there is no group {missing} on this system; "
                "nobody can log in."
            )
        return warnings

    # -- inside ------------------------------------------------------------------------------

    def _is_sendable(self, name: str, password: str) -> bool:
        """Return whether libpam would get exactly this name and password.

        It reads up to the first NUL.
        """
        if not name or not password or "\0" in name or "\0" in password:
            return False
        try:
            name.encode(self.encoding)
            return len(password.encode(self.encoding)) <= MAX_PASSWORD_BYTES
        except UnicodeEncodeError:
            return False

    def _is_someone_else(self, name: str) -> bool:
        """Return whether the user name that ``name`` becomes is another account's."""
        if self.pam_normalize_username or name == name.lower():
            return False
        given, meant = system_user(name), system_user(name.lower())
        return given is not None and meant is not None and given.pw_uid != meant.pw_uid

    def _run_pam(
        self, pam: ModuleType, name: str, answers: list[str], *steps: tuple[str, int]
    ) -> tuple[str, str]:
        """Call libpam's functions (each with its flags) for a user until one fails.

        ``answers`` are given to its questions in that order. Returns the function that failed
        and PAM's words for why, or two empty texts. Credentials may fail to be set.
        """
        # The callback has to outlive the handle. pamela's own would talk to the hub's terminal.
        conversation = pam.new_simple_password_conv(answers, self.encoding)
        function, code = "pam_start", 0
        try:
            handle = pam.pam_start(
                self.service, name, conv_func=conversation, encoding=self.encoding
            )
            for function, flags in steps:
                code = getattr(pam, function)(handle, flags)
                if function == "PAM_SETCRED":
                    code = 0
                if code:
                    break
            pam.pam_end(handle, code)
        except pam.PAMError as error:
            return function, error.message
        return "", ""

    def _session(self, function: str, verb: str, name: str) -> Mapping[str, rlimits.Pair]:
        """Open or close a session where that is asked for; return the limits that it has set."""
        if not self.open_sessions or self._sessions_failed:
            return {}
        answer = self._run_session(function, name)
        if answer["failed"]:
            self._sessions_failed = True
            self.log.warning(
                "PAM could not %s a session for %s: %s. No session is opened from now on; set "
                "PAMAuthenticator.open_sessions to false if you need none.",
                verb,
                shown(name),
                answer["problem"].rstrip("."),
            )
        return {name: tuple(pair) for name, pair in answer["limits"].items()}

    def _run_session(self, function: str, name: str) -> dict[str, Any]:
        """Return what the program says that opens or closes a session in a process of its own."""
        wanted = {
            "function": function,
            "service": self.service,
            "name": name.encode(self.encoding, "replace").decode("latin-1"),
            "limits": rlimits.at_start(),
        }
        try:
            done = subprocess.run(
                runtime.script_command("minihub.auth.pamsession"),
                input=json.dumps(wanted).encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=launchpad.interpreter_environment(),
                cwd="/",
                timeout=SESSION_TIMEOUT_S,
                start_new_session=True,
            )
            return json.loads(done.stdout)
        except subprocess.TimeoutExpired:
            problem = f"no answer within {SESSION_TIMEOUT_S:g} s"
        except OSError as error:
            problem = error.strerror or str(error)
        except ValueError:
            problem = "the process that was to do it has ended"
        return {"failed": function, "problem": problem, "limits": {}}

    def _has_service(self) -> bool:
        """Return whether there is a file for our service, or no way of telling."""
        known = [Path(directory) for directory in SERVICE_DIRS if Path(directory).is_dir()]
        return not known or any((directory / self.service).is_file() for directory in known)

    def _no_service(self) -> str:
        return (
            f'PAM has no service "{self.service}" on this system, so its catch-all rules decide. '
            f"Create /etc/pam.d/{self.service}, or set PAMAuthenticator.service to one of the "
            "files there."
        )

    def _hint(self, name: str) -> str:
        """Return what else the log should say about a refused password."""
        if not self._has_service():
            return f". {self._no_service()}"
        if os.geteuid() != 0:
            own = name_of_uid(os.geteuid())
            if name != own:
                return (
                    ". This hub does not run as root, and most systems then let it check the "
                    f'password of its own user "{own}" only.'
                )
        return ""

    @validate("encoding")
    def _check_encoding(self, proposal: Any) -> str:
        try:
            codecs.lookup(proposal.value)
        except LookupError as error:
            raise TraitError(f"PAMAuthenticator.encoding: {error}") from error
        return proposal.value

    @validate("service")
    def _check_service(self, proposal: Any) -> str:
        if not proposal.value or "/" in proposal.value or "\0" in proposal.value:
            raise TraitError(
                "PAMAuthenticator.service is the name of a file in /etc/pam.d, without a path, "
                f"not {proposal.value!r}"
            )
        return proposal.value


def load_pam() -> ModuleType:
    """Return pamela. Raises LoginUnavailable when the system has no PAM library."""
    try:
        # Where find_library() cannot see it (musl without a compiler), pamela falls back to
        # what is loaded already.
        ctypes.CDLL("libpam.so.0", mode=ctypes.RTLD_GLOBAL)
    except OSError:
        pass
    try:
        import pamela
    except (ImportError, OSError, AttributeError) as error:
        raise LoginUnavailable(
            Text(
                "Passwords cannot be checked on this machine: it has no PAM library (libpam). "
                "Its administrator can install it (Debian and Ubuntu: apt install libpam0g) or "
                "choose another JupyterHub.authenticator_class."
            )
        ) from error
    return pamela
