"""The rows of servers: what the database keeps of one from its start to its removal.

Rules of this file: each method is one transaction; nothing is started, stopped or waited for. A
server's token is the secret of its OAuth client, so that both come and go together.

Threads: any.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

from . import clock, deadline, urls
from .accounts import Accounts
from .logs import safe
from .models import OAuthClient, Token, User
from .models import Server as ServerRow
from .oauth import OAuthProvider
from .prepared import Prepared, slot, slots
from .roles import Roles
from .server import Server
from .spawner import Spawner
from .store import Store

log = logging.getLogger("minihub.servers")

_NO_STATE = "{}"
_ROW_BY_ID = Prepared(lambda: ServerRow.select().where(ServerRow.id == slot("id")))
_ROW_BY_NAME = Prepared(
    lambda: ServerRow.select().where(
        (ServerRow.user == slot("user")) & (ServerRow.name == slot("name"))
    )
)
_SAVE_ASKED = Prepared(
    lambda: ServerRow.update(slots("display_name", "user_options", "state", "oauth_client")).where(
        ServerRow.id == slot("id")
    )
)
_SAVE_STATE = Prepared(
    lambda: ServerRow.update(slots("state", "target")).where(ServerRow.id == slot("id"))
)
_SAVE_STARTED = Prepared(
    lambda: ServerRow.update(slots("target", "started", "state")).where(ServerRow.id == slot("id"))
)
_DELETE_TOKENS = Prepared(lambda: Token.delete().where(Token.server == slot("server")))
_DELETE_CLIENTS_TOKENS = Prepared(
    lambda: Token.delete().where(Token.oauth_client == slot("client"))
)


def find_row(user_id: int, name: str) -> ServerRow | None:
    """Return the row of a user's server of that name, if it was ever made; within a session."""
    return _ROW_BY_NAME.row(user=user_id, name=name)


class ServerRows:
    """The rows of all servers of one hub."""

    def __init__(
        self, store: Store, accounts: Accounts, oauth: OAuthProvider, roles: Roles
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._oauth = oauth
        self._roles = roles

    def give_credentials(
        self, server: Server, spawner: Spawner, user_options: dict[str, Any] | None
    ) -> None:
        """Store the server's row, its OAuth client and its token, and hand them to the spawner."""
        access = f"access:servers!server={server.full_name}"
        token_scopes = spawner.token_scopes()
        allowed_scopes = spawner.allowed_scopes()
        spawner.oauth_client_id = client_id(server)
        spawner.oauth_access_scopes = [access, f"access:servers!user={server.user_name}"]
        with self._store.transaction(touches_rights=False):
            row = find_row(server.user_id, server.name)
            if row is None:
                row = ServerRow.create(user=server.user_id, name=server.name)
            if user_options is not None:
                row.user_options = user_options
            row.display_name = server.display_name or row.display_name or server.name
            spawner.user_options = server.user_options = row.user_options
            server.display_name = row.display_name
            if _DELETE_TOKENS.run(server=row.id):
                self._store.touch_rights()
            server.row_id = row.id
            _token, spawner.api_token = self._accounts.issue_token(
                user_id=server.user_id,
                server_id=row.id,
                note=f"Server at {spawner.server_url}",
                scopes=token_scopes or sorted(self._roles.raw_scopes("server")),
            )
            client = self._oauth.register_client(
                spawner.oauth_client_id,
                secret=spawner.api_token,
                redirect_uri=spawner.oauth_callback_url,
                access=access,
                allowed_scopes=allowed_scopes,
                description=f"Server at {spawner.server_url}",
            )
            _SAVE_ASKED.run(
                display_name=row.display_name,
                user_options=ServerRow.user_options.db_value(row.user_options),
                state=_NO_STATE,
                oauth_client=client.id,
                id=row.id,
            )

    def save_state(self, server: Server) -> None:
        """Store what finds the server's process again."""
        state = _state_of(server)
        with self._store.transaction(touches_rights=False, lasting=False):
            _SAVE_STATE.run(
                state=ServerRow.state.db_value(state), target=server.target, id=server.row_id
            )

    def save_started(self, server: Server) -> None:
        """Store where a server answers and since when, and its process if it is another one."""
        state = _state_of(server)
        with self._store.transaction(touches_rights=False, lasting=False):
            _SAVE_STARTED.run(
                target=server.target,
                started=clock.isoformat(server.started),
                state=ServerRow.state.db_value(state),
                id=server.row_id,
            )

    def clean(
        self, server: Server, *, unless: Callable[[Server], bool] = lambda _server: False
    ) -> None:
        """Take a stopped server's tokens and target away; its row stays.

        Nothing happens where ``unless`` says, when nobody else can write any more, that there is
        a new run of the server: one that starts now waits for this.
        """
        with self._store.transaction():
            if unless(server):
                return
            row = _ROW_BY_ID.row(id=server.row_id)
            if row is None:
                return
            _DELETE_TOKENS.run(server=row.id)
            if row.oauth_client_id:
                _DELETE_CLIENTS_TOKENS.run(client=row.oauth_client_id)
            _SAVE_STARTED.run(target=None, started=None, state=_NO_STATE, id=row.id)

    def remove(self, server: Server) -> None:
        """Delete a server's row, its OAuth client and its shares."""
        with self._store.transaction():
            mine = (ServerRow.user == server.user_id) & (ServerRow.name == server.name)
            delete_clients(mine)
            ServerRow.delete().where(mine).execute()

    def tidy(self) -> set[str]:
        """Take away what a killed hub left of servers that do not run: their tokens.

        Returns the markers of the processes of those that may run. Only while nothing starts.
        """
        stopped = ServerRow.select(ServerRow.id).where(ServerRow.target.is_null())
        clients = ServerRow.select(ServerRow.oauth_client).where(
            ServerRow.target.is_null(), ServerRow.oauth_client.is_null(False)
        )
        with self._store.transaction():
            Token.delete().where(Token.server.in_(stopped)).execute()
            Token.delete().where(Token.oauth_client.in_(clients)).execute()
            rows = list(ServerRow.select(ServerRow.state).where(ServerRow.target.is_null(False)))
        return {row.state.get("marker", "") for row in rows if row.state}

    def fit_names(self, wanted: str) -> None:
        """See to names that no new server may have, as ``allow_existing_invalid_named_servers``.

        Only while nothing starts.
        """
        with self._store.transaction():
            named = ServerRow.select(ServerRow, User).join(User).where(ServerRow.name != "")
            rows = list(named.order_by(ServerRow.id))
            unfit = [row for row in rows if urls.server_name_problem(row.name)]
            if wanted == "autorename":
                self._rename(unfit, rows)
        if unfit and wanted != "autorename":
            log.warning(
                "%d named servers have names that no new one may have, such as %s of %s"
                " (JupyterHub.allow_existing_invalid_named_servers)",
                len(unfit), safe(unfit[0].name), safe(unfit[0].user.name),
            )  # fmt: skip

    def _rename(self, unfit: list[ServerRow], rows: list[ServerRow]) -> None:
        for row in unfit:
            old = row.name
            if row.target is not None:
                log.error("Server %s of %s runs, so it keeps a name that no new one may have",
                          safe(old), safe(row.user.name))  # fmt: skip
                continue
            new = urls.server_slug(old, {one.name for one in rows if one.user_id == row.user_id})
            delete_clients(ServerRow.id == row.id)  # they are named after the server
            row.name, row.oauth_client = new, None
            row.display_name = row.display_name or old
            row.save()
            log.warning("Server %s of %s is now named %s", safe(old), safe(row.user.name), new)

    def left_running(self) -> Iterator[tuple[Server, User, dict[str, Any]]]:
        """Yield each server that had not stopped when the last hub ended, its user, its state."""
        with self._store.session():
            rows = list(
                ServerRow.select(ServerRow, User).join(User).where(ServerRow.target.is_null(False))
            )
        for row in rows:
            server = Server(row.user.id, row.user.name, row.name)
            server.row_id = row.id
            server.display_name, server.user_options = row.display_name, row.user_options
            server.target = row.target
            server.started = clock.parse(row.started) if row.started else None
            yield server, row.user, row.state or {}


def _state_of(server: Server) -> dict[str, Any]:
    """Return what finds the server again. Before a transaction: the spawner may be anybody's."""
    return deadline.in_time("get_state", server.spawner, server.spawner.get_state)


def delete_clients(servers: Any) -> None:
    """Delete the OAuth clients, with all their tokens, of the server rows under a condition."""
    clients = ServerRow.select(ServerRow.oauth_client).where(servers)
    OAuthClient.delete().where(OAuthClient.id.in_(clients)).execute()


def client_id(server: Server) -> str:
    """Return the name of a server's OAuth client, which is also the name of its cookie.

    No quoted name holds the sign between user and server, so that two servers never share one.
    """
    parts = [server.user_name, *([server.name] if server.name else [])]
    return "jupyterhub-user-" + "!".join(
        urls.escape_name(part).replace("@", "%40") for part in parts
    )
