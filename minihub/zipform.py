"""Run from minihub.pyz itself, without unpacking it: a copy of the archive in memory.

Used where there is no private place to unpack to, and by the verbs that do not wait for the
unpacking. Python's own import from archives opens the file again for every late import and
resource, and breaks when the file is replaced meanwhile; this one has read it once. It is slower
than the unpacked copy (everything is compiled at every start) but behaves the same:
``importlib.resources``, sources in tracebacks and psutil's extension work.

Rules of this file: standard library only, and little of it, since ``proxy`` may start through it.

Threads: any; the finder changes nothing after it was made, and the archive object serialises its
reads itself.
"""

from __future__ import annotations

import io
import os
import sys
import zipfile
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from types import CodeType, ModuleType


class ArchiveInMemory:
    """A finder and loader (PEP 451) of what one archive contains, from a copy in memory.

    ``archive`` is the path the copy was read from, ``native`` the folder in the archive
    (with its slash) below which lie the extension modules for this interpreter, or ``""`` when it
    carries none that fit.
    """

    def __init__(self, archive: str, native: str) -> None:
        self.archive = archive
        with open(archive, "rb") as file:
            self._zip = zipfile.ZipFile(io.BytesIO(file.read()))
        self._names = set(self._zip.namelist())
        self._extensions = self._open_extensions(native)
        # Without its extension the psutil inside must not hide an installed one.
        self._hidden = () if self._extensions else ("psutil",)

    def _open_extensions(self, native: str) -> dict[str, str]:
        """Return module name → path of each extension module of the folder ``native``.

        Extensions cannot be loaded from memory, only from a file: an anonymous one, open as long
        as this process lives. Empty where the system has none (macOS) or forbids to run them.
        """
        found = {}
        for name in self._names if native and hasattr(os, "memfd_create") else ():
            if not name.startswith(native):
                continue
            try:
                fd = os.memfd_create(os.path.basename(name))
                with open(fd, "wb", closefd=False) as out:
                    out.write(self._zip.read(name))
                path = f"/proc/self/fd/{fd}"
                os.stat(path)
            except OSError:
                return {}
            found[name[len(native) :].partition(".")[0].replace("/", ".")] = path
        return found

    # -- finder ----------------------------------------------------------------------------

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Return the spec of a module in the archive, or None."""
        if name.partition(".")[0] in self._hidden:
            return None
        if name in self._extensions:
            path = self._extensions[name]
            return ModuleSpec(name, ExtensionFileLoader(name, path), origin=path)
        file = self._file(name)
        if file is None:
            return None
        spec = ModuleSpec(name, self, origin=self.get_filename(name))
        spec.has_location = True
        if file.endswith("/__init__.py"):
            spec.submodule_search_locations = [os.path.dirname(spec.origin)]
        return spec

    def invalidate_caches(self) -> None:
        """Do nothing: a copy in memory does not change."""

    def _file(self, name: str) -> str | None:
        stem = name.replace(".", "/")
        for file in (stem + "/__init__.py", stem + ".py"):
            if file in self._names:
                return file
        return None

    # -- loader ----------------------------------------------------------------------------

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave the creation of modules to Python."""

    def exec_module(self, module: ModuleType) -> None:
        """Run a module's code in its namespace."""
        exec(self.get_code(module.__spec__.name), module.__dict__)

    def get_code(self, name: str) -> CodeType:
        """Return a module's code. Raises ImportError when it is not in the archive."""
        source = self.get_data(self.get_filename(name))
        return compile(source, self.get_filename(name), "exec", dont_inherit=True)

    def get_source(self, name: str) -> str:
        """Return a module's source text. Raises ImportError when it is not in the archive."""
        return self.get_data(self.get_filename(name)).decode("utf-8")

    def get_filename(self, name: str) -> str:
        """Return the path a module would have if the archive were a directory."""
        file = self._file(name)
        if file is None:
            raise ImportError(f"{self.archive}: no module {name}", name=name)
        return os.path.join(self.archive, *file.split("/"))

    def is_package(self, name: str) -> bool:
        """Tell whether a module is a package."""
        return os.path.basename(self.get_filename(name)) == "__init__.py"

    def get_data(self, path: str) -> bytes:
        """Return the bytes of a file, by its path below the archive's. Raises OSError."""
        prefix = self.archive + os.sep
        name = path[len(prefix) :].replace(os.sep, "/")
        if not path.startswith(prefix) or name not in self._names:
            raise FileNotFoundError(2, "not in the archive", path)
        return self._zip.read(name)

    def get_resource_reader(self, name: str) -> PackageFiles:
        """Return what ``importlib.resources.files`` asks for the files of a package."""
        return PackageFiles(self._zip, name.replace(".", "/") + "/")


class PackageFiles:
    """The files of one package in the archive (the reader that ``importlib.resources`` expects)."""

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        self._archive = archive
        self._folder = folder

    def files(self) -> zipfile.Path:
        """Return the package's folder as a path-like tree."""
        return zipfile.Path(self._archive, self._folder)


def enter(archive: str, native: str) -> None:
    """Make everything in ``archive`` importable, before anything else, from a copy in memory."""
    sys.meta_path.insert(0, ArchiveInMemory(archive, native))
