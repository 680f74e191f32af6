"""README.md tells the truth: configuration, files, links and exit codes are right."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from minihub import errors

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def test_configuration_shown_is_right(tmp_path):
    (text,) = re.findall(r"```yaml\n(.*?)```", README, re.S)
    (tmp_path / "minihub.yaml").write_text(text)
    program = [sys.executable, str(ROOT / "minihub" / "__main__.py"), "config", "check", "--strict"]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`((?:minihub|scripts)/[\w./*]+)`", README)))
)
def test_files_named_are_there(path):
    assert list(ROOT.glob(path.rstrip("/")))


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_exit_codes_are_those_of_the_errors():
    told = {int(code) for code in re.findall(r"^\| (\d) \|", README, re.M)}
    kinds = [kind for kind in vars(errors).values() if hasattr(kind, "exit_code")]
    assert told == {0} | {kind.exit_code for kind in kinds}
