"""Secrets and their stored forms."""

import pytest

from minihub import tokens


def test_new_tokens_have_256_bits_and_differ():
    made = {tokens.new_token() for _ in range(50)}
    assert len(made) == 50
    assert all(len(bytes.fromhex(token)) == 32 for token in made)


@pytest.mark.parametrize("rounds", [1, 16384])
def test_token_matches_its_own_hash_only(rounds):
    hashed = tokens.hash_token("secret-token", rounds=rounds)
    assert tokens.check_token("secret-token", hashed)
    assert not tokens.check_token("secret-tokem", hashed)
    assert "secret-token" not in hashed


def test_same_token_hashes_differently_each_time():
    assert tokens.hash_token("x" * 20) != tokens.hash_token("x" * 20)


def test_hash_made_by_jupyterhub_is_understood():
    """sha512 over salt, then the token ``rounds`` times."""
    import hashlib

    digest = hashlib.sha512(b"abcd" + b"tok" * 3).hexdigest()
    assert tokens.check_token("tok", f"sha512:3:abcd:{digest}")


def test_token_of_another_algorithm_is_refused():
    assert not tokens.check_token("tok", "md5:1:aa:bb")


def test_password_matches_its_own_hash_only():
    hashed = tokens.hash_password("correct horse")
    assert tokens.check_password("correct horse", hashed)
    assert not tokens.check_password("correct horsf", hashed)
    assert not tokens.check_password("x" * 2_000_000, hashed)


def test_overlong_password_is_refused():
    with pytest.raises(ValueError, match="at most 1024"):
        tokens.hash_password("x" * 1025)


def test_same_secret_copes_with_any_text():
    assert tokens.same_secret("ä\ud800", "ä\ud800")
    assert not tokens.same_secret("a", "b")
