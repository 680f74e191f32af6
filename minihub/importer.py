"""The verb ``import-jupyterhub``: people, groups and tokens out of JupyterHub's own database.

JupyterHub's file is only read. The new database is made beside its place and looked through before
it goes there; where both have the same name, JupyterHub's file is kept under another one first.

Rules of this file: it reads every schema of JupyterHub's since 0.8 by looking which tables and
columns there are. Token hashes are taken as they are (both programs write them alike), so tokens
keep working; no secret is known in between. Nothing is printed here: ``say`` shows a line.

Threads: the main thread.
Sources: JupyterHub's ``orm.py``, 0.8 to 6.1.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from contextlib import ExitStack, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import peewee

from . import clock, hublock, machine, scopes
from . import sqlitefiles as files
from .config import Loaded
from .errors import AlreadyRunning, SchemaError, StoreError
from .manage import Failed, Home, Say
from .models import Group, GroupMember, Server, Service, Token, User
from .store import Store
from .urls import server_name_problem

#: What tells a database of JupyterHub's from any other.
TABLES = {"users", "groups", "api_tokens", "spawners", "servers"}
#: The client of tokens that people asked for; others belong to servers and logins.
OWN_CLIENT = "jupyterhub"


def import_jupyterhub(loaded: Loaded, say: Say, name: str) -> int:
    """Make this hub's database from JupyterHub's.

    Raises SchemaError when that is not JupyterHub's, AlreadyRunning while either hub runs, Failed
    when there are users here already.
    """
    home = Home(loaded)
    scopes.define_custom(home.options.custom_scopes)
    source = Path(name).absolute()
    with ExitStack() as stack:
        if home.state_dir.is_dir():
            stack.enter_context(hublock.hold(home.state_dir))
        old = stack.enter_context(_Source(source))
        store = Store.of(home.options)
        target = store.path.absolute() if store.path is not None else None
        store.close()
        if target is None:
            raise Failed(
                f"import-jupyterhub makes a database file; JupyterHub.db_url names {store.shown}"
            )
        stamp = f"{clock.utcnow():%Y-%m-%d-%H%M%S}"
        same = target.exists() and os.path.samefile(source, target)
        if target.exists() and not same:
            _refuse_users(target)
        fresh = target.with_name(f"{target.name}.importing-{stamp}")
        try:
            counts = _fill(fresh, old)
        except BaseException:
            _remove(fresh)
            raise
        kept = _exchange(fresh, target, stamp, same)
    _report(counts, source, target, kept, same, say)
    return 0


def _refuse_users(target: Path) -> None:
    """Raise Failed when a database that would be replaced is in use by people."""
    try:
        with files.looking(target, foreign=True) as db:
            count = db.execute("SELECT count(*) FROM users").fetchone()[0]
    except sqlite3.Error as error:
        raise SchemaError(f"{target} is there already and is no database of minihub's") from error
    if count or "minihub_meta" not in files.tables(target):
        raise Failed(
            f"{target} has users already; import into a new database: --db=FILE, "
            "or move this one aside"
        )


def _remove(path: Path) -> None:
    for end in ("", "-wal", "-shm", "-journal"):
        with suppress(OSError):
            os.unlink(f"{path}{end}")


def _exchange(fresh: Path, target: Path, stamp: str, same: bool) -> Path | None:
    """Put the new file in its place; return the name that what was there has now."""
    kept = None
    if target.exists():
        kept = target.with_name(
            f"{target.name}.{'jupyterhub' if same else 'before-import'}-{stamp}"
        )
        try:
            os.link(target, kept)
        except OSError:  # a file system without second names
            os.rename(target, kept)
        for end in ("-wal", "-shm", "-journal"):
            with suppress(FileNotFoundError):
                os.rename(f"{target}{end}", f"{kept}{end}")
    os.replace(fresh, target)
    return kept


def _report(
    counts: Counter[str], source: Path, target: Path, kept: Path | None, same: bool, say: Say
) -> None:
    people = f"{counts['users']} users ({counts['admins']} admins), {counts['groups']} groups"
    say(f"{target}: {people}, {counts['tokens']} tokens, {counts['named servers']} named servers.")
    if kept is not None:
        say(f"{'The file of JupyterHub' if same else 'What was there'} is kept: {kept}")
    else:
        say(f"JupyterHub's file stays as it is: {source}")
    if counts["running"]:
        say(
            f"{counts['running']} servers still belong to JupyterHub: stop them there, or end "
            "their processes; people start new ones here."
        )
    if counts["old names"]:
        say(
            f"{counts['old names']} named servers have names that no new one may have: "
            "JupyterHub.allow_existing_invalid_named_servers says what becomes of them."
        )
    if counts["roles"]:
        say(
            f"{counts['roles']} roles given beyond user and admin are not in it: here the "
            "configuration gives roles (JupyterHub.load_roles)."
        )
    if counts["shares"]:
        say(f"{counts['shares']} shares of servers are not in it; share them again.")
    if counts["scopes"]:
        say(
            f"{counts['scopes']} tokens were limited to scopes that are not known here; these "
            "scopes are left out."
        )
    say("Logins are not taken over: everybody logs in once more. Tokens keep working.")


# -- JupyterHub's side ---------------------------------------------------------------------


class _Source:
    """JupyterHub's database, to read from."""

    def __init__(self, path: Path) -> None:
        """Raises SchemaError, StoreError, AlreadyRunning; the file is not touched."""
        self.path = path
        if not path.is_file():
            raise StoreError(f"{path}: there is no such file")
        try:
            found = files.tables(path)
        except sqlite3.Error as error:
            raise StoreError(f"{path}: {files.explain(error, path)}") from error
        if "minihub_meta" in found:
            raise SchemaError(f"{path} is minihub's own database; there is nothing to import")
        if not found >= TABLES:
            raise SchemaError(f"{path} is not a database of JupyterHub's (0.8 or newer)")
        self.tables = found
        holders = machine.file_holders(path)
        if holders:
            raise AlreadyRunning(f"{path} is in use by {', '.join(holders)}; stop that first")
        wrong = files.problems(path, foreign=True, references=False)
        if wrong:
            raise StoreError(f"{path} is damaged: {wrong}")

    def __enter__(self) -> _Source:
        self._context = files.looking(self.path, foreign=True)
        self._db = self._context.__enter__()
        self._db.row_factory = sqlite3.Row
        return self

    def __exit__(self, *what: Any) -> None:
        self._context.__exit__(*what)

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Return all rows of a table; none when there is no such table."""
        if table not in self.tables:
            return []
        return [dict(row) for row in self._db.execute(f'SELECT * FROM "{table}"')]

    def has_column(self, table: str, column: str) -> bool:
        """Return whether this JupyterHub knew a column."""
        return any(row[1] == column for row in self._db.execute(f'PRAGMA table_info("{table}")'))


def _date(value: Any) -> str | None:
    """Return a date of JupyterHub's, which is UTC without saying so, as ours are."""
    if not value:
        return None
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return clock.isoformat(moment)


def _json(value: Any, default: Any) -> Any:
    try:
        return json.loads(value) if value else default
    except (TypeError, ValueError):
        return default


# -- our side ------------------------------------------------------------------------------


def _fill(fresh: Path, old: _Source) -> Counter[str]:
    """Make a new database from JupyterHub's; return how much of what came over."""
    store = Store(str(fresh))
    try:
        store.open()
        with store.transaction():
            counts = _copy_all(old)
    except sqlite3.Error as error:
        raise StoreError(f"{old.path}: {files.explain(error, old.path)}") from error
    except (peewee.IntegrityError, peewee.DataError, KeyError) as error:
        raise Failed(
            f"{old.path} holds what cannot be taken over ({error}); nothing was changed"
        ) from error
    finally:
        store.close()
    wrong = files.problems(fresh)
    if wrong:
        raise Failed(f"what was made of {old.path} is not right ({wrong}); nothing was changed")
    return counts


def _copy_all(old: _Source) -> Counter[str]:
    counts: Counter[str] = Counter()
    users = _copy_users(old, counts)
    _copy_groups(old, users, counts)
    services = _copy_services(old)
    _copy_tokens(old, users, services, counts)
    _copy_servers(old, users, counts)
    counts["shares"] = len(old.rows("shares"))
    counts["roles"] = _given_roles(old)
    return counts


def _copy_users(old: _Source, counts: Counter[str]) -> dict[int, User]:
    made = {}
    for row in old.rows("users"):
        if not row.get("name"):
            continue
        state = row.get("encrypted_auth_state")
        made[row["id"]] = User.create(
            name=row["name"],
            admin=bool(row.get("admin")),
            created=_date(row.get("created")) or clock.now_text(),
            last_activity=_date(row.get("last_activity")),
            # Fernet's text in both programs.
            auth_state=state.decode("ascii", "replace") if isinstance(state, bytes) else None,
        )
        counts["users"] += 1
        counts["admins"] += bool(row.get("admin"))
    return made


def _copy_groups(old: _Source, users: dict[int, User], counts: Counter[str]) -> None:
    made = {}
    for row in old.rows("groups"):
        properties = _json(row.get("properties"), {})
        made[row["id"]] = Group.create(name=row["name"], properties=properties)
        counts["groups"] += 1
    for row in old.rows("user_group_map"):
        if row["user_id"] in users and row["group_id"] in made:
            GroupMember.create(group=made[row["group_id"]], user=users[row["user_id"]])


def _copy_services(old: _Source) -> dict[int, Service]:
    return {
        row["id"]: Service.create(name=row["name"], admin=bool(row.get("admin")))
        for row in old.rows("services")
        if row.get("name")
    }


def _copy_tokens(
    old: _Source, users: dict[int, User], services: dict[int, Service], counts: Counter[str]
) -> None:
    with_scopes = old.has_column("api_tokens", "scopes")
    for row in old.rows("api_tokens"):
        user, service = users.get(row.get("user_id")), services.get(row.get("service_id"))
        if (user is None and service is None) or not _is_peoples(row):
            continue
        held = _json(row.get("scopes"), []) if with_scopes else ["inherit"]
        known = [scope for scope in held if scope in scopes.METASCOPES or not scopes.problem(scope)]
        counts["scopes"] += len(known) < len(held)
        Token.create(
            user=user,
            service=service,
            prefix=row["prefix"],
            hashed=row["hashed"],
            note=str(row.get("note") or "")[:1024],
            scopes=known,
            created=_date(row.get("created")) or clock.now_text(),
            last_activity=_date(row.get("last_activity")),
            expires_at=_date(row.get("expires_at")),
            legacy=not with_scopes,
        )
        counts["tokens"] += 1


def _is_peoples(row: dict[str, Any]) -> bool:
    """Return whether somebody asked for a token: servers and logins get new ones."""
    if row.get("session_id") or not str(row.get("hashed") or "").startswith("sha512:"):
        return False
    if row.get("client_id") not in (None, OWN_CLIENT):
        return False
    return not str(row.get("note") or "").startswith("Server at ")


def _copy_servers(old: _Source, users: dict[int, User], counts: Counter[str]) -> None:
    for row in old.rows("spawners"):
        counts["running"] += row.get("server_id") is not None
        user = users.get(row["user_id"])
        options = _json(row.get("user_options"), {})
        if user is None or not (row.get("name") or options):
            continue
        Server.create(
            user=user,
            name=row.get("name") or "",
            display_name=row.get("display_name") or "",
            user_options=options if isinstance(options, dict) else {},
            last_activity=_date(row.get("last_activity")),
        )
        counts["named servers"] += bool(row.get("name"))
        counts["old names"] += bool(row.get("name") and server_name_problem(row["name"]))


def _given_roles(old: _Source) -> int:
    """Return how many roles somebody holds that do not follow from who they are."""
    usual = {row["id"] for row in old.rows("roles") if row["name"] in ("user", "admin")}
    tables = ("user_role_map", "group_role_map", "service_role_map")
    given = [row["role_id"] for table in tables for row in old.rows(table)]
    return sum(role not in usual for role in given)
