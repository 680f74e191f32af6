"""Who may log in: the authenticator every other one derives from.

Rules of this file: :meth:`Authenticator.log_in` is the only way in. It runs the steps in one order
(authenticate, normalise, validate, blocked, allowed, admin, hook), and every refusal leaves it as
an :class:`~minihub.errors.AuthError`. Nobody is let in unless a rule allows it. Subclasses override
single steps, as plain methods or as coroutines. Every foreign text in a log line goes through
:func:`~minihub.auth.names.shown`.

Threads: any number of logins at once; an authenticator keeps no state between them but caches.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable as CallableType
from typing import Any

from traitlets import Bool, Dict, Int, Set, TraitError, Unicode, default, observe, validate
from traitlets.config import LoggingConfigurable

from minihub import aio
from minihub.auth.names import name_problem, shown
from minihub.auth.results import (
    AuthResult,
    InvalidLogin,
    InvalidUser,
    LoginUnavailable,
    NotAllowed,
    as_model,
)
from minihub.errors import words_of
from minihub.logs import safe
from minihub.texts import Text
from minihub.traits import Callable
from minihub.urls import url_path_join

_log = logging.getLogger("minihub.auth")

#: How long a coroutine of an authenticator may take before the login is given up.
STEP_TIMEOUT_S = 60.0


def nobody(name: str) -> bool:
    """Return False for every name: the answer until the hub gives its own look-up."""
    return False


class Authenticator(LoggingConfigurable):
    """The base of all authenticators, and their common options."""

    #: Set by the hub: is there a user of this (normalised) name, is that user an admin.
    user_exists: CallableType[[str], bool] = staticmethod(nobody)
    is_hub_admin: CallableType[[str], bool] = staticmethod(nobody)

    #: Whether the hub keeps this authenticator's passwords and has pages for setting them.
    keeps_passwords = False
    #: Whether who logs in is a user of the operating system.
    has_system_users = False

    def use_accounts(self, accounts: Any) -> None:
        """Take the hub's users (a :class:`minihub.accounts.Accounts`), before the first login."""
        self.user_exists = lambda name: accounts.user(name) is not None
        self.is_hub_admin = accounts.is_admin

    # -- options: who ----------------------------------------------------------------------

    allow_all = Bool(
        False, help="Allow everybody who gives a right name and password to use the hub."
    ).tag(config=True)
    allowed_users = Set(
        Unicode(),
        help="Names of users who may log in. Admins may log in without being named here.",
    ).tag(config=True, example=["ana", "ben"])
    allow_existing_users = Bool(
        help="Allow every user the hub already knows, for instance one added on the admin page. "
        "Default: true if allowed_users is set, otherwise false."
    ).tag(config=True)
    blocked_users = Set(
        Unicode(),
        help="Names of users who may not log in, whatever other rules allow, admins included.",
    ).tag(config=True, example=["eve"])
    admin_users = Set(
        Unicode(),
        help="Names of users who become admins of the hub. An admin can do everything on behalf "
        "of every user; a name taken out of this set later stays an admin until the admin page "
        "or the API says otherwise.",
    ).tag(config=True, example=["ana"])
    any_allow_config = Bool(
        help="Silence the warning that nobody may log in. Default: true if any option that "
        "allows somebody is set."
    ).tag(config=True)

    # -- options: names --------------------------------------------------------------------

    username_map = Dict(
        value_trait=Unicode(),
        key_trait=Unicode(),
        help="Login names (lower case) and the user names they stand for.",
    ).tag(config=True, example={"prof": "schmidt"})
    username_pattern = Unicode(
        help="Regular expression that a whole user name must match; empty for no restriction."
    ).tag(config=True, example="[a-z][a-z0-9-]*")
    delete_invalid_users = Bool(
        False,
        help="Delete users that the authenticator no longer accepts when the hub starts; "
        "otherwise they are kept and a warning is logged.",
    ).tag(config=True)

    # -- options: the login page and after ---------------------------------------------------

    auto_login = Bool(
        False,
        help="Log in without showing the login page first; for authenticators whose login_url "
        "is elsewhere or that need no form.",
    ).tag(config=True)
    auto_login_oauth2_authorize = Bool(
        False,
        help="Log in as with auto_login where a server or service sends somebody to be logged in, "
        "and show the login page everywhere else.",
    ).tag(config=True)
    request_otp = Bool(False, help="Ask for a one-time password in the login form.").tag(
        config=True
    )
    otp_prompt = Unicode("OTP:", help="Label of the one-time password in the login form.").tag(
        config=True
    )
    post_auth_hook = Callable(
        None,
        allow_none=True,
        help="Function called as hook(authenticator, handler, auth_model) after every successful "
        "login; it returns the model, changed or not, and may be a coroutine.",
    ).tag(config=True)
    enable_auth_state = Bool(
        False,
        help="Keep what the authenticator returns as auth_state, encrypted with CryptKeeper's keys,"
        " for hooks and for programs that may read it.",
    ).tag(config=True)
    auth_refresh_age = Int(
        300,
        min=0,
        help="Seconds after which the authenticator is asked again about somebody who is logged"
        " in. 0 never asks. Counts for authenticators with a refresh_user of their own.",
    ).tag(config=True, unit="seconds")
    refresh_pre_spawn = Bool(
        False,
        help="Ask the authenticator again before a server starts, whatever auth_refresh_age says.",
    ).tag(config=True)
    manage_groups = Bool(
        False,
        help="Let the authenticator decide the groups of a user at every login; groups can then "
        "not be changed through the API.",
    ).tag(config=True)
    manage_roles = Bool(
        False,
        help="Let the authenticator decide the roles of a user at every login. It returns roles, "
        "each a name or a dictionary as in JupyterHub.load_roles, which then may name neither "
        "users nor groups; a role that is not there is made.",
    ).tag(config=True)
    custom_html = Unicode(help="HTML that replaces the login form; empty for the usual form.")
    login_service = Unicode(
        help='Name of the service people log in with; the login form becomes a "Login with" button.'
    )

    # -- options: guessing ---------------------------------------------------------------------

    login_failures_per_client = Int(
        10,
        min=0,
        help="Failed logins under one name from one address within login_failure_window, before "
        "further ones are refused for a while (429). 0 for no limit.",
    ).tag(config=True, unit="logins")
    login_failures_per_name = Int(
        20,
        min=0,
        help="Failed logins under one name, wherever they come from, within login_failure_window. "
        "0 for no limit.",
    ).tag(config=True, unit="logins")
    login_failures_per_address = Int(
        200,
        min=0,
        help="Failed logins from one address, under whatever names, within login_failure_window; "
        "a whole class may share one. 0 for no limit.",
    ).tag(config=True, unit="logins")
    login_failures_overall = Int(
        1000,
        min=0,
        help="Failed logins altogether within login_failure_window. 0 for 10000.",
    ).tag(config=True, unit="logins")
    login_failure_window = Int(
        300,
        min=1,
        help="Seconds for which a failed login counts; nobody is refused for longer.",
    ).tag(config=True, unit="seconds")

    # -- options: old spellings --------------------------------------------------------------

    whitelist = Set(Unicode(), help="Old spelling of allowed_users.").tag(
        config=True, deprecated_for="Authenticator.allowed_users", example=["ana", "ben"]
    )
    blacklist = Set(Unicode(), help="Old spelling of blocked_users.").tag(
        config=True, deprecated_for="Authenticator.blocked_users", example=["eve"]
    )

    #: Whether authenticate() itself logs why a login failed.
    _logs_failures = False

    #: Methods by their old names, and what they are called now.
    _old_methods = {
        "check_whitelist": "check_allowed",
        "check_blacklist": "check_blocked_users",
        "check_group_whitelist": "check_allowed_groups",
    }

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let a subclass that overrides a method under its old name take part under the new."""
        super().__init_subclass__(**kwargs)
        for old, new in cls._old_methods.items():
            if old in cls.__dict__ and new not in cls.__dict__:
                _log.warning("%s.%s: the method is called %s now", cls.__name__, old, new)
                setattr(cls, new, _under_old_name(cls.__dict__[old]))

    def __init__(self, **kwargs: Any) -> None:
        self._normalized: dict[str, tuple[frozenset[str], frozenset[str]]] = {}
        super().__init__(**kwargs)

    # -- the way in --------------------------------------------------------------------------

    def log_in(self, handler: Any, data: dict[str, Any] | None) -> AuthResult:
        """Return who logs in with the form fields ``data`` (None where no form was sent).

        ``handler`` is the request as authenticators see it (``handler.request.remote_ip``), or
        None. Blocks for as long as :meth:`authenticate` takes.

        Raises InvalidLogin, NotAllowed or LoginUnavailable; whatever else a subclass raises comes
        out as it is. Raises TypeError when a subclass returns nonsense.
        """
        model = self._step(self.get_authenticated_user, handler, data)
        if model is None:
            raise InvalidLogin
        model = as_model(model, type(self).__name__)
        if type(self).get_authenticated_user is not Authenticator.get_authenticated_user:
            self._check_name(model, origin_of(handler))  # whatever a subclass makes of it
        return self._as_result(model)

    @aio.either
    def get_authenticated_user(self, handler: Any, data: dict[str, Any] | None) -> Any:
        """Return the model of who logs in, every step done; raises as :meth:`log_in`.

        A subclass may do more before or after all steps, as a plain method or as a coroutine; what
        it returns is taken as it is, None for nobody.
        """
        origin = origin_of(handler)
        if isinstance(data, dict) and _is_hostile(data):
            self.log.warning(
                "Login refused: impossible user name %s from %s", shown(data["username"]), origin
            )
            raise InvalidLogin
        answer = self._step(self.authenticate, handler, data)
        if answer is None or answer is False:
            if not self._logs_failures:
                name = data.get("username", "") if isinstance(data, dict) else ""
                self.log.warning(
                    "Login failed: wrong name or password, %s from %s", shown(name), origin
                )
            raise InvalidLogin
        model = as_model(answer, type(self).__name__)
        model["name"] = name = self.normalize_username(model["name"])
        self._check_name(model, origin)
        if not (self.allow_all or self._step(self.check_allowed, name, model)):
            self.log.warning(
                "Login refused: no rule allows %s from %s; Authenticator.allowed_users or "
                "Authenticator.allow_all would",
                shown(name),
                origin,
            )
            raise NotAllowed(name, Text("ask its administrator to allow it"), unlisted=True)
        if model["admin"] is None:
            model["admin"] = self._step(self.is_admin, handler, model)
        if self.post_auth_hook is not None:
            model = self._run_hook(handler, model, origin)
        return model

    @aio.either
    def authenticate(self, handler: Any, data: Any) -> Any:
        """Return the name that belongs to the form fields, or None if the login is wrong.

        A dict may be returned instead: ``name`` and any of ``admin``, ``groups``, ``auth_state``,
        ``user_info``. Subclasses override this, as a plain method or as a coroutine.
        """
        return None

    @aio.either
    def refresh_user(self, user: Any, handler: Any = None) -> Any:
        """Return True if a login still holds, False if ``user`` must log in again.

        Instead of True, a dict as of :meth:`authenticate` with what is known now. Subclasses
        override this, as a plain method or as a coroutine.
        """
        return True

    def get_refreshed_user(self, user: Any, handler: Any) -> AuthResult | bool:
        """Return what :meth:`refresh_user` comes to; False as well for what it may not change.

        Raises TypeError when a subclass returns nonsense; whatever else it raises comes out.
        """
        answer = self._step(self.refresh_user, user, handler)
        if not isinstance(answer, dict):
            return bool(answer)
        model = as_model({"name": user.name, **answer}, type(self).__name__)
        if self.normalize_username(model["name"]) != user.name:
            self.log.error("refresh_user gave %s another name: %s", shown(user.name), answer)
            return False
        if model["admin"] is None:
            model["admin"] = self._step(self.is_admin, handler, {**model, "name": user.name})
        return self._as_result({**model, "name": user.name})

    # -- the steps ---------------------------------------------------------------------------

    def normalize_username(self, username: str) -> str:
        """Return the user name that a login name stands for: in lower case, then mapped."""
        lowered = username.lower()
        return self.username_map.get(lowered, lowered)

    def validate_username(self, username: str) -> bool:
        """Return whether a normalised name may be a user's."""
        if name_problem(username):
            return False
        pattern = self.username_pattern
        if not pattern or re.fullmatch(pattern, username):
            return True
        if re.match(pattern, username):
            self.log.warning(
                "Authenticator.username_pattern matches only the beginning of %s; the whole name "
                "must match (end the pattern with .* to allow any ending)",
                shown(username),
            )
        return False

    def check_blocked_users(
        self, username: str, authentication: dict[str, Any] | None = None
    ) -> bool:
        """Return whether a name is NOT blocked."""
        return username not in self.blocked_users and username not in self.names_in("blocked_users")

    def check_allowed(self, username: str, authentication: dict[str, Any] | None = None) -> bool:
        """Return whether a rule lets a name in: by itself, as an admin, or as a known user."""
        return (
            self.allow_all
            or username in self.names_in("allowed_users")
            or username in self.names_in("admin_users")
            or self.is_hub_admin(username)
            or (self.allow_existing_users and self.user_exists(username))
        )

    # Old subclasses call these on super().
    check_whitelist = check_allowed
    check_blacklist = check_blocked_users

    def is_admin(self, handler: Any, authentication: dict[str, Any]) -> bool | None:
        """Return True or False to set the admin status of ``authentication["name"]``, or None."""
        return True if authentication["name"] in self.names_in("admin_users") else None

    # -- called by the hub -------------------------------------------------------------------

    def add_user(self, user: Any) -> None:
        """Prepare for a user (``user.name``) that the hub is about to add or, at start, has.

        Raises InvalidUser when there cannot be such a user. Called again for the same user at
        every start.
        """
        if not self.validate_username(user.name):
            reason = name_problem(user.name) or Text(
                "it does not match Authenticator.username_pattern"
            )
            raise InvalidUser(
                Text(
                    "%(name)s cannot be a user name: %(problem)s",
                    name=shown(user.name),
                    problem=reason,
                )
            )

    def delete_user(self, user: Any) -> None:
        """Clean up after a user that the hub has deleted."""

    def pre_spawn_start(self, user: Any, spawner: Any) -> None:
        """Prepare for a server of ``user`` that is about to start."""

    def post_spawn_stop(self, user: Any, spawner: Any) -> None:
        """Clean up after a server of ``user`` that has stopped."""

    def login_url(self, base_url: str) -> str:
        """Return the path of the login page; ``base_url`` is the hub's prefix."""
        return url_path_join(base_url, "login")

    def logout_url(self, base_url: str) -> str:
        """Return the path that logs out."""
        return url_path_join(base_url, "logout")

    def get_custom_html(self, base_url: str) -> str:
        """Return HTML that replaces the login form, or "" for the usual form."""
        return self.custom_html

    def check_allow_config(self) -> list[str]:
        """Return warnings about a configuration that will surprise its author, one text each."""
        if self.any_allow_config or self._default_any_allow_config():
            return []
        return [
            "Nobody but the hub's admins may log in: no option allows anybody else. Name people in "
            "Authenticator.allowed_users, or set Authenticator.allow_all to let in everybody who "
            "gives a right name and password."
        ]

    def names_in(self, option: str) -> frozenset[str]:
        """Return the names in a set option, normalised."""
        raw = frozenset(getattr(self, option))
        known = self._normalized.get(option)
        if known is None or known[0] != raw:
            known = raw, frozenset(self.normalize_username(name) for name in raw)
            self._normalized[option] = known
        return known[1]

    # -- inside ------------------------------------------------------------------------------

    def _step(self, method: CallableType[..., Any], *args: Any) -> Any:
        """Run a step that may be a coroutine."""
        try:
            return aio.call(method, *args, timeout_s=STEP_TIMEOUT_S)
        except TimeoutError as error:
            name = getattr(method, "__name__", "a hook")
            self.log.error("Login: %s gave no answer in time (%s)", name, error)
            raise LoginUnavailable(
                Text("The login service did not answer in time. Try again in a minute.")
            ) from error
        except Exception as error:
            status = getattr(error, "status_code", None)
            if not isinstance(status, int) or not 400 <= status < 600:
                raise
            # An HTTPError of tornado's kind: a refusal in words of its own.
            self.log.warning("Login refused by %s: %s", type(self).__name__, error)
            raise LoginUnavailable(words_of(error), status=status) from error

    def _check_name(self, model: dict[str, Any], origin: str) -> None:
        """Raise NotAllowed unless the name is a possible one and not blocked."""
        name = model["name"]
        if not self.validate_username(name):
            reason = name_problem(name) or Text("it does not match Authenticator.username_pattern")
            self.log.warning("Login refused: user name %s from %s: %s", shown(name), origin, reason)
            raise NotAllowed(
                name, Text("that cannot be a user name here (%(reason)s)", reason=reason)
            )
        if not self._step(self.check_blocked_users, name, model):
            self.log.warning("Login refused: %s from %s is blocked", shown(name), origin)
            raise NotAllowed(name, Text("ask its administrator to allow it"))

    def _run_hook(self, handler: Any, model: dict[str, Any], origin: str) -> dict[str, Any]:
        answer = self._step(self.post_auth_hook, self, handler, model)
        if answer is None:
            self.log.error(
                "Login refused: Authenticator.post_auth_hook returned nothing for %s; it must "
                "return the auth_model it was given",
                shown(model["name"]),
            )
            raise NotAllowed(model["name"], Text("its login hook refused it"))
        model = as_model(answer, "post_auth_hook")
        # The hook may have given another name.
        self._check_name(model, origin)
        return model

    def _as_result(self, model: dict[str, Any]) -> AuthResult:
        decided: dict[str, Any] = {}
        for what, option in (("groups", "manage_groups"), ("roles", "manage_roles")):
            decided[what] = model[what] if getattr(self, option) else None
            if getattr(self, option) and model[what] is None:
                self.log.warning(
                    "Authenticator.%s is on, but %s gave no %s for %s: left as they are",
                    option,
                    type(self).__name__,
                    what,
                    shown(model["name"]),
                )
            elif model[what] and not getattr(self, option):
                self.log.warning(
                    "%s gave %s for %s, which are not taken: Authenticator.%s is off",
                    type(self).__name__,
                    what,
                    shown(model["name"]),
                    option,
                )
        return AuthResult(
            name=model["name"],
            admin=model["admin"],
            **decided,
            auth_state=model["auth_state"],
            user_info=model["user_info"],
        )

    def _take_old_spelling(self, old: str, value: set[str]) -> None:
        """Give a set option given under its old name to its successor, with a warning.

        Where both are given: whoever either one blocks is blocked; only the new one allows.
        """
        successor = self.trait_metadata(old, "deprecated_for")
        section, _, new = successor.partition(".")
        current = getattr(self, new)
        if value == current:
            return
        if current and new != "blocked_users":
            self.log.warning("%s.%s is ignored, because %s is given too", section, old, successor)
            return
        self.log.warning("%s.%s is the old spelling of %s", section, old, successor)
        setattr(self, new, current | value)

    # -- traits ------------------------------------------------------------------------------

    @default("log")
    def _default_log(self) -> logging.Logger:
        return _log

    @default("allow_existing_users")
    def _default_allow_existing_users(self) -> bool:
        return bool(self.allowed_users)

    @default("any_allow_config")
    def _default_any_allow_config(self) -> bool:
        return any(
            getattr(self, name)
            for name, trait in self.traits(config=True).items()
            if name.startswith("allow") or trait.metadata.get("allow_config")
        )

    @validate("username_pattern")
    def _check_pattern(self, proposal: Any) -> str:
        try:
            re.compile(proposal.value)
        except re.error as error:
            raise TraitError(
                f"Authenticator.username_pattern is no regular expression: {error}"
            ) from error
        return proposal.value

    @observe("allowed_users")
    def _warn_of_single_letters(self, change: Any) -> None:
        short = sorted(name for name in change.new if len(name) == 1)
        if short:
            self.log.warning(
                "Authenticator.allowed_users contains names of one letter: %s. A set of one name "
                'is written {"alice"}; set("alice") is a set of letters.',
                ", ".join(short[:8]),
            )

    @observe("whitelist", "blacklist")
    def _take_old_names(self, change: Any) -> None:
        self._take_old_spelling(change.name, change.new)


def _under_old_name(method: CallableType[..., Any]) -> CallableType[..., Any]:
    """Return ``method`` with today's signature; before 1.0 it was given the name alone."""
    takes_model = len(inspect.signature(method).parameters) > 2

    def renamed(self: Any, username: str, authentication: Any = None) -> Any:
        return method(self, username, authentication) if takes_model else method(self, username)

    return renamed


def origin_of(handler: Any) -> str:
    """Return the address a login comes from, for the log."""
    address = getattr(getattr(handler, "request", None), "remote_ip", None)
    return safe(address, 64) if address else "an unknown address"


def _is_hostile(data: dict[str, Any]) -> bool:
    """Return whether the form's user name is one that no back end should ever be asked about."""
    name = data.get("username")
    return (
        isinstance(name, str)
        and name != ""
        and (
            len(name) > 255
            or any(ord(character) < 32 or ord(character) == 127 for character in name)
        )
    )
