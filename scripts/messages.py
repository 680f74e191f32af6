#!/usr/bin/env python3
"""Bring the catalogues of the pages up to date: ``minihub/web/locale/LANGUAGE.po``.

Usage: python3 scripts/messages.py [--check]

Finds every marked text: ``_("…")`` and ``{% trans %}`` in the templates, ``Text("…")`` and the
table of scopes in the code.
New texts get an empty translation, texts that are gone go, everything else stays. Then it says what
is still to be translated. ``--check`` changes nothing and fails when there is something to do. It
needs the packages of the tests.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import jinja2  # noqa: E402

from minihub.web import messages  # noqa: E402

PACKAGE = ROOT / "minihub"
LOCALE = PACKAGE / "web" / "locale"
HEADER = """\
# Texts of minihub's pages. Kept current by scripts/messages.py; translate what is empty.
msgid ""
msgstr ""
"Language: {language}\\n"
"MIME-Version: 1.0\\n"
"Content-Type: text/plain; charset=UTF-8\\n"
"Content-Transfer-Encoding: 8bit\\n"
"Plural-Forms: nplurals=2; plural=(n != 1);\\n"
"""

#: Rows of tables in the code whose first argument is a text as well.
ROWS = ("Scope",)

#: A message: its text, and the text for several or "".
Message = tuple[str, str]


def found() -> dict[Message, list[str]]:
    """Return every marked text, with the files it stands in, in a stable order."""
    texts: dict[Message, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*")):
        if path.suffix == ".html":
            marked = _in_template(path)
        elif path.suffix == ".py":
            marked = _in_code(path)
        else:
            continue
        for message in marked:
            places = texts.setdefault(message, [])
            place = str(path.relative_to(ROOT))
            if place not in places:
                places.append(place)
    return texts


def _in_template(path: Path) -> Iterator[Message]:
    environment = jinja2.Environment(extensions=["jinja2.ext.i18n"])
    environment.install_null_translations(newstyle=True)  # type: ignore[attr-defined]
    for _line, _function, message in environment.extract_translations(path.read_text()):
        if isinstance(message, str):
            yield message, ""
        else:  # several arguments; those that are no texts are None
            texts = [part for part in message if part]
            yield texts[0], texts[1] if len(texts) > 1 else ""


def _in_code(path: Path) -> Iterator[Message]:
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        if node.func.id == "Text" or node.func.id in ROWS:
            first = node.args[0]
            if node.func.id in ROWS and not isinstance(first, ast.Constant):
                continue  # a row that the configuration adds
            if not isinstance(first, ast.Constant):
                raise SystemExit(f"{path}:{node.lineno}: a Text is written where it is made")
            yield first.value, ""


def update(language: str, texts: dict[Message, list[str]]) -> tuple[str, list[str]]:
    """Return a language's new file, and what is not translated in it."""
    path = LOCALE / f"{language}.po"
    known = {}
    if path.exists():
        known = {
            (entry["msgid"], entry["msgid_plural"]): entry["msgstr"]
            for entry in messages.entries(path.read_text())
        }
    parts, missing = [HEADER.format(language=language)], []
    for (single, plural), places in sorted(texts.items()):
        forms = known.get((single, plural)) or [""] * (2 if plural else 1)
        if not all(forms):
            missing.append(single)
        lines = [f"#: {place}" for place in places] + [f"msgid {_quoted(single)}"]
        if plural:
            lines.append(f"msgid_plural {_quoted(plural)}")
            lines += [f"msgstr[{n}] {_quoted(form)}" for n, form in enumerate(forms)]
        else:
            lines.append(f"msgstr {_quoted(forms[0])}")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts), missing


def _quoted(text: str) -> str:
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{text}"'


def main() -> int:
    texts = found()
    check = "--check" in sys.argv[1:]
    code = 0
    for language in messages.TRANSLATED:
        path = LOCALE / f"{language}.po"
        text, missing = update(language, texts)
        if not path.exists() or path.read_text() != text:
            if check:
                print(f"{path}: not current; run python3 scripts/messages.py")
                code = 1
            else:
                path.write_text(text)
        for message in missing:
            print(f"{language}: not translated: {message!r}")
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
