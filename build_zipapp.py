#!/usr/bin/env python3
"""Build minihub.pyz: the whole program and everything it needs in one file.

    python3 build_zipapp.py [-o FILE]

Rules of this file: standard library, plus pip as a program to fetch wheels. Two builds of the same
sources are the same bytes: entries are sorted, dates and modes fixed, nothing of the building
machine gets in (the compressor is Python's zlib, so another zlib may give other bytes with the same
content, and the same content hash). Every wheel is named by its sha256 in requirements.lock.
What the archive contains, and what it does at start, is in docs/decisions/0020-one-file.md.
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 (said before a newer module is missed)
    sys.exit(
        f"build_zipapp.py needs Python 3.10 or newer;"
        f" {sys.executable} is Python {sys.version.split()[0]}"
    )

import argparse
import email.parser
import hashlib
import importlib.util
import json
import os
import re
import stat
import subprocess
import tempfile
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent

#: Platform folder in the archive (minihub.bundle.platform_tag) → pip's name of the platform.
PSUTIL_PLATFORMS = {
    "linux-aarch64-glibc": "manylinux2014_aarch64",
    "linux-aarch64-musl": "musllinux_1_2_aarch64",
    "linux-x86_64-glibc": "manylinux2014_x86_64",
    "linux-x86_64-musl": "musllinux_1_2_x86_64",
    "macos-arm64": "macosx_11_0_arm64",
    "macos-x86_64": "macosx_10_9_x86_64",
}

#: Packages that work without their compiled extension: one wheel of any platform serves all.
EXTENSION_LEFT_OUT = ("markupsafe", "pyyaml")

#: What a wheel may contain that no running program needs.
UNWANTED = re.compile(
    r"""
      \.(pyi|pyx|pxd|c|h|so|md|rst)$ | (^|/)py\.typed$
    | ^[^/]+\.data/                              # scripts
    | ^_yaml/                                    # a second name of the extension left out
    | ^peewee-stubs/ | ^pwiz\.py$
    | ^traitlets/tests/ | ^statsd/tests\.py$
    | ^psutil/_ps(aix|bsd|sunos|windows)\.py$    # platforms without a bundled extension
    | \.dist-info/(?!METADATA$|.*(LICEN[CS]E|NOTICE|COPYING|AUTHORS)[^/]*$)
    """,
    re.VERBOSE,
)

#: What lies around in a working directory and is no part of the package.
LITTER = re.compile(r"(^|/)(__pycache__/|\.)|\.py[co]$|~$|\.(swp|orig|rej|bak)$")

MANIFEST = "minihub.manifest"
BILL = "minihub/sbom.json"
SHEBANG = b"#!/usr/bin/env python3\n"


class BuildError(Exception):
    """Raised when the file cannot be built; the message says what to do."""


class Locked(NamedTuple):
    """One package of requirements.lock."""

    name: str
    version: str
    hashes: frozenset[str]

    @property
    def line(self) -> str:
        """The package as pip reads it."""
        hashes = "".join(f" --hash=sha256:{digest}" for digest in sorted(self.hashes))
        return f"{self.name}=={self.version}{hashes}\n"


class Group(NamedTuple):
    """Packages that are fetched together: for which platform, and the arguments that say so."""

    folder: str
    packages: list[Locked]
    pip_args: list[str]


# -- wheels ------------------------------------------------------------------------------------


def read_lock(text: str) -> list[Locked]:
    """Return the packages of requirements.lock. Raises BuildError for a line it cannot read."""
    packages = []
    for line in re.sub(r"\\\n", " ", text).splitlines():
        line = line.partition("#")[0].strip()
        if not line:
            continue
        head, *options = line.split()
        match = re.fullmatch(r"([a-z0-9_.-]+)==([^=\s]+)", head)
        hashes = [re.fullmatch(r"--hash=sha256:([0-9a-f]{64})", option) for option in options]
        if not match or not all(hashes):
            raise BuildError(f"requirements.lock: not NAME==VERSION --hash=sha256:…: {line}")
        packages.append(Locked(match[1], match[2], frozenset(found[1] for found in hashes)))
    return packages


def groups(packages: list[Locked]) -> list[Group]:
    """Sort the packages by the platform they are fetched for."""
    by_name = {package.name: package for package in packages}
    psutil = by_name.pop("psutil")
    stripped = [by_name.pop(name) for name in EXTENSION_LEFT_OUT]
    some_abi = ["--python-version=3.12", "--implementation=cp", "--abi=cp312"]
    stable_abi = ["--python-version=3.10", "--implementation=cp", "--abi=abi3"]
    return [
        Group("any", list(by_name.values()), []),
        Group("extension-left-out", stripped, ["--platform=manylinux2014_x86_64", *some_abi]),
        *(
            Group(folder, [psutil], [f"--platform={platform}", *stable_abi])
            for folder, platform in PSUTIL_PLATFORMS.items()
        ),
    ]


def locked_wheels(folder: Path, group: Group) -> dict[str, Path]:
    """Return package name → wheel for the wheels in ``folder`` whose hash is in the lock."""
    found = {}
    for path in sorted(folder.glob("*.whl")):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        for package in group.packages:
            if digest in package.hashes:
                found[package.name] = path
    return found


def fetch(wheels: Path, group: Group) -> dict[str, Path]:
    """Return package name → wheel of a group, downloading those that are not there yet.

    Raises BuildError when pip is absent or fails.
    """
    folder = wheels / group.folder
    folder.mkdir(parents=True, exist_ok=True)
    found = locked_wheels(folder, group)
    missing = [package for package in group.packages if package.name not in found]
    if not missing:
        return found
    if importlib.util.find_spec("pip") is None:
        raise BuildError(
            f"{sys.executable} has no pip, which fetches the packages that go into the file.\n"
            "On Debian or Ubuntu: sudo apt install python3-pip"
        )
    names = ", ".join(f"{package.name} {package.version}" for package in missing)
    say(f"fetching for {group.folder}: {names}")
    with tempfile.TemporaryDirectory() as scratch:
        wanted = Path(scratch, "requirements.txt")
        wanted.write_text("".join(package.line for package in missing), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--require-hashes", "--only-binary=:all:", *group.pip_args]
        command += ["--dest", str(folder), "--requirement", str(wanted)]
        # Settings of the person who builds that have no meaning for a download.
        quiet = {
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_INPUT": "1",
            "PIP_REQUIRE_VIRTUALENV": "0",
        }
        result = subprocess.run(
            command, env={**os.environ, **quiet}, capture_output=True, text=True, check=False
        )
    found = locked_wheels(folder, group)
    absent = [package.name for package in group.packages if package.name not in found]
    if result.returncode or absent:
        said = "\n".join((result.stderr + result.stdout).strip().splitlines()[-12:])
        raise BuildError(
            f"pip could not fetch {names} for {group.folder}; it said:\n{said}\n"
            "Is the package index reachable? pip's own settings apply (a proxy or another index:"
            " pip config set global.proxy …, global.index-url …)."
        )
    return found


# -- content -----------------------------------------------------------------------------------


def wheel_files(path: Path) -> dict[str, bytes]:
    """Return the wanted files of a wheel, by name."""
    with zipfile.ZipFile(path) as wheel:
        names = [name for name in wheel.namelist() if not name.endswith("/")]
        return {name: wheel.read(name) for name in names if not UNWANTED.search(name)}


def psutil_extensions(path: Path, folder: str) -> dict[str, bytes]:
    """Return psutil's extension modules for one platform, by their name in the archive."""
    with zipfile.ZipFile(path) as wheel:
        names = [name for name in wheel.namelist() if name.endswith(".so")]
        if not names or not all(name.endswith(".abi3.so") for name in names):
            raise BuildError(f"{path.name}: expected one extension for the stable ABI, got {names}")
        return {f"_native/{folder}/{name}": wheel.read(name) for name in names}


def own_files() -> dict[str, bytes]:
    """Return everything below minihub/, and the licence, by name."""
    files = {}
    for path in (HERE / "minihub").rglob("*"):
        name = path.relative_to(HERE).as_posix()
        if path.is_file() and not LITTER.search(name):
            files[name] = path.read_bytes()
    files["LICENSE"] = (HERE / "LICENSE").read_bytes()
    return files


def version() -> str:
    """Return minihub's own version, without importing it."""
    text = (HERE / "minihub" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)[1]


def licence(metadata: str) -> str:
    """Return what a package's METADATA says of its licence."""
    facts = email.parser.HeaderParser().parsestr(metadata)
    named = facts.get("License-Expression") or facts.get("License") or ""
    classified = [one for one in facts.get_all("Classifier", []) if one.startswith("License :: ")]
    if named and "\n" not in named:
        return named
    return classified[-1].rpartition(" :: ")[2] if classified else "see the licence in the package"


def bill_of_materials(components: list[tuple[Locked, Path, str]]) -> bytes:
    """Return what the file is made of, as CycloneDX 1.5 JSON; no date, so that builds are alike.

    ``components``: package, the wheel used, the text of its METADATA; a package with several
    wheels stands several times.
    """
    by_name: dict[str, dict[str, Any]] = {}
    for package, wheel, metadata in components:
        purl = f"pkg:pypi/{package.name}@{package.version}"
        entry = by_name.setdefault(
            package.name,
            {
                "type": "library",
                "bom-ref": purl,
                "name": package.name,
                "version": package.version,
                "purl": purl,
                "licenses": [{"license": {"name": licence(metadata)}}],
                "properties": [],
            },
        )
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        entry["properties"].append({"name": "wheel", "value": f"{wheel.name} sha256:{digest}"})
    own = {"type": "application", "bom-ref": "minihub", "name": "minihub", "version": version()}
    own["licenses"] = [{"license": {"id": "BSD-3-Clause"}}]
    listed = [by_name[name] for name in sorted(by_name)]
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": own},
        "components": listed,
        "dependencies": [{"ref": "minihub", "dependsOn": [one["bom-ref"] for one in listed]}],
    }
    return json.dumps(bill, indent=2).encode() + b"\n"


def payload(wheels: Path) -> dict[str, bytes]:
    """Return everything that is unpacked at start, by name."""
    files: dict[str, bytes] = {}
    components = []
    for group in groups(read_lock((HERE / "requirements.lock").read_text(encoding="utf-8"))):
        fetched = fetch(wheels, group)
        for package in group.packages:
            wheel = fetched[package.name]
            if group.folder in PSUTIL_PLATFORMS:
                files.update(psutil_extensions(wheel, group.folder))
            # The modules of all six psutil wheels are the same.
            contents = wheel_files(wheel)
            metadata = next(data for name, data in contents.items() if name.endswith("/METADATA"))
            components.append((package, wheel, metadata.decode()))
            for name, data in contents.items():
                if files.setdefault(name, data) != data:
                    raise BuildError(f"{wheel.name}: its {name} differs from another wheel's")
    files.update(own_files())
    files[BILL] = bill_of_materials(components)
    return files


def write_archive(file: Path, files: dict[str, bytes]) -> str:
    """Write the archive so that a reader never sees half of it; return its content hash.

    The manifest is the content hash and, below it, what it is the hash of: ``sha256 size name`` of
    each file. The file that is run comes first, then the manifest.
    """
    listed = "".join(
        f"{hashlib.sha256(data).hexdigest()} {len(data)} {name}\n"
        for name, data in sorted(files.items())
    ).encode("utf-8")
    content = hashlib.sha256(listed).hexdigest()
    entries = {
        "__main__.py": files["minihub/_bootstrap.py"],
        MANIFEST: content.encode("ascii") + b"\n" + listed,
        **dict(sorted(files.items())),
    }
    handle, scratch = tempfile.mkstemp(prefix=".minihub-", suffix=".pyz", dir=file.parent)
    try:
        with open(handle, "wb") as out:
            out.write(SHEBANG)
            with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
                for name, data in entries.items():
                    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                    entry.compress_type = zipfile.ZIP_DEFLATED
                    entry.create_system = 3
                    entry.external_attr = (stat.S_IFREG | 0o644) << 16
                    archive.writestr(entry, data, compresslevel=9)
        os.chmod(scratch, 0o755)
        os.replace(scratch, file)
    except BaseException:
        os.unlink(scratch)
        raise
    return content


# -- the command -------------------------------------------------------------------------------


def say(text: str) -> None:
    """Print a line of progress at once."""
    print(text, flush=True)


def main() -> int:
    """Build the file; return the exit code."""
    parser = argparse.ArgumentParser(description="Build minihub.pyz, the whole program in one file")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=HERE / "minihub.pyz",
        metavar="FILE",
        help="the file to write (default: minihub.pyz beside this script)",
    )
    file = parser.parse_args().output.absolute()
    if file.is_dir():
        parser.error(f"{file} is a directory; name the file to write, as in -o {file}/minihub.pyz")
    wheels = HERE / "build" / "wheels"
    try:
        say(f"building {file}")
        files = payload(wheels)
        content = write_archive(file, files)
    except BuildError as error:
        print(f"build_zipapp.py: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"build_zipapp.py: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    say(f"{len(files)} files, {file.stat().st_size / 1e6:.2f} MB, content {content[:20]}")
    say(f"run it: python3 {os.path.relpath(file)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
