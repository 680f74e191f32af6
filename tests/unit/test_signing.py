"""Signed values, in tornado's format."""

import base64

import pytest

from minihub import signing

SECRET = b"s" * 32


def test_signed_value_comes_back():
    signed = signing.sign(SECRET, "cookie", "välue")
    assert signing.unsign(SECRET, "cookie", signed, max_age_days=1) == "välue"


def test_format_is_tornados_version_2():
    parts = signing.sign(SECRET, "name", "v").split("|")
    assert parts[0] == "2" and parts[1] == "1:0"
    assert parts[3] == "4:name"
    assert parts[4] == f"4:{base64.b64encode(b'v').decode()}"
    assert len(parts[5]) == 64


def test_other_name_secret_or_age_is_refused():
    signed = signing.sign(SECRET, "cookie", "v")
    assert signing.unsign(SECRET, "other", signed, max_age_days=1) is None
    assert signing.unsign(b"t" * 32, "cookie", signed, max_age_days=1) is None
    assert signing.unsign(SECRET, "cookie", signed, max_age_days=-1) is None


@pytest.mark.parametrize("position", range(0, 100, 7))
def test_any_changed_character_is_noticed(position):
    signed = signing.sign(SECRET, "cookie", "some longer value")
    position %= len(signed)
    changed = "x" if signed[position] != "x" else "y"
    broken = signed[:position] + changed + signed[position + 1 :]
    assert signing.unsign(SECRET, "cookie", broken, max_age_days=1) is None


@pytest.mark.parametrize("junk", ["", "|", "2|", "2|1:0|x", "a" * 9000, "2|1:0|\ud800|aa", "ü|ü"])
def test_junk_is_refused(junk):
    assert signing.unsign(SECRET, "cookie", junk, max_age_days=1) is None


def test_rightly_signed_nonsense_is_refused():
    """Only a holder of the secret can make it, but it must not raise either."""
    for head in ("2|1:0|", "2|x", "2|1:0|99:1|1:a|1:b|", "2|1:0|2:xx|6:cookie|4:dg==|"):
        mac = signing._mac(SECRET, head)
        assert signing.unsign(SECRET, "cookie", head + mac, max_age_days=1) is None
