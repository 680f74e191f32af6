"""The client of the REST API, and the question to a server, against what answers badly."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from minihub import culler
from minihub.errors import NotPermitted, UsageError
from minihub.rest import RestClient, RestError


class Answers:
    """A server that answers by a table: path to (status, headers, body) or a function."""

    def __init__(self):
        answers, requests = {}, []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                requests.append((self.command, self.path, dict(self.headers)))
                given = answers.get(self.path, (404, {}, b'{"message": "nothing here"}'))
                if callable(given):
                    self.close_connection = True
                    return given(self)
                status, headers, body = given
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_DELETE = do_GET

            def log_message(self, *args):
                pass

        self.table, self.requests = answers, requests
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_request: None  # clients that leave are the point
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def say(self, path, data, status=200, **headers):
        self.table[path] = (status, headers, json.dumps(data).encode())

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server():
    server = Answers()
    yield server
    server.close()


@pytest.fixture
def client(server):
    return RestClient(server.url + "/hub/api/", "secret")


# -- single requests --------------------------------------------------------------------------


def test_answer_has_status_data_and_the_hubs_date(server, client):
    server.say("/hub/api/users/ana", {"name": "ana"})
    answer = client.request("GET", "/users/ana")
    assert (answer.status, answer.data) == (200, {"name": "ana"})
    assert answer.date.tzinfo is not None
    [(_method, _path, headers)] = server.requests
    assert headers["Authorization"] == "token secret"


@pytest.mark.parametrize("status", [401, 403])
def test_refused_token_is_not_permitted_and_ends_with_6(server, client, status):
    server.say("/hub/api/users", {"message": "requires\x07 any of [x]"}, status)
    with pytest.raises(NotPermitted, match=r"requires  any of \[x\]") as found:
        client.request("GET", "/users")
    assert found.value.exit_code == 6


def test_error_has_the_hubs_own_words(server, client):
    server.say("/hub/api/users", {"message": "it broke"}, 500)
    with pytest.raises(RestError, match="GET .*/users: 500 it broke") as found:
        client.request("GET", "/users")
    assert (found.value.answered, found.value.said, found.value.exit_code) == (500, "it broke", 1)


def test_redirect_is_not_followed(server, client):
    server.say("/hub/api/users", {}, 302, Location="/elsewhere")
    with pytest.raises(RestError, match="It ends in /hub/api"):
        client.request("GET", "/users")
    assert [path for _method, path, _headers in server.requests] == ["/hub/api/users"]


def test_page_instead_of_json_is_told(server, client):
    server.table["/hub/api/users"] = (200, {}, b"<html>")
    with pytest.raises(RestError, match="is it a hub's"):
        client.request("GET", "/users")


def test_nobody_there_is_told():
    with pytest.raises(RestError, match="cannot be reached: Connection refused") as found:
        RestClient("http://127.0.0.1:1/hub/api", "x").request("GET", "/users")
    assert found.value.answered == 0


def test_environments_proxy_is_not_used(server, client, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    server.say("/hub/api/users", [])
    assert client.request("GET", "/users").data == []


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "ümlaut"])
def test_token_that_is_none_is_refused_before_it_is_sent(token):
    with pytest.raises(UsageError, match="token"):
        RestClient("http://127.0.0.1:1/", token)


# -- lists and streams ------------------------------------------------------------------------


def page(items, following=None):
    return {"items": items, "_pagination": {"next": following and {"url": following}}}


def test_pages_are_followed_at_our_own_address(server, client):
    """Where the hub believes itself to be counts for nothing: the token stays where it is."""
    server.say("/hub/api/users?limit=1", page([1], "http://127.0.0.1:1/x/users?limit=1&offset=1"))
    server.say("/hub/api/users?limit=1&offset=1", page([2]))
    assert list(client.items("/users", limit="1")) == [1, 2]
    assert all(
        headers["Accept"] == "application/jupyterhub-pagination+json"
        for _method, _path, headers in server.requests
    )


def test_list_without_pages_is_taken(server, client):
    server.say("/hub/api/users", [1, 2, 3])
    assert list(client.items("/users")) == [1, 2, 3]


@pytest.mark.parametrize("data", [{"items": [1]}, {}, 7])
def test_what_is_no_list_is_told(server, client, data):
    server.say("/hub/api/users", data)
    with pytest.raises(RestError, match="did not answer with a list"):
        list(client.items("/users"))


def test_pages_in_a_circle_end(server, client):
    server.say("/hub/api/users?limit=1", page([1], "/users?limit=1"))
    with pytest.raises(RestError, match="circle"):
        list(client.items("/users", limit="1"))


def test_events_of_a_stream_are_read(server, client):
    body = b'data: {"progress": 0}\n\n\n\ndata: {"progress": 100, "ready": true}\n\n'
    server.table["/hub/api/p"] = (200, {"Content-Type": "text/event-stream"}, body)
    assert [event["progress"] for event in client.events("/p")] == [0, 100]
    with pytest.raises(RestError, match="nothing here"):
        list(client.events("/nowhere"))


# -- asking a server for its kernels ----------------------------------------------------------

KERNELS = "/user/ana/api/kernels?no_track_activity=1"


@pytest.mark.parametrize(
    ("status", "data", "busy"),
    [
        (200, [], 0),
        (200, [{"execution_state": "idle"}], 0),
        (200, [{"execution_state": "busy"}, {"execution_state": "busy"}, {}], 2),
        (200, ["busy", None], 0),
        (200, {"execution_state": "busy"}, None),
        (404, {}, None),
        (403, {}, None),
        (500, {}, None),
    ],
)
def test_busy_kernels_are_counted(server, status, data, busy):
    server.say(KERNELS, data, status)
    assert culler.busy_kernels(server.url + "/user/ana/", "its-own") == busy
    assert server.requests[0][2]["Authorization"] == "token its-own"


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b"[" * 200_000])
def test_nonsense_of_a_server_says_nothing(server, body):
    server.table[KERNELS] = (200, {}, body)
    assert culler.busy_kernels(server.url + "/user/ana/", "x") is None


def test_servers_own_login_says_nothing_but_the_hub_is_recognised(server):
    server.say(KERNELS, {}, 302, Location="/hub/api/oauth2/authorize?x")
    assert culler.busy_kernels(server.url + "/user/ana/", "x") is None
    server.say(KERNELS, {}, 302, Location="/hub/user/ana/api/kernels")
    with pytest.raises(culler.AskedHub):
        culler.busy_kernels(server.url + "/user/ana/", "x")


def test_server_that_answers_byte_by_byte_is_left_in_time(server, monkeypatch):
    monkeypatch.setattr(culler, "ASK_TIMEOUT_S", 0.3)
    gone = threading.Event()

    def drip(handler):
        try:
            while not gone.wait(0.05):
                handler.wfile.write(b"H")
                handler.wfile.flush()
        except OSError:
            gone.set()

    server.table[KERNELS] = drip
    assert culler.busy_kernels(server.url + "/user/ana/", "x") is None
    assert gone.wait(10)


def test_server_that_is_not_there_says_nothing():
    assert culler.busy_kernels("http://127.0.0.1:1/user/ana/", "x") is None
