"""Reading jupyterhub_config.py: what it may do, and how its mistakes are told."""

import pytest
from traitlets.config import Config
from traitlets.config.loader import LazyConfigValue

from minihub import config_python


@pytest.fixture
def read(tmp_path):
    def read(text, **others):
        for name, content in others.items():
            (tmp_path / f"{name}.py").write_text(content)
        path = tmp_path / "hub_config.py"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return config_python.read(path, "hub_config.py")

    return read


def values(entries):
    return {entry.name: entry.value for entry in entries}


def places(entries):
    return {entry.name: entry.where for entry in entries}


def test_assignments_are_collected_with_their_lines(read):
    entries, problems, warnings, _ = read(
        "c = get_config()\n\nc.JupyterHub.port = 80\nc.Spawner.args.append('-x')\n"
        "c['Spawner']['cmd'] = 'y'\nfor name in ('ip', 'hub_ip'):\n"
        "    setattr(c.JupyterHub, name, '::1')\n"
    )
    assert (problems, warnings) == ([], [])
    assert places(entries) == {
        "JupyterHub.port": "hub_config.py:3",
        "Spawner.args": "hub_config.py:4",
        "Spawner.cmd": "hub_config.py:5",
        "JupyterHub.ip": "hub_config.py:7",
        "JupyterHub.hub_ip": "hub_config.py:7",
    }
    assert isinstance(values(entries)["Spawner.args"], LazyConfigValue)
    assert all(entry.lenient for entry in entries)


def test_last_assignment_is_the_place(read):
    entries, *_ = read("c.A.x = 1\nc.A.x = 2\n")
    assert places(entries) == {"A.x": "hub_config.py:2"}


def test_update_and_merge_are_collected(read):
    entries, *_ = read(
        "from traitlets.config import Config\n"
        "c.A.update({'x': 1})\n"
        "c.merge(Config({'B': {'y': 2}}))\n"
    )
    assert values(entries) == {"A.x": 1, "B.y": 2}
    assert places(entries) == {"A.x": "hub_config.py:2", "B.y": "hub_config.py:3"}


def test_reading_an_option_sets_nothing(read):
    entries, *_ = read("if c.JupyterHub.port or 'x' in c.Spawner:\n    pass\n")
    assert entries == []


def test_sections_can_be_copied(read):
    entries, *_ = read("import copy\nc.A.x = 1\nc.B.y = copy.deepcopy(c.A)\nc.C.z = c.A.copy()\n")
    assert values(entries) == {"A.x": 1, "B.y": Config(x=1), "C.z": Config(x=1)}


def test_value_without_a_class_is_reported(read):
    [entry], *_ = read("c.port = 1\n")
    assert (entry.section, entry.option, entry.where) == ("", "port", "hub_config.py:1")


def test_file_knows_its_own_path(read, tmp_path):
    entries, *_ = read("c.A.x = __file__\n")
    assert values(entries) == {"A.x": str(tmp_path / "hub_config.py")}


def test_file_finds_no_modules_beside_itself(read):
    _, [problem], _, _ = read("import beside_me\n", beside_me="")
    assert problem == "hub_config.py:1  ModuleNotFoundError: No module named 'beside_me'"


def test_configurables_it_defines_are_returned(read):
    *_, defined = read(
        "from traitlets.config import Configurable\nfrom dataclasses import dataclass\n"
        "class Mine(Configurable):\n    pass\n@dataclass\nclass Not:\n    x: 'int' = 1\n"
    )
    assert [cls.__name__ for cls in defined] == ["Mine"]


# -- load_subconfig --------------------------------------------------------------------------


def test_subconfig_is_found_beside_the_file_and_its_lines_are_its_own(read):
    entries, problems, *_ = read(
        "c.A.x = 1\nload_subconfig('other.py')\nc.A.z = __file__\n",
        other="\nc.A.x = 2\nc.A.y = __file__\n",
    )
    assert problems == []
    assert places(entries) == {
        "A.x": "other.py:2",
        "A.y": "other.py:3",
        "A.z": "hub_config.py:3",
    }
    found = values(entries)
    assert found["A.y"].endswith("other.py") and found["A.z"].endswith("hub_config.py")


def test_missing_subconfig_is_a_warning(read, tmp_path):
    entries, problems, [warning], _ = read("load_subconfig('nix.py')\nc.A.x = 1\n")
    assert (len(entries), problems) == (1, [])
    assert warning == f"hub_config.py:1  load_subconfig: there is no file {tmp_path}/nix.py"


def test_mistake_in_a_subconfig_is_told_with_its_line(read):
    _, problems, *_ = read(
        "load_subconfig('fine.py')\nload_subconfig('bad.py')\n", fine="", bad="\n1 / 0\n"
    )
    assert problems == ["bad.py:2  ZeroDivisionError: division by zero"]


# -- mistakes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, told",
    [
        ("\nc.A.x = (\n", "hub_config.py:2:9  '(' was never closed"),
        ("c.A.x = 1\n1 / 0\n", "hub_config.py:2  ZeroDivisionError: division by zero"),
        ("def f():\n    raise KeyError('a\\nb')\nf()\n", "hub_config.py:2  KeyError: 'a\\\\nb'"),
        ("import json\njson.loads('x')\n", "hub_config.py:2  JSONDecodeError: Expecting value"),
        ("exec('x = = 1')\n", "hub_config.py:1  SyntaxError: invalid syntax"),
        ("import sys\nsys.exit(0)\n", "hub_config.py:2  the file ends the program (SystemExit)"),
        ("raise RuntimeError\n", "hub_config.py:1  RuntimeError"),
        ("c.A.args += ['x']\n", "hub_config.py:1  TypeError: "),
        ("c.A = 3\n", "hub_config.py:1  ValueError: "),
        (b"x = '\xff'\n", "hub_config.py"),
        (b"x = '\x00'\n", "hub_config.py"),
    ],
)
def test_mistake_becomes_one_line_with_its_place(read, text, told):
    entries, [problem], _, _ = read(text)
    assert entries == []
    assert problem.startswith(told.replace("\\\\n", "\\n"))
    assert "\n" not in problem and "Traceback" not in problem
