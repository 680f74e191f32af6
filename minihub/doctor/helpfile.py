"""The file for a help thread: what others need to know to help, and nothing that is secret.

Rules of this file: it writes one new file, 0600, and nothing else. Everything in it has gone
through the redactor; before the file gets its name it is opened again and searched for every
secret that is known, and thrown away if one is in it.

Threads: the main thread.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .. import (
    __version__,
    clock,
    config_render,
    hublock,
    landlock,
    machine,
    orphans,
    process,
    runtime,
    sqlitefiles,
)
from ..durations import words
from ..errors import MinihubError
from ..limits import size
from ..options import JupyterHub
from . import of_machine, redaction
from .finding import Finding
from .patient import Patient
from .report import as_text

#: How much of each log is in it.
LOG_LINES = 200
#: Logs of so many servers, the latest.
MOST_LOGS = 20
_TABLE_STATE = (
    ("running", "target IS NOT NULL AND started IS NOT NULL"),
    ("starting", "target IS NOT NULL AND started IS NULL"),
    ("stopped", "target IS NULL"),
)
_README = """\
What minihub.pyz doctor found, for those who help. Made {when} UTC.

Taken out: passwords, keys, tokens, codes, cookies, hashes, and whatever looks like one. {removed}
stands in their place. Still in it: names of users, of this machine and of files, addresses, and
the last lines of every log, with what servers print. Look through it before you show it to others.

  doctor.txt, doctor.json   every check
  configuration.yaml        every option in force, and who set it
  versions.json             programs, system, packages of the servers
  processes.json            the processes of this hub
  database.json             what kind it is, how many rows, which schema; no rows
  files.txt                 the hub's own files: mode, owner, size, date
  logs/                     the last {lines} lines of each
"""


class Leak(MinihubError):
    """Raised when a file that was to be shown to others would hold a secret."""


def write(patient: Patient, findings: Sequence[Finding], target: Path) -> list[str]:
    """Write the file; return the names of what is in it. Raises UsageError, Leak, OSError."""
    redactor = redaction.Redactor(redaction.collect(patient))
    fresh = target.with_name(f".{target.name}.new-{os.getpid()}")
    names = []
    descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w+b") as raw:
            with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, text in _parts(patient, findings, redactor):
                    names.append(name)
                    archive.writestr(f"{target.stem}/{name}", text)
        _search(fresh, redactor)
        os.link(fresh, target)
    finally:
        fresh.unlink()
    return names


def _search(path: Path, redactor: redaction.Redactor) -> None:
    """Look through the finished file. Raises Leak."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            text = archive.read(entry).decode("utf-8", "surrogateescape")
            if redactor.leaks(text) or redactor.leaks(entry.filename):
                name = entry.filename.partition("/")[2]
                raise Leak(f"{name} would have held a secret; nothing was written")


def _parts(
    patient: Patient, findings: Sequence[Finding], redactor: redaction.Redactor
) -> Iterator[tuple[str, str]]:
    """Yield name and text of everything that goes into the file; what cannot be had says why."""
    clean = redactor.clean
    yield (
        "README.txt",
        _README.format(
            when=f"{clock.utcnow():%Y-%m-%d %H:%M}", removed=redaction.REMOVED, lines=LOG_LINES
        ),
    )
    yield "doctor.txt", clean(as_text(patient, findings, everything=True)) + "\n"
    facts: dict[str, Callable[[Patient], Any]] = {
        "doctor.json": lambda _patient: [one.facts() for one in findings],
        "versions.json": _versions,
        "processes.json": _processes,
        "database.json": _database,
    }
    for name, find in facts.items():
        found = redactor.clean_all(_or_why(find, patient))
        yield name, json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    yield "configuration.yaml", clean(str(_or_why(_configuration, patient)))
    yield "files.txt", clean(str(_or_why(_files, patient)))
    for path in _logs(patient):
        lines = process.tail(path, LOG_LINES)
        yield f"logs/{redactor.clean(path.name)}", clean("\n".join(lines)) + "\n"


def _or_why(find: Callable[[Patient], Any], patient: Patient) -> Any:
    try:
        return find(patient)
    except Exception as error:  # whatever is broken, the rest of the file helps
        return {"not to be had": f"{type(error).__name__}: {error}"}


def _configuration(patient: Patient) -> str:
    options = patient.options
    classes = [JupyterHub, options.authenticator_class, options.spawner_class, options.proxy_class]
    loaded = patient.loaded
    text = config_render.in_force(loaded.config, loaded.origins, classes, with_origin=True)
    problems = "".join(f"# {line}\n" for line in [*patient.problems, *loaded.warnings])
    return f"# {loaded.file or 'no file'}\n{problems}{text}"


def _versions(patient: Patient) -> dict[str, Any]:
    import sqlite3
    import ssl

    interpreter, packages = of_machine.server_packages(patient)
    return {
        "minihub": __version__,
        "form": runtime.form(),
        "command": [sys.executable, *sys.argv],
        "python": sys.version,
        "platform": platform.platform(),
        "machine": runtime.describe_platform(),
        "system": _os_release(),
        "sqlite": sqlite3.sqlite_version,
        "openssl": ssl.OPENSSL_VERSION,
        "landlock": landlock.abi(),
        "user": patient.name_of(os.geteuid()),
        "root": os.geteuid() == 0,
        "memory": machine.totals(str(patient.directory)) | {"free": machine.free_memory_bytes()},
        "servers": {"interpreter": interpreter, **packages},
    }


def _os_release() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return ""


def _processes(patient: Patient) -> list[dict[str, Any]]:
    """Return hub, proxy, services and servers, with what each uses."""
    kinds = {}
    hub = hublock.running(patient.state_dir)
    if hub is not None:
        kinds[hub.pid] = "hub"
    if (patient.state_dir / orphans.NAME).exists():
        owner = orphans.owner(patient.state_dir, "")
        names = {orphans.PROXY: "proxy", orphans.SERVICE: "service", orphans.SERVER: "server"}
        for marker, one in process.find_marked(owner).items():
            kind = names.get(marker.removeprefix(owner)[:2], "unknown")
            for identity in one.tree():
                main = identity == one.identity
                kinds.setdefault(identity.pid, kind if main else f"of a {kind}")
    now = clock.utcnow().timestamp()
    found = []
    for pid, kind in sorted(kinds.items()):
        facts = machine.process_facts(pid)
        if facts is not None:
            found.append({
                "pid": pid, "parent": facts.parent, "kind": kind, "name": facts.name,
                "user": facts.user, "status": facts.status, "age": words(now - facts.create_time),
                "memory": size(facts.rss_bytes), "cpu": words(facts.cpu_s),
                "threads": facts.threads, "descriptors": facts.descriptors,
                "command": shlex.join(facts.command),
            })  # fmt: skip
    return found


def _database(patient: Patient) -> dict[str, Any]:
    from .. import models

    path = patient.database
    found: dict[str, Any] = {"kind": patient.place.kind, "place": patient.place.shown}
    if path is not None:
        for end in ("", "-wal"):
            file = Path(f"{path}{end}")
            found[f"size{end}"] = file.stat().st_size if file.exists() else None
        found["file system"] = machine.file_system(path).kind
        if path.exists():
            found["problems"] = sqlitefiles.problems(path)
    for key, value in patient.rows("SELECT key, value FROM minihub_meta"):
        found[key] = value
    counts = {}
    for table in models.TABLES:
        name = table._meta.table_name
        try:
            ((counts[name],),) = patient.rows(f"SELECT count(*) FROM {name}")
        except MinihubError as error:
            counts[name] = str(error)
    found["rows"] = counts
    found["servers"] = {
        told: patient.rows(f"SELECT count(*) FROM servers WHERE {condition}")[0][0]
        for told, condition in _TABLE_STATE
    }
    return found


def _files(patient: Patient) -> str:
    from . import of_files

    lines = []
    for path in [patient.state_dir, *of_files.own_files(patient)]:
        try:
            facts = path.lstat()
        except OSError as error:
            lines.append(f"{path}: {error.strerror}")
            continue
        when = clock.isoformat(clock.datetime.fromtimestamp(facts.st_mtime, clock.UTC))[:19]
        owner = patient.name_of(facts.st_uid)
        lines.append(f"{facts.st_mode:07o} {owner:<10} {facts.st_size:>10} {when} {path}")
    return "\n".join(lines) + "\n"


def _logs(patient: Patient) -> list[Path]:
    """Return the logs to show: the hub's, the proxy's, those of services, and of servers."""
    found = [Path(patient.options.extra_log_file)] if patient.options.extra_log_file else []
    directory = patient.state_dir / "logs"
    try:
        all_of_them = sorted(
            directory.glob("*.log"), key=lambda path: path.stat().st_mtime, reverse=True
        )
    except OSError:
        return found
    first = [path for path in all_of_them if path.name in ("proxy.log", "hub.log")]
    rest = [path for path in all_of_them if path not in first]
    return [path for path in found if path.exists()] + first + rest[:MOST_LOGS]
