"""Imports the modules that a file names and tells every plain value their classes and they hold."""

import importlib
import json
import os
import sys

PLAIN = (str, bytes, int, float, bool, type(None), tuple, frozenset, list, dict, set)


def plain(value, depth=0):
    """Return a text of a value that is made of plain values; None for any other."""
    if isinstance(value, (tuple, list)) and type(value) in (tuple, list) and depth < 4:
        inner = [plain(one, depth + 1) for one in value]
        return None if None in inner else f"{type(value).__name__}{inner}"
    if isinstance(value, (set, frozenset)) and depth < 4:
        inner = [plain(one, depth + 1) for one in value]
        return None if None in inner else f"{type(value).__name__}{sorted(inner)}"
    if type(value) is dict and depth < 4:
        inner = [(str(key), plain(one, depth + 1)) for key, one in value.items()]
        return str(sorted((key, one) for key, one in inner if one is not None))
    return repr(value) if type(value) in PLAIN[:6] else None


def classes(one, seen):
    for child in type.__subclasses__(one):
        if child not in seen:
            seen.add(child)
            yield child
            yield from classes(child, seen)


def values():
    found = {}
    for name, module in sorted(sys.modules.items()):
        if name in ("__main__", "__mp_main__") or module is None:
            continue
        for key, value in list(vars(module).items()):
            text = plain(value) if key not in ("__builtins__", "__warningregistry__") else None
            if text is not None:
                found[f"{name}.{key}"] = text
    traits = sys.modules.get("traitlets")
    for one in classes(object, set()):
        where = f"{one.__module__}.{one.__qualname__}"
        for key, value in list(vars(one).items()):
            text = plain(value)
            if text is not None:
                found[f"{where}.{key}"] = text
        if traits is not None and issubclass(one, traits.HasTraits):
            for key, trait in one._traits.items():
                found[f"{where}.{key} (default)"] = repr(trait.default_value)
    return found


if __name__ == "__main__":
    for name in json.load(open(sys.argv[2])):
        try:
            importlib.import_module(name)
        except ImportError:
            pass
    with open(sys.argv[1], "w") as file:
        json.dump(values(), file)
    os._exit(0)
