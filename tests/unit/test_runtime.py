"""How minihub finds out how it was started, and starts itself again."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from minihub import runtime

PACKAGE = Path(runtime.__file__).parent


@pytest.fixture
def checkout(tmp_path):
    """A checkout with only what starts minihub, whose proxy and command line run given code."""
    package = tmp_path / "checkout" / "minihub"
    (package / "proxy").mkdir(parents=True)
    for name in ("__init__", "__main__", "_bootstrap", "bundle", "runtime", "zipform", "clock"):
        shutil.copy(PACKAGE / f"{name}.py", package)
    run = "def main(argv):\n    exec(argv[-1], {})\n    return 5\n"
    (package / "cli.py").write_text(run)
    (package / "proxy" / "__init__.py").write_text("")
    (package / "proxy" / "main.py").write_text(run)
    return package.parent


def start(*args, check=5, **options):
    done = subprocess.run(args, capture_output=True, text=True, check=False, **options)
    assert done.returncode == check, done.stderr
    return done


# -- command lines -----------------------------------------------------------------------------


def test_checkout_form_and_commands():
    assert runtime.form() == "checkout"
    main = str(PACKAGE / "__main__.py")
    assert runtime.self_command("token", "ann") == [sys.executable, "-I", main, "token", "ann"]
    assert runtime.self_command("proxy") == [sys.executable, "-I", "-S", main, "proxy"]
    assert runtime.self_command() == [sys.executable, "-I", main]


def test_script_command_names_the_module_s_file():
    command = runtime.script_command("minihub.proxy.main", "7")
    assert command == [sys.executable, "-I", "-S", str(PACKAGE / "proxy" / "main.py"), "7"]


def test_optimisation_travels_to_the_next_process(monkeypatch):
    class Flags:
        optimize = 2

    monkeypatch.setattr(sys, "flags", Flags())
    assert runtime.self_command("cull")[:3] == [sys.executable, "-OO", "-I"]


def test_unpacked_copy_is_known_by_its_manifest(checkout):
    (checkout / runtime.UNPACKED_MARK).write_text("")
    (checkout / "in-use.lock").write_text("")
    code = "from minihub import runtime; import sys; print(runtime.form(), sys.path[0])"
    done = start(sys.executable, "-I", checkout / "minihub" / "__main__.py", "x", code)
    assert done.stdout.split() == ["cache", str(checkout)]


@pytest.mark.parametrize(("args", "light"), [([], 0), (["proxy"], 1), (["cull"], 1), (["x"], 0)])
def test_light_verbs(args, light):
    assert runtime.is_light(args) is bool(light)


# -- started from a checkout -------------------------------------------------------------------


@pytest.mark.parametrize("flags", [(), ("-I",), ("-I", "-S")])
def test_main_file_starts_the_proxy_from_any_directory(checkout, tmp_path, flags):
    code = "import minihub; print(minihub.__file__)"
    main = checkout / "minihub" / "__main__.py"
    done = start(sys.executable, *flags, main, "proxy", code, cwd=tmp_path)
    assert done.stdout == f"{checkout}/minihub/__init__.py\n"


def test_version_is_printed_without_anything_else(checkout):
    (checkout / "minihub" / "runtime.py").write_text("form = lambda: 'checkout'\n")
    (checkout / "minihub" / "cli.py").unlink()
    with open(checkout / "minihub" / "runtime.py", "a") as file:
        file.write("drop_relative_path_entries = lambda: None\n")
    main = checkout / "minihub" / "__main__.py"
    assert start(sys.executable, "-I", "-S", main, "--version", check=0).stdout.count(".") == 2


@pytest.mark.parametrize("module", [True, False])
def test_neither_current_nor_checkout_directory_is_imported_from(checkout, module):
    """What lies beside the package, or in it, does not hide the packages of others."""
    for place in (checkout, checkout / "minihub"):
        for name in ("yaml", "psutil", "hashlib"):
            (place / f"{name}.py").write_text("raise SystemExit('planted')")
    code = "import sys, hashlib, yaml, psutil, minihub.clock; print(sys.path)"
    program = ["-m", "minihub"] if module else [str(checkout / "minihub" / "__main__.py")]
    done = start(sys.executable, *program, "x", code, cwd=checkout)
    assert str(checkout) not in done.stdout


def test_missing_packages_are_named_with_the_pip_line(checkout):
    main = checkout / "minihub" / "__main__.py"
    done = start(sys.executable, "-I", "-S", main, "token", check=1)
    assert done.stderr.startswith("minihub: this checkout needs packages")
    assert f"{sys.executable} -m pip install bottle jinja2" in done.stderr
    assert done.stderr.rstrip().endswith("pyyaml")
    assert len(done.stderr.splitlines()) == 1


def test_nothing_is_missing_here():
    assert runtime.missing_packages() == ""


def test_keyboard_interrupt_ends_without_a_traceback(checkout):
    main = checkout / "minihub" / "__main__.py"
    done = start(sys.executable, main, "x", "raise KeyboardInterrupt", check=130)
    assert done.stderr == ""


def test_reader_of_the_output_that_left_gets_no_traceback(checkout):
    main = str(checkout / "minihub" / "__main__.py")
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as closed:
        done = subprocess.run(
            [sys.executable, main, "x", "print('help')"],
            stdout=closed,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, b"")


# -- sys.path ----------------------------------------------------------------------------------


def test_empty_and_relative_elements_of_pythonpath_are_dropped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = str(tmp_path)
    path = [here, f"{here}/lib", "/usr/lib", "", "lib"]
    assert runtime.without_relative(path, ":lib") == ["/usr/lib"]
    assert runtime.without_relative(path, "/srv:.") == [f"{here}/lib", "/usr/lib"]


def test_current_directory_named_absolutely_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = [str(tmp_path), "/usr/lib"]
    assert runtime.without_relative(path, f"{tmp_path}/:") == path
    assert runtime.without_relative(path, "") == path


def test_removed_current_directory_is_no_error(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert runtime.without_relative(["", "/usr/lib"], ":x") == ["/usr/lib"]


def test_platform_is_described_in_one_line():
    text = runtime.describe_platform()
    assert f"{sys.version_info[0]}.{sys.version_info[1]}" in text and sys.platform in text


def test_python_of_a_distribution_is_told_to_use_a_virtual_environment(tmp_path):
    marker = tmp_path / "EXTERNALLY-MANAGED"
    pip = "python3 -m pip install jupyterlab"
    given = {"prefix": sys.base_prefix, "marker": str(marker)}
    assert runtime.install_line("jupyterlab", **given) == pip
    marker.touch()
    line = runtime.install_line("jupyterlab", **given)
    assert line.startswith("python3 -m venv jupyter && jupyter/bin/pip install jupyterlab,")
    assert "PATH=$PWD/jupyter/bin:$PATH" in line
    assert runtime.install_line("jupyterlab", prefix="/a/venv", marker=str(marker)) == pip
