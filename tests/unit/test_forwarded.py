"""Whose word about a client counts."""

import pytest

from minihub.web.forwarded import Trust

CHAIN = "198.51.100.7, 203.0.113.9, 10.0.0.5"


@pytest.mark.parametrize(
    "trusted, client, scheme",
    [
        ((), "10.0.0.5", "http"),
        (("10.0.0.5",), "203.0.113.9", "https"),
        (("10.0.0.0/8", "203.0.113.9"), "198.51.100.7", "https"),
        (("0.0.0.0/0",), "198.51.100.7", "https"),
        (("192.0.2.1",), "10.0.0.5", "http"),
        (("2001:db8::/32",), "10.0.0.5", "http"),
    ],
)
def test_elements_count_as_long_as_those_to_the_right_are_trusted(trusted, client, scheme):
    trust = Trust(trusted)
    assert trust.client(CHAIN, "127.0.0.1") == client
    assert trust.scheme("https, https, http", CHAIN) == scheme


def test_proxy_that_tells_no_scheme_does_not_shift_the_others():
    assert Trust(["10.0.0.5"]).scheme("http", CHAIN) == "http"
    assert Trust().scheme("", "") == "http"
    assert Trust().scheme("javascript", CHAIN) == "http"


def test_without_the_field_the_peer_is_the_client():
    assert Trust(["0.0.0.0/0"]).client("", "192.0.2.3") == "192.0.2.3"


@pytest.mark.parametrize("forged", ["not an address", "10.0.0.5x", "unknown"])
def test_nonsense_in_the_chain_is_no_trusted_address(forged):
    assert Trust(["10.0.0.5"]).client(f"192.0.2.1, {forged}, 10.0.0.5", "") == forged


def test_ipv4_address_written_as_ipv6_is_the_same():
    assert Trust(["10.0.0.0/8"]).client("192.0.2.1, ::ffff:10.1.1.1", "") == "192.0.2.1"


def test_network_that_is_none_is_refused():
    with pytest.raises(ValueError):
        Trust(["10.0.0.0/99"])
