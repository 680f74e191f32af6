"""What a warm parent makes beforehand is what the first such call gets, and nobody else."""

from __future__ import annotations

import os
import shutil
import ssl
import sys
import types
from pathlib import Path

import certifi
import pytest

from minihub import warmready


@pytest.fixture
def authorities(tmp_path, monkeypatch):
    """Let a program have certificates of its own; return their file."""
    file = tmp_path / "certifi" / "cacert.pem"
    file.parent.mkdir()
    shutil.copy(certifi.where(), file)
    module = types.ModuleType("certifi")
    module.__file__ = str(file.with_name("__init__.py"))
    monkeypatch.setitem(sys.modules, "certifi", module)
    monkeypatch.setitem(sys.modules, "httpx", types.ModuleType("httpx"))
    monkeypatch.setattr(ssl, "create_default_context", ssl.create_default_context)
    monkeypatch.delenv("SSLKEYLOGFILE", raising=False)
    yield str(file)
    warmready._contexts.clear()


def test_first_call_gets_what_was_made_and_leaves_no_trace(authorities):
    original = ssl.create_default_context
    warmready.make()
    ((_facts, made),) = warmready._contexts.values()
    warmready.hand_out()
    other = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    assert other is not made and other.protocol == ssl.PROTOCOL_TLS_SERVER
    assert ssl.create_default_context(cadata=Path(authorities).read_text()) is not made
    found = ssl.create_default_context(cafile=authorities)
    assert found is made
    assert ssl.create_default_context is original and warmready._contexts == {}
    again = ssl.create_default_context(cafile=authorities)
    assert again is not made
    assert found.get_ca_certs() == again.get_ca_certs() != []
    for name in ("verify_mode", "check_hostname", "options", "verify_flags", "minimum_version"):
        assert getattr(found, name) == getattr(again, name)


def test_whoever_kept_the_function_that_hands_out_gets_the_real_one_after_that(authorities):
    warmready.make()
    warmready.hand_out()
    kept = ssl.create_default_context
    first, second = kept(cafile=authorities), kept(cafile=authorities)
    assert first is not second and second.cert_store_stats() == first.cert_store_stats()
    with pytest.raises(FileNotFoundError):
        kept(cafile="/no/such/file")


def test_changed_authorities_are_read_again(authorities):
    warmready.make()
    ((_facts, made),) = warmready._contexts.values()
    text = Path(authorities).read_text()
    first, mark, _rest = text.partition("-----END CERTIFICATE-----\n")
    Path(authorities).write_text(first + mark)
    warmready.hand_out()
    found = ssl.create_default_context(cafile=authorities)
    assert found is not made and len(found.get_ca_certs()) == 1


def test_authorities_that_are_gone_fail_as_they_would(authorities):
    warmready.make()
    os.unlink(authorities)
    warmready.hand_out()
    with pytest.raises(FileNotFoundError):
        ssl.create_default_context(cafile=authorities)


def test_server_that_logs_its_keys_makes_its_own(authorities, monkeypatch, tmp_path):
    original = ssl.create_default_context
    warmready.make()
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    warmready.hand_out()
    assert ssl.create_default_context is original and warmready._contexts == {}
    assert ssl.create_default_context(cafile=authorities).keylog_filename


def test_nothing_is_made_that_nobody_would_ask_for(authorities, monkeypatch):
    monkeypatch.delitem(sys.modules, "httpx")
    original = ssl.create_default_context
    warmready.make()
    warmready.hand_out()
    assert warmready._contexts == {} and ssl.create_default_context is original
