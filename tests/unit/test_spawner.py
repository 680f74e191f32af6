"""What a server is given, and how the configuration's own functions are called."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from traitlets import TraitError
from traitlets.config import Config

from minihub import aio, readiness
from minihub.errors import BadRequest, SpawnError, SpawnTimeout
from minihub.spawner import GroupInfo, HubInfo, Spawner, UserInfo

HUB = HubInfo(
    api_url="http://127.0.0.1:8081/base/hub/api", state_dir=Path("/nowhere"), base_url="/base/"
)


@pytest.fixture(autouse=True)
def closed_loop():
    yield
    aio.close()


def make(cls=Spawner, *, name="ada", server_name="", hub=HUB, user=None, **options):
    user = user or UserInfo(name, base_url=hub.base_url)
    config = Config({"Spawner": options})
    return cls(user=user, server_name=server_name, hub=hub, config=config)


# -- who is who ----------------------------------------------------------------------------


def test_user_is_seen_with_url_groups_and_spawners():
    user = UserInfo("a b@c", id=7, admin=True, groups=["staff"], base_url="/base/")
    spawner = make(user=user, server_name="lab/1")
    assert user.escaped_name == "a%20b@c"
    assert user.url == "/base/user/a%20b@c/"
    assert user.groups == [GroupInfo("staff")] and user.groups[0].name == "staff"
    assert user.spawners == {"lab/1": spawner}
    assert spawner.server_url == "/base/user/a%20b@c/lab%2F1/"
    assert spawner.name == "lab/1"


def test_user_with_a_host_of_their_own_has_full_urls():
    user = UserInfo("ada", host="https://ada.example.org", domain="ada.example.org")
    spawner = make(user=user)
    assert user.url == "https://ada.example.org/user/ada/"
    assert spawner.oauth_callback_url == "https://ada.example.org/user/ada/oauth_callback"
    assert spawner.server_url == "/user/ada/"


def test_auth_state_is_asked_for_plainly_or_awaited():
    user = UserInfo("ada", auth_state=lambda: {"token": "x"})

    async def awaiting():
        return await user.get_auth_state()

    assert user.get_auth_state() == {"token": "x"}
    assert aio.call(awaiting) == {"token": "x"}
    assert UserInfo("ada").get_auth_state() is None


def test_hub_knows_its_prefix_and_public_urls():
    assert HUB.hub_prefix == "/base/hub/"
    assert HUB.public("/base/hub/") == ""
    public = HubInfo(api_url="", state_dir=Path(), public_url="https://h.org:444/base/")
    assert public.public("/base/hub/") == "https://h.org:444/base/hub/"
    assert public.public("/user/ada/", "https://ada.h.org") == "https://ada.h.org/user/ada/"


# -- environment ---------------------------------------------------------------------------


def test_environment_is_exactly_what_the_contract_lists(monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_HUB", "x")
    monkeypatch.delenv("JUPYTERHUB_SINGLEUSER_APP", raising=False)
    spawner = make(server_name="lab")
    spawner.api_token = "t" * 64
    spawner.oauth_client_id = "jupyterhub-user-ada-lab"
    spawner.oauth_access_scopes = [
        "access:servers!server=ada/lab",
        "access:servers!user=ada",
    ]
    spawner.port = 4321
    scopes = '["access:servers!server=ada/lab", "access:servers!user=ada"]'
    assert spawner.get_env() == {
        "JUPYTERHUB_API_TOKEN": "t" * 64,
        "JPY_API_TOKEN": "t" * 64,
        "JUPYTERHUB_CLIENT_ID": "jupyterhub-user-ada-lab",
        "JUPYTERHUB_COOKIE_HOST_PREFIX_ENABLED": "0",
        "JUPYTERHUB_HOST": "",
        "JUPYTERHUB_OAUTH_CALLBACK_URL": "/base/user/ada/lab/oauth_callback",
        "JUPYTERHUB_OAUTH_SCOPES": scopes,
        "JUPYTERHUB_OAUTH_ACCESS_SCOPES": scopes,
        "JUPYTERHUB_OAUTH_CLIENT_ALLOWED_SCOPES": "[]",
        "JUPYTERHUB_USER": "ada",
        "JUPYTERHUB_SERVER_NAME": "lab",
        "JUPYTERHUB_API_URL": "http://127.0.0.1:8081/base/hub/api",
        "JUPYTERHUB_ACTIVITY_URL": "http://127.0.0.1:8081/base/hub/api/users/ada/activity",
        "JUPYTERHUB_BASE_URL": "/base/",
        "JUPYTERHUB_SERVICE_PREFIX": "/base/user/ada/lab/",
        "JUPYTERHUB_SERVICE_URL": "http://127.0.0.1:4321/base/user/ada/lab/",
        "JUPYTERHUB_PUBLIC_URL": "",
        "JUPYTERHUB_PUBLIC_HUB_URL": "",
    }


def test_names_are_escaped_in_urls_and_plain_elsewhere():
    env = make(name="a b").get_env()
    assert env["JUPYTERHUB_USER"] == "a b"
    assert env["JUPYTERHUB_ACTIVITY_URL"].endswith("/users/a%20b/activity")
    assert env["JUPYTERHUB_SERVICE_PREFIX"] == "/base/user/a%20b/"


def test_what_the_hub_is_configured_for_reaches_the_server():
    hub = HubInfo(
        api_url="http://h/hub/api",
        state_dir=Path(),
        public_host="https://hub.org",
        public_url="https://hub.org/",
        admin_access=True,
        cookie_options={"secure": True},
        cookie_host_prefix_enabled=True,
    )
    env = make(hub=hub).get_env()
    assert env["JUPYTERHUB_ADMIN_ACCESS"] == "1"
    assert env["JUPYTERHUB_COOKIE_HOST_PREFIX_ENABLED"] == "1"
    assert json.loads(env["JUPYTERHUB_COOKIE_OPTIONS"]) == {"secure": True}
    assert env["JUPYTERHUB_HOST"] == "https://hub.org"
    assert env["JUPYTERHUB_PUBLIC_HUB_URL"] == "https://hub.org/hub/"
    assert env["JUPYTERHUB_PUBLIC_URL"] == "https://hub.org/user/ada/"


def test_options_reach_the_server():
    env = make(
        notebook_dir="/data/{username}",
        default_url="/tree/home/%U",
        debug=True,
        disable_user_config=True,
        mem_limit="2G",
        mem_guarantee="512M",
        cpu_limit=1.5,
        cpu_guarantee=0.5,
        ip="[::1]",
        port=8888,
        oauth_client_allowed_scopes=["list:users"],
    ).get_env()
    assert env["JUPYTERHUB_ROOT_DIR"] == "/data/ada"
    assert env["JUPYTERHUB_DEFAULT_URL"] == "/tree/home/ada"
    assert env["JUPYTERHUB_DEBUG"] == "1"
    assert env["JUPYTERHUB_DISABLE_USER_CONFIG"] == "1"
    assert env["MEM_LIMIT"] == str(2 * 1024**3)
    assert env["MEM_GUARANTEE"] == str(512 * 1024**2)
    assert (env["CPU_LIMIT"], env["CPU_GUARANTEE"]) == ("1.5", "0.5")
    assert env["JUPYTERHUB_SERVICE_URL"] == "http://[::1]:8888/base/user/ada/"
    assert env["JUPYTERHUB_OAUTH_CLIENT_ALLOWED_SCOPES"] == '["list:users"]'


def test_percent_u_is_warned_about(caplog):
    make(notebook_dir="/home/%U")
    assert "Spawner.notebook_dir: %U is an old spelling; write {username}" in caplog.text


@pytest.mark.parametrize("option", ["notebook_dir", "default_url"])
@pytest.mark.parametrize("text", ["/x/{nobody}", "/x/{username", "/x/{}", "/{user.name}"])
def test_unknown_name_in_braces_is_refused_where_it_is_set(option, text):
    with pytest.raises(TraitError, match=r"it may hold \{username\}, \{base_url\}"):
        make(**{option: text})


class WithCourse(Spawner):
    def template_namespace(self):
        return super().template_namespace() | {"course": "optics"}


def test_spawner_may_know_more_names_and_then_they_are_judged_when_used():
    spawner = make(WithCourse, default_url="/lab/{course}", notebook_dir="/x/{nobody}")
    assert spawner.format_string(spawner.default_url) == "/lab/optics"
    with pytest.raises(SpawnError, match=r'"/x/\{nobody\}" .* \{username\}, \{base_url\}'):
        spawner.get_env()


def test_only_what_is_named_is_inherited(monkeypatch):
    monkeypatch.setenv("KEPT", "yes")
    monkeypatch.setenv("NOT_KEPT", "no")
    env = make(env_keep=["KEPT", "ABSENT"]).get_env()
    assert env["KEPT"] == "yes"
    assert "NOT_KEPT" not in env and "ABSENT" not in env


@pytest.mark.parametrize("name", ["CONFIGPROXY_AUTH_TOKEN", "JUPYTERHUB_CRYPT_KEY"])
def test_secrets_of_the_hub_cannot_be_inherited(name):
    with pytest.raises(TraitError, match=f"{name} is a secret of the hub"):
        make(env_keep=["PATH", name])


def test_environment_wins_over_everything_and_may_be_functions(monkeypatch):
    monkeypatch.setenv("KEPT", "hub")

    async def later(spawner):
        return f"later {spawner.user.name}"

    env = make(
        env_keep=["KEPT"],
        environment={
            "KEPT": "config",
            "JUPYTERHUB_API_URL": "http://elsewhere/hub/api",
            "THREADS": 2,
            "WHO": lambda spawner: spawner.user.name,
            "LATER": later,
        },
    ).get_env()
    assert env["KEPT"] == "config"
    assert env["JUPYTERHUB_API_URL"] == "http://elsewhere/hub/api"
    assert (env["THREADS"], env["WHO"], env["LATER"]) == ("2", "ada", "later ada")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"A": True}, "the value of A is True; give a text"),
        ({"A": None}, "the value of A is None"),
        ({"A": ["x"]}, "the value of A is"),
        ({"A=B": "x"}, "'A=B' is not the name of a variable"),
        ({"": "x"}, "'' is not the name of a variable"),
        ({"A": "x\0y"}, "holds a NUL"),
    ],
)
def test_environment_that_cannot_be_is_refused(environment, message):
    with pytest.raises(TraitError, match=message):
        make(environment=environment)


def test_environment_function_that_returns_nonsense_is_told():
    with pytest.raises(SpawnError, match="Spawner.environment: the value of A is None"):
        make(environment={"A": lambda spawner: None}).get_env()


def test_environment_function_that_fails_is_told(caplog):
    def broken(spawner):
        raise RuntimeError("no such thing")

    with pytest.raises(SpawnError, match=r'Spawner.environment\["A"\] failed: no such thing'):
        make(environment={"A": broken}).get_env()
    assert "RuntimeError" in caplog.text


def test_hook_may_change_the_environment_of_its_spawner_alone():
    def hook(spawner):
        spawner.environment["GREETING"] = f"Hello {spawner.user.name}"

    one, other = make(pre_spawn_hook=hook), make(name="bob")
    one.run_hook("pre_spawn_hook")
    assert one.get_env()["GREETING"] == "Hello ada"
    assert "GREETING" not in other.get_env()


@pytest.mark.parametrize("method", ["start", "stop", "poll"])
def test_class_that_leaves_a_method_out_is_told_which(method):
    with pytest.raises(SpawnError, match=rf"Unfinished\.{method}\(\) is missing"):
        getattr(make(type("Unfinished", (Spawner,), {})), method)()


# -- options, scopes, hooks ----------------------------------------------------------------


def test_defaults_are_the_references():
    spawner = make()
    assert spawner.cmd == ["jupyterhub-singleuser"]
    assert spawner.get_args() == []
    assert (spawner.ip, spawner.port) == ("127.0.0.1", 0)
    assert (spawner.start_timeout, spawner.http_timeout, spawner.poll_interval) == (60, 30, 30)
    assert spawner.get_options_form() == ""


def test_options_form_is_text_or_comes_from_a_function():
    async def form(spawner):
        return f"<input name={spawner.user.name}>"

    assert make(options_form="<b>").get_options_form() == "<b>"
    assert make(options_form=form).get_options_form() == "<input name=ada>"
    assert make(options_form=lambda spawner: None).get_options_form() == ""


FORM = {"image": ["lab"], "gpu": ["on"], "tags": ["a", "b"]}


def test_form_passes_through_by_default():
    assert make().options_from_form(FORM) == FORM
    assert make(options_from_form="passthrough").options_from_form(FORM) == FORM
    assert make(options_from_form=dict).options_from_form(FORM) == FORM


def test_simple_form_unpacks_single_values():
    options = make(options_from_form="simple").options_from_form(FORM)
    assert options == {"image": "lab", "gpu": True, "tags": ["a", "b"]}


def test_form_function_gets_the_spawner_if_it_wants_it():
    spawner = make(options_from_form=lambda form, spawner: {spawner.user.name: form["image"]})
    assert spawner.options_from_form(FORM) == {"ada": ["lab"]}
    assert make(options_from_form=lambda form: {"n": len(form)}).options_from_form(FORM) == {"n": 3}


def test_unknown_form_reader_is_refused():
    with pytest.raises(TraitError, match="options_from_form"):
        make(options_from_form="clever")


def test_query_is_read_like_the_form_unless_told_otherwise():
    assert make(options_from_form="simple").options_from_query({"image": ["x"]}) == {"image": "x"}
    spawner = make(options_from_query=lambda query: {"q": query["image"][0]})
    assert spawner.options_from_query({"image": ["x"]}) == {"q": "x"}


def test_subclass_may_override_the_readers_as_methods():
    class Own(Spawner):
        def options_from_form(self, form):
            return {"own": self.user.name}

    spawner = make(Own)
    assert spawner.options_from_form({}) == {"own": "ada"}
    assert spawner.options_from_query({}) == {"own": "ada"}


def test_scopes_are_lists_or_come_from_functions():
    async def scopes(spawner):
        return ["read:users", f"servers!user={spawner.user.name}", "read:users"]

    spawner = make(oauth_client_allowed_scopes=scopes, server_token_scopes=["self"])
    assert spawner.allowed_scopes() == ["read:users", "servers!user=ada"]
    assert spawner.token_scopes() == ["self"]
    assert make().token_scopes() == []


def test_hooks_are_plain_or_coroutines():
    seen = []

    async def auth_state_hook(spawner, auth_state):
        seen.append((spawner.user.name, auth_state))

    def ready_hook(spawner, event):
        return event | {"html_message": "<b>up</b>"}

    spawner = make(auth_state_hook=auth_state_hook, progress_ready_hook=ready_hook)
    spawner.run_hook("auth_state_hook", {"k": 1})
    assert seen == [("ada", {"k": 1})]
    assert spawner.run_hook("progress_ready_hook", {"progress": 100})["html_message"] == "<b>up</b>"
    assert spawner.run_hook("pre_spawn_hook") is None


def test_failing_hook_names_its_option():
    def hook(spawner):
        raise KeyError("course")

    with pytest.raises(SpawnError, match="Spawner.pre_spawn_hook failed: 'course'"):
        make(pre_spawn_hook=hook).run_hook("pre_spawn_hook")


def test_error_of_the_hubs_own_kind_leaves_a_hook_as_it_is():
    def hook(spawner):
        raise BadRequest("not today")

    with pytest.raises(BadRequest, match="not today"):
        make(pre_spawn_hook=hook).run_hook("pre_spawn_hook")


def test_hook_that_never_ends_is_given_up_after_start_timeout():
    async def hook(spawner):
        import asyncio

        await asyncio.sleep(60)

    with pytest.raises(SpawnError, match="Spawner.pre_spawn_hook did not end within 1 s"):
        make(pre_spawn_hook=hook, start_timeout=1).run_hook("pre_spawn_hook")


def test_log_is_the_hubs():
    assert make().log is logging.getLogger("minihub.spawner")


# -- starting and progress, whatever the subclass is written like --------------------------


def test_start_may_return_address_or_url_plainly_or_awaited():
    class Plain(Spawner):
        def start(self):
            return "0.0.0.0", 81

    class Awaited(Spawner):
        async def start(self):
            return "http://10.0.0.1:82/some/path"

    class Old(Spawner):
        def start(self):
            self.ip, self.port = "::", 83

    assert make(Plain).run_start() == "http://127.0.0.1:81"
    assert make(Awaited).run_start() == "http://10.0.0.1:82"
    assert make(Old).run_start() == "http://[::1]:83"


def test_start_that_takes_too_long_names_the_setting():
    class Slow(Spawner):
        async def start(self):
            import asyncio

            await asyncio.sleep(60)

    with pytest.raises(SpawnTimeout, match="within 1 s .Spawner.start_timeout.") as caught:
        make(Slow, start_timeout=1).run_start()
    assert caught.value.hint == "If it only needs longer, raise Spawner.start_timeout."


def test_start_that_raises_is_a_spawn_error():
    class Broken(Spawner):
        async def start(self):
            raise OSError("queue is full")

    with pytest.raises(SpawnError, match="could not be started: queue is full"):
        make(Broken).run_start()


def test_progress_is_a_plain_or_async_generator():
    class Async(Spawner):
        async def progress(self):
            yield {"progress": 10, "message": "a"}
            yield {"progress": 20, "message": "b"}

    class Both(Spawner):
        async def progress(self):
            yield {"progress": 10, "message": "a"}
            async for event in super().progress():
                yield event

    assert [event["progress"] for event in make(Both).progress_events()] == [10, 50]
    assert list(make().progress_events()) == [{"progress": 50, "message": "Spawning server..."}]
    assert [event["progress"] for event in make(Async).progress_events()] == [10, 20]


def test_base_class_has_no_server_to_keep():
    spawner = make()
    spawner.load_state({})
    spawner.api_token = "x"
    assert spawner.get_state() == {}
    spawner.clear_state()
    assert spawner.api_token == ""


# -- pauses --------------------------------------------------------------------------------


def test_pauses_grow_at_random_up_to_a_bound(monkeypatch):
    monkeypatch.setattr(readiness.random, "uniform", lambda low, high: high)
    pauses = readiness.Pauses()
    silent = readiness.Answer()
    assert [pauses.after(silent) for _ in range(7)] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    refused = readiness.Answer(is_refused=True)
    told = [pauses.after(refused) for _ in range(20)]
    assert told[:2] == [0.01, 0.0125] and told[-1] == 0.1 and told == sorted(told)


def test_exit_codes_in_words():
    assert readiness.describe_exit(3) == "exit code 3"
    assert readiness.describe_exit(-9) == "killed by SIGKILL"
    assert readiness.describe_exit(-250) == "killed by signal 250"
