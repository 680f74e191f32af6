"""Reading minihub.yaml: places, limits, and files that are no configuration."""

import pytest

from minihub import config_yaml


@pytest.fixture
def read(tmp_path):
    def read(content):
        path = tmp_path / "minihub.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return config_yaml.read(path, "minihub.yaml")

    return read


def test_entries_know_the_places_of_name_and_value(read):
    entries, problems = read("# hello\nJupyterHub:\n  port: 80\n  services:\n    - name: a\n")
    assert problems == []
    assert [(e.name, e.value, e.where, e.value_where) for e in entries] == [
        ("JupyterHub.port", 80, "minihub.yaml:3:3", "minihub.yaml:3:9"),
        ("JupyterHub.services", [{"name": "a"}], "minihub.yaml:4:3", "minihub.yaml:5:5"),
    ]


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "JupyterHub:\n", "{}", "\ufeff{}"])
def test_empty_files_and_sections_are_fine(read, text):
    assert read(text) == ([], [])


def test_merge_keys_and_aliases_work(read):
    entries, problems = read("A: &a {x: 1, y: 2}\nB:\n  <<: *a\n  y: 3\n")
    assert problems == []
    assert {e.name: e.value for e in entries} == {"A.x": 1, "A.y": 2, "B.x": 1, "B.y": 3}


def test_duplicate_keys_are_problems_at_every_depth(read):
    _entries, problems = read("A:\n  x: 1\n  x: 2\nA:\n  y: {z: 1, z: 2}\n")
    assert problems == [
        'minihub.yaml:3:3  "x" is given twice',
        "minihub.yaml:5:13  this key is given twice",
        'minihub.yaml:4:1  "A" is given twice',
    ]


@pytest.mark.parametrize(
    "text, told",
    [
        ("A:\n\tx: 1\n", "minihub.yaml:2:1  not valid YAML: found character '\\t'"),
        ("A: [1\n", "not valid YAML: "),
        (
            "A: {x: !!python/object/apply:os.getcwd []}",
            "minihub.yaml:1:8  not valid YAML: could not",
        ),
        ("A: {x: *nothing}", "minihub.yaml:1:8  not valid YAML: found undefined alias"),
        ("A: 1\n---\nB: 2\n", "minihub.yaml:2:1  not valid YAML: but found another document"),
        ("- a\n", "minihub.yaml:1:1  a configuration is a mapping"),
        ("just text", "minihub.yaml:1:1  a configuration is a mapping"),
        ("? [a]\n: {x: 1}\n", "minihub.yaml:1:3  a class name is expected here"),
        ("A:\n  ? [a]\n  : 1\n", "minihub.yaml:2:5  A: an option's name is expected here"),
        ("A: {x: 2026-99-99}", "not valid YAML: "),
        (b"A: {x: '\xff'}\n", "minihub.yaml:1  not UTF-8 text"),
        (b"A: {x: '\x00'}\n", "minihub.yaml  not valid YAML: "),
        ("A: {x: &a [*a]}", "an alias contains itself"),
        ("A: {x: " + "[" * 40 + "]" * 40 + "}", "more than 30 levels deep"),
        (b"#" * (1024 * 1024 + 1), "minihub.yaml: larger than 1024 KiB"),
    ],
)
def test_what_is_no_configuration_is_told_in_one_line(read, text, told):
    entries, [problem] = read(text)
    assert entries == []
    assert told in problem and problem.startswith("minihub.yaml")
    assert "\n" not in problem


@pytest.mark.parametrize(
    "line", ["k{n}: &k{n} [*k{m},*k{m},*k{m},*k{m}]", "k{n}: &k{n} {{<<: [*k{m},*k{m},*k{m}]}}"]
)
def test_aliases_that_multiply_are_refused_before_they_are_built(read, line):
    first = "k0: &k0 {a: 1}\n"
    bomb = first + "".join(line.format(n=n, m=n - 1) + "\n" for n in range(1, 13))
    assert read(bomb)[1][0].endswith("more than 100000 values")


def test_long_chain_of_aliases_is_refused(read):
    text = "k0: &k0 [1]\n" + "".join(f"k{n}: &k{n} [*k{n - 1}]\n" for n in range(1, 400))
    [problem] = read(text)[1]
    assert problem.endswith("more than 30 levels deep")


def test_option_without_a_class_is_left_to_the_check(read):
    [entry], problems = read("port: 80\n")
    assert (entry.section, entry.option, entry.value, problems) == ("", "port", 80, [])


def test_file_that_cannot_be_read_raises(tmp_path):
    with pytest.raises(OSError):
        config_yaml.read(tmp_path / "missing.yaml", "missing.yaml")
