#!/usr/bin/env python3
"""Run the tests that need a machine of their own, tests/systemd, in a virtual one.

Usage: sudo python3 scripts/vm.py [--again] [PYTEST ARGUMENTS]

On Debian or Ubuntu, with the packages debootstrap, e2fsprogs and qemu-system-x86. A Debian 12 with
systemd is made once, and a JupyterLab for it, some 1.2 GB in /var/tmp/minihub-vm; ``--again`` makes
them anew. Each run starts from them as they were made. The machine is emulated (no KVM is needed),
so all takes minutes. It reaches no network, and nothing of this machine but a copy of the checkout
and of the built file.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import environments

ROOT = Path(__file__).resolve().parent.parent
PLACE = Path("/var/tmp/minihub-vm")
SUITE = "bookworm"
#: The Python of that suite, for which the packages of the tests are fetched.
PYTHON = "3.11"
PACKAGES = "systemd-sysv,dbus,dbus-user-session,libpam-systemd,python3,linux-image-amd64,udev"
NEEDED = {
    "debootstrap": "debootstrap",
    "mke2fs": "e2fsprogs",
    "qemu-system-x86_64": "qemu-system-x86",
}
TESTING = ("pytest", "pytest-timeout", "requests", "websockets>=14")
#: What runs without arguments.
TESTS = [
    "tests/systemd",
    "tests/live/test_options_limits.py::test_cpu_limit_is_exact_in_a_delegated_control_group",
]
ENDED = "The tests ended with "

UNIT = """\
[Service]
StandardOutput=file:/dev/ttyS1
StandardError=inherit
ExecStart=/bin/sh -c 'mkdir -p /src; mount -o ro /dev/vdb /src; exec sh /src/run-tests'
ExecStopPost=systemctl poweroff --no-block
[Install]
WantedBy=multi-user.target
"""
SETUP = """\
set -e
useradd -m -s /bin/bash hub
echo vm > /etc/hostname
echo '127.0.0.1 localhost vm' > /etc/hosts
echo '/dev/vda / ext4 defaults 0 1' > /etc/fstab
systemctl enable minihub-tests
rm -rf /var/cache/apt/archives/*.deb
"""
RUN = """\
export PYTHONPATH=/opt/packages PYTHONDONTWRITEBYTECODE=1 MINIHUB_TEST_SYSTEMD=1
export MINIHUB_PYZ=/src/build/minihub.pyz PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mkdir -p /lab && mount -o ro /dev/vdc /lab && export MINIHUB_TEST_LAB=/lab
cd /src
python3 -m pytest -p no:cacheprovider --timeout 1500 "$@"
echo "{ended}$?"
"""


def make(place: Path) -> None:
    """Make the machine's disk, kernel and first file system."""
    place.mkdir(parents=True, exist_ok=True)
    tree = place / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(tree)], check=True
    )
    lock = (ROOT / "requirements.lock").read_text()
    pinned = re.findall(r"^([\w-]+==[\w.]+)", lock, re.MULTILINE)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--target", str(tree / "opt/packages")]
        + ["--python-version", PYTHON, "--only-binary=:all:", *pinned, *TESTING],
        check=True,
    )
    (tree / "etc/systemd/system/minihub-tests.service").write_text(UNIT)
    subprocess.run(["chroot", str(tree), "sh", "-c", SETUP], check=True)
    for kind in ("vmlinuz", "initrd.img"):
        (found,) = (tree / "boot").glob(f"{kind}-*")
        shutil.copy(found, place / kind)
    fresh = place / "disk.new"
    fresh.unlink(missing_ok=True)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", str(tree), str(fresh), "3G"], check=True)
    shutil.rmtree(tree)
    fresh.replace(place / "disk")


def make_lab(place: Path) -> None:
    """Make the disk with JupyterLab."""
    tree = place / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--target", str(tree)]
        + ["--python-version", PYTHON, "--only-binary=:all:", *environments.LAB],
        check=True,
    )
    subprocess.run(["chmod", "-R", "a+rX", str(tree)], check=True)
    fresh = place / "lab.new"
    fresh.unlink(missing_ok=True)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", str(tree), str(fresh), "700M"], check=True)
    shutil.rmtree(tree)
    fresh.replace(place / "lab")


def checkout(target: Path, args: list[str]) -> None:
    """Make a disk with the project, the built file and the commands to run."""
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory) / "tree"
        for name in ("minihub", "tests", "docs"):
            ignored = shutil.ignore_patterns("__pycache__", "artifacts")
            shutil.copytree(ROOT / name, tree / name, ignore=ignored)
        shutil.copy(ROOT / "pyproject.toml", tree)
        (tree / "build").mkdir()
        built = str(tree / "build/minihub.pyz")
        subprocess.run([sys.executable, str(ROOT / "build_zipapp.py"), "-o", built], check=True)
        words = " ".join(f"'{arg}'" for arg in args)
        (tree / "run-tests").write_text(f"set -- {words}\n" + RUN.format(ended=ENDED))
        subprocess.run(["chmod", "-R", "a+rX", str(tree)], check=True)
        subprocess.run(
            ["mke2fs", "-q", "-t", "ext4", "-d", str(tree), str(target), "64M"], check=True
        )


def boot(place: Path, work: Path) -> int:
    """Run the machine until it switches itself off; return how the tests ended."""
    disks = []
    images = ((place / "disk", "on"), (work / "checkout", "off"), (place / "lab", "on"))
    for path, snapshot in images:
        disks += ["-drive", f"file={path},format=raw,if=virtio,cache=unsafe,snapshot={snapshot}"]
    command = [
        *["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "2048", "-no-reboot"],
        *["-kernel", str(place / "vmlinuz"), "-initrd", str(place / "initrd.img")],
        *["-append", "root=/dev/vda rw console=ttyS0 quiet", *disks, "-nic", "none"],
        *["-display", "none", "-monitor", "none"],
        *["-serial", f"file:{place / 'console.log'}", "-serial", "stdio"],
    ]
    ended = 1
    os.nice(10)
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace"
    ) as machine:
        try:
            for line in machine.stdout:
                print(line.rstrip(), flush=True)
                if line.startswith(ENDED):
                    ended = int(line.removeprefix(ENDED))
        finally:
            machine.terminate()
    return ended


def main() -> int:
    """Run the tests; return the exit code of pytest."""
    args = sys.argv[1:]
    again = "--again" in args
    args = [arg for arg in args if arg != "--again"] or TESTS
    missing = [package for program, package in NEEDED.items() if shutil.which(program) is None]
    if missing:
        print(f"First: apt-get install {' '.join(missing)}")
        return 2
    if os.geteuid() != 0:
        print("To make a machine's disk one must be root.")
        return 2
    if again or not (PLACE / "disk").exists():
        make(PLACE)
    if again or not (PLACE / "lab").exists():
        make_lab(PLACE)
    with tempfile.TemporaryDirectory(dir=PLACE) as work:
        checkout(Path(work) / "checkout", args)
        return boot(PLACE, Path(work))


if __name__ == "__main__":
    sys.exit(main())
