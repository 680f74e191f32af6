"""The audit of what is built in: a known weakness fails, an index that says nothing does not."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import audit  # noqa: E402

SOUND = {"name": "bottle", "version": "0.13.4", "vulns": []}
SKIPPED = {"name": "jinja2", "skip_reason": "Dependency not found on PyPI"}
WEAK = {
    "name": "waitress",
    "version": "1.0",
    "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-2024-1"], "fix_versions": ["3.0.1"]}],
}


@pytest.fixture
def program(tmp_path):
    """Return a function that makes a stand-in for pip-audit."""

    def program(lines):
        file = tmp_path / "pip-audit"
        file.write_text("import json, sys, time\n" + lines)
        return [sys.executable, str(file)]

    return program


@pytest.mark.parametrize(
    "packages, code, told",
    [
        ([SOUND], 0, "No known weakness in 1 packages."),
        ([SOUND, WEAK], 1, "waitress 1.0: PYSEC-1 CVE-2024-1, mended in 3.0.1"),
        ([SKIPPED, WEAK], 1, "1 known weaknesses"),
        ([SOUND, SKIPPED], 0, "Not audited: jinja2\nNo known weakness in 1 packages."),
        ([SKIPPED], 0, "Not audited: the index knows nothing of any of 1 packages"),
    ],
)
def test_only_a_known_weakness_fails(program, capsys, packages, code, told):
    said = json.dumps({"dependencies": packages, "fixes": []})
    lines = f"print('WARNING: x', file=sys.stderr)\nprint({said!r})\nsys.exit({code})"
    assert audit.report(audit.ask(program(lines), audit.LOCK)) == code
    assert told in capsys.readouterr().out


@pytest.mark.parametrize(
    "lines, told",
    [
        ("raise ConnectionError('no route')", "no route"),
        ("print('{}')", "pip-audit says"),
        ("sys.exit(1)", "pip-audit says"),
        ("time.sleep(600)", "took more than 1 s"),
    ],
)
def test_service_that_cannot_be_asked_is_said(program, lines, told):
    with pytest.raises(audit.NotAsked, match=told):
        audit.ask(program(lines), audit.LOCK, limit_s=1 if "sleep" in lines else 20)


def test_program_that_cannot_be_installed_is_said(monkeypatch, capsys):
    monkeypatch.setattr(audit, "ENVIRONMENT", "import sys; sys.exit('there is no pip-audit')")
    assert audit.main() == 0
    assert capsys.readouterr().out.startswith("Not audited: pip-audit cannot be installed: there")


def test_the_gate_asks():
    assert '"scripts/audit.py"' in (ROOT / "scripts" / "test.py").read_text()
    assert audit.INSTALL_LIMIT_S + audit.ASK_LIMIT_S < 60
    assert os.access(audit.LOCK, os.R_OK)
