"""The verb ``doctor``: makes every check, tells what it found, says by its exit code how it is.

Rules of this file: a check that raises, or takes too long, is a finding and not the end. Nothing is
printed here: ``say`` shows a text.

Threads: the main thread; each check has a thread of its own, which is left behind when it hangs.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from traitlets import TraitError

from .. import __version__, clock
from ..config import Loaded
from ..errors import ConfigError, MinihubError, NotPermitted, UsageError
from . import helpfile, of_config, of_database, of_files, of_machine, of_network, of_running, report
from .finding import CHECKS, Check, Finding, Level, Word, fail, unseen
from .patient import NotThere, Patient

#: Where the checks are, in the order in which they are made.
_ORDER = [
    one.__name__ for one in (of_config, of_files, of_database, of_running, of_network, of_machine)
]
#: The check whose failure explains those of others.
PERMISSION = "permission"


def doctor(
    loaded: Loaded,
    problems: list[str],
    say: Callable[[str], None],
    *,
    as_json: bool = False,
    everything: bool = False,
    quiet: bool = False,
    skip: str = "",
    bundle: str = "",
) -> int:
    """Make every check and tell; return 0, 1 where one failed, 6 where this user may not look.

    ``skip`` names checks that are left out, separated by commas. ``bundle`` is the file for a help
    thread to write. ``quiet`` tells nothing where nothing has failed or is about to.
    """
    left_out = _read_ids(skip)
    target = _target(bundle) if bundle else None
    patient = Patient(loaded, problems)
    findings = examine(patient, left_out)
    if as_json:
        say(json.dumps(_facts(patient, findings), indent=2))
    elif not quiet or any(one.level in (Level.WARN, Level.FAIL) for one in findings):
        say(report.as_text(patient, findings, everything=everything))
    if target is not None:
        names = helpfile.write(patient, findings, target)
        if not as_json:
            say(
                f"{target}: {len(names)} files, searched for secrets. It holds names, addresses "
                "and logs:\nlook through it before you show it to others."
            )
    return exit_code(findings)


def exit_code(findings: Iterable[Finding]) -> int:
    """Return what a command ends with that has found this."""
    failed = {one.check.id for one in findings if one.level is Level.FAIL}
    if PERMISSION in failed:
        return NotPermitted.exit_code
    return 1 if failed else 0


def _read_ids(text: str) -> set[str]:
    wanted = {word.strip() for word in text.split(",") if word.strip()}
    unknown = sorted(wanted - set(CHECKS))
    if unknown:
        raise UsageError(f"--skip: there is no check {unknown[0]}; there are {', '.join(CHECKS)}")
    return wanted


def _target(name: str) -> Path:
    target = Path(name).absolute()
    if target.suffix != ".zip":
        target = target.with_name(f"{target.name}.zip")
    if target.exists():
        raise UsageError(f"{target} exists; give another name")
    if not target.parent.is_dir():
        raise UsageError(f"there is no directory {target.parent} to write {target.name} to")
    return target


def _facts(patient: Patient, findings: Sequence[Finding]) -> dict[str, Any]:
    return {
        "minihub": __version__,
        "directory": str(patient.directory),
        "time": clock.now_text(),
        "exit_code": exit_code(findings),
        "checks": [one.facts() for one in findings],
    }


# -- making checks -------------------------------------------------------------------------


def all_checks() -> list[Check]:
    """Return every check, in order."""
    return sorted(CHECKS.values(), key=lambda one: _ORDER.index(one.look.__module__))


def examine(patient: Patient, left_out: Iterable[str] = ()) -> list[Finding]:
    """Make every check but those left out; what is found in the order of the checks."""
    first = CHECKS[PERMISSION]
    may = _make(first, patient)
    found = []
    for one in all_checks():
        if one.id in left_out:
            continue
        found.append(may if one is first else _make(one, patient))
    if may.level is Level.FAIL:  # the others could only say the same
        found = [one if one is may else _quieter(one) for one in found]
    return found


def _quieter(finding: Finding) -> Finding:
    """Return a finding without failures that only say that somebody may not look."""
    words = tuple(
        Word(Level.UNSEEN, word.what) if "may not be" in word.what else word
        for word in finding.words
    )
    return Finding(finding.check, words)


def _make(one: Check, patient: Patient) -> Finding:
    """Make one check, and wait for it as long as it may take."""
    words: list[Word] = []

    def look() -> None:
        try:
            for word in one.look(patient):
                words.append(word)
        except NotThere as error:
            words.append(Word(Level.FINE, str(error)))
        except NotPermitted as error:
            words.append(unseen(str(error)))
        except PermissionError as error:
            words.append(unseen(f"{error.filename} may not be read by this user"))
        except (ConfigError, TraitError) as error:
            words.append(unseen(f"the configuration is wrong: {str(error).splitlines()[0]}"))
        except MinihubError as error:
            words.append(unseen(str(error)))
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            words.append(unseen(f"{where}{error.strerror or error}"))
        except Exception as error:  # whatever is broken here must not keep the others from looking
            words.append(unseen(f"the check itself failed ({type(error).__name__}: {error})"))

    thread = threading.Thread(target=look, name=f"check-{one.id}", daemon=True)
    thread.start()
    thread.join(one.patience_s)
    if thread.is_alive():
        words = [*words, fail(f"no answer within {one.patience_s:g} s; a disk or a name server "
                              "does not respond")]  # fmt: skip
    return Finding(one, tuple(words))
