"""Keys in their three forms, and what they encrypt."""

from __future__ import annotations

import base64
import sys
import threading

import pytest
from traitlets import TraitError
from traitlets.config import Config

from minihub import crypto
from minihub.errors import ConfigError

RAW = bytes(range(32))
HEX = RAW.hex()
BASE64 = base64.urlsafe_b64encode(RAW).decode()
OTHER = "cd" * 32


def keeper(*keys, **more):
    return crypto.CryptKeeper(config=Config({"CryptKeeper": {"keys": list(keys), **more}}))


@pytest.mark.parametrize("form", [RAW, HEX, HEX.encode(), HEX.upper(), BASE64, f" {HEX}\n"])
def test_a_key_has_three_forms(form):
    assert crypto.read_key(form) == RAW


@pytest.mark.parametrize("wrong", ["short", "zz" * 32, b"x" * 31, "é" * 32 + "x"])
def test_wrong_keys_are_refused_without_being_shown(wrong):
    with pytest.raises(ValueError) as found:
        crypto.read_key(wrong)
    assert str(wrong) not in str(found.value)
    with pytest.raises(TraitError):
        keeper(wrong).keys  # noqa: B018


def test_first_key_encrypts_and_all_decrypt():
    text = keeper(HEX).encrypt({"a": [1, "é"]})
    assert isinstance(text, str) and "é" not in text
    assert keeper(OTHER, BASE64).decrypt(text) == {"a": [1, "é"]}
    again = keeper(OTHER, HEX).encrypt("x")
    with pytest.raises(crypto.Undecipherable):
        keeper(HEX).decrypt(again)
    with pytest.raises(crypto.Undecipherable):
        keeper(HEX).decrypt("no such thing")


def test_keys_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("JUPYTERHUB_CRYPT_KEY", f"{HEX}; {OTHER};")
    assert crypto.CryptKeeper().keys == [RAW, bytes.fromhex(OTHER)]
    monkeypatch.setenv("JUPYTERHUB_CRYPT_KEY", "wrong")
    with pytest.raises(ConfigError, match="environment JUPYTERHUB_CRYPT_KEY"):
        crypto.CryptKeeper().keys  # noqa: B018


def test_without_key_or_package_it_is_not_available(monkeypatch):
    monkeypatch.delenv("JUPYTERHUB_CRYPT_KEY", raising=False)
    keeper(HEX).check_available("An.option")
    with pytest.raises(ConfigError, match="An.option: needs a key"):
        keeper().check_available("An.option")
    monkeypatch.setitem(sys.modules, "cryptography.fernet", None)
    with pytest.raises(ConfigError, match="An.option: needs the Python package cryptography"):
        keeper(HEX).check_available("An.option")


def test_no_more_threads_than_asked_for_encrypt_at_once():
    one = keeper(HEX, n_threads=2)
    inside, most, gate = [0], [0], threading.Lock()

    class Slow:
        def encrypt(self, data: bytes) -> bytes:
            with gate:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            threading.Event().wait(0.02)
            with gate:
                inside[0] -= 1
            return data

    one._fernet = Slow()
    threads = [threading.Thread(target=one.encrypt, args=("x",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 2


def test_cryptography_is_imported_when_needed_only():
    import subprocess

    program = "import sys; from minihub import crypto; print('cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
