"""A proxy that never answers: nobody waits for it for ever, nor once a start is cancelled."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import pytest

from minihub import deadline
from minihub.errors import ProxyError
from minihub.hubroutes import HubRoutes
from minihub.server import Server


class Cancelled(Exception):
    """Raised by whoever does not want a start any more."""


class Silent:
    """A plain proxy of somebody else's."""

    def __init__(self) -> None:
        self.end = threading.Event()

    def add_route(self, spec, target, data):
        self.end.wait(60)

    def delete_route(self, spec):
        self.end.wait(60)

    def get_all_routes(self):
        self.end.wait(60)


class SilentAwaited(Silent):
    """The same with coroutines, as proxies for JupyterHub have them."""

    async def add_route(self, spec, target, data):
        await asyncio.sleep(60)

    async def delete_route(self, spec):
        await asyncio.sleep(60)

    async def get_all_routes(self):
        await asyncio.sleep(60)


@pytest.fixture(params=[Silent, SilentAwaited])
def routes(request, monkeypatch):
    monkeypatch.setattr(deadline, "PATIENCE_S", 0.2)
    proxy = request.param()
    yield HubRoutes(
        proxy=proxy,
        info=SimpleNamespace(
            api_url="http://127.0.0.1:1/hub/api", routespec=lambda host, path: path
        ),
        services=None,
        activity=None,
        servers=list,
        person=lambda name: SimpleNamespace(host="", server_url=lambda server: f"/user/{name}/"),
    )
    proxy.end.set()


@pytest.mark.parametrize("what", ["add_route", "delete_route", "get_all_routes"])
def test_proxy_that_does_not_answer_is_an_error_in_time(routes, what):
    server = Server(1, "ada", "")
    calls = {
        "add_route": lambda: routes.add_server(server),
        "delete_route": lambda: routes.remove_server(server),
        "get_all_routes": routes.check,
    }
    with pytest.raises(ProxyError, match=rf"^Silent\w*\.{what} has not ended: no result within"):
        calls[what]()


def test_cancelled_start_does_not_wait_for_the_proxy(routes, monkeypatch):
    monkeypatch.setattr(deadline, "PATIENCE_S", 600)

    def still_wanted():
        raise Cancelled

    with pytest.raises(Cancelled):
        routes.add_server(Server(1, "ada", ""), still_wanted)


class Picky:
    """A proxy that refuses one route."""

    def __init__(self) -> None:
        self.added: list[str] = []

    def get_all_routes(self):
        return {}

    def add_route(self, spec, target, data):
        if spec == "/bad/":
            raise ProxyError("no target")
        self.added.append(spec)

    extra_routes = {"/bad/": "http://127.0.0.1:2"}


def test_route_that_is_refused_does_not_keep_the_hubs_own_away():
    """A proxy that has just begun answers nobody before it has that one."""
    proxy = Picky()
    routes = HubRoutes(
        proxy=proxy,
        info=SimpleNamespace(api_url="http://127.0.0.1:1/hub/api"),
        services=SimpleNamespace(routes=dict),
        activity=None,
        servers=list,
        person=None,
    )
    with pytest.raises(ProxyError, match="no target"):
        routes.check()
    assert proxy.added == [routes.hub_routespec]
