"""Checks of the configuration: is it right, who may enter, what keeps people apart.

Rules of this file: as in :mod:`minihub.doctor`.

Threads: as in :mod:`minihub.doctor.patient`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from traitlets import TraitError

from .. import authstate, confinement, landlock, limits, startcheck
from ..auth import pam
from ..auth.base import Authenticator
from ..auth.osusers import own_name
from ..auth.simple import DummyAuthenticator, NullAuthenticator
from ..classmode import refuse_root
from ..crypto import CryptKeeper
from ..errors import ConfigError, MinihubError
from ..local import LocalProcessSpawner, SimpleLocalProcessSpawner
from . import redaction
from .finding import Word, check, fail, fine, warn
from .patient import Patient

#: Problems that have a check of their own.
_ELSEWHERE = ("JupyterHub.cookie_secret_file:", authstate.OPTION)


@check(
    "configuration",
    "The configuration is right",
    "The hub does not start with a configuration that is wrong.",
)
def configuration(patient: Patient) -> Iterator[Word]:
    problems = [*patient.problems]
    for judge in (_judge_start, _judge_parts):
        try:
            judge(patient)
        except ConfigError as error:
            problems += [patient.loaded.placed(one) for one in error.problems]
        except (TraitError, MinihubError) as error:
            problems.append(patient.loaded.placed(str(error)))
    wanted = [one for one in dict.fromkeys(problems) if not any(e in one for e in _ELSEWHERE)]
    for problem in wanted:
        yield fail(problem, patient.command("config", "check"))
    if not wanted:
        yield fine(f"{patient.loaded.file or 'no file, all defaults'}")


def _judge_start(patient: Patient) -> None:
    startcheck.check(patient.options)


def _judge_parts(patient: Patient) -> None:
    """Make what the hub would make of classes; a value may be wrong for one alone."""
    _ = patient.authenticator, patient.spawner
    patient.options.proxy_class(config=patient.config)
    if patient.options.authenticator_class.__name__ == "ClassroomAuthenticator" and issubclass(
        patient.options.spawner_class, SimpleLocalProcessSpawner
    ):
        refuse_root(patient.loaded)


@check(
    "options",
    "Every option means what it says",
    "An option that is unknown or has no effect is one that somebody counts on.",
)
def remarks(patient: Patient) -> Iterator[Word]:
    for warning in patient.loaded.warnings:
        yield warn(warning, patient.command("config", "check"))


@check(
    "configuration-mode",
    "Secrets in the configuration are the hub's alone",
    "Whoever reads a password or a token there can use it.",
)
def configuration_mode(patient: Patient) -> Iterator[Word]:
    file = patient.loaded.file
    if file is None or not redaction.in_config(patient.config):
        return
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077:
        yield warn(
            f"{file} holds secrets, and others can read it (mode {mode:04o})",
            f"chmod 600 {patient.shown(file)}",
        )


@check(
    "access",
    "Somebody may log in",
    "People with the right password are turned away, and take it for a wrong one.",
)
def access(patient: Patient) -> Iterator[Word]:
    authenticator = patient.authenticator
    if isinstance(authenticator, NullAuthenticator):
        yield fine("API tokens alone, as NullAuthenticator means")
        return
    for warning in Authenticator.check_allow_config(authenticator):
        yield warn(warning, patient.command("--Authenticator.allow_all=true"))
    yield fine(type(authenticator).__name__)


@check(
    "login",
    "Logging in works as it is meant to",
    "Somebody cannot log in who should, or can who should not.",
)
def login(patient: Patient) -> Iterator[Word]:
    authenticator = patient.authenticator
    usual = Authenticator.check_allow_config(authenticator)
    if isinstance(authenticator, NullAuthenticator):
        return
    for warning in authenticator.check_allow_config() or ():
        if warning not in usual:
            shared = isinstance(authenticator, DummyAuthenticator)
            yield warn(
                warning,
                *([patient.command("--classroom")] if shared and os.geteuid() else []),
            )


@check(
    "owner",
    "The hub has an admin",
    "Nobody can see or stop the servers of others, add people or help who forgot a password.",
)
def owner(patient: Patient) -> Iterator[Word]:
    ((admins,),) = patient.rows("SELECT count(*) FROM users WHERE admin")
    if not admins:
        yield warn("no user is an admin", patient.command("admin", "link"))
    yield fine(f"{admins} of them")


@check(
    "isolation",
    "People are kept apart",
    "Without it, code that one person runs can read and change everybody's files, and the hub's.",
)
def isolation(patient: Patient) -> Iterator[Word]:
    spawner, me = patient.spawner, own_name()
    if not isinstance(spawner, SimpleLocalProcessSpawner):
        if not isinstance(spawner, LocalProcessSpawner):
            yield fine(f"as {type(spawner).__name__} does it")
        elif os.geteuid() == 0:
            yield fine("each server runs as the system user of that name")
        else:
            yield fine(f"servers of {me} alone, since the hub does not run as root")
        return
    if not spawner.can_start:
        yield fail(
            "SimpleLocalProcessSpawner.sandbox is on, and this system has no Landlock (Linux 5.13 "
            "or newer): no server starts",
            patient.command("--SimpleLocalProcessSpawner.sandbox=auto"),
        )
    elif not spawner.is_confined and landlock.abi():
        yield warn(
            f"every server runs as {me} and can read everybody's files and the hub's: "
            "SimpleLocalProcessSpawner.sandbox is off",
            patient.command("--SimpleLocalProcessSpawner.sandbox=auto"),
        )
    elif not spawner.is_confined:
        yield warn(
            f"every server runs as {me} and can read everybody's files and the hub's; this system "
            "has no Landlock (Linux 5.13 or newer)",
            "Run the hub as root with system users (JupyterHub.spawner_class: localprocess), or "
            "only for people who trust each other",
        )
    else:
        yield fine(
            f"every server runs as {me}, in a sandbox (Landlock, version {landlock.abi()} of its "
            "interface; the network is open to all)"
        )


@check(
    "sandbox",
    "The sandbox of servers has no hole",
    "What the sandbox lets through, one person can do to all others.",
)
def sandbox(patient: Patient) -> Iterator[Word]:
    spawner = patient.spawner
    if not isinstance(spawner, SimpleLocalProcessSpawner) or not spawner.is_confined:
        return
    for warning in confinement.gaps(spawner.hidden()):
        yield warn(
            f"{warning} (interface {landlock.abi()})",
            "Update the system's kernel, or run the hub as a user that nobody logs in as",
        )
    for warning in spawner.wide_paths():
        yield warn(warning, "Name the directories below it that servers need, instead of all of it")


@check(
    "limits",
    "Limits of servers can be held",
    "One server can take what all others need.",
)
def held_limits(patient: Patient) -> Iterator[Word]:
    for warning in limits.missing(patient.spawner):
        yield warn(warning)


@check(
    "crypt-key",
    "What authenticators remember can be encrypted",
    "The hub does not start, since it keeps nothing of that in the clear.",
)
def crypt_key(patient: Patient) -> Iterator[Word]:
    if not patient.authenticator.enable_auth_state:
        return
    try:
        CryptKeeper(config=patient.config).check_available(authstate.OPTION)
    except ConfigError as error:
        yield fail(str(error), "export JUPYTERHUB_CRYPT_KEY=$(openssl rand -hex 32)")


@check(
    "pam-service",
    "The PAM service that checks logins is there",
    "Where it is not, PAM judges by its service for all others, which refuses everybody.",
)
def pam_service(patient: Patient) -> Iterator[Word]:
    authenticator = patient.authenticator
    if not isinstance(authenticator, pam.PAMAuthenticator):
        return
    name = authenticator.service
    places = [Path(place) for place in pam.SERVICE_DIRS if Path(place).is_dir()]
    if places and not any((place / name).exists() for place in places):
        there = sorted({one.name for place in places for one in place.iterdir()})
        usual = next((one for one in ("login", "sshd", "su") if one in there), "login")
        yield fail(
            f"PAMAuthenticator.service is {name}, and there is no file {places[0]}/{name}",
            patient.command(f"--PAMAuthenticator.service={usual}"),
        )
    else:
        yield fine(name)
