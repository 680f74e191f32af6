"""The verbs for a class, and the flag ``--classroom``; part of :mod:`minihub.cli`.

Rules of this file: as in :mod:`minihub.cli`, whose functions it uses: whatever a verb needs is
imported inside its function.

Threads: the main thread.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from minihub.commandline import MANY, Call, Verb
from minihub.errors import UsageError

if TYPE_CHECKING:
    from minihub.config import Loaded


def prepare(call: Call) -> Loaded:
    """Return the configuration of a hub for a class, kept in a file where that is wanted.

    Whatever else is given goes before what ``--classroom`` stands for.
    """
    from minihub import classmode, cli

    call.options[:0] = classmode.PRESET
    loaded = cli.load(call)
    classmode.refuse_root(loaded)
    _keep(call, loaded)
    return loaded


def _keep(call: Call, loaded: Loaded) -> None:
    """Write the configuration of a class; on a terminal, ask."""
    from minihub import classmode, cli, config, runtime

    target = Path(config.YAML_FILE)
    wanted = "--write-config" in call.switches
    text = classmode.yaml_text(call.options, loaded.config)
    if target.exists() or loaded.file is not None:
        if wanted:
            kept = loaded.file or target
            cli.say(f"{kept} is left as it is. For the same start without flags, it must have:")
            cli.say(text)
        return
    question = f"Write {target}, so that the next start is the same without any flag?"
    sure = wanted or call.is_on("JupyterHub.answer_yes")
    if sure or (sys.stdin.isatty() and cli.ask(question)):
        try:
            classmode.write(target, text)
        except OSError as error:
            raise UsageError(f"{target}: cannot be written: {error.strerror}") from error
        cli.say(f"Wrote {target}. From now on: {runtime.typed_command()}")


def _approve(call: Call) -> int:
    from minihub import cli, manage_class

    everybody, refuse = "--all" in call.switches, "--refuse" in call.switches
    if everybody and call.words:
        raise UsageError("user approve takes names or --all, not both")
    return cli.managed(call, manage_class.approve, call.words, everybody=everybody, refuse=refuse)


def _import(call: Call) -> int:
    from minihub import cli, manage_class

    def read() -> bytes:
        name = call.words[0]
        try:
            return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        except OSError as error:
            raise UsageError(f"{name}: cannot be read: {error.strerror}") from error

    return cli.managed(call, manage_class.import_list, read, dry_run="--dry-run" in call.switches)


def _export(call: Call) -> int:
    from minihub import cli, manage_class

    return cli.managed(call, manage_class.export_list)


CLASS_VERBS = (
    Verb(
        "user approve",
        _approve,
        "Let people in who asked to join; without NAME and --all, list them.",
        flags={"--all": "everybody who waits", "--refuse": "turn them away instead"},
        operand="[NAME ...]",
        count=(0, MANY),
    ),
    Verb(
        "user import",
        _import,
        "Add people from a CSV file (- for standard input), and show their one-time codes.",
        flags={"--dry-run": "only say what would happen"},
        operand="FILE",
        count=(1, 1),
    ),
    Verb("user export", _export, "Write everybody to standard output, as CSV."),
)
