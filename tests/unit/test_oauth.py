"""The authorization code flow, right and wrong."""

import base64
import hashlib
import json
from datetime import timedelta
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from minihub import clock, models
from minihub.accounts import Accounts
from minihub.errors import BadRequest
from minihub.oauth import OAuthProvider, OAuthRedirect
from minihub.store import Store

ORIGIN = "http://hub.example/hub/api/oauth2/"
CLIENT = "jupyterhub-user-ada"
CALLBACK = "/user/ada/oauth_callback"
ACCESS = "access:servers!server=ada/"


@pytest.fixture
def accounts(tmp_path):
    store = Store(f"{tmp_path}/hub.sqlite")
    store.open()
    with store.session():  # for what the tests read themselves
        yield Accounts(store, session_lifetime_s=1000)
    store.close()


@pytest.fixture
def provider(accounts):
    provider = OAuthProvider(accounts, token_lifetime_s=1209600)
    for name in (CLIENT, "other"):
        provider.register_client(
            name, secret="s3cret", redirect_uri=CALLBACK, access=ACCESS, description="x"
        )
    return provider


@pytest.fixture
def ada(accounts):
    return accounts.ensure_user("ada")[0]


def authorize_uri(**changes):
    query = {
        "client_id": CLIENT,
        "redirect_uri": CALLBACK,
        "response_type": "code",
        "state": "opaque/state==",
    }
    query |= changes
    return ORIGIN + "authorize?" + urlencode({k: v for k, v in query.items() if v is not None})


def get_code(provider, ada, **changes):
    uri = authorize_uri(**changes)
    asked = provider.validate_authorization(uri)
    location = provider.approve(uri, user=ada, session_id="sid", scopes=asked.scopes)
    answer = parse_qs(urlsplit(location).query)
    assert answer["state"] == ["opaque/state=="]
    return answer["code"][0]


def exchange(provider, code, headers=None, **changes):
    form = {
        "client_id": CLIENT,
        "client_secret": "s3cret",
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": CALLBACK,
    }
    form |= changes
    body = urlencode({k: v for k, v in form.items() if v is not None})
    status, _headers, text = provider.exchange(ORIGIN + "token", "POST", body, headers or {})
    return status, json.loads(text)


def test_code_becomes_a_token_bound_to_user_client_and_session(provider, accounts, ada):
    status, answer = exchange(provider, get_code(provider, ada))
    assert status == 200
    assert answer["token_type"] == "Bearer" and answer["expires_in"] == 1209600
    assert "refresh_token" not in answer
    token = accounts.find_token(answer["access_token"])
    assert token.user_id == ada.id and token.session_id == "sid"
    assert token.oauth_client.identifier == CLIENT
    assert set(token.scopes) == {ACCESS, "read:users:name!user", "read:users:groups!user"}
    assert set(answer["scope"].split()) == set(token.scopes)


def test_code_works_once(provider, ada):
    code = get_code(provider, ada)
    assert exchange(provider, code)[0] == 200
    assert exchange(provider, code) == (400, {"error": "invalid_grant"})


def test_code_expires(provider, ada, monkeypatch):
    code = get_code(provider, ada)
    moment = clock.utcnow() + timedelta(seconds=301)
    monkeypatch.setattr(clock, "utcnow", lambda: moment)
    assert exchange(provider, code) == (400, {"error": "invalid_grant"})


def test_code_of_another_client_is_refused(provider, ada):
    code = get_code(provider, ada)
    assert exchange(provider, code, client_id="other")[1] == {"error": "invalid_grant"}


@pytest.mark.parametrize("changes", [{"client_secret": "wrong"}, {"client_id": "nobody"}])
def test_client_must_prove_itself(provider, ada, changes):
    status, answer = exchange(provider, get_code(provider, ada), **changes)
    assert (status, answer["error"]) == (401, "invalid_client")


def test_client_may_prove_itself_by_basic_authentication(provider, ada):
    basic = base64.b64encode(f"{CLIENT}:s3cret".encode()).decode()
    status, _answer = exchange(
        provider,
        get_code(provider, ada),
        {"Authorization": f"Basic {basic}"},
        client_id=None,
        client_secret=None,
    )
    assert status == 200


def test_other_redirect_uri_at_the_exchange_is_refused(provider, ada):
    status, _answer = exchange(provider, get_code(provider, ada), redirect_uri="/user/ada/other")
    assert status == 400


def test_redirect_uri_absent_at_the_exchange_means_the_registered_one(provider, ada):
    assert exchange(provider, get_code(provider, ada), redirect_uri=None)[0] == 200


def test_redirect_uri_absent_at_authorization_means_the_registered_one(provider, ada):
    assert exchange(provider, get_code(provider, ada, redirect_uri=None))[0] == 200


def test_other_grants_are_refused(provider, ada):
    for grant in ("password", "client_credentials", "refresh_token", "implicit"):
        status, answer = exchange(provider, "x", grant_type=grant)
        assert (status, answer["error"]) == (400, "unsupported_grant_type")


def s256(verifier):
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def test_offered_challenge_must_be_met(provider, ada):
    verifier = "v" * 60
    offer = {"code_challenge": s256(verifier), "code_challenge_method": "S256"}
    assert exchange(provider, get_code(provider, ada, **offer))[0] == 400
    assert exchange(provider, get_code(provider, ada, **offer), code_verifier="w" * 60)[0] == 400
    assert exchange(provider, get_code(provider, ada, **offer), code_verifier=verifier)[0] == 200


def test_code_is_spent_by_a_wrong_verifier(provider, ada):
    verifier = "v" * 60
    code = get_code(provider, ada, code_challenge=s256(verifier), code_challenge_method="S256")
    exchange(provider, code, code_verifier="w" * 60)
    assert exchange(provider, code, code_verifier=verifier)[0] == 400


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "nobody"},
        {"client_id": None},
        {"redirect_uri": "/user/eve/oauth_callback"},
        {"redirect_uri": CALLBACK + "/"},
        {"redirect_uri": "http://evil.example" + CALLBACK},
        {"redirect_uri": "//evil.example" + CALLBACK},
        {"redirect_uri": ""},
    ],
)
def test_foreign_request_is_never_redirected(provider, changes):
    with pytest.raises(BadRequest):
        provider.validate_authorization(authorize_uri(**changes))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": None}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"scope": "admin:users"}, "invalid_scope"),
    ],
)
def test_clients_mistake_goes_back_to_the_client(provider, changes, error):
    with pytest.raises(OAuthRedirect) as caught:
        provider.validate_authorization(authorize_uri(**changes))
    location = urlsplit(caught.value.location)
    assert location.path == CALLBACK and not location.netloc
    answer = parse_qs(location.query)
    assert answer["error"] == [error] and answer["state"] == ["opaque/state=="]


def test_registering_again_replaces_the_secret(provider, ada):
    code = get_code(provider, ada)
    provider.register_client(
        CLIENT, secret="new", redirect_uri=CALLBACK, access=ACCESS, description="x"
    )
    assert models.OAuthClient.select().count() == 2
    assert exchange(provider, code)[0] == 401
    assert exchange(provider, get_code(provider, ada), client_secret="new")[0] == 200


def test_code_is_stored_hashed(provider, ada, accounts):
    code = get_code(provider, ada)
    with accounts.store.session() as db:
        assert code not in "\n".join(db.connection().iterdump())


@pytest.mark.parametrize("body", ["", "null", "x=%", "grant_type=%FF&code=%00", "a=1&a=2"])
def test_junk_is_the_clients_fault(provider, body):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    status, _headers, text = provider.exchange(ORIGIN + "token", "POST", body, form)
    assert 400 <= status < 500 and json.loads(text)["error"]


def test_token_request_has_no_query(provider):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    status, _headers, text = provider.exchange(ORIGIN + "token?x=1", "POST", "", form)
    assert status == 400 and json.loads(text)["error"] == "invalid_request"
    assert provider.exchange(ORIGIN + "token?%", "POST", "", form)[0] == 400
