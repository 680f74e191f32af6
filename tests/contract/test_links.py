"""Links between the documents lead somewhere, and the commands in them are ones that there are."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from minihub import cli, commandline

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path
    for folder in (
        ROOT,
        ROOT / "docs",
        ROOT / "docs" / "decisions",
        ROOT / "benchmarks" / "results",
    )
    for path in folder.glob("*.md")
)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")


def prose(text: str) -> str:
    """Return a document without what is shown as it is written."""
    return re.sub(r"^```.*?^```|^ {4}.*?$|`[^`\n]*`", "", text, flags=re.S | re.M)


def anchors(path: Path) -> set[str]:
    """Return what a link can name in a document: its headings, as GitHub spells them."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.S | re.M)
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", text, re.M):
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        number = 0
        while (name := slug + (f"-{number}" if number else "")) in found:
            number += 1
        found.add(name)
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_of_a_document_lead_somewhere(path):
    wrong = []
    for match in LINK.finditer(prose(path.read_text())):
        target = match[1] or match[2]
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        if not there.exists() or anchor and anchor not in anchors(there):
            wrong.append(target)
    assert wrong == []


def test_there_are_links_to_look_at():
    links = [LINK.findall(prose(path.read_text())) for path in DOCUMENTS]
    assert sum(map(len, links)) > 40


def commands() -> list[str]:
    """Return what the guides tell people to run, from ``minihub.pyz`` on."""
    found: list[str] = []
    for path in (ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "docs").glob("*.md")):
        text = path.read_text()
        fences = "".join(re.findall(r"^```\w*\n(.*?)^```", text, re.S | re.M))
        shown = fences + "\n" + "\n".join(re.findall(r"^ {4}.*$", text, re.M))
        start = r"^(?:[ $]*|.*[=;&] ?|(?:\S+ ){5}.*)(?:python3 )?(?:[\w./$]*/)?"
        found += re.findall(start + r"minihub\.pyz( .*)$", shown.replace("\\\n", " "), re.M)
        found += re.findall(r"`(?:python3 )?(?:[\w./]*/)?minihub\.pyz( [^`\n]*)`", text)
    plain = {re.split(r" [#>|&]+ ?| >", one + " ")[0].strip() for one in found}
    return sorted(one for one in plain if one and "VERB" not in one and "[" not in one)


@pytest.mark.parametrize("command", commands())
def test_commands_of_the_guides_are_understood(command):
    words = shlex.split(command)
    if words[0] in [verb.words for verb in cli.VERBS if verb.raw]:  # it reads its flags itself
        assert set(re.findall(r"--[a-z][a-z-]+", command)) <= own_flags(words[0])
    else:
        commandline.parse(words, cli.VERBS)


def own_flags(verb: str) -> set[str]:
    """Return the flags of a verb that reads them itself, as its help shows them."""
    program = [sys.executable, str(ROOT / "minihub" / "__main__.py"), verb, "--help"]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    return set(re.findall(r"--[a-z][a-z-]+", done.stdout))


def test_there_are_commands_to_look_at():
    assert len(commands()) > 25


def test_every_guide_is_named_in_the_readme():
    text = (ROOT / "README.md").read_text()
    absent = [one.name for one in (ROOT / "docs").glob("*.md") if f"(docs/{one.name})" not in text]
    assert absent == []


def test_options_named_in_the_guides_exist():
    classes = {cls.__name__: cls for cls in cli._classes()}
    wrong, count = [], 0
    for path in (ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "docs").glob("*.md")):
        for name, option in re.findall(r"`([A-Z]\w+)\.([a-z_]+)`", path.read_text()):
            if name in classes:
                count += 1
                known = classes[name].class_traits(config=True)
                if option not in known:
                    wrong.append(f"{path.name}: {name}.{option}")
    assert wrong == [] and count > 10
