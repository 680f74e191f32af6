"""Resource limits: how they are written, what the hub was started with, what a session sets."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest
from traitlets import TraitError

from minihub import rlimits, startwords

UNLIMITED = resource.RLIM_INFINITY


def run(code: str, *, soft: int, hard: int) -> str:
    """Run code in a Python that is started with these limits of descriptors."""
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
    words = [sys.executable, "-c", limit + "from minihub import rlimits\n" + code]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


# -- as an option --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "understood"),
    [
        ({}, {}),
        ({"nproc": 500}, {"RLIMIT_NPROC": (500, 500)}),
        ({"nproc": "500"}, {"RLIMIT_NPROC": (500, 500)}),
        ({"nofile": [1024, 4096]}, {"RLIMIT_NOFILE": (1024, 4096)}),
        ({"core": 0, "cpu": 60}, {"RLIMIT_CORE": (0, 0), "RLIMIT_CPU": (60, 60)}),
        ({"fsize": "1.5G"}, {"RLIMIT_FSIZE": (3 * 2**29, 3 * 2**29)}),
        ({"core": [0, "unlimited"]}, {"RLIMIT_CORE": (0, UNLIMITED)}),
        ({"stack": "unlimited"}, {"RLIMIT_STACK": (UNLIMITED, UNLIMITED)}),
    ],
)
def test_limits_are_understood(given, understood):
    assert rlimits.parse(given) == understood


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"nprocs": 1}, 'there is no limit "nprocs"; there are as, core, cpu, .*nproc'),
        ({"RLIMIT_NPROC": 1}, 'there is no limit "RLIMIT_NPROC"'),
        ({7: 1}, 'there is no limit "7"'),
        ({"nproc": -1}, "nproc: -1 is no limit; give a number or unlimited"),
        ({"nproc": "5K"}, "nproc: '5K' is no limit; give a number or unlimited"),
        ({"nproc": True}, "nproc: True is no limit"),
        ({"nproc": None}, "nproc: None is no limit"),
        ({"nproc": {}}, "nproc: {} is no limit"),
        ({"fsize": "much"}, "fsize: 'much' is no limit; give a number, a size such as 512M or"),
        ({"nofile": [1]}, r"nofile: give one limit, or two: \[soft, hard\]"),
        ({"nofile": [2, 1]}, "nofile: the soft limit 2 is above the hard one 1"),
        ({"nofile": ["unlimited", 1]}, "nofile: the soft limit unlimited is above the hard one 1"),
        ({"fsize": 2**64}, "fsize: 18446744073709551616 is more than this system can count"),
        ({"nofile": 1.5}, "nofile: 1.5 is no limit; give a number"),
    ],
)
def test_what_is_no_limit_is_refused_by_name(given, message):
    with pytest.raises(TraitError, match=message):
        rlimits.parse(given)


def test_limits_that_are_not_held_as_one_might_think_are_told(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(rlimits, "_may_raise", lambda: False)
    monkeypatch.setattr(rlimits.resource, "getrlimit", lambda number: (10, 100))
    (told,) = rlimits.missing({"nofile": 101}, is_shared=True)
    assert "nofile is to be 101" in told and "above 100," in told and "no server starts" in told
    assert not list(rlimits.missing({"nofile": 100}, is_shared=True))
    (told,) = rlimits.missing({"nproc": 50}, is_shared=True)
    assert "nproc counts all processes of one user" in told
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(rlimits, "_may_raise", lambda: True)
    assert not list(rlimits.missing({"nofile": 101, "nproc": 50}, is_shared=False))
    (told,) = rlimits.missing({"nproc": 50}, is_shared=True)
    assert "nproc does not bind root" in told
    monkeypatch.setattr(rlimits, "_most_open", lambda: 1048576)
    (told,) = rlimits.missing({"nofile": 1048577}, is_shared=False)
    assert "nofile is to be 1048577" in told and "allows 1048576" in told
    assert not list(rlimits.missing({"nofile": 1048576}, is_shared=False))


def test_right_to_raise_limits_is_known():
    """Root has it, unless a container has taken it away."""
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    code = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({2**19}, {2**19}))"
    if hard == UNLIMITED or resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= 2**19:
        pytest.skip("there is nothing to raise")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert rlimits._may_raise() is (done.returncode == 0)


def test_start_that_meets_the_limit_of_processes_says_so():
    answer = {"step": "execute", "path": "/bin/x", "errno": 11, "text": "try again"}
    told = startwords.launch_error(answer, "ada", {})
    assert str(told) == "Too many processes run as the user ada already: try again."


# -- of this process -----------------------------------------------------------------------


def test_raised_descriptors_are_known_as_they_were():
    code = (
        "rlimits.raise_descriptors(); rlimits.raise_descriptors()\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE), rlimits.at_start())"
    )
    assert run(code, soft=100, hard=300) == "(300, 300) {'RLIMIT_NOFILE': (100, 300)}"


def test_nothing_is_said_to_be_changed_that_was_not():
    assert run("rlimits.raise_descriptors(); print(rlimits.at_start())", soft=300, hard=300) == "{}"


def test_hard_limit_lowered_later_is_no_promise():
    """prlimit(1) can do that to a running hub, and a server could not be given more."""
    code = (
        "rlimits.raise_descriptors(); resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80))\n"
        "print(rlimits.at_start())"
    )
    assert run(code, soft=100, hard=300) == "{'RLIMIT_NOFILE': (80, 80)}"
