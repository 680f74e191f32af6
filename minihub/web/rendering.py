"""Pages and static files: Jinja2 templates and the files below ``/hub/static/``.

Rules of this file: it knows no request and no hub; the web layer hands it plain values. Our own
templates and files are read once, at construction, and served from memory, because the file the
program runs from may be replaced while it runs. What users put into their own directories is read
from disk each time, so that a change shows without a restart. ``DEFAULTS`` is the contract of
what a template may use; the names are JupyterHub's where JupyterHub has one.

Threads: any. After construction a Renderer changes only in Jinja's own template cache, which
carries its own lock, and in a dict of hashes whose entries are written whole.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from types import TracebackType
from typing import Any

import jinja2
from markupsafe import Markup

from minihub import clock
from minihub.errors import ConfigError, MinihubError
from minihub.startcheck import check_paths
from minihub.texts import Text
from minihub.urls import url_path_join, url_prefix
from minihub.web import messages
from minihub.web.class_defaults import CLASS_DEFAULTS

#: Jinja extensions that our own templates need; those of the configuration are added to them.
EXTENSIONS = ("jinja2.ext.i18n",)

#: Every optional variable of the templates with the value it has when nobody gives one. Values
#: marked "markup" are put into the page as they are: they come from whoever runs the hub.
DEFAULTS: dict[str, Any] = {
    # -- every page --
    "user": None,  # who is logged in: an object or dict with at least name
    "admin_access": False,
    "announcement": "",  # markup
    "announcement_home": None,  # markup; these four replace announcement on their page
    "announcement_login": None,
    "announcement_logout": None,
    "announcement_spawn": None,
    "authenticator": None,
    "csp_nonce": "",
    "login_service": "",
    "logo_url": "",  # where the logo leads; base_url when empty
    "no_spawner_check": False,
    "options_form": False,
    "parsed_scopes": {},
    "services": (),  # dicts: name, href
    "texts": messages.ENGLISH,  # the catalogue of the page's language
    "theme": "",  # light or dark where somebody chose; empty for the system's
    "chosen_language": "",  # empty for the browser's
    "notices": (),  # what admins announce: text, created, created_by, expires_at
    "ending": (),  # the user's servers that are stopped soon: name, due, keep_s, keep_url
    "here": "",  # path and query of the page
    "xsrf": "",
    "waiting_count": 0,  # how many wait for an admin's approval; for admins
    # -- login.html, owner.html --
    "authenticator_login_url": "",  # the form's action, with ?next= in it
    "custom_html": "",  # markup that replaces the form
    "login_error": "",
    "login_term_url": "",
    "next": "",  # used only without authenticator_login_url
    "not_allowed": False,  # the password was right, but the user is on no list
    "username": "",
    "ask_username": False,
    "needs_account": False,  # the name must be a user of the machine
    "new_hub": False,
    "error": "",
    "error_field": "",  # the name of the field that the error is about
    "join_url": "",  # where people make an account; without it there is no link
    # -- home.html --
    "allow_named_servers": False,
    "default_server": None,
    "named_server_limit_per_user": 0,
    "invalid_server_names": [],
    "new_server_url": "",  # takes a POST with server_name; without it there is no form
    "new_server_error": "",  # why a name cannot be a server's; new_server_name is one that can
    "new_server_name": "",
    "servers": (),  # dicts: name, display_name, ready, active, pending, url, start_url, ...
    "spawn_url": "",
    "use": None,  # of the default server: memory, memory_limit, memory_share, cpu, ...
    "limits": (),  # what one's servers may use: (label, value)
    # -- account.html --
    "sessions": (),  # dicts: id, created, is_this
    "member_of": (),
    "created": None,
    # -- spawn.html --
    "error_message": "",
    "error_html_message": "",  # markup
    "for_user": None,
    "spawner_options_form": "",  # markup
    "url": "",
    # -- spawn_pending.html, stop_pending.html, not_running.html --
    "server_name": "",
    "display_name": "",
    "progress_url": "",
    "stop_url": "",
    "usual_s": None,  # how long starts take here; None before the first
    "position": 0,  # the place in the line of starts that wait; 0 for none
    "elapsed_s": 0,  # seconds since the start began
    "failed": False,
    "failed_message": "",
    "failed_html_message": "",  # markup
    "hint": "",
    "notice": "",  # what happened to the last run, such as that it used too much memory
    "implicit_spawn_seconds": 0,
    "log_tail": (),
    # -- token.html --
    "tokens": (),  # dicts: id, note, created, last_activity, expires_at, scopes, revoke_url
    "oauth_clients": (),  # dicts: description, scopes, created, last_activity, revoke_url
    "new_token": "",
    "token_error": "",
    "token_expires_in_max_seconds": 0,
    # -- oauth.html --
    "allowed_scopes": (),
    "oauth_client": None,  # object or dict: identifier, description
    "role_names": (),
    "scope_descriptions": (),  # dicts: scope, description, filter
    # -- accept-share.html --
    "code": "",
    "owner": None,  # object or dict: name
    "spawner": None,  # object or dict: name, display_name
    "spawner_ready": False,
    "spawner_url": "",
    # -- api.html --
    "api": None,  # dict: url, version, groups, shapes, scopes
    # -- admin.html --
    "users": (),  # dicts: name, admin, groups, url, last_activity, servers
    "total_users": None,
    "found_users": 0,  # how many the search found
    "running_servers": None,
    "machine": {},  # cpus, cpu_percent, memory_used, memory_total, memory_percent, disk_...
    "warm": {},  # state: warm, warming or cold; reason, parents, servers, saved
    "search": None,  # the text searched for; None hides the field
    "shown": "all",  # all, running or admins
    "show_urls": {},
    "sort": "name",
    "descending": False,
    "sort_urls": {},
    "first_number": 1,
    "last_number": 1,
    "previous_url": "",
    "next_url": "",
    "may_add": False,
    "may_stop": False,
    # -- logout.html --
    "ask": False,
    # -- admin-user.html --
    "person": None,  # as one of users, with created and is_me
    "every_group": (),
    "home": "",  # the directory of their files if the hub made it
    "change_url": "",
    "groups_url": "",
    "logout_url_of_user": "",
    "delete_user_url": "",
    "reset_url": "",  # where an admin gives a one-time code; only where the hub keeps passwords
    "may_change": False,
    "may_group": False,
    "may_delete": False,
    "user_error": "",
    "delete_error": "",
    "entries": (),  # of the audit list: at, actor, action, user, server, detail
    # -- admin-announcements.html --
    "may_announce": False,
    "lasts_h": (),
    "notice_error": "",
    "notice_text": "",
    # -- admin-cull.html --
    "culls": False,
    "cull_url": "",
    # -- server-log.html --
    "user_name": "",
    "log_lines": (),
    "is_mine": False,
    "active": False,
    # -- error.html, 404.html --
    "status_code": 500,
    "status_message": "",
    "message": "",
    "message_html": "",  # markup
    "extra_error_html": "",  # markup
    **CLASS_DEFAULTS,
}

_CONTENT_TYPES = {
    "css": "text/css; charset=utf-8",
    "gif": "image/gif",
    "html": "text/html; charset=utf-8",
    "ico": "image/x-icon",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "map": "application/json",
    "md": "text/markdown; charset=utf-8",
    "mjs": "text/javascript; charset=utf-8",
    "pdf": "application/pdf",
    "png": "image/png",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
    "wasm": "application/wasm",
    "webmanifest": "application/manifest+json",
    "webp": "image/webp",
    "woff": "font/woff",
    "woff2": "font/woff2",
}


class TemplateError(MinihubError):
    """Raised when a template cannot be rendered; the message starts with its file and line.

    ``template`` is a path for a user's own file and ``minihub/NAME`` for one of ours; ``line`` is
    0 when no line can be named.
    """

    def __init__(self, template: str, line: int, problem: str) -> None:
        self.template = template
        self.line = line
        self.problem = problem
        where = f"{template}:{line}" if line else template
        super().__init__(f"{where}: {problem}")


@dataclass(frozen=True)
class StaticFile:
    """One file as it is sent: ``etag`` is quoted; ``mtime`` in seconds, None for our own files."""

    body: bytes
    content_type: str
    etag: str
    mtime: float | None = None


class Renderer:
    """Renders pages and finds static files, ours and those of the configuration.

    ``template_paths`` are searched in order, then ``templates/`` below ``data_files_path``, then
    our own; a name that starts with ``templates/`` always means our own. Static files are looked
    for in ``static/`` below ``data_files_path``, then among our own. ``logo_file`` replaces the
    logo. ``base_url`` is ``JupyterHub.base_url``, not the hub's prefix. A value of
    ``template_vars`` that is callable is called with the user.

    Raises ConfigError, naming every problem, when a directory or the logo cannot be read or Jinja
    refuses an option.
    """

    def __init__(
        self,
        *,
        template_paths: Sequence[str] = (),
        data_files_path: str = "",
        jinja_environment_options: Mapping[str, Any] | None = None,
        logo_file: str = "",
        base_url: str = "/",
        template_vars: Mapping[str, Any] | None = None,
    ) -> None:
        check_paths(template_paths, data_files_path, logo_file)
        self._static_dir = os.path.join(data_files_path, "static") if data_files_path else ""
        self._logo_file = logo_file
        self._template_vars = dict(template_vars or {})
        self._disk_hashes: dict[tuple[str, int, int], str] = {}

        own = {path: body for path, body in _read_package("static")}
        self._own = {path: _static_file(path, body) for path, body in own.items()}
        version_hash = _digest(b"".join(path.encode() + own[path] for path in sorted(own)))
        sources = {path: body.decode() for path, body in _read_package("templates")}

        self.base_url = url_prefix(base_url)
        self.hub_prefix = url_path_join(self.base_url, "hub/")
        env_globals: dict[str, Any] = {
            **DEFAULTS,
            "base_url": self.hub_prefix,
            "prefix": self.base_url,
            "login_url": self.hub_prefix + "login",
            "logout_url": self.hub_prefix + "logout",
            "static_url": self.static_url,
            "version_hash": version_hash,
            "own_logo": not logo_file,
            "languages": messages.LANGUAGES,
        }
        directories = [os.path.abspath(path) for path in template_paths]
        if data_files_path:
            directories.append(os.path.abspath(os.path.join(data_files_path, "templates")))
        options = dict(jinja_environment_options or {})
        self._environment = _environment(_Loader(directories, sources), options, env_globals)
        if options:
            _check_environment(_environment(_Loader([], sources), options, env_globals))
        self._original = _environment(_Loader([], sources), {}, env_globals)

    # -- pages -----------------------------------------------------------------------------

    def render(self, *names: str, **namespace: Any) -> str:
        """Return the first page of these names that exists, as HTML.

        ``namespace`` goes over ``template_vars``, and those over ``DEFAULTS``; a None in
        ``namespace`` stands back for a value below it. ``xsrf_token`` and ``xsrf_form_html``
        follow from ``xsrf``.

        Raises TemplateError when the template or one it uses is absent or fails.
        """
        return self._render(self._environment, names, namespace)

    def render_original(self, *names: str, **namespace: Any) -> str:
        """Return our own page, with no override in any part of it.

        This is what an error is shown with that an override may have caused.
        """
        return self._render(self._original, names, namespace)

    def _render(
        self, environment: jinja2.Environment, names: Sequence[str], namespace: Mapping[str, Any]
    ) -> str:
        values = self._call_template_vars(namespace.get("user"))
        for key, value in namespace.items():
            if value is not None or key not in values:
                values[key] = value
        xsrf = values.get("xsrf") or ""
        field = Markup('<input type="hidden" name="_xsrf" value="{}">').format(xsrf)
        values.update(xsrf_token=xsrf, xsrf_form_html=field)
        try:
            return environment.select_template(names).render(values)
        except jinja2.TemplateSyntaxError as error:
            where = error.filename or error.name or names[0]
            raise TemplateError(where, error.lineno, error.message or "syntax error") from error
        except Exception as error:
            # An override is foreign code: whatever it raises is its failure, not the hub's.
            where, line = _template_line(error.__traceback__) or (names[0], 0)
            problem = f"{type(error).__name__}: {error}"
            if isinstance(error, jinja2.TemplateNotFound):
                problem = f"there is no template {error.name!r}"
            raise TemplateError(where, line, problem) from error

    def _call_template_vars(self, user: Any) -> dict[str, Any]:
        values = {}
        for key, value in self._template_vars.items():
            if callable(value):
                try:
                    value = value(user)
                except Exception as error:
                    # A function of the configuration file: foreign code as well.
                    problem = f"{type(error).__name__}: {error}"
                    raise TemplateError(f"JupyterHub.template_vars[{key!r}]", 0, problem) from error
            values[key] = value
        return values

    # -- static files ----------------------------------------------------------------------

    def static(self, path: str) -> StaticFile | None:
        """Return the file ``path`` (already unquoted, below ``/hub/static/``), or None.

        A path that leaves the directory, by dots, by links or otherwise, is no file; neither is
        one with a part that starts with a dot.
        """
        full = _path_inside(self._static_dir, path)
        found = _read_disk(full) if full else None
        return found or self._own.get(path)

    def static_url(self, path: str, include_version: bool = True) -> str:
        """Return the URL of a static file, with a version that changes when its content does.

        A path that is no file (a directory, say) gets no version.
        """
        url = self.hub_prefix + "static/" + path
        version = self._version(path) if include_version else ""
        return f"{url}?v={version}" if version else url

    def logo(self) -> StaticFile:
        """Return the picture behind ``/hub/logo``: ``logo_file`` if it can be read, else ours."""
        found = _read_disk(self._logo_file) if self._logo_file else None
        return found or self._own["images/logo.svg"]

    def _version(self, path: str) -> str:
        full = _path_inside(self._static_dir, path)
        if full:
            try:
                status = os.stat(full)
            except OSError:
                return ""
            key = (full, status.st_mtime_ns, status.st_size)
            if key not in self._disk_hashes:
                found = _read_disk(full)
                if found is None:
                    return ""
                self._disk_hashes[key] = found.etag.strip('"')[:12]
            return self._disk_hashes[key]
        own = self._own.get(path)
        return own.etag.strip('"')[:12] if own else ""


class _Loader(jinja2.BaseLoader):
    """Finds a template in the user's directories on disk, then among ours in memory.

    One loader rather than Jinja's own in a chain: a file that appears in a user's directory must
    win over our template even when that one is in the cache already.
    """

    def __init__(self, directories: Sequence[str], sources: Mapping[str, str]) -> None:
        self._directories = directories
        self._sources = sources

    def get_source(
        self, environment: jinja2.Environment, template: str
    ) -> tuple[str, str, Callable[[], bool]]:
        original = template.removeprefix("templates/")
        if original != template and original in self._sources:
            return self._sources[original], f"minihub/{original}", lambda: True
        found = self._on_disk(template)
        if found is not None:
            with open(found[0], encoding="utf-8") as file:
                return file.read(), found[0], lambda: self._on_disk(template) == found
        if template in self._sources:
            source = self._sources[template]
            return source, f"minihub/{template}", lambda: self._on_disk(template) is None
        raise jinja2.TemplateNotFound(template)

    def _on_disk(self, template: str) -> tuple[str, int, int] | None:
        """Return path, mtime in ns and size of the first directory's file of that name."""
        for directory in self._directories:
            full = _path_inside(directory, template)
            if full:
                try:
                    status = os.stat(full)
                except OSError:
                    continue
                return full, status.st_mtime_ns, status.st_size
        return None


def _environment(
    loader: jinja2.BaseLoader, options: dict[str, Any], env_globals: Mapping[str, Any]
) -> jinja2.Environment:
    """Build an environment from ours and the configuration's options.

    Raises ConfigError when Jinja refuses them.
    """
    merged: dict[str, Any] = {"autoescape": True, **options, "loader": loader}
    merged["extensions"] = [*EXTENSIONS, *options.get("extensions", ())]
    try:
        environment = jinja2.Environment(**merged)
    except (AssertionError, AttributeError, ImportError, TypeError, ValueError) as error:
        problem = f"JupyterHub.jinja_environment_options: {error}"
        raise ConfigError(problem) from error
    # Texts of our templates stand in _() and {% trans %}, ready for a catalogue.
    environment.install_null_translations(newstyle=True)  # type: ignore[attr-defined]
    environment.globals.update(env_globals)
    environment.globals.update(gettext=_gettext, ngettext=_ngettext)
    environment.filters["when"] = _when
    environment.filters["tell"] = _tell
    return environment


@jinja2.pass_context
def _gettext(context: jinja2.runtime.Context, message: str, /, **values: Any) -> Any:
    """Say a text of ours in the page's language; values are escaped, the text is not."""
    return _filled(context, context.resolve("texts").gettext(message), values)


@jinja2.pass_context
def _ngettext(
    context: jinja2.runtime.Context, singular: str, plural: str, num: int, /, **values: Any
) -> Any:
    text = context.resolve("texts").ngettext(singular, plural, num)
    return _filled(context, text, {"num": num, **values})


def _filled(context: jinja2.runtime.Context, text: str, values: Mapping[str, Any]) -> Any:
    values = {name: context.resolve("texts").tell(value) for name, value in values.items()}
    return (Markup(text) if context.eval_ctx.autoescape else text) % values


@jinja2.pass_context
def _tell(context: jinja2.runtime.Context, value: Any) -> Any:
    """Say what the program told (:mod:`minihub.texts`) in the page's language."""
    return context.resolve("texts").tell(value) if isinstance(value, Text) else value


def _check_environment(environment: jinja2.Environment) -> None:
    """Raise ConfigError when our own pages are none to an environment of the configuration's."""
    try:
        for name in ("login.html", "error.html"):
            environment.get_template(name)
    except Exception as error:  # an extension may raise anything
        raise ConfigError(
            "JupyterHub.jinja_environment_options: the hub's own pages cannot be read with these:"
            f" {' '.join(str(error).split())}"
        ) from error


def _when(value: datetime | str, by_the_clock: bool = False) -> Markup:
    """Return a ``<time>`` element for a date, given aware or as the API's text.

    It shows the minute in UTC; the page's script turns that into local words, as in "2 hours ago",
    or ``by_the_clock`` into local time.
    """
    moment = clock.parse(value) if isinstance(value, str) else value
    moment = moment.replace(tzinfo=clock.UTC) if moment.tzinfo is None else moment
    moment = moment.astimezone(clock.UTC)
    return Markup('<time datetime="{}"{}><span>{}</span> <span>{}</span></time>').format(
        moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        Markup(" data-clock") if by_the_clock else "",
        moment.strftime("%Y-%m-%d"),
        moment.strftime("%H:%M UTC"),
    )


def _template_line(traceback: TracebackType | None) -> tuple[str, int] | None:
    """Return file and line of the innermost template in a traceback, None without one.

    Jinja rewrites the frames of compiled templates to name the template's own lines.
    """
    found = None
    while traceback is not None:
        frame = traceback.tb_frame
        if "__jinja_exception__" in frame.f_globals:
            found = frame.f_code.co_filename, traceback.tb_lineno
        traceback = traceback.tb_next
    return found


def _read_package(folder: str) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of every file below ``folder`` of this package."""
    pending = [("", files("minihub.web").joinpath(folder))]
    while pending:
        prefix, directory = pending.pop()
        for entry in directory.iterdir():
            if entry.is_dir():
                pending.append((f"{prefix}{entry.name}/", entry))
            else:
                yield prefix + entry.name, entry.read_bytes()


def _path_inside(directory: str, path: str) -> str:
    """Return the real path of a file below ``directory``, or "" when there is none."""
    parts = path.split("/")
    if not directory or any(not part or part[0] == "." for part in parts):
        return ""
    if "\\" in path or "\0" in path:
        return ""
    root = os.path.realpath(directory)
    full = os.path.realpath(os.path.join(root, *parts))
    inside = full.startswith(root.rstrip(os.sep) + os.sep)
    return full if inside and os.path.isfile(full) else ""


def _read_disk(path: str) -> StaticFile | None:
    """Return a file of the user's, None when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return _static_file(path, file.read(), os.fstat(file.fileno()).st_mtime)
    except OSError:
        return None


def _static_file(path: str, body: bytes, mtime: float | None = None) -> StaticFile:
    kind = _CONTENT_TYPES.get(path.rpartition(".")[2].lower(), "application/octet-stream")
    return StaticFile(body, kind, f'"{_digest(body)}"', mtime)


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:20]
