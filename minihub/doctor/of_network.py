"""Checks of the network: ports, addresses, names, certificates, what stands before the hub.

Rules of this file: as in :mod:`minihub.doctor`. Ports are bound for a moment while no hub runs;
no other machine is asked for anything but its name.

Threads: as in :mod:`minihub.doctor.patient`.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from .. import addresses, clock, hublock, machine, process
from ..durations import words
from ..web.hosts import THIS_MACHINE, Hosts
from .finding import Word, check, fail, fine, unseen, warn
from .of_running import get
from .patient import Patient

#: Certificates are renewed before so much of their life is left, in seconds and as a part.
RENEWAL_S = 14 * 86400.0
RENEWAL_PART = 0.25


@check(
    "ports",
    "The ports are free for the hub",
    "The hub does not start.",
)
def ports(patient: Patient) -> Iterator[Word]:
    options = patient.options
    if hublock.is_held(patient.state_dir):
        yield fine("the hub has them")
        return
    proxy = options.proxy_class(config=patient.config)
    wanted = [("JupyterHub.hub_port", options.hub_ip, options.hub_port)]
    if proxy.should_start and not _has_own_proxy(patient):
        wanted.append(("JupyterHub.port", options.ip, options.port))
        api = urlsplit(proxy.api_url)
        if proxy.trait_has_value("api_url") and api.port:
            name = f"{type(proxy).__name__}.api_url"
            wanted.append((name, api.hostname or "", api.port))
    for option, ip, port in wanted:
        if port:
            yield from _bound(patient, option, ip, port)
    yield fine(", ".join(str(port) for _option, _ip, port in wanted if port) or "any free ones")


def _has_own_proxy(patient: Patient) -> bool:
    """Return whether the proxy of the last hub runs, which the next one goes on with."""
    facts = patient.proxy
    return facts is not None and process.alive(
        process.Identity(facts.pid, facts.create_time), facts.marker
    )


def _bound(patient: Patient, option: str, ip: str, port: int) -> Iterator[Word]:
    """Try to listen at a port, as the hub would."""
    host = "" if ip == "*" else ip
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    where = f"{option}: port {port} on {ip or 'all addresses'}"
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(1)
            return
        except OSError as error:
            number, said = error.errno, error.strerror or str(error)
    flag = f"--{option}"
    if option.endswith("api_url"):
        again = patient.command(f"{flag}=http://127.0.0.1:0")
    else:
        again = patient.command(f"{flag}={_free_port(host, family, port)}")
    if number == errno.EADDRINUSE:
        holder = machine.port_holder(port)
        yield fail(f"{where} is in use by {holder or 'a program that cannot be seen'}", again)
    elif number in (errno.EACCES, errno.EPERM):
        yield fail(f"{where}: only root may listen there", again)
    elif number == errno.EADDRNOTAVAIL:
        option_of_ip = option.replace("port", "ip")
        yield fail(
            f"{where}: this machine has no such address",
            patient.command(f"--{option_of_ip}=127.0.0.1"),
        )
    else:
        yield fail(f"{where}: {said}", again)


def _free_port(host: str, family: int, taken: int) -> int:
    """Return the next port that is free."""
    for port in range(max(taken, 7999) + 1, 65536):
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((host, port))
                return port
            except OSError:
                continue
    return 0


@check(
    "addresses",
    "People on other machines can reach the hub",
    "It works on this machine and on no other.",
    patience_s=60.0,
)
def reach(patient: Patient) -> Iterator[Word]:
    options = patient.options
    running = patient.hub is not None
    port = patient.proxy.public_port if running and patient.proxy else options.port
    urls = addresses.invitations(options, port)
    if not urls:
        if patient.authenticator.keeps_passwords:
            yield warn(
                "the hub listens on this machine alone, so that no class can join",
                patient.command("--ip=0.0.0.0"),
            )
        yield fine("the hub is for this machine alone")
        return
    if running:
        for url in urls:
            try:
                get(f"{url}hub/api")
            except OSError as error:
                why = error.strerror or str(error) or "no answer"
                known = addresses.public_url(options) == url
                yield warn(
                    f"{url} does not answer ({why})"
                    + ("; this machine may be kept from its own name" if known else
                       "; a firewall may hold it back"),
                    _open_port(port) if not known else f"getent hosts {urlsplit(url).hostname}",
                )  # fmt: skip
    yield fine(", ".join(urls))


def _open_port(port: int) -> str:
    """Return the command that opens a port in the firewall of this machine."""
    if os.path.exists("/etc/ufw/ufw.conf"):
        return f"sudo ufw allow {port}/tcp"
    if os.path.exists("/etc/firewalld"):
        return f"sudo firewall-cmd --add-port={port}/tcp --permanent && sudo firewall-cmd --reload"
    return "sudo nft list ruleset"


@check(
    "allowed-hosts",
    "The names people use are names of the hub",
    "Who opens the link that the hub itself shows gets an error.",
)
def allowed_hosts(patient: Patient) -> Iterator[Word]:
    options = patient.options
    if not options.allowed_hosts:
        return
    known = Hosts(options.allowed_hosts, addresses.own_hosts(options))
    shut = [url for url in addresses.invitations(options, options.port)
            if not known.knows(urlsplit(url).netloc)]  # fmt: skip
    if shut:
        more = [*options.allowed_hosts, THIS_MACHINE]
        text = ", ".join(f'"{name}"' for name in more)
        yield warn(
            f"JupyterHub.allowed_hosts keeps out whoever uses {shut[0]}",
            patient.command(f"--JupyterHub.allowed_hosts=[{text}]"),
        )


@check(
    "subdomains",
    "Hosts of users lead to this machine",
    "No browser finds anybody's server.",
)
def subdomains(patient: Patient) -> Iterator[Word]:
    host = urlsplit(patient.options.subdomain_host).hostname or ""
    if not host:
        return
    name = f"somebody.{host}"
    try:
        socket.getaddrinfo(name, None)
    except OSError as error:
        yield warn(
            f"the name {name} is not known ({error.strerror or error})",
            f"Add a wildcard to the DNS: *.{host} to the addresses of {host}",
        )


# -- certificates --------------------------------------------------------------------------


@check(
    "certificate",
    "The certificate is good, and for this hub's name",
    "Browsers warn everybody away.",
)
def certificate(patient: Patient) -> Iterator[Word]:
    options = patient.options
    if not options.ssl_cert or not options.ssl_key:
        yield fine("none is used")
        return
    cert, key = options.ssl_cert, options.ssl_key
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key, password=lambda: "")
    except (OSError, ValueError) as error:
        why = "do not fit together" if "MISMATCH" in str(error) else f"cannot be used ({error})"
        yield fail(f"{cert} and {key} {why}", f"openssl x509 -in {cert} -noout -subject -dates")
        return
    try:
        facts: dict[str, Any] = ssl._ssl._test_decode_cert(cert)  # type: ignore[attr-defined]
        since = ssl.cert_time_to_seconds(facts["notBefore"])
        until = ssl.cert_time_to_seconds(facts["notAfter"])
    except (AttributeError, OSError, ValueError, KeyError) as error:
        yield unseen(f"this Python cannot read {cert}: {error}")
        return
    now = clock.utcnow().timestamp()
    mend = "certbot renew" if "letsencrypt" in os.path.realpath(cert) else _new_certificate(patient)
    if until <= now:
        yield fail(f"{cert} ended {words(now - until)} ago ({facts['notAfter']})", mend)
    elif since > now:
        yield fail(f"{cert} begins only in {words(since - now)} ({facts['notBefore']})", mend)
    elif until - now < min(RENEWAL_S, (until - since) * RENEWAL_PART):
        yield warn(f"{cert} ends in {words(until - now)} ({facts['notAfter']})", mend)
    names = [text for _kind, text in facts.get("subjectAltName", ())]
    for host in _hosts_to_cover(patient):
        if not any(_covers(name, host) for name in names):
            yield warn(f"{cert} is not for {host} but for {', '.join(names) or 'nobody'}", mend)
    yield fine(f"{cert}, until {facts['notAfter']}")


def _hosts_to_cover(patient: Patient) -> list[str]:
    options = patient.options
    found = [urlsplit(addresses.public_url(options)).hostname or ""]
    if options.subdomain_host:
        found.append(f"somebody.{urlsplit(options.subdomain_host).hostname}")
    return [host for host in found if host]


def _new_certificate(patient: Patient) -> str:
    """Return the command for a certificate that vouches for itself."""
    hosts = [host.replace("somebody.", "*.", 1) for host in _hosts_to_cover(patient)]
    hosts = hosts or [socket.gethostname()]
    kinds = (f"{'IP' if host.replace('.', '').isdecimal() else 'DNS'}:{host}" for host in hosts)
    return (
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 365 -subj '/CN={hosts[0]}' "
        f"-addext 'subjectAltName={','.join(kinds)}' "
        f"-keyout {patient.options.ssl_key} -out {patient.options.ssl_cert}"
    )


def _covers(name: str, host: str) -> bool:
    """Return whether a name of a certificate is a host's (RFC 6125: one label for a star)."""
    name, host = name.lower(), host.lower()
    if name.startswith("*."):
        return host.partition(".")[2] == name[2:]
    return name == host


@check(
    "forwarded",
    "What the web server before the hub says of clients is believed",
    "To log, limits and the throttle of logins everybody is one address.",
)
def forwarded(patient: Patient) -> Iterator[Word]:
    options = patient.options
    public = addresses.public_url(options) or options.bind_url
    if not public.startswith("https:") or options.ssl_cert:
        return
    if not options.trusted_downstream_ips:
        yield warn(
            f"people come by {public} through another server, and "
            "JupyterHub.trusted_downstream_ips is empty",
            patient.command('--JupyterHub.trusted_downstream_ips=["127.0.0.1"]'),
        )
