"""The command line: verbs, flags, aliases; what is printed and what a command ends with.

Rules of this file: the only code that prints or chooses an exit code. Verbs, aliases and flags are
rows of the tables below; a new verb is a row and a function. Whatever a verb needs is imported
inside its function, so that ``--version``, ``--help`` and ``proxy`` import the standard library
only. Every MinihubError becomes its message and its exit code; no traceback is shown without
``--debug``.

Threads: the main thread.
Sources: JupyterHub's command line: its aliases, flags and ``--Class.option=value``.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minihub import __version__
from minihub.errors import ConfigError, MinihubError, UsageError

if TYPE_CHECKING:
    from minihub.config import Loaded
    from minihub.config_values import Entry

PROGRAM = "minihub"


@dataclass(frozen=True)
class Verb:
    """One command: the words that call it, the function that runs it, what it takes.

    ``configured`` verbs read the configuration and so take every option; ``flags`` are switches of
    the verb's own; ``operand`` names the one further word it takes, if any. A ``raw`` verb stands
    first and gets the rest of the command line as words, untouched.
    """

    words: str
    run: Callable[[Call], int]
    help: str
    configured: bool = True
    flags: dict[str, str] = field(default_factory=dict)
    operand: str = ""
    raw: bool = False


@dataclass
class Call:
    """A command line taken apart: options in order, switches of the verb, further words."""

    options: list[tuple[str, str, str]] = field(default_factory=list)
    switches: set[str] = field(default_factory=set)
    words: list[str] = field(default_factory=list)

    def add(self, option: str, text: str, where: str) -> None:
        """Note ``Class.option``, the text of its value, and how it was spelled."""
        self.options.append((option, text, where))

    def last(self, option: str) -> str:
        """Return the text last given for an option, or an empty one."""
        return next((text for name, text, _ in reversed(self.options) if name == option), "")

    def is_on(self, option: str) -> bool:
        """Return whether a switch among the options was given and not given as false."""
        return self.last(option).lower() in ("true", "1")

    def entries(self) -> list[Entry]:
        """Return the options as the configuration takes them."""
        from minihub.config_values import Entry

        found = []
        for name, text, where in self.options:
            section, _, option = name.partition(".")
            found.append(Entry(section, option, [text], where, texts=True))
        return found


# -- the tables ------------------------------------------------------------------------------

#: Flags that take a value: name, option.
ALIASES = {
    "-f": "JupyterHub.config_file",
    "--config": "JupyterHub.config_file",
    "--ip": "JupyterHub.ip",
    "--port": "JupyterHub.port",
    "--base-url": "JupyterHub.base_url",
    "--db": "JupyterHub.db_url",
    "--ssl-key": "JupyterHub.ssl_key",
    "--ssl-cert": "JupyterHub.ssl_cert",
    "--pid-file": "JupyterHub.pid_file",
    "--log-file": "JupyterHub.extra_log_file",
    "--log-level": "JupyterHub.log_level",
}

#: Flags that take none: name, option, value.
SWITCHES = {
    "-y": ("JupyterHub.answer_yes", "true"),
    "--debug": ("JupyterHub.log_level", "DEBUG"),
    "--no-db": ("JupyterHub.db_url", "sqlite:///:memory:"),
    "--no-ssl": ("JupyterHub.confirm_no_ssl", "true"),
    "--generate-config": ("JupyterHub.generate_config", "true"),
}

#: Flags that show something and end.
SHOWING = ("-h", "--help", "--help-all", "--version")

HELP = f"""\
Usage: {PROGRAM} [VERB] [FLAGS]

  {PROGRAM}                            run the hub at http://127.0.0.1:8000
  {PROGRAM} --port 80 -f class.yaml    run it as class.yaml says, on port 80
  {PROGRAM} --generate-config          write minihub.yaml with every option in it

Run:      (no verb)                  run the hub until Ctrl-C
          proxy                      run the proxy alone (proxy --help)
People:   admin link                 a new one-time login for the hub's owner
Checks:   config check [FILE]        is the configuration right? (--strict)
          config show                what is in force (--origin: who set it)
          options --yaml|--markdown  every option, as file or reference

Flags:    -f, --config FILE          configuration file (default: minihub.yaml)
          --ip, --port, --base-url   where people reach the hub
          --ssl-key, --ssl-cert      files for TLS; --no-ssl has no effect
          --db URL, --no-db          the database; keep none
          --pid-file, --log-file     further files to write
          --log-level, --debug       how much is logged
          --Class.option=VALUE       any option (--help-all)
          -y                         answer yes to questions
          --generate-config, --version, --help, --help-all
"""


# -- entry -----------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (without the program's name) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except ConfigError as error:
        _complain(str(error))
        count = len(error.problems)
        _complain(f"{count} error{'s' if count > 1 else ''} in the configuration, nothing started.")
        return error.exit_code
    except UsageError as error:
        _complain(f"{PROGRAM}: {error}\nTry: {PROGRAM} --help")
        return error.exit_code
    except MinihubError as error:
        _complain(f"{PROGRAM}: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        return 1
    except BrokenPipeError:
        # Whoever read the output is gone. Python would complain once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
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
    verb, call = parse(arguments)
    if "--version" in call.switches:
        print(f"{PROGRAM} {__version__}")
    elif "--help-all" in call.switches:
        from minihub import config_render

        print(HELP)
        print(config_render.help_all(_classes()), end="")
    elif call.switches & {"-h", "--help"}:
        print(_verb_help(verb), end="")
    else:
        return verb.run(call)
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def _complain(text: str) -> None:
    sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)


# -- taking a command line apart -------------------------------------------------------------

_OPTION = re.compile(r"--\w+\.\w+")
_NUMBER = re.compile(r"-[0-9.]+")


def parse(arguments: Sequence[str]) -> tuple[Verb, Call]:
    """Return the verb and what it was given. Raises UsageError naming the nearest match."""
    call = Call()
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word.startswith("-") and word != "-":
            _take_flag(word, rest, call)
        else:
            call.words.append(word)
    verb = _take_verb(call)
    showing = call.switches & set(SHOWING)
    if verb.raw and not showing:
        raise UsageError(f"{verb.words} has flags of its own and must come first")
    for switch in sorted(call.switches - showing):
        if switch not in verb.flags:
            owners = [other.words for other in VERBS if switch in other.flags]
            raise UsageError(f"{switch} belongs to {' and '.join(owners)}")
    if call.options and not verb.configured and not showing:
        raise UsageError(f"{verb.words} reads no configuration and takes no {call.options[0][2]}")
    if verb.words and call.is_on("JupyterHub.generate_config"):
        raise UsageError(
            f"--generate-config writes a file and ends; {verb.words} cannot be with it"
        )
    if call.words and not (verb.operand and len(call.words) == 1):
        extra = call.words[1 if verb.operand else 0]
        raise UsageError(f'{verb.words or PROGRAM} does not know what to do with "{extra}"')
    return verb, call


def _take_flag(word: str, rest: list[str], call: Call) -> None:
    """Note one flag in ``call``; take its value from ``rest`` if it stands there."""
    name, equals, text = word.partition("=")
    if not name.startswith("--") and len(name) > 2 and name[:2] in ALIASES:
        name, text, equals = word[:2], word[2:].removeprefix("="), "="
    if name in SWITCHES:
        option, value = SWITCHES[name]
        if equals and name != "-y":
            raise UsageError(f"{name} takes no value")
        call.add(option, text if equals else value, name)
    elif name in ALIASES:
        if not equals:
            if not rest or _is_flag(rest[0]):
                raise UsageError(f"{name} needs a value")
            text = rest.pop(0)
        call.add(ALIASES[name], text, name)
    elif _OPTION.fullmatch(name):
        if not equals:
            # A truth value may go without saying: --JupyterHub.debug_db
            text = "true" if not rest or _is_flag(rest[0]) else rest.pop(0)
        call.add(name[2:], text, name)
    elif name in SHOWING or any(name in verb.flags for verb in VERBS):
        if equals:
            raise UsageError(f"{name} takes no value")
        call.switches.add(name)
    else:
        known = [*ALIASES, *SWITCHES, *SHOWING, *(flag for verb in VERBS for flag in verb.flags)]
        raise UsageError(f"unknown flag {name}{_did_you_mean(name, known)}")


def _is_flag(word: str) -> bool:
    return len(word) > 1 and word.startswith("-") and not _NUMBER.fullmatch(word)


def _take_verb(call: Call) -> Verb:
    """Remove the verb's words from ``call.words`` and return the verb."""
    for verb in sorted(VERBS, key=lambda verb: -len(verb.words)):
        words = verb.words.split()
        if words and call.words[: len(words)] == words:
            del call.words[: len(words)]
            return verb
    if not call.words:
        return next(verb for verb in VERBS if not verb.words)
    given = " ".join(call.words[:2])
    first = call.words[0]
    inner = [verb.words for verb in VERBS if verb.words.split()[:1] == [first]]
    if inner and len(call.words) == 1:
        raise UsageError(f"{first} what? One of: {', '.join(inner)}")
    known = [verb.words for verb in VERBS if verb.words]
    near = _did_you_mean(given, known) or _did_you_mean(first, known)
    raise UsageError(f'unknown verb "{given if near else first}"{near}')


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    import difflib

    found = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f'. Did you mean "{found[0]}"?' if found else ""


def _verb_help(verb: Verb) -> str:
    if not verb.words:
        return HELP
    usage = " ".join([PROGRAM, verb.words, *([f"[{verb.operand}]"] if verb.operand else [])])
    lines = [f"Usage: {usage} [FLAGS]", "", verb.help, ""]
    lines += [f"  {flag:<12} {text}" for flag, text in verb.flags.items()]
    if verb.configured:
        lines.append(f"  {'-f FILE':<12} configuration file; all other options as well")
    return "\n".join(lines) + "\n"


# -- configuration ---------------------------------------------------------------------------


def _classes() -> list[Any]:
    """Return every class whose options may be given."""
    from minihub.options import COMPANIONS, JupyterHub
    from minihub.traits import import_class

    return [JupyterHub, *(import_class(name) for name in COMPANIONS)]


def _load(call: Call, *, strict: bool = False) -> Loaded:
    from minihub import config

    return config.load(_classes(), arguments=call.entries(), strict=strict)


# -- verbs -----------------------------------------------------------------------------------


def _serve(call: Call) -> int:
    if call.is_on("JupyterHub.generate_config"):
        return _generate_config(call)
    loaded = _load(call)
    from minihub import app

    return _run_app(app.serve, loaded)


def _run_app(function: Callable[[Loaded, Callable[[str], None]], int], loaded: Loaded) -> int:
    """Call a function of the app with a checked configuration."""
    from traitlets import TraitError

    try:
        return function(loaded, _say)
    except TraitError as error:
        # Some values can only be judged by the object they are for, when it is made.
        raise ConfigError(str(error)) from error


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
    if target.exists() and not sure and not _ask(f"{target} exists. Overwrite it?"):
        _say(f"{target} is left as it is.")
        return 0
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{target}: cannot be written: {error.strerror}") from error
    _say(f"Wrote {target}. Every option is in it, commented out.")
    return 0


def _ask(question: str) -> bool:
    """Return whether the person at the keyboard says yes; no answer is a no."""
    print(f"{question} [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _admin_link(call: Call) -> int:
    loaded = _load(call)
    from minihub import app

    return _run_app(app.admin_link, loaded)


def _config_check(call: Call) -> int:
    if call.words:
        call.add("JupyterHub.config_file", call.words[0], call.words[0])
    loaded = _load(call, strict="--strict" in call.switches)
    for warning in loaded.warnings:
        _complain(warning)
    _say(f"{loaded.file or 'No configuration file'}: no problem found.")
    return 0


def _config_show(call: Call) -> int:
    from minihub import config_render
    from minihub.options import JupyterHub

    loaded = _load(call)
    options = JupyterHub(config=loaded.config)
    in_use = [JupyterHub, options.authenticator_class, options.spawner_class, options.proxy_class]
    text = config_render.in_force(
        loaded.config, loaded.origins, in_use, with_origin="--origin" in call.switches
    )
    for warning in loaded.warnings:
        _complain(warning)
    print(text, end="")
    return 0


def _options(call: Call) -> int:
    from minihub import config_render

    if len(call.switches) != 1:
        raise UsageError("options needs either --yaml or --markdown")
    render = config_render.yaml_file if "--yaml" in call.switches else config_render.markdown
    print(render(_classes()), end="")
    return 0


def _proxy(call: Call) -> int:
    from minihub.proxy.main import main as proxy_main

    return proxy_main(call.words)


VERBS = (
    Verb("", _serve, "Run the hub until it is told to stop."),
    Verb("proxy", _proxy, "Run the proxy alone.", raw=True),
    Verb("admin link", _admin_link, "Print a new one-time login for the owner of a new hub."),
    Verb(
        "config check",
        _config_check,
        "Tell whether the configuration is right; start nothing.",
        flags={"--strict": "take warnings about unknown names in Python files as errors"},
        operand="FILE",
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
        },
    ),
)
