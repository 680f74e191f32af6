"""The first file that runs, under whatever Python somebody has."""

import ast
import sys
from pathlib import Path

import pytest

from minihub import _bootstrap

PACKAGE = Path(_bootstrap.__file__).parent


@pytest.mark.parametrize("version", [(2, 7, 18), (3, 6, 0), (3, 9, 18)])
def test_python_older_than_3_10_is_named_with_its_path(version):
    line = _bootstrap.unsupported(version, "linux")
    assert line.startswith("Python " + ".".join(map(str, version)) + " is too old")
    assert "Python 3.10 or newer" in line and sys.executable in line
    assert "\n" not in line


@pytest.mark.parametrize("version", [(3, 10, 0), (3, 13, 1), (4, 0, 0)])
@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_python_3_10_and_newer_is_supported(version, platform):
    assert _bootstrap.unsupported(version, platform) is None


def test_windows_is_refused_whatever_the_python():
    for version in ((2, 7, 18), (3, 12, 1)):
        line = _bootstrap.unsupported(version, "win32")
        assert line.startswith("Windows is not supported") and "WSL" in line
        assert "\n" not in line


def test_this_python_is_supported():
    assert _bootstrap.unsupported() is None


@pytest.mark.parametrize("name", ["_bootstrap.py", "__main__.py", "__init__.py"])
def test_first_files_have_no_syntax_that_old_pythons_lack(name):
    """They must get as far as saying that the Python is too old."""
    source = (PACKAGE / name).read_bytes()
    assert source.isascii()  # Python 2 wants a declaration otherwise
    for node in ast.walk(ast.parse(source)):
        assert not isinstance(
            node, (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.Match, ast.AsyncFunctionDef)
        ), node.lineno
        if isinstance(node, ast.FunctionDef):
            assert node.returns is None, node.lineno
            arguments = node.args
            assert not arguments.kwonlyargs and not arguments.posonlyargs, node.lineno
            assert all(argument.annotation is None for argument in arguments.args), node.lineno
        if isinstance(node, ast.ImportFrom):
            assert node.module != "__future__"
