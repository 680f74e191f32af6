"""Stand-ins for the modules that configuration files import from JupyterHub.

While they are installed, ``from jupyterhub.auth import Authenticator`` gives minihub's, whether or
not JupyterHub is there, so that a class derived from it fits. Packages of authenticators, spawners
and proxies made for JupyterHub are refused by name. What such files use of tornado (coroutines,
``HTTPError``, its log) has stand-ins too, used only where tornado is not installed.

Rules of this file: names only; a class is imported when somebody asks for it. What has no
stand-in is an ImportError that says so.

Threads: installed and removed by the main thread; the import system locks the rest.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from minihub import JUPYTERHUB_VERSION, upstream

#: The dotted names that the names in a module mean.
_MODULES: dict[str, dict[str, str]] = {
    "jupyterhub": {},
    "jupyterhub.auth": {
        "Authenticator": "minihub.auth.base",
        "LocalAuthenticator": "minihub.auth.system",
        "PAMAuthenticator": "minihub.auth.pam",
        "DummyAuthenticator": "minihub.auth.simple",
        "NullAuthenticator": "minihub.auth.simple",
    },
    "jupyterhub.authenticators": {},
    "jupyterhub.authenticators.dummy": {"DummyAuthenticator": "minihub.auth.simple"},
    "jupyterhub.authenticators.shared": {"SharedPasswordAuthenticator": "minihub.auth.simple"},
    "jupyterhub.spawner": {
        "Spawner": "minihub.spawner",
        "LocalProcessSpawner": "minihub.local",
        "SimpleLocalProcessSpawner": "minihub.local",
    },
    "jupyterhub.proxy": {"Proxy": "minihub.proxies", "ConfigurableHTTPProxy": "minihub.proxies"},
    "jupyterhub.traitlets": {
        "ByteSpecification": "minihub.traits",
        "Callable": "minihub.traits",
        "Command": "minihub.traits",
        "URLPrefix": "minihub.traits",
    },
    "jupyterhub.utils": {
        "can_connect": "minihub.standin_utils",
        "compare_token": "minihub.standin_utils",
        "exponential_backoff": "minihub.standin_utils",
        "hash_token": "minihub.tokens",
        "isoformat": "minihub.clock",
        "maybe_future": "minihub.standin_utils",
        "new_token": "minihub.tokens",
        "random_port": "minihub.standin_utils",
        "url_escape_path": "minihub.urls:escape_name",
        "url_path_join": "minihub.urls",
        "utcnow": "minihub.clock",
    },
    "dummyauthenticator": {"DummyAuthenticator": "minihub.auth.simple"},
}
_TORNADO: dict[str, dict[str, str]] = {
    "tornado": {},
    "tornado.log": {"app_log": "minihub.standin_utils", "gen_log": "minihub.standin_utils"},
    "tornado.web": {"HTTPError": "minihub.standin_utils"},
    "tornado.gen": {
        "Return": "minihub.standin_utils",
        "coroutine": "minihub.standin_utils",
        "maybe_future": "minihub.standin_utils",
        "sleep": "minihub.standin_utils",
    },
}
_installed = 0


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the stand-ins, before anything that is installed."""

    def __init__(self, modules: dict[str, dict[str, str]]) -> None:
        self.modules = modules

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname in self.modules:
            package = any(name.startswith(fullname + ".") for name in self.modules)
            return importlib.util.spec_from_loader(fullname, self, is_package=package)
        top = fullname.partition(".")[0]
        if top == "jupyterhub":
            raise ModuleNotFoundError(f"minihub has no stand-in for {fullname}", name=fullname)
        reason = upstream.why_not_package(top)
        if reason:
            raise ModuleNotFoundError(f"{top}: {reason}", name=fullname)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _StandIn(spec.name, self.modules[spec.name])

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing is to be run."""


class _StandIn(types.ModuleType):
    """A module whose names are ours."""

    def __init__(self, name: str, places: dict[str, str]) -> None:
        super().__init__(name)
        self.__file__ = "minihub's stand-in"  # so does a message about a missing name call it
        self.__all__ = list(places)
        self._places = places
        if name == "jupyterhub":
            self.__version__ = JUPYTERHUB_VERSION
            self.version_info = tuple(int(part) for part in JUPYTERHUB_VERSION.split("."))

    def __getattr__(self, name: str) -> Any:
        places = self.__dict__.get("_places", {})
        if name not in places:
            raise AttributeError(f"minihub's stand-in for {self.__name__} has no {name}")
        module, _, ours = places[name].partition(":")
        return getattr(importlib.import_module(module), ours or name)


@contextmanager
def installed() -> Iterator[None]:
    """Let imports find the stand-ins; what had been imported of JupyterHub comes back after."""
    global _installed
    if _installed:
        yield
        return
    modules = dict(_MODULES)
    if importlib.machinery.PathFinder.find_spec("tornado") is None:
        modules |= _TORNADO
    finder = _Finder(modules)
    put_aside = {name: sys.modules.pop(name) for name in list(sys.modules) if _is_ours(name)}
    sys.meta_path.insert(0, finder)
    _installed = 1
    try:
        yield
    finally:
        _installed = 0
        sys.meta_path.remove(finder)
        for name, module in list(sys.modules.items()):
            if isinstance(module, _StandIn):
                del sys.modules[name]
        sys.modules.update(put_aside)


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] in ("jupyterhub", "dummyauthenticator")
