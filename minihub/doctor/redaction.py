"""Secrets, and texts without them.

Two ways together: every secret that this hub is known to have (configuration, environment, files,
database) is looked for as it is and in the forms in which it travels (hexadecimal, base64 at any
offset, quoted for URLs, JSON and shells), and whatever looks like a secret is taken away wherever
it stands, since most secrets are not known: tokens are kept as hashes, and servers log what they
like.

Rules of this file: a text that goes through :meth:`Redactor.clean` is never longer known to hold
one; better a harmless word too much than a secret too little. No secret is ever shown or logged.

Threads: any; a :class:`Redactor` never changes once it is made.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus, unquote, urlsplit

from traitlets.config.loader import LazyConfigValue

from .. import readable, runtime
from ..config_values import is_secret
from ..crypto import KEY_VARIABLE
from ..errors import MinihubError

if TYPE_CHECKING:
    from .patient import Patient

REMOVED = "[removed]"
#: Shorter ones are taken away only where they stand as a word: they are in many words.
SHORT = 6
#: What is left of a secret in base64, cut at both ends, must be so long to be told from chance.
SHORTEST_CORE = 8
#: Keys of mappings that are secrets themselves: the tokens of users and services.
_KEYED = ("api_tokens", "service_tokens")
_LISTS = ("keys",)
#: Columns of the database that hold a secret or what is made of one.
_COLUMNS = re.compile(r"hashed|secret|password|auth_state|code|challenge|session_id|state|token")
#: How columns end that only sound like it.
_KEYS = ("_id", "_method")
#: Values that are none, whatever the name.
_HARMLESS = frozenset({"", "null", "{}", "[]", "true", "false", "none", "default", "***"})


# -- what is secret here -------------------------------------------------------------------


def in_config(config: Mapping[str, Any]) -> set[str]:
    """Return the secrets of a configuration, as texts."""
    return {text for text in _values("", config) if text.lower() not in _HARMLESS}


def _values(name: str, value: Any, secret: bool = False) -> Iterator[str]:
    """Yield what is secret in the value of an option or key of this name."""
    secret = secret or is_secret(name)
    if isinstance(value, LazyConfigValue):
        yield from _values(name, value.to_dict(), secret)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if name in _KEYED:
                yield str(key)
            else:
                yield from _values(str(key), inner, secret and not _is_plain(inner))
    elif isinstance(value, (list, tuple, set, frozenset)):
        for inner in value:
            yield from _values("", inner, secret)
    elif isinstance(value, bytes):
        if secret:
            yield value.hex()
            yield value.decode("latin-1")
    elif isinstance(value, str):
        if secret:
            yield value
        elif "://" in value:
            yield from _of_url(value)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float))


def _of_url(url: str) -> Iterator[str]:
    """Yield the password of a URL, also one in its query."""
    try:
        parts = urlsplit(url)
        password = parts.password
    except ValueError:
        return
    if password:
        yield password
        yield unquote(password)
    for pair in parts.query.split("&"):
        name, _, text = pair.partition("=")
        if text and is_secret(name):
            yield text
            yield unquote(text)


#: A key and what follows it on its line, as files write it that nobody could read as a whole.
_ASSIGNED = re.compile(r"""(?m)(?<![\w.])(?=["']?([\w.]+)["']?\]?[ \t]*[:=][ \t]*(.*)$)""")


def in_text(text: str) -> set[str]:
    """Return what stands behind secret names in a file, whatever else is in it."""
    found: set[str] = set()
    lines = text.splitlines()
    for number, line in enumerate(lines):
        for name, rest in _ASSIGNED.findall(line):
            if name.rpartition(".")[2] in _KEYED:
                block = [rest, *_block(lines, number)]
                words = (re.split(r"[:{,]", part)[:-1] for part in block)
                found.update(_bare(word) for part in words for word in part)
            elif is_secret(name) or name in _LISTS:
                for part in [rest, *([] if rest.strip() else _block(lines, number))]:
                    found.update(_scalars(part))
        for url in re.findall(r"\w+://[^\s\"'<>]+", line):
            found.update(_of_url(url))
    return {one for one in found if one.lower() not in _HARMLESS and not one.isdecimal()}


def _block(lines: list[str], number: int) -> Iterator[str]:
    """Yield the lines that belong to the key in one line: those further to the right, and items."""
    own = len(lines[number]) - len(lines[number].lstrip())
    for line in lines[number + 1 :]:
        depth = len(line) - len(line.lstrip())
        if line.strip() and depth <= own and not line.lstrip().startswith("- "):
            return
        yield line.strip()


def _scalars(text: str) -> Iterator[str]:
    """Yield what may be the value on a line: all of it, its words, what stands in quotes."""
    text = text.strip().removeprefix("- ")
    yield _bare(text)
    yield _bare(re.split(r"\s#|[,}]", text)[0])
    for one, other in re.findall(r"""\"([^\"\n]+)\"|'((?:[^'\n]|'')+)'""", text):
        yield one or other.replace("''", "'")


def _bare(text: str) -> str:
    """Return a word without quotes, brackets and what separates it."""
    return text.strip().strip("{}[],").strip().strip("\"'")


def collect(patient: Patient) -> set[str]:
    """Return every secret that can be found at this hub; what cannot be read holds none for us."""
    found = in_config(patient.config)
    for name, value in os.environ.items():
        if is_secret(name) or name in (KEY_VARIABLE, "PGPASSWORD", "MYSQL_PWD"):
            found.update([value, *value.split(";")])
        elif "://" in value:
            found.update(_of_url(value))
    options = patient.options
    for file in _files(patient):
        try:
            raw = file.read_bytes()[: 1024 * 1024]
        except OSError:
            continue
        text = raw.decode("utf-8", "replace")
        if file == Path(options.cookie_secret_file).absolute():
            found.add(text.strip())
        elif "PRIVATE KEY" in text:
            found.update(line for line in text.splitlines() if len(line) > 20 and "-" not in line)
        else:
            found |= in_text(text)
    found |= _in_database(patient)
    return {text for text in found if text.strip() and text.lower() not in _HARMLESS}


def _files(patient: Patient) -> Iterator[Path]:
    options = patient.options
    for name in (options.cookie_secret_file, options.ssl_key):
        if name:
            yield Path(name).absolute()
    if patient.loaded.file is not None:
        yield patient.loaded.file
    yield patient.directory / runtime.ENVIRONMENT_FILE
    if patient.state_dir.is_dir():
        for pattern in ("*.json", "services/*.json", "hub-id"):
            try:
                yield from patient.state_dir.glob(pattern)
            except OSError:
                continue


def _in_database(patient: Patient) -> set[str]:
    """Return hashes, codes and what else of the database is nobody's business."""
    from .. import models

    found: set[str] = set()
    for table in models.TABLES:
        name = table._meta.table_name
        columns = [
            field.column_name
            for field in table._meta.sorted_fields
            if _COLUMNS.search(field.column_name)
            and (field.column_name == "session_id" or not field.column_name.endswith(_KEYS))
        ]
        if not columns:
            continue
        try:
            rows = patient.rows(f"SELECT {', '.join(columns)} FROM {name}")
        except MinihubError:
            continue
        for row in rows:
            for column, value in zip(columns, row, strict=True):
                found.update(_of_column(column, value))
    return found


def _of_column(column: str, value: Any) -> Iterator[str]:
    if not isinstance(value, str) or len(value) < 4:
        return
    if column == "state":  # a spawner's: markers, and whatever a class of others keeps
        try:
            yield from (one for one in _values("", json.loads(value)) if len(one) > SHORT)
        except ValueError:
            return
    else:
        yield value
        if column == "code":
            yield readable.grouped(value)
        if column == "hashed":
            yield from (part for part in re.split(r"[:$]", value) if len(part) >= 16)


# -- texts without -------------------------------------------------------------------------

#: Names behind which a secret stands, in logs, headers, URLs and command lines.
_NAMES = (
    r"[\w-]*(?:password|passwd|pwd|secret|token|api[_-]?key|apikey|access[_-]?key|private[_-]?key|"
    r"credential|signature|auth[_-]?state|_xsrf|session|jupyterhub-[\w-]+)[\w-]*"
)
_PATTERNS = (
    # Whole blocks, then whole headers, before their parts are looked at.
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
                re.DOTALL), REMOVED),
    (re.compile(
        r"(?i)(\"?'?\b(?:set-cookie2?|cookie|authorization|proxy-authorization|x-xsrftoken|"
        r"x-csrftoken)\b\"?'?\s*[:=,]\s*)[^\n]+"), rf"\1{REMOVED}"),
    (re.compile(r"(?i)\b((?:bearer|basic|token)\s+)[\w.~+/=-]{8,}"), rf"\1{REMOVED}"),
    # Links that let somebody in, and codes that people read off a wall.
    (re.compile(r"(?i)([?&](?:owner|code|key|auth|state|ticket|next)=)[^&\s\"'<>]+"),
     rf"\1{REMOVED}"),
    (re.compile(r"(://[^/\s:@\"']*:)[^/\s@\"']+@"), rf"\1{REMOVED}@"),
    (re.compile(rf"(?<![A-Z0-9-])[{readable.ALPHABET}]{{3,4}}(?:-[{readable.ALPHABET}]{{3,4}}){{1,3}}"
                r"(?![A-Z0-9-])"), REMOVED),
    # Hashes as they are stored, and JSON web tokens.
    (re.compile(r"\b(?:sha\d+|scrypt|pbkdf2[\w-]*|argon2\w*|bcrypt)[:$][^\s\"',]+"), REMOVED),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"), REMOVED),
    (re.compile(r"\bgAAAAA[\w=-]{20,}"), REMOVED),
)  # fmt: skip
#: A name, perhaps with quotes, and the value behind it.
_NAMED = re.compile(
    rf"(?i)(?P<head>(?:--?)?(?P<name>{_NAMES})[\"']?(?:\s*[=:]\s*|(?<=\w)\s+(?=[^\s-])))"
    r"(?P<value>\"[^\"\n]*\"|'[^'\n]*'|[^\s&;,\"'})\]]+)"
)
#: Names that say that a cookie or a login follows, whatever else they say.
_SURE = re.compile(r"(?i)jupyterhub-|_xsrf|session[-_]?(id|key)?$|auth_?state")
#: Names of numbers that are about secrets.
_NUMBERED = re.compile(r"(?i)seconds|_s$|expires|lifetime|days|max|min|limit|count|length")
#: Runs of signs of base64 and hexadecimal; what of them is random enough is judged by _is_random.
_RUN = re.compile(r"[A-Za-z0-9+/_=~-]{16,}")
_HEX = re.compile(r"(?=[0-9a-fA-F]*[0-9])(?=[0-9a-fA-F]*[a-fA-F])[0-9a-fA-F]{16,}|[0-9]{24,}")


class Redactor:
    """Takes a hub's secrets, and what looks like some, out of texts."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets for form in _forms(secret)}
        # The long ones first: a short one may be part of them.
        ordered = sorted(forms, key=lambda form: (-len(form), form))
        self._long = [form for form in ordered if len(form) >= SHORT]
        short = "|".join(re.escape(form) for form in ordered if len(form) < SHORT)
        self._short = re.compile(rf"(?<!\w)(?:{short})(?!\w)") if short else None
        self._folded = [(form, form.lower()) for form in self._long]

    def clean(self, text: str) -> str:
        """Return the text without secrets."""
        text = self._known(text)
        for pattern, put in _PATTERNS:
            text = pattern.sub(put, text)
        text = _NAMED.sub(_without_value, text)
        text = _HEX.sub(REMOVED, text)
        return _RUN.sub(lambda found: REMOVED if _is_random(found[0]) else found[0], text)

    def _known(self, text: str) -> str:
        """Return the text without the secrets that are known, in any case of their letters."""
        folded = text.lower()
        for form, low in self._folded:
            if low in folded:
                text = re.sub(re.escape(form), REMOVED, text, flags=re.IGNORECASE)
                folded = text.lower()
        return self._short.sub(REMOVED, text) if self._short else text

    def leaks(self, text: str) -> bool:
        """Return whether a text still holds a secret that is known."""
        folded = text.lower()
        return any(low in folded for _form, low in self._folded)

    def clean_all(self, value: Any) -> Any:
        """Return a value of JSON without secrets in its texts, keys among them."""
        if isinstance(value, str):
            return self.clean(value)
        if isinstance(value, Mapping):
            return {
                self._known(str(key)): REMOVED
                if is_secret(str(key)) and isinstance(inner, str) and inner
                else self.clean_all(inner)
                for key, inner in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [self.clean_all(inner) for inner in value]
        return value


_KINDS = re.compile(r"[a-z]+|[A-Z]+|[0-9]+|[+~=]+")


def _without_value(found: re.Match[str]) -> str:
    """Return a name without the value behind it, where the name is a secret's."""
    name, value = found["name"], found["value"]
    if not (is_secret(name.replace("-", "_")) or _SURE.search(name)):
        return found[0]
    if value.strip("\"'{}[]").lower() in _HARMLESS:
        return found[0]
    if value.isdecimal() and _NUMBERED.search(name):
        return found[0]
    if "=" not in found["head"] and ":" not in found["head"] and "--" not in found["head"]:
        return found[0]  # words of a sentence
    return found["head"] + REMOVED


def _is_random(run: str) -> bool:
    """Return whether a run of signs is more likely drawn than written.

    Paths, module names and words joined by dashes are written; their parts are short or have
    letters of one kind.
    """
    parts = [run] if "+" in run or run.endswith("=") else run.split("/")
    if any(_is_random_part(part) for part in parts):
        return True
    # Base64 that slashes have cut into short pieces.
    kinds = _KINDS.findall(run)
    mixed = any(one.isupper() for one in kinds) and any(one.isdigit() for one in kinds)
    return len(run) >= 32 and mixed and sum(map(len, kinds)) / len(kinds) < 2.2


def _is_random_part(part: str) -> bool:
    core = part.strip("=-_~/")
    if len(core) < 16:
        return False
    digits = sum(sign.isdigit() for sign in core)
    uppers = sum(sign.isupper() for sign in core)
    lowers = sum(sign.islower() for sign in core)
    if not digits and not (uppers and lowers):
        return False
    if digits and not lowers and len(core) >= 20 and core.isalnum():
        return True
    words = re.split(r"[-_]", core)
    longest = max(words, key=len)
    if len(longest) < 12:  # a name such as minihub-backup-2026-11-28-031500
        return False
    if digits and len(longest) >= 24:  # letters of one case, such as base32
        return True
    # What is drawn changes its kind of sign at every second; CamelCase and dates seldom do.
    return len(longest) / len(_KINDS.findall(longest)) < (2.6 if digits else 2.3)


def _forms(secret: str) -> Iterator[str]:
    """Yield a secret in every form in which it may stand in a text."""
    secret = secret.strip("\r\n")
    if not secret:
        return
    yield secret
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield repr(secret)[1:-1]
    yield quote(secret, safe="")
    yield quote_plus(secret)
    if len(secret) < 4:
        return
    for raw in {secret.encode("utf-8", "surrogateescape"), *_decoded(secret)}:
        yield raw.hex()
        yield raw.hex(":")
        yield from _cores(raw)


def _decoded(secret: str) -> Iterator[bytes]:
    """Yield the bytes that a secret in hexadecimal or base64 stands for."""
    if len(secret) < 16:
        return
    try:
        yield bytes.fromhex(secret)
    except ValueError:
        pass
    for altchars in (b"+/", b"-_"):
        try:
            yield base64.b64decode(secret + "=" * (-len(secret) % 4), altchars, validate=True)
        except (binascii.Error, ValueError):
            continue


def _cores(raw: bytes) -> Iterator[str]:
    """Yield what base64 makes of bytes, whatever stands before and after them."""
    for offset in range(3):
        start = (offset * 8 + 5) // 6
        end = (offset + len(raw)) * 8 // 6
        padded = b"\0" * offset + raw
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            core = encode(padded).decode("ascii")[start:end]
            if len(core) >= SHORTEST_CORE:
                yield core
