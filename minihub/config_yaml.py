"""Reading ``minihub.yaml``: class name, then option, then value, each with its place in the file.

Rules of this file: only plain YAML data comes out, never Python objects. Every mapping key has to
be unique. A file is refused when it is larger, deeper or, with its aliases written out, longer
than a configuration ever is; nothing is built before that is known.

Threads: any.
Sources: YAML 1.1 as PyYAML reads it.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from minihub.config_values import Entry

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 30
MAX_NODES = 100_000
#: How many characters a number may have: reading one takes a time that grows with their square.
MAX_NUMBER = 400


_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class _TooMuch(yaml.MarkedYAMLError):
    """Raised when a limit of this file is passed."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that stops composing at MAX_DEPTH and remembers duplicate keys."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.depth = 0
        self.count = 0
        #: Place and name of each key that was there before.
        self.duplicates: list[tuple[yaml.Mark, str]] = []

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node | None:
        self.depth += 1
        self.count += 1
        if self.depth > MAX_DEPTH:
            mark = self.peek_event().start_mark
            raise _TooMuch(None, None, f"more than {MAX_DEPTH} levels deep", mark)
        if self.count > MAX_NODES:
            mark = self.peek_event().start_mark
            raise _TooMuch(None, None, f"more than {MAX_NODES} values", mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def compose_scalar_node(self, anchor: str | None) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        if len(node.value) > MAX_NUMBER and node.tag in _NUMBERS:
            raise _TooMuch(None, None, f"a number of {len(node.value)} characters", node.start_mark)
        return node

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
                continue
            name = (key.tag, key.value)
            if name in seen:
                # Below class and option a key may be a secret, such as a token.
                shown = f'"{key.value}"' if self.depth <= 2 else "this key"
                self.duplicates.append((key.start_mark, shown))
            seen.add(name)
        return node


def read(path: Path, label: str) -> tuple[list[Entry], list[str]]:
    """Return the entries of a file and the problems that kept parts of it from being read.

    ``label`` is the file's name in messages. Raises OSError when the file cannot be read.
    """
    with open(path, "rb") as file:
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        return [], [f"{label}: larger than {MAX_BYTES // 1024} KiB; this is no configuration"]
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        return [], [f"{label}:{line}  not UTF-8 text"]
    try:
        loader = _Loader(text)
        try:
            return _entries(loader, label)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = error.problem or error.context or "cannot be read"
        kind = "" if isinstance(error, _TooMuch) else "not valid YAML: "
        return [], [f"{_place(label, mark)}  {kind}{what}"]
    except yaml.YAMLError as error:
        return [], [f"{label}  not valid YAML: {' '.join(str(error).split())}"]
    except (ValueError, OverflowError) as error:
        # Scalars that look like a date or number but are none, such as 2026-99-99.
        return [], [f"{label}  not valid YAML: {error}"]


def _entries(loader: _Loader, label: str) -> tuple[list[Entry], list[str]]:
    root = loader.get_single_node()
    problems = [f"{_place(label, mark)}  {key} is given twice" for mark, key in loader.duplicates]
    if root is None or _is_null(root):
        return [], problems
    if not isinstance(root, yaml.MappingNode):
        problems.append(
            f"{_place(label, root.start_mark)}  a configuration is a mapping of class names, "
            'such as "JupyterHub:", to their options'
        )
        return [], problems
    _check_size(root)
    loader.flatten_mapping(root)
    entries = []
    for key, section in root.value:
        name = _name(key)
        if name is None:
            problems.append(f"{_place(label, key.start_mark)}  a class name is expected here")
            continue
        if _is_null(section):
            continue
        if not isinstance(section, yaml.MappingNode):
            # Judged where the class names are known: an option without its class, most likely.
            value = loader.construct_object(section, deep=True)
            place = _place(label, key.start_mark)
            entries.append(Entry("", name, value, place, _place(label, section.start_mark)))
            continue
        loader.flatten_mapping(section)
        for option, value in section.value:
            option_name = _name(option)
            if option_name is None:
                problems.append(
                    f"{_place(label, option.start_mark)}  {name}: an option's name is expected here"
                )
                continue
            entries.append(
                Entry(
                    name,
                    option_name,
                    loader.construct_object(value, deep=True),
                    _place(label, option.start_mark),
                    _place(label, value.start_mark),
                )
            )
    return entries, problems


def _check_size(root: yaml.Node) -> None:
    """Raise _TooMuch when the tree, each alias written out, is too long, too deep or endless."""
    measured: dict[int, tuple[int, int]] = {}
    unfinished: set[int] = set()

    def measure(node: yaml.Node) -> tuple[int, int]:
        """Return how many nodes there are, and how many levels of them."""
        if id(node) in measured:
            return measured[id(node)]
        if id(node) in unfinished:
            raise _TooMuch(None, None, "an alias contains itself", node.start_mark)
        unfinished.add(id(node))
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            inner = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            inner = node.value
        count, depth = 1, 0
        for part in inner:
            its_count, its_depth = measure(part)
            count, depth = count + its_count, max(depth, its_depth)
        unfinished.discard(id(node))
        if count > MAX_NODES:
            raise _TooMuch(None, None, f"more than {MAX_NODES} values", node.start_mark)
        if depth + 1 > MAX_DEPTH:
            raise _TooMuch(None, None, f"more than {MAX_DEPTH} levels deep", node.start_mark)
        measured[id(node)] = count, depth + 1
        return measured[id(node)]

    measure(root)


def _name(node: yaml.Node) -> str | None:
    return node.value if isinstance(node, yaml.ScalarNode) and node.value else None


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _place(label: str, mark: yaml.Mark | None) -> str:
    return label if mark is None else f"{label}:{mark.line + 1}:{mark.column + 1}"
