"""The verbs for what the hub keeps, and for the machine it runs on; part of :mod:`minihub.cli`.

Rules of this file: as in :mod:`minihub.cli`, whose functions it uses: whatever a verb needs is
imported inside its function.

Threads: the main thread.
"""

from __future__ import annotations

import sys
from typing import Any

from minihub.commandline import Call, Verb
from minihub.errors import UsageError


def _backup(call: Call) -> int:
    from minihub import backup, cli

    return cli.managed(
        call,
        backup.backup,
        "".join(call.words),
        out=sys.stdout.buffer,
        keep=backup.read_keep(call.values.get("--keep", "")),
        with_secrets="--without-secrets" not in call.switches,
        quiet="--quiet" in call.switches,
    )


def _restore(call: Call) -> int:
    from minihub import backup, cli

    return backup.restore(cli.say, call.words[0], dry_run="--dry-run" in call.switches)


def _import_jupyterhub(call: Call) -> int:
    from minihub import cli, importer

    return cli.managed(call, importer.import_jupyterhub, call.words[0])


def _service(call: Call) -> Any:
    from minihub import cli, servicefile

    if {"--user", "--system"} <= call.switches:
        raise UsageError("a service is either --user or --system")
    chosen = {"--user": False, "--system": True}
    return servicefile.plan(
        cli.load(call),
        [(option, text) for option, text, _where in call.options],
        system=next((chosen[flag] for flag in call.switches if flag in chosen), None),
        run_as=call.values.get("--run-as", ""),
        name=call.values.get("--name", ""),
    )


def _service_print(call: Call) -> int:
    from minihub import servicefile

    print(servicefile.text(_service(call)), end="")
    return 0


def _service_install(call: Call) -> int:
    from minihub import cli, servicefile

    sure = call.is_on("JupyterHub.answer_yes")
    return servicefile.install(_service(call), cli.say, sure=sure)


def _doctor(call: Call) -> int:
    from minihub import cli
    from minihub.doctor import verb

    return verb.doctor(
        *cli.salvage(call),
        cli.say,
        as_json="--json" in call.switches,
        everything="--all" in call.switches,
        quiet="--quiet" in call.switches,
        skip=call.values.get("--skip", ""),
        bundle=call.values.get("--bundle", ""),
    )


SERVICE_FLAGS = {
    "--system": "for the machine (the default for root)",
    "--user": "for this user alone (the default for everybody else)",
    "--run-as USER": "the user that a service of the machine runs as",
    "--name NAME": "what the service is called; minihub without it",
}

DATA_VERBS = (
    Verb(
        "doctor",
        _doctor,
        "Look whether all is right with the hub, running or not; say what mends it.",
        flags={
            "--all": "also tell what is right",
            "--quiet": "say nothing when all is well, for cron",
            "--json": "everything as JSON",
            "--skip IDS": "leave out these checks, separated by commas",
            "--bundle FILE": "write a .zip for a help thread: logs, versions, options, no secrets",
        },
    ),
    Verb(
        "backup",
        _backup,
        "Copy database, configuration and secrets into one file, and try to restore it.",
        flags={
            "--keep N": "delete all but the newest N backups of the directory",
            "--without-secrets": "leave out keys, tokens, logins and the configuration file",
            "--quiet": "say nothing when all is well",
        },
        operand="[FILE]",
        count=(0, 1),
    ),
    Verb(
        "restore",
        _restore,
        "Put a backup back into this directory; what is there is kept.",
        configured=False,
        flags={"--dry-run": "look at everything, say what would happen, change nothing"},
        operand="FILE",
        count=(1, 1),
    ),
    Verb(
        "service print",
        _service_print,
        "Show the service file (systemd, on macOS launchd) for this hub and its options.",
        flags=SERVICE_FLAGS,
    ),
    Verb(
        "service install",
        _service_install,
        "Write that file where it belongs, and enable the service.",
        flags=SERVICE_FLAGS,
    ),
    Verb(
        "import-jupyterhub",
        _import_jupyterhub,
        "Make this hub's database of JupyterHub's: users, groups, admins, tokens.",
        operand="FILE",
        count=(1, 1),
    ),
)
