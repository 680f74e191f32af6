"""Checks of what runs: hub, proxy, routes, what a killed hub left, warm starts, the service.

Rules of this file: as in :mod:`minihub.doctor`. Hub and proxy are asked what anybody may ask, and
what the proxy's own token allows; nothing is signalled.

Threads: as in :mod:`minihub.doctor.patient`.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from .. import (
    __version__,
    addresses,
    hublock,
    machine,
    orphans,
    process,
    proxyfacts,
    servicefile,
    warmpool,
    warmroot,
)
from ..errors import ProxyError
from ..local import LocalProcessSpawner
from ..proxyclient import ProxyClient
from ..warmplan import NotWarm
from ..warmstart import plan_of
from .finding import Word, check, fail, fine, warn
from .patient import Patient

ANSWER_S = 5.0
#: What is just starting is not there yet at one look, and is at the next.
SECOND_LOOK_S = 2.0


def get(url: str, timeout_s: float = ANSWER_S) -> tuple[int, dict[str, str]]:
    """Return status and headers of the answer to a GET. Raises OSError.

    Whose certificate it is does not count: that has its own check.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    if parts.scheme == "https":
        context = ssl._create_unverified_context()
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, port, timeout=timeout_s, context=context
        )
    else:
        connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request("GET", parts.path or "/")
        answer = connection.getresponse()
        answer.read(65536)
        return answer.status, {name.lower(): text for name, text in answer.getheaders()}
    except http.client.HTTPException as error:
        raise OSError(f"it answered with no HTTP ({type(error).__name__})") from error
    finally:
        connection.close()


def _why(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


def wake(pid: int) -> tuple[str, str]:
    """Return what is wrong with a process that does not answer, and what helps."""
    facts = machine.process_facts(pid)
    if facts is not None and facts.status == "stopped":
        return f"process {pid} was halted (SIGSTOP)", f"kill -CONT {pid}"
    if facts is None:
        return f"process {pid} is gone", ""
    return f"process {pid}, {facts.status}", f"kill {pid}"


@check(
    "hub",
    "The hub answers",
    "Nobody can log in or start a server.",
)
def hub(patient: Patient) -> Iterator[Word]:
    facts = patient.hub
    if facts is None:
        starting = hublock.is_held(patient.state_dir)
        yield fine("it is just starting or stopping" if starting else "it does not run")
        return
    try:
        status, _headers = get(facts.api_url)
    except OSError as error:
        what, mend = wake(facts.pid)
        yield fail(
            f"it does not answer at {facts.api_url}: {_why(error)} ({what})",
            *([mend] if mend else []),
        )
        return
    if status != 200:
        yield fail(f"it answers {status} at {facts.api_url}", f"kill {facts.pid}")
    yield fine(f"process {facts.pid}, {facts.url}")


@check(
    "hub-version",
    "The running hub is of this version",
    "What was mended in the new file is not mended in the hub that runs.",
)
def hub_version(patient: Patient) -> Iterator[Word]:
    if patient.hub is None:
        return
    try:
        _status, headers = get(patient.hub.api_url)
    except OSError:
        return  # that has its own check
    runs = headers.get("x-minihub-version", __version__)
    if runs != __version__:
        yield warn(
            f"minihub {runs} runs, and this file is minihub {__version__}",
            f"kill {patient.hub.pid}; {patient.command()}",
        )


@check(
    "hub-killed",
    "The last hub ended in order",
    "A hub that is killed, by too little memory for instance, will be again.",
)
def hub_killed(patient: Patient) -> Iterator[Word]:
    last = hublock.killed(patient.state_dir)
    if last is not None:
        yield warn(
            f"the last one (process {last.pid}) was killed, or the machine went down; nothing that "
            "was saved is lost",
            patient.command(),
        )


@check(
    "pid-file",
    "The file with the hub's process id is right",
    "Whatever reads it signals a stranger.",
)
def pid_file(patient: Patient) -> Iterator[Word]:
    path = Path(patient.options.pid_file) if patient.options.pid_file else None
    if path is None or not path.exists():
        return
    text = path.read_text(errors="replace").strip()
    runs = patient.hub.pid if patient.hub else 0
    if text != str(runs) and not (runs == 0 and hublock.is_held(patient.state_dir)):
        now = f"the hub is process {runs}" if runs else "no hub runs"
        yield warn(f'{path} says "{text[:20]}", and {now}', f"rm {patient.shown(path)}")


# -- the proxy -----------------------------------------------------------------------------


def _proxy_api(patient: Patient) -> tuple[str, str, int]:
    """Return URL and token of the proxy's API, and its process id (0 for another's)."""
    facts = patient.proxy
    if facts is not None:
        return facts.api_url, facts.auth_token, facts.pid
    made = patient.options.proxy_class(config=patient.config)
    return made.api_url, made.auth_token, 0


def routes_of(patient: Patient) -> dict[str, dict]:
    """Return the proxy's routes. Raises ProxyError."""
    api_url, token, _pid = _proxy_api(patient)
    client = ProxyClient(lambda: (api_url, token), threading.Event())
    try:
        return client.call("GET", "/api/routes", timeout_s=ANSWER_S) or {}
    finally:
        client.close()


@check(
    "proxy",
    "The proxy answers, and leads to the hub",
    "Nobody reaches the hub or a server.",
)
def proxy(patient: Patient) -> Iterator[Word]:
    facts = patient.hub
    if facts is None:
        return
    api_url, _token, pid = _proxy_api(patient)
    try:
        routes_of(patient)
    except ProxyError as error:
        what, mend = wake(pid) if pid else ("it is not the hub's to start", "")
        again = f"kill -9 {pid}  # the hub starts another within seconds" if pid else mend
        yield fail(f"{error} ({what})", mend if mend.startswith("kill -CONT") else again)
        return
    # The public address may be another program's, which has a check of its own.
    url = addresses.bound_url(patient.options, patient.proxy.public_port) if pid else facts.url
    try:
        status, headers = get(f"{url}hub/api")
    except OSError as error:
        yield fail(f"{url} does not answer: {_why(error)}", *([f"kill -9 {pid}"] if pid else []))
        return
    if status != 200 or "x-jupyterhub-version" not in headers:
        yield fail(f"{url}hub/api answers {status}, and not from a hub")
    yield fine(f"process {pid}, {url}" if pid else api_url)


@check(
    "routes",
    "The proxy has a route for every server",
    "Whoever opens their server gets the hub's page instead, or an error.",
)
def routes(patient: Patient) -> Iterator[Word]:
    if patient.hub is None:
        return
    lost = _lost(patient)
    if lost:
        time.sleep(SECOND_LOOK_S)
        lost &= _lost(patient)
    every_s = patient.options.proxy_check_interval
    for name in sorted(lost):
        yield fail(
            f"there is none for the server {name}",
            f"sleep {every_s}  # the hub looks every {every_s} s; if it stays: "
            + patient.command("server", "stop", *name.split("/", 1)),
        )


def _lost(patient: Patient) -> set[str]:
    """Return the servers that are ready and have no route."""
    rows = patient.rows(
        "SELECT users.name, servers.name, target FROM servers JOIN users ON users.id = user_id "
        "WHERE target IS NOT NULL AND started IS NOT NULL"
    )
    if not rows:
        return set()
    try:
        known = {urlsplit(str(one.get("target"))).netloc for one in routes_of(patient).values()}
    except ProxyError:
        return set()  # that has its own check
    return {
        f"{user}/{server}".rstrip("/")
        for user, server, target in rows
        if urlsplit(target).netloc not in known
    }


# -- what is left --------------------------------------------------------------------------


@check(
    "orphans",
    "No process of a killed hub is left",
    "They hold memory and ports, and nobody sees them in any list.",
)
def strays(patient: Patient) -> Iterator[Word]:
    if not (patient.state_dir / orphans.NAME).exists():
        return
    found = _strays(patient)
    if found:
        time.sleep(SECOND_LOOK_S)
        found = {marker: pid for marker, pid in _strays(patient).items() if marker in found}
    for pid in found.values():
        facts = machine.process_facts(pid)
        if facts is not None:
            command = shlex.join(facts.command)[:60] or facts.name
            yield warn(f"process {pid} belongs to no server, proxy or service: {command}",
                       f"kill {pid}")  # fmt: skip


def _strays(patient: Patient) -> dict[str, int]:
    known = set()
    noted = proxyfacts.load(patient.state_dir / "proxy.json")
    if noted is not None:
        known.add(noted.marker)
    for note in (patient.state_dir / "services").glob("*.json"):
        try:
            known.add(json.loads(note.read_text())["marker"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    for (state,) in patient.rows("SELECT state FROM servers WHERE state IS NOT NULL"):
        known.add((json.loads(state) or {}).get("marker", ""))
    ours = process.find_marked(orphans.owner(patient.state_dir, ""))
    return {marker: one.identity.pid for marker, one in ours.items() if marker not in known}


# -- warm starts ---------------------------------------------------------------------------


@check(
    "warm-starts",
    "Servers start warm where they can",
    "Each start takes several times as long, and each server more memory.",
)
def warm_starts(patient: Patient) -> Iterator[Word]:
    spawner = patient.spawner
    if not isinstance(spawner, LocalProcessSpawner) or spawner.warm == "off":
        yield fine("they are off")
        return
    try:
        plan = plan_of(spawner)
        if plan.is_guarded:
            warmroot.check(plan)
    except NotWarm as reason:
        say = warn if spawner.warm == "on" else fine
        yield say(f"servers start afresh: {reason}")
        return
    if patient.hub is None:
        return
    for one in warmpool.noted(patient.state_dir / "warm"):
        if one["state"] == "cold":
            yield warn(
                f"servers of {one['program']} start afresh: {one['reason']}",
                "Mend that, or do without: " + patient.command("--LocalProcessSpawner.warm=off"),
            )
        else:
            yield fine(f"{one['program']}: {one['state']}")


# -- the service ---------------------------------------------------------------------------

_UNIT_LINE = re.compile(r"^(\w+)=(.*)$", re.MULTILINE)


@check(
    "service",
    "The service of the machine starts this hub, and its restart ends nothing",
    "At the next boot there is no hub, or a restart ends everybody's work.",
)
def service(patient: Patient) -> Iterator[Word]:
    seen = False
    for system in (True, False):
        file = servicefile.Plan("minihub", system, "", patient.directory, (), "").file
        for path, text in _files_beside(file):
            if _is_this_hub(text, patient.directory):
                seen = True
                yield from _unit(patient, path, text, system)
    if not seen:
        yield fine("none is installed for this directory")


def _files_beside(file: Path) -> Iterator[tuple[Path, str]]:
    """Yield the units that can be read where one of ours would be, and what is in them."""
    with suppress(OSError):  # of another user
        for path in sorted(file.parent.glob("*.service")):
            with suppress(OSError):
                yield path, path.read_text(errors="replace")


def _is_this_hub(text: str, directory: Path) -> bool:
    lines = dict(_UNIT_LINE.findall(text))
    return lines.get("WorkingDirectory", "").rstrip("/") == str(directory).replace(
        "%", "%%"
    ) and "minihub" in lines.get("ExecStart", "")


def _unit(patient: Patient, path: Path, text: str, system: bool) -> Iterator[Word]:
    lines = dict(_UNIT_LINE.findall(text))
    which = "--system" if system else "--user"
    name = [] if path.stem == "minihub" else ["--name", path.stem]
    again = patient.command("service", "install", which, *name, "-y")
    if lines.get("KillMode") != "process":
        yield warn(f"{path}: without KillMode=process a restart ends every server", again)
    words = shlex.split(lines.get("ExecStart", ""))
    for word in words[:2]:
        if os.path.isabs(word) and not os.path.exists(word):
            yield fail(f"{path} starts {word}, which is not there", again)
    yield fine(str(path))
