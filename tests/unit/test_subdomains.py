"""Host names of users and services: fit for DNS, and never shared."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minihub import subdomains
from minihub.errors import MinihubError
from minihub.hookinfo import HubInfo


@pytest.mark.parametrize(
    "name, kind, host",
    [
        ("ada", "user", "ada.hub.org"),
        ("ada-l2", "user", "ada-l2.hub.org"),
        ("grader", "service", "grader--service.hub.org"),
        ("bücher", "user", "xn--bcher-kva.hub.org"),
        ("1234", "user", "u-1234--03ac674.hub.org"),
        ("xn--bcher-kva", "user", "u-xnbcherk--90a63de.hub.org"),
    ],
)
def test_idna_gives_readable_hosts_where_it_can(name, kind, host):
    found = subdomains.idna(name, "hub.org", kind)
    assert re.sub(r"--[0-9a-f]{7}\.", "--.", found) == re.sub(r"--[0-9a-f]{7}\.", "--.", host)


@given(st.text(min_size=1, max_size=80), st.sampled_from(["user", "service"]))
def test_idna_is_always_a_label(name, kind):
    label, _, domain = subdomains.idna(name, "hub.org", kind).partition(".")
    assert domain == "hub.org"
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", label)
    assert not label.isdecimal()


@pytest.mark.parametrize(
    "names",
    [
        ("straße", "strasse"),
        ("ada", "Ada", "ADA"),
        ("a.b", "a-b", "ab", "a_b"),
        ("grader--service", "grader"),
        ("u-ada--0000000", "ada"),
        ("bücher", "xn--bcher-kva"),
    ],
)
def test_two_names_never_share_a_host(names):
    hosts = {subdomains.idna(name, "d", "user") for name in names}
    hosts |= {subdomains.idna(name, "d", "service") for name in names}
    assert len(hosts) == 2 * len(names)


def test_legacy_has_one_host_for_all_services():
    assert subdomains.legacy("ada", "hub.org", "user") == "ada.hub.org"
    assert subdomains.legacy("a@b", "hub.org", "user") == "a_40b.hub.org"
    assert subdomains.legacy("x", "hub.org", "service") == "services.hub.org"


def _info(**facts):
    return HubInfo(api_url="http://127.0.0.1:8081/hub/api", state_dir=None, **facts)


def test_hub_without_subdomains_has_paths_only():
    info = _info()
    assert info.host_of("user", "ada") == "" and info.domain == ""
    assert info.routespec("", "/user/ada/") == "/user/ada/"


def test_hub_with_subdomains_has_hosts_with_its_port():
    info = _info(public_host="https://hub.org:8443")
    host = info.host_of("user", "ada")
    assert host == "https://ada.hub.org:8443" and info.domain == "hub.org"
    assert info.routespec(host, "/user/ada/") == "ada.hub.org/user/ada/"


@pytest.mark.parametrize("result", ["", "a b", "x/y", None, 3, "host\nname"])
def test_hook_that_gives_no_host_name_is_told(result):
    info = _info(public_host="https://hub.org", subdomain_hook=lambda name, domain, kind: result)
    with pytest.raises(MinihubError, match="subdomain_hook"):
        info.host_of("user", "ada")
