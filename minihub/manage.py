"""The verbs for people, tokens and the database: over the running hub, or on its database without.

Rules of this file: thin. A running hub is asked through its REST API, so that whatever it does
besides the rows happens as always. Whoever may read and write the database file is trusted with
all of it: the command makes itself a service for as long as it runs. Tokens are made in the
database either way. Nothing is printed here: ``say`` shows a line.

Threads: the main thread.
Sources: JupyterHub's commands ``token`` and ``upgrade-db``.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from . import (
    addresses,
    aio,
    clock,
    dburl,
    durations,
    hublock,
    ownerlink,
    scopes,
    store,
    upgrade,
)
from .accounts import Accounts
from .auth.osusers import own_name
from .config import Loaded
from .errors import ConfigError, MinihubError, NotPermitted, SchemaError, UsageError
from .hookinfo import HubInfo, UserInfo
from .hublock import HubFacts
from .models import Server as ServerRow
from .models import Service, Token, User
from .options import JupyterHub
from .rest import RestClient, RestError
from .store import Store
from .urls import escape_name

Say = Callable[[str], None]

#: The service that a command is for the running hub; one of its own for each command. It counts as
#: one of the configuration: what a killed command leaves behind is gone at the hub's next start.
SERVICE_PREFIX = "command-line-"
SERVICE_LIFETIME_S = 600


class Failed(MinihubError):
    """Raised when a command cannot do what it was asked for; the message says why."""


class NoDatabase(MinihubError):
    """Raised when there is no database where the configuration says."""

    exit_code = ConfigError.exit_code

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(
            f"there is no database at {path.absolute()} (JupyterHub.db_url); "
            "start the hub once, or run this in the directory it was started in"
        )


class Home:
    """The hub of one configuration as a command finds it, running or not."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.options = JupyterHub(config=loaded.config)
        self.state_dir = Path(self.options.state_dir).absolute()

    def running(self) -> HubFacts | None:
        """Return the running hub, if any. Raises NotPermitted."""
        return hublock.running(self.state_dir)

    def database(self) -> Path | None:
        """Return the file of the database; None for one on a database server.

        Raises NoDatabase when there is no such file, NotPermitted when the caller may not use it.
        """
        place = dburl.parse(self.options.db_url)
        if place.path is None and place.kind == dburl.SQLITE:
            raise Failed("a hub whose database is in memory cannot be reached by this command")
        if place.path is None:
            return None
        path = place.path
        try:
            path.stat()
        except PermissionError as error:
            raise _not_permitted(path) from error
        except OSError as error:
            raise NoDatabase(path) from error
        if not os.access(path, os.R_OK | os.W_OK) or not os.access(path.parent, os.W_OK | os.X_OK):
            raise _not_permitted(path)
        return path

    @contextmanager
    def accounts(self) -> Iterator[Accounts]:
        """Give the users and tokens of the database, for as long as the block runs."""
        path = self.database()
        database = Store.of(self.options)
        try:
            version = upgrade.version_in(database) if path is None else upgrade.version_of(path)
            if version is not None and version < store.SCHEMA_VERSION:
                raise SchemaError(
                    f"{database.shown} was written by an older minihub; "
                    "bring it up to date: minihub upgrade-db"
                )
            database.open()
            yield Accounts(database, session_lifetime_s=0)
        finally:
            database.close()

    @contextmanager
    def api(self, hub: HubFacts) -> Iterator[RestClient]:
        """Give a client of the running hub that may do everything an admin may."""
        name = f"{SERVICE_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        with self.accounts() as accounts:
            with accounts.store.transaction():
                _forget_old_services(accounts)
                row = Service.create(name=name, admin=True, display=False)
            try:
                _token, secret = accounts.issue_token(
                    service_id=row.id,
                    note=f"minihub on the command line, by {own_name()}",
                    expires_in_s=SERVICE_LIFETIME_S,
                )
                yield RestClient(hub.api_url, secret)
            finally:
                with accounts.store.transaction():
                    Service.delete().where(Service.id == row.id).execute()

    def authenticator(self, accounts: Accounts | None = None) -> Any:
        """Return the configured authenticator."""
        made = self.options.authenticator_class(config=self.loaded.config)
        if accounts is not None:
            made.use_accounts(accounts)
        return made

    def spawner(self, user: str, server: str, state: dict[str, Any]) -> Any:
        """Return the spawner of a server, which finds the process again that ``state`` tells of."""
        info = HubInfo(api_url="", state_dir=self.state_dir, base_url=self.options.base_url)
        made = self.options.spawner_class(
            user=UserInfo(user, base_url=self.options.base_url),
            server_name=server,
            hub=info,
            config=self.loaded.config,
        )
        made.load_state(state)
        return made


def _not_permitted(path: Path) -> NotPermitted:
    return NotPermitted(
        f"the database {path} may not be used by this user; "
        "run this as the user who runs the hub, for instance with sudo -u"
    )


def _forget_old_services(accounts: Accounts) -> None:
    """Delete what commands left behind that were killed: services whose token has expired."""
    living = Token.select(Token.service).where(Token.service.is_null(False), accounts.live())
    Service.delete().where(
        Service.name.startswith(SERVICE_PREFIX), Service.id.not_in(living)
    ).execute()


@contextmanager
def hub_says(user: str) -> Iterator[None]:
    """Turn the hub's refusal into a sentence about what was asked."""
    try:
        yield
    except RestError as error:
        if error.answered == 404:
            raise no_such_user(user) from error
        raise Failed(error.said or str(error)) from error


def user_path(name: str) -> str:
    """Return the API's path of a user. Raises Failed for what is no name, but a longer path."""
    if not name or "/" in name:
        raise no_such_user(name)
    return f"/users/{escape_name(name)}"


def no_such_user(name: str) -> Failed:
    return Failed(f"No such user: {name}")


def active(model: dict[str, Any]) -> dict[str, Any]:
    """Return the servers of a user's model that are not stopped."""
    return {name: one for name, one in model["servers"].items() if not one.get("stopped")}


def left_running(home: Home, accounts: Accounts) -> list[tuple[str, str, ServerRow]]:
    """Return ``(user, server, row)`` of the servers that go on without a hub."""
    with accounts.store.session():
        rows = list(
            ServerRow.select(ServerRow, User).join(User).where(ServerRow.target.is_null(False))
        )
    return [
        (row.user.name, row.name, row)
        for row in rows
        if aio.call(home.spawner(row.user.name, row.name, row.state or {}).poll) is None
    ]


# -- tokens ----------------------------------------------------------------------------------


def token(
    loaded: Loaded,
    say: Say,
    names: Sequence[str],
    *,
    expires_in: str = "",
    note: str = "",
    scope_names: str = "",
) -> int:
    """Make an API token and show it. ``names`` holds the user's, or nothing for one's own.

    ``scope_names`` are separated by commas or spaces; none gives everything the user may do.
    """
    if len(names) > 1:
        raise Failed("token takes one user at most")
    name = names[0] if names else own_name()
    wanted = re.split(r"[\s,]+", scope_names.strip()) if scope_names.strip() else None
    for scope in wanted or ():
        if not scope.startswith("custom:") and scopes.problem(scope):
            raise UsageError(f"--scopes: {scopes.problem(scope)}")
    try:
        expires_in_s = durations.parse(expires_in) if expires_in else None
    except ValueError as error:
        raise UsageError(f"--expires-in: {error}") from error
    if expires_in_s == 0:
        raise UsageError("--expires-in: a token that lives 0 seconds is of no use")
    with Home(loaded).accounts() as accounts:
        user = accounts.user(name)
        if user is None and not names:
            raise Failed(f"No such user: {name}\nIt is your own name; for others: token USER")
        if user is None:
            raise no_such_user(name)
        _row, secret = accounts.issue_token(
            user_id=user.id,
            note=note or f"made on the command line by {own_name()}",
            scopes=wanted,
            expires_in_s=expires_in_s,
        )
    say(secret)
    return 0


# -- the owner -------------------------------------------------------------------------------


def admin_link(loaded: Loaded, say: Say) -> int:
    """Show a new one-time link that makes whoever runs this an admin, and logs them in."""
    home = Home(loaded)
    hub = home.running()
    url = hub.url if hub else addresses.public_urls(home.options, home.options.port)[0]
    with home.accounts() as accounts:
        say(ownerlink.new(accounts, url))
    say(f"Good for {ownerlink.LIFETIME_MINUTES} minutes and one use.")
    if hub is None:
        say("The hub is not running: start it to use the link.")
    return 0


# -- users -----------------------------------------------------------------------------------


def user_add(loaded: Loaded, say: Say, names: Sequence[str], *, admin: bool = False) -> int:
    """Add users. Returns 1 when one of them was there already."""
    home = Home(loaded)
    authenticator = home.authenticator()
    wanted = list(dict.fromkeys(authenticator.normalize_username(name) for name in names))
    hub = home.running()
    if hub is None:
        added = _add_offline(home, wanted, admin)
    else:
        added = set()
        with home.api(hub) as client:
            try:
                body = {"usernames": wanted, "admin": admin}
                added = {model["name"] for model in client.request("POST", "/users", body).data}
            except RestError as error:
                if error.answered != 409:
                    raise Failed(error.said or str(error)) from error
    for name in wanted:
        say(f"Added {name}." if name in added else f"{name} is a user already.")
    return 0 if added == set(wanted) else 1


def _add_offline(home: Home, names: Sequence[str], admin: bool) -> set[str]:
    """Return the names of the users that were added."""
    added = set()
    with home.accounts() as accounts:
        authenticator = home.authenticator(accounts)
        wrong = [name for name in names if not authenticator.validate_username(name)]
        if wrong:
            raise Failed(f"Invalid user name: {', '.join(wrong)}; nobody was added")
        for name in names:
            if accounts.user(name) is not None:
                continue
            _tell_authenticator(authenticator.add_user, UserInfo(name, admin=admin))
            accounts.ensure_user(name, admin=admin)
            added.add(name)
    return added


def _tell_authenticator(method: Callable[[UserInfo], Any], user: UserInfo) -> None:
    try:
        aio.call(method, user)
    except MinihubError:
        raise
    except Exception as error:  # an authenticator may be anybody's
        raise Failed(f"The authenticator refuses it for {user.name}: {error}") from error


def user_list(loaded: Loaded, say: Say, *, as_json: bool = False) -> int:
    """Show all users."""
    home = Home(loaded)
    hub = home.running()
    if hub is None:
        with home.accounts() as accounts:
            left = left_running(home, accounts)
            rows = [
                {
                    "name": user.name,
                    "admin": user.admin,
                    "created": user.created,
                    "last_activity": user.last_activity,
                    "servers": sorted(server for owner, server, _row in left if owner == user.name),
                }
                for user in accounts.users()
            ]
    else:
        with home.api(hub) as client:
            rows = [
                {key: model[key] for key in ("name", "admin", "created", "last_activity")}
                | {"servers": sorted(active(model))}
                for model in client.items("/users")
            ]
    show(
        say,
        sorted(rows, key=lambda row: row["name"]),
        as_json,
        {
            "USER": lambda row: row["name"],
            "ADMIN": lambda row: "yes" if row["admin"] else "",
            "CREATED (UTC)": lambda row: minute(row["created"]),
            "LAST ACTIVITY (UTC)": lambda row: minute(row["last_activity"]),
            "SERVERS": lambda row: ", ".join(name or "(default)" for name in row["servers"]),
        },
    )
    return 0


def user_remove(loaded: Loaded, say: Say, names: Sequence[str]) -> int:
    """Delete users with their tokens and servers; files in home directories stay.

    Goes on with the others when one cannot be deleted. Raises Failed with every reason.
    """
    home = Home(loaded)
    problems = []
    for name in names:
        try:
            hub = home.running()
            if hub is None:
                _remove_offline(home, name)
            else:
                with home.api(hub) as client, hub_says(name):
                    client.request("DELETE", user_path(name))
        except Failed as error:
            problems.append(str(error))
        else:
            say(f"Removed {name}.")
    if problems:
        raise Failed("\n".join(problems))
    return 0


def _remove_offline(home: Home, name: str) -> None:
    from .serverrows import delete_clients  # the other verbs need not wait for what it imports

    with home.accounts() as accounts:
        user = accounts.user(name)
        if user is None:
            raise no_such_user(name)
        left = [server for owner, server, _row in left_running(home, accounts) if owner == name]
        if left:
            raise Failed(
                f"{name} has a server that still runs, though no hub does; "
                f"stop it first: minihub server stop {name} {left[0]}".rstrip()
            )
        delete_user = home.authenticator(accounts).delete_user
        _tell_authenticator(delete_user, UserInfo(name, id=user.id, admin=user.admin))
        with accounts.store.transaction():
            delete_clients(ServerRow.user == user.id)
            accounts.delete_user(user)


def user_passwd(loaded: Loaded, say: Say, name: str, ask: Callable[[], str]) -> int:
    """Set a user's password where the authenticator keeps passwords; ``ask`` returns the new one.

    Such an authenticator has a method ``set_password(name, password)``, which raises ValueError for
    a password it does not take.
    """
    home = Home(loaded)
    with home.accounts() as accounts:
        authenticator = home.authenticator(accounts)
        set_password = getattr(authenticator, "set_password", None)
        if set_password is None:
            raise Failed(
                f"{type(authenticator).__name__} keeps no passwords of its own, "
                "so there is none to set here"
            )
        name = authenticator.normalize_username(name)
        if accounts.user(name) is None:
            raise no_such_user(name)
        password = ask()
    hub = home.running() if authenticator.keeps_passwords else None
    if hub is not None:  # which ends the user's logins at once
        with home.api(hub) as client, hub_says(name):
            client.request("PUT", f"{user_path(name)}/password", {"password": password})
    else:
        with home.accounts() as accounts:
            try:
                aio.call(home.authenticator(accounts).set_password, name, password)
            except ValueError as error:
                raise Failed(str(error)) from error
    say(f"{name} has a new password.")
    return 0


# -- the database ----------------------------------------------------------------------------


def upgrade_db(loaded: Loaded, say: Say, *, dumped: bool = False) -> int:
    """Bring the database's schema up to date, after a copy of it.

    ``dumped``: go on with a database on MySQL, since there is a dump of it.
    """
    home = Home(loaded)
    path = home.database()
    database = Store.of(home.options)
    with ExitStack() as stack:
        stack.callback(database.close)
        if home.state_dir.is_dir():
            stack.enter_context(hublock.hold(home.state_dir))  # no hub must start meanwhile
        changed, copy = upgrade.bring_up_to_date(database, path, dumped=dumped)
    now = " now" if changed else ""
    say(f"{database.shown} is up to date{now} (schema {store.SCHEMA_VERSION}).")
    if copy is not None:
        say(f"As it was before: {copy}")
    return 0


# -- showing ---------------------------------------------------------------------------------


def show(
    say: Say,
    rows: list[dict[str, Any]],
    as_json: bool,
    columns: dict[str, Callable[[dict[str, Any]], str]],
) -> None:
    """Show rows as JSON, or as a table with these columns."""
    if as_json:
        say(json.dumps(rows, indent=2))
        return
    lines = [list(columns), *([cell(row) for cell in columns.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        say("  ".join(map(str.ljust, line, widths)).rstrip())


def minute(text: str | None) -> str:
    """Return a moment to the minute, in UTC."""
    return f"{clock.parse(text):%Y-%m-%d %H:%M}" if text else "-"
