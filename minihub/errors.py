"""Every error this program raises on purpose, as one tree.

Rules of this file: it imports nothing of minihub. Each class says when it is raised, keeps its
facts as attributes and builds its message from them. ``status`` is the HTTP status a request that
meets the error is answered with; ``exit_code`` is what a command that meets it ends with
(0 ok, 1 failed, 2 usage, 3 configuration, 4 already running or port busy, 5 schema,
6 not permitted).
"""

from __future__ import annotations

from collections.abc import Sequence


class MinihubError(Exception):
    """The root of the tree; never raised itself."""

    status = 500
    exit_code = 1


# -- commands ------------------------------------------------------------------------------


class UsageError(MinihubError):
    """Raised when a command line cannot be understood."""

    exit_code = 2


class ConfigError(MinihubError):
    """Raised when the configuration is wrong; carries every problem found, not just the first.

    ``problems`` is a list of complete lines such as
    ``minihub.yaml:3:3  JupyterHub.prot: unknown option. Did you mean "port"?``.
    """

    exit_code = 3

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class AlreadyRunning(MinihubError):
    """Raised when another hub holds the lock of this state directory, or a port is taken."""

    exit_code = 4


class NotPermitted(MinihubError):
    """Raised when the operating system or the hub refuses the caller a command."""

    exit_code = 6


# -- store ---------------------------------------------------------------------------------


class StoreError(MinihubError):
    """Raised when the database cannot be opened, read or written."""

    status = 503


class SchemaError(StoreError):
    """Raised when the database belongs to another program or another version of this one."""

    exit_code = 5


# -- HTTP requests to the hub --------------------------------------------------------------


class RequestError(MinihubError):
    """Raised to answer a request with an error ``status`` and a ``message`` its sender may read.

    ``headers`` go into the response as they are.
    """

    status = 400

    def __init__(self, message: str, *, headers: dict[str, str] | None = None) -> None:
        self.message = message
        self.headers = dict(headers or {})
        super().__init__(message)


class BadRequest(RequestError):
    """Raised when a request is malformed or asks for the impossible."""


class Forbidden(RequestError):
    """Raised when the caller is nobody, or lacks the right."""

    status = 403


class NotFound(RequestError):
    """Raised when a resource does not exist, or the caller may not know that it does."""

    status = 404

    def __init__(self, message: str = "No access to resources or resources not found") -> None:
        super().__init__(message)


class MethodNotAllowed(RequestError):
    """Raised when a resource exists but not for this method."""

    status = 405


class Conflict(RequestError):
    """Raised when something to be created is there already."""

    status = 409


class TooMany(RequestError):
    """Raised when a limit is reached; ``retry_after_s`` becomes the ``Retry-After`` header."""

    status = 429

    def __init__(self, message: str, *, retry_after_s: int | None = None) -> None:
        self.retry_after_s = retry_after_s
        headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
        super().__init__(message, headers=headers)


class AuthError(MinihubError):
    """Raised when a login fails; the message never says which half was wrong."""

    status = 403


# -- servers -------------------------------------------------------------------------------


def words_of(error: BaseException) -> str:
    """Return what an exception of somebody's own code says to users.

    That is its ``jupyterhub_message`` (as JupyterHub has it), the message of an HTTPError of
    tornado's kind, or its text.
    """
    message = getattr(error, "jupyterhub_message", "")
    if not message and isinstance(getattr(error, "status_code", None), int):
        message = getattr(error, "log_message", None) or getattr(error, "reason", None)
        arguments = getattr(error, "args", ())
        if message and arguments and "%" in message:
            try:
                message %= tuple(arguments)
            except (TypeError, ValueError):
                pass  # its own, not a pattern
    return str(message or error)


class SpawnError(MinihubError):
    """Raised when a server cannot be started or stopped.

    ``reason`` is one sentence a user may read; ``log_tail`` the last lines the server wrote,
    ``hint`` what to do about it (may be empty).
    """

    def __init__(self, reason: str, *, log_tail: Sequence[str] = (), hint: str = "") -> None:
        self.reason = reason
        self.log_tail = list(log_tail)
        self.hint = hint
        super().__init__(reason)


class SpawnTimeout(SpawnError):
    """Raised when a server did not start, or did not answer, within its time."""


class ExitedEarly(SpawnError):
    """Raised when a server's process ended before it answered; ``exit_code_of_server`` is its."""

    def __init__(
        self, reason: str, exit_code: int, *, log_tail: Sequence[str] = (), hint: str = ""
    ) -> None:
        self.exit_code_of_server = exit_code
        super().__init__(reason, log_tail=log_tail, hint=hint)


class ProcessStillAlive(SpawnError):
    """Raised when a process tree survived every signal of the stop ladder."""


# -- the proxy -----------------------------------------------------------------------------


class ProtocolError(MinihubError):
    """Raised by the HTTP/1.1 parser; ``status`` is the answer, the connection then closes."""

    def __init__(self, message: str, status: int = 400) -> None:
        self.status = status
        super().__init__(message)


class ProxyError(MinihubError):
    """Raised when the hub cannot start its proxy or the proxy refuses a request."""
