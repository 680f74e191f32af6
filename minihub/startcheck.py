"""What of a configuration only its own parts can judge, all of it before anything starts.

The types of values are checked when the configuration is read (:mod:`minihub.config_check`).
Whether a role, a service, a file or a directory can be what an option says is known to those who
use them; they are asked here one after the other, so that all mistakes are told at once.

Rules of this file: nothing is made, opened for writing or started.

Threads: the main thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from . import cookiesecret, dburl, roles, scopes, services
from .errors import ConfigError
from .options import JupyterHub


def check(options: JupyterHub) -> None:
    """Raise ConfigError with every problem found."""
    problems: list[str] = []
    for look in _LOOKS:
        try:
            look(options)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)


def check_paths(template_paths: Sequence[str], data_files_path: str, logo_file: str) -> None:
    """Raise ConfigError naming the files and directories of pages that are not there."""
    problems = [
        f"JupyterHub.template_paths: no directory {path!r}"
        for path in template_paths
        if not os.path.isdir(path)
    ]
    if data_files_path and not os.path.isdir(data_files_path):
        problems.append(f"JupyterHub.data_files_path: no directory {data_files_path!r}")
    if logo_file and not (os.path.isfile(logo_file) and os.access(logo_file, os.R_OK)):
        problems.append(f"JupyterHub.logo_file: cannot read {logo_file!r}")
    if problems:
        raise ConfigError(problems)


def _check_roles(options: JupyterHub) -> None:
    scopes.forget_custom()
    scopes.define_custom(options.custom_scopes)
    roles.parse(options.load_roles, options.extra_user_scopes)


def _check_services(options: JupyterHub) -> None:
    services.parse(options.services)


def _check_pages(options: JupyterHub) -> None:
    check_paths(options.template_paths, options.data_files_path, options.logo_file)


def _check_secret(options: JupyterHub) -> None:
    cookiesecret.load(options.cookie_secret, options.cookie_secret_file, create=False)


def _check_directories(options: JupyterHub) -> None:
    """A file or directory that will be made needs a directory to be made in."""
    problems = []
    for name in ("pid_file", "extra_log_file"):
        place = os.path.dirname(os.path.abspath(getattr(options, name)))
        if getattr(options, name) and not os.path.isdir(place):
            problems.append(f"JupyterHub.{name}: there is no directory {place}")
    database = dburl.parse(options.db_url).path
    if database is not None and not os.path.isdir(database.absolute().parent):
        problems.append(f"JupyterHub.db_url: there is no directory {database.absolute().parent}")
    state_dir = os.path.abspath(options.state_dir)
    if os.path.exists(state_dir) and not os.path.isdir(state_dir):
        problems.append(f"JupyterHub.state_dir: {state_dir} is no directory")
    if problems:
        raise ConfigError(problems)


_LOOKS: tuple[Callable[[JupyterHub], None], ...] = (
    _check_roles,
    _check_services,
    _check_pages,
    _check_secret,
    _check_directories,
)
