"""The hub that is looked at: its configuration as far as it can be read, its files, who runs it.

Rules of this file: facts that several checks need, each found when it is first asked for; nothing
is judged and nothing is changed. What cannot be found raises, and the check that asked says so.

Threads: one check at a time.
"""

from __future__ import annotations

import os
import shlex
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from traitlets import TraitError
from traitlets.config import Config

from .. import addresses, config, dburl, hublock, machine, proxyfacts, sqlitefiles
from ..app import own_files
from ..auth.osusers import name_of_uid
from ..config import Loaded
from ..errors import ConfigError, MinihubError
from ..hookinfo import UserInfo
from ..hublock import HubFacts
from ..options import JupyterHub
from ..proxyfacts import ProxyFacts
from ..store import Store


class NotThere(MinihubError):
    """Raised when there is nothing to look at yet; says so."""


class Patient:
    """One hub, running or not."""

    def __init__(self, loaded: Loaded, problems: Sequence[str]) -> None:
        """``problems`` are what is wrong with the configuration, and not in ``loaded``."""
        self.loaded = loaded
        self.problems = list(problems)
        self.directory = Path.cwd()
        try:
            self.options = JupyterHub(config=self.loaded.config)
        except TraitError as error:
            self.problems.append(str(error))
            self.options = JupyterHub()
        self.config: Config = self.loaded.config
        self.state_dir = Path(self.options.state_dir).absolute()

    # -- words -----------------------------------------------------------------------------

    def command(self, *words: str) -> str:
        """Return a command line of ours for this hub."""
        given = ["minihub.pyz", *words]
        file = self.loaded.file
        if file is not None and file.parent != self.directory:
            given += ["--config", str(file)]
        elif file is not None and file.name not in (config.YAML_FILE, config.PYTHON_FILE):
            given += ["--config", file.name]
        return shlex.join(given)

    def shown(self, path: Path) -> str:
        """Return a path as a word of a command, short where it lies below here."""
        try:
            return shlex.quote(str(path.relative_to(self.directory)))
        except ValueError:
            return shlex.quote(str(path))

    def given(self, name: str) -> bool:
        """Return whether ``Class.option`` is set anywhere."""
        return name in self.loaded.origins

    # -- the running hub -------------------------------------------------------------------

    @cached_property
    def hub(self) -> HubFacts | None:
        """The hub that runs here; None where none does. Raises NotPermitted."""
        return hublock.running(self.state_dir)

    @cached_property
    def path(self) -> str:
        """The PATH of the hub that runs; ours where none does, or it cannot be seen."""
        running = machine.environment(self.hub.pid) if self.hub is not None else os.environ
        return running.get("PATH") or os.environ.get("PATH") or os.defpath

    @cached_property
    def proxy(self) -> ProxyFacts | None:
        """The proxy that was started last; None where none is noted."""
        return proxyfacts.load(self.state_dir / "proxy.json")

    def name_of(self, uid: int) -> str:
        """Return a user's name, or the number without one."""
        return name_of_uid(uid) or str(uid)

    # -- the parts of a hub ----------------------------------------------------------------

    @cached_property
    def hub_port(self) -> int:
        """The port of the hub itself: the one asked for, or the last one it had."""
        note = self.state_dir / "hub-port"
        if self.options.hub_port or not note.exists():
            return self.options.hub_port
        last = note.read_text().strip()
        return int(last) if last.isdecimal() else 0

    @cached_property
    def spawner(self) -> Any:
        """A spawner that starts nothing, to see what all have in common."""
        info = addresses.hub_info(self.options, self.state_dir, self.hub_port)
        info = replace(info, own_files=own_files(self.options))
        return self.options.spawner_class(user=UserInfo("nobody"), hub=info, config=self.config)

    @cached_property
    def authenticator(self) -> Any:
        """The authenticator, which lets nobody in."""
        return self.options.authenticator_class(config=self.config)

    # -- the database ----------------------------------------------------------------------

    @cached_property
    def place(self) -> dburl.Place:
        """Where the database is. Raises ConfigError."""
        try:
            return dburl.parse(self.options.db_url)
        except ValueError as error:
            raise ConfigError(f"JupyterHub.db_url: {error}") from error

    @cached_property
    def database(self) -> Path | None:
        """The file of an SQLite database; None for one in memory or on a server."""
        return self.place.path.absolute() if self.place.path else None

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return what a query finds in the database, which it leaves as it is.

        Raises NotThere without a database, StoreError when it cannot be read.
        """
        if self.database is not None:
            if not self.database.exists():
                raise NotThere(f"there is no database {self.database} yet")
            try:
                with sqlitefiles.looking(self.database) as connection:
                    return connection.execute(query).fetchall()
            except sqlite3.Error as error:
                what = sqlitefiles.explain(error, self.database)
                raise MinihubError(f"the database {self.database}: {what}") from error
        if self.place.kind == dburl.SQLITE:
            raise NotThere("the database is in the memory of the hub")
        store = Store.of(self.options)
        try:
            with store.session() as db:
                return [tuple(row) for row in db.execute_sql(query).fetchall()]
        finally:
            store.close()
