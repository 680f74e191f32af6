"""Who is culled and who is not, case by case; what a pass does with it; the verb's options."""

import json
from datetime import datetime, timedelta, timezone

import pytest

from minihub import clock, cullpass, cullverb
from minihub.culler import Limits, ServerFacts, UserFacts, should_cull, should_cull_user
from minihub.cullpass import Outcome, Pass, user_facts
from minihub.errors import NotPermitted, UsageError
from minihub.rest import Answer, RestError

NOW = datetime(2026, 11, 22, 20, 0, 0, tzinfo=timezone.utc)


def ago(minutes):
    return None if minutes is None else NOW - timedelta(minutes=minutes)


def server(active=None, started=None, *, name="", ready=True, pending=None, busy=None):
    """A server by minutes: last active and started so long ago."""
    return ServerFacts("ana", name, ready, pending, ago(started), ago(active), busy)


#: Facts, limits, verdict, rule, and a part of the reason.
SERVERS = {
    "idle": (server(20, 60), {}, True, "idle", "idle for 20 min, limit 10 min"),
    "idle to the second": (server(10, 60), {}, True, "idle", "idle for 10 min"),
    "active": (server(3, 60), {}, False, "active", "active 3 min ago, limit 10 min"),
    "active a second too late": (
        server(10 - 1 / 60, 60), {}, False, "active", "active 9 min 59 s ago",
    ),
    "another timeout": (server(20, 60), {"timeout": 3600}, False, "active", "limit 1 h"),
    "no activity since its start, long ago": (server(None, 11), {}, True, "idle", "11 min"),
    "no activity since its start, just now": (server(None, 2), {}, False, "active", "2 min"),
    "activity older than its start": (server(5000, 2), {}, False, "active", "2 min"),
    "start unknown, idle": (server(20), {}, True, "idle", "20 min"),
    "start unknown, active": (server(1), {"max_age": 60}, False, "active", "1 min"),
    "nothing known": (server(), {"max_age": 60}, False, "unknown", "neither"),
    "activity in the future": (server(-30, 60), {}, False, "active", "active 0 s ago"),
    "start and activity in the future": (server(-30, -60), {}, False, "active", "0 s"),
    "pending spawn": (server(20, 60, pending="spawn"), {}, False, "pending", "pending spawn"),
    "pending stop, too old": (
        server(20, 60, pending="stop"), {"max_age": 60}, False, "pending", "pending stop",
    ),
    "not ready": (server(20, 60, ready=False), {}, False, "not-ready", "not ready"),
    "too old though active": (
        server(1, 61), {"max_age": 3600}, True, "too-old", "running for 1 h 1 min, limit 1 h",
    ),
    "too old to the second": (server(1, 60), {"max_age": 3600}, True, "too-old", "1 h"),
    "not too old": (server(1, 59), {"max_age": 3600}, False, "active", "1 min"),
    "idle and too old": (server(20, 61), {"max_age": 3600}, True, "idle", "idle"),
    "idle tab, a kernel busy": (
        server(20, 60, busy=1), {}, False, "busy", "1 kernel is busy, though idle for 20 min",
    ),
    "two kernels busy": (server(20, 60, busy=2), {}, False, "busy", "2 kernels are busy"),
    "no kernel busy": (server(20, 60, busy=0), {}, True, "idle", "idle"),
    "busy but too old": (
        server(20, 61, busy=3), {"max_age": 3600}, True, "too-old", "running for 1 h 1 min",
    ),
    "named, idle": (server(20, 60, name="work"), {}, True, "idle", "idle"),
    "named, spared": (
        server(20, 60, name="work"), {"cull_named_servers": False}, False, "spared", "named",
    ),
    "named, spared, too old": (
        server(20, 60, name="work"),
        {"cull_named_servers": False, "max_age": 60}, False, "spared", "named",
    ),
    "default, while named are spared": (
        server(20, 60), {"cull_named_servers": False}, True, "idle", "idle",
    ),
    "default, spared": (
        server(20, 60), {"cull_default_servers": False}, False, "spared", "default",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SERVERS)
def test_server(case):
    facts, limits, cull, rule, why = SERVERS[case]
    verdict = should_cull(facts, NOW, Limits(**limits))
    assert (verdict.cull, verdict.rule) == (cull, rule)
    assert why in verdict.why


def user(active=None, created=None, *, admin=False, servers=()):
    return UserFacts("ana", admin, ago(created), ago(active), tuple(servers))


USERS = {
    "idle": (user(20, 60), {}, True, "idle", "idle for 20 min, limit 10 min"),
    "active": (user(2, 60), {}, False, "active", "active 2 min ago"),
    "never seen, long here": (user(None, 60), {}, True, "idle", "idle for 1 h"),
    "never seen, just made": (user(None, 2), {}, False, "active", "2 min"),
    "nothing known": (user(), {"max_age": 60}, False, "unknown", "neither"),
    "future": (user(-5, 60), {}, False, "active", "0 s"),
    "has a server": (user(20, 60, servers=[server(1, 60)]), {}, False, "has-servers", "server"),
    "admin": (user(20, 60, admin=True), {}, True, "idle", "idle"),
    "admin, spared": (
        user(20, 60, admin=True), {"cull_admin_users": False}, False, "spared", "admins",
    ),
    "admin, spared, too old": (
        user(2, 60, admin=True),
        {"cull_admin_users": False, "max_age": 60}, False, "spared", "admins",
    ),
    "too old though active": (
        user(2, 61), {"max_age": 3600}, True, "too-old", "here for 1 h 1 min, limit 1 h",
    ),
    "creation unknown": (user(2), {"max_age": 60}, False, "active", "2 min"),
}  # fmt: skip


@pytest.mark.parametrize("case", USERS)
def test_user(case):
    facts, limits, cull, rule, why = USERS[case]
    verdict = should_cull_user(facts, NOW, Limits(cull_users=True, **limits))
    assert (verdict.cull, verdict.rule) == (cull, rule)
    assert why in verdict.why


def test_limits_take_their_own_keys_only():
    assert Limits.of({"timeout": 5, "every": 3, "url": "x"}) == Limits(timeout=5)


# -- what a hub's models mean -----------------------------------------------------------------


def test_user_of_today_is_read():
    facts = user_facts(
        {
            "name": "ana",
            "admin": True,
            "created": "2026-11-22T19:00:00.000000Z",
            "last_activity": None,
            "servers": {
                "": {"ready": True, "pending": None, "url": "/user/ana/", "started": None,
                     "last_activity": "2026-11-22T19:58:00Z"},
                "b": {"ready": False, "pending": "spawn", "url": "/user/ana/b/",
                      "full_url": "https://x/user/ana/b/"},
            },
        }
    )  # fmt: skip
    assert facts.admin and facts.created == ago(60) and facts.last_activity is None
    default, named = facts.servers
    assert (default.ready, default.pending, default.last_activity) == (True, None, ago(2))
    assert (named.full_name, named.ready, named.pending) == ("ana/b", False, "spawn")
    assert named.url == "https://x/user/ana/b/"


def test_user_of_0_8_is_read():
    model = {"name": "ana", "admin": False, "server": "/user/ana/", "pending": None,
             "last_activity": "2026-11-22T19:50:00.123456"}  # fmt: skip
    [one] = user_facts(model).servers
    assert one.ready and one.name == "" and one.started is None
    assert one.last_activity.tzinfo is not None
    assert user_facts(model | {"server": None}).servers == ()


def test_what_the_token_may_not_see_is_named():
    with pytest.raises(NotPermitted, match="read:servers"):
        user_facts({"name": "ana", "kind": "user"})
    with pytest.raises(NotPermitted, match="read:users:activity"):
        user_facts({"name": "ana", "servers": {}}, need_activity=True)


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"name": "a", "servers": [1]},
        {"name": "a", "servers": {"": {"started": "soon"}}},
        7,
        None,
    ],
)
def test_nonsense_is_an_error_of_the_hub(model):
    with pytest.raises(RestError):
        user_facts(model)


# -- a pass, with a hub that is a dictionary --------------------------------------------------


class FakeHub:
    """Answers as a hub's client does; ``wrong`` maps ``METHOD path`` to what is raised."""

    url = "http://hub/api"
    origin = "http://hub"

    def __init__(self, users, *, version="6.1.1", date=None, wrong=None):
        self.users = {model["name"]: model for model in users}
        self.version, self.date, self.wrong = version, date, wrong or {}
        self.calls = []

    def request(self, method, path, body=None):
        self.calls.append((f"{method} {path}", body))
        if f"{method} {path}" in self.wrong:
            raise self.wrong[f"{method} {path}"]
        if path == "/":
            return Answer(200, {"version": self.version}, self.date)
        if path == "/user":
            return Answer(200, {"kind": "user", "name": "boss"}, None)
        parts = path.split("/")[2:]
        found = self.users.get(parts[0])
        if found is None:
            raise RestError("no such user", 404)
        if method == "GET":
            return Answer(200, found, None)
        if len(parts) == 1:
            del self.users[parts[0]]
        else:
            found["servers"].pop(parts[2] if len(parts) > 2 else "", None)
        return Answer(204, None, None)

    def items(self, path, **query):
        self.calls.append((f"LIST {path}", query))
        state = query.get("state")
        for model in list(self.users.values()):
            if state is None or (state == "ready") == bool(model["servers"]):
                yield json.loads(json.dumps(model))

    def changes(self):
        return [call for call in self.calls if call[0].startswith("DELETE")]


def model(name, idle_minutes=None, *, names=("",), admin=False):
    """A user whose servers, if ``idle_minutes`` is given, are idle for that long."""
    now = clock.utcnow()
    moment = clock.isoformat(now - timedelta(minutes=idle_minutes or 0))
    long_ago = clock.isoformat(now - timedelta(days=1))
    one = {"ready": True, "pending": None, "started": long_ago, "last_activity": moment}
    return {
        "name": name,
        "admin": admin,
        "created": long_ago,
        "last_activity": moment if idle_minutes is not None else long_ago,
        "servers": {n: dict(one, name=n) for n in names} if idle_minutes is not None else {},
    }


def run(hub, limits=None, **kw):
    outcomes = []
    Pass(hub, Limits(**(limits or {})), outcomes.append, **kw).run()
    return {
        (o.facts.full_name if o.is_server else f"user {o.facts.name}"): o.action for o in outcomes
    }


def test_pass_stops_the_idle_and_keeps_the_others():
    hub = FakeHub([model("ana", 20), model("ben", 2), model("idle-user")])
    assert run(hub) == {"ana": "stopped", "ben": "kept"}
    assert hub.changes() == [("DELETE /users/ana/server", None)]
    assert ("LIST /users", {"state": "ready"}) in hub.calls


def test_pass_of_a_page_size_asks_for_it():
    hub = FakeHub([])
    assert run(hub, {"cull_users": True}, page_size=7) == {}
    assert [query for what, query in hub.calls if what == "LIST /users"] == [
        {"state": "inactive", "limit": "7"},
        {"state": "ready", "limit": "7"},
    ]


def test_old_hub_is_not_asked_for_states():
    hub = FakeHub([model("ana", 20)], version="1.2.2")
    assert run(hub) == {"ana": "stopped"}
    assert ("LIST /users", {}) in hub.calls


def test_dry_run_changes_nothing():
    hub = FakeHub([model("ana", 20), model("ben")])
    assert run(hub, {"cull_users": True}, dry_run=True) == {
        "ana": "would-stop",
        "user ana": "would-delete",
        "user ben": "would-delete",
    }
    assert not hub.changes()


def test_names_are_quoted_and_named_servers_removed_on_request():
    hub = FakeHub([model("a b/c", 20, names=("x",))])
    run(hub, {"remove_named_servers": True})
    assert [call[0] for call in hub.changes()] == ["DELETE /users/a%20b%2Fc/servers/x"]
    hub = FakeHub([model("ana", 20, names=("", "x"))])
    assert run(hub, {"remove_named_servers": True}) == {"ana": "stopped", "ana/x": "stopped"}
    assert sorted(hub.changes()) == [
        ("DELETE /users/ana/server", None),
        ("DELETE /users/ana/servers/x", {"remove": True}),
    ]


def test_users_are_deleted_once_their_servers_have_stopped_but_never_ones_own():
    hub = FakeHub([model("ana", 20), model("ben", 2), model("eve"), model("boss", admin=True)])
    assert run(hub, {"cull_users": True}) == {
        "ana": "stopped",
        "ben": "kept",
        "user ana": "deleted",
        "user ben": "kept",
        "user eve": "deleted",
    }
    assert set(hub.users) == {"ben", "boss"}


def test_user_who_came_back_meanwhile_is_kept():
    hub = FakeHub([model("ana", 20)])
    listed = list(hub.items("/users", state="ready"))
    hub.items = lambda path, **query: iter(listed if query["state"] == "ready" else [])
    hub.users["ana"] = model("ana", 0, names=("", "other"))
    assert run(hub, {"cull_users": True}) == {"ana": "stopped", "user ana": "kept"}


def test_stale_list_is_looked_at_again(monkeypatch):
    monkeypatch.setattr(cullpass, "FRESH_S", -1)
    hub = FakeHub([model("ana", 20), model("ben", 20), model("eve", 20)])
    listed = list(hub.items("/users", state="ready"))
    hub.items = lambda path, **query: iter(listed)
    hub.users["ana"] = model("ana", 1)  # active again
    hub.users["ben"] = model("ben")  # stopped by themselves
    assert run(hub) == {"ana": "kept", "ben": "gone", "eve": "stopped"}


def test_server_that_ended_meanwhile_is_gone_and_one_out_of_reach_refused():
    missing = RestError("404", 404)
    wrong = {"DELETE /users/ana/server": missing, "DELETE /users/ben/server": missing}
    hub = FakeHub([model("ana", 20), model("ben", 20)], wrong=wrong)
    listed = list(hub.items("/users", state="ready"))
    hub.items = lambda path, **query: iter(listed)
    del hub.users["ana"]
    assert run(hub) == {"ana": "gone", "ben": "refused"}


def test_one_failure_does_not_keep_the_others():
    wrong = {
        "DELETE /users/ana/server": RestError("500 it broke", 500),
        "DELETE /users/ben/server": NotPermitted("403"),
    }
    hub = FakeHub([model("ana", 20), model("ben", 20), model("eve", 20)], wrong=wrong)
    assert run(hub, concurrency=1) == {"ana": "failed", "ben": "refused", "eve": "stopped"}


def test_hub_that_vanishes_ends_the_pass():
    hub = FakeHub([model("ana", 20)], wrong={"DELETE /users/ana/server": RestError("gone")})
    with pytest.raises(RestError, match="gone"):
        run(hub)


def test_slow_stop_is_stopping_and_its_user_stays():
    hub = FakeHub([model("ana", 20)])
    answer = hub.request
    hub.request = lambda method, path, body=None: (
        Answer(202, None, None) if method == "DELETE" else answer(method, path, body)
    )
    assert run(hub, {"cull_users": True}) == {"ana": "stopping", "user ana": "kept"}


@pytest.mark.parametrize(("minutes", "action"), [(-30, "kept"), (0, "stopped"), (30, "stopped")])
def test_the_hubs_clock_counts(minutes, action):
    date = clock.utcnow() + timedelta(minutes=minutes)
    assert run(FakeHub([model("ana", 20)], date=date)) == {"ana": action}


def test_something_else_at_the_address_is_told():
    hub = FakeHub([])
    hub.request = lambda *_args: Answer(200, ["a", "list"], None)
    with pytest.raises(RestError, match="no hub"):
        run(hub)


def test_outcome_as_json_has_the_facts():
    facts = server(20, 60, name="b", busy=0)
    verdict = should_cull(facts, NOW, Limits())
    assert Outcome(facts, verdict, "failed", "it broke").as_json() == {
        "event": "server", "user": "ana", "server": "b", "action": "failed",
        "why": "idle for 20 min, limit 10 min", "rule": "idle", "problem": "it broke",
        "started": clock.isoformat(ago(60)), "last_activity": clock.isoformat(ago(20)),
        "ready": True, "pending": None, "busy": 0,
    }  # fmt: skip


# -- the command line -------------------------------------------------------------------------


def test_defaults_are_those_of_jupyterhub_idle_culler():
    values = cullverb.parse([])
    limits = Limits.of(values)
    assert limits == Limits()
    assert (limits.timeout, limits.max_age, limits.cull_users) == (600, 0, False)
    assert limits.cull_admin_users and values["concurrency"] == 10


def test_options_are_read_in_every_spelling():
    values = cullverb.parse(
        ["--timeout=1h", "--max-age", "2d", "--cull-users", "--cull-admin-users=False",
         "--remove-named-servers", "True", "--concurrency=3", "--api-page-size", "50",
         "--cull-every=90", "--dry-run", "--explain", "--json", "--url", "http://h/hub/api"]
    )  # fmt: skip
    assert Limits.of(values) == Limits(
        timeout=3600, max_age=172800, cull_users=True, cull_admin_users=False,
        remove_named_servers=True,
    )  # fmt: skip
    assert (values["concurrency"], values["api_page_size"], values["cull_every"]) == (3, 50, 90)
    assert values["dry_run"] and values["explain"] and values["json"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--timout=3"], "Did you mean --timeout"),
        (["--cull-user"], "Did you mean --cull-users"),
        (["ana"], "unexpected argument 'ana'"),
        (["--timeout"], "--timeout needs a value"),
        (["--timeout=soon"], "--timeout: 'soon' is no duration"),
        (["--timeout=0"], "--timeout: 0 would stop"),
        (["--concurrency=0"], "--concurrency"),
        (["--concurrency=-1"], "--concurrency"),
        (["--api-page-size=x"], "--api-page-size"),
        (["--cull-users=maybe"], "--cull-users=true"),
    ],
)
def test_wrong_options_are_told(argv, said):
    with pytest.raises(UsageError) as found:
        cullverb.parse(argv)
    assert said in str(found.value)


def test_every_option_stands_in_the_help():
    text = cullverb.usage()
    assert all(f"  --{option.name}" in text for option in cullverb.OPTIONS)
    assert max(map(len, text.splitlines())) <= 100


def test_where_the_hub_is_and_which_token_comes_from_options_or_environment(tmp_path):
    environ = {"JUPYTERHUB_API_URL": "http://one/hub/api/", "JUPYTERHUB_API_TOKEN": "secret"}
    assert cullverb.client(cullverb.parse([]), environ).url == "http://one/hub/api"
    file = tmp_path / "token"
    file.write_text("other\n")
    values = cullverb.parse([f"--token-file={file}", "--url=https://two/hub/api"])
    assert cullverb.client(values, {}).url == "https://two/hub/api"


@pytest.mark.parametrize(
    ("argv", "environ", "said"),
    [
        ([], {}, "--url"),
        (["--url=http://h/"], {}, "--token-file"),
        (["--url=http://h/", "--token-file=/nowhere/t"], {}, "/nowhere/t"),
        (["--url=h/hub/api"], {"JUPYTERHUB_API_TOKEN": "x"}, "no URL"),
        (["--url=http://h:x/"], {"JUPYTERHUB_API_TOKEN": "x"}, "no URL"),
        (["--url=http://h/"], {"JUPYTERHUB_API_TOKEN": "two words"}, "token"),
    ],
)
def test_what_is_missing_is_told(argv, environ, said):
    with pytest.raises(UsageError, match=said):
        cullverb.client(cullverb.parse(argv), environ)
