"""The configuration as a whole: which file, what wins, what is an error and how it is told."""

import copy
import logging
import os

import pytest
from traitlets import Bool, Callable, Int, List, Set, TraitError, Unicode, Union, validate
from traitlets.config import Configurable

from minihub import config
from minihub.config_values import Entry
from minihub.errors import ConfigError
from minihub.options import JupyterHub
from minihub.traits import Command

SECRET = "0123456789abcdef" * 4


class Spawner(Configurable):
    cmd = Command(["single"]).tag(config=True)
    start_timeout = Int(60, min=1).tag(config=True)
    search_path = List(Unicode(), ["PATH"]).tag(config=True)
    hook = Union([Unicode(), Callable()]).tag(config=True)

    @validate("cmd")
    def _no_shell(self, proposal):
        if proposal["value"] == ["sh"]:
            raise TraitError("a shell is no server")
        return proposal["value"]


class LocalProcessSpawner(Spawner):
    term_timeout = Int(5).tag(config=True)


class OtherSpawner(Spawner):
    colour = Unicode().tag(config=True)


class Proxy(Configurable):
    should_start = Bool(True).tag(config=True)


class ConfigurableHTTPProxy(Proxy):
    debug = Bool(False).tag(config=True)
    auth_token = Unicode().tag(config=True)
    command = Command(["chp"]).tag(config=True)
    api_url = Unicode().tag(config=True)
    check_running_interval = Int(5).tag(config=True)


class ThreadedProxy(ConfigurableHTTPProxy):
    workers = Int(1).tag(config=True)


class Authenticator(Configurable):
    admin_users = Set(Unicode()).tag(config=True)


class PAMAuthenticator(Authenticator):
    service = Unicode("login").tag(config=True)


CLASSES = [
    JupyterHub,
    Authenticator,
    PAMAuthenticator,
    Spawner,
    LocalProcessSpawner,
    OtherSpawner,
    Proxy,
    ConfigurableHTTPProxy,
    ThreadedProxy,
]


def argument(text):
    name, _, value = text.removeprefix("--").partition("=")
    section, option = name.split(".")
    return Entry(section, option, [value], f"--{name}", texts=True)


@pytest.fixture
def load(tmp_path):
    """Load from a temporary working directory; files are given as keywords ``yaml``, ``py``."""

    def load(*arguments, yaml=None, py=None, environ=None, **more):
        if yaml is not None:
            (tmp_path / "minihub.yaml").write_text(yaml)
        if py is not None:
            (tmp_path / "jupyterhub_config.py").write_text(py)
        return config.load(
            CLASSES,
            arguments=[argument(text) for text in arguments],
            environ=environ or {},
            directory=tmp_path,
            **more,
        )

    return load


@pytest.fixture
def problems(load):
    def problems(*arguments, **more):
        with pytest.raises(ConfigError) as caught:
            load(*arguments, **more)
        assert caught.value.exit_code == 3
        return caught.value.problems

    return problems


# -- which file ------------------------------------------------------------------------------


def test_no_file_is_no_error(load):
    loaded = load()
    assert loaded.file is None
    assert JupyterHub(config=loaded.config).port == 8000


def test_yaml_in_the_working_directory_comes_before_python(load, tmp_path):
    loaded = load(yaml="JupyterHub: {port: 1}", py="c.JupyterHub.port = 2")
    assert loaded.config.JupyterHub.port == 1
    assert loaded.file == tmp_path / "minihub.yaml"


def test_python_in_the_working_directory_is_found(load):
    loaded = load(py="c.JupyterHub.port = 2")
    assert JupyterHub(config=loaded.config).port == 2
    assert loaded.config.JupyterHub.config_file == "jupyterhub_config.py"


def test_named_file_is_read_instead(load, tmp_path):
    (tmp_path / "other.yml").write_text("JupyterHub: {port: 3}")
    loaded = load("--JupyterHub.config_file=other.yml", yaml="JupyterHub: {port: 1}")
    assert loaded.config.JupyterHub.port == 3
    assert loaded.origins["JupyterHub.port"] == "other.yml:1:14"


@pytest.mark.parametrize(
    "name, told",
    [
        ("missing.yaml", "missing.yaml: there is no such file"),
        (".", ".: is a directory"),
        ("notes.txt", "notes.txt: the name of a configuration file ends in .yaml, .yml or .py"),
    ],
)
def test_named_file_that_cannot_be_read_is_named(problems, tmp_path, name, told):
    (tmp_path / "notes.txt").write_text("")
    assert problems(f"--JupyterHub.config_file={name}") == [told]


def test_empty_name_of_a_file_is_told(problems):
    [told] = problems("--JupyterHub.config_file=")
    assert told.endswith("the name of a configuration file is empty")


def test_file_that_is_no_file_is_named_although_nobody_named_it(problems, tmp_path):
    """A link that leads nowhere means a configuration that is missing, not none."""
    (tmp_path / "minihub.yaml").symlink_to("nowhere")
    assert problems() == ["minihub.yaml: a link that leads nowhere"]
    (tmp_path / "minihub.yaml").unlink()
    (tmp_path / "jupyterhub_config.py").mkdir()
    assert problems() == ["jupyterhub_config.py: is a directory"]


def test_pipe_is_no_file(problems, tmp_path):
    os.mkfifo(tmp_path / "x.yaml")
    assert problems("--JupyterHub.config_file=x.yaml") == ["x.yaml: is no ordinary file"]


# -- what wins -------------------------------------------------------------------------------


def test_file_beats_environment_and_command_line_beats_both(load):
    yaml = "JupyterHub: {cookie_secret: '11', port: 1}"
    environ = {"JPY_COOKIE_SECRET": "22"}
    assert load(environ=environ).config.JupyterHub.cookie_secret == b"\x22"
    assert load(yaml=yaml, environ=environ).config.JupyterHub.cookie_secret == "11"
    loaded = load("--JupyterHub.cookie_secret=33", "--JupyterHub.port=2", environ=environ)
    assert loaded.config.JupyterHub.cookie_secret == b"\x33"
    assert loaded.config.JupyterHub.port == 2


def test_empty_environment_variable_is_no_value(load):
    assert "JupyterHub" not in load(environ={"JPY_COOKIE_SECRET": ""}).config


def test_command_line_for_a_base_beats_the_files_subclass(load):
    loaded = load(
        "--Spawner.start_timeout=5",
        yaml="LocalProcessSpawner: {start_timeout: 9, term_timeout: 8}",
    )
    spawner = LocalProcessSpawner(config=loaded.config)
    assert (spawner.start_timeout, spawner.term_timeout) == (5, 8)


def test_section_of_a_subclass_wins_within_one_source(load):
    loaded = load(yaml="LocalProcessSpawner: {start_timeout: 9}\nSpawner: {start_timeout: 5}")
    assert LocalProcessSpawner(config=loaded.config).start_timeout == 9
    assert OtherSpawner(config=loaded.config).start_timeout == 5


def test_origin_of_each_option_is_known(load):
    loaded = load(
        "--JupyterHub.port=2",
        yaml="JupyterHub:\n  ip: 127.0.0.1\n  port: 1\n",
        environ={"CONFIGPROXY_AUTH_TOKEN": "t"},
    )
    assert loaded.origins == {
        "JupyterHub.ip": "minihub.yaml:2:3",
        "JupyterHub.port": "--JupyterHub.port",
        "JupyterHub.config_file": "found in the working directory",
        "ConfigurableHTTPProxy.auth_token": "environment CONFIGPROXY_AUTH_TOKEN",
        "ConfigurableHTTPProxy.check_running_interval": "JupyterHub.proxy_check_interval",
    }


@pytest.mark.parametrize(
    "arguments, option, value",
    [
        (["--Spawner.cmd=a", "--Spawner.cmd=b"], "Spawner.cmd", ["a", "b"]),
        (["--JupyterHub.admin_users=ana"], "JupyterHub.admin_users", {"ana"}),
        (["--JupyterHub.template_paths=['a', 'b']"], "JupyterHub.template_paths", ["a", "b"]),
        (
            [
                "--JupyterHub.service_tokens=longtoken1=a",
                "--JupyterHub.service_tokens=longtoken2=b",
            ],
            "JupyterHub.service_tokens",
            {"longtoken1": "a", "longtoken2": "b"},
        ),
        (["--JupyterHub.port=1", "--JupyterHub.port=2"], "JupyterHub.port", 2),
        (["--JupyterHub.debug_db=True"], "JupyterHub.debug_db", True),
        (["--JupyterHub.log_level=debug"], "JupyterHub.log_level", 10),
        (["--JupyterHub.cookie_max_age_days=0.5"], "JupyterHub.cookie_max_age_days", 0.5),
        (["--Spawner.hook=x"], "Spawner.hook", "x"),
    ],
)
def test_command_line_text_becomes_the_options_type(load, arguments, option, value):
    loaded = load(*arguments)
    section, name = option.split(".")
    assert loaded.config[section][name] == value


# -- errors ----------------------------------------------------------------------------------


def test_every_error_is_told_at_once_with_its_place(problems):
    yaml = "JupyterHub:\n  prot: 80\n  port: eighty\nSpawnr:\n  cmd: x\n  args: y\n"
    assert problems("--Spawner.start_timeout=soon", "--Spawner.timeout=1", yaml=yaml) == [
        'minihub.yaml:2:3  JupyterHub.prot: unknown option. Did you mean "port"?',
        'minihub.yaml:3:9  JupyterHub.port: "eighty" is not right;'
        " expected a whole number from 0 to 65535",
        'minihub.yaml:5:3  Spawnr: unknown class. Did you mean "Spawner"?',
        '--Spawner.start_timeout: "soon" is not right; expected a whole number, 1 or more',
        '--Spawner.timeout: unknown option. Did you mean "--Spawner.start_timeout"?',
    ]


@pytest.mark.parametrize(
    "text, told",
    [
        ("JupyterHub: {hub_port: yes}", "true is not right; expected a whole number"),
        ("JupyterHub: {pid_file: 5}", "expected a text; put it in quotes"),
        ("JupyterHub: {template_paths: /x}", "expected a list of texts"),
        ("JupyterHub: {ip: null}", "For the default, leave the option out"),
        ("JupyterHub: {services: [a]}", "expected a list of mappings"),
        ("JupyterHub: {port: 70000}", "70000 is not right; expected a whole number from 0"),
        ("JupyterHub: {spawner_class: simpel}", 'Did you mean "simple"?'),
        ("JupyterHub: {extra_log_handlers: [x]}", "Handler objects (Python file only)"),
        ("Spawner: {cmd: sh}", '"sh": a shell is no server'),
        ("Spawner: {term_timeout: 1, colour: red}", "unknown option; OtherSpawner has one"),
        ("jupyterhub: {port: 1}", 'unknown class. Did you mean "JupyterHub"?'),
        ("port: 1", "an option without its class; it belongs to JupyterHub"),
        ("JupyterHub: 1", "options are expected here"),
        ("JupyterHub: {port: 5, hub_port: 5}", "cannot both listen on port 5"),
        ("JupyterHub: {log_format: '%(lvl)s'}", "not found in record: 'lvl'"),
        ("JupyterHub: {cookie_max_age_days: .nan}", "cannot be anything but a finite number"),
        ("JupyterHub: {last_activity_interval: 99999999999}", "more than a hundred years"),
        ("JupyterHub: {spawn_throttle_retry_range: [1]}", "a list of 2 times a whole number, 0"),
        ('JupyterHub: {pid_file: "a\\0b"}', "a NUL character"),
        (
            "JupyterHub: {tornado_settings: {slow_stop_timeout: .inf}}",
            "cannot be anything but a finite number",
        ),
        ("JupyterHub: {load_groups: {2026: [ana]}}", "look at the key 2026, which needs quotes"),
        ("JupyterHub: {load_groups: {x: ana}}", 'look at the value of the key "x"'),
        ("JupyterHub: {template_paths: [/a, 5]}", "look at item 2, which needs quotes"),
        ("JupyterHub: {api_tokens: {12: ana}}", "look at a key, which needs quotes"),
        ("JupyterHub: {ip: http://127.0.0.1}", "expected an IP address or a host name"),
        ("JupyterHub: {base_url: /a b/}", "expected a URL path"),
        ("JupyterHub: {subdomain_host: http://1.2.3.4}", "an IP address has no names below it"),
        ("JupyterHub: {default_url: 'http://['}", "is no URL"),
        ("JupyterHub: {default_url: 'javascript:alert(1)'}", "is a path, or a URL with http"),
        ("JupyterHub: {forwarded_host_header: a b}", "is no name of a header field"),
    ],
)
def test_error_says_what_would_be_right(problems, text, told):
    [problem] = problems(yaml=text)
    assert problem.startswith("minihub.yaml:1:")
    assert told in problem


def test_option_of_the_subclass_in_use_may_stand_in_its_base(load):
    loaded = load(yaml="Spawner: {term_timeout: 1}")
    assert LocalProcessSpawner(config=loaded.config).term_timeout == 1


@pytest.mark.parametrize(
    "text", ["JupyterHub: {internal_ssl: true}", "LocalProcessSpawner: {ssl_alt_names: []}"]
)
def test_option_of_jupyterhub_that_we_lack_is_refused_with_the_reason(problems, text):
    [problem] = problems(yaml=text)
    assert "not encrypted" in problem


def test_secrets_are_never_shown(problems):
    yaml = (
        "JupyterHub:\n"
        "  cookie_secret: hushhush\n"
        "  api_tokens: {hushhush: 3}\n"
        "  services: [{api_token: hushhush}, 3]\n"
        "  db_url: [postgresql://u:hushhush@h/d]\n"
        "Spawner:\n  cmd: {PASSWORD: hushhush}\n"
    )
    told = "\n".join(problems(yaml=yaml, environ={"JPY_COOKIE_SECRET": "hushhush"}))
    assert told.count("***") == 6
    assert "environment JPY_COOKIE_SECRET  JupyterHub.cookie_secret" in told
    assert "hushhush" not in told


# -- Python files are shared with other programs -----------------------------------------------


def test_unknown_names_in_python_are_warnings(load):
    loaded = load(py="c.JupyterHub.prot = 1\nc.DockerSpawner.image = 'x'\nc.port = 3\n")
    assert loaded.warnings == [
        'jupyterhub_config.py:1  JupyterHub.prot: unknown option. Did you mean "port"?',
        'jupyterhub_config.py:2  DockerSpawner: unknown class. Did you mean "OtherSpawner"?',
        "jupyterhub_config.py:3  port: an option without its class; it belongs to JupyterHub",
    ]
    assert "prot" not in loaded.config.JupyterHub


def test_strict_makes_them_errors(problems):
    assert len(problems(py="c.JupyterHub.prot = 1\nc.Nothing.x = 'x'\n", strict=True)) == 2


def test_wrong_type_in_python_is_an_error(problems):
    assert problems(py="\nc.JupyterHub.port = '80'\n") == [
        'jupyterhub_config.py:2  JupyterHub.port: "80" is not right;'
        " expected a whole number from 0 to 65535"
    ]


def test_objects_that_cannot_even_be_shown_are_refused(problems):
    py = (
        "class Odd:\n    def __repr__(self): raise RuntimeError\n"
        "c.JupyterHub.port = Odd()\nendless = {}\nendless['x'] = endless\n"
        "c.JupyterHub.template_vars = endless\n"
    )
    assert problems(py=py) == [
        "jupyterhub_config.py:3  JupyterHub.port: an object of Odd is not right;"
        " expected a whole number from 0 to 65535",
        "jupyterhub_config.py:6  JupyterHub.template_vars: cannot be a value that contains itself",
    ]


def test_problem_found_at_the_start_gets_its_place(load):
    yaml = "JupyterHub: {services: []}\nProxy: {should_start: false}\nSpawner: {cmd: x}"
    loaded = load(yaml=yaml)
    for told, place in (
        ("JupyterHub.services, entry 1: a service needs a name", "minihub.yaml:1:14  "),
        ("ThreadedProxy.should_start: cannot be", "minihub.yaml:2:9  "),
        ("JupyterHub.port: in use", ""),
        ("There is no place in this", ""),
    ):
        assert loaded.placed(told) == place + told


def test_option_of_jupyterhub_that_we_lack_is_an_error_in_python_too(problems):
    [problem] = problems(py="c.JupyterHub.extra_handlers = []")
    assert "tornado" in problem


# -- values ----------------------------------------------------------------------------------


def test_lazy_methods_extend_the_default(load):
    loaded = load(py="c.Spawner.search_path.append('LANG')\nc.Spawner.cmd.extend(['-x'])\n")
    for _ in range(2):
        spawner = LocalProcessSpawner(config=loaded.config)
        assert spawner.search_path == ["PATH", "LANG"]
        assert spawner.cmd == ["single", "-x"]


@pytest.mark.parametrize("call", ["port.append(1)", "admin_users.append(1)", "services.add(1)"])
def test_lazy_method_that_does_not_fit_is_an_error(problems, call):
    [problem] = problems(py=f"c.JupyterHub.{call}")
    assert "takes no" in problem


def test_wrong_item_added_by_a_lazy_method_is_an_error(problems):
    [problem] = problems(py="c.Spawner.search_path.append(3)")
    assert "['PATH', 3] is not right; expected a list of texts" in problem


def test_log_handlers_survive_although_they_cannot_be_copied(load):
    py = "import logging\nc.JupyterHub.extra_log_handlers = [logging.StreamHandler()]\n"
    loaded = load(py=py)
    [given] = loaded.config.JupyterHub.extra_log_handlers
    with pytest.raises(TypeError):
        copy.deepcopy(given)
    assert JupyterHub(config=loaded.config).extra_log_handlers == [given]
    assert isinstance(given, logging.Handler)


def test_uncopyable_values_in_dicts_survive_too(load):
    loaded = load(py="import threading\nc.JupyterHub.template_vars = {'x': threading.Lock()}\n")
    given = loaded.config.JupyterHub.template_vars["x"]
    assert JupyterHub(config=loaded.config).template_vars["x"] is given


def test_class_defined_in_the_file_brings_its_options(load):
    loaded = load(
        py="from test_config import Spawner\n"
        "from traitlets import Unicode\n"
        "class Mine(Spawner):\n"
        "    greeting = Unicode().tag(config=True)\n"
        "c.Mine.greeting = 'hello'\n"
        "c.Mine.greting = 'hello'\n"
    )
    assert loaded.warnings == [
        'jupyterhub_config.py:6  Mine.greting: unknown option. Did you mean "greeting"?'
    ]
    [mine] = [cls for cls in loaded.classes if cls.__name__ == "Mine"]
    assert mine(config=loaded.config).greeting == "hello"


# -- old names -------------------------------------------------------------------------------


def test_old_section_name_is_merged_with_a_warning(load):
    loaded = load(yaml="JupyterHubApp: {port: 5}")
    assert JupyterHub(config=loaded.config).port == 5
    assert loaded.warnings == [
        "minihub.yaml:1:17  JupyterHubApp is the old name of JupyterHub; use JupyterHub"
    ]


@pytest.mark.parametrize("name", config.options.COMMAND_LINE_ONLY)
def test_option_for_the_command_line_alone_is_told_in_a_file(load, name):
    loaded = load(yaml=f"JupyterHub: {{{name.split('.')[1]}: true}}")
    assert loaded.warnings == [f"minihub.yaml:1:14  {name}: only works on the command line"]


@pytest.mark.parametrize(
    "given, warned, option, value",
    [
        ("debug_proxy: true", "ConfigurableHTTPProxy.debug", "debug", True),
        ("proxy_auth_token: tok", "ConfigurableHTTPProxy.auth_token", "auth_token", "tok"),
        ("proxy_cmd: node-proxy", "ConfigurableHTTPProxy.command", "command", ["node-proxy"]),
        ("proxy_api_port: 99", "ConfigurableHTTPProxy.api_url", "api_url", "http://127.0.0.1:99"),
        ("proxy_api_ip: h", "ConfigurableHTTPProxy.api_url", "api_url", "http://h:8001"),
    ],
)
def test_deprecated_proxy_option_warns_and_works(load, given, warned, option, value):
    loaded = load(yaml=f"JupyterHub: {{{given}}}")
    name = given.split(":")[0]
    assert loaded.warnings == [f"minihub.yaml:1:14  JupyterHub.{name} is deprecated: use {warned}"]
    assert getattr(ThreadedProxy(config=loaded.config), option) == value


def test_successor_wins_over_the_deprecated_option(load):
    loaded = load(yaml="JupyterHub: {debug_proxy: true}\nThreadedProxy: {debug: false}")
    assert ThreadedProxy(config=loaded.config).debug is False


@pytest.mark.parametrize(
    "text, admins",
    [
        ("JupyterHub: {admin_users: [old]}", {"old"}),
        ("JupyterHub: {admin_users: [old]}\nAuthenticator: {admin_users: [new]}", {"new"}),
        ("JupyterHub: {admin_users: [old]}\nPAMAuthenticator: {admin_users: []}", {"old"}),
    ],
)
def test_old_admin_users_count_where_the_new_ones_are_empty(load, text, admins):
    assert PAMAuthenticator(config=load(yaml=text).config).admin_users == admins


@pytest.mark.parametrize(
    "text, seconds",
    [
        ("{}", 30),
        ("JupyterHub: {proxy_check_interval: 7}", 7),
        ("JupyterHub: {proxy_check_interval: 7}\nThreadedProxy: {check_running_interval: 2}", 2),
    ],
)
def test_proxy_check_interval_reaches_the_proxy_unless_it_has_its_own(load, text, seconds):
    assert ThreadedProxy(config=load(yaml=text).config).check_running_interval == seconds


def test_option_that_does_nothing_says_so(load):
    [warning] = load(yaml="JupyterHub: {confirm_no_ssl: true}").warnings
    assert warning.endswith("JupyterHub.confirm_no_ssl is deprecated: it does nothing")
