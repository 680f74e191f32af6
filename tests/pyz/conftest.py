"""A minihub.pyz whose command line runs any code, to look from inside at how the file starts."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: Instead of cli.py and proxy/main.py: every verb runs the code given as the last argument.
PROBE = """
def main(argv=None):
    exec(compile(argv[-1], "probe", "exec"), {"__name__": "probe"})
    return 0
"""

Run = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="session")
def builder() -> ModuleType:
    """The build script as a module."""
    spec = importlib.util.spec_from_file_location("build_zipapp", ROOT / "build_zipapp.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def contents(pyz: Path, builder: ModuleType) -> dict[str, bytes]:
    """What the built file unpacks, by name."""
    with zipfile.ZipFile(pyz) as archive:
        names = set(archive.namelist()) - {"__main__.py", builder.MANIFEST}
        return {name: archive.read(name) for name in names}


@pytest.fixture
def public_dir() -> Iterator[Path]:
    """A temporary directory that other users can enter, unlike pytest's."""
    path = Path(tempfile.mkdtemp(prefix="minihub-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def probe_contents(contents: dict[str, bytes]) -> dict[str, bytes]:
    """What a file with :data:`PROBE` for its commands unpacks.

    Little more than what the questions are about: compiling everything is most of a first start.
    """
    kept = re.compile(
        r"""
          minihub/(__init__|__main__|_bootstrap|bundle|runtime|zipform|clock|errors|tokens)\.py
        | minihub/(proxy|web)/__init__\.py | minihub/web/templates/.*
        | (_native|jinja2|markupsafe|psutil|yaml)/.* | pamela\.py
        """,
        re.VERBOSE,
    )
    files = {name: data for name, data in contents.items() if kept.fullmatch(name)}
    return {**files, "minihub/cli.py": PROBE.encode(), "minihub/proxy/main.py": PROBE.encode()}


@pytest.fixture(scope="session")
def built_probe(
    tmp_path_factory: pytest.TempPathFactory, builder: ModuleType, probe_contents: dict[str, bytes]
) -> Path:
    """The file with :data:`PROBE`; not to be changed."""
    file = tmp_path_factory.mktemp("probe") / "probe.pyz"
    builder.write_archive(file, probe_contents)
    return file


@pytest.fixture
def probe(public_dir: Path, built_probe: Path) -> Path:
    """A file with :data:`PROBE` for its commands, the test's own."""
    return Path(shutil.copy(built_probe, public_dir / "probe.pyz"))


@pytest.fixture
def other(
    public_dir: Path, builder: ModuleType, probe_contents: dict[str, bytes]
) -> Callable[..., Path]:
    """Write a file of other content than the probe: ``other(cli.py's source, without=prefix)``."""

    def write(source: str, without: str = "nothing/") -> Path:
        files = {n: d for n, d in probe_contents.items() if not n.startswith(without)}
        file = public_dir / "other.pyz"
        builder.write_archive(file, {**files, "minihub/cli.py": source.encode()})
        return file

    return write


@pytest.fixture
def env(public_dir: Path) -> dict[str, str]:
    """An environment whose only home, cache and temporary directory are the test's own."""
    for name in ("home", "tmp"):
        (public_dir / name).mkdir(mode=0o700)
    return {
        "HOME": str(public_dir / "home"),
        "TMPDIR": str(public_dir / "tmp"),
        "PATH": os.environ["PATH"],
    }


@pytest.fixture
def cache(env: dict[str, str]) -> Path:
    """Where builds go in ``env``."""
    return Path(env["HOME"], ".cache", "minihub")


@pytest.fixture
def run(env: dict[str, str], public_dir: Path) -> Run:
    """Run a program of Python in ``env`` and return what became of it.

    ``run(file, *args, flags=…, python=…, check=…, user=…, cwd=…, VARIABLE=…)``; ``check`` is the
    exit code demanded, ``user`` a user id to run as (when root).
    """

    def run(
        *args: object,
        flags: tuple[str, ...] = (),
        python: str = sys.executable,
        check: int | None = 0,
        user: int | None = None,
        cwd: Path | None = None,
        **variables: str,
    ) -> subprocess.CompletedProcess:
        done = subprocess.run(
            [python, *flags, *map(str, args)],
            env={**env, **variables},
            cwd=cwd or public_dir,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **({} if user is None else {"user": user, "group": user, "extra_groups": []}),
        )
        if check is not None:
            assert done.returncode == check, done.stdout + done.stderr
        return done

    return run
