"""Addresses: where people reach the hub, and where its parts reach each other.

Rules of this file: every URL that leaves the program begins here; nothing is opened or bound.

Threads: any; pure functions of the options.
"""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path
from urllib.parse import urlsplit

from . import machine, subdomains
from .hookinfo import HubInfo
from .options import JupyterHub

#: What an ``ip`` option holds when it means every address.
ALL_ADDRESSES = ("", "*", "0.0.0.0", "::")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def in_url(host: str) -> str:
    """Return a host or address as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def scheme(options: JupyterHub) -> str:
    """Return ``https`` when the proxy has a certificate, or when bind_url says that TLS ends
    before the proxy."""
    return "https" if options.ssl_cert or options.bind_url.startswith("https:") else "http"


def bound_url(options: JupyterHub, port: int, host: str = "") -> str:
    """Return the URL of the public side on this machine, at ``host`` (default: the nearest)."""
    host = host or ("127.0.0.1" if options.ip in ALL_ADDRESSES else options.ip)
    proto = scheme(options)
    suffix = "" if port == _DEFAULT_PORTS[proto] else f":{port}"
    return f"{proto}://{in_url(host)}{suffix}{options.base_url}"


def public_url(options: JupyterHub) -> str:
    """Return the URL of the whole site where the configuration says it, else an empty text."""
    if not options.public_url:
        return options.subdomain_host + options.base_url if options.subdomain_host else ""
    parts = urlsplit(options.public_url)
    return f"{parts.scheme}://{parts.netloc}{options.base_url}"


def public_urls(options: JupyterHub, port: int) -> list[str]:
    """Return the URLs under which people reach the hub, the best first."""
    known = public_url(options)
    if known:
        return [known]
    nearest = bound_url(options, port)
    if options.ip not in ALL_ADDRESSES:
        return [nearest]
    return [nearest, *(bound_url(options, port, host) for host in machine.lan_addresses())]


def invitations(options: JupyterHub, port: int, seen: str = "") -> list[str]:
    """Return the URLs of the site to tell people who sit elsewhere, the likeliest first.

    This machine's addresses are looked up anew each time: a laptop moves. ``seen`` is the origin
    (``scheme://host[:port]``) under which somebody reaches the hub right now; unless that is this
    machine to itself it works for others too. Empty where nobody else can reach the hub.
    """
    known = public_url(options)
    if known:
        return [known]
    found = []
    if seen and not _is_loopback(urlsplit(seen).hostname or ""):
        found.append(seen + options.base_url)
    if options.ip in ALL_ADDRESSES:
        found += [bound_url(options, port, host) for host in machine.lan_addresses()]
    elif not _is_loopback(options.ip):
        found.append(bound_url(options, port))
    return list(dict.fromkeys(found))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("", "localhost") or host.endswith(".localhost")


def own_hosts(options: JupyterHub) -> tuple[str, ...]:
    """Return the values of ``Host`` (``name[:port]``) that the configuration says are ours."""
    urls = (public_url(options), options.subdomain_host)
    return tuple({urlsplit(url).netloc for url in urls if url})


def hub_info(options: JupyterHub, state_dir: Path, hub_port: int) -> HubInfo:
    """Return what spawners and services are told of the hub that listens on ``hub_port``."""
    connect_ip = options.hub_connect_ip or options.hub_ip
    if connect_ip in ALL_ADDRESSES:
        connect_ip = socket.gethostname()
    port = options.hub_connect_port or hub_port
    proto = urlsplit(options.hub_connect_url).scheme or "http"
    hook = options.subdomain_hook
    local = ""
    if options.hub_ip in ALL_ADDRESSES:  # the machine's own name may mean nothing to itself
        loopback = "[::1]" if options.hub_ip == "::" else "127.0.0.1"
        local = f"http://{loopback}:{hub_port}{options.base_url}hub/api"
    return HubInfo(
        base_url=options.base_url,
        api_url=f"{proto}://{in_url(connect_ip)}:{port}{options.base_url}hub/api",
        public_host=options.subdomain_host,
        public_url=public_url(options),
        state_dir=state_dir,
        admin_access=options.admin_access,
        cookie_host_prefix_enabled=options.cookie_host_prefix_enabled,
        cookie_options=options.tornado_settings.get("cookie_options", {}),
        local_api_url=local,
        subdomain_hook=hook if callable(hook) else subdomains.HOOKS[hook],
    )
