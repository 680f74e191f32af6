"""The REST API of servers: made, started, changed, stopped, removed, and watched as they start."""

import contextlib
import json
import sqlite3
import threading

import pytest
from admin_tools import wait_until
from apiworld import ADMIN, Caller, World, config
from harness import merge, serving

HOOK = """
import yaml

for section, values in yaml.safe_load(open("minihub.yaml")).items():
    for name, value in values.items():
        setattr(c[section], name, value)


def landed(spawner, event):
    return event | {"url": event["url"] + "lab"}


c.Spawner.progress_ready_hook = landed
"""
SLOW = {"tornado_settings": {"slow_spawn_timeout": 0.3, "slow_stop_timeout": 0.3}}


def events(response):
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "text/event-stream"
    assert response.headers["Cache-Control"] == "no-cache"
    lines = response.iter_lines()
    return [json.loads(line[6:]) for line in lines if line.startswith(b"data: ")]


@pytest.fixture(scope="module")
def stuck(tmp_path_factory):
    """A hub whose servers never answer, one at a time, and which waits for them only briefly."""
    mute = {"Spawner": {"environment": {"FAKE_MODE": "mute"}, "http_timeout": 60}}
    settings = merge(config(concurrent_spawn_limit=1, **SLOW), mute)
    with serving(tmp_path_factory.mktemp("stuck"), settings) as hub:
        yield World(hub)


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    """A hub with one server at most, none of them named, and a hook in its Python file."""
    directory = tmp_path_factory.mktemp("strict")
    (directory / "hook.py").write_text(HOOK)
    settings = config(allow_named_servers=False, active_server_limit=1)
    with serving(directory, settings, args=("-f", "hook.py")) as hub:
        yield World(hub)


# -- one server's life -----------------------------------------------------------------------


def test_default_server_from_start_to_stop(world):
    name = world.new_user()
    path = f"/users/{name}/server"
    before = world.boss.call("GET", path).json()
    assert before["stopped"] and not before["ready"] and before["url"] == f"/user/{name}/"
    assert world.boss.call("DELETE", path).status_code == 204
    started = world.boss.call("POST", path, {"size": "big"})
    assert started.status_code == 201 and started.content == b""
    assert started.headers["Content-Type"].startswith("text/plain")
    model = world.boss.call("GET", path).json()
    assert model["ready"] and model["user_options"] == {"size": "big"} and model["pending"] is None
    again = world.boss.call("POST", path)
    assert again.status_code == 400 and "is already running" in again.json()["message"]
    assert world.boss.call("GET", f"/users/{name}").json()["server"] == f"/user/{name}/"
    assert world.boss.call("DELETE", path).status_code == 204
    assert world.boss.call("GET", path).json()["stopped"]


def test_both_paths_mean_the_default_server(world):
    name = world.new_user()
    assert world.boss.call("POST", f"/users/{name}/servers/").status_code == 201
    assert world.boss.call("GET", f"/users/{name}/server").json()["ready"]
    progress = [
        events(world.boss.get(f"/users/{name}/{path}/progress", stream=True))
        for path in ("server", "servers/")
    ]
    assert progress[0] == progress[1] and progress[0][-1]["ready"]
    assert world.boss.call("DELETE", f"/users/{name}/servers/").status_code == 204


def test_options_of_the_last_start_count_when_none_are_given(world):
    name = world.new_user()
    path = f"/users/{name}/server"
    for body, options in (
        ({"user_options": {"a": 1}}, {"a": 1}),
        ({"display_name": "Mine"}, {"a": 1}),
        ({"user_options": {}}, {}),
    ):
        assert world.boss.call("POST", path, body).status_code == 201, body
        assert world.boss.call("GET", path).json()["user_options"] == options
        assert world.boss.call("DELETE", path).status_code == 204
    assert world.boss.call("GET", path).json()["display_name"] == "Mine"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([1], "Body must be a JSON object"),
        ("x", "Body must be a JSON object"),
        ({"display_name": 3}, "display_name must be a string"),
        ({"user_options": [3]}, "user_options must be an object or null"),
        ({"display_name": "a  b"}, "Invalid display_name: 'a  b'"),
        ({"display_name": " a"}, "Invalid display_name: ' a'"),
        ({"display_name": "a\u202eb"}, "Invalid display_name: 'a\\u202eb'"),
        ({"display_name": "x" * 256}, f"Invalid display_name: {'x' * 60!r}"),
    ],
)
def test_wrong_start_starts_nothing(world, body, message):
    name = world.new_user()
    response = world.boss.call("POST", f"/users/{name}/server", body)
    assert response.status_code == 400 and response.json()["message"] == message
    assert world.boss.call("GET", f"/users/{name}/server").json()["stopped"]


def test_failed_start_is_an_error_with_its_reason(start_hub):
    hub = start_hub(merge(config(), {"Spawner": {"environment": {"FAKE_MODE": "exit"}}}))
    boss = Caller(hub, ADMIN)
    response = boss.call("POST", "/users/ada/server")
    assert response.status_code == 500
    assert "exit code 3" in response.json()["message"]
    assert boss.call("GET", "/users/ada").json()["servers"] == {}
    last = events(boss.get("/users/ada/server/progress", stream=True))[-1]
    assert last["failed"] and last["progress"] == 100 and "exit code 3" in last["message"]


# -- named servers ---------------------------------------------------------------------------


def test_named_server_is_made_started_stopped_and_removed(world):
    name = world.new_user()
    path = f"/users/{name}/servers/lab-2"
    assert world.boss.call("GET", path).status_code == 404
    made = world.boss.call("PUT", path, {"display_name": "My Lab", "user_options": {"a": 1}})
    assert made.status_code == 201
    assert made.json()["display_name"] == "My Lab" and made.json()["stopped"]
    assert made.json()["progress_url"] == f"/hub/api/users/{name}/servers/lab-2/progress"
    again = world.boss.call("PUT", path)
    assert again.status_code == 409
    assert again.json()["message"] == f"User {name} already has server lab-2"
    assert world.boss.call("POST", path).status_code == 201
    running = world.boss.call("GET", path).json()
    assert running["ready"] and running["url"] == f"/user/{name}/lab-2/"
    assert running["user_options"] == {"a": 1} and running["display_name"] == "My Lab"
    assert world.boss.call("GET", f"/users/{name}").json()["server"] is None
    assert world.boss.call("DELETE", path).status_code == 204
    assert world.boss.call("GET", path).json()["stopped"]
    assert world.boss.call("POST", path).status_code == 201
    assert world.boss.call("DELETE", path, {"remove": True}).status_code == 204
    gone = world.boss.call("DELETE", path)
    assert gone.status_code == 404
    assert gone.json()["message"] == f"{name} has no server named 'lab-2'"


def test_default_server_is_neither_made_nor_removed(world):
    made = world.boss.call("PUT", "/users/ada/server")
    assert made.status_code == 409
    assert made.json()["message"] == "User ada already has a default server"
    removed = world.boss.call("DELETE", "/users/ada/server", {"remove": True})
    assert removed.status_code == 400
    assert removed.json()["message"] == "Cannot delete the default server"


@pytest.mark.parametrize("name", ["Big", "1a", "a--b", "a-", "-a", "a_b", "a.b", "x" * 31, "ü"])
@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_name_of_a_new_server_is_plain(world, method, name):
    response = world.boss.call(method, f"/users/ada/servers/{name}")
    assert response.status_code == 400
    assert response.json()["message"].startswith("Invalid server name")


def test_named_servers_have_a_limit(world):
    name = world.new_user()
    for server in ("a", "b", "c"):
        assert world.boss.call("PUT", f"/users/{name}/servers/{server}").status_code == 201
    for method in ("PUT", "POST"):
        response = world.boss.call(method, f"/users/{name}/servers/d")
        assert response.status_code == 400
        assert response.json()["message"] == (
            f"User {name} already has the maximum of 3 named servers."
            "  One must be deleted before a new server can be created"
        )
    assert world.boss.call("POST", f"/users/{name}/servers/c").status_code == 201
    assert world.boss.call("POST", f"/users/{name}/server").status_code == 201
    world.boss.call("DELETE", f"/users/{name}")


def test_without_named_servers_there_are_none(strict):
    for method in ("PUT", "POST", "DELETE"):
        response = strict.boss.call(method, "/users/ada/servers/lab")
        assert response.status_code == 400
        assert response.json()["message"] == "Named servers are not enabled."


OLD_NAME = "My Läb #1"
OLD_PATH = "/users/ada/servers/My%20L%C3%A4b%20%231"


@pytest.fixture
def with_old_names(start_hub):
    """Start a hub whose database holds a server that JupyterHub 5 or older named; again if asked.

    ``target`` is where it runs, for one that does.
    """

    def start(wanted, target=None):
        hub = start_hub(config())
        World(hub).boss.call("PUT", "/users/ada/servers/lab")
        assert World(hub).boss.call("PUT", "/users/ada/servers/my-lab-1").status_code == 201
        assert hub.stop() == 0
        with contextlib.closing(sqlite3.connect(hub.directory / "jupyterhub.sqlite")) as db:
            db.execute("update servers set name = ?, display_name = '', target = ? where"
                       " name = 'lab'", (OLD_NAME, target))  # fmt: skip
            db.commit()
        settings = config(allow_existing_invalid_named_servers=wanted)
        return World(start_hub(settings, directory=hub.directory))

    return start


def test_server_with_an_old_name_may_start(with_old_names):
    world = with_old_names("allow-start")
    world.hub.wait_text("1 named servers have names that no new one may have, such as My Läb #1")
    boss = world.boss
    assert boss.call("POST", OLD_PATH).status_code == 201
    running = boss.call("GET", OLD_PATH).json()
    assert running["ready"] and running["name"] == OLD_NAME
    browser = world.hub.browser("ada")
    assert browser.follow(running["url"]).json()["visitor"]["name"] == "ada"
    assert OLD_NAME in browser.get("/hub/home").text
    assert boss.call("DELETE", OLD_PATH).status_code == 204
    assert boss.call("PUT", OLD_PATH.replace("1", "2")).status_code == 400  # a new one may not
    assert boss.call("PATCH", OLD_PATH, {"name": "lab"}).json()["name"] == "lab"


def test_allow_existing_invalid_named_servers_decides_what_becomes_of_old_names(with_old_names):
    world = with_old_names("allow-delete")
    refused = world.boss.call("POST", OLD_PATH)
    assert refused.status_code == 400 and "contact your administrator" in refused.json()["message"]
    browser = world.hub.browser("ada")
    assert browser.get(OLD_PATH.replace("/users/ada/servers", "/hub/spawn/ada")).status_code == 400
    home = browser.get("/hub/home").text
    assert "names of an older kind" in home and "/hub/spawn/ada/My" not in home
    assert world.boss.call("POST", "/users/ada/servers/my-lab-1").status_code == 201  # others may
    assert "/hub/delete/ada/my-lab-1" not in browser.get("/hub/home").text  # it runs
    gone = browser.submit(OLD_PATH.replace("/users/ada/servers", "/hub/delete/ada"), {},
                          page="/hub/home")  # fmt: skip
    assert gone.status_code == 303 and world.boss.call("GET", OLD_PATH).status_code == 404
    running = browser.submit("/hub/delete/ada/my-lab-1", {}, page="/hub/home")
    assert running.status_code == 400


def test_old_names_are_renamed_at_the_start_if_asked(with_old_names):
    world = with_old_names("autorename")
    world.hub.wait_text("Server My Läb #1 of ada is now named my-lab-1-[0-9a-f]{8}")
    servers = world.boss.call("GET", "/users/ada?include_stopped_servers").json()["servers"]
    (new,) = set(servers) - {"", "my-lab-1"}
    assert servers[new]["display_name"] == OLD_NAME
    assert world.boss.call("POST", f"/users/ada/servers/{new}").status_code == 201
    browser = world.hub.browser("ada")
    assert browser.follow(f"/user/ada/{new}/").json()["visitor"]["name"] == "ada"


def test_running_server_with_an_old_name_is_not_renamed(with_old_names):
    world = with_old_names("autorename", target="http://127.0.0.1:9")
    world.hub.wait_text("Server My Läb #1 of ada runs, so it keeps a name that no new one may have")
    assert world.boss.call("GET", OLD_PATH).status_code == 200


# -- changing --------------------------------------------------------------------------------


def test_stopped_server_can_be_renamed_and_changed(world):
    name = world.new_user()
    world.boss.call("PUT", f"/users/{name}/servers/old", {"display_name": "Old"})
    world.boss.call("PUT", f"/users/{name}/servers/taken")
    path = f"/users/{name}/servers/old"
    conflict = world.boss.call("PATCH", path, {"name": "taken"})
    assert conflict.status_code == 409
    changed = world.boss.call("PATCH", path, {"name": "new", "user_options": {"b": 2}})
    assert changed.status_code == 200
    model = changed.json()
    assert (model["name"], model["display_name"]) == ("new", "Old")
    assert model["user_options"] == {"b": 2} and model["url"] == f"/user/{name}/new/"
    assert world.boss.call("GET", path).status_code == 404
    shown = world.boss.call("PATCH", f"/users/{name}/servers/new", {"display_name": "Shown é"})
    assert shown.json()["display_name"] == "Shown é"
    assert world.boss.call("POST", f"/users/{name}/servers/new").status_code == 201
    running = world.boss.call("PATCH", f"/users/{name}/servers/new", {"name": "third"})
    assert running.status_code == 400 and "is active" in running.json()["message"]
    world.boss.call("DELETE", f"/users/{name}")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (None, "Must specify at least one field to modify."),
        ({}, "Must specify at least one field to modify."),
        (
            {"url": "x"},
            "Unexpected fields: url, supported fields: name, display_name, user_options",
        ),
        ({"name": 3}, "name must be a string"),
        ({"display_name": [1]}, "display_name must be a string"),
        ({"user_options": None}, "user_options must be a dict"),
        ({"display_name": "a  b"}, "Invalid display_name: 'a  b'"),
    ],
)
def test_wrong_change_is_named(world, body, message):
    response = world.boss.call("PATCH", "/users/ada/server", body)
    assert response.status_code == 400 and response.json()["message"] == message


# -- pending ---------------------------------------------------------------------------------


def test_slow_start_is_pending_can_be_watched_and_cancelled(stuck):
    name = stuck.new_user()
    path = f"/users/{name}/server"
    assert stuck.boss.call("POST", path).status_code == 202
    assert stuck.boss.call("POST", path).status_code == 202
    model = stuck.boss.call("GET", f"/users/{name}").json()
    assert model["pending"] == "spawn" and model["server"] is None
    server = model["servers"][""]
    assert server["pending"] == "spawn" and not server["ready"] and not server["stopped"]
    users = stuck.boss.call("GET", f"/users?state=active&name_filter={name}").json()
    assert [user["name"] for user in users] == [name]
    assert stuck.boss.call("GET", f"/users?state=ready&name_filter={name}").json() == []
    seen = []
    response = stuck.boss.get(f"{path}/progress", stream=True)
    watcher = threading.Thread(target=lambda: seen.extend(events(response)))
    watcher.start()
    stopped = Caller(stuck.hub, ADMIN).call("DELETE", path)
    assert stopped.status_code in (202, 204)
    watcher.join(20)
    wait_until(lambda: stuck.boss.call("GET", path).json()["stopped"], "the start is cancelled")
    assert seen[0] == {"progress": 0, "message": "Server requested"}
    assert seen[-1]["failed"] and seen[-1]["progress"] == 100
    assert not any(event.get("ready") for event in seen)


def test_removal_waits_for_a_slow_stop(start_hub):
    stubborn = {"Spawner": {"environment": {"FAKE_MODE": "stubborn"}}}
    boss = Caller(
        start_hub(merge(config(tornado_settings={"slow_stop_timeout": 0.1}), stubborn)), ADMIN
    )
    path = "/users/ada/servers/lab"
    assert boss.call("POST", path).status_code == 201
    assert boss.call("DELETE", path, {"remove": True}).status_code == 202
    assert boss.call("DELETE", path, {"remove": True}).status_code == 202
    pending = boss.call("POST", path)
    assert pending.status_code == 400 and "pending stop" in pending.json()["message"]
    refused = boss.call("DELETE", "/users/ada")
    assert refused.status_code == 400
    assert refused.json()["message"] == ("ada's server is in the process of stopping, please wait.")
    wait_until(lambda: boss.call("GET", path).status_code == 404, "the server is removed")


# -- limits ----------------------------------------------------------------------------------


def test_too_many_starts_at_once_are_put_off(stuck):
    assert stuck.boss.call("POST", "/users/ada/server").status_code == 202
    refused = stuck.boss.call("POST", "/users/bob/server")
    assert refused.status_code == 429
    assert "Try again in" in refused.json()["message"]
    assert 30 <= int(refused.headers["Retry-After"]) <= 60
    assert stuck.boss.call("DELETE", "/users/ada/server").status_code in (202, 204)


def test_one_server_too_many_is_refused_and_a_hook_changes_the_last_event(strict):
    assert strict.boss.call("POST", "/users/ada/server").status_code == 201
    refused = strict.boss.call("POST", "/users/bob/server")
    assert refused.status_code == 429
    assert refused.json()["message"].startswith("Active user limit exceeded.")
    [event] = events(strict.boss.get("/users/ada/server/progress", stream=True))
    assert event["url"] == "/user/ada/lab" and event["ready"] is True


# -- progress --------------------------------------------------------------------------------


def test_progress_of_a_ready_server_is_one_event(world):
    name = world.new_user()
    assert world.boss.call("POST", f"/users/{name}/servers/lab").status_code == 201
    path = f"/users/{name}/servers/lab/progress"
    assert events(world.boss.get(path, stream=True)) == [
        {
            "progress": 100,
            "ready": True,
            "message": f"Server ready at /user/{name}/lab/",
            "html_message": f'Server ready at <a href="/user/{name}/lab/">/user/{name}/lab/</a>',
            "url": f"/user/{name}/lab/",
        }
    ]
    world.boss.call("DELETE", f"/users/{name}")


def test_progress_of_nothing_is_an_error(world):
    stopped = world.boss.call("GET", "/users/bob/server/progress")
    assert stopped.status_code == 400
    assert stopped.json()["message"] == "bob/ is not starting..."
    assert world.boss.call("GET", "/users/bob/servers/none/progress").status_code == 404
