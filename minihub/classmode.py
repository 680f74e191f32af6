"""``--classroom``: a hub for a class in one room, from one command.

Rules of this file: the flag is a preset of ordinary options and nothing else, so whatever is
written to ``minihub.yaml`` starts the same hub. A code that is still good is shown again, not
replaced: it may be on the wall already. Nothing is printed here; lines go to whoever asked.

Threads: the main thread.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import addresses, clock, qr, readable
from .errors import NotPermitted

if TYPE_CHECKING:
    from traitlets.config import Config

    from .config import Loaded
    from .models import ClassCode
    from .options import JupyterHub

#: What the flag stands for: option, text, where it was given.
PRESET = [
    ("JupyterHub.authenticator_class", "classroom", "--classroom"),
    ("JupyterHub.spawner_class", "simple", "--classroom"),
    ("ClassroomAuthenticator.code_at_start", "true", "--classroom"),
    ("JupyterHub.allowed_hosts", '["this-machine"]', "--classroom"),
    ("JupyterHub.hub_port", "0", "--classroom"),
    ("JupyterHub.admin_access", "true", "--classroom"),
]
#: Options that are about one start and not about the hub.
_NOT_KEPT = (
    "JupyterHub.config_file",
    "JupyterHub.generate_config",
    "JupyterHub.answer_yes",
    "JupyterHub.log_level",
)
_HEAD = """\
# A hub for a class in one room, written by: minihub --classroom
# Every option: minihub options --yaml, and docs/options.md.

"""


# -- the start -------------------------------------------------------------------------------


def refuse_root(loaded: Loaded) -> None:
    """Raise NotPermitted where every pupil's programs would run as root.

    Whoever lets servers run as root says so by ``--allow-root``; without it none would start.
    """
    if os.geteuid() != 0 or "--allow-root" in (loaded.config.Spawner.get("args") or ()):
        return
    raise NotPermitted(
        "as root, --classroom would run the programs of a whole class as root. Start it as an "
        "ordinary user, for instance: sudo -u NAME minihub.pyz --classroom. In a container made "
        "for it, allow it with: --Spawner.args='[\"--allow-root\"]'"
    )


def isolation(user: str) -> list[str]:
    """Return what keeps people apart where all servers run as ``user``, in plain words."""
    return [
        "Isolation: people are kept apart by their passwords, their programs are not. Every server",
        f"           runs as {user}: whoever runs code here can read and change everybody's files,",
        "           and this hub's own. For people who trust each other, such as a class.",
    ]


def start_code(authenticator: Any) -> ClassCode | None:
    """Return the class code to show at the start, made if it is wanted and none is good."""
    from .auth.classroom import CODE
    from .classbook import MADE_AT_START

    if authenticator.signup != CODE:
        return None
    good = authenticator.book.codes()
    if good or not authenticator.code_at_start:
        return good[0] if good else None
    return authenticator.book.new_code(
        uses=authenticator.code_uses,
        lifetime_s=authenticator.code_lifetime,
        note=str(MADE_AT_START),
    )


def invitation(options: JupyterHub, authenticator: Any, port: int) -> Iterator[str]:
    """Yield the lines of the start screen by which people join."""
    from .auth.classroom import CLOSED

    if authenticator.signup == CLOSED:
        return
    row = start_code(authenticator)
    if row is not None:
        left = row.uses - row.used
        yield (
            f"Class code    {readable.grouped(row.code)}   {left} can join, "
            f"good until {_local(row.expires_at)}"
        )
    sites = addresses.invitations(options, port)
    if not sites:
        yield "              Nobody else can reach this hub: it listens on this computer only."
        sites = addresses.public_urls(options, port)[:1]
    query = f"?code={readable.grouped(row.code)}" if row is not None else ""
    for number, site in enumerate(sites):
        yield f"  {'or at  ' if number else 'join at'}     {site}join{query}"
    if _draws():
        yield from qr.terminal(f"{sites[0]}hub/join{query}", colours=sys.stdout.isatty())


def _local(moment: str) -> str:
    """Return a moment as the clock on the wall shows it; with the date when that is not today."""
    there = clock.parse(moment).astimezone()
    same_day = there.date() == clock.utcnow().astimezone().date()
    return f"{there:%H:%M}" if same_day else f"{there:%Y-%m-%d %H:%M}"


def _draws() -> bool:
    """Return whether standard output can show the blocks that a QR code is drawn with."""
    try:
        "█▀▄".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


# -- the file --------------------------------------------------------------------------------


def yaml_text(given: Sequence[tuple[str, str, str]], config: Config) -> str:
    """Return the options of a command line as ``minihub.yaml``; ``config`` has their values."""
    import yaml

    sections: dict[str, dict[str, Any]] = {}
    for name, text, _where in given:
        if name in _NOT_KEPT:
            continue
        section, _, option = name.partition(".")
        value = config[section].get(option)
        if isinstance(value, (set, frozenset, tuple)):
            value = sorted(value)
        elif not isinstance(value, (bool, int, float, str, list, dict, type(None))):
            value = text
        sections.setdefault(section, {})[option] = value
    return _HEAD + yaml.safe_dump(sections, sort_keys=False, allow_unicode=True)


def write(target: Path, text: str) -> None:
    """Write the file for its owner alone: a flag may have been a secret. Raises OSError."""
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
