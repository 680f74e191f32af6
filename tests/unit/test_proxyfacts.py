"""What is kept of a running proxy."""

import json

import pytest

from minihub.errors import ProxyError
from minihub.proxyfacts import ProxyFacts, load, save

FACTS = ProxyFacts(
    pid=12,
    create_time=1.5,
    marker="m",
    auth_token="secret",
    api_url="http://127.0.0.1:8001",
    public_port=8000,
    asked=["ThreadedProxy", "8000"],
)


def test_what_is_saved_is_found_and_only_for_its_owner(tmp_path):
    path = tmp_path / "proxy.json"
    save(path, FACTS)
    save(path, FACTS)  # over the old one
    assert load(path) == FACTS
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["proxy.json"]


def test_no_file_is_no_proxy(tmp_path):
    assert load(tmp_path / "proxy.json") is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"pid": 1}', "\xff"])
def test_file_that_cannot_be_understood_is_none(tmp_path, text):
    (tmp_path / "proxy.json").write_text(text, encoding="latin-1")
    assert load(tmp_path / "proxy.json") is None


@pytest.mark.parametrize("change", [{"pid": "12"}, {"create_time": None}, {"asked": "x"}])
def test_fact_of_the_wrong_kind_makes_the_file_none(tmp_path, change):
    from dataclasses import asdict

    (tmp_path / "proxy.json").write_text(json.dumps(asdict(FACTS) | change))
    assert load(tmp_path / "proxy.json") is None


def test_place_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(ProxyError, match="proxy.json cannot be written"):
        save(tmp_path / "absent" / "proxy.json", FACTS)
