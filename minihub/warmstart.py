"""Which servers may start warm, and how a spawner starts one so.

Rules of this file: what a warm parent is told of a spawner is what the configuration says for
everybody (:func:`plan_of`); nothing that a hook, a group or a person's choice has made of the
spawner of one server.

Threads: as for all spawners.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from . import process, serverenv, warmpool, warmroot
from .hookinfo import UserInfo
from .warmplan import KNOWN_PROGRAMS, NotWarm, Plan, find_command

#: Variables of which each server has a value of its own, beside those that name the hub.
OWN_NAMES = (
    "CPU_GUARANTEE",
    "CPU_LIMIT",
    "HOME",
    "JUPYTERHUB_ADMIN_ACCESS",
    "JUPYTERHUB_COOKIE_OPTIONS",
    "JUPYTERHUB_DEBUG",
    "JUPYTERHUB_DEFAULT_URL",
    "JUPYTERHUB_DISABLE_USER_CONFIG",
    "JUPYTERHUB_ROOT_DIR",
    "LOGNAME",
    "MEM_GUARANTEE",
    "MEM_LIMIT",
    "MINIHUB_SERVER_ID",
    "SHELL",
    "TMPDIR",
    "USER",
)


def plan_of(spawner: Any) -> Plan:
    """Return the plan of the parent for servers like this one. Raises NotWarm."""
    if spawner.warm == "off":
        raise NotWarm("LocalProcessSpawner.warm is off")
    if spawner.shell_cmd or not spawner.cmd:
        raise NotWarm("LocalProcessSpawner.shell_cmd is set")
    if spawner.warm == "auto" and os.path.basename(spawner.cmd[0]) not in KNOWN_PROGRAMS:
        raise NotWarm(f"{spawner.cmd[0]} is not known to do the same when it starts warm")
    if len(spawner.cmd) > 1 and spawner.warm == "auto":
        raise NotWarm("Spawner.cmd has arguments")
    nobody = type(spawner)(user=UserInfo("nobody"), hub=spawner.hub, config=spawner.config)
    env = {name: os.environ[name] for name in nobody.env_keep if name in os.environ}
    for name, value in nobody.environment.items():
        if not callable(value):
            env[name] = serverenv.as_text(name, value)
    env["PATH"] = spawner.path_of(env.get("PATH") or os.defpath)
    own = {*OWN_NAMES, *serverenv.of_hub(nobody)} - env.keys()
    return Plan(
        command=find_command(spawner.cmd[0], env["PATH"]),
        args=(*spawner.cmd[1:], *nobody.args),
        env=env,
        own_names=tuple(sorted(own)),
        preload=tuple(nobody.warm_preload),
        mem_limit=nobody.warm_mem_limit,
        is_guarded=warmroot.is_needed(spawner.changes_user),
        is_asked_for=spawner.warm == "on",
    )


def prepare(spawner: Any) -> None:
    """Begin to get a parent warm for servers like this one, where they may start warm."""
    pool = warmpool.pool()
    if pool is None:
        return
    if spawner.warm == "off":
        warmpool.note_cold("LocalProcessSpawner.warm is off")
        return
    try:
        pool.ask_for(plan_of(spawner))
    except NotWarm as reason:
        spawner.log.log(_level(spawner), "Servers start cold: %s", reason)
        warmpool.note_cold(str(reason))


def start(spawner: Any, argv: list[str], **given: Any) -> tuple[process.Process, Plan] | None:
    """Start a server warm; return it and its plan, or None when it is to start cold.

    ``given`` is as for :func:`minihub.process.start`.
    """
    pool = warmpool.pool()
    if pool is None:
        return None
    launch = given["launch"]
    try:
        plan = plan_of(spawner)
        if plan.is_guarded != bool(launch.user) or launch.uid == 0:
            raise NotWarm("no parent has copies that become the user it is to run as")
    except NotWarm as reason:
        spawner.log.log(_level(spawner), "Server %s starts cold: %s", spawner.user.name, reason)
        return None
    try:
        return pool.start_server(plan, argv, **given), plan
    except NotWarm as reason:
        spawner.log.info("Server %s starts cold: %s", spawner.user.name, reason)
        return None


def _level(spawner: Any) -> int:
    """Return how loudly a reason is told that is the configuration's: where warm was asked for."""
    return logging.WARNING if spawner.warm == "on" else logging.DEBUG
