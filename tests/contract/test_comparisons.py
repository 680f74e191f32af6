"""Secrets are compared in constant time: never with ``==``."""

import ast
import hmac
import re
from pathlib import Path

from minihub import signing, tokens

PACKAGE = Path(__file__).resolve().parents[2] / "minihub"

SECRET = re.compile(r"(^|_)(secret|token|password|digest|hashed|mac|signature|xsrf|cookie)$")
#: Comparisons of what only sounds like a secret: file, and the text of the comparison.
HARMLESS = {
    ("bundle.py", "hashlib.sha256(data).hexdigest() != digest"),
    ("cli.py", "getpass.getpass('Once more: ') != password"),
    ("auth/simple.py", "password == getattr(self, other)"),
    ("warm.py", "self.signature == signature(self.plan.command)"),
}


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        is_column = isinstance(node.value, ast.Name) and node.value.id[0].isupper()
        return "" if is_column else node.attr  # a query of the database compares there
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Call):
        return _name(node.func)
    return ""


def comparisons(source: str):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.Eq, ast.NotEq)):
            sides = [node.left, *node.comparators]
            compared = [one for one in sides if not isinstance(one, ast.Constant)]
            if len(compared) > 1 and any(SECRET.search(_name(one)) for one in sides):
                yield ast.unparse(node)


def test_no_secret_is_compared_with_equality():
    found = {
        (path.relative_to(PACKAGE).as_posix(), text)
        for path in PACKAGE.rglob("*.py")
        for text in comparisons(path.read_text())
    }
    assert found == HARMLESS


def test_lint_finds_one():
    assert list(comparisons("if given == self.token: pass")) == ["given == self.token"]
    assert list(comparisons("x = expected_digest() != digest")) == ["expected_digest() != digest"]
    assert list(comparisons("x = token == ''")) == []


def test_what_compares_secrets_for_all_takes_the_same_time_for_any(monkeypatch):
    """The functions that everything else compares secrets with."""
    compared = []

    def compare(one, other):
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    signed = signing.sign(b"key", "name", "value")
    hashed = tokens.hash_password("a love supreme")
    for check in (
        lambda: tokens.same_secret("one", "one"),
        lambda: tokens.check_token("token", tokens.hash_token("token")),
        lambda: tokens.check_password("a love supreme", hashed),
        lambda: signing.unsign(b"key", "name", signed, max_age_days=1) == "value",
    ):
        compared.clear()
        assert check() and len(compared) == 1
