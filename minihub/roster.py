"""Class lists: read from CSV, looked at before anything happens, written back as CSV.

Rules of this file: reading a list decides nothing and changes nothing; :meth:`Roster.plan` says
line by line what would happen, and :meth:`Roster.carry_out` does that or, when one line is wrong,
nothing. A list never makes an admin. Each person who is new gets a one-time code, told once.

Threads: any; carrying a list out takes a tenth of a second a person on each processor.
Sources: RFC 4180; OWASP on CSV injection (cells that a spreadsheet would compute).
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from . import readable
from .errors import BadRequest
from .logs import safe
from .models import Credential, Group, GroupMember, User
from .people import People, group_name_problem
from .texts import Text

MAX_ROWS = 500
MAX_BYTES = 1024 * 1024

#: Columns that an import reads, and those of an export that it passes over.
READ = ("name", "groups")
PASSED_OVER = ("admin", "password", "created", "last_activity")
#: Other words for them, as people head their lists.
_SYNONYMS = {
    "user": "name", "username": "name", "user name": "name", "login": "name", "benutzer": "name",
    "benutzername": "name", "usuario": "name", "nombre": "name", "group": "groups",
    "class": "groups", "klasse": "groups", "gruppe": "groups", "gruppen": "groups",
    "grupo": "groups", "grupos": "groups", "clase": "groups",
    "first name": "first_name", "firstname": "first_name", "given name": "first_name",
    "vorname": "first_name", "last name": "last_name", "lastname": "last_name",
    "surname": "last_name", "family name": "last_name", "nachname": "last_name",
    "familienname": "last_name", "apellido": "last_name", "apellidos": "last_name",
}  # fmt: skip
#: Columns that make a name together, in this order.
_HALVES = ("first_name", "last_name")
#: What may head one half of a name beside a column of the other.
_EITHER = ("name", "nombre")
_BETWEEN_GROUPS = "|"
#: One group of a cell: up to a bar that has no backslash before it.
_GROUP = re.compile(r"(?:\\[\\|s]|[^|])+")
_ESCAPED = re.compile(r"\\([\\|s])")
#: A spreadsheet computes cells that begin so; the apostrophe before it is taken off again.
_COMPUTED = ("=", "+", "-", "@", "\t", "\r")

ADD, JOIN, KEEP = "add", "join", "keep"


@dataclass
class Row:
    """One person of a list: the line it stands on, what would happen, and what is wrong with it."""

    line: int
    name: str
    groups: list[str] = field(default_factory=list)
    #: ``add`` somebody new, let somebody ``join`` groups, or ``keep`` all as it is.
    action: str = KEEP
    problem: str = ""


@dataclass
class Plan:
    """What a list comes to."""

    rows: list[Row]
    #: How the file was read where that is worth knowing.
    note: str = ""
    #: Whether names had spaces, which became dots.
    dotted: bool = False

    @property
    def problems(self) -> list[Row]:
        return [row for row in self.rows if row.problem]

    def having(self, action: str) -> list[Row]:
        return [row for row in self.rows if row.action == action and not row.problem]


@dataclass(frozen=True)
class Slip:
    """What one person is given: the name and the one-time code."""

    name: str
    code: str
    expires_at: str
    groups: tuple[str, ...] = ()


class Roster:
    """Lists of people for a hub that keeps its passwords."""

    def __init__(self, people: People) -> None:
        self.people = people
        self.authenticator = people.authenticator

    # -- reading -----------------------------------------------------------------------------

    def plan(self, raw: bytes) -> Plan:
        """Return what carrying a list out would do. Raises BadRequest for what is no list."""
        text, note = _decoded(raw)
        rows = _parsed(text)
        lines: dict[str, int] = {}
        dotted = False
        for row in rows:
            words = row.name.split()
            dotted |= len(words) > 1
            row.name = self.authenticator.normalize_username(".".join(words))
            if problem := self.authenticator.why_no_name(row.name):
                row.problem = Text("this cannot be a name: %(problem)s", problem=problem)
            elif row.name in lines:
                row.problem = Text("the same name as on line %(line)s", line=lines[row.name])
            lines.setdefault(row.name, row.line)
            for group in row.groups:
                if not row.problem and (problem := group_name_problem(group)):
                    row.problem = problem
        self._decide([row for row in rows if not row.problem])
        return Plan(rows, note, dotted)

    def _decide(self, rows: Sequence[Row]) -> None:
        """Say of each row what would happen."""
        with self.people.store.session():
            memberships: dict[str, set[str]] = {}
            found = (
                User.select(User.name, Group.name.alias("group_name"))
                .left_outer_join(GroupMember)
                .left_outer_join(Group)
                .tuples()
            )
            for name, group in found:
                memberships.setdefault(name, set()).add(group)
        for row in rows:
            if row.name not in memberships:
                row.action = ADD
            elif set(row.groups) - memberships[row.name]:
                row.action = JOIN

    # -- doing -------------------------------------------------------------------------------

    def carry_out(self, plan: Plan) -> list[Slip]:
        """Add and let join as planned; return a slip for each person who is new.

        Raises BadRequest, having done nothing, when a line is wrong.
        """
        if plan.problems:
            raise BadRequest(
                Text(
                    "Line %(line)s: %(problem)s",
                    line=plan.problems[0].line,
                    problem=plan.problems[0].problem,
                )
            )
        fresh = plan.having(ADD)
        made = self.people.create([row.name for row in fresh])
        slips = self.give_codes(made)
        groups = {row.name: tuple(row.groups) for row in fresh}
        self._join_groups(plan.rows)
        return [
            Slip(slip.name, slip.code, slip.expires_at, groups.get(slip.name, ())) for slip in slips
        ]

    def give_codes(self, users: Sequence[User]) -> list[Slip]:
        """Give each of these users a one-time code in the place of any password."""

        def give(user: User) -> Slip:
            code, expires_at = self.authenticator.one_time_code(user)
            return Slip(user.name, readable.grouped(code), expires_at)

        if not users:
            return []
        with ThreadPoolExecutor(min(len(users), os.cpu_count() or 2), "roster") as pool:
            return list(pool.map(give, users))

    def _join_groups(self, rows: Sequence[Row]) -> None:
        with self.people.store.transaction():
            for row in rows:
                if row.groups and row.action != KEEP:
                    user = User.get(User.name == row.name)
                    for name in row.groups:
                        group = Group.get_or_create(name=name)[0]
                        GroupMember.get_or_create(group=group, user=user)

    # -- writing -----------------------------------------------------------------------------

    def export(self) -> str:
        """Return everybody as CSV, by name; an import reads it back."""
        with self.people.store.session():
            groups: dict[int, list[str]] = {}
            for user_id, name in (
                GroupMember.select(GroupMember.user, Group.name).join(Group).order_by(Group.name)
            ).tuples():
                groups.setdefault(user_id, []).append(name)
            credentials = {row.user_id: row for row in Credential.select()}
            users = list(User.select().order_by(User.name))
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\r\n")
        writer.writerow([*READ, *PASSED_OVER])
        for user in users:
            writer.writerow(
                [
                    _inert(user.name),
                    _inert(_joined_groups(groups.get(user.id, ()))),
                    "yes" if user.admin else "no",
                    password_state(credentials.get(user.id)),
                    user.created,
                    user.last_activity or "",
                ]
            )
        return out.getvalue()


def password_state(row: Any) -> str:
    """Return in a word what a user logs in with: ``none``, ``code`` or ``own``."""
    return "none" if row is None else "code" if row.expires_at else "own"


def _joined_groups(names: Iterable[str]) -> str:
    """Return groups as one cell, from which :func:`_split_groups` reads the same names again.

    A bar or a backslash in a name has a backslash before it; a space at its edge is ``\\s``.
    """
    return _BETWEEN_GROUPS.join(map(_escaped, names))


def _escaped(name: str) -> str:
    plain = name.strip()
    before, _, after = name.partition(plain)
    middle = plain.replace("\\", "\\\\").replace(_BETWEEN_GROUPS, f"\\{_BETWEEN_GROUPS}")
    return "\\s" * len(before) + middle + "\\s" * len(after)


def _split_groups(cell: str) -> list[str]:
    """Return the groups that a cell names, each once, in their order."""
    found = (group.strip() for group in _GROUP.findall(cell))
    meant = (_ESCAPED.sub(lambda one: {"s": " "}.get(one[1], one[1]), name) for name in found)
    return list(dict.fromkeys(name for name in meant if name))


def _inert(cell: str) -> str:
    return f"'{cell}" if cell.lstrip("'").startswith(_COMPUTED) else cell


def _decoded(raw: bytes) -> tuple[str, str]:
    """Return the text of a file and how it was read where that is not UTF-8."""
    if len(raw) > MAX_BYTES:
        raise BadRequest(Text("The list is longer than 1 MiB."))
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        try:
            return raw.decode("utf-16"), Text("The file was read as UTF-16.")
        except UnicodeDecodeError as error:
            raise BadRequest(Text("The list is no text.")) from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("cp1252", "replace")
        return text, Text(
            "The file is not UTF-8 and was read as Windows-1252: look whether the names are right."
        )
    if "\0" in text:
        raise BadRequest(Text("The list is no text. Save it as CSV."))
    return text, ""


def _parsed(text: str) -> list[Row]:
    """Return the rows of a list. Raises BadRequest naming the line and what is wrong."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    if not first:
        raise BadRequest(Text("The list is empty."))
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: list[str] | None = None
    rows: list[Row] = []
    try:
        for cells in reader:
            cells = [_plain(cell) for cell in cells]
            if not any(cells):
                continue
            if columns is None:
                columns = _columns(cells, reader.line_num)
                if columns is None:
                    columns = list(READ[: len(cells)])
                    if len(cells) > len(READ):
                        raise BadRequest(
                            Text(
                                "Line %(line)s: the first line names the columns, name and "
                                "groups; without it there are these two at most.",
                                line=reader.line_num,
                            )
                        )
                else:
                    continue
            if len(cells) > len(columns) and any(cells[len(columns) :]):
                raise BadRequest(
                    Text(
                        "Line %(line)s: %(cells)s cells, but %(columns)s columns.",
                        line=reader.line_num,
                        cells=len(cells),
                        columns=len(columns),
                    )
                )
            if len(rows) >= MAX_ROWS:
                raise BadRequest(
                    Text("The list has more than %(count)s people. Split it.", count=MAX_ROWS)
                )
            values = dict(zip(columns, cells, strict=False))
            groups = _split_groups(values.get("groups", ""))
            halves = [values[half] for half in _HALVES if values.get(half)]
            name = values["name"] if "name" in values else " ".join(halves)
            rows.append(Row(reader.line_num, name[:256], groups))
    except csv.Error as error:
        raise BadRequest(
            Text("Line %(line)s: %(error)s.", line=reader.line_num, error=str(error))
        ) from error
    if not rows:
        raise BadRequest(Text("The list names nobody."))
    return rows


def _columns(cells: Sequence[str], line: int) -> list[str] | None:
    """Return the columns that a first line names; None when it is somebody already."""
    names = [_SYNONYMS.get(cell.casefold(), cell.casefold().replace(" ", "_")) for cell in cells]
    given = [half for half in _HALVES if half in names]
    if len(given) == 1:
        other = _HALVES[given == [_HALVES[0]]]
        names = [
            other if cell.casefold() in _EITHER else name
            for cell, name in zip(cells, names, strict=True)
        ]
    if "name" not in names and not given:
        return None
    for cell, name in zip(cells, names, strict=True):
        if name and name not in (*READ, *_HALVES, *PASSED_OVER):
            raise BadRequest(
                Text(
                    'Line %(line)s: unknown column "%(cell)s". There are %(known)s; %(others)s '
                    "are passed over.",
                    line=line,
                    cell=safe(cell, 40),
                    known=", ".join((*READ, *(one.replace("_", " ") for one in _HALVES))),
                    others=", ".join(PASSED_OVER),
                )
            )
        if name and names.count(name) > 1:
            raise BadRequest(
                Text(
                    'Line %(line)s: two columns are called "%(name)s".',
                    line=line,
                    name=safe(cell, 40),
                )
            )
    return names


def _plain(cell: str) -> str:
    """Return a cell without space around it, and without what :func:`_inert` put before it."""
    cell = cell.strip()
    is_inert = cell[:1] == "'" and cell.lstrip("'").startswith(_COMPUTED)
    return cell[1:] if is_inert else cell
