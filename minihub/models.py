"""The tables, as peewee models.

Rules of this file: columns, keys and indexes only; no behaviour beyond (de)serialising JSON
columns, no connection handling (that is :mod:`minihub.store`'s). Dates are text as
:func:`minihub.clock.isoformat` writes them, so that lists need no conversion and text order is
time order. Secrets are stored hashed (:mod:`minihub.tokens`), beside a short prefix where a row
must be found by its secret.

Threads: any thread that has a connection from the store.
"""

from __future__ import annotations

import json
from typing import Any

from peewee import (
    AutoField,
    BooleanField,
    CharField,
    CompositeKey,
    ForeignKeyField,
    IntegerField,
    Model,
    TextField,
)


class JSONColumn(TextField):
    """Any JSON value, kept as text so that every database can hold it."""

    def db_value(self, value: Any) -> str | None:
        return None if value is None else json.dumps(value, separators=(",", ":"))

    def python_value(self, value: str | None) -> Any:
        return None if value is None else json.loads(value)


class DateColumn(CharField):
    """A date-time as ISO 8601 text in UTC, 27 characters."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=32, **kwargs)


class Table(Model):
    """Base of all tables."""

    class Meta:
        legacy_table_names = False


class Meta(Table):
    """Facts about the database itself: ``program``, ``schema_version``, ``created``."""

    key = CharField(primary_key=True, max_length=64)
    value = CharField(max_length=255)

    class Meta:
        table_name = "minihub_meta"


class User(Table):
    """A person who may log in. ``name`` is the normalised name."""

    id = AutoField()
    name = CharField(max_length=255, unique=True)
    admin = BooleanField(default=False, index=True)
    created = DateColumn()
    last_activity = DateColumn(null=True, index=True)
    auth_state = TextField(null=True)

    class Meta:
        table_name = "users"


class Group(Table):
    """A named set of users with free ``properties``."""

    id = AutoField()
    name = CharField(max_length=255, unique=True)
    properties = JSONColumn(default=dict)

    class Meta:
        table_name = "user_groups"


class GroupMember(Table):
    """One user's membership in one group."""

    group = ForeignKeyField(Group, on_delete="CASCADE")
    user = ForeignKeyField(User, on_delete="CASCADE")

    class Meta:
        table_name = "group_members"
        primary_key = CompositeKey("group", "user")


class Service(Table):
    """A program that uses the hub's API under its own name.

    ``spec`` keeps what a service made through the API was made of; it is empty for those of the
    configuration. ``legacy`` serves clients of JupyterHub 0.8: dates without a zone.
    """

    id = AutoField()
    name = CharField(max_length=255, unique=True)
    admin = BooleanField(default=False)
    url = CharField(max_length=1024, default="")
    info = JSONColumn(default=dict)
    display = BooleanField(default=True)
    from_config = BooleanField(default=True)
    spec = JSONColumn(default=dict)
    legacy = BooleanField(default=False)

    class Meta:
        table_name = "services"


class Role(Table):
    """A named set of raw scopes, as the configuration defines it."""

    id = AutoField()
    name = CharField(max_length=255, unique=True)
    description = CharField(max_length=1024, default="")
    scopes = JSONColumn(default=list)

    class Meta:
        table_name = "roles"


class RoleMember(Table):
    """That a user, a group or a service holds a role; exactly one of the three is set.

    The roles ``user`` and ``admin`` of users, and ``admin`` of services, stand in no row: every
    user holds the first, and the flag ``admin`` says who holds the other.
    """

    id = AutoField()
    role = ForeignKeyField(Role, on_delete="CASCADE")
    user = ForeignKeyField(User, null=True, on_delete="CASCADE")
    group = ForeignKeyField(Group, null=True, on_delete="CASCADE")
    service = ForeignKeyField(Service, null=True, on_delete="CASCADE")

    class Meta:
        table_name = "role_members"


class OAuthClient(Table):
    """A server or service that logs people in through the hub (RFC 6749, section 2).

    ``access`` is the scope that lets somebody use that server or service.
    """

    id = AutoField()
    identifier = CharField(max_length=255, unique=True)
    description = CharField(max_length=1024, default="")
    secret = CharField(max_length=255)
    redirect_uri = CharField(max_length=1024)
    access = CharField(max_length=1024, default="")
    allowed_scopes = JSONColumn(default=list)

    class Meta:
        table_name = "oauth_clients"


class Server(Table):
    """One server of a user. ``target`` is set while it runs; ``state`` is the spawner's own."""

    id = AutoField()
    user = ForeignKeyField(User, on_delete="CASCADE")
    name = CharField(max_length=255)
    display_name = CharField(max_length=255, default="")
    target = CharField(max_length=1024, null=True)
    state = JSONColumn(default=dict)
    user_options = JSONColumn(default=dict)
    started = DateColumn(null=True)
    last_activity = DateColumn(null=True)
    oauth_client = ForeignKeyField(OAuthClient, null=True, on_delete="SET NULL")

    class Meta:
        table_name = "servers"
        indexes = ((("user", "name"), True),)


class Token(Table):
    """An API token of a user or a service; ``server`` is set on a server's own token.

    ``legacy`` serves clients of JupyterHub 0.8: dates without a zone.
    """

    id = AutoField()
    user = ForeignKeyField(User, null=True, on_delete="CASCADE")
    service = ForeignKeyField(Service, null=True, on_delete="CASCADE")
    server = ForeignKeyField(Server, null=True, on_delete="CASCADE")
    oauth_client = ForeignKeyField(OAuthClient, null=True, on_delete="CASCADE")
    prefix = CharField(max_length=16, index=True)
    hashed = CharField(max_length=255)
    note = CharField(max_length=1024, default="")
    scopes = JSONColumn(default=list)
    session_id = CharField(max_length=64, default="", index=True)
    created = DateColumn()
    last_activity = DateColumn(null=True)
    expires_at = DateColumn(null=True, index=True)
    legacy = BooleanField(default=False)

    class Meta:
        table_name = "api_tokens"


class Share(Table):
    """Scopes on one server, given to one user or to one group.

    ``scopes`` are names without filter; each is held for that server alone.
    """

    id = AutoField()
    server = ForeignKeyField(Server, on_delete="CASCADE")
    user = ForeignKeyField(User, null=True, on_delete="CASCADE")
    group = ForeignKeyField(Group, null=True, on_delete="CASCADE")
    scopes = JSONColumn(default=list)
    created = DateColumn()

    class Meta:
        table_name = "shares"
        indexes = ((("server", "user"), True), (("server", "group"), True))


class ShareCode(Table):
    """A code that whoever has it can exchange for a :class:`Share`, until it expires."""

    id = AutoField()
    server = ForeignKeyField(Server, on_delete="CASCADE")
    hashed = CharField(max_length=64, unique=True)
    scopes = JSONColumn(default=list)
    created = DateColumn()
    expires_at = DateColumn(index=True)
    exchange_count = IntegerField(default=0)
    last_exchanged_at = DateColumn(null=True)

    class Meta:
        table_name = "share_codes"


class OAuthCode(Table):
    """An authorization code, good for one exchange (RFC 6749, section 4.1.2)."""

    id = AutoField()
    client = ForeignKeyField(OAuthClient, on_delete="CASCADE")
    user = ForeignKeyField(User, on_delete="CASCADE")
    hashed = CharField(max_length=64, unique=True)
    redirect_uri = CharField(max_length=1024)
    scopes = JSONColumn(default=list)
    session_id = CharField(max_length=64, default="")
    challenge = CharField(max_length=255, default="")
    challenge_method = CharField(max_length=16, default="")
    expires_at = DateColumn(index=True)

    class Meta:
        table_name = "oauth_codes"


class Session(Table):
    """One login in one browser; the login cookie carries the key whose hash stands here."""

    id = AutoField()
    user = ForeignKeyField(User, on_delete="CASCADE")
    hashed = CharField(max_length=64, unique=True)
    session_id = CharField(max_length=64, default="")
    created = DateColumn(index=True)

    class Meta:
        table_name = "sessions"


class OwnerLink(Table):
    """A one-time link that makes the first admin."""

    id = AutoField()
    hashed = CharField(max_length=64, unique=True)
    expires_at = DateColumn()
    uid = IntegerField()

    class Meta:
        table_name = "owner_links"


class AuditEntry(Table):
    """One thing somebody did to somebody's servers, account or login, in words of the time.

    Names are texts, not rows: an entry outlives whom it is about.
    """

    id = AutoField()
    at = DateColumn(index=True)
    actor = CharField(max_length=255)
    action = CharField(max_length=64)
    user = CharField(max_length=255, default="", index=True)
    server = CharField(max_length=255, default="")
    detail = CharField(max_length=1024, default="")

    class Meta:
        table_name = "audit"


class Announcement(Table):
    """A text that every page shows until ``expires_at``; for ever without one."""

    id = AutoField()
    text = TextField()
    created = DateColumn()
    created_by = CharField(max_length=255)
    expires_at = DateColumn(null=True)

    class Meta:
        table_name = "announcements"


class ClassCode(Table):
    """A code with which people make accounts for themselves, shown to a class.

    It is kept as it is, since the page that shows it shows it again. ``used`` counts up to
    ``uses``; ``group`` is what its users are put into, and whose end is the code's.
    """

    id = AutoField()
    code = CharField(max_length=32, unique=True)
    note = CharField(max_length=255, default="")
    group = ForeignKeyField(Group, null=True, on_delete="CASCADE")
    uses = IntegerField()
    used = IntegerField(default=0)
    created = DateColumn()
    created_by = CharField(max_length=255, default="")
    expires_at = DateColumn(index=True)

    class Meta:
        table_name = "class_codes"


class Credential(Table):
    """The password of a user whom the hub itself knows by one.

    With ``expires_at`` it is a one-time code instead: good until then, and only for setting a
    password. ``class_code`` is the code its user came with.
    """

    user = ForeignKeyField(User, primary_key=True, on_delete="CASCADE")
    hashed = CharField(max_length=255)
    changed = DateColumn()
    expires_at = DateColumn(null=True)
    class_code = ForeignKeyField(ClassCode, null=True, on_delete="SET NULL")

    class Meta:
        table_name = "credentials"


class SignupRequest(Table):
    """Somebody who made an account that an admin has yet to approve."""

    id = AutoField()
    name = CharField(max_length=255, unique=True)
    hashed = CharField(max_length=255)
    created = DateColumn(index=True)
    address = CharField(max_length=64, default="")

    class Meta:
        table_name = "signup_requests"


class SessionPlace(Table):
    """Where a login is used: in which browser, from which address, and when last."""

    session = ForeignKeyField(Session, primary_key=True, on_delete="CASCADE")
    browser = CharField(max_length=40, default="")
    system = CharField(max_length=40, default="")
    address = CharField(max_length=64, default="")
    last_used = DateColumn()

    class Meta:
        table_name = "session_places"


#: Every table, parents before children.
TABLES: tuple[type[Table], ...] = (
    Meta,
    User,
    Group,
    GroupMember,
    Service,
    Role,
    RoleMember,
    OAuthClient,
    Server,
    Token,
    Share,
    ShareCode,
    OAuthCode,
    Session,
    OwnerLink,
    AuditEntry,
    Announcement,
    ClassCode,
    Credential,
    SignupRequest,
    SessionPlace,
)
