"""A command line taken apart: verbs, their flags, options, further words.

Rules of this file: it knows how a command line is written, not which verbs there are: those are
rows of a table that it is given. Nothing is printed, nothing configured. Standard library only.

Threads: the main thread.
Sources: JupyterHub's command line: its aliases, flags and ``--Class.option=value``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from minihub.errors import UsageError

if TYPE_CHECKING:
    from minihub.config_values import Entry

PROGRAM = "minihub"
#: As many words as anybody likes.
MANY = 10**6


@dataclass(frozen=True)
class Verb:
    """One command: the words that call it, the function that runs it, what it takes.

    ``configured`` verbs read the configuration and so take every option. ``flags`` are the verb's
    own: a switch by its name, a flag with a value as ``--note TEXT``; behind the verb's words they
    hide general flags of the same name. ``operand`` names the further words it takes, ``count``
    says how many, from and to. A ``raw`` verb stands first and gets the rest of the command line
    as words, untouched.
    """

    words: str
    run: Callable[[Call], int]
    help: str
    configured: bool = True
    flags: dict[str, str] = field(default_factory=dict)
    operand: str = ""
    count: tuple[int, int] = (0, 0)
    raw: bool = False

    def takes(self) -> dict[str, str]:
        """Return the verb's own flags with the name of their value, empty for a switch."""
        return {flag.partition(" ")[0]: flag.partition(" ")[2] for flag in self.flags}


@dataclass
class Call:
    """A command line taken apart: options in order, the verb's own flags, further words."""

    options: list[tuple[str, str, str]] = field(default_factory=list)
    switches: set[str] = field(default_factory=set)
    values: dict[str, str] = field(default_factory=dict)
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
    "--url": "JupyterHub.bind_url",
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
    "--upgrade-db": ("JupyterHub.upgrade_db", "true"),
}

#: JupyterHub's flags for options that we do not have: they are refused with the reason.
REFUSED = {
    "--generate-certs": "JupyterHub.generate_certs",
}

#: Flags that show something and end.
SHOWING = ("-h", "--help", "--help-all", "--version")


# -- taking a command line apart -------------------------------------------------------------

_OPTION = re.compile(r"--\w+\.\w+")
_NUMBER = re.compile(r"-[0-9.]+")


def parse(arguments: Sequence[str], verbs: Sequence[Verb]) -> tuple[Verb, Call]:
    """Return the verb and what it was given. Raises UsageError naming the nearest match.

    ``verbs`` are all there are; the one without words is meant when none is named.
    """
    call = Call()
    rest = list(arguments)
    if rest[:1] == ["help"]:  # another way of many programs to ask for it
        rest = [*rest[1:], "--help"]
    while rest:
        word = rest.pop(0)
        if word.startswith("-") and word != "-":
            _take_flag(word, rest, call, verb_in(call.words, verbs), verbs)
        else:
            call.words.append(word)
    verb = _take_verb(call, verbs)
    showing = call.switches & set(SHOWING)
    if verb.raw and not showing:
        raise UsageError(f"{verb.words} has flags of its own and must come first")
    for flag in sorted((call.switches - showing) | set(call.values)):
        if flag not in verb.takes():
            owners = [other.words or "the start" for other in verbs if flag in other.takes()]
            raise UsageError(f"{flag} belongs to {' and '.join(owners)}")
    if call.options and not verb.configured and not showing:
        raise UsageError(f"{verb.words} reads no configuration and takes no {call.options[0][2]}")
    if verb.words and call.is_on("JupyterHub.generate_config"):
        raise UsageError(
            f"--generate-config writes a file and ends; {verb.words} cannot be with it"
        )
    least, most = verb.count
    if len(call.words) > most:
        extra = call.words[most]
        raise UsageError(f'{verb.words or PROGRAM} does not know what to do with "{extra}"')
    if len(call.words) < least and not showing:
        raise UsageError(f"{verb.words} needs {verb.operand}")
    return verb, call


def _take_flag(
    word: str, rest: list[str], call: Call, verb: Verb | None, verbs: Sequence[Verb]
) -> None:
    """Note one flag in ``call``; take its value from ``rest`` if it stands there.

    ``verb`` is the one it stands behind, if that is known by now.
    """
    own = verb.takes() if verb else {}
    name, equals, text = word.partition("=")
    if name in own:
        _take_own(name, own[name], text if equals else None, rest, call)
        return
    if not name.startswith("--") and len(name) > 2 and name[:2] in ALIASES:
        name, text, equals = word[:2], word[2:].removeprefix("="), "="
    if name in SWITCHES:
        option, value = SWITCHES[name]
        if equals and name != "-y":
            raise UsageError(f"{name} takes no value")
        call.add(option, text if equals else value, name)
    elif name in REFUSED:
        call.add(REFUSED[name], "true", name)
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
    else:
        known = {flag: value for verb in verbs for flag, value in verb.takes().items()}
        known |= dict.fromkeys(SHOWING, "")
        if name not in known:
            near = _did_you_mean(name, [*ALIASES, *SWITCHES, *(own if verb else known)])
            if own and not near:
                near = f"; {verb.words} takes {', '.join(own)}"
            raise UsageError(f"unknown flag {name}{near}")
        _take_own(name, known[name], text if equals else None, rest, call)


def _take_own(name: str, value: str, text: str | None, rest: list[str], call: Call) -> None:
    """Note a flag that is no option; ``value`` names what it takes, empty for a switch."""
    if not value:
        if text is not None:
            raise UsageError(f"{name} takes no value")
        call.switches.add(name)
        return
    if text is None:
        if not rest or _is_flag(rest[0]):
            raise UsageError(f"{name} needs a value")
        text = rest.pop(0)
    call.values[name] = text


def _is_flag(word: str) -> bool:
    return len(word) > 1 and word.startswith("-") and not _NUMBER.fullmatch(word)


def verb_in(words: Sequence[str], verbs: Sequence[Verb]) -> Verb | None:
    """Return the verb that these words begin with, if any."""
    for verb in sorted(verbs, key=lambda verb: -len(verb.words)):
        if verb.words and list(words[: verb.words.count(" ") + 1]) == verb.words.split():
            return verb
    return None


def _take_verb(call: Call, verbs: Sequence[Verb]) -> Verb:
    """Remove the verb's words from ``call.words`` and return the verb."""
    verb = verb_in(call.words, verbs)
    if verb is not None:
        del call.words[: verb.words.count(" ") + 1]
        return verb
    if not call.words:
        return next(verb for verb in verbs if not verb.words)
    given = " ".join(call.words[:2])
    first = call.words[0]
    inner = [verb for verb in verbs if verb.words.split()[:1] == [first]]
    if inner and len(call.words) == 1:
        if call.switches & {"-h", "--help"}:
            return _family(call.words.pop(), inner)
        words = ", ".join(verb.words for verb in inner)
        raise UsageError(f"{first} what? One of: {words}")
    if inner:
        words = [verb.words for verb in inner]
        near = _did_you_mean(call.words[1], [one.split()[1] for one in words])
        near = near.replace('"', f'"{first} ', 1) or f". One of: {', '.join(words)}"
        raise UsageError(f'unknown verb "{given}"{near}')
    known = [verb.words for verb in verbs if verb.words]
    near = _did_you_mean(given, known) or _did_you_mean(first, known)
    raise UsageError(f'unknown verb "{given if near else first}"{near}')


def _family(first: str, inner: Sequence[Verb]) -> Verb:
    """Return what stands for all verbs that begin with the same word, to have its help shown."""
    return Verb(
        first,
        inner[0].run,
        "One of these; each with --help says more:",
        configured=False,
        flags={verb.words: verb.help.partition("\n")[0] for verb in inner},
        operand="...",
    )


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    import difflib

    by_letters = {one.lstrip("-"): one for one in known}  # dashes make nothing alike
    found = difflib.get_close_matches(name.lstrip("-"), by_letters, n=1, cutoff=0.6)
    return f'. Did you mean "{by_letters[found[0]]}"?' if found else ""


def verb_help(verb: Verb) -> str:
    """Return the help of a verb that has words."""
    usage = " ".join([PROGRAM, verb.words, *([verb.operand] if verb.operand else [])])
    lines = [f"Usage: {usage} [FLAGS]", "", verb.help, ""]
    lines += [f"  {flag:<18} {text}" for flag, text in verb.flags.items()]
    if verb.configured:
        lines.append(f"  {'--config FILE':<18} configuration file; all other options as well")
    return "\n".join(lines) + "\n"
