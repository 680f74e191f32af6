"""The ``cull`` verb: its options, what it prints, what it ends with.

Rules of this file: like ``cli``, it may print and gives the exit code; an option that is not in
:data:`OPTIONS` does not exist. Standard library only. Without ``--explain`` and with nothing to do
it is silent, so that cron sends no mail.

Threads: the main thread; signal handlers only set an event.
Sources: the options of jupyterhub-idle-culler.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import clock, durations
from .culler import Limits, ServerFacts
from .cullpass import Outcome, Pass
from .errors import MinihubError, NotPermitted, UsageError
from .rest import RestClient

PROGRAM = "minihub cull"


@dataclass(frozen=True)
class Option:
    """One option; ``kind`` is duration, number, text or truth."""

    name: str
    kind: str
    default: Any
    metavar: str
    help: str

    @property
    def attribute(self) -> str:
        return self.name.replace("-", "_")


OPTIONS = (
    Option("url", "text", "", "URL", "the hub's API (default: JUPYTERHUB_API_URL)"),
    Option("token-file", "text", "", "FILE", "holds the token (default: JUPYTERHUB_API_TOKEN)"),
    Option("timeout", "duration", 600, "TIME", "stop servers idle for this long (10m)"),
    Option("max-age", "duration", 0, "TIME", "stop even active ones that run this long (never)"),
    Option("spare-busy", "truth", False, "", "ask idle servers; spare those with a busy kernel"),
    Option("cull-users", "truth", False, "", "also delete users idle for that long"),
    Option("cull-admin-users", "truth", True, "", "admins too (with --cull-users; on)"),
    Option("cull-default-servers", "truth", True, "", "stop default servers (on)"),
    Option("cull-named-servers", "truth", True, "", "stop named servers (on)"),
    Option("remove-named-servers", "truth", False, "", "forget named servers once stopped"),
    Option("cull-every", "duration", 0, "TIME", "go on, one pass each TIME (one pass, then end)"),
    Option("concurrency", "number", 10, "N", "requests at the same time (10)"),
    Option("api-page-size", "number", 0, "N", "users asked for at a time (the hub decides)"),
    Option("dry-run", "truth", False, "", "say what would be done; do nothing"),
    Option("explain", "truth", False, "", "say of each server and user why it stays or goes"),
    Option("json", "truth", False, "", "print one line of JSON for each, and one at the end"),
    Option("help", "truth", False, "", "print this text"),
)

_BY_NAME = {f"--{option.name}": option for option in OPTIONS}
_TRUTHS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def usage() -> str:
    """Return the help text."""
    lines = [
        "Usage: minihub.pyz cull [options]",
        "",
        "One pass over a hub's REST API that stops idle servers, for cron. TIME is a number of",
        "seconds or for instance 10m, 2h, 1d. A switch that is on is turned off by =false.",
        "",
    ]
    for option in OPTIONS:
        left = f"  --{option.name} {option.metavar}".rstrip()
        lines.append(f"{left:<26} {option.help}")
    lines += [
        "",
        "Ends with 0 when the pass is complete, 1 when the hub cannot be reached or a server could",
        "not be stopped, 2 for a wrong option, 6 when the hub refuses the token.",
    ]
    return "\n".join(lines) + "\n"


def parse(argv: Sequence[str]) -> dict[str, Any]:
    """Return the value of every option by attribute. Raises UsageError naming the nearest."""
    values = {option.attribute: option.default for option in OPTIONS}
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        name, equals, text = word.partition("=")
        option = _BY_NAME.get("--help" if name == "-h" else name)
        if option is None:
            raise UsageError(_unknown(word))
        if option.kind == "truth" and not equals:
            # jupyterhub-idle-culler's switches are also written --cull-users True
            text = rest.pop(0) if rest and rest[0].lower() in _TRUTHS else "true"
        elif not equals:
            if not rest:
                raise UsageError(f"{name} needs a value: {name} {option.metavar}")
            text = rest.pop(0)
        values[option.attribute] = _read(option, text)
    return values


def _read(option: Option, text: str) -> Any:
    name = f"--{option.name}"
    if option.kind == "truth":
        if text.lower() not in _TRUTHS:
            raise UsageError(f"{name} is on or off: {name}=true or {name}=false, not {text!r}")
        return _TRUTHS[text.lower()]
    try:
        if option.kind == "duration":
            value = durations.parse(text)
            if option.name == "timeout" and not value:
                raise ValueError("0 would stop servers in the middle of their work")
            return value
        if option.kind == "number":
            value = int(text) if text.isascii() and text.isdigit() else -1
            least = 1 if option.default else 0
            if value < least:
                raise ValueError(f"it takes a whole number, {least} or more, not {text[:40]!r}")
            return value
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from error
    return text


def _unknown(word: str) -> str:
    import difflib

    text = f"unknown option {word!r}" if word.startswith("-") else f"unexpected argument {word!r}"
    near = difflib.get_close_matches(word.partition("=")[0], list(_BY_NAME), 1)
    return f"cull: {text}. Did you mean {near[0]}?" if near else f"cull: {text}"


def client(values: Mapping[str, Any], environ: Mapping[str, str]) -> RestClient:
    """Return the hub's client with address and token from options or environment.

    Raises UsageError when one is missing, NotPermitted when the token's file may not be read.
    """
    url = values["url"] or environ.get("JUPYTERHUB_API_URL", "")
    if not url:
        raise UsageError("where is the hub? Give --url http://HOST:PORT/hub/api, or set "
                         "JUPYTERHUB_API_URL")  # fmt: skip
    path = values["token_file"]
    if not path:
        token = environ.get("JUPYTERHUB_API_TOKEN", "").strip()
        if not token:
            raise UsageError("a token is needed: set JUPYTERHUB_API_TOKEN, or give --token-file")
        return RestClient(url, token)
    try:
        with open(path, encoding="utf-8") as file:
            token = file.read(4096).strip()
    except PermissionError as error:
        raise NotPermitted(f"--token-file: {path} may not be read by this user") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "is no text"
        raise UsageError(f"--token-file: {path}: {reason}") from error
    return RestClient(url, token)


def main(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run the verb with this command line (without the verb) and return its exit code.

    Raises UsageError, RestError or NotPermitted for the caller to tell.
    """
    values = parse(argv)
    if values["help"]:
        print(usage(), end="")
        return 0
    hub = client(values, environ)
    if not values["cull_every"]:
        return _one_pass(hub, values)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stop.set())
    while True:
        try:
            _one_pass(hub, values)
        except NotPermitted:
            raise  # the next pass would be refused as well
        except MinihubError as error:
            print(f"{PROGRAM}: {error}", file=sys.stderr, flush=True)
        if stop.wait(values["cull_every"]):
            return 0


def _one_pass(hub: RestClient, values: Mapping[str, Any]) -> int:
    began = clock.monotonic()
    show = _Show(values)
    work = Pass(
        hub,
        Limits.of(values),
        lambda outcome: show.outcome(outcome, work.due),
        concurrency=values["concurrency"],
        page_size=values["api_page_size"],
        dry_run=values["dry_run"],
    )
    try:
        work.run()
    finally:
        show.clear()
    show.summary(clock.monotonic() - began)
    return show.exit_code()


class _Show:
    """Prints what a pass reports: lines on standard output, the progress on a terminal."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._json = values["json"]
        self._explain = values["explain"]
        self._dry_run = values["dry_run"]
        self._counts: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
        self._progress = sys.stderr.isatty() and not self._json
        self._acted = 0

    def outcome(self, outcome: Outcome, due: int) -> None:
        """Show one server or user; ``due`` is how many there are to stop or delete."""
        self._counts[outcome.is_server][outcome.action] += 1
        if self._json:
            print(json.dumps(outcome.as_json()), flush=True)
            return
        kept = outcome.action == "kept"
        if self._explain or not kept:
            self.clear()
            bad = outcome.action in ("failed", "refused")
            print(self._line(outcome), file=sys.stderr if bad else sys.stdout, flush=True)
        if self._progress and not kept and due:
            self._acted += 1
            print(f"\r{PROGRAM}: {self._acted} of {due}", end="", file=sys.stderr, flush=True)

    def _line(self, outcome: Outcome) -> str:
        facts = outcome.facts
        name = facts.full_name if isinstance(facts, ServerFacts) else f"user {facts.name}"
        name = "".join(c if c.isprintable() else "?" for c in name)
        line = f"{outcome.action:<12} {name}: {outcome.problem or outcome.verdict.why}"
        if self._explain:
            moments = [
                f"{words} {getattr(facts, key):%Y-%m-%d %H:%M:%S} UTC"
                for key, words in (
                    ("last_activity", "last activity"),
                    ("started", "started"),
                    ("created", "created"),
                )
                if getattr(facts, key, None)
            ]
            line += f" ({', '.join(moments)})" if moments else ""
        return line

    def clear(self) -> None:
        """Take the progress off the terminal."""
        if self._progress:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def summary(self, took_s: float) -> None:
        """Say what the pass came to, when something happened or somebody asked."""
        servers, users = self._counts[True], self._counts[False]
        if self._json:
            facts = {"event": "pass", "dry_run": self._dry_run, "took_s": round(took_s, 3)}
            print(json.dumps(facts | {"servers": servers, "users": users}), flush=True)
            return
        happened = any(set(counts) - {"kept"} for counts in (servers, users))
        if not (happened or self._explain or self._dry_run or self._progress):
            return
        parts = []
        for what, counts in (("server", servers), ("user", users)):
            total = sum(counts.values())
            if total or what == "server":
                told = ", ".join(f"{count} {action}" for action, count in sorted(counts.items()))
                parts.append(
                    f"{total} {what}{'' if total == 1 else 's'}" + f" ({told})" * bool(told)
                )
        print(f"{', '.join(parts)} in {took_s:.1f} s", flush=True)

    def exit_code(self) -> int:
        """Return what the verb ends with after this pass."""
        actions = set(self._counts[True]) | set(self._counts[False])
        if "refused" in actions:
            return NotPermitted.exit_code
        return MinihubError.exit_code if "failed" in actions else 0
