"""build_zipapp.py: what goes into the file, the same bytes each time, and clear refusals."""

import ast
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYENV = Path.home() / ".pyenv" / "versions"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of what the build reads, without the wheels that earlier builds fetched."""
    target = tmp_path / "copy"
    target.mkdir()
    for name in ("build_zipapp.py", "requirements.lock", "LICENSE"):
        (target / name).write_bytes((ROOT / name).read_bytes())
    shutil.copytree(ROOT / "minihub", target / "minihub", copy_function=shutil.copyfile)
    return target


@pytest.fixture
def copy_with_wheels(copy: Path, builder: ModuleType) -> Path:
    builder.payload(ROOT / "build" / "wheels")
    shutil.copytree(ROOT / "build" / "wheels", copy / "build" / "wheels")
    return copy


def build(
    where: Path,
    *args: object,
    python: str = sys.executable,
    flags: tuple[str, ...] = (),
    umask: int = 0o022,
    **env: str,
) -> subprocess.CompletedProcess:
    return subprocess.run(
        [python, *flags, str(where / "build_zipapp.py"), *map(str, args)],
        cwd="/",
        env={**os.environ, **env},
        umask=umask,
        capture_output=True,
        text=True,
        check=False,
    )


def other_pythons() -> list[str]:
    """Return the other interpreters that can build, one for each minor version."""
    found = [str(path) for path in sorted(PYENV.glob("3.1[0-9].*/bin/python3"))]
    return [path for path in found if Path(path).resolve() != Path(sys.executable).resolve()]


def test_build_elsewhere_with_another_umask_is_byte_identical(copy_with_wheels, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(copy_with_wheels, other, copy_function=shutil.copyfile)
    (other / "minihub" / "errors.py").chmod(0o600)
    (other / "minihub" / "__pycache__").mkdir(exist_ok=True)
    for name in ("__pycache__/x.pyc", "cli.py~", ".cli.py.swp", "auth/x.orig"):
        (other / "minihub" / name).write_bytes(b"litter")
    for place, umask in ((copy_with_wheels, 0o022), (other, 0o077)):
        done = build(place, umask=umask)
        assert done.returncode == 0, done.stderr
    first = (copy_with_wheels / "minihub.pyz").read_bytes()
    assert first == (other / "minihub.pyz").read_bytes()


def test_build_by_other_python_versions_is_byte_identical(copy_with_wheels):
    built = set()
    for number, python in enumerate([sys.executable, *other_pythons()]):
        done = build(copy_with_wheels, "-o", copy_with_wheels / f"{number}.pyz", python=python)
        assert done.returncode == 0, done.stderr
        built.add((copy_with_wheels / f"{number}.pyz").read_bytes())
    assert len(built) == 1


def test_file_is_executable_and_at_most_5_mb(pyz):
    assert stat.S_IMODE(pyz.stat().st_mode) == 0o755
    assert pyz.stat().st_size <= 5_000_000
    assert pyz.read_bytes().startswith(b"#!/usr/bin/env python3\n")


def test_contents_are_all_of_minihub_and_of_each_package_with_its_licence(contents, builder):
    own = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "minihub").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert own <= set(contents)
    for package in builder.read_lock((ROOT / "requirements.lock").read_text()):
        info = f"{package.name}-{package.version}.dist-info/"
        kept = [name for name in contents if name.startswith(info)]
        assert info + "METADATA" in kept
        assert any("LICEN" in name.upper() or "COPYING" in name for name in kept), kept


def test_contents_have_psutil_for_six_platforms_and_no_other_compiled_code(contents):
    compiled = sorted(name for name in contents if name.endswith((".so", ".pyc", ".pyd")))
    assert compiled == [
        "_native/linux-aarch64-glibc/psutil/_psutil_linux.abi3.so",
        "_native/linux-aarch64-musl/psutil/_psutil_linux.abi3.so",
        "_native/linux-x86_64-glibc/psutil/_psutil_linux.abi3.so",
        "_native/linux-x86_64-musl/psutil/_psutil_linux.abi3.so",
        "_native/macos-arm64/psutil/_psutil_osx.abi3.so",
        "_native/macos-x86_64/psutil/_psutil_osx.abi3.so",
    ]
    assert [name for name in contents if name.endswith((".pyi", ".c")) or "/tests/" in name] == []


def test_entries_are_sorted_and_carry_no_date_or_mode_of_the_builder(pyz):
    with zipfile.ZipFile(pyz) as archive:
        entries = archive.infolist()
    names = [entry.filename for entry in entries]
    assert names[:2] == ["__main__.py", "minihub.manifest"]
    assert names[2:] == sorted(names[2:])
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert {entry.external_attr >> 16 for entry in entries} == {stat.S_IFREG | 0o644}


def test_lock_names_what_pyproject_asks_for(builder):
    """Every runtime dependency is locked; what else is locked is needed by one of them."""
    listed = re.search(
        r"^dependencies = (\[.*?^\])", (ROOT / "pyproject.toml").read_text(), re.M | re.S
    )
    asked = {requirement.partition(">")[0] for requirement in ast.literal_eval(listed[1])}
    locked = {p.name for p in builder.read_lock((ROOT / "requirements.lock").read_text())}
    assert locked == asked | {"markupsafe"}


def test_lock_line_without_a_version_is_refused_by_name(copy):
    (copy / "requirements.lock").write_text("bottle>=0.13\n")
    done = build(copy)
    assert done.returncode == 1
    assert "requirements.lock: not NAME==VERSION" in done.stderr
    assert "bottle>=0.13" in done.stderr


def test_build_without_pip_names_the_apt_line(copy):
    done = build(copy, flags=("-I", "-S"))  # without site-packages there is no pip
    assert done.returncode == 1
    assert "sudo apt install python3-pip" in done.stderr
    assert "Traceback" not in done.stderr


def test_second_build_needs_no_pip(copy_with_wheels):
    assert build(copy_with_wheels, flags=("-I", "-S")).returncode == 0


def test_wheel_with_another_hash_is_not_used(copy_with_wheels):
    for wheel in (copy_with_wheels / "build" / "wheels" / "any").glob("bottle-*"):
        wheel.write_bytes(wheel.read_bytes() + b"\n")
    done = build(copy_with_wheels, flags=("-I", "-S"))
    assert done.returncode == 1
    assert "has no pip" in done.stderr


def test_build_without_network_shows_what_pip_said(copy):
    """Port 9 of this machine answers nobody."""
    done = build(
        copy,
        PIP_CONFIG_FILE=os.devnull,
        PIP_FIND_LINKS="",
        PIP_INDEX_URL="http://127.0.0.1:9/",
        PIP_RETRIES="0",
        PIP_NO_CACHE_DIR="1",
    )
    assert done.returncode == 1
    assert "pip could not fetch bottle 0." in done.stderr
    assert "Is the package index reachable?" in done.stderr
    assert "Traceback" not in done.stderr


def test_output_that_cannot_be_written_is_named(copy_with_wheels):
    done = build(copy_with_wheels, "-o", "/proc/minihub.pyz")
    assert done.returncode == 1
    assert "/proc/" in done.stderr
    assert "Traceback" not in done.stderr


def test_output_that_is_a_directory_is_refused_with_the_way_out(copy_with_wheels, tmp_path):
    done = build(copy_with_wheels, "-o", tmp_path)
    assert done.returncode == 2
    assert f"-o {tmp_path}/minihub.pyz" in done.stderr


def test_failed_build_leaves_the_old_file(copy_with_wheels):
    file = copy_with_wheels / "minihub.pyz"
    file.write_bytes(b"old")
    (copy_with_wheels / "requirements.lock").write_text("nonsense\n")
    assert build(copy_with_wheels).returncode == 1
    assert file.read_bytes() == b"old"
    assert [path.name for path in copy_with_wheels.glob(".minihub-*")] == []


def test_bill_of_materials_names_every_package_of_the_lock(pyz, tmp_path):
    ran = subprocess.run(
        [sys.executable, str(pyz), "sbom"], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    bill = json.loads(ran.stdout)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    lock = (ROOT / "requirements.lock").read_text()
    locked = set(re.findall(r"^([a-z0-9_.-]+)==([^ ]+)", lock, re.MULTILINE))
    assert {(one["name"], one["version"]) for one in bill["components"]} == locked
    wheels = [fact["value"] for one in bill["components"] for fact in one["properties"]]
    assert sorted(re.findall(r"[0-9a-f]{64}", lock)) == sorted(w.rpartition(":")[2] for w in wheels)
    assert all(one["licenses"][0]["license"]["name"] for one in bill["components"])


def test_checkout_says_that_only_the_file_has_a_bill_of_materials():
    ran = subprocess.run(
        [sys.executable, "-m", "minihub", "sbom"], capture_output=True, text=True, cwd=ROOT
    )
    assert ran.returncode == 1 and "build_zipapp.py" in ran.stderr
