"""Where the unpacked copy lies and when it may be used."""

import fcntl
import os
import signal
import sys
import time

import pytest

from minihub import bundle, runtime


@pytest.fixture
def place(tmp_path):
    """A private place for builds."""
    tmp_path.chmod(0o700)
    path = tmp_path / "minihub"
    path.mkdir(mode=0o700)
    return path


def make_build(place, name="one", used_s_ago=0.0):
    """Write a complete build of one file; return its directory."""
    root = place / name
    root.mkdir(mode=0o700)
    (root / "module.py").write_text("x = 1\n")
    (root / bundle.LOCK).write_text("")
    (root / runtime.UNPACKED_MARK).write_text(f"0 {bundle.LOCK}\n6 module.py\n")
    used = time.time() - used_s_ago
    os.utime(root / bundle.LOCK, (used, used))
    return root


# -- platform ----------------------------------------------------------------------------------


def fake(monkeypatch, *, system="linux", machine="x86_64", abiflags="", libc="glibc 2.36"):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(sys, "abiflags", abiflags, raising=False)
    uname = os.uname()
    monkeypatch.setattr(os, "uname", lambda: type(uname)((*uname[:4], machine)))

    def confstr(name):
        if libc is None:
            raise ValueError("unrecognized configuration name")
        return libc

    monkeypatch.setattr(os, "confstr", confstr)


@pytest.mark.parametrize(
    ("facts", "tag"),
    [
        ({}, "linux-x86_64-glibc"),
        ({"machine": "aarch64"}, "linux-aarch64-glibc"),
        ({"libc": None}, "linux-x86_64-musl"),
        ({"libc": ""}, "linux-x86_64-musl"),
        ({"system": "darwin", "machine": "arm64"}, "macos-arm64"),
        ({"system": "darwin"}, "macos-x86_64"),
        ({"abiflags": "t"}, ""),
        ({"system": "freebsd14"}, ""),
    ],
)
def test_platform_tag(monkeypatch, facts, tag):
    fake(monkeypatch, **facts)
    assert bundle.platform_tag() == tag


def test_platform_tag_of_32_bit_or_another_implementation_is_empty(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "maxsize", 2**31 - 1)
        assert bundle.platform_tag() == ""
    monkeypatch.setattr(sys.implementation, "name", "pypy")
    assert bundle.platform_tag() == ""


def test_build_name_tells_contents_interpreters_and_platforms_apart(monkeypatch):
    names = {bundle.build_name("a" * 64, "x"), bundle.build_name("b" * 64, "x")}
    names.add(bundle.build_name("a" * 64, "y"))
    monkeypatch.setattr(sys, "hexversion", 0x030A00F0)
    names.add(bundle.build_name("a" * 64, "x"))
    assert len(names) == 4


@pytest.mark.parametrize(
    ("path", "tag", "target"),
    [
        ("yaml/__init__.py", "a", "yaml/__init__.py"),
        ("_native/a/psutil/_x.abi3.so", "a", "psutil/_x.abi3.so"),
        ("_native/b/psutil/_x.abi3.so", "a", None),
        ("_native/a/psutil/_x.abi3.so", "", None),
        ("psutil/__init__.py", "a", "psutil/__init__.py"),
        ("psutil/__init__.py", "", None),
        ("psutil-7.2.2.dist-info/METADATA", "", None),
        ("psutility.py", "", "psutility.py"),
    ],
)
def test_destination(path, tag, target):
    assert bundle.destination(path, tag) == target


# -- places ------------------------------------------------------------------------------------


def test_places_in_order(monkeypatch, tmp_path):
    uid = os.geteuid()
    monkeypatch.delenv("MINIHUB_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    found = bundle.places()
    assert found[:2] == [f"{tmp_path}/xdg/minihub", f"{tmp_path}/.cache/minihub"]
    assert found[-3:] == [
        f"{tmp_path}/minihub-{uid}",
        f"/tmp/minihub-{uid}",
        f"/var/tmp/minihub-{uid}",
    ]


def test_chosen_place_replaces_the_home_but_not_the_temporary_ones(monkeypatch, tmp_path):
    monkeypatch.setenv("MINIHUB_CACHE", str(tmp_path / "mine"))
    monkeypatch.delenv("TMPDIR", raising=False)
    uid = os.geteuid()
    expected = [f"{tmp_path}/mine", f"/tmp/minihub-{uid}", f"/var/tmp/minihub-{uid}"]
    assert bundle.places() == expected


def test_relative_xdg_directory_and_absent_home_are_not_places(monkeypatch, tmp_path):
    monkeypatch.delenv("MINIHUB_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "absent"))
    assert not any("relative" in place or "absent" in place for place in bundle.places())


def test_prepare_makes_a_private_place(tmp_path):
    tmp_path.chmod(0o700)
    umask = os.umask(0)
    try:
        bundle.prepare(str(tmp_path / "a" / "b"), needs_exec=True)
    finally:
        os.umask(umask)
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700


def test_prepare_makes_nothing_below_a_directory_that_others_can_write(tmp_path):
    tmp_path.chmod(0o777)
    with pytest.raises(bundle.Unusable, match="can be written by others"):
        bundle.prepare(str(tmp_path / "a" / "b"), needs_exec=True)
    assert list(tmp_path.iterdir()) == []


def test_sticky_directory_above_is_fine(tmp_path):
    tmp_path.chmod(0o1777)
    bundle.prepare(str(tmp_path / "a"), needs_exec=True)
    assert (tmp_path / "a").is_dir()


def test_noexec_place_is_refused_only_for_extensions(place, monkeypatch):
    class Mounted:
        f_flag = os.ST_NOEXEC

    monkeypatch.setattr(os, "statvfs", lambda path: Mounted)
    with pytest.raises(bundle.Unusable, match="noexec"):
        bundle.prepare(str(place), needs_exec=True)
    bundle.prepare(str(place), needs_exec=False)


# -- builds ------------------------------------------------------------------------------------


def test_complete_build_is_found(place):
    root = make_build(place)
    assert bundle.existing(str(place), "one") == str(root)
    assert bundle.existing(str(place), "two") is None


@pytest.mark.parametrize("manifest", ["", "0 in-use.lock", "x module.py\n", "7 module.py\n"])
def test_build_with_another_manifest_is_not_complete(place, manifest):
    root = make_build(place)
    (root / runtime.UNPACKED_MARK).write_text(manifest)
    assert not bundle.is_complete(str(root))


def test_hold_fails_for_a_build_that_is_gone(place):
    root = make_build(place)
    assert bundle.hold(str(root))
    assert not bundle.hold(str(place / "gone"))


def test_prune_keeps_the_newest_and_what_is_held(place):
    day = 86400
    ages = {"current": 0, "day": day, "days": 2 * day, "held": 90 * day, "week": 7 * day}
    for name, age in ages.items():
        make_build(place, name, used_s_ago=age)
    with open(place / "held" / bundle.LOCK) as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        bundle.prune(str(place), keep="current")
    assert sorted(path.name for path in place.iterdir()) == ["current", "day", "days", "held"]


def test_prune_removes_what_nobody_used_for_long(place):
    make_build(place, "current")
    make_build(place, "old", used_s_ago=bundle.KEEP_S + 60)
    bundle.prune(str(place), keep="current")
    assert [path.name for path in place.iterdir()] == ["current"]


def test_child_reports_why_it_failed():
    def lack_of_space() -> None:
        raise OSError(28, "No space left on device")

    def damaged() -> None:
        raise bundle.Damaged("the file was cut")

    def killed() -> None:
        os.kill(os.getpid(), 9)

    with pytest.raises(bundle.Unusable, match="No space left"):
        bundle._in_child(lack_of_space)
    with pytest.raises(bundle.Damaged, match="the file was cut"):
        bundle._in_child(damaged)
    with pytest.raises(bundle.Unusable, match="lost the process"):
        bundle._in_child(killed)
    bundle._in_child(lambda: None)


def test_child_that_the_kernel_reaped_is_no_failure():
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        bundle._in_child(lambda: None)
    finally:
        signal.signal(signal.SIGCHLD, before)
