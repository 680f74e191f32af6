"""The command line: what is understood, what is refused, what it prints and ends with."""

import errno
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from traitlets import TraitError

import minihub
from minihub import app, cli, config, manage
from minihub.config_render import yaml_file
from minihub.errors import AlreadyRunning, ConfigError
from minihub.options import JupyterHub

ROOT = Path(minihub.__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JPY_COOKIE_SECRET", raising=False)
    monkeypatch.delenv("CONFIGPROXY_AUTH_TOKEN", raising=False)
    return tmp_path


@pytest.fixture
def run(capsys):
    """Run a command line; the result has ``code``, ``out`` and ``err``."""

    def run(*arguments):
        code = cli.main(arguments)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return SimpleNamespace(code=code, out=out, err=err)

    return run


@pytest.fixture
def served(monkeypatch):
    """What ``app.serve`` was called with, instead of a running hub."""
    calls = []
    monkeypatch.setattr(app, "serve", lambda loaded, say: calls.append(loaded) or 0)
    return calls


# -- output ----------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["options", "--yaml"]], ids=["short", "long"])
def test_output_that_nothing_more_fits_into_is_said_in_one_line(arguments):
    with open("/dev/full", "w") as full:
        program = [sys.executable, "-m", "minihub", *arguments]
        done = subprocess.run(
            program, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "minihub: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize("arguments", ["--version", "--help", "config check"])
def test_closed_streams_are_no_error(arguments):
    command = f"{sys.executable} -m minihub {arguments} <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], cwd=ROOT, check=False).returncode == 0


def test_configuration_that_cannot_be_written_is_said(run, monkeypatch):
    monkeypatch.setattr(Path, "exists", _refuse)
    result = run("--generate-config", "-f", "x.yaml")
    assert result.code == 2 and "x.yaml: cannot be written: Permission denied" in result.err


def _refuse(_path):
    raise PermissionError(errno.EACCES, "Permission denied")


# -- showing ---------------------------------------------------------------------------------


def test_version_is_one_line_that_begins_with_our_name(run):
    result = run("--version")
    assert result.out == f"minihub {minihub.__version__}\n"
    assert result.code == 0


def test_help_fits_a_screen_and_names_every_verb_and_flag(run):
    result = run("--help")
    assert result.out.count("\n") <= 25
    assert max(map(len, result.out.splitlines())) <= 80
    for name in [*cli.ALIASES, *cli.SWITCHES, "--version", "--help-all"]:
        assert name in result.out
    for verb in cli.VERBS:
        first, *rest = verb.words.split() or ["(no verb)"]
        assert any(
            first in line and all(word in line for word in rest) for line in result.out.splitlines()
        )
    assert run("-h").out == result.out


@pytest.mark.parametrize("verb", [v for v in cli.VERBS if v.words], ids=lambda verb: verb.words)
def test_help_of_a_verb_names_its_flags_and_words(run, verb):
    result = run(*verb.words.split(), "--help")
    assert result.out.startswith(f"Usage: minihub{'.pyz' * verb.raw} {verb.words} {verb.operand}")
    assert all(flag in result.out for flag in verb.flags)
    assert max(map(len, result.out.splitlines())) <= 100


def test_help_of_verbs_that_begin_alike_lists_them(run):
    result = run("config", "--help")
    assert result.code == 0 and result.out.startswith("Usage: minihub config ...")
    assert "config check" in result.out and "config show" in result.out
    assert run("help", "config").out == result.out
    assert run("help").out == run("--help").out


def test_help_all_has_every_option_with_its_default(run):
    result = run("--help-all")
    for name in JupyterHub.class_trait_names(config=True):
        assert f"--JupyterHub.{name}=<" in result.out
    assert "--Spawner.cmd=<Command>" in result.out
    assert "Default: 8000" in result.out


HEAVY = {"traitlets", "yaml", "jinja2", "bottle", "peewee", "psutil", "asyncio", "logging"}


@pytest.mark.parametrize("argument", ["--version", "--help", "--nonsense", "verb"])
def test_what_needs_no_configuration_imports_nothing_heavy(argument):
    code = (
        "import sys; from minihub import cli; cli.main([sys.argv[1]]); "
        f"sys.exit(sorted({HEAVY} & set(sys.modules)) or 0)"
    )
    root = cli.__file__.rpartition("/minihub/")[0]
    done = subprocess.run(
        [sys.executable, "-c", code, argument], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


# -- refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line, told",
    [
        ("prox", 'unknown verb "prox". Did you mean "proxy"?'),
        ("confg check", 'unknown verb "confg check". Did you mean "config check"?'),
        ("config chek", 'unknown verb "config chek". Did you mean "config check"?'),
        ("config", "config what? One of: config check, config show"),
        ("zzzzzz", 'unknown verb "zzzzzz"'),
        ("--prot 80", 'unknown flag --prot. Did you mean "--port"?'),
        ("--prt=80", 'unknown flag --prt. Did you mean "--port"?'),
        ("-x", "unknown flag -x"),
        ("--port", "--port needs a value"),
        ("--port --debug", "--port needs a value"),
        ("--debug=1", "--debug takes no value"),
        ("--help=1", "--help takes no value"),
        ("config check --strit", 'unknown flag --strit. Did you mean "--strict"?'),
        ("--strict", "--strict belongs to config check"),
        ("doctor --classroom", "--classroom belongs to the start"),
        ("config check a b", 'config check does not know what to do with "b"'),
        ("admin link ana", 'admin link does not know what to do with "ana"'),
        ("options", "options needs one of --yaml, --markdown and --overview"),
        ("options --yaml --port 1", "options reads no configuration and takes no --port"),
        ("admin link --generate-config", "--generate-config writes a file and ends"),
        ("token --note", "--note needs a value"),
        ("token --note --json", "--note needs a value"),
        ("user list --jso", 'unknown flag --jso. Did you mean "--json"?'),
        ("token --jso", "unknown flag --jso; token takes --expires-in, --note"),
        ("user rm --jso", "unknown flag --jso\n"),
        ("user frob", 'unknown verb "user frob". One of: user add, user list, user rm'),
        ("user add", "Try: minihub user add --help"),
        ("server logs --follw ana", "Try: minihub server logs --help"),
        ("usr", "Try: minihub --help"),
        ("--note x user list", "--note belongs to token"),
        ("user", "user what? One of: user add, user list, user rm, user passwd"),
        ("user ad ana", 'unknown verb "user ad". Did you mean "user add"?'),
        ("user add", "user add needs NAME ..."),
        ("user passwd ana ben", 'user passwd does not know what to do with "ben"'),
        ("server start", "server start needs USER [SERVER]"),
        ("server start a b c", 'server start does not know what to do with "c"'),
        ("-f x cull", "cull has flags of its own and must come first"),
        ("cull --timout=3", "Did you mean --timeout?"),
        ("-f x proxy", "proxy has flags of its own and must come first"),
        ("--generate-config -f x.toml", "x.toml: the name of a configuration file ends in"),
        ("--generate-config -f no/x.yaml", "there is no directory no to write it to"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_is_near(run, served, line, told):
    result = run(*line.split())
    assert (result.code, result.out, served) == (2, "", [])
    assert result.err.startswith("minihub: ") and told in result.err


def test_wrong_configuration_ends_with_3_and_every_error(run, served):
    result = run("--port", "x", "--JupyterHub.prot=1", "--Nothing.x=1")
    assert (result.code, result.out, served) == (3, "", [])
    assert result.err == (
        '--port  JupyterHub.port: "x" is not right; expected a whole number from 0 to 65535\n'
        '--JupyterHub.prot: unknown option. Did you mean "--JupyterHub.port"?\n'
        "--Nothing.x  Nothing: unknown class\n"
        "3 errors in the configuration, nothing started.\n"
    )


@pytest.mark.parametrize(
    "error, code, told",
    [
        (
            AlreadyRunning("port 8000 is taken by pid 7"),
            4,
            "minihub: port 8000 is taken by pid 7\n",
        ),
        (ConfigError("a: b"), 3, "a: b\n1 error in the configuration, nothing started.\n"),
        (TraitError("cmd is wrong"), 3, "cmd is wrong\n1 error in the"),
        (KeyboardInterrupt(), 1, ""),
        (KeyError("x\ny"), 1, "minihub: internal error: KeyError: 'x\\ny'\nWith --debug"),
    ],
)
def test_error_while_running_becomes_its_message_and_exit_code(run, monkeypatch, error, code, told):
    def fail(loaded, say):
        raise error

    monkeypatch.setattr(app, "serve", fail)
    result = run()
    assert result.code == code
    assert result.err.startswith(told)


def test_debug_lets_the_traceback_through(monkeypatch):
    monkeypatch.setattr(app, "serve", lambda loaded, say: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["--debug"])


def test_reader_that_is_gone_causes_no_noise():
    root = cli.__file__.rpartition("/minihub/")[0]
    code = "import sys; from minihub import cli; sys.exit(cli.main(['--help-all']))"
    done = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -c "{code}" | true'], cwd=root, capture_output=True
    )
    assert done.stderr == b""


# -- flags become options --------------------------------------------------------------------


@pytest.mark.parametrize(
    "line, option, value",
    [
        ("--port 8123", "port", 8123),
        ("--port=8123", "port", 8123),
        ("--ip 0.0.0.0", "ip", "0.0.0.0"),
        ("--base-url lab", "base_url", "/lab/"),
        ("--db hub.db", "db_url", "sqlite:///hub.db"),
        ("--no-db", "db_url", "sqlite:///:memory:"),
        ("--no-ssl", "confirm_no_ssl", True),
        ("--pid-file x.pid", "pid_file", "x.pid"),
        ("--log-file x.log", "extra_log_file", "x.log"),
        ("--log-level INFO", "log_level", 20),
        ("--log-level 40", "log_level", 40),
        ("--debug", "log_level", 10),
        ("-y", "answer_yes", True),
        ("-y=false", "answer_yes", False),
        ("--JupyterHub.debug_db --port 1", "debug_db", True),
        ("--JupyterHub.debug_db False", "debug_db", False),
        ("--JupyterHub.admin_access=true", "admin_access", True),
        ("--JupyterHub.load_groups={'a':['b']}", "load_groups", {"a": ["b"]}),
        ("-f x.yaml", "config_file", "x.yaml"),
        ("-fx.yaml", "config_file", "x.yaml"),
        ("-f=x.yaml", "config_file", "x.yaml"),
        ("--config=x.yaml", "config_file", "x.yaml"),
        ("--JupyterHub.config_file x.yaml", "config_file", "x.yaml"),
    ],
)
def test_flag_sets_its_option(run, served, directory, line, option, value):
    (directory / "x.yaml").write_text("Spawner: {start_timeout: 7}")
    assert run(*line.split()).code == 0
    assert getattr(JupyterHub(config=served[0].config), option) == value


def test_certificate_flags_go_together(run, served, directory):
    (directory / "k").touch()
    assert run("--ssl-key", "k", "--ssl-cert", "k").code == 0
    assert run("--ssl-key", "k").code == 3


def test_repeated_flag_adds_to_a_list(run, served):
    run("--Spawner.cmd", "a", "--Spawner.cmd=-b", "--Spawner.environment", "X=1")
    assert served[0].config.Spawner.cmd == ["a", "-b"]
    assert served[0].config.Spawner.environment == {"X": "1"}


def test_negative_number_is_a_value(run):
    assert "JupyterHub.port: -1 is not right" in run("--port", "-1").err


def test_flags_may_stand_before_the_verb(run, directory):
    (directory / "x.yaml").write_text("JupyterHub: {port: 1234}")
    result = run("-f", "x.yaml", "config", "show", "--origin")
    assert "  port: 1234  # x.yaml:1:14\n" in result.out


def test_proxy_gets_its_command_line_untouched(monkeypatch):
    stand_in = SimpleNamespace(main=lambda argv: argv)
    monkeypatch.setitem(sys.modules, "minihub.proxy.main", stand_in)
    assert cli.main(["proxy", "--port", "x", "--help"]) == ["--port", "x", "--help"]


def test_admin_link_runs_with_the_configuration(run, monkeypatch, directory):
    seen = []
    monkeypatch.setattr(
        manage, "admin_link", lambda loaded, say: say("a link") or seen.append(loaded) or 0
    )
    result = run("admin", "link", "--port", "9")
    assert (result.code, result.out) == (0, "a link\n")
    assert seen[0].config.JupyterHub.port == 9


# -- configuration verbs ---------------------------------------------------------------------


def test_config_check_says_that_a_file_is_right(run, directory):
    (directory / "x.yaml").write_text("JupyterHub: {port: 1}")
    result = run("config", "check", "x.yaml")
    assert (result.code, result.out) == (0, f"{directory}/x.yaml: no problem found.\n")


def test_config_check_strict_refuses_what_a_python_file_may_hold(run, directory):
    (directory / "jupyterhub_config.py").write_text("c.JupyterHub.prot = 1\n")
    told = 'jupyterhub_config.py:1  JupyterHub.prot: unknown option. Did you mean "port"?\n'
    result = run("config", "check")
    assert (result.code, result.err) == (0, told)
    result = run("config", "check", "--strict")
    assert (result.code, result.out) == (3, "")
    assert result.err.startswith(told)


def test_config_show_is_yaml_of_everything_in_force_without_secrets(run, directory):
    (directory / "minihub.yaml").write_text(
        "JupyterHub:\n  spawner_class: simple\n  cookie_secret: '1122'\n"
        "  db_url: postgresql://u:hush@h/d\n  services: [{name: a, api_token: hushhush}]\n"
        "Spawner:\n  start_timeout: 7\n"
    )
    result = run("config", "show")
    assert result.code == 0 and "hush" not in result.out and "1122" not in result.out
    shown = yaml.safe_load(result.out)
    assert list(shown)[0] == "JupyterHub"
    assert set(shown["JupyterHub"]) == set(JupyterHub.class_trait_names(config=True))
    assert shown["JupyterHub"]["port"] == 8000
    assert shown["SimpleLocalProcessSpawner"]["start_timeout"] == 7
    assert shown["JupyterHub"]["services"] == [{"name": "a", "api_token": "***"}]


def test_config_show_origin_names_file_flag_variable_and_default(run, directory, monkeypatch):
    monkeypatch.setenv("JPY_COOKIE_SECRET", "11")
    (directory / "jupyterhub_config.py").write_text(
        "def hook(spawner):\n    pass\nc.Spawner.args.append('-x')\n"
        "c.Spawner.environment = {'A': hook}\n"
    )
    out = run("config", "show", "--origin", "--port=5").out
    for line in (
        "  port: 5  # --port",
        "  cookie_secret: '***'  # environment JPY_COOKIE_SECRET",
        "  args: [-x]  # jupyterhub_config.py:3",
        "  environment: {A: <function hook>}  # jupyterhub_config.py:4",
        "  hub_port: 8081  # default",
    ):
        assert line + "\n" in out


# -- generated files -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["minihub.yaml", "x.yaml", "x.yml", "x.py"])
def test_generated_file_has_every_option_and_loads(run, served, directory, name):
    flags = [] if name == "minihub.yaml" else ["-f", name]
    result = run("--generate-config", *flags)
    assert (result.code, result.err, served) == (0, "", [])
    assert name in result.out
    text = (directory / name).read_text()
    for option in JupyterHub.class_trait_names(config=True):
        assert f"#{option}:" in text or f"#c.JupyterHub.{option} = " in text
    assert run(*flags).code == 0
    assert JupyterHub(config=served[0].config).port == 8000


@pytest.mark.parametrize("name", ["x.yaml", "x.py"])
def test_every_option_of_a_generated_file_can_be_switched_on(run, directory, name):
    """Taking away each # before a name gives a file that says the defaults and loads."""
    run("--generate-config", "-f", name)
    lines = (directory / name).read_text().splitlines()
    on = [
        line.replace("#", "", 1) if line.lstrip().startswith("#") and "# " not in line[:4] else line
        for line in lines
    ]
    assert sum(a != b for a, b in zip(on, lines, strict=True)) > 58
    (directory / name).write_text("\n".join(on))
    result = run("config", "check", name)
    assert result.code == 0, result.err


@pytest.mark.parametrize(
    "answer, code, kept", [("n\n", 0, True), ("", 0, True), ("y\n", 0, False), ("YES\n", 0, False)]
)
def test_existing_file_is_overwritten_only_after_a_yes(
    run, directory, monkeypatch, answer, code, kept
):
    import io

    (directory / "minihub.yaml").write_text("JupyterHub: {port: 1}")
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    result = run("--generate-config")
    assert "minihub.yaml exists. Overwrite it? [y/N]" in result.out
    assert result.code == code
    assert ((directory / "minihub.yaml").read_text() == "JupyterHub: {port: 1}") is kept


def test_yes_flag_overwrites_without_asking(run, directory):
    (directory / "minihub.yaml").write_text("broken: [")
    result = run("--generate-config", "-y")
    assert "Overwrite" not in result.out
    assert (directory / "minihub.yaml").read_text() == yaml_file(cli._classes())


def test_options_verb_prints_the_generated_files(run):
    assert run("options", "--yaml").out == yaml_file(cli._classes())
    assert run("options", "--markdown").out.startswith("# Options\n")


def test_each_alias_and_switch_names_an_option():
    names = [*cli.ALIASES.values(), *(option for option, _value in cli.SWITCHES.values())]
    for name in names:
        assert name.removeprefix("JupyterHub.") in JupyterHub.class_trait_names(config=True)
    assert config.YAML_FILE == "minihub.yaml"


def test_config_check_tells_at_once_what_only_the_parts_can_judge(run, directory):
    (directory / "minihub.yaml").write_text(
        "JupyterHub:\n"
        "  services: [{name: x, comand: y}]\n"
        "  logo_file: /nonexistent.png\n"
        "  load_roles: [{name: r, scopes: [no-such-scope]}]\n"
        "  template_paths: [/nowhere]\n"
        "  cookie_secret_file: /nowhere/secret\n"
        "  pid_file: /nowhere/pid\n"
    )
    result = run("config", "check")
    assert result.code == 3
    names = "services logo_file load_roles template_paths cookie_secret_file pid_file".split()
    for line, name in enumerate(names, 2):
        assert f"minihub.yaml:{line}" in result.err and f"JupyterHub.{name}" in result.err, name
    assert list(directory.iterdir()) == [directory / "minihub.yaml"]
