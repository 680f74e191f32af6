"""The log: format fields, where it goes, and that nothing on a terminal is a traceback."""

import io
import logging
import os
import sys
import threading
import warnings

import pytest

from minihub import logs
from minihub.errors import ConfigError
from minihub.options import JupyterHub


@pytest.fixture
def setup():
    """Set the log up on a text stream; undone after the test."""

    def setup(stream=None, **given):
        stream = io.StringIO() if stream is None else stream
        logs.setup(JupyterHub(**given), stream)
        return stream

    yield setup
    logs.teardown()


class Terminal(io.StringIO):
    def isatty(self):
        return True


log = logging.getLogger("minihub")


def test_default_format_names_high_levels_only(setup):
    stream = setup(log_level=20)
    log.info("one")
    log.warning("two %s", "things")
    logging.getLogger("minihub.spawner").error("three")
    assert stream.getvalue().splitlines() == [
        "[minihub] one",
        "[minihub] WARNING | two things",
        "[minihub.spawner] ERROR | three",
    ]


def test_level_is_the_options(setup):
    stream = setup(log_level="ERROR")
    log.warning("no")
    log.error("yes")
    assert stream.getvalue() == "[minihub] ERROR | yes\n"


def test_warnings_of_libraries_arrive_but_not_their_chatter(setup):
    stream = setup(log_level="DEBUG")
    logging.getLogger("peewee").debug("SELECT 1")
    logging.getLogger("waitress").warning("odd request")
    logging.getLogger("waitress.queue").warning("Task queue depth is 1")
    assert stream.getvalue() == "[waitress] WARNING | odd request\n"


COLORFUL = "%(color)s%(levelname)s%(end_color)s %(message)s"


@pytest.mark.parametrize(
    "stream, no_color, text",
    [
        (Terminal, "", "\x1b[33mWARNING\x1b[0m x\n"),
        (Terminal, "1", "WARNING x\n"),
        (io.StringIO, "", "WARNING x\n"),
    ],
)
def test_colors_are_for_terminals_that_want_them(setup, monkeypatch, stream, no_color, text):
    monkeypatch.setenv("NO_COLOR", no_color)
    stream = setup(stream(), log_format=COLORFUL)
    log.warning("x")
    assert stream.getvalue() == text


def test_date_format_is_the_options(setup):
    stream = setup(log_format="%(asctime)s.%(msecs).03d %(message)s", log_datefmt="day %d")
    log.warning("x")
    assert stream.getvalue().startswith("day ")


def test_extra_file_gets_the_log_without_color(setup, tmp_path):
    file = tmp_path / "hub.log"
    setup(Terminal(), log_format=COLORFUL, extra_log_file=str(file))
    log.warning("x")
    assert file.read_text() == "WARNING x\n"


def test_extra_file_that_cannot_be_written_is_a_configuration_error(setup, tmp_path):
    with pytest.raises(ConfigError, match="JupyterHub.extra_log_file: cannot write .*: No such"):
        setup(extra_log_file=str(tmp_path / "nowhere" / "hub.log"))


def test_extra_handler_gets_our_format_unless_it_has_its_own(setup):
    plain, own = logging.StreamHandler(io.StringIO()), logging.StreamHandler(io.StringIO())
    own.setFormatter(logging.Formatter("mine: %(message)s"))
    setup(extra_log_handlers=[plain, own])
    log.warning("x")
    assert plain.stream.getvalue() == "[minihub] WARNING | x\n"
    assert own.stream.getvalue() == "mine: x\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a full device")
def test_log_that_cannot_be_written_is_told_once_in_one_line(setup):
    class Broken(logging.Handler):
        def emit(self, record):
            try:
                raise RuntimeError("no more")
            except RuntimeError:
                self.handleError(record)

    stream = setup(extra_log_file="/dev/full", extra_log_handlers=[Broken()])
    for _ in range(3):
        log.error("something")
    logs.teardown()
    assert stream.getvalue().count("[minihub] ERROR | something") == 3
    others = [line for line in stream.getvalue().splitlines() if "something" not in line]
    assert others == [
        "The log cannot be written to /dev/full: No space left on device",
        "The log cannot be written to Broken: RuntimeError: no more",
    ]


def test_setup_twice_logs_once(setup):
    setup()
    stream = setup()
    log.warning("x")
    assert stream.getvalue().count("x") == 1


def test_teardown_restores_everything(setup, tmp_path):
    before = (logging.getLogger().handlers[:], threading.excepthook, sys.unraisablehook)
    showwarning = warnings.showwarning
    setup(extra_log_file=str(tmp_path / "hub.log"))
    logs.teardown()
    logs.teardown()
    assert (logging.getLogger().handlers, threading.excepthook, sys.unraisablehook) == before
    assert warnings.showwarning is showwarning


# -- errors ----------------------------------------------------------------------------------


def fail_with_log():
    try:
        raise ValueError("bad\nthing")
    except ValueError:
        log.exception("It failed for %s", "ana")


def test_exception_is_one_line_on_the_terminal_and_whole_in_the_file(setup, tmp_path):
    file = tmp_path / "hub.log"
    stream = setup(extra_log_file=str(file))
    fail_with_log()
    assert stream.getvalue() == ("[minihub] ERROR | It failed for ana (ValueError: bad\\nthing)\n")
    assert "Traceback" in file.read_text()


def test_debug_shows_tracebacks_on_the_terminal(setup):
    stream = setup(log_level="DEBUG")
    fail_with_log()
    assert "Traceback" in stream.getvalue()


def test_death_of_a_thread_is_logged_in_one_line(setup):
    stream = setup()
    thread = threading.Thread(target=lambda: 1 / 0, name="poller")
    thread.start()
    thread.join()
    assert stream.getvalue() == (
        "[minihub] ERROR | Thread poller ended by an error (ZeroDivisionError: division by zero)\n"
    )


def test_python_warnings_are_logged_in_one_line(setup):
    stream = setup()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = logs._log_warning  # catch_warnings put its own in
        warnings.warn("old\nstyle", DeprecationWarning, stacklevel=1)
    assert stream.getvalue().startswith("[minihub] WARNING | DeprecationWarning: old\\nstyle (")
    assert stream.getvalue().count("\n") == 1


def test_error_in_a_finalizer_is_logged(setup):
    class Bad:
        def __del__(self):
            raise ValueError("x")

    stream = setup()
    Bad()
    assert "An error was ignored" in stream.getvalue()
    assert "Traceback" not in stream.getvalue()


# -- text from outside -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, shown",
    [
        ("plain ü", "plain ü"),
        ("a\r\nb\x1b[31m\x00", "a\\r\\nb\\x1b[31m\\x00"),
        ("\u202egpj", "\\u202egpj"),
        ("\ud800", "\\ud800"),
        ("x" * 201, "x" * 200 + "…"),
        (3, "3"),
    ],
)
def test_safe_text_is_one_harmless_line(text, shown):
    assert logs.safe(text) == shown


@pytest.mark.parametrize("fmt", ["%(nothing)s", "%(message)d", "no field", "%(asctime"])
def test_wrong_format_is_told(fmt):
    assert logs.check_format(fmt, "%Y")


def test_right_format_is_silent():
    assert logs.check_format(JupyterHub().log_format, JupyterHub().log_datefmt) == ""
