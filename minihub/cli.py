"""The command line: verbs, flags, aliases; what is printed and what a command ends with.

Rules of this file: the only code that prints or chooses an exit code. Verbs are rows of the table
at its end (those for the hub's data: :mod:`minihub.verbs_data`, for a class:
:mod:`minihub.verbs_class`), general flags those of
:mod:`minihub.commandline`; a new verb is a row and a function.
Whatever a verb needs is imported inside its function, so that ``--version``, ``--help``, ``proxy``
and ``cull`` import the standard library only. Every MinihubError becomes its message and its exit
code; no traceback is shown without ``--debug``.

Threads: the main thread.
Sources: JupyterHub's command line: its aliases, flags and ``--Class.option=value``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minihub import __version__, verbs_class
from minihub.commandline import (
    ALIASES,
    MANY,
    PROGRAM,
    SWITCHES,
    Call,
    Verb,
    parse,
    verb_help,
    verb_in,
)
from minihub.errors import ConfigError, MinihubError, NotPermitted, UsageError
from minihub.verbs_class import CLASS_VERBS
from minihub.verbs_data import DATA_VERBS

if TYPE_CHECKING:
    from minihub.config import Loaded

__all__ = ["ALIASES", "HELP", "SWITCHES", "VERBS", "main"]

HELP = f"""\
Usage: {PROGRAM} [VERB] [FLAGS]

  {PROGRAM}                            run the hub at http://127.0.0.1:8000
  {PROGRAM} --classroom                run it for a class that joins by a code

Run:      (no verb)                  run the hub until Ctrl-C
          proxy                      run the proxy alone (proxy --help)
          service print|install      run it at every boot, by systemd or launchd
People:   admin link                 a new one-time login for the hub's owner
          user add|list|rm|passwd|approve|import|export; token: an API token
Servers:  server list|start|stop     what runs; server logs USER: what it says
          cull                       stop idle servers, once (cull --help)
Checks:   doctor                     what is wrong here, and what mends it
          config check|show          what is set; options --yaml|--markdown: all
Data:     backup, restore FILE       all of the hub's own in one file, and back
          import-jupyterhub FILE     take over JupyterHub's users and tokens
          upgrade-db, sbom           update the database; what is in this file

Flags:    -f, --config FILE          configuration file (default: minihub.yaml)
          --ip, --port, --base-url   where people reach the hub; or --url
          --ssl-key, --ssl-cert      files for TLS; --no-ssl has no effect
          --db URL, --no-db          the database, or none; --upgrade-db
          --pid-file, --log-file     files to write; --log-level, --debug
          --Class.option=VALUE       any option (--help-all)
          -y (answer yes), --generate-config, --version, --help, --help-all
"""


class Unwritable(MinihubError):
    """Raised when standard output takes nothing more, such as a file on a full disk."""


# -- entry -----------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (without the program's name) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(arguments)
    except ConfigError as error:
        _complain(str(error))
        count = len(error.problems)
        _complain(f"{count} error{'s' if count > 1 else ''} in the configuration, nothing started.")
        return error.exit_code
    except UsageError as error:
        verb = verb_in([word for word in arguments if not word.startswith("-")], VERBS)
        named = f"{PROGRAM} {verb.words}" if verb else PROGRAM
        _complain(f"{PROGRAM}: {error}\nTry: {named} --help")
        return error.exit_code
    except MinihubError as error:
        _complain(f"{PROGRAM}: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        return 1
    except BrokenPipeError:
        _give_up_output()  # whoever read it is gone
        return 1
    except OSError as error:
        if "--debug" in arguments:
            raise
        what = f"{error.filename}: " if error.filename else ""
        _complain(f"{PROGRAM}: {what}{error.strerror or error}")
        return NotPermitted.exit_code if isinstance(error, PermissionError) else 1
    except Exception as error:
        if "--debug" in arguments:
            raise
        what = " ".join(str(error).split())
        _complain(
            f"{PROGRAM}: internal error: {type(error).__name__}: {what}\n"
            "With --debug, the same command shows where."
        )
        return 1


def _dispatch(arguments: list[str]) -> int:
    for verb in VERBS:
        if verb.raw and arguments[:1] == [verb.words]:
            return verb.run(Call(words=arguments[1:]))
    verb, call = parse(arguments, VERBS)
    if "--version" in call.switches:
        say(f"{PROGRAM} {__version__}")
    elif "--help-all" in call.switches:
        from minihub import config_render

        _write(f"{HELP}\n{config_render.help_all(_classes())}")
    elif call.switches & {"-h", "--help"}:
        _write(verb_help(verb) if verb.words else HELP)
    else:
        return verb.run(call)
    return 0


def _write(text: str) -> None:
    """Print a text, at once. Raises Unwritable, BrokenPipeError where the reader went away."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _give_up_output()
        raise Unwritable(f"the output cannot be written: {error.strerror}") from error


def say(line: str) -> None:
    _write(line + "\n")


def _show(line: str) -> None:
    """Show a line of the start screen: the hub runs on where nobody can read it."""
    try:
        say(line)
    except Unwritable:
        pass
    except BrokenPipeError:
        _give_up_output()


def _give_up_output() -> None:
    """Let what is printed from now on go nowhere; Python would try again when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _complain(text: str) -> None:
    with suppress(OSError):
        sys.stdout.flush()
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


# -- configuration ---------------------------------------------------------------------------


def _classes() -> list[Any]:
    """Return every class whose options may be given."""
    from minihub.options import COMPANIONS, JupyterHub
    from minihub.traits import import_class

    return [JupyterHub, *(import_class(name) for name in COMPANIONS)]


def load(call: Call, *, strict: bool = False) -> Loaded:
    from minihub import config

    return config.load(_classes(), arguments=call.entries(), strict=strict)


def salvage(call: Call) -> tuple[Loaded, list[str]]:
    """Return what of the configuration can be used, and what is wrong with it."""
    from minihub import config

    return config.salvage(_classes(), arguments=call.entries())


# -- verbs -----------------------------------------------------------------------------------


def _serve(call: Call) -> int:
    if call.is_on("JupyterHub.generate_config"):
        return _generate_config(call)
    if "--classroom" in call.switches:
        loaded = verbs_class.prepare(call)
    elif "--write-config" in call.switches:
        raise UsageError(
            "--write-config goes with --classroom; --generate-config writes all options"
        )
    else:
        loaded = load(call)
    from minihub import app

    return _run_app(app.serve, loaded, _show)


def _run_app(
    function: Callable[[Loaded, Callable[[str], None]], int],
    loaded: Loaded,
    say: Callable[[str], None] = say,
) -> int:
    """Call a function of the app with a checked configuration."""
    from traitlets import TraitError

    try:
        return function(loaded, say)
    except ConfigError as error:
        raise ConfigError([loaded.placed(problem) for problem in error.problems]) from error
    except TraitError as error:
        # Some values can only be judged by the object they are for, when it is made.
        raise ConfigError(loaded.placed(str(error))) from error


def _generate_config(call: Call) -> int:
    from minihub import config, config_render

    target = Path(call.last("JupyterHub.config_file") or config.YAML_FILE)
    suffix = target.suffix.lower()
    if suffix == ".py":
        text = config_render.python_file(_classes())
    elif suffix in config.YAML_SUFFIXES:
        text = config_render.yaml_file(_classes())
    else:
        raise UsageError(f"{target}: the name of a configuration file ends in .yaml, .yml or .py")
    if not target.parent.is_dir():
        raise UsageError(f"{target}: there is no directory {target.parent} to write it to")
    sure = call.is_on("JupyterHub.answer_yes")
    try:
        if target.exists() and not sure and not ask(f"{target} exists. Overwrite it?"):
            say(f"{target} is left as it is.")
            return 0
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{target}: cannot be written: {error.strerror}") from error
    say(f"Wrote {target}. Every option is in it, commented out.")
    return 0


def ask(question: str) -> bool:
    """Return whether the person at the keyboard says yes; no answer is a no."""
    _write(f"{question} [y/N] ")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _admin_link(call: Call) -> int:
    from minihub import manage

    return managed(call, manage.admin_link)


def _config_check(call: Call) -> int:
    if call.words:
        call.add("JupyterHub.config_file", call.words[0], call.words[0])
    loaded = load(call, strict="--strict" in call.switches)
    for warning in loaded.warnings:
        _complain(warning)
    _run_app(_check_parts, loaded)
    say(f"{loaded.file or 'No configuration file'}: no problem found.")
    return 0


def _check_parts(loaded: Loaded, say: Callable[[str], None]) -> int:
    from minihub import startcheck
    from minihub.options import JupyterHub

    startcheck.check(JupyterHub(config=loaded.config))
    return 0


def _config_show(call: Call) -> int:
    from minihub import config_render
    from minihub.options import JupyterHub

    loaded = load(call)
    options = JupyterHub(config=loaded.config)
    in_use = [JupyterHub, options.authenticator_class, options.spawner_class, options.proxy_class]
    text = config_render.in_force(
        loaded.config, loaded.origins, in_use, with_origin="--origin" in call.switches
    )
    for warning in loaded.warnings:
        _complain(warning)
    _write(text)
    return 0


def _options(call: Call) -> int:
    from minihub import config_render

    if len(call.switches) != 1:
        raise UsageError("options needs one of --yaml, --markdown and --overview")
    if "--overview" in call.switches:
        _write(config_render.overview())
        return 0
    render = config_render.yaml_file if "--yaml" in call.switches else config_render.markdown
    _write(render(_classes()))
    return 0


def _sbom(call: Call) -> int:
    """Print the bill of materials, which only a built file holds."""
    from importlib.resources import files

    bill = files("minihub") / "sbom.json"
    if not bill.is_file():
        _complain("Only the built file knows what is in it: python3 build_zipapp.py makes one.")
        return 1
    print(bill.read_text(encoding="utf-8"), end="")
    return 0


def _proxy(call: Call) -> int:
    from minihub.proxy.main import main as proxy_main

    return proxy_main(call.words)


def _cull(call: Call) -> int:
    from minihub.cullverb import main as cull_main

    return cull_main(call.words)


def managed(call: Call, function: Callable[..., int], *args: Any, **kwargs: Any) -> int:
    """Call a function of the verbs for people and servers with a checked configuration."""
    return _run_app(lambda loaded, say: function(loaded, say, *args, **kwargs), load(call))


def _token(call: Call) -> int:
    from minihub import manage

    return managed(
        call,
        manage.token,
        call.words,
        expires_in=call.values.get("--expires-in", ""),
        note=call.values.get("--note", ""),
        scope_names=call.values.get("--scopes", ""),
    )


def _user_add(call: Call) -> int:
    from minihub import manage

    done = managed(call, manage.user_add, call.words, admin="--admin" in call.switches)
    if done == 0 and "--code" in call.switches:
        from minihub import manage_class

        return managed(call, manage_class.one_time_codes, call.words)
    return done


def _user_list(call: Call) -> int:
    from minihub import manage

    return managed(call, manage.user_list, as_json="--json" in call.switches)


def _user_remove(call: Call) -> int:
    from minihub import manage

    return managed(call, manage.user_remove, call.words)


def _user_passwd(call: Call) -> int:
    from minihub import manage

    if "--code" in call.switches:
        from minihub import manage_class

        return managed(call, manage_class.one_time_codes, call.words)
    return managed(call, manage.user_passwd, call.words[0], _ask_password)


def _ask_password() -> str:
    """Return a new password: asked for twice on a terminal, else a line of standard input."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    import getpass

    password = getpass.getpass("New password: ")
    if getpass.getpass("Once more: ") != password:
        raise UsageError("the two were not the same; nothing was changed")
    return password


def _server_list(call: Call) -> int:
    from minihub import manage_servers

    return managed(call, manage_servers.list_servers, as_json="--json" in call.switches)


def _server_start(call: Call) -> int:
    from minihub import manage_servers

    return managed(call, manage_servers.start, *call.words)


def _server_stop(call: Call) -> int:
    from minihub import manage_servers

    return managed(call, manage_servers.stop, *call.words)


def _server_logs(call: Call) -> int:
    from minihub import manage_servers

    follow = bool(call.switches & {"-f", "--follow"})
    try:
        return managed(call, manage_servers.logs, *call.words, follow=follow)
    except KeyboardInterrupt:
        if follow:
            return 0  # there is no other end
        raise


def _upgrade_db(call: Call) -> int:
    from minihub import manage

    return managed(call, manage.upgrade_db, dumped="--dumped" in call.switches)


VERBS = (
    Verb(
        "",
        _serve,
        "Run the hub until it is told to stop.",
        flags={
            "--classroom": "for a class in one room: a class code, no system users needed",
            "--write-config": "with --classroom: write minihub.yaml, so that this stays",
        },
    ),
    Verb("proxy", _proxy, "Run the proxy alone.", raw=True),
    Verb("admin link", _admin_link, "Print a new one-time login for the hub's owner."),
    Verb(
        "config check",
        _config_check,
        "Tell whether the configuration is right; start nothing.",
        flags={"--strict": "take warnings about unknown names in Python files as errors"},
        operand="[FILE]",
        count=(0, 1),
    ),
    Verb(
        "config show",
        _config_show,
        "Show every option in force as YAML, without secrets.",
        flags={"--origin": "also show which file, flag or variable set it"},
    ),
    Verb(
        "options",
        _options,
        "Write all options to standard output.",
        configured=False,
        flags={
            "--yaml": "as a configuration file with everything commented out",
            "--markdown": "as the reference, docs/options.md",
            "--overview": "as the table of the README",
        },
    ),
    Verb(
        "sbom",
        _sbom,
        "Print what the file is made of: each package, its version and licence, as CycloneDX.",
        configured=False,
    ),
    Verb("cull", _cull, "Stop idle servers.", raw=True),
    Verb(
        "token",
        _token,
        "Make an API token, and print it; without USER for the user of your name.",
        flags={
            "--expires-in TIME": "seconds, or such as 30m, 8h, 7d; without it the token stays",
            "--note TEXT": "what it is for",
            "--scopes SCOPES": "what it may do, separated by commas; without: what USER may do",
        },
        operand="[USER]",
        count=(0, MANY),
    ),
    Verb(
        "user add",
        _user_add,
        "Add users.",
        flags={"--admin": "make them admins", "--code": "give each a one-time code, and show it"},
        operand="NAME ...",
        count=(1, MANY),
    ),
    Verb("user list", _user_list, "Show all users.", flags={"--json": "as JSON"}),
    Verb(
        "user rm",
        _user_remove,
        "Delete users, their tokens and servers; their files stay.",
        operand="NAME ...",
        count=(1, MANY),
    ),
    Verb(
        "user passwd",
        _user_passwd,
        "Set a user's password, where the authenticator keeps passwords; ends the user's logins.",
        flags={"--code": "give a one-time code instead, and show it"},
        operand="NAME",
        count=(1, 1),
    ),
    *CLASS_VERBS,
    Verb(
        "server list",
        _server_list,
        "Show the servers that run.",
        flags={"--json": "as JSON"},
    ),
    Verb(
        "server start",
        _server_start,
        "Start a user's server, and wait until it is ready.",
        operand="USER [SERVER]",
        count=(1, 2),
    ),
    Verb(
        "server stop",
        _server_stop,
        "Stop a user's server, and wait until it has ended.",
        operand="USER [SERVER]",
        count=(1, 2),
    ),
    Verb(
        "server logs",
        _server_logs,
        "Show the last lines of what a server wrote.",
        flags={"-f": "go on with what it writes, until Ctrl-C", "--follow": "the same"},
        operand="USER [SERVER]",
        count=(1, 2),
    ),
    Verb(
        "upgrade-db",
        _upgrade_db,
        "Bring the database's schema up to date, after a copy of the file.",
        flags={"--dumped": "go on with a MySQL database: there is a dump of it"},
    ),
    *DATA_VERBS,
)
