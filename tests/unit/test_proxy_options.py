"""The proxy's command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from minihub.errors import UsageError
from minihub.proxy.options import OPTIONS, parse, usage


def test_defaults_are_the_references() -> None:
    options = parse([], {})
    assert (options.ip, options.port, options.api_ip, options.api_port) == (
        "",
        8000,
        "localhost",
        8001,
    )
    assert options.x_forward and options.prepend_path and options.include_prefix
    assert options.keep_alive_timeout == 5000
    assert options.log_level == "info"


def test_api_port_follows_the_port() -> None:
    assert parse(["--port", "9000"], {}).api_port == 9001
    assert parse(["--port=0"], {}).api_port == 0
    with pytest.raises(UsageError):
        parse(["--port", "65535"], {})


def test_values_may_be_empty_or_look_like_options() -> None:
    options = parse(["--ip", "", "--error-path=--x", "--pid-file", "--y"], {})
    assert (options.ip, options.error_path, options.pid_file) == ("", "--x", "--y")


def test_custom_headers_add_up() -> None:
    options = parse(["--custom-header", " k1 : v1 ", "--custom-header=k2:v:2"], {})
    assert options.custom_headers == (("k1", "v1"), ("k2", "v:2"))


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--prot", "1"], "Did you mean --port?"),
        (["--port"], "--port needs a value"),
        (["--port", "x"], "--port is a number"),
        (["--port", "70000"], "out of range"),
        (["--timeout", "-1"], "out of range"),
        (["--log-level", "loud"], "debug, info, warn, error"),
        (["--insecure=yes"], "takes no value"),
        (["--custom-header", "k"], "A colon was expected in custom header: k"),
        (["--custom-header", ":v"], "A colon was expected in custom header: :v"),
        (["--custom-header", "a b:v"], "no name of a header field"),
        (["--custom-header", "a:b\r\nc:d"], "control character"),
        (["word"], "unexpected argument 'word'"),
        (["--error-target", "http://a", "--error-path", "b"], "Pick one."),
        (["--api-ssl-request-cert"], "--api-ssl-request-cert needs --api-ssl-cert"),
    ],
)
def test_errors_name_the_option(argv: list[str], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(argv, {})
    assert text in str(caught.value)


def test_secrets_come_from_the_environment() -> None:
    options = parse([], {"CONFIGPROXY_AUTH_TOKEN": "t", "CONFIGPROXY_SSL_KEY_PASSPHRASE": "p"})
    assert (options.auth_token, options.ssl_key_passphrase) == ("t", "p")


def test_help_names_every_option() -> None:
    text = usage()
    for option in OPTIONS:
        assert f"--{option.name}" in text
        assert option.help in text
    assert max(map(len, text.splitlines())) <= 100


def test_documented_help_is_the_help() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "proxy.md").read_text()
    lines = ["    " + line if line else "" for line in usage().splitlines()]
    assert "\n".join(lines) in page, "docs/proxy.md: paste what --help prints between the marks"
