"""The command line of the proxy: one table, from which parsing, help and errors come.

Rules of this file: an option that is not in OPTIONS does not exist; an option in it works.
Names, values and defaults are configurable-http-proxy's where it has the option. Durations are
milliseconds on the command line and here.

Sources: configurable-http-proxy 5.x ``--help``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from minihub.errors import UsageError
from minihub.proxy.log import LEVELS

# Loading typing costs more than everything else in this file.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Option:
    """One command line option.

    ``kind`` says how a value is read: flag, off (a ``--no-`` flag), text, port, number, ms,
    header (repeatable ``name:value``), refused, or one of a tuple of words.
    """

    __slots__ = ("name", "kind", "default", "metavar", "help", "section")

    def __init__(
        self,
        name: str,
        kind: str | tuple[str, ...],
        default: Any,
        metavar: str,
        help: str,
        section: str,
    ) -> None:
        self.name = name
        self.kind = kind
        self.default = default
        self.metavar = metavar
        self.help = help
        self.section = section

    @property
    def attribute(self) -> str:
        """Return the name of the attribute that holds the value."""
        return self.name.removeprefix("no-").replace("-", "_")

    @property
    def takes_value(self) -> bool:
        """Return whether the option is followed by a value."""
        return self.kind not in ("flag", "off")


LISTEN = "Where it listens"
ROUTING = "Where requests go"
FORWARD = "What is forwarded"
TLS = "TLS"
LIMITS = "Limits"
PROCESS = "The process"

OPTIONS: tuple[Option, ...] = (
    Option("ip", "text", "", "ADDRESS", "public address; empty or * for all", LISTEN),
    Option("port", "port", 8000, "N", "public port; 0 for any free one", LISTEN),
    Option("api-ip", "text", "localhost", "ADDRESS", "address of the REST API", LISTEN),
    Option("api-port", "port", -1, "N", "port of the REST API (port + 1)", LISTEN),
    Option("socket", "text", "", "PATH", "Unix socket instead of ip and port", LISTEN),
    Option("api-socket", "text", "", "PATH", "Unix socket of the REST API", LISTEN),
    Option("redirect-port", "port", 0, "N", "port whose clients are sent to HTTPS", LISTEN),
    Option("redirect-to", "port", 0, "N", "port they are sent to (the public one)", LISTEN),
    Option("default-target", "text", "", "URL", "target of the route /", ROUTING),
    Option(
        "wait-for-default", "flag", False, "", "answer nobody before there is a route /", ROUTING
    ),
    Option("error-target", "text", "", "URL", "server that renders error pages", ROUTING),
    Option("error-path", "text", "", "DIR", "directory of error pages (404.html, ...)", ROUTING),
    Option("host-routing", "flag", False, "", "the host is the first part of a route", ROUTING),
    Option("no-x-forward", "off", True, "", "add no X-Forwarded-* fields", FORWARD),
    Option("no-prepend-path", "off", True, "", "do not put the target's path in front", FORWARD),
    Option("no-include-prefix", "off", True, "", "cut the route's prefix off the path", FORWARD),
    Option("auto-rewrite", "flag", False, "", "redirects name the client's host", FORWARD),
    Option("protocol-rewrite", "text", "", "PROTO", "redirects get this protocol", FORWARD),
    Option("change-origin", "flag", False, "", "Host names the target", FORWARD),
    Option("custom-header", "header", (), "NAME:VALUE", "add to requests; repeatable", FORWARD),
    Option("ssl-key", "text", "", "FILE", "key of the public side", TLS),
    Option("ssl-cert", "text", "", "FILE", "certificate chain of the public side", TLS),
    Option("ssl-ca", "text", "", "FILE", "authorities for clients' certificates", TLS),
    Option("ssl-request-cert", "flag", False, "", "clients must show a certificate", TLS),
    Option("ssl-reject-unauthorized", "flag", False, "", "implied by the former", TLS),
    Option("ssl-protocol", "text", "", "VERSION", "this version only: TLSv1_2, TLSv1_3", TLS),
    Option("ssl-ciphers", "text", "", "LIST", "OpenSSL cipher list, all sides", TLS),
    Option("ssl-allow-rc4", "flag", False, "", "allow RC4 where OpenSSL still has it", TLS),
    Option("ssl-dhparam", "text", "", "FILE", "Diffie-Hellman parameters", TLS),
    Option("api-ssl-key", "text", "", "FILE", "key of the REST API", TLS),
    Option("api-ssl-cert", "text", "", "FILE", "certificate chain of the REST API", TLS),
    Option("api-ssl-ca", "text", "", "FILE", "authorities for its clients", TLS),
    Option("api-ssl-request-cert", "flag", False, "", "its clients must show one", TLS),
    Option("api-ssl-reject-unauthorized", "flag", False, "", "implied by the former", TLS),
    Option("client-ssl-key", "text", "", "FILE", "key shown to targets", TLS),
    Option("client-ssl-cert", "text", "", "FILE", "certificate shown to targets", TLS),
    Option("client-ssl-ca", "text", "", "FILE", "authorities for targets (system's)", TLS),
    Option("client-ssl-request-cert", "flag", False, "", "targets always must show one", TLS),
    Option("client-ssl-reject-unauthorized", "flag", False, "", "so without --insecure", TLS),
    Option("insecure", "flag", False, "", "do not verify targets' certificates", TLS),
    Option("timeout", "ms", 0, "MS", "client silent during a request (0: for ever)", LIMITS),
    Option("proxy-timeout", "ms", 0, "MS", "target silent during a request (0)", LIMITS),
    Option("keep-alive-timeout", "ms", 5000, "MS", "client idle between requests (5000)", LIMITS),
    Option("header-timeout", "ms", 60000, "MS", "a request's head to arrive (60000)", LIMITS),
    Option("body-timeout", "ms", 120000, "MS", "client stalled within a body (120000)", LIMITS),
    Option("tunnel-timeout", "ms", 0, "MS", "tunnel idle in both directions (0)", LIMITS),
    Option("connect-timeout", "ms", 10000, "MS", "target to accept (10000)", LIMITS),
    Option("max-connections", "number", 0, "N", "clients at once (0: what fits)", LIMITS),
    Option("max-connections-per-ip", "number", 0, "N", "of one address (0: no limit)", LIMITS),
    Option("drain-timeout", "ms", 5000, "MS", "for requests in flight at the end (5000)", LIMITS),
    Option("max-head-bytes", "number", 65536, "N", "size of a head (65536)", LIMITS),
    Option("max-line-bytes", "number", 32768, "N", "of one line in it (32768)", LIMITS),
    Option("workers", "number", 0, "N", "serve in so many processes of their own", PROCESS),
    Option("threads", "number", 0, "N", "loop threads (1; cores without the GIL)", PROCESS),
    Option("metrics-ip", "text", "", "ADDRESS", "address of the metrics port", PROCESS),
    Option("metrics-port", "port", 0, "N", "serve /metrics for prometheus here", PROCESS),
    Option("metrics-socket", "text", "", "PATH", "or on this Unix socket", PROCESS),
    Option("statsd-host", "text", "", "HOST", "send counters to a statsd here", PROCESS),
    Option("statsd-port", "port", 8125, "N", "its port (8125)", PROCESS),
    Option("statsd-prefix", "text", "chp", "NAME", "in front of their names (chp)", PROCESS),
    Option("storage-backend", "refused", "", "CLASS", "not supported: a node module", PROCESS),
    Option("log-level", LEVELS, "info", "LEVEL", "debug, info, warn or error (info)", PROCESS),
    Option("pid-file", "text", "", "FILE", "write the process id here", PROCESS),
    Option("version", "flag", False, "", "print the version", PROCESS),
    Option("help", "flag", False, "", "print this text", PROCESS),
)

_BY_NAME = {f"--{option.name}": option for option in OPTIONS}
_SHORT = {"-V": "--version", "-h": "--help"}


class Options:
    """The values of all options, as attributes, and the secrets from the environment."""

    def __init__(self) -> None:
        for option in OPTIONS:
            setattr(self, option.attribute, option.default)
        self.auth_token = ""
        self.ssl_key_passphrase = ""
        self.api_ssl_key_passphrase = ""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the proxy has no option {name!r}")


def parse(argv: list[str], environ: Mapping[str, str] = os.environ) -> Options:
    """Read a command line, without the program's name. Raises UsageError."""
    options = Options()
    given: set[str] = set()
    queue = list(argv)
    while queue:
        word = queue.pop(0)
        name, equals, value = word.partition("=")
        name = _SHORT.get(name, name)
        option = _BY_NAME.get(name)
        if option is None:
            raise UsageError(_unknown(word))
        given.add(option.name)
        if not option.takes_value:
            if equals:
                raise UsageError(f"{name} takes no value, but got {value!r}")
            setattr(options, option.attribute, option.kind == "flag")
            continue
        if not equals:
            if not queue:
                raise UsageError(f"{name} needs a value: {name} {option.metavar}")
            value = queue.pop(0)
        if option.kind == "refused":
            raise UsageError(
                f"{name} {value}: storage backends are node modules; this proxy keeps its routes"
                " in memory, and the hub restores them"
            )
        read = _read_value(option, value)
        if option.kind == "header":
            read = (*getattr(options, option.attribute), read)
        setattr(options, option.attribute, read)
    options.auth_token = environ.get("CONFIGPROXY_AUTH_TOKEN", "")
    options.ssl_key_passphrase = environ.get("CONFIGPROXY_SSL_KEY_PASSPHRASE", "")
    options.api_ssl_key_passphrase = environ.get("CONFIGPROXY_API_SSL_KEY_PASSPHRASE", "")
    options.custom_headers = options.custom_header
    _check(options, given)
    return options


def _check(options: Options, given: set[str]) -> None:
    if options.api_port < 0:
        options.api_port = options.port + 1 if options.port else 0
        if options.api_port > 65535:
            raise UsageError("--api-port is port + 1, which is above 65535: give it")
    for socket, rivals in (
        ("socket", ("ip", "port")),
        ("api-socket", ("api-ip", "api-port")),
        ("metrics-socket", ("metrics-ip", "metrics-port")),
    ):
        for rival in rivals:
            if socket in given and rival in given:
                raise UsageError(f"--{socket} and --{rival} exclude each other")
    if options.redirect_port and not options.ssl_cert:
        raise UsageError("HTTPS redirection specified but certificates not provided.")
    if options.redirect_to and not options.redirect_port:
        raise UsageError("--redirect-to needs --redirect-port")
    if options.redirect_port and options.socket and not options.redirect_to:
        raise UsageError("--redirect-port with --socket needs --redirect-to")
    for side in ("", "api_", "client_"):
        flag = "--" + side.replace("_", "-") + "ssl"
        if getattr(options, f"{side}ssl_key") and not getattr(options, f"{side}ssl_cert"):
            raise UsageError(f"{flag}-key needs {flag}-cert")
    for side in ("", "api_"):
        flag = "--" + side.replace("_", "-") + "ssl"
        asks = getattr(options, f"{side}ssl_request_cert")
        if getattr(options, f"{side}ssl_reject_unauthorized") and not asks:
            raise UsageError(f"{flag}-reject-unauthorized needs {flag}-request-cert")
        if asks and not getattr(options, f"{side}ssl_cert"):
            raise UsageError(f"{flag}-request-cert needs {flag}-cert")
    if options.insecure and options.client_ssl_reject_unauthorized:
        raise UsageError("--insecure and --client-ssl-reject-unauthorized exclude each other")
    if options.error_target and options.error_path:
        raise UsageError("Cannot specify both error-target and error-path. Pick one.")


def _read_value(option: Option, value: str) -> Any:
    name = f"--{option.name}"
    if isinstance(option.kind, tuple):
        if value.lower() not in option.kind:
            raise UsageError(f"{name} is one of {', '.join(option.kind)}, not {value!r}")
        return value.lower()
    if option.kind in ("port", "number", "ms"):
        try:
            number = int(value)
        except ValueError:
            raise UsageError(f"{name} is a number, not {value!r}") from None
        if number < 0 or (option.kind == "port" and number > 65535):
            raise UsageError(f"{name} is out of range: {value}")
        return number
    if option.kind == "header":
        field, colon, content = value.strip().partition(":")
        field, content = field.strip(), content.strip()
        if not colon or not field:
            raise UsageError(f"A colon was expected in custom header: {value.strip()}")
        if not field.isascii() or any(char in ' \t\r\n()<>@,;:\\"/[]?={}' for char in field):
            raise UsageError(f"{name}: {field!r} is no name of a header field")
        if any(ord(char) < 32 and char != "\t" for char in content) or "\x7f" in content:
            raise UsageError(f"{name}: the value of {field!r} holds a control character")
        return field, content
    return value


def _unknown(word: str) -> str:
    import difflib

    text = f"unknown option {word!r}" if word.startswith("-") else f"unexpected argument {word!r}"
    near = difflib.get_close_matches(word.partition("=")[0], list(_BY_NAME), 1)
    return f"{text}. Did you mean {near[0]}?" if near else f"{text}. See --help."


def usage() -> str:
    """Return the help text."""
    lines = [
        "Usage: minihub.pyz proxy [options]",
        "",
        "An HTTP proxy with a REST API for its routes, a stand-in for configurable-http-proxy.",
    ]
    section = ""
    for option in OPTIONS:
        if option.section != section:
            section = option.section
            lines += ["", f"{section}:"]
        left = f"  --{option.name} {option.metavar}".rstrip()
        lines.append(f"{left:<30} {option.help}")
    lines += [
        "",
        "Environment:",
        "  CONFIGPROXY_AUTH_TOKEN              secret that REST API requests must carry",
        "  CONFIGPROXY_SSL_KEY_PASSPHRASE      opens --ssl-key",
        "  CONFIGPROXY_API_SSL_KEY_PASSPHRASE  opens --api-ssl-key",
    ]
    return "\n".join(lines) + "\n"
