"""Modules of JupyterHub that configuration files import, made of ours."""

import importlib
import sys
import types

import pytest

from minihub import aio, standin_utils, standins
from minihub.auth.base import Authenticator
from minihub.auth.simple import DummyAuthenticator
from minihub.errors import words_of


@pytest.fixture
def installed():
    with standins.installed():
        yield
    aio.close()


@pytest.mark.parametrize(
    "module, name",
    [(module, name) for module, names in standins._MODULES.items() for name in names],
)
def test_every_name_is_there(installed, module, name):
    assert getattr(importlib.import_module(module), name)


@pytest.mark.parametrize(
    "module, name",
    [(module, name) for module, names in standins._TORNADO.items() for name in names],
)
def test_every_name_of_tornado_is_there(monkeypatch, module, name):
    monkeypatch.setattr(standins.importlib.machinery.PathFinder, "find_spec", lambda *args: None)
    with standins.installed():
        assert getattr(importlib.import_module(module), name)


def test_http_error_says_what_it_was_given():
    error = standin_utils.HTTPError(403, "No %s today", "servers")
    assert (error.status_code, words_of(error)) == (403, "No servers today")
    assert str(error) == "HTTP 403: No servers today"
    assert words_of(standin_utils.HTTPError(404, reason="Gone")) == "Gone"
    assert words_of(standin_utils.HTTPError(404, "100%")) == "100%"
    assert words_of(ValueError("plain")) == "plain"
    error = ValueError("for the log")
    error.jupyterhub_message = "for people"
    assert words_of(error) == "for people"


def test_base_class_is_ours(installed):
    from jupyterhub.auth import Authenticator as theirs
    from jupyterhub.utils import url_path_join

    assert theirs is Authenticator
    assert url_path_join("/a/", "b") == "/a/b"
    import jupyterhub

    assert jupyterhub.version_info[0] == 6


def test_star_import_brings_the_names(installed):
    namespace = {}
    exec("from jupyterhub.spawner import *", namespace)
    assert {"Spawner", "LocalProcessSpawner", "SimpleLocalProcessSpawner"} <= set(namespace)


def test_installed_module_is_put_aside_and_comes_back():
    real = types.ModuleType("jupyterhub")
    sys.modules["jupyterhub"] = real
    try:
        with standins.installed(), standins.installed():
            import jupyterhub

            assert jupyterhub is not real
        assert sys.modules["jupyterhub"] is real
    finally:
        del sys.modules["jupyterhub"]
    assert not any(isinstance(one, standins._StandIn) for one in sys.modules.values())


def test_dummyauthenticator_is_ours(installed):
    from dummyauthenticator import DummyAuthenticator as theirs

    assert theirs is DummyAuthenticator


@pytest.mark.parametrize(
    "statement, told",
    [
        ("from jupyterhub.handlers import BaseHandler", "no stand-in for jupyterhub.handlers"),
        ("from jupyterhub.auth import Nothing", "'jupyterhub.auth' (minihub's stand-in)"),
        ("import dockerspawner", "dockerspawner: a package for JupyterHub"),
        ("from oauthenticator.github import GitHubOAuthenticator", "oauthenticator: a package"),
    ],
)
def test_what_has_no_stand_in_is_told(installed, statement, told):
    with pytest.raises(ImportError) as caught:
        exec(statement)
    assert told in str(caught.value)


# -- coroutines in tornado's way -----------------------------------------------------------------


@standin_utils.coroutine
def _adds(one, other):
    first = yield standin_utils.maybe_future(one)
    both = yield [standin_utils.maybe_future(other), standin_utils.maybe_future(1)]
    raise standin_utils.Return(first + sum(both))


@standin_utils.coroutine
def _plain(value):
    return value


@standin_utils.coroutine
def _catches():
    async def fails():
        raise ValueError("no")

    try:
        yield fails()
    except ValueError as error:
        return f"caught {error}"


def test_generators_run_as_coroutines(installed):
    assert aio.call(_adds, 1, 2) == 4
    assert aio.call(_plain, 5) == 5
    assert aio.call(_catches) == "caught no"


def test_function_that_makes_futures_is_called_on_the_loop(installed):
    def makes_future(value):
        import asyncio

        future = asyncio.get_running_loop().create_future()
        future.set_result(value)
        return future

    makes_future.__tornado_coroutine__ = True
    assert aio.call(makes_future, 7) == 7


def test_exponential_backoff_waits_for_true_and_gives_up(installed):
    answers = iter([None, 0, "yes"])
    wait = standin_utils.exponential_backoff
    assert aio.call(wait, lambda: next(answers), "too late", start_wait=0.001) == "yes"
    with pytest.raises(TimeoutError, match="too late"):
        aio.call(wait, lambda: False, "too late", start_wait=0.001, timeout=0.01)


def test_ports():
    port = standin_utils.random_port()
    assert 0 < port < 65536 and not standin_utils.can_connect("127.0.0.1", port)
