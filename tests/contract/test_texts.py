"""What people read goes through the catalogue: no sentence of a page is a bare text in the code."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from minihub import errors

PACKAGE = Path(errors.__file__).parent
#: Errors whose text a page shows, and all that are derived from them.
SHOWN = ("RequestError", "SpawnError", "AuthError", "InvalidUser")
#: What pages are given under these names is shown as well; so is what is noted on a server.
KEYWORDS = {
    "error", "hint", "login_error", "message", "notice_error", "token_error", "user_error",
    "delete_error",
}  # fmt: skip
#: Calls of the API answer programs, which compare texts: those stay English.
PROGRAMS_ONLY = "api_"


def modules() -> Iterator[Path]:
    for path in sorted(PACKAGE.rglob("*.py")):
        if not path.name.startswith(PROGRAMS_ONLY) and path.parent.name != "proxy":
            yield path


def shown_errors() -> set[str]:
    """Return the names of all error classes whose text people read."""
    parents: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                names = {base.id for base in node.bases if isinstance(base, ast.Name)}
                parents.setdefault(node.name, set()).update(names)
    found = set(SHOWN)
    while more := {name for name, bases in parents.items() if bases & found} - found:
        found |= more
    return found


def is_bare(node: ast.expr) -> bool:
    """Return whether an expression is a sentence written as an ordinary text."""
    if isinstance(node, ast.JoinedStr):
        return True
    if isinstance(node, ast.IfExp):
        return is_bare(node.body) or is_bare(node.orelse)
    if isinstance(node, ast.BinOp):
        return is_bare(node.left) or is_bare(node.right)
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value


def bare_texts(path: Path, classes: set[str]) -> Iterator[str]:
    """Yield what people would read in English only, each with its place."""
    tree = ast.parse(path.read_text())
    in_class = {
        id(node)
        for one in ast.walk(tree)
        if isinstance(one, ast.ClassDef) and one.name in classes
        for node in ast.walk(one)
    }
    for node in ast.walk(tree):
        found: list[ast.expr] = []
        if isinstance(node, ast.Call):
            function = node.func
            name = getattr(function, "id", getattr(function, "attr", ""))
            tells = name in classes or name == "note" and len(node.args) == 1
            if tells or name == "__init__" and id(node) in in_class:
                found += node.args[:1]
            if path.parent.name == "web" or name in classes:
                found += [word.value for word in node.keywords if word.arg in KEYWORDS]
        elif isinstance(node, ast.Dict) and path.parent.name != "web":
            found += [
                value
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant) and key.value == "message"
            ]
        for one in found:
            if is_bare(one):
                yield f"{path.relative_to(PACKAGE)}:{one.lineno}: {ast.unparse(one)[:100]}"


def test_every_sentence_that_people_read_is_told_in_their_language():
    """Write it as ``Text("…")``, then run ``python3 scripts/messages.py`` and translate it."""
    classes = shown_errors() - {"NeedsLogin"}  # whose answer is the login page
    assert {"BadRequest", "TooMany", "ExitedEarly", "NotAllowed", "CommandNotFound"} <= classes
    assert [text for path in modules() for text in bare_texts(path, classes)] == []


@pytest.mark.parametrize(
    ("source", "is_found"),
    [
        ('raise BadRequest("No way.")', True),
        ('raise BadRequest(f"{name} is wrong")', True),
        ('raise BadRequest("a b" if x else Text("c"))', True),
        ('raise SpawnError(Text("No way."), hint="Try again.")', True),
        (
            'class Late(AuthError):\n    def __init__(self):\n        super().__init__("Too late")',
            True,
        ),
        ('server.note("It was ended.")', True),
        ('raise BadRequest(Text("No way."))', False),
        ("raise BadRequest(problem)", False),
        ('raise ConfigError("the file is wrong")', False),
    ],
)
def test_bare_sentences_are_noticed(tmp_path, source, is_found, monkeypatch):
    path = tmp_path / "room.py"
    path.write_text(source)
    monkeypatch.setattr(importlib.import_module(__name__), "PACKAGE", tmp_path)
    classes = {"BadRequest", "SpawnError", "AuthError", "Late"}
    assert bool(list(bare_texts(path, classes))) is is_found


#: Functions that return a sentence, or the end of one, for a page.
TELLERS = {
    "auth/classnames.py": {"chosen_name_problem"},
    "auth/classroom.py": {"why_no_name", "why_no_password"},
    "auth/names.py": {"name_problem"},
    "limits.py": {"_roughly"},
    "local.py": {"how_to_install"},
    "people.py": {"group_name_problem", "_stopping"},
    "readiness.py": {"describe_exit", "exit_hint", "silence_hint"},
    "scopes.py": {"problem", "_narrowed"},
    "throttle.py": {"in_words"},
    "urls.py": {"server_name_problem"},
    "web/api_servers.py": {"_display_name_problem"},
    "web/login.py": {"_unfit_owner"},
    "web/phrases.py": {"of"},
}


@pytest.mark.parametrize("module", TELLERS)
def test_functions_that_complete_a_sentence_return_marked_texts(module):
    functions = {
        node.name: node
        for node in ast.walk(ast.parse((PACKAGE / module).read_text()))
        if isinstance(node, ast.FunctionDef) and node.name in TELLERS[module]
    }
    assert set(functions) == TELLERS[module]
    returned = [
        node.value
        for function in functions.values()
        for node in ast.walk(function)
        if isinstance(node, ast.Return) and node.value is not None
    ]
    assert [ast.unparse(one) for one in returned if is_bare(one)] == []
    assert any("Text(" in ast.unparse(function) for function in functions.values())
