"""The verbs for a class: one-time codes, approvals, lists in and out.

Rules of this file: as in :mod:`minihub.manage`. A running hub is asked, so that logins that end are
over at once; without one the database is changed. A one-time code is shown once, by the command
that made it.

Threads: the main thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from . import aio
from .config import Loaded
from .errors import BadRequest
from .hookinfo import UserInfo
from .manage import Failed, Home, Say, hub_says, minute, no_such_user, show, user_path
from .rest import RestError
from .roster import Plan, Roster, Row, Slip

#: What a line of a list comes to, in words.
_WORDS = {"add": "added", "join": "joins groups", "keep": "unchanged"}


class _Office:
    """The hub of one configuration, whose class is managed, running or not."""

    def __init__(self, loaded: Loaded) -> None:
        self.home = Home(loaded)
        if not self.home.options.authenticator_class.keeps_passwords:
            raise Failed(
                f"{self.home.options.authenticator_class.__name__} keeps no passwords of its own; "
                "this is for JupyterHub.authenticator_class: classroom"
            )
        self.hub = self.home.running()

    @contextmanager
    def offline(self) -> Iterator[Any]:
        """Give the authenticator over the database of a hub that does not run."""
        with self.home.accounts() as accounts:
            yield self.home.authenticator(accounts)

    @contextmanager
    def roster(self) -> Iterator[Roster]:
        """Give the lists of a hub that does not run."""
        with self.offline() as authenticator:
            yield Roster(_People(authenticator))


class _People:
    """As much of the users as a list needs while no hub runs."""

    def __init__(self, authenticator: Any) -> None:
        self.authenticator = authenticator
        self.accounts = authenticator.book.accounts
        self.store = self.accounts.store

    def create(self, names: Sequence[str]) -> list[Any]:
        for name in names:
            aio.call(self.authenticator.add_user, UserInfo(name))
        with self.store.transaction():
            return [self.accounts.ensure_user(name)[0] for name in names]


# -- passwords -------------------------------------------------------------------------------


def one_time_codes(loaded: Loaded, say: Say, names: Sequence[str]) -> int:
    """Give users one-time codes in the place of any passwords, and show them."""
    office = _Office(loaded)
    normalize = office.home.authenticator().normalize_username
    for name in dict.fromkeys(map(normalize, names)):
        if office.hub is not None:
            with office.home.api(office.hub) as client, hub_says(name):
                made = client.request("POST", f"{user_path(name)}/one-time-code").data
                slip = Slip(made["name"], made["code"], made["expires_at"])
        else:
            with office.roster() as roster:
                user = roster.people.accounts.user(name)
                if user is None:
                    raise no_such_user(name)
                (slip,) = roster.give_codes([user])
        _say_slip(say, slip)
    return 0


def _say_slip(say: Say, slip: Slip) -> None:
    say(f"{slip.name}  {slip.code}  good until {minute(slip.expires_at)} UTC, for one use")


# -- approval --------------------------------------------------------------------------------


def approve(
    loaded: Loaded, say: Say, names: Sequence[str], *, everybody: bool = False, refuse: bool = False
) -> int:
    """Let people in who wait for it, or turn them away; without names and ``everybody`` list them.

    Returns 1 when somebody named does not wait.
    """
    office = _Office(loaded)
    normalize = office.home.authenticator().normalize_username
    with _waiting_room(office) as room:
        waiting = room.waiting()
        if not names and not everybody:
            show(
                say,
                waiting,
                False,
                {
                    "NAME": lambda row: row["name"],
                    "SINCE (UTC)": lambda row: minute(row["created"]),
                    "FROM": lambda row: row["address"],
                },
            )
            return 0
        here = [row["name"] for row in waiting]
        wanted = here if everybody else list(dict.fromkeys(map(normalize, names)))
        found = [name for name in wanted if name in here]
        if refuse:
            room.refuse(found)
        done = found if refuse else room.approve(found)
    for name in wanted:
        if name in done:
            say(f"{name} is turned away." if refuse else f"{name} may log in now.")
        else:
            say(f"{name} does not wait for approval.")
    return 0 if set(done) == set(wanted) else 1


@contextmanager
def _waiting_room(office: _Office) -> Iterator[Any]:
    """Give ``waiting()``, ``approve(names)`` and ``refuse(names)``, over whatever there is."""
    if office.hub is None:
        with office.offline() as authenticator:
            book = authenticator.book
            yield SimpleNamespace(
                waiting=lambda: [
                    {"name": row.name, "created": row.created, "address": row.address}
                    for row in book.waiting()
                ],
                approve=lambda names: [user.name for user in book.approve(names)],
                refuse=book.refuse,
            )
        return
    with office.home.api(office.hub) as client:

        def decide(verdict: str, names: list[str]) -> Any:
            return client.request("POST", "/class/waiting", {verdict: names}).data["approved"]

        yield SimpleNamespace(
            waiting=lambda: client.request("GET", "/class/waiting").data,
            approve=lambda names: decide("approve", names),
            refuse=lambda names: decide("refuse", names),
        )


# -- lists -------------------------------------------------------------------------------------


def import_list(
    loaded: Loaded, say: Say, read: Callable[[], bytes], *, dry_run: bool = False
) -> int:
    """Add people and memberships from a list, and show the one-time codes of who is new.

    Returns 1, having changed nothing, when a line is wrong.
    """
    office = _Office(loaded)
    raw = read()
    with office.roster() as roster:
        plan = _checked(roster, raw)
        if office.hub is None and not dry_run and not plan.problems:
            slips = roster.carry_out(plan)
    if plan.note:
        say(plan.note)
    if plan.dotted:
        say("Names have no spaces: dots stand for them.")
    if dry_run or plan.problems:
        _show_plan(say, plan)
        if plan.problems:
            say(f"{len(plan.problems)} problems; nothing was changed.")
        else:
            say("Nothing was changed (--dry-run).")
        return 1 if plan.problems else 0
    if office.hub is not None:
        slips = _import_online(office, plan)
    for slip in slips:
        _say_slip(say, slip)
    joined, kept = (len(plan.having(action)) for action in ("join", "keep"))
    say(f"{len(slips)} added, {joined} joined groups, {kept} unchanged.")
    return 0


def _checked(roster: Roster, raw: bytes) -> Plan:
    try:
        return roster.plan(raw)
    except BadRequest as error:
        raise Failed(error.message) from error


def _import_online(office: _Office, plan: Plan) -> list[Slip]:
    """Let the running hub carry a plan out; return the slips."""
    with office.home.api(office.hub) as client:
        try:
            body = {"list": _as_list(plan.rows), "dry_run": False}
            data = client.request("POST", "/class/roster", body).data
        except RestError as error:
            raise Failed(error.said or str(error)) from error
    return [Slip(one["name"], one["code"], one["expires_at"]) for one in data["slips"]]


def _as_list(rows: Sequence[Row]) -> str:
    """Return rows as a list in one spelling, whatever they were read from."""
    import csv
    import io

    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(("name", "groups"))
    writer.writerows((row.name, "|".join(row.groups)) for row in rows)
    return out.getvalue()


def _show_plan(say: Say, plan: Plan) -> None:
    show(
        say,
        [vars(row) for row in plan.rows],
        False,
        {
            "LINE": lambda row: str(row["line"]),
            "NAME": lambda row: row["name"],
            "GROUPS": lambda row: ", ".join(row["groups"]),
            "": lambda row: row["problem"] or _WORDS[row["action"]],
        },
    )


def export_list(loaded: Loaded, say: Say) -> int:
    """Show everybody as the text of a CSV file."""
    with _Office(loaded).roster() as roster:
        say(roster.export().replace("\r\n", "\n").rstrip("\n"))
    return 0
