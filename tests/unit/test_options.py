"""The options of the hub: the reference's names, types and defaults, and the rules between them."""

import logging

import pytest
from traitlets import TraitError

from minihub import options
from minihub.config_values import static_default, type_name
from minihub.options import OURS, JupyterHub, problems
from minihub.options_later import LaterOptions

#: Name, type and default of each option, in the reference's order.
REFERENCE = {
    "active_server_limit": ("Int", 0),
    "admin_access": ("Bool", False),
    "admin_users": ("Set", set()),
    "allow_named_servers": ("Bool", False),
    "answer_yes": ("Bool", False),
    "api_tokens": ("Dict", {}),
    "authenticator_class": ("Type", "minihub.auth.pam.PAMAuthenticator"),
    "base_url": ("URLPrefix", "/"),
    "cleanup_proxy": ("Bool", True),
    "cleanup_servers": ("Bool", True),
    "concurrent_spawn_limit": ("Int", 100),
    "config_file": ("Unicode", "jupyterhub_config.py"),
    "confirm_no_ssl": ("Bool", False),
    "cookie_max_age_days": ("Float", 14),
    "cookie_secret": ("Bytes", b""),
    "cookie_secret_file": ("Unicode", "jupyterhub_cookie_secret"),
    "data_files_path": ("Unicode", ""),
    "db_kwargs": ("Dict", {}),
    "db_url": ("Unicode", "sqlite:///jupyterhub.sqlite"),
    "debug_db": ("Bool", False),
    "debug_proxy": ("Bool", False),
    "extra_log_file": ("Unicode", ""),
    "extra_log_handlers": ("List", []),
    "generate_config": ("Bool", False),
    "hub_connect_ip": ("Unicode", ""),
    "hub_connect_port": ("Int", 0),
    "hub_ip": ("Unicode", "127.0.0.1"),
    "hub_port": ("Int", 8081),
    "ip": ("Unicode", ""),
    "jinja_environment_options": ("Dict", {}),
    "last_activity_interval": ("Int", 300),
    "load_groups": ("Dict", {}),
    "log_datefmt": ("Unicode", "%Y-%m-%d %H:%M:%S"),
    "log_format": ("Unicode", "[%(name)s]%(highlevel)s %(message)s"),
    "log_level": ("Enum", "WARNING"),
    "logo_file": ("Unicode", ""),
    "pid_file": ("Unicode", ""),
    "port": ("Int", 8000),
    "proxy_api_ip": ("Unicode", ""),
    "proxy_api_port": ("Int", 0),
    "proxy_auth_token": ("Unicode", ""),
    "proxy_check_interval": ("Int", 30),
    "proxy_class": ("Type", "minihub.ownproxy.ThreadedProxy"),
    "proxy_cmd": ("Command", []),
    "reset_db": ("Bool", False),
    "service_check_interval": ("Int", 60),
    "service_tokens": ("Dict", {}),
    "services": ("List", []),
    "spawner_class": ("Type", "minihub.local.LocalProcessSpawner"),
    "ssl_cert": ("Unicode", ""),
    "ssl_key": ("Unicode", ""),
    "statsd_host": ("Unicode", ""),
    "statsd_port": ("Int", 8125),
    "statsd_prefix": ("Unicode", "jupyterhub"),
    "subdomain_host": ("Unicode", ""),
    "template_paths": ("List", []),
    "tornado_settings": ("Dict", {}),
    "trust_user_provided_tokens": ("Bool", False),
}

DECLARED = JupyterHub.class_traits(config=True)


def test_reference_has_58_options():
    assert len(REFERENCE) == 58


def test_declared_options_are_the_references_and_ours():
    later = set(LaterOptions.class_traits(config=True))
    assert set(DECLARED) == set(REFERENCE) | set(OURS) | later


def test_declarations_stand_in_the_references_order():
    own = [name for name in vars(JupyterHub) if name in REFERENCE]
    assert own == [name for name in REFERENCE if not name.startswith("log_")]


@pytest.mark.parametrize("name", REFERENCE)
def test_type_and_default_are_the_references(name):
    trait = DECLARED[name]
    assert (type_name(trait), static_default(trait)) == REFERENCE[name]


@pytest.mark.parametrize("name", DECLARED)
def test_help_begins_with_a_short_sentence(name):
    text = DECLARED[name].help
    first = text.split(". ")[0]
    assert first and len(first) <= 120
    assert text.endswith(".")


@pytest.mark.parametrize("name", DECLARED)
def test_unit_tag_is_named_in_the_help(name):
    unit = DECLARED[name].metadata.get("unit")
    if unit:
        assert unit in DECLARED[name].help.lower()


@pytest.mark.parametrize("name", DECLARED)
def test_example_is_a_value_the_option_takes(name, monkeypatch):
    example = DECLARED[name].metadata.get("example")
    if example is not None:
        assert getattr(JupyterHub(**{name: example}), name) is not None


@pytest.mark.parametrize("table", [options.AUTHENTICATORS, options.SPAWNERS, options.PROXIES])
def test_every_named_class_exists(table):
    from minihub.traits import import_class

    for dotted in set(table.values()):
        assert isinstance(import_class(dotted), type)


@pytest.mark.parametrize("target", [*options.MOVED.values(), *options.ENVIRONMENT.values()])
def test_every_option_that_takes_over_exists(target):
    from minihub.traits import import_class

    section, name = target.split(".")
    classes = [JupyterHub, *map(import_class, options.COMPANIONS)]
    assert any(c.__name__ == section and name in c.class_traits(config=True) for c in classes)


def test_plain_file_name_as_database_means_sqlite():
    assert JupyterHub(db_url="hub.db").db_url == "sqlite:///hub.db"
    assert JupyterHub(db_url="postgresql://x/y").db_url == "postgresql://x/y"


def test_subdomain_host_gets_a_scheme():
    assert JupyterHub(subdomain_host="hub.example.org:8000/").subdomain_host == (
        "https://hub.example.org:8000"
    )


@pytest.mark.parametrize(
    "host", ["ftp://x", "https://", "https://x/path", "https://u@x", "https://x:99999", "https://["]
)
def test_subdomain_host_that_is_no_origin_is_refused(host):
    with pytest.raises(TraitError, match="no path"):
        JupyterHub(subdomain_host=host)


def test_users_and_lists_may_be_given_as_in_yaml():
    hub = JupyterHub(admin_users=["ana"], load_groups={"a": ["x"], "b": {"users": ["y"]}})
    assert hub.admin_users == {"ana"}
    assert hub.load_groups["b"] == {"users": ["y"]}


def test_cull_takes_durations_and_truths_in_every_spelling():
    given = {"timeout": "1h", "max_age": 7200, "cull_users": "true", "spare_busy": False}
    assert JupyterHub(cull=given).cull == {
        "timeout": 3600,
        "max_age": 7200,
        "cull_users": True,
        "spare_busy": False,
    }
    assert JupyterHub(cull={}).cull == {}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"timeut": 60}, 'unknown key "timeut". Did you mean "timeout"'),
        ({"x": 60}, "there are timeout"),
        ({"timeout": "soon"}, "timeout: 'soon' is no duration"),
        ({"timeout": 60, "cull_users": 3}, "cull_users: 3 is neither true nor false"),
        ({"max_age": "1d"}, "timeout is needed"),
        ({"timeout": 0}, "timeout is needed"),
    ],
)
def test_cull_that_means_nothing_is_refused(given, said):
    with pytest.raises(TraitError) as found:
        JupyterHub(cull=given)
    assert said in str(found.value)


def test_every_limit_of_the_culler_is_a_key_of_cull():
    from dataclasses import fields

    from minihub.culler import Limits

    inside = {"every", "warn", "keep", "keep_most"}  # of the hub, not of the verb
    assert {field.name for field in fields(Limits)} | inside == set(options.CULL)


# -- rules between options -------------------------------------------------------------------


def names(hub):
    return [names[0] for names, _what in problems(hub)]


def test_defaults_break_no_rule():
    assert names(JupyterHub()) == []


def test_hub_and_proxy_on_one_port_are_refused_with_its_number():
    [(_names, what)] = problems(JupyterHub(port=9000, hub_port=9000))
    assert "9000" in what
    assert names(JupyterHub(port=0, hub_port=0)) == []


def test_key_without_certificate_and_the_reverse_are_refused(tmp_path):
    file = tmp_path / "pem"
    file.write_text("")
    assert names(JupyterHub(ssl_key=str(file))) == ["ssl_key"]
    assert names(JupyterHub(ssl_cert=str(file))) == ["ssl_cert"]
    assert names(JupyterHub(ssl_cert=str(file), ssl_key=str(file))) == []


def test_missing_certificate_is_named(tmp_path):
    hub = JupyterHub(ssl_cert="/nowhere/c", ssl_key="/nowhere/k")
    assert [what for _, what in problems(hub)] == [
        "there is no file /nowhere/k",
        "there is no file /nowhere/c",
    ]


def test_short_token_is_refused_without_showing_it():
    [(_names, what)] = problems(JupyterHub(service_tokens={"abc123": "grader"}))
    assert "grader" in what and "abc123" not in what


def test_log_format_with_unknown_field_is_refused():
    assert names(JupyterHub(log_format="%(nothing)s")) == ["log_format"]
    assert names(JupyterHub(log_format="%(color)s%(asctime)s%(end_color)s %(message)s")) == []


def test_state_directory_must_be_named():
    assert names(JupyterHub(state_dir="")) == ["state_dir"]


def test_log_handlers_are_taken():
    handler = logging.NullHandler()
    assert JupyterHub(extra_log_handlers=[handler]).extra_log_handlers == [handler]
