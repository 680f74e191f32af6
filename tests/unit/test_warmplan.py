"""Which programs there can be warm parents of, and by which interpreter they run."""

from __future__ import annotations

import os
import shutil
import sys

import pytest

from minihub import warm
from minihub.warmplan import NotWarm

PATH = f"{os.path.dirname(sys.executable)}:/usr/bin:/bin"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("#!/bin/sh\nexec python3\n", "is no Python program"),
        ("\x7fELF", "is no Python program"),
        ("#!/usr/bin/perl\n", "is no Python program"),
        ("#!/usr/bin/python3 -s -E\n", "unusual"),
        ("#!/usr/bin/python3 script\n", "unusual"),
    ],
)
def test_program_that_is_no_python_program_is_refused(text, reason, tmp_path):
    file = tmp_path / "program"
    file.write_text(text)
    file.chmod(0o755)
    with pytest.raises(NotWarm, match=reason):
        warm.find_command(str(file), PATH)


def test_interpreter_is_found_in_every_form_that_installers_write(tmp_path):
    file = tmp_path / "program"
    python = shutil.which("python3", path="/usr/bin:/bin")

    def command(text):
        file.write_text(text)
        file.chmod(0o755)
        found = warm.find_command("program", f"{tmp_path}:/usr/bin:/bin")
        assert found.script == str(file)
        return [found.interpreter, *found.flags]

    assert command("#!/opt/x/bin/python3.11\n") == ["/opt/x/bin/python3.11"]
    assert command("#!/opt/x/bin/python -sE\n") == ["/opt/x/bin/python", "-sE"]
    assert command("#!/usr/bin/env python3\n") == [python]
    long = "#!/bin/sh\n'''exec' /very/long/python3 \"$0\" \"$@\"\n' '''\n"
    assert command(long) == ["/very/long/python3"]
    spaced = "#!/bin/sh\n'''exec' \"/with space/python3\" -I \"$0\" \"$@\"\n' '''\n"
    assert command(spaced) == ["/with space/python3", "-I"]
    with pytest.raises(NotWarm, match="no file with an absolute path"):
        warm.find_command("no-such-program", PATH)
