"""minihub.pyz as people start it: the unpacked copy, the memory copy, what is imported when."""

import ast
import importlib.util
import os
import random
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

#: What no light verb may load.
HEAVY = "bottle jinja2 oauthlib peewee prometheus_client psutil statsd traitlets waitress yaml"

#: Replace the running file by rubbish, then use what was not loaded before.
REPLACE = """
import importlib.resources, inspect, os, sys, traceback
os.rename(sys.argv[0], sys.argv[0] + ".old")
open(sys.argv[0], "wb").write(b"PK rubbish" * 200000)
import minihub.tokens, minihub.errors, pamela, yaml, psutil, jinja2
assert psutil.Process().pid == os.getpid()
folder = importlib.resources.files("minihub") / "web" / "templates"
assert "<html" in (folder / "page.html").read_text()
assert "class MinihubError" in inspect.getsource(minihub.errors)
try:
    yaml.safe_load("{")
except yaml.YAMLError:
    assert "raise ParserError" in traceback.format_exc()
"".join(traceback.format_stack())
from minihub import runtime
print(runtime.form())
"""


def builds(cache: Path) -> list[Path]:
    """Return the directories of builds in a cache."""
    return sorted(path for path in cache.iterdir() if path.is_dir())


def common_python() -> str:
    """Return an interpreter that users other than root can run too."""
    for python in (sys.executable, "/usr/bin/python3"):
        code = "import sys; sys.exit(sys.version_info < (3, 10))"
        try:
            subprocess.run([python, "-c", code], user=54321, cwd="/", check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return python
    raise RuntimeError("no Python >= 3.10 that other users can run")


# -- the unpacked copy -------------------------------------------------------------------------


def test_first_start_unpacks_into_a_private_directory(probe, env, cache):
    subprocess.run([sys.executable, probe, "0"], env=env, umask=0, check=True)
    assert cache.stat().st_mode & 0o7777 == 0o700
    (build,) = builds(cache)
    for path in [build, *build.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize("variables", [{}, {"PYTHONDONTWRITEBYTECODE": "1"}])
@pytest.mark.parametrize("flags", [(), ("-O",)])
def test_every_module_is_compiled_also_where_no_byte_code_is_written(
    probe, run, cache, flags, variables
):
    run(probe, "0", flags=flags, **variables)
    (build,) = builds(cache)
    sources = list(build.rglob("*.py"))
    assert len(sources) > 50
    for source in sources:
        level = "1" if flags else ""
        assert Path(importlib.util.cache_from_source(source, optimization=level)).exists(), source


def test_second_start_uses_what_the_first_made_and_writes_nothing(probe, run, cache):
    run(probe, "0")
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}
    code = "import yaml, minihub; print(yaml.__file__); print(minihub.__file__)"
    (build,) = builds(cache)
    assert run(probe, code).stdout.splitlines() == [
        str(build / "yaml" / "__init__.py"),
        str(build / "minihub" / "__init__.py"),
    ]
    after = {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}
    changed = {path.name for path in after if after[path] != before.get(path)}
    assert changed == {"in-use.lock"}


def test_cache_variable_overrides_the_place(probe, run, cache, public_dir):
    run(probe, "0", MINIHUB_CACHE=str(public_dir / "some" / "where"))
    assert builds(public_dir / "some" / "where")
    assert not cache.exists()


def test_many_simultaneous_first_starts_make_one_build(probe, env, cache):
    command = [sys.executable, str(probe), "import yaml, psutil; print(yaml.__file__)"]
    starts = [
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(8)
    ]
    outputs = {start.communicate(timeout=60)[0] for start in starts}
    (build,) = builds(cache)
    assert outputs == {f"{build}/yaml/__init__.py\n".encode()}


def _truncate(build: Path) -> None:
    (build / "yaml" / "parser.py").write_bytes(b"")


def _remove(build: Path) -> None:
    (build / "psutil" / "__init__.py").unlink()


def _cut_manifest(build: Path) -> None:
    manifest = build / "unpacked.manifest"
    manifest.write_bytes(manifest.read_bytes()[:-5])


def _symlink(build: Path) -> None:
    shutil.move(build / "pamela.py", build / "moved")
    (build / "pamela.py").symlink_to("moved")


def _open_to_others(build: Path) -> None:
    build.chmod(0o777)


def _file_instead(build: Path) -> None:
    shutil.rmtree(build)
    build.write_bytes(b"")


@pytest.mark.parametrize(
    "damage", [_truncate, _remove, _cut_manifest, _symlink, _open_to_others, _file_instead]
)
def test_damaged_build_is_made_again(probe, run, cache, damage):
    run(probe, "0")
    (build,) = builds(cache)
    damage(build)
    done = run(probe, "import yaml.parser, psutil, pamela; print(pamela.__file__)")
    assert done.stdout == f"{build}/pamela.py\n"
    assert builds(cache) == [build]
    assert build.stat().st_mode & 0o077 == 0


def test_damaged_archive_is_refused_in_one_line(probe, run, cache, public_dir):
    """The archive reads well, but one file is not the one that was built."""
    damaged = public_dir / "damaged.pyz"
    with zipfile.ZipFile(probe) as old, zipfile.ZipFile(damaged, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name) + (b"#" if name == "pamela.py" else b""))
    done = run(damaged, "0", check=1)
    reason = f"{damaged} is damaged, get or build it again: pamela.py was changed"
    assert done.stderr == f"minihub: {reason}\n"
    assert builds(cache) == []


def test_other_content_gets_another_build(probe, run, cache, other):
    run(probe, "0")
    run(other("def main(argv=None): return 7"), "x", check=7)
    assert len(builds(cache)) == 2


def test_old_builds_are_removed_unless_a_process_runs_from_them(probe, run, cache, env, other):
    running = subprocess.Popen(
        [sys.executable, str(probe), "print('up', flush=True); input(); import pamela"],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert running.stdout.readline() == b"up\n"
    (in_use,) = builds(cache)
    for name in ("old", "older"):
        shutil.copytree(in_use, cache / name)
    long_ago = time.time() - 100 * 86400
    for build in builds(cache):
        os.utime(build / "in-use.lock", (long_ago, long_ago))
    (cache / ".new-of-a-killed-start").mkdir()
    os.utime(cache / ".new-of-a-killed-start", (long_ago, long_ago))

    run(other("def main(argv=None): return 0"), "x")
    left = builds(cache)
    assert in_use in left and len(left) == 2
    running.communicate(b"\n", timeout=10)
    assert running.returncode == 0


def test_everything_bundled_can_be_imported_from_a_full_build(run, public_dir, builder, contents):
    modules = f"{HEAVY} pamela traitlets.config oauthlib.oauth2 playhouse.db_url".split()
    source = f"""
import sys
def main(argv=None):
    for name in {modules}:
        __import__(name)
        assert sys.modules[name].__file__.startswith(sys.path[0]), name
    print("all")
"""
    file = public_dir / "full.pyz"
    builder.write_archive(file, {**contents, "minihub/cli.py": source.encode()})
    assert run(file, "x").stdout == "all\n"


# -- the file is replaced while it runs --------------------------------------------------------


def test_replaced_file_does_not_disturb_a_process_of_the_unpacked_copy(probe, run):
    assert run(probe, REPLACE).stdout == "cache\n"


@pytest.mark.root
def test_no_private_place_runs_from_memory_and_survives_replacement(probe, run, public_dir):
    """Also: what somebody else laid in our way in the temporary directories is not used."""
    user = random.randrange(2**30, 2**31 - 2)
    squatted = [Path(folder, f"minihub-{user}") for folder in ("/tmp", "/var/tmp")]
    for path in squatted:
        path.mkdir()
    public_dir.chmod(0o777)
    try:
        done = run(
            probe,
            REPLACE,
            python=common_python(),
            user=user,
            HOME="/nonexistent",
            TMPDIR="/nonexistent",
        )
    finally:
        for path in squatted:
            path.rmdir()
    assert done.stdout == "zip\n"
    assert done.stderr.startswith("minihub: starts slowly, since there is no private place")
    assert f"/tmp/minihub-{user} belongs to uid 0, not to uid {user}" in done.stderr
    assert len(done.stderr.splitlines()) == 1


# -- places that must not be trusted -----------------------------------------------------------


def _place_is_open(place: Path) -> str:
    place.chmod(0o770)
    return "can be written by others (mode 0770)"


def _place_is_a_link(place: Path) -> str:
    place.rename(place.with_name("real"))
    place.symlink_to("real")
    return "is a symbolic link"


def _parent_is_open(place: Path) -> str:
    place.parent.chmod(0o777)
    return f"lies in {place.parent}, which can be written by others (mode 0777)"


def _place_is_a_file(place: Path) -> str:
    shutil.rmtree(place)
    place.write_bytes(b"")
    return "is not a directory"


def _place_is_another_users(place: Path) -> str:
    os.chown(place, 54321, 54321)
    return f"belongs to uid 54321, not to uid {os.geteuid()}"


def _parent_is_another_users(place: Path) -> str:
    os.chown(place.parent, 54321, 54321)
    return f"lies in {place.parent}, which belongs to uid 54321"


@pytest.mark.parametrize(
    "spoil",
    [
        _place_is_open,
        _place_is_a_link,
        _parent_is_open,
        _place_is_a_file,
        pytest.param(_place_is_another_users, marks=pytest.mark.root),
        pytest.param(_parent_is_another_users, marks=pytest.mark.root),
    ],
)
def test_untrusted_place_is_not_used_and_said_to_be(probe, run, public_dir, env, spoil):
    """A build that lies there, complete, is not run either: a temporary place is used."""
    place = public_dir / "given" / "cache"
    code = "import minihub; print(minihub.__file__)"
    place.parent.mkdir()
    assert run(probe, code, MINIHUB_CACHE=str(place)).stdout.startswith(str(place))
    reason = spoil(place)
    done = run(probe, code, MINIHUB_CACHE=str(place))
    assert done.stdout.startswith(env["TMPDIR"])
    assert done.stderr == f"minihub: MINIHUB_CACHE is not used: {place} {reason}\n"


# -- users -------------------------------------------------------------------------------------


@pytest.mark.root
def test_two_users_at_once_from_a_read_only_place(probe, public_dir):
    probe.chmod(0o444)
    public_dir.chmod(0o555)
    starts = []
    homes = Path(str(public_dir) + "-homes")
    homes.mkdir(mode=0o755)
    try:
        for uid in (54321, 54322):
            home = homes / str(uid)
            home.mkdir(mode=0o700)
            os.chown(home, uid, uid)
            code = "import os, psutil; print(os.geteuid(), psutil.__file__)"
            starts.append(
                subprocess.Popen(
                    [common_python(), str(probe), code],
                    env={"HOME": str(home)},
                    user=uid,
                    group=uid,
                    extra_groups=[],
                    cwd=public_dir,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
        outputs = [start.communicate(timeout=60)[0].split() for start in starts]
    finally:
        shutil.rmtree(homes)
    assert [output[0] for output in outputs] == ["54321", "54322"]
    for uid, path in outputs:
        assert path.startswith(f"{homes}/{uid}/.cache/minihub/")


# -- light verbs -------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["proxy", "cull"])
@pytest.mark.parametrize("unpacked", [False, True])
def test_light_verb_waits_for_nothing_and_loads_nothing_heavy(probe, run, cache, verb, unpacked):
    if unpacked:
        run(probe, "0")
    code = f"import sys; print([m for m in '{HEAVY}'.split() if m in sys.modules]);"
    code += "from minihub import runtime; print(runtime.form())"
    done = run(probe, verb, code)
    assert done.stdout.splitlines() == ["[]", "cache" if unpacked else "zip"]
    assert cache.exists() is unpacked


@pytest.mark.parametrize("flags", [(), ("-I",), ("-I", "-S")])
def test_version_is_printed_by_the_archive_alone(pyz, run, cache, flags):
    assert run(pyz, "--version", flags=flags).stdout.count(".") == 2
    assert not cache.exists()


# -- what can be imported ----------------------------------------------------------------------


@pytest.mark.parametrize("variables", [{}, {"PYTHONPATH": ":/nonexistent"}, {"PYTHONPATH": "."}])
def test_current_directory_is_never_imported_from(probe, run, tmp_path, variables):
    for name in ("yaml.py", "pwd.py", "fcntl.py", "psutil.py"):
        (tmp_path / name).write_text("raise SystemExit('planted')")
    (tmp_path / "minihub").mkdir()
    (tmp_path / "minihub" / "__init__.py").write_text("raise SystemExit('planted')")
    code = (
        f"import sys, yaml, psutil, minihub; print({str(tmp_path)!r} in sys.path, '' in sys.path)"
    )
    assert run(probe, code, cwd=tmp_path, **variables).stdout == "False False\n"


def test_ours_come_first_and_the_interpreters_own_packages_after(probe, run, tmp_path):
    (tmp_path / "yaml.py").write_text("raise SystemExit('not ours')")
    (tmp_path / "myauth.py").write_text("")
    code = "import sys, yaml, myauth, pytest; print([bool(p) for p in sys.path[:1]], sys.path[0])"
    done = run(probe, code, PYTHONPATH=str(tmp_path))
    assert "/.cache/minihub/" in done.stdout


def test_bundled_yaml_and_markupsafe_run_without_their_extensions(probe, run):
    code = (
        "import yaml, markupsafe, jinja2; print(yaml.__with_libyaml__,"
        " markupsafe.escape('<'), jinja2.Template('{{ x|e }}').render(x='&'),"
        " yaml.safe_load('a: [1, 2]'))"
    )
    done = run(probe, code, flags=("-W", "error"))
    assert done.stdout == "False &lt; &amp; {'a': [1, 2]}\n"
    assert done.stderr == ""


@pytest.mark.parametrize("unpacked", [True, False])
def test_own_commands_start_the_same_file_again(probe, run, unpacked):
    """From the unpacked copy and from memory (where a light verb found nothing unpacked)."""
    code = """
import subprocess
from minihub import runtime
inner = "import sys; from minihub import runtime; print(runtime.form(), 'site' in sys.modules)"
print(runtime.self_command("x")[:-1])
subprocess.run(runtime.self_command("proxy", inner), check=True)
subprocess.run(runtime.self_command("cull", inner), check=True)
print(subprocess.run(runtime.script_command("minihub.clock", "x")).returncode)
"""
    done = run(probe, *(() if unpacked else ("cull",)), code)
    form = "cache" if unpacked else "zip"
    lines = sorted(done.stdout.splitlines())
    assert lines[0] == "0"
    assert lines[2:] == [f"{form} False", f"{form} True"]
    assert "'-I'" in lines[1]
    assert ("/.cache/minihub/" in lines[1]) is unpacked
    assert (str(probe) in lines[1]) is not unpacked


# -- where it cannot run -----------------------------------------------------------------------


def test_platform_without_a_bundled_psutil_uses_the_installed_one_or_names_it(run, other):
    file = other("def main(argv=None): import psutil; print(psutil.__file__)", without="_native/")
    assert "site-packages" in run(file, "x").stdout
    done = run(file, "x", flags=("-S",), check=1)
    assert done.stderr.startswith("minihub: minihub.pyz carries no psutil for this Python (CPython")
    assert f"{sys.executable} -m pip install psutil" in done.stderr
    assert len(done.stderr.splitlines()) == 1


OLD = [
    path
    for path in sorted((Path.home() / ".pyenv" / "versions").glob("[23].*/bin/python"))
    if ast.literal_eval(path.parts[-3].split(".")[1]) < 10
]


def test_working_directory_that_is_gone_is_told(pyz, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    shell = f"rmdir {gone}; exec {sys.executable} {pyz} config check"
    done = subprocess.run(["sh", "-c", shell], cwd=gone, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "minihub: the working directory is gone; change to the hub's own\n"


@pytest.mark.parametrize("python", OLD, ids=lambda path: path.parts[-3])
def test_python_that_is_too_old_gets_one_clear_line(pyz, run, python):
    done = run(pyz, "x", python=str(python), check=1)
    assert "is too old: minihub needs Python 3.10 or newer" in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
